"""Rows i: as many at a time as a Go program has: quic-go's client and server beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import limit
import quicgo
from client_rows import CPU as CLIENT_CPU
from client_rows import client_cpu, green_client
from green_client import CONNECTIONS, GREENLETS
from green_server import SMALL
from processes import MEASURED, OTHER, Child
from samples import Bound, Contestant, Plan, Row, rows
from server_rows import CPU as SERVER_CPU
from server_rows import green_server, per_request

AT_ONCE = CONNECTIONS * GREENLETS
RATE = "requests per second"


def _go(child: Child) -> str:
    return f"quic-go {child.about['version']}"


@rows("i1", "i2")
def clients(plan: Plan) -> Iterable[Row]:
    """One core for each client, so Go runs on one, too."""
    with ExitStack() as stack:
        server = stack.enter_context(limit.server(plan.certificate, OTHER, body=len(SMALL)))
        client = stack.enter_context(green_client(plan, server, MEASURED))
        shape = {"connections": CONNECTIONS, "at_once": AT_ONCE}
        peer = stack.enter_context(quicgo.client(server.port, plan.certificate[0], MEASURED, **shape))
        ours, theirs = plan.measure(
            Contestant("quicgreen", client_cpu(client, server, how="many"), 3000),
            Contestant(_go(peer), client_cpu(peer, server), 3000),
        )
    title = f"client, {AT_ONCE:,} requests under way on {CONNECTIONS} connections, against quic-go,"
    load = "the row's own clients, on limit's server"
    yield Row("i1", f"{title} CPU", load, CLIENT_CPU, ours, theirs, Bound(1))
    at_least = Bound(1, at_least=True)
    yield Row("i2", f"{title} speed", load, RATE, ours.by_rate(), theirs.by_rate(), at_least)


@rows("i3")
def servers(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(green_server(plan, "small"))
        peer = stack.enter_context(quicgo.server(plan.certificate, MEASURED))
        load: dict[str, Any] = {"connections": CONNECTIONS, "streams": GREENLETS}
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_request(server, **load), 5000),
            Contestant(_go(peer), per_request(peer, **load), 5000),
        )
    title = f"server, small GET, {CONNECTIONS} x {GREENLETS}, against quic-go, one core each"
    yield Row("i3", title, "limit's client", SERVER_CPU, ours, theirs, Bound(1))
