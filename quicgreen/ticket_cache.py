"""A store of tickets, as greenlets use it.

A store may block, so it is called in a thread, unless it says that it does not. Tickets come in the hub,
where nobody may wait: they are put into a short queue, and a janitor greenlet brings them to the store. A
store that fails, or does not answer, costs a warning, and is left alone for a while; the request goes on
without.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

from .exceptions import QuicWarningTicketStore, warn
from .hub import Runtime, thread_id
from .tickets import Ticket, TicketStore

_QUEUE_MAX = 64
"""Tickets that wait for the janitor; more drop the oldest. Two come with each handshake."""

_PATIENCE_S = 1.0
"""How long a connection waits for its ticket: about what a full handshake costs on a bad network."""

_PAUSE_S = 5.0
"""How long a store that failed is left alone."""

_caches: weakref.WeakSet[TicketCache] = weakref.WeakSet()


class TicketCache:
    """One store for the connections of one runtime."""

    def __init__(self, runtime: Runtime, store: TicketStore) -> None:
        self.store = store
        self._runtime = runtime
        self._blocks = getattr(store, "blocks", True)
        self._queue: deque[tuple[str, Ticket]] = deque(maxlen=_QUEUE_MAX)
        self._janitor: Any = None
        self._paused_until = 0.0
        _caches.add(self)

    # ---------------------------------------------------------------- for connections

    def pop(self, key: str, seconds: float | None = None) -> Ticket | None:
        """A ticket to resume with, for one connection only; None when there is none, or the store takes too
        long, or fails. Waits at most a second, or `seconds` if that is less."""
        if seconds is None or seconds >= _PATIENCE_S:
            ticket: Ticket | None = self._call(self.store.pop, key)
            return ticket
        with gevent.Timeout(seconds, False):  # the caller's haste, and no fault of the store
            ticket = self._call(self.store.pop, key)
            return ticket
        return None

    def export(self, key: str) -> Ticket | None:
        """A ticket for use elsewhere, also one that came a moment ago."""
        self.flush(_PATIENCE_S)
        return self.pop(key)

    def put(self, key: str, ticket: Ticket) -> None:
        """Keep a ticket. May be called in the hub's greenlet."""
        self._queue.append((key, ticket))
        self._start_janitor()

    def flush(self, seconds: float | None = None) -> None:
        """Wait until what was put is in the store, at most `seconds`."""
        if self._queue:
            self._start_janitor()
        if self._janitor:
            self._janitor.join(seconds)

    # ---------------------------------------------------------------- the janitor

    def _start_janitor(self) -> None:
        if not self._janitor:  # there is none, or somebody killed it
            self._janitor = gevent.spawn(self._work)

    def _work(self) -> None:
        while self._queue:
            self._call(self.store.put, *self._queue.popleft())

    def finish(self) -> None:
        """At the end of the program: bring the rest to the store. No thread can be started any more, so the
        store is called from this one."""
        rest = list(self._queue)
        self._queue.clear()
        if self._runtime.thread == thread_id() and not self._runtime.engine.closed:
            self.flush(_PATIENCE_S)  # what the janitor has in hand
        for key, ticket in rest:
            if self._paused:
                return
            try:
                self.store.put(key, ticket)
            except Exception as e:
                self._failed(e)

    def forget(self) -> None:
        """In a forked child: what waits here is the parent's to keep, or it would be used twice."""
        self._queue.clear()

    # ---------------------------------------------------------------- the store

    @property
    def _paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """What the store answers; None when it is left alone, fails, or takes more than a second."""
        if self._paused:
            return None
        try:
            if not self._blocks:
                return method(*arguments)
            with gevent.Timeout(_PATIENCE_S, TimeoutError(f"no answer in {_PATIENCE_S:g} s")):
                return self._runtime.in_thread(method, *arguments)
        except Exception as e:  # a store may be anybody's
            self._failed(e)
            return None

    def _failed(self, e: Exception) -> None:
        if self._paused:  # several found out at once
            return
        self._paused_until = time.monotonic() + _PAUSE_S
        text = str(e) or type(e).__name__
        warn(f"session tickets: {text}", QuicWarningTicketStore)


def _after_fork_in_child() -> None:
    for cache in list(_caches):
        cache.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


def finish_all() -> None:
    """At the end of the program."""
    for cache in list(_caches):
        cache.finish()
