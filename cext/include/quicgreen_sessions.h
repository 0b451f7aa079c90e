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
    uint64_t quiet;    /* refused: it began too recently, or the wall clock went back */
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

/* ---------------------------------------------------------------- client tickets in shared memory */

/* An LRU of session tickets in a file that unrelated processes map. No function here waits for
 * anybody, whatever another process did or died of, and all of them may be called from several
 * threads at once. Layout and rules: ticket_shm.h. */
typedef struct qg_ticket_shm qg_ticket_shm;

#define QG_TICKET_KEY     16      /* bytes of a key */
#define QG_TICKET_MAX     16384   /* bytes of a ticket; at most half of the segment's room */
#define QG_TICKET_KEEP    8       /* tickets per key: the newest */
#define QG_TICKET_SHM_MIN 16384   /* bytes of a segment */
#define QG_TICKET_SHM_MAX 8388608 /* the same */

typedef struct qg_ticket_shm_info {
    uint64_t size; /* bytes of the file */
    uint32_t slots;
    uint32_t slot_room;  /* bytes of a ticket that go into one slot */
    uint32_t max_ticket; /* longer ones are refused */
    uint32_t tickets;    /* there now, expired ones included */
} qg_ticket_shm_info;

/* Map the segment at `path`; who comes first makes it, with `size` bytes. One that is there is used
 * with the size it has. NULL on error, with a text in `error` and in *result QG_INVALID (size or
 * path), QG_SYSTEM (errno tells), or QG_STATE (a file that is not such a segment, or not ours alone).
 * The caller owns it. */
qg_ticket_shm *qg_ticket_shm_open(const char *path, uint64_t size, int *result, char *error,
                                  size_t error_capacity);

/* Unmap. The file stays. */
void qg_ticket_shm_close(qg_ticket_shm *shm);

/* All below also answer QG_GONE when the file was removed (open it anew), and QG_STATE when it was
 * cut short. Keys are QG_TICKET_KEY bytes; times are wall-clock seconds. A ticket is dead at
 * `now_s` >= expires_s, and more than a second before issued_s (the clock was set back). */

int qg_ticket_shm_info_of(const qg_ticket_shm *shm, qg_ticket_shm_info *out);

/* Keep a ticket. Dead ones make room first, then the least recently used. QG_OK; QG_TOO_LARGE;
 * QG_INVALID (nothing to keep); QG_AGAIN: others were quicker in every slot, nothing was kept. */
int qg_ticket_shm_put(qg_ticket_shm *shm, const uint8_t *key, const uint8_t *ticket, size_t len,
                      uint64_t issued_s, uint64_t expires_s, uint64_t now_s);

/* Copy the newest live ticket of `key`. Returns its length, 0 when there is none.
 * QG_TOO_LARGE when it is longer than `capacity`. */
int qg_ticket_shm_get(qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, uint8_t *out,
                      size_t capacity);

/* The same, and take it out: of all callers in all processes one gets it. */
int qg_ticket_shm_take(qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, uint8_t *out,
                       size_t capacity);

/* Take all tickets of `key` out. Returns how many there were. */
int qg_ticket_shm_delete(qg_ticket_shm *shm, const uint8_t *key);

/* Take all tickets out and wipe the slots. QG_OK. */
int qg_ticket_shm_clear(qg_ticket_shm *shm);

/* Copy the live ticket that begins in slot `index`, and its key. Returns its length, 0: none
 * begins there. QG_INVALID: no such slot; QG_TOO_LARGE. */
int qg_ticket_shm_at(qg_ticket_shm *shm, uint32_t index, uint64_t now_s, uint8_t *key, uint8_t *out,
                     size_t capacity);

/* ---- end of cdef ---- */
#endif
