"""Workers as their supervisor sees them: forked, listened to, and seen off."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from ..configuration import ServerTls
from . import exits
from .config import Settings
from .unpatched import close, fork, waitpid

STARTING, SERVING, DRAINING, ENDING = "starting", "serving", "draining", "ending"
"""Forked; has said that it serves; finishes what it has; is told to end at once."""

READY, WORN = b"R", b"W"
"""What a worker says: it serves; it has served enough, and wants to be replaced."""


@dataclass(slots=True, eq=False)
class Generation:
    """Workers that were started with the same settings: those of one reload."""

    number: int
    settings: Settings
    tls: ServerTls
    serving_since: float | None = None
    """None: it has not come so far."""


@dataclass(slots=True, eq=False)
class Child:
    """A worker process. `slot` is its number for the outside; a later one may have it again."""

    slot: int
    age: int
    """How many were forked before it."""
    generation: Generation
    pid: int = 0
    state: str = STARTING
    channel: int = -1
    """Where it says `READY` and `WORN`."""
    has_served: bool = False
    worn: bool = False
    since: float = field(default_factory=time.monotonic)
    kill_at: float | None = None
    """The supervisor's patience is over then."""
    hangs: bool = False

    def fork(self, main: Callable[[Child, int], int]) -> None:
        """Make the process. `main(child, channel)` runs there, and its result is the exit status.

        Raises:
            OSError: no process can be made.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for file in (sys.stdout, sys.stderr):
            _flush(file)  # or both processes would write what waits in it
        try:
            self.pid = fork()
        except OSError:
            close(reader)
            close(writer)
            raise
        if self.pid:
            close(writer)
            self.channel = reader
            return
        status = exits.BOOT_ERROR
        try:
            close(reader)
            self.pid = os.getpid()
            status = main(self, writer)
        except BaseException:
            # The frames above are the supervisor's: nothing of the worker may end up there.
            traceback.print_exc()
        finally:
            exits.leave(status)

    def heard(self) -> bytes:
        """What it said since the last call."""
        try:
            said = os.read(self.channel, 64)
        except BlockingIOError:
            return b""
        if not said:
            self.hang_up()  # it has ended, or is about to
        return said

    def hang_up(self) -> None:
        if self.channel >= 0:
            close(self.channel)
            self.channel = -1

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def drain(self, patience_s: float, *, spread: bool = False) -> None:
        """Let it finish what it has. It keeps its own time; ours is for one that does not.

        Args:
            patience_s: what it may take.
            spread: others serve on, to whom its clients are to come one after the other.
        """
        self.state = DRAINING
        until = time.monotonic() + patience_s + _GRACE_S
        self.kill_at = min(until, self.kill_at or until)  # it may drain already
        self.kill(signal.SIGUSR2 if spread else signal.SIGTERM)

    def end(self) -> None:
        """Let it say goodbye, and no more."""
        if self.state != ENDING:
            self.state = ENDING
            self.kill_at = time.monotonic() + _GRACE_S
            self.kill(signal.SIGQUIT)

    def abort(self) -> None:
        """It hangs: let it show where, before it is killed."""
        self.state = ENDING
        self.hangs = True
        self.kill_at = time.monotonic() + _DUMP_S
        self.kill(signal.SIGABRT)

    def lose_patience(self) -> bool:
        """Its time is over. False: it is still to show where it hangs, which it does also while it is stuck
        in C, and cannot abort by itself."""
        number = signal.SIGUSR1 if self.hangs else signal.SIGKILL
        self.kill(number)
        self.kill_at = time.monotonic() + _DUMP_S
        self.hangs = False
        self.state = ENDING
        return number == signal.SIGKILL

    def reap(self) -> int | None:
        """Its exit status once it has ended, a signal's number negated; None: it lives."""
        try:
            pid, status = waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 0  # somebody else in this process waited for it
        if pid == 0:
            return None
        self.hang_up()
        return os.waitstatus_to_exitcode(status)


_GRACE_S = 5.0
"""What a worker may take beyond its own limits: to kill handlers takes it up to a second, to tell its clients
another, on a busy machine longer."""

_DUMP_S = 1.0
"""For a line for each frame of each thread."""


def _flush(file: object) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        file.flush()  # type: ignore[attr-defined]
