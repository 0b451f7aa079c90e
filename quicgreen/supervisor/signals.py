"""Signals as a supervisor takes them: noted in a pipe by the interpreter, read by its loop. Nothing of ours
runs in a signal's handler."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from .unpatched import close
from .unpatched import signal as set_handler

NUMBERS = (
    signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT,
    signal.SIGQUIT, signal.SIGWINCH, signal.SIGCHLD,
)  # fmt: skip


class Signals:
    """Taken over from `open` to `close`, in the main thread.

    Raises:
        ValueError: this is another thread.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._mask: set[Any] = set()
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:
            close(self.fd)
            close(self._write)
            raise
        for number in NUMBERS:
            self._before[number] = set_handler(number, _nothing)

    def taken(self) -> list[int]:
        """Those that came since the last call, in their order."""
        with contextlib.suppress(BlockingIOError):
            return list(os.read(self.fd, 4096))
        return []

    def hold(self) -> None:
        """Around a fork: a child that gets one before it has called `close` would note it in its parent's
        pipe, and the parent take it for its own."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)

    def release(self) -> None:
        """In the parent after the fork, in the child after `close`."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def close(self) -> None:
        """All as before. In a child too, whose handlers are then the parent's earlier ones."""
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            set_handler(number, signal.SIG_DFL if handler is None else handler)
        close(self.fd)
        close(self._write)


def _nothing(number: int, frame: Any) -> None:
    pass
