"""The numbers of a trace that change with time, to be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .reader import Trace

Points = list[tuple[float, float]]
"""(milliseconds, value), in order."""

_NAMES = {
    "congestion_window": "window",
    "cwnd": "window",  # aioquic
    "bytes_in_flight": "in_flight",
    "ssthresh": "threshold",
    "latest_rtt": "latest_rtt",
    "smoothed_rtt": "smoothed_rtt",
    "min_rtt": "min_rtt",
}
"""Metrics by their names, and which series they belong to."""

_NO_THRESHOLD = 1 << 62
"""Before the first loss the slow start threshold is as large as a number can be (RFC 9002, section 7.3.1)."""


@dataclass
class Series:
    """Sizes in bytes, round trips in milliseconds; `lost` counts packets at a time."""

    window: Points = field(default_factory=list)
    in_flight: Points = field(default_factory=list)
    threshold: Points = field(default_factory=list)
    latest_rtt: Points = field(default_factory=list)
    smoothed_rtt: Points = field(default_factory=list)
    min_rtt: Points = field(default_factory=list)
    lost: Points = field(default_factory=list)
    end_ms: float = 0.0
    """Of the last event."""


def series_of(trace: Trace) -> Series:
    """Of one trace. What was not measured yet is left out."""
    found = Series()
    sampled = False
    for event in trace.events:
        found.end_ms = max(found.end_ms, event.time_ms)
        if event.name == "metrics_updated":
            sampled = sampled or "latest_rtt" in event.data
            _add_metrics(found, event.time_ms, event.data, sampled)
        elif event.name == "packet_lost":
            found.lost.append((event.time_ms, 1.0))
    return found


def _add_metrics(found: Series, time: float, data: dict[str, Any], sampled: bool) -> None:
    for name, series in _NAMES.items():
        value = data.get(name)
        # Until a round trip was measured there is only a guess (RFC 9002, section 6.2.2).
        if value is None or (series.endswith("rtt") and not sampled):
            continue
        if series != "threshold" or float(value) < _NO_THRESHOLD:
            getattr(found, series).append((time, float(value)))
    lost = (data.get("cf_lost_packets") or {}).get("delta")
    if lost:
        found.lost.append((time, float(lost)))
