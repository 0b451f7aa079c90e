"""Session tickets: a client that comes back skips the certificate, under that name only; with our server,
with our client, and while keys turn."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers.processes import Peer
from support import wait_until

import quicgreen
from quicgreen.testing import Authority
from quicgreen.tickets import MemoryTicketStore

Run = Callable[..., dict[str, Any]]

REQUEST = [{"path": "/version"}]


def resumed(peer: Peer, session: quicgreen.Session) -> int:
    count: int = session.get(peer.url("/counters")).json()["engine"]["handshakes_resumed"]
    return count


def assert_answered(peer: Peer, told: dict[str, Any]) -> None:
    (answer,) = told["answers"]
    assert answer["status"] == 200
    assert ["x-peer", peer.version] in answer["fields"]


def test_aioquic_resumes(ours: Peer, session: quicgreen.Session, aioquic_client: Run) -> None:
    before = resumed(ours, session)
    result = aioquic_client(ours, REQUEST, REQUEST, REQUEST)
    assert result["tickets"] >= 3  # each connection brings new ones
    assert [r["resumed"] for r in result["rounds"]] == [False, True, True]
    for told in result["rounds"]:
        assert_answered(ours, told)
    assert resumed(ours, session) == before + 2


def test_curl_resumes(
    ours: Peer, session: quicgreen.Session, curl: Callable[..., list[dict[str, Any]]]
) -> None:
    before = resumed(ours, session)
    answers = curl(*[{"url": ours.url("/version")}] * 3, fresh=True)
    assert [a["status"] for a in answers] == [200] * 3
    assert resumed(ours, session) == before + 2


def test_a_ticket_counts_under_its_own_name_only(ours: Peer, aioquic_client: Run) -> None:
    names = ["localhost", "a.localhost", "localhost"]
    result = aioquic_client(ours, REQUEST, REQUEST, REQUEST, server_names=names, verify=False)
    # The third ticket offered is one of a.localhost.
    assert [r["resumed"] for r in result["rounds"]] == [False, False, False]
    for told in result["rounds"]:
        assert_answered(ours, told)


def test_a_ticket_survives_a_restart_with_the_same_keys(
    start_ours: Callable[..., Peer], session: quicgreen.Session, aioquic_client: Run
) -> None:
    first = start_ours()
    second = start_ours()
    result = aioquic_client(first, REQUEST, REQUEST, ports=[first.port, second.port])
    assert [r["resumed"] for r in result["rounds"]] == [False, True]
    assert resumed(second, session) == 1


@pytest.mark.parametrize("what", ["other keys", "other trust"])
def test_a_ticket_does_not_count_with(
    start_ours: Callable[..., Peer], certificates: Authority, aioquic_client: Run, what: str
) -> None:
    first = start_ours()
    other = {"secret": secrets.token_hex(32), "origin_s": int(time.time())}
    second = start_ours(**(other if what == "other keys" else {"ca_certs": certificates.ca_certs}))
    mine = certificates.issue("client")
    result = aioquic_client(
        first, REQUEST, REQUEST, ports=[first.port, second.port], cert=mine.certfile, key=mine.keyfile
    )
    assert [r["resumed"] for r in result["rounds"]] == [False, False]
    assert_answered(second, result["rounds"][1])


# ---------------------------------------------------------------- our client


def connect(peer: Peer, certificates: Authority, **options: Any) -> quicgreen.Connection:
    return quicgreen.connect("127.0.0.1", peer.port, verify=certificates.ca_certs, timeout=20.0, **options)


@pytest.mark.parametrize("name", ["aioquic_early", "ours"])
def test_our_client_resumes(request: pytest.FixtureRequest, certificates: Authority, name: str) -> None:
    peer: Peer = request.getfixturevalue(name)
    ticket = None
    for again in (False, True, True):
        with connect(peer, certificates, ticket=ticket) as connection:
            assert connection.get("/version").headers["x-peer"] == peer.version
            assert connection.is_resumed == again
            assert (connection.peer_cert() is None) == again
            assert wait_until(lambda c=connection: c.tickets)
            ticket = connection.export_ticket()


def test_a_session_resumes_by_itself(
    aioquic_early: Peer, certificates: Authority, counters: Callable[[Peer], dict[str, Any]]
) -> None:
    before = counters(aioquic_early)["resumed"]
    store = MemoryTicketStore()
    for again in (False, True, True):
        with quicgreen.Session(verify=certificates.ca_certs, tickets=store, early_data=False) as session:
            response = session.get(aioquic_early.url("/version"))
            assert response.headers["x-peer"] == aioquic_early.version
            assert response.connection.is_resumed == again
            assert wait_until(lambda: any(store.items()))
    assert counters(aioquic_early)["resumed"] == before + 2


def test_a_server_without_tickets(hypercorn: Peer, certificates: Authority) -> None:
    """hypercorn gives out none. Each handshake is a full one, and nothing else differs."""
    store = MemoryTicketStore()
    for _ in range(2):
        with quicgreen.Session(verify=certificates.ca_certs, tickets=store) as session:
            response = session.get(hypercorn.url("/version"))
            assert response.headers["x-peer"] == hypercorn.version
            assert not response.connection.is_resumed
            assert response.connection.early_data is None
            assert response.connection.peer_cert()
    assert list(store.items()) == []


# ---------------------------------------------------------------- keys that turn


@pytest.mark.parametrize("window", [2, 25])
def test_a_ticket_lives_no_longer_than_its_key(
    start_ours: Callable[..., Peer], certificates: Authority, window: int
) -> None:
    peer = start_ours(period_s=600, window=window)
    with connect(peer, certificates) as connection:
        assert wait_until(lambda: connection.tickets)
        ticket = connection.export_ticket()
    assert ticket.expires_at - ticket.issued_at == pytest.approx(600 * (window - 1))


CONNECTIONS = 1000
ROTATIONS = 100
WINDOW = 64  # at 50 ms: a client that was not scheduled for three seconds still has a good ticket


def test_a_hundred_rotations(start_ours: Callable[..., Peer], certificates: Authority) -> None:
    """New connections one after the other while the keys turn: each takes up the last one's session."""
    peer = start_ours(early_data=True, fresh_register=True, period_s=3600, window=WINDOW, rotate_every_s=0.05)
    options = {"verify": certificates.ca_certs, "timeout": 20.0}
    with (
        quicgreen.Session(**options, tickets=False) as asking,
        quicgreen.Session(**options, tickets=MemoryTicketStore()) as session,
    ):

        def counters() -> dict[str, Any]:
            told: dict[str, Any] = asking.get(peer.url("/counters")).json()
            return told

        def once() -> tuple[bool, bool]:
            response = session.get(peer.url("/version"))
            connection = response.connection
            assert response.headers["x-peer"] == peer.version
            connection.wait_established()
            seen = (connection.is_resumed, bool(connection.early_data))
            assert wait_until(lambda: connection.closed or any(store.items()))
            connection.close(timeout=None)
            return seen

        store = session._tickets
        before = counters()
        assert once() == (False, False)
        seen = []
        while len(seen) < CONNECTIONS or counters()["rotations"] < before["rotations"] + ROTATIONS:
            seen += [once() for _ in range(50)]
        after = counters()
        resumed, early = (sum(column) for column in zip(*seen, strict=True))
        assert resumed >= 0.999 * len(seen)
        assert early >= 0.99 * len(seen)
        grown = {name: after["engine"][name] - before["engine"][name] for name in after["engine"]}
        assert (grown["handshakes_resumed"], grown["early_data_accepted"]) == (resumed, early)
        assert grown["handshakes_completed"] == len(seen) + 1
        assert grown["early_requests"] > 0
        assert after["replay"]["repeated"] == 0

        # When the keys of all its tickets are gone it meets no error, and is not resumed.
        gone = counters()["rotations"] + WINDOW
        assert wait_until(lambda: counters()["rotations"] > gone, 20)
        assert once() == (False, False)
