"""Which ticket a new connection takes up, and where the tickets go that it gets."""

from __future__ import annotations

import time
from collections.abc import Callable

from .connection import ClientConnection
from .session_modes import SessionMode
from .ticket_cache import TicketCache
from .tickets import Ticket, TicketKeys


class SessionKeeper:
    """Tickets of the connections that are opened with the same settings.

    Args:
        cache: where they are; None: nothing is resumed and nothing is kept.
        mode: for whoever asks a connection.
        early_data: requests may go out before the handshake is complete.
        keys: what keeps tickets of different settings apart.
    """

    def __init__(
        self, cache: TicketCache | None, mode: SessionMode, *, early_data: bool, keys: TicketKeys
    ) -> None:
        self.cache = cache
        self.mode = mode
        self.early_data = early_data
        self._keys = keys

    def resume(
        self, host: str, port: int, seconds: float | None, ticket: Ticket | None = None
    ) -> Callable[[ClientConnection], None]:
        """What is to be done with each connection to an origin before anything is sent: take up a session,
        `ticket`'s or one of the store's, and see to it that its tickets are kept."""
        cache = self.cache
        key = self._keys.key(host, port)
        binding = self._keys.binding(host)
        if ticket is None and cache is not None:
            ticket = cache.pop(key, seconds)
        tickets = [ticket] if ticket is not None and _fits(ticket, binding) else []

        def prepare(connection: ClientConnection) -> None:
            def keep(data: bytes, lifetime_s: int, early: bool) -> None:
                now = time.time()
                came = Ticket(host, port, connection.alpn, now, now + lifetime_s, early, binding + data)
                if cache is not None:
                    cache.put(key, came)
                else:
                    connection.tickets.append(came)

            connection.on_ticket = keep
            if cache is not None:
                connection.session_mode = self.mode
                connection.fetch_ticket = lambda: cache.export(key)
            if tickets:  # once: a second address gets a full handshake
                session = tickets.pop()
                connection.resume(session.data[len(binding) :], self.early_data and session.early_data)

        return prepare


def _fits(ticket: Ticket, binding: bytes) -> bool:
    """It is from such a connection. A resumed handshake verifies nothing, so a ticket that was got without
    verification, from another server or as another client must not stand in for that: also not one that was
    given by hand."""
    return ticket.data.startswith(binding) and not ticket.expired(time.time())
