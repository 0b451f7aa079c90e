"""The examples with several workers, as their readers run them."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from helpers.commands import START_S, environment
from support import ROOT, serving, url_of, wait_until

import quicgreen
from quicgreen.testing import Certificate
from quicgreen.tickets import MemoryTicketStore

READY = re.compile(r"(?:serving on|\[worker \d+\] ready on) .*:(\d+)")


@contextlib.contextmanager
def example(name: str, *arguments: str, lines: int = 1, number: int = signal.SIGTERM) -> Iterator[int]:
    """Its port, once it has said in so many lines that it serves. It ends by the signal `number`, with status
    0 when that is TERM."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments, "--port", str(free)],
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        for _ in range(lines):
            said = READY.match(gevent.get_hub().threadpool.apply(process.stdout.readline))
            assert said is not None
            assert int(said[1]) == free
        yield free
        process.send_signal(number)
        assert wait_until(lambda: process.poll() is not None, START_S)
        assert process.returncode == (0 if number == signal.SIGTERM else -number)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()


def test_fork_per_core_server() -> None:
    with example("fork_per_core_server", "3", lines=3) as port:
        seen = set()
        for _ in range(60):
            with quicgreen.Session(verify=False, timeout=START_S) as session:
                seen.add(session.get(f"https://127.0.0.1:{port}/").text)
        assert seen == {"hello from 0\n", "hello from 1\n", "hello from 2\n"}


def test_workers_do_not_outlive_their_parent() -> None:
    with example("fork_per_core_server", "2", lines=2, number=signal.SIGKILL) as port:
        pass

    def free() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    assert wait_until(free, START_S)


def test_a_port_of_somebody_else() -> None:
    """It is not shared with strangers, of the same user either."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", 0))
        run = subprocess.run(
            [sys.executable, str(ROOT / "examples" / "fork_per_core_server.py"), "2", "--port",
             str(s.getsockname()[1])],
            capture_output=True,
            text=True,
            timeout=START_S,
        )  # fmt: skip
    assert "ready" not in run.stdout
    assert run.stderr.count("QuicServerException: the address cannot be bound") == 2


def test_ticket_resumption_multiworker(certificate: Certificate) -> None:
    """Worker ids differ, sessions are resumed, and early data is taken on workers that did not issue the
    ticket."""
    files = ("--cert", certificate.certfile, "--key", certificate.keyfile)
    with example("ticket_resumption_multiworker", "4", *files, lines=4) as port:
        store = MemoryTicketStore()
        workers, resumed, early = [], [], []
        for i in range(24):
            with quicgreen.Session(verify=certificate.ca_certs, tickets=store, timeout=START_S) as session:
                response = session.get(f"https://localhost:{port}/{i}")
                connection = response.connection
                found = re.fullmatch(rf"echo from worker (\d): /{i}\n", response.text)
                assert found is not None
                workers.append(found[1])
                assert wait_until(lambda: list(store.items()), START_S)
                resumed.append(connection.is_resumed)
                early.append(connection.early_data)
        assert len(set(workers)) > 1
        assert resumed == [False] + [True] * 23
        assert early == [None] + [True] * 23


class Backend:
    """A model: echoes what it is asked in pieces, and waits for a sign before the last one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go_on = Event()
        self.stopped = Event()
        self.requests: list[quicgreen.Request] = []

    def __call__(self, request: quicgreen.Request) -> None:
        self.requests.append(request)
        asked = request.read()
        headers = {"x-model": self.name, "content-type": "text/event-stream"}
        stream = request.start_response(200, headers)
        stream.write(b"data: first\n\n")
        try:
            self.go_on.wait(START_S)
            if b"break" in asked:
                raise gevent.GreenletExit
            stream.finish(b"data: " + asked + b"\n\n")
        except quicgreen.QuicStreamException:
            self.stopped.set()
            raise


@pytest.fixture
def models() -> Iterator[tuple[Backend, Backend, int]]:
    chat, embeddings = Backend("chat"), Backend("embeddings")
    with serving(chat) as a, serving(embeddings) as b:
        urls = [url_of(server).rstrip("/") for server in (a, b)]
        arguments = ["2", "--insecure", "--chat", urls[0], "--embeddings", urls[1]]
        with example("agent_gateway", *arguments) as port:
            yield chat, embeddings, port
            chat.go_on.set()
            embeddings.go_on.set()


def test_agent_gateway_proxies_by_path_and_streams_back(models: tuple[Backend, Backend, int]) -> None:
    chat, embeddings, port = models
    with quicgreen.Session(verify=False, timeout=START_S) as session:
        for model, path in ((chat, "/v1/chat/completions?a=1"), (embeddings, "/v1/embeddings")):
            response = session.post(
                f"https://127.0.0.1:{port}{path}", b"a question", headers={"x-key": "5"}, stream=True
            )
            assert (response.status_code, response.headers["x-model"]) == (200, model.name)
            pieces = response.iter_bytes()
            assert next(pieces) == b"data: first\n\n"  # the model has not said the rest
            model.go_on.set()
            assert b"".join(pieces) == b"data: a question\n\n"
            asked = model.requests[0]
            assert (asked.method, asked.path, asked.headers["x-key"]) == ("POST", path, "5")
            assert "127.0.0.1" in asked.headers["forwarded"]
        assert session.get(f"https://127.0.0.1:{port}/other").status_code == 404


def test_agent_gateway_s_client_learns_that_a_model_broke_off(models: tuple[Backend, Backend, int]) -> None:
    chat, _, port = models
    with (
        quicgreen.Session(verify=False, timeout=START_S) as session,
        session.stream("POST", f"https://127.0.0.1:{port}/v1/chat/completions", data=b"break") as response,
    ):
        pieces = response.iter_bytes()
        assert next(pieces) == b"data: first\n\n"
        chat.go_on.set()
        with pytest.raises(quicgreen.QuicStreamException):
            next(pieces)


def test_agent_gateway_without_a_model() -> None:
    nobody = "https://127.0.0.1:1"
    with (
        example("agent_gateway", "1", "--insecure", "--chat", nobody, "--embeddings", nobody) as port,
        quicgreen.Session(verify=False, timeout=START_S) as session,
    ):
        response = session.post(f"https://127.0.0.1:{port}/v1/embeddings", b"?")
        assert response.status_code in (502, 504)
        assert "the model" in response.text
