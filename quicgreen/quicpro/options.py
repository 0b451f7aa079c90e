"""The settings of `Config`: names, kinds, defaults, and which side they are for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import settings


class Option(NamedTuple):
    """`check` gives the value in its kind, or raises ValueError which says the kind. A default of None is the
    engine's, or none."""

    check: Callable[[Any], Any]
    default: Any
    side: str


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _number(lowest: int, highest: int, what: str) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"a number of {what}, {lowest} to {highest}")
        return value

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("text")
    return value


def _path(value: Any) -> str:
    try:
        path = os.fspath(value)
    except TypeError:
        raise ValueError("a path") from None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("a path")
    return path


def _protocols(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if (
        not isinstance(names, (list, tuple))
        or not names
        or not all(isinstance(name, str) and 0 < len(name.encode()) < 256 for name in names)
    ):
        raise ValueError("a list of application protocols (RFC 7301), such as ['h3']")
    return tuple(names)


def _methods(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(m, str) and m.isupper() for m in value):
        raise ValueError("a list of methods in capitals, such as ['GET']")
    return tuple(value)


def _factor(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1000:
        raise ValueError("a factor, above 0 and up to 1000")
    return float(value)


def _algorithm(value: Any) -> str:
    if value not in ("cubic", "reno", "bbr2_gcongestion"):
        raise ValueError("'cubic', 'reno' or 'bbr2_gcongestion'")
    return str(value)


_WINDOW_MAX = (1 << 30) - 1
"""Flow-control windows stay below 2^30: cext/src/config.c."""

_MS_MAX = 10**12
_ms = _number(1, _MS_MAX, "milliseconds")
_window = _number(0, _WINDOW_MAX, "bytes")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""What may be replayed without harm (RFC 9110, section 9.2.1), and so be sent early."""

OPTIONS: dict[str, Option] = {
    # Who one is, and whom one trusts
    "cert_file": Option(_path, None, "both"),
    "key_file": Option(_path, None, "both"),
    "ca_file": Option(_path, None, "both"),
    "ca_path": Option(_path, None, "client"),
    "verify_peer": Option(_flag, True, "both"),
    "server_name": Option(_text, None, "client"),
    "alpn": Option(_protocols, ("h3",), "both"),
    "keylog_file": Option(_path, None, "both"),
    "qlog_dir": Option(_path, None, "both"),
    # Sessions that are taken up again
    "session_cache": Option(_flag, True, "both"),
    "session_mode": Option(settings.mode_number, None, "both"),
    "shm_size": Option(settings.check("shm_size"), None, "client"),
    "shm_path": Option(settings.check("shm_path"), None, "client"),
    "early_data": Option(_flag, None, "both"),
    "early_data_methods": Option(_methods, SAFE_METHODS, "client"),
    "ticket_key_file": Option(_path, None, "server"),
    "ticket_key_rotate_s": Option(_number(1, 1 << 31, "seconds"), None, "server"),
    # Times
    "connect_timeout_ms": Option(_ms, 5_000, "client"),
    "handshake_timeout_ms": Option(_ms, None, "both"),
    "max_idle_ms": Option(_ms, None, "both"),
    "slow_handshake_ms": Option(_number(0, _MS_MAX, "milliseconds"), None, "client"),
    "read_timeout_ms": Option(_ms, 60_000, "both"),
    "write_timeout_ms": Option(_ms, None, "both"),
    # Limits
    "max_body_bytes": Option(_number(1, 1 << 40, "bytes"), 64 << 20, "both"),
    "max_connections": Option(_number(1, 1 << 31, "connections"), 100_000, "server"),
    "initial_max_data": Option(_window, None, "both"),
    "initial_max_stream_data_bidi_local": Option(_window, None, "both"),
    "initial_max_stream_data_bidi_remote": Option(_window, None, "both"),
    "initial_max_stream_data_uni": Option(_window, None, "both"),
    "initial_max_streams_bidi": Option(_number(0, 1 << 20, "streams"), None, "both"),
    "initial_max_streams_uni": Option(_number(3, 1 << 20, "streams"), None, "both"),
    "max_connection_window": Option(_window, None, "both"),
    "max_stream_window": Option(_window, None, "both"),
    "max_field_section_size": Option(_number(1 << 10, 256 << 10, "bytes"), None, "both"),
    "max_fields": Option(_number(1, 1 << 16, "fields"), None, "both"),
    "active_connection_id_limit": Option(_number(2, 8, "connection ids"), None, "both"),
    # How packets leave
    "busy_poll": Option(_number(0, 1_000_000, "microseconds"), None, "both"),
    "xdp": Option(_text, None, "both"),
    "cc_algorithm": Option(_algorithm, None, "both"),
    "pacing": Option(_flag, None, "both"),
    "hystart": Option(_flag, None, "both"),
    "initial_congestion_window_packets": Option(_number(1, 1000, "packets"), None, "both"),
    "send_capacity_factor": Option(_factor, None, "both"),
    "max_udp_payload_size": Option(_number(1200, 65_527, "bytes"), None, "both"),
    "discover_pmtu": Option(_flag, None, "both"),
    "disable_active_migration": Option(_flag, None, "both"),
    "grease": Option(_flag, None, "both"),
    # A server's
    "retry_token": Option(_flag, False, "server"),
    "extended_connect": Option(_flag, True, "server"),
}

UNAVAILABLE: dict[str, tuple[Any, str]] = {
    "enable_dgram": (False, "there are no datagrams (RFC 9221) in this version"),
    "qpack_max_table_capacity": (0, "heads are encoded without a dynamic table, which needs no memory"),
    "qpack_blocked_streams": (0, "no stream waits for a table: there is no dynamic one"),
    "max_recv_udp_payload_size": (None, "datagrams of any size are received"),
    "alt_svc_ma": (0, "no alt-svc field is sent: there is no TCP side for it here"),
}
"""Known elsewhere, and not to be had: the only value that means the same, and why."""

ALIASES = {
    "idle_timeout_ms": "max_idle_ms",
    "certfile": "cert_file",
    "keyfile": "key_file",
    "cafile": "ca_file",
    "verify": "verify_peer",
}
"""Old names, kept for programs that use them."""
