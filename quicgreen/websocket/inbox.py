"""What a WebSocket's peer has sent and nobody has received: pieces of messages, in order.

Bytes are taken from the pipe in the hub, whether somebody receives or not, as long as there is room for what
they bring. Beyond that no read is armed: the rest stays in the pipe, and so with the peer.

Rule: a message that was taken from the pipe is received by somebody, or the WebSocket ends before it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .. import _engine
from .._engine import AGAIN, FIN, MORE, STATUS, STREAM_ERROR, TOKEN, TYPE
from .._frames import TEXT
from ..exceptions import QuicException, error
from .outbox import Outbox
from .protocol import Piece, Protocol

if TYPE_CHECKING:
    from ..hub import Runtime

_READ_SIZE = 32768
"""Read at a time, into a buffer that all WebSockets of a hub share."""

_READ_AHEAD = 65536
"""Bytes of messages kept for who has not received them: one window of a short path."""

_REPLIES_MAX = 65536
"""Bytes of pongs for a peer that does not take them: then its pings are not read either."""


class Inbox:
    """See above.

    Attributes:
        owner: told when the protocol has something else than a message (`_on_control`), and of the end of
            what comes (`_on_read_end`); None once it does not care.
        held: bytes of messages that nobody has received.
        closing: we have said that we close: what comes is dropped.
        ended: nothing more is read.
    """

    __slots__ = (
        "_complete", "_max_queue", "_outbox", "_pipe", "_protocol", "_queue", "_reading", "_receiver",
        "_runtime", "_streaming", "closing", "ended", "held", "owner",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        pipe: Any,
        protocol: Protocol,
        outbox: Outbox,
        max_queue: int | None,
        owner: Any,
    ) -> None:
        self._runtime = runtime
        self._pipe = pipe
        self._protocol = protocol
        self._outbox = outbox  # of the same WebSocket
        self._max_queue = max_queue
        self._queue: deque[Piece] = deque()  # of messages, the last of which may be incomplete
        self._complete = 0  # whole messages of the queue
        self._reading = 0  # token of the armed read; 0: none
        self._receiver = 0  # token of who receives
        self._streaming = False  # who takes pieces
        self.owner: Any = owner
        self.held = 0
        self.closing = False
        self.ended = False
        if len(runtime.scratch) < _READ_SIZE:
            runtime.scratch = bytearray(_READ_SIZE)

    # ---------------------------------------------------------------- who receives

    def message(self, timeout: float | None, decode: bool | None) -> Any:
        """The next message, waited for; as `WebSocket.recv`."""
        if not self._complete or self._receiver:
            self._wait(timeout, streaming=False)
        opcode, payload, ends = self._queue.popleft()
        self.held -= len(payload)
        if not ends:
            payload = self._join(payload)
        self._complete -= 1
        if not self._reading and not self.ended:
            self.read()
        if opcode == TEXT if decode is None else decode:
            return payload.decode()
        return payload

    def _join(self, first: bytes) -> bytes:
        """A message of several pieces, all of which are here."""
        parts, ends = [first], False
        while not ends:
            _, payload, ends = self._queue.popleft()
            self.held -= len(payload)
            parts.append(payload)
        return b"".join(parts)

    def piece(self) -> Piece:
        """The next piece of a message, waited for."""
        if not self._queue or self._receiver:
            self._wait(None, streaming=True)
        piece = self._queue.popleft()
        self.held -= len(piece[1])
        self._complete -= piece[2]
        if not self._reading and not self.ended:
            self.read()
        return piece

    def _wait(self, timeout: float | None, streaming: bool) -> None:
        """Until there is a message, or with `streaming` a piece of one."""
        if self._receiver:
            raise error("websocket-concurrency", "another greenlet receives")
        runtime = self._runtime
        token = self._receiver = runtime.new_token()
        self._streaming = streaming
        deadline = None
        try:
            if not self._reading:
                self.read()  # which was left for want of room
            while not (self._queue if streaming else self._complete):
                if not self._protocol.hears:
                    raise self._protocol.exception()
                if deadline is None and timeout is not None:
                    deadline = runtime.deadlines.add(max(timeout, 0), lambda: runtime.answer(token))
                elif deadline is not None and deadline[2] is None:
                    raise error("deadline", f"no message in {timeout} s")
                runtime.wait(token)
        finally:
            self._receiver = 0
            self._streaming = False
            if deadline is not None:
                runtime.deadlines.cancel(deadline)

    def tell(self) -> None:
        """Wake who receives, if there is something for it. In the hub, at the end."""
        if self._receiver and (
            self._complete or (self._streaming and self._queue) or not self._protocol.hears
        ):
            self._runtime.answer(self._receiver)

    # ---------------------------------------------------------------- the pipe

    @property
    def is_full(self) -> bool:
        """More may have come, and there is no room for it."""
        return not self._reading and not self.ended

    def read(self) -> None:
        """Take what came, as far as there is room, and have more told."""
        runtime = self._runtime
        buffer = runtime.scratch
        while not (self._reading or self.ended) and self._has_room():
            token = runtime.new_token()
            n, flags, code = self._pipe.read(buffer, token)
            if n == AGAIN or flags & MORE:
                self._reading = token
                runtime.targets[token] = self._on_readable
            if n > 0:
                self.take(buffer, n)
            elif n == AGAIN:
                return
            if n < 0:
                self.end(self._pipe.failure(n, code))
            elif flags & FIN:
                self.end(None)

    def _has_room(self) -> bool:
        if self.closing or not self._protocol.hears:
            return True  # to be dropped
        if self._outbox.owed > _REPLIES_MAX:
            return False
        if self._receiver and not self._streaming and not self._complete:
            return True
        if self._max_queue is not None and self._complete >= self._max_queue:
            return False
        return self.held < _READ_AHEAD

    def _on_readable(self, record: Any) -> None:
        self._runtime.targets.pop(record[TOKEN], None)
        self._reading = 0
        if record[TYPE] == STREAM_ERROR:
            self.end(self._pipe.failure(-record[STATUS], record[_engine.CODE]))
        else:
            self.read()
        self.tell()

    def take(self, buffer: bytearray, n: int) -> None:
        """The first `n` bytes of `buffer` came; they are changed."""
        protocol = self._protocol
        pieces = protocol.receive(buffer, n)
        if not self.closing:
            for piece in pieces:
                self._queue.append(piece)
                self.held += len(piece[1])
                self._complete += piece[2]
        if protocol.pongs or protocol.out or not protocol.hears:
            self.owner._on_control()

    def end(self, cause: QuicException | None) -> None:
        """Nothing more comes: in order, or for an error."""
        self.ended = True
        if self.owner is not None:
            self.owner._on_read_end(cause)

    def drop(self) -> None:
        """Nothing more is to be read, and nobody to be told."""
        self.ended = True
        self.owner = None
        if self._reading:
            self._runtime.targets.pop(self._reading, None)
            self._reading = 0
