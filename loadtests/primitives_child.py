"""What the pieces of a request cost. A child process of the benchmark (see processes.py); its one line has
nanoseconds by name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import gevent
from greenlet import getcurrent, greenlet

from quicgreen import hub
from quicgreen._engine import OP_RESPOND, arena_cache_stats, lib
from quicgreen.greenlets import RequestGreenlet

ROUNDS = 7
"""The quickest counts: whatever disturbs makes slower."""

BATCH = 512
"""Records and submissions at a time: fewer than the rings hold."""


def nanoseconds(run: Callable[[], None], per_run: int, reset: Callable[[], object] | None = None) -> float:
    """Nanoseconds per operation of a function that does `per_run` of them; `reset` is not counted."""
    best = float("inf")
    for _ in range(ROUNDS):
        total = 0
        for _ in range(20_000 // per_run):
            started = time.perf_counter_ns()
            run()
            total += time.perf_counter_ns() - started
            if reset is not None:
                reset()
        best = min(best, total / (20_000 // per_run * per_run))
    return best


def nothing(_: object = None) -> None:
    pass


def measure() -> dict[str, float]:
    engine = hub.current().engine
    pointer = engine._pointer
    head, body = b"h" * 30, b"hello world"

    def calls() -> None:
        for _ in range(BATCH):
            lib.qg_engine_next_timeout(pointer)

    def records() -> None:
        for _ in engine.records(0, BATCH):
            pass

    def submissions() -> None:
        submit = engine.submit
        for _ in range(BATCH):
            submit(OP_RESPOND, 0, 0, 0, 0, 0, 0, head, body)  # for a connection that does not exist

    def empty() -> None:
        for _ in range(BATCH):
            pass

    def switches() -> None:
        here = getcurrent()

        def back() -> None:
            while True:
                here.switch()

        there = greenlet(back)
        for _ in range(BATCH):
            there.switch()

    def raw() -> None:
        for _ in range(BATCH):
            greenlet(nothing).switch()

    def request() -> None:
        for _ in range(BATCH):
            RequestGreenlet(nothing, None).switch()

    def spawned() -> None:
        for _ in range(BATCH):
            gevent.spawn(nothing).join()

    loop = nanoseconds(empty, BATCH)
    return {
        "a C call through the binding": nanoseconds(calls, BATCH) - loop,
        "an event record": nanoseconds(records, BATCH),
        "a submission": nanoseconds(submissions, BATCH, lambda: lib.qg_engine_submit(pointer)) - loop,
        "a pair of greenlet switches": nanoseconds(switches, BATCH) - loop,
        "birth and end of a raw greenlet": nanoseconds(raw, BATCH) - loop,
        "birth and end of a request's greenlet": nanoseconds(request, BATCH) - loop,
        "`gevent.spawn` and join": nanoseconds(spawned, BATCH) - loop,
    }


if __name__ == "__main__":
    print(json.dumps({**measure(), "cache hits": arena_cache_stats()[1]}))
