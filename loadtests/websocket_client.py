"""The load for servers of WebSockets: many sockets, each with one message under way. Our client for all of
them, over HTTP/3 or (for servers that know no other way) TLS and TCP. A child process of the benchmark (see
processes.py).

usage: websocket_client.py PORT CERT
Commands:
    {"how": "open", "sockets": N, "connections": N, "http3": "only" | "auto", "deflate": bool}
    {"how": "echo", "size": BYTES, "count": N}
    {"how": "close"}
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.fileobject import FileObjectPosix
from gevent.pool import Pool
from green_server import LOOPBACK

import quicgreen
from quicgreen.websocket import WebSocket, connect

OPENING = 100
"""Handshakes under way."""

_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "as",
    "was",
    "with",
    "on",
    "not",
    "have",
    "from",
]
_random = random.Random(1)
PROSE = " ".join(_random.choice(_WORDS) + _random.choice(["", "", "ly", "er"]) for _ in range(12_000))
"""What messages are taken from: it compresses about as well as text that people write."""


class Load:
    """Sockets, and messages on them, counted."""

    def __init__(self, port: str, cert: str) -> None:
        self.url = f"wss://127.0.0.1:{port}/"
        self.cert = cert
        self.sessions: list[quicgreen.Session] = []
        self.sockets: list[WebSocket] = []

    def open(self, sockets: int, connections: int, http3: str, deflate: bool) -> dict[str, Any]:
        """Over HTTP/3 they share connections, each of which has as many; over TCP each has its own."""
        # No pings: in a run of seconds `websockets` sends none either.
        options: dict[str, Any] = {"compression": "deflate" if deflate else None, "ping_interval": None}
        started = time.perf_counter()
        if http3 == "only":
            each = -(-sockets // connections)
            limits = quicgreen.Limits(max_streams=each, keepalive_expiry=None)
            for _ in range(connections):
                session = quicgreen.Session(verify=self.cert, config=LOOPBACK, limits=limits, tickets=False)
                self.sessions.append(session)
        pool = Pool(OPENING)

        def opened(number: int) -> WebSocket:
            if http3 == "only":
                return self.sessions[number % connections].websocket(self.url, open_timeout=60, **options)
            return connect(self.url, verify=self.cert, http3="auto", open_timeout=60, **options)

        self.sockets = list(pool.imap(opened, range(sockets)))
        return {"sockets": len(self.sockets), "seconds": time.perf_counter() - started}

    def echo(self, size: int, count: int) -> dict[str, Any]:
        """`count` messages in all, no two of them the same."""
        calls = iter(range(count))  # all greenlets take from it
        started = time.perf_counter()
        gevent.joinall([gevent.spawn(talk, ws, size, calls) for ws in self.sockets], raise_error=True)
        return {"messages": count, "seconds": time.perf_counter() - started}

    def close(self) -> dict[str, Any]:
        gevent.joinall([gevent.spawn(ws.close) for ws in self.sockets], raise_error=True)
        for session in self.sessions:
            session.close()
        self.sockets, self.sessions = [], []
        return {}

    def run(self, how: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self, how)(**options)
        return answer


def talk(ws: WebSocket, size: int, calls: Iterator[int]) -> None:
    for number in calls:
        start = number * 37 % (len(PROSE) - size)
        message = (f"{number:x} " + PROSE[start : start + size])[:size]
        ws.send(message)
        if ws.recv() != message:
            raise ValueError("something else came back")


def main() -> None:
    load = Load(sys.argv[1], sys.argv[2])
    print(json.dumps({"ready": True, "version": quicgreen.__version__}), flush=True)
    for line in FileObjectPosix(sys.stdin, "r", close=False):
        print(json.dumps(load.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
