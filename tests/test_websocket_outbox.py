"""Frames on their way out, over a pipe that takes what the test says."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from support import PATIENCE_S, nothing_left_behind

from quicgreen import _engine, hub
from quicgreen.exceptions import error
from quicgreen.websocket.outbox import Outbox


class Pipe:
    """Takes `room` bytes, and what `pour` allows later."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.took = b""
        self.ended = False
        self.token = 0
        self.broken = False

    def write(self, data: Any, flags: int, token: int) -> tuple[int, int]:
        if self.broken:
            return _engine.STOPPED, 0x10C
        if len(data) and not self.room:
            self.token = token or self.token
            return _engine.AGAIN, 0
        n = min(len(data), self.room)
        self.took += bytes(data[:n])
        self.room -= n
        self.ended |= bool(flags & _engine.FIN) and n == len(data)
        return n, 0

    def failure(self, result: int, code: int) -> Exception:
        return error("stopped", wire_code=code)

    def pour(self, room: int) -> None:
        self.room += room
        token, self.token = self.token, 0
        target = hub.current().targets[token]
        gevent.get_hub().loop.run_callback(target, (_engine.WRITABLE, 0, 0, token, 0, 0, 0, 0, 0, 0, 0, 0))
        gevent.sleep(0.01)


class Owner:
    sent = failed = 0

    def _on_sent(self) -> None:
        self.sent += 1

    def _on_send_failure(self) -> None:
        self.failed += 1


def make(room: int) -> tuple[Outbox, Pipe, Owner]:
    pipe, owner = Pipe(room), Owner()
    return Outbox(hub.current(), pipe, owner), pipe, owner


def test_what_is_taken_at_once_waits_for_nobody() -> None:
    outbox, pipe, owner = make(100)
    assert outbox.transmit(b"one")
    assert outbox.transmit(b"two")
    assert (pipe.took, owner.sent, outbox._frames) == (b"onetwo", 0, None)


def test_frames_go_out_in_order_and_whole() -> None:
    with nothing_left_behind():
        outbox, pipe, owner = make(2)
        senders = [gevent.spawn(outbox.transmit, frame) for frame in (b"one", b"two", b"three")]
        gevent.sleep(0)
        assert (pipe.took, [s.ready() for s in senders]) == (b"on", [False] * 3)
        pipe.pour(1)
        assert [s.ready() for s in senders] == [True, False, False]
        senders[1].kill()
        outbox.put(b"pong", reply=True)
        assert outbox.owed == 4
        pipe.pour(100)
        assert pipe.took == b"onetwothreepong"
        assert senders[2].get(timeout=PATIENCE_S) is True
        assert (outbox.owed, owner.sent, outbox.closed) == (0, 2, False)


def test_the_end_comes_last_and_once() -> None:
    with nothing_left_behind():
        outbox, pipe, _ = make(2)
        outbox.put(b"one")
        outbox.end()
        outbox.end()
        assert not pipe.ended
        pipe.pour(10)
        assert (pipe.took, pipe.ended, outbox.closed, outbox.failure) == (b"one", True, True, None)
        outbox.put(b"more")
        assert pipe.took == b"one"


@pytest.mark.parametrize("how", ["fail", "drop"])
def test_who_waits_hears_that_it_will_not_be_sent(how: str) -> None:
    with nothing_left_behind():
        outbox, pipe, owner = make(2)
        sender = gevent.spawn(outbox.transmit, b"one")
        gevent.sleep(0)
        if how == "fail":
            pipe.broken = True
            pipe.pour(1)
        else:
            outbox.drop()
        assert sender.get(timeout=PATIENCE_S) is False
        assert outbox.closed
        assert owner.failed == (how == "fail")
        assert (outbox.failure is not None) == (how == "fail")


def test_a_failure_at_once() -> None:
    outbox, pipe, owner = make(0)
    pipe.broken = True
    assert outbox.transmit(b"one") is False
    assert (outbox.closed, owner.failed) == (True, 1)
