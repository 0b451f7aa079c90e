"""The measured server: one of a few handlers. A child process of the benchmark (see processes.py).

usage: green_server.py HANDLER CERT KEY [--spawn HOW] [--busy-thread] [--max-idle-ms N]
       [--host IP] [--port PORT]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import threading
from collections.abc import Iterator

import gevent
from gevent.fileobject import FileObjectPosix

import quicgreen
from quicgreen import hub

SMALL = b"hello world"
PAGE = b"<!doctype html>" + b"x" * 1009
LARGE = 100_000_000
CHUNK = b"x" * 65536
BUFFER = bytearray(262144)
"""One for all uploads: they come one after another."""

counted = {"body_sent": 0, "body_received": 0}


def small(request: quicgreen.Request) -> None:
    """The least that a handler can do."""
    request.respond(200, None, SMALL)


def browser(request: quicgreen.Request) -> None:
    """A page: three fields are read, six are answered, and the server adds content-length and date."""
    headers = request.headers
    if not (headers["user-agent"] and headers["accept-language"] and headers["cookie"]):
        raise ValueError("not a browser's request")
    request.respond(
        200,
        {
            "content-type": "text/html; charset=utf-8",
            "cache-control": "max-age=600",
            "etag": '"6b86b273ff34fce19d6b804eff5a3f57"',
            "vary": "accept-encoding",
            "server": "quicgreen",
            "x-content-type-options": "nosniff",
        },
        PAGE,
    )


def download(request: quicgreen.Request) -> None:
    """A large body, made piece by piece."""
    request.respond(200, {"content-length": str(LARGE)}, pieces())


def pieces() -> Iterator[bytes]:
    left = LARGE
    while left > 0:
        piece = CHUNK if left >= len(CHUNK) else CHUNK[:left]
        yield piece
        left -= len(piece)
        counted["body_sent"] += len(piece)


def upload(request: quicgreen.Request) -> None:
    """A large body, read into one buffer."""
    while n := request.readinto(BUFFER):
        counted["body_received"] += n
    request.respond(200, None, SMALL)


HANDLERS = {f.__name__: f for f in (small, browser, download, upload)}

LOOPBACK = quicgreen.QuicConfiguration(max_udp_payload_size=1350, discover_pmtu=False)
"""Datagrams of the same size as all peers'. All else is as a user gets it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("handler", choices=HANDLERS)
    parser.add_argument("cert")
    parser.add_argument("key")
    parser.add_argument("--spawn", default="default")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--busy-thread", action="store_true")
    parser.add_argument("--max-idle-ms", type=int)
    options = parser.parse_args()
    server = quicgreen.Server(
        (options.host, options.port),
        HANDLERS[options.handler],
        certfile=options.cert,
        keyfile=options.key,
        spawn=options.spawn,
        config=dataclasses.replace(LOOPBACK, max_idle_ms=options.max_idle_ms),
    )
    server.start()
    if options.busy_thread:
        threading.Thread(target=compute, daemon=True).start()
    gevent.spawn(answer_stdin, server)
    print(
        json.dumps({"ready": True, "port": server.server_port, "version": quicgreen.__version__}), flush=True
    )
    server.serve_forever()


def answer_stdin(server: quicgreen.Server) -> None:
    """Each line asks for the totals; without stdin there is nobody to serve."""
    engine = hub.current().engine
    for _ in FileObjectPosix(sys.stdin, "r", close=False):
        counters = engine.counters()
        totals = {
            "requests": counters["requests_received"],
            "connections": counters["handshakes_completed"],
            "resumed": counters["handshakes_resumed"],
            "spin_hits": counters["spin_hits"],
            **{name: n for name, n in counters.items() if name.startswith("xdp_")},
            **counted,
        }
        print(json.dumps(totals), flush=True)
    server.close()


def compute() -> None:
    """Pure Python, for ever."""
    n = 1
    while True:
        n = n * 3 % 1_000_003


if __name__ == "__main__":
    main()
