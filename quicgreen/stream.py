"""One message's body, both ways, or the bytes of a stream without HTTP.

Everything that moves bytes stands on this: bodies of requests and responses, uploads, server-sent events,
WebSocket. Received bytes stay in the engine until they are read here, which is the back-pressure; written
ones are taken as the peer and the congestion window allow, and the writer waits for the rest.

A stream may be read by one greenlet and written by another at the same time; two of a kind are an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _engine, fields
from ._engine import AGAIN, DEADLINE, FIN, GONE, MORE, STATUS, STREAM_ERROR, TYPE
from .configuration import microseconds
from .exceptions import CAUSES, QuicException, QuicWarningPartialData, check_code, code_name, error, warn
from .headers import Headers

if TYPE_CHECKING:
    from ._engine import Record
    from .hub import Runtime

_READ_SIZE = 65536
"""What `read()` asks for at a time: the engine copies once, and a packet's worth is not worth a call."""

H3_NO_ERROR = 0x100
H3_INTERNAL_ERROR = 0x102
H3_REQUEST_CANCELLED = 0x10C

_CAUSES = {
    -_engine.RESET: "reset",
    -_engine.STOPPED: "stopped",
    -_engine.REFUSED: "refused",
    -_engine.PROTOCOL: "malformed",
    -_engine.SHORT: "body-too-short",
    -_engine.TOO_LARGE: "head-too-large",
    -_engine.CLOSED: "closed-here",
    -_engine.GONE: "stream-gone",
    -_engine.STATE: "state",
    -_engine.INVALID: "state",
    -_engine.NOMEM: "memory",
    -_engine.LIMIT: "limit",
    -_engine.FORKED: "fork",
}


_MALFORMED = ("malformed", "body-too-short")


def stream_error(result: int, code: int, *, raw: bool = False, sent: bool = True) -> QuicException:
    """The exception for a result code of the engine (given positive) and the peer's code."""
    cause = _CAUSES.get(result, "engine")
    by_peer = cause in ("reset", "stopped", "refused")
    detail = ""
    goaway = cause == "refused" and code == 0  # no code crossed the network
    if goaway:
        detail = "it takes no more on this connection (GOAWAY)"
    elif by_peer or (cause in _MALFORMED and code):
        detail = f"code {code}" if raw else code_name(code, True)
    elif result == -_engine.INVALID:
        detail = "another greenlet does the same on this stream"
    return error(
        cause,
        detail,
        wire_code=code if by_peer and not goaway else None,
        remote=by_peer,
        request_sent=sent and cause != "refused",
    )


def told(e: QuicException) -> QuicException:
    """`e`, which is about to be raised in a greenlet of the application: who has a part of a body, or may
    have one, is warned as well."""
    if e.cause == "body-too-short":
        warn(CAUSES[e.cause].message, QuicWarningPartialData)
    return e


class Stream:
    """A QUIC stream (RFC 9000, section 2) or the body of an HTTP/3 message on one.

    Attributes:
        id: the QUIC stream id.
        timeout: seconds that a read or write may wait; None for as long as the connection lives.
        trailers: the fields after the body, once it was read to its end; None when there were none.
    """

    __slots__ = (
        "_conn", "_engine", "_owner", "_raw", "_read_ended", "_released", "_runtime", "_write_ended", "id",
        "timeout", "trailers",
    )  # fmt: skip

    def __init__(
        self,
        runtime: Runtime,
        conn: int,
        stream: int,
        *,
        timeout: float | None = None,
        raw: bool = False,
        owner: Any = None,
        read_ended: bool = False,
        write_ended: bool = False,
    ) -> None:
        """`owner`: the connection object, asked why it ended (`closing_error`); None for a server's."""
        self._runtime = runtime
        self._engine = runtime.engine
        self._conn = conn
        self._owner = owner
        self._raw = raw
        self._read_ended = read_ended
        self._write_ended = write_ended
        self._released = False
        self.id = stream
        self.timeout = timeout
        self.trailers: Headers | None = None

    @property
    def kind(self) -> str:
        """'h3' or 'raw'."""
        return "raw" if self._raw else "h3"

    @property
    def read_ended(self) -> bool:
        """Nothing more can be read."""
        return self._read_ended

    @property
    def released(self) -> bool:
        """`release` was called: the engine tells nobody of this stream any more."""
        return self._released

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} ({self.kind})>"

    # ---------------------------------------------------------------- reading

    def readinto(self, buffer: Any) -> int:
        """Read into a writable buffer. Waits for the first byte, returns how many came; 0 at the end.

        Raises:
            QuicStreamException: the peer reset the stream, or the message is malformed.
            QuicTimeoutException: nothing came for `timeout` seconds.
            QuicConnectionException: the connection ended.
        """
        if self._read_ended or len(buffer) == 0:
            return 0
        runtime = self._runtime
        runtime.check("this stream")
        while True:
            token = runtime.new_token()
            n, flags, code = self._engine.read_into(
                self._conn, self.id, buffer, token, microseconds(self.timeout)
            )
            if n >= 0:
                if flags & FIN:
                    self._end_reading(flags)
                return n
            if n != AGAIN:
                raise told(self._failure(n, code))
            self._wait(token, "reading")

    def read_now(self, buffer: Any, call: Callable[[Record], Any]) -> tuple[int, int]:
        """`readinto` without waiting: (bytes, 0), or (-1, token) when nothing is here. Then `call` is called
        in the hub with the next event of this side, once; `problem` says what that means.

        Raises as `readinto`, but for the deadline."""
        if self._read_ended:
            return 0, 0
        runtime = self._runtime
        runtime.check("this stream")
        token = runtime.new_token()
        n, flags, code = self._engine.read_into(
            self._conn, self.id, buffer, token, microseconds(self.timeout)
        )
        if n >= 0:
            if flags & FIN:
                self._end_reading(flags)
            return n, 0
        if n != AGAIN:
            raise told(self._failure(n, code))
        runtime.targets[token] = call
        return -1, token

    def read(self, size: int = -1, limit: int | None = None) -> bytes:
        """Read up to `size` bytes, at least one; b"" at the end. With -1, all of the body, at most `limit`
        bytes (then QuicStreamException: what was read so far is lost)."""
        if size >= 0:
            chunk = bytearray(min(size, _READ_SIZE))
            return bytes(memoryview(chunk)[: self.readinto(chunk)])
        return self.read_all(limit)

    def read_all(self, limit: int | None = None, begun: bytes = b"") -> bytes:
        """`begun`, which was read before, and all that follows it; together at most `limit` bytes."""
        pieces = [begun]
        total = len(begun)
        chunk = bytearray(_READ_SIZE)
        view = memoryview(chunk)
        while limit is None or total <= limit:
            n = self.readinto(chunk)
            if n == 0:
                return b"".join(pieces)
            total += n
            pieces.append(bytes(view[:n]))
        self.stop()
        raise error("body-too-large", f"more than {limit} bytes")

    def _end_reading(self, flags: int) -> None:
        self._read_ended = True
        if flags & MORE:
            self.trailers = Headers(self._engine.trailers(self._conn, self.id))
            if self._write_ended:
                self.release()

    # ---------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data`; waits until the engine has taken it. Returns its length.

        Raises:
            QuicStreamException: the peer reads no further (its response may tell why).
            QuicTimeoutException: the peer took nothing for `timeout` seconds.
            QuicConnectionException: the connection ended.
        """
        return self._write(data, 0)

    def finish(self, data: bytes | bytearray | memoryview = b"") -> None:
        """Write `data` and end the message."""
        if not self._write_ended:
            self._write(data, FIN)
            self._write_ended = True

    def _write(self, data: bytes | bytearray | memoryview, flags: int) -> int:
        if self._write_ended:
            raise error("stream-gone", "written to after its end")
        runtime = self._runtime
        runtime.check("this stream")
        total = len(data)
        rest: Any = data
        while True:
            token = runtime.new_token()
            n, code = self._engine.write(self._conn, self.id, rest, flags, token, microseconds(self.timeout))
            if n >= 0:
                if n == len(rest):
                    return total
                rest = memoryview(rest)[n:]
            elif n == AGAIN:
                self._wait(token, "writing")
            else:
                raise self._failure(n, code)

    def send_trailers(self, trailers: fields.Fields) -> None:
        """End the message with a trailer section (RFC 9114, section 4.1)."""
        self._runtime.check("this stream")
        rc = self._engine.send_trailers(self._conn, self.id, fields.encode(trailers))
        if rc < 0:
            raise self._failure(rc, 0)
        self._write_ended = True

    # ---------------------------------------------------------------- ending

    def reset(self, code: int = H3_REQUEST_CANCELLED) -> None:
        """Give up sending: RESET_STREAM with this application code."""
        self._shutdown(_engine.SIDE_WRITE, code)
        self._write_ended = True

    def stop(self, code: int = H3_NO_ERROR) -> None:
        """Give up reading: STOP_SENDING with this application code."""
        self._shutdown(_engine.SIDE_READ, code)
        self._read_ended = True

    def release(self) -> None:
        """The last word: what is unread is refused, what is unsaid is cancelled. Idempotent."""
        if not self._released:
            if not self._engine.closed:
                self._runtime.check("this stream")
                self._engine.release(self._conn, self.id)
            self._released = self._read_ended = self._write_ended = True

    def _shutdown(self, side: int, code: int) -> None:
        check_code(code)
        if not self._engine.closed:
            self._runtime.check("this stream")
            self._engine.shutdown(self._conn, self.id, side, code)

    # ---------------------------------------------------------------- waiting

    def _wait(self, token: int, doing: str) -> None:
        try:
            record = self._runtime.wait(token)
        except BaseException:
            if not self._engine.closed:
                self._engine.unwait(self._conn, self.id, token)
            raise
        problem = self.problem(record, doing)
        if problem is not None:
            raise told(problem)

    def problem(self, record: Record, doing: str) -> QuicException | None:
        """What went wrong with a wait, if this event says so."""
        kind = record[TYPE]
        if kind == DEADLINE:
            return error("deadline", f"{doing} stream {self.id}, after {self.timeout} s")
        if kind == STREAM_ERROR:
            return self._failure(-record[STATUS], record[_engine.CODE])
        return None

    def _failure(self, result: int, code: int) -> QuicException:
        """`result`: a negative code. Nothing more can be done with that side of the stream."""
        if result in (_engine.CLOSED, GONE) and self._owner is not None:
            why: QuicException | None = self._owner.closing_error()
            if why is not None:
                return why
        if result not in (_engine.STATE, _engine.INVALID, _engine.STOPPED):
            self._read_ended = True
        return stream_error(-result, code, raw=self._raw)


class UnsentStream(Stream):
    """The stream of a response that has no body (RFC 9110, section 6.4.1): what is written is dropped."""

    __slots__ = ()

    def _write(self, data: bytes | bytearray | memoryview, flags: int) -> int:
        return len(data)

    def send_trailers(self, trailers: fields.Fields) -> None:
        pass


class StreamGuard:
    """Sees to it that a response which nobody reads to its end is given up, when it is forgotten too."""

    __slots__ = ("conn", "on_done", "owner", "stream")

    def __init__(self, owner: Any, conn: int, stream: int, on_done: Callable[[Any], None] | None) -> None:
        self.owner = owner
        self.conn = conn
        self.stream = stream
        self.on_done = on_done

    def disarm(self) -> None:
        """It came to its end."""
        owner, self.owner = self.owner, None
        if self.on_done is not None:
            self.on_done(owner)

    def __del__(self) -> None:
        # May run in any thread: only leave word. The runtime gives it up at its next turn.
        if self.owner is not None:
            self.owner._runtime.dropped.append((self.conn, self.stream, self.on_done, self.owner))
