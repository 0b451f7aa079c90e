"""A connection's story in lines: what happened when, with sizes; not each packet, but what it brought."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from ..exceptions import code_name
from .reader import Event, Trace

_PARAMETERS = (
    "max_idle_timeout", "max_udp_payload_size", "initial_max_data", "initial_max_stream_data_bidi_local",
    "initial_max_stream_data_bidi_remote", "initial_max_streams_bidi", "initial_max_streams_uni",
)  # fmt: skip
"""Transport parameters that explain what a connection does."""

_ARROWS = {"packet_sent": ">", "packet_received": "<"}


def size(count: float) -> str:
    """Bytes, as a person reads them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000 or unit == "MB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def length_of(data: dict[str, Any]) -> int:
    """Bytes of a packet, or of a frame's payload."""
    raw = data.get("raw") or {}
    for value in (raw.get("payload_length"), raw.get("length"), data.get("length")):
        if value is not None:
            return int(value)
    return 0


def packet_size(data: dict[str, Any]) -> int:
    raw, header = data.get("raw") or {}, data.get("header") or {}
    return int(raw.get("length") or header.get("packet_size") or 0)


class _Side:
    """What one side sent on a stream."""

    __slots__ = ("bytes", "ended")

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = False


class Story:
    """The lines of one trace.

    Args:
        packets: each packet too.
    """

    def __init__(self, trace: Trace, *, packets: bool = False) -> None:
        self._trace = trace
        self._packets = packets
        self._streams: dict[tuple[int, str], _Side] = {}
        self._counts = {"packet_sent": [0, 0], "packet_received": [0, 0]}
        self._lost = 0
        self._pto = 0
        self._seen_types: set[tuple[str, str]] = set()
        self._last_ms = 0.0  # when something came
        self._closing = False  # one side said so
        self._metrics: dict[str, Any] = {}

    def lines(self) -> Iterator[str]:
        """Each line as it is known; the last one sums up."""
        trace = self._trace
        about = [part for part in (trace.title, trace.description) if part]
        if trace.side not in trace.description:
            about.append(trace.side)
        if trace.began_ms is not None:
            about.append(
                datetime.fromtimestamp(trace.began_ms / 1e3, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
            )
        yield ", ".join(about)
        for event in trace.events:
            tell = _EVENTS.get(event.name)
            if tell is not None:
                for line in tell(self, event):
                    yield f"{event.time_ms:12.3f} ms  {line}"
        yield self._sum()

    def _sum(self) -> str:
        (sent, sent_bytes), (got, got_bytes) = self._counts["packet_sent"], self._counts["packet_received"]
        text = (
            f"{sent} packets sent ({size(sent_bytes)}), {got} received ({size(got_bytes)}), {self._lost} lost"
        )
        if "smoothed_rtt" in self._metrics:
            text += f"; round trip {self._metrics['smoothed_rtt']:.3f} ms"
        if "congestion_window" in self._metrics:
            text += f", window {size(self._metrics['congestion_window'])}"
        return text + (f"; {self._trace.torn} records were torn" if self._trace.torn else "")

    # ---------------------------------------------------------------- packets

    def _packet(self, event: Event) -> Iterator[str]:
        data, arrow = event.data, _ARROWS[event.name]
        if arrow == "<":
            self._last_ms = event.time_ms
        header = data.get("header") or {}
        kind = str(header.get("packet_type", data.get("packet_type", "?")))
        length = packet_size(data)
        count = self._counts[event.name]
        count[0] += 1
        count[1] += length
        frames = data.get("frames") or []
        first = (kind, arrow) not in self._seen_types
        self._seen_types.add((kind, arrow))
        if self._packets or kind != "1RTT" or first:
            number = header.get("packet_number")
            what = ", ".join(_frame(f) for f in frames)
            yield f"{arrow} {kind}{'' if number is None else f' {number}'}, {size(length)}" + (
                f": {what}" if what else ""
            )
        for frame in frames:
            tell = _FRAMES.get(frame.get("frame_type"))
            if tell is not None:
                yield from tell(self, arrow, frame)

    # ---------------------------------------------------------------- frames

    def _stream(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        stream = int(frame["stream_id"])
        side = self._streams.get((stream, arrow))
        if side is None:
            new = (stream, "<" if arrow == ">" else ">") not in self._streams
            side = self._streams[(stream, arrow)] = _Side()
            if new:
                by = "server" if stream & 1 else "client"
                kind = "one-way stream" if stream & 2 else "stream"
                yield f"{arrow} {kind} {stream} is opened by the {by}"
        side.bytes = max(side.bytes, int(frame.get("offset", 0)) + length_of(frame))
        if frame.get("fin") and not side.ended:
            side.ended = True
            yield f"{arrow} stream {stream} ends after {size(side.bytes)}"

    def _reset_stream(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        side = self._streams.setdefault((int(frame["stream_id"]), arrow), _Side())
        if not side.ended:
            side.ended = True
            stream, code = frame["stream_id"], _code(frame, True)
            yield f"{arrow} stream {stream} is reset after {size(side.bytes)}: {code}"

    def _stop_sending(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} stream {frame['stream_id']}: send no more: {_code(frame, True)}"

    def _handshake_done(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} the handshake is confirmed"

    def _data_blocked(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} blocked by the connection's limit of {size(frame.get('limit', 0))}"

    def _stream_data_blocked(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        stream, limit = frame.get("stream_id"), frame.get("limit", 0)
        yield f"{arrow} stream {stream} is blocked by its limit of {size(limit)}"

    def _streams_blocked(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} blocked by the limit of {frame.get('limit')} streams"

    def _path_challenge(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} a path is tried"

    def _new_token(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        yield f"{arrow} a token for the next connection"

    def _close(self, arrow: str, frame: dict[str, Any]) -> Iterator[str]:
        self._closing = True
        application = frame.get("error_space") == "application"
        reason = f" ({frame['reason']})" if frame.get("reason") else ""
        yield f"{arrow} the connection is closed: {_code(frame, application)}{reason}"

    # ---------------------------------------------------------------- other events

    def _parameters_set(self, event: Event) -> Iterator[str]:
        data = event.data
        owner = data.get("initiator") or data.get("owner") or "?"
        known = [f"{name} {data[name]}" for name in _PARAMETERS if name in data]
        if known:
            yield f"{owner} parameters: {', '.join(known)}"

    def _metrics_updated(self, event: Event) -> Iterator[str]:
        data = event.data
        self._metrics.update(data)
        lost = data.get("cf_lost_packets") or {}
        if lost.get("delta"):
            self._lost = int(lost["total"])
            yield f"! packets lost: {lost['delta']}, {self._lost} in all"
        probes = int(data.get("pto_count", self._pto))
        if probes > self._pto:
            yield f"! nothing was acknowledged for long: probe {probes}"
        self._pto = probes

    def _packet_lost(self, event: Event) -> Iterator[str]:
        header = event.data.get("header") or event.data
        self._lost += 1
        kind = header.get("packet_type") or header.get("type") or ""
        yield f"! packet {kind} {header.get('packet_number', '?')} lost, {self._lost} in all"

    def _congestion_state_updated(self, event: Event) -> Iterator[str]:
        old = event.data.get("old")
        yield f"congestion control: {f'{old} to ' if old else ''}{event.data.get('new')}"

    def _mtu_updated(self, event: Event) -> Iterator[str]:
        yield f"the path carries datagrams of {event.data.get('new')} bytes"

    def _http(self, event: Event) -> Iterator[str]:
        arrow = ">" if event.name == "frame_created" else "<"
        frame = event.data.get("frame") or {}
        fields = {f.get("name"): f.get("value") for f in frame.get("headers") or []}
        stream = event.data.get("stream_id")
        if ":method" in fields:
            yield f"{arrow} stream {stream}: {fields[':method']} {fields.get(':path', '')}"
        elif ":status" in fields:
            yield f"{arrow} stream {stream}: status {fields[':status']}"

    def _connection_closed(self, event: Event) -> Iterator[str]:
        data = event.data
        why = data.get("reason") or data.get("trigger") or ""
        if not why and not self._closing:  # quiche 0.30 says no more when it was the idle timeout
            why = f"nothing came for {event.time_ms - self._last_ms:.0f} ms"
        by = data.get("initiator") or data.get("owner")
        yield "the connection is over" + (f", by {by}" if by else "") + (f": {why}" if why else "")


_EVENTS: dict[str, Callable[[Story, Event], Iterator[str]]] = {
    "packet_sent": Story._packet,
    "packet_received": Story._packet,
    "parameters_set": Story._parameters_set,
    "metrics_updated": Story._metrics_updated,
    "packet_lost": Story._packet_lost,
    "congestion_state_updated": Story._congestion_state_updated,
    "mtu_updated": Story._mtu_updated,
    "frame_created": Story._http,
    "frame_parsed": Story._http,
    "connection_closed": Story._connection_closed,
}

_FRAMES: dict[Any, Callable[[Story, str, dict[str, Any]], Iterator[str]]] = {
    "stream": Story._stream,
    "reset_stream": Story._reset_stream,
    "stop_sending": Story._stop_sending,
    "handshake_done": Story._handshake_done,
    "data_blocked": Story._data_blocked,
    "stream_data_blocked": Story._stream_data_blocked,
    "streams_blocked": Story._streams_blocked,
    "path_challenge": Story._path_challenge,
    "new_token": Story._new_token,
    "connection_close": Story._close,
}


def _code(frame: dict[str, Any], application: bool) -> str:
    code = frame.get("error_code")
    if not isinstance(code, int):
        code = frame.get("raw_error_code")
    return code_name(code, application) if isinstance(code, int) else str(frame.get("error", "?"))


def _frame(frame: dict[str, Any]) -> str:
    """One frame in few words."""
    kind = str(frame.get("frame_type", "?"))
    if kind == "ack":
        ranges = frame.get("acked_ranges") or []
        shown = " ".join(f"{r[0]}-{r[-1]}" if r[0] != r[-1] else str(r[0]) for r in ranges[-3:])
        return f"ack {'... ' if len(ranges) > 3 else ''}{shown}"
    text = kind
    if "stream_id" in frame:
        text += f" {frame['stream_id']}"
    if "offset" in frame:
        text += f" {frame['offset']}+{length_of(frame)}"
    return text + (" fin" if frame.get("fin") else "")
