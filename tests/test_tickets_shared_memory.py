"""What a user sees. How processes share a segment, and die over it: tests/cext/test_ticket_shm.c."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
from helpers.tickets import Clock, make_ticket

from quicgreen import QuicException
from quicgreen.tickets import SharedMemoryTicketStore
from quicgreen.tickets.shared_memory import default_path

SIZE = 65_536


def new_store(path: str, size: int = SIZE) -> SharedMemoryTicketStore:
    return SharedMemoryTicketStore(path, size, clock=Clock())


def refused(path: str) -> QuicException:
    with pytest.raises(QuicException) as caught:
        new_store(path)
    assert caught.value.cause == "ticket-segment"
    assert path in str(caught.value)
    return caught.value


def test_the_file_is_its_users_alone(segment_path: str) -> None:
    store = new_store(segment_path)
    info = os.stat(segment_path)
    assert (stat.S_IMODE(info.st_mode), info.st_size) == (0o600, SIZE)
    assert store.path == segment_path
    assert default_path() == f"/dev/shm/quicgreen-tickets-{os.geteuid()}"


def test_128_kib_hold_115_tickets_of_1000_bytes_and_the_oldest_leaves_first(segment_path: str) -> None:
    store = new_store(segment_path, 131_072)
    slots = store.info()["slots"]
    assert slots >= 115
    data = b"x" * 996
    for n in range(slots + 10):
        store.put(str(n), make_ticket(data=data + n.to_bytes(4, "big")))
    assert store.info()["tickets"] == slots
    got = [n for n in range(slots + 10) if store.get(str(n)) is not None]
    assert got == list(range(10, slots + 10))


def test_a_ticket_with_a_chain_of_certificates_goes_in(segment_path: str) -> None:
    store = new_store(segment_path)
    long = make_ticket(data=os.urandom(8000))
    store.put("key", long)
    assert store.pop("key") == long


def test_a_ticket_that_does_not_fit_is_refused(segment_path: str) -> None:
    store = new_store(segment_path)
    longest = store.info()["max_ticket"] - len(make_ticket(data=b"x").to_bytes()) + 1
    with pytest.raises(QuicException, match="takes 16384 bytes") as caught:
        store.put("key", make_ticket(data=b"x" * (longest + 1)))
    assert caught.value.cause == "ticket-too-large"
    assert store.get("key") is None
    store.put("key", make_ticket(data=b"x" * longest))
    assert store.get("key") == make_ticket(data=b"x" * longest)


def test_segments_that_cannot_be_used_say_why(segment_path: str) -> None:
    path = Path(segment_path)
    path.write_bytes(b"something else " * 5000)
    path.chmod(0o600)
    assert "not a segment of session tickets" in str(refused(segment_path))
    path.unlink()
    new_store(segment_path)
    good = path.read_bytes()
    path.write_bytes(good[: SIZE // 2])
    assert "truncated" in str(refused(segment_path))
    path.write_bytes(good[:8] + bytes(4) + good[12:])
    assert "older version" in str(refused(segment_path))
    path.write_bytes(good)
    path.chmod(0o644)
    assert "open to other users" in str(refused(segment_path))
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert refused(segment_path).errno == errno.ELOOP


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "none" / "x")).errno == errno.ENOENT
    assert refused(str(tmp_path)).errno == errno.EISDIR


@pytest.mark.parametrize("size", [0, 16_383, 8_388_609, -1])
def test_a_size_out_of_range_is_refused(segment_path: str, size: int) -> None:
    with pytest.raises(QuicException, match="16384 to 8388608 bytes") as caught:
        new_store(segment_path, size)
    assert caught.value.cause == "argument"
    assert not os.path.exists(segment_path)


def test_who_comes_first_decides_the_size(segment_path: str) -> None:
    new_store(segment_path, 32_768)
    assert new_store(segment_path, SIZE).info()["size"] == 32_768


def test_a_file_that_was_removed_is_made_again(segment_path: str) -> None:
    """As by an administrator, or by whoever changes its size."""
    store, other = new_store(segment_path), new_store(segment_path)
    store.put("key", make_ticket(1))
    os.unlink(segment_path)
    assert other.get("key") is None
    store.put("key", make_ticket(2))
    assert other.pop("key") == make_ticket(2)


def test_a_file_that_was_cut_is_an_error_and_no_crash(segment_path: str) -> None:
    store = new_store(segment_path)
    os.truncate(segment_path, 4096)
    for call in (lambda: store.get("key"), lambda: store.put("key", make_ticket()), store.clear):
        with pytest.raises(QuicException, match="truncated") as caught:
            call()
        assert caught.value.cause == "ticket-segment"
    os.unlink(segment_path)
    store.put("key", make_ticket())
    assert store.get("key") == make_ticket()


def test_a_closed_store_says_so(segment_path: str) -> None:
    store = new_store(segment_path)
    store.close()
    with pytest.raises(QuicException, match="closed") as caught:
        store.get("key")
    assert caught.value.cause == "state"


def test_it_may_be_closed_while_threads_use_it(segment_path: str) -> None:
    """Nobody reads memory that is no longer mapped."""
    for _ in range(20):
        store = new_store(segment_path)
        causes: list[str] = []

        def work(store: SharedMemoryTicketStore = store, causes: list[str] = causes) -> None:
            try:
                while True:
                    store.put("key", make_ticket())
                    store.pop("key")
            except QuicException as e:
                causes.append(e.cause)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.005)
        store.close()
        for thread in threads:
            thread.join()
        assert causes == ["state"] * 3


# Python 3.12 warns of any fork while there are threads; these children do nothing but use the store.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_process_that_is_killed_holds_up_nobody(segment_path: str) -> None:
    store = new_store(segment_path)
    for turn in range(20):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    store.put("key", make_ticket(data=b"x" * 3000))
                    store.pop("key")
            finally:
                os._exit(1)
        time.sleep(0.001 * turn)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        store.put("mine", make_ticket(turn))
        assert store.pop("mine") == make_ticket(turn)
        left = store.pop("key")
        assert left in (None, make_ticket(data=b"x" * 3000))
