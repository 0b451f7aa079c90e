"""The measured agents: locust's users, run by locust. A child process of the benchmark (see processes.py).

usage: agents_child.py PORT CERT own|shared|http1
own: a connection for each agent; shared: some for all of them; http1: FastHttpUser, over TLS and TCP
Commands
    {"how": "start", "count": N, "think_s": S}   agents, which ask, think so long, and ask again; answers
                                                 when all had their first answer
    {"how": "wait", "seconds": S}                requests of that time
    {"how": "stop"}
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix
from locust import FastHttpUser, User, task
from locust.env import Environment

import quicgreen
from quicgreen.locust import QuicUser

SPAWN_RATE = 500
"""A second: each comes with a handshake, of which a core does some two thousand."""


class Thinking(User):
    """Asks, and thinks."""

    abstract = True
    think_s = 0.0
    client: Any

    @task
    def ask(self) -> None:
        self.client.get("/small")

    def wait_time(self) -> float:
        return self.think_s


def user_class(port: str, cert: str, how: str) -> type[User]:
    """As the command line says."""
    host = f"https://127.0.0.1:{port}"
    if how == "http1":
        return type("Agent", (Thinking, FastHttpUser), {"host": host})
    config = quicgreen.QuicConfiguration(
        max_udp_payload_size=1350,
        discover_pmtu=False,
        max_idle_ms=600_000,
        slow_handshake_ms=0,  # of which to warn is no news here
    )
    settings = {"host": host, "insecure": False, "verify": cert, "config": config, "keepalive_expiry": None}
    if how == "shared":
        settings["session"] = quicgreen.Session(verify=cert, config=config)
    return type("Agent", (Thinking, QuicUser), settings)


class Agents:
    """All of them, and what they asked."""

    def __init__(self, kind: type[Any]) -> None:
        self.kind = kind
        self.environment = Environment(user_classes=[kind])
        self.runner = self.environment.create_local_runner()

    @property
    def requests(self) -> int:
        total = self.environment.stats.total
        if total.num_failures:
            raise ValueError(
                f"{total.num_failures} failures: {[e.error for e in self.environment.stats.errors.values()]}"
            )
        return int(total.num_requests)

    def start(self, count: int, think_s: float) -> dict[str, Any]:
        self.kind.think_s = think_s
        self.environment.stats.clear_all()
        started = time.perf_counter()
        self.runner.start(count, spawn_rate=SPAWN_RATE)
        while self.requests < count:
            gevent.sleep(0.05)
        return {"requests": self.requests, "seconds": time.perf_counter() - started}

    def wait(self, seconds: float) -> dict[str, Any]:
        before, started = self.requests, time.perf_counter()
        gevent.sleep(seconds)
        took = time.perf_counter() - started
        return {"requests": self.requests - before, "users": self.runner.user_count, "seconds": took}

    def stop(self) -> dict[str, Any]:
        self.runner.stop()
        return {"users": self.runner.user_count}


def main() -> None:
    agents = Agents(user_class(*sys.argv[1:]))
    agents.start(1, 0.0)  # what is made once
    agents.stop()
    print(json.dumps({"ready": True, "version": quicgreen.__version__}), flush=True)
    for line in FileObjectPosix(sys.stdin, "r", close=False):
        command = json.loads(line)
        print(json.dumps(getattr(agents, command.pop("how"))(**command)), flush=True)


if __name__ == "__main__":
    main()
