"""WebSockets, ours with ours, over real connections: messages, pings, ends, and what is left of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event
from helpers.rooms import Room
from support import PATIENCE_S, OnPurposeError, counters, wait_until

import quicgreen
from quicgreen.websocket import (
    ConcurrencyError,
    ConnectionClosedError,
    ConnectionClosedOK,
    State,
    WebSocket,
)

# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_come_back_as_they_were(room: Room, compression: str | None) -> None:
    with room.open(compression=compression, max_size=None) as ws:
        for message in ("", "hello", "κόσμε" * 100, b"", b"\0\xff", bytes(range(256)) * 1000):
            ws.send(message)
            assert ws.recv() == message
        ws.send(bytearray(b"array"))
        ws.send(memoryview(b"view"))
        assert [ws.recv(), ws.recv()] == [b"array", b"view"]
    assert (ws.close_code, ws.state is State.OPEN) == (1000, False)
    assert wait_until(lambda: room.ends)
    assert isinstance(room.ends[0], ConnectionClosedOK)


def test_a_few_megabytes_both_ways(room: Room) -> None:
    room.options = {"max_size": None, "compression": None}
    with room.open(max_size=None) as ws:
        data = bytes(i * i & 0xFF for i in range(1 << 16)) * 48
        ws.send(data)
        assert ws.recv() == data


def test_the_kind_of_a_message_may_be_chosen(room: Room) -> None:
    ws, theirs = room.pair()
    theirs.send("text", text=False)
    theirs.send(b"bytes", text=True)
    theirs.send("as bytes")
    theirs.send("ä".encode())
    assert [ws.recv(), ws.recv()] == [b"text", "bytes"]
    assert [ws.recv(decode=False), ws.recv(decode=True)] == [b"as bytes", "ä"]
    ws.close()


@pytest.mark.parametrize("compression", ["deflate", None])
def test_an_iterable_is_one_message_of_frames(room: Room, compression: str | None) -> None:
    ws, theirs = room.pair(compression=compression)
    ws.send(["one ", "", "κόσμε"])
    ws.send(iter([b"1", b"2"]))
    ws.send([])
    assert [theirs.recv(), theirs.recv()] == ["one κόσμε", b"12"]
    ws.send(part for part in "κόμ")
    assert "".join(theirs.recv_streaming()) == "κόμ"
    ws.send([b"\xce", b"\xba"], text=True)
    assert list(theirs.recv_streaming()) == ["κ"], "a character is not cut"
    ws.close()


def test_a_piece_is_had_before_the_message_has_ended(room: Room) -> None:
    ws, theirs = room.pair()
    more = Event()

    def parts() -> Iterator[str]:
        yield "first"
        more.wait()
        yield "second"

    sender = gevent.spawn(ws.send, parts())
    stream = theirs.recv_streaming()
    assert next(stream) == "first"
    other = gevent.spawn(ws.send, "another")
    gevent.sleep(0.01)
    assert not other.ready(), "nothing comes between"
    more.set()
    assert list(stream) == ["second"]
    assert theirs.recv() == "another"
    gevent.joinall([sender, other], raise_error=True)
    ws.close()


def test_a_message_that_is_not_sent_to_its_end_ends_the_socket(room: Room) -> None:
    ws, theirs = room.pair()

    def parts() -> Iterator[str]:
        yield "first"
        raise OnPurposeError

    with pytest.raises(OnPurposeError):
        ws.send(parts())
    with pytest.raises(ConnectionClosedError) as caught:
        theirs.recv()
    assert caught.value.code == 1011
    with pytest.raises(ConnectionClosedError):
        ws.send("more")


@pytest.mark.parametrize("message", [None, 1, {"a": 1}, ["a", b"b"], [1]])
def test_what_is_no_message(room: Room, message: Any) -> None:
    with room.open() as ws, pytest.raises(quicgreen.QuicClientException, match=r"no message|a message is of"):
        ws.send(message)


def test_many_sockets_on_one_connection(room: Room) -> None:
    sockets = [room.open() for _ in range(50)]

    def talk(number: int) -> list[str]:
        ws = sockets[number]
        for i in range(5):
            ws.send(f"{number}-{i}")
        return [ws.recv() for _ in range(5)]

    jobs = [gevent.spawn(talk, n) for n in range(50)]
    gevent.joinall(jobs, raise_error=True, timeout=20)
    assert [j.value for j in jobs] == [[f"{n}-{i}" for i in range(5)] for n in range(50)]
    assert counters()["connections"] == 2
    for ws in sockets:
        ws.close()


def test_iterating_ends_with_the_close(room: Room) -> None:
    def do(ws: WebSocket) -> None:
        for i in range(40):
            ws.send(str(i))

    room.do = do
    assert list(room.open(max_queue=4)) == [str(i) for i in range(40)]


def test_iterating_a_socket_that_failed_raises(room: Room) -> None:
    room.do = lambda ws: (ws.send("a"), ws.close(1011))
    messages = iter(room.open())
    assert next(messages) == "a"
    with pytest.raises(ConnectionClosedError):
        next(messages)


# ---------------------------------------------------------------- pings


def test_a_hundred_pings_are_answered_and_no_pong_is_left_over(room: Room) -> None:
    ws, theirs = room.pair(compression=None, max_size=None)
    pongs = [ws.ping() for _ in range(100)]
    assert all(p.wait(PATIENCE_S) for p in pongs)
    assert theirs._outbox.owed == 0
    ws.close()


def test_a_ping_tells_how_far_away_the_peer_is(room: Room) -> None:
    ws, theirs = room.pair()
    assert ws.latency == 0.0
    assert ws.ping("hello").wait(PATIENCE_S)
    assert 0 < ws.latency < PATIENCE_S
    first, second = theirs.ping(), theirs.ping(b"")
    assert second.wait(PATIENCE_S)
    assert first.is_set()
    theirs.pong(b"a sign of life")
    ws.close()
    with pytest.raises(ConnectionClosedOK):
        ws.ping()


def test_pings_that_cannot_be(room: Room) -> None:
    ws, _ = room.pair()
    with pytest.raises(quicgreen.QuicClientException, match="125"):
        ws.ping(b"x" * 126)
    with pytest.raises(quicgreen.QuicClientException, match="125"):
        ws.pong(b"x" * 126)
    ws.ping("same")
    with pytest.raises(ConcurrencyError):
        ws.ping("same")
    ws.close()
