"""`make bench`: what quicgreen costs, beside the least that it could and beside its peers.

    python loadtests/bench.py [--only ROW[,ROW]] [--runs N] [--quick] [--reference PROGRAM]

A row is named by its key (a1) or its letter (a). The table goes to stdout, and with all samples to
loadtests/results/. The exit status is 1 when a row could not be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import agent_rows
import client_rows
import connection_rows
import go_rows
import machine
import primitives
import quicpro_rows
import reference
import server_rows
import table
import websocket_rows
import xdp_rows
from processes import HERE, PeerError
from samples import Group, Plan, Row, groups, say

from quicgreen.testing import self_signed

MODULES = [
    server_rows,
    client_rows,
    connection_rows,
    websocket_rows,
    primitives,
    quicpro_rows,
    go_rows,
    agent_rows,
    xdp_rows,
]
"""Imported for the rows that they register."""

SECONDS = 1.5
"""Of one measurement: long enough for its start not to count, short enough for five of each in the time that
one is willing to wait."""


def main() -> int:
    options = _options()
    chosen = _chosen(options.only)
    with tempfile.TemporaryDirectory() as folder:
        # P-256, for all servers.
        certificate = self_signed(folder, "localhost", "127.0.0.1")
        plan = Plan(options.runs, options.seconds, (certificate.certfile, certificate.keyfile))
        facts = machine.facts()
        machine.mention_noise()
        started = time.monotonic()
        compared = list(reference.compare(plan, options.reference)) if options.reference else []
        rows = [row for group in chosen for row in _measured(group, plan, options.only)]
        took = time.monotonic() - started
    rows.sort(key=lambda row: row.key)
    texts = [table.rows_table(rows, facts, options.runs, options.seconds)] if rows else []
    if compared:
        texts.append(table.reference_table(compared, Path(options.reference).name))
    text = "\n\n".join(texts) + "\n"
    print(text)
    path = _keep(
        text, {"facts": facts, "runs": options.runs, "rows": [r.as_dict() for r in [*rows, *compared]]}
    )
    failed = [row.key for row in rows if row.error]
    missed = [row.key for row in rows if row.reached is False and not row.error]
    say(f"bench: {took:.0f} s; {path}")
    say(f"bench: bounds missed: {', '.join(missed) or 'none'}; errors: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The benchmark: see the top of bench.py.")
    parser.add_argument("--only", default="", metavar="ROW[,ROW]", help="a1, or a for all that begin so")
    parser.add_argument("--runs", type=int, default=5, help="of each contestant (5)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of each run ({SECONDS})")
    parser.add_argument("--quick", action="store_true", help="two short runs: to see that all works")
    parser.add_argument(
        "--reference", metavar="PROGRAM", help="measure the limit beside this one (or its .c)"
    )
    options = parser.parse_args()
    if options.quick:
        options.runs, options.seconds = 2, 0.3
    options.only = [key.strip() for key in options.only.split(",") if key.strip()]
    return options


def _wanted(key: str, only: list[str]) -> bool:
    return not only or any(key.startswith(prefix) for prefix in only)


def _chosen(only: list[str]) -> list[Group]:
    """`--only none` leaves nothing but the reference."""
    if only == ["none"]:
        return []
    for prefix in only:
        if not any(key.startswith(prefix) for group in groups for key in group.keys):
            keys = " ".join(key for group in groups for key in group.keys)
            sys.exit(f"bench: there is no row {prefix!r}; there are {keys}")
    return [group for group in groups if any(_wanted(key, only) for key in group.keys)]


def _measured(group: Group, plan: Plan, only: list[str]) -> list[Row]:
    try:
        rows = list(group.measure(plan))
    except PeerError as e:
        rows = [Row(key, group.measure.__name__, "", "", error=str(e)) for key in group.keys]
    rows = [row for row in rows if _wanted(row.key, only)]
    for row in rows:
        say("  ".join(cell for cell in table.cells(row) if cell))
    return rows


def _keep(text: str, data: dict[str, Any]) -> Path:
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(text)
    return path.relative_to(HERE.parent)


if __name__ == "__main__":
    sys.exit(main())
