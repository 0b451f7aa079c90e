"""Messages that come: kept until somebody receives them, and left with the peer when there are too many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from helpers.rooms import Room
from support import PATIENCE_S, nothing_left_behind, wait_until

import quicgreen
from quicgreen import _engine, hub
from quicgreen._frames import BINARY, PING, TEXT, build_frame
from quicgreen.exceptions import QuicException, error
from quicgreen.websocket import ConcurrencyError, ConnectionClosed
from quicgreen.websocket.inbox import Inbox
from quicgreen.websocket.outbox import Outbox
from quicgreen.websocket.protocol import Protocol

# ---------------------------------------------------------------- over a pipe that brings what the test says


class Pipe:
    """Brings a piece at each read."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.ended = self.broken = False
        self.token = self.reads = 0

    def read(self, buffer: bytearray, token: int) -> tuple[int, int, int]:
        self.reads += 1
        if self.pieces:
            piece = self.pieces.popleft()
            buffer[: len(piece)] = piece
            return len(piece), 0, 0
        if self.broken:
            return _engine.RESET, 0, 0x10C
        if self.ended:
            return 0, _engine.FIN, 0
        self.token = token
        return _engine.AGAIN, 0, 0

    def write(self, data: Any, flags: int, token: int) -> tuple[int, int]:
        return _engine.AGAIN, 0

    def failure(self, result: int, code: int) -> QuicException:
        return error("reset", wire_code=code)

    def bring(self, *pieces: bytes) -> None:
        """The hub is told, if somebody wants to know."""
        self.pieces.extend(pieces)
        token, self.token = self.token, 0
        target = hub.current().targets.get(token)
        if target is not None:
            record = (_engine.READABLE, 0, 0, token, 0, 0, 0, 0, 0, 0, 0, 0)
            gevent.get_hub().loop.run_callback(target, record)
        gevent.sleep(0.01)


class Owner:
    """As a WebSocket is, as far as what comes is concerned."""

    def __init__(self, max_queue: int | None = None) -> None:
        self.pipe, self.protocol = Pipe(), Protocol(is_server=True)
        self.outbox = Outbox(hub.current(), self.pipe, self)
        self.inbox = Inbox(hub.current(), self.pipe, self.protocol, self.outbox, max_queue, self)
        self.controls = 0
        self.causes: list[QuicException | None] = []
        self.inbox.read()

    def _on_control(self) -> None:
        self.controls += 1
        for frame in self.protocol.out:
            self.outbox.put(frame, reply=True)
        self.protocol.out.clear()

    def _on_read_end(self, cause: QuicException | None) -> None:
        self.causes.append(cause)
        self.protocol.lost(cause)

    def recv(self, timeout: float | None = PATIENCE_S) -> Any:
        return self.inbox.message(timeout, None)


def frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True) -> bytes:
    return build_frame(opcode, payload, fin=fin, mask=True)


def test_messages_are_received_in_order_whole_and_as_their_kind() -> None:
    with nothing_left_behind():
        owner = Owner()
        owner.pipe.bring(frame("é".encode(), TEXT) + frame(b"a", fin=False) + frame(b"b", 0, fin=False))
        assert owner.recv() == "é"
        receiver = gevent.spawn(owner.recv)
        gevent.sleep(0.01)
        assert not receiver.ready(), "the message is not complete"
        owner.pipe.bring(frame(b"c", 0), frame(b"next"))
        assert receiver.get(timeout=PATIENCE_S) == b"abc"
        assert owner.inbox.message(None, True) == "next"
        assert (owner.inbox.held, owner.controls) == (0, 0)
        owner.inbox.drop()


def test_pieces_are_had_as_they_come() -> None:
    with nothing_left_behind():
        owner = Owner()
        receiver = gevent.spawn(lambda: [owner.inbox.piece(), owner.inbox.piece()])
        gevent.sleep(0.01)
        owner.pipe.bring(frame(b"a", fin=False))
        assert not receiver.ready()
        owner.pipe.bring(frame(b"b", 0))
        assert receiver.get(timeout=PATIENCE_S) == [(BINARY, b"a", False), (BINARY, b"b", True)]
        assert owner.inbox.held == 0
        with pytest.raises(TimeoutError):
            owner.recv(timeout=0)
        owner.inbox.drop()


def test_beyond_the_queue_nothing_is_read_until_somebody_receives() -> None:
    with nothing_left_behind():
        owner = Owner(max_queue=2)
        owner.pipe.bring(*(frame(b"%d" % i) for i in range(5)))
        assert (owner.pipe.reads, owner.inbox.is_full) == (3, True)  # one found nothing
        assert [owner.recv() for _ in range(5)] == [b"%d" % i for i in range(5)]
        assert not owner.inbox.is_full
        owner.inbox.drop()


def test_beyond_its_bytes_too() -> None:
    with nothing_left_behind():
        owner = Owner()
        owner.pipe.bring(*(frame(bytes(30_000)) for _ in range(5)))
        assert (owner.inbox.held, owner.inbox.is_full) == (90_000, True)
        assert [len(owner.recv()) for _ in range(5)] == [30_000] * 5
        owner.inbox.drop()


def test_pings_of_a_peer_that_takes_no_pongs_are_not_read() -> None:
    with nothing_left_behind():
        owner = Owner()
        owner.pipe.bring(*(frame(bytes(125), PING) for _ in range(1000)))
        assert owner.inbox.is_full
        assert 65_536 < owner.outbox.owed < 66_000
        assert len(owner.pipe.pieces) > 400
        owner.outbox.drop()
        owner.inbox.read()
        assert not owner.pipe.pieces
        owner.inbox.drop()


def test_who_closes_drops_what_comes_and_reads_on() -> None:
    with nothing_left_behind():
        owner = Owner(max_queue=1)
        owner.inbox.closing = True
        owner.pipe.bring(*(frame(b"%d" % i) for i in range(5)))
        assert (owner.inbox.held, owner.pipe.pieces) == (0, deque())
        owner.inbox.drop()


@pytest.mark.parametrize("how", ["end", "reset"])
def test_the_end_is_told_once_and_after_the_last_message(how: str) -> None:
    with nothing_left_behind():
        owner = Owner()
        owner.pipe.ended, owner.pipe.broken = how == "end", how == "reset"
        owner.pipe.bring(frame(b"last"))
        assert [cause is None for cause in owner.causes] == [how == "end"]
        assert owner.recv() == b"last"
        with pytest.raises(ConnectionClosed):
            owner.recv()
        assert (owner.inbox.ended, len(owner.causes)) == (True, 1)


def test_what_is_dropped_tells_nobody() -> None:
    with nothing_left_behind():
        owner = Owner()
        owner.inbox.drop()
        owner.inbox.end(None)
        owner.pipe.bring(frame(b"late"))
        assert (owner.causes, owner.inbox.held, owner.inbox.owner) == ([], 0, None)


# ---------------------------------------------------------------- between two WebSockets


def test_only_one_may_receive(room: Room) -> None:
    ws, theirs = room.pair()
    first = gevent.spawn(ws.recv)
    gevent.sleep(0)
    with pytest.raises(ConcurrencyError):
        ws.recv()
    theirs.send("for the first")
    assert first.get(timeout=PATIENCE_S) == "for the first"
    ws.close()


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_who_is_killed_while_receiving_loses_nothing(room: Room, how: str) -> None:
    ws, theirs = room.pair()
    if how == "kill":
        receiver = gevent.spawn(ws.recv)
        gevent.sleep(0)
        receiver.kill()
    else:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            ws.recv()
    theirs.send("still here")
    assert ws.recv(timeout=PATIENCE_S) == "still here"
    ws.close()


def test_nothing_in_time_is_an_error_and_nothing_more(room: Room) -> None:
    ws, theirs = room.pair()
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError) as caught:
            ws.recv(timeout=timeout)
        assert isinstance(caught.value, quicgreen.QuicTimeoutException)
    theirs.send("a")
    assert ws.recv(timeout=PATIENCE_S) == "a"
    ws.close()


def test_what_nobody_receives_stays_with_the_peer(room: Room) -> None:
    ws, theirs = room.pair(compression=None, max_size=None)
    sent: list[int] = []

    def flood() -> None:
        for i in range(400):
            theirs.send(bytes([i & 0xFF]) * 50_000)
            sent.append(i)

    flooder = gevent.spawn(flood)
    assert wait_until(lambda: sent)
    assert wait_until(lambda: _still(lambda: len(sent)))
    held = len(sent)
    assert held < 300
    assert ws._inbox.held < 300_000
    assert [ws.recv()[0] for _ in range(400)] == [i & 0xFF for i in range(400)]
    flooder.get(timeout=PATIENCE_S)
    ws.close()


def _still(value: Callable[[], Any]) -> bool:
    before = value()
    gevent.sleep(0.2)
    return bool(value() == before)


def test_a_message_beyond_the_read_ahead_is_received(room: Room) -> None:
    ws, theirs = room.pair(compression=None, max_size=None)
    sender = gevent.spawn(theirs.send, b"x" * 900_000)
    assert wait_until(lambda: _still(lambda: ws._inbox.held))
    assert ws._inbox.held < 300_000
    assert len(ws.recv()) == 900_000
    sender.get(timeout=PATIENCE_S)
    ws.close()
