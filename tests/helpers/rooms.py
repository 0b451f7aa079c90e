"""A server for WebSockets of ours, and both ends of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.event import Event
from support import url_of, wait_until

import quicgreen
from quicgreen.websocket import ConnectionClosed, WebSocket


class Room:
    """A server that does with each WebSocket what the path says, and keeps it."""

    def __init__(self) -> None:
        self.sockets: list[WebSocket] = []
        self.ends: list[ConnectionClosed] = []
        self.go = Event()
        self.options: dict[str, Any] = {}
        self.do: Callable[[WebSocket], Any] = self.echo
        self.server: Any = None
        self.session: Any = None

    def __call__(self, request: quicgreen.Request) -> None:
        ws = request.accept_websocket(**self.options)
        self.sockets.append(ws)
        try:
            self.do(ws)
        except ConnectionClosed as e:
            self.ends.append(e)
            raise

    def echo(self, ws: WebSocket) -> None:
        while True:
            ws.send(ws.recv())

    def wait(self, ws: WebSocket) -> None:
        self.go.wait()

    def open(self, **options: Any) -> WebSocket:
        ws: WebSocket = self.session.websocket(url_of(self.server), **options)
        return ws

    def pair(self, **options: Any) -> tuple[WebSocket, WebSocket]:
        """A client's socket and the server's, whose handler waits."""
        self.do = self.wait
        ws = self.open(**options)
        assert wait_until(lambda: self.sockets)
        return ws, self.sockets[-1]
