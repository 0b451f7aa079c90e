"""A request whose response nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import Gate, connect, echo, hello, nothing_left_behind, reported, serving, wait_until

import quicgreen
from quicgreen import fields, h3
from quicgreen.configuration import Timeout
from quicgreen.exceptions import QuicWarningPartialData
from quicgreen.outstanding import Outstanding

LIMIT = Timeout(20)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    with nothing_left_behind():
        yield


def head_of(connection: quicgreen.Connection, method: str, path: str) -> bytes:
    return h3.head_prefix(method, connection.authority) + fields.path_line(path)


def begin(
    connection: quicgreen.Connection, path: str = "/", body: Any = None, limit: Timeout = LIMIT
) -> Outstanding:
    method = "GET" if body is None else "POST"
    o = Outstanding(connection, method, path, limit)
    o.send(head_of(connection, method, path), body, None, None)
    return o


def finished(o: Outstanding, limit: int = 1 << 30) -> bytes:
    assert wait_until(lambda: o.collect(limit), 20)
    return o.body()


def test_it_is_asked_for_and_there_or_not() -> None:
    gate = Gate()
    with serving(gate) as server, connect(server) as c:
        o = begin(c)
        assert (o.status, o.collect(100), o.take()) == (None, False, None)
        assert wait_until(lambda: gate.running)
        gate.event.set()
        assert finished(o) == b"/"
        assert (o.status, o.headers["content-length"], o.trailers) == (200, "1", None)


@pytest.mark.parametrize("size", [0, 10, 65536, 65537, 2_000_000])
def test_bodies_both_ways(size: int) -> None:
    with serving(echo) as server, connect(server) as c:
        assert finished(begin(c, body=b"x" * size)) == b"x" * size


def test_an_iterable_is_a_body() -> None:
    with serving(echo) as server, connect(server) as c:
        assert finished(begin(c, body=iter([b"one ", b"two"]))) == b"one two"


def test_a_body_that_cannot_be_read_fails_the_request() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise OSError("the disk")

    with serving(echo) as server, connect(server) as c:
        o = begin(c, body=broken())
        assert wait_until(lambda: o.failure is not None)
        with pytest.raises(OSError, match="the disk"):
            o.collect(100)
        assert c.get().status_code == 200


def test_taking_is_piece_by_piece() -> None:
    def answer(request: quicgreen.Request) -> None:
        request.respond(200, None, iter([b"a" * 100_000, b"b" * 100_000]))

    with serving(answer) as server, connect(server) as c:
        o = begin(c)
        got = b""
        while (piece := o.take()) != b"":
            got += piece or b""
            if piece is None:
                gevent.sleep(0.002)
        assert got == b"a" * 100_000 + b"b" * 100_000
        assert o.take() == b""


def test_what_was_collected_is_taken_first() -> None:
    with serving(echo) as server, connect(server) as c:
        o = begin(c, body=b"x" * 300_000)
        assert wait_until(lambda: o.collect(1 << 20) or o._pieces)
        got = b""
        while (piece := o.take()) != b"":
            got += piece or b""
            if piece is None:
                gevent.sleep(0.002)
        assert len(got) == 300_000
        small = begin(c)
        assert wait_until(lambda: small.status is not None)
        assert [small.take(), small.take(), small.body()] == [b"", b"", b""]


def test_nothing_is_read_that_nobody_asks_for() -> None:
    """The engine keeps it, which is the back-pressure."""
    sent = []

    def answer(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        for _ in range(300 if request.path == "/large" else 0):
            sent.append(stream.write(b"x" * 65536))
        stream.finish()

    with reported(), serving(answer) as server, connect(server) as c:
        o = begin(c, "/large")
        assert wait_until(lambda: o.status is not None)
        gevent.sleep(0.2)
        assert sum(sent) < 8 << 20
        o.give_up()
        assert c.get("/").status_code == 200
        assert len(sent) < 300


def test_a_limit() -> None:
    with serving(echo) as server, connect(server) as c:
        for size in (101, 100_000):
            o = begin(c, body=b"x" * size)
            with pytest.raises(quicgreen.QuicStreamException, match="more than 100 bytes"):
                finished(o, 100)
        assert finished(begin(c, body=b"x" * 100), 100) == b"x" * 100


def test_a_deadline() -> None:
    gate = Gate()
    with serving(gate) as server, connect(server) as c:
        o = begin(c, limit=Timeout(None, 0.05, None, None))
        assert wait_until(lambda: o.failure is not None)
        with pytest.raises(quicgreen.QuicTimeoutException):
            o.collect(100)
        gate.event.set()


def test_a_body_that_stops_coming() -> None:
    go_on = Event()

    def answer(request: quicgreen.Request) -> None:
        request.start_response(200).write(b"some")
        go_on.wait()

    with reported(), serving(answer) as server, connect(server) as c:
        o = begin(c, limit=Timeout(None, 0.05, None, None))
        with pytest.raises(quicgreen.QuicTimeoutException):
            finished(o)
        go_on.set()


def test_a_body_that_is_too_short_is_warned_of_where_it_is_asked_for() -> None:
    def answer(request: quicgreen.Request) -> None:
        stream = request.start_response(200, {"content-length": "10"})
        stream.write(b"short")
        gevent.sleep(0.05)
        stream.finish()

    with serving(answer) as server, connect(server) as c:
        o = begin(c)
        assert wait_until(lambda: o.status is not None)
        with pytest.warns(QuicWarningPartialData), pytest.raises(quicgreen.QuicStreamException):
            finished(o)


def test_given_up_before_and_after_its_head() -> None:
    gate = Gate()
    with serving(gate) as server, connect(server) as c:
        before = begin(c)
        assert wait_until(lambda: gate.running == 1)
        before.give_up()
        before.give_up()
        gate.event.set()
        whole = begin(c)
        assert wait_until(lambda: whole.status is not None)
        whole.give_up()
        assert c.get().status_code == 200


def test_a_body_given_in_pieces() -> None:
    with serving(echo) as server, connect(server) as c:
        o = Outstanding(c, "POST", "/", LIMIT)
        o.open(head_of(c, "POST", "/"))
        assert o.sending
        assert o.write(b"one ") == 4
        assert o.collect(100) is False
        o.write(memoryview(b"two"))
        o.finish()
        assert not o.sending
        assert finished(o) == b"one two"
        with pytest.raises(quicgreen.QuicStreamException, match="has ended"):
            o.write(b"more")
        o.end()


def test_an_answer_before_the_body_s_end_ends_the_request() -> None:
    def answer(request: quicgreen.Request) -> None:
        request.respond(413, None, b"enough")

    with serving(answer) as server, connect(server) as c:
        o = Outstanding(c, "POST", "/", LIMIT)
        o.open(head_of(c, "POST", "/"))
        o.write(b"x")
        assert finished(o) == b"enough"
        o.end()
        assert not o.sending
        assert c.get().status_code == 413


def test_the_connection_ends() -> None:
    gate = Gate()
    with serving(gate) as server, connect(server) as c:
        o = begin(c)
        assert wait_until(lambda: gate.running)
        c.close(0)
        with pytest.raises(quicgreen.QuicConnectionException):
            wait_until(lambda: o.collect(100))
        gate.event.set()


def test_whoever_is_told_is_told_in_the_hub() -> None:
    class Told(Outstanding):
        calls = 0

        def _tell(self) -> None:
            self.calls += 1
            assert gevent.getcurrent() is gevent.get_hub()

    with serving(hello) as server, connect(server) as c:
        o = Told(c, "GET", "/", LIMIT)
        o.send(head_of(c, "GET", "/"), None, None, None)
        assert finished(o) == b"hello"
        assert o.calls == 1
