"""What several workers promise together, in seconds. `make soak` runs the same for minutes (tests/soak)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from helpers.commands import START_S
from helpers.flights import ran, record_flights, replay
from helpers.forking import FORKING
from helpers.load import Load, explained, repeated, resume_elsewhere
from helpers.supervised import connection_to, supervised
from support import check_python, wait_until

import quicgreen
from quicgreen.testing import Link

pytestmark = pytest.mark.filterwarnings("ignore::quicgreen.QuicWarningConnectionSlow")

EARLY = ("--early-data", "--certfile", "both.pem")


def closed_of(connection: quicgreen.Connection) -> Callable[[], bool]:
    return lambda: connection.closed


def test_any_worker_resumes_any_client_with_early_data(files: Path) -> None:
    """Also while keys rotate, and after a reload and a crash."""
    with supervised(files, "-w", "3", *EARLY, "--ticket-key-rotate", "2") as server:
        before = resume_elsewhere(server, 40)
        server.reload()
        reloaded = resume_elsewhere(server, 20, before.tickets)
        os.kill(server.workers()[0]["pid"], signal.SIGKILL)
        assert wait_until(lambda: len(server.workers()) == 3, START_S)
        crashed = resume_elsewhere(server, 20, reloaded.tickets)
    for found, count in ((before, 40), (reloaded, 20), (crashed, 20)):
        assert (found.resumed, found.early) == (count, count), found
        assert found.requests_early > count // 2, found
        assert found.elsewhere > count // 3, found  # by chance two thirds of them


def test_a_first_flight_that_is_sent_again_runs_once(files: Path) -> None:
    """To whichever worker, also right after a reload and a crash."""
    (files / "c.toml").write_text("[quicgreen.transport]\nhandshake_timeout_ms = 20\n")
    with supervised(files, "-w", "3", "-c", "c.toml", *EARLY) as server:
        flights = record_flights(server, 5)
        replay(server, flights, 40)
        server.reload()
        replay(server, flights, 40)
        os.kill(server.workers()[0]["pid"], signal.SIGKILL)
        replay(server, flights, 40)
        assert wait_until(lambda: len(ran(server)) >= 5, START_S)
        gevent.sleep(0.2)
        assert sorted(ran(server)) == [str(i) for i in range(5)]
        register = server.ask()["early_data"]
        assert register["repeated"] > 20, register


@pytest.mark.parametrize("steering", ["auto", "handover"])
def test_a_reload_loses_nothing(files: Path, steering: str) -> None:
    with supervised(files, "-w", "2", "--steering", steering) as server:
        load = Load(server, 20)
        for _ in range(3):
            gevent.sleep(0.5)
            server.reload()
        gevent.sleep(0.5)
        load.stop()
    assert load.lost == [], explained(load)
    assert load.answered > 500
    assert len(load.workers) >= 6, explained(load)


def test_streams_and_sockets_go_on_through_a_reload(files: Path) -> None:
    app = """
import gevent, os
def handle(request):
    if request.is_websocket:
        with request.accept_websocket() as ws:
            for message in ws:
                ws.send(message)
        return
    stream = request.start_response(200, {"x-pid": str(os.getpid())})
    for i in range(60):
        stream.write(b"%d\\n" % i)
        gevent.sleep(0.05)
    stream.finish()
"""
    with supervised(files, "-w", "2", "--websocket", app=app) as server:
        before = server.pids()

        def stream() -> list[bytes]:
            with quicgreen.Session(verify=False) as session:
                response = session.get(server.url(), timeout=START_S, stream=True)
                assert int(response.headers["x-pid"]) in before
                return b"".join(response.iter_bytes()).split()

        def talk() -> list[str]:
            url = server.url().replace("https", "wss")
            with quicgreen.websocket.connect(url, verify=False) as ws:
                found = []
                for i in range(30):
                    ws.send(str(i))
                    found.append(ws.recv(timeout=START_S))
                    gevent.sleep(0.1)
                return found

        streams = [gevent.spawn(stream) for _ in range(10)]
        talks = [gevent.spawn(talk) for _ in range(10)]
        gevent.sleep(0.7)
        server.reload()
        assert all(g.get(timeout=START_S) == [b"%d" % i for i in range(60)] for g in streams)
        assert all(g.get(timeout=START_S) == [str(i) for i in range(30)] for g in talks)
        assert wait_until(lambda: not before & server.pids(), START_S)
        assert "is killed" not in server.log


def test_a_crash_is_known_at_once_and_harms_no_other_worker(files: Path) -> None:
    with supervised(files, "-w", "3") as server:
        load = Load(server, 12, posts="posts", rate=600)
        for _ in range(3):
            gevent.sleep(0.3)
            victim = random.choice(server.workers())["pid"]
            other = next(w["pid"] for w in server.workers() if w["pid"] != victim)
            idle, mine = connection_to(server, victim), connection_to(server, other)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            assert wait_until(closed_of(idle), START_S)
            assert time.monotonic() - killed < 2, "an idle client waited for its own timeout"
            assert idle.closing_error().cause == "lost"
            assert mine.get("/").headers["x-pid"] == str(other)
            mine.close()
            assert wait_until(lambda: len(server.workers()) == 3, START_S)
        load.stop()
        assert all("POST: QuicConnectionException" in text for text in load.lost), load.lost
        assert load.answered > 50 * max(1, len(load.lost)), explained(load)
        assert repeated(server, "posts") == {}


def test_all_clients_of_the_dead_are_told_also_those_that_share_a_socket(files: Path) -> None:
    with supervised(files, "-w", "1") as server:
        connections = [
            quicgreen.connect("127.0.0.1", server.port, verify=False, timeout=START_S) for _ in range(60)
        ]
        os.kill(int(connections[0].get("/").headers["x-pid"]), signal.SIGKILL)
        killed = time.monotonic()
        assert wait_until(lambda: all(c.closed for c in connections), START_S)
        assert time.monotonic() - killed < 5
        assert {c.closing_error().cause for c in connections} == {"lost"}


def test_a_connection_stays_with_its_worker_when_its_address_changes(files: Path) -> None:
    with supervised(files, "-w", "4") as server, Link(("127.0.0.1", server.port), seed=1) as link:
        connections = [
            quicgreen.connect("127.0.0.1", link.port, verify=False, timeout=START_S) for _ in range(8)
        ]
        served = [c.get("/").headers["x-pid"] for c in connections]
        for _ in range(16):  # more than quiche's 3 by itself: config.c
            link.rebind()
            gevent.sleep(0.05)
            assert [c.get("/", timeout=START_S).headers["x-pid"] for c in connections] == served
        counters = [w["counters"] for w in server.workers()]
        assert sum(c["resets_sent"] for c in counters) == 0
        for connection in connections:
            connection.close()


@pytest.mark.timeout(120)
def test_forks_of_a_program_that_uses_the_network() -> None:
    """With a live hub, threads that look up names, and open connections: none hangs, and no two make the same
    random numbers."""
    check_python(FORKING, "100", timeout=110)
