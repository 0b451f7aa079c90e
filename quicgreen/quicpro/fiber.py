"""PHP's `Fiber` over a greenlet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gevent
from gevent import GreenletExit

from ..exceptions import error
from .last_error import noted


class _Outcome:
    """How a fiber ended. Its failure is for `getReturn` to raise, and is reported when nobody can call that
    any more."""

    __slots__ = ("failure", "forgotten")

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.forgotten = False

    def report(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            gevent.get_hub().handle_error(self, type(failure), failure, failure.__traceback__)

    def __repr__(self) -> str:
        return "<Fiber>"


class Fiber:
    """A function in a greenlet of its own.

        fibers = [Fiber(fetch) for _ in paths]
        for fiber, path in zip(fibers, paths):
            fiber.start(path)
        for fiber in fibers:
            print(fiber.getReturn())

    Attributes:
        greenlet: the `gevent.Greenlet` that runs it; None before `start`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise error("argument", f"a fiber runs a function, not {function!r}")
        self._function = function
        self._outcome = _Outcome()
        self.greenlet: gevent.Greenlet | None = None

    @noted
    def start(self, *args: Any) -> None:
        """Run it with these arguments, until it waits for something for the first time: then this returns.

        Raises:
            QuicClientException: it was started before.
        """
        if self.greenlet is not None:
            raise error("state", "the fiber was started already")
        self.greenlet = gevent.spawn(_run, self._outcome, self._function, args)
        gevent.sleep(0)

    @noted
    def get_return(self, timeout: float | None = None) -> Any:
        """Wait until it is done, at most `timeout` seconds; what it returned.

        Raises:
            whatever it raised.
            QuicTimeoutException: it is not done in time.
            QuicClientException: it was not started; or it was killed.
        """
        g = self.greenlet
        if g is None:
            raise error("state", "the fiber was not started")
        g.join(timeout)
        if not g.ready():
            raise error("deadline", f"the fiber is not done in {timeout} s")
        failure, self._outcome.failure = self._outcome.failure, None
        if failure is not None:
            self._raised = failure
        if self._raised is not None:
            raise self._raised
        if isinstance(g.value, GreenletExit):
            raise error("state", "the fiber was killed")
        return g.value

    getReturn = get_return  # noqa: N815

    _raised: BaseException | None = None

    def is_terminated(self) -> bool:
        """It has returned, raised, or was killed."""
        return self.greenlet is not None and bool(self.greenlet.ready())

    isTerminated = is_terminated  # noqa: N815

    def __del__(self) -> None:
        outcome = getattr(self, "_outcome", None)
        if outcome is not None:
            outcome.forgotten = True
            outcome.report()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.greenlet!r}>"


def _run(outcome: _Outcome, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return function(*args)
    except Exception:
        outcome.failure = sys.exc_info()[1]
        if outcome.forgotten:
            outcome.report()
        return None
