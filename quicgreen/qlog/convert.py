"""Between the forms of a qlog: one JSON text, which qvis takes, and JSON-SEQ, which can be written live.

qvis, as published, knows version 0.3, in which events have the names of the first drafts
("transport:packet_sent") and times count from a number. Newer files say "quic:packet_sent".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .reader import Trace

_CATEGORIES = {
    "transport": (
        "packet_sent packet_received packet_dropped packet_buffered parameters_set parameters_restored "
        "stream_state_updated frames_processed packets_acked version_information alpn_information"
    ),
    "connectivity": (
        "server_listening connection_started connection_closed connection_id_updated spin_bit_updated "
        "connection_state_updated mtu_updated tuple_assigned migration_state_updated"
    ),
    "security": "key_updated key_discarded",
    "recovery": "metrics_updated congestion_state_updated packet_lost marked_for_retransmit",
    "http": "frame_created frame_parsed stream_type_set push_resolved",
}

_NAMES_03 = {name: f"{category}:{name}" for category, names in _CATEGORIES.items() for name in names.split()}
_NAMES_03 |= {
    "stream_data_moved": "transport:data_moved",
    "udp_datagrams_sent": "transport:datagrams_sent",
    "udp_datagrams_received": "transport:datagrams_received",
    "udp_datagram_dropped": "transport:datagram_dropped",
    "timer_updated": "recovery:loss_timer_updated",
    "recovery_parameters_set": "recovery:parameters_set",
}
"""Names of version 0.3, by ours."""


def contained(traces: list[Trace]) -> str:
    """One JSON text of version 0.3."""
    head = {"qlog_version": "0.3", "qlog_format": "JSON", "title": traces[0].title if traces else ""}
    body = [{**_about(t), "events": list(_events(t))} for t in traces]
    return json.dumps({**head, "traces": body}, separators=(",", ":")) + "\n"


def sequence(trace: Trace) -> Iterator[str]:
    """Records of JSON-SEQ (RFC 7464) of version 0.3, the head first."""
    head = {"qlog_version": "0.3", "qlog_format": "JSON-SEQ", "title": trace.title, "trace": _about(trace)}
    yield _record(head)
    for event in _events(trace):
        yield _record(event)


def _record(value: dict[str, Any]) -> str:
    return f"\x1e{json.dumps(value, separators=(',', ':'))}\n"


def _about(trace: Trace) -> dict[str, Any]:
    return {
        "title": trace.title,
        "description": trace.description,
        "vantage_point": {"name": trace.title or "unknown", "type": trace.side},
        "common_fields": {"time_format": "relative", "reference_time": trace.began_ms or 0},
    }


def _events(trace: Trace) -> Iterator[dict[str, Any]]:
    for event in trace.events:
        name = _NAMES_03.get(event.name, event.full_name)
        yield {"time": event.time_ms, "name": name, "data": _data_03(event.name, event.data)}


def _data_03(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Where the data has other names, too: who set parameters, and how long a frame is."""
    if name == "parameters_set" and "initiator" in data:
        return {**data, "owner": data["initiator"]}
    frames = data.get("frames")
    if not isinstance(frames, list):
        return data
    return {**data, "frames": [_frame_03(f) for f in frames]}


def _frame_03(frame: dict[str, Any]) -> dict[str, Any]:
    length = (frame.get("raw") or {}).get("payload_length")
    return frame if length is None or "length" in frame else {**frame, "length": length}
