"""A store of tickets, as greenlets use it.

A store may block, so it is called in gevent's thread pool, unless it says that it does not. Tickets come in
the hub, where nobody may wait: they are put into a short queue, and a janitor greenlet brings them to the
store. A store that fails costs a warning, and is left alone for a while; the request goes on without.
"""

from __future__ import annotations

import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

from .exceptions import QuicWarningTicketStore
from .hub import Runtime
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
        patience = _PATIENCE_S if seconds is None else min(_PATIENCE_S, seconds)
        with gevent.Timeout(patience, False):
            ticket: Ticket | None = self._call(self.store.pop, key)
            return ticket
        self._failed(TimeoutError(f"no answer in {patience:g} s"))
        return None

    def export(self, key: str) -> Ticket | None:
        """A ticket for use elsewhere, also one that came a moment ago."""
        self.flush(_PATIENCE_S)
        return self.pop(key)

    def put(self, key: str, ticket: Ticket) -> None:
        """Keep a ticket. May be called in the hub's greenlet."""
        self._queue.append((key, ticket))
        if self._janitor is None:
            self._janitor = gevent.spawn(self._work)

    def flush(self, seconds: float | None = None) -> None:
        """Wait until what was put is in the store, at most `seconds`."""
        if self._janitor is not None:
            self._janitor.join(seconds)

    # ---------------------------------------------------------------- the janitor

    def _work(self) -> None:
        try:
            while self._queue:
                self._call(self.store.put, *self._queue.popleft())
        finally:
            self._janitor = None

    def finish(self) -> None:
        """At the end of the program, when greenlets run no more: bring the rest to the store."""
        while self._queue:
            key, ticket = self._queue.popleft()
            try:
                self.store.put(key, ticket)
            except Exception as e:
                self._failed(e)
                return

    # ---------------------------------------------------------------- the store

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        if time.monotonic() < self._paused_until:
            return None
        try:
            if self._blocks:
                return self._runtime.in_thread(method, *arguments)
            return method(*arguments)
        except Exception as e:  # a store may be anybody's
            self._failed(e)
            return None

    def _failed(self, e: Exception) -> None:
        self._paused_until = time.monotonic() + _PAUSE_S
        warnings.warn(f"session tickets: {e}", QuicWarningTicketStore, stacklevel=4)


def finish_all() -> None:
    """At the end of the program."""
    for cache in list(_caches):
        cache.finish()
