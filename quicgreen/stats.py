"""Snapshots of counters."""

from __future__ import annotations

from typing import TypedDict


class ConnectionStats(TypedDict):
    """quiche's counters, by quiche's names, for a connection and its active path: a plain dict."""

    recv: int
    """Packets received."""
    sent: int
    """Packets sent."""
    lost: int
    """Packets declared lost."""
    retrans: int
    """Frames sent again."""
    sent_bytes: int
    recv_bytes: int
    acked_bytes: int
    lost_bytes: int
    stream_retrans_bytes: int
    paths_count: int
    reset_stream_count_local: int
    reset_stream_count_remote: int
    rtt: int
    """Smoothed round-trip time, nanoseconds (RFC 9002, section 5.3)."""
    min_rtt: int
    """Nanoseconds."""
    rttvar: int
    """Nanoseconds."""
    cwnd: int
    """Congestion window, bytes."""
    pmtu: int
    """Largest datagram that the path is known to carry, bytes."""
    delivery_rate: int
    """Estimated, bytes per second."""
