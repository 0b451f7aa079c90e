"""Which connection a request goes on, how many there are, who waits, in which order and for how long; what
is sent again, and what becomes of all that when it is cut short."""

from __future__ import annotations

import contextlib
import gc
import io
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event
from helpers.processes import Peer
from support import (
    PATIENCE_S,
    check_python,
    counters,
    hello,
    make_server,
    new_session,
    nothing_left_behind,
    serving,
    turn_loop,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import (
    Limits,
    QuicClientException,
    QuicConfiguration,
    QuicConnectionException,
    QuicException,
    QuicSocketException,
    QuicStreamException,
    QuicTimeoutException,
    Timeout,
)
from quicgreen._contexts import Keys
from quicgreen.testing import Certificate, Link


class Gate:
    """A handler whose requests wait until they are let go; keeps their paths in the order they came."""

    def __init__(self) -> None:
        self.held: list[Event] = []
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.open = False

    def __call__(self, request: quicgreen.Request) -> None:
        self.paths.append(request.path)
        self.bodies.append(request.read())
        if not self.open:
            turn = Event()
            self.held.append(turn)
            turn.wait()
        request.respond(200, None, request.path)

    def let_go(self, count: int) -> None:
        for turn in self.held[:count]:
            turn.set()
        del self.held[:count]

    def let_all_go(self) -> None:
        self.open = True
        self.let_go(len(self.held))


def limited(max_connections: int = 100, max_streams: int = 100, **options: Any) -> quicgreen.Session:
    limits = Limits(max_connections, max_streams)
    return new_session(**{"limits": limits, "timeout": PATIENCE_S, **options})


def opened() -> int:
    return counters()["connections_opened"]


@contextlib.contextmanager
def black_hole(ip: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that takes everything and never answers."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.bind((ip, port))
        yield s.getsockname()[1]


def resolving(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Names have the addresses that `answer` says."""

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM, 17, "", (ip, port))
            for ip in answer(host)
        ]

    monkeypatch.setattr(gevent.socket, "getaddrinfo", getaddrinfo)


# ---------------------------------------------------------------- how many connections


def test_requests_share_a_connection() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited() as session:
        before = opened()
        jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(100)]
        assert wait_until(lambda: len(gate.held) == 100)
        gate.let_all_go()
        responses = [job.get(timeout=PATIENCE_S) for job in jobs]
        assert [r.text for r in responses] == [f"/{i}" for i in range(100)]
        assert opened() == before + 1


def test_a_full_connection_has_another_one_opened() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited(max_streams=3) as session:
        jobs = [gevent.spawn(session.get, url_of(server)) for _ in range(10)]
        assert wait_until(lambda: len(gate.held) == 10)
        gate.let_all_go()
        shares = Counter(job.get(timeout=PATIENCE_S).connection for job in jobs)
        assert sorted(shares.values()) == [1, 3, 3, 3]
        # Later ones find room on those that are there.
        before = opened()
        again = [session.get(url_of(server)).connection for _ in range(10)]
        assert opened() == before
        assert set(again) <= set(shares)


def test_a_response_that_is_not_read_keeps_its_place() -> None:
    def large(request: quicgreen.Request) -> None:
        request.respond(200, None, [b"x" * 1_000_000])

    with nothing_left_behind(), serving(large) as server, limited(1, 2, timeout=(5, 0.1)) as session:
        url = url_of(server)
        first, second = (session.get(url, stream=True) for _ in range(2))
        with pytest.raises(QuicTimeoutException) as caught:
            session.get(url, timeout=Timeout(pool=0.05))
        assert (caught.value.cause, caught.value.request_sent) == ("pool-timeout", False)
        first.close()
        third = session.get(url, stream=True, timeout=PATIENCE_S)
        second.read()
        with session.stream("GET", url, timeout=PATIENCE_S) as fourth:
            assert fourth.connection is third.connection
        del third  # forgotten: its place is free when it is collected
        gc.collect()
        assert session.get(url, timeout=PATIENCE_S).status_code == 200


def test_the_pool_never_has_more_connections_than_allowed() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited(2, 2) as session:
        before = opened()
        jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(20)]
        for done in range(0, 20, 4):
            assert wait_until(lambda: len(gate.held) == 4)
            turn_loop()
            assert len(gate.paths) == done + 4
            gate.let_go(4)
        assert sorted(job.get(timeout=PATIENCE_S).text for job in jobs) == sorted(f"/{i}" for i in range(20))
        assert opened() == before + 2


@pytest.mark.parametrize(
    "wrong",
    [{"max_connections": 0}, {"max_streams": 0}, {"max_connections": None}, {"max_streams": 1.5},
     {"keepalive_expiry": -1}, {"keepalive_expiry": "30"}],
    ids=repr,
)  # fmt: skip
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(QuicClientException) as caught:
        Limits(**wrong)
    assert caught.value.cause == "argument"


def test_an_unused_connection_makes_room_for_another_origin() -> None:
    with (
        nothing_left_behind(),
        serving(hello) as one,
        serving(hello) as two,
        limited(max_connections=1) as session,
    ):
        first = session.get(url_of(one)).connection
        second = session.get(url_of(two)).connection
        assert first is not second
        assert wait_until(lambda: first.closed)
        assert first.closing_error().cause == "closed-here"
        assert not second.closed
        assert session.get(url_of(two)).connection is second


def test_who_waits_for_another_origins_connection_gets_its_place() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as one, serving(hello) as two, limited(1) as session:
        holder = gevent.spawn(session.get, url_of(one))
        assert wait_until(lambda: len(gate.held) == 1)
        waiter = gevent.spawn(session.get, url_of(two))
        turn_loop()
        assert not waiter.ready()
        gate.let_all_go()
        assert holder.get(timeout=PATIENCE_S).text == "/"
        assert waiter.get(timeout=PATIENCE_S).text == "hello"


def test_many_origins_over_few_connections() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(nothing_left_behind())
        urls = [url_of(stack.enter_context(serving(hello))) for _ in range(8)]
        session = stack.enter_context(limited(3, 2))
        jobs = [gevent.spawn(session.get, urls[i % 8]) for i in range(160)]
        assert all(job.get(timeout=20).text == "hello" for job in jobs)
        assert session._pool._count <= 3
        assert not session._pool._queued


def test_what_the_server_allows_on_a_connection_is_kept_to() -> None:
    gate = Gate()
    config = QuicConfiguration(initial_max_streams_bidi=2)
    with nothing_left_behind(), serving(gate, config=config) as server, limited() as session:
        jobs = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(6)]
        for done in (2, 4, 6):
            assert wait_until(lambda: len(gate.held) == 2)
            turn_loop()
            assert len(gate.paths) == done
            gate.let_go(2)
        assert [job.get(timeout=PATIENCE_S).text for job in jobs] == [f"/{i}" for i in range(6)]


# ---------------------------------------------------------------- who waits


def test_waiters_are_served_in_order_and_nobody_overtakes_them() -> None:
    gate = Gate()
    url = "/{}"
    with nothing_left_behind(), serving(gate) as server, limited(1, 1) as session:
        get: Callable[[str], Any] = lambda name: session.get(url_of(server, url.format(name)))  # noqa: E731
        late: list[gevent.Greenlet] = []

        def first() -> None:
            get("first")
            # Runs as soon as the place is free, before those that wait are woken.
            late.append(gevent.spawn(get, "after"))
            get("again")

        jobs = [gevent.spawn(first)]
        assert wait_until(lambda: len(gate.held) == 1)
        for i in range(5):
            jobs.append(gevent.spawn(get, i))
            gevent.sleep(0)
        while len(gate.paths) < 8:
            assert wait_until(lambda: len(gate.held) == 1)
            gate.let_go(1)
        gevent.joinall(jobs + late, timeout=PATIENCE_S, raise_error=True)
        assert gate.paths == ["/first", "/0", "/1", "/2", "/3", "/4", "/again", "/after"]


def test_a_waiter_that_leaves_passes_its_turn_on() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited(1, 1) as session:
        holder = gevent.spawn(session.get, url_of(server, "/holder"))
        assert wait_until(lambda: len(gate.held) == 1)
        waiters = [gevent.spawn(session.get, url_of(server, f"/{i}")) for i in range(3)]
        turn_loop()
        # The first one is told that there is a place, and killed before it takes it.
        holder.link(lambda _: waiters[0].kill(block=False))
        waiters[1].kill()
        gate.let_go(1)
        assert holder.get(timeout=PATIENCE_S).text == "/holder"
        assert wait_until(lambda: gate.paths[-1] == "/2")
        gate.let_all_go()
        assert waiters[2].get(timeout=PATIENCE_S).text == "/2"


def test_a_pool_timeout_touches_nobody_else() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited(1, 1) as session:
        url = url_of(server)
        holder = gevent.spawn(session.get, url)
        assert wait_until(lambda: len(gate.held) == 1)
        patient = gevent.spawn(session.get, url)
        gevent.sleep(0)
        started = time.monotonic()
        hasty = [gevent.spawn(session.get, url, timeout=Timeout(pool=0.1)) for _ in range(3)]
        for job in hasty:
            with pytest.raises(QuicTimeoutException) as caught:
                job.get(timeout=PATIENCE_S)
            assert (caught.value.cause, caught.value.request_sent) == ("pool-timeout", False)
        assert time.monotonic() - started >= 0.09
        with pytest.raises(QuicTimeoutException):
            session.get(url, timeout=Timeout(pool=0))
        gate.let_all_go()
        assert holder.get(timeout=PATIENCE_S).text == patient.get(timeout=PATIENCE_S).text == "/"
        assert len(gate.paths) == 2


# ---------------------------------------------------------------- connections that end


def test_a_connection_that_was_closed_is_replaced_unseen() -> None:
    with nothing_left_behind(), serving(hello) as server, limited() as session:
        first = session.get(url_of(server)).connection
        first.close()
        second = session.get(url_of(server)).connection
        assert second is not first
        second.close(timeout=None)  # at once: it is under way
        assert session.get(url_of(server)).text == "hello"


def test_a_server_that_was_restarted_is_found_again() -> None:
    with nothing_left_behind(), limited() as session:
        with serving(hello) as server:
            url, address = url_of(server), server.address
            session.get(url)
        with serving(hello, address):
            assert session.get(url).text == "hello"


def test_a_server_that_forgot_the_connection_is_found_again() -> None:
    """It was restarted, and its goodbye did not arrive: a stateless reset tells (RFC 9000, section 10.3)."""
    with nothing_left_behind(), limited() as session, contextlib.ExitStack() as stack:
        keys = Keys()  # which both of its lives have
        server = make_server(hello, keys=keys)
        server.start()
        link = stack.enter_context(Link(server.address))
        url = f"https://127.0.0.1:{link.port}/"
        first = session.get(url).connection
        link.blackhole()
        server.stop(timeout=0)
        assert wait_until(lambda: link.counters().to_client.dropped > 0)  # the goodbye
        stack.enter_context(serving(hello, server.address, keys=keys))
        link.blackhole(False)
        # This request may have been processed, for all that the client can know.
        with pytest.raises(QuicConnectionException) as caught:
            session.post(url)
        assert (caught.value.cause, caught.value.request_sent, caught.value.remote) == ("lost", True, True)
        assert first.closed
        assert session.get(url).text == "hello"


def test_a_server_that_was_killed_is_noticed(certificate: Certificate) -> None:
    options = {"certfile": certificate.certfile, "keyfile": certificate.keyfile}
    limits = Limits(keepalive_expiry=0.5)
    with (
        nothing_left_behind(),
        Peer("our_server.py", **options) as peer,
        Link(peer.address) as link,  # which passes no ICMP: the host is gone, not only the process
        quicgreen.Session(verify=certificate.ca_certs, limits=limits, timeout=30.0) as session,
    ):
        url = f"https://localhost:{link.port}"
        responses = [session.get(f"{url}/size/3000000", stream=True) for _ in range(2)]
        waiting = gevent.spawn(session.get, f"{url}/silence")
        responses[0].readinto(bytearray(10))
        peer.kill()
        for use in (responses[0].read, lambda: list(responses[1].iter_bytes()), waiting.get):
            with pytest.raises(QuicTimeoutException) as caught:
                use()
            assert caught.value.cause == "idle-timeout"
            assert caught.value.request_sent
        assert session._pool._count == 0


def test_an_unused_connection_is_closed_after_its_expiry() -> None:
    limits = Limits(keepalive_expiry=0.3)
    with nothing_left_behind(), serving(hello) as server, new_session(limits=limits) as session:
        first = session.get(url_of(server)).connection
        assert wait_until(lambda: first.closed)
        assert first.closing_error().cause == "idle-timeout"
        assert session._pool._count == 0
        assert session.get(url_of(server)).text == "hello"


def test_a_request_that_takes_longer_than_the_expiry_is_kept_alive() -> None:
    gate = Gate()
    limits = Limits(keepalive_expiry=0.3)
    with nothing_left_behind(), serving(gate) as server, new_session(limits=limits) as session:
        job = gevent.spawn(session.get, url_of(server))
        assert wait_until(lambda: len(gate.held) == 1)
        assert not job.ready()
        gevent.sleep(1)  # three times the expiry
        gate.let_all_go()
        assert job.get(timeout=PATIENCE_S).text == "/"


def test_a_server_that_stops_finishes_what_it_has_and_the_next_goes_elsewhere() -> None:
    gate = Gate()
    with nothing_left_behind(), limited() as session:
        server = make_server(gate)
        server.start()
        url, address = url_of(server), server.address
        held = gevent.spawn(session.get, url)
        assert wait_until(lambda: len(gate.held) == 1)
        old = next(iter(session._pool.origins.values())).connections[0]
        stopping = gevent.spawn(server.stop, 10)
        assert wait_until(lambda: old.draining)
        # The port is still the old server's; whoever asks now must not be given the draining connection.
        with pytest.raises(QuicException) as caught:
            session.get(url, timeout=0.2)
        assert caught.value.cause in ("handshake-timeout", "deadline", "closed-by-peer")
        gate.let_all_go()
        assert held.get(timeout=PATIENCE_S).text == "/"
        stopping.get(timeout=PATIENCE_S)
        assert wait_until(lambda: old.closed)
        with serving(gate, address):
            assert session.get(url).text == "/"


# ---------------------------------------------------------------- what is sent again


class Rejecting:
    """A handler whose first requests are refused unprocessed: RESET_STREAM with H3_REQUEST_REJECTED."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.bodies: list[bytes] = []

    def __call__(self, request: quicgreen.Request) -> None:
        self.bodies.append(request.read())
        if self.times:
            self.times -= 1
            request._answered = 2
            request._engine.reset(request._record[4], request._record[5], 0x10B)
        else:
            request.respond(200, None, request.method)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("data", [None, b"body", b"x" * 100_000], ids=["none", "small", "large"])
def test_what_was_certainly_not_processed_is_sent_again(method: str, data: bytes | None) -> None:
    handle = Rejecting(2)
    with nothing_left_behind(), serving(handle) as server, limited() as session:
        assert session.request(method, url_of(server), data=data).text == method
        assert handle.bodies == [data or b""] * 3


def test_it_is_not_sent_for_ever() -> None:
    handle = Rejecting(10)
    with nothing_left_behind(), serving(handle) as server, limited() as session:
        with pytest.raises(QuicStreamException) as caught:
            session.get(url_of(server))
        assert (caught.value.cause, caught.value.wire_code) == ("refused", 0x10B)
        assert (caught.value.request_sent, caught.value.remote) == (False, True)
        assert len(handle.bodies) == 3


@pytest.mark.parametrize("make", [lambda: iter([b"piece"] * 3), lambda: io.BytesIO(b"piece")])
def test_a_body_that_can_be_read_only_once_is_not_sent_again(make: Callable[[], Any]) -> None:
    handle = Rejecting(1)
    with nothing_left_behind(), serving(handle) as server, limited() as session:
        with pytest.raises(QuicStreamException) as caught:
            session.post(url_of(server), make())
        assert caught.value.cause == "refused"
        assert len(handle.bodies) == 1
        assert session.post(url_of(server), make()).text == "POST"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("code", [0x100, 0x102, 0x10C, 0x10D])
def test_what_may_have_been_processed_is_not_sent_again(method: str, code: int) -> None:
    seen: list[str] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(request.method)
        request._answered = 2
        request._engine.reset(request._record[4], request._record[5], code)

    with nothing_left_behind(), serving(handle) as server, limited() as session:
        with pytest.raises(QuicStreamException) as caught:
            session.request(method, url_of(server))
        assert (caught.value.cause, caught.value.wire_code) == ("reset", code)
        assert caught.value.request_sent
        assert seen == [method]


def test_a_request_under_way_when_the_connection_is_closed_is_not_sent_again() -> None:
    gate = Gate()
    with nothing_left_behind(), serving(gate) as server, limited() as session:
        job = gevent.spawn(session.get, url_of(server))
        assert wait_until(lambda: len(gate.held) == 1)
        next(iter(session._pool.origins.values())).connections[0].close(0x102, timeout=None)
        with pytest.raises(quicgreen.QuicTransportException) as caught:
            job.get(timeout=PATIENCE_S)
        assert caught.value.request_sent
        assert len(gate.paths) == 1
        gate.let_all_go()


def test_a_request_that_waits_for_a_stream_when_the_connection_ends_is_sent_on_another() -> None:
    gate = Gate()
    config = QuicConfiguration(initial_max_streams_bidi=1)
    with nothing_left_behind(), serving(gate, config=config) as server, limited() as session:
        held = gevent.spawn(session.get, url_of(server, "/held"))
        assert wait_until(lambda: len(gate.held) == 1)
        small = gevent.spawn(session.post, url_of(server, "/small"), b"x")
        large = gevent.spawn(session.post, url_of(server, "/large"), b"x" * 100_000)
        turn_loop()
        assert gate.paths == ["/held"]
        next(iter(session._pool.origins.values())).connections[0].close(0x100, timeout=None)
        with pytest.raises(QuicConnectionException):
            held.get(timeout=PATIENCE_S)
        assert wait_until(lambda: len(gate.paths) > 1)
        gate.let_all_go()
        assert small.get(timeout=PATIENCE_S).text == "/small"
        assert large.get(timeout=PATIENCE_S).text == "/large"
        assert sorted(gate.bodies) == [b"", b"x", b"x" * 100_000]


# ---------------------------------------------------------------- opening


def test_names_are_looked_up_once_for_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = Event()

    def lookup(host: str) -> list[str]:
        asked.append(host)
        answer.wait()
        return ["127.0.0.1"]

    resolving(monkeypatch, lookup)
    with nothing_left_behind(), serving(hello) as server, limited() as session:
        before = opened()
        url = f"https://a.test:{server.address[1]}/"
        jobs = [gevent.spawn(session.get, url) for _ in range(50)]
        turn_loop()
        answer.set()
        assert all(job.get(timeout=PATIENCE_S).text == "hello" for job in jobs)
        assert (asked, opened()) == (["a.test"], before + 1)


def test_a_name_that_does_not_exist_is_told_to_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer = Event()

    def lookup(host: str) -> list[str]:
        asked.append(host)
        answer.wait()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolving(monkeypatch, lookup)
    with nothing_left_behind(), limited() as session:
        jobs = [gevent.spawn(session.get, "https://a.test/") for _ in range(20)]
        turn_loop()
        answer.set()
        failed = []
        for job in jobs:
            with pytest.raises(QuicSocketException, match=r"a\.test") as caught:
                job.get(timeout=PATIENCE_S)
            failed.append(caught.value)
        assert {(e.cause, e.request_sent) for e in failed} == {("name", False)}
        assert isinstance(failed[0], ConnectionError)
        assert len({id(e) for e in failed}) == 20
        assert asked == ["a.test"]
        with pytest.raises(QuicSocketException):
            session.get("https://a.test/")
        assert asked == ["a.test"] * 2


def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str) -> list[str]:
        Event().wait()
        return []

    resolving(monkeypatch, lookup)
    with nothing_left_behind(), limited() as session:
        started = time.monotonic()
        jobs = [gevent.spawn(session.get, "https://a.test/", timeout=Timeout(connect=0.2)) for _ in range(10)]
        for job in jobs:
            with pytest.raises(QuicTimeoutException) as caught:
                job.get(timeout=PATIENCE_S)
            assert (caught.value.cause, caught.value.request_sent) == ("handshake-timeout", False)
        assert time.monotonic() - started >= 0.19
        with pytest.raises(QuicTimeoutException, match=r"resolving a\.test"):
            quicgreen.connect("a.test", 443, verify=False, timeout=Timeout(connect=0.1))
        # A timeout of the caller's own is the caller's.
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            session.get("https://a.test/", timeout=Timeout(connect=PATIENCE_S))


def test_a_name_without_a_usable_address(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, lambda host: [])
    with limited() as session, pytest.raises(QuicSocketException, match="has no address"):
        session.get("https://a.test/")


def test_the_real_resolver_says_that_a_name_does_not_exist() -> None:
    with limited() as session, pytest.raises(QuicSocketException) as caught:
        session.get("https://a..b/")
    assert caught.value.cause == "name"


@pytest.mark.parametrize("first", ["closed", "silent"])
def test_the_next_address_is_tried_when_one_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    resolving(monkeypatch, lambda host: ["127.0.0.9", "127.0.0.1"])
    with nothing_left_behind(), serving(hello) as server, contextlib.ExitStack() as stack:
        port = server.address[1]
        if first == "silent":
            stack.enter_context(black_hole("127.0.0.9", port))
        timeout = Timeout(connect=1.0)
        with new_session(timeout=timeout) as session:
            assert session.get(f"https://a.test:{port}/").text == "hello"
        with quicgreen.connect("a.test", port, verify=False, timeout=timeout) as connection:
            assert connection.remote_address == ("127.0.0.1", port)


def test_the_deadline_is_one_for_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    ips = [f"127.0.0.{i}" for i in range(2, 7)]
    resolving(monkeypatch, lambda host: ips)
    with nothing_left_behind(), contextlib.ExitStack() as stack:
        port = stack.enter_context(black_hole(ips[0]))
        for ip in ips[1:]:
            stack.enter_context(black_hole(ip, port))
        before = opened()
        started = time.monotonic()
        with pytest.raises(QuicTimeoutException) as caught:
            quicgreen.connect("a.test", port, verify=False, timeout=Timeout(connect=1.0))
        assert caught.value.cause == "handshake-timeout"
        assert opened() == before + 5
        assert 0.95 <= time.monotonic() - started < 4  # each with the whole of it: 5


def test_a_certificate_that_is_wrong_is_wrong_at_the_next_address_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, lambda host: ["127.0.0.1", "127.0.0.9"])
    with nothing_left_behind(), serving(hello) as server, quicgreen.Session() as session:
        before = opened()
        with pytest.raises(quicgreen.QuicTlsHandshakeException):
            session.get(f"https://a.test:{server.address[1]}/")
        assert opened() == before + 1


def test_all_who_wait_for_a_handshake_that_fails_are_told() -> None:
    with nothing_left_behind(), black_hole() as port, limited() as session:
        timeout = Timeout(connect=0.2, read=PATIENCE_S)
        before = opened()
        jobs = [gevent.spawn(session.get, f"https://127.0.0.1:{port}/", timeout=timeout) for _ in range(10)]
        for job in jobs:
            with pytest.raises(QuicTimeoutException, match="handshake took too long") as caught:
                job.get(timeout=PATIENCE_S)
            assert (caught.value.cause, caught.value.request_sent) == ("handshake-timeout", False)
        assert opened() == before + 1
        assert session._pool._count == 0


# ---------------------------------------------------------------- the end of a session


def test_a_closed_session_is_closed() -> None:
    with nothing_left_behind(), serving(hello) as server:
        session = limited()
        response = session.get(url_of(server))
        session.close()
        assert response.connection.closed
        session.close()
        before = opened()
        for use in (session.get, session.post):
            with pytest.raises(QuicClientException, match="closed") as caught:
                use(url_of(server))
            assert caught.value.cause == "state"
        assert opened() == before
        assert response.text == "hello"
        unused = limited()
        unused.close()
        with pytest.raises(QuicClientException, match="closed"):
            unused.get(url_of(server))


def test_requests_under_way_when_a_session_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    answer = Event()

    def lookup(host: str) -> list[str]:
        answer.wait()
        return ["127.0.0.1"]

    resolving(monkeypatch, lookup)
    with nothing_left_behind(), serving(gate) as server:
        session = limited(1, 1)
        before = opened()
        held = gevent.spawn(session.get, url_of(server))
        assert wait_until(lambda: len(gate.held) == 1)
        waiting = [gevent.spawn(session.get, url_of(server)) for _ in range(3)]
        other = limited()
        looking = [gevent.spawn(other.get, f"https://a.test:{server.address[1]}/") for _ in range(3)]
        turn_loop()
        session.close()
        other.close()
        answer.set()
        with pytest.raises(QuicConnectionException) as caught:
            held.get(timeout=PATIENCE_S)
        assert caught.value.cause == "closed-here"
        for job in waiting + looking:
            with pytest.raises(QuicClientException) as closed:
                job.get(timeout=PATIENCE_S)
            assert (closed.value.cause, closed.value.request_sent) == ("state", False)
        assert opened() <= before + 2
        assert len(gate.paths) == 1
        gate.let_all_go()


def test_close_waits_no_longer_than_it_is_told() -> None:
    with nothing_left_behind(), serving(hello) as server, Link(server.address) as link:
        session = limited(max_streams=1)
        url = f"https://127.0.0.1:{link.port}/"
        gevent.joinall([gevent.spawn(session.get, url) for _ in range(5)], raise_error=True)
        link.blackhole()
        started = time.monotonic()
        session.close(timeout=0.2)
        assert time.monotonic() - started < 0.9  # not 0.2 for each of five


def test_a_session_opens_anew_after_fork_and_what_was_open_says_so() -> None:
    check_python(
        """
        import os, sys, gevent, quicgreen
        from support import *
        read, write = os.pipe()
        with serving(hello) as server, new_session(timeout=5) as session:
            url = url_of(server)
            connection = session.get(url).connection
            def large(request):
                request.respond(200, None, [b"x" * 1_000_000])
            server.handle = large
            response = session.get(url, stream=True)
            server.handle = hello
            pid = gevent.fork()
            if pid == 0:
                said = []
                for use in (connection.info, response.read, connection.close):
                    try:
                        use()
                        said.append("nothing")
                    except quicgreen.QuicException as e:
                        said.append(e.cause)
                said.append(session.get(url).text)
                said.append(str(session.get(url).connection is connection))
                session.close()
                os.write(write, " ".join(said).encode())
                os._exit(0)
            told = gevent.os.tp_read(read, 1000).decode().split()
            assert told == ["fork", "fork", "nothing", "hello", "False"], told
            gevent.os.waitpid(pid, 0)
            # The parent's go on.
            assert len(response.read()) == 1_000_000
            assert session.get(url).connection is connection
        """
    )


# ---------------------------------------------------------------- whoever watches connections


def test_each_connection_is_shown_before_anything_is_sent_on_it() -> None:
    shown: list[tuple[Any, int]] = []
    with serving(hello) as server, new_session(limits=Limits(max_streams=1)) as session:
        session.on_connection = lambda c: shown.append((c, c.stats()["sent"]))
        gevent.joinall([gevent.spawn(session.get, url_of(server)) for _ in range(3)], raise_error=True)
        session.get(url_of(server))
    assert len(shown) == 3
    assert len({id(c) for c, _ in shown}) == 3
    assert [sent for _, sent in shown] == [0, 0, 0]


def test_what_a_watcher_raises_the_request_raises() -> None:
    def refuse(connection: Any) -> None:
        raise ZeroDivisionError

    with nothing_left_behind(), serving(hello) as server, new_session() as session:
        session.on_connection = refuse
        with pytest.raises(ZeroDivisionError):
            session.get(url_of(server))
        session._pool._on_connection = None
        assert session.get(url_of(server)).text == "hello"
