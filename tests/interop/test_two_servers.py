"""Two servers that answer the same client: of its first flight each saw a part, as when workers change in
that moment, or one is slow and its client asked again. The first that answers is the one (RFC 9000, section
7.2)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket
from helpers.commands import START_S
from helpers.supervised import Supervised, supervised

import quicgreen


class Splitter:
    """A client's way to two servers. The first packets of a connection go where `first` says, number by
    number: to one, the other or both; later ones to the server whose id they bear. All answers come through.
    """

    def __init__(self, servers: list[Supervised], first: list[str]) -> None:
        self._first = first
        self._addresses = [("127.0.0.1", s.port) for s in servers]
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self.port = self._front.getsockname()[1]
        self._backs = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in servers]
        self._owner: dict[bytes, int] = {}
        self._client: tuple[str, int] | None = None
        self._greenlets = [
            gevent.spawn(self._up),
            *(gevent.spawn(self._down, i) for i in range(len(servers))),
        ]

    def _up(self) -> None:
        seen = Counter[bytes]()
        while True:
            packet, self._client = self._front.recvfrom(2000)
            dcid = packet[6 : 6 + packet[5]] if packet[0] & 0x80 else packet[1:13]
            if dcid in self._owner:
                targets = [self._owner[dcid]]
            else:
                targets = [int(c) for c in self._first[min(seen[dcid], len(self._first) - 1)]]
                seen[dcid] += 1
            for i in targets:
                self._backs[i].sendto(packet, self._addresses[i])

    def _down(self, i: int) -> None:
        self._backs[i].bind(("127.0.0.1", 0))
        while True:
            packet = self._backs[i].recv(2000)
            if packet[0] & 0x80:
                at = 7 + packet[5]
                self._owner[packet[at : at + packet[at - 1]]] = i
            assert self._client is not None
            self._front.sendto(packet, self._client)

    def close(self) -> None:
        gevent.killall(self._greenlets)
        for s in (self._front, *self._backs):
            s.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Supervised]]:
    with contextlib.ExitStack() as stack:
        started = []
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            started.append(stack.enter_context(supervised(folder)))
        yield started


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(["0", "1", "0"], id="each has one half"),
        pytest.param(["1", "0", "0"], id="each has the other half"),
        pytest.param(["10", "0", "0"], id="one has all, the other answers sooner"),
        pytest.param(["1", "01", "01"], id="one has all, the other a part of it"),
        pytest.param(["01"], id="both have all"),
    ],
)
def test_the_first_that_answers_is_the_one(servers: list[Supervised], first: list[str]) -> None:
    splitter = Splitter(servers, first)
    try:
        for _ in range(3):
            with quicgreen.connect("127.0.0.1", splitter.port, verify=False, timeout=START_S) as connection:
                assert connection.get("/", timeout=START_S).status_code == 200
    finally:
        splitter.close()
