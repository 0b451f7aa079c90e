"""Qlog files of ours and of others: JSON-SEQ and NDJSON, record by record, and JSON in one piece.

The drafts changed names on the way (draft-ietf-quic-qlog-quic-events): "transport:packet_sent" became
"quic:packet_sent", "recovery:metrics_updated" "quic:recovery_metrics_updated". Here an event has one name,
without what stands before the colon.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..exceptions import QuicException, error

_RECORD = "\x1e"

_RENAMED = {
    "recovery_metrics_updated": "metrics_updated",
    "recovery_packet_lost": "packet_lost",
    "recovery_congestion_state_updated": "congestion_state_updated",
    "transport_parameters_set": "parameters_set",
}


class Event(NamedTuple):
    """Something that happened."""

    time_ms: float
    """Since the trace's beginning."""
    name: str
    """As above."""
    data: dict[str, Any]
    full_name: str
    """As it stands in the file."""


@dataclass
class Trace:
    """One connection as one side saw it.

    Attributes:
        side: "client", "server", "network" or "unknown".
        began_ms: when, in milliseconds of the Unix epoch; None: the file does not say.
        torn: records that were not whole JSON: what was being written as the program died.
    """

    title: str = ""
    description: str = ""
    side: str = "unknown"
    began_ms: float | None = None
    torn: int = 0
    events: list[Event] = field(default_factory=list)


def read(path: str | os.PathLike[str]) -> list[Trace]:
    """The traces of a file; JSON-SEQ has one.

    Raises:
        QuicClientException: with cause "qlog-format": it is no qlog, or one of a version before 0.3.
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    try:
        return list(_traces(text))
    except QuicException as e:
        raise error("qlog-format", f"{os.fspath(path)}: {e.args[0]}") from None
    except (LookupError, TypeError, ValueError, AttributeError) as e:
        raise error("qlog-format", f"{os.fspath(path)}: {type(e).__name__}: {e}") from None


def _traces(text: str) -> Iterator[Trace]:
    if text.startswith(_RECORD):
        yield _sequence(text[1:].split(_RECORD))
        return
    try:
        whole = json.loads(text)
    except ValueError:
        yield _sequence(text.splitlines())  # NDJSON, of drafts before JSON-SEQ
        return
    if "traces" in whole:
        for trace in whole["traces"]:
            if "events" in trace:  # else it is a note on a trace that could not be had
                yield _trace(whole, trace, trace["events"], 0)
    else:
        yield _trace(whole, whole["trace"], [], 0)


def _sequence(records: list[str]) -> Trace:
    head = json.loads(records[0])
    events, torn = [], 0
    for record in records[1:]:
        try:
            events.append(json.loads(record))
        except ValueError:
            torn += bool(record.strip())
    return _trace(head, head["trace"], events, torn)


def _trace(head: dict[str, Any], trace: dict[str, Any], events: Iterable[Any], torn: int) -> Trace:
    if "event_fields" in trace:
        raise ValueError("a version before 0.3, whose events are rows of a table")
    common = trace.get("common_fields") or {}
    reference = common.get("reference_time", 0)
    began = _epoch_ms(reference)
    found = Trace(
        str(trace.get("title") or head.get("title") or ""),
        str(trace.get("description") or head.get("description") or ""),
        str((trace.get("vantage_point") or {}).get("type", "unknown")),
        began,
        torn,
    )
    how = common.get("time_format", "absolute" if reference == 0 else "relative")
    last = 0.0
    for event in events:
        if not event:
            continue  # some close their list with an empty one
        time = float(event["time"])
        if how in ("delta", "relative_to_previous_event"):
            time = last = last + time
        elif how == "absolute":
            # Milliseconds of the epoch, or of any other clock.
            if not found.events:
                last = time
                found.began_ms = time if time > 1e12 else began
            time -= last
        name = str(event["name"])
        short = name.rpartition(":")[2]
        data = event.get("data") or {}
        found.events.append(Event(time, _RENAMED.get(short, short), data, name))
    return found


def _epoch_ms(reference: Any) -> float | None:
    """Of a reference time: a number, or what newer drafts have instead."""
    if isinstance(reference, dict):
        text = reference.get("wall_clock_time") or reference.get("epoch") or ""
        date, _, fraction = str(text).rstrip("Z").partition(".")
        try:
            whole = datetime.fromisoformat(f"{date}+00:00").timestamp()
        except ValueError:
            return None  # "unknown"
        return whole * 1e3 + (float(f"0.{fraction}") * 1e3 if fraction.isdecimal() else 0)
    value = float(reference)
    return value if value > 1e12 else None
