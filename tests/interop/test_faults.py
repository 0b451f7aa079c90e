"""What goes wrong, goes wrong as promised: the right class, in time, nobody else touched, nothing left."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from helpers import bodies
from helpers.processes import Peer
from support import wait_until

import quicgreen
from quicgreen.testing import Authority, Certificate, Link, self_signed

SOON_S = 10.0
"""For what takes milliseconds; every other way to end would take longer (the session's timeout is 20)."""


@contextmanager
def failing(exception: type[quicgreen.QuicException], *causes: str, within: float = SOON_S) -> Iterator[None]:
    """The block raises this class for one of these causes, within so many seconds."""
    began = time.monotonic()
    with pytest.raises(exception) as caught:
        yield
    assert caught.value.cause in causes, caught.value
    assert time.monotonic() - began < within


def open_at(peer: Peer, session: quicgreen.Session) -> dict[str, int]:
    """What is open at a server, as it tells."""
    response = session.get(peer.url("/counters"))
    told = response.json()
    assert response.headers["x-peer"] == peer.version
    engine = {k: told["engine"][k] for k in ("connections", "streams")}
    return {**engine, "greenlets": told["greenlets"], "descriptors": told["descriptors"]}


@pytest.fixture(scope="module")
def ours(certificate: Certificate) -> Iterator[Peer]:
    """A server of this module's own: what other modules leave behind a bad network goes only in time."""
    with Peer("our_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile) as peer:
        yield peer.wait_until_it_answers(certificate.ca_certs)


@pytest.fixture
def untouched(ours: Peer, session: quicgreen.Session) -> Iterator[None]:
    """A slow request to the server goes on all the time, and its counters are back afterwards."""
    before = open_at(ours, session)
    other = gevent.spawn(session.get, ours.url("/drip/20/20"))
    yield
    assert other.get(timeout=20).content == b"".join(b"%d\n" % i for i in range(20))

    def is_back() -> bool:
        now = open_at(ours, session)
        return all(now[name] <= before[name] for name in before)

    assert wait_until(is_back, SOON_S), (before, open_at(ours, session))


# ---------------------------------------------------------------- no connection


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_a_closed_port_fails_at_once(session: quicgreen.Session, ip: str) -> None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.bind((ip, 0))
        port = s.getsockname()[1]
    host = f"[{ip}]" if ":" in ip else ip
    with failing(quicgreen.QuicSocketException, "unreachable", within=4):  # below the connect timeout
        session.get(f"https://{host}:{port}/")


def test_a_name_that_does_not_exist(session: quicgreen.Session) -> None:
    with failing(quicgreen.QuicSocketException, "name"):
        session.get("https://no-such-name.invalid/")


def test_a_silent_port_takes_the_connect_timeout(session: quicgreen.Session) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        with failing(quicgreen.QuicTimeoutException, "handshake-timeout"):
            session.get(f"https://127.0.0.1:{s.getsockname()[1]}/", timeout=quicgreen.Timeout(connect=0.3))


def test_a_certificate_that_nobody_trusts(ours: Peer, untouched: None, tmp_path: Path) -> None:
    stranger = self_signed(tmp_path, "localhost")
    with (
        quicgreen.Session(verify=stranger.ca_certs) as session,
        failing(quicgreen.QuicTlsHandshakeException, "certificate"),
    ):
        session.get(ours.url("/version"))


def test_a_certificate_for_another_name(ours: Peer, untouched: None, certificates: Authority) -> None:
    with (
        quicgreen.Session(verify=certificates.ca_certs, server_name="other.test") as session,
        failing(quicgreen.QuicTlsHandshakeException, "certificate"),
    ):
        session.get(ours.url("/version"))


def test_an_expired_certificate(
    start_ours: Callable[..., Peer], certificates: Authority, session: quicgreen.Session
) -> None:
    old = certificates.issue("localhost", expired=True)
    peer = start_ours(certfile=old.certfile, keyfile=old.keyfile)
    with failing(quicgreen.QuicTlsHandshakeException, "certificate"):
        session.get(peer.url("/version"))


def test_no_common_protocol(ours: Peer, untouched: None, certificates: Authority) -> None:
    with failing(quicgreen.QuicTlsHandshakeException, "alert"):
        quicgreen.connect("localhost", ours.port, verify=certificates.ca_certs, alpn=("something-else",))


# ---------------------------------------------------------------- one request


def test_a_handler_that_raises(ours: Peer, untouched: None, session: quicgreen.Session) -> None:
    assert session.get(ours.url("/raise")).status_code == 500
    with failing(quicgreen.QuicStreamException, "reset"):
        session.get(ours.url("/raise-late"))


def test_a_handler_that_never_answers(ours: Peer, session: quicgreen.Session) -> None:
    with failing(quicgreen.QuicTimeoutException, "deadline"):
        session.get(ours.url("/silence"), timeout=0.3)
    assert session.get(ours.url("/version")).headers["x-peer"] == ours.version


def test_a_client_that_resets(
    ours: Peer, untouched: None, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    aborted = {"method": "POST", "path": "/echo", "size": 1000, "abort": 0x10C}
    answers = aioquic_client(ours, [aborted, {"path": "/stream/50000000", "cancel": True}] * 10)["answers"]
    assert {a["status"] for a in answers} == {200}
    assert {a["reset"] for a in answers} == {0x102, 0x10C}


# ---------------------------------------------------------------- a whole server


def test_garbage_under_load(ours: Peer, session: quicgreen.Session) -> None:
    """None of it is answered, nobody else notices, and it is counted."""
    before = session.get(ours.url("/counters")).json()["engine"]
    source = [
        b"",
        b"\x00" * 50,
        b"\x40" + bytes(19),
        secrets.token_bytes(1200),
        b"\xc0\x00\x00\x00\x01" + bytes(1300),
    ]
    others = [gevent.spawn(session.get, ours.url("/size/300000")) for _ in range(20)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for i in range(2000):
            s.sendto(source[i % len(source)] if i % 2 else secrets.token_bytes(i), ours.address)
            if i % 50 == 0:
                gevent.sleep(0)
    for other in others:
        assert bodies.digest_of(other.get(timeout=20).content) == bodies.digest(300_000)
    after = session.get(ours.url("/counters")).json()["engine"]
    assert after["datagrams_junk"] > before["datagrams_junk"]
    assert after["connections"] == before["connections"]
    assert after["connections_closed"] == before["connections_closed"]


@pytest.mark.parametrize("what", ["download", "upload"])
def test_a_server_that_is_killed_and_comes_back(
    start_ours: Callable[..., Peer], certificates: Authority, what: str
) -> None:
    peer = start_ours()
    # Who only reads speaks when a third of the idle timeout has passed; the answer is the reset.
    config = quicgreen.QuicConfiguration(max_idle_ms=6000)
    with quicgreen.connect("127.0.0.1", peer.port, verify=certificates.ca_certs, config=config) as connection:

        def endless() -> Iterator[bytes]:
            while True:
                yield b"x" * 1000
                gevent.sleep(0.005)

        if what == "download":
            response = connection.get("/drip/10000/5", stream=True, timeout=20)
            assert response.readinto(bytearray(100)) > 0
            running = gevent.spawn(response.read)
        else:
            running = gevent.spawn(connection.post, "/sink", data=endless(), timeout=20)
            assert wait_until(lambda: connection.stats()["sent_bytes"] > 20_000)
        peer.kill()
        again = start_ours(port=peer.port)
        with failing(quicgreen.QuicConnectionException, "lost"):
            running.get(timeout=20)
        assert connection.closed
    with quicgreen.Session(verify=certificates.ca_certs) as session:
        assert session.get(again.url("/version")).headers["x-peer"] == again.version


def test_a_session_goes_on_with_a_server_that_came_back(
    start_ours: Callable[..., Peer], session: quicgreen.Session
) -> None:
    peer = start_ours()
    first = session.get(peer.url("/version"))
    peer.kill()
    again = start_ours(port=peer.port)
    with failing(quicgreen.QuicConnectionException, "lost"):
        session.post(peer.url("/echo"), data=b"x")  # it was sent: who knows what became of it
    assert session.post(peer.url("/echo"), data=b"x").headers["x-peer"] == again.version
    again.kill()
    again = start_ours(port=peer.port)
    second = session.get(again.url("/version"))  # which may be sent twice (docs/decisions/016)
    assert second.headers["x-peer"] == again.version
    assert second.connection is not first.connection


def test_a_server_that_vanishes(ours: Peer, untouched: None, certificates: Authority) -> None:
    config = quicgreen.QuicConfiguration(max_idle_ms=3000)  # the link may end before our last word
    with (
        Link(ours.address) as link,
        quicgreen.Session(verify=certificates.ca_certs, config=config) as session,
    ):
        url = f"https://localhost:{link.port}"
        assert session.get(f"{url}/version").headers["x-peer"] == ours.version
        link.blackhole()
        with failing(quicgreen.QuicTimeoutException, "deadline"):
            session.get(f"{url}/version", timeout=0.5)
        link.blackhole(False)
        assert session.get(f"{url}/version").headers["x-peer"] == ours.version


def test_a_server_that_stops_taking_a_body(ours: Peer, certificates: Authority) -> None:
    with quicgreen.connect("127.0.0.1", ours.port, verify=certificates.ca_certs) as connection:
        with failing(quicgreen.QuicTimeoutException, "deadline"):
            limit = quicgreen.Timeout(write=0.3)
            connection.post("/never-read", data=bodies.blocks(50_000_000), timeout=limit)
        assert connection.get("/version").headers["x-peer"] == ours.version
