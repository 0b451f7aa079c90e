"""Rows b and d: what a request costs a client, and how long one takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import limit
from green_server import SMALL
from processes import MEASURED, OTHER, Child, PeerError
from samples import Bound, Contestant, Plan, Row, Sample, Series, check, rows
from server_rows import green_server

CPU = "µs client CPU per request"
RATE = "requests per second"
ROUND_TRIP = "µs round trip, p50"
BOTH = "our client (the limit's on the limit), both processes measured"

Measure = Callable[[int], Sample]


def checked(answer: dict[str, Any], server: Child, before: dict[str, Any], count: int) -> dict[str, Any]:
    """Both sides counted the same."""
    requests = server.ask()["requests"] - before["requests"]
    check(f"{server.name}: requests", requests, count)
    check("client: body bytes", answer["body_received"], count * len(SMALL))
    return answer


def client_cpu(client: Child, server: Child, **command: Any) -> Measure:
    """CPU per request of a client process, in µs."""

    def measure(count: int) -> Sample:
        before = server.ask()
        cpu = client.cpu_ns()
        answer = client.ask(count=count, **command)
        cpu = client.cpu_ns() - cpu
        checked(answer, server, before, count)
        seconds = answer["seconds"]
        return Sample(cpu / count / 1e3, count / seconds, count, seconds)

    return measure


def limit_client_cpu(server: Child) -> Measure:
    def measure(count: int) -> Sample:
        before = server.ask()
        answer = limit.run("get", server.port, requests=count, streams=100, role=MEASURED)
        checked(answer, server, before, count)
        seconds = answer["seconds"]
        return Sample(answer["cpu_seconds"] / count * 1e6, count / seconds, count, seconds)

    return measure


def round_trip(ask: Callable[[int], dict[str, Any]], server: Child) -> Measure:
    """Median time of requests that come one after another, in µs."""

    def measure(count: int) -> Sample:
        before = server.ask()
        answer = checked(ask(count), server, before, count)
        seconds = answer["seconds"]
        return Sample(answer["p50_us"], count / seconds, count, seconds, {"p99_us": answer["p99_us"]})

    return measure


def spinning(measure: Measure, server: Child) -> Measure:
    """The same, and the server must have met most requests while it spun."""

    def checked_measure(count: int) -> Sample:
        before = server.ask()["spin_hits"]
        sample = measure(count)
        hits = server.ask()["spin_hits"] - before
        if hits < count / 2:
            raise PeerError(f"{server.name}: {hits} of {count} requests met a spin")
        return sample

    return checked_measure


def green_client(plan: Plan, server: Child, role: int, **environment: str) -> Child:
    """Ours."""
    return Child.python("green_client.py", server.port, plan.certificate[0], role=role, **environment)


def single(child: Child) -> Callable[[int], dict[str, Any]]:
    """One request after another."""
    return lambda count: child.ask(how="single", count=count)


def curl_client(plan: Plan, server: Child, role: int) -> Child:
    return Child.python("curl_client.py", server.port, plan.certificate[0], role=role)


@rows("b1", "b2")
def client_cost(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(limit.server(plan.certificate, OTHER, body=len(SMALL)))
        client = stack.enter_context(green_client(plan, server, MEASURED))
        differing, same, theirs = plan.measure(
            Contestant("quicgreen", client_cpu(client, server, how="differing"), 3000),
            Contestant("quicgreen", client_cpu(client, server, how="same"), 3000),
            Contestant("limit", limit_client_cpu(server), 10000),
        )
    title = "client, 100 greenlets on one Session,"
    load = "the row's own client, on limit's server"
    yield Row("b1", f"{title} path and one field differ", load, CPU, differing, theirs, Bound(4))
    yield Row("b2", f"{title} the call repeats", load, CPU, same, theirs, Bound(3))


def faster(a: Series, b: Series) -> Series:
    return a if a.rate > b.rate else b


@rows("b3", "b4", "b5")
def client_speed(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(limit.server(plan.certificate, OTHER, body=len(SMALL)))
        client = stack.enter_context(green_client(plan, server, MEASURED))
        curl = stack.enter_context(curl_client(plan, server, MEASURED))
        arguments = ("aioquic_client.py", server.port, plan.certificate[0])
        aioquic = stack.enter_context(Child.python(*arguments, role=MEASURED))
        name = f"curl_cffi {curl.about['version']}"
        ours, single, tasks, threads, asyncio = (
            series.by_rate()
            for series in plan.measure(
                Contestant("quicgreen", client_cpu(client, server, how="differing"), 3000),
                Contestant(f"{name}, one Session", client_cpu(curl, server, how="single"), 500),
                Contestant(f"{name}, AsyncSession, 100 tasks", client_cpu(curl, server, how="tasks"), 500),
                Contestant(f"{name}, 100 threads", client_cpu(curl, server, how="threads"), 500),
                Contestant(f"aioquic {aioquic.about['version']}", client_cpu(aioquic, server), 300),
            )
        )
    title = "client, 100 greenlets on one Session, against"
    load = "the row's own clients, on limit's server"
    ten, five = Bound(10, at_least=True), Bound(5, at_least=True)
    yield Row("b3", f"{title} curl one at a time", load, RATE, ours, single, ten)
    best = faster(tasks, threads)
    others = " and ".join(f"{s.name.rpartition(', ')[2]} {s.median:,.0f}/s" for s in (tasks, threads))
    yield Row("b4", f"{title} curl 100 at a time", load, RATE, ours, best, five, note=f"of curl's {others}")
    yield Row("b5", f"{title} aioquic 100 at a time", load, RATE, ours, asyncio)


@rows("d1", "d2")
def one_at_a_time(plan: Plan) -> Iterable[Row]:
    """Both processes count here: the server on one core, the client on the other."""
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, "small"))
        yardstick = stack.enter_context(limit.server(plan.certificate, MEASURED, body=len(SMALL)))
        client = stack.enter_context(green_client(plan, server, OTHER))
        curl = stack.enter_context(curl_client(plan, server, OTHER))

        def limit_asks(count: int) -> dict[str, Any]:
            return limit.run("get", yardstick.port, requests=count, latencies=True)

        ours, theirs, by_curl = plan.measure(
            Contestant("quicgreen", round_trip(single(client), server), 1000),
            Contestant("limit", round_trip(limit_asks, yardstick), 1000),
            Contestant(f"curl_cffi {curl.about['version']}", round_trip(single(curl), server), 500),
        )
    title = "one request at a time,"
    yield Row("d1", f"{title} our client and server", BOTH, ROUND_TRIP, ours, theirs, Bound(1.4))
    yield Row("d2", f"{title} our server", "our client and curl's", ROUND_TRIP, ours, by_curl, Bound(1))


@rows("d3")
def busy_poll(plan: Plan) -> Iterable[Row]:
    """QUICPRO_BUSY_POLL on both sides."""
    spin = {"QUICPRO_BUSY_POLL": "50"}
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, "small"))
        client = stack.enter_context(green_client(plan, server, OTHER))
        spinning_server = stack.enter_context(green_server(plan, "small", **spin))
        spinning_client = stack.enter_context(green_client(plan, spinning_server, OTHER, **spin))
        measure = spinning(round_trip(single(spinning_client), spinning_server), spinning_server)
        ours, without = plan.measure(
            Contestant("quicgreen, QUICPRO_BUSY_POLL=50", measure, 1000),
            Contestant("quicgreen without", round_trip(single(client), server), 1000),
        )
    title = "one request at a time, spin of 50 µs on both sides"
    yield Row("d3", title, BOTH, ROUND_TRIP, ours, without, Bound(1))
