"""Requests as a handler holds them and responses as a client does, over the wire. How a handler answers is in
test_messages_answers.py."""

from __future__ import annotations

import array
import gc
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    connect,
    counters,
    exchange,
    reported,
    serving,
    wait_until,
)

import quicgreen
from quicgreen import QuicClientException
from quicgreen._engine import INLINE_MAX

RECEIVED_MAX = 16384
"""Bytes of a body that come with the head at most."""

SIZES = [0, 1, RECEIVED_MAX - 1, RECEIVED_MAX, RECEIVED_MAX + 1, INLINE_MAX, INLINE_MAX + 1, 300_000]

NOISE = bytes(range(256)) * 2000


def told(ask: Callable[[quicgreen.Request], Any], *arguments: Any, **options: Any) -> Any:
    """What a handler sees."""
    seen = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(ask(request))
        request.respond(200)

    assert exchange(handle, *arguments, **options).status_code == 200
    return seen[0]


# ---------------------------------------------------------------- what a request says


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "X-Y"]
)
def test_method(method: str) -> None:
    assert told(lambda request: request.method, method) == method


@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e=%20", "/?", "/" + "x" * 5000, "/%E4%BD%A0"])
def test_path(path: str) -> None:
    assert told(lambda request: request.path, path=path) == path


def test_the_other_accessors() -> None:
    seen: dict[str, Any] = {}

    def handle(request: quicgreen.Request) -> None:
        seen.update(
            authority=request.authority,
            scheme=request.scheme,
            address=request.remote_address,
            early=request.early_data,
            length=request.content_length,
            shown=repr(request),
            host=request.headers["host"],
            accept=request.headers["Accept"],
            own=request.headers.get_list("x-own"),
            same=request.headers is request.headers,
        )
        request.respond(200, None, str(server.server_port))

    with serving(handle) as server, connect(server) as connection:
        response = connection.post("/a?b", b"body", headers=[("X-Own", "1"), ("x-own", "2")])
        own_port = connection.info()["local_address"][1] if "local_address" in connection.info() else None
    authority = f"127.0.0.1:{response.text}"
    port = seen["address"][1]
    assert own_port in (None, port)
    assert seen == {
        "authority": authority,
        "scheme": "https",
        "address": ("127.0.0.1", port),
        "early": False,
        "length": 4,
        "shown": "<Request POST /a?b>",
        "host": authority,
        "accept": "*/*",
        "own": ["1", "2"],
        "same": True,
    }


def test_the_address_of_a_client_that_left() -> None:
    seen: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        assert wait_until(lambda: request.remote_address == ("", 0))  # it left
        seen.append((request.remote_address, request.path, request.method, request.read()))

    with reported(), serving(handle) as server:
        connection = connect(server)
        client = gevent.spawn(connection.post, "/x", b"body")
        assert wait_until(lambda: server._running)
        connection.close(0x100)
        assert wait_until(lambda: seen)
        client.join()
    assert seen == [(("", 0), "/x", "POST", b"body")]


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({}, None),
        ({"data": b""}, 0),
        ({"data": b"12345"}, 5),
        ({"data": NOISE}, len(NOISE)),
        ({"data": iter([b"1", b"2"])}, None),
        ({"data": iter([b"1", b"2"]), "headers": {"content-length": "2"}}, 2),
    ],
)
def test_content_length(options: dict[str, Any], length: int | None) -> None:
    assert told(lambda request: request.content_length, "POST", **options) == length


# ---------------------------------------------------------------- its body


@pytest.mark.parametrize("size", SIZES)
def test_read(size: int) -> None:
    assert told(lambda request: (request.read(), request.read()), "POST", data=NOISE[:size]) == (
        NOISE[:size],
        b"",
    )


def by_read(request: quicgreen.Request, step: int) -> Iterator[bytes]:
    while piece := request.read(step):
        yield piece


def by_readinto(request: quicgreen.Request, step: int) -> Iterator[bytes]:
    buffer = bytearray(step)
    while n := request.readinto(buffer):
        yield bytes(buffer[:n])


def by_iter(request: quicgreen.Request, step: int) -> Iterator[bytes]:
    return request.iter_bytes(step)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1000, 65536, 1 << 20])
@pytest.mark.parametrize("way", [by_read, by_readinto, by_iter])
def test_a_body_in_pieces(way: Any, step: int, size: int) -> None:
    got = told(lambda request: list(way(request, step)), "POST", data=NOISE[:size])
    assert b"".join(got) == NOISE[:size]
    assert all(0 < len(piece) <= step for piece in got)


@pytest.mark.parametrize("size", [10, 1000, RECEIVED_MAX + 1, 300_000])
def test_a_body_by_turns(size: int) -> None:
    """One way after another, over the seam between what came with the head and what did not."""

    def ask(request: quicgreen.Request) -> bytes:
        got = bytearray(request.read(3))
        got += request.read(0)
        buffer = bytearray(7)
        got += buffer[: request.readinto(memoryview(buffer))]
        got += buffer[: request.readinto(memoryview(buffer)[:2])]
        got += next(request.iter_bytes(11), b"")
        got += request.read()
        return bytes(got)

    assert told(ask, "POST", data=NOISE[:size]) == NOISE[:size]


@pytest.mark.parametrize("size", [100, 300_000])
@pytest.mark.parametrize(
    "make",
    [bytearray, lambda n: array.array("B", bytes(n)), lambda n: memoryview(array.array("B", bytes(n)))],
)
def test_readinto_takes_any_buffer(make: Any, size: int) -> None:
    def ask(request: quicgreen.Request) -> bytes:
        buffer, got = make(1000), b""
        while n := request.readinto(buffer):
            got += bytes(buffer)[:n]
        return got

    assert told(ask, "POST", data=NOISE[:size]) == NOISE[:size]


def test_a_body_arrives_while_it_is_sent() -> None:
    """Not only when it is complete."""
    seen: list[bytes] = []
    go_on = [Event(), Event()]

    def handle(request: quicgreen.Request) -> None:
        for piece in request.iter_bytes():
            seen.append(piece)
            go_on[len(seen) - 1].set()
        request.respond(200)

    def body() -> Iterator[bytes]:
        yield b"one"
        assert go_on[0].wait(PATIENCE_S)
        yield b"two"
        assert go_on[1].wait(PATIENCE_S)

    assert exchange(handle, "POST", data=body()).status_code == 200
    assert seen == [b"one", b"two"]


def test_the_body_may_be_read_after_the_answer() -> None:
    seen = []

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, b"soon")
        seen.append(len(request.read()))

    with serving(handle) as server, connect(server) as connection:
        assert connection.post("/", NOISE).text == "soon"
        assert wait_until(lambda: seen)
    assert seen == [len(NOISE)]


def test_an_echo_that_reads_and_writes_by_turns() -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, request.iter_bytes())

    assert exchange(handle, "POST", data=NOISE).content == NOISE


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_trailers_of_a_request(size: int) -> None:
    seen: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        before = request.trailers if size > RECEIVED_MAX else None
        body = request.read()
        for _ in range(2):
            trailers = request.trailers
            seen.append((before, body, trailers and trailers.multi_items()))
        request.respond(200)

    with serving(handle) as server, connect(server) as connection:
        send_with_trailers(connection, NOISE[:size], [("X-Sum", "1"), ("x-sum", "2")])
        assert wait_until(lambda: len(seen) == 2)
    assert seen == [(None, NOISE[:size], [("x-sum", "1"), ("x-sum", "2")])] * 2


def send_with_trailers(connection: quicgreen.Connection, body: bytes, trailers: Any) -> None:
    """A request with trailers, by the engine: the session has no way to say it."""
    from quicgreen import fields, h3
    from quicgreen.stream import Stream

    runtime = connection._runtime
    head = h3.head_prefix("POST", "localhost") + fields.path_line("/")
    rc, number = runtime.engine.open_request(connection.id, head, 0, runtime.new_token(), 0)
    assert rc == 0
    stream = Stream(runtime, connection.id, number, timeout=PATIENCE_S, owner=connection)
    if body:
        stream.write(body)
    stream.send_trailers(trailers)


def test_without_trailers_there_are_none() -> None:
    assert told(lambda request: (request.read(), request.trailers), "POST", data=b"x") == (b"x", None)


# ---------------------------------------------------------------- responses


def test_a_responses_accessors() -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(404, {"content-type": "text/plain; charset=latin-1"}, "größe".encode("latin-1"))

    with serving(handle) as server, connect(server) as connection:
        response = connection.request("POST", "/a", data=b"x")
        assert response.url == f"https://127.0.0.1:{server.server_port}/a"
        assert response.connection is connection
    assert (response.status_code, response.ok, bool(response)) == (404, False, False)
    assert (response.reason, response.http_version, response.request_method) == (
        "Not Found",
        "HTTP/3",
        "POST",
    )
    assert response.elapsed > 0
    assert (response.content_length, response.text) == (5, "größe")
    assert repr(response) == "<Response [404]>"
    with pytest.raises(QuicClientException, match="404 Not Found for POST") as caught:
        response.raise_for_status()
    assert (caught.value.cause, caught.value.response) == ("http-status", response)


def test_a_good_response_raises_nothing() -> None:
    response = exchange(lambda request: request.respond(299))
    assert response.raise_for_status() is response
    assert (response.ok, bool(response), response.reason) == (True, True, "")


@pytest.mark.parametrize(
    ("content_type", "body", "encoding", "expected"),
    [
        ("text/plain", "ü".encode(), None, "ü"),
        (None, "ü".encode(), None, "ü"),
        ('text/plain; CHARSET="latin-1"', b"\xfc", None, "ü"),
        ("text/plain; charset=no-such-thing", "ü".encode(), None, "ü"),
        ("text/plain; charset=utf-8", b"\xfc", "latin-1", "ü"),
        ("text/plain", b"a\xff", None, "a\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_text(content_type: str | None, body: bytes, encoding: str | None, expected: str) -> None:
    fields = {"content-type": content_type} if content_type else {}
    response = exchange(lambda request: request.respond(200, fields, body))
    response.encoding = encoding
    assert response.text == expected
    assert "".join(response.iter_text(1)) == expected


def test_json() -> None:
    response = exchange(lambda request: request.respond(200, None, '{"a": 1.5}'))
    assert response.json() == {"a": 1.5}
    assert response.json(parse_float=str) == {"a": "1.5"}
    with pytest.raises(ValueError, match="Expecting value"):
        exchange(lambda request: request.respond(200, None, b"no")).json()


def test_lines() -> None:
    text = "one\r\ntwo\n\nü\nlast"
    response = exchange(lambda request: request.respond(200, None, (c for c in text)))
    assert list(response.iter_lines()) == ["one", "two", "", "ü", "last"]
    assert list(exchange(lambda request: request.respond(200)).iter_lines()) == []


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_a_body_that_is_here_can_be_had_again(size: int) -> None:
    response = exchange(lambda request: request.respond(200, None, NOISE[:size]))
    for _ in range(2):
        assert b"".join(response.iter_bytes(1000)) == NOISE[:size]
        assert response.content == response.read() == NOISE[:size]


def test_a_response_closed_before_its_end_says_so() -> None:
    """Not that its body is empty."""

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, NOISE)

    with serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        response.close()
        response.close()
        for use in (response.read, lambda: response.text, lambda: list(response.iter_bytes()),
                        lambda: response.readinto(bytearray(5))):  # fmt: skip
            with pytest.raises(QuicClientException, match="closed before"):
                use()


def test_a_response_closed_after_its_end() -> None:
    with serving(lambda request: request.respond(200, None, NOISE)) as server, connect(server) as connection:
        with connection.get("/", stream=True) as response:
            assert response.content == NOISE
        assert response.content == NOISE


def test_a_response_read_into_buffers() -> None:
    for size in (10, 300_000):
        buffer = array.array("B", bytes(5000))

        def handle(request: quicgreen.Request, size: int = size) -> None:
            request.respond(200, None, NOISE[:size])

        with serving(handle) as server, connect(server) as connection:
            response = connection.get("/", stream=True)
            got = b""
            while n := response.readinto(buffer):
                got += bytes(buffer[:n])
        assert got == NOISE[:size]


def test_a_forgotten_response_is_given_up() -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, (NOISE for _ in range(1000)))

    with reported(), serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        busy = counters()["streams"]
        del response
        gc.collect()
        assert wait_until(lambda: counters()["streams"] < busy)
        assert wait_until(lambda: not server._running)
