"""The measured client: one Session, or many connections. A child process of the benchmark (see
processes.py).

usage: green_client.py PORT CERT [IP]
Commands: {"how": "differing" | "same" | "single" | "full" | "resumed" | "many", "count": N}
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix
from green_server import LOOPBACK

import quicgreen
from quicgreen.tickets import Ticket

GREENLETS = 100
HANDSHAKES_AT_ONCE = 10
CONNECTIONS = 10
"""Of "many", each with as many greenlets."""


class Load:
    """Requests on one session, counted."""

    def __init__(self, port: str, cert: str, ip: str = "127.0.0.1") -> None:
        self.session = quicgreen.Session(verify=cert, config=LOOPBACK, server_name="localhost")
        self.port, self.cert, self.ip = int(port), cert, ip
        self.tickets: list[Ticket] = []
        self.base = f"https://{ip}:{port}"
        self.sessions: list[quicgreen.Session] = []
        self.numbers = itertools.count()  # never the same path twice, in all runs
        self.body = 0
        self.times_ns: list[int] = []

    def same(self) -> None:
        """A call that repeats."""
        self._count(self.session.get(self.base + "/small"))

    def differing(self) -> None:
        """Its own path, and a field of its own."""
        n = next(self.numbers)
        self._count(self.session.get(f"{self.base}/item/{n}", headers={"x-request-id": f"request-{n}"}))

    def many(self) -> None:
        """As differing, on the next one of many sessions."""
        n = next(self.numbers)
        session = self.sessions[n % CONNECTIONS]
        self._count(session.get(f"{self.base}/item/{n}", headers={"x-request-id": f"request-{n}"}))

    def _open_many(self) -> None:
        one = quicgreen.Limits(max_connections=1, max_streams=1000)
        while len(self.sessions) < CONNECTIONS:
            session = quicgreen.Session(verify=self.cert, config=LOOPBACK, limits=one)
            self.sessions.append(session)

    def single(self) -> None:
        """A call whose time matters."""
        started = time.perf_counter_ns()
        response = self.session.get(self.base + "/small")
        self.times_ns.append(time.perf_counter_ns() - started)
        self._count(response)

    def full(self) -> None:
        """A connection of its own, and one request on it."""
        self._connect(None)

    def resumed(self) -> None:
        """The same, with a ticket of an earlier one: without early data, which would be another matter."""
        if not self._connect(self.tickets.pop()):
            raise ValueError("the server did not resume")

    def _connect(self, ticket: Ticket | None) -> bool:
        connection = quicgreen.connect(
            self.ip, self.port, server_name="localhost", verify=self.cert, config=LOOPBACK, ticket=ticket
        )
        self._count(connection.get("/small"))
        resumed = connection.is_resumed
        while (came := connection.export_ticket()) is not None:
            self.tickets.append(came)
        connection.close()
        return resumed

    def _count(self, response: quicgreen.Response) -> None:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}")
        self.body += len(response.content)

    def run(self, how: str, count: int) -> dict[str, Any]:
        call = getattr(self, how)
        self.body = 0
        self.times_ns = []
        started = time.perf_counter()
        if how == "single":
            repeat(call, range(count))
        else:
            calls = iter(range(count))  # all greenlets take from it
            greenlets = HANDSHAKES_AT_ONCE if how in ("full", "resumed") else GREENLETS
            if how == "many":
                self._open_many()
                greenlets = GREENLETS * CONNECTIONS
            workers = [gevent.spawn(repeat, call, calls) for _ in range(greenlets)]
            gevent.joinall(workers, raise_error=True)
        seconds = time.perf_counter() - started
        answer: dict[str, Any] = {"requests": count, "body_received": self.body, "seconds": seconds}
        if self.times_ns:
            times = sorted(self.times_ns)
            answer["p50_us"] = times[len(times) // 2] / 1e3
            answer["p99_us"] = times[len(times) * 99 // 100] / 1e3
        return answer


def repeat(call: Callable[[], None], calls: Any) -> None:
    for _ in calls:
        call()


def main() -> None:
    load = Load(*sys.argv[1:])
    load.same()
    print(json.dumps({"ready": True, "version": quicgreen.__version__}), flush=True)
    for line in FileObjectPosix(sys.stdin, "r", close=False):
        print(json.dumps(load.run(**json.loads(line))), flush=True)
    for session in (load.session, *load.sessions):
        session.close()


if __name__ == "__main__":
    main()
