"""One exchange: a request over a connection and the response to it, and all the ways in which it ends."""

from __future__ import annotations

import gc
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    connect,
    counters,
    echo,
    hello,
    make_server,
    nothing_left_behind,
    server_tls,
    serving,
    turn_loop,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicConfiguration,
    QuicConnectionException,
    QuicStreamException,
    QuicTimeoutException,
    QuicTransportException,
    Timeout,
    h3,
)
from quicgreen.testing import Link

LARGE = bytes(range(256)) * 12_000  # 3 MB


class Site:
    """A handler with one method for each path; what is open at its end is let go."""

    def __init__(self) -> None:
        self.go_on = Event()
        self.told: list[Any] = []

    def __call__(self, request: quicgreen.Request) -> None:
        what, *arguments = request.path.partition("?")[0].strip("/").split("/")
        getattr(self, f"do_{what or 'hello'}")(request, *arguments)

    def do_hello(self, request: quicgreen.Request) -> None:
        hello(request)

    def do_echo(self, request: quicgreen.Request) -> None:
        echo(request)

    def do_status(self, request: quicgreen.Request, status: str) -> None:
        request.respond(int(status), {"x-a": "1"}, b"" if status in ("204", "304") else b"status")

    def do_size(self, request: quicgreen.Request, size: str) -> None:
        request.respond(200, {"content-length": size}, [LARGE[: int(size)]])

    def do_stream(self, request: quicgreen.Request, size: str) -> None:
        request.respond(200, None, [LARGE[: int(size)]])

    def do_hints(self, request: quicgreen.Request) -> None:
        request.inform(103, [("link", "</a.css>")])
        request.inform(100)
        turn_loop()
        request.respond(200, {"x-final": "1"}, b"final")

    def do_trailers(self, request: quicgreen.Request, size: str) -> None:
        stream = request.start_response(200)
        stream.write(LARGE[: int(size)])
        stream.send_trailers([("x-sum", "1"), ("x-end", "2")])

    def do_silence(self, request: quicgreen.Request) -> None:
        """Not a word, until it is let go or given up."""
        self.wait_for_end(request)
        if not request._answered:
            hello(request)

    def do_begin(self, request: quicgreen.Request) -> None:
        """A head and five bytes, and no more until it is let go."""
        stream = request.start_response(200, {"content-type": "text/plain"})
        stream.write(b"begin")
        self.go_on.wait()
        stream.finish(b"end")

    def do_drip(self, request: quicgreen.Request, count: str) -> None:
        """As slowly as it is asked for."""
        stream = request.start_response(200)
        for i in range(int(count)):
            self.go_on.wait()
            self.go_on.clear()
            stream.write(b"%d\n" % i)
        stream.finish()

    def do_unread(self, request: quicgreen.Request) -> None:
        """It does not read what it is sent."""
        self.go_on.wait()
        request.respond(200, None, str(sum(map(len, request.iter_bytes()))))

    def do_enough(self, request: quicgreen.Request) -> None:
        """An answer before the body was read, which is refused."""
        request.respond(413, None, b"enough")

    def do_reset(self, request: quicgreen.Request, when: str, code: str) -> None:
        if when == "body":
            request.start_response(200).write(b"begin")
            self.go_on.wait()
        request._answered = 2
        request._engine.reset(request._record[4], request._record[5], int(code))

    def do_raise(self, request: quicgreen.Request) -> None:
        raise gevent.GreenletExit

    def wait_for_end(self, request: quicgreen.Request) -> None:
        self.go_on.wait()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.go_on.set()


@pytest.fixture
def server(site: Site) -> Iterator[quicgreen.Server]:
    with serving(site) as server:
        yield server


@pytest.fixture
def connection(server: quicgreen.Server) -> Iterator[quicgreen.Connection]:
    with connect(server, timeout=PATIENCE_S) as connection:
        yield connection


def untouched(connection: quicgreen.Connection) -> bool:
    """Other requests go on as if nothing had happened."""
    return bool(connection.get("/hello").text == "hello") and not connection.closed


# ---------------------------------------------------------------- bodies come


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 65536, 65537, 1_000_000, len(LARGE)])
@pytest.mark.parametrize("kind", ["size", "stream"])
def test_a_body_comes_whole(connection: quicgreen.Connection, kind: str, size: int) -> None:
    path = f"/{kind}/{size}"
    expected = LARGE[:size]
    assert connection.get(path).content == expected
    response = connection.get(path, stream=True)
    assert b"".join(response.iter_bytes()) == expected
    response = connection.get(path, stream=True)
    pieces = list(response.iter_bytes(1000))
    assert b"".join(pieces) == expected
    assert max(map(len, pieces), default=0) <= 1000
    response = connection.get(path, stream=True)
    assert response.content == expected
    assert response.content == expected  # kept
    assert response.content_length == (size if kind == "size" else None)


@pytest.mark.parametrize("size", [0, 100, 20_000, 300_000])
def test_readinto_fills_a_buffer(connection: quicgreen.Connection, size: int) -> None:
    response = connection.get(f"/stream/{size}", stream=True)
    got = bytearray()
    buffer = bytearray(7000)
    while n := response.readinto(buffer):
        got += buffer[:n]
    assert got == LARGE[:size]
    assert response.readinto(buffer) == 0


def test_text_is_decoded_as_the_response_says(connection: quicgreen.Connection, site: Site) -> None:
    for content_type, text in (
        ("text/plain; charset=latin-1", "café"),
        ('text/plain; charset="UTF-16"', "日本"),
        ("text/plain", "café 日本"),
        ("text/plain; charset=nonsense", "café"),
    ):
        charset = content_type.rpartition("=")[2].strip('"') if "=" in content_type else "utf-8"
        raw = text.encode("utf-8" if charset == "nonsense" else charset)

        def typed(request: quicgreen.Request, of: str = content_type, raw: bytes = raw) -> None:
            request.respond(200, {"content-type": of}, iter([raw[:3], raw[3:]]))

        site.do_typed = typed
        assert connection.get("/typed").text == text
        assert "".join(connection.get("/typed", stream=True).iter_text(1)) == text
    response = connection.get("/typed")
    response.encoding = "latin-1"
    assert response.text == "cafÃ©"


def test_lines_come_as_they_are_complete(connection: quicgreen.Connection, site: Site) -> None:
    response = connection.get("/drip/3", stream=True)
    lines = response.iter_lines()
    for i in range(3):
        site.go_on.set()
        assert next(lines) == str(i)
    assert list(lines) == []

    def ends(request: quicgreen.Request) -> None:
        request.respond(200, None, iter(["a\r", "\nb\n", "\n", "c\rd\n", "last"]))

    site.do_ends = ends
    assert list(connection.get("/ends", stream=True).iter_lines()) == ["a", "b", "", "c\rd", "last"]


def test_json_is_parsed(connection: quicgreen.Connection) -> None:
    data = {"a": [1, 2.5, None, "ü"]}
    response = connection.post("/echo", json.dumps(data))
    assert response.json() == data
    assert response.json(parse_float=str)["a"][1] == "2.5"
    with pytest.raises(ValueError, match="Expecting value"):
        connection.get("/hello").json()


@pytest.mark.parametrize("status", [200, 204, 299, 301, 304, 399, 400, 404, 418, 500, 599, 799])
def test_a_status_says_whether_it_went_well(connection: quicgreen.Connection, status: int) -> None:
    response = connection.get(f"/status/{status}")
    assert (response.status_code, response.headers["x-a"]) == (status, "1")
    assert response.content == (b"" if status in (204, 304) else b"status")
    assert (response.ok, bool(response)) == (status < 400, status < 400)
    if status < 400:
        assert response.raise_for_status() is response
        return
    with pytest.raises(QuicClientException, match=str(status)) as caught:
        response.raise_for_status()
    assert caught.value.cause == "http-status"
    assert caught.value.response is response
    assert f"GET https://{connection._authority}/status/{status}" in str(caught.value)


def test_a_response_tells_of_its_request(connection: quicgreen.Connection, server: quicgreen.Server) -> None:
    response = connection.request("PATCH", "/echo?a=1", data=b"x")
    host, port = server.address
    assert response.url == f"https://{host}:{port}/echo?a=1"
    assert response.request_method == "PATCH"
    assert response.headers["X-Method"] == "PATCH"
    assert response.connection is connection
    assert response.http_version == "HTTP/3"
    assert response.reason == "OK"
    assert 0 < response.elapsed < PATIENCE_S
    assert connection.get("/status/799").reason == ""


@pytest.mark.parametrize("path", ["/hello", "/size/100000", "/size/0", "/status/404", "/hints"])
def test_head_has_no_body(connection: quicgreen.Connection, path: str) -> None:
    get = connection.get(path)
    head = connection.request("HEAD", path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers.get("content-length") == get.headers.get("content-length")
    assert untouched(connection)


def test_interim_responses_are_passed_over(connection: quicgreen.Connection) -> None:
    for send in (
        lambda: connection.get("/hints"),
        lambda: connection.post("/hints", LARGE[:100_000]),
        lambda: connection.get("/hints", stream=True),
    ):
        response = send()
        assert (response.status_code, response.content) == (200, b"final")
        assert (response.headers["x-final"], response.headers.get("link")) == ("1", None)


@pytest.mark.parametrize("size", [0, 10, 100_000])
@pytest.mark.parametrize("body", [None, LARGE[:100_000]], ids=["", "upload"])
def test_trailers_come_after_the_body(connection: quicgreen.Connection, size: int, body: Any) -> None:
    response = connection.post(f"/trailers/{size}", body)
    assert response.content == LARGE[:size]
    assert response.trailers.multi_items() == [("x-sum", "1"), ("x-end", "2")]
    response = connection.post(f"/trailers/{size}", body, stream=True)
    assert sum(map(len, response.iter_bytes())) == size
    assert response.trailers["X-Sum"] == "1"
    assert connection.get("/hello").trailers is None
    assert connection.get("/size/100000").trailers is None


# ---------------------------------------------------------------- many, and large


def test_many_at_a_time_do_not_mix(connection: quicgreen.Connection) -> None:
    bodies = [b"%d " % i * (1 + 97 * i % 30_000) for i in range(300)]
    jobs = [gevent.spawn(connection.post, "/echo", body) for body in bodies]
    for job, body in zip(jobs, bodies, strict=True):
        assert job.get(timeout=20).content == body


def test_large_bodies_both_ways_at_a_time(connection: quicgreen.Connection) -> None:
    jobs = [gevent.spawn(connection.post, "/echo", io.BytesIO(LARGE)) for _ in range(4)]
    assert all(job.get(timeout=20).content == LARGE for job in jobs)


def test_a_reader_that_does_not_read_stops_the_sender(
    connection: quicgreen.Connection, server: quicgreen.Server, site: Site
) -> None:
    def endless(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        try:
            while True:
                site.told.append(stream.write(LARGE[:100_000]))
        except QuicStreamException as e:
            site.told.append(e.cause)

    site.do_endless = endless
    response = connection.get("/endless", stream=True)
    gevent.sleep(0.2)
    sent = len(site.told)
    assert sent < 50  # 5 MB: the windows
    assert untouched(connection)
    response.close()
    assert wait_until(lambda: site.told[-1] == "stopped")


# ---------------------------------------------------------------- timeouts


def test_no_head_in_time(connection: quicgreen.Connection, site: Site) -> None:
    with nothing_left_behind():
        for send in (
            lambda: connection.get("/silence", timeout=Timeout(read=0.1)),
            lambda: connection.post("/silence", b"x", timeout=0.1),
            lambda: connection.post("/silence", LARGE[:100_000], timeout=Timeout(read=0.1)),
        ):
            started = time.monotonic()
            with pytest.raises(QuicTimeoutException, match=r"0\.1 s") as caught:
                send()
            assert time.monotonic() - started >= 0.09
            assert (caught.value.cause, caught.value.request_sent) == ("deadline", True)
            assert isinstance(caught.value, TimeoutError)
            assert untouched(connection)
        site.go_on.set()


def test_no_more_of_the_body_in_time(connection: quicgreen.Connection, site: Site) -> None:
    with nothing_left_behind():
        for read in (
            lambda r: r.read(),
            lambda r: list(r.iter_bytes()),
            lambda r: list(r.iter_lines()),
            lambda r: [r.readinto(bytearray(10)), r.readinto(bytearray(10))],
        ):
            response = connection.get("/begin", stream=True, timeout=Timeout(read=0.1))
            with pytest.raises(QuicTimeoutException) as caught:
                read(response)
            assert caught.value.cause == "deadline"
            response.close()
            assert untouched(connection)
        with pytest.raises(QuicTimeoutException):
            connection.get("/begin", timeout=Timeout(read=0.1))
        site.go_on.set()


def test_a_read_timeout_is_for_each_piece(connection: quicgreen.Connection, site: Site) -> None:
    response = connection.get("/drip/6", stream=True, timeout=Timeout(read=0.4))
    started = time.monotonic()
    for i, line in enumerate(_released(response.iter_lines(), site)):
        assert line == str(i)
    assert time.monotonic() - started > 0.5  # longer than the timeout in all


def _released(lines: Iterator[str], site: Site) -> Iterator[str]:
    gevent.spawn_later(0.1, site.go_on.set)
    for line in lines:
        yield line
        gevent.spawn_later(0.1, site.go_on.set)


def test_a_server_that_does_not_read(connection: quicgreen.Connection, site: Site) -> None:
    with nothing_left_behind():
        for make in (lambda: LARGE, lambda: io.BytesIO(LARGE), lambda: iter([LARGE])):
            with pytest.raises(QuicTimeoutException, match="writing") as caught:
                connection.post("/unread", make(), timeout=Timeout(write=0.1, read=PATIENCE_S))
            assert caught.value.cause == "deadline"
            assert untouched(connection)
        site.go_on.set()


def test_no_stream_in_time(site: Site) -> None:
    """The server allows one at a time."""
    with (
        nothing_left_behind(),
        serving(site, config=QuicConfiguration(initial_max_streams_bidi=1)) as server,
        connect(server) as connection,
    ):
        held = gevent.spawn(connection.get, "/silence")
        turn_loop()
        for body, timeout in ((None, Timeout(read=0.1)), (LARGE, Timeout(pool=0.1))):
            with pytest.raises(QuicTimeoutException) as caught:
                connection.post("/hello", body, timeout=timeout)
            assert caught.value.cause == "deadline"
            assert not caught.value.request_sent
        site.go_on.set()
        assert held.get(timeout=PATIENCE_S).text == "hello"
        assert untouched(connection)


# ---------------------------------------------------------------- the server ends it


@pytest.mark.parametrize("code", [0x100, 0x102, 0x10C, 0x110, 0x1234, (1 << 62) - 1])
def test_a_reset_is_told_with_its_code(connection: quicgreen.Connection, site: Site, code: int) -> None:
    with nothing_left_behind():
        for send in (
            lambda: connection.get(f"/reset/head/{code}"),
            lambda: connection.post(f"/reset/head/{code}", LARGE[:100_000]),
        ):
            with pytest.raises(QuicStreamException) as caught:
                send()
            e = caught.value
            assert (e.cause, e.wire_code, e.remote, e.request_sent) == ("reset", code, True, True)
        response = connection.get(f"/reset/body/{code}", stream=True)
        assert response.readinto(bytearray(10)) == 5
        site.go_on.set()
        with pytest.raises(QuicStreamException) as caught:
            response.read()
        assert (caught.value.cause, caught.value.wire_code) == ("reset", code)
        assert untouched(connection)


def test_a_code_has_its_name(connection: quicgreen.Connection) -> None:
    with pytest.raises(QuicStreamException, match="H3_INTERNAL_ERROR"):
        connection.get(f"/reset/head/{0x102}")
    with pytest.raises(QuicStreamException, match="0x1234"):
        connection.get(f"/reset/head/{0x1234}")


def test_an_answer_before_the_body_was_read(connection: quicgreen.Connection, site: Site) -> None:
    """The server needs no more of it (RFC 9114, section 4.1), which is no error."""
    with nothing_left_behind():
        for make in (
            lambda: LARGE,
            lambda: io.BytesIO(LARGE),
            lambda: iter([LARGE] * 5),
            lambda: b"x" * 70_000,
        ):
            response = connection.post("/enough", make())
            assert (response.status_code, response.content) == (413, b"enough")
            assert untouched(connection)


def test_an_endless_body_ends_with_the_answer(connection: quicgreen.Connection) -> None:
    with gevent.Timeout(PATIENCE_S):
        response = connection.post("/enough", iter(lambda: LARGE[:100_000], None))
    assert (response.status_code, response.content) == (413, b"enough")


def test_a_handler_that_is_killed(connection: quicgreen.Connection) -> None:
    with pytest.raises(QuicStreamException) as caught:
        connection.get("/raise")
    assert (caught.value.cause, caught.value.wire_code) == ("reset", 0x102)
    assert untouched(connection)


@pytest.mark.parametrize(
    ("code", "kind", "cause"),
    [
        (0x100, QuicConnectionException, "closed-by-peer"),
        (0x0, QuicConnectionException, "closed-by-peer"),
        (0x102, QuicConnectionException, "closed-by-peer"),
        (0x107, QuicConnectionException, "closed-by-peer"),
        (0x105, QuicTransportException, "violation-here"),
    ],
)
def test_the_server_closes_the_connection(site: Site, code: int, kind: type, cause: str) -> None:
    """All that wait on it are told the same."""
    accepted: list[Any] = []

    def handle(session: Any) -> None:
        accepted.append(session)
        while (request := session.accept_request()) is not None:
            gevent.spawn(site, request)

    with nothing_left_behind(), serving(handle, sessions=True) as server:
        connection = connect(server)
        reading = connection.get("/begin", stream=True)
        assert reading.readinto(bytearray(10)) == 5
        jobs = [
            gevent.spawn(connection.get, "/silence"),
            gevent.spawn(connection.post, "/silence", LARGE[:70_000]),
            gevent.spawn(connection.post, "/unread", LARGE),
            gevent.spawn(reading.read),
        ]
        assert wait_until(lambda: counters()["requests_received"] >= 4)
        gevent.sleep(0.05)
        accepted[0].close(code, "enough of that")
        for job in jobs:
            with pytest.raises(kind, match="enough of that") as caught:
                job.get(timeout=PATIENCE_S)
            e = caught.value
            assert (e.cause, e.wire_code, e.remote, e.request_sent) == (cause, code, True, True)
        with pytest.raises(kind):
            connection.get("/hello")
        site.go_on.set()


# ---------------------------------------------------------------- the client gives it up


def test_a_response_that_is_closed_or_forgotten_is_refused(
    connection: quicgreen.Connection, site: Site
) -> None:
    def endless(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        try:
            while True:
                stream.write(LARGE[:100_000])
        except QuicStreamException as e:
            site.told.append((e.cause, e.wire_code))

    site.do_endless = endless
    with nothing_left_behind():
        for i, end in enumerate(
            (
                lambda r: r.close(),
                lambda r: r.__exit__(None, None, None),
                lambda r: None,
                lambda r: next(r.iter_bytes()) and None,
                lambda r: (r.readinto(bytearray(10)), r.close(), r.close()),
            )
        ):
            end(connection.get("/endless", stream=True))
            gc.collect()
            assert wait_until(lambda n=i + 1: len(site.told) == n)
            assert site.told[-1][0] == "stopped"
            assert untouched(connection)


def test_forgotten_responses_do_not_use_up_the_streams(connection: quicgreen.Connection) -> None:
    with nothing_left_behind():
        for _ in range(250):  # the server allows a hundred at a time
            assert connection.get("/size/20000", stream=True).status_code == 200
        gc.collect()
        assert untouched(connection)


def test_a_connection_need_not_wait_for_what_was_given_up(site: Site) -> None:
    """quiche keeps a stream whose response was stopped, and may do so for good."""
    with nothing_left_behind(), serving(site) as server:
        connection = connect(server)
        connection.get("/size/3000000", stream=True).close()
        with pytest.raises(QuicTimeoutException):
            connection.get("/silence", timeout=0.05)
        assert untouched(connection)
        with gevent.Timeout(PATIENCE_S):
            connection.close(timeout=60)
        assert connection.closing_error().cause == "closed-here"
        site.go_on.set()


# ---------------------------------------------------------------- before it is sent


@pytest.mark.parametrize("path", ["", "no-slash", "/a b", "/ü", "/a\n", "/a#b", "https://a/"], ids=repr)
def test_a_connection_refuses_what_is_no_path(connection: quicgreen.Connection, path: str) -> None:
    before = counters()["requests_sent"]
    with pytest.raises(QuicClientException) as caught:
        connection.get(path)
    assert caught.value.cause == "argument"
    assert counters()["requests_sent"] == before


def test_a_head_larger_than_the_server_takes(connection: quicgreen.Connection) -> None:
    for body in (None, b"x", LARGE):
        response = connection.post("/hello", body, headers={"x-large": "v" * 40_000})
        assert (response.status_code, response.content) == (431, b"")
        assert untouched(connection)
    with pytest.raises(QuicClientException):
        connection.get("/hello", headers={f"x-{i}": "v" * 50_000 for i in range(30)})
    assert untouched(connection)


def test_a_head_larger_than_the_client_takes() -> None:
    def large(request: quicgreen.Request) -> None:
        if request.path == "/":
            return hello(request)
        request.respond(200, {"x-large": "v" * 5000}, b"")

    config = QuicConfiguration(max_field_section_size=4096)
    with nothing_left_behind(), serving(large) as server, connect(server, config=config) as connection:
        with pytest.raises(QuicStreamException) as caught:
            connection.get("/large")
        assert caught.value.cause in ("head-too-large", "reset")
        assert connection.get("/").text == "hello"


def test_a_connection_without_http_has_no_requests() -> None:
    with serving(lambda c: c.accept_stream(), tls=server_tls(alpn=("raw",))) as server:
        with connect(server, alpn=("raw",)) as connection, pytest.raises(QuicClientException) as caught:
            connection.get("/")
        assert caught.value.cause == "state"


def test_goaway_lets_requests_under_way_finish_and_refuses_others(site: Site) -> None:
    with nothing_left_behind():
        server = make_server(site)
        server.start()
        connection = connect(server)
        held = gevent.spawn(connection.get, "/silence")
        reading = connection.get("/begin", stream=True)
        stopping = gevent.spawn(server.stop, PATIENCE_S)
        assert wait_until(lambda: connection.draining)
        gevent.sleep(0.1)  # until it was named which is the last
        for body in (None, LARGE):
            with pytest.raises(QuicStreamException, match="GOAWAY") as caught:
                connection.post("/hello", body)
            e = caught.value
            assert (e.cause, e.wire_code, e.request_sent) == ("refused", None, False)
        site.go_on.set()
        assert held.get(timeout=PATIENCE_S).text == "hello"
        assert reading.read() == b"beginend"
        stopping.get(timeout=PATIENCE_S)
        assert wait_until(lambda: connection.closed)
        assert connection.closing_error().cause == "closed-by-peer"


def test_exchanges_over_a_bad_line(site: Site) -> None:
    with (
        nothing_left_behind(),
        serving(site) as server,
        Link(server.address, seed=7, loss=0.03, burst=3, reorder=0.1) as link,
        quicgreen.connect("127.0.0.1", link.port, verify=False, timeout=30) as connection,
    ):
        jobs = [gevent.spawn(connection.post, "/echo", LARGE[: 1000 * i]) for i in range(1, 60, 3)]
        for i, job in zip(range(1, 60, 3), jobs, strict=True):
            assert job.get(timeout=30).content == LARGE[: 1000 * i]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("data", "json_", "expected"),
    [
        (None, None, (None, {})),
        (b"x", None, (b"x", {})),
        (None, {"a": 1}, (b'{"a":1}', {"content-type": "application/json"})),
        ({}, None, (b"", {"content-type": "application/x-www-form-urlencoded"})),
        (memoryview(b"x"), None, (b"x", {})),
    ],
)
def test_a_body_brings_its_fields(data: Any, json_: Any, expected: tuple[Any, dict[str, str]]) -> None:
    assert h3.encode_body(data, json_) == expected


def test_a_file_is_passed_on_as_it_is() -> None:
    for data in (io.BytesIO(b"x"), iter([]), [b"x"]):
        assert h3.encode_body(data, None)[0] is data
