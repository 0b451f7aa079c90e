"""`QP_TRACE=1`: what the engine does, each datagram, and which greenlet waits for what, as lines on stderr.

`QP_TRACE=FILE` appends them to a file. Datagrams are the engine's lines (cext/src/trace.h), all others are
made here; each is one write, so that those of several threads and processes stay whole, and one that stderr
does not take at once is lost. Times are CLOCK_MONOTONIC's, in seconds.

It is read when an engine starts. Without it nothing of this is in anybody's way: a traced runtime has another
class of engine, and two of its methods replaced; the others do not know that there are such.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

from . import _engine
from ._engine import (
    BODY_LEN,
    CODE,
    CONN,
    DRAIN_MORE,
    FLAGS,
    HEAD_LEN,
    PATH_LEN,
    STATUS,
    STREAM,
    TOKEN,
    TYPE,
    Engine,
    Record,
)
from .exceptions import error

if TYPE_CHECKING:
    from .hub import Runtime

_STDERR = 2

_EVENTS = {
    _engine.CONNECTED: "connected",
    _engine.ACCEPTED: "accepted",
    _engine.CLOSED_EVENT: "closed",
    _engine.REQUEST: "request",
    _engine.RESPONSE: "response",
    _engine.READABLE: "readable",
    _engine.WRITABLE: "writable",
    _engine.STREAM_ERROR: "stream error",
    _engine.DEADLINE: "deadline",
    _engine.STREAM_OPENED: "stream opened",
    _engine.GOAWAY: "goaway",
    _engine.OPENED: "opened",
    _engine.IDLE: "idle",
    _engine.TICKET: "ticket",
    _engine.QLOG: "qlog ended",
}

_WITH_STREAM = {
    _engine.REQUEST,
    _engine.RESPONSE,
    _engine.READABLE,
    _engine.WRITABLE,
    _engine.STREAM_ERROR,
    _engine.STREAM_OPENED,
}


class Trace:
    """Where lines go. `fd` is closed with the engine, unless it is stderr."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def line(self, text: str) -> None:
        try:
            os.write(self.fd, f"{time.monotonic():.6f} {text}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # nobody reads it, or not fast enough

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd > _STDERR:
            os.close(fd)

    def engine(self, on_dirty: Callable[[], None], **options: Any) -> Engine:
        """An engine whose steps and datagrams are told. Options are `Engine`'s."""
        return _TracedEngine(self, on_dirty, **options)

    def watch(self, runtime: Runtime) -> None:
        """Tell of its waits and events."""
        wait, dispatch, targets = runtime.wait, runtime._dispatch, runtime.targets

        def traced_wait(token: int) -> Record:
            who, began = _name(getcurrent()), time.monotonic()
            self.line(f"wait token {token}: {who}")
            try:
                record = wait(token)
            except BaseException as e:
                self.line(f"leave token {token}: {who} after {_ms(began)}: {e!r}")
                raise
            self.line(f"resume token {token}: {who} after {_ms(began)}: {_EVENTS.get(record[TYPE], 'woken')}")
            return record

        def told(records: Iterator[Record]) -> Iterator[Record]:
            for record in records:
                self.line(_describe(record, targets.get(record[TOKEN])))
                yield record

        def traced_dispatch(records: Iterator[Record]) -> None:
            dispatch(told(records))

        runtime.wait = traced_wait  # type: ignore[method-assign]
        runtime._dispatch = traced_dispatch  # type: ignore[method-assign]


class _TracedEngine(Engine):
    __slots__ = ("_trace",)

    def __init__(self, trace: Trace, on_dirty: Callable[[], None], **options: Any) -> None:
        self._trace = trace
        super().__init__(on_dirty, trace_fd=trace.fd, **options)
        trace.line(f"engine {self.pid}:{self.fd} starts: {_engine.build_info()}")

    def drain(self) -> int:
        began, before = time.monotonic(), self._counters.datagrams_received
        n = super().drain()
        events, more = n & ~DRAIN_MORE, ", more to come" if n >= DRAIN_MORE else ""
        received = self._counters.datagrams_received - before
        self._trace.line(f"drain: {received} datagrams, {events} events{more}, {_ms(began)}")
        return n

    def flush(self) -> int:
        began, before = time.monotonic(), self._counters.datagrams_sent
        n = super().flush()
        sent = self._counters.datagrams_sent - before
        self._trace.line(f"flush: {sent} datagrams, {n} events in the ring, {_ms(began)}")
        return n

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._trace.line(f"engine {self.pid}:{self.fd} ends")
            self._trace.close()

    def abandon(self) -> None:
        super().abandon()
        self._trace.close()


def start() -> Trace | None:
    """What QP_TRACE asks for; None: nothing.

    Raises:
        QuicClientException: the file cannot be opened.
    """
    where = os.environ.get("QP_TRACE", "")
    if where in ("", "0"):
        return None
    if where == "1":
        return Trace(_STDERR)
    try:
        return Trace(os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    except OSError as e:
        raise error("argument", f"QP_TRACE={where}: {e.strerror}", errno=e.errno) from None


def _describe(record: Record, target: Callable[[Record], Any] | None) -> str:
    kind = record[TYPE]
    text = f"event {_EVENTS.get(kind, kind)}, token {record[TOKEN]}"
    if record[CONN]:
        text += f", connection {record[CONN]:x}"
    if kind in _WITH_STREAM:
        text += f" stream {record[STREAM]}"
    if kind == _engine.RESPONSE:
        text += f", status {record[STATUS]}"
    if record[CODE]:
        text += f", code {record[CODE]:#x}"
    size = record[PATH_LEN] + record[HEAD_LEN] + record[BODY_LEN]
    if size:
        text += f", {size} B"
    if kind in _WITH_STREAM and record[FLAGS] & _engine.FIN:
        text += ", its end"
    return f"{text} -> {_whom(target)}"


def _whom(target: Callable[[Record], Any] | None) -> str:
    owner = getattr(target, "__self__", None)
    if target is None:
        return "nobody"
    if getattr(target, "__name__", "") == "switch":
        return _name(owner)
    return f"{type(owner).__name__}.{getattr(target, '__name__', '?')}" if owner is not None else "a function"


def _name(g: Any) -> str:
    if g.parent is None:
        return "main"
    name = getattr(g, "name", None)
    return name if isinstance(name, str) else f"{type(g).__name__} {id(g):x}"


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1e3:.3f} ms"
