"""Tickets in the memory of the process."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..exceptions import error
from .store import KEEP, fingerprint
from .ticket import Ticket

_Entry = tuple[str, int]


class MemoryTicketStore:
    """An LRU of tickets that lives as long as the object. A child process goes on with a copy: fork before
    there are tickets, or use one of the shared stores.

    It has no lock: a fork while another thread held one would leave it held in the child for ever. Each step
    is one operation of a C container, which no other thread can see half done.

    Args:
        max_tickets: in all; more drop the least recently used.
        clock: gives wall-clock seconds.
    """

    blocks = False
    """It never waits for anything: no thread is needed to call it."""

    def __init__(self, max_tickets: int = 1024, *, clock: Callable[[], float] = time.time) -> None:
        if max_tickets < 1:
            raise error("argument", "max_tickets is at least 1")
        self._max = max_tickets
        self._clock = clock
        self._serials = itertools.count()
        self._tickets: OrderedDict[_Entry, Ticket] = OrderedDict()
        """By fingerprint and serial number; least recently used first."""

    def _newest_first(self, name: str) -> list[_Entry]:
        return sorted((e for e in list(self._tickets) if e[0] == name), reverse=True)

    def get(self, key: str) -> Ticket | None:
        now = self._clock()
        for entry in self._newest_first(fingerprint(key)):
            ticket = self._tickets.get(entry)
            if ticket is not None and not ticket.expired(now):
                try:
                    self._tickets.move_to_end(entry)
                except KeyError:  # taken just now
                    pass
                return ticket
        return None

    def put(self, key: str, ticket: Ticket) -> None:
        now = self._clock()
        if ticket.expired(now):
            return
        name = fingerprint(key)
        self._tickets[name, next(self._serials)] = ticket
        for entry in self._newest_first(name)[KEEP:]:
            self._tickets.pop(entry, None)
        if len(self._tickets) > self._max:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        for entry, ticket in list(self._tickets.items()):
            if ticket.expired(now):
                self._tickets.pop(entry, None)
        while len(self._tickets) > self._max:
            try:
                self._tickets.popitem(last=False)
            except KeyError:  # others emptied it
                return

    def pop(self, key: str) -> Ticket | None:
        now = self._clock()
        for entry in self._newest_first(fingerprint(key)):
            ticket = self._tickets.get(entry)
            if ticket is None or ticket.expired(now):
                continue
            taken = self._tickets.pop(entry, None)  # of several threads one gets it
            if taken is not None:
                return taken
        return None

    def delete(self, key: str) -> None:
        for entry in self._newest_first(fingerprint(key)):
            self._tickets.pop(entry, None)

    def items(self) -> Iterator[tuple[str, Ticket]]:
        now = self._clock()
        for (name, _), ticket in list(self._tickets.items()):
            if not ticket.expired(now):
                yield name, ticket

    def clear(self) -> None:
        self._tickets.clear()

    def close(self) -> None:
        """Nothing to let go of: the tickets stay."""
