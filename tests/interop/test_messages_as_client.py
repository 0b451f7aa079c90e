"""Our client with each server: methods, bodies, heads, as the other side saw them."""

from __future__ import annotations

import io

import pytest
from helpers import bodies
from helpers.processes import Peer

import quicgreen
from quicgreen.testing import Authority

SIZES = [0, 1, 1024, 16383, 16384, 16385, 65535, 65536, 65537, 1_000_000]


def named(fields: list[list[str]], name: str) -> list[str]:
    return [value for n, value in fields if n == name]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY"])
def test_a_method_arrives(server: Peer, session: quicgreen.Session, method: str) -> None:
    told = session.request(method, server.url("/sink"))
    assert told.headers["x-peer"] == server.version
    assert told.json()["method"] == method


def test_head_has_the_fields_and_no_body(server: Peer, session: quicgreen.Session) -> None:
    head = session.head(server.url("/size/70000"))
    got = session.get(server.url("/size/70000"))
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"] == "70000"
    assert head.headers["x-sha256"] == bodies.digest_of(got.content)


@pytest.mark.parametrize("size", SIZES)
def test_a_response_body(server: Peer, session: quicgreen.Session, size: int) -> None:
    response = session.get(server.url(f"/size/{size}"))
    assert response.content_length == size
    assert bodies.digest_of(response.content) == response.headers["x-sha256"] == bodies.digest(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_request_body(server: Peer, session: quicgreen.Session, size: int) -> None:
    told = session.post(server.url("/sink"), data=bodies.body(size)).json()
    assert (told["length"], told["sha256"]) == (size, bodies.digest(size))
    assert named(told["fields"], "content-length") == [str(size)]


# No more than a stream's first window: our server answers as it reads, and this client reads only when all
# is sent, so with more both may wait for each other.
@pytest.mark.parametrize("size", [1024, 65537, 400_000])
def test_a_body_there_and_back(server: Peer, session: quicgreen.Session, size: int) -> None:
    response = session.put(server.url("/echo"), data=bodies.body(size))
    assert response.headers["x-method"] == "PUT"
    assert bodies.digest_of(response.content) == bodies.digest(size)


@pytest.mark.parametrize("size", [0, 200_000])
def test_a_body_from_an_iterable_has_no_length(server: Peer, session: quicgreen.Session, size: int) -> None:
    told = session.post(server.url("/sink"), data=bodies.blocks(size)).json()
    assert (told["length"], told["sha256"]) == (size, bodies.digest(size))
    assert named(told["fields"], "content-length") == []


def test_a_body_from_a_file(server: Peer, session: quicgreen.Session) -> None:
    told = session.post(server.url("/sink"), data=io.BytesIO(bodies.body(300_000))).json()
    assert told["sha256"] == bodies.digest(300_000)


@pytest.mark.parametrize("chunk", [1000, 65536, 1 << 20])
def test_a_response_in_pieces(server: Peer, session: quicgreen.Session, chunk: int) -> None:
    with session.stream("GET", server.url("/stream/500000")) as response:
        assert response.content_length is None
        pieces = list(response.iter_bytes(chunk))
    assert max(map(len, pieces)) <= chunk
    assert bodies.digest_of(b"".join(pieces)) == bodies.digest(500_000)


def test_a_response_read_into_a_buffer(server: Peer, session: quicgreen.Session) -> None:
    buffer = bytearray(300_000)
    view = memoryview(buffer)
    with session.stream("GET", server.url("/size/300000")) as response:
        while n := response.readinto(view):
            view = view[n:]
    assert len(view) == 0
    assert bodies.digest_of(buffer) == bodies.digest(300_000)


def test_a_response_closed_early_spares_the_connection(server: Peer, session: quicgreen.Session) -> None:
    with session.stream("GET", server.url("/stream/1000000")) as response:
        assert response.readinto(bytearray(100)) > 0
        connection = response.connection
    after = session.get(server.url("/size/1024"))
    assert after.connection is connection
    assert bodies.digest_of(after.content) == bodies.digest(1024)


@pytest.mark.parametrize("status", [200, 201, 204, 304, 400, 404, 418, 500, 503, 599])
def test_a_status(server: Peer, session: quicgreen.Session, status: int) -> None:
    response = session.get(server.url(f"/status/{status}"))
    assert response.status_code == status
    assert response.content == (b"" if status in (204, 304) else b"status")
    assert response.headers["x-peer"] == server.version


def test_fields_of_http_1_are_tolerated(server: Peer, session: quicgreen.Session) -> None:
    response = session.get(server.url("/hop-by-hop"))
    assert response.content == b"kept"
    assert "connection" not in response.headers
    assert "keep-alive" not in response.headers


def test_many_response_fields(server: Peer, session: quicgreen.Session) -> None:
    response = session.get(server.url("/fields/100/20"))
    values = [response.headers[f"x-{i}"] for i in range(100)]
    assert [(len(set(v)), len(v)) for v in values] == [(1, 20)] * 100


@pytest.mark.parametrize("size", [16_000, 30_000])
def test_large_response_fields(server: Peer, session: quicgreen.Session, size: int) -> None:
    # On a connection that has just begun: more than its first congestion window (R20).
    response = session.get(server.url(f"/fields/1/{size}"))
    assert len(response.headers["x-0"]) == size


def test_odd_values(server: Peer, session: quicgreen.Session) -> None:
    headers = session.get(server.url("/odd-fields")).headers
    assert headers["x-latin"] == "café"
    assert headers["x-utf8"].encode("latin-1").decode() == "日本"
    assert headers["x-empty"] == ""
    assert headers["x-twice"] == "1, 2"
    assert headers.get_list("set-cookie") == ["a=1; Path=/", "b=2, c"]


def test_many_request_fields(server: Peer, session: quicgreen.Session) -> None:
    mine = {f"x-{i}": f"value {i}" for i in range(100)}
    told = session.get(server.url("/sink"), headers=mine).json()
    got = {name: value for name, value in told["fields"] if name.startswith("x-")}
    assert got == mine


@pytest.mark.parametrize("size", [16_000, 30_000])
def test_large_request_fields(server: Peer, session: quicgreen.Session, size: int) -> None:
    told = session.get(server.url("/sink"), headers={"x-big": "v" * size}).json()
    assert [len(v) for v in named(told["fields"], "x-big")] == [size]


def test_request_values_and_cookies(server: Peer, session: quicgreen.Session) -> None:
    mine = [
        ("x-latin", "café"),
        ("x-utf8", "日本".encode()),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("TE", "trailers"),
    ]
    told = session.get(server.url("/sink"), headers=mine).json()["fields"]
    assert named(told, "x-latin") == ["café"]
    assert named(told, "x-utf8") == ["日本".encode().decode("latin-1")]
    assert "; ".join(named(told, "cookie")) == "a=1; b=2"
    assert named(told, "te") == ["trailers"]


def test_one_connection_serves_one_request_after_the_other(server: Peer, session: quicgreen.Session) -> None:
    responses = [session.get(server.url("/version")) for _ in range(50)]
    assert {r.headers["x-peer"] for r in responses} == {server.version}
    assert len({r.connection for r in responses}) == 1


def test_a_late_answer_is_waited_for(server: Peer, session: quicgreen.Session) -> None:
    response = session.get(server.url("/slow/300"))
    assert response.headers["x-peer"] == server.version
    assert response.elapsed >= 0.29


def test_a_server_that_has_enough(aioquic: Peer, certificates: Authority) -> None:
    """It answers and stops reading, while no more may be sent (a congestion window is full): new ones each
    time, since that is not met at each."""
    for _ in range(12):
        with quicgreen.connect("localhost", aioquic.port, verify=certificates.ca_certs) as connection:
            response = connection.post("/early", data=bodies.blocks(1_000_000), timeout=20)
            assert (response.status_code, response.content) == (413, b"enough")
