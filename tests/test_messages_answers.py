"""How a handler answers: bodies of all kinds, fields, heads without bodies, bodies that fail."""

from __future__ import annotations

import array
import io
import re
from collections.abc import Iterator
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
    exchange,
    idle_streams,
    nothing_left_behind,
    reported,
    serving,
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


@pytest.mark.parametrize(
    ("body", "causes"), [(b"1234", ("body-too-short",)), (b"123456", ("malformed", "reset"))]
)
@pytest.mark.filterwarnings("ignore::quicgreen.QuicWarningPartialData")
def test_a_client_notices_a_wrong_length(body: bytes, causes: tuple[str, ...]) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.start_response(200, {"content-length": "5"}).finish(body)

    with reported(), pytest.raises(QuicStreamException) as caught:
        exchange(handle)
    assert caught.value.cause in causes


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
