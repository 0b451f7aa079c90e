"""Which ticket a new connection takes up, and where its own go: keepers, without a session around them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import connect, hello, serving, wait_until

import quicgreen
from quicgreen import hub
from quicgreen.session_keeper import SessionKeeper
from quicgreen.session_modes import SessionMode
from quicgreen.ticket_cache import TicketCache
from quicgreen.tickets import MemoryTicketStore, Ticket, TicketKeys

NOT_VERIFIED = TicketKeys(verify=False)


class Offered:
    """A connection that keeps what it was told to take up."""

    alpn = "h3"

    def __init__(self) -> None:
        self.sessions: list[tuple[bytes, bool]] = []
        self.tickets: list[Ticket] = []
        self.session_mode = None

    def resume(self, data: bytes, early: bool) -> bool:
        self.sessions.append((data, early))
        return True


def keeper(store: Any = None, *, keys: TicketKeys = NOT_VERIFIED, early_data: bool = True) -> SessionKeeper:
    cache = None if store is None else TicketCache(hub.current(), store)
    return SessionKeeper(cache, SessionMode.LIVE, early_data=early_data, keys=keys)


def a_ticket(host: str = "a.test", *, keys: TicketKeys = NOT_VERIFIED, **fields: Any) -> Ticket:
    now = time.time()
    ticket = Ticket(host, 443, "h3", now, now + 100, True, keys.binding(host) + b"session")
    return dataclasses.replace(ticket, **fields)


def offered(k: SessionKeeper, host: str = "a.test", ticket: Ticket | None = None) -> list[tuple[bytes, bool]]:
    connection = Offered()
    k.resume(host, 443, None, ticket)(connection)  # type: ignore[arg-type]
    return connection.sessions


@pytest.fixture
def store() -> MemoryTicketStore:
    return MemoryTicketStore()


@pytest.fixture
def server() -> Iterator[quicgreen.Server]:
    with serving(hello, early_data=True) as server:
        yield server


def test_a_connection_takes_up_one_session_and_the_next_another(store: MemoryTicketStore) -> None:
    store.put(NOT_VERIFIED.key("a.test", 443), a_ticket())
    k = keeper(store)
    assert offered(k) == [(b"session", True)]
    assert offered(k) == []


def test_of_several_addresses_of_a_host_the_first_gets_it(store: MemoryTicketStore) -> None:
    store.put(NOT_VERIFIED.key("a.test", 443), a_ticket())
    prepare = keeper(store).resume("a.test", 443, None)
    first, second = Offered(), Offered()
    prepare(first)  # type: ignore[arg-type]
    prepare(second)  # type: ignore[arg-type]
    assert (len(first.sessions), len(second.sessions)) == (1, 0)


@pytest.mark.parametrize(("wanted", "allowed"), [(True, True), (True, False), (False, True)])
def test_early_data_is_for_who_wants_it_and_may(
    store: MemoryTicketStore, wanted: bool, allowed: bool
) -> None:
    ticket = a_ticket(early_data=allowed)
    assert offered(keeper(early_data=wanted), ticket=ticket) == [(b"session", wanted and allowed)]


def test_a_ticket_by_hand_comes_before_the_stores(store: MemoryTicketStore) -> None:
    store.put(NOT_VERIFIED.key("a.test", 443), a_ticket())
    k = keeper(store)
    given = a_ticket(data=NOT_VERIFIED.binding("a.test") + b"given")
    assert offered(k, ticket=given) == [(b"given", True)]
    assert len(list(store.items())) == 1


def test_a_ticket_is_for_whom_it_was_got_from_and_how(certificate: Any) -> None:
    named = TicketKeys(verify=False, server_name="b.test")
    others = [
        TicketKeys(verify=True, ca_file=certificate.ca_certs),
        TicketKeys(verify=True),
        TicketKeys(verify=False, cert=certificate.certfile),
        TicketKeys(verify=False, alpn=("h3", "raw")),
        named,
    ]
    for keys in others:
        assert offered(keeper(), ticket=a_ticket(keys=keys)) == []
        assert offered(keeper(keys=keys), ticket=a_ticket()) == []
        assert offered(keeper(keys=keys), ticket=a_ticket(keys=keys)) == [(b"session", True)]
    assert offered(keeper(), "b.test", a_ticket()) == []
    # The name counts that is verified, wherever it is connected to; its case does not.
    assert offered(keeper(keys=named), "c.test", a_ticket("B.test")) == [(b"session", True)]


def test_an_expired_or_empty_ticket_is_none() -> None:
    now = time.time()
    assert offered(keeper(), ticket=a_ticket(expires_at=now - 1)) == []
    assert offered(keeper(), ticket=a_ticket(issued_at=now + 100, expires_at=now + 200)) == []
    assert offered(keeper(), ticket=a_ticket(data=b"x")) == []


def test_tickets_that_come_are_kept_with_what_they_are_bound_to(store: MemoryTicketStore) -> None:
    connection = Offered()
    k = keeper(store)
    k.resume("a.test", 443, None)(connection)  # type: ignore[arg-type]
    before = time.time()
    connection.on_ticket(b"new", 60, False)  # type: ignore[attr-defined]
    assert k.cache is not None
    k.cache.flush()
    ticket = store.get(NOT_VERIFIED.key("a.test", 443))
    assert ticket is not None
    assert (ticket.host, ticket.port, ticket.alpn, ticket.early_data) == ("a.test", 443, "h3", False)
    assert before <= ticket.issued_at <= time.time()
    assert ticket.expires_at == ticket.issued_at + 60
    assert (connection.session_mode, connection.tickets) == (SessionMode.LIVE, [])
    assert offered(k, ticket=ticket) == [(b"new", False)]


def test_without_a_store_the_connection_keeps_them(server: quicgreen.Server) -> None:
    with connect(server) as connection:
        connection.get()
        assert wait_until(lambda: len(connection.tickets) == 2)
        assert connection.session_mode is None
        assert {t.port for t in connection.tickets} == {server.server_port}
        tickets = [connection.export_ticket() for _ in range(3)]
        assert tickets[0] != tickets[1]
        assert tickets[2] is None
