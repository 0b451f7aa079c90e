"""The documentation's usage examples, each run as its reader runs it: with no argument against a server that
it starts itself, and with arguments against others.

That things overlap, or come as they are made, is shown without a clock: the other side waits until it was so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import Event
from helpers.examples import EXAMPLES, Example, Served, answering, run
from helpers.processes import Peer, run_client
from support import check_python_in_thread, hello, wait_until

import quicgreen
from quicgreen.testing import Certificate

TESTS = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch, certificate: Certificate) -> None:
    """The tests' authority, by examples that start no server."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate.ca_certs)


class Together:
    """A handler that answers nobody before `count` have asked."""

    def __init__(self, count: int, answer: Any) -> None:
        self.count, self.answer = count, answer
        self.asked: list[str] = []
        self.all_here = Event()

    def __call__(self, request: quicgreen.Request) -> None:
        self.asked.append(request.path)
        if len(self.asked) == self.count:
            self.all_here.set()
        self.all_here.wait()
        request.respond(200, None, self.answer(request))


# ---------------------------------------------------------------- all of them


SCRIPTS = sorted(p for p in EXAMPLES.glob("*.py") if not p.name.startswith("_"))

OLDER = {"chat", "demo"}
"""Not of the documentation: `make demo`, and a page of its own."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_every_example_says_why_and_is_run(script: Path) -> None:
    if script.stem in OLDER:
        return
    said = script.read_text().split('"""')[1]
    assert "\nWhy: " in said
    assert f"python examples/{script.name}" in said
    tests = "".join(p.read_text() for p in TESTS.rglob("test_*.py"))
    assert script.stem in tests


@pytest.mark.parametrize(
    "name", ["streaming_post", "websocket_server", "sse_chat_completion", "mcp_tool_call"]
)
def test_they_work_patched_by_gevent_too(name: str) -> None:
    run = check_python_in_thread(
        """
        import sys
        from gevent import monkey

        monkey.patch_all()
        import runpy

        sys.argv = sys.argv[1:]
        sys.path.insert(0, sys.argv[0].rpartition("/")[0])
        runpy.run_path(sys.argv[0], run_name="__main__")
        """,
        str(EXAMPLES / f"{name}.py"),
    )
    assert run


def test_what_an_example_starts_does_not_outlive_it() -> None:
    with Example("sse_hub") as example:
        example.read_until("heard 1")
        children = psutil.Process(example.process.pid).children()
        assert len(children) == 1
        certificate = Path(children[0].cmdline()[-2])
        assert certificate.is_file()
        example.kill(signal.SIGKILL)
        assert wait_until(lambda: not any(child.is_running() for child in children))
        assert not certificate.parent.exists()


# ---------------------------------------------------------------- clients


def test_single_get() -> None:
    assert run("single_get") == "this is /\n"


def test_single_get_from_somebody_else_s_server(certificate: Certificate) -> None:
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with Peer("hypercorn_server.py", **files) as peer:
        assert run("single_get", "localhost", peer.port).strip() == "no such thing here"


def test_parallel_gets() -> None:
    assert run("parallel_gets") == "this is /a\nthis is /b\nthis is /c\n"


def test_parallel_gets_are_under_way_together(certificate: Certificate) -> None:
    handle = Together(3, lambda request: f"{request.path}\n")
    with answering(handle, certificate) as port:
        assert run("parallel_gets", "127.0.0.1", port) == "/a\n/b\n/c\n"


def test_streaming_post() -> None:
    status, _, body = run("streaming_post").partition(" ")
    assert (status, json.loads(body)["received"]) == ("201", 8 << 20)


SIZE = 300 << 20


def test_streaming_post_of_a_large_file_takes_no_memory(certificate: Certificate, tmp_path: Path) -> None:
    """And what arrives is the file, on a server that reads slowly at first."""
    file = tmp_path / "dump.raw"
    with file.open("wb") as f:
        f.write(os.urandom(1 << 20))
        f.truncate(SIZE)
    digest, received, peak_kb = hashlib.sha256(), 0, 0

    def handle(request: quicgreen.Request) -> None:
        nonlocal received, peak_kb
        gevent.sleep(0.5)
        for piece in request.iter_bytes():
            digest.update(piece)
            received += len(piece)
        peak_kb = example.peak_kb
        request.respond(200, None, "kept")

    with (
        answering(handle, certificate) as port,
        Example("streaming_post", "127.0.0.1", port, file) as example,
    ):
        assert example.finish() == "200 kept\n"
    sent = hashlib.sha256()
    with file.open("rb") as f:
        while piece := f.read(1 << 20):
            sent.update(piece)
    assert (received, digest.hexdigest()) == (SIZE, sent.hexdigest())
    assert 0 < peak_kb < 100 << 10


def test_websocket_chat_client() -> None:
    assert run("websocket_chat_client").splitlines() == [
        "Server: you said: hello from Python",
        "Server: somebody came in",
        "Server: somebody else went out",
    ]


def test_websocket_chat_client_prints_what_it_hears_at_once(certificate: Certificate) -> None:
    seen = Event()

    def handle(request: quicgreen.Request) -> None:
        with request.accept_websocket() as ws:
            assert ws.recv() == "hello from Python\n"
            ws.send("one\n")
            seen.wait()
            ws.send("two\n")

    with (
        answering(handle, certificate, websocket=True) as port,
        Example("websocket_chat_client", "127.0.0.1", port) as example,
    ):
        example.read_until("Server: one\n")
        seen.set()
        assert example.finish() == "Server: one\nServer: two\n"


def test_faas_warm_start() -> None:
    """Three events, one connection."""
    answers = [json.loads(line) for line in run("faas_warm_start").splitlines()]
    assert answers == [{"id": str(n), "request_on_this_connection": n} for n in (1, 2, 3)]


def test_faas_warm_start_replaces_a_session_that_died(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, load: Callable[[str], Any]
) -> None:
    """The server was restarted while the container was frozen."""
    connections: list[tuple[str, int]] = []

    def handle(request: quicgreen.Request) -> None:
        connections.append(request.remote_address)
        request.respond(200, None, request.path)

    with answering(handle, certificate) as port:
        monkeypatch.setattr(sys, "argv", ["faas_warm_start.py", "127.0.0.1", str(port)])
        faas = load("faas_warm_start")
        assert [faas.handler({"id": n}) for n in (1, 2)] == ["/data?id=1", "/data?id=2"]
    with answering(handle, certificate, port=port):
        assert [faas.handler({"id": n}) for n in (3, 4)] == ["/data?id=3", "/data?id=4"]
        assert len(connections) == 4
        faas.GLOBAL_SESS.close()


def test_stats_and_qlog(certificate: Certificate, tmp_path: Path) -> None:
    said = run("stats_and_qlog", env={"TMPDIR": str(tmp_path)})
    assert re.search(r"^rtt: [1-9]\d*$", said, re.MULTILINE)
    assert re.search(rf"^{tmp_path}/.*/example.qlog: [1-9]\d* bytes$", said, re.MULTILINE)
    path = tmp_path / "example.qlog"
    with answering(hello, certificate) as port:
        run("stats_and_qlog", "127.0.0.1", port, path)
    records = [json.loads(text) for text in path.read_text().split("\x1e") if text.strip()]
    assert records[0]["serialization_format"] == "JSON-SEQ"
    assert any("packet" in str(record.get("name")) for record in records[1:])


def test_busy_poll_rtt() -> None:
    """AF_XDP says why it cannot be had, and the time is one of loopback's."""
    *reason, rtt = run("busy_poll_rtt").splitlines()
    assert any("XDP" in line for line in reason)
    found = re.fullmatch(r"RTT: (\d+\.\d) µs", rtt)
    assert found
    assert 1 < float(found[1]) < 1e6


# ---------------------------------------------------------------- servers


def test_websocket_server() -> None:
    lines = run("websocket_server").splitlines()
    assert lines[:5] == [f"HELLO FROM {n}" for n in range(1, 6)]
    assert lines[5].startswith("6 is not let in: Quic")
    assert len(lines) == 6


def test_websocket_server_has_a_budget_that_is_given_back(certificate: Certificate) -> None:
    """Also by a client that says nothing when it goes. Each is on a connection of its own."""
    with Served("websocket_server", certificate) as server, contextlib.ExitStack() as stack:
        url = f"wss://127.0.0.1:{server.port}/chat"

        def enter() -> tuple[quicgreen.Session, Any]:
            session = quicgreen.Session()
            stack.callback(session.close, timeout=0)
            ws = session.websocket(url)
            ws.send("hello")
            assert ws.recv() == "HELLO"
            return session, ws

        chats = [enter() for _ in range(5)]
        with pytest.raises(quicgreen.QuicException):
            enter()
        chats[0][1].close()
        chats[1][0].close(timeout=None)  # with its connection

        def enters() -> bool:
            try:
                return bool(enter())
            except quicgreen.QuicException:
                return False

        assert wait_until(enters)
        assert wait_until(enters)
        with pytest.raises(quicgreen.QuicException):
            enter()


def test_websocket_server_takes_somebody_else_s_client(certificate: Certificate) -> None:
    with Served("websocket_server", certificate) as server:
        steps = [["text", "hello\n"], ["messages", 1], ["close", 1000, ""], ["over"]]
        told = run_client(
            "aioquic_websocket_client.py",
            host="localhost",
            ip="127.0.0.1",
            port=server.port,
            ca=certificate.ca_certs,
            sockets=[{"path": "/chat", "steps": steps}],
        )
    socket = told["sockets"][0]
    assert (socket["status"], socket["step"]) == (200, None)
    assert [message[-1] for message in socket["messages"]] == ["HELLO\n"]


def test_async_server() -> None:
    assert run("async_server").splitlines() == ["echo /hello", "echo /again"]


def test_async_server_answers_curl(certificate: Certificate) -> None:
    with Served("async_server", certificate) as server:
        url = f"https://127.0.0.1:{server.port}"
        paths = [f"/{n}" for n in range(20)]
        told = run_client(
            "curl_client.py",
            ca=certificate.ca_certs,
            fresh=True,
            requests=[{"url": url + path} for path in paths],
        )
    assert [answer.get("content") or answer for answer in told["answers"]] == [
        f"echo {path}\n" for path in paths
    ]


def test_async_server_serves_others_while_one_says_nothing(certificate: Certificate) -> None:
    with Served("async_server", certificate) as server, quicgreen.connect("127.0.0.1", server.port) as idle:
        assert not idle.closed
        for path in ("/one", "/two"):
            with quicgreen.connect("127.0.0.1", server.port) as connection:
                assert connection.get(path).text == f"echo {path}\n"


# ---------------------------------------------------------------- errors, and the health of a server


def test_error_handling() -> None:
    """Each fault is told apart, and the right thing is said of it."""
    told = dict(line.split(" → ", 1) for line in run("error_handling").splitlines())
    expected = {
        "a name that does not exist": "look at name, port and firewall: ",
        "a server that does not answer": "ask again later: Connection handshake took too long",
        "a port that nobody has": "look at name, port and firewall: ",
        "a certificate of nobody known": "do not send it anything: TLS handshake failed: invalid certificate",
        "/reset": "ask again, if that does no harm",
        "/drop": "open a new session: poll failed: 3",
        "/silence": "give up: no answer in time",
        "/error": "status 503: not now",
        "/": "status 200: well",
    }
    assert told.keys() == expected.keys()
    assert {name: text for name, text in told.items() if not text.startswith(expected[name])} == {}


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ([], 0, "OK - status 200 | connect="),
        (["--slow-ms", "0"], 1, "WARNING - status 200 after "),
        (["--path", "/broken"], 2, "CRITICAL - status 500 for /broken | "),
        (["--path", "/silence", "--timeout-ms", "300"], 2, "CRITICAL - no answer within 300 ms"),
        (["--nonsense"], 3, "UNKNOWN - unrecognized arguments: --nonsense"),
    ],
)
def test_health_check(certificate: Certificate, options: list[str], status: int, words: str) -> None:
    never = Event()

    def handle(request: quicgreen.Request) -> None:
        if request.path == "/silence":
            never.wait()
        request.respond(500 if request.path == "/broken" else 200)

    with answering(handle, certificate) as port:
        said = run("health_check", "127.0.0.1", port, *options, status=status)
    assert said.startswith(words)
    assert said.count("\n") == 1


def test_health_check_of_a_server_that_is_down(certificate: Certificate) -> None:
    with answering(hello, certificate) as port:
        pass
    said = run("health_check", "127.0.0.1", port, status=2)
    assert said.startswith("CRITICAL - QuicSocketException: the host cannot be reached")


def test_health_check_of_its_own_server() -> None:
    assert run("health_check").startswith("OK - status 200 | connect=")
