"""A server's session: the requests of one client, one after the other."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from .. import messages
from ..connection import ServerConnection
from ..exceptions import QuicConnectionException, error
from ..websocket import WebSocketFile
from .last_error import noted
from .request import Request, Stream
from .session import Session, milliseconds, milliseconds_or_none

_NO_STREAM = 1 << 62
"""No QUIC stream has this id (RFC 9000, section 2.1)."""


def _close(connection: ServerConnection) -> None:
    connection.close(timeout=None)


class ServerSession(Session):
    """See `Session`; `Server.accept` gives one."""

    connection: ServerConnection

    _close_s = 10.0
    """The end of an answer may be as long as a window, and the way slow."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__(connection)
        self._next: messages.Request | None = None  # looked at, and not received yet
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()  # of the requests that were received
        self._sockets: weakref.WeakSet[WebSocketFile] = weakref.WeakSet()

    def __del__(self) -> None:
        """One that is forgotten is closed: a client that keeps it alive would wait for nobody. This may run
        in any thread, so it only leaves word."""
        connection = getattr(self, "connection", None)
        if connection is not None and not self._closed and connection._why is None:
            self._runtime.dropped.append((connection.id, _NO_STREAM, _close, connection))

    def _look(self, seconds: float | None) -> messages.Request | None:
        """The next request, which stays; None when none came in time.

        Raises:
            QuicConnectionException: the session is over, and all that came was received."""
        if self._next is None:
            if self._closed:
                self._check()
            self._next = self.connection.accept_request(seconds)
            if self._next is None and self.closed:
                self._check()
        return self._next

    @noted
    def receive_request(self, ms: float | None = None) -> Request | None:
        """Wait for the next request of this session. None when none came in `ms` milliseconds; without them
        it waits for as long as the session lives.

        Raises:
            QuicConnectionException, QuicTimeoutException: the session is over, and there is no other request.
        """
        request = self._look(milliseconds_or_none(ms))
        if request is None:
            return None
        self._next = None
        received = Request(request, self)
        self._streams.add(received.stream())
        return received

    receiveRequest = receive_request  # noqa: N815

    def __iter__(self) -> Iterator[Any]:
        """Requests, until the client has closed in order."""
        while True:
            try:
                found = [self.receive_request()]
            except QuicConnectionException as e:
                if e.cause not in ("closed-by-peer", "closed-here"):
                    raise
                return
            yield found.pop()  # and keep nothing that its user has forgotten

    @noted
    def is_websocket(self, path: str | None = None, ms: float | None = None) -> bool:
        """Does the next request ask for a WebSocket, at this path? It is waited for, and not consumed. False
        also when none came: in `ms` milliseconds, or before the client left."""
        try:
            request = self._look(milliseconds_or_none(ms))
        except QuicConnectionException:
            return False
        return request is not None and request.is_websocket and _is_at(request, path)

    isWebSocket = is_websocket  # noqa: N815

    @noted
    def upgrade(self, path: str | None = None, **options: Any) -> WebSocketFile:
        """Accept the WebSocket that the next request asks for, as a text file: `fwrite`, `fgets`, `feof`,
        `fclose`, or its methods. Options as `quicgreen.websocket.accept`.

        Raises:
            QuicClientException: the next request asks for none, or for one at another path; it stays.
            InvalidHandshake: it cannot be accepted, and was answered with 400.
            QuicConnectionException: the session is over.
        """
        request = self._look(None)
        assert request is not None
        if not request.is_websocket or not _is_at(request, path):
            raise error("state", f"{request.method} {request.path} asks for no WebSocket at {path}")
        self._next = None
        file = request.accept_websocket(**options).makefile()
        file.owner = self
        self._sockets.add(file)
        return file

    def _begin_close(self) -> None:
        """What was not said to its end now is cut off, for the close waits for what was: an answer that
        nobody will give would hold it up."""
        if self.connection.closed:
            return
        for stream in list(self._streams):
            stream.cut_off()
        for file in list(self._sockets):
            file.websocket._leave()
        unseen = [self._next, *self.connection._opened]
        self._next = None
        for request in unseen:
            if isinstance(request, messages.Request):
                request._end()

    def poll(self, ms: float) -> None:
        """See `quicpro_poll`: until a request is here."""
        seconds = milliseconds(ms)
        self._check()
        if seconds and self._next is None:
            self._next = self.connection.accept_request(seconds)
        else:
            self._runtime.turn()
        if self._next is None:
            self._check()


def _is_at(request: messages.Request, path: str | None) -> bool:
    """Without a query in `path`, any query will do."""
    return path is None or path in (request.path, request.path.partition("?")[0])
