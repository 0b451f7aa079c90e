"""Row g: what a WebSocket message costs a server, and what an open socket does. The load is our client's,
over HTTP/3 or, for servers that have no other way, TLS and TCP; only the server's CPU counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from processes import MEASURED, OTHER, Child
from samples import Bound, Contestant, Plan, Row, Sample, Series, check, rows

SOCKETS = 100
"""Each with one message under way."""

HELD = 20_000
HELD_ON = 200
"""Connections that the held sockets share: 100 on each, which is what a server allows by itself."""

MEMORY_RUNS = 3
"""Memory hardly varies, and each run takes 20,000 handshakes."""

SETTLE_S = 0.5
"""For acknowledgements, and what is freed after the last handshake."""

PATIENCE_S = 5.0

CPU = "µs server CPU per message"

Measure = Callable[[int], Sample]


def green_server(plan: Plan, deflate: bool) -> Child:
    """Ours."""
    return Child.python("websocket_server.py", *plan.certificate, *_option(deflate), role=MEASURED)


def websockets_server(plan: Plan, deflate: bool) -> Child:
    return Child.python("websockets_server.py", *plan.certificate, *_option(deflate), role=MEASURED)


def _option(deflate: bool) -> list[str]:
    return ["--deflate"] if deflate else []


@contextmanager
def sockets_to(
    plan: Plan,
    server: Child,
    *,
    sockets: int = SOCKETS,
    connections: int = 1,
    http3: str = "only",
    deflate: bool = False,
    close: bool = True,
) -> Iterator[Child]:
    """A client with open sockets. `close`: close each of them at the end."""
    before = server.ask()
    with Child.python("websocket_client.py", server.port, plan.certificate[0], role=OTHER) as client:
        client.ask(how="open", sockets=sockets, connections=connections, http3=http3, deflate=deflate)
        deadline = time.monotonic() + PATIENCE_S
        while (after := server.ask())["open"] - before["open"] < sockets and time.monotonic() < deadline:
            time.sleep(0.01)  # `websockets` answers before it calls its handler
        check(f"{server.name}: sockets", after["open"] - before["open"], sockets)
        if "compressed" in after:
            compressed = after["compressed"] - before["compressed"]
            check(f"{server.name}: of these compressed", compressed, sockets * deflate)
        yield client
        if close:
            client.ask(how="close")


def per_message(server: Child, client: Child, size: int) -> Measure:
    """Server CPU per message that came and was sent back, in µs."""

    def measure(count: int) -> Sample:
        before = server.ask()
        cpu = server.cpu_ns()
        seconds = client.ask(how="echo", size=size, count=count)["seconds"]
        cpu = server.cpu_ns() - cpu
        after = server.ask()
        check(f"{server.name}: messages", after["messages"] - before["messages"], count)
        check(f"{server.name}: bytes", after["bytes"] - before["bytes"], count * size)
        return Sample(cpu / count / 1e3, count / seconds, count, seconds)

    return measure


def _against_websockets(plan: Plan, key: str, size: int, *, deflate: bool, connections: int = 1) -> Row:
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, deflate))
        client = stack.enter_context(sockets_to(plan, server, connections=connections, deflate=deflate))
        peer = stack.enter_context(websockets_server(plan, deflate))
        peers_client = stack.enter_context(sockets_to(plan, peer, http3="auto", deflate=deflate))
        name = f"websockets {peer.about['version']} (asyncio, TLS)"
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_message(server, client, size), 2000),
            Contestant(name, per_message(peer, peers_client, size), 1000),
        )
    title = f"server, WebSocket echo, {SOCKETS} sockets, {size:,} B{', deflate' if deflate else ''}"
    if connections > 1:
        title += f", {connections} connections"
    bound = Bound(2 if deflate else 4, at_least=True, inverse=True)
    return Row(key, title, "our client: over HTTP/3, over TCP", CPU, ours, theirs, bound)


@rows("g1")
def small(plan: Plan) -> Iterable[Row]:
    yield _against_websockets(plan, "g1", 16, deflate=False)


@rows("g2")
def larger(plan: Plan) -> Iterable[Row]:
    yield _against_websockets(plan, "g2", 1024, deflate=False)


@rows("g3")
def small_compressed(plan: Plan) -> Iterable[Row]:
    yield _against_websockets(plan, "g3", 16, deflate=True)


@rows("g4")
def larger_compressed(plan: Plan) -> Iterable[Row]:
    yield _against_websockets(plan, "g4", 1024, deflate=True)


@rows("g5")
def many_connections(plan: Plan) -> Iterable[Row]:
    """As far from HTTP/3's advantage as it gets: as many connections as over TCP."""
    row = _against_websockets(plan, "g5", 16, deflate=False, connections=SOCKETS)
    row.bound = None
    yield row


@rows("g6")
def hypercorn(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, deflate=False))
        client = stack.enter_context(sockets_to(plan, server))
        peer = stack.enter_context(Child.python("hypercorn_server.py", *plan.certificate, role=MEASURED))
        # hypercorn 0.18 ends at the end of a stream whose WebSocket is closed: KeyError in protocol/h3.py.
        peers_client = stack.enter_context(sockets_to(plan, peer, close=False))
        name = f"hypercorn {peer.about['version']}"
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_message(server, client, 16), 2000),
            Contestant(name, per_message(peer, peers_client, 16), 200),
        )
    title = f"server, WebSocket echo over HTTP/3, {SOCKETS} sockets, 16 B, against {name}"
    yield Row("g6", title, "our client", CPU, ours, theirs, Bound(15, at_least=True, inverse=True))


def held(plan: Plan) -> Sample:
    """Growth of a server's resident memory per open socket, in kB (1,000 bytes): stream, WebSocket, and the
    greenlet that waits for its messages."""
    with green_server(plan, deflate=False) as server:
        with sockets_to(plan, server, connections=10) as client:  # what is allocated once
            client.ask(how="echo", size=16, count=2 * SOCKETS)
        time.sleep(SETTLE_S)
        before = server.rss_kb()
        started = time.perf_counter()
        with sockets_to(plan, server, sockets=HELD, connections=HELD_ON) as client:
            seconds = time.perf_counter() - started
            client.ask(how="echo", size=16, count=2 * HELD)  # each one was used
            time.sleep(SETTLE_S)
            grown = server.rss_kb() - before
            check(f"{server.name}: sockets", server.ask()["open"], HELD)
    return Sample(grown * 1.024 / HELD, HELD / seconds, HELD, seconds)


@rows("g7")
def memory(plan: Plan) -> Iterable[Row]:
    samples = [held(plan) for _ in range(min(plan.runs, MEMORY_RUNS))]  # a fresh server for each
    title = f"server, memory per open WebSocket, {HELD:,} held on {HELD_ON} connections"
    yield Row("g7", title, "our client", "kB per socket", Series("quicgreen", samples), absolute=40)
