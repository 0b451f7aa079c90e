from __future__ import annotations

import errno
import os
import signal
import socket
import time
from typing import Any

import pytest
from support import check_python

from quicgreen import QuicClientException
from quicgreen._engine import Engine
from quicgreen._group import ACCEPTING, DEAD, DRAINING, FREE, STARTING, STATES, WorkerGroup
from quicgreen.exceptions import QuicException, QuicServerException
from quicgreen.tickets import SharedMemoryTicketStore


def small(**options: Any) -> WorkerGroup:
    return WorkerGroup(**{"slots": 4, "connections": 8, "early_data_capacity": 16, **options})


def in_child(body: Any) -> int:
    """Run it in a forked child; returns how that ended, as `os.waitpid`."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 0},
        {"slots": 256},
        {"slots": -1},
        {"slots": "four"},
        {"connections": 0},
        {"early_data_capacity": 0},
        {"key_period_s": 0},
        {"key_window": 65},
        {"key_origin_s": -1},
        {"host_id": 65536},
        {"secret": b"short"},
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(QuicClientException, match="wrong argument"):
        small(**options)


def test_a_group_tells_what_it_was_made_with() -> None:
    group = small(host_id=77, key_period_s=9, key_window=3, key_origin_s=5)
    info = group.info()
    size = info.pop("size")
    assert size > 0
    assert info == {
        "slots": 4,
        "connections": 8,
        "host_id": 77,
        "key_period_s": 9,
        "key_window": 3,
        "key_epoch": 0,
        "key_origin_s": 5,
    }


def test_slots_are_claimed_and_given_back() -> None:
    group = small()
    before = time.monotonic_ns()
    taken = [group.claim() for _ in range(4)]
    assert taken == [(slot, 1) for slot in range(4)]
    with pytest.raises(QuicServerException, match="no slot for another worker"):
        group.claim()
    with pytest.raises(QuicServerException, match="slot 2 is taken"):
        group.claim(2)
    worker = group.worker(2)
    assert (worker.state, worker.pid, worker.generation, worker.connections) == (STARTING, os.getpid(), 1, 0)
    assert before <= worker.claimed_ns == worker.heartbeat_ns <= time.monotonic_ns()
    assert group.set_state(2, 1, ACCEPTING)
    assert group.beat(2, 1)
    assert group.worker(2).heartbeat_ns > worker.heartbeat_ns
    assert STATES[group.worker(2).state] == "accepting"
    assert group.set_state(2, 1, FREE)
    assert group.claim(2, pid=1) == (2, 2)
    assert not group.set_state(2, 1, DEAD)
    assert not group.beat(2, 1)
    for call in (lambda: group.worker(4), lambda: group.counters(4), lambda: group.claim(4)):
        with pytest.raises(QuicException, match="slot 4"):
            call()


@pytest.mark.parametrize("number", [-1, 1 << 40, "two", None])
def test_numbers_that_cannot_be_are_refused(number: Any) -> None:
    group = small()
    calls = [
        lambda: group.worker(number),
        lambda: group.counters(number),
        lambda: group.claim(0, pid=number or -5),
        lambda: group.set_state(number, 1, FREE),
        lambda: group.set_state(0, 1, number),
        lambda: group.beat(0, number),
        lambda: group.reset(number, 0),
    ]
    for call in calls:
        with pytest.raises(QuicClientException, match="wrong argument"):
            call()
    assert group.worker(0).state == FREE


def test_a_child_shares_what_was_made_before_the_fork() -> None:
    now = int(time.time())
    group = small(key_period_s=10_000, key_origin_s=now)
    ours = group.keys()

    def child() -> None:
        slot, generation = group.claim(3)
        engine = Engine(lambda: None, group=group, slot=slot, generation=generation)
        for _ in range(5):
            engine.drain()
        group.set_state(slot, generation, ACCEPTING)
        assert group.keys().rotate(now + 1_000_000) == 100
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(child) == signal.SIGKILL
    assert group.worker(3).state == ACCEPTING
    assert group.counters(3)["drains"] == 5
    assert group.info()["key_epoch"] == ours.rotate(now) == 100


def test_a_register_counts_for_the_whole_group() -> None:
    group = small()
    assert group.replay().counts() == {"first": 0, "repeated": 0, "full": 0, "quiet": 0}


def packet_of(group: WorkerGroup, slot: int) -> bytes:
    """A short header with a connection id of this slot (cext/src/cid.h)."""
    host = group.info()["host_id"]
    return b"\x40\x0b" + host.to_bytes(2, "big") + bytes([slot, 1]) + bytes(40)


def test_packets_come_to_the_socket_of_their_slot() -> None:
    group = small()
    sockets = []
    for slot in range(4):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(("127.0.0.1", sockets[0].getsockname()[1] if sockets else 0))
        s.settimeout(5)
        sockets.append(s)
        assert group.claim(slot) == (slot, 1)
    group.set_state(2, 1, DRAINING)
    group.set_state(3, 1, ACCEPTING)
    assert group.steer(sockets[0].fileno()) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for slot, to in [(0, 3), (1, 3), (2, 2), (3, 3)]:
            packet = packet_of(group, slot)
            assert group.steers_to(packet) == to
            client.sendto(packet, sockets[0].getsockname())
            assert sockets[to].recv(100) == packet
    for s in sockets:
        s.close()
    assert group.steer(sockets[0].fileno()) == errno.EBADF


def test_who_is_gone_is_marked_dead() -> None:
    group = small()
    group.claim()
    assert in_child(lambda: (group.claim(), group.claim())) == 0
    assert group.bury() == [1, 2]
    assert group.worker(0).state == STARTING
    group.set_state(1, 1, FREE)
    assert group.bury() == [2]


def test_processes_that_do_not_descend_from_each_other_share_a_file(segment_path: str) -> None:
    ours = small(path=segment_path)
    code = f"""
        from quicgreen._group import WorkerGroup
        group = WorkerGroup({segment_path!r}, slots=99)
        print(group.info()["slots"], group.claim(), group.keys().rotate({int(time.time()) + 36_000_000}))
    """
    assert check_python(code).split() == ["4", "(0,", "1)", str(ours.keys().rotate(0))]
    assert ours.worker(0).generation == 1
    assert ours.bury() == [0]


@pytest.mark.parametrize("path", ["/", "/dev/null", "/nonexistent/group", "a\0b"])
def test_a_path_that_cannot_be_used_is_told(path: str) -> None:
    with pytest.raises(QuicException, match=path if path != "a\0b" else "NUL"):
        small(path=path)


def test_a_file_of_another_kind_is_refused(segment_path: str) -> None:
    SharedMemoryTicketStore(segment_path).close()
    with pytest.raises(QuicServerException, match="not a segment of a group"):
        small(path=segment_path)
    os.unlink(segment_path)
    small(path=segment_path)
    os.chmod(segment_path, 0o644)
    with pytest.raises(QuicServerException, match="open to other users"):
        small(path=segment_path)


def test_peers_are_told_from_a_socket_only() -> None:
    group = small()
    group.claim(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        group.set_state(1, 1, DEAD)
        assert group.reset(1, s.fileno()) == 0
        with pytest.raises(QuicClientException, match="slot 4"):
            group.reset(4, s.fileno())
    with pytest.raises(QuicServerException, match="Bad file descriptor"):
        group.reset(1, 9999)
    assert len(group.answer(packet_of(group, 1))) == 43
    group.claim(2)
    assert group.answer(packet_of(group, 2)) == b""


def test_an_engine_needs_a_slot_of_its_own() -> None:
    with pytest.raises(QuicException, match="Unable to initialize"):
        Engine(lambda: None, group=small(), slot=1, generation=1)


def test_a_process_that_is_an_orphan_already_is_told_so() -> None:
    """What happens otherwise: test_supervisor_worker.py."""
    check_python(
        """
        import os, signal
        from quicgreen._group import end_with
        from quicgreen import QuicClientException
        signal.signal(signal.SIGRTMAX, lambda *_: None)
        assert end_with(os.getppid(), signal.SIGRTMAX, 1)
        assert not end_with(os.getpid(), signal.SIGRTMAX, 1)
        for number, patience in ((signal.SIGKILL, 1), (signal.SIGRTMAX, 0)):
            try:
                end_with(os.getppid(), number, patience)
            except QuicClientException as e:
                assert f"signal {number:d}" in str(e)
            else:
                raise AssertionError
        """
    )
