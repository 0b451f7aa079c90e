"""When a request goes out twice, and when its caller is told instead. What was certainly not processed is
test_pool.py's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from gevent.event import Event
from support import (
    PATIENCE_S,
    TESTS,
    counters,
    make_server,
    new_session,
    nothing_left_behind,
    serving,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import Limits, QuicConfiguration, QuicConnectionException, QuicException
from quicgreen._contexts import Keys
from quicgreen.testing import Link


class Site:
    """A handler that keeps what it was asked, and answers with it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, request: quicgreen.Request) -> None:
        body = request.read()
        self.seen.append(request.method)
        request.respond(200, None, body or request.path)


@contextlib.contextmanager
def forgotten(
    site: Site, *, keys: bool, **options: Any
) -> Iterator[tuple[quicgreen.Session, str, Callable[[], None]]]:
    """(session, URL, what makes the server forget all connections): its goodbye does not arrive, and it is
    started anew. With its keys it can tell clients so, else it is silent."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(new_session(timeout=PATIENCE_S, **options))
        first = Keys()
        server = make_server(site, keys=first)
        server.start()
        stack.callback(server.stop, timeout=0)
        link = stack.enter_context(Link(server.address))

        def forget() -> None:
            link.blackhole()
            server.stop(timeout=0)
            assert wait_until(lambda: link.counters().to_client.dropped > 0)  # the goodbye
            stack.enter_context(serving(site, server.address, keys=first if keys else Keys()))
            link.blackhole(False)

        yield session, f"https://127.0.0.1:{link.port}", forget


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_connection_that_died_while_it_rested_is_replaced_unseen(method: str) -> None:
    site = Site()
    with nothing_left_behind(), forgotten(site, keys=True) as (session, url, forget):
        first = session.get(url).connection
        forget()
        response = session.request(method, url, data=b"body" if method == "PUT" else None)
        assert response.status_code == 200
        assert response.connection is not first
        assert first.closing_error().cause == "lost"
        assert site.seen == ["GET", method]


def test_fifty_that_find_it_dead_at_a_time() -> None:
    site = Site()
    with nothing_left_behind(), forgotten(site, keys=True) as (session, url, forget):
        session.get(url)
        forget()
        jobs = [gevent.spawn(session.get, f"{url}/{i}") for i in range(50)]
        assert [job.get(timeout=PATIENCE_S).text for job in jobs] == [f"/{i}" for i in range(50)]
        assert len(site.seen) == 51


def test_those_that_rested_beside_it_are_replaced_too() -> None:
    site = Site()
    limits = Limits(max_streams=1)
    with nothing_left_behind(), forgotten(site, keys=True, limits=limits) as (session, url, forget):
        old = {job.get().connection for job in [gevent.spawn(session.get, url) for _ in range(4)]}
        assert len(old) > 1
        forget()
        assert session.get(url).connection not in old
        assert wait_until(lambda: all(connection.closed for connection in old))
        assert len(session._pool.origins[url[8:]].connections) == 1


def test_a_server_that_is_silent_is_found_out_by_the_idle_timeout() -> None:
    site = Site()
    config = QuicConfiguration(max_idle_ms=400)
    with nothing_left_behind(), forgotten(site, keys=False, config=config) as (session, url, forget):
        first = session.get(url).connection
        forget()
        assert session.get(f"{url}/again").text == "/again"
        assert first.closing_error().cause == "idle-timeout"


@pytest.mark.parametrize(
    ("method", "make"), [("POST", lambda: b"x"), ("PATCH", lambda: None), ("PUT", lambda: iter([b"x"]))]
)
def test_what_may_not_be_done_twice_or_cannot_be_is_told(method: str, make: Callable[[], Any]) -> None:
    site = Site()
    with nothing_left_behind(), forgotten(site, keys=True) as (session, url, forget):
        session.get(url)
        forget()
        with pytest.raises(QuicConnectionException) as caught:
            session.request(method, url, data=make())
        assert caught.value.cause == "lost"
        assert site.seen == ["GET"]
        assert session.request(method, url, data=b"x").text == "x"


class Closing:
    """A handler that answers `times` requests, and then closes connections instead."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.count = 0

    def __call__(self, request: quicgreen.Request) -> None:
        self.count += 1
        if self.count > self.times:
            request._engine.conn_close(request._record[4], True, 0x100, b"enough")
        else:
            request.respond(200)


def test_what_fails_again_is_told() -> None:
    handle = Closing(1)
    with nothing_left_behind(), serving(handle) as server, new_session(timeout=PATIENCE_S) as session:
        session.get(url_of(server))
        with pytest.raises(QuicConnectionException) as caught:
            session.get(url_of(server))
        assert (caught.value.cause, caught.value.request_sent) == ("closed-by-peer", True)
        assert handle.count == 3


def test_a_new_connection_that_ends_is_told() -> None:
    """Here the request itself may be why."""
    handle = Closing(0)
    with nothing_left_behind(), serving(handle) as server, new_session(timeout=PATIENCE_S) as session:
        with pytest.raises(QuicConnectionException) as caught:
            session.get(url_of(server))
        assert caught.value.request_sent
        assert handle.count == 1


def test_a_connection_that_has_just_answered_is_not_dead() -> None:
    handle = Closing(3)
    held: list[quicgreen.Request] = []
    done = Event()

    def site(request: quicgreen.Request) -> None:
        if request.path == "/held":
            held.append(request)
            done.wait()
        else:
            handle(request)

    with nothing_left_behind(), serving(site) as server, new_session(timeout=PATIENCE_S) as session:
        session.get(url_of(server))
        waits = gevent.spawn(session.get, url_of(server, "/held"))
        assert wait_until(lambda: held)
        session.get(url_of(server))
        session.get(url_of(server))
        with pytest.raises(QuicException):
            session.get(url_of(server))
        with pytest.raises(QuicConnectionException):
            waits.get(timeout=PATIENCE_S)
        assert (handle.count, len(held)) == (4, 1)
        done.set()


FROZEN = """
import sys, gevent, quicgreen
from gevent import socket
url, way = sys.argv[1:]
config = quicgreen.QuicConfiguration(max_idle_ms=400)
with quicgreen.Session(verify=False, config=config, timeout=30) as session:
    first = session.get(url).connection
    print("ready", flush=True)
    if way == "waiting":
        socket.wait_read(0)
    sys.stdin.readline()
    second = session.get(url + "again").connection
    print(first is second, first.closed, second.is_resumed, flush=True)
"""


@pytest.mark.parametrize("way", ["waiting", "blocking"])
def test_a_process_that_was_frozen_goes_on(way: str) -> None:
    """As between two calls of a function in a container. While it stood still its connection ended; whether
    it knows, because its hub ran first, or finds out with its request, makes no difference."""
    site = Site()
    with serving(site) as server:
        before = counters()["connections_closed"]
        child = subprocess.Popen(
            [sys.executable, "-c", FROZEN, url_of(server), way],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(TESTS)},
        )  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with gevent.Timeout(30):
                gevent_socket.wait_read(child.stdout.fileno())
                assert child.stdout.readline() == b"ready\n"
                child.send_signal(signal.SIGSTOP)
                assert wait_until(lambda: counters()["connections_closed"] > before)
                child.send_signal(signal.SIGCONT)
                child.stdin.write(b"\n")
                child.stdin.flush()
                gevent_socket.wait_read(child.stdout.fileno())
                assert child.stdout.readline() == b"False True True\n"
            assert gevent.get_hub().threadpool.apply(child.wait, (20,)) == 0
        finally:
            child.kill()
            child.communicate()
    assert site.seen == ["GET", "GET"]
