/* group.h: what the workers of one server share, in one mapping.
 *
 * Layout, version 1 (numbers in the machine's byte order: a group does not leave its machine)
 *
 *   0        4096      8192            R             S                    C                    size
 *   +--------+---------+---------------+-------------+--------------------+-------------------+
 *   | header | secrets | replay table  | slot 0 .. n | connections of     | .. of slot n      |
 *   |        |         | 8 * entries   | 1024 each   | slot 0, 128 each   |                   |
 *   +--------+---------+---------------+-------------+--------------------+-------------------+
 *
 * header       what it was made with. Never written again.
 * secrets      the key ring, the key of resets, the registers' secret and its clocks
 * replay table see replay below
 * slot         a worker's life, heartbeat, local socket and counters
 * connections  of one worker: ids and addresses, at the place of the connection in its engine
 *
 * Key ring
 *    `epoch` only grows. Of the roots only the oldest that still opens something is kept, K[o] with
 *    o = epoch - window + 1; all later keys follow from it, and each process derives them for itself. So
 *    nothing has to be written for a new epoch to begin, but `epoch`, by whoever notices it.
 *    To forget K[o], K[o'] is written into the other of two places, `version` is raised (its lowest
 *    bit names the place that counts), and the old place is wiped. A robust mutex keeps two from doing so at
 *    once. Nobody waits for it: who does not get it leaves the work to who has it, and the kernel
 *    gives it on when that one dies. At any store one of the places is whole, and `version` names it.
 *    Readers copy and look at `version` again.
 *
 * Replay register
 *    One table of words: 16 bits of the period (QG_REPLAY_PERIOD_S of CLOCK_MONOTONIC), 48 bits of
 *    fingerprint of a ClientHello's random. Words of this period and the one before count, all others are
 *    free: nothing is ever cleaned. A word is entered by one compare-and-swap, so none is ever torn.
 *    group_replay.c says why two processes cannot both be first.
 *
 * Slot
 *    `life` holds pid (32 bits), generation (8) and state (8): one swap changes them together.
 *
 *          claim            ACCEPTING          DRAINING
 *    FREE -------> STARTING ---------> (new) ----------> (old) --------> FREE
 *      ^                \________________|________________/               ^
 *      |                                 | the process died               |
 *      |                                 v                                |
 *      +------------------------------- DEAD -----------------------------+
 *                     its connections were told
 *
 *    Only the worker writes to its counters and connections, and only while it lives; who declares it
 *    DEAD or claims its slot has made sure that it does not.
 *
 * Its ids tell which life of the slot a connection in its list is of. It is listed while `listed` is 1. It is set to 0 before any other store and to 1 after the
 * last: what a dying worker left half written is not listed. Its peer learns of the death by its own
 * next packet.
 *
 * Rule for all: a process may die, or be stopped for any time, between any two stores. */
#ifndef QG_GROUP_H
#define QG_GROUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "cid.h"
#include "keys.h"
#include "quicgreen_group.h"
#include "replay.h"

#define QG__GROUP_MAGIC   "qggroup"
#define QG__GROUP_VERSION 1
#define QG__GROUP_PAGE    4096

typedef struct group_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t header_bytes; /* QG__GROUP_PAGE */
    uint64_t size;
    uint32_t slots;
    uint32_t connections;
    uint32_t replay_entries; /* a power of two */
    uint32_t slot_bytes;
    uint32_t connection_bytes;
    uint32_t secrets_bytes;
    uint32_t host_id;
    uint32_t key_period_s;
    uint32_t key_window;
    uint32_t zero;
    uint64_t key_origin_s;
    uint64_t quiet_until_ns;
    char boot[40]; /* /proc/sys/kernel/random/boot_id: times and pids are of this one */
} group_header;

typedef struct group_root {
    _Atomic uint64_t epoch; /* plus 1; 0: wiped */
    _Atomic uint64_t words[QG_KEYS_SECRET / 8];
} group_root;

typedef struct group_secrets {
    _Atomic uint32_t epoch;
    _Atomic uint32_t version;
    group_root roots[2];
    qg_key reset;
    pthread_mutex_t forgetting;
    uint8_t replay_secret[32];
    _Alignas(64) _Atomic uint64_t replay_counts[4]; /* in the order of qg_replay_counts */
    _Atomic uint64_t replay_walls[4];               /* group_replay.c: by period, modulo 4 */
    _Atomic uint64_t forgotten_wall_s;
} group_secrets;

typedef struct group_slot {
    _Atomic uint64_t life;
    _Atomic uint64_t claimed_ns;
    _Atomic uint64_t heartbeat_ns;
    _Atomic uint64_t local_socket; /* handover.c */
    _Atomic uint32_t top;          /* no connection is listed at or above this place */
    _Alignas(64) qg_counters counters;
    _Alignas(1024) uint8_t end[0];
} group_slot;

#define QG_LISTED_CIDS 3 /* the id of a Retry, the first, and the spare */

typedef struct group_conn {
    _Atomic uint32_t listed;
    uint32_t cid_count;
    qg_addr peer;
    qg_addr local;
    uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN];
    uint8_t zero[20];
} group_conn;

_Static_assert(sizeof(group_header) <= QG__GROUP_PAGE, "the drawing in group.h");
_Static_assert(sizeof(group_secrets) <= QG__GROUP_PAGE, "the drawing in group.h");
_Static_assert(sizeof(group_slot) == 1024, "the drawing in group.h");
_Static_assert(sizeof(group_conn) == 128, "the drawing in group.h");

/* A process's view of it. */
struct qg_group {
    _Atomic uint32_t references;
    uint64_t size;
    group_header *header;
    group_secrets *secrets;
    _Atomic uint64_t *replay;
    group_slot *slots;
    group_conn *conns;
};

qg_group *qg__group_reference(qg_group *group);

/* The parts of `life`. */
static inline uint32_t qg__life_pid(uint64_t life) {
    return (uint32_t)(life >> 32);
}
static inline uint8_t qg__life_generation(uint64_t life) {
    return (uint8_t)(life >> 8);
}
static inline uint8_t qg__life_state(uint64_t life) {
    return (uint8_t)life;
}

/* The counters of a slot, for the engine that lives there. NULL: it is not this life's. */
qg_counters *qg__group_counters(qg_group *group, uint32_t slot, uint32_t generation);

/* List the connection at `place` of a worker's engine, with the ids by which its peer knows it (at most
 * QG_LISTED_CIDS): the worker's own doing. False when the list is too short for that place. */
bool qg__group_list(qg_group *group, uint32_t slot, uint32_t place, const qg_addr *peer,
                    const qg_addr *local, const uint8_t (*cids)[QG_CID_LEN], uint32_t count);
void qg__group_unlist(qg_group *group, uint32_t slot, uint32_t place);

/* Does the worker that issued this id live? */
bool qg__group_is_served(const qg_group *group, qg_cid_origin origin);

/* qg_group_reset through a datapath. */
struct qg_datapath;
int qg__group_reset(qg_group *group, uint32_t slot, struct qg_datapath *dp, qg_keys *keys);

/* Called between any two stores, when the program has such a function: the tests have, and die or stop
 * in it. Hidden, so that in the module it is NULL for sure. */
__attribute__((weak, visibility("hidden"))) void qg__group_step(void);

static inline void qg__group_stepped(void) {
    if (qg__group_step != NULL) {
        qg__group_step();
    }
}

#endif
