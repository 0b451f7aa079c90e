"""A WebSocket as a text file: for programs that read and write lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .exceptions import ConnectionClosed

if TYPE_CHECKING:
    from .connection import WebSocket


class WebSocketFile:
    """Text read and written over a WebSocket; `WebSocket.makefile` makes one.

    What one `write` is given is one text message. A line that is read ends with a newline, or where its
    message ends; an empty message is an empty line.

    Attributes:
        websocket: what is below.
        owner: what must not be forgotten before it.
    """

    owner: Any = None

    encoding = "utf-8"

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self._rest = ""
        self._eof = False

    def write(self, text: str) -> int:
        """Send it as one message, if there is any of it. Returns its length.

        Raises:
            ConnectionClosed: it is closed."""
        if text:
            self.websocket.send(text, text=True)
        return len(text)

    def readline(self) -> str:
        """The next line, as soon as it is here; "" when the peer has closed in order and all was read.

        Raises:
            ConnectionClosedError: it ended otherwise."""
        if not self._rest and not self._eof:
            try:
                self._rest = self.websocket.recv(decode=True) or "\n"
            except ConnectionClosed as e:
                self._eof = True
                if e.cause != "websocket-closed":
                    raise
        line, newline, self._rest = self._rest.partition("\n")
        return line + newline

    @property
    def eof(self) -> bool:
        """The close was read: there is no further line."""
        return self._eof

    @property
    def closed(self) -> bool:
        """Closed, by whichever side."""
        return self.websocket.close_code is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.readline, "")

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the WebSocket."""
        self.websocket.close()

    def __enter__(self) -> WebSocketFile:
        return self

    def __exit__(self, kind: Any, exception: BaseException | None, traceback: Any) -> None:
        self.websocket.__exit__(kind, exception, traceback)
