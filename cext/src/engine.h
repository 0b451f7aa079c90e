/* engine.h: what the engine's parts share.
 *
 * One turn
 *   drain:  1. submissions
 *           2. connections with work left over
 *           3. datagrams of every endpoint, then the connections they touched
 *           4. timers that are due
 *           5. the timer descriptor is set
 *   flush:  1. submissions
 *           2. connections with work
 *           3. every dirty connection into its datapath
 *           4. every datapath to the system
 *           5. qlogs to their files
 *           6. the timer descriptor is set
 *           7. the spin, if any
 *
 * Rules
 * 1. Only engine.c and the datapaths make system calls; tls.c reads files, and writes the key log, qlog.c
 *    and trace.c write what they are for.
 * 2. The clock is read once per entry: engine->now_ns.
 * 3. Who tells something asks for room first. A connection says nothing outside qg__conn_process,
 *    which keeps ROOM_PER_STEP records free before each step. */
#ifndef QG_ENGINE_H
#define QG_ENGINE_H

#include "conn.h"
#include "endpoint.h"
#include "event.h"
#include "group.h"
#include "handover.h"
#include "hash.h"
#include "keys.h"
#include "pool.h"
#include "timer.h"

/* First bytes of a body that come with its head. Small requests and responses are whole with it;
 * larger ones would be copied twice for nothing. */
#define QG_INLINE_BODY 16384

/* Read at a time while a head is expected: a head seldom takes more, and what follows it is body
 * that must fit beside QG_INLINE_BODY. */
#define QG_HEAD_CHUNK 4096

/* Scratch for composing small messages and reading small pieces. */
#define QG_IO_BYTES 65536

/* Sockets that a client spreads its connections over, per address family. One would look like a
 * single flow to a server (or a switch) that distributes by addresses; more cost a receive call
 * each. */
#define QG_CLIENT_SOCKETS 16

enum {
    QG_TIMER_QUIC,
    QG_TIMER_PHASE,
    QG_TIMER_ALIVE,
    QG_TIMER_READ,
    QG_TIMER_WRITE,
    QG_TIMER_PENDING,
    QG_TIMER_ENDPOINT
};

/* At most `burst` now, and `per_s` a second: for answers to packets of peers unknown. */
typedef struct qg_bucket {
    uint64_t last_ns;
    double tokens;
} qg_bucket;

typedef struct qg_slot {
    qg_conn *conn;
    uint32_t next_free;
} qg_slot;

struct qg_engine {
    int epoll_fd;
    int timer_fd;
    bool abandoned; /* in a forked child */
    uint64_t now_ns;
    uint64_t armed_ns; /* what timer_fd is set to */
    uint64_t wall_s;   /* second of the date line */
    uint8_t date[64];  /* encoded field line */
    uint32_t date_len;

    qg_events events;
    qg_submission *submissions;
    uint32_t submission_capacity;
    uint32_t submission_next;
    uint8_t *submission_arena;
    uint32_t submission_bytes;

    qg_counters own_counters;
    qg_counters *counters;
    qg_keys *keys;
    qg_group *group; /* NULL: it is alone */
    qg_handover handover;
    bool handed_over; /* what is being taken came from another worker */

    qg_pool conn_pool, stream_pool, pending_pool;
    qg_timers timers;
    qg_slot *slots;
    uint32_t slot_capacity, slot_free, max_connections;
    uint32_t generation;
    qg_cid_table cids;
    qg_hash initial_cids; /* ids that clients chose, and those sent in a Retry -> connection */
    qg_link work;
    qg_link dirty;
    qg_link failed;      /* requests to be answered with an event */
    qg_link qlogs;       /* with records to be written (qlog.h) */
    uint8_t *qlog_spare; /* memory for one of them */
    int trace_fd;        /* -1: nothing is traced (trace.h) */

    qg_endpoint **endpoints;
    int endpoint_count;
    int client_endpoints[2][QG_CLIENT_SOCKETS]; /* -1: not opened */
    unsigned client_next[2];
    int client_xdp; /* -1: none */

    uint32_t spin_us;
    qg_bucket reset_bucket, version_bucket, offer_bucket, handover_bucket; /* acceptor.c */
    uint8_t *scratch;                                                      /* qg__head_decode */
    uint8_t *io;                                                           /* QG_IO_BYTES */
};

/* The connection, or NULL when the id is stale. */
qg_conn *qg__engine_conn(const qg_engine *engine, uint64_t id);

/* Take the submissions (submit.c). */
void qg__engine_take(qg_engine *engine);

/* Room for what one step of one connection may say: a few records, one head with its inline body.
 */
bool qg__engine_room(const qg_engine *engine, const qg_config *config);

/* Watch an endpoint's descriptor, also for room to send when `output`. */
int qg__engine_watch(qg_engine *engine, qg_endpoint *endpoint, bool output, bool add);

/* Watch it no more. Closing the descriptor is not enough: the caller who gave it may have another one of the
 * same socket, and then epoll goes on to tell of it. */
void qg__engine_unwatch(qg_engine *engine, qg_endpoint *endpoint);

/* Index of a network interface by name, 0: there is none. */
uint32_t qg__interface_index(const char *name);

/* The ring for Retry and reset tokens of connections with this configuration: its own, if it has one,
 * which its neighbours and its successor share, else the engine's. Turned to now. */
qg_keys *qg__engine_keys(const qg_engine *engine, const qg_config *config);

bool qg__bucket_take(qg_bucket *bucket, uint64_t now_ns, double burst, double per_s);

#endif
