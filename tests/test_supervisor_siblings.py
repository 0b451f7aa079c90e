"""Processes that a program forks in a loop of its own, and that share a port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import START_S
from support import check_python

import quicgreen
from quicgreen import QuicServerException
from quicgreen.supervisor.siblings import Siblings

FORKS = """
import os, sys, signal, time
import gevent
from quicgreen import Server, ServerTls
from quicgreen.supervisor.siblings import Siblings

port, count, cert, key = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
siblings = Siblings(slots=8, connections=64, early_data_capacity=1000)

def serve():
    def handle(request):
        request.respond(200, {"x-pid": str(os.getpid()), "x-early": str(request.early_data)})
    tls = ServerTls(certfile=cert, keyfile=key)
    server = Server(siblings.join("127.0.0.1", port), handle, tls=tls, early_data=True)
    server.start()
    os.write(1, b"%d\\n" % os.getpid())
    gevent.signal_handler(signal.SIGTERM, server.close)
    server.serve_forever()
    siblings.leave()
    counters = siblings.group.counters(siblings._slot)
    os.write(1, b"end %d %d\\n" % (counters["handed_over"], counters["handed_in"]))

pids = []
for i in range(count):
    pid = os.fork()
    if pid == 0:
        serve()
        os._exit(0)
    pids.append(pid)
signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in pids])
for pid in pids:
    os.waitpid(pid, 0)
"""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@pytest.fixture
def forks(files: Path) -> Iterator[tuple[Any, int, set[str]]]:
    """Three of them, started."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS, str(port), "3", str(files / "cert.pem"), str(files / "key.pem")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pids = {process.stdout.readline().strip() for _ in range(3)}
    yield process, port, pids
    process.send_signal(signal.SIGTERM)
    process.wait(START_S)
    process.stdout.close()


def test_they_share_a_port_and_sessions(forks: tuple[Any, int, set[str]]) -> None:
    _, port, pids = forks
    seen: Counter[str] = Counter()
    ticket, resumed, early = None, 0, 0
    for _ in range(30):
        with quicgreen.connect(
            "127.0.0.1", port, verify=False, ticket=ticket, early_data=True, timeout=START_S
        ) as connection:
            seen[connection.get("/").headers["x-pid"]] += 1
            ticket = connection.export_ticket(START_S)
            resumed += connection.is_resumed
            early += connection.early_data is True
    assert seen.keys() == pids
    assert (resumed, early) == (29, 29)


def test_a_packet_that_comes_to_the_wrong_one_is_handed_over(forks: tuple[Any, int, set[str]]) -> None:
    """The kernel goes by addresses, and these change."""
    from quicgreen.testing import Link

    process, port, _ = forks
    with Link(("127.0.0.1", port), seed=1) as link:
        connections = [quicgreen.connect("127.0.0.1", link.port, verify=False) for _ in range(6)]
        served = [c.get("/", timeout=START_S).headers["x-pid"] for c in connections]
        for _ in range(3):
            link.rebind()
            assert [c.get("/", timeout=START_S).headers["x-pid"] for c in connections] == served
        for connection in connections:
            connection.close()
    process.send_signal(signal.SIGTERM)
    told = [line.split() for line in process.stdout if line.startswith("end")]
    assert len(told) == 3
    handed_over, handed_in = (sum(int(line[i]) for line in told) for i in (1, 2))
    assert handed_over == handed_in > 0


def test_a_port_of_somebody_else_is_not_shared(forks: tuple[Any, int, set[str]], files: Path) -> None:
    _, port, _ = forks
    with pytest.raises(QuicServerException, match="in use"):
        Siblings(slots=2, connections=8, early_data_capacity=16).join("127.0.0.1", port)


def test_also_when_the_others_are_there() -> None:
    siblings = Siblings(slots=2, connections=8, early_data_capacity=16)
    siblings.group.claim()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        with pytest.raises(QuicServerException, match="in use"):
            siblings.join("127.0.0.1", s.getsockname()[1])
    assert siblings.group.worker(1).state == 0  # it has given its slot back


def test_more_of_them_than_slots() -> None:
    siblings = Siblings(slots=1, connections=8, early_data_capacity=16)
    siblings.group.claim()
    with pytest.raises(QuicServerException, match="all are taken"):
        siblings.join("127.0.0.1", 0)


FORKING = """
import os, sys, threading
import gevent
from gevent import socket as gsocket
import quicgreen
from quicgreen import _contexts, hub
from quicgreen.configuration import ServerTls

cert, key = _contexts.self_signed("localhost")
server = quicgreen.Server(("127.0.0.1", 0), lambda r: r.respond(200),
                          tls=ServerTls(cert_pem=cert, key_pem=key))
server.start()
connection = quicgreen.connect(*server.address, verify=False)
connection.get("/")
looking = [gevent.spawn(gsocket.getaddrinfo, "localhost", 1) for _ in range(4)]
gevent.sleep(0)
r, w = os.pipe()
for i in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        ids = os.urandom(8).hex()
        engine = hub.current().engine
        a, b = quicgreen.Server, server.address
        endpoint, _ = engine.endpoint_udp("127.0.0.1", 0)
        with gevent.Timeout(20):
            gsocket.getaddrinfo("localhost", 1)
            if i % 20 == 0:
                mine = quicgreen.Server(("127.0.0.1", 0), lambda r: r.respond(200),
                                        tls=ServerTls(cert_pem=cert, key_pem=key))
                mine.start()
                with quicgreen.connect(*mine.address, verify=False) as c:
                    assert c.get("/").status_code == 200
                mine.close()
        os.write(w, f"{ids}\\n".encode())
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
assert connection.get("/").status_code == 200
os.close(w)
with os.fdopen(r) as file:
    seen = file.read().split()
assert len(seen) == len(set(seen)) == int(sys.argv[1])
"""


def test_forks_of_a_program_that_uses_the_network() -> None:
    """With a live hub, threads that look up names, and open connections: none hangs, and no two make the same
    random numbers."""
    check_python(FORKING, "100", timeout=110)
