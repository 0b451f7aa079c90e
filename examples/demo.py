"""What quicgreen does, in half a minute: `make demo`.

A server runs in a process of its own and answers each request in a greenlet of its own. This process asks
it: thousands of requests from hundreds of greenlets, each written as if it were alone, then the same one
after another, then a large body each way. Then hypercorn is asked the same, for comparison. Every count and
every byte is compared with what the server saw.

Nothing here is monkey-patched, and it would work as well if it were.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent

import quicgreen
from quicgreen.testing import self_signed

REQUESTS, GREENLETS = 2000, 500
ONE_AT_A_TIME_S = 5.0
LARGE = 200_000_000
CHUNK = b"x" * 65536
GREETING = b"hello world\n"

# ---------------------------------------------------------------- the server

seen = {"requests": 0, "received": 0, "sent": 0}


def handle(request: quicgreen.Request) -> None:
    """Called in a greenlet for each request: what looks blocking here lets the others run."""
    if request.path == "/seen":
        request.respond(200, {"content-type": "application/json"}, what_was_seen())
        return
    seen["requests"] += 1
    if request.path == "/large":
        request.respond(200, {"content-length": str(LARGE)}, counted(large(), "sent"))
        return
    buffer = bytearray(256 * 1024)
    while n := request.readinto(buffer):  # an upload; a GET has nothing to read
        seen["received"] += n
    request.respond(200, {"content-type": "text/plain"}, GREETING)
    seen["sent"] += len(GREETING)


def what_was_seen() -> bytes:
    return json.dumps({**seen, "cpu": time.process_time()}).encode()


def large() -> Iterator[bytes]:
    """A body may be any iterable of bytes; it is asked for more as the other side takes it."""
    for start in range(0, LARGE, len(CHUNK)):
        yield CHUNK[: LARGE - start]


def counted(pieces: Iterator[bytes], what: str) -> Iterator[bytes]:
    for piece in pieces:
        seen[what] += len(piece)
        yield piece


def serve(certfile: str, keyfile: str) -> None:
    server = quicgreen.Server(("127.0.0.1", 0), handle, certfile=certfile, keyfile=keyfile)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


# ---------------------------------------------------------------- hypercorn, for comparison


async def application(scope: Any, receive: Any, send: Any) -> None:
    """The same greeting, as an ASGI application."""
    body = what_was_seen() if scope["path"] == "/seen" else GREETING
    if scope["path"] != "/seen":
        seen["requests"] += 1
        seen["sent"] += len(body)
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve_with_hypercorn(certfile: str, keyfile: str) -> None:
    import asyncio
    import socket

    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = ["127.0.0.1:0"]  # HTTP/1 and 2, which hypercorn insists on
    config.quic_bind = [f"fd://{udp.fileno()}"]
    config.certfile, config.keyfile = certfile, keyfile
    config.errorlog = None
    print(udp.getsockname()[1], flush=True)
    asyncio.run(serve(application, config, mode="asgi"))


# ---------------------------------------------------------------- the client


class Peer:
    """A server in a process of its own, and a session with it."""

    def __init__(self, role: str, certfile: str, keyfile: str) -> None:
        try:
            self.name = f"{role} {importlib.metadata.version(role)}"
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"demo: {role} did not start: it is not installed")
        command = [sys.executable, __file__, role, certfile, keyfile]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        self.url = f"https://127.0.0.1:{port}"
        # Connections are opened as they are needed: here for every hundred requests that are under way.
        limits = quicgreen.Limits(max_streams=100)
        # hypercorn makes new connections wait for seconds: the table shows how slow it is.
        config = quicgreen.QuicConfiguration(slow_handshake_ms=30_000)
        self.session = quicgreen.Session(verify=certfile, limits=limits, config=config, timeout=30)
        try:
            if not port:
                raise ConnectionError("it ended")
            self.seen()
        except (quicgreen.QuicException, ConnectionError) as e:
            self.close()
            sys.exit(f"demo: {self.name} did not start: {e}")

    def seen(self) -> dict[str, float]:
        """What the server counted so far, and its CPU seconds."""
        found: dict[str, float] = self.session.get(f"{self.url}/seen").raise_for_status().json()
        return found

    def close(self) -> None:
        self.session.close()
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def get(peer: Peer) -> int:
    """One request, as anybody would write it. Returns the length of its body."""
    return len(peer.session.get(f"{peer.url}/").raise_for_status().content)


def gets_from_greenlets(peer: Peer) -> tuple[int, int]:
    """Returns requests and bytes, like those below."""
    calls = iter(range(REQUESTS))  # each greenlet takes the next one
    greenlets = [gevent.spawn(lambda: sum(get(peer) for _ in calls)) for _ in range(GREENLETS)]
    gevent.joinall(greenlets, raise_error=True)
    return REQUESTS, sum(g.value for g in greenlets)


def gets_one_at_a_time(peer: Peer) -> tuple[int, int]:
    end = time.monotonic() + ONE_AT_A_TIME_S
    done = total = 0
    while done < REQUESTS and time.monotonic() < end:
        total += get(peer)
        done += 1
    return done, total


def download(peer: Peer) -> tuple[int, int]:
    total = 0
    buffer = bytearray(256 * 1024)
    with peer.session.stream("GET", f"{peer.url}/large") as response:
        while n := response.readinto(buffer):
            total += n
            show_progress("download", total)
    return 1, total


def upload(peer: Peer) -> tuple[int, int]:
    total = 0

    def body() -> Iterator[bytes]:
        nonlocal total
        for piece in large():
            yield piece
            total += len(piece)
            show_progress("upload", total)

    peer.session.post(f"{peer.url}/upload", body()).raise_for_status()
    return 1, total


shown: dict[str, int] = {}


def show_progress(what: str, done: int) -> None:
    """On a terminal, one line."""
    percent = 100 * done // LARGE
    if sys.stderr.isatty() and percent != shown.get(what):
        shown[what] = percent
        end = "\n" if percent == 100 else ""
        print(f"\r{what:>10} {'#' * (percent // 2):50} {percent:3d} %", end=end, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- what came of it


@dataclass
class Result:
    what: str
    peer: str
    requests: int
    bytes: int
    """In the direction that the row is about; the peer counted the same."""
    seconds: float
    client_cpu: float
    server_cpu: float
    speed_up: str = ""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def cells(self) -> list[str]:
        work = self.requests if self.requests > 1 else self.bytes / 1e6
        unit, cost = ("req/s", "µs/req") if self.requests > 1 else ("MB/s", "µs/MB")
        return [
            self.what,
            self.peer,
            f"{work / self.seconds:,.0f} {unit}",
            f"{1e6 * self.client_cpu / work:,.0f} {cost}",
            f"{1e6 * self.server_cpu / work:,.0f} {cost}",
            f"{self.requests:,} req, {self.bytes:,} B",
            self.speed_up,
        ]


def measure(what: str, peer: Peer, work: Callable[[Peer], tuple[int, int]], counter: str = "sent") -> Result:
    """Do it, and compare what came with what the peer saw."""
    before = peer.seen()
    cpu, started = time.process_time(), time.monotonic()
    requests, total = work(peer)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    after = peer.seen()
    theirs = after["requests"] - before["requests"], after[counter] - before[counter]
    if theirs != (requests, total):
        sys.exit(f"demo: {what}: {requests} requests and {total} bytes here, {theirs} at {peer.name}")
    return Result(what, peer.name, requests, total, seconds, cpu, after["cpu"] - before["cpu"])


def print_table(results: list[Result]) -> None:
    heads = ["", "server", "rate", "client CPU", "server CPU", "seen by both", ""]
    lines = [heads, *(result.cells() for result in results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quicgreen-demo-") as folder:
        # Made for this run, and trusted by this run only.
        certificate = self_signed(folder, "127.0.0.1", "localhost")
        files = certificate.certfile, certificate.keyfile
        with Peer("quicgreen", *files) as ours:
            many = measure(f"{REQUESTS:,} GETs, {GREENLETS} greenlets", ours, gets_from_greenlets)
            single = measure("GETs, one at a time", ours, gets_one_at_a_time)
            down = measure("download", ours, download)
            up = measure("upload", ours, upload, "received")
        with Peer("hypercorn", *files) as theirs:
            other = measure(f"{REQUESTS:,} GETs, {GREENLETS} greenlets", theirs, gets_from_greenlets)
    if single.requests < REQUESTS:
        single.what += f" (the first {single.requests:,})"
    many.speed_up = (
        f"{many.rate / single.rate:.1f} x one at a time, {many.rate / other.rate:.0f} x hypercorn, "
        f"at {other.server_cpu / many.server_cpu:.0f} x less server CPU"
    )
    print_table([many, single, down, up, other])
    print(f"Both processes share this machine; {time.monotonic() - started:.0f} s in all.")


if __name__ == "__main__":
    roles = {"quicgreen": serve, "hypercorn": serve_with_hypercorn}
    if len(sys.argv) > 1:
        roles[sys.argv[1]](*sys.argv[2:])
    else:
        main()
