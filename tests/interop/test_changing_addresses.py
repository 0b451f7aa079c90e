"""A client's address may change any number of times, also while packets are lost: its connection goes on, and
nothing is lost with it. As behind a NAT that forgets: the client does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from helpers import bodies
from helpers.processes import Peer

import quicgreen
from quicgreen.testing import Authority, Link

CHANGES = 120
"""More than three times as many as quiche has room for paths, at the limit that we announce."""


@pytest.fixture
def link(ours: Peer) -> Iterator[Link]:
    with Link(ours.address) as link:
        yield link


@pytest.fixture
def connection(link: Link, certificates: Authority) -> Iterator[quicgreen.ClientConnection]:
    with quicgreen.connect("127.0.0.1", link.port, verify=certificates.ca_certs, timeout=20.0) as connection:
        yield connection


def test_any_number_of_changes(link: Link, connection: quicgreen.ClientConnection, ours: Peer) -> None:
    for _ in range(CHANGES):
        assert connection.get("/version").headers["x-peer"] == ours.version
        assert len(link.rebind()) == 1
    assert bodies.digest_of(connection.get("/size/300000").content) == bodies.digest(300_000)


def test_changes_faster_than_an_address_is_validated(
    link: Link, connection: quicgreen.ClientConnection, ours: Peer
) -> None:
    """None of the answers to the server's challenges comes from an address that it still has."""
    link.update(delay_ms=20)
    for _ in range(CHANGES):
        told = gevent.spawn(connection.get, "/version")
        gevent.sleep(0.01)
        link.rebind()
        assert told.get(timeout=20).headers["x-peer"] == ours.version


def test_an_aioquic_client_with_ids_to_spare(
    link: Link, aioquic_client: Callable[..., dict[str, Any]], ours: Peer
) -> None:
    """The server has another id of the client for each path, and gives them back."""
    changes = 0

    def change() -> None:
        nonlocal changes
        while link.counters().to_client.seen < 20:  # with the handshake: RFC 9000, section 9
            gevent.sleep(0.05)
        while changes < CHANGES:
            changes += len(link.rebind())
            gevent.sleep(0.05)

    changing = gevent.spawn(change)
    drip = {"path": f"/drip/{CHANGES}/60"}
    answers = aioquic_client(link, [drip, *[{"path": "/size/20000"}] * 5], pings=True)["answers"]
    changing.kill()
    assert changes == CHANGES
    assert answers[0]["length"] > 0
    assert answers[0]["fields"] != []
    assert [a["sha256"] for a in answers[1:]] == [bodies.digest(20_000)] * 5


# ---------------------------------------------------------------- in the middle of loss

LOSSES: dict[str, dict[str, Any]] = {
    "loss": {"loss": 0.05},
    "bursts": {"loss": 0.1, "burst": 3},
    "all": {"loss": 0.05, "burst": 2, "duplicate": 0.1, "reorder": 0.1, "corrupt": 0.03, "delay_ms": 5},
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_a_download(ours: Peer, session: quicgreen.Session, kind: str, seed: int) -> None:
    size = 2_000_000
    with Link(ours.address, seed=seed, **LOSSES[kind]) as link:
        url = f"https://localhost:{link.port}/size/{size}"
        with session.stream("GET", url, timeout=50.0) as response:
            content = bytearray()
            buffer = bytearray(1 << 16)
            for part in range(1, 9):
                while len(content) < part * size // 10:
                    content += buffer[: response.readinto(buffer)]
                link.rebind()
            content += response.read()
    assert bodies.digest_of(content) == bodies.digest(size)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_an_upload(ours: Peer, session: quicgreen.Session, kind: str, seed: int) -> None:
    size = 1_000_000
    body = bodies.body(size)

    def pieces() -> Iterator[bytes]:
        for at in range(0, size, size // 10):
            yield body[at : at + size // 10]
            link.rebind()

    with Link(ours.address, seed=seed, **LOSSES[kind]) as link:
        told = session.post(f"https://localhost:{link.port}/sink", data=pieces(), timeout=50.0).json()
    assert (told["length"], told["sha256"]) == (size, bodies.digest(size))


def test_everything_under_way_was_lost(link: Link, connection: quicgreen.ClientConnection) -> None:
    """A window full, and not one of its packets is missed by an acknowledgement of a later one."""
    size = 3_000_000
    with connection.get(f"/size/{size}", stream=True, timeout=20.0) as response:
        buffer = bytearray(1 << 16)
        content = buffer[: response.readinto(buffer)]
        for _ in range(3):
            content += buffer[: response.readinto(buffer)]
            link.blackhole(direction="to_client")
            gevent.sleep(0.3)
            link.rebind()
            link.blackhole(False)
            assert connection.get("/version").ok  # the server learns where the client is
        content += response.read()
    assert bodies.digest_of(content) == bodies.digest(size)


def test_a_validation_that_fails_ends_nothing(
    link: Link, connection: quicgreen.ClientConnection, ours: Peer
) -> None:
    """The server gives up the new address and goes back to the one before; the client is at the new one."""
    assert connection.get("/version").ok
    for _ in range(2):
        link.rebind()
        link.blackhole(direction="to_client")
        telling = [gevent.spawn(connection.post, "/sink", bodies.body(3000)) for _ in range(20)]
        gevent.sleep(5)  # at least three times the PTO, which is 1 s (RFC 9000, section 8.2.4)
        link.blackhole(False)
        for told in telling:
            assert told.get(timeout=30).json()["sha256"] == bodies.digest(3000)
        assert connection.get("/version").headers["x-peer"] == ours.version
