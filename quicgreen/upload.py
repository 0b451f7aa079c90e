"""A request body on its way to a server that may answer before it has it all.

It is sent by a greenlet of its own, so that the caller gets the response when it comes and can read it: a
server that answers as it reads would else wait for the client to read, and the client for the server.
"""

from __future__ import annotations

from typing import Any

import gevent

from .bodies import exactly, pieces
from .configuration import Timeout
from .connection import ClientConnection
from .exceptions import QuicClientException, QuicException
from .stream import H3_REQUEST_CANCELLED, Stream


def expect_response(stream: Stream, token: int, limit: Timeout) -> None:
    """The body is sent: from now on the response's head has its time to come. If it came already, or
    never will, its event is on the way, and this changes nothing."""
    runtime = stream._runtime
    if limit.read_us and token in runtime.targets:
        runtime.engine.await_response(stream._conn, stream.id, token, limit.read_us)


class Upload:
    """Sends `body` on a stream whose head was sent; `response` is the token of who waits for the answer.

    Attributes:
        sender: the greenlet that does it; over when the body is sent, refused, or given up.
    """

    def __init__(
        self,
        connection: ClientConnection,
        stream: int,
        body: Any,
        declared: int | None,
        limit: Timeout,
        response: int,
    ) -> None:
        """`declared`: the content-length that the head has already; None: it has none. When the body cannot
        be sent, whoever's `switch` or other method is the target of `response` is thrown the reason."""
        self._runtime = connection._runtime
        self._stream = Stream(
            connection._runtime, connection.id, stream, timeout=limit.write, owner=connection
        )
        self._limit = limit
        self._response = response
        parts = (body,) if isinstance(body, bytes) else pieces(body)
        self._parts = parts if declared is None else exactly(declared, parts)
        self.sender = gevent.spawn(self._send)

    def _send(self) -> None:
        stream = self._stream
        try:
            for part in self._parts:
                stream.write(part)
            stream.finish()
            self._expect_response()
        except QuicException as e:
            if e.cause == "deadline" or isinstance(e, QuicClientException):
                self._failed(e)
            else:
                # The server reads no further, and answers without the rest (RFC 9114, section 4.1); or it
                # gave the request up, or the response was, or the connection: who waits is told by an event.
                self._expect_response()
        except Exception as e:  # of the application's file or iterable
            self._failed(e)

    def _expect_response(self) -> None:
        expect_response(self._stream, self._response, self._limit)

    def _failed(self, e: Exception) -> None:
        """Tell whoever waits for the response; if it is here already, the server has to know."""
        if not self._runtime.interrupt(self._response, e):
            self._stream.reset(H3_REQUEST_CANCELLED)
            if not isinstance(e, QuicException):
                raise e
