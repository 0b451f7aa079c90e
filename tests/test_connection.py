"""A connection by itself: opened, described, its streams, its end as both sides see it."""

from __future__ import annotations

import gc
import ssl
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    PATIENCE_S,
    certificate,
    connect,
    connect_raw,
    hello,
    nothing_left_behind,
    server_tls,
    serving,
    serving_raw,
    turn_loop,
    wait_until,
)

import quicgreen
from quicgreen import (
    QuicClientException,
    QuicConfiguration,
    QuicConnectionException,
    QuicException,
    QuicTimeoutException,
    _engine,
    exceptions,
)
from quicgreen.connection import closing_error
from quicgreen.stats import ConnectionStats
from quicgreen.testing import Link


class Accepted:
    """A handler of raw connections that keeps them, and the streams that are opened on them."""

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.streams: list[Any] = []
        self.ended: list[QuicException | None] = []

    def __call__(self, connection: Any) -> None:
        self.connections.append(connection)
        while (stream := connection.accept_stream()) is not None:
            self.streams.append(stream)
        self.ended.append(connection.closing_error())

    @property
    def connection(self) -> Any:
        return self.connections[-1]


@pytest.fixture
def accepted() -> Accepted:
    return Accepted()


@pytest.fixture
def server(accepted: Accepted) -> Iterator[quicgreen.Server]:
    with serving_raw(accepted) as server:
        yield server


# ---------------------------------------------------------------- what it says of itself


def test_a_connection_is_described(server: quicgreen.Server, accepted: Accepted) -> None:
    with nothing_left_behind(), connect_raw(server) as connection:
        assert wait_until(lambda: accepted.connections)
        mine, theirs = connection.info(), accepted.connection.info()
        assert mine["remote_address"] == connection.remote_address == server.address
        assert theirs["local_address"][1] == server.address[1]
        assert theirs["remote_address"] == accepted.connection.remote_address
        assert theirs["remote_address"][0] == "127.0.0.1"
        assert theirs["remote_address"][1] == mine["local_address"][1]
        assert (mine["alpn"], theirs["alpn"], connection.alpn) == ("raw", "raw", "raw")
        assert (mine["is_server"], theirs["is_server"]) == (False, True)
        assert mine["is_established"]
        assert mine["is_raw"]
        assert not mine["is_resumed"]
        assert mine["streams_left"] == 100
        assert "(raw)" in repr(connection)
        assert not connection.closed
        assert connection.closing_error() is None
    assert "(closed)" in repr(connection)
    # It lingers for what is under way still (RFC 9000, section 10.2).
    assert wait_until(lambda: connection.info() == {})
    assert (connection.info(), connection.stats(), connection.peer_cert()) == ({}, None, None)
    assert connection.remote_address == ("", 0)


def test_the_peers_certificate(server: quicgreen.Server, accepted: Accepted) -> None:
    with connect_raw(server) as connection:
        assert connection.peer_cert() == ssl.PEM_cert_to_DER_cert(certificate()[0])
        assert wait_until(lambda: accepted.connections)
        assert accepted.connection.peer_cert() is None


def test_counters_of_a_connection() -> None:
    with serving(lambda r: r.respond(200, None, r.read())) as server, connect(server) as connection:
        before = connection.stats()
        assert before.keys() == ConnectionStats.__annotations__.keys()
        connection.post("/", b"x" * 100_000)
        after = connection.stats()
        assert after["sent_bytes"] - before["sent_bytes"] > 100_000
        assert after["recv_bytes"] - before["recv_bytes"] > 100_000
        assert after["sent"] > before["sent"]
        assert 0 < after["min_rtt"] <= after["rtt"] < 5e9
        assert after["cwnd"] > 1000
        assert after["pmtu"] >= 1200


def test_an_unknown_host_protocol_or_setting_is_refused() -> None:
    for alpn in ((), ("",), ("x" * 300,)):
        with pytest.raises(QuicClientException):
            quicgreen.connect("127.0.0.1", 1, verify=False, alpn=alpn)
    with pytest.raises(QuicClientException):
        quicgreen.connect("127.0.0.1", 1, verify=False, config=QuicConfiguration(cc_algorithm="fast"))
    with pytest.raises(QuicClientException):
        quicgreen.connect("127.0.0.1", 1, verify=False, timeout="soon")


def test_the_client_prefers_its_protocols_in_order() -> None:
    with serving(lambda c: c.accept_stream(), tls=server_tls(alpn=("b", "a"))) as server:
        for offered, agreed in ((("a",), "a"), (("x", "b"), "b"), (("b", "a"), "b")):
            with connect(server, alpn=offered) as connection:
                assert connection.alpn == agreed


# ---------------------------------------------------------------- streams


def test_streams_are_opened_and_accepted_both_ways(server: quicgreen.Server, accepted: Accepted) -> None:
    with nothing_left_behind(), connect_raw(server) as connection:
        for bidi in (True, False, True):
            connection.open_stream(bidi=bidi).finish(b"mine")
        assert wait_until(lambda: len(accepted.streams) == 3)
        assert sorted(s.id for s in accepted.streams) == [0, 2, 4]
        assert [s.read() for s in accepted.streams] == [b"mine"] * 3
        others = [accepted.connection.open_stream(bidi=bidi) for bidi in (True, False)]
        for stream in others:
            stream.finish(b"theirs")
        streams = [connection.accept_stream(timeout=PATIENCE_S) for _ in range(2)]
        assert sorted(s.id for s in streams) == [1, 3]
        assert [s.read() for s in streams] == [b"theirs"] * 2
        assert {s.kind for s in streams} == {"raw"}
        for stream in (*streams, *others, *accepted.streams):
            stream.release()


def test_a_stream_of_one_way_goes_one_way(server: quicgreen.Server, accepted: Accepted) -> None:
    with connect_raw(server) as connection:
        mine = connection.open_stream(bidi=False)
        assert mine.read() == b""
        mine.write(b"x")
        assert wait_until(lambda: accepted.streams)
        with pytest.raises(QuicException) as caught:
            accepted.streams[0].write(b"back")
        assert caught.value.cause == "stream-gone"
        mine.finish()


def test_accepting_ends_with_its_timeout_or_the_connection(server: quicgreen.Server) -> None:
    with nothing_left_behind():
        connection = connect_raw(server)
        started = time.monotonic()
        assert connection.accept_stream(timeout=0.1) is None
        assert time.monotonic() - started >= 0.09
        assert not connection.closed
        jobs = [gevent.spawn(connection.accept_stream) for _ in range(3)]
        killed = gevent.spawn(connection.accept_stream)
        turn_loop()
        killed.kill()
        connection.close()
        assert [job.get(timeout=PATIENCE_S) for job in jobs] == [None] * 3
        assert connection.accept_stream() is None


def test_several_who_accept_get_a_stream_each(server: quicgreen.Server, accepted: Accepted) -> None:
    with connect_raw(server) as connection:
        assert wait_until(lambda: accepted.connections)
        jobs = [gevent.spawn(connection.accept_stream, PATIENCE_S) for _ in range(3)]
        turn_loop()
        for i in range(3):
            accepted.connection.open_stream().finish(b"%d" % i)
            turn_loop()
        streams = [job.get(timeout=PATIENCE_S) for job in jobs]
        assert sorted(s.read() for s in streams) == [b"0", b"1", b"2"]


def test_opening_waits_while_the_peer_does_not_allow_it(accepted: Accepted) -> None:
    config = QuicConfiguration(initial_max_streams_bidi=2)
    with nothing_left_behind(), serving_raw(accepted, config=config) as server:
        connection = connect_raw(server)
        first, second = (connection.open_stream() for _ in range(2))
        first.write(b"x")
        second.write(b"x")
        started = time.monotonic()
        with pytest.raises(QuicTimeoutException, match="allows no further stream") as caught:
            connection.open_stream(timeout=0.1)
        assert (caught.value.cause, caught.value.request_sent) == ("deadline", False)
        assert time.monotonic() - started >= 0.09
        killed = gevent.spawn(connection.open_stream)
        waiting = gevent.spawn(connection.open_stream)
        turn_loop()
        killed.kill()
        assert not waiting.ready()
        assert wait_until(lambda: len(accepted.streams) == 2)
        one = next(s for s in accepted.streams if s.id == first.id)
        one.finish()
        first.finish()
        assert (one.read(), first.read()) == (b"x", b"")
        assert waiting.get(timeout=PATIENCE_S).id == 8
        late = gevent.spawn(connection.open_stream)
        turn_loop()
        connection.close(7, timeout=None)
        with pytest.raises(QuicException) as caught:
            late.get(timeout=PATIENCE_S)
        assert not caught.value.request_sent


def test_http_has_no_streams_of_ones_own() -> None:
    with serving(hello) as server, connect(server) as connection:
        with pytest.raises(QuicClientException) as caught:
            connection.open_stream()
        assert caught.value.cause == "state"
        assert connection.get().text == "hello"


# ---------------------------------------------------------------- its end


@pytest.mark.parametrize("code", [0, 1, 0x100, 0x1234, (1 << 62) - 1])
@pytest.mark.parametrize("closer", ["client", "server"])
def test_code_and_reason_are_seen_by_the_peer(
    server: quicgreen.Server, accepted: Accepted, code: int, closer: str
) -> None:
    with nothing_left_behind():
        client = connect_raw(server)
        assert wait_until(lambda: accepted.connections)
        one, other = (client, accepted.connection)[:: 1 if closer == "client" else -1]
        one.close(code, "grün")
        assert one.closed
        assert wait_until(lambda: other.closed)
        ended = other.closing_error()
        assert isinstance(ended, QuicConnectionException)
        assert (ended.cause, ended.wire_code, ended.remote) == ("closed-by-peer", code, True)
        assert "grün" in str(ended)
        mine = one.closing_error()
        assert (mine.wire_code, mine.remote) == (code, False)


def test_a_reason_is_cut(server: quicgreen.Server, accepted: Accepted) -> None:
    connection = connect_raw(server)
    connection.close(5, "x" * 500)
    assert wait_until(lambda: accepted.ended)
    assert str(accepted.ended[0]).count("x" * 100) == 1


@pytest.mark.parametrize("code", [-1, 1 << 62, 1 << 64, "1"], ids=repr)
def test_what_is_no_code_is_refused(server: quicgreen.Server, code: Any) -> None:
    with connect_raw(server) as connection:
        with pytest.raises(QuicClientException) as caught:
            connection.close(code)
        assert caught.value.cause == "argument"
        assert not connection.closed
        assert connection.open_stream().id == 0


def test_close_delivers_first_what_was_written(server: quicgreen.Server, accepted: Accepted) -> None:
    with nothing_left_behind():
        connection = connect_raw(server)
        body = b"x" * 400_000
        got = gevent.spawn(lambda: wait_until(lambda: accepted.streams) and accepted.streams[0].read())
        connection.open_stream(bidi=False).finish(body)
        connection.close()
        assert got.get(timeout=PATIENCE_S) == body
        assert wait_until(lambda: accepted.ended)
        assert accepted.ended[0].wire_code == 0
        connection.close()
        connection.close(5)
        assert connection.closing_error().cause == "closed-here"


def test_close_waits_no_longer_than_told(server: quicgreen.Server) -> None:
    with Link(server.address) as link:
        connection = quicgreen.connect("127.0.0.1", link.port, verify=False, alpn=("raw",))
        link.blackhole()
        connection.open_stream().write(b"x")
        started = time.monotonic()
        connection.close(timeout=0.1)
        assert time.monotonic() - started >= 0.09
        assert connection.closed


def test_close_may_be_left_to_itself(server: quicgreen.Server, accepted: Accepted) -> None:
    with nothing_left_behind():
        connection = connect_raw(server)
        connection.close(timeout=None)
        assert wait_until(lambda: connection.closed)
        assert wait_until(lambda: accepted.ended)


def test_whoever_waits_is_told_why(server: quicgreen.Server, accepted: Accepted) -> None:
    connection = connect_raw(server)
    stream = connection.open_stream()
    stream.write(b"x")
    jobs = [
        gevent.spawn(stream.read, 10),
        gevent.spawn(stream.write, b"x" * (64 << 20)),
    ]
    assert wait_until(lambda: accepted.streams)
    accepted.connection.close(0x77, "because")
    for job in jobs:
        with pytest.raises(QuicConnectionException, match="because") as caught:
            job.get(timeout=PATIENCE_S)
        assert (caught.value.cause, caught.value.wire_code) == ("closed-by-peer", 0x77)
    for use in (connection.open_stream, lambda: stream.read(1), lambda: connection.get("/")):
        with pytest.raises(QuicException):
            use()
    with pytest.raises(QuicConnectionException, match="because"):
        connection.open_stream()


def test_a_peer_that_is_gone_is_noticed_after_the_idle_timeout(server: quicgreen.Server) -> None:
    config = QuicConfiguration(max_idle_ms=400)
    with nothing_left_behind(), Link(server.address) as link:
        connection = quicgreen.connect("127.0.0.1", link.port, verify=False, alpn=("raw",), config=config)
        link.blackhole()
        with pytest.raises(QuicTimeoutException) as caught:
            connection.open_stream(timeout=None).read()
        assert caught.value.cause == "idle-timeout"
        assert isinstance(caught.value, TimeoutError)
        assert connection.closed
        assert str(connection.closing_error()) == str(caught.value)


def test_the_server_may_be_left_without_a_word(accepted: Accepted) -> None:
    config = QuicConfiguration(max_idle_ms=400)
    with serving_raw(accepted, config=config) as server, Link(server.address) as link:
        quicgreen.connect("127.0.0.1", link.port, verify=False, alpn=("raw",))
        assert wait_until(lambda: accepted.connections)
        link.blackhole()
        assert wait_until(lambda: accepted.ended, 10)
        assert accepted.ended[0].cause == "idle-timeout"


def test_a_forgotten_connection_ends_by_itself(server: quicgreen.Server, accepted: Accepted) -> None:
    config = QuicConfiguration(max_idle_ms=1000)
    with nothing_left_behind():
        connect_raw(server, config=config)
        gc.collect()
        # Three probe timeouts at the least (RFC 9000, section 10.1), which are long on a busy machine.
        assert wait_until(lambda: accepted.ended, 20)


def test_a_block_closes_its_connection(server: quicgreen.Server, accepted: Accepted) -> None:
    with pytest.raises(ZeroDivisionError), connect_raw(server) as connection:
        raise ZeroDivisionError
    assert connection.closed
    assert wait_until(lambda: accepted.ended)


def test_close_that_is_killed_goes_on(server: quicgreen.Server, accepted: Accepted) -> None:
    with nothing_left_behind():
        connection = connect_raw(server)
        closing = gevent.spawn(connection.close)
        gevent.sleep(0)
        closing.kill()
        assert wait_until(lambda: connection.closed)


def test_sessions_of_a_server_are_listed_while_they_last(
    server: quicgreen.Server, accepted: Accepted
) -> None:
    connection = connect_raw(server)
    assert wait_until(lambda: accepted.connections)
    assert list(server.sessions.values()) == [accepted.connection]
    connection.close()
    assert wait_until(lambda: not server.sessions)


def test_a_session_hands_out_requests() -> None:
    done = Event()

    def handle(session: Any) -> None:
        while (request := session.accept_request(timeout=PATIENCE_S)) is not None:
            request.respond(200, None, request.path)
        done.set()

    with nothing_left_behind(), serving(handle, sessions=True) as server:
        with connect(server) as connection:
            assert [connection.get(f"/{i}").text for i in range(3)] == ["/0", "/1", "/2"]
        assert done.wait(PATIENCE_S)


# ---------------------------------------------------------------- causes

APP, REMOTE = _engine.APP, _engine.REMOTE


@pytest.mark.parametrize(
    ("flags", "code", "text", "cause", "sent"),
    [
        (_engine.ICMP | REMOTE, 111, "Connection refused", "unreachable", False),
        (_engine.VERSION | REMOTE, 0, "", "version", False),
        (_engine.TIMED_OUT, 0, "", "handshake-timeout", False),
        (_engine.TIMED_OUT | _engine.ESTABLISHED, 0, "", "idle-timeout", True),
        (_engine.LOST | REMOTE, 0, "", "lost", True),
        (_engine.TLS_ALERT, 0x12A, "invalid certificate: expired", "certificate", False),
        (_engine.TLS_ALERT, 0x178, "no protocol", "alert", False),
        (_engine.TLS_ALERT | REMOTE, 0x12A, "invalid certificate: expired", "alert", False),
        (REMOTE, 0x7, "", "unknown-frame", True),
        (REMOTE, 0x0, "", "closed-by-peer", True),
        (REMOTE, 0x2, "", "closed-by-peer", True),
        (REMOTE, 0xA, "", "violation-here", True),
        (0, 0xA, "", "violation-by-peer", True),
        (REMOTE | APP, 0x7, "", "closed-by-peer", True),
        (REMOTE | APP, 0x100, "", "closed-by-peer", True),
        (REMOTE | APP, 0x105, "", "violation-here", True),
        (APP, 0x100, "", "closed-here", True),
        (APP, 0x0, "", "closed-here", True),
        (APP, 0x106, "", "violation-by-peer", True),
        (0, 0x7, "", "unknown-frame", True),
        (APP, 0x105, "unknown frame type 0x6 (HTTP/2's)", "unknown-frame", True),
        (APP | REMOTE, 0x105, "unknown frame type 0x6", "violation-here", True),
    ],
)
def test_the_cause_of_an_end(flags: int, code: int, text: str, cause: str, sent: bool) -> None:
    e = closing_error(flags, code, text)
    assert e.cause == cause
    assert type(e) is exceptions.CAUSES[cause].exception
    assert e.request_sent is sent
    detail = text.removeprefix("invalid certificate: ").removeprefix("unknown frame type ")
    assert detail in str(e)


# ---------------------------------------------------------------- tickets


def test_a_ticket_is_waited_for_and_each_is_given_once() -> None:
    with serving(hello) as server:
        host, port = server.address
        connection = connect(server)
        first = connection.export_ticket(timeout=PATIENCE_S)  # the handshake is complete just now
        assert (first.host, first.port, first.alpn) == (host, port, "h3")
        assert wait_until(lambda: connection.tickets), "servers send two"
        second = connection.export_ticket()
        assert second.data != first.data
        assert connection.export_ticket() is None
        assert connection.export_ticket(timeout=0.02) is None
        waiting = gevent.spawn(connection.export_ticket, 60.0)
        turn_loop()
        connection.close()
        assert waiting.get(timeout=PATIENCE_S) is None, "no other one will come"
        assert connection.export_ticket(timeout=60.0) is None
        with connect(server, ticket=first) as resumed:
            assert resumed.is_resumed
