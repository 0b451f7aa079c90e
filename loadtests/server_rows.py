"""Rows a, c and f1: what a request or a megabyte costs a server. The load comes from the limit's client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import limit
from green_server import LARGE, PAGE, SMALL
from processes import MEASURED, Child
from samples import Bound, Contestant, Plan, Row, Sample, check, rows

CPU = "µs server CPU per request"
SPEED = "MB per server CPU-second"

Measure = Callable[[int], Sample]


def green_server(plan: Plan, handler: str, *options: str, **environment: str) -> Child:
    """Ours."""
    script = "green_server.py"
    return Child.python(script, handler, *plan.certificate, *options, role=MEASURED, **environment)


def limit_server(plan: Plan, body: int, *, browser: bool = False) -> Child:
    return limit.server(plan.certificate, MEASURED, body=body, browser=browser)


def loaded(
    server: Child, mode: str, count: int, body: int, upload: int = 0, **load: Any
) -> tuple[dict[str, Any], int]:
    """Load a server once: the client's totals, and the server's CPU meanwhile in ns. Requests and bytes are
    counted on both sides."""
    before = server.ask()
    cpu = server.cpu_ns()
    totals = limit.run(mode, server.port, requests=count, body=upload, **load)
    cpu = server.cpu_ns() - cpu
    after = server.ask()
    check(f"{server.name}: requests", after["requests"] - before["requests"], count)
    check("limit client: body bytes received", totals["body_received"], count * body)
    check("limit client: body bytes sent", totals["body_sent"], count * upload)
    if upload:
        received = after["body_received"] - before["body_received"]
        check(f"{server.name}: body bytes received", received, count * upload)
    if body == LARGE:
        check(f"{server.name}: body bytes sent", after["body_sent"] - before["body_sent"], count * body)
    return totals, cpu


def per_request(server: Child, body: int = len(SMALL), mode: str = "get", **load: Any) -> Measure:
    """Server CPU per request, in µs."""

    def measure(count: int) -> Sample:
        totals, cpu = loaded(server, mode, count, body, **load)
        seconds = totals["seconds"]
        return Sample(cpu / count / 1e3, count / seconds, count, seconds)

    return measure


def per_byte(server: Child, mode: str, *, down: int, up: int) -> Measure:
    """Megabytes per second of server CPU."""

    def measure(count: int) -> Sample:
        totals, cpu = loaded(server, mode, count, down, up)
        megabytes = count * max(down, up) / 1e6
        seconds = totals["seconds"]
        return Sample(megabytes / (cpu / 1e9), megabytes / seconds, count, seconds)

    return measure


def _small(plan: Plan, keys: tuple[str, str], connections: int, streams: int) -> Iterable[Row]:
    load: dict[str, Any] = {"connections": connections, "streams": streams}
    shape = f"{connections} x {streams}"
    with ExitStack() as stack:
        default = stack.enter_context(green_server(plan, "small"))
        raw = stack.enter_context(green_server(plan, "small", "--spawn", "raw"))
        yardstick = stack.enter_context(limit_server(plan, len(SMALL)))
        ours, ours_raw, theirs = plan.measure(
            Contestant("quicgreen", per_request(default, **load), 5000),
            Contestant("quicgreen, raw", per_request(raw, **load), 5000),
            Contestant("limit", per_request(yardstick, **load), 10000),
        )
    client = f"limit's client, {shape}"
    title = f"server, small GET, {shape}"
    yield Row(keys[0], f"{title}, greenlet per request", client, CPU, ours, theirs, Bound(2.5))
    yield Row(keys[1], f'{title}, `spawn="raw"`', client, CPU, ours_raw, theirs, Bound(2.0))


@rows("a1", "a2")
def small_one_connection(plan: Plan) -> Iterable[Row]:
    yield from _small(plan, ("a1", "a2"), 1, 100)


@rows("a3", "a4")
def small_ten_connections(plan: Plan) -> Iterable[Row]:
    yield from _small(plan, ("a3", "a4"), 10, 10)


@rows("a5")
def browser_like(plan: Plan) -> Iterable[Row]:
    load: dict[str, Any] = {"streams": 100, "browser": True}
    with green_server(plan, "browser") as server, limit_server(plan, len(PAGE), browser=True) as yardstick:
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_request(server, len(PAGE), **load), 5000),
            Contestant("limit", per_request(yardstick, len(PAGE), **load), 10000),
        )
    title = "server, browser-like: 12 fields in, 3 read; 8 fields and 1 KiB back"
    yield Row("a5", title, "limit's client, 1 x 100", CPU, ours, theirs, Bound(2.8))


@rows("a6")
def hypercorn(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, "small"))
        peer = stack.enter_context(Child.python("hypercorn_server.py", *plan.certificate, role=MEASURED))
        name = f"hypercorn {peer.about['version']}"
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_request(server, streams=100), 5000),
            Contestant(name, per_request(peer, streams=100), 200),
        )
    bound = Bound(40, at_least=True, inverse=True)
    yield Row("a6", f"server, small GET, against {name}", "limit's client, 1 x 100", CPU, ours, theirs, bound)


@rows("c1")
def download(plan: Plan) -> Iterable[Row]:
    with green_server(plan, "download") as server, limit_server(plan, LARGE) as yardstick:
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_byte(server, "get", down=LARGE, up=0), 2),
            Contestant("limit", per_byte(yardstick, "get", down=LARGE, up=0), 2),
        )
    title = "server, download of 100 MB bodies from a Python iterable"
    yield Row("c1", title, "limit's client, 1 x 1", SPEED, ours, theirs, Bound(0.75, at_least=True))


@rows("c2")
def upload(plan: Plan) -> Iterable[Row]:
    with green_server(plan, "upload") as server, limit_server(plan, len(SMALL)) as yardstick:
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_byte(server, "post", down=len(SMALL), up=LARGE), 2),
            Contestant("limit", per_byte(yardstick, "post", down=len(SMALL), up=LARGE), 2),
        )
    title = "server, upload of 100 MB bodies read by a Python handler"
    yield Row("c2", title, "limit's client, 1 x 1", SPEED, ours, theirs, Bound(0.7, at_least=True))


@rows("f1")
def busy_thread(plan: Plan) -> Iterable[Row]:
    """For information: the thread takes half of the core and holds the GIL for 5 ms at a time."""

    def measured(server: Child) -> Measure:
        def measure(count: int) -> Sample:
            cpu = server.main_thread_cpu_ns()
            totals, _ = loaded(server, "get", count, len(SMALL), streams=100)
            cpu = server.main_thread_cpu_ns() - cpu
            seconds = totals["seconds"]
            return Sample(cpu / count / 1e3, count / seconds, count, seconds)

        return measure

    with green_server(plan, "small", "--busy-thread") as busy, green_server(plan, "small") as server:
        ours, alone = plan.measure(
            Contestant("quicgreen beside a CPU-bound thread", measured(busy), 200),
            Contestant("quicgreen alone", measured(server), 5000),
        )
    title = "server, small GET, 1 x 100, beside a CPU-bound Python thread"
    yield Row("f1", title, "limit's client, 1 x 100", "µs CPU of its main thread per request", ours, alone)
