"""A bad network in front of a server: a UDP relay on loopback that loses, repeats, delays, reorders and
corrupts packets, cuts the line, and changes the client's address as a NAT does.

    with Link(server.address, seed=3, loss=0.1, burst=3) as link:
        session.get(f"https://localhost:{link.port}/")
        link.rebind()
        assert link.counters().to_server.dropped > 0

The relay is a process of its own, so it works the same whether the program under test is patched by gevent
or not, and does not slow down when that is busy. It ends with `close()`, and with the program at the latest.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ._relay import DIRECTIONS, LENGTH

_RELAY = str(Path(__file__).with_name("_relay.py"))

_RATES = ("loss", "duplicate", "reorder", "corrupt")


@dataclass(frozen=True, slots=True)
class Direction:
    """Packets of all clients in one direction."""

    seen: int
    """Came in."""
    sent: int
    """Went out, copies included."""
    dropped: int
    """Lost, by chance or in a blackhole."""
    duplicated: int
    reordered: int
    """Arrived behind up to five that were sent after them."""
    corrupted: int
    """Had one byte changed."""
    bytes: int
    """Of those that came in."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What the link has done so far."""

    to_server: Direction
    to_client: Direction


@dataclass(frozen=True, slots=True)
class Packet:
    """A UDP payload that came by."""

    time: float
    """On `time.monotonic()`'s clock."""
    direction: str
    """'to_server' or 'to_client'."""
    fate: str
    """'passed', 'dropped', 'duplicated', 'reordered' or 'corrupted'."""
    data: bytes
    """As it went on, if it did."""


class Link:
    """Relay UDP packets between clients and a server at `target_address`.

    Every client address gets a socket of its own towards the server, as behind a NAT. A link works on
    loopback, IPv4 or IPv6 as its target; it passes on no ICMP errors: a server that is gone is silence.

    Args:
        target_address: (ip, port) of the server.
        seed: with the same one, packet n of a client in one direction meets the same fate in each run.
        loss: share of packets that are dropped, 0 to 1, in each direction.
        duplicate: share of packets that arrive twice.
        reorder: share of packets that up to five later ones overtake.
        corrupt: share of packets in which one byte is changed.
        delay_ms: time that each packet takes, in each direction.
        burst: losses come in runs of 1 to `burst` packets, and never more than that, at the same rate in
            all, as far as such runs can make it up; 0: each by itself.
        record: keep the first so many packets for `packets()`.
    """

    def __init__(
        self,
        target_address: tuple[str, int],
        *,
        seed: object = 0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        delay_ms: float = 0.0,
        burst: int = 0,
        record: int = 0,
    ) -> None:
        rates = {
            "loss": loss,
            "duplicate": duplicate,
            "reorder": reorder,
            "corrupt": corrupt,
            "delay_ms": delay_ms,
            "burst": burst,
        }
        _check(rates)
        arguments = pickle.dumps((tuple(target_address[:2]), repr(seed), rates, record)).hex()
        self._pid, self._out, self._in = _spawn(arguments)
        self._end = weakref.finalize(self, _kill, os.getpid(), self._pid, self._out, self._in)
        try:
            self.address: tuple[str, int] = self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        """Where clients send to, on 127.0.0.1 or ::1."""
        return self.address[1]

    # ---------------------------------------------------------------- what happens to packets

    def update(self, **rates: float) -> None:
        """Change `loss`, `duplicate`, `reorder`, `corrupt`, `delay_ms` or `burst` from now on."""
        _check(rates)
        self._ask("update", rates)

    def blackhole(
        self, on: bool = True, direction: Literal["both", "to_server", "to_client"] = "both"
    ) -> None:
        """Let nothing pass, in both directions or one, until `blackhole(False)`."""
        if direction not in ("both", *DIRECTIONS):
            raise ValueError(f"no such direction: {direction!r}")
        closed = DIRECTIONS if direction == "both" else (direction,)
        self._ask("blackhole", list(closed) if on else [])

    def rebind(self) -> list[int]:
        """Go on from other source ports, as when a NAT has forgotten its clients; returns those ports. What
        the server sends to the old ones is lost."""
        ports: list[int] = self._ask("rebind")
        return ports

    # ---------------------------------------------------------------- what happened

    def counters(self) -> Counters:
        """Packets so far, in each direction."""
        found = self._ask("counters")
        return Counters(**{name: Direction(**found[name]) for name in DIRECTIONS})

    def packets(self) -> list[Packet]:
        """The packets recorded so far: see `record`."""
        return [Packet(*entry) for entry in self._ask("packets")]

    # ---------------------------------------------------------------- the process

    def close(self) -> None:
        """End the relay. Idempotent."""
        self._end()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Link {self.address}>"

    def _ask(self, name: str, *arguments: Any) -> Any:
        # os.read and os.write are not gevent's even where it patched sockets, and an answer takes a
        # fraction of a millisecond: no greenlet comes in between.
        if not self._end.alive:
            raise ValueError("the link is closed")
        text = pickle.dumps((name, arguments))
        os.write(self._out, LENGTH.pack(len(text)) + text)
        return self._answer()

    def _answer(self) -> Any:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return pickle.loads(self._read(length))

    def _read(self, length: int) -> bytes:
        pieces = []
        while length:
            piece = os.read(self._in, min(length, 1 << 20))
            if not piece:
                raise RuntimeError("the link's process has ended: see what it wrote to stderr")
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


def _check(rates: dict[str, Any]) -> None:
    for name, value in rates.items():
        if name not in (*_RATES, "delay_ms", "burst"):
            raise TypeError(f"unknown setting: {name}")
        if value < 0 or (name in _RATES and value > 1):
            raise ValueError(f"{name}={value!r} is out of range")


def _spawn(arguments: str) -> tuple[int, int, int]:
    """(pid, descriptor to write to, descriptor to read from)."""
    child_in, to_child = os.pipe()
    from_child, child_out = os.pipe()
    try:
        # Not subprocess, whose patched form needs gevent's main thread.
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _RELAY, arguments],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, child_in, 0),
                (os.POSIX_SPAWN_DUP2, child_out, 1),
            ],
        )
    except BaseException:
        os.close(to_child)
        os.close(from_child)
        raise
    finally:
        os.close(child_in)
        os.close(child_out)
    return pid, to_child, from_child


def _kill(owner: int, pid: int, *descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    if os.getpid() != owner:
        return  # a forked child: the relay is its parent's
    try:
        os.kill(pid, signal.SIGKILL)  # it keeps nothing that would have to be put in order
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # somebody else reaped it
