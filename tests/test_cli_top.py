"""`quicgreen top`: against a supervisor, and what its numbers are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gevent
from helpers.commands import complaint, run, run_process
from helpers.supervised import supervised

from quicgreen.cli import top


def test_a_table_of_workers(files: Path) -> None:
    with supervised(files, "-w", "2") as server:
        looking = gevent.spawn(run_process, "top", "-p", str(server.pid), "-d", "1", "-n", "2")
        while not looking.ready():
            server.get()
        result = looking.get()
    assert (result.returncode, result.stderr) == (0, "")
    title, heads, *rows = result.stdout.splitlines()
    assert title.startswith(f"app:handle on 127.0.0.1:{server.port}  supervisor {server.pid}")
    assert heads.split()[:4] == ["worker", "pid", "state", "gen"]
    assert sum(row.split()[2] == "serving" for row in rows if "supervisor" not in row) >= 4
    assert "\x1b" not in result.stdout


def test_nobody_there() -> None:
    assert "no supervisor answers" in complaint(run("top", "--pid", "/no/such/file"))


def row(**more: Any) -> dict[str, Any]:
    return {
        "slot": 3, "pid": 77, "state": "serving", "generation": 1, "age_s": 5.0, "cpu_s": 1.0, "memory": 50e6,
        "counters": {}, **more,
    }  # fmt: skip


def sample(at: float, *workers: dict[str, Any]) -> dict[str, Any]:
    return {
        "app": "a:b", "address": "x:1", "pid": 1, "generation": 1, "reloading": False, "at": at,
        "workers": list(workers),
    }  # fmt: skip


def test_rates_are_of_the_time_between() -> None:
    before = sample(10.0, row(counters={"requests_received": 100, "send_errors": 1}))
    now = sample(
        12.0,
        row(cpu_s=2.5, counters={"requests_received": 4100, "send_errors": 2, "receive_overflows": 3}),
        row(slot=4, pid=78, counters={"connections": 9}),
    )
    _, heads, first, second = top.table(before, now).splitlines()
    titles = [title for title, _ in top.COLUMNS]
    assert "  ".join(titles).split() == heads.split()
    found = dict(zip(titles, first.split(), strict=True))
    assert (found["req/s"], found["cpu %"], found["drops"], found["MB"]) == ("2,000", "75", "5", "50")
    assert dict(zip(titles, second.split(), strict=True))["conns"] == "9"
