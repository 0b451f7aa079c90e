"""A stream: bytes both ways, what stops them, and who may do what at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult
from support import (
    PATIENCE_S,
    connect,
    connect_raw,
    counters,
    nothing_left_behind,
    serving,
    serving_raw,
    turn_loop,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicException,
    QuicStreamException,
    QuicTimeoutException,
    Stream,
    _engine,
)
from quicgreen.stream import stream_error

LARGE = bytes(range(256)) * 16_000  # 4 MB: more than all windows at the start


class Pair:
    """Both ends of a stream: ours, and the one that the server accepted."""

    def __init__(self, mine: Stream, theirs: Stream, connection: quicgreen.Connection) -> None:
        self.mine = mine
        self.theirs = theirs
        self.connection = connection


@pytest.fixture
def open_pair() -> Iterator[Callable[[], Pair]]:
    waiting: list[AsyncResult] = []

    def handle(connection: Any) -> None:
        while (stream := connection.accept_stream()) is not None:
            waiting.pop(0).set(stream)

    def opened() -> Pair:
        result = AsyncResult()
        waiting.append(result)
        mine = connection.open_stream(timeout=PATIENCE_S)
        mine.write(b"!")
        theirs = result.get(timeout=PATIENCE_S)
        theirs.timeout = PATIENCE_S
        assert theirs.read(1) == b"!"
        return Pair(mine, theirs, connection)

    with serving_raw(handle) as server:
        connection = connect_raw(server)
        yield opened
        connection.close(0)  # at once: a stream that was not ended would be waited for


@pytest.fixture
def pair(open_pair: Callable[[], Pair]) -> Pair:
    return open_pair()


def later(function: Callable[..., Any], *arguments: Any) -> gevent.Greenlet:
    """Begin, and come back when it waits."""
    job = gevent.spawn(function, *arguments)
    turn_loop()
    assert not job.ready()
    return job


# ---------------------------------------------------------------- bytes


def test_bytes_go_both_ways(pair: Pair) -> None:
    assert pair.mine.write(b"ping") == 4
    assert pair.theirs.read(100) == b"ping"
    assert pair.theirs.write(b"pong") == 4
    assert pair.mine.read(100) == b"pong"
    assert repr(pair.mine) == "<Stream 0 (raw)>"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_written_whole(pair: Pair, kind: Any) -> None:
    reading = gevent.spawn(pair.theirs.read)
    assert pair.mine.write(kind(LARGE)) == len(LARGE)
    pair.mine.finish(kind(b"end"))
    assert reading.get(timeout=20) == LARGE + b"end"


def test_large_bodies_cross_each_other(pair: Pair) -> None:
    jobs = [gevent.spawn(s.read) for s in (pair.mine, pair.theirs)]
    jobs += [gevent.spawn(s.finish, LARGE) for s in (pair.mine, pair.theirs)]
    gevent.joinall(jobs, timeout=20, raise_error=True)
    assert jobs[0].value == jobs[1].value == LARGE


def test_a_read_returns_what_is_there(pair: Pair) -> None:
    pair.mine.write(b"abcdef")
    assert pair.theirs.read(4) == b"abcd"
    assert pair.theirs.read(0) == b""
    assert pair.theirs.read(4) == b"ef"
    reading = later(pair.theirs.read, 4)
    pair.mine.write(b"g")
    assert reading.get(timeout=PATIENCE_S) == b"g"


def test_readinto_writes_into_the_buffer_and_not_beyond(pair: Pair) -> None:
    pair.mine.write(b"abcdef")
    buffer = bytearray(b"....")
    assert wait_until(lambda: pair.connection.stats()["acked_bytes"] > 0)
    assert pair.theirs.readinto(memoryview(buffer)[1:3]) == 2
    assert buffer == b".ab."
    assert pair.theirs.readinto(bytearray(0)) == 0
    with pytest.raises((TypeError, BufferError, ValueError)):
        pair.theirs.readinto(b"read-only")
    assert pair.theirs.read(10) == b"cdef"


def test_one_half_closes_and_the_other_goes_on(pair: Pair) -> None:
    pair.mine.finish(b"request")
    assert pair.theirs.read() == b"request"
    assert pair.theirs.read() == pair.theirs.read(1) == b""
    assert pair.theirs.readinto(bytearray(5)) == 0
    pair.theirs.write(b"answer ")
    assert pair.mine.read(100) == b"answer "
    pair.theirs.finish(b"and end")
    assert pair.mine.read() == b"and end"


def test_nothing_is_written_after_the_end(pair: Pair) -> None:
    pair.mine.finish()
    pair.mine.finish()
    for data in (b"x", b""):
        with pytest.raises(QuicStreamException) as caught:
            pair.mine.write(data)
        assert caught.value.cause == "stream-gone"
    assert pair.theirs.read() == b""


def test_a_limit_is_kept(pair: Pair) -> None:
    writing = gevent.spawn(pair.mine.write, LARGE)
    with pytest.raises(QuicStreamException, match="more than 100000 bytes") as caught:
        pair.theirs.read(limit=100_000)
    assert caught.value.cause == "body-too-large"
    with pytest.raises(QuicStreamException) as stopped:
        writing.get(timeout=PATIENCE_S)
    assert stopped.value.cause == "stopped"


def test_many_streams_do_not_mix(open_pair: Callable[[], Pair]) -> None:
    pairs = [open_pair() for _ in range(50)]
    jobs = [gevent.spawn(p.theirs.read) for p in pairs]
    for i, p in enumerate(pairs):
        gevent.spawn(p.mine.finish, b"%d " % i * (1 + i * 500))
    for i, job in enumerate(jobs):
        assert job.get(timeout=20) == b"%d " % i * (1 + i * 500)
    for p in pairs:
        p.theirs.finish()
        assert p.mine.read() == b""


# ---------------------------------------------------------------- ends that are no ends


@pytest.mark.parametrize("code", [0, 1, 0x10B, 0x10C, (1 << 62) - 1])
def test_a_reset_is_told_to_the_reader(pair: Pair, code: int) -> None:
    reading = later(pair.theirs.read, 10)
    pair.mine.reset(code)
    with pytest.raises(QuicStreamException, match=f"code {code}") as caught:
        reading.get(timeout=PATIENCE_S)
    assert (caught.value.cause, caught.value.wire_code, caught.value.remote) == ("reset", code, True)
    with pytest.raises(QuicStreamException):
        pair.mine.write(b"x")
    # The other direction is not touched.
    pair.theirs.finish(b"still")
    assert pair.mine.read() == b"still"


@pytest.mark.parametrize("code", [0, 1, 0x100, 0x10C, (1 << 62) - 1])
def test_a_stop_is_told_to_the_writer(pair: Pair, code: int) -> None:
    writing = later(pair.theirs.write, LARGE)
    pair.mine.stop(code)
    with pytest.raises(QuicStreamException, match=f"code {code}") as caught:
        writing.get(timeout=PATIENCE_S)
    assert (caught.value.cause, caught.value.wire_code, caught.value.remote) == ("stopped", code, True)
    assert pair.mine.read() == b""
    with pytest.raises(QuicStreamException):
        pair.theirs.write(b"x")
    pair.mine.finish(b"still")
    assert pair.theirs.read() == b"still"


def test_a_stop_while_nobody_writes_is_told_to_the_next_who_does(pair: Pair) -> None:
    pair.mine.stop(0x33)

    def stopped() -> bool:
        try:
            pair.theirs.write(b"x")
        except QuicStreamException as e:
            return (e.cause, e.wire_code) == ("stopped", 0x33)
        return False

    assert wait_until(stopped)


@pytest.mark.parametrize("code", [-1, 1 << 62, 1 << 64, "1"], ids=repr)
@pytest.mark.parametrize("end", ["reset", "stop"])
def test_what_is_no_code_is_refused(pair: Pair, end: str, code: Any) -> None:
    with pytest.raises(QuicClientException) as caught:
        getattr(pair.mine, end)(code)
    assert caught.value.cause == "argument"
    pair.mine.write(b"x")
    assert pair.theirs.read(1) == b"x"
    pair.theirs.write(b"y")
    assert pair.mine.read(1) == b"y"


def test_released_streams_leave_nothing(open_pair: Callable[[], Pair]) -> None:
    before = counters()["streams"]
    for finished in (True, False):
        pair = open_pair()
        pair.theirs.write(b"unread" * 1000)
        if finished:
            pair.mine.finish()
        pair.mine.release()
        pair.mine.release()
        assert pair.mine.read() == b""
        with pytest.raises(QuicStreamException):
            pair.mine.write(b"x")
        if finished:
            assert pair.theirs.read() == b""
        else:
            with pytest.raises(QuicStreamException) as caught:
                pair.theirs.read()
            assert caught.value.cause == "reset"
        pair.theirs.release()
        assert wait_until(lambda: counters()["streams"] == before)


# ---------------------------------------------------------------- deadlines


def test_a_read_has_its_deadline(pair: Pair) -> None:
    pair.mine.timeout = 0.1
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(QuicTimeoutException, match="reading stream 0, after") as caught:
            pair.mine.read(10)
        assert time.monotonic() - started >= 0.09
        assert caught.value.cause == "deadline"
    # Nothing is lost by it: what comes later can be read.
    pair.theirs.write(b"late")
    assert pair.mine.read(10) == b"late"


def test_a_write_has_its_deadline(pair: Pair) -> None:
    pair.mine.timeout = 0.1
    with pytest.raises(QuicTimeoutException, match="writing stream 0, after"):
        pair.mine.write(LARGE)
    pair.theirs.write(b"still there")
    assert pair.mine.read(100) == b"still there"


def test_the_deadline_is_for_each_piece(pair: Pair) -> None:
    pair.mine.timeout = 0.5
    for _ in range(4):
        gevent.spawn_later(0.2, pair.theirs.write, b"x")
        assert pair.mine.read(1) == b"x"


def test_without_a_deadline_it_waits(pair: Pair) -> None:
    pair.mine.timeout = None
    reading = later(pair.mine.read, 1)
    gevent.sleep(0.2)
    assert not reading.ready()
    pair.theirs.write(b"x")
    assert reading.get(timeout=PATIENCE_S) == b"x"


# ---------------------------------------------------------------- who may


def test_one_reads_and_another_one_writes(pair: Pair) -> None:
    reading = later(pair.mine.read, 5)
    writing = gevent.spawn(pair.mine.write, LARGE)
    got = gevent.spawn(pair.theirs.read)
    pair.theirs.write(b"reply")
    assert reading.get(timeout=PATIENCE_S) == b"reply"
    assert writing.get(timeout=20) == len(LARGE)
    pair.mine.finish()
    assert got.get(timeout=20) == LARGE


@pytest.mark.parametrize("what", ["read", "write"])
def test_two_of_a_kind_are_an_error_for_the_second(pair: Pair, what: str) -> None:
    use = (lambda: pair.mine.read(1)) if what == "read" else (lambda: pair.mine.write(LARGE))
    first = later(use)
    with pytest.raises(QuicClientException, match="another greenlet does the same") as caught:
        use()
    assert caught.value.cause == "state"
    if what == "read":
        pair.theirs.write(b"x")
        assert first.get(timeout=PATIENCE_S) == b"x"
        pair.theirs.write(b"y")
        assert pair.mine.read(1) == b"y"
    else:
        reading = gevent.spawn(pair.theirs.read)
        assert first.get(timeout=20) == len(LARGE)
        pair.mine.finish()
        assert reading.get(timeout=20) == LARGE


@pytest.mark.parametrize("what", ["read", "write"])
@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_who_is_cut_short_may_come_back(pair: Pair, what: str, how: str) -> None:
    use = (lambda: pair.mine.read(1)) if what == "read" else (lambda: pair.mine.write(LARGE))
    targets = len(quicgreen.hub.current().targets)
    if how == "kill":
        later(use).kill()
    else:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            use()
    assert len(quicgreen.hub.current().targets) == targets
    if what == "read":
        pair.theirs.write(b"x")
        assert pair.mine.read(1) == b"x"
    else:
        reading = gevent.spawn(pair.theirs.read)
        pair.mine.finish(b"end")
        got = reading.get(timeout=20)
        assert got.endswith(b"end")
        assert LARGE.startswith(got[:-3])


# ---------------------------------------------------------------- with HTTP


def test_trailers_end_a_message_both_ways() -> None:
    seen: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        body = request.read()
        seen.append((body, request.trailers.multi_items() if request.trailers else None))
        stream = request.start_response(200)
        stream.write(b"body")
        stream.send_trailers([("x-a", "1"), ("x-a", "2")])
        with pytest.raises(QuicException):
            stream.write(b"after the end")

    with nothing_left_behind(), serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        stream = response.stream
        assert stream.kind == "h3"
        assert response.read() == b"body"
        assert response.trailers.get_list("x-a") == ["1", "2"]
        assert connection.post("/", b"x").content == b"body"
        assert seen == [(b"", None), (b"x", None)]


def test_trailers_that_cannot_be_are_refused() -> None:
    failed: list[str] = []

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        for bad in ({":status": "200"}, {"x\n": "1"}, {"x-a": object()}):
            try:
                stream.send_trailers(bad)
                failed.append("nothing")
            except QuicClientException as e:
                failed.append(e.cause)
        stream.finish(b"body")

    with serving(handle) as server, connect(server) as connection:
        assert connection.get("/").content == b"body"
    assert failed == ["argument"] * 3


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("result", "code", "cause", "remote"),
    [
        (_engine.RESET, 0x102, "reset", True),
        (_engine.STOPPED, 0x100, "stopped", True),
        (_engine.REFUSED, 0x10B, "refused", True),
        (_engine.PROTOCOL, 0x10E, "malformed", False),
        (_engine.SHORT, 0x10E, "body-too-short", False),
        (_engine.TOO_LARGE, 0, "head-too-large", False),
        (_engine.CLOSED, 0, "closed-here", False),
        (_engine.GONE, 0, "stream-gone", False),
        (_engine.STATE, 0, "state", False),
        (_engine.NOMEM, 0, "memory", False),
        (_engine.LIMIT, 0, "limit", False),
        (_engine.FORKED, 0, "fork", False),
        (-99, 0, "engine", False),
    ],
)
def test_the_cause_of_a_failure(result: int, code: int, cause: str, remote: bool) -> None:
    e = stream_error(-result, code)
    assert (e.cause, e.remote) == (cause, remote)
    assert e.wire_code == (code if remote else None)
    assert e.request_sent is (cause != "refused")
