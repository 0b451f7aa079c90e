"""What a store does.

Contract
1. Keys are opaque. What a store keeps by is their `fingerprint`, which is a key too: `items` gives it out.
2. A key has several tickets, because each is used once (RFC 8446, appendix C.4): the `KEEP` newest.
3. Newest means put last. `get` and `pop` skip tickets that are `expired`.
4. `pop` gives a ticket to one caller, of all threads and all processes that share the store. If that one
   dies with it, it is lost; it is never given twice.
5. A full store drops expired tickets, then the least recently used; files and Redis: the oldest.
6. Methods may block on a disk or on the network, for a bounded time. They may be called from any
   thread, also at once, and after a fork. They never call gevent.
7. What fails raises a QuicException whose cause begins with "ticket". The store can be used again; a ticket
   that is torn or not ours is a miss and no error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from .ticket import Ticket

KEEP = 8
"""Tickets per key. Servers send two (BoringSSL) to four at a time; each lets one connection be resumed."""

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


def fingerprint(key: str) -> str:
    """32 hexadecimal digits for any key: itself, if it is of that form, else a part of its SHA-256."""
    if _FINGERPRINT.fullmatch(key):
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@runtime_checkable
class TicketStore(Protocol):
    """Where tickets are kept; see the contract above. A class of your own needs no base class. One that has
    an attribute `blocks` which is False is called without a thread."""

    def get(self, key: str) -> Ticket | None:
        """The newest live ticket, left where it is; None when there is none."""

    def put(self, key: str, ticket: Ticket) -> None:
        """Keep a ticket. One that is expired is dropped without a word.

        Raises:
            QuicException: it could not be kept.
        """

    def pop(self, key: str) -> Ticket | None:
        """The newest live ticket, taken out; None when there is none."""

    def delete(self, key: str) -> None:
        """Drop all tickets of the key."""

    def items(self) -> Iterator[tuple[str, Ticket]]:
        """(key's fingerprint, ticket) of all live ones, in no special order. What others put or take
        meanwhile may be in it or not."""

    def clear(self) -> None:
        """Drop all tickets, also those of other processes."""

    def close(self) -> None:
        """Let go of descriptors and connections; tickets stay. Idempotent."""
