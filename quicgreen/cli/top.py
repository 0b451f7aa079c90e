"""`quicgreen top`: what each worker does, in a table that is drawn anew."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ..supervisor import control
from .ctl import add_pid, find
from .output import put

_CLEAR = "\x1b[H\x1b[2J"

Sample = dict[str, Any]


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_top)
    add_pid(parser)
    parser.add_argument(
        "-d", "--delay", type=float, default=1.0, metavar="SECONDS", help="between two tables (1)"
    )
    parser.add_argument("-n", "--number", type=int, default=0, metavar="N", help="so many tables, then end")


def _top(options: argparse.Namespace) -> int:
    pid = find(options.pid)
    clear = _CLEAR if sys.stdout.isatty() else ""
    delay = max(0.1, options.delay)
    before = sample(pid)
    drawn = 0
    while not options.number or drawn < options.number:
        time.sleep(delay)
        now = sample(pid)
        put(sys.stdout.buffer, f"{clear}{table(before, now)}\n".encode())
        before = now
        drawn += 1
    return 0


def sample(pid: int) -> Sample:
    """What the supervisor counts, and the system: CPU seconds and memory of each worker."""
    told = control.ask(pid, "stats")
    told["at"] = time.monotonic()
    for w in told["workers"]:
        w["cpu_s"], w["memory"] = _usage(w["pid"])
    return told


def _usage(pid: int) -> tuple[float, int]:
    """(CPU seconds, resident bytes); zeros for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def _rate(name: str) -> Callable[[Sample, Sample, float], str]:
    return lambda a, b, s: f"{(_count(b, name) - _count(a, name)) / s:,.0f}"


def _total(*names: str) -> Callable[[Sample, Sample, float], str]:
    return lambda a, b, s: f"{sum(_count(b, name) for name in names):,}"


def _count(w: Sample, name: str) -> int:
    return int(w.get("counters", {}).get(name, 0))


COLUMNS: list[tuple[str, Callable[[Sample, Sample, float], str]]] = [
    ("worker", lambda a, b, s: str(b["slot"])),
    ("pid", lambda a, b, s: str(b["pid"])),
    ("state", lambda a, b, s: str(b["state"])),
    ("gen", lambda a, b, s: str(b["generation"])),
    ("age s", lambda a, b, s: f"{b['age_s']:.0f}"),
    ("req/s", _rate("requests_received")),
    ("conns", _total("connections")),
    ("hs/s", _rate("handshakes_completed")),
    ("resumed/s", _rate("handshakes_resumed")),
    ("0-RTT/s", _rate("early_data_accepted")),
    ("handed/s", _rate("handed_over")),
    ("drops", _total("receive_overflows", "send_errors")),
    ("cpu %", lambda a, b, s: f"{(b['cpu_s'] - a.get('cpu_s', b['cpu_s'])) / s * 100:.0f}"),
    ("MB", lambda a, b, s: f"{b['memory'] / 1e6:.0f}"),
]
"""Rates are of the time between two samples; connections are those of now; drops are since the start."""


def table(before: Sample, now: Sample) -> str:
    """The lines of one picture."""
    seconds = max(1e-3, now["at"] - before["at"])
    earlier = {(w["slot"], w["pid"]): w for w in before["workers"]}
    rows = [[title for title, _ in COLUMNS]]
    for w in now["workers"]:
        # One that was not there before is shown from its own start.
        last = earlier.get((w["slot"], w["pid"]), {})
        rows.append([cell(last, w, seconds) for _, cell in COLUMNS])
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    title = (
        f"{now['app']} on {now['address']}  supervisor {now['pid']}  generation {now['generation']}"
        f"{'  reloading' if now['reloading'] else ''}"
    )
    return "\n".join([title, *lines])
