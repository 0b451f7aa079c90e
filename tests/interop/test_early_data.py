"""Early data (0-RTT) with independent peers, and with ours in another process.

What a server's handler tells at /hit is counted where it runs, so "once" is what happened, whatever the
client believes. Where a request must be seen before the handshake is complete there is a link with a delay:
without one the first flight's last packet and the handshake's end may come to a busy server together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import gevent
import pytest
from gevent import socket
from helpers.processes import Peer
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Link
from quicgreen.tickets import MemoryTicketStore, Ticket

Counters = Callable[[Peer], dict[str, Any]]
Run = Callable[..., dict[str, Any]]
Dial = Callable[..., quicgreen.Connection]
TicketOf = Callable[..., Ticket]

DELAY_MS = 25

ONCE = {"runs": 1, "early": 0, "before_handshake": 0}
ONCE_EARLY = {"runs": 1, "early": 1, "before_handshake": 1}


def more(after: dict[str, Any], before: dict[str, Any]) -> dict[str, int]:
    """What the engine's counters of sessions grew by; the asking connection is the same both times."""
    names = ("handshakes_resumed", "early_data_accepted", "early_data_refused", "early_requests")
    return {name: after["engine"][name] - before["engine"][name] for name in names}


def counted(resumed: int, accepted: int, refused: int, requests: int) -> dict[str, int]:
    return {
        "handshakes_resumed": resumed,
        "early_data_accepted": accepted,
        "early_data_refused": refused,
        "early_requests": requests,
    }


@pytest.fixture
def dial(certificates: Authority) -> Dial:
    """Connect to a peer, or to a link before it."""

    def connect(peer: Peer | Link, ticket: Ticket | None = None, **options: Any) -> quicgreen.Connection:
        given = {"verify": certificates.ca_certs, "timeout": 20.0, "early_data": True, "ticket": ticket}
        return quicgreen.connect("127.0.0.1", peer.port, **{**given, **options})

    return connect


@pytest.fixture
def ticket_of(dial: Dial) -> TicketOf:
    """A ticket of a peer's."""

    def get(peer: Peer, **options: Any) -> Ticket:
        with dial(peer, **options) as connection:
            assert connection.get("/version").status_code == 200
            assert not connection.is_resumed
            assert wait_until(lambda: connection.tickets)
            ticket = connection.export_ticket()
            assert ticket is not None
            assert ticket.early_data
            return ticket

    return get


# ---------------------------------------------------------------- independent peers


def test_aioquic_sends_early_data(ours_early: Peer, counters: Counters, aioquic_client: Run) -> None:
    before = counters(ours_early)
    rounds = [[{"path": f"/hit/aioquic-{i}"}] for i in range(3)]
    with Link(ours_early.address, delay_ms=DELAY_MS) as link:
        result = aioquic_client(link, *rounds, early=True)
    after = counters(ours_early)
    assert [(r["resumed"], r["early"]) for r in result["rounds"]] == [
        (False, False),
        (True, True),
        (True, True),
    ]
    for told in result["rounds"]:
        (answer,) = told["answers"]
        assert answer["status"] == 200
        assert ["x-peer", ours_early.version] in answer["fields"]
    assert [after["hits"][f"aioquic-{i}"] for i in range(3)] == [ONCE, ONCE_EARLY, ONCE_EARLY]
    assert more(after, before) == counted(2, 2, 0, 2)


def test_aioquic_s_refused_early_data(
    start_ours: Callable[..., Peer], counters: Counters, aioquic_client: Run
) -> None:
    """A register that is younger than the keys says no for two minutes. What was early is done once all the
    same."""
    peer = start_ours(early_data=True)
    result = aioquic_client(peer, *[[{"path": f"/hit/{i}"}] for i in range(2)], early=True)
    told = counters(peer)
    assert [(r["resumed"], r["early"]) for r in result["rounds"]] == [(False, False), (True, False)]
    assert told["hits"] == {"0": ONCE, "1": ONCE}
    assert told["engine"]["early_data_refused"] == 1
    assert told["replay"] == {"first": 0, "repeated": 0, "full": 0, "quiet": 1}


def test_aioquic_takes_early_data(
    aioquic_early: Peer, counters: Counters, dial: Dial, ticket_of: TicketOf
) -> None:
    ticket = ticket_of(aioquic_early)
    before = counters(aioquic_early)
    with dial(aioquic_early, ticket) as connection:
        assert connection.in_early_data
        assert connection.get("/version").headers["x-peer"] == aioquic_early.version
        connection.wait_established()
        assert (connection.is_resumed, connection.early_data) == (True, True)
    after = counters(aioquic_early)
    grown = {name: after[name] - before[name] for name in ("resumed", "early", "requests")}
    assert grown == {"resumed": 1, "early": 1, "requests": 2}  # the second one is ours here


def test_aioquic_refuses_early_data(
    aioquic_forgetful: Peer, counters: Counters, dial: Dial, ticket_of: TicketOf
) -> None:
    ticket = ticket_of(aioquic_forgetful)
    before = counters(aioquic_forgetful)
    with dial(aioquic_forgetful, ticket) as connection:
        assert connection.in_early_data
        assert connection.get("/version").headers["x-peer"] == aioquic_forgetful.version
        assert (connection.is_resumed, connection.early_data) == (False, False)
    after = counters(aioquic_forgetful)
    grown = {name: after[name] - before[name] for name in ("resumed", "early", "requests")}
    assert grown == {"resumed": 0, "early": 0, "requests": 2}


def test_curl_resumes_and_offers_no_early_data(
    ours_early: Peer, counters: Counters, curl: Callable[..., list[dict[str, Any]]]
) -> None:
    """libcurl over BoringSSL has no early data in QUIC, also when asked for it (CURLSSLOPT_EARLYDATA)."""
    before = counters(ours_early)
    answers = curl(*[{"url": ours_early.url(f"/hit/curl-{i}")} for i in range(3)], fresh=True, early=True)
    after = counters(ours_early)
    assert [a["status"] for a in answers] == [200] * 3
    assert [after["hits"][f"curl-{i}"] for i in range(3)] == [ONCE] * 3
    assert more(after, before) == counted(2, 0, 0, 0)


def test_ours_with_ours(ours_early: Peer, counters: Counters, certificates: Authority) -> None:
    """A session does by itself what it should: resume, and send early what is safe."""
    before = counters(ours_early)
    store = MemoryTicketStore()
    with Link(ours_early.address, delay_ms=DELAY_MS) as link:
        for i, method in enumerate(("GET", "GET", "HEAD", "OPTIONS", "POST")):
            with quicgreen.Session(verify=certificates.ca_certs, tickets=store, timeout=20.0) as session:
                response = session.request(method, f"https://localhost:{link.port}/hit/ours-{i}")
                assert response.headers["x-peer"] == ours_early.version
                assert response.connection.is_resumed == (i > 0)
                assert response.connection.early_data is (True if 0 < i < 4 else None)
    after = counters(ours_early)
    hits = [after["hits"][f"ours-{i}"] for i in range(5)]
    assert hits == [ONCE, ONCE_EARLY, ONCE_EARLY, ONCE_EARLY, ONCE]
    assert more(after, before) == counted(4, 4, 0, 3)  # for the POST it was offered too


def test_a_post_in_early_data_waits_for_the_handshake(
    ours_early: Peer, counters: Counters, dial: Dial, ticket_of: TicketOf
) -> None:
    ticket = ticket_of(ours_early)
    before = counters(ours_early)
    with Link(ours_early.address, delay_ms=DELAY_MS) as link, dial(link, ticket) as connection:
        assert connection.in_early_data
        response = connection.post("/hit/post", data=b"body", early_data=True)
        assert response.content == b"body"
        assert (response.headers["x-early"], connection.early_data) == ("0", True)
    after = counters(ours_early)
    assert after["hits"]["post"] == ONCE
    assert more(after, before) == counted(1, 1, 0, 0)
    assert after["engine"]["early_requests_held"] == before["engine"]["early_requests_held"] + 1


# ---------------------------------------------------------------- what must be refused

OTHER_SECRET = {"secret": secrets.token_hex(32)}


@pytest.mark.parametrize(
    ("change", "resumed", "accepted"),
    [
        ({}, True, True),  # what the others differ from
        (OTHER_SECRET, False, False),
        ({"ca_certs": True}, False, False),
        ({"config": {"initial_max_streams_bidi": 50}}, True, False),
        ({"config": {"initial_max_data": 100_000}}, True, False),
        ({"early_data": False, "fresh_register": False}, True, False),
        ({"fresh_register": False}, True, False),  # it cannot know what was taken under these keys
        ({"retry": "always"}, True, True),
    ],
    ids=["same", "other keys", "other trust", "fewer streams", "less data", "off", "young register", "retry"],
)
def test_a_ticket_at_another_server(
    start_ours: Callable[..., Peer],
    certificates: Authority,
    counters: Counters,
    dial: Dial,
    ticket_of: TicketOf,
    change: dict[str, Any],
    resumed: bool,
    accepted: bool,
) -> None:
    """As a restarted server, or another one of the same service, would see it. The request is answered once
    in any case."""
    mine = certificates.issue("client")
    options = {"early_data": True, "fresh_register": True}
    ticket = ticket_of(start_ours(**options), cert=mine.pair)
    if "ca_certs" in change:
        change = {"ca_certs": certificates.ca_certs}
    other = start_ours(**{**options, **change})
    with dial(other, ticket, cert=mine.pair) as connection:
        assert connection.in_early_data
        response = connection.get("/hit/once")
        assert (response.status_code, response.headers["x-peer"]) == (200, other.version)
        connection.wait_established()
        assert (connection.is_resumed, connection.early_data) == (resumed, accepted)
    with quicgreen.Session(
        verify=certificates.ca_certs, cert=mine.pair, tickets=False, timeout=20.0
    ) as asking:
        told = asking.get(other.url("/counters")).json()
    assert told["hits"]["once"]["runs"] == 1
    assert told["engine"]["handshakes_resumed"] == resumed
    assert told["engine"]["early_data_accepted"] == accepted


def test_a_ticket_under_another_name(
    ours_early: Peer, counters: Counters, dial: Dial, ticket_of: TicketOf
) -> None:
    ticket = ticket_of(ours_early, server_name="localhost")
    # Our own client does not offer it: this one lets it pass for a ticket of that name.
    own = ticket_of(ours_early, server_name="a.localhost", verify=False)
    ticket = dataclasses.replace(own, data=own.data[:16] + ticket.data[16:])
    before = counters(ours_early)
    with dial(ours_early, ticket, server_name="a.localhost", verify=False) as connection:
        assert connection.get("/hit/name").content == b"hit"
        assert (connection.is_resumed, connection.early_data) == (False, False)
    after = counters(ours_early)
    assert after["hits"]["name"] == ONCE
    assert more(after, before)["handshakes_resumed"] == 0


# ---------------------------------------------------------------- a bad network, and replays


def test_early_data_on_a_lossy_link(
    ours_early: Peer, counters: Counters, dial: Dial, ticket_of: TicketOf
) -> None:
    """Whatever is lost, each request runs once."""
    tickets = [ticket_of(ours_early) for _ in range(16)]

    def once(i: int) -> bool:
        with dial(link, tickets[i], timeout=40.0) as connection:
            method = "POST" if i % 4 == 0 else "GET"
            response = connection.request(method, f"/hit/lossy-{i}", early_data=True, timeout=40.0)
            assert response.headers["x-peer"] == ours_early.version
            return bool(connection.early_data)

    with Link(ours_early.address, seed=4, loss=0.2, delay_ms=2) as link:
        jobs = [gevent.spawn(once, i) for i in range(len(tickets))]
        early = [job.get(timeout=50) for job in jobs]
        assert link.counters().to_server.dropped > 10
    assert sum(early) > 0
    told = counters(ours_early)
    assert [told["hits"][f"lossy-{i}"]["runs"] for i in range(len(tickets))] == [1] * len(tickets)
    assert all(told["hits"][f"lossy-{i}"]["before_handshake"] == 0 for i in range(0, len(tickets), 4))


@pytest.mark.parametrize("loss", [0, 0.2])
def test_many_requests_in_refused_early_data(
    start_ours: Callable[..., Peer], counters: Counters, dial: Dial, ticket_of: TicketOf, loss: float
) -> None:
    """More than the server allows streams, with bodies, and in more packets than leave at once: all are sent
    again, and run once."""
    ticket = ticket_of(start_ours(early_data=True, fresh_register=True))
    other = start_ours(early_data=True, **OTHER_SECRET)
    body = bytes(5000)

    def once(i: int) -> bytes:
        if i % 5:
            return bytes(connection.get(f"/hit/{i}", timeout=40.0).content)
        return bytes(connection.post(f"/hit/{i}", data=body, early_data=True, timeout=40.0).content)

    count = 150 if not loss else 30
    with (
        Link(other.address, seed=2, loss=loss, delay_ms=2) as link,
        dial(link, ticket, timeout=40.0) as connection,
    ):
        jobs = [gevent.spawn(once, i) for i in range(count)]
        answers = [job.get(timeout=50) for job in jobs]
        assert (connection.is_resumed, connection.early_data) == (False, False)
        assert link.counters().to_server.dropped > 0 or not loss
    assert answers == [b"hit" if i % 5 else body for i in range(count)]
    told = counters(other)
    assert told["hits"] == {str(i): ONCE for i in range(count)}


REPLAYS = 1000


def test_a_recorded_flight_sent_a_thousand_times(
    start_ours: Callable[..., Peer], certificates: Authority, dial: Dial, ticket_of: TicketOf
) -> None:
    """An attacker keeps a first flight from the server, and then sends it himself, again and again: a GET
    and a POST in early data. The server must give up connections quickly: while one lives, all packets of the
    flight go to it."""
    options = {"early_data": True, "fresh_register": True}
    flight = record_flight(start_ours(**options), dial, ticket_of)
    peer = start_ours(**options, config={"handshake_timeout_ms": 5})
    told = ask_patiently(peer, certificates)
    while (taken := told["replay"]["first"] + told["replay"]["repeated"]) < REPLAYS:
        replay(peer, flight, REPLAYS - taken)
        told = ask_patiently(peer, certificates)
    # The connection may be gone when the handler asks for its state.
    assert told["hits"] == {"get": {**ONCE_EARLY, "before_handshake": ANY}}
    assert told["replay"] == {"first": 1, "repeated": taken - 1, "full": 0, "quiet": 0}
    assert told["engine"]["early_requests"] == 1
    assert told["engine"]["early_requests_held"] == 1
    assert told["engine"]["handshakes_resumed"] == told["engine"]["early_data_accepted"] == 0


def record_flight(peer: Peer, dial: Dial, ticket_of: TicketOf) -> list[bytes]:
    """A client's first flight, of which the server sees nothing."""

    def send(method: str, path: str) -> None:
        with contextlib.suppress(quicgreen.QuicException):
            connection.request(method, path, early_data=True)

    with Link(peer.address, record=100) as link:
        ticket = ticket_of(peer)
        link.blackhole()
        connection = dial(link, ticket)
        jobs = [gevent.spawn(send, "GET", "/hit/get"), gevent.spawn(send, "POST", "/hit/post")]
        assert wait_until(lambda: sum(p.data[0] & 0xF0 == 0xD0 for p in link.packets()) >= 2)
        flight = [p.data for p in link.packets()]
        connection.close(0, timeout=None)
        gevent.joinall(jobs)
    return flight


def replay(peer: Peer, flight: list[bytes], times: int) -> None:
    """Send it until the server has begun so many connections for it: each answers under an id of its own."""
    ids: set[bytes] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s, gevent.Timeout(50):
        s.connect(peer.address)
        s.settimeout(0.005)
        while len(ids) < times:
            for packet in flight:
                s.send(packet)
            known = len(ids)
            with contextlib.suppress(TimeoutError):
                while len(ids) == known:
                    answer = s.recv(65535)
                    ids.add(answer[7 + answer[5] :][: answer[6 + answer[5]]])


def ask_patiently(peer: Peer, certificates: Authority) -> dict[str, Any]:
    """Our own handshake may be too slow for it."""
    for _ in range(50):
        with (
            contextlib.suppress(quicgreen.QuicException),
            quicgreen.Session(verify=certificates.ca_certs, tickets=False, timeout=1.0) as asking,
        ):
            told: dict[str, Any] = asking.get(peer.url("/counters")).json()
            return told
    raise AssertionError("it never answers")
