"""Where a WebSocket's bytes come and go, without anybody waiting.

A pipe answers at once, or `AGAIN`; then an event with the token that was given follows (the engine's
READABLE, WRITABLE or STREAM_ERROR, or `Runtime.answer`). `EnginePipe` is a stream of HTTP/3. `GreenPipe`
makes one of any stream that is read and written by waiting, with greenlets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent

from .. import _engine
from .._engine import AGAIN, FIN
from ..exceptions import QuicException
from ..stream import stream_error

if TYPE_CHECKING:
    from ..hub import Runtime


class EnginePipe:
    """A stream of HTTP/3 whose heads were exchanged."""

    __slots__ = ("_conn", "_engine", "_id", "_owner")

    def __init__(self, runtime: Runtime, conn: int, stream: int, owner: Any = None) -> None:
        """`owner`: the connection object, asked why it ended; None for a server's."""
        self._engine = runtime.engine
        self._conn = conn
        self._id = stream
        self._owner = owner

    def read(self, buffer: bytearray, token: int) -> tuple[int, int, int]:
        """(bytes or result code, flags, the peer's code). Flags: FIN; MORE when the token's event will
        follow, as it does after AGAIN."""
        engine = self._engine
        if not engine.dirty:
            engine.touch()
        result: tuple[int, int, int] = engine.stream_read_on(self._conn, self._id, buffer, token, 0)
        return result

    def write(self, data: Any, flags: int, token: int) -> tuple[int, int]:
        """(bytes taken or result code, the peer's code). With token 0 nobody is told when it goes on."""
        engine = self._engine
        if not engine.dirty:
            engine.touch()
        result: tuple[int, int] = engine.stream_write(self._conn, self._id, data, flags, token, 0)
        return result

    def unwait(self, token: int) -> None:
        """The event with this token is not wanted any more."""
        self._engine.unwait(self._conn, self._id, token)

    def reset(self, code: int) -> None:
        """Give up both sides."""
        self._engine.shutdown(self._conn, self._id, _engine.SIDE_READ | _engine.SIDE_WRITE, code)

    def release(self) -> None:
        """The last word."""
        if not self._engine.closed:
            self._engine.release(self._conn, self._id)

    def failure(self, result: int, code: int) -> QuicException:
        """The exception for a result code."""
        if result in (_engine.CLOSED, _engine.GONE) and self._owner is not None:
            why: QuicException | None = self._owner.closing_error()
            if why is not None:
                return why
        return stream_error(-result, code)

    @property
    def remote_address(self) -> tuple[str, int]:
        """(ip, port) of the peer."""
        info = self._engine.conn_info(self._conn)
        address: tuple[str, int] = info["remote_address"] if info else ("", 0)
        return address


class GreenPipe:
    """Any stream with `readinto`, `write`, `finish` and `release`: a greenlet waits for each side."""

    def __init__(self, runtime: Runtime, stream: Any, size: int = 32768) -> None:
        self._runtime = runtime
        self._stream = stream
        self._buffer = bytearray(size)
        self._come = memoryview(b"")
        self._ended = False
        self._reader: Any = None
        self._writer: Any = None
        self._waiting: dict[str, int] = {}
        self._error: QuicException | None = None

    def read(self, buffer: bytearray, token: int) -> tuple[int, int, int]:
        if self._come:
            n = min(len(buffer), len(self._come))
            buffer[:n] = self._come[:n]
            self._come = self._come[n:]
            return n, 0, 0
        if self._error is not None:
            return _engine.CLOSED, 0, 0
        if self._ended:
            return 0, FIN, 0
        self._waiting["read"] = token
        if self._reader is None:
            self._reader = gevent.spawn(self._run, "read", self._read_some)
        return AGAIN, 0, 0

    def write(self, data: Any, flags: int, token: int) -> tuple[int, int]:
        if self._error is not None:
            return _engine.CLOSED, 0
        if self._writer is not None:
            if token:
                self._waiting["write"] = token
            return AGAIN, 0
        data = bytes(data)
        step = self._stream.finish if flags & FIN else self._stream.write
        self._writer = gevent.spawn(self._run, "write", step, data)
        return len(data), 0

    def unwait(self, token: int) -> None:
        self._waiting = {side: t for side, t in self._waiting.items() if t != token}

    def reset(self, code: int) -> None:
        self.release()

    def release(self) -> None:
        if self._reader is not None:
            self._reader.kill(block=False)  # nobody tells it that there will be nothing
        writer = self._writer
        if writer is not None and self._error is None:  # the last bytes are on their way
            writer.rawlink(lambda _: gevent.spawn(self._stream.release))
        else:
            self._stream.release()

    def failure(self, result: int, code: int) -> QuicException:
        return self._error or stream_error(-result, code)

    @property
    def remote_address(self) -> tuple[str, int]:
        address: tuple[str, int] = self._stream.remote_address
        return address

    def _read_some(self) -> None:
        n = self._stream.readinto(self._buffer)
        self._come = memoryview(self._buffer)[:n]
        self._ended = n == 0

    def _run(self, side: str, step: Callable[..., Any], *arguments: Any) -> None:
        try:
            step(*arguments)
        except QuicException as e:
            self._error = e
        finally:
            if side == "read":
                self._reader = None
            else:
                self._writer = None
            token = self._waiting.pop(side, 0)
            if token:
                self._runtime.later(self._runtime.answer, token)
