"""`quicgreen ctl`: ask a supervisor how it is, or to do something."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from ..exceptions import error
from ..supervisor import control, pidfile
from .output import tell

_ASK_S = 0.05
"""How often a reload is looked at."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_ctl)
    parser.add_argument(
        "what",
        choices=["status", "stats", "reload", "ttin", "ttou"],
        help="status: who serves; stats: the same with all counters, as JSON; reload: as HUP does, and wait "
        "until the new workers serve; ttin, ttou: one worker more, or less",
    )
    add_pid(parser)
    parser.add_argument("--json", action="store_true", help="status as JSON too")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long a reload may take"
    )


def add_pid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--pid", metavar="FILE", required=True, help="the supervisor's pid file, or its pid"
    )


def _ctl(options: argparse.Namespace) -> int:
    pid = find(options.pid)
    if options.what == "reload":
        _reload(pid, options.timeout)
    elif options.what in ("ttin", "ttou"):
        tell(f"{control.ask(pid, options.what)['workers']} workers")
    else:
        told = control.ask(pid, options.what)
        if options.json or options.what == "stats":
            tell(json.dumps(told, indent=2))
        else:
            _show(told)
    return 0


def find(name: str) -> int:
    """The supervisor's process."""
    pid = int(name) if name.isdecimal() else pidfile.read(name)
    if pid is None:
        raise error("control", f"{name} names no process")
    return pid


def _reload(pid: int, timeout_s: float) -> None:
    before = control.ask(pid, "reload")
    deadline = time.monotonic() + timeout_s
    while (now := control.ask(pid, "status"))["reloading"]:
        if time.monotonic() > deadline:
            raise error("supervisor", f"the reload is not done after {timeout_s:g} s; it goes on")
        time.sleep(_ASK_S)
    if now["reload_error"]:
        raise error("supervisor", f"not all was reloaded: {now['reload_error']}")
    assert now["reloads"] >= before["reloads"]
    tell(f"generation {now['generation']} serves")


def _show(told: dict[str, Any]) -> None:
    steered = {"bpf": "by the kernel", "handover": "from worker to worker"}[told["steering"]]
    tell(
        f"{told['app']} on {told['address']}: supervisor {told['pid']}, {told['workers_wanted']} workers, "
        f"generation {told['generation']}, {told['reloads']} reloads, packets are steered {steered}"
    )
    if told["reload_error"]:
        tell(f"the last reload: {told['reload_error']}")
    for w in told["workers"]:
        beat = "no sign yet" if w["heartbeat_age_s"] is None else f"sign {w['heartbeat_age_s']:.1f} s ago"
        tell(
            f"worker {w['slot']}: pid {w['pid']}, {w['state']}, generation {w['generation']}, "
            f"{w['age_s']:.0f} s old, {beat}"
        )
