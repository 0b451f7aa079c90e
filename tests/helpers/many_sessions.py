"""A client: our own, with many sessions at once, each with a connection of its own. Prints what it saw as
JSON.

Options
    url         of the server, without a path
    count       sessions
    rounds      requests on each, after the first
    held        a file that it makes when all sessions have their last request under way together; somebody
                looks then, and makes the file `go`, which is what the answers wait for
A request says who asks, and its answer says it again, with the worker's pid: an answer that came to somebody
else counts as wrong.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import ready  # isort: skip - it makes what follows importable

import gevent
from gevent.pool import Pool
from support import counters, descriptors

import quicgreen

VERSION = f"quicgreen/{quicgreen.__version__}"

HANDSHAKES_AT_ONCE = 100
"""More only make a queue at the server, whose last ones a busy machine keeps waiting too long."""

PATIENCE_S = 60.0


class Client:
    """One session, and what it saw."""

    def __init__(self, number: int, url: str) -> None:
        self.number, self.url = number, url
        self.asked = 0
        self.wrong: list[str] = []
        self.workers: set[str] = set()
        self.connections: set[int] = set()
        self.session = quicgreen.Session(
            verify=False,
            timeout=PATIENCE_S,
            limits=quicgreen.Limits(max_connections=1, keepalive_expiry=None),
            tickets=False,
        )

    def ask(self, what: str = "echo") -> None:
        self.asked += 1
        path = f"/{what}/{self.number}/{self.asked}"
        response = self.session.get(self.url + path)
        pid = response.headers.get("x-pid", "")
        self.workers.add(pid)
        self.connections.add(id(response.connection))
        if response.status_code != 200 or response.text != f"{path} by {pid}":
            self.wrong.append(f"{path}: {response.status_code} {response.text[:100]!r}")


def main() -> None:
    options = ready.options()
    before = descriptors()
    clients = [Client(i, options["url"]) for i in range(options["count"])]
    Pool(HANDSHAKES_AT_ONCE).map(Client.ask, clients)
    for _ in range(options["rounds"] - 1):
        gevent.joinall([gevent.spawn(client.ask) for client in clients], raise_error=True)
    waiting = [gevent.spawn(client.ask, "held") for client in clients]
    deadline = time.monotonic() + PATIENCE_S
    while counters()["requests_sent"] < sum(c.asked for c in clients) and time.monotonic() < deadline:
        gevent.sleep(0.01)
    at_once = {
        "connections": counters()["connections"],
        "waiting": sum(not g.dead for g in waiting),
        "descriptors": descriptors() - before,
        "pid": os.getpid(),
    }
    Path(options["held"]).touch()
    gevent.joinall(waiting, raise_error=True)
    print(
        json.dumps(
            {
                "version": VERSION,
                "answered": sum(c.asked for c in clients),
                "wrong": [line for c in clients for line in c.wrong],
                "moved": sum(len(c.workers) != 1 or len(c.connections) != 1 for c in clients),
                "workers": Counter(next(iter(c.workers)) for c in clients),
                "distinct": len(set().union(*(c.connections for c in clients))),
                "handshakes": counters()["handshakes_completed"],
                "at_once": at_once,
            }
        )
    )
    for client in clients:
        client.session.close(timeout=None)


main()
