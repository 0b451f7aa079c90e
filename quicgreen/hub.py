"""The bridge to gevent: one engine per hub, one watcher, one dispatch, one flush.

The only module that knows gevent's hub and loop.

One turn of the loop
    the engine's descriptor is readable -> drain (one C call) -> each event is handed to the callable that
    its token names, which for a waiting greenlet is its `switch`: it runs at once, until it waits again
    -> other callbacks of the loop run -> before the loop sleeps: flush (one C call).

Rules
1. Tokens are never used again, so an event for somebody who is gone finds nobody.
2. Everything runs in the hub's greenlet except what it switches to. Nothing here logs, warns, locks,
   stores, or calls into an application: an application runs in greenlets of its own.
3. The loop is kept alive exactly while somebody waits or a server is started: an idle pool lets a script
   end, and a `get()` in the main greenlet never raises LoopExit.
4. An exception out of a greenlet does not stop the dispatch: what was read is dispatched to the last
   event.
5. A thread has its own hub and so its own engine; objects know theirs. After fork the child has neither:
   its copies of descriptors are closed, and what was open says so when it is used.
"""

from __future__ import annotations

import heapq
import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import BlockingSwitchOutError, InvalidSwitchError
from gevent.hub import get_hub
from gevent.threadpool import ThreadPool
from greenlet import getcurrent, greenlet

from . import _engine, forks, lookups, trace
from ._engine import DRAIN_MORE, TOKEN, Engine, Record
from ._group import WorkerGroup
from .exceptions import error

thread_id: Callable[[], int] = monkey.get_original("_thread", "get_ident")
"""The thread's own number, also when threading was patched."""

# The hub's own switch first asks the caller whether it is the hub, which `wait` has done.
_switch = greenlet.switch

_READ = 1  # libev's EV_READ and libuv's UV_READABLE

_FAR_S = 2**31
"""68 years."""

_SPIN_ROUNDS = 64
"""Turns that a spinning flush may take before the loop's other watchers get theirs."""

_THREADS = 4
"""Of `Runtime.in_thread`: what it runs waits, for disks and networks, and is rare."""

_THREADS_IDLE_S = 5
"""Until one that has nothing to do ends, as gevent's."""

_CANCELLED_MAX = 64
"""Deadlines that were withdrawn are dropped when they are more than these, and most of all."""

_NAP_S = 0.1
"""The longest nap: as many tokens are kept as are waited for in that time."""

_NAP_LENGTHS_MAX = 64
"""Lengths of naps that are in use are few; queues of others are dropped when they are more than these."""

_runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
_serial = itertools.count(1)


def _attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Exception | None, Any]:
    """(failure, value). Of what is raised in one of its threads gevent prints a traceback, also when somebody
    catches it."""
    try:
        return None, function(*arguments)
    except Exception as e:
        return e, None


Deadline = list[Any]
"""[when, serial number, what to call]; None is called once it passed or was withdrawn."""


class Deadlines:
    """Calls at their time, any number with one timer of the loop. They run in the hub."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._heap: list[Deadline] = []
        self._serial = itertools.count().__next__
        self._cancelled = 0
        self._timer: Any = None
        self._armed = 0.0  # for when; 0: it is not

    def add(self, seconds: float, call: Callable[[], Any]) -> Deadline:
        """Call it in `seconds`, if the loop still runs then: this does not keep it alive."""
        entry = [time.monotonic() + seconds, self._serial(), call]
        heapq.heappush(self._heap, entry)
        self._arm()
        return entry

    def cancel(self, entry: Deadline) -> None:
        """Withdraw it, if it has not passed."""
        if entry[2] is not None:
            entry[2] = None
            self._cancelled += 1
            if self._cancelled > _CANCELLED_MAX and self._cancelled > len(self._heap) // 2:
                self._heap = [e for e in self._heap if e[2] is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _arm(self) -> None:
        """For the first of them. A timer that is armed for an earlier one may stay."""
        if self._loop is None or not self._heap:
            return
        first = self._heap[0][0]
        if self._armed and self._armed <= first:
            return
        self._disarm()
        self._armed = first
        # The loop's clock stands still during a turn, so this may come early: then it is armed again.
        self._timer = self._loop.timer(max(0.001, first - time.monotonic()), ref=False)
        self._timer.start(self._on_timer)

    def _disarm(self) -> None:
        self._armed = 0.0
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.stop()
            timer.close()

    def _on_timer(self) -> None:
        self._disarm()
        now = time.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            due.append(entry)
        self._arm()
        for entry in due:
            call, entry[2] = entry[2], None
            if call is None:
                self._cancelled -= 1
            else:
                self._loop.run_callback(call)

    def close(self) -> None:
        """Nothing is called any more."""
        self._disarm()
        self._loop = None


class Naps:
    """Short waits, most of which end early: a queue for each length, with one deadline for all that wait in
    it. Nothing is withdrawn: whoever has left is found gone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.queues: dict[float, deque[tuple[float, int]]] = {}
        """By their lengths in seconds: when each nap is over, and whose it is. One with a nap in it takes
        others."""

    def begin(self, seconds: float, token: int) -> None:
        """Wake who waits for this token, in `seconds`, the first of such naps."""
        if len(self.queues) >= _NAP_LENGTHS_MAX:
            self.queues = {s: q for s, q in self.queues.items() if q}
        queue = self.queues.setdefault(seconds, deque())
        queue.append((time.monotonic() + seconds, token))
        self._runtime.deadlines.add(seconds, lambda: self._ring(queue))

    def _ring(self, queue: deque[tuple[float, int]]) -> None:
        runtime = self._runtime
        now = time.monotonic()
        over = []
        while queue:
            when, token = queue[0]
            if token in runtime.targets:
                if when > now:
                    break
                over.append(token)
            queue.popleft()
        if queue:
            runtime.deadlines.add(queue[0][0] - now, lambda: self._ring(queue))
        for token in over:
            runtime.answer(token)


class Runtime:
    """The engine of one hub, and who waits for what."""

    def __init__(
        self, hub: Any, group: WorkerGroup | None = None, slot: int = 0, generation: int = 0
    ) -> None:
        self.hub = hub
        self.group, self.slot, self.generation = group, slot, generation
        """The workers that it is one of, and its place among them; None: it is alone."""
        self.thread = thread_id()
        self.pid = os.getpid()
        self.number = next(_serial)
        """Which of the process's runtimes it is, the first being 1."""
        self.forked = False
        self.targets: dict[int, Callable[[Record], Any]] = {}
        """Who is told of events with a token."""
        self.new_token: Callable[[], int] = itertools.count(1).__next__
        self.attachments: dict[str, Any] = {}
        """Things that live as long as the hub, by name: the default session."""
        self.scratch = bytearray()
        """For bytes that are read and done with before anything else runs; its users make it as large as they
        need."""
        self.dropped: deque[tuple[int, int, Callable[[Any], None] | None, Any]] = deque()
        """Responses that were forgotten before their end: (connection, stream, what to call, with what).
        Finalizers add to it, from whichever thread they run in."""
        self._threads: ThreadPool | None = None
        self._seen = 0  # events of the ring that were dispatched
        self._references = 0
        loop = hub.loop
        # libuv runs its prepare watchers before gevent runs callbacks, so a flush there would miss what
        # they say; a callback of our own comes after those that are already waiting. libev does not run
        # a watcher in the iteration that it was started in, so until then it is a callback there too.
        self._uses_callback = True
        tracing = trace.start()
        make = Engine if tracing is None else tracing.engine
        self.engine = make(self._on_dirty, group=group, slot=slot, generation=generation)
        _engine.install_arena_cache()
        self._io = loop.io(self.engine.fd, _READ, ref=False)
        self._io.start(self._on_readable)
        self._prepare: Any = None
        if "libuv" not in type(loop).__module__:
            # At the lowest priority it runs after gevent's own prepare watcher, which runs callbacks.
            self._prepare = loop.prepare(ref=False, priority=loop.MINPRI)
            self._prepare.start(self._on_first_prepare)
        # gevent's io watchers on libuv share a handle, and have a `ref` that means nothing: there the handle
        # is let go of for good, and the loop kept alive by a watcher that does nothing else.
        self._alive = self._io
        if self._prepare is None:
            self._io._watcher_ref.ref = False
            self._alive = loop.timer(_FAR_S, ref=False)
            self._alive.start(_nothing)
        self.deadlines = Deadlines(loop)
        self._naps = Naps(self)
        # A hub tells nobody that it ends, and its loop must not go before our watchers.
        hub.destroy = self._on_hub_destroyed
        # Callbacks that are added after gevent's prepare watcher ran would wait for the network too.
        self._no_sleep = loop.timer(0, ref=False)
        if tracing is not None:
            tracing.watch(self)
        _runtimes.add(self)

    # ---------------------------------------------------------------- turns

    def _on_dirty(self) -> None:
        if self._uses_callback:
            self.hub.loop.run_callback(self._on_prepare)

    def _on_first_prepare(self) -> None:
        self._uses_callback = False
        self._prepare.stop()
        self._prepare.start(self._on_prepare)
        self._on_prepare()

    def _on_readable(self) -> None:
        engine = self.engine
        # What greenlets did since the last flush may have put events in the ring, which a drain begins anew.
        while engine.dirty and (count := engine.settle()) > self._seen:
            start, self._seen = self._seen, count
            self._dispatch(engine.records(start, count))
        n = engine.drain()
        if n > 0:
            count = n & ~DRAIN_MORE
            self._seen = count
            if count:
                self._dispatch(engine.records(0, count))
            if n >= DRAIN_MORE:
                self.hub.loop.run_callback(self._on_readable)
        else:
            self._seen = 0

    def _on_prepare(self) -> None:
        engine = self.engine
        if self.dropped:
            self._no_sleep.start(_nothing)
        while self.dropped:
            conn, stream, done, owner = self.dropped.popleft()
            engine.release(conn, stream)
            if done is not None:
                done(owner)
        for _ in range(_SPIN_ROUNDS):
            if not engine.dirty:
                return
            count = engine.flush()
            if count <= self._seen:
                return
            start, self._seen = self._seen, count
            self._no_sleep.start(_nothing)
            self._dispatch(engine.records(start, count))
        self.hub.loop.run_callback(self._on_prepare)

    def flush(self) -> None:
        """Send what is to be sent now; what happens meanwhile is dispatched at the next turn."""
        self.engine.flush()
        self.engine.touch()

    def _dispatch(self, records: Any) -> None:
        target_of = self.targets.get
        while True:
            try:
                for record in records:
                    target = target_of(record[3])
                    if target is not None:
                        target(record)
                break
            except BaseException:
                # From a raw greenlet, or thrown at the hub. The loop goes on with the next record.
                self.hub.handle_error(self, *sys.exc_info())

    # ---------------------------------------------------------------- waiting

    def wait(self, token: int) -> Record:
        """Sleep until the event with this token; returns it.

        Whatever is thrown into the greenlet comes out here, and the token is forgotten: the caller
        withdraws the wait in the engine."""
        current = getcurrent()
        if current is self.hub:
            raise BlockingSwitchOutError("waiting for the network is not possible in the hub")
        self._references += 1
        if self._references == 1:
            self._alive.ref = True
        self.targets[token] = current.switch
        try:
            record = _switch(self.hub)
            if record.__class__ is not tuple or record[TOKEN] != token:
                raise InvalidSwitchError(f"switched to with {record!r} while waiting for the engine")
            return record
        finally:
            self.targets.pop(token, None)
            self._references -= 1
            if self._references == 0 and not self.engine.closed:
                self._alive.ref = False

    def wait_for(self, token: int, seconds: float) -> None:
        """`wait`, for at most so long: for who looks afterwards what there is."""
        if seconds <= _NAP_S:
            queue = self._naps.queues.get(seconds)
            if queue:
                queue.append((time.monotonic() + seconds, token))
            else:
                self._naps.begin(seconds, token)
            self.wait(token)
            return
        self._wait_longer(token, seconds)

    def _wait_longer(self, token: int, seconds: float) -> None:
        entry = self.deadlines.add(seconds, lambda: self.answer(token))
        try:
            self.wait(token)
        finally:
            self.deadlines.cancel(entry)

    def turn(self) -> None:
        """Let the network have its turn now, without sleeping: what was said leaves, what came is
        dispatched, and who is ready runs. (gevent's `sleep(0)` gives way to others only, a thousand times
        before it looks at a descriptor.)"""
        token = self.new_token()
        self.hub.loop.run_callback(self._on_turn, token)
        self.wait(token)

    def _on_turn(self, token: int) -> None:
        if not self.engine.closed:
            self._on_prepare()
            self._on_readable()
        self.answer(token)

    def interrupt(self, token: int, exception: BaseException) -> bool:
        """Raise an exception in the greenlet that waits for this event, instead of the event. False when
        nobody waits for it (any more)."""
        target = self.targets.pop(token, None)
        if target is None:
            return False
        self.throw(target.__self__, exception)  # type: ignore[attr-defined]
        return True

    def answer(self, token: int) -> None:
        """Wake who waits for this token as an event does: it runs at once. In the hub, as the last thing that
        is done there."""
        target = self.targets.get(token)
        if target is not None:
            target((0, 0, 0, token, 0, 0, 0, 0, 0, 0, 0, 0))

    def later(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call it in the hub, at this loop's next turn."""
        self.hub.loop.run_callback(call, *arguments)

    def throw(self, waiting: greenlet, exception: BaseException | type[BaseException]) -> None:
        """Raise an exception in a greenlet at this loop's next turn."""
        self.hub.loop.run_callback(waiting.throw, exception)

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run what blocks in a thread, and wait for it. At most four at a time, and not in gevent's threads:
        these look up names, and would be missed if something never came back."""
        if self._threads is None:
            self._threads = ThreadPool(_THREADS, self.hub, idle_task_timeout=_THREADS_IDLE_S)
        failure, value = self._threads.apply(forks.whole, (_attempt, (function, arguments)))
        if failure is not None:
            raise failure
        return value

    def reference(self) -> None:
        """Keep the loop alive."""
        self._references += 1
        if self._references == 1:
            self._alive.ref = True

    def unreference(self) -> None:
        self._references -= 1
        if self._references == 0 and not self.engine.closed:
            self._alive.ref = False

    # ---------------------------------------------------------------- checks

    def check(self, what: str) -> None:
        """May the calling greenlet use an object of this runtime?"""
        if thread_id() != self.thread or self.engine.closed:
            self.refuse(what)

    def refuse(self, what: str) -> NoReturn:
        if self.forked:
            raise error("fork", f"{what} was opened in process {self.pid}, this is {os.getpid()}")
        if self.engine.closed:
            raise error("closed-here", f"{what}: its hub was destroyed")
        raise error("thread", f"{what} belongs to thread {self.thread}, this is thread {thread_id()}")

    # ---------------------------------------------------------------- end

    def close(self) -> None:
        """Free the engine. Connections are dropped without a word; close them before."""
        if self.engine.closed:
            return
        self._stop_watchers()
        self.engine.close()

    def _on_hub_destroyed(self, *arguments: Any, **options: Any) -> None:
        self.close()
        del self.hub.destroy  # its class's is back
        self.hub.destroy(*arguments, **options)

    def _stop_watchers(self) -> None:
        self.deadlines.close()
        for watcher in (self._io, self._alive, self._prepare, self._no_sleep):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        if self._threads is not None:
            self._threads.fork_watcher.close()  # not `kill`, which waits for what may never come back

    def after_fork(self) -> None:
        """In the child: this runtime is over here."""
        self.forked = True
        if not self.engine.closed:
            self._io.stop()
            self._alive.stop()
            self._no_sleep.stop()
            self.deadlines.close()
            if self._prepare is not None:
                self._prepare.stop()
            self.engine.abandon()


def _nothing() -> None:
    pass


def current() -> Runtime:
    """The calling thread's runtime, made when there is none."""
    return existing() or _make()


def join(group: WorkerGroup, slot: int, generation: int) -> Runtime:
    """Make the calling thread's runtime as that of the worker that has this slot of the group: its servers
    take the group's secrets, count there, and hand over what is another worker's.

    Raises:
        QuicClientException: the thread has a runtime already, or the slot has begun another life.
    """
    if existing() is not None:
        raise error("state", "a worker joins its group before anything else in its thread uses the network")
    return _make(group, slot, generation)


def exists() -> bool:
    """Has the calling thread a hub of gevent's?"""
    return get_hub_if_exists() is not None


def existing() -> Runtime | None:
    """The calling thread's runtime, if it has one."""
    runtime: Runtime | None = getattr(get_hub_if_exists(), "quicgreen_runtime", None)
    return runtime if runtime is not None and not runtime.engine.closed else None


def _make(group: WorkerGroup | None = None, slot: int = 0, generation: int = 0) -> Runtime:
    hub = get_hub_if_exists()
    runtime: Runtime | None = getattr(hub, "quicgreen_runtime", None)
    if runtime is not None and runtime.forked:
        # The hub came through a fork. If gevent did not see it (a plain os.fork), its loop still shares
        # the parent's descriptors; after gevent.fork this does nothing more.
        gevent.reinit(hub)
    hub = get_hub()
    lookups.install(hub)
    runtime = hub.quicgreen_runtime = Runtime(hub, group, slot, generation)
    return runtime


def engines() -> dict[int, Engine]:
    """All engines of this process, of whichever thread, by their number: 1 is the first. Only their counters
    may be read from here (`Engine.counters`)."""
    while True:
        try:
            return {runtime.number: runtime.engine for runtime in _runtimes if not runtime.forked}
        except RuntimeError:  # another thread starts one just now
            continue


def _after_fork_in_child() -> None:
    for runtime in list(_runtimes):
        runtime.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
