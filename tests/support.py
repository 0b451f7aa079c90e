"""What the test modules share: a certificate, a server and a session for a block, a census of what is open,
processes of their own for what cannot be tried in pytest's. Imports no pytest: those processes use it too."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from greenlet import greenlet

import quicgreen
from quicgreen import _contexts, hub
from quicgreen.configuration import ServerTls
from quicgreen.stream import Stream

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

WARNINGS = "error,ignore:Connection handshake took too long,ignore:round trips take"
"""As this run's own (pyproject.toml), for other interpreters."""

PATIENCE_S = 5.0
"""For what takes milliseconds; a busy machine gets the rest."""


@cache
def certificate() -> tuple[str, str]:
    """(certificate, key) for this host, signed by itself."""
    return _contexts.self_signed("localhost,127.0.0.1,::1")


def server_tls(**options: Any) -> ServerTls:
    cert, key = certificate()
    return ServerTls(cert_pem=cert, key_pem=key, **options)


def make_server(handle: Any, listener: Any = ("127.0.0.1", 0), **options: Any) -> quicgreen.Server:
    if not options.keys() & {"tls", "certfile"}:
        options["tls"] = server_tls()
    return quicgreen.Server(listener, handle, **options)


@contextlib.contextmanager
def serving(handle: Any, listener: Any = ("127.0.0.1", 0), **options: Any) -> Iterator[quicgreen.Server]:
    """A started server; its handlers are killed at the end of the block."""
    server = make_server(handle, listener, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(timeout=0)


@contextlib.contextmanager
def serving_raw(handle: Any, **options: Any) -> Iterator[quicgreen.Server]:
    """A server of raw streams: `handle` gets a connection."""
    with serving(handle, tls=server_tls(alpn=("raw",)), **options) as server:
        yield server


def connect(server: quicgreen.Server, **options: Any) -> quicgreen.Connection:
    return quicgreen.connect(*server.address, verify=False, **options)


def connect_raw(server: quicgreen.Server, **options: Any) -> quicgreen.Connection:
    return connect(server, alpn=("raw",), **options)


def new_session(**options: Any) -> quicgreen.Session:
    return quicgreen.Session(**{"verify": False, **options})


def url_of(server: quicgreen.Server, path: str = "/") -> str:
    host, port = server.address
    return f"https://[{host}]:{port}{path}" if ":" in host else f"https://{host}:{port}{path}"


def hello(request: quicgreen.Request) -> None:
    request.respond(200, {"content-type": "text/plain"}, b"hello")


def echo(request: quicgreen.Request) -> None:
    request.respond(200, {"x-method": request.method, "x-path": request.path}, request.read())


def read_all(stream: Stream) -> bytes:
    return stream.read()


# ---------------------------------------------------------------- waiting


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> bool:
    """Let the hub run until `condition()` is true; False when that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        gevent.sleep(0.002)
    return True


def turn_loop(turns: int = 2) -> None:
    """Let the hub go round."""
    for _ in range(turns):
        gevent.sleep(0)
        gevent.sleep(0.001)


# ---------------------------------------------------------------- what is open


def counters() -> dict[str, int]:
    return hub.current().engine.counters()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def live_greenlets() -> int:
    """Those that somebody started: no thread's main greenlet (which has no parent), no hub, and no worker of
    gevent's pool of threads, which looks up names. They come, and go when they had nothing to do for 5 s."""
    alive = [o for o in gc.get_objects() if issubclass(type(o), greenlet) and o and not o.dead]
    others = (gevent.hub.Hub, gevent.threadpool._WorkerGreenlet)
    return sum(1 for g in alive if g.parent is not None and not isinstance(g, others))


def census() -> dict[str, int]:
    runtime = hub.current()
    now = runtime.engine.counters()
    return {
        "connections": now["connections"],
        "streams": now["streams"],
        "targets": len(runtime.targets),
        "references": runtime._references,
        "descriptors": descriptors(),
        "greenlets": live_greenlets(),
    }


@cache
def warm_up() -> None:
    """Open what an engine opens once and keeps: its client sockets; and gevent's, for names."""
    gevent.get_hub().threadpool.apply(int)
    with serving(hello) as server:
        connections = [connect(server) for _ in range(16)]
        for connection in connections:
            connection.close(timeout=None)
        wait_until(lambda: all(c.closed for c in connections))


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """What the block opens is closed at its end, or soon after."""
    warm_up()
    wait_until(lambda: counters()["connections"] == 0, 1)
    gc.collect()
    before = census()

    yield
    if not wait_until(lambda: not _more(before), 1.0):
        gc.collect()
        wait_until(lambda: not _more(before), PATIENCE_S - 1)
    assert not _more(before), _more(before)


def _more(before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What there is more of now. Less is fine: an earlier test's remains have gone meanwhile."""
    now = census()
    return {name: (before[name], now[name]) for name in before if now[name] > before[name]}


# ---------------------------------------------------------------- handlers


class OnPurposeError(Exception):
    pass


@contextlib.contextmanager
def reported() -> Iterator[list[tuple[Any, BaseException]]]:
    """What reaches the hub's `handle_error`: (context, exception)."""
    found: list[tuple[Any, BaseException]] = []
    loop_hub = gevent.get_hub()
    loop_hub.print_exception = lambda context, kind, value, tb: found.append((context, value))
    try:
        yield found
    finally:
        del loop_hub.print_exception


class Seen:
    """A handler that keeps what it was sent, and answers with nothing."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: quicgreen.Request) -> None:
        self.requests.append(request)
        self.bodies.append(request.read())
        request.respond(200)

    @property
    def last(self) -> Any:
        return self.requests[-1]

    def fields(self, name: str) -> list[str]:
        found: list[str] = self.last.headers.get_list(name)
        return found


class Reader:
    """A file that does not know its length, and counts how often it is read."""

    def __init__(self, data: Any, piece: int = 1 << 30) -> None:
        self.data, self.piece, self.reads = data, piece, 0

    def read(self, size: int) -> Any:
        self.reads += 1
        n = min(size, self.piece)
        piece, self.data = self.data[:n], self.data[n:]
        return piece


class Gate:
    """A handler whose requests wait until it is opened."""

    def __init__(self) -> None:
        self.event = Event()
        self.paths: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.running = 0
        self.most = 0

    def __call__(self, request: quicgreen.Request) -> None:
        self.paths.append(request.path)
        self.running += 1
        self.most = max(self.most, self.running)
        end = "finished"
        try:
            self.event.wait()
            request.respond(200, None, request.path)
        except BaseException as e:
            end = type(e).__name__
            raise
        finally:
            self.running -= 1
            self.ended.append((request.path, end))


def spawn_gets(connection: quicgreen.Connection, count: int, **options: Any) -> list[gevent.Greenlet]:
    return [gevent.spawn(connection.get, f"/{i}", **options) for i in range(count)]


def idle_streams(connection: quicgreen.Connection) -> int:
    """Streams of both sides when no request is under way: those for control."""
    connection.get()
    turn_loop()
    return counters()["streams"]


def outcome(g: gevent.Greenlet) -> str:
    """A response's text, or the cause of why there is none."""
    g.join(PATIENCE_S)
    if isinstance(g.exception, quicgreen.QuicException):
        return g.exception.cause
    assert g.successful(), g
    return str(g.value.text)


def exchange(
    handle: Callable[[quicgreen.Request], Any], method: str = "GET", path: str = "/", **options: Any
) -> quicgreen.Response:
    """What a handler answers."""
    with serving(handle) as server, connect(server) as connection:
        return connection.request(method, path, timeout=PATIENCE_S, **options)


# ---------------------------------------------------------------- other processes


def run_python(
    code: str, *arguments: str, timeout: float = 40, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of its own, with this file in reach. A value of None unsets."""
    env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONWARNINGS": WARNINGS}
    for name, value in environment.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def check_python(code: str, *arguments: str, **options: Any) -> str:
    """The script's output; AssertionError with all it said when it fails."""
    run = run_python(code, *arguments, **options)
    assert run.returncode == 0, f"exit status {run.returncode}\n{run.stdout}\n{run.stderr}"
    return run.stdout


def check_python_in_thread(code: str, *arguments: str, **options: Any) -> str:
    """The same, while servers of this process go on."""
    output: str = gevent.get_hub().threadpool.apply(check_python, (code, *arguments), options)
    return output
