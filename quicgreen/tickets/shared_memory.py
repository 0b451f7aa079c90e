"""Tickets in shared memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import _contexts, _engine
from ..exceptions import QuicException, error
from .store import fingerprint
from .ticket import Ticket


def default_path() -> str:
    """One segment for each user, and nobody waits for a disk."""
    return f"/dev/shm/quicgreen-tickets-{os.geteuid()}"


class SharedMemoryTicketStore:
    """An LRU of tickets in a file in memory, for processes that come and go: it outlives them, and no
    process can hold up another one, not even by dying (cext/src/ticket_shm.h).

    The file is made by whoever comes first, for its user alone, and keeps the size it was made with.

    Args:
        path: of the file; None: `default_path()`. A folder in memory (tmpfs) is best.
        size: bytes, 16 KiB to 8 MiB. 64 KiB hold 58 tickets of up to 1,000 bytes; most have some 600.
        clock: gives wall-clock seconds.

    Raises:
        QuicClientException: with cause "ticket-segment" when the file is another user's, open to others, or
            not a segment of this version; with "ticket-disk" when there is no room for it.
    """

    blocks = False
    """It never waits for anything: no thread is needed to call it."""

    def __init__(
        self, path: str | None = None, size: int = 65_536, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path if path is not None else default_path()
        self._wanted = size
        self._clock = clock
        self._segment = _contexts.TicketSegment(self.path, size)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the segment; open the file anew when it was removed in the meantime."""
        for _ in range(3):
            result = getattr(self._segment, name)(*arguments)
            code = result[0] if isinstance(result, tuple) else result
            if code != _engine.GONE:
                return result if code >= 0 else self._raise(code)
            self._segment = _contexts.TicketSegment(self.path, self._wanted)
        raise error("ticket-segment", f"{self.path} is removed again and again")

    def _raise(self, code: int) -> None:
        if code == _engine.TOO_LARGE:
            raise error("ticket-too-large", f"{self.path} takes {self.info()['max_ticket']} bytes")
        what = {
            _engine.STATE: "the segment was truncated",
            _engine.AGAIN: "too many processes write at once",
        }.get(code, f"result {code}")
        raise error("ticket-segment", f"{self.path}: {what}")

    @staticmethod
    def _key(key: str) -> bytes:
        return bytes.fromhex(fingerprint(key))

    def _now(self) -> int:
        return max(0, int(self._clock()))

    def get(self, key: str) -> Ticket | None:
        length, data = self._call("get", self._key(key), self._now())
        return Ticket.from_bytes(data) if length else None

    def put(self, key: str, ticket: Ticket) -> None:
        if ticket.expired(self._clock()):
            return
        times = max(0, int(ticket.issued_at)), max(0, int(ticket.ends_at))
        self._call("put", self._key(key), ticket.to_bytes(), *times, self._now())

    def pop(self, key: str) -> Ticket | None:
        length, data = self._call("take", self._key(key), self._now())
        return Ticket.from_bytes(data) if length else None

    def delete(self, key: str) -> None:
        self._call("delete", self._key(key))

    def items(self) -> Iterator[tuple[str, Ticket]]:
        for index in range(self.info()["slots"]):
            try:
                length, key, data = self._call("at", index, self._now())
            except QuicException:
                if index < self.info()["slots"]:
                    raise
                return  # removed, and made anew with fewer slots
            if length:
                yield key.hex(), Ticket.from_bytes(data)

    def info(self) -> dict[str, int]:
        """`size` of the file, `slots`, `slot_room` bytes in each, `max_ticket` bytes, `tickets` now."""
        _, values = self._call("info")
        return dict(values)

    def clear(self) -> None:
        """Drop all tickets and wipe their bytes. (Those of a ticket that was taken stay in the file until
        its slot is used again.)"""
        self._call("clear")

    def close(self) -> None:
        self._segment.close()
