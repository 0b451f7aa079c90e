"""A greenlet per request, with `gevent.Greenlet`'s ways and without most of its cost.

`gevent.spawn` makes an object that can be started later, cancelled before it starts, and traced back to who
spawned it; that takes 2 us. A request's greenlet is switched to where it is made, so it needs none of that.
`RequestGreenlet` is a `gevent.Greenlet` by type and behaviour (kill, link, join, get, ready, value, ...),
but keeps its own state and never runs the base class's constructor.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from gevent import Greenlet, GreenletExit, Timeout
from gevent.event import Event
from gevent.greenlet import FailureSpawnedLink, SpawnedLink, SuccessSpawnedLink
from greenlet import getcurrent, greenlet

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_is_dead = greenlet.dead.__get__
_throw = greenlet.throw


class RequestGreenlet(Greenlet):  # type: ignore[misc]
    """Runs `task(argument)`. To be made in the hub's greenlet, which becomes its parent, and switched to
    at once."""

    __slots__ = ("_argument", "_error", "_finished", "_followers", "_result", "_task")

    def __init__(self, task: Callable[[Any], Any], argument: Any) -> None:
        self._task = task
        self._argument = argument
        self._finished = False
        self._result: Any = None
        self._error: _ExcInfo | None = None
        self._followers: list[Callable[[Any], Any]] | None = None

    def run(self) -> None:
        try:
            self._result = self._task(self._argument)
        except GreenletExit as e:
            self._result = e  # being killed is not an error, as in gevent
        except BaseException as e:
            self._error = (type(e), e, e.__traceback__)
            self._finish()
            self.parent.handle_error(self, *self._error)
        finally:
            self._finish()
            del self  # the exception that it holds holds this frame: a cycle

    def _finish(self) -> None:
        self._finished = True
        self._task = self._argument = None  # type: ignore[assignment]
        if self._followers:
            self._notify_later()

    # ---------------------------------------------------------------- state

    @property
    def dead(self) -> bool:
        return bool(_is_dead(self))

    @property
    def started(self) -> bool:
        return bool(self)

    def __bool__(self) -> bool:
        return not self.ready()

    def ready(self) -> bool:
        return self._finished or bool(_is_dead(self))

    def successful(self) -> bool:
        return self.ready() and self._error is None

    @property
    def value(self) -> Any:
        return self._result

    @property
    def exception(self) -> BaseException | None:
        return self._error[1] if self._error else None

    @property
    def exc_info(self) -> Any:
        return self._error

    @property
    def args(self) -> tuple[Any, ...]:
        return () if self._argument is None else (self._argument,)

    @property
    def kwargs(self) -> dict[str, Any]:
        return {}

    def _raise_exception(self) -> None:
        assert self._error is not None
        raise self._error[1].with_traceback(self._error[2])

    def __repr__(self) -> str:
        state = "finished"
        if not self.ready():
            task = self._task
            bound = hasattr(task, "__self__")
            name = repr(task) if bound else getattr(task, "__name__", "") or repr(task)
            state = f"{name}({repr(self._argument)[:50]})"
        name = f' "{self.name}"' if "name" in self.__dict__ else ""
        return f"<{type(self).__name__}{name} at {id(self):#x}: {state}>"

    # ---------------------------------------------------------------- starting: it has

    def start(self) -> None:
        pass

    def start_later(self, seconds: float) -> None:
        pass

    def _maybe_kill_before_start(self, exception: Any) -> bool:
        """What `gevent.killall` asks first: no, it was started."""
        return self.ready()

    # ---------------------------------------------------------------- ending

    def throw(self, *args: Any) -> Any:
        """Raise in the greenlet, now. Only from the hub; use `kill` elsewhere."""
        if not self.dead:
            return _throw(self, *args)
        return None

    def kill(self, exception: Any = GreenletExit, block: bool = True, timeout: float | None = None) -> None:
        """Raise `exception` in the greenlet; with `block` wait until it is dead, or `timeout` passed."""
        if self.ready():
            return
        self.parent.loop.run_callback(self._throw_in, exception)
        if block:
            self.join(timeout)

    def _throw_in(self, exception: Any) -> None:
        try:
            if isinstance(exception, tuple) and len(exception) == 3:
                self.throw(*exception)
            else:
                self.throw(exception)
        except BaseException:
            self.parent.handle_error(self, *sys.exc_info())

    # ---------------------------------------------------------------- waiting for it

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has finished, at most `timeout` seconds."""
        if self.ready():
            return
        done = Event()
        follower = lambda _: done.set()  # noqa: E731
        self.rawlink(follower)
        try:
            done.wait(timeout)
        finally:
            self.unlink(follower)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The task's result, or raise what it raised. `gevent.Timeout` when it is not there in time."""
        if not self.ready():
            if not block or self is getcurrent():
                raise Timeout()
            limit = Timeout(timeout)
            self.join(timeout)
            if not self.ready():
                raise limit
        if self._error is not None:
            self._raise_exception()
        return self._result

    # ---------------------------------------------------------------- links

    def has_links(self) -> bool:
        return bool(self._followers)

    def rawlink(self, callback: Callable[[Any], Any]) -> None:
        """Call `callback(self)` in the hub once it has finished, also when it has already."""
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        if self._followers is None:
            self._followers = []
        self._followers.append(callback)
        if self.ready():
            self._notify_later()

    def link(self, callback: Callable[[Any], Any], SpawnedLink: Any = SpawnedLink) -> None:  # noqa: N803
        """As `rawlink`, but the callback runs in a greenlet of its own."""
        self.rawlink(SpawnedLink(callback))

    def link_value(self, callback: Callable[[Any], Any], SpawnedLink: Any = SuccessSpawnedLink) -> None:  # noqa: N803
        self.link(callback, SpawnedLink)

    def link_exception(self, callback: Callable[[Any], Any], SpawnedLink: Any = FailureSpawnedLink) -> None:  # noqa: N803
        self.link(callback, SpawnedLink)

    def unlink(self, callback: Callable[[Any], Any]) -> None:
        if self._followers and callback in self._followers:
            self._followers.remove(callback)

    def unlink_all(self) -> None:
        self._followers = None

    def _notify_later(self) -> None:
        self.parent.loop.run_callback(self._notify_links)

    def _notify_links(self) -> None:
        while self._followers:
            follower = self._followers.pop(0)
            try:
                follower(self)
            except BaseException:
                self.parent.handle_error((follower, self), *sys.exc_info())
