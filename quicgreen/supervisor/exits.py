"""How processes end: the statuses that are gunicorn's, and the way out of a forked one."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from typing import NoReturn

OK = 0
FAILED = 1
BOOT_ERROR = 3
"""A worker could not start, or the supervisor for that reason."""
APP_ERROR = 4
"""The application could not be loaded."""


def leave(status: int) -> NoReturn:
    """End a worker. What was registered in it for the end of the program runs; what the supervisor has on its
    stack, and registered before the fork (`forget`), does not."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            file.flush()
    os._exit(status)


def words(status: int) -> str:
    """How a process ended, by `os.waitstatus_to_exitcode`."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:  # one without a name
        return f"signal {-status}"


def forget() -> None:
    """In a worker, at first: what was registered for the end of the program is the supervisor's to do."""
    atexit._clear()
