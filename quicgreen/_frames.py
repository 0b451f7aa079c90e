"""WebSocket's frames: the binding of cext/src/ws_frame.c.

The third module that imports the C module. No engine is concerned: a reader is used by one greenlet at a
time, in any thread. Received bytes are unmasked where they lie, and copied once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENOMEM
from typing import Any

from ._core import ffi, lib
from .exceptions import error

CONTINUATION: int = lib.QG_WS_CONTINUATION
TEXT: int = lib.QG_WS_TEXT
BINARY: int = lib.QG_WS_BINARY
CLOSE: int = lib.QG_WS_CLOSE
PING: int = lib.QG_WS_PING
PONG: int = lib.QG_WS_PONG

FRAME_END: int = lib.QG_WS_FRAME_END
MESSAGE_END: int = lib.QG_WS_MESSAGE_END
RSV1: int = lib.QG_WS_RSV1
MESSAGE_START: int = lib.QG_WS_MESSAGE_START
WHOLE = MESSAGE_START | MESSAGE_END | FRAME_END
"""Flags of a message that came as one piece."""

FIN: int = lib.QG_WS_FIN
MASK: int = lib.QG_WS_MASK
_BYTES = ffi.typeof("uint8_t[]")

Piece = tuple[int, int, bytes]
"""opcode, flags, payload."""


class FrameError(Exception):
    """The peer broke the protocol.

    Args:
        code: the close code to fail the connection with: 1002, or 1007 for text that is not UTF-8.
        text: what is wrong, in words.
        pieces: what came before it in the bytes fed, and is still good.
    """

    def __init__(self, code: int, text: str, pieces: list[Piece]) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text
        self.pieces = pieces


class FrameReader:
    """What comes from the peer of one socket, as pieces of messages.

    Args:
        is_server: the peer is a client, whose frames are masked.
        rsv1: an extension uses the bit RSV1 of messages.
    """

    __slots__ = ("take",)

    def __init__(self, *, is_server: bool, rsv1: bool = False) -> None:
        functions: dict[str, Any] = {}
        flags = (lib.QG_WS_SERVER if is_server else 0) | (RSV1 if rsv1 else 0)
        if lib.qg_frame_reader(flags, id(functions)) < 0:
            raise error("engine", os.strerror(ENOMEM), errno=ENOMEM)
        self.take: Callable[[bytearray | memoryview, int], Any] = functions["feed"]
        """`feed`, but instead of raising it returns what a `FrameError` is made of: (pieces, code, text)."""

    def feed(self, buffer: bytearray | memoryview, n: int) -> list[Piece]:
        """Take the first `n` bytes of `buffer`, which are unmasked in place.

        Returns pieces (opcode, flags, payload). Of a text or binary message as much as came, continuation
        frames under their message's opcode; control frames whole, a close frame's payload checked. Text is
        known to be UTF-8, across pieces, unless it is compressed (`RSV1`). What follows a close frame is
        dropped.

        Raises:
            FrameError: now, and at every later call.
        """
        if not 0 <= n <= len(buffer):
            raise error("argument", f"{n} bytes of a buffer of {len(buffer)}")
        found = self.take(buffer, n)
        if found.__class__ is tuple:
            pieces, code, text = found
            raise FrameError(code, text, pieces)
        pieces_found: list[Piece] = found
        return pieces_found


def build_frame(
    opcode: int, payload: bytes | memoryview, *, fin: bool = True, rsv1: bool = False, mask: bool = False
) -> bytes:
    """One frame, ready to be sent. `mask`: we are the client; the key is random.

    Raises:
        QuicClientException: no such opcode, or a control frame that is long, fragmented or has RSV1.
    """
    flags = (FIN if fin else 0) | (RSV1 if rsv1 else 0) | (MASK if mask else 0)
    frame: bytes | None = build(opcode, flags, payload)
    if frame is None:
        raise error(
            "argument", f"no frame has opcode {opcode}, fin={fin}, rsv1={rsv1} and {len(payload)} bytes"
        )
    return frame


def _builder() -> Callable[[int, int, bytes | memoryview], bytes | None]:
    functions: dict[str, Any] = {}
    lib.qg_frame_builder(id(functions))
    builder: Callable[[int, int, bytes | memoryview], bytes | None] = functions["build"]
    return builder


build = _builder()
"""build(opcode, flags, payload): `build_frame` by its flags, or None when there is no such frame."""


class Utf8:
    """Is a text UTF-8 that comes in parts, each checked once?"""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = ffi.new("qg_ws_utf8 *")

    def feed(self, data: bytes, end: bool) -> bool:
        """False when `data` cannot go on what came before, or, with `end`, leaves a character open. After
        an `end` that was True a new text begins; False is final."""
        part: Any = data if type(data) is bytes else ffi.from_buffer(_BYTES, data)
        return bool(lib.qg_ws_utf8_feed(self._state, part, len(data), end))
