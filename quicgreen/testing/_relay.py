"""The process behind `link.Link`.

Started by its path in Python's isolated mode, so it imports the standard library only: it starts in
milliseconds, and neither the GIL nor gevent's hub of the program under test has a say in when a packet
leaves. Requests and answers are pickles with a length before them, on stdin and stdout; the end of stdin
is the end of this process, however its parent ended.
"""

from __future__ import annotations

import heapq
import itertools
import os
import pickle
import random
import selectors
import socket
import struct
import sys
import time
from typing import Any, TypeAlias

DIRECTIONS = ("to_server", "to_client")

LENGTH = struct.Struct("<I")

_BATCH = 64
"""Packets taken from a socket before the others get their turn."""

_BUFFER = 4 << 20
"""Socket buffers, so that what is lost is lost on purpose."""

_HOLD_S = 0.025
"""A packet that is to arrive late waits no longer than this when nothing comes after it."""

_HOLD_PACKETS = 5
"""... and at most for so many that overtake it: beyond QUIC's reordering threshold of 3."""

Address: TypeAlias = "tuple[Any, ...]"


class Half:
    """One direction of one client's packets: what befalls each of them.

    Packet n of a half takes the same draws whatever the rates are, so with one seed it meets the same
    fate in each run, and a changed rate changes no other packet's.
    """

    def __init__(self, name: str, random_source: random.Random) -> None:
        self.name = name
        self.random = random_source
        self.burst_left = 0
        self.recovering = False
        self.held: list[list[Any]] = []  # [how many may overtake it, its bytes]

    def lost(self, draw: float, length_draw: float, loss: float, burst: int) -> bool:
        if burst < 1:
            return draw < loss
        # Runs of 1 to `burst` losses, each followed by a packet that passes. With runs that begin with
        # probability p a cycle takes (burst + 1) / 2 + 1 / p packets, which gives p for a loss rate.
        if self.burst_left:
            self.burst_left -= 1
            self.recovering = not self.burst_left
            return True
        if self.recovering or loss <= 0:
            self.recovering = False
            return False
        if loss < 1 and draw >= loss / ((burst + 1) / 2 * (1 - loss)):
            return False
        self.burst_left = int(length_draw * burst)
        self.recovering = not self.burst_left
        return True


class Flow:
    """What one client address sends, through a socket of its own, as a NAT would."""

    def __init__(self, number: int, client: Address, upstream: socket.socket, seed: object) -> None:
        self.client = client
        self.upstream = upstream
        self.halves = {d: Half(d, random.Random(f"{seed}/{number}/{d}")) for d in DIRECTIONS}


class Relay:
    def __init__(self, target: tuple[str, int], seed: object, rates: dict[str, Any], record: int) -> None:
        self.family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self.target = target
        self.seed = seed
        self.rates = rates
        self.record = record
        self.recorded: list[tuple[float, str, str, bytes]] = []
        self.blackholed: set[str] = set()
        self.flows: dict[Address, Flow] = {}
        self.counters = {d: dict.fromkeys(COUNTERS, 0) for d in DIRECTIONS}
        self.later: list[tuple[float, int, Any]] = []
        self.sequence = itertools.count()
        self.selector = selectors.DefaultSelector()
        self.open_upstream().close()  # a target that cannot be one shows now
        self.listener = self.open_socket()
        self.listener.bind((self.loopback, 0))
        self.selector.register(self.listener, selectors.EVENT_READ, self.take_from_clients)

    @property
    def loopback(self) -> str:
        return "::1" if self.family == socket.AF_INET6 else "127.0.0.1"

    def open_socket(self) -> socket.socket:
        s = socket.socket(self.family, socket.SOCK_DGRAM)
        s.setblocking(False)
        for force, polite in (
            (33, socket.SO_RCVBUF),
            (32, socket.SO_SNDBUF),
        ):  # SO_RCVBUFFORCE, SO_SNDBUFFORCE
            try:
                s.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
            except OSError:
                s.setsockopt(socket.SOL_SOCKET, polite, _BUFFER)
        return s

    def open_upstream(self) -> socket.socket:
        s = self.open_socket()
        s.connect(self.target)
        return s

    # ------------------------------------------------------------------ packets

    def take_from_clients(self) -> None:
        for _ in range(_BATCH):
            try:
                data, client = self.listener.recvfrom(65535)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about a client that is gone
            flow = self.flows.get(client)
            if flow is None:
                flow = Flow(len(self.flows), client, self.open_upstream(), self.seed)
                self.flows[client] = flow
                self.watch(flow)
            self.handle(flow, flow.halves["to_server"], data)

    def watch(self, flow: Flow) -> None:
        upstream = flow.upstream

        def take() -> None:
            for _ in range(_BATCH):
                try:
                    data = upstream.recv(65535)
                except BlockingIOError:
                    return
                except OSError:
                    continue  # nobody listens there; a real network may not say so either
                self.handle(flow, flow.halves["to_client"], data)

        self.selector.register(upstream, selectors.EVENT_READ, take)

    def handle(self, flow: Flow, half: Half, data: bytes) -> None:
        """One packet came in: what becomes of it?"""
        rates, counters = self.rates, self.counters[half.name]
        loss, length, duplicate, corrupt, where, reorder, how_far = (half.random.random() for _ in range(7))
        counters["seen"] += 1
        counters["bytes"] += len(data)
        lost = half.lost(loss, length, rates["loss"], rates["burst"])
        if lost or half.name in self.blackholed:
            counters["dropped"] += 1
            self.note(half, "dropped", data)
            return
        copies = 2 if duplicate < rates["duplicate"] else 1
        late = reorder < rates["reorder"]
        fate = "duplicated" if copies == 2 else "reordered" if late else "passed"
        counters["duplicated"] += copies - 1
        counters["reordered"] += late
        if corrupt < rates["corrupt"] and data:
            at = int(where * len(data))
            flipped = 1 + int(where * 1e9) % 255
            data = data[:at] + bytes([data[at] ^ flipped]) + data[at + 1 :]
            counters["corrupted"] += 1
            fate = "corrupted"
        self.note(half, fate, data)
        for _ in range(copies - late):
            self.forward(flow, half, data)
        overtaken = [entry for entry in half.held if entry[0] <= 1]
        for entry in half.held:
            entry[0] -= 1
        for entry in overtaken:
            half.held.remove(entry)
            self.forward(flow, half, entry[1])
        if late:
            entry = [1 + int(how_far * _HOLD_PACKETS), data]
            half.held.append(entry)
            self.at(time.monotonic() + _HOLD_S, lambda: self.release(flow, half, entry))

    def release(self, flow: Flow, half: Half, entry: list[Any]) -> None:
        if any(entry is held for held in half.held):
            half.held = [held for held in half.held if held is not entry]
            self.forward(flow, half, entry[1])

    def forward(self, flow: Flow, half: Half, data: bytes) -> None:
        delay_ms = self.rates["delay_ms"]
        if delay_ms > 0:
            self.at(time.monotonic() + delay_ms / 1000, lambda: self.send(flow, half, data))
        else:
            self.send(flow, half, data)

    def send(self, flow: Flow, half: Half, data: bytes) -> None:
        try:
            if half.name == "to_server":
                flow.upstream.send(data)
            else:
                self.listener.sendto(data, flow.client)
        except OSError:  # a full buffer, or nobody there: lost, like any datagram may be
            self.counters[half.name]["dropped"] += 1
        else:
            self.counters[half.name]["sent"] += 1

    def note(self, half: Half, fate: str, data: bytes) -> None:
        if len(self.recorded) < self.record:
            self.recorded.append((time.monotonic(), half.name, fate, data))

    def at(self, due: float, call: Any) -> None:
        heapq.heappush(self.later, (due, next(self.sequence), call))

    # ------------------------------------------------------------------ what the parent asks for

    def do_counters(self) -> dict[str, dict[str, int]]:
        return self.counters

    def do_update(self, rates: dict[str, Any]) -> None:
        self.rates.update(rates)

    def do_blackhole(self, directions: list[str]) -> None:
        self.blackholed = set(directions)

    def do_rebind(self) -> list[int]:
        for flow in self.flows.values():
            old = flow.upstream
            flow.upstream = self.open_upstream()  # before the old one is closed: another port for sure
            self.selector.unregister(old)
            old.close()
            self.watch(flow)
        return [flow.upstream.getsockname()[1] for flow in self.flows.values()]

    def do_packets(self) -> list[tuple[float, str, str, bytes]]:
        return self.recorded

    # ------------------------------------------------------------------ the loop

    def take_request(self) -> None:
        header = os.read(0, LENGTH.size)
        if not header:
            os._exit(0)
        request = b""
        while len(request) < LENGTH.unpack(header)[0]:
            request += os.read(0, 65536)
        name, arguments = pickle.loads(request)
        self.answer(getattr(self, f"do_{name}")(*arguments))

    @staticmethod
    def answer(value: Any) -> None:
        text = pickle.dumps(value)
        rest = memoryview(LENGTH.pack(len(text)) + text)
        while rest:
            rest = rest[os.write(1, rest) :]

    def run(self) -> None:
        self.selector.register(0, selectors.EVENT_READ, self.take_request)
        self.answer(self.listener.getsockname()[:2])
        while True:
            timeout = max(0.0, self.later[0][0] - time.monotonic()) if self.later else None
            for key, _ in self.selector.select(timeout):
                key.data()
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                heapq.heappop(self.later)[2]()


COUNTERS = ("seen", "sent", "dropped", "duplicated", "reordered", "corrupted", "bytes")


if __name__ == "__main__":
    Relay(*pickle.loads(bytes.fromhex(sys.argv[1]))).run()
