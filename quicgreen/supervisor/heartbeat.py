"""A worker's sign of life, in the shared segment, and what its supervisor makes of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import gevent

from .config import Settings

_BEAT_S = 1.0


class Heartbeat:
    """In a worker: beats while its loop goes round, and tells when it has served enough.

    Args:
        beat: write the sign.
        requests: how many were served.
        enough: called once, after `max_requests` and some.
    """

    def __init__(
        self,
        settings: Settings,
        beat: Callable[[], Any],
        requests: Callable[[], int],
        enough: Callable[[], Any],
    ) -> None:
        self._beat, self._requests, self._enough = beat, requests, enough
        self._every_s = min(_BEAT_S, settings.timeout / 4) if settings.timeout else _BEAT_S
        self._limit = settings.max_requests
        if self._limit:
            self._limit += random.randint(0, settings.max_requests_jitter)

    def start(self) -> None:
        gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            self._beat()
            if self._limit and self._requests() >= self._limit:
                self._limit = 0
                self._enough()
            gevent.sleep(self._every_s)


def is_overdue(last_ns: int, timeout_s: float) -> bool:
    """Was the last sign, by CLOCK_MONOTONIC, too long ago?"""
    return timeout_s > 0 and time.monotonic_ns() - last_ns > timeout_s * 1e9
