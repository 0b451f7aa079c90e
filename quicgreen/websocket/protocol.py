"""One side of a WebSocket (RFC 6455, sections 5 to 7), without any I/O.

    bytes from the peer -> `receive` -> pieces of messages for whoever reads
                                     -> `out`: frames that answer them by themselves (pong, close)
    messages -> `message`, `ping`, `close` ... -> bytes for the peer

Rules
1. What the peer sends after its close frame, or after it was told of its breach, is dropped.
2. After our close frame nothing more is made: `state` is no longer OPEN.
3. Nobody is told of a message's beginning before its bytes were checked; a message that turns out to be wrong
   ends without its last piece.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any

from .._frames import (
    BINARY,
    CLOSE,
    FIN,
    MASK,
    MESSAGE_END,
    MESSAGE_START,
    PING,
    PONG,
    RSV1,
    TEXT,
    WHOLE,
    FrameReader,
    Utf8,
    build,
    build_frame,
)
from ..exceptions import error
from . import exceptions
from .deflate import DeflateError
from .exceptions import MESSAGE_TOO_BIG, NO_STATUS_RECEIVED, ConnectionClosed

Piece = tuple[int, bytes, bool]
"""Of a message: TEXT or BINARY, bytes (UTF-8, checked), whether the message ends with it."""

Data = str | bytes | bytearray | memoryview
"""A message, or a part of one."""

CONTROL_MAX = 125
"""RFC 6455, section 5.5."""

_SENDABLE = {1000, 1001, 1002, 1003, *range(1007, 1015)}
"""Codes below 3000 that may stand in a close frame (section 7.4.1 and IANA's registry)."""


class State(IntEnum):
    """Names and numbers of the `websockets` library."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


OPEN = State.OPEN
"""A member of an enumeration takes a while to be looked up."""


def is_close_code(code: int) -> bool:
    """May it stand in a close frame?"""
    return code in _SENDABLE or 3000 <= code < 5000


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame.

    Raises:
        QuicClientException: a code that must not be sent, or a reason of more than 123 bytes.
    """
    if code == NO_STATUS_RECEIVED and not reason:
        return b""
    if not isinstance(code, int) or not is_close_code(code):
        raise error("argument", f"{code!r} is not a code to close with (RFC 6455, section 7.4)")
    payload = code.to_bytes(2, "big") + reason.encode()
    if len(payload) > CONTROL_MAX:
        raise error("argument", f"a reason has at most {CONTROL_MAX - 2} bytes, not {len(payload) - 2}")
    return payload


def encode(message: Data, text: bool | None) -> tuple[int, bytes | memoryview]:
    """(opcode, bytes) of a message, or of a part of one."""
    if isinstance(message, str):
        return (TEXT if text is None or text else BINARY), message.encode()
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise error("argument", f"{type(message).__name__} is no message: str, or bytes and its like")
    data = message if isinstance(message, bytes) else memoryview(message).cast("B")
    return (TEXT if text else BINARY), data


class Protocol:
    """See above.

    Attributes:
        state: OPEN; CLOSING, from the first close frame on, whosever; CLOSED, when nothing more will come.
        received, sent: (code, reason) of the close frames; None before.
        failure: the code with which we ended it for what the peer did; None when we did not.
        out: frames to be sent, in order.
        pongs: payloads of pongs that came, in order.
        hears: what comes still means something.
    """

    __slots__ = (
        "_cause", "_deflate", "_feed", "_flags", "_inflating", "_mask", "_max_size", "_size", "_utf8",
        "_whole_max", "failure", "hears", "out", "pongs", "received", "sent", "state",
    )  # fmt: skip

    def __init__(self, *, is_server: bool, max_size: int | None = 1 << 20, deflate: Any = None) -> None:
        """`deflate`: a `PerMessageDeflate` when both sides agreed on it. `max_size`: bytes of a message that
        comes; None for any."""
        self._feed = FrameReader(is_server=is_server, rsv1=deflate is not None).take
        self._mask = not is_server
        self._flags = FIN if is_server else FIN | MASK  # of a message in one frame
        self._max_size = max_size
        self._whole_max = sys.maxsize if max_size is None else max_size
        self._deflate = deflate
        self._inflating = False  # the message that comes is compressed
        self._utf8: Utf8 | None = None  # of a compressed text message that comes
        self._size = 0  # of the message that comes, so far
        self._cause: BaseException | None = None
        self.state = State.OPEN
        self.hears = True
        self.received: tuple[int, str] | None = None
        self.sent: tuple[int, str] | None = None
        self.failure: int | None = None
        self.out: list[bytes] = []
        self.pongs: list[bytes] = []

    # ---------------------------------------------------------------- receiving

    def receive(self, buffer: bytearray | memoryview, n: int) -> list[Piece]:
        """Take the first `n` bytes of `buffer`, which are changed."""
        if not self.hears:
            return []
        found = self._feed(buffer, n)
        if len(found) == 1:  # most often: a message
            opcode, flags, payload = found[0]
            if flags == WHOLE and opcode < CLOSE and len(payload) <= self._whole_max:
                return [(opcode, payload, True)]
        pieces: list[Piece] = []
        if found.__class__ is tuple:
            before, code, text = found
            if self._take(before, pieces):
                self.fail(code, text)
        else:
            self._take(found, pieces)
        return pieces

    def _take(self, found: list[tuple[int, int, bytes]], pieces: list[Piece]) -> bool:
        """False when the rest does not matter."""
        for opcode, flags, payload in found:
            if opcode < CLOSE:
                if not self._take_data(opcode, flags, payload, pieces):
                    return False
            elif opcode == PING:
                if self.state is State.OPEN:
                    self.out.append(build_frame(PONG, payload, mask=self._mask))
            elif opcode == PONG:
                self.pongs.append(payload)
            else:
                self._take_close(payload)
                return False
        return True

    def _take_data(self, opcode: int, flags: int, payload: bytes, pieces: list[Piece]) -> bool:
        ends = flags & MESSAGE_END != 0
        if flags & MESSAGE_START:
            self._size = 0
            self._inflating = flags & RSV1 != 0
            self._utf8 = Utf8() if self._inflating and opcode == TEXT else None
        if self._inflating:
            room = None if self._max_size is None else self._max_size - self._size
            try:
                payload = self._deflate.decode(payload, end=ends, room=room)
            except DeflateError as e:
                self.fail(e.code, e.text)
                return False
            if self._utf8 is not None and not self._utf8.feed(payload, ends):
                self.fail(exceptions.INVALID_DATA, "text that is not UTF-8")
                return False
        self._size += len(payload)
        if self._max_size is not None and self._size > self._max_size:
            self.fail(MESSAGE_TOO_BIG, f"a message of more than {self._max_size} bytes")
            return False
        if payload or ends:
            pieces.append((opcode, payload, ends))
        return True

    def _take_close(self, payload: bytes) -> None:
        # The reader has checked it (section 5.5.1).
        code = int.from_bytes(payload[:2], "big") if payload else NO_STATUS_RECEIVED
        self.received = code, payload[2:].decode()
        self.hears = False
        if self.sent is None:
            self._send_close(*self.received)
        self.state = State.CLOSING

    def fail(self, code: int, text: str) -> None:
        """The peer broke the protocol, or does not do what it should: say so, and hear no more (section
        7.1.7)."""
        if not self.hears:
            return
        self.failure = code
        self.hears = False
        if code == MESSAGE_TOO_BIG:
            self._cause = error("websocket-too-big", text)
        if self.sent is None:
            self._send_close(code, text)

    def lost(self, cause: BaseException | None = None) -> None:
        """The stream ended: nothing more will come. `cause`: why, if not in order."""
        self.hears = False
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            if self._cause is None:
                self._cause = cause

    # ---------------------------------------------------------------- sending

    def message(self, opcode: int, data: bytes | memoryview) -> bytes:
        """A message in one frame. Only while OPEN."""
        if self._deflate is None:
            frame: bytes = build(opcode, self._flags, data)  # type: ignore[assignment]  # there is one
            return frame
        return self.fragment(opcode, data, fin=True, compress=True)

    def fragment(
        self, opcode: int, data: bytes | memoryview, *, fin: bool, first: bool = True, compress: bool
    ) -> bytes:
        """A frame of a message; `opcode` is the message's in the first one, and 0 in others. `compress`: the
        message is compressed, which its first frame says."""
        if compress and self._deflate is not None:
            return build_frame(
                opcode, self._deflate.encode(data, end=fin), fin=fin, rsv1=first, mask=self._mask
            )
        return build_frame(opcode, data, fin=fin, mask=self._mask)

    @property
    def compresses(self) -> bool:
        """Messages are compressed."""
        return self._deflate is not None

    def ping(self, payload: bytes) -> bytes:
        """A ping frame. Only while OPEN."""
        return build_frame(PING, payload, mask=self._mask)

    def pong(self, payload: bytes) -> bytes:
        """A pong frame that nobody asked for. Only while OPEN."""
        return build_frame(PONG, payload, mask=self._mask)

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake, once; the frame goes to `out`."""
        payload = close_payload(code, reason)
        if self.sent is None and self.state is State.OPEN:
            self._send_close(code, reason, payload)

    def _send_close(self, code: int, reason: str, payload: bytes | None = None) -> None:
        if payload is None:
            reason = _shortened(reason)
            payload = close_payload(code, reason)
        self.sent = code, reason
        self.state = State.CLOSING
        self.out.append(build_frame(CLOSE, payload, mask=self._mask))

    # ---------------------------------------------------------------- the end

    @property
    def code(self) -> int | None:
        """How it was closed; None before it is. See `ConnectionClosed.code`."""
        if self.hears:
            return None
        return exceptions.what_closed(self.received, self.sent, self.failure)[0]

    @property
    def reason(self) -> str | None:
        """What was said with the code."""
        if self.hears:
            return None
        return exceptions.what_closed(self.received, self.sent, self.failure)[1]

    def exception(self) -> ConnectionClosed:
        """What whoever goes on using it is told."""
        return exceptions.closed(self.received, self.sent, failure=self.failure, cause=self._cause)


def _shortened(reason: str) -> str:
    """What fits a close frame."""
    return reason.encode()[: CONTROL_MAX - 2].decode(errors="ignore")
