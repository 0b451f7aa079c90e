"""Resumption and early data between our client and our server: who takes a session up, what goes out before
the handshake is complete, and that each request is done once whatever becomes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from support import (
    PATIENCE_S,
    check_python_in_thread,
    connect,
    counters,
    hello,
    make_server,
    new_session,
    nothing_left_behind,
    serving,
    spawn_gets,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import QuicTimeoutException
from quicgreen._contexts import Keys, ReplayRegister
from quicgreen.testing import Authority, Certificate, Link
from quicgreen.tickets import FileTicketStore, MemoryTicketStore, Ticket


class Site:
    """A handler that keeps (method, path, whether it came early), and answers 425 where `too_early` says."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bool]] = []
        self.too_early = lambda request: False

    def __call__(self, request: quicgreen.Request) -> None:
        request.read()
        self.seen.append((request.method, request.path, request.early_data))
        request.respond(425 if self.too_early(request) else 200, None, request.path)

    def since(self, count: int) -> list[tuple[str, bool]]:
        return [(method, early) for method, _, early in self.seen[count:]]


class Watched(MemoryTicketStore):
    """Keeps what it gave out."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Ticket] = []

    def pop(self, key: str) -> Ticket | None:
        ticket = super().pop(key)
        if ticket is not None:
            self.given.append(ticket)
        return ticket

    def count(self) -> int:
        return len(list(self.items()))


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def server(site: Site) -> Iterator[quicgreen.Server]:
    with serving(site, early_data=True) as server:
        yield server


@pytest.fixture
def store() -> Watched:
    return Watched()


def visit(server: quicgreen.Server, store: Any, **options: Any) -> quicgreen.Response:
    """One request in a session of its own: its tickets are in the store afterwards."""
    with new_session(tickets=store, timeout=PATIENCE_S, **options) as session:
        return session.get(url_of(server))


def a_ticket(server: quicgreen.Server, **options: Any) -> Ticket:
    with connect(server, **options) as connection:
        connection.get()
        assert wait_until(lambda: connection.tickets)
        ticket = connection.export_ticket()
        assert isinstance(ticket, Ticket)
        return ticket


def was_resumed(server: quicgreen.Server, ticket: Ticket, **options: Any) -> bool:
    """Whether a connection takes it up; it works in either case."""
    with quicgreen.connect(*server.address, **{"verify": False, **options}, ticket=ticket) as connection:
        assert connection.get().status_code == 200
        return connection.is_resumed


# ---------------------------------------------------------------- sessions


def test_the_second_connection_resumes_and_brings_its_request_along(
    server: quicgreen.Server, store: Watched, site: Site
) -> None:
    with nothing_left_behind():
        before = counters()
        first = visit(server, store, session_mode="live").connection
        assert (first.is_resumed, first.early_data, first.session_mode) == (False, None, 1)
        second = visit(server, store, session_mode="warm").connection
        assert (second.is_resumed, second.early_data, second.session_mode) == (True, True, 3)
        assert [early for _, _, early in site.seen] == [False, True]
        assert counters()["handshakes_resumed"] - before["handshakes_resumed"] == 2  # seen from both ends
        assert counters()["early_requests"] - before["early_requests"] == 1


SAFE = ("GET", "HEAD", "OPTIONS")


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("method", [*SAFE, "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("data", [None, b"body"])
def test_what_goes_out_early(
    server: quicgreen.Server, store: Watched, site: Site, method: str, data: bytes | None, asked: bool | None
) -> None:
    visit(server, store)
    before = counters()
    with new_session(tickets=store) as session:
        response = session.request(method, url_of(server), data=data, early_data=asked)
        assert (response.status_code, response.connection.is_resumed) == (200, True)
    safe = method in SAFE and data is None
    sent_early = safe if asked is None else asked
    now = counters()
    # The server holds what is not safe until it knows that the client is there.
    at_once = now["early_requests"] - before["early_requests"]
    held = now["early_requests_held"] - before["early_requests_held"]
    assert (at_once, held) == (sent_early and safe, sent_early and not safe)
    assert site.since(1) == [(method, sent_early and safe)]


@pytest.mark.parametrize("asked", [None, True])
def test_a_session_may_refuse_to_send_early(
    server: quicgreen.Server, store: Watched, site: Site, asked: bool | None
) -> None:
    visit(server, store)
    with new_session(tickets=store, early_data=False) as session:
        connection = session.get(url_of(server), early_data=asked).connection
        assert (connection.is_resumed, connection.early_data) == (True, None)
    assert site.since(1) == [("GET", False)]


def test_a_session_without_tickets_resumes_nothing_and_keeps_nothing(server: quicgreen.Server) -> None:
    for _ in range(2):
        connection = visit(server, False).connection
        assert (connection.is_resumed, connection.session_mode) == (False, None)
    # The process's own are in memory for all sessions, and these left none there.
    assert not visit(server, None, session_mode="live").connection.is_resumed
    assert visit(server, None, session_mode="live").connection.is_resumed


def test_any_object_with_the_methods_is_a_store(server: quicgreen.Server) -> None:
    class Own:
        def __init__(self) -> None:
            self.tickets: list[Ticket] = []

        def __len__(self) -> int:  # so it is false while it is empty
            return len(self.tickets)

        def put(self, key: str, ticket: Ticket) -> None:
            self.tickets.append(ticket)

        def pop(self, key: str) -> Ticket | None:
            return self.tickets.pop() if self.tickets else None

    own = Own()
    assert not visit(server, own).connection.is_resumed
    assert own.tickets
    assert visit(server, own).connection.is_resumed
    with connect(server, tickets=own) as connection:
        assert connection.is_resumed
    own.tickets.clear()
    with connect(server, tickets=own) as connection:
        connection.get()
        assert wait_until(lambda: own.tickets)
        assert connection.session_mode == quicgreen.session_modes.SessionMode.LIVE


def test_what_the_handshake_came_to_is_known_afterwards(server: quicgreen.Server, store: Watched) -> None:
    visit(server, store)
    connection = visit(server, store).connection
    assert wait_until(lambda: connection.stats() is None), "it is gone"
    assert (connection.is_resumed, connection.early_data, connection.in_early_data) == (True, True, False)


def test_each_ticket_is_used_once_by_fifty_at_a_time(server: quicgreen.Server, store: Watched) -> None:
    with connect(server, tickets=store) as connection:
        connection.get()
        assert wait_until(lambda: store.count())
    assert store.count() <= 8

    def one() -> bool:
        with connect(server, tickets=store, early_data=True, timeout=30) as connection:
            assert connection.get(timeout=30).status_code == 200
            return connection.is_resumed

    with nothing_left_behind():
        resumed = [job.get(timeout=30) for job in [gevent.spawn(one) for _ in range(50)]]
    assert len({ticket.data for ticket in store.given}) == len(store.given) == sum(resumed) > 0
    assert server.replay_register is not None
    assert server.replay_register.counts()["repeated"] == 0


# ---------------------------------------------------------------- 425


def test_a_server_that_finds_it_too_early_is_asked_again_once(
    server: quicgreen.Server, store: Watched, site: Site
) -> None:
    visit(server, store)
    site.too_early = lambda request: request.early_data
    response = visit(server, store)
    assert (response.status_code, response.text) == (200, "/")
    assert site.since(1) == [("GET", True), ("GET", False)]
    site.too_early = lambda request: True
    assert visit(server, store).status_code == 425
    assert site.since(3) == [("GET", True), ("GET", False)]


def test_what_was_not_sent_early_is_not_asked_again(
    server: quicgreen.Server, store: Watched, site: Site
) -> None:
    site.too_early = lambda request: True
    with new_session(tickets=store) as session:
        assert session.post(url_of(server), b"x").status_code == 425
        assert session.get(url_of(server)).status_code == 425
    with new_session(tickets=store) as session:
        assert session.post(url_of(server), b"x").status_code == 425
        assert session.get(url_of(server), early_data=False).status_code == 425
    assert site.since(0) == [("POST", False), ("GET", False)] * 2


# ---------------------------------------------------------------- what the server refuses


def test_refused_early_data_is_sent_again_unseen_and_done_once(site: Site, store: Watched) -> None:
    keys = Keys()
    with serving(site, early_data=True, keys=keys, replay=ReplayRegister()) as server:
        visit(server, store)
        address = server.address
    with (
        nothing_left_behind(),
        serving(site, address, early_data=True, keys=keys, replay=ReplayRegister(quiet=True)) as server,
        new_session(tickets=store) as session,
    ):
        before = counters()
        jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(20)]
        responses = [job.get(timeout=PATIENCE_S) for job in jobs]
        assert [r.text for r in responses] == [f"/{i}" for i in range(20)]
        connection = responses[0].connection
        assert (connection.is_resumed, connection.early_data) == (True, False)
        assert counters()["early_data_refused"] - before["early_data_refused"] == 2
        assert sorted(site.seen[1:]) == sorted(("GET", f"/{i}", False) for i in range(20))


def test_a_server_that_takes_no_early_data_any_more(site: Site, store: Watched) -> None:
    keys = Keys()
    with serving(site, early_data=True, keys=keys, replay=ReplayRegister()) as server:
        visit(server, store)
        address = server.address
    with serving(site, address, keys=keys) as server:
        connection = visit(server, store).connection
        assert (connection.is_resumed, connection.early_data) == (True, False)
        # Its own tickets say so, and nothing is tried.
        store.clear()
        visit(server, store)
        connection = visit(server, store).connection
        assert (connection.is_resumed, connection.early_data) == (True, None)
    assert site.since(0) == [("GET", False)] * 4


def test_keys_that_left_the_window_cost_a_handshake_and_no_error(site: Site, store: Watched) -> None:
    keys = Keys(period_s=100, window=3)
    with serving(site, early_data=True, keys=keys, replay=ReplayRegister()) as server:
        visit(server, store)
        kept = Watched()
        for key, ticket in store.items():
            kept.put(key, ticket)
        keys.rotate(int(time.time()) + 150)
        assert visit(server, store).connection.is_resumed
        keys.rotate(int(time.time()) + 500)
        connection = visit(server, kept).connection
        assert kept.given
        assert (connection.is_resumed, connection.early_data) == (False, False)
    assert site.since(2) == [("GET", False)]


def test_a_retry_costs_a_round_trip_and_nothing_else(site: Site, store: Watched) -> None:
    """It throws the first flight away (RFC 9000, section 8.1.2), which is sent once more."""
    with nothing_left_behind(), serving(site, early_data=True, retry="always") as server:
        visit(server, store)
        before = counters()
        with new_session(tickets=store) as session:
            jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(20)]
            responses = [job.get(timeout=PATIENCE_S) for job in jobs]
        assert [r.text for r in responses] == [f"/{i}" for i in range(20)]
        assert (responses[0].connection.is_resumed, responses[0].connection.early_data) == (True, True)
        assert counters()["retries_sent"] > before["retries_sent"]
        assert sorted(path for _, path, _ in site.seen[1:]) == sorted(f"/{i}" for i in range(20))


@pytest.mark.parametrize("was_early", [True, False])
def test_limits_that_were_lowered_are_kept_to(site: Site, store: Watched, was_early: bool) -> None:
    """A resumed session's limits are today's, unless it sends early data (RFC 9000, section 7.4.1)."""
    keys = Keys()
    early: dict[str, Any] = {"early_data": True, "replay": ReplayRegister()} if was_early else {}
    with serving(site, keys=keys, **early) as server:
        visit(server, store)
        address = server.address
    config = quicgreen.QuicConfiguration(initial_max_streams_bidi=2)
    with (
        serving(site, address, keys=keys, config=config, **early) as server,
        new_session(tickets=store, early_data=not was_early) as session,
    ):
        jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(10)]
        responses = [job.get(timeout=PATIENCE_S) for job in jobs]
        assert [r.text for r in responses] == [f"/{i}" for i in range(10)]
        assert responses[0].connection.is_resumed


def test_a_request_is_done_once_on_a_bad_network(site: Site, store: Watched) -> None:
    with (
        serving(site, early_data=True) as server,
        Link(server.address, seed=5, loss=0.2, duplicate=0.2, reorder=0.2) as link,
    ):
        url = f"https://127.0.0.1:{link.port}"
        for i in range(12):
            with new_session(tickets=store, timeout=30) as session:
                assert session.get(f"{url}/{i}").text == f"/{i}"
        assert link.counters().to_server.duplicated
    assert [path for _, path, _ in site.seen] == [f"/{i}" for i in range(12)]
    assert any(early for _, _, early in site.seen)


# ---------------------------------------------------------------- tickets that do not fit


def test_a_ticket_given_by_hand_is_used(server: quicgreen.Server) -> None:
    assert was_resumed(server, a_ticket(server))


@pytest.mark.parametrize("cut", ["damaged", "short", "noise"])
def test_a_ticket_that_is_none_costs_a_handshake_and_no_error(server: quicgreen.Server, cut: str) -> None:
    ticket = a_ticket(server)
    data = {
        "damaged": ticket.data[:200] + bytes(b ^ 0xFF for b in ticket.data[200:260]) + ticket.data[260:],
        "short": ticket.data[:100],
        "noise": b"x" * 500,
    }[cut]
    assert not was_resumed(server, dataclasses.replace(ticket, data=data))


def test_a_ticket_of_another_server_or_an_expired_one(server: quicgreen.Server) -> None:
    with serving(hello) as other:
        assert not was_resumed(server, a_ticket(other))
    now = time.time()
    ticket = a_ticket(server)
    assert not was_resumed(server, dataclasses.replace(ticket, issued_at=now - 100, expires_at=now - 1))
    assert was_resumed(server, ticket)


def test_a_ticket_does_not_stand_in_for_verification(
    certificate: Certificate, certificates: Authority, store: Watched
) -> None:
    """A resumed handshake shows no certificate: who checks one must not be resumed by who did not."""
    trusted: dict[str, Any] = {"verify": certificate.ca_certs}
    options = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    with serving(hello, early_data=True, **options) as server:
        visit(server, store)  # without verification
        first = visit(server, store, **trusted).connection
        assert not first.is_resumed
        assert store.given == []
        assert visit(server, store, **trusted).connection.is_resumed
        unverified, verified = a_ticket(server), a_ticket_of(server, **trusted)
        assert not was_resumed(server, unverified, **trusted)
        assert was_resumed(server, verified, **trusted)


def a_ticket_of(server: quicgreen.Server, **options: Any) -> Ticket:
    with quicgreen.connect(*server.address, **options) as connection:
        connection.get()
        assert wait_until(lambda: connection.tickets)
        ticket: Ticket = connection.export_ticket()
        return ticket


def test_a_ticket_of_another_name_is_not_used(certificates: Authority, store: Watched) -> None:
    both = certificates.issue("a.test", "b.test")
    options = {"certfile": both.certfile, "keyfile": both.keyfile}
    a: dict[str, Any] = {"verify": both.ca_certs, "server_name": "a.test"}
    b: dict[str, Any] = {"verify": both.ca_certs, "server_name": "b.test"}
    with serving(hello, **options) as server:
        visit(server, store, **a)
        assert not visit(server, store, **b).connection.is_resumed
        assert visit(server, store, **a).connection.is_resumed
        ticket = a_ticket_of(server, **a)
        assert not was_resumed(server, ticket, **b)


def test_a_ticket_of_another_client_certificate_is_not_used(certificates: Authority, store: Watched) -> None:
    shown = certificates.issue("localhost", "127.0.0.1")
    options = {"certfile": shown.certfile, "keyfile": shown.keyfile, "ca_certs": shown.ca_certs}
    one, other = certificates.issue("one"), certificates.issue("other")
    as_one: dict[str, Any] = {"cert": (one.certfile, one.keyfile)}
    as_other: dict[str, Any] = {"cert": (other.certfile, other.keyfile)}
    with serving(hello, **options) as server:
        visit(server, store, **as_one)
        assert not visit(server, store, **as_other).connection.is_resumed
        assert visit(server, store, **as_one).connection.is_resumed
        assert not was_resumed(server, a_ticket_of(server, verify=False, **as_one), **as_other)


# ---------------------------------------------------------------- connect


def test_connect_returns_before_the_handshake_when_it_may_send_early(
    server: quicgreen.Server, site: Site
) -> None:
    with Link(server.address) as link, nothing_left_behind():
        ticket = a_ticket(server)
        link.blackhole(direction="to_client")
        connection = quicgreen.connect(
            "127.0.0.1", link.port, verify=False, ticket=ticket, early_data=True, timeout=PATIENCE_S
        )
        assert (connection.in_early_data, connection.early_data) == (True, None)
        job = spawn_gets(connection, 1)[0]
        # The server has done it while the client knows of nothing but its own words.
        assert wait_until(lambda: site.since(1) == [("GET", True)])
        assert connection.in_early_data
        link.blackhole(False)
        assert job.get(timeout=PATIENCE_S).text == "/0"
        connection.wait_established()
        assert (connection.in_early_data, connection.is_resumed, connection.early_data) == (False, True, True)
        assert site.since(1) == [("GET", True)]
        connection.close()


def test_without_a_ticket_that_allows_it_connect_waits(server: quicgreen.Server) -> None:
    with connect(server, early_data=True) as connection:
        assert (connection.in_early_data, connection.alpn) == (False, "h3")
    with connect(server, early_data=False, ticket=a_ticket(server)) as connection:
        assert (connection.in_early_data, connection.alpn, connection.is_resumed) == (False, "h3", True)
        assert connection.get().text == "/"
        assert connection.early_data is None


def test_why_an_early_connection_failed_is_told_by_its_first_use(server: quicgreen.Server) -> None:
    ticket = a_ticket(server)
    with Link(server.address) as link:
        link.blackhole()
        connection = quicgreen.connect(
            "127.0.0.1", link.port, verify=False, ticket=ticket, early_data=True, timeout=0.5
        )
        with pytest.raises(QuicTimeoutException) as caught:
            connection.get(timeout=PATIENCE_S)
        assert caught.value.cause == "handshake-timeout"
        with pytest.raises(QuicTimeoutException):
            connection.get()
        assert connection.export_ticket() is None


def test_a_ticket_is_exported_and_used_in_another_process(server: quicgreen.Server, site: Site) -> None:
    made = check_python_in_thread(
        """
        import sys, quicgreen
        from support import wait_until
        with quicgreen.connect("127.0.0.1", int(sys.argv[1]), verify=False) as connection:
            connection.get()
            wait_until(lambda: connection.tickets)
            print(connection.export_ticket().to_bytes().hex())
        """,
        str(server.server_port),
    )
    used = check_python_in_thread(
        """
        import sys, quicgreen
        from quicgreen.tickets import Ticket
        ticket = Ticket.from_bytes(bytes.fromhex(sys.argv[2]))
        with quicgreen.connect(
            "127.0.0.1", int(sys.argv[1]), verify=False, ticket=ticket, early_data=True
        ) as connection:
            print(connection.in_early_data, connection.get("/early").text, connection.is_resumed)
            connection.wait_established()
            print(connection.in_early_data, connection.early_data, connection.session_mode)
        """,
        str(server.server_port),
        made.strip(),
    )
    assert used.split() == ["True", "/early", "True", "False", "True", "None"]
    assert [path for _, path, _ in site.seen] == ["/", "/early"]


def test_export_from_a_store_takes_it_out(server: quicgreen.Server, store: Watched, tmp_path: Any) -> None:
    for tickets in (store, FileTicketStore(tmp_path / "tickets")):
        with connect(server, tickets=tickets) as connection:
            connection.get()
            ticket = connection.export_ticket()
            assert isinstance(ticket, Ticket)
            assert ticket not in [kept for _, kept in tickets.items()]
        assert was_resumed(server, ticket)


def test_a_server_is_as_it_was_when_nobody_asks_for_early_data(store: Watched) -> None:
    """Off unless it is said: a ticket of such a server allows no early data."""
    server = make_server(hello)
    server.start()
    try:
        visit(server, store)
        connection = visit(server, store).connection
        assert (connection.is_resumed, connection.early_data) == (True, None)
        assert server.replay_register is None
        assert not any(ticket.early_data for ticket in store.given)
    finally:
        server.stop(timeout=0)
