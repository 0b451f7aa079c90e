"""A request body on its way, and the answer that may come before it is all sent. More of early answers is in
test_h3.py."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    Reader,
    hello,
    new_session,
    nothing_left_behind,
    reported,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import QuicStreamException, QuicTimeoutException, Timeout


@pytest.fixture
def session() -> Iterator[quicgreen.Session]:
    with new_session(timeout=PATIENCE_S) as session:
        yield session


def test_an_error_in_a_body_reaches_the_caller_and_resets_the_request(session: quicgreen.Session) -> None:
    failed: list[Any] = []
    reading = Event()

    def handle(request: quicgreen.Request) -> None:
        if request.method == "GET":
            return hello(request)
        try:
            reading.set()
            request.read()
        except QuicStreamException as e:
            failed.append((e.cause, e.wire_code))
            raise gevent.GreenletExit from None

    def body() -> Iterator[bytes]:
        yield b"x" * 10
        reading.wait(PATIENCE_S)
        raise ZeroDivisionError("mine")

    with serving(handle) as server:
        with pytest.raises(ZeroDivisionError, match="mine"):
            session.post(url_of(server), body())
        assert wait_until(lambda: failed)
        assert failed == [("reset", 0x10C)]
        assert session.get(url_of(server)).text == "hello"


def test_a_body_is_read_as_it_is_sent(session: quicgreen.Session) -> None:
    """Not all at once: a file of a gigabyte must not be in memory."""
    go_on = Event()

    def handle(request: quicgreen.Request) -> None:
        go_on.wait()
        request.respond(200, None, str(sum(map(len, request.iter_bytes()))))

    source = Reader(bytes(8 << 20))
    with serving(handle) as server:
        job = gevent.spawn(session.post, url_of(server), source)
        assert wait_until(lambda: source.reads > 3)
        wait_until(lambda: source.reads > 60, 0.2)
        assert len(source.data) > 4 << 20
        go_on.set()
        assert job.get(timeout=20).text == str(8 << 20)


def test_who_answers_as_he_reads_and_who_reads_as_he_sends_do_not_wait_for_each_other(
    session: quicgreen.Session,
) -> None:
    """More than all windows hold, both ways: the response is read while the body is still being sent."""

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, request.iter_bytes())

    piece = bytes(range(256)) * 256
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(400):
            sent += len(piece)
            yield piece

    with nothing_left_behind(), serving(handle) as server:
        response = session.post(url_of(server), body(), stream=True)
        assert sent < 400 * len(piece)
        assert sum(map(len, response.iter_bytes())) == sent == 400 * len(piece)


def test_the_answers_time_begins_when_the_body_is_sent(session: quicgreen.Session) -> None:
    def handle(request: quicgreen.Request) -> None:
        request.read()
        if request.path == "/never":
            gevent.sleep(60)
        request.respond(200, None, "done")

    def slow() -> Iterator[bytes]:
        for _ in range(4):
            gevent.sleep(0.1)
            yield b"piece"

    with nothing_left_behind(), serving(handle) as server:
        limit = Timeout(read=0.3)
        assert session.post(url_of(server), slow(), timeout=limit).text == "done"
        with pytest.raises(QuicTimeoutException, match=r"no response in 0\.3 s") as caught:
            session.post(url_of(server, "/never"), slow(), timeout=limit)
        assert caught.value.request_sent
        assert session.get(url_of(server)).text == "done"


@pytest.mark.parametrize("end", ["close", "forget", "kill"])
def test_what_is_given_up_is_read_no_further(session: quicgreen.Session, end: str) -> None:
    """The sender goes with the response, or with the greenlet that waits for it."""
    go_on = Event()

    def handle(request: quicgreen.Request) -> None:
        if end != "kill":
            request.start_response(200).write(b"early")
        go_on.wait(PATIENCE_S)

    source = Reader(bytes(64 << 20))
    with nothing_left_behind(), serving(handle) as server:
        job = gevent.spawn(session.post, url_of(server), source, stream=True)
        if end == "kill":
            assert wait_until(lambda: source.reads > 3)
            job.kill()
        else:
            response = job.get(timeout=PATIENCE_S)
            assert response.readinto(bytearray(5)) == 5
            if end == "close":
                response.close()
            del response, job
            gc.collect()
        go_on.set()
        reads = -1

        def stands_still() -> bool:
            nonlocal reads
            before, reads = reads, source.reads
            gevent.sleep(0.05)
            return before == reads

        assert wait_until(stands_still)
        assert len(source.data) > 0


def test_a_body_that_fails_after_the_answer_came_resets_the_request(session: quicgreen.Session) -> None:
    go_on = Event()
    failed: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        stream.write(b"early")
        try:
            request.read()
        except QuicStreamException as e:
            failed.append((e.cause, e.wire_code))
            raise gevent.GreenletExit from None

    def body() -> Iterator[bytes]:
        yield b"x"
        go_on.wait(PATIENCE_S)
        raise ZeroDivisionError("mine")

    with nothing_left_behind(), serving(handle) as server, reported() as errors:
        response = session.post(url_of(server), body(), stream=True)
        assert response.readinto(bytearray(5)) == 5
        go_on.set()
        assert wait_until(lambda: failed)
        assert failed == [("reset", 0x10C)]
        assert [type(e) for _, e in errors] == [ZeroDivisionError]  # nobody else can be told
        response.close()


def test_trailers_end_an_upload_that_goes_on(session: quicgreen.Session) -> None:
    """They are the server's last word: it reads no further, and who sends must not wait for it."""

    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        stream.write(b"enough")
        stream.send_trailers([("x-end", "1")])

    with nothing_left_behind(), serving(handle) as server:
        response = session.post(url_of(server), Reader(bytes(64 << 20)), stream=True)
        assert response.content == b"enough"
        assert response.trailers is not None
        assert response.trailers["x-end"] == "1"
        del response
        gc.collect()
