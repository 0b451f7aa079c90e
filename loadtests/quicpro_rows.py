"""Rows h: what the documentation's functions cost beside `Session`, which does the same with fewer calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import limit
from client_rows import CPU, Measure, client_cpu
from green_server import SMALL
from processes import MEASURED, OTHER, Child
from samples import Bound, Contestant, Plan, Row, Sample, check, rows

MB_PER_SECOND = "MB per second"

GROWTH_MAX_KB = 8 * 1024
"""What an upload's memory may grow by: two windows of the engine, and some for what is measured with it."""


def quicpro_client(plan: Plan, server: Child) -> Child:
    return Child.python("quicpro_client.py", server.port, plan.certificate[0], role=MEASURED)


@rows("h1")
def functions(plan: Plan) -> Iterable[Row]:
    with ExitStack() as stack:
        server = stack.enter_context(limit.server(plan.certificate, OTHER, body=len(SMALL)))
        client = stack.enter_context(quicpro_client(plan, server))
        ours, session = plan.measure(
            Contestant("quicpro_*", client_cpu(client, server, how="functions"), 3000),
            Contestant("Session", client_cpu(client, server, how="session"), 3000),
        )
    title = "quicpro_* on one session that is kept, 100 greenlets, against `Session`"
    yield Row("h1", title, "the row's own client, on limit's server", CPU, ours, session, Bound(1.3))


def upload_rate(client: Child, server: Child, how: str, growth: list[int]) -> Measure:
    """Megabytes per second; and notes how much the client's memory grew."""

    def measure(count: int) -> Sample:
        before = server.ask()
        memory = client.rss_kb()
        answer = client.ask(how=how, count=count)
        growth.append(client.rss_kb() - memory)
        after = server.ask()
        check(f"{server.name}: bytes", after["body_received"] - before["body_received"], count * 1_000_000)
        check("client: body bytes", answer["body_received"], len(SMALL))
        seconds = answer["seconds"]
        return Sample(count / seconds, count / seconds, count, seconds)

    return measure


@rows("h2")
def upload(plan: Plan) -> Iterable[Row]:
    growth: list[int] = []
    with ExitStack() as stack:
        server = stack.enter_context(Child.python("green_server.py", "upload", *plan.certificate, role=OTHER))
        client = stack.enter_context(quicpro_client(plan, server))
        ours, plain = plan.measure(
            Contestant("quiche_h3_send_body_chunk", upload_rate(client, server, "chunks", growth), 100),
            Contestant("Session.post", upload_rate(client, server, "plain", []), 100),
        )
        upload_rate(client, server, "chunks", growth)(4000)  # several gigabytes in one
    check("client: no more memory", int(growth[-1] > GROWTH_MAX_KB), 0)
    title = "upload in chunks of 16 kB with a poll after each, against the plain upload's 64 kB"
    note = f"memory grew by {growth[-1]} kB over 4 GB"
    load = "the row's own client, on our server"
    yield Row("h2", title, load, MB_PER_SECOND, ours, plain, Bound(0.7, at_least=True), note=note)
