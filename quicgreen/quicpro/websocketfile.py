"""A WebSocket as PHP's stream functions see it; the file itself is `quicgreen.websocket.WebSocketFile`."""

from __future__ import annotations

from typing import Any

from ..exceptions import error
from ..websocket import WebSocketFile
from .last_error import noted


@noted
def fwrite(ws: WebSocketFile, text: str | bytes) -> int:
    """Send it as one text message, if there is any of it. Returns its length.

    Raises:
        ConnectionClosed: the WebSocket is closed.
        QuicClientException: it is not text.
    """
    _check(ws)
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as e:
            raise error("argument", f"a text message is UTF-8: {e}") from None
    if not isinstance(text, str):
        raise error("argument", f"a message is text, not {type(text).__name__}")
    return ws.write(text)


@noted
def fgets(ws: WebSocketFile) -> str:
    """The next line: it ends with a newline, or where its message ends; "" when the peer has closed.

    Raises:
        ConnectionClosedError: the WebSocket ended otherwise.
    """
    _check(ws)
    return ws.readline()


@noted
def feof(ws: WebSocketFile) -> bool:
    """The peer's close was read: there is no further line. It does not wait."""
    _check(ws)
    return ws.eof


@noted
def fclose(ws: WebSocketFile) -> bool:
    """Close it in order. Idempotent."""
    _check(ws)
    ws.close()
    return True


def _check(ws: Any) -> None:
    if not isinstance(ws, WebSocketFile):
        raise error("argument", f"a WebSocket is what upgrade() gives, not {type(ws).__name__}")
