"""What is counted, of a connection and of an engine."""

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


GAUGES = ("connections", "streams")
"""Of `COUNTERS` those that fall, too."""

COUNTERS = {
    "datagrams_received": "UDP datagrams received",
    "datagrams_sent": "UDP datagrams sent",
    "bytes_received": "UDP payload received",
    "bytes_sent": "UDP payload sent",
    "receive_calls": "recvmmsg calls",
    "send_calls": "sendmmsg calls",
    "receive_coalesced": "datagrams that came several in one buffer",
    "send_segmented": "datagrams that left several in one buffer (UDP_SEGMENT)",
    "send_blocked": "sends for which the socket's buffer was full",
    "send_errors": "datagrams lost to an error of the system",
    "receive_overflows": "datagrams that the system dropped because the socket's buffer was full",
    "xdp_received": "datagrams that came by AF_XDP",
    "xdp_sent": "datagrams that left by AF_XDP",
    "xdp_bad_frames": "frames that came by AF_XDP with a wrong length or checksum",
    "xdp_dropped": "frames that the system dropped because AF_XDP's rings were full",
    "xdp_invalid": "entries of AF_XDP's rings that the system did not understand",
    "icmp_errors": "ICMP errors",
    "datagrams_cut": "datagrams that were longer than the buffer for them, and lost their ends",
    "datagrams_junk": "datagrams that were not QUIC, or for nobody",
    "unknown_connection_ids": "packets for connections that are not known",
    "resets_sent": "stateless resets sent",
    "retries_sent": "Retry packets sent",
    "retry_tokens_refused": "Retry tokens that were wrong or too old",
    "versions_sent": "Version Negotiation packets sent",
    "connections_opened": "connections opened as a client",
    "connections_accepted": "connections accepted",
    "connections_refused": "connections refused because of a limit",
    "connections_closed": "connections that ended",
    "handshakes_completed": "handshakes that were completed",
    "handshakes_failed": "handshakes that failed",
    "handshakes_resumed": "handshakes that took up an earlier session",
    "early_data_accepted": "handshakes with early data that was taken",
    "early_data_refused": "handshakes with early data that was refused",
    "early_requests": "requests announced before the handshake was complete",
    "early_requests_held": "requests held until the handshake was complete",
    "requests_sent": "requests sent",
    "requests_received": "requests received",
    "responses_received": "responses received",
    "messages_malformed": "malformed messages (RFC 9114, section 4.1.2)",
    "frames_unknown": "HTTP/3 frames of unknown types, which were skipped; reserved ones not included",
    "streams_reset_local": "streams reset here",
    "streams_reset_remote": "streams reset by the peer",
    "keep_alives_sent": "keep-alives sent",
    "handed_over": "datagrams of other workers' connections, sent to these",
    "handed_over_lost": "of these, which the other worker did not take",
    "handed_in": "datagrams that other workers sent here",
    "connections_unlisted": "connections that found no room in the group's list: a crash does not tell them",
    "qlog_records_lost": "qlog records that found no room, or no file",
    "deadlines_passed": "deadlines that passed",
    "events": "events told",
    "ring_full": "drains that stopped because the event ring was full",
    "drains": "drains",
    "flushes": "flushes",
    "spins": "flushes followed by a spin",
    "spin_hits": "spins that met a datagram",
    "connections": "connections now",
    "streams": "streams now",
}
"""An engine's counters, by their names in `qg_counters`, and what they count."""
