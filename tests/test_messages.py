"""Requests and responses, as a handler and a client hold them, over the wire."""

from __future__ import annotations

import array
import gc
import io
import re
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    OnPurposeError,
    connect,
    counters,
    idle_streams,
    nothing_left_behind,
    reported,
    serving,
    turn_loop,
    wait_until,
)

import quicgreen
from quicgreen import QuicClientException, QuicException, QuicStreamException
from quicgreen._engine import INLINE_MAX
from quicgreen.headers import Headers
from quicgreen.messages import pieces

RECEIVED_MAX = 16384
"""Bytes of a body that come with the head at most."""

SIZES = [0, 1, RECEIVED_MAX - 1, RECEIVED_MAX, RECEIVED_MAX + 1, INLINE_MAX, INLINE_MAX + 1, 300_000]

NOISE = bytes(range(256)) * 2000


def exchange(
    handle: Callable[[quicgreen.Request], Any], method: str = "GET", path: str = "/", **options: Any
) -> quicgreen.Response:
    """What a handler answers."""
    with serving(handle) as server, connect(server) as connection:
        return connection.request(method, path, timeout=PATIENCE_S, **options)


def told(ask: Callable[[quicgreen.Request], Any], *arguments: Any, **options: Any) -> Any:
    """What a handler sees."""
    seen = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(ask(request))
        request.respond(200)

    assert exchange(handle, *arguments, **options).status_code == 200
    return seen[0]


class Source:
    """An iterable that tells whether it was closed."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.given = 0
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            if isinstance(part, BaseException):
                raise part
            self.given += 1
            yield part

    def close(self) -> None:
        self.closed += 1


# ---------------------------------------------------------------- what a request says


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "x-y"]
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
    left = Event()

    def handle(request: quicgreen.Request) -> None:
        left.wait()
        seen.append((request.remote_address, request.path, request.method, request.read()))

    with reported(), serving(handle) as server:
        connection = connect(server)
        client = gevent.spawn(connection.post, "/x", b"body")
        assert wait_until(lambda: server._running)
        connection.close(0x100)
        turn_loop(5)
        left.set()
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


# ---------------------------------------------------------------- respond


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_respond_with_bytes(make: Any, size: int) -> None:
    response = exchange(lambda request: request.respond(200, None, make(NOISE[:size])))
    assert response.content == NOISE[:size]
    assert response.headers.get_list("content-length") == [str(size)]


@pytest.mark.parametrize(
    ("body", "expected", "length"),
    [
        (None, b"", "0"),
        ("", b"", "0"),
        ("grüße", "grüße".encode(), "7"),
        ("ü" * 100_000, "ü".encode() * 100_000, "200000"),
        (memoryview(array.array("H", [1, 2])), b"\1\0\2\0", "4"),
        ([b"a", "b", bytearray(b"c"), memoryview(b"d"), b"", ""], b"abcd", None),
        ((), b"", None),
        (iter([b"x" * 100_000] * 3), b"x" * 300_000, None),
        ((c for c in "abc"), b"abc", None),
    ],
)
def test_respond_with(body: Any, expected: bytes, length: str | None) -> None:
    response = exchange(lambda request: request.respond(200, None, body))
    assert response.content == expected
    assert response.headers.get("content-length") == length


@pytest.mark.parametrize("mode", ["rb", "r"])
@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_respond_with_a_file(tmp_path: Path, mode: str, size: int) -> None:
    path = tmp_path / "file"
    path.write_text("x" * size)
    files = []

    def handle(request: quicgreen.Request) -> None:
        files.append(open(path, mode))  # noqa: SIM115 - closed by respond, which is what is tested
        request.respond(200, None, files[0])

    assert exchange(handle).content == b"x" * size
    assert files[0].closed


@pytest.mark.parametrize("body", [42, 1.5, object(), len])
def test_what_cannot_be_a_body(body: Any) -> None:
    """It is told before anything was sent."""
    with reported() as errors:
        assert exchange(lambda request: request.respond(200, None, body)).status_code == 500
    assert [e.cause for _, e in errors] == ["argument"]
    assert type(body).__name__ in str(errors[0][1])


def test_the_status() -> None:
    for status in (200, 201, 299, 300, 404, 418, 500, 599, 999, HTTPStatus.ACCEPTED):
        response = exchange(lambda request, status=status: request.respond(status, None, b"x"))
        assert (response.status_code, response.text) == (status, "x")


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 1000, -200, "200", 200.5, None])
@pytest.mark.parametrize("way", ["respond", "start_response"])
def test_what_is_no_status(way: str, status: Any) -> None:
    with reported() as errors:
        assert exchange(lambda request: getattr(request, way)(status)).status_code == 500
    assert [e.cause for _, e in errors] == ["argument"]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(status: int) -> None:
    source = Source(b"never sent")
    for body in (b"", None, "", source, []):
        response = exchange(lambda request, body=body: request.respond(status, {"etag": '"1"'}, body))
        assert (response.status_code, response.content) == (status, b"")
        assert response.headers["etag"] == '"1"'
        assert "content-length" not in response.headers
    assert (source.given, source.closed) == (0, 1)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("body", [b"x", "x", bytearray(b"x"), b"x" * 100_000])
def test_a_body_where_there_is_none(status: int, body: Any) -> None:
    with reported() as errors:
        assert exchange(lambda request: request.respond(status, None, body)).status_code == 500
    assert "has no body" in str(errors[0][1])


def test_not_modified_may_tell_the_length() -> None:
    """Of what a GET would have got (RFC 9110, section 8.6)."""
    response = exchange(lambda request: request.respond(304, {"content-length": "70000"}))
    assert (response.headers["content-length"], response.content) == ("70000", b"")


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_head(size: int) -> None:
    source = Source(NOISE[:size])
    for body, length in (
        (NOISE[:size], str(size)),
        (bytearray(NOISE[:size]), str(size)),
        (source, None),
        (io.BytesIO(NOISE[:size]), None),
    ):
        response = exchange(lambda request, body=body: request.respond(200, None, body), "HEAD")
        assert response.content == b""
        assert response.headers.get("content-length") == length
    assert (source.given, source.closed) == (0, 1)
    response = exchange(lambda request: request.respond(200, {"content-length": size}), "HEAD")
    assert response.headers["content-length"] == str(size)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_start_response_without_a_body(method: str, status: int) -> None:
    """A handler need not know: what it writes is dropped."""

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(status, {"x-a": "1"})
        assert stream.write(NOISE) == len(NOISE)
        if request.path == "/trailers":
            stream.send_trailers({"x-b": "2"})
        else:
            stream.finish(b"end")

    with serving(handle) as server, connect(server) as connection:
        for path in ("/", "/trailers"):
            response = connection.request(method, path)
            assert (response.status_code, response.content, response.headers["x-a"]) == (status, b"", "1")


@pytest.mark.parametrize("name", ["content-length", "Content-Length"])
@pytest.mark.parametrize("value", [5, "5", b"5"])
@pytest.mark.parametrize("body", [b"12345", "12345", [b"123", b"45"], bytearray(b"12345")])
def test_a_content_length_of_the_handlers(name: str, value: Any, body: Any) -> None:
    response = exchange(lambda request: request.respond(200, {name: value}, body))
    assert response.headers.get_list("content-length") == ["5"]
    assert response.text == "12345"


@pytest.mark.parametrize("body", [b"1234", b"123456", "123456", bytearray(b""), b"x" * 100_000, None])
def test_a_wrong_content_length_is_told_before_anything_is_sent(body: Any) -> None:
    with reported() as errors:
        response = exchange(lambda request: request.respond(200, {"content-length": "5"}, body))
    assert response.status_code == 500
    assert [e.cause for _, e in errors] == ["content-length"]


@pytest.mark.parametrize("parts", [[b"1234"], [b"123", b"456"], []])
def test_a_wrong_content_length_of_an_iterable_cuts_it_off(parts: list[bytes]) -> None:
    source = Source(*parts)
    with reported() as errors, pytest.raises(QuicStreamException):
        exchange(lambda request: request.respond(200, {"content-length": "5"}, source))
    assert [e.cause for _, e in errors] == ["content-length"]
    assert source.closed == 1


@pytest.mark.parametrize("value", ["five", "-5", "5 5", "", "\N{ARABIC-INDIC DIGIT FIVE}", "5,5"])
def test_what_is_no_content_length(value: str) -> None:
    with reported() as errors:
        assert (
            exchange(lambda request: request.respond(200, {"content-length": value}, b"")).status_code == 500
        )
    assert [e.cause for _, e in errors] == ["argument"]


def test_date() -> None:
    """Every response has one, and its own is left alone."""
    own = "Sun, 06 Nov 1994 08:49:37 GMT"
    for handle in (
        lambda request: request.respond(200),
        lambda request: request.respond(200, {"x-a": "b"}, NOISE),
        lambda request: request.start_response(200).finish(),
        lambda request: request.respond(404, None, iter([b"x"])),
    ):
        dates = exchange(handle).headers.get_list("date")
        assert len(dates) == 1
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", dates[0])
        assert parsedate_to_datetime(dates[0]).tzinfo is not None
    for name in ("date", "Date"):
        for body in (b"", NOISE, [b"x"]):
            response = exchange(lambda request, n=name, b=body: request.respond(200, {n: own}, b))
            assert response.headers.get_list("date") == [own]
        response = exchange(lambda request, n=name: request.start_response(200, {n: own}).finish())
        assert response.headers.get_list("date") == [own]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "1", "Set-Cookie": "a=b"},
        [("x-a", "1"), ("set-cookie", "a=b"), ("Set-Cookie", "c=d")],
        (("x-a", b"1"), ("x-n", 5)),
        iter([("x-a", "1")]),
        Headers.of({"x-a": "1"}),
        {},
        None,
    ],
)
def test_forms_of_fields(headers: Any) -> None:
    expected = []
    if isinstance(headers, (dict, list, tuple, Headers)):
        items = headers.items() if hasattr(headers, "items") else headers
        expected = [(n.lower(), v.decode() if isinstance(v, bytes) else str(v)) for n, v in items]
    elif headers is not None:
        expected = [("x-a", "1")]
    response = exchange(lambda request: request.respond(200, headers))
    own = [item for item in response.headers.multi_items() if item[0] not in ("date", "content-length")]
    assert own == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "1\r\nset-cookie: a=b"),
        ("x-a", "1\nx"),
        ("x-a", "1\rx"),
        ("x-a", "1\0x"),
        ("x-a", b"1\r\nx"),
        ("x-a\r\nset-cookie", "a=b"),
        ("x a", "1"),
        ("", "1"),
        ("x-a:", "1"),
        (":status", "200"),
        (":path", "/"),
        ("x-a", "snow \N{SNOWMAN}"),
        ("x-a", None),
        ("x-a", 1.5),
        ("x\u00fc", "1"),
    ],
)
@pytest.mark.parametrize("way", ["respond", "start_response", "inform", "trailers"])
def test_fields_cannot_be_smuggled(way: str, name: str, value: Any) -> None:
    def handle(request: quicgreen.Request) -> None:
        if way == "inform":
            request.inform(103, {name: value})
        elif way == "trailers":
            request.start_response(200).send_trailers({name: value})
        else:
            getattr(request, way)(200, {name: value})

    with reported() as errors:
        if way == "trailers":
            with pytest.raises(QuicStreamException):  # cut off
                exchange(handle)
        else:
            response = exchange(handle)
            assert response.status_code == 500
            assert "set-cookie" not in response.headers
    assert [(type(e), e.cause) for _, e in errors] == [(QuicClientException, "argument")]


@pytest.mark.parametrize(
    "name", ["connection", "Keep-Alive", "proxy-connection", "transfer-encoding", "upgrade"]
)
def test_fields_of_http1_are_left_out(name: str) -> None:
    """RFC 9114, section 4.2."""
    response = exchange(lambda request: request.respond(200, {name: "x", "x-a": "1"}, b"body"))
    assert name not in response.headers
    assert (response.headers["x-a"], response.text) == ("1", "body")


# ---------------------------------------------------------------- bodies in pieces


@pytest.mark.parametrize("when", [0, 1, 5])
def test_a_body_that_raises_midway_is_cut_off(when: int) -> None:
    source = Source(*[b"x" * 10_000] * when, OnPurposeError())
    with reported() as errors, pytest.raises(QuicStreamException) as caught:
        exchange(lambda request: request.respond(200, None, source))
    assert (caught.value.cause, caught.value.wire_code) == ("reset", 0x102)
    assert [type(e) for _, e in errors] == [OnPurposeError]
    assert (source.given, source.closed) == (when, 1)


def test_a_body_with_a_piece_that_cannot_be_sent() -> None:
    source = Source(b"x", 42)
    with reported() as errors, pytest.raises(QuicStreamException):
        exchange(lambda request: request.respond(200, None, source))
    assert "not int" in str(errors[0][1])
    assert source.closed == 1


def test_a_generator_is_closed() -> None:
    ended = []

    def body() -> Iterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            ended.append("closed")

    assert exchange(lambda request: request.respond(200, None, body())).text == "onetwo"
    generator = body()
    next(generator)
    assert exchange(lambda request: request.respond(200, None, generator), "HEAD").content == b""
    assert ended == ["closed", "closed"]


def test_a_client_that_wants_no_more() -> None:
    """The generator is closed, the handler told."""
    ended, causes = [], []

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield NOISE
        finally:
            ended.append("closed")

    def handle(request: quicgreen.Request) -> None:
        try:
            request.respond(200, None, body())
        except QuicStreamException as e:
            causes.append(e.cause)
            raise

    with nothing_left_behind(), reported(), serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        assert len(next(response.iter_bytes())) > 0
        response.close()
        assert wait_until(lambda: causes)
    assert (ended, causes) == (["closed"], ["stopped"])


def test_a_client_that_is_gone() -> None:
    ended, causes = [], []

    def body() -> Iterator[bytes]:
        try:
            while True:
                yield NOISE
        finally:
            ended.append("closed")

    def handle(request: quicgreen.Request) -> None:
        try:
            request.respond(200, None, body())
        except QuicException as e:
            causes.append(e.cause)
            raise

    with nothing_left_behind(), reported(), serving(handle) as server:
        connection = connect(server)
        connection.get("/", stream=True)
        connection.close(0x100)
        assert wait_until(lambda: causes)
    assert ended == ["closed"]
    assert causes[0] in ("stream-gone", "closed-here")


def test_a_handler_killed_while_it_sends() -> None:
    source = Source(*[NOISE] * 1000)

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, source)

    with reported(), serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        assert wait_until(lambda: server._running)
        gevent.killall(list(server._running))
        with pytest.raises(QuicStreamException):
            response.read()
    assert source.closed == 1
    assert source.given < 1000


def test_pieces_arrive_as_they_are_made() -> None:
    go_on = Event()

    def body() -> Iterator[bytes]:
        yield b"one"
        assert go_on.wait(PATIENCE_S)
        yield b"two"

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, body())

    with serving(handle) as server, connect(server) as connection:
        stream = connection.get("/", stream=True).iter_bytes()
        assert next(stream) == b"one"
        go_on.set()
        assert next(stream) == b"two"
        assert list(stream) == []


def test_pieces_are_checked_at_once() -> None:
    with pytest.raises(QuicClientException):
        pieces(42)
    assert list(pieces([b"a", "", "b"])) == [b"a", b"b"]
    assert list(pieces(io.StringIO("ü"))) == ["ü".encode()]


# ---------------------------------------------------------------- start_response, inform, trailers


def test_start_response() -> None:
    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(201, [("x-a", "1")])
        assert (stream.kind, stream.timeout) == ("h3", server.stream_timeout)
        assert stream.write(b"one") == 3
        stream.write(bytearray(b"two"))
        stream.write(memoryview(NOISE))
        stream.write(b"")
        stream.finish(b"end")
        stream.finish()
        with pytest.raises(QuicStreamException):
            stream.write(b"late")

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        response = connection.get()
        assert (response.status_code, response.headers["x-a"]) == (201, "1")
        assert response.content == b"onetwo" + NOISE + b"end"
        assert "content-length" not in response.headers
        assert errors == []


@pytest.mark.parametrize("body", [b"1234", b"123456"])
def test_a_client_notices_a_wrong_length(body: bytes) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.start_response(200, {"content-length": "5"}).finish(body)

    with reported(), pytest.raises(QuicStreamException) as caught:
        exchange(handle)
    assert caught.value.cause in ("malformed", "reset")


def test_trailers_of_a_response() -> None:
    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        if request.path != "/empty":
            stream.write(NOISE)
        stream.send_trailers([("X-Sum", "1"), ("x-sum", "2")])

    with serving(handle) as server, connect(server) as connection:
        for path, body in (("/", NOISE), ("/empty", b"")):
            response = connection.get(path)
            assert response.content == body
            assert response.trailers is not None
            assert response.trailers.multi_items() == [("x-sum", "1"), ("x-sum", "2")]
            with connection.get(path, stream=True) as response:
                got = b"".join(response.iter_bytes())
                assert (got, response.trailers["x-sum"]) == (body, "1, 2")


def test_responses_without_trailers() -> None:
    for body in (b"", NOISE):
        response = exchange(lambda request, body=body: request.respond(200, None, body))
        assert response.content == body
        assert response.trailers is None


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_informational_responses_come_before_the_final_one(status: int) -> None:
    def handle(request: quicgreen.Request) -> None:
        for _ in range(3):
            request.inform(status, {"link": "</a.css>; rel=preload"})
        request.respond(200, {"x-a": "1"}, b"final")

    response = exchange(handle)
    assert (response.status_code, response.text) == (200, "final")
    assert "link" not in response.headers


@pytest.mark.parametrize(("status", "cause"), [(200, "argument"), (99, "argument"), (101, "argument")])
def test_what_is_no_informational_status(status: int, cause: str) -> None:
    causes = []

    def handle(request: quicgreen.Request) -> None:
        try:
            request.inform(status)
        except QuicClientException as e:
            causes.append(e.cause)
        request.respond(200)

    assert exchange(handle).status_code == 200
    assert causes == [cause]


def test_streams_are_gone_whatever_was_done() -> None:
    def nothing_read(request: quicgreen.Request) -> None:
        request.respond(200)

    def part_read(request: quicgreen.Request) -> None:
        request.read(10)
        request.respond(200, None, iter([b"x"]))

    def all_read(request: quicgreen.Request) -> None:
        request.respond(200, None, request.read())

    def streamed(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        for piece in request.iter_bytes():
            stream.write(piece)
        stream.finish()

    for handle in (nothing_read, part_read, all_read, streamed):
        with serving(handle) as server, connect(server) as connection:
            idle = idle_streams(connection)
            for data in (b"", b"x", NOISE):
                assert connection.post("/", data).status_code == 200
            assert wait_until(lambda idle=idle: counters()["streams"] == idle), handle


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
