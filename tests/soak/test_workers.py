"""What tests/test_workers.py shows in seconds, for as long as it takes to believe it: `make soak`.

Each test prints what it saw. Times are of the machine it runs on, which is to have nothing else to do.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers.commands import START_S
from helpers.flights import ran, record_flights, replay
from helpers.forking import FORKING
from helpers.load import Load, capacity, explained, repeated, resume_elsewhere
from helpers.supervised import Supervised, alive, connection_to, supervised
from support import check_python, wait_until

import quicgreen
from quicgreen.testing import Link

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::quicgreen.QuicWarningConnectionSlow"),
]

EARLY = ("--early-data", "--certfile", "both.pem")


@pytest.fixture
def say(capsys: Any) -> Any:
    """Print past pytest."""

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"\n    {text}", flush=True)

    return say


def test_2000_resumptions_on_other_workers(files: Path, say: Any) -> None:
    """Keys rotate every 10 s; a reload in the middle."""
    with supervised(files, "-w", "4", *EARLY, "--ticket-key-rotate", "10") as server:
        found = resume_elsewhere(server, 1)
        began = time.monotonic()
        total = Counter[str]()
        half = False
        while total["elsewhere"] < 2000 or time.monotonic() < began + 30:
            if not half and total["elsewhere"] >= 1000:
                half = True
                server.signal(signal.SIGHUP)
            found = resume_elsewhere(server, 50, found.tickets, pause_s=0.005)
            for name in ("count", "resumed", "early", "requests_early", "elsewhere"):
                total[name] += getattr(found, name)
        seconds = time.monotonic() - began
        assert server.ask()["generation"] == 1
    say(f"{dict(total)} in {seconds:.0f} s: {int(seconds / 10)} rotations")
    assert total["resumed"] >= 0.999 * total["count"]
    assert total["early"] >= 0.99 * total["count"]


@pytest.mark.parametrize("retry", ["never", "auto", "always"])
def test_100_early_flights_replayed_1000_times(files: Path, say: Any, retry: str) -> None:
    # Given up quickly: while a connection lives, all that is sent again goes to it.
    (files / "c.toml").write_text("[quicgreen.transport]\nhandshake_timeout_ms = 20\n")
    with supervised(files, "-w", "4", "-c", "c.toml", *EARLY, "--retry", retry) as server:
        flights = record_flights(server, 100)
        sent = 0
        for count, between in ((400, "reload"), (300, "kill"), (300, "")):
            sent += replay(server, flights, count)
            if between == "reload":
                server.reload()
            elif between == "kill":
                os.kill(random.choice(server.workers())["pid"], signal.SIGKILL)
        gevent.sleep(1)
        runs = Counter(ran(server))
        register = server.ask()["early_data"]
    say(f"retry {retry}: {sent} replays, {len(runs)} requests ran, of these twice: "
        f"{sum(n > 1 for n in runs.values())}; the register: {register}")  # fmt: skip
    if retry == "always":  # who has no token for its address gets no further
        assert not runs
        return
    assert set(runs.values()) == {1}
    assert len(runs) == 100
    assert register["first"] >= 100
    assert register["repeated"] > 1000


def test_200_clients_and_50_reloads(files: Path, say: Any) -> None:
    with supervised(files, "-w", "4") as server:
        load = Load(server, 200)
        for _ in range(50):
            gevent.sleep(2)
            server.signal(signal.SIGHUP)
        gevent.sleep(2)
        load.stop()
        generation = server.ask()["generation"]
    say(explained(load, generation=generation))
    assert load.lost == []
    assert load.answered >= 200_000
    assert generation >= 40  # one that comes while another is under way is done once


def test_a_reload_at_half_the_capacity(files: Path, say: Any) -> None:
    """p99 is at most 3 times the steady one, or 50 ms."""
    with supervised(files, "-w", "2") as server:
        most = capacity(server, 50)
        load = Load(server, 50, rate=most / 2)
        gevent.sleep(10)
        began = time.monotonic()
        for _ in range(10):
            server.signal(signal.SIGHUP)
            gevent.sleep(2)
        load.stop()
    steady, reloading = load.percentile(0.99, until=began), load.percentile(0.99, since=began)
    say(f"capacity {most:,.0f}/s; at half of it p99 {steady * 1e3:.1f} ms, reloading "
        f"{reloading * 1e3:.1f} ms; {explained(load)}")  # fmt: skip
    assert load.lost == []
    assert reloading <= max(3 * steady, 0.05)


def test_50_crashes(files: Path, say: Any) -> None:
    """Idle clients of the dead worker know within 100 ms, and one round trip later are on another one."""
    with supervised(files, "-w", "4") as server:
        load = Load(server, 40, posts="posts", rate=1000)
        known, back = [], []
        for _ in range(50):
            gevent.sleep(0.5)
            victim = random.choice(server.workers())["pid"]
            other = next(w["pid"] for w in server.workers() if w["pid"] != victim)
            idle, mine = connection_to(server, victim), connection_to(server, other)
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            assert wait_until(lambda c=idle: c.closed, START_S)
            known.append(time.monotonic() - killed)
            assert server.get().status_code == 200
            assert mine.get("/").headers["x-pid"] == str(other)
            mine.close()
            assert wait_until(lambda: len(server.workers()) == 4, START_S)
            back.append(time.monotonic() - killed)
        load.stop()
        twice = repeated(server, "posts")
    known.sort()
    back.sort()
    say(f"idle clients knew after {known[25] * 1e3:.1f} ms (p50), {known[-1] * 1e3:.1f} (most); replaced "
        f"after {back[25] * 1e3:.0f} ms (p50), {back[-1] * 1e3:.0f} (most); "
        f"{explained(load)}, twice {len(twice)}")  # fmt: skip
    assert known[-2] <= 0.1
    assert back[-1] <= 0.5
    assert twice == {}
    assert all("POST: QuicConnectionException" in text for text in load.lost), load.lost


def test_100_streams_and_100_sockets_through_reloads(files: Path, say: Any) -> None:
    app = """
import gevent
def handle(request):
    if request.is_websocket:
        with request.accept_websocket() as ws:
            for message in ws:
                ws.send(message)
        return
    stream = request.start_response(200)
    for i in range(400):
        stream.write(b"%d\\n" % i)
        gevent.sleep(0.05)
    stream.finish()
"""
    with supervised(files, "-w", "4", "--websocket", "--graceful-timeout", "60", app=app) as server:

        def stream() -> bool:
            with quicgreen.Session(verify=False) as session:
                response = session.get(server.url(), timeout=60, stream=True)
                return b"".join(response.iter_bytes()).split() == [b"%d" % i for i in range(400)]

        def talk() -> bool:
            with quicgreen.websocket.connect(server.url().replace("https", "wss"), verify=False) as ws:
                for i in range(200):
                    ws.send(str(i))
                    if ws.recv(timeout=60) != str(i):
                        return False
                    gevent.sleep(0.1)
                return True

        jobs = [gevent.spawn(f) for f in (stream, talk) for _ in range(100)]
        for _ in range(4):
            gevent.sleep(3)
            server.signal(signal.SIGHUP)
        gevent.joinall(jobs, timeout=120)
        log = server.log
    right = sum(g.value is True for g in jobs)
    say(f"{right} of 200 were whole, through {log.count('reloaded: generation')} reloads")
    assert right == 200


@pytest.mark.parametrize("steering", ["auto", "handover"])
def test_addresses_that_change(files: Path, say: Any, steering: str) -> None:
    """20 clients behind a NAT that forgets them every second, 60 times."""
    with (
        supervised(files, "-w", "4", "--steering", steering) as server,
        Link(("127.0.0.1", server.port)) as link,
    ):
        connections = [quicgreen.connect("127.0.0.1", link.port, verify=False) for _ in range(20)]
        served = [c.get("/", timeout=START_S).headers["x-pid"] for c in connections]
        changes = 0
        for _ in range(60):
            link.rebind()
            changes += len(connections)
            for _ in range(3):
                assert [c.get("/", timeout=START_S).headers["x-pid"] for c in connections] == served
                gevent.sleep(0.33)
        totals = Counter[str]()
        for w in server.workers():
            totals.update(w["counters"])
        for c in connections:
            c.close()
    say(f"{steering}: {changes} changes of address, no connection lost; handed over {totals['handed_over']}, "
        f"lost on the way {totals['handed_over_lost']}, resets {totals['resets_sent']}")  # fmt: skip
    assert totals["resets_sent"] == 0


def _cpu_s(server: Supervised) -> float:
    ticks = 0
    for pid in server.pids():
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_two_workers_cost_no_more_than_one(files: Path, say: Any) -> None:
    """The client and the workers share the cores, so it is the CPU of a request that is compared: of a lone
    server, and of two workers with twice its clients and twice its rate."""
    costs = {}
    for workers in (1, 2) * 3:
        with supervised(files, "-w", str(workers)) as server:
            load = Load(server, 25 * workers, rate=4000 * workers)
            gevent.sleep(1)
            before, cpu = load.answered, _cpu_s(server)
            gevent.sleep(8)
            cost = (_cpu_s(server) - cpu) / (load.answered - before)
            rate = (load.answered - before) / 8
            load.stop()
        costs[workers] = min(cost, costs.get(workers, 1.0))
        say(f"{workers} workers: {rate:,.0f} requests/s, {cost * 1e6:.2f} us CPU each")
    assert costs[2] <= 1.1 * costs[1]


def test_1000_forks(say: Any) -> None:
    began = time.monotonic()
    check_python(FORKING, "1000", timeout=800)
    say(f"1000 forks in {time.monotonic() - began:.0f} s")


def test_20_deaths_of_the_supervisor(files: Path, say: Any) -> None:
    slowest = 0.0
    for _ in range(20):
        with supervised(files, "-w", "4") as server:
            pids = server.pids()
            server.process.kill()
            server.process.wait()
            began = time.monotonic()
            assert wait_until(lambda p=pids: not any(map(alive, p)), START_S)
            slowest = max(slowest, time.monotonic() - began)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.bind(("127.0.0.1", server.port))  # the port is free
    say(f"the last worker was gone after {slowest * 1e3:.0f} ms at most")
    assert slowest <= 2
