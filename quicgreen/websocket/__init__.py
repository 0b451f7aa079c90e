"""WebSockets over HTTP/3 (RFC 9220), with the names of `websockets.sync`.

    with quicgreen.websocket.connect("wss://example.org/chat") as websocket:
        websocket.send("hello")
        for message in websocket:
            print(message)

A server's handler: `request.is_websocket`, `request.accept_websocket()` (`Server(websocket=True)`).
"""

from .connection import WebSocket
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
    PayloadTooBig,
    WebSocketException,
)
from .handshake import accept, connect
from .protocol import State
from .textfile import WebSocketFile

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "InvalidHandshake",
    "InvalidStatus",
    "PayloadTooBig",
    "State",
    "WebSocket",
    "WebSocketException",
    "WebSocketFile",
    "accept",
    "connect",
]
