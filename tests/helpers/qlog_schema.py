"""A strict reader of qlog: what draft-ietf-quic-qlog-main-schema-13 and draft-ietf-quic-qlog-quic-events-12
allow in JSON-SEQ (RFC 7464), and nothing else. An unknown event, field, value or type is an error.

Where quiche extends the drafts, which they allow, it stands here with a comment.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

Check = Callable[[Any, str], None]


class SchemaError(AssertionError):
    pass


def fail(where: str, what: Any) -> None:
    raise SchemaError(f"{where}: {what!r}")


def uint(bits: int = 64) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not int or not 0 <= value < 1 << bits:
            fail(where, value)

    return check


def number(value: Any, where: str) -> None:
    if type(value) not in (int, float) or value < 0:
        fail(where, value)


def flag(value: Any, where: str) -> None:
    if type(value) is not bool:
        fail(where, value)


def text(value: Any, where: str) -> None:
    if type(value) is not str:
        fail(where, value)


def matching(pattern: str) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not str or not re.fullmatch(pattern, value):
            fail(where, value)

    return check


def one_of(*values: Any) -> Check:
    def check(value: Any, where: str) -> None:
        if value not in values:
            fail(where, value)

    return check


def many(check: Check, least: int = 0, most: int | None = None) -> Check:
    def check_all(value: Any, where: str) -> None:
        if type(value) is not list or len(value) < least or (most is not None and len(value) > most):
            fail(where, value)
        for number, item in enumerate(value):
            check(item, f"{where}[{number}]")

    return check_all


def record(**fields: Check) -> Check:
    """Names that end in _ may be missing."""
    needed = {name for name in fields if not name.endswith("_")}
    known = {name.removesuffix("_"): check for name, check in fields.items()}

    def check_record(value: Any, where: str) -> None:
        if type(value) is not dict or not needed <= value.keys() <= known.keys():
            fail(where, value)
        for name, item in value.items():
            known[name](item, f"{where}.{name}")

    return check_record


def wall_clock(value: Any, where: str) -> None:
    text(value, where)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value):
        fail(where, value)
    datetime.fromisoformat(value[:19])


hexadecimal = matching("([0-9a-f]{2})*")
token = matching("[0-9a-f]{32}")
raw = record(length_=uint(), payload_length_=uint(), data_=hexadecimal)
side = one_of("local", "remote")
stream_type = one_of("unidirectional", "bidirectional")

HEAD = record(
    file_schema=one_of("urn:ietf:params:qlog:file:sequential"),
    # The drafts say "application/qlog+json-seq" since -10; qvis and older ones "JSON-SEQ".
    serialization_format=one_of("JSON-SEQ", "application/qlog+json-seq"),
    title_=text,
    description_=text,
    trace=record(
        title_=text,
        description_=text,
        vantage_point_=record(
            name_=text,
            type=one_of("client", "server", "network", "unknown"),
            flow_=one_of("client", "server", "unknown"),
        ),
        common_fields_=record(
            reference_time_=record(
                clock_type=one_of("system", "monotonic"),
                epoch=one_of("unknown"),
                wall_clock_time_=wall_clock,
            )
        ),
        event_schemas=many(matching(r"urn:ietf:params:qlog:events:[\w#-]+"), 1),
    ),
)

FRAMES = {
    "padding": record(frame_type=text, raw_=raw),
    "ping": record(frame_type=text, raw_=raw),
    "ack": record(
        frame_type=text,
        ack_delay_=number,
        acked_ranges_=many(many(uint(), 1, 2), 1),
        ect0_=uint(),
        ect1_=uint(),
        ce_=uint(),
        raw_=raw,
    ),
    "reset_stream": record(
        frame_type=text,
        stream_id=uint(),
        error=one_of("unknown"),
        error_code_=uint(),
        final_size=uint(),
        raw_=raw,
    ),
    "stop_sending": record(
        frame_type=text, stream_id=uint(), error=one_of("unknown"), error_code_=uint(), raw_=raw
    ),
    "crypto": record(frame_type=text, offset=uint(), raw=raw),
    "new_token": record(frame_type=text, token=record(type_=text, details_=record(), raw_=raw), raw_=raw),
    "stream": record(frame_type=text, stream_id=uint(), offset_=uint(), fin_=flag, raw_=raw),
    "max_data": record(frame_type=text, maximum=uint(), raw_=raw),
    "max_stream_data": record(frame_type=text, stream_id=uint(), maximum=uint(), raw_=raw),
    "max_streams": record(frame_type=text, stream_type=stream_type, maximum=uint(), raw_=raw),
    "data_blocked": record(frame_type=text, limit=uint(), raw_=raw),
    "stream_data_blocked": record(frame_type=text, stream_id=uint(), limit=uint(), raw_=raw),
    "streams_blocked": record(frame_type=text, stream_type=stream_type, limit=uint(), raw_=raw),
    "new_connection_id": record(
        frame_type=text,
        sequence_number=uint(),
        retire_prior_to=uint(),
        connection_id_length_=uint(8),
        connection_id=hexadecimal,
        stateless_reset_token_=token,
        raw_=raw,
    ),
    "retire_connection_id": record(frame_type=text, sequence_number=uint(), raw_=raw),
    "path_challenge": record(frame_type=text, data_=hexadecimal, raw_=raw),
    "path_response": record(frame_type=text, data_=hexadecimal, raw_=raw),
    "connection_close": record(
        frame_type=text,
        error_space_=one_of("transport", "application"),
        error_=matching("[a-z_]+(0x1[0-9a-f]{2})?"),
        error_code_=uint(),
        reason_=text,
        reason_bytes_=hexadecimal,
        raw_=raw,
    ),
    "handshake_done": record(frame_type=text, raw_=raw),
    "datagram": record(frame_type=text, raw_=raw),
}


def frame(value: Any, where: str) -> None:
    kind = value.get("frame_type") if type(value) is dict else None
    if kind not in FRAMES:
        fail(where, value)
    FRAMES[kind](value, where)


_HEADER = record(
    packet_type=one_of("initial", "handshake", "0RTT", "1RTT", "retry", "version_negotiation"),
    packet_number_=uint(),
    length_=uint(16),
    token_=record(type_=text, details_=record(), raw_=raw),
    version_=matching("[0-9a-f]+"),  # quiche: "1", which is not whole octets
    scil_=uint(8),
    dcil_=uint(8),
    scid_=hexadecimal,
    dcid_=hexadecimal,
)


def header(value: Any, where: str) -> None:
    _HEADER(value, where)
    for length, name in (("scil", "scid"), ("dcil", "dcid")):
        if length in value and len(value.get(name, "")) != 2 * value[length]:
            fail(where, value)


location = one_of("application", "transport", "network", "dropped")  # "dropped": quiche's

_PARAMETERS = [
    "max_idle_timeout", "max_udp_payload_size", "ack_delay_exponent", "max_ack_delay",
    "active_connection_id_limit", "initial_max_data", "initial_max_stream_data_bidi_local",
    "initial_max_stream_data_bidi_remote", "initial_max_stream_data_uni", "initial_max_streams_bidi",
    "initial_max_streams_uni", "max_datagram_frame_size",
]  # fmt: skip

total = record(total=uint(), delta=uint())

EVENTS = {
    "quic:parameters_set": record(
        initiator_=side,
        resumption_allowed_=flag,
        early_data_enabled_=flag,
        tls_cipher_=text,
        original_destination_connection_id_=hexadecimal,
        initial_source_connection_id_=hexadecimal,
        retry_source_connection_id_=hexadecimal,
        stateless_reset_token_=token,
        disable_active_migration_=flag,
        grease_quic_bit_=flag,
        unknown_parameters_=many(record(id=uint(), value_=hexadecimal)),
        **{f"{name}_": uint() for name in _PARAMETERS},
    ),
    "quic:packet_sent": record(
        header=header,
        frames_=many(frame),
        raw_=raw,
        is_mtu_probe_packet_=flag,
        send_at_time_=number,  # quiche's: when its pacing would let it leave
    ),
    "quic:packet_received": record(header=header, frames_=many(frame), raw_=raw),
    "quic:recovery_metrics_updated": record(
        min_rtt_=number,
        smoothed_rtt_=number,
        latest_rtt_=number,
        rtt_variance_=number,
        pto_count_=uint(16),
        congestion_window_=uint(),
        bytes_in_flight_=uint(),
        ssthresh_=uint(),
        packets_in_flight_=uint(),
        pacing_rate_=uint(),
        # quiche's own.
        cf_app_limited_=flag,
        cf_delivery_rate_=uint(),
        cf_send_rate_=uint(),
        cf_ack_rate_=uint(),
        cf_lost_packets_=total,
        cf_lost_bytes_=total,
    ),
    "quic:congestion_state_updated": record(old_=text, new=text, trigger_=text),
    "quic:stream_data_moved": record(
        stream_id_=uint(),
        offset_=uint(),
        from_=location,
        to_=location,
        additional_info_=one_of("fin_set", "stream_reset"),
        raw_=raw,
    ),
    "quic:mtu_updated": record(old_=uint(32), new=uint(32), done_=flag),
    "quic:connection_closed": record(
        initiator_=side,
        connection_error_=matching("[a-z_]+(0x1[0-9a-f]{2})?"),
        application_error_=one_of("unknown"),
        error_code_=uint(),
        internal_code_=uint(),
        reason_=text,
        trigger_=one_of(
            # The last two are of earlier drafts.
            "idle_timeout", "application", "error", "version_mismatch", "stateless_reset", "aborted",
            "unspecified", "clean", "handshake_timeout",
        ),
    ),
}  # fmt: skip

_EVENT = record(time=number, name=one_of(*EVENTS), data=lambda value, where: None)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SchemaError(f"a name twice: {[name for name, _ in pairs]}")
    return found


def validate(file: Path) -> Counter[str]:
    """How often each event is there, if all of the file is as it should be."""
    content = file.read_bytes().decode("utf-8", "strict")
    if not content.startswith("\x1e") or not content.endswith("\n"):
        fail(file.name, "not whole records")
    records = content[1:].split("\x1e")
    if not all(r.endswith("}\n") for r in records):
        fail(file.name, "not whole records")
    head, *events = (json.loads(r, object_pairs_hook=_once) for r in records)
    HEAD(head, "head")
    found: Counter[str] = Counter()
    last = 0.0
    for number, event in enumerate(events, 1):
        where = f"{file.name} record {number}"
        _EVENT(event, where)
        EVENTS[event["name"]](event["data"], f"{where} {event['name']}")
        if event["time"] < last:
            fail(where, "goes back in time")
        last = event["time"]
        found[event["name"]] += 1
    return found
