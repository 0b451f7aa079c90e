"""Pings without a WebSocket: their deadlines are the runtime's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from support import PATIENCE_S, nothing_left_behind, wait_until

import quicgreen
from quicgreen import hub
from quicgreen.websocket import ConcurrencyError
from quicgreen.websocket.pings import Pings, control_payload


class Owner:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.missing = 0

    def _send_ping(self, payload: bytes) -> None:
        self.sent.append(payload)

    def _on_pong_missing(self) -> None:
        self.missing += 1


@pytest.fixture
def owner() -> Iterator[Owner]:
    with nothing_left_behind():
        yield Owner()


def pings_of(owner: Owner, interval: Any = None, timeout: Any = None) -> Pings:
    return Pings(hub.current(), owner, interval, timeout)


def test_a_pong_answers_its_ping_and_those_before_it(owner: Owner) -> None:
    pings = pings_of(owner)
    events = [pings.new(name)[1] for name in ("a", "b", "c")]
    pings.take(b"unknown")
    assert not any(e.is_set() for e in events)
    pings.take(b"b")
    assert [e.is_set() for e in events] == [True, True, False]
    assert pings.latency > 0
    pings.end()
    assert events[2].is_set(), "nobody waits for ever"


def test_payloads(owner: Owner) -> None:
    pings = pings_of(owner)
    assert len({pings.new(None)[0] for _ in range(100)}) == 100
    pings.new("ä")
    with pytest.raises(ConcurrencyError):
        pings.new("ä".encode())
    assert control_payload(bytearray(125)) == bytes(125)
    with pytest.raises(quicgreen.QuicClientException, match="125 bytes, not 126"):
        control_payload("x" * 126)


def test_who_waits_for_a_pong_keeps_the_loop_alive(owner: Owner) -> None:
    pings = pings_of(owner)
    _, pong = pings.new(None)
    references = hub.current()._references
    waiting = gevent.spawn(pong.wait)
    gevent.sleep(0)
    assert hub.current()._references == references + 1
    waiting.kill()
    assert hub.current()._references == references


def test_each_ping_is_due_after_the_pong_of_the_last(owner: Owner) -> None:
    pings = pings_of(owner, 0.01, PATIENCE_S)
    pings.plan()
    assert wait_until(lambda: len(owner.sent) == 1)
    gevent.sleep(0.05)
    assert len(owner.sent) == 1
    pings.take(owner.sent[0])
    assert wait_until(lambda: len(owner.sent) == 2)
    pings.end()


def test_without_a_timeout_pings_go_on(owner: Owner) -> None:
    pings = pings_of(owner, 0.01)
    pings.plan()
    assert wait_until(lambda: len(owner.sent) > 2)
    pings.rest()
    count = len(owner.sent)
    gevent.sleep(0.05)
    assert len(owner.sent) == count
    assert owner.missing == 0
    pings.end()


def test_a_pong_that_does_not_come_is_told(owner: Owner) -> None:
    pings = pings_of(owner, 0.01, 0.02)
    pings.plan()
    assert wait_until(lambda: owner.missing == 1)
    pings.wait_on()
    assert wait_until(lambda: owner.missing == 2)
    pings.wait_on()
    pings.take(owner.sent[0])
    assert wait_until(lambda: len(owner.sent) == 2), "a late one is good"
    pings.end()
    gevent.sleep(0.05)
    assert (len(owner.sent), owner.missing) == (2, 2)
