"""Five ways to keep a session, and which one fits this process.

    LIVE       a connection is kept and serves the next call; tickets in memory for the time after it
    TICKET     tickets in files or Redis: for processes that live for one request
    WARM       as LIVE, in a container that is frozen between calls
    SHM_LRU    tickets in shared memory, for the processes of a prefork server
    AUTO       chooses: WARM in a function-as-a-service container, SHM_LRU in a forked process, TICKET in a
               process per request, else LIVE

All keep connections alive for as long as the process does; what differs is where tickets go, which decides
who can resume when a connection is gone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from . import settings
from .exceptions import QuicException, QuicWarningTicketStore, error, warn
from .tickets import (
    FileTicketStore,
    MemoryTicketStore,
    RedisTicketStore,
    SharedMemoryTicketStore,
    TicketStore,
)


class SessionMode(IntEnum):
    """The numbers are the documentation's (`QUICPRO_SESSION_AUTO` ...)."""

    AUTO = 0
    LIVE = 1
    TICKET = 2
    WARM = 3
    SHM_LRU = 4


_FROZEN_BETWEEN_CALLS = (
    "AWS_LAMBDA_FUNCTION_NAME",  # AWS Lambda
    "K_SERVICE",  # Cloud Run
    "FUNCTION_TARGET",  # Google Cloud Functions
    "FUNCTIONS_WORKER_RUNTIME",  # Azure Functions
)

_PROCESS_PER_REQUEST = "GATEWAY_INTERFACE"
"""CGI (RFC 3875, section 4.1.4)."""

_forked = False

_memory = MemoryTicketStore()
"""For all sessions of the process. A child begins without: each ticket is for one connection."""


def _after_fork_in_child() -> None:
    global _forked
    _forked = True
    _memory.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


def choose(mode: int | str | None = None, environ: Mapping[str, str] | None = None) -> SessionMode:
    """The mode in force; never AUTO. None: as the settings say.

    Raises:
        QuicClientException: there is no such mode.
    """
    environ = os.environ if environ is None else environ
    if mode is None:
        mode = settings.load(environ)["session_mode"].value
    try:
        chosen = SessionMode(settings.mode_number(mode))
    except ValueError as e:
        raise error("argument", f"session_mode is {e}, not {mode!r}") from None
    if chosen is not SessionMode.AUTO:
        return chosen
    if any(environ.get(name) for name in _FROZEN_BETWEEN_CALLS):
        return SessionMode.WARM
    if _forked:
        return SessionMode.SHM_LRU
    return SessionMode.TICKET if environ.get(_PROCESS_PER_REQUEST) else SessionMode.LIVE


def open_store(mode: SessionMode, *, required: bool, given: Mapping[str, Any] | None = None) -> TicketStore:
    """Where this mode keeps its tickets. When that cannot be had: an error if it is `required`, else a
    warning, and tickets are kept in memory. `given`: settings that count before all others.

    Raises:
        QuicException: with a cause that begins with "ticket".
    """
    if mode in (SessionMode.LIVE, SessionMode.WARM):
        return _memory
    values = settings.load(given=given)
    try:
        if mode is SessionMode.SHM_LRU:
            return SharedMemoryTicketStore(values["shm_path"].value or None, values["shm_size"].value)
        place = values["ticket_store"].value
        if place.startswith(("redis://", "rediss://", "unix://")):
            return RedisTicketStore(place)
        return FileTicketStore(place or None)
    except QuicException as e:
        if required:
            raise
        warn(f"tickets are kept in memory only: {e}", QuicWarningTicketStore)
        return _memory
