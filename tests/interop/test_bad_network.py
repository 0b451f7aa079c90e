"""Behind a bad network: everything arrives whole, or fails with the right class. A few seeds of each kind;
with one seed every packet meets the same fate in each run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from helpers import bodies
from helpers.processes import Peer
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Link

NETWORKS: dict[str, dict[str, Any]] = {
    "loss": {"loss": 0.1},
    "bursts": {"loss": 0.1, "burst": 3},
    "duplicate": {"duplicate": 0.3},
    "reorder": {"reorder": 0.3},
    "corrupt": {"corrupt": 0.05},
    "delay": {"delay_ms": 20},
    "all": {"loss": 0.05, "burst": 2, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.03, "delay_ms": 5},
}

SIZE = 200_000


@pytest.fixture
def patient(certificates: Authority) -> quicgreen.Session:
    return quicgreen.Session(verify=certificates.ca_certs, timeout=40.0)


def url(link: Link, path: str) -> str:
    return f"https://localhost:{link.port}{path}"


def did_something(link: Link) -> dict[str, int]:
    """What the link did to packets, in both directions."""
    counters = link.counters()
    return {
        name: getattr(counters.to_server, name) + getattr(counters.to_client, name)
        for name in ("dropped", "duplicated", "reordered", "corrupted")
    }


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", NETWORKS)
def test_bodies_arrive_whole(ours: Peer, patient: quicgreen.Session, kind: str, seed: int) -> None:
    with Link(ours.address, seed=seed, **NETWORKS[kind]) as link, patient:
        got = patient.get(url(link, f"/size/{SIZE}"))
        assert got.headers["x-peer"] == ours.version
        assert bodies.digest_of(got.content) == bodies.digest(SIZE)
        told = patient.post(url(link, "/sink"), data=bodies.body(SIZE)).json()
        assert (told["length"], told["sha256"]) == (SIZE, bodies.digest(SIZE))
        done = did_something(link)
    expected = {"loss": "dropped", "bursts": "dropped", "delay": None, "all": "dropped"}.get(kind, kind)
    if expected is not None:
        name = {"duplicate": "duplicated", "reorder": "reordered", "corrupt": "corrupted"}.get(
            expected, expected
        )
        assert done[name] > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_handshakes_complete(ours: Peer, certificates: Authority, seed: int) -> None:
    def once(_: int) -> str:
        with quicgreen.connect(
            "127.0.0.1", link.port, verify=certificates.ca_certs, timeout=30
        ) as connection:
            return str(connection.get("/version", timeout=30).headers["x-peer"])

    with Link(ours.address, seed=seed, loss=0.15, burst=2, corrupt=0.1) as link:
        jobs = [gevent.spawn(once, i) for i in range(8)]
        assert [job.get(timeout=50) for job in jobs] == [ours.version] * 8
        assert link.counters().to_server.dropped > 0


@pytest.mark.parametrize("kind", ["loss", "all"])
def test_aioquic_as_client(ours: Peer, aioquic_client: Callable[..., dict[str, Any]], kind: str) -> None:
    requests = [{"path": f"/size/{SIZE}"}, {"method": "POST", "path": "/sink", "size": SIZE}]
    with Link(ours.address, seed=1, **NETWORKS[kind]) as link:
        got, told = aioquic_client(link, requests)["answers"]
    assert ["x-peer", ours.version] in got["fields"]
    assert got["sha256"] == bodies.digest(SIZE)
    assert f'"{bodies.digest(SIZE)}"' in told["content"]


@pytest.mark.parametrize("kind", ["loss", "all"])
def test_aioquic_as_server(aioquic: Peer, patient: quicgreen.Session, kind: str) -> None:
    with Link(aioquic.address, seed=1, **NETWORKS[kind]) as link, patient:
        got = patient.get(url(link, f"/size/{SIZE}"))
        assert got.headers["x-peer"] == aioquic.version
        assert bodies.digest_of(got.content) == bodies.digest(SIZE)


def test_a_black_hole_in_a_body_is_a_deadline(ours: Peer, session: quicgreen.Session) -> None:
    with (
        Link(ours.address) as link,
        session.stream("GET", url(link, "/drip/1000/10"), timeout=1.0) as response,
    ):
        assert response.readinto(bytearray(100)) > 0
        assert response.headers["x-peer"] == ours.version
        link.blackhole()
        began = time.monotonic()
        with pytest.raises(quicgreen.QuicTimeoutException) as caught:
            response.read()
        assert caught.value.cause == "deadline"
        assert time.monotonic() - began >= 0.9
        response.connection.close(0, timeout=None)


def test_a_black_hole_ends_a_connection_by_its_idle_timeout(ours: Peer, certificates: Authority) -> None:
    config = quicgreen.QuicConfiguration(max_idle_ms=1500)
    with (
        Link(ours.address) as link,
        quicgreen.connect("127.0.0.1", link.port, verify=certificates.ca_certs, config=config) as connection,
    ):
        response = connection.get("/drip/1000/10", stream=True)
        assert response.headers["x-peer"] == ours.version
        link.blackhole()
        with pytest.raises(quicgreen.QuicTimeoutException) as caught:
            response.read()
        assert caught.value.cause == "idle-timeout"
        assert connection.closed


def test_a_short_black_hole_is_survived(ours: Peer, session: quicgreen.Session) -> None:
    with Link(ours.address) as link, session.stream("GET", url(link, "/size/3000000")) as response:
        assert response.headers["x-peer"] == ours.version
        link.blackhole()
        gevent.sleep(0.5)  # longer than several probe timeouts
        link.blackhole(False)
        assert bodies.digest_of(response.read()) == bodies.digest(3_000_000)


def test_our_client_s_address_changes_in_a_download(ours: Peer, session: quicgreen.Session) -> None:
    with Link(ours.address) as link, session.stream("GET", url(link, "/size/8000000")) as response:
        assert response.headers["x-peer"] == ours.version
        buffer = bytearray(1 << 16)
        content = bytearray()
        for ports in range(3):
            content += buffer[: response.readinto(buffer)]
            assert len(link.rebind()) == 1, ports
        content += response.read()
        assert bodies.digest_of(content) == bodies.digest(8_000_000)
        assert wait_until(lambda: link.counters().to_client.sent > 0)
