"""Rows j: how many agents a machine holds, as locust's users: memory, and CPU while they think."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from processes import MEASURED, OTHER, Child
from samples import Plan, Row, Sample, Series, check, rows

AGENTS = int(os.environ.get("AGENTS", 0))
"""How many, where a number is given."""

THINK_S = 10.0
"""Between an agent's requests, for the CPU: as of one that reads an answer and decides. For memory they think
longer than it takes."""

RUNS = 2
"""Each takes as many handshakes as there are agents, a minute in all."""

HTTP1_MAX = 1000
"""Of locust's own users: each takes a megabyte."""

MAX_IDLE_MS = 600_000


def _is_quick(plan: Plan) -> bool:
    """Only to see that it works."""
    return plan.seconds < 1


def _think_s(plan: Plan) -> float:
    return 1.0 if _is_quick(plan) else THINK_S


def _server(plan: Plan) -> Child:
    arguments = ("green_server.py", "small", *plan.certificate, "--max-idle-ms", MAX_IDLE_MS)
    return Child.python(*arguments, role=OTHER)


def _tls_server(plan: Plan) -> Child:
    return Child.python("tls_server.py", *plan.certificate, role=OTHER)


WAYS: dict[str, tuple[str, Callable[[Plan], AbstractContextManager[Child]]]] = {
    "own": ("QuicUser, a connection each", _server),
    "shared": ("QuicUser, on shared connections", _server),
    "http1": (f"FastHttpUser (HTTP/1.1), at most {HTTP1_MAX:,}, a connection each", _tls_server),
}


def _measured(plan: Plan, how: str, count: int) -> dict[str, Sample]:
    """Memory per agent in kB (1,000 bytes), and ms of CPU a second for 1,000 of them: idle, and thinking."""
    think_s = _think_s(plan)
    name, start = WAYS[how]
    with (
        start(plan) as server,
        Child.python("agents_child.py", server.port, plan.certificate[0], how, role=MEASURED) as child,
    ):
        before, kb = server.ask(), child.rss_kb()
        spawned = child.ask(how="start", count=count, think_s=3600.0)
        check(f"{name}: first answers", spawned["requests"], count)
        grown = (child.rss_kb() - kb) * 1.024 / count
        met = server.ask()
        check(f"{server.name}: requests", met["requests"] - before["requests"], count)
        if how != "shared":
            check(f"{server.name}: connections", met["connections"] - before["connections"], count)
        found = {"memory": Sample(grown, count / spawned["seconds"], count, spawned["seconds"])}
        found["idle"] = _cpu(child, think_s, count)
        child.ask(how="stop")
        child.ask(how="start", count=count, think_s=think_s)
        found["thinking"] = _cpu(child, think_s, count)
        if not found["thinking"].more["requests"]:
            check(f"{name}: requests of agents that think", 0, 1)
        child.ask(how="stop")
    return found


def _cpu(child: Child, seconds: float, count: int) -> Sample:
    cpu = child.cpu_ns()
    answer = child.ask(how="wait", seconds=seconds)
    cpu = child.cpu_ns() - cpu
    check("agents", answer["users"], count)
    took, asked = answer["seconds"], answer["requests"]
    return Sample(cpu / 1e6 / took / count * 1000, asked / took, count, took, {"requests": asked})


@rows("j1", "j2", "j3", "j4")
def agents(plan: Plan) -> Iterable[Row]:
    count = AGENTS or (500 if _is_quick(plan) else 10_000)
    found: dict[str, list[dict[str, Sample]]] = {how: [] for how in WAYS}
    for _ in range(min(plan.runs, RUNS)):
        for how in WAYS:
            found[how].append(_measured(plan, how, min(count, HTTP1_MAX) if how == "http1" else count))

    def series(how: str, what: str) -> Series:
        return Series(WAYS[how][0], [samples[what] for samples in found[how]])

    held = f"locust, {count:,} agents in one process"
    load, cpu = "the row's own agents", "ms of CPU a second for 1,000"
    own = series("own", "memory")
    yield Row("j1", f"{held}, memory", load, "kB per agent", own, series("http1", "memory"))
    yield Row("j2", f"{held}, memory", load, "kB per agent", own, series("shared", "memory"))
    idle = series("own", "idle")
    yield Row("j3", f"{held}, idle", load, cpu, idle, series("http1", "idle"))
    thinking = f"{held}, a small GET every {_think_s(plan):g} s"
    yield Row("j4", thinking, load, cpu, series("own", "thinking"), series("http1", "thinking"))
