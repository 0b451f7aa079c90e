"""What is open in this process: for tests that must leave nothing behind."""

from __future__ import annotations

import functools
import gc
import time
from dataclasses import dataclass, fields

import gevent
import psutil
from gevent.hub import Hub
from gevent.threadpool import _WorkerGreenlet
from greenlet import greenlet

import quicgreen
from quicgreen import hub

from .processes import Peer

_PATIENCE_S = 8.0
"""A closed connection lingers for three probe timeouts (RFC 9000, section 10.2), which are long after a bad
network; a busy machine adds its share."""

_CLIENT_SOCKETS = 16
"""The engine opens that many for each address family, one by one, and keeps them (QG_CLIENT_SOCKETS)."""


@functools.cache
def warm_up() -> None:
    """Open what is opened once and then kept, so that it does not look like a leak."""
    gevent.get_hub().threadpool.apply(int)  # the resolver's thread
    for ip in ("127.0.0.1", "::1"):
        for _ in range(_CLIENT_SOCKETS):
            try:
                quicgreen.connect(ip, 1, verify=False, timeout=2)
            except quicgreen.QuicException:
                pass  # nobody listens there, which is told at once


def running_greenlets() -> list[greenlet]:
    """Those that somebody started: no thread's main greenlet (which has no parent) and no hub. The resolver's
    threads have both, and a greenlet that works; they come and go."""
    found = [o for o in gc.get_objects() if isinstance(o, greenlet) and o]
    return [g for g in found if g.parent is not None and not isinstance(g, (Hub, _WorkerGreenlet))]


@dataclass(frozen=True)
class Census:
    connections: int
    streams: int
    waiters: int
    references: int
    greenlets: int
    descriptors: int

    @classmethod
    def taken(cls) -> Census:
        warm_up()
        runtime = hub.current()
        counters = runtime.engine.counters()
        return cls(
            counters["connections"],
            counters["streams"],
            len(runtime.targets),
            runtime._references,
            len(running_greenlets()),
            psutil.Process().num_fds() - Peer.descriptors,
        )

    def assert_restored(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            now = Census.taken()
            # Less than before is fine: an earlier test's remains have gone meanwhile.
            more = {
                f.name: (getattr(self, f.name), getattr(now, f.name))
                for f in fields(self)
                if getattr(now, f.name) > getattr(self, f.name)
            }
            if not more:
                return
            assert time.monotonic() < deadline, (
                f"left behind (before, after): {more}; greenlets: {running_greenlets()}"
            )
            gc.collect()
            gevent.sleep(0.02)
