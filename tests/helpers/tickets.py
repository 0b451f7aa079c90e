"""What the tests of the tickets' stores share: a clock to be set, tickets, a place for each store."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from quicgreen.tickets import (
    FileTicketStore,
    MemoryTicketStore,
    RedisTicketStore,
    SharedMemoryTicketStore,
    Ticket,
    TicketStore,
)

START = 1_800_000_000.0

STORES = {
    "memory": MemoryTicketStore,
    "file": FileTicketStore,
    "shared memory": SharedMemoryTicketStore,
    "redis": RedisTicketStore,
}


class Clock:
    """Wall-clock seconds that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def make_ticket(
    number: int = 0, *, issued_at: float = START, lifetime: float = 3600.0, **fields: Any
) -> Ticket:
    values: dict[str, Any] = {
        "host": "example.com",
        "port": 443,
        "alpn": "h3",
        "issued_at": issued_at,
        "expires_at": issued_at + lifetime,
        "early_data": True,
        "data": b"ticket %d" % number,
    }
    return Ticket(**{**values, **fields})


class Place:
    """Somewhere a kind of store keeps its tickets: any number of handles see the same ones."""

    def __init__(self, kind: str, argument: str | None) -> None:
        self.kind = kind
        self.argument = argument
        self.clock = Clock()
        self._opened: list[TicketStore] = []

    def open(self, **options: Any) -> TicketStore:
        arguments = () if self.argument is None else (self.argument,)
        if self.kind == "redis":
            options = {"timeout": 20.0, **options}  # a busy machine is not what is tested
        store = STORES[self.kind](*arguments, clock=self.clock, **options)
        assert isinstance(store, TicketStore)
        self._opened.append(store)
        return store

    def close(self) -> None:
        for store in self._opened:
            store.close()


_PRELUDE = """
import sys, time
from quicgreen.tickets import *
kind, argument = sys.argv[1:3]
store = {"file": FileTicketStore, "shared memory": SharedMemoryTicketStore, "redis": RedisTicketStore}[kind](
    argument, **({"timeout": 20.0} if kind == "redis" else {}))
print("ready", flush=True)
sys.stdin.readline()
"""


def run_together(place: Place, code: str, count: int) -> list[list[str]]:
    """Run `code`, which finds `store`, in `count` processes that begin it at the same time. Returns the words
    that each printed."""
    command = [sys.executable, "-c", _PRELUDE + code, place.kind, str(place.argument)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate(timeout=40)[0].split() for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert [process.returncode for process in processes] == [0] * count
    return said


def current_ticket(number: int) -> Ticket:
    """By the real clock, as other processes have it."""
    return make_ticket(number, issued_at=time.time())
