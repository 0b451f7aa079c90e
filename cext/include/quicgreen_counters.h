/* quicgreen_counters.h: what an engine counts.
 *
 * Rules as in quicgreen.h, which includes this. */
#ifndef QUICGREEN_COUNTERS_H
#define QUICGREEN_COUNTERS_H
#include <stdint.h>
/* ---- cdef ---- */

/* Only ever added to, by the engine alone. The caller may place it in shared memory. */
typedef struct qg_counters {
    uint64_t datagrams_received;
    uint64_t datagrams_sent;
    uint64_t bytes_received;
    uint64_t bytes_sent;
    uint64_t receive_calls;     /* recvmmsg */
    uint64_t send_calls;        /* sendmmsg */
    uint64_t receive_coalesced; /* datagrams that came several in one buffer */
    uint64_t send_segmented;    /* datagrams that left several in one buffer (UDP_SEGMENT) */
    uint64_t send_blocked;      /* the socket's buffer was full */
    uint64_t send_errors;       /* the datagram was lost to an error of the system */
    uint64_t receive_overflows; /* the system dropped: socket buffer too small */
    uint64_t xdp_received;      /* datagrams that came by AF_XDP */
    uint64_t xdp_sent;          /* datagrams that left by AF_XDP */
    uint64_t xdp_bad_frames;    /* frames that came by AF_XDP with a wrong length or checksum */
    uint64_t xdp_dropped;       /* frames that the system dropped: no room in AF_XDP's rings */
    uint64_t xdp_invalid;       /* entries of AF_XDP's rings that the system did not understand */
    uint64_t icmp_errors;
    uint64_t datagrams_cut;  /* longer than the buffer: what did not fit is lost */
    uint64_t datagrams_junk; /* not QUIC, or for nobody */
    uint64_t unknown_connection_ids;
    uint64_t resets_sent;
    uint64_t retries_sent;
    uint64_t retry_tokens_refused;
    uint64_t versions_sent;
    uint64_t connections_opened; /* as client */
    uint64_t connections_accepted;
    uint64_t connections_refused; /* a limit */
    uint64_t connections_closed;
    uint64_t handshakes_completed;
    uint64_t handshakes_failed;
    uint64_t handshakes_resumed;
    uint64_t early_data_accepted; /* handshakes */
    uint64_t early_data_refused;
    uint64_t early_requests;      /* announced before the handshake was complete */
    uint64_t early_requests_held; /* until it was */
    uint64_t requests_sent;
    uint64_t requests_received;
    uint64_t responses_received;
    uint64_t messages_malformed; /* RFC 9114, section 4.1.2 */
    uint64_t frames_unknown;     /* HTTP/3's, skipped; those reserved for that not included */
    uint64_t streams_reset_local;
    uint64_t streams_reset_remote;
    uint64_t keep_alives_sent;
    uint64_t handed_over;          /* datagrams of another worker's connections, sent to it */
    uint64_t handed_over_lost;     /* it took no more, or the ration was used up */
    uint64_t handed_in;            /* datagrams that other workers sent here */
    uint64_t connections_unlisted; /* more than the group's list takes: no reset after a crash */
    uint64_t qlog_records_lost;    /* no room, or the file could not be written */
    uint64_t deadlines_passed;
    uint64_t events;
    uint64_t ring_full; /* a drain stopped for want of room */
    uint64_t drains;
    uint64_t flushes;
    uint64_t spins;       /* flushes followed by a spin */
    uint64_t spin_hits;   /* spins that met a datagram */
    uint64_t connections; /* now */
    uint64_t streams;     /* now */
} qg_counters;

/* ---- end of cdef ---- */
#endif
