"""Workers of one group behind one port: whichever of them a client comes to, its session goes on, and its
packets come to where its connection is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from helpers.processes import Workers
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Certificate, Link
from quicgreen.tickets import MemoryTicketStore

Start = Callable[..., Workers]


@pytest.fixture
def start(certificate: Certificate) -> Iterator[Start]:
    started = []

    def start(slots: int = 4, **options: Any) -> Workers:
        options = {"cert": certificate.certfile, "key": certificate.keyfile, **options}
        started.append(Workers(slots=slots, **options))
        return started[-1]

    yield start
    for workers in started:
        workers.stop()


def visit(
    workers: Workers, certificates: Authority, tickets: Any, path: str = "/worker"
) -> tuple[int, bool | None]:
    """A connection of its own for one request. The worker that answered, and what became of early data."""
    with quicgreen.Session(verify=certificates.ca_certs, tickets=tickets, timeout=20.0) as session:
        response = session.get(workers.url(path))
        assert response.status_code == 200
        response.connection.wait_established()
        assert response.connection.is_resumed == (response.connection.early_data is not None)
        return int(response.headers["x-worker"]), response.connection.early_data


def total(workers: Workers, name: str) -> int:
    """A counter, over all workers."""
    return sum(counters[name] for counters in workers.do("info")["counters"])


@pytest.mark.parametrize("retry", ["never", "auto", "always"])
def test_a_session_is_taken_up_by_any_worker(start: Start, certificates: Authority, retry: str) -> None:
    workers, tickets = start(retry=retry), MemoryTicketStore()
    visits = [visit(workers, certificates, tickets, f"/hit/{i}") for i in range(40)]
    assert visits[0][1] is None
    assert [early for _, early in visits[1:]] == [True] * 39
    told = workers.do("info")
    assert len({slot for slot, _ in visits}) == 4
    assert sorted(told["ran"], key=int) == [str(i) for i in range(40)]
    assert [c["requests_received"] for c in told["counters"]] == [
        sum(slot == s for slot, _ in visits) for s in range(4)
    ]
    assert wait_until(lambda: total(workers, "handshakes_resumed") == 39)
    assert told["replay"] == {"first": 39, "repeated": 0, "full": 0, "quiet": 0}
    assert total(workers, "unknown_connection_ids") == 0


def test_keys_turn_while_workers_change(start: Start, certificates: Authority) -> None:
    """A ticket of a key that is no longer current is taken by a worker that began after it."""
    workers, tickets = start(2, period_s=1), MemoryTicketStore()
    assert visit(workers, certificates, tickets)[1] is None
    for slot in (0, 1, 0):
        workers.do("kill", slot=slot)
        workers.do("reset", slot=slot)
        workers.do("spawn", slot=slot)
        workers.do("steer")
        time.sleep(1.1)
        assert visit(workers, certificates, tickets)[1] is True


# ---------------------------------------------------------------- replays

REPLAYS = 200


def record_flight(workers: Workers, certificates: Authority) -> list[bytes]:
    """A client's first flight with a GET in it, of which the servers see nothing."""
    trust = certificates.ca_certs
    with Link((workers.host, workers.port), record=100) as link:
        connection = quicgreen.connect("127.0.0.1", workers.port, verify=trust)
        connection.get("/worker")
        ticket = connection.export_ticket(timeout=5.0)
        connection.close()
        link.blackhole()
        early = quicgreen.connect("127.0.0.1", link.port, verify=trust, ticket=ticket, early_data=True)
        job = gevent.spawn(early.get, "/hit/replayed")
        # One with what HTTP/3 begins with, and one with the request.
        assert wait_until(lambda: sum(p.data[0] & 0xF0 == 0xD0 for p in link.packets()) >= 2)
        flight = [p.data for p in link.packets()]
        job.kill()
        early.close(0, timeout=None)
    return flight


@pytest.mark.parametrize("retry", ["never", "always"])
def test_a_recorded_flight_runs_once_whoever_gets_it(
    start: Start, certificates: Authority, retry: str
) -> None:
    """It is sent again and again, from other ports, so that it comes to each worker; also to those that began
    after it was taken."""
    workers = start(steer=False, retry=retry, config={"handshake_timeout_ms": 50})
    flight = record_flight(workers, certificates)
    counter = "retries_sent" if retry == "always" else "connections_accepted"
    for i in itertools.count():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            for packet in flight:
                s.sendto(packet, (workers.host, workers.port))
            gevent.sleep(0.002)
        if i in (100, 200):
            workers.do("kill", slot=i // 100)
            workers.do("spawn", slot=i // 100)
        # While a connection lives all packets of its flight go to it, so many replays are none.
        if i > 300 and i % 50 == 0 and total(workers, counter) > REPLAYS:
            break
    told = workers.do("info")
    assert all(c[counter] > 10 for c in told["counters"])
    if retry == "always":  # a stranger's flight has no token, and nobody looks into it
        assert told["ran"] == []
        assert sum(told["replay"].values()) == 0
    else:
        assert told["ran"] == ["replayed"]
        assert told["replay"]["first"] == 1
        assert told["replay"]["repeated"] > REPLAYS / 2


# ---------------------------------------------------------------- who dies


def clients_of(
    workers: Workers, certificates: Authority, count: int
) -> list[tuple[int, quicgreen.Connection]]:
    """Connections, and the worker that each is served by."""
    clients = []
    for _ in range(count):
        connection = quicgreen.connect("127.0.0.1", workers.port, verify=certificates.ca_certs, timeout=20.0)
        clients.append((int(connection.get("/worker").headers["x-worker"]), connection))
    return clients


def close(clients: list[tuple[int, quicgreen.Connection]]) -> None:
    for _, connection in clients:
        connection.close(timeout=None)


@pytest.mark.parametrize("retry", ["never", "always"])
def test_clients_of_a_dead_worker_are_told_and_the_others_go_on(
    start: Start, certificates: Authority, retry: str
) -> None:
    workers = start(retry=retry)
    clients = clients_of(workers, certificates, 24)
    victim = clients[0][0]
    theirs = [connection for slot, connection in clients if slot == victim]
    assert workers.do("info")["listed"][victim] == len(theirs)
    workers.do("kill", slot=victim)
    workers.do("steer")
    began = time.monotonic()
    assert len(theirs) <= workers.do("reset", slot=victim) <= 3 * len(theirs)
    assert wait_until(lambda: all(c.closed for c in theirs))
    took = time.monotonic() - began
    assert took < 2  # an idle timeout is 30 s
    for connection in theirs:
        assert isinstance(connection.closing_error(), quicgreen.QuicConnectionException)
        assert "no longer knows" in str(connection.closing_error())
    for slot, connection in clients:
        if slot != victim:
            assert connection.get("/worker").headers["x-worker"] == str(slot)
    others = clients_of(workers, certificates, 8)
    assert victim not in {slot for slot, _ in others}
    workers.do("spawn", slot=victim)
    workers.do("steer")
    assert workers.do("info")["states"] == ["accepting"] * 4
    more = clients_of(workers, certificates, 24)
    assert victim in {slot for slot, _ in more}
    close([*clients, *others, *more])


def test_a_client_that_was_not_told_is_answered(start: Start, certificates: Authority) -> None:
    """By whichever worker its next packet comes to."""
    workers = start()
    clients = clients_of(workers, certificates, 8)
    victim = clients[0][0]
    workers.do("kill", slot=victim)
    workers.do("steer")
    for slot, connection in clients:
        if slot == victim:
            with pytest.raises(quicgreen.QuicConnectionException, match="no longer knows"):
                connection.get("/worker", timeout=10.0)
        else:
            assert connection.get("/worker").headers["x-worker"] == str(slot)
    close(clients)


# ---------------------------------------------------------------- packets that come to the wrong worker


def roam(workers: Workers, certificates: Authority, body: bytes, clients: int = 6) -> None:
    """Clients whose address changes, three times each."""
    with Link((workers.host, workers.port)) as link:
        for _ in range(clients):
            with quicgreen.connect(
                "127.0.0.1", link.port, verify=certificates.ca_certs, timeout=20.0
            ) as connection:
                first = connection.get("/worker").headers["x-worker"]
                for _ in range(3):
                    link.rebind()
                    response = connection.post("/worker", body)
                    assert (response.headers["x-worker"], response.content) == (first, body)


def test_without_steering_packets_are_handed_over(start: Start, certificates: Authority) -> None:
    """The kernel goes by addresses, so a client's packets come to another worker each time."""
    workers = start(steer=False)
    roam(workers, certificates, bytes(range(256)) * 1200)
    handed_over = total(workers, "handed_over")
    assert handed_over > 6 * 200
    assert wait_until(lambda: total(workers, "handed_in") == handed_over)
    assert total(workers, "resets_sent") == 0


def test_with_steering_nothing_needs_to_be(start: Start, certificates: Authority) -> None:
    workers = start()
    roam(workers, certificates, bytes(100_000))
    assert total(workers, "handed_over") == total(workers, "unknown_connection_ids") == 0


# ---------------------------------------------------------------- leaving


@pytest.mark.parametrize("steer", [True, False])
@pytest.mark.parametrize("retry", ["never", "always"])
def test_a_worker_leaves_and_nobody_notices(
    start: Start, certificates: Authority, steer: bool, retry: str
) -> None:
    """Requests under way end well, new connections come to the others, and those that are there learn that
    they should go elsewhere."""
    workers = start(steer=steer, retry=retry)
    clients = clients_of(workers, certificates, 24)
    leaving = clients[0][0]
    theirs = [connection for slot, connection in clients if slot == leaving]
    slow = [gevent.spawn(connection.get, "/slow/1000") for _, connection in clients]
    gevent.sleep(0.2)
    workers.do("drain", slot=leaving)
    others = clients_of(workers, certificates, 30)
    assert leaving not in {slot for slot, _ in others[10:]}  # it may take a moment to hear of it
    for (slot, _), greenlet in zip(clients, slow, strict=True):
        response = greenlet.get(timeout=20)
        assert (response.status_code, response.headers["x-worker"]) == (200, str(slot))
    assert workers.do("wait", slot=leaving) == 0
    assert wait_until(lambda: all(connection.closed for connection in theirs))
    told = workers.do("info")
    assert told["states"].count("free") == 1
    assert told["listed"][leaving] == 0
    assert sum(c["connections_refused"] for c in told["counters"]) == 0
    close([*clients, *others])


# ---------------------------------------------------------------- a program's own loop that forks


@pytest.fixture(params=["inherited", "in a file"])
def alone(request: pytest.FixtureRequest, start: Start, segment_path: str) -> Start:
    """Children that a program forks by itself; each makes a server on the same port."""
    options = {"path": segment_path} if request.param == "in a file" else {}
    return lambda **more: start(alone=True, **options, **more)


def test_servers_that_nobody_supervises(alone: Start, certificates: Authority) -> None:
    workers, tickets = alone(), MemoryTicketStore()
    visits = [visit(workers, certificates, tickets, f"/hit/{i}") for i in range(40)]
    assert [early for _, early in visits[1:]] == [True] * 39
    told = workers.do("info")
    assert len({slot for slot, _ in visits}) > 1  # the kernel goes by addresses, and we have 16 of them
    assert told["states"] == ["accepting"] * 4
    assert sorted(told["ran"], key=int) == [str(i) for i in range(40)]
    assert told["replay"] == {"first": 39, "repeated": 0, "full": 0, "quiet": 0}
    roam(workers, certificates, bytes(range(256)) * 1200)
    assert total(workers, "handed_over") > 200
    assert total(workers, "resets_sent") == 0


def test_the_clients_of_one_that_died_are_told_by_the_others(alone: Start, certificates: Authority) -> None:
    """As soon as a packet for it comes to another one; the others of its clients, who sleep, too."""
    workers = alone()
    clients = clients_of(workers, certificates, 24)
    victim = clients[0][0]
    theirs = [connection for slot, connection in clients if slot == victim]
    workers.do("kill", slot=victim)
    with pytest.raises(quicgreen.QuicConnectionException, match="no longer knows"):
        theirs[0].get("/worker", timeout=10.0)
    assert wait_until(lambda: all(c.closed for c in theirs))
    for slot, connection in clients:
        if slot != victim:
            assert connection.get("/worker").headers["x-worker"] == str(slot)
    others = clients_of(workers, certificates, 8)
    workers.do("spawn", slot=victim)  # which takes the dead one's place
    assert sorted(workers.do("info")["states"]) == ["accepting"] * 4
    close([*clients, *others])


def test_one_that_comes_tells_the_clients_of_one_that_died(alone: Start, certificates: Authority) -> None:
    workers = alone()
    clients = clients_of(workers, certificates, 12)
    victim = clients[0][0]
    workers.do("kill", slot=victim)
    workers.do("spawn", slot=victim)
    assert wait_until(lambda: all(c.closed for slot, c in clients if slot == victim))
    assert all(not c.closed for slot, c in clients if slot != victim)
    close(clients)


def test_one_leaves_and_nobody_notices(alone: Start, certificates: Authority) -> None:
    workers = alone()
    clients = clients_of(workers, certificates, 16)
    leaving = clients[0][0]
    slow = [gevent.spawn(connection.get, "/slow/1000") for _, connection in clients]
    gevent.sleep(0.2)
    workers.do("drain", slot=leaving)
    gevent.sleep(0.1)
    others = clients_of(workers, certificates, 30)
    assert leaving not in {slot for slot, _ in others[10:]}  # it may take a moment to hear of it
    for (slot, _), greenlet in zip(clients, slow, strict=True):
        response = greenlet.get(timeout=20)
        assert (response.status_code, response.headers["x-worker"]) == (200, str(slot))
    assert workers.do("wait", slot=leaving) == 0
    close([*clients, *others])
