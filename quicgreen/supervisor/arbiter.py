"""The supervisor: forks workers, keeps their number, replaces them, and ends them.

It serves nobody itself. It has no hub and no engine, so that workers inherit none: its loop is a poll of
signals, of what workers say, and of its control socket. What lives across reloads is its: the sockets, the
shared segment, the program that steers.

A worker's life: starting -> serving -> draining -> gone. In each turn the supervisor looks at all of them,
and does what the numbers want (`_manage`); so there is one place that forks, and one that drains.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from .. import hub
from .._group import WorkerGroup
from ..exceptions import QuicException, error
from . import application, certificates, exits, worker
from .application import Handler
from .children import DRAINING, READY, SERVING, STARTING, WORN, Child, Generation
from .config import Settings, load
from .control import Control
from .heartbeat import is_overdue
from .notify import Notifier
from .pidfile import PidFile
from .signals import Signals
from .slots import Slots
from .sockets import SocketGroup, inherited_descriptors
from .unpatched import poll

_log = logging.getLogger("quicgreen")

_DRAINING_GENERATIONS = 4
"""So many reloads may be under way: each holds slots, and memory."""

_SLOTS_PER_WORKER = _DRAINING_GENERATIONS + 2
"""Those that drain, those that serve, and those that are started to take over."""

_TURN_S = 1.0
"""The longest sleep: hung workers are noticed by looking."""

_BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before a worker is started in the place of one that did not live a second; the n-th in a row."""

_BACKOFF_SERVED_S = 0.25
"""The most, for one that had come so far as to serve."""

_STARTING_AT_ONCE = max(1, len(os.sched_getaffinity(0)) // 2)
"""Workers of a reload: to start one takes a core for a while, and the others serve on."""

_FIXED = ("bind", "steering", "ticket_key_rotate_s", "ticket_keys", "pidfile")
"""Settings that a reload does not change: the sockets and the segment stay."""


class Supervisor:
    """Serve with several processes on one UDP port.

        def handle(request):
            request.respond(200, {"content-type": "text/plain"}, b"hello\\n")

        Supervisor(handle, workers=4, certfile="cert.pem", keyfile="key.pem").run()

    Workers share the keys of session tickets and the register of early data, so a client resumes its session
    on any of them, with 0-RTT where that is on. Signals are gunicorn's: HUP reloads, TTIN and TTOU change the
    number of workers, TERM ends in an orderly way, INT and QUIT at once, USR1 shows where everybody is, WINCH
    ends the workers and keeps the port (unless there is a terminal, which sends it when it is resized).

    Args:
        app: what is served: "MODULE:HANDLER", which each worker imports for itself, or a callable; None: the
            file says it (`app`).
        config: a configuration file, TOML or Python.
        settings: see `Settings`; what is given here comes before the environment and the file.

    Raises:
        QuicServerException: a setting that cannot be.
    """

    def __init__(
        self, app: str | Handler | None = None, *, config: str | None = None, **settings: Any
    ) -> None:
        # Absolute: a reload looks for it again, perhaps from another folder.
        self._given, self._file = settings, os.path.abspath(config) if config is not None else None
        loaded = load(settings, self._file)
        self.settings: Settings = loaded.settings
        """Those of the generation that serves."""
        self.app: str | Handler = app or loaded.app or ""
        if isinstance(self.app, str):
            application.split(self.app)
        self.pid = 0
        self.num_workers = self.settings.workers
        """How many are wanted; TTIN and TTOU change it."""
        self.children: list[Child] = []
        self.reloads = 0
        self.reload_error: str | None = None
        """Why the last reload was given up."""
        self.started_at = 0.0
        self.handler: Handler | None = None if isinstance(self.app, str) else self.app
        """The application itself, when it was given or preloaded."""
        self._ages = 0
        self._status = exits.OK
        self._stopping = False
        self._reload_again = False
        self._next: Generation | None = None
        self._quick_deaths = 0
        self._fork_at = 0.0
        self._starved = False
        self._serving = False  # the first generation is there

    # ---------------------------------------------------------------- life

    def run(self, announce: Callable[[Supervisor], Any] | None = None) -> int:
        """Serve until a signal ends it; returns the exit status: 0, 3 when workers could not start, 4 when
        the application could not be loaded. To be called in the main thread.

        Args:
            announce: called once, when the workers serve.

        Raises:
            QuicServerException: the port is taken, a certificate cannot be used, the pid file is another's.
        """
        self._announce = announce
        self.pid = os.getpid()
        self._notifier = Notifier()
        with contextlib.ExitStack() as opened:
            if self.settings.chdir:
                self._change_folder(self.settings.chdir)
            self._current = Generation(0, self.settings, certificates.load(self.settings))
            self.sockets = SocketGroup(self.settings.bind, inherited_descriptors())
            opened.callback(self.sockets.close)
            self._slots = self._new_slots()
            if self.settings.pidfile:
                file = PidFile(self.settings.pidfile)
                file.create()
                opened.callback(file.remove)
            self._control = Control(self.pid, self._answer)
            opened.callback(self._control.close)
            self.settings.hook("on_starting", self)
            if self.settings.preload_app and self.handler is None:
                self._preload()
            elif self.handler is None and not self.settings.no_patch:
                worker.prepare()
            try:
                self._signals = Signals()
            except ValueError:
                raise error("supervisor", "it takes signals, which is for the main thread only") from None
            opened.callback(self._signals.close)
            opened.callback(self._end_all)
            worker.set_title(self.settings, f"supervisor [{self.settings.proc_name or self.name}]")
            self.started_at = time.time()
            self._loop()
        self._hook("on_exit")
        return self._status

    @property
    def name(self) -> str:
        """Of what is served."""
        return self.app if isinstance(self.app, str) else getattr(self.app, "__qualname__", repr(self.app))

    @property
    def address(self) -> tuple[str, int]:
        """(ip, port) that is served."""
        host, port = self.sockets.address[:2]
        return host, port

    def _hook(self, name: str, *arguments: Any, of: Generation | None = None) -> None:
        """Call it. What it raises is logged: workers are not to end for it."""
        settings = of.settings if of is not None else self.settings
        try:
            settings.hook(name, self, *arguments)
        except Exception:
            _log.exception("the hook %s", name)

    def _change_folder(self, folder: str) -> None:
        try:
            os.chdir(folder)
        except OSError as e:
            raise error("configuration", f"chdir: {folder}: {e.strerror}", errno=e.errno) from None

    def _new_slots(self) -> Slots:
        s = self.settings
        group = WorkerGroup(
            slots=min(WorkerGroup.SLOTS_MAX, s.workers * _SLOTS_PER_WORKER + _SLOTS_PER_WORKER),
            key_period_s=s.ticket_key_rotate_s,
            key_window=s.ticket_keys,
        )
        return Slots(group, self.sockets, s.steering)

    def _preload(self) -> None:
        assert isinstance(self.app, str)
        if not self.settings.no_patch:
            worker.patch()
        self.handler = application.load(self.app)
        if hub.exists():
            _log.warning(
                "%s started gevent's hub when it was imported, before workers were forked: its greenlets do "
                "not run in them; leave --preload out, or start them in post_worker_init", self.app
            )  # fmt: skip

    # ---------------------------------------------------------------- the loop

    def _loop(self) -> None:
        self._manage()
        while self.children or not self._stopping:
            self._wait()
            self._notifier.alive()
            for number in self._signals.taken():
                self._on_signal(number)
            for child in self.children:
                if child.channel >= 0:
                    self._hear(child)
            self._reap()
            self._watch()
            self._manage()

    def _wait(self) -> None:
        now = time.monotonic()
        ends = [now + (self._notifier.interval_s or _TURN_S)]
        ends += [c.kill_at for c in self.children if c.kill_at is not None]
        if self._fork_at > now:
            ends.append(self._fork_at)
        if self._slots.mourn():
            ends.append(now + 0.01)
        waiting = poll()
        for fd in (self._signals.fd, self._control.fd):
            waiting.register(fd, select.POLLIN)
        for child in self.children:
            if child.channel >= 0:
                waiting.register(child.channel, select.POLLIN)
        ready = waiting.poll(max(0.0, min(*ends, now + _TURN_S) - now) * 1000)
        if any(fd == self._control.fd for fd, _ in ready):
            self._control.serve()

    def _hear(self, child: Child) -> None:
        said = child.heard()
        if READY in said and child.state == STARTING:
            child.state, child.has_served = SERVING, True
            if child.generation is self._current:  # others take over together
                self._slots.accept(child)
            _log.info("worker %d serves (pid %d)", child.slot, child.pid)
        if WORN in said and not child.worn:
            child.worn = True
            _log.info("worker %d has served enough and is replaced (pid %d)", child.slot, child.pid)

    def _reap(self) -> None:
        for child in list(self.children):
            status = child.reap()
            if status is None:
                continue
            self.children.remove(child)
            self._bury(child, status)

    def _bury(self, child: Child, status: int) -> None:
        lost = self._slots.bury(child)
        level = logging.INFO if status == 0 else logging.ERROR
        left = f"; {lost} connections were reset" if lost else ""
        _log.log(
            level, "worker %d ended with %s (pid %d)%s", child.slot, exits.words(status), child.pid, left
        )
        self._hook("child_exit", child, of=child.generation)
        if child.state == DRAINING or self._stopping:
            return
        if not child.has_served:
            self._on_failed_start(child, status)
        if child.generation is self._current:
            lived_s = time.monotonic() - child.since
            self._quick_deaths = self._quick_deaths + 1 if lived_s < 1 or not child.has_served else 0
            pause = _BACKOFF_S[min(self._quick_deaths, len(_BACKOFF_S) - 1)]
            if child.has_served:
                pause = min(pause, _BACKOFF_SERVED_S)
            self._fork_at = time.monotonic() + pause

    def _on_failed_start(self, child: Child, status: int) -> None:
        if child.generation is self._next:
            self._give_up_reload(f"its worker ended with status {status}")
        elif not self._serving:
            _log.error("the workers cannot start: see above")
            self._status = status if status in (exits.BOOT_ERROR, exits.APP_ERROR) else exits.BOOT_ERROR
            self._stop(quick=True)

    def _watch(self) -> None:
        """Who hangs, and who was told to end and does not."""
        now = time.monotonic()
        for child in self.children:
            if child.kill_at is not None:
                if now >= child.kill_at and child.lose_patience():
                    _log.error("worker %d does not end, and is killed (pid %d)", child.slot, child.pid)
                continue
            info = self._slots.information(child.slot)
            last_ns = info.heartbeat_ns if info.pid == child.pid else int(child.since * 1e9)
            timeout = child.generation.settings.timeout
            if is_overdue(last_ns, timeout):
                _log.error(
                    "worker %d gave no sign for %g s: it hangs (pid %d)", child.slot, timeout, child.pid
                )
                self._slots.leave(child)
                child.abort()
                if child.generation is self._next:
                    self._give_up_reload("its worker hangs")

    # ---------------------------------------------------------------- numbers

    def _manage(self) -> None:
        """Fork who is missing, and drain who is too many."""
        if self._stopping:
            return
        if self._next is not None:
            self._advance_reload()
        members = self._members(self._current)
        fresh = [c for c in members if not c.worn]
        for _ in range(self.num_workers - len(fresh)):
            if time.monotonic() < self._fork_at or not self._fork(self._current):
                break
        serving = [c for c in fresh if c.state == SERVING]
        if len(serving) >= self.num_workers:
            if not self._serving:
                self._on_started()
            surplus = sorted(serving, key=lambda c: c.age)[: len(serving) - self.num_workers]
            for child in [*surplus, *(c for c in members if c.worn)]:
                self._drain(child)
        if self._reload_again and self._next is None:
            self._reload_again = False
            self._reload()

    def _members(self, generation: Generation) -> list[Child]:
        return [c for c in self.children if c.generation is generation and c.state in (STARTING, SERVING)]

    def _fork(self, generation: Generation) -> bool:
        try:
            slot = self._slots.choose({c.slot for c in self.children})
            if slot is None:
                self._make_room()
                return False
            self._starved = False
            child = Child(slot, self._ages, generation)
            self._hook("pre_fork", child, of=generation)
            self._signals.hold()
            try:
                child.fork(self._in_child)
            finally:
                self._signals.release()
        except OSError as e:  # of ours too
            _log.error("no worker can be forked: %s", e)
            self._fork_at = time.monotonic() + _TURN_S
            return False
        self._ages += 1
        self.children.append(child)
        return True

    def _in_child(self, child: Child, channel: int) -> int:
        exits.forget()
        self._signals.close()
        self._signals.release()
        self._control.close()
        self.sockets.close_but(child.slot)
        for sibling in self.children:
            sibling.hang_up()
        self.children.clear()
        return worker.Worker(self, child, channel, self._slots.group).run()

    def _make_room(self) -> None:
        """No slot is free: the oldest that drain have had their time."""
        oldest = min((c for c in self.children if c.state == DRAINING), key=lambda c: c.age, default=None)
        if not self._starved:
            self._starved = True
            _log.warning(
                "all %d slots are taken by workers, those that drain included%s",
                self._slots.count,
                "; the oldest of these are ended" if oldest else "",
            )
        if oldest is not None:
            oldest.end()

    def _drain(self, child: Child, *, spread: bool = True) -> None:
        self._slots.leave(child)  # first: what comes after the signal is another's
        child.drain(child.generation.settings.graceful_timeout, spread=spread)

    def _on_started(self) -> None:
        self._serving = True
        self._current.serving_since = time.monotonic()
        _log.info("serving on %s (UDP) with %d workers, pid %d", self.sockets, self.num_workers, self.pid)
        self._notifier.ready(f"{self.num_workers} workers")
        self._hook("when_ready")
        if self._announce is not None:
            self._announce(self)

    # ---------------------------------------------------------------- reload

    def _reload(self) -> None:
        """Start a generation with the settings of now. It takes over when all of it serves."""
        if self._stopping:
            self._refuse_reload("it is stopping")
            return
        if self._next is not None or not self._serving:
            self._reload_again = True
            return
        self.reload_error = None
        self._notifier.reloading()
        try:
            loaded = load(self._given, self._file)
        except QuicException as e:
            self._refuse_reload(str(e))
            self._notifier.ready(f"{self.num_workers} workers; the last reload failed")
            return
        settings = loaded.settings
        for name in _FIXED:
            if getattr(settings, name) != getattr(self.settings, name):
                _log.warning("%s is not changed by a reload: it stays %r", name, getattr(self.settings, name))
                settings = dataclasses.replace(settings, **{name: getattr(self.settings, name)})
        self._hook("on_reload")
        tls = self._current.tls
        try:
            if settings.certfile or self.settings.certfile:
                tls = certificates.load(settings)
        except QuicException as e:
            _log.error("the certificate stays as it was: %s", e)
            self.reload_error = str(e)
        self.reloads += 1
        self._next = Generation(self.reloads, settings, tls)
        self._set_workers(settings.workers)  # TTIN, TTOU and WINCH count until then
        self._advance_reload()

    def _refuse_reload(self, why: str) -> None:
        self.reload_error = why
        _log.error("not reloaded: %s", why)

    def _advance_reload(self) -> None:
        generation = self._next
        assert generation is not None
        members = self._members(generation)
        starting = sum(c.state == STARTING for c in members)
        for _ in range(min(self.num_workers - len(members), _STARTING_AT_ONCE - starting)):
            if not self._fork(generation):
                break
        if sum(c.state == SERVING for c in members) >= self.num_workers:
            self._promote(generation)

    def _promote(self, generation: Generation) -> None:
        old, self._current, self._next = self._current, generation, None
        self.settings = generation.settings
        self._quick_deaths, self._fork_at = 0, 0.0
        generation.serving_since = time.monotonic()
        for child in self._members(generation):
            self._slots.accept(child)
        for child in self.children:
            if child.state == DRAINING:  # since the reload before: their clients are now told all at once
                self._drain(child, spread=False)
        for child in self._members(old):
            self._drain(child)
        draining = sorted({c.generation.number for c in self.children if c.state == DRAINING})
        for child in self.children:
            if child.state == DRAINING and child.generation.number in draining[:-_DRAINING_GENERATIONS]:
                child.end()
        _log.info("reloaded: generation %d serves", generation.number)
        self._notifier.ready(f"{self.num_workers} workers, reloaded {self.reloads} times")

    def _give_up_reload(self, why: str) -> None:
        generation, self._next = self._next, None
        assert generation is not None
        for child in self._members(generation):
            child.end()
        self._refuse_reload(f"{why}; generation {self._current.number} goes on")
        self._notifier.ready(f"{self.num_workers} workers; the last reload failed")

    # ---------------------------------------------------------------- signals

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGTTIN:
            self._set_workers(self.num_workers + 1)
        elif number == signal.SIGTTOU:
            self._set_workers(max(1, self.num_workers - 1))
        elif number == signal.SIGTERM:
            self._stop(quick=self._stopping)
        elif number in (signal.SIGINT, signal.SIGQUIT):
            self._stop(quick=True)
        elif number == signal.SIGUSR1:
            self._show()
        elif number == signal.SIGWINCH and not _has_terminal():
            _log.info("all workers drain; HUP or TTIN start others")
            self.num_workers = 0

    def _set_workers(self, count: int) -> None:
        most = self._slots.count // 2
        if count > most:
            _log.warning("no more than %d workers: half of the %d slots", most, self._slots.count)
            count = most
        before, self.num_workers = self.num_workers, count
        if count != before:
            _log.info("%d workers instead of %d", count, before)
            self._hook("nworkers_changed", count, before)

    def _show(self) -> None:
        """Where everybody is: a line each in the log, and their stacks on stderr."""
        for child in self.children:
            counters = self._slots.group.counters(child.slot)
            _log.info(
                "worker %d: pid %d, %s, generation %d, %d connections, %d requests",
                child.slot, child.pid, child.state, child.generation.number,
                counters["connections"], counters["requests_received"],
            )  # fmt: skip
            child.kill(signal.SIGUSR1)

    def _stop(self, *, quick: bool) -> None:
        if not self._stopping:
            self._stopping = True
            self._notifier.stopping()
            _log.info("stopping%s", "" if quick else "; once more stops at once")
        for child in self.children:
            if quick or child.state == STARTING:
                child.end()
            elif child.state in (SERVING, DRAINING):
                self._drain(child, spread=False)

    def _end_all(self) -> None:
        """When the loop was left by an error, workers must not stay."""
        for child in self.children:
            child.kill(signal.SIGKILL)
        for child in self.children:
            while child.reap() is None:
                self._wait()

    # ---------------------------------------------------------------- asked

    def _answer(self, question: str) -> dict[str, Any]:
        """What the control socket is asked."""
        if question == "reload":
            before = self.reloads
            self._reload()
            return {"reloads": before, "error": self.reload_error}
        if question in ("ttin", "ttou"):
            self._on_signal(signal.SIGTTIN if question == "ttin" else signal.SIGTTOU)
            return {"workers": self.num_workers}
        if question not in ("status", "stats"):
            return {"error": f"no such command: {question}"}
        told: dict[str, Any] = {
            "pid": self.pid,
            "app": self.name,
            "address": str(self.sockets),
            "started_at": self.started_at,
            "workers_wanted": self.num_workers,
            "generation": self._current.number,
            "reloads": self.reloads,
            "reloading": self._next is not None or self._reload_again,
            "reload_error": self.reload_error,
            "steering": "bpf" if self._slots.is_steered else "handover",
            "slots": self._slots.count,
            "early_data": self._slots.first_flights(),
            "workers": [self._describe(c, question == "stats") for c in self.children],
        }
        return told

    def _describe(self, child: Child, with_counters: bool) -> dict[str, Any]:
        info = self._slots.information(child.slot)
        now = time.monotonic()
        mine = info.pid == child.pid
        told: dict[str, Any] = {
            "slot": child.slot,
            "pid": child.pid,
            "state": "worn" if child.worn and child.state == SERVING else child.state,
            "generation": child.generation.number,
            "age_s": round(now - child.since, 3),
            "heartbeat_age_s": round(now - info.heartbeat_ns / 1e9, 3) if mine else None,
        }
        if with_counters and mine:
            told["counters"] = self._slots.group.counters(child.slot)
        return told


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
