"""Which ticket a new connection takes up, and where the tickets go that it gets."""

from __future__ import annotations

import time
from collections.abc import Callable

from .connection import ClientConnection
from .session_modes import SessionMode
from .ticket_cache import TicketCache
from .tickets import Ticket, ticket_key


class SessionKeeper:
    """Tickets of the connections that are opened with the same settings.

    Args:
        cache: where they are; None: nothing is resumed and nothing is kept.
        mode: for whoever asks a connection.
        early_data: requests may go out before the handshake is complete.
        alpn, server_name, verify, ca_file, ca_dir, cert: what keeps tickets apart, as in `ticket_key`.
    """

    def __init__(
        self,
        cache: TicketCache | None,
        mode: SessionMode,
        *,
        early_data: bool,
        alpn: tuple[str, ...],
        server_name: str | None,
        verify: bool,
        ca_file: str | None,
        ca_dir: str | None,
        cert: str | None,
    ) -> None:
        self.cache = cache
        self.mode = mode
        self.early_data = early_data
        self._alpn = alpn
        self._server_name = server_name
        self._verify = verify
        self._ca_file = ca_file
        self._ca_dir = ca_dir
        self._cert = cert

    def key(self, host: str, port: int) -> str:
        """The key of an origin's tickets."""
        return ticket_key(
            host,
            port,
            server_name=self._server_name,
            alpn=self._alpn,
            verify=self._verify,
            ca_file=self._ca_file,
            ca_dir=self._ca_dir,
            cert=self._cert,
        )

    def resume(
        self, host: str, port: int, seconds: float | None, ticket: Ticket | None = None
    ) -> Callable[[ClientConnection], None]:
        """What is to be done with each connection to an origin before anything is sent: take up a session,
        `ticket`'s or one of the store's, and see to it that its tickets are kept."""
        cache = self.cache
        key = self.key(host, port) if cache is not None else ""
        tickets = [ticket] if ticket is not None else []
        if not tickets and cache is not None and (found := cache.pop(key, seconds)) is not None:
            tickets.append(found)

        def prepare(connection: ClientConnection) -> None:
            def keep(data: bytes, lifetime_s: int, early: bool) -> None:
                came = _ticket(host, port, connection.alpn, data, lifetime_s, early)
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
                connection.resume(session.data, self.early_data and session.early_data)

        return prepare


def _ticket(host: str, port: int, alpn: str, data: bytes, lifetime_s: int, early: bool) -> Ticket:
    now = time.time()
    return Ticket(host, port, alpn, now, now + lifetime_s, early, data)
