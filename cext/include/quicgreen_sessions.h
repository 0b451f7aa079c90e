/* quicgreen_sessions.h: resumption and early data (RFC 8446, sections 2.2 and 2.3; RFC 9001,
 * section 4.6). The second part of the public interface, under the rules of quicgreen.h.
 *
 * Client
 *    qg_tls_options.tickets = 1: each session that the server offers comes as QG_EVENT_TICKET.
 *    qg_connect -> qg_conn_resume, before the next flush. Requests with QG_EARLY leave with the first
 *    flight; when the server refuses them they are sent again by themselves, once.
 * Server
 *    qg_tls_options.replay: a register. A request that comes before the handshake is
 *    complete is announced at once, with QG_EARLY, if it is a whole GET, HEAD or OPTIONS without a
 *    body; any other is held until the handshake is complete (RFC 8470, section 3). */
#ifndef QUICGREEN_SESSIONS_H
#define QUICGREEN_SESSIONS_H
#include "quicgreen.h"
/* ---- cdef ---- */

/* The replay register: whose early data was taken already (RFC 8446, section 8.2). It records the
 * ClientHello's random. */

typedef struct qg_replay_counts {
    uint64_t first;    /* early data that was let through */
    uint64_t repeated; /* refused: the register had it */
    uint64_t full;     /* refused: no more fits this period */
    uint64_t quiet;    /* refused: it began too recently, or the clock went back */
} qg_replay_counts;

/* In this process's memory. `capacity`: ClientHellos per period. `quiet_s`: seconds from now in which
 * nothing is let through; for keys that were in use before this register was, QG_REPLAY_PERIOD_S.
 * NULL without memory. The caller owns one reference. */
qg_replay *qg_replay_new(uint32_t capacity, uint32_t quiet_s);
void qg_replay_free(qg_replay *replay);

/* How long a ClientHello is remembered at least, in seconds: BoringSSL lets a ticket's age differ by a
 * minute in either direction. */
#define QG_REPLAY_PERIOD_S 121

void qg_replay_counts_of(qg_replay *replay, qg_replay_counts *out);

/* Take up the session of a ticket (the bytes of a QG_EVENT_TICKET) on a connection of which nothing
 * was sent yet. `early`: with early data, if the ticket allows it. QG_OK; QG_STATE: it has begun;
 * QG_INVALID: not a ticket of this version; the connection then goes on without it. */
int qg_conn_resume(qg_engine *engine, uint64_t conn, const uint8_t *ticket, size_t len,
                   uint32_t early);

#define QG_EARLY_NONE     0 /* none was sent, or the handshake goes on */
#define QG_EARLY_ACCEPTED 1
#define QG_EARLY_REFUSED  2

typedef struct qg_session_info {
    uint32_t is_resumed;
    uint32_t in_early_data; /* requests with QG_EARLY may be sent, the handshake is not complete */
    uint32_t early_data;    /* QG_EARLY_* */
    const char *reason;     /* why early data was refused, in BoringSSL's word. Static */
} qg_session_info;

int qg_session_info_of(qg_engine *engine, uint64_t conn, qg_session_info *out);

/* ---- end of cdef ---- */
#endif
