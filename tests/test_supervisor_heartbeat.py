from __future__ import annotations

import time

import gevent
from support import wait_until

from quicgreen.supervisor.config import Settings
from quicgreen.supervisor.heartbeat import Heartbeat, is_overdue


def test_it_beats_more_often_than_it_must_and_says_once_that_it_is_enough() -> None:
    beats: list[float] = []
    worn: list[int] = []
    served = 0
    settings = Settings(timeout=0.04, max_requests=10)
    heart = Heartbeat(settings, lambda: beats.append(0), lambda: served, lambda: worn.append(served))
    running = gevent.spawn(heart._run)
    assert wait_until(lambda: len(beats) > 5)
    assert worn == []
    served = 11
    assert wait_until(lambda: worn == [11])
    count = len(beats)
    assert wait_until(lambda: len(beats) > count + 5)
    assert worn == [11]
    running.kill()


def test_jitter_is_added_and_never_taken() -> None:
    settings = Settings(max_requests=100, max_requests_jitter=50)
    limits = {Heartbeat(settings, int, int, int)._limit for _ in range(200)}
    assert min(limits) >= 100
    assert max(limits) <= 150
    assert len(limits) > 5
    assert Heartbeat(Settings(), int, int, int)._limit == 0


def test_overdue() -> None:
    now = time.monotonic_ns()
    assert is_overdue(now - 2 * 10**9, 1.0)
    assert not is_overdue(now, 1.0)
    assert not is_overdue(0, 0)
