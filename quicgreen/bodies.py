"""Bodies to send: bytes, text, a file, or an iterable of bytes or text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .exceptions import error

CHUNK = 65536
"""Bytes read at a time from a file or for an iterator: as much as the engine keeps for a stream."""

Body = bytes | bytearray | memoryview | str | Iterable[bytes | str] | Any | None
"""What may be sent: bytes, text (as UTF-8), a file, or an iterable of bytes or text."""


def as_bytes(piece: Any) -> bytes | bytearray | memoryview:
    if isinstance(piece, str):
        return piece.encode()
    if isinstance(piece, memoryview):
        return piece.cast("B") if piece.format != "B" or piece.ndim != 1 else piece
    if isinstance(piece, (bytes, bytearray)):
        return piece
    raise error("argument", f"a body consists of bytes or text, not {type(piece).__name__}")


def pieces(body: Any) -> Iterator[bytes | bytearray | memoryview]:
    """The bytes of a file or an iterable, piece by piece."""
    read = getattr(body, "read", None)
    if callable(read):
        return _pieces_of_file(read)
    if not isinstance(body, Iterable):
        raise error("argument", f"{type(body).__name__} cannot be sent as a body")
    return (as_bytes(piece) for piece in body if piece)


def _pieces_of_file(read: Callable[[int], Any]) -> Iterator[bytes | bytearray | memoryview]:
    while chunk := read(CHUNK):
        yield as_bytes(chunk)


def exactly(length: int, parts: Iterable[Any]) -> Iterator[Any]:
    """The parts, which must be `length` bytes together.

    Raises:
        QuicClientException: they are more, or fewer.
    """
    tally = Tally(length)
    for part in parts:
        tally.add(len(part))
        yield part
    tally.add(0, last=True)


class Tally:
    """Counts a body that is given in pieces against its content-length, if it has one."""

    __slots__ = ("_left", "_length")

    def __init__(self, length: int | None) -> None:
        self._length = self._left = length

    def add(self, size: int, *, last: bool = False) -> None:
        """`size` more bytes are to be sent, and nothing after the `last` ones.

        Raises:
            QuicClientException: together they are more than announced, or fewer at the end."""
        if self._left is None:
            return
        if size > self._left:
            raise error("content-length", f"more than the {self._length} bytes announced")
        if last and size < self._left:
            sent = (self._length or 0) - self._left + size
            raise error("content-length", f"{sent} bytes, announced as {self._length}")
        self._left -= size


def close_body(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
