/* quicgreen_seeing.h: looking at what goes on: a connection's numbers, its qlog, every datagram.
 *
 * Rules as in quicgreen.h. Nothing here costs a connection anything while it is not asked for. */
#ifndef QUICGREEN_SEEING_H
#define QUICGREEN_SEEING_H
#include "quicgreen.h"
/* ---- cdef ---- */

/* ---------------------------------------------------------------- numbers */

/* quiche's counters by quiche's names, for the connection and its active path. */
typedef struct qg_conn_stats {
    uint64_t recv;
    uint64_t sent;
    uint64_t lost;
    uint64_t spurious_lost;
    uint64_t retrans;
    uint64_t sent_bytes;
    uint64_t recv_bytes;
    uint64_t acked_bytes;
    uint64_t lost_bytes;
    uint64_t stream_retrans_bytes;
    uint64_t paths_count;
    uint64_t reset_stream_count_local;
    uint64_t stopped_stream_count_local;
    uint64_t reset_stream_count_remote;
    uint64_t stopped_stream_count_remote;
    uint64_t data_blocked_sent_count;
    uint64_t stream_data_blocked_sent_count;
    uint64_t data_blocked_recv_count;
    uint64_t stream_data_blocked_recv_count;
    uint64_t path_challenge_rx_count;
    uint64_t total_pto_count;
    uint64_t rtt;     /* nanoseconds */
    uint64_t min_rtt; /* nanoseconds */
    uint64_t max_rtt; /* nanoseconds */
    uint64_t rttvar;  /* nanoseconds */
    uint64_t cwnd;
    uint64_t pmtu;
    uint64_t delivery_rate;
    uint64_t max_bandwidth;
} qg_conn_stats;

int qg_conn_stats_of(qg_engine *engine, uint64_t conn, qg_conn_stats *out);

/* ---------------------------------------------------------------- qlog */

/* A connection's story from now on, in JSON-SEQ (RFC 7464; draft-ietf-quic-qlog-main-schema), to the file
 * `path`, which is made, or emptied; where it is a folder, to a new file in it, named after the id that
 * the connection began with (its original destination connection id) and the side that we are. The last
 * one that was asked for counts.
 *
 * Written once a turn, at the end of qg_engine_flush, from a buffer of fixed size: what finds no room there
 * is dropped and counted. A file that cannot be written any more ends the qlog, and nothing else:
 * QG_EVENT_QLOG with the connection's token, or the listener's. A pipe that is full waits for its reader.
 * QG_SYSTEM with errno, QG_NOMEM, QG_TOO_LARGE. */
int qg_conn_qlog(qg_engine *engine, uint64_t conn, const char *path);

/* With `qlog_dir` in qg_config_options every connection does so from its first packet on; its file is made
 * at the first flush, and QG_EVENT_QLOG tells of one that cannot be. */

/* ---------------------------------------------------------------- trace */

/* With `trace_fd` in qg_engine_options every endpoint writes a line there for each datagram:
 *    SECONDS recv|send BYTES B FROM > TO TYPE[+TYPE...] dcid=ID [scid=ID]
 * SECONDS are CLOCK_MONOTONIC's, at the begin of the turn. Of a short header that leaves the length of
 * the id is not known: its first eight bytes are shown. */

/* ---- end of cdef ---- */
#endif
