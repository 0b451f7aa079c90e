"""Row e: what a handshake and an idle connection cost a server."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import limit
import trustme
from client_rows import green_client
from green_server import SMALL
from processes import OTHER, Child
from samples import Bound, Contestant, Plan, Row, Sample, Series, check, rows
from server_rows import green_server, limit_server, per_request

AT_ONCE = 10
"""Handshakes under way: enough that neither side waits for the other."""

HELD = 2000
"""Idle connections: 100 MB or so, far above what an allocator rounds."""

MEMORY_RUNS = 3
"""Memory hardly varies, and each run takes 2,000 handshakes."""

SETTLE_S = 0.5
"""For acknowledgements and tickets after the last handshake."""


@rows("e1")
def handshakes(plan: Plan) -> Iterable[Row]:
    with green_server(plan, "small") as server, limit_server(plan, len(SMALL)) as yardstick:
        ours, theirs = plan.measure(
            Contestant("quicgreen", per_request(server, mode="handshake", streams=AT_ONCE), 200),
            Contestant("limit", per_request(yardstick, mode="handshake", streams=AT_ONCE), 200),
        )
    title = "server, full handshake (P-256) with one GET"
    load = f"limit's client, {AT_ONCE} at once"
    yield Row("e1", title, load, "µs server CPU per handshake", ours, theirs, Bound(1.25))


def _resumed(plan: Plan) -> tuple[Series, Series]:
    """Both against one server, whose counter says which of them were resumed."""
    with green_server(plan, "small") as server, green_client(plan, server, OTHER) as client:
        client.ask(how="full", count=2 * AT_ONCE)  # two tickets each

        def measured(how: str) -> Callable[[int], Sample]:
            def measure(count: int) -> Sample:
                before = server.ask()
                cpu = server.cpu_ns()
                seconds = client.ask(how=how, count=count)["seconds"]
                cpu = server.cpu_ns() - cpu
                after = server.ask()
                done = after["resumed"] - before["resumed"]
                check(f"{server.name}: handshakes", after["connections"] - before["connections"], count)
                check(f"{server.name}: of these resumed", done, count if how == "resumed" else 0)
                return Sample(cpu / count / 1e3, count / seconds, count, seconds)

            return measure

        ours, full = plan.measure(
            Contestant("quicgreen, resumed", measured("resumed"), 200),
            Contestant("quicgreen, full", measured("full"), 200),
        )
    return ours, full


RESUMED = "server, resumed handshake with one GET, against a full one,"
RESUMED_LOAD = f"our client, {AT_ONCE} at once"
PER_HANDSHAKE = "µs server CPU per handshake"


@rows("e3")
def resumed(plan: Plan) -> Iterable[Row]:
    """For information: signing with P-256 costs less than the key exchange, which a resumed handshake has
    too (RFC 8446, section 2.2), here with ML-KEM."""
    yield Row("e3", f"{RESUMED} P-256", RESUMED_LOAD, PER_HANDSHAKE, *_resumed(plan))


@rows("e4")
def resumed_rsa(plan: Plan) -> Iterable[Row]:
    """With a certificate as many servers have them."""
    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        issued = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
        chain, key = Path(folder, "rsa.pem"), Path(folder, "rsa.key")
        # The client trusts what is in this file: so the authority's is there too.
        blobs = [*issued.cert_chain_pems, authority.cert_pem]
        chain.write_bytes(b"".join(blob.bytes() for blob in blobs))
        key.write_bytes(issued.private_key_pem.bytes())
        ours, full = _resumed(dataclasses.replace(plan, certificate=(str(chain), str(key))))
    yield Row("e4", f"{RESUMED} RSA-2048", RESUMED_LOAD, PER_HANDSHAKE, ours, full, Bound(0.75))


def held(server: Child) -> Sample:
    """Growth of resident memory per idle connection, in kB (1,000 bytes)."""
    limit.run("get", server.port, requests=1000, streams=10, connections=10)  # what is allocated once
    time.sleep(SETTLE_S)
    before, connections = server.rss_kb(), server.ask()["connections"]
    started = time.perf_counter()
    with limit.idle(server.port, HELD) as client:
        seconds = time.perf_counter() - started
        time.sleep(SETTLE_S)
        grown = server.rss_kb() - before
        check("limit client: connections", client.ask()["connections"], HELD)
        check(f"{server.name}: connections", server.ask()["connections"] - connections, HELD)
    return Sample(grown * 1.024 / HELD, HELD / seconds, HELD, seconds)


@rows("e2")
def memory(plan: Plan) -> Iterable[Row]:
    starters: dict[str, Callable[[], AbstractContextManager[Child]]] = {
        "quicgreen": lambda: green_server(plan, "small"),
        "limit": lambda: limit_server(plan, len(SMALL)),
    }
    samples: dict[str, list[Sample]] = {name: [] for name in starters}
    for _ in range(min(plan.runs, MEMORY_RUNS)):
        for name, start in starters.items():
            with start() as server:  # a fresh one: memory is kept for what comes next
                samples[name].append(held(server))
    ours, theirs = (Series(name, taken) for name, taken in samples.items())
    title = f"server, memory per idle connection, {HELD:,} held"
    yield Row("e2", title, "limit's client", "kB per connection", ours, theirs, absolute=60)
