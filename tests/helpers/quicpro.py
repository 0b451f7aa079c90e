"""What the tests of `quicgreen.quicpro` share: the documentation's loops, and a server in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent

from quicgreen.quicpro import (
    Fiber,
    Server,
    Session,
    quicpro_close,
    quicpro_connect,
    quicpro_get_last_error,
    quicpro_poll,
    quicpro_receive_response,
    quicpro_send_request,
)
from quicgreen.testing import Certificate

PATIENCE_S = 20


def receive(sess: Session, stream: int, ms: int = 5) -> Any:
    """The documentation's loop."""
    with gevent.Timeout(PATIENCE_S):
        while not (response := quicpro_receive_response(sess, stream)):
            if not quicpro_poll(sess, ms):
                raise AssertionError(f"poll failed: {quicpro_get_last_error()}")
        return response


def ask(sess: Session, path: str, *arguments: Any, **options: Any) -> Any:
    """A request and its response."""
    return receive(sess, quicpro_send_request(sess, path, *arguments, **options))


def one_pem(folder: Path, certificate: Certificate) -> str:
    """Certificate and key in one file."""
    path = folder / "both.pem"
    path.write_text(Path(certificate.certfile).read_text() + Path(certificate.keyfile).read_text())
    return str(path)


@contextlib.contextmanager
def serving(
    certificate: Certificate, handle: Callable[[Any], Any], host: str = "127.0.0.1", **options: Any
) -> Iterator[Server]:
    """A server whose sessions are each handled in a fiber, as the documentation does it."""
    files = {"cert_file": certificate.certfile, "key_file": certificate.keyfile}
    server = Server(host, 0, {**files, **options})

    def accept() -> None:
        while session := server.accept(100):
            fiber = Fiber(handle)
            fibers.append(fiber)
            fiber.start(session)
            del session  # who forgets it shall be the last

    fibers: list[Fiber] = []
    accepting = gevent.spawn(accept)
    try:
        yield server
    finally:
        server.close(timeout=0)
        accepting.join()
        gevent.killall([f.greenlet for f in fibers], timeout=PATIENCE_S)


@contextlib.contextmanager
def connected(server: Server, certificate: Certificate, **options: Any) -> Iterator[Any]:
    """A session with it."""
    host = "::1" if server.address[0] == "::1" else "127.0.0.1"
    given = {"ca_file": certificate.ca_certs, "session_cache": False, **options}
    sess = quicpro_connect(host, server.port, given)
    try:
        yield sess
    finally:
        quicpro_close(sess)


def answer_all(answer: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A handler of sessions that has each request answered, until the client leaves."""

    def handle(session: Any) -> None:
        for request in session:
            answer(request)

    return handle


def echo(request: Any) -> None:
    """Says what it was asked."""
    body = request.body()
    stream = request.stream()
    stream.respond(200, {"x-method": request.method, "x-path": request.path, "content-type": "text/plain"})
    stream.sendBody(body, fin=True)
