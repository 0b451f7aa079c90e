"""PHP's Fiber: start, getReturn, isTerminated."""

from __future__ import annotations

import gc

import gevent
import pytest
from gevent.event import Event
from support import OnPurposeError, reported

from quicgreen.quicpro import Fiber, QuicClientException, QuicTimeoutException


def test_it_runs_until_it_waits_and_returns() -> None:
    steps = []
    go_on = Event()

    def work(a: int, b: int) -> int:
        steps.append("begun")
        go_on.wait()
        return a + b

    fiber = Fiber(work)
    assert not fiber.isTerminated()
    fiber.start(1, 2)
    assert steps == ["begun"]
    assert not fiber.isTerminated()
    with pytest.raises(QuicTimeoutException):
        fiber.getReturn(0.01)
    go_on.set()
    assert fiber.getReturn() == fiber.get_return() == 3
    assert fiber.isTerminated()
    assert fiber.is_terminated()


def test_what_it_raised_is_raised_and_reported_once() -> None:
    def fail() -> None:
        gevent.sleep(0)
        raise OnPurposeError

    with reported() as found:
        fiber = Fiber(fail)
        fiber.start()
        for _ in range(2):
            with pytest.raises(OnPurposeError):
                fiber.getReturn()
        del fiber
        gc.collect()
    assert found == []


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_that_nobody_can_ask_for_is_reported(late: bool) -> None:
    def fail() -> None:
        gevent.sleep(0.01 if late else 0)
        raise OnPurposeError

    with reported() as found:
        fiber = Fiber(fail)
        fiber.start()
        g = fiber.greenlet
        if not late:
            g.join()
        del fiber
        g.join()
    assert [type(e) for _, e in found] == [OnPurposeError]


def test_one_that_was_killed() -> None:
    fiber = Fiber(lambda: gevent.sleep(20))
    fiber.start()
    fiber.greenlet.kill()
    assert fiber.isTerminated()
    with pytest.raises(QuicClientException, match="killed"):
        fiber.getReturn()


def test_misuse() -> None:
    with pytest.raises(QuicClientException, match="runs a function"):
        Fiber("strlen")  # type: ignore[arg-type]
    fiber = Fiber(int)
    with pytest.raises(QuicClientException, match="not started"):
        fiber.getReturn()
    fiber.start()
    with pytest.raises(QuicClientException, match="already"):
        fiber.start()


def test_many_at_a_time() -> None:
    fibers = [Fiber(lambda n: (gevent.sleep(0.01), n)[1]) for _ in range(50)]
    for n, fiber in enumerate(fibers):
        fiber.start(n)
    assert [f.getReturn() for f in fibers] == list(range(50))
