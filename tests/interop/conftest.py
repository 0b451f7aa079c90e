"""Peers, each started once, and what talks to them. The tests themselves run in this process, unpatched."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from helpers.processes import Peer, run_client
from helpers.websockets import Ask, Open, Site, ask_aioquic, our_server

import quicgreen
from quicgreen.stream import H3_NO_ERROR
from quicgreen.testing import Authority, Certificate, Link
from quicgreen.websocket import WebSocket


@pytest.fixture(autouse=True)
def _leaves_nothing(nothing_left: None) -> None:
    """Whatever happens on the wire, nothing stays open here."""


def _served(script: str, certificate: Certificate, **options: Any) -> Iterator[Peer]:
    with Peer(script, certfile=certificate.certfile, keyfile=certificate.keyfile, **options) as peer:
        if "alpn" not in options and "ca_certs" not in options:
            peer.wait_until_it_answers(certificate.ca_certs)
        yield peer


@pytest.fixture(scope="session")
def hypercorn(certificate: Certificate) -> Iterator[Peer]:
    yield from _served("hypercorn_server.py", certificate)


@pytest.fixture(scope="session")
def aioquic(certificate: Certificate) -> Iterator[Peer]:
    yield from _served("aioquic_server.py", certificate)


@pytest.fixture(scope="session")
def aioquic_raw(certificate: Certificate) -> Iterator[Peer]:
    yield from _served("aioquic_server.py", certificate, alpn=["raw-test"])


@pytest.fixture(scope="session")
def ours(certificate: Certificate) -> Iterator[Peer]:
    """Our server, with room for a thousand requests on a connection."""
    config = {"initial_max_streams_bidi": 1000}
    yield from _served("our_server.py", certificate, config=config)


@pytest.fixture(scope="session")
def ours_raw(certificate: Certificate) -> Iterator[Peer]:
    yield from _served("our_server.py", certificate, alpn=["raw-test"])


@pytest.fixture(scope="session")
def ours_with_retry(certificate: Certificate) -> Iterator[Peer]:
    yield from _served("our_server.py", certificate, retry="always")


@pytest.fixture(scope="session")
def ours_early(certificate: Certificate) -> Iterator[Peer]:
    """Our server, which takes early data."""
    yield from _served("our_server.py", certificate, early_data=True)


@pytest.fixture(scope="session")
def aioquic_early(certificate: Certificate) -> Iterator[Peer]:
    """aioquic with session tickets, which takes early data."""
    yield from _served("aioquic_server.py", certificate, tickets="early")


@pytest.fixture(scope="session")
def aioquic_forgetful(certificate: Certificate) -> Iterator[Peer]:
    """aioquic with session tickets of which it knows none when it sees them again."""
    yield from _served("aioquic_server.py", certificate, tickets="forgets")


@pytest.fixture(params=["hypercorn", "aioquic", "ours"])
def server(request: pytest.FixtureRequest) -> Peer:
    """Each HTTP/3 server in turn."""
    peer: Peer = request.getfixturevalue(request.param)
    return peer


@pytest.fixture
def start_ours(certificate: Certificate) -> Iterator[Callable[..., Peer]]:
    """Start a server of ours for one test."""
    started: list[Peer] = []
    keys = {"secret": secrets.token_hex(32), "origin_s": int(time.time())}

    def start(**options: Any) -> Peer:
        files = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
        peer = Peer("our_server.py", **{**files, **keys, **options})
        started.append(peer)
        return peer

    yield start
    for peer in started:
        peer.stop()


@pytest.fixture
def session(certificates: Authority, certificate: Certificate) -> Iterator[quicgreen.Session]:
    """A client that trusts the peers' certificate."""
    with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0) as session:
        yield session


@pytest.fixture
def counters(certificates: Authority) -> Iterator[Callable[[Peer], dict[str, Any]]]:
    """What a peer says at /counters, asked by somebody who resumes nothing."""
    with quicgreen.Session(verify=certificates.ca_certs, timeout=20.0, tickets=False) as asking:
        yield lambda peer: asking.get(peer.url("/counters")).json()


@pytest.fixture
def aioquic_client(certificates: Authority, certificate: Certificate) -> Callable[..., dict[str, Any]]:
    """Run requests with aioquic against a peer; the one round's result."""

    def run(
        peer: Peer | Link, requests: list[dict[str, Any]], *more: list[dict[str, Any]], **options: Any
    ) -> dict[str, Any]:
        rounds = [requests, *more]
        given = {"host": "localhost", "ip": peer.address[0], "port": peer.port, "ca": certificates.ca_certs}
        result = run_client("aioquic_client.py", rounds=rounds, **{**given, **options})
        assert result["version"].startswith("aioquic/")
        return result if more else result["rounds"][0]

    return run


@pytest.fixture
def curl(certificates: Authority, certificate: Certificate) -> Callable[..., list[dict[str, Any]]]:
    """Run requests with libcurl; their results."""

    def run(*requests: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        result = run_client(
            "curl_client.py", requests=list(requests), **{"ca": certificates.ca_certs, **options}
        )
        assert "ngtcp2" in result["version"]
        answers: list[dict[str, Any]] = result["answers"]
        return answers

    return run


# ---------------------------------------------------------------- websockets


@pytest.fixture(scope="session")
def aioquic_sockets(certificate: Certificate) -> Iterator[Peer]:
    with Peer(
        "aioquic_websocket_server.py", certfile=certificate.certfile, keyfile=certificate.keyfile
    ) as peer:
        yield peer.wait_until_it_answers(certificate.ca_certs)


@pytest.fixture
def our_sockets(certificate: Certificate) -> Iterator[Site]:
    """Our server of WebSockets, in this process."""
    site = Site()
    server = our_server(certificate, site)
    server.start()
    site.address = server.address
    yield site
    site.go_on.set()
    server.stop(timeout=0)


@pytest.fixture
def open_ws(session: quicgreen.Session) -> Iterator[Open]:
    """Open a WebSocket on the session; all are closed at the end."""
    opened: list[WebSocket] = []

    def open_one(url: str, **options: Any) -> WebSocket:
        # No wait in a test shall end by these.
        defaults = {"max_size": None, "ping_interval": None, "open_timeout": 20, "close_timeout": 50}
        opened.append(session.websocket(url.replace("https:", "wss:"), **{**defaults, **options}))
        return opened[-1]

    with gevent.Timeout(50):
        yield open_one
        for ws in opened:
            ws.close()
    # At once: hypercorn ends no stream, which an orderly end would wait for.
    for origin in session._pool.origins.values() if session._pool is not None else ():
        for connection in list(origin.connections):
            connection.close(H3_NO_ERROR)


@pytest.fixture
def ask(our_sockets: Site, certificates: Authority) -> Ask:
    """Run sockets of aioquic's client with our server; what each of them got."""

    def run(*sockets: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ask_aioquic(our_sockets, certificates, *sockets)["sockets"]
        assert [s["step"] for s in found if s.get("step")] == []  # one that was waited for in vain
        return found

    return run
