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
    spurious_lost: int
    """Of these, packets that were acknowledged after all."""
    retrans: int
    """Frames sent again."""
    sent_bytes: int
    recv_bytes: int
    acked_bytes: int
    lost_bytes: int
    stream_retrans_bytes: int
    paths_count: int
    reset_stream_count_local: int
    stopped_stream_count_local: int
    reset_stream_count_remote: int
    stopped_stream_count_remote: int
    data_blocked_sent_count: int
    """How often the peer's limit for the connection held us up (RFC 9000, section 19.12)."""
    stream_data_blocked_sent_count: int
    """How often its limit for a stream did."""
    data_blocked_recv_count: int
    stream_data_blocked_recv_count: int
    path_challenge_rx_count: int
    total_pto_count: int
    """Probe timeouts of the path (RFC 9002, section 6.2)."""
    rtt: int
    """Smoothed round-trip time, nanoseconds (RFC 9002, section 5.3)."""
    min_rtt: int
    """Nanoseconds."""
    max_rtt: int
    """Nanoseconds."""
    rttvar: int
    """Nanoseconds."""
    cwnd: int
    """Congestion window, bytes."""
    pmtu: int
    """Largest datagram that the path is known to carry, bytes."""
    delivery_rate: int
    """Estimated, bytes per second."""
    max_bandwidth: int
    """The largest estimate, bytes per second."""
