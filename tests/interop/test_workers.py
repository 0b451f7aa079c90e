"""A worker process for each request: tickets go from one to the next, through files or shared memory; also
when the server is started again, and when clocks jump."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import HERE, Peer, run_client

from quicgreen.testing import Authority

Counters = Callable[[Peer], dict[str, Any]]
Fork = Callable[..., list[dict[str, Any]]]

FULL = (False, None)
REFUSED = (False, False)
RESUMED = (True, False)
NOT_OFFERED = (True, None)  # the ticket is of a connection whose early data was refused
EARLY = (True, True)


def states(workers: list[dict[str, Any]]) -> list[tuple[bool, bool | None]]:
    return [(w["resumed"], w["early"]) for w in workers]


@pytest.fixture(params=["ticket", "shm_lru", None], ids=["files", "shared memory", "by itself"])
def fork(request: pytest.FixtureRequest, certificates: Authority, tmp_path: Path, segment_path: str) -> Fork:
    """Run a request in a worker for each path."""
    places = {"QUICPRO_TICKET_STORE": str(tmp_path / "tickets"), "QUICPRO_SHM_PATH": segment_path}

    def run(peer: Peer, *paths: str, **options: Any) -> list[dict[str, Any]]:
        told = run_client(
            "forking_parent.py",
            urls=[peer.url(path) for path in paths],
            ca=certificates.ca_certs,
            environ=places,
            **{"mode": request.param, **options},
        )
        workers: list[dict[str, Any]] = told["workers"]
        mode = (request.param or "shm_lru").upper()  # which a forked process chooses
        assert {(w["status"], w["peer"], w["mode"]) for w in workers} == {(200, peer.version, mode)}
        return workers

    return run


def test_each_worker_takes_up_the_last_one_s_session(
    start_ours: Callable[..., Peer], counters: Counters, fork: Fork
) -> None:
    keys = {"early_data": True, "fresh_register": True}
    peer = start_ours(**keys)
    paths = [f"/hit/{i}" for i in range(10)]
    assert states(fork(peer, *paths)) == [FULL] + [EARLY] * 9
    told = counters(peer)
    assert (told["engine"]["handshakes_resumed"], told["engine"]["early_data_accepted"]) == (9, 9)
    assert [told["hits"][str(i)]["runs"] for i in range(10)] == [1] * 10

    # Started again on its port, with its keys and a register of which it may not know what it missed.
    peer.stop()
    again = start_ours(early_data=True, port=peer.port)
    assert states(fork(again, "/hit/a", "/hit/b")) == [RESUMED, NOT_OFFERED]
    assert {name: hits["runs"] for name, hits in counters(again)["hits"].items()} == {"a": 1, "b": 1}

    # And with other keys.
    again.stop()
    other = start_ours(early_data=True, port=peer.port, secret=os.urandom(32).hex(), fresh_register=True)
    assert states(fork(other, "/hit/c", "/hit/d")) == [REFUSED, EARLY]
    assert {name: hits["runs"] for name, hits in counters(other)["hits"].items()} == {"c": 1, "d": 1}


# ---------------------------------------------------------------- clocks


class Clock:
    """The wall clock of processes that are started with `prefix`."""

    def __init__(self, library: str, file: Path) -> None:
        self._file = file
        self.set(0)
        self.prefix = ["env", f"LD_PRELOAD={library}", f"SHIFTED_CLOCK={file}"]

    def set(self, shift_s: int) -> None:
        if not self._file.exists():
            self._file.write_bytes(bytes(8))
        with open(self._file, "r+b") as file:  # in place: it is mapped
            file.write(shift_s.to_bytes(8, "little", signed=True))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    command = [os.environ.get("CC", "cc"), "-std=c11", "-O1", "-shared", "-fPIC", "-o", str(path)]
    subprocess.run([*command, str(HERE / "shifted_clock.c")], check=True, timeout=60)
    return str(path)


@pytest.fixture
def clock(library: str, tmp_path: Path) -> Clock:
    return Clock(library, tmp_path / "clock")


@pytest.mark.parametrize(
    ("shift_s", "expected"),
    [
        (30, EARLY),
        (150, RESUMED),  # the ticket's age differs by more than a minute (RFC 8446, section 8.3)
        (-150, REFUSED),  # a ticket from the future
        (26 * 3600, REFUSED),  # its key is gone
    ],
    ids=["seconds", "minutes", "back", "a day"],
)
@pytest.mark.parametrize("fork", ["ticket"], indirect=True)
def test_the_server_s_clock_jumps(
    start_ours: Callable[..., Peer],
    counters: Counters,
    fork: Fork,
    clock: Clock,
    shift_s: int,
    expected: tuple[bool, bool],
) -> None:
    peer = start_ours(prefix=clock.prefix, early_data=True, fresh_register=True)
    assert states(fork(peer, "/hit/a", "/hit/b")) == [FULL, EARLY]
    clock.set(shift_s)
    assert states(fork(peer, "/hit/c")) == [expected]
    # Its new tickets are good by its new clock; the register may have become cautious.
    assert states(fork(peer, "/hit/d"))[0][0]
    assert {name: hits["runs"] for name, hits in counters(peer)["hits"].items()} == dict.fromkeys("abcd", 1)


@pytest.mark.parametrize("fork", ["ticket", "shm_lru"], indirect=True)
def test_the_client_s_clock_jumps(
    start_ours: Callable[..., Peer], counters: Counters, fork: Fork, clock: Clock
) -> None:
    """A ticket whose age cannot be told, or that is too old, is not offered."""
    peer = start_ours(early_data=True, fresh_register=True)
    assert states(fork(peer, "/hit/a", "/hit/b", prefix=clock.prefix)) == [FULL, EARLY]
    clock.set(-600)
    assert states(fork(peer, "/hit/c", prefix=clock.prefix)) == [FULL]
    clock.set(26 * 3600)
    assert states(fork(peer, "/hit/d", prefix=clock.prefix)) == [FULL]
    told = counters(peer)
    assert told["engine"]["early_data_refused"] == 0
    assert {name: hits["runs"] for name, hits in told["hits"].items()} == dict.fromkeys("abcd", 1)
