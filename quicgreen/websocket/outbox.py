"""What a WebSocket has to send and its pipe does not take yet: whole frames, in order.

A frame that was begun is sent to its end, also when the greenlet that sent it was killed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .. import _engine
from .._engine import AGAIN, FIN, STATUS, STREAM_ERROR, TOKEN, TYPE

if TYPE_CHECKING:
    from ..hub import Runtime

_END = b""
"""Among the frames: our side of the stream ends here. No frame is as short."""


class Outbox:
    """See above.

    Attributes:
        owner: told in the hub when frames were taken (`_on_sent`), and wherever it is found out that no more
            will be (`_on_send_failure`); None once it does not care.
        owed: bytes of frames that answer the peer's, and were not taken.
        closed: nothing more can be sent.
        failure: why, when it was not we who ended it.
    """

    __slots__ = (
        "_frames", "_pipe", "_put", "_runtime", "_senders", "_sent", "_writing", "closed", "failure", "owed",
        "owner",
    )  # fmt: skip

    def __init__(self, runtime: Runtime, pipe: Any, owner: Any) -> None:
        self._runtime = runtime
        self._pipe = pipe
        self._frames: deque[Any] | None = None  # the first one in part; None: none yet, as for most
        self._put = self._sent = 0  # frames that came in and went out
        self._senders: list[tuple[int, int]] = []  # (frame's number, token) of who waits
        self._writing = 0  # token of the armed write; 0: none
        self.owner = owner
        self.owed = 0
        self.closed = False
        self.failure: BaseException | None = None

    def transmit(self, frame: bytes) -> bool:
        """Send a frame, and wait until it was taken; False when it never will be."""
        if not self._frames:
            n, code = self._pipe.write(frame, 0, 0)
            if n == len(frame):
                return True
            if n < 0 and n != AGAIN:
                self._fail(n, code)
                return False
            self.put(memoryview(frame)[n:] if n > 0 else frame)
        else:
            self.put(frame)
        number = self._put
        runtime = self._runtime
        while self._sent < number and not self.closed:
            token = runtime.new_token()
            self._senders.append((number, token))
            try:
                runtime.wait(token)
            finally:
                self._senders = [s for s in self._senders if s[1] != token]
        return self._sent >= number

    def put(self, frame: Any, *, reply: bool = False) -> None:
        """Put a frame behind the others, and send what can be sent."""
        if self.closed:
            return
        if self._frames is None:
            self._frames = deque()
        elif reply and self._frames:
            self.owed += len(frame)
        self._frames.append(frame)
        self._put += 1
        if not self._writing:
            self._push()

    def end(self) -> None:
        """What was put is the last."""
        if not self.closed and not (self._frames and self._frames[-1] is _END):
            self.put(_END)

    def drop(self) -> None:
        """Nothing more is to be sent."""
        self.closed = True
        self._frames = None
        self.owed = 0
        if self._writing:
            self._runtime.targets.pop(self._writing, None)
            self._writing = 0
        self._wake()

    def _push(self) -> None:
        runtime = self._runtime
        frames = self._frames
        while frames:
            frame = frames[0]
            token = runtime.new_token()
            n, code = self._pipe.write(frame, FIN if frame is _END else 0, token)
            if n == AGAIN:
                self._writing = token
                runtime.targets[token] = self._on_writable
                return
            if n < 0:
                self._fail(n, code)
                return
            if n < len(frame):
                frames[0] = memoryview(frame)[n:]
                continue
            frames.popleft()
            self._sent += 1
            if frame is _END:
                self.closed = True
        self.owed = 0

    def _on_writable(self, record: Any) -> None:
        self._runtime.targets.pop(record[TOKEN], None)
        self._writing = 0
        if record[TYPE] == STREAM_ERROR:
            self._fail(-record[STATUS], record[_engine.CODE])
            return
        self._push()
        self._wake()
        if self.owner is not None:
            self.owner._on_sent()

    def _fail(self, result: int, code: int) -> None:
        self.failure = self._pipe.failure(result, code)
        self.drop()
        if self.owner is not None:
            self.owner._on_send_failure()

    def _wake(self) -> None:
        """Those whose frame was taken, or never will be."""
        for number, token in self._senders:
            if number <= self._sent or self.closed:
                self._runtime.later(self._runtime.answer, token)
