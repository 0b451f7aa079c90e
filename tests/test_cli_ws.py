"""`quicgreen ws`: a process of its own, against servers in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.commands import START_S, command, complaint, run_process
from helpers.processes import Peer
from support import ROOT, make_server, wait_until

import quicgreen
from quicgreen.cli.ws import printable
from quicgreen.testing import Certificate
from quicgreen.websocket import ConnectionClosed


class Talk:
    """A server's handler, and what it was told.

    /echo; /send sends a text of two lines, four bytes, and closes; /close/CODE/REASON; /hold takes nothing;
    anything else is refused.
    """

    def __init__(self) -> None:
        self.requests: list[quicgreen.Request] = []
        self.messages: list[str | bytes] = []
        self.closes: list[tuple[int | None, str | None]] = []
        self.held = Event()
        self.go_on = Event()
        self.url = ""

    def __call__(self, request: quicgreen.Request) -> None:
        self.requests.append(request)
        what, *arguments = request.path.partition("?")[0].strip("/").split("/")
        if what not in ("echo", "send", "close", "hold"):
            request.respond(404, None, b"no such room\n")
            return
        ws = request.accept_websocket(subprotocols=["chat"])
        try:
            if what == "send":
                ws.send("first\nsecond \x1b[2J")
                ws.send(b"\x00\xffab")
                ws.close(1001, "gone")
            elif what == "close":
                ws.close(int(arguments[0]), arguments[1])
            elif what == "hold":
                self.held.set()
                self.go_on.wait()
            for message in ws:
                self.messages.append(message)
                ws.send(message)
        except ConnectionClosed:
            pass
        finally:
            ws.close()
            self.closes.append((ws.close_code, ws.close_reason))


@pytest.fixture
def talk() -> Iterator[Talk]:
    handler = Talk()
    with make_server(handler, websocket=True) as server:
        handler.url = f"wss://127.0.0.1:{server.server_port}"
        yield handler
        handler.go_on.set()


def ws(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run_process("ws", "-k", *arguments, **options)


def test_a_pipe(talk: Talk) -> None:
    """Lines in, lines out; after the last answer the connection is closed as it should be."""
    result = ws("-n", "4", talk.url + "/echo", input="one\ntwo\r\n\nthree ü")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "one\ntwo\n\nthree ü\n"
    assert talk.messages == ["one", "two", "", "three ü"]
    assert wait_until(lambda: talk.closes == [(1000, "")])


def test_the_end_of_stdin_waits_for_answers(talk: Talk) -> None:
    result = ws("--wait", "0.3", talk.url + "/echo", input="one\ntwo\n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "one\ntwo\n", "")
    assert wait_until(lambda: talk.closes == [(1000, "")])


def test_many_lines(talk: Talk) -> None:
    """Far more than is under way at a time: both directions wait for each other."""
    lines = [f"{n} {'x' * 200}" for n in range(5000)]
    result = ws("-n", "5000", talk.url + "/echo", input="\n".join(lines))
    assert result.returncode == 0
    assert result.stdout.splitlines() == lines


def test_nothing_to_send(talk: Talk) -> None:
    """It only listens; the server closes."""
    result = ws("--wait", "60", talk.url + "/send", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "first\nsecond \x1b[2J\n00ff6162\n", "a pipe gets what was sent"


def test_binary(talk: Talk) -> None:
    result = run_process("ws", "-k", "--binary", "-n", "1", talk.url + "/echo", input="a ü")
    assert (result.returncode, result.stdout) == (0, "a ü"), "no line end is added"
    assert talk.messages == ["a ü".encode()]


def test_stdin_that_is_no_text(talk: Talk) -> None:
    with command("ws", "-k", talk.url + "/echo", stdin=subprocess.PIPE) as talking:
        stdin = talking.process.stdin
        assert stdin is not None
        stdin.write(b"\xff\xfe\n")
        stdin.flush()
        status, out, err = talking.end()
    assert (status, out) == (26, "")
    assert "--binary" in err
    assert len(err.splitlines()) == 1
    assert talk.messages == []


def test_fields_and_subprotocol(talk: Talk) -> None:
    arguments = ["-H", "X-Own: 5", "--subprotocol", "other", "--subprotocol", "chat"]
    arguments += ["--origin", "https://example.org", "--no-compression", "-v", "--wait", "0"]
    result = ws(*arguments, talk.url + "/echo?a=b", input="")
    assert result.returncode == 0
    assert "* Connected to " in result.stderr
    assert ", subprotocol chat\n" in result.stderr
    assert "* Closed: 1000" in result.stderr
    request = talk.requests[0]
    assert request.path == "/echo?a=b"
    assert (request.headers["x-own"], request.headers["origin"]) == ("5", "https://example.org")
    assert request.headers["sec-websocket-protocol"] == "other, chat"
    assert "sec-websocket-extensions" not in request.headers


def test_ctrl_c_closes(talk: Talk) -> None:
    with command("ws", "-k", talk.url + "/echo", stdin=subprocess.PIPE) as talking:
        talking.type("one\n")
        talking.wait_for("one\n")
        talking.signal(signal.SIGINT)
        assert talking.end() == (0, "one\n", "")
    assert wait_until(lambda: talk.closes == [(1000, "")])


def test_a_terminal(talk: Talk) -> None:
    """It is told when it is connected, Ctrl-D ends it, and nothing that comes can move its cursor."""
    ours, theirs = os.openpty()
    try:
        with command("ws", "-k", talk.url + "/echo", stdin=theirs) as talking:
            assert wait_until(lambda: talk.requests, START_S)
            os.write(ours, b"one\n")
            talking.wait_for("one\n")
            os.write(ours, b"\x04")
            status, out, err = talking.end()
    finally:
        os.close(ours)
        os.close(theirs)
    assert (status, out) == (0, "one\n")
    assert err.splitlines()[0].endswith("(Ctrl-D closes)")
    assert err.splitlines()[-1] == "* Closed: 1000"
    assert wait_until(lambda: talk.closes == [(1000, "")])


def test_what_a_terminal_is_shown() -> None:
    assert printable("a\tb\nü \x1b[2J\x07\x9b") == "a\tb\nü \\x1b[2J\\x07\\x9b"


# ---------------------------------------------------------------- how it ends otherwise


def test_refused(talk: Talk) -> None:
    result = ws(talk.url + "/elsewhere", input="one\n")
    assert (result.returncode, result.stdout) == (22, "")
    assert complaint(result) == "the server refused: 404 Not Found"


def test_the_server_gives_another_reason(talk: Talk) -> None:
    result = ws(talk.url + "/close/1008/not-you", stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (56, "")
    assert complaint(result) == "the WebSocket was closed with code 1008 not-you"


def test_the_server_goes_away(talk: Talk) -> None:
    with command("ws", "-k", talk.url + "/hold", stdin=subprocess.PIPE) as talking:
        assert talk.held.wait(START_S)
        gevent.sleep(0.1)  # a reset may overtake the answer, which is another matter
        talk.requests[0].stream.reset()
        status, out, err = talking.end()
    assert (status, out) == (56, "")
    assert "1006" in err
    assert len(err.splitlines()) == 1


def test_no_websockets_there() -> None:
    with make_server(Talk()) as server:
        result = ws(f"wss://127.0.0.1:{server.server_port}/echo", input="one\n")
    assert (result.returncode, result.stdout) == (95, "")
    assert complaint(result)


def test_over_tcp(certificate: Certificate) -> None:
    """Where HTTP/3 is not to be had, when that is asked for."""
    files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with Peer("websockets_server.py", **files) as peer:
        url = f"wss://localhost:{peer.port}/echo"
        trust = ["--cacert", certificate.ca_certs]
        result = run_process("ws", *trust, "--http3", "auto", "-n", "1", url, input="one\n")
        assert (result.returncode, result.stdout, result.stderr) == (0, "one\n", "")
        result = run_process("ws", *trust, "-n", "1", url, input="one\n")
        assert (result.returncode, result.stdout) == (7, "")
        assert complaint(result)
        result = run_process("ws", "--http3", "auto", url, input="one\n")
        assert result.returncode == 60
        assert "--cacert" in complaint(result)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["http://127.0.0.1/"], 3, "http://127.0.0.1/"),
        (["-n", "0", "wss://127.0.0.1/"], 3, "-n"),
        (["-H", "nothing", "wss://127.0.0.1/"], 1, "nothing"),
        (["wss://no-such-host.invalid/"], 6, "no-such-host.invalid"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, words: str) -> None:
    result = ws(*arguments, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (status, "")
    assert words in complaint(result)


def test_a_server_that_says_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"wss://127.0.0.1:{silent.getsockname()[1]}/"
        result = ws("--connect-timeout", "0.2", url, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (28, "")
    assert "--connect-timeout" in complaint(result)


def test_nobody_takes_what_is_printed(talk: Talk) -> None:
    """As with `| head -1`: it ends, and the server is told."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = ws(talk.url + "/echo", input="one\n", stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (23, "")
    assert wait_until(lambda: talk.closes == [(1000, "")])


def test_the_chat_of_the_examples(certificate: Certificate) -> None:
    """As its first lines say: a server, and members at their terminals."""
    files = ["--certfile", certificate.certfile, "--keyfile", certificate.keyfile]
    arguments = ["--chdir", str(ROOT / "examples"), "--websocket", *files, "-b", "127.0.0.1:0", "chat:handle"]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(command("serve", *arguments)).url().replace("https", "wss")
        ada, grace = (
            stack.enter_context(
                command("ws", "--cacert", certificate.ca_certs, f"{url}?{name}", stdin=subprocess.PIPE)
            )
            for name in ("ada", "grace")
        )
        for member in (ada, grace):
            member.wait_for("which makes 2\n")
        ada.type("hello\n")
        for member in (ada, grace):
            member.wait_for("ada: hello\n")
        grace.signal(signal.SIGINT)
        assert grace.end()[0] == 0
        ada.wait_for("* grace is gone\n")
        ada.signal(signal.SIGINT)
        assert ada.end()[0] == 0
