"""The rows as Markdown, to be pasted into the README."""

from __future__ import annotations

from collections.abc import Iterable

from samples import Row, Series

_HEADINGS = ["", "what", "load from", "unit", "quicgreen", "against", "ratio", "bound", "reached"]


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def series(s: Series | None) -> str:
    """Median, and the least and the most."""
    if s is None:
        return ""
    spread = f" ({number(min(s.values))}-{number(max(s.values))})" if len(s.values) > 1 else ""
    return number(s.median) + spread


def against(row: Row) -> str:
    if row.other is None:
        return ""
    return f"{series(row.other)} {row.other.name}" + (f"; {row.note}" if row.note else "")


def speed(row: Row) -> str:
    """The rate beside the cost, where the unit does not say it."""
    if row.ours is None or "second" in row.unit or row.unit == "ns":
        return ""
    return f"; {row.ours.rate:,.0f}/s"


def bound(row: Row) -> str:
    if row.absolute is not None:
        return f"≤ {row.absolute:g}"
    return str(row.bound) if row.bound is not None else ""


def cells(row: Row) -> list[str]:
    if row.error:
        return [row.key, row.title, row.load, row.unit, f"**error**: {row.error}", "", "", bound(row), "no"]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    reached = {True: "yes", False: "**no**", None: ""}[row.reached]
    ours = series(row.ours) + speed(row)
    return [row.key, row.title, row.load, row.unit, ours, against(row), ratio, bound(row), reached]


def markdown(headings: list[str], lines: Iterable[list[str]]) -> str:
    ruled = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def rows_table(rows: list[Row], facts: dict[str, str], runs: int, seconds: float) -> str:
    """All of it: the method, the machine, the rows."""
    about = "; ".join(f"{name} {value}" for name, value in facts.items())
    return (
        f"Median (least-most) of {runs} interleaved runs of about {seconds:g} s. CPU is user and system time "
        "of one process. Both sides on one machine over loopback, each on a core of its own; datagrams of "
        "1,350 bytes and no path MTU discovery (libcurl has no setting for either); field validation on. "
        "The limit is quiche's C interface with nothing above it (loadtests/limit.c).\n\n"
        f"{about}\n\n" + markdown(_HEADINGS, (cells(row) for row in rows))
    )


def reference_table(rows: list[Row], name: str) -> str:
    """The limit beside another program that does the same."""
    lines = []
    for row in rows:
        assert row.ratio is not None
        difference = f"{100 * (row.ratio - 1):+.1f} %"
        lines.append([row.title, row.unit, series(row.ours), series(row.other), difference])
    return markdown(["what", "unit", "limit.c", name, "difference"], lines)
