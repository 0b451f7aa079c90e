"""Clients that keep a supervisor's workers busy, and count what became of each request."""

from __future__ import annotations

import itertools
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event

import quicgreen

from .commands import START_S
from .supervised import Supervised


class Load:
    """`clients` greenlets, each with a connection of its own, which send GET and POST in turn, back to back
    or at a fixed rate, until `stop`.

    A request is lost when its client saw neither the right bytes nor a refusal after which it tried again by
    itself.
    """

    def __init__(
        self, server: Supervised, clients: int, *, rate: float = 0.0, posts: str = "", timeout_s: float = 30.0
    ) -> None:
        """`rate`: requests a second of all clients together; 0: as many as go. `posts`: a file to which the
        workers write the number of each POST."""
        self.answered = 0
        self.lost: list[str] = []
        self.workers: Counter[str] = Counter()
        self.when, self.took = array("d"), array("d")
        """Of each that was answered: the moment, and how long it took."""
        self.numbers: set[int] = set()
        """Of POSTs that were answered."""
        self._server, self._timeout_s = server, timeout_s
        self._every_s = clients / rate if rate else 0.0
        self._posts = posts
        self._count = itertools.count()
        self._stop = Event()
        self._clients = [gevent.spawn(self._run, i / clients) for i in range(clients)]

    def _run(self, share: float) -> None:
        with quicgreen.Session(
            verify=False, timeout=self._timeout_s, limits=quicgreen.Limits(max_connections=1)
        ) as session:
            due = time.monotonic() + share * self._every_s
            while not self._stop.is_set():
                if self._every_s:
                    # By the clock, and not after the last one: what is late counts as late.
                    if (early_s := due - time.monotonic()) > 0:
                        gevent.sleep(early_s)
                    begun, due = due, due + self._every_s
                else:
                    begun = time.monotonic()
                self._request(session, begun)

    def _request(self, session: quicgreen.Session, begun: float) -> None:
        number = next(self._count)
        body = b"%d," % number
        try:
            if number % 2:
                path = f"/note/{self._posts}" if self._posts else "/"
                response = session.post(self._server.url(path), body)
                right = response.content == body
            else:
                response = session.get(self._server.url("/"))
                right = response.content == b"from %s\n" % response.headers["x-pid"].encode()
        except quicgreen.QuicException as e:
            self.lost.append(f"{'POST' if number % 2 else 'GET'}: {type(e).__name__} {e}")
            return
        if response.status_code != 200 or not right:
            self.lost.append(f"{response.status_code} {response.content[:40]!r}")
            return
        now = time.monotonic()
        self.answered += 1
        self.when.append(now)
        self.took.append(now - begun)
        self.workers[response.headers["x-pid"]] += 1
        if number % 2:
            self.numbers.add(number)

    def stop(self) -> None:
        self._stop.set()
        gevent.joinall(self._clients, timeout=self._timeout_s + 5)
        for client in self._clients:
            assert client.successful(), client

    def percentile(self, share: float, since: float = 0.0, until: float = float("inf")) -> float:
        """Seconds, of requests that were answered in that time."""
        found = sorted(took for when, took in zip(self.when, self.took, strict=True) if since <= when < until)
        return found[min(len(found) - 1, int(len(found) * share))]


def capacity(server: Supervised, clients: int) -> float:
    """Requests a second that are answered in time when they come at a fixed rate: each rate is a quarter more
    than the last, until one is answered by less than 95 %, or p99 is more than 50 ms."""
    good = 0.0
    rate = 2000.0
    while True:
        load = Load(server, clients, rate=rate)
        gevent.sleep(1)  # handshakes
        began, before = time.monotonic(), load.answered
        gevent.sleep(3)
        answered = (load.answered - before) / (time.monotonic() - began)
        load.stop()
        if answered < 0.95 * rate or load.percentile(0.99, since=began) > 0.05:
            return good
        good, rate = answered, rate * 1.25


def repeated(server: Supervised, file: str) -> dict[str, int]:
    """Numbers of POSTs that ran more than once, by what the workers wrote."""
    counts = Counter((server.folder / file).read_text().split(",")[:-1])
    return {number: count for number, count in counts.items() if count > 1}


def explained(load: Load, **more: Any) -> str:
    """One line of what happened."""
    told = {"answered": load.answered, "lost": len(load.lost), "workers": len(load.workers), **more}
    return ", ".join(f"{name} {value}" for name, value in told.items())


@dataclass
class Resumptions:
    """What became of connections that took up a session."""

    count: int = 0
    resumed: int = 0
    early: int = 0
    """The server took early data."""
    requests_early: int = 0
    """The request was in it: without a delay on the way the handshake may be complete before it leaves."""
    elsewhere: int = 0
    """Served by a worker that did not issue the ticket."""
    tickets: list[tuple[Any, str]] = field(default_factory=list, repr=False)
    """Unused ones, and the process that issued each."""


def resume_elsewhere(
    server: Supervised, count: int, tickets: list[tuple[Any, str]] | None = None, *, pause_s: float = 0.0
) -> Resumptions:
    """Connect so often, each time with the ticket of an earlier connection (the first ones may be given), and
    a GET in early data."""
    found = Resumptions(tickets=list(tickets or []))
    if not found.tickets:
        _visit(server, None, found)
    for _ in range(count):
        gevent.sleep(pause_s)
        ticket, issuer = found.tickets.pop(0)
        found.count += 1
        found.elsewhere += _visit(server, ticket, found) != issuer
    return found


def _visit(server: Supervised, ticket: Any, found: Resumptions) -> str:
    """The process that served it."""
    with quicgreen.connect(
        "127.0.0.1", server.port, verify=False, ticket=ticket, early_data=True, timeout=START_S
    ) as connection:
        response = connection.get("/", timeout=START_S)
        pid = response.headers["x-pid"]
        assert response.content == b"from %s\n" % pid.encode()
        new = connection.export_ticket(START_S)
        assert new is not None
        found.tickets.append((new, pid))
        found.resumed += connection.is_resumed
        found.early += connection.early_data is True
        found.requests_early += response.headers["x-early"] == "True"
        return str(pid)
