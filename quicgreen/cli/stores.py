"""Which store of session tickets a command works with."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from .. import settings
from ..exceptions import error
from ..session_modes import SessionMode, open_store
from ..tickets import (
    FileTicketStore,
    MemoryTicketStore,
    RedisTicketStore,
    SharedMemoryTicketStore,
    Ticket,
    TicketStore,
    shared_memory,
)
from ..tickets.file import default_folder
from .session_file import SessionFile

REDIS = ("redis://", "rediss://", "unix://")

_SEGMENT = b"qgticket"
"""How a segment begins (cext/src/ticket_shm.h)."""


def mode_of_commands() -> SessionMode:
    """The session mode that is set. AUTO is TICKET here: a command is a process for one request.

    Raises:
        QuicClientException: a setting is wrong.
    """
    mode = SessionMode(settings.load()["session_mode"].value)
    return SessionMode.TICKET if mode is SessionMode.AUTO else mode


def in_force() -> TicketStore:
    """The store that the settings name.

    Raises:
        QuicException: it cannot be opened.
    """
    return open_store(mode_of_commands(), required=True)


def at(place: str, *, make: bool) -> TicketStore:
    """The store at a place that somebody named: a Redis URL, a folder, a shared-memory file, a session file
    (`session_file`). `make`: one that is not there is made; below /dev/shm shared memory, else a folder.

    Raises:
        QuicException: it cannot be opened.
    """
    if place.startswith(REDIS):
        return RedisTicketStore(place)
    if not os.path.lexists(place):
        if not make:
            raise error("ticket-folder", f"{place} does not exist")
        if os.path.abspath(place).startswith("/dev/shm/"):
            return SharedMemoryTicketStore(place, settings.load()["shm_size"].value)
        return FileTicketStore(place)
    if not os.path.isfile(place):
        return FileTicketStore(place)
    try:
        with open(place, "rb") as file:
            is_segment = file.read(len(_SEGMENT)) == _SEGMENT
    except OSError as e:
        raise error("ticket-folder", f"{place}: {e.strerror}", errno=e.errno) from None
    return SharedMemoryTicketStore(place) if is_segment else SessionFile(place)


def describe(mode: SessionMode) -> str:
    """Where this mode keeps tickets, for people. Nothing is opened."""
    values = settings.load()
    if mode in (SessionMode.LIVE, SessionMode.WARM):
        return "memory of the process"
    if mode is SessionMode.SHM_LRU:
        return f"shared memory {values['shm_path'].value or shared_memory.default_path()}"
    place = values["ticket_store"].value
    return without_password(place) if place.startswith(REDIS) else f"files in {place or default_folder()}"


def without_password(url: str) -> str:
    """What is printed gets pasted into reports."""
    return re.sub(r"(?<=://)[^/]*(?=@)|(?<=password=)[^&]*", "***", url)


def is_shared(store: TicketStore) -> bool:
    """What one process puts there another one finds."""
    return not isinstance(store, MemoryTicketStore) or isinstance(store, SessionFile)


class Watched:
    """A store, and what happened with it."""

    def __init__(self, store: TicketStore) -> None:
        self.store = store
        self.blocks = getattr(store, "blocks", True)
        self.gave = self.got = 0
        """Tickets that were taken out and put in."""

    def get(self, key: str) -> Ticket | None:
        return self.store.get(key)

    def put(self, key: str, ticket: Ticket) -> None:
        self.store.put(key, ticket)
        self.got += 1

    def pop(self, key: str) -> Ticket | None:
        ticket = self.store.pop(key)
        self.gave += ticket is not None
        return ticket

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def items(self) -> Iterator[tuple[str, Ticket]]:
        return self.store.items()

    def clear(self) -> None:
        self.store.clear()

    def close(self) -> None:
        self.store.close()
