"""WebSocket's frames: the binding of cext/src/ws_frame.c.

The third module that imports the C module. No engine is concerned: a reader is used by one greenlet at a
time, in any thread. Received bytes are unmasked where they lie, and copied once.
"""

from __future__ import annotations

import struct
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

_KEPT: int = lib.QG_WS_KEPT
_FIN: int = lib.QG_WS_FIN
_MASK: int = lib.QG_WS_MASK

_STATE_SIZE: int = ffi.sizeof("qg_ws_reader")
_CONTROL: int = ffi.offsetof("qg_ws_reader", "control")
_BYTES = ffi.typeof("uint8_t[]")
_READER = ffi.typeof("qg_ws_reader *")
_first = struct.Struct("=IIIIIIII").unpack_from
"""What a call came to: count, used, error, closed; and its first piece: offset, length, opcode, flags."""
_PIECE = struct.Struct("=IIII")
_PIECES: int = ffi.offsetof("qg_ws_reader", "pieces")
assert (_PIECES, _PIECE.size) == (16, ffi.sizeof("qg_ws_piece"))

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

    __slots__ = ("_reader", "_state")

    def __init__(self, *, is_server: bool, rsv1: bool = False) -> None:
        # Its fields are read by `struct`, which is quicker than cffi's way to them.
        self._state = bytearray(_STATE_SIZE)
        self._reader = ffi.from_buffer(_READER, self._state)
        flags = (lib.QG_WS_SERVER if is_server else 0) | (RSV1 if rsv1 else 0)
        lib.qg_ws_reader_init(self._reader, flags)

    def feed(self, buffer: bytearray | memoryview, n: int) -> list[Piece]:
        """Take the first `n` bytes of `buffer`, which are unmasked in place.

        Returns pieces (opcode, flags, payload). Of a text or binary message as much as came, continuation
        frames under their message's opcode; control frames whole, a close frame's payload checked. Text is
        known to be UTF-8, across pieces, unless it is compressed (`RSV1`). What follows a close frame is
        dropped.

        Raises:
            FrameError: now, and at every later call.
        """
        data = ffi.from_buffer(_BYTES, buffer, True)
        if n > len(data):
            raise error("argument", f"{n} bytes of a buffer of {len(data)}")
        state = self._state
        view = memoryview(buffer)
        lib.qg_ws_feed(self._reader, data, 0, n)
        count, used, code, _, offset, length, opcode, flags = _first(state)
        if used == n and not code:  # most often
            if count == 1 and flags < _KEPT:
                return [(opcode, flags, bytes(view[offset : offset + length]))]
            if count == 0:
                return []
        pieces: list[Piece] = []
        while True:
            for offset, length, opcode, flags in _PIECE.iter_unpack(
                state[_PIECES : _PIECES + count * _PIECE.size]
            ):
                if flags & _KEPT:
                    payload = bytes(state[_CONTROL : _CONTROL + length])
                else:
                    payload = bytes(view[offset : offset + length])
                pieces.append((opcode, flags & ~_KEPT, payload))
            if code:
                text = ffi.string(self._reader.problem).decode()
                ffi.release(data)  # a traceback shall not hold the caller's buffer
                view.release()
                raise FrameError(code, text, pieces)
            if used == n:
                return pieces
            lib.qg_ws_feed(self._reader, data, used, n)
            count, used, code, *_ = _first(state)


def build_frame(
    opcode: int, payload: bytes | memoryview, *, fin: bool = True, rsv1: bool = False, mask: bool = False
) -> bytes:
    """One frame, ready to be sent. `mask`: we are the client; the key is random.

    Raises:
        QuicClientException: no such opcode, or a control frame that is long, fragmented or has RSV1.
    """
    flags = (_FIN if fin else 0) | (RSV1 if rsv1 else 0) | (_MASK if mask else 0)
    length = len(payload)
    # A new object that nobody else has seen yet may be written to: one copy less. It has two bytes or
    # more; shorter ones are Python's own, and shared.
    frame = bytes(lib.qg_ws_frame_size(length, flags))
    data: Any = payload if type(payload) is bytes else ffi.from_buffer(_BYTES, payload)
    if lib.qg_ws_build(opcode, flags, data, length, frame) < 0:
        raise error("argument", f"no frame has opcode {opcode}, fin={fin}, rsv1={rsv1} and {length} bytes")
    return frame


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
