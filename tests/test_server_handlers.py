"""What a server does with connections and handlers: in which greenlets, with which limits, and what becomes
of those that fail."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent import Greenlet, GreenletExit
from gevent.event import Event
from gevent.pool import Group, Pool
from greenlet import getcurrent, greenlet
from support import (
    PATIENCE_S,
    Gate,
    OnPurposeError,
    connect,
    connect_raw,
    counters,
    echo,
    hello,
    idle_streams,
    make_server,
    new_session,
    nothing_left_behind,
    outcome,
    reported,
    serving,
    serving_raw,
    spawn_gets,
    turn_loop,
    url_of,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicConfiguration,
    QuicConnectionException,
    QuicException,
    QuicStreamException,
    QuicTimeoutException,
    hub,
)
from quicgreen._contexts import Keys, self_signed
from quicgreen.configuration import ServerTls

# ---------------------------------------------------------------- spawn


def kinds(spawn: Any) -> tuple[Any, Callable[[Any], bool]]:
    """A value for `spawn`, and what its handlers' greenlets must be."""
    hub_itself = gevent.get_hub()
    return {
        "default": ("default", lambda g: isinstance(g, Greenlet)),
        "raw": ("raw", lambda g: type(g) is greenlet),
        "number": (3, lambda g: type(g) is Greenlet),
        "pool": (Pool(3), lambda g: type(g) is Greenlet),
        "group": (Group(), lambda g: type(g) is Greenlet),
        "gevent.spawn": (gevent.spawn, lambda g: type(g) is Greenlet),
        "gevent.spawn_raw": (gevent.spawn_raw, lambda g: isinstance(g, greenlet)),
        "none": (None, lambda g: g is hub_itself),
    }[spawn]


SPAWNS = ["default", "raw", "number", "pool", "group", "gevent.spawn", "gevent.spawn_raw", "none"]


@pytest.mark.parametrize("name", SPAWNS)
def test_spawn(name: str) -> None:
    spawn, fits = kinds(name)
    seen: list[Any] = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(getcurrent())
        if request.path == "/raise":
            raise OnPurposeError
        if name != "none":
            gevent.sleep(0.001)
        request.respond(200, None, request.path)

    with nothing_left_behind(), reported() as errors, serving(handle, spawn=spawn) as server:
        with connect(server) as connection:
            gets = spawn_gets(connection, 20)
            assert [outcome(g) for g in gets] == [f"/{i}" for i in range(20)]
            assert connection.get("/raise").status_code == 500
            assert connection.get("/after").text == "/after"
        assert all(fits(g) for g in seen)
        assert [type(e) for _, e in errors] == [OnPurposeError]
        assert not server._running


@pytest.mark.parametrize("spawn", ["fast", True, 0, -1, 1.5, object()])
def test_spawn_nonsense(spawn: Any) -> None:
    with pytest.raises(QuicClientException, match="spawn"):
        make_server(hello, spawn=spawn)


def test_retry_and_limits_nonsense() -> None:
    for options in ({"retry": "sometimes"}, {"max_connections": 0}):
        with pytest.raises(QuicClientException) as caught:
            make_server(hello, **options)
        assert caught.value.cause == "argument"


def test_a_full_pool_holds_back_and_fails_nobody() -> None:
    gate = Gate()
    with serving(gate, spawn=2) as server:
        assert server.pool.size == 2
        with connect(server) as one, connect(server) as two:
            gets = spawn_gets(one, 15) + spawn_gets(two, 15)
            assert wait_until(lambda: gate.running == 2)
            turn_loop(5)
            assert (gate.running, len(gate.paths)) == (2, 2)
            assert not any(g.ready() for g in gets)
            gate.event.set()
            assert sorted(outcome(g) for g in gets) == sorted([f"/{i}" for i in range(15)] * 2)
            assert gate.most == 2


def test_credit_is_given_back_whatever_becomes_of_a_handler() -> None:
    def handle(request: quicgreen.Request) -> None:
        if request.path == "/raise":
            raise OnPurposeError
        if request.path == "/exit":
            raise GreenletExit
        if request.path == "/wait":
            gevent.sleep(600)
        if request.path != "/silence":
            request.respond(200, None, b"ok")

    with reported(), serving(handle, spawn=1) as server, connect(server) as connection:
        for path in ("/raise", "/exit", "/silence", "/wait") * 3:
            with contextlib.suppress(QuicStreamException, QuicTimeoutException):
                if path == "/wait":
                    get = gevent.spawn(connection.get, path)
                    assert wait_until(lambda: server.pool.free_count() == 0)
                    server.pool.kill()
                    get.join(PATIENCE_S)
                else:
                    connection.get(path)
            assert connection.get("/", timeout=PATIENCE_S).text == "ok", path


def test_a_pool_that_does_other_work_too() -> None:
    release = Event()
    pool = Pool(2)
    gate = Gate()
    gate.event.set()
    with nothing_left_behind(), serving(gate, spawn=pool) as server, connect(server) as connection:
        others = [pool.spawn(release.wait) for _ in range(2)]
        gets = spawn_gets(connection, 6)
        assert wait_until(lambda: counters()["requests_received"])
        turn_loop(5)
        assert gate.paths == []
        release.set()
        assert sorted(outcome(g) for g in gets) == [f"/{i}" for i in range(6)]
        gevent.joinall(others)


def test_stop_while_a_pool_does_other_work() -> None:
    release = Event()
    pool = Pool(1)
    with nothing_left_behind():
        other = pool.spawn(release.wait)
        server = make_server(hello, spawn=pool)
        server.start()
        get = gevent.spawn(connect(server).get)
        assert wait_until(lambda: server._running)
        server.stop(timeout=0)
        assert outcome(get) in ("reset", "closed-by-peer")
        assert not other.ready()
        release.set()
        other.join()
        turn_loop()
        assert len(pool) == 0


# ---------------------------------------------------------------- handlers


def test_a_handle_method_may_be_overridden() -> None:
    class Own(quicgreen.Server):
        def handle(self, request: quicgreen.Request) -> None:
            request.respond(200, None, repr(self))

    cert, key = self_signed("localhost")
    server = Own(("127.0.0.1", 0), tls=ServerTls(cert_pem=cert, key_pem=key))
    with server, connect(server) as connection:
        assert connection.get().text == repr(server) == f"<Own 127.0.0.1:{server.server_port}>"


def test_a_server_without_a_handler_says_so() -> None:
    with reported() as errors, serving(None) as server, connect(server) as connection:
        assert connection.get().status_code == 500
        assert "needs a handle function" in str(errors[0][1])


def test_a_handler_that_raises() -> None:
    def handle(request: quicgreen.Request) -> None:
        raise OnPurposeError("secret")

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        for _ in range(2):
            response = connection.get()
            assert (response.status_code, response.headers["content-type"]) == (500, "text/plain")
            assert "secret" not in response.text
        assert connection.request("HEAD").status_code == 500
        assert [repr(e) for _, e in errors] == ["OnPurposeError('secret')"] * 3


def test_a_handler_that_raises_with_a_body_unread() -> None:
    """The client need not send what nobody will read."""

    def handle(request: quicgreen.Request) -> None:
        raise OnPurposeError

    with reported(), serving(handle) as server, connect(server) as connection:
        idle = idle_streams(connection)
        sent = counters()["bytes_sent"]
        response = connection.post("/", b"x" * 50_000_000)
        assert response.status_code == 500
        assert counters()["bytes_sent"] - sent < 25_000_000
        assert wait_until(lambda: counters()["streams"] == idle)


def test_a_handler_that_raises_in_the_middle_of_its_response() -> None:
    def handle(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        stream.write(b"begun")
        gevent.sleep(0.01)
        raise OnPurposeError

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        assert response.status_code == 200
        with pytest.raises(QuicStreamException) as caught:
            response.read()
        assert (caught.value.cause, caught.value.wire_code) == ("reset", 0x102)
        assert [type(e) for _, e in errors] == [OnPurposeError]


@pytest.mark.parametrize("size", [10, 3_000_000])
@pytest.mark.parametrize("how", ["respond", "start_response"])
def test_a_handler_that_raises_after_its_response(size: int, how: str) -> None:
    """What was answered stays answered."""

    def handle(request: quicgreen.Request) -> None:
        if how == "respond":
            request.respond(200, None, bytes(size))
        else:
            request.start_response(200).finish(bytes(size))
        raise OnPurposeError

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        assert len(connection.get().content) == size
        assert [type(e) for _, e in errors] == [OnPurposeError]


def test_a_handler_that_does_not_answer() -> None:
    with reported() as errors, serving(lambda request: None) as server, connect(server) as connection:
        assert connection.get("/silent").status_code == 500
        assert "without answering: <Request GET /silent>" in str(errors[0][1])


def test_a_handler_that_does_not_end_its_response() -> None:
    """A truncated body must not look like a whole one."""

    def handle(request: quicgreen.Request) -> None:
        request.start_response(200).write(b"begun")

    with serving(handle) as server, connect(server) as connection:
        with pytest.raises(QuicStreamException) as caught:
            connection.get()
        assert caught.value.cause == "reset"


@pytest.mark.parametrize(
    "again",
    [
        lambda request: request.respond(200, None, b"second"),
        lambda request: request.start_response(200),
        lambda request: request.inform(103),
    ],
)
@pytest.mark.parametrize(
    "first",
    [
        lambda request: request.respond(200, None, b"first"),
        lambda request: request.respond(200, None, iter([b"first"])),
        lambda request: request.start_response(200).finish(b"first"),
    ],
)
def test_a_handler_that_answers_twice(first: Any, again: Any) -> None:
    causes = []

    def handle(request: quicgreen.Request) -> None:
        first(request)
        try:
            again(request)
        except QuicClientException as e:
            causes.append(e.cause)

    with serving(handle) as server, connect(server) as connection:
        response = connection.get()
        assert (response.status_code, response.text) == (200, "first")
        assert causes == ["state"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_handler_that_is_killed(begun: bool) -> None:
    seen: list[Greenlet] = []

    def handle(request: quicgreen.Request) -> None:
        if request.path == "/":
            request.respond(200)
            return
        if begun:
            request.start_response(200).write(b"begun")
        seen.append(getcurrent())
        gevent.sleep(600)

    with reported() as errors, serving(handle) as server, connect(server) as connection:
        idle = idle_streams(connection)
        get = gevent.spawn(connection.get, "/kill")
        assert wait_until(lambda: seen)
        seen[0].kill()
        assert outcome(get) == "reset"
        assert get.exception.wire_code == 0x102
        assert [context for context, _ in errors if context is not get] == []  # being killed is no error
        assert wait_until(lambda: counters()["streams"] == idle)


def test_a_handler_killed_before_it_began() -> None:
    """In a pool it begins a turn later."""

    class Deadly(Pool):
        def spawn(self, run: Any, request: Any) -> Greenlet:
            g = super().spawn(run, request)
            if request.path == "/kill":
                g.kill(block=False)
            return g

    with reported(), serving(hello, spawn=Deadly(2)) as server, connect(server) as connection:
        idle = idle_streams(connection)
        for _ in range(3):
            assert outcome(gevent.spawn(connection.get, "/kill")) == "reset"
            assert connection.get("/").text == "hello"
        assert wait_until(lambda: counters()["streams"] == idle)


def test_a_client_that_resets_midway() -> None:
    """The handler hears of it when it reads or writes; others are not disturbed."""
    causes: list[str] = []

    def handle(request: quicgreen.Request) -> None:
        try:
            if request.method == "POST":
                request.read()
            else:
                stream = request.start_response(200)
                while True:
                    stream.write(bytes(10_000))
        except QuicStreamException as e:
            causes.append(e.cause)
            raise

    def endless() -> Iterator[bytes]:
        yield b"begun"
        assert wait_until(lambda: server._running)
        raise OnPurposeError

    with nothing_left_behind(), reported(), serving(handle) as server, connect(server) as connection:
        with pytest.raises(OnPurposeError):
            connection.post("/", endless())
        response = connection.get("/", stream=True)
        response.close()
        assert wait_until(lambda: len(causes) == 2)
        assert sorted(causes) == ["reset", "stopped"]


def test_a_client_that_goes_away() -> None:
    """A handler that waits for the client ends; one that does not touch it goes on."""
    ended: list[str] = []
    go_on = Event()

    def handle(request: quicgreen.Request) -> None:
        try:
            if request.method == "POST":
                request.read()
            else:
                go_on.wait()
                request.respond(200, None, b"to nobody")
            ended.append("finished")
        except QuicException as e:
            ended.append(e.cause)

    gone = Event()

    def body() -> Iterator[bytes]:
        yield b"begun"
        gone.wait()

    with nothing_left_behind(), serving(handle) as server:
        connection = connect(server)
        clients = [gevent.spawn(connection.post, "/", body()), gevent.spawn(connection.get)]
        assert wait_until(lambda: counters()["requests_received"] >= 2 and len(server._running) == 2)
        connection.close(0x10C)
        assert wait_until(lambda: ended)
        assert ended[0] in ("stream-gone", "closed-here", "reset")
        go_on.set()
        gone.set()
        assert wait_until(lambda: len(ended) == 2)
        assert ended[1] == "finished"
        gevent.joinall(clients, timeout=PATIENCE_S)


# ---------------------------------------------------------------- limits


def test_max_connections() -> None:
    with serving(hello, max_connections=2) as server:
        one, two = connect(server), connect(server)
        with pytest.raises(QuicException):
            connect(server, timeout=0.3)
        assert [c.get().text for c in (one, two)] == ["hello", "hello"]
        one.close()

        def room_again() -> bool:
            try:
                with connect(server, timeout=0.3) as third:
                    return third.get().text == "hello"
            except QuicException:
                return False

        assert wait_until(room_again)
        two.close()


def test_max_streams() -> None:
    """A client may open no more requests than the server said; the others wait for their turn."""
    gate = Gate()
    config = QuicConfiguration(initial_max_streams_bidi=3)
    with serving(gate, config=config) as server, connect(server) as connection:
        gets = spawn_gets(connection, 9)
        assert wait_until(lambda: gate.running == 3)
        turn_loop(5)
        assert gate.running == 3
        gate.event.set()
        assert sorted(outcome(g) for g in gets) == [f"/{i}" for i in range(9)]


@pytest.mark.parametrize("size", [99, 100, 101, 40_000, 500_000])
def test_max_body_bytes(size: int) -> None:
    limit = 100 if size < 1000 else size - 1
    causes: list[str] = []

    def handle(request: quicgreen.Request) -> None:
        try:
            request.respond(200, None, str(len(request.read())))
        except QuicStreamException as e:
            causes.append(e.cause)
            request.respond(413, None, b"too large")

    with serving(handle, max_body_bytes=limit) as server, connect(server) as connection:
        response = connection.post("/", bytes(size))
        if size <= limit:
            assert (response.status_code, response.text, causes) == (200, str(size), [])
        else:
            assert (response.status_code, response.text, causes) == (413, "too large", ["body-too-large"])


def test_max_body_bytes_does_not_bind_who_reads_in_pieces() -> None:
    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, str(sum(map(len, request.iter_bytes()))))

    with serving(handle, max_body_bytes=10) as server, connect(server) as connection:
        assert connection.post("/", bytes(100_000)).text == "100000"


def test_a_slow_writer_runs_into_the_stream_timeout() -> None:
    errors: list[QuicTimeoutException] = []

    def handle(request: quicgreen.Request) -> None:
        try:
            request.read()
        except QuicTimeoutException as e:
            errors.append(e)
            request.respond(408)

    done = Event()

    def body() -> Iterator[bytes]:
        yield b"begun"
        done.wait(PATIENCE_S)

    with serving(handle, stream_timeout=0.05) as server, connect(server) as connection:
        client = gevent.spawn(connection.post, "/", body())
        assert wait_until(lambda: errors)
        assert "0.05 s" in str(errors[0])
        done.set()
        client.join(PATIENCE_S)
        assert connection.request("POST", "/", data=b"quick").status_code in (200, 500)


def test_a_slow_reader_runs_into_the_stream_timeout() -> None:
    errors: list[QuicException] = []

    def handle(request: quicgreen.Request) -> None:
        try:
            request.respond(200, None, (bytes(65536) for _ in range(10_000)))
        except QuicException as e:
            errors.append(e)
            raise

    with reported(), serving(handle, stream_timeout=0.1) as server, connect(server) as connection:
        response = connection.get("/", stream=True)
        assert wait_until(lambda: errors)
        assert isinstance(errors[0], QuicTimeoutException)
        with pytest.raises(QuicStreamException):  # cut off, and seen to be
            response.read()


def test_a_response_that_the_engine_holds_is_given_up_too() -> None:
    """`respond(bytes)` returns at once, so nobody waits; `write_timeout_ms` ends it."""
    client = QuicConfiguration(initial_max_stream_data_bidi_local=1000, max_stream_window=1000)
    config = QuicConfiguration(write_timeout_ms=100)

    def handle(request: quicgreen.Request) -> None:
        request.respond(200, None, bytes(15_000))

    with serving(handle, config=config) as server, connect(server, config=client) as connection:
        response = connection.get("/", stream=True)
        gevent.sleep(0.2)
        with pytest.raises(QuicStreamException) as caught:
            response.read()
        assert caught.value.cause == "reset"


# ---------------------------------------------------------------- more


def test_retry_makes_the_client_prove_its_address() -> None:
    for retry, expected in (("never", False), ("always", True)):
        before = counters()["retries_sent"]
        with serving(hello, retry=retry) as server, connect(server) as connection:
            assert connection.get().text == "hello"
        sent = counters()["retries_sent"] - before
        assert bool(sent) == expected  # one for each packet of the first flight


def test_the_clients_address() -> None:
    seen = []

    def handle(request: quicgreen.Request) -> None:
        seen.append(request.remote_address)
        request.respond(200)

    with serving(handle) as server, connect(server) as one, connect(server) as two:
        one.get()
        two.get()
        assert [ip for ip, _ in seen] == ["127.0.0.1", "127.0.0.1"]
        assert seen[0][1] != seen[1][1]
        assert one.remote_address == server.address


def test_two_servers_in_one_process() -> None:
    first, second = Gate(), Gate()
    first.event.set()
    second.event.set()
    with nothing_left_behind(), new_session() as session:
        with serving(first) as one, serving(second) as two:
            assert one.address != two.address
            assert session.get(url_of(one, "/one")).text == "/one"
            assert session.get(url_of(two, "/two")).text == "/two"
            one.stop()
            assert session.get(url_of(two, "/still")).text == "/still"
        assert (first.paths, second.paths) == (["/one"], ["/two", "/still"])


def test_servers_that_share_keys() -> None:
    keys = Keys()
    with serving(hello, keys=keys) as one, serving(hello, keys=keys) as two, new_session() as session:
        assert [session.get(url_of(s)).text for s in (one, two)] == ["hello", "hello"]


def test_a_server_that_is_forgotten_goes_on_and_is_freed_when_stopped() -> None:
    server = make_server(hello)
    server.start()
    with connect(server) as connection:
        connection.get()
    server.stop()
    wait_until(lambda: counters()["connections"] == 0)
    found = weakref.ref(server)
    del server
    gc.collect()
    assert found() is None


def test_nothing_is_left_of_many_requests() -> None:
    with nothing_left_behind(), serving(echo) as server, connect(server) as connection:
        idle = idle_streams(connection)
        for size in (0, 10, 20_000, 300_000):
            gets = [gevent.spawn(connection.post, "/", bytes(size)) for _ in range(20)]
            assert [len(g.get(timeout=PATIENCE_S).content) for g in gets] == [size] * 20
        assert wait_until(lambda: counters()["streams"] == idle)
        assert not server._running


# ---------------------------------------------------------------- sessions


def test_sessions_of_http() -> None:
    """A handler per connection, which takes the requests itself."""
    log: list[Any] = []

    def handle(session: Any) -> None:
        log.append((session.alpn, session.remote_address[0], session.id in server.sessions))
        while (request := session.accept_request(timeout=PATIENCE_S)) is not None:
            request.respond(200, None, request.path)
        log.append("over")

    with nothing_left_behind(), serving(handle, sessions=True) as server:
        with connect(server) as one, connect(server) as two:
            for connection in (one, two):
                gets = spawn_gets(connection, 5)
                assert [outcome(g) for g in gets] == [f"/{i}" for i in range(5)]
        assert wait_until(lambda: log.count("over") == 2)
        assert [entry for entry in log if entry != "over"] == [("h3", "127.0.0.1", True)] * 2
        assert server.sessions == {}


def test_sessions_of_raw_streams() -> None:
    def handle(session: Any) -> None:
        while (stream := session.accept_stream(timeout=PATIENCE_S)) is not None:
            stream.finish(stream.read().upper())

    with nothing_left_behind(), serving_raw(handle) as server, connect_raw(server) as connection:
        for word in (b"one", b"two"):
            stream = connection.open_stream()
            stream.finish(word)
            assert stream.read() == word.upper()


def test_a_session_handler_that_raises_ends_its_connection_only() -> None:
    def handle(session: Any) -> None:
        request = session.accept_request()
        if request.path == "/raise":
            raise OnPurposeError
        request.respond(200, None, b"fine")
        session.accept_request(timeout=PATIENCE_S)

    with reported() as errors, serving(handle, sessions=True) as server:
        with connect(server) as good, connect(server) as bad:
            assert good.get().text == "fine"
            with pytest.raises(QuicException):
                bad.get("/raise")
            assert wait_until(lambda: bad.closed)
            assert not good.closed
        assert [type(e) for _, e in errors] == [OnPurposeError]


def test_sessions_are_drained_and_then_killed() -> None:
    ended = []

    def handle(session: Any) -> None:
        try:
            gevent.sleep(600)
        except GreenletExit:
            ended.append("killed")
            raise

    with nothing_left_behind():
        server = make_server(handle, sessions=True)
        server.start()
        connection = connect(server)
        assert wait_until(lambda: server.sessions)
        get = gevent.spawn(connection.get)
        turn_loop()
        server.stop(timeout=0.05)
        assert server.closed
        assert ended == ["killed"]
        assert outcome(get) in ("closed-by-peer", "refused", "reset")


def test_a_session_handler_that_returns_closes_in_good_order() -> None:
    """What was written arrives first."""

    def handle(session: Any) -> None:
        request = session.accept_request()
        request.respond(200, None, bytes(200_000))

    with serving(handle, sessions=True) as server, connect(server) as connection:
        assert len(connection.get().content) == 200_000
        assert wait_until(lambda: connection.closed)
        assert isinstance(connection.closing_error(), QuicConnectionException)


def test_a_request_of_a_session_whose_body_nobody_reads() -> None:
    def handle(session: Any) -> None:
        while (request := session.accept_request(timeout=PATIENCE_S)) is not None:
            request.respond(413, None, b"no")

    with serving(handle, sessions=True) as server, connect(server) as connection:
        idle = idle_streams(connection)
        for _ in range(3):
            assert connection.post("/", bytes(5_000_000)).status_code == 413
        assert wait_until(lambda: counters()["streams"] == idle)


def test_the_runtime_is_left_as_it_was() -> None:
    runtime = hub.current()
    targets, references = len(runtime.targets), runtime._references
    for listener in (("192.0.2.1", 0), "nonsense", ("127.0.0.1", 0)):
        with contextlib.suppress(QuicException), serving(hello, listener):
            pass
    assert len(runtime.targets) <= targets
    assert runtime._references <= references
