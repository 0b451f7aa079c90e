"""Large bodies and many streams: by hash, and not held in memory."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.pool
import psutil
import pytest
from helpers import bodies
from helpers.processes import Peer

import quicgreen
from quicgreen.testing import Authority

LARGE = 100_000_000

ROOM = 40 << 20
"""What a stream of LARGE bytes may add to a process: windows (16 and 24 MiB at most), and malloc's."""


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


class Watched:
    """The most memory that this process had while a body went by."""

    def __init__(self) -> None:
        self.most = rss()

    def blocks(self, size: int) -> Iterator[bytes]:
        for i, block in enumerate(bodies.blocks(size)):
            if i % 64 == 0:
                self.most = max(self.most, rss())
            yield block

    def digest(self, response: quicgreen.Response) -> str:
        sha, buffer = hashlib.sha256(), bytearray(1 << 16)
        i = 0
        while n := response.readinto(buffer):
            sha.update(memoryview(buffer)[:n])
            if (i := i + 1) % 64 == 0:
                self.most = max(self.most, rss())
        return sha.hexdigest()


def rss_of(peer: Peer) -> int:
    return int(psutil.Process(peer.pid).memory_info().rss)


def test_a_large_download_is_not_held(ours: Peer, session: quicgreen.Session) -> None:
    session.get(ours.url(f"/size/{1_000_000}"))
    here, there, watched = rss(), rss_of(ours), Watched()
    with session.stream("GET", ours.url(f"/size/{LARGE}")) as response:
        assert response.headers["x-peer"] == ours.version
        assert watched.digest(response) == response.headers["x-sha256"] == bodies.digest(LARGE)
    assert watched.most - here < ROOM
    assert rss_of(ours) - there < ROOM


def test_a_large_upload_is_not_held(ours: Peer, session: quicgreen.Session) -> None:
    session.post(ours.url("/sink"), data=bodies.body(1_000_000))
    here, there, watched = rss(), rss_of(ours), Watched()
    response = session.post(ours.url("/sink"), data=watched.blocks(LARGE))
    told = response.json()
    assert response.headers["x-peer"] == ours.version
    assert (told["length"], told["sha256"]) == (LARGE, bodies.digest(LARGE))
    assert watched.most - here < ROOM
    assert rss_of(ours) - there < ROOM


@pytest.mark.parametrize("peer", ["aioquic", "hypercorn"])
def test_large_bodies_with_other_servers(
    request: pytest.FixtureRequest, session: quicgreen.Session, peer: str
) -> None:
    server: Peer = request.getfixturevalue(peer)
    with session.stream("GET", server.url("/size/10000000")) as response:
        assert response.headers["x-peer"] == server.version
        assert Watched().digest(response) == bodies.digest(10_000_000)
    told = session.post(server.url("/sink"), data=bodies.blocks(10_000_000)).json()
    assert (told["length"], told["sha256"]) == (10_000_000, bodies.digest(10_000_000))


def test_large_bodies_with_aioquic_as_client(
    ours: Peer, aioquic_client: Callable[..., dict[str, Any]]
) -> None:
    size = 10_000_000
    requests = [{"path": f"/size/{size}"}, {"method": "POST", "path": "/sink", "size": size}]
    got, told = aioquic_client(ours, requests)["answers"]
    assert ["x-peer", ours.version] in got["fields"]
    assert got["sha256"] == bodies.digest(size)
    assert bodies.digest(size) in told["content"]


def test_large_bodies_with_curl(ours: Peer, curl: Callable[..., list[dict[str, Any]]]) -> None:
    size = 20_000_000
    url = ours.url("/sink")
    got, told = curl({"url": ours.url(f"/size/{size}")}, {"method": "POST", "url": url, "size": size})
    assert ["x-peer", ours.version] in got["fields"]
    assert got["sha256"] == bodies.digest(size)
    assert bodies.digest(size) in told["content"]


def sizes_and_digests(session: quicgreen.Session, peer: Peer, count: int) -> set[Any]:
    """`count` requests at a time; the connections that they took."""

    def once(i: int) -> Any:
        response = session.get(peer.url(f"/slow/{200 if i % 2 else 100}" if i % 4 else f"/size/{i}"))
        assert response.headers["x-peer"] == peer.version
        assert response.content == (b"at last" if i % 4 else bodies.body(i))
        return response.connection

    pool = gevent.pool.Pool(count)
    return set(pool.imap_unordered(once, range(count)))


@pytest.mark.parametrize(("streams", "connections"), [(1000, 1), (100, 10)])
def test_a_thousand_at_a_time(ours: Peer, certificates: Authority, streams: int, connections: int) -> None:
    limits = quicgreen.Limits(max_streams=streams)
    with quicgreen.Session(verify=certificates.ca_certs, timeout=30, limits=limits) as session:
        began = time.monotonic()
        used = sizes_and_digests(session, ours, 1000)
        # One after the other they would take 112 s of the server's sleep alone.
        assert time.monotonic() - began < 60
    assert connections // 2 <= len(used) <= connections  # those that answer at once make room
