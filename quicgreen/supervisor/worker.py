"""What runs in a worker's process, from the fork to its end."""

from __future__ import annotations

import contextlib
import faulthandler
import grp
import importlib
import logging
import os
import pwd
import signal
import traceback
from importlib import metadata
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey
from gevent.queue import SimpleQueue

from .. import hub
from .._group import WorkerGroup, end_with
from ..exceptions import QuicException, error
from ..server import Server
from . import application, exits, values
from .application import Handler
from .children import READY, WORN, Child
from .config import Settings
from .heartbeat import Heartbeat
from .unpatched import signal as set_handler

if TYPE_CHECKING:
    from .arbiter import Supervisor

_log = logging.getLogger("quicgreen")

_SETTLE_S = 0.05
"""Between the word to drain and the last connection that is taken: what the kernel had put into this worker's
socket before it was steered elsewhere is still accepted. A loop that is not stuck reads it much sooner."""

_ORPHAN_S = 1
"""What a worker may take to say goodbye when its supervisor died."""

_ORPHANED = signal.SIGRTMAX
"""What comes then: a signal that no application has a handler of its own for."""

_ENDS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGQUIT)
"""Drain; drain, handing clients on one after the other; close at once."""


class Worker:
    """One worker. Hooks get it.

    Args:
        supervisor: as it was at the fork.
        child: what the supervisor knows of it.
        channel: where it tells the supervisor how it goes.
    """

    server: Server

    def __init__(self, supervisor: Supervisor, child: Child, channel: int, group: WorkerGroup) -> None:
        self.supervisor = supervisor
        self.settings: Settings = child.generation.settings
        self.number = child.slot
        """Its slot: what its connection ids, and QUICGREEN_WORKER in its environment, say."""
        self.age, self.pid = child.age, os.getpid()
        self._parent = supervisor.pid
        self._tls, self._channel, self._group = child.generation.tls, channel, group
        self._signals: Any = None

    def run(self) -> int:
        """Serve until told to end; returns the exit status."""
        self._die_with_supervisor()
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
        # Ctrl-C in a terminal, and its end, are for all of its processes: the supervisor says what is to be
        # done. They are not ignored, since programs that an application starts would inherit that.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            set_handler(number, _nothing)
        for number in _ENDS:
            set_handler(number, _leave)  # until it serves
        if hub.exists():
            gevent.reinit()  # the program had one, whose loop is its parent's still
        settings = self.settings
        set_title(settings, f"worker {self.number} [{settings.proc_name or self.supervisor.name}]")
        os.environ["QUICGREEN_WORKER"] = str(self.number)
        _, self._life = self._group.claim(self.number)
        self._bind_to_cpu()
        settings.hook("post_fork", self.supervisor, self)
        try:
            if self.supervisor.handler is None and not settings.no_patch:
                patch()
            self._drop_privileges()
            self._die_with_supervisor()  # again: the system forgets it when the user changes
            handler = self._load()
        except QuicException as e:
            _log.error("%s", e)
            return exits.APP_ERROR if e.cause == "application" else exits.BOOT_ERROR
        except BaseException:
            traceback.print_exc()
            return exits.APP_ERROR
        self._take_signals()
        self._start(handler)
        settings.hook("post_worker_init", self)
        self._tell(READY)
        self._serve()
        settings.hook("worker_exit", self.supervisor, self)
        return exits.OK

    # ---------------------------------------------------------------- start

    def _bind_to_cpu(self) -> None:
        if cpus := values.cpu_list(self.settings.affinity):
            os.sched_setaffinity(0, {cpus[self.number % len(cpus)]})

    def _drop_privileges(self) -> None:
        user, group = self.settings.user, self.settings.group
        if user is None and group is None:
            return
        try:
            entry = _user(user) if user is not None else None
            gid = _group_id(group) if group is not None else entry.pw_gid if entry else os.getgid()
            if entry is not None and os.geteuid() == 0:
                os.initgroups(entry.pw_name, gid)
            os.setresgid(gid, gid, gid)
            if entry is not None:
                os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        except KeyError as e:
            raise error("configuration", f"there is no such user or group: {e}") from None
        except OSError as e:
            raise error(
                "configuration", f"user and group: {e.strerror}; this takes root", errno=e.errno
            ) from None

    def _die_with_supervisor(self) -> None:
        set_handler(_ORPHANED, self._on_orphaned)
        if not end_with(self._parent, _ORPHANED, _ORPHAN_S):
            os._exit(exits.FAILED)  # it died meanwhile

    def _load(self) -> Handler:
        handler = self.supervisor.handler
        if handler is None:
            assert isinstance(self.supervisor.app, str)
            handler = application.load(self.supervisor.app)
        return handler

    def _start(self, handler: Handler) -> None:
        settings = self.settings
        hub.join(self._group, self.number, self._life)
        self.server = Server(
            self.supervisor.sockets.member(self.number),
            self._with_hooks(handler),
            tls=self._tls,
            config=settings.transport,
            spawn=settings.spawn,
            retry=settings.retry,
            max_connections=settings.max_connections,
            sessions=settings.interface == "session",
            early_data=settings.early_data,
            websocket=settings.websocket,
        )
        self.server.start()
        counters = hub.current().engine.counters
        Heartbeat(
            settings,
            lambda: self._group.beat(self.number, self._life),
            lambda: counters()["requests_received"],
            lambda: self._tell(WORN),
        ).start()

    def _with_hooks(self, handler: Handler) -> Handler:
        before, after = self.settings.hooks.get("pre_request"), self.settings.hooks.get("post_request")
        if before is None and after is None:
            return handler

        def handle(request: Any) -> Any:
            if before is not None:
                before(self, request)
            try:
                return handler(request)
            finally:
                if after is not None:
                    after(self, request)

        return handle

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more: the end is near
            os.write(self._channel, what)

    # ---------------------------------------------------------------- end

    def _take_signals(self) -> None:
        self._signals = SimpleQueue()
        for number in _ENDS:
            gevent.signal_handler(number, self._signals.put, number)
        set_handler(signal.SIGABRT, self._on_abort)

    def _serve(self) -> None:
        while True:
            number = self._signals.get()
            if number == signal.SIGTERM:
                gevent.spawn(self._drain, 0.0)
            elif number == signal.SIGUSR2:
                gevent.spawn(self._drain, self.settings.graceful_timeout / 2)
            else:
                break
        if number == signal.SIGQUIT:
            self.settings.hook("worker_int", self)
        self.server.close()

    def _drain(self, spread_s: float) -> None:
        try:
            gevent.sleep(_SETTLE_S)
            self.server.stop(timeout=self.settings.graceful_timeout, spread=spread_s)
        finally:
            self._signals.put(0)

    def _on_abort(self, number: int, frame: Any) -> None:
        """It hangs, in Python: this runs in the handler that does not wait."""
        try:
            self.settings.hook("worker_abort", self)
        finally:
            faulthandler.enable(file=2)  # which writes the stacks at the next line
            os.abort()

    def _on_orphaned(self, number: int, frame: Any) -> None:
        """The supervisor died. Where this does not run, or leads to nothing, the alarm ends the process."""
        if self._signals is not None:
            self._signals.put(signal.SIGQUIT)
        else:
            os._exit(exits.FAILED)


def _nothing(number: int, frame: Any) -> None:
    pass


def _leave(number: int, frame: Any) -> None:
    os._exit(exits.OK)


def _user(name: str) -> pwd.struct_passwd:
    return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)


def _group_id(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


_GEVENT = (
    "events",
    "queue",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
)
"""Its modules that `patch` puts in the place of the standard library's."""


def prepare() -> None:
    """Import in the supervisor what its workers need for `patch`. That patches nothing and makes no hub, and
    spares each worker most of the time in which it starts."""
    for name in _GEVENT:
        importlib.import_module(f"gevent.{name}")


def patch() -> None:
    """Before an application is imported, so that what it imports is cooperative."""
    # At each of its steps gevent asks which plugins are installed; to search all packages once is enough.
    search = metadata.entry_points
    metadata.entry_points = search().select
    try:
        monkey.patch_all()
    finally:
        metadata.entry_points = search


def set_title(settings: Settings, title: str) -> None:
    """In ps and top, where setproctitle is installed."""
    try:
        import setproctitle
    except ImportError:
        if settings.proc_name is not None:
            _log.warning("proc_name needs the package setproctitle: pip install quicgreen[proctitle]")
        return
    setproctitle.setproctitle(f"quicgreen: {title}")
