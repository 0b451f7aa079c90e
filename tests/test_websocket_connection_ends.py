"""How WebSockets end, ours with ours: closed, killed, reset, lost, too late; and what each side is told."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.rooms import Room
from support import PATIENCE_S, OnPurposeError, counters, new_session, reported, serving, url_of, wait_until

import quicgreen
from quicgreen.websocket import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    State,
    WebSocket,
)


def end_of(ws: WebSocket) -> ConnectionClosed:
    """What who receives next is told."""
    while True:
        try:
            ws.recv(timeout=PATIENCE_S)
        except ConnectionClosed as e:
            return e


def frame(first: int, payload: bytes, *, mask: bool) -> bytes:
    return bytes([first, len(payload) | (0x80 if mask else 0)]) + (b"\0\0\0\0" if mask else b"") + payload


# ---------------------------------------------------------------- closed


@pytest.mark.parametrize(("code", "kind"), [(1000, ConnectionClosedOK), (4000, ConnectionClosedError)])
@pytest.mark.parametrize("by_client", [True, False])
def test_both_sides_know_who_closed_and_why(room: Room, code: int, kind: type, by_client: bool) -> None:
    ws, theirs = room.pair()
    closer, other = (ws, theirs) if by_client else (theirs, ws)
    closer.close(code, "enough")
    closer.close(1001, "again")
    for side in (closer, other):
        e = end_of(side)
        assert type(e) is kind
        assert (e.code, e.reason) == (side.close_code, side.close_reason) == (code, "enough")
        assert e.received == e.sent == (code, "enough")
        with pytest.raises(kind):
            side.send("more")
    assert wait_until(lambda: (ws.state, theirs.state) == (State.CLOSED, State.CLOSED))
    assert wait_until(lambda: counters()["streams"] == 4), "the streams are gone, but for control"


def test_both_may_close_at_once(room: Room) -> None:
    ws, theirs = room.pair()
    gevent.joinall(
        [gevent.spawn(ws.close, 1000, "a"), gevent.spawn(theirs.close, 1001, "b")], raise_error=True
    )
    assert (ws.close_code, theirs.close_code) == (1001, 1000)
    assert isinstance(end_of(ws), ConnectionClosedOK)


def test_a_close_that_the_peer_will_not_hear_waits_for_nothing() -> None:
    done = Event()

    def deaf(request: quicgreen.Request) -> None:
        stream = request.start_response(200)
        stream.stop()
        done.wait(PATIENCE_S)
        stream.reset()

    with serving(deaf, websocket=True) as server, new_session() as session:
        ws = session.websocket(url_of(server).replace("https", "wss"), close_timeout=PATIENCE_S)
        gevent.sleep(0.1)
        with pytest.raises(ConnectionClosed):
            until_refused(ws)
        gevent.spawn(ws.close).get(timeout=PATIENCE_S / 2)
        done.set()
        assert ws.close_code == 1006


def until_refused(ws: WebSocket) -> None:
    for _ in range(100):
        ws.send("anybody there?")
        gevent.sleep(0.01)


def test_what_came_before_a_close_is_received(room: Room) -> None:
    ws, theirs = room.pair()
    for i in range(50):
        theirs.send(str(i))
    closing = gevent.spawn(theirs.close)
    assert [ws.recv() for _ in range(50)] == [str(i) for i in range(50)]
    assert isinstance(end_of(ws), ConnectionClosedOK)
    closing.get(timeout=PATIENCE_S)


def test_who_closes_does_not_wait_for_messages_to_be_received(room: Room) -> None:
    ws, theirs = room.pair(compression=None, max_size=None)
    flood = gevent.spawn(lambda: [theirs.send(bytes(50_000)) for _ in range(200)])
    assert wait_until(lambda: ws._inbox.held)
    ws.close()
    assert ws.close_code == 1000
    flood.join(PATIENCE_S)
    assert isinstance(flood.exception, ConnectionClosed)


def test_a_peer_that_does_not_close_is_left(room: Room) -> None:
    ws, theirs = room.pair(close_timeout=0.2)
    theirs._runtime.targets.pop(theirs._inbox._reading)  # it hears nothing
    ws.close()
    assert ws.close_code == 1006
    e = end_of(ws)
    assert (e.sent, e.received) == ((1000, ""), None)
    assert isinstance(e.__cause__, TimeoutError)


def test_a_handler_that_returns_closes_in_order(room: Room) -> None:
    room.do = lambda ws: ws.send("bye")
    ws = room.open()
    assert ws.recv() == "bye"
    e = end_of(ws)
    assert (type(e), e.code) == (ConnectionClosedOK, 1000)


def test_a_handler_that_fails_closes_with_1011(room: Room) -> None:
    def fail(ws: WebSocket) -> None:
        raise OnPurposeError

    room.do = fail
    with reported() as found:
        e = end_of(room.open())
        assert (e.code, e.received) == (1011, (1011, ""))
        assert wait_until(lambda: found)
    assert isinstance(found[0][1], OnPurposeError)


def test_that_a_client_leaves_is_no_failure_of_the_handler(room: Room) -> None:
    with reported() as found:
        for leave in (WebSocket.close, WebSocket._give_up):
            ws = room.open()
            ws.send("x")
            ws.recv()
            leave(ws)
        assert wait_until(lambda: len(room.ends) == 2)
        assert {type(e) for e in room.ends} == {ConnectionClosedOK, ConnectionClosedError}
    assert found == []


def test_leaving_a_block_by_an_exception_does_not_wait(room: Room) -> None:
    ws, theirs = room.pair()
    with pytest.raises(OnPurposeError), ws:
        raise OnPurposeError
    assert end_of(theirs).code == 1011


# ---------------------------------------------------------------- killed


def test_a_frame_that_was_begun_is_sent_though_its_sender_was_killed(room: Room) -> None:
    ws, theirs = room.pair(compression=None)
    theirs._protocol._max_size = None
    big = bytes(6 << 20)
    sender = gevent.spawn(ws.send, big)
    gevent.sleep(0)
    assert not sender.ready()
    second = gevent.spawn(ws.send, "second")
    gevent.sleep(0)
    sender.kill()
    assert len(theirs.recv(timeout=20)) == len(big)
    assert theirs.recv(timeout=PATIENCE_S) == "second"
    second.get(timeout=PATIENCE_S)
    ws.close()


def test_who_is_killed_while_closing_has_closed(room: Room) -> None:
    ws, theirs = room.pair()
    closer = gevent.spawn(ws.close, 1001, "gone")
    gevent.sleep(0)
    closer.kill()
    e = end_of(theirs)
    assert (e.code, e.reason) == (1001, "gone")
    assert wait_until(lambda: ws.state is State.CLOSED)


def test_who_is_killed_with_a_socket_says_that_it_goes(room: Room) -> None:
    def use() -> None:
        with room.open() as ws:
            ws.recv()

    room.do = room.wait
    user = gevent.spawn(use)
    assert wait_until(lambda: room.sockets)
    user.kill()
    assert end_of(room.sockets[0]).code == 1001


def test_a_server_that_stops_says_that_it_goes(room: Room) -> None:
    room.do = room.wait
    with serving(room, websocket=True) as server:
        ws = room.session.websocket(url_of(server))
        assert wait_until(lambda: room.sockets)
        stopping = gevent.spawn(server.stop, timeout=0)
        e = end_of(ws)
        assert (e.code, e.received) == (1001, (1001, ""))
        stopping.join()


def test_a_goaway_leaves_open_sockets_alone(room: Room) -> None:
    go = Event()

    def handle(request: Any) -> None:
        ws = request.accept_websocket()
        ws.send("hello")
        go.wait()
        ws.send("bye")

    with serving(handle, websocket=True) as server:
        ws = room.session.websocket(url_of(server))
        assert ws.recv() == "hello"
        stopping = gevent.spawn(server.stop, timeout=PATIENCE_S)
        connection = ws._pipe._owner
        assert wait_until(lambda: connection.draining)
        go.set()
        assert ws.recv(timeout=PATIENCE_S) == "bye"
        assert isinstance(end_of(ws), ConnectionClosedOK)
        stopping.join()


# ---------------------------------------------------------------- lost


def test_a_reset_ends_it(room: Room) -> None:
    ws, theirs = room.pair()
    waiting = gevent.spawn(end_of, ws)
    gevent.sleep(0)
    theirs._give_up()
    e = waiting.get(timeout=PATIENCE_S)
    assert (type(e), e.code, e.received, e.sent) == (ConnectionClosedError, 1006, None, None)
    assert isinstance(e.__cause__, quicgreen.QuicStreamException)
    assert e.__cause__.wire_code == 0x10C
    with pytest.raises(ConnectionClosedError):
        ws.send("x")


def test_a_reset_wakes_who_sends(room: Room) -> None:
    ws, theirs = room.pair(compression=None)
    sender = gevent.spawn(lambda: [ws.send(bytes(1 << 20)) for _ in range(20)])
    assert wait_until(lambda: ws._outbox._senders)
    theirs._give_up()
    sender.join(PATIENCE_S)
    assert isinstance(sender.exception, ConnectionClosedError)
    assert sender.exception.code == 1006


@pytest.mark.parametrize("paused", [False, True])
def test_a_connection_that_is_closed_takes_its_sockets(room: Room, paused: bool) -> None:
    ws, theirs = room.pair(max_queue=1)
    if paused:
        for _ in range(3):
            ws.send("kept")
        assert wait_until(lambda: theirs._inbox._complete)
    ws._pipe._owner.close(0x100, "done", timeout=None)
    e = end_of(ws)
    assert (e.code, type(e.__cause__)) == (1006, quicgreen.QuicConnectionException)
    assert end_of(theirs).code == 1006


def test_an_end_of_the_stream_is_no_close(room: Room) -> None:
    ws, theirs = room.pair()
    ws.send("last")
    ws._outbox.end()
    assert theirs.recv(timeout=PATIENCE_S) == "last"
    e = end_of(theirs)
    assert (e.code, e.received, e.__cause__) == (1006, None, None)
    assert end_of(ws).code == 1006


def test_a_peer_that_answers_no_pings_is_gone(room: Room) -> None:
    ws, theirs = room.pair(ping_interval=0.02, ping_timeout=0.1)
    assert wait_until(lambda: ws.latency > 0), "it is asked again and again"
    theirs._runtime.targets.pop(theirs._inbox._reading)  # it hears nothing any more
    e = end_of(ws)
    assert (e.code, e.sent) == (1011, (1011, "keepalive ping timeout"))
    theirs._give_up()


def test_a_peer_that_answers_pings_stays(room: Room) -> None:
    ws, _theirs = room.pair(ping_interval=0.01, ping_timeout=PATIENCE_S)
    start = time.monotonic()
    latencies = set()
    while time.monotonic() < start + 0.3:
        gevent.sleep(0.01)
        latencies.add(ws.latency)
    assert len(latencies) > 3
    assert ws.state is State.OPEN
    ws.close()


# ---------------------------------------------------------------- breaches


@pytest.mark.parametrize(
    ("first", "payload", "code"),
    [(0x83, b"", 1002), (0xC1, b"x", 1002), (0xA1, b"x", 1002), (0x81, b"\xff", 1007), (0x88, b"\0", 1002)],
)
@pytest.mark.parametrize("by_client", [True, False])
def test_a_breach_is_told_by_its_code(
    room: Room, first: int, payload: bytes, code: int, by_client: bool
) -> None:
    ws, theirs = room.pair(compression=None)
    bad, good = (ws, theirs) if by_client else (theirs, ws)
    bad._outbox.put(frame(first, payload, mask=by_client))
    for side in (good, bad):
        e = end_of(side)
        assert (type(e), e.code) == (ConnectionClosedError, code)
    assert wait_until(lambda: (good.state, bad.state) == (State.CLOSED, State.CLOSED))


def test_a_client_that_does_not_mask(room: Room) -> None:
    ws, theirs = room.pair()
    ws._outbox.put(frame(0x81, b"hi", mask=False))
    assert (end_of(theirs).code, end_of(ws).code) == (1002, 1002)


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_message_that_is_too_large(room: Room, compression: str | None) -> None:
    room.options = {"max_size": 1000}
    ws, theirs = room.pair(compression=compression)
    ws.send(b"x" * 1000)
    ws.send(b"x" * 1001)
    assert len(theirs.recv(timeout=PATIENCE_S)) == 1000
    e = end_of(theirs)
    assert (e.code, e.sent is not None and e.sent[0]) == (1009, 1009)
    assert isinstance(e.__cause__, PayloadTooBig)
    assert end_of(ws).code == 1009


def test_data_after_a_close_is_dropped(room: Room) -> None:
    ws, theirs = room.pair()
    ws._outbox.put(frame(0x88, b"\x03\xe8", mask=True) + frame(0x81, b"late", mask=True) + b"\xff\xff")
    e = end_of(theirs)
    assert (type(e), e.code) == (ConnectionClosedOK, 1000)


def test_another_thread_may_not_use_it(room: Room) -> None:
    with room.open() as ws:
        for use in (ws.recv, lambda: ws.send("x"), ws.close, ws.ping):
            with pytest.raises(quicgreen.QuicClientException, match="belongs to thread"):
                gevent.get_hub().threadpool.apply(use)
