"""Slots of a group, with sockets and forked processes that do not serve."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from quicgreen import QuicServerException
from quicgreen._group import ACCEPTING, DRAINING, FREE, WorkerGroup
from quicgreen.configuration import ServerTls
from quicgreen.supervisor.children import Child, Generation
from quicgreen.supervisor.config import Settings
from quicgreen.supervisor.slots import Slots
from quicgreen.supervisor.sockets import SocketGroup


@pytest.fixture(params=["bpf", "handover"])
def slots(request: pytest.FixtureRequest) -> Iterator[Slots]:
    sockets = SocketGroup("127.0.0.1:0")
    try:
        yield Slots(WorkerGroup(slots=4, connections=8, early_data_capacity=16), sockets, request.param)
    finally:
        sockets.close()


def new_child(slots: Slots, taken: set[int]) -> Child:
    slot = slots.choose(taken)
    assert slot is not None
    taken.add(slot)
    child = Child(slot, 0, Generation(0, Settings(), ServerTls()))
    child.pid = os.getpid()
    slots.group.claim(slot)
    return child


def where_packets_go(slots: Slots, count: int = 200) -> Counter[int]:
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.sendto(b"\xc0" + os.urandom(1199), slots.sockets.address)
    found: Counter[int] = Counter()
    time.sleep(0.05)
    for slot, s in enumerate(slots.sockets._members):
        while s is not None:
            try:
                s.recv(2000)
            except BlockingIOError:
                break
            found[slot] += 1
    return found


def test_new_packets_go_to_those_that_accept(slots: Slots) -> None:
    taken: set[int] = set()
    first, second = new_child(slots, taken), new_child(slots, taken)
    assert (first.slot, second.slot) == (0, 1)
    slots.accept(first)
    if slots.is_steered:
        assert where_packets_go(slots).keys() == {0}
    slots.accept(second)
    assert where_packets_go(slots).keys() == {0, 1}
    slots.leave(first)
    if slots.is_steered:
        assert where_packets_go(slots).keys() == {1}
    assert slots.information(0).state == DRAINING
    assert slots.information(1).state == ACCEPTING
    assert slots.bury(first) == 0
    assert slots.information(0).state == FREE
    assert where_packets_go(slots).keys() == {1}  # and none into a socket that nobody reads
    assert slots.choose({1}) == 0


def test_all_are_taken(slots: Slots) -> None:
    taken: set[int] = set()
    for _ in range(4):
        new_child(slots, taken)
    assert slots.choose(taken) is None


def test_a_worker_that_never_had_its_slot_changes_nothing(slots: Slots) -> None:
    taken: set[int] = set()
    child = new_child(slots, taken)
    slots.accept(child)
    stranger = Child(child.slot, 1, child.generation)
    stranger.pid = 1
    slots.leave(stranger)
    assert slots.bury(stranger) == 0
    assert slots.information(child.slot).state == ACCEPTING


@pytest.mark.parametrize("steering", ["auto", "bpf"])
def test_a_kernel_that_takes_no_program(steering: str, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(WorkerGroup, "steer", lambda self, fd: 95)
    sockets = SocketGroup("127.0.0.1:0")
    group = WorkerGroup(slots=2, connections=8, early_data_capacity=16)
    if steering == "bpf":
        with pytest.raises(QuicServerException, match="takes no program"):
            Slots(group, sockets, steering)
    else:
        slots = Slots(group, sockets, steering)
        assert not slots.is_steered
        assert where_packets_go(slots, 20) == {0: 20}
    assert "no steering program (Operation not supported)" in caplog.text
    sockets.close()


def test_a_socket_that_somebody_else_keeps_open_needs_a_program() -> None:
    """Nobody reads it while its slot has no worker, and it cannot be closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        sockets = SocketGroup("ignored:1", [os.dup(s.fileno())])
        group = WorkerGroup(slots=2, connections=8, early_data_capacity=16)
        assert Slots(group, sockets, "auto").is_steered
        with pytest.raises(QuicServerException, match="inherited"):
            Slots(group, sockets, "handover")
        sockets.close()
