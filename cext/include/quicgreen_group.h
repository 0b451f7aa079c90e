/* quicgreen_group.h: what the workers of one server share: its secrets, its replay register, the
 * counters and the connections of each worker, and who takes packets. A part of the public interface,
 * under the rules of quicgreen.h.
 *
 * A group is one mapping that all workers have: inherited through fork, or of one file. It has a slot
 * for each worker that may exist at one time, those that are draining included. Nothing in it is a
 * lock that somebody waits for: whoever dies at any instruction holds up nobody, and damages nothing
 * but its own slot. Layout and rules: group.h.
 *
 * Supervisor (or whoever forks the workers)
 *    qg_group_new -> a SO_REUSEPORT socket for each slot, bound in the order of slots -> fork
 *    whenever a state changed: qg_group_steer
 *    a worker died: qg_group_set_state DEAD -> qg_group_steer -> qg_group_reset, until it answers 0
 *       -> qg_group_set_state FREE
 * Worker, after the fork
 *    qg_group_claim (or the parent did) -> qg_engine_options.group, slot, generation
 *    -> qg_endpoint_udp with a copy of its slot's socket -> qg_listen
 *    -> qg_group_set_state ACCEPTING; from time to time qg_group_beat
 *    to leave: qg_group_set_state DRAINING, and once the parent has steered, qg_listen_stop;
 *    at the end qg_engine_free, qg_group_set_state FREE
 * Every process calls qg_group_keys and qg_group_replay for itself.
 *
 * A worker's packets that come to another one (no steering program, or the network card joined
 * packets of several connections) are handed over by the engine, through a local socket that it
 * opens itself. Answers to packets for a dead worker's connections are the engine's doing too. */
#ifndef QUICGREEN_GROUP_H
#define QUICGREEN_GROUP_H
#include "quicgreen.h"
#include "quicgreen_sessions.h"
/* ---- cdef ---- */

#define QG_GROUP_SLOTS_MAX 255 /* a connection id has a byte for the slot */

typedef struct qg_group_options {
    uint32_t abi;                 /* QG_ABI */
    uint32_t slots;               /* 1 to QG_GROUP_SLOTS_MAX */
    uint32_t connections;         /* of each worker, that are listed for resets; 128 bytes each */
    uint32_t early_data_capacity; /* ClientHellos with early data per QG_REPLAY_PERIOD_S */
    uint32_t quiet_s;             /* as in qg_replay_new; for a `secret` that was in use before */
    uint32_t key_period_s;        /* these four as in qg_keys_new */
    uint32_t key_window;
    uint32_t host_id; /* 0 to 65535, in connection ids; QG_GROUP_ANY_HOST: one at random */
    uint64_t key_origin_s;
    const uint8_t *secret;
} qg_group_options;

#define QG_GROUP_ANY_HOST 0xffffffff

/* 64 slots, 16384 connections, 100,000 ClientHellos, keys of an hour of which 25 open. */
void qg_group_defaults(qg_group_options *options);

/* A group in memory that has no name: for this process and those that it will fork. Pages that
 * nobody uses cost nothing. Its secrets are kept out of core dumps and, where the system allows it,
 * out of swap. NULL on error, with a text in `error` and in *result QG_INVALID (an option), QG_SYSTEM
 * (errno tells). The caller owns one reference. */
qg_group *qg_group_new(const qg_group_options *options, int *result, char *error,
                       size_t error_capacity);

/* The same in a file, for processes that do not descend from each other; a folder in memory (tmpfs)
 * is best, since the file holds secrets. Who comes first makes it, for its user alone; one that is
 * there is used with the options it was made with. Also QG_STATE: it is not such a file, another
 * user's, open to others, of another version, truncated, or made before the system was last started. */
qg_group *qg_group_open(const char *path, const qg_group_options *options, int *result, char *error,
                        size_t error_capacity);

/* Drop one reference; with the last one it is unmapped here. Engines, key rings and registers have
 * references of their own. */
void qg_group_free(qg_group *group);

typedef struct qg_group_info {
    uint64_t size; /* bytes of the mapping */
    uint32_t slots;
    uint32_t connections; /* listed of each worker */
    uint32_t host_id;
    uint32_t key_period_s;
    uint32_t key_window;
    uint32_t key_epoch;
    uint64_t key_origin_s;
} qg_group_info;

void qg_group_info_of(const qg_group *group, qg_group_info *out);

/* ---------------------------------------------------------------- secrets */

/* The group's key ring, as this process sees it: for qg_tls_options and qg_engine_options. Make it
 * after the fork. NULL without memory. The caller owns one reference. */
qg_keys *qg_group_keys(qg_group *group);

/* The group's replay register; its counts are the whole group's. The same. */
qg_replay *qg_group_replay(qg_group *group);

/* ---------------------------------------------------------------- workers */

#define QG_WORKER_FREE      0 /* nobody has the slot */
#define QG_WORKER_STARTING  1 /* its packets wait in its socket; it gets no new connections */
#define QG_WORKER_ACCEPTING 2
#define QG_WORKER_DRAINING  3 /* serves the connections it has */
#define QG_WORKER_DEAD      4 /* gone without a word; its connections are still listed */

typedef struct qg_worker_info {
    uint32_t state; /* QG_WORKER_* */
    uint32_t pid;
    uint32_t generation;   /* 0 to 255, one more with each claim of the slot */
    uint32_t connections;  /* that are listed */
    uint64_t claimed_ns;   /* CLOCK_MONOTONIC */
    uint64_t heartbeat_ns; /* the same; claimed_ns until the first beat */
} qg_worker_info;

/* Take a slot for process `pid`: the one given, which must be FREE or DEAD, or with -1 any: a FREE one, else one
 * whose process is gone. Its counters are set to 0, its state is STARTING. Returns the slot and in *generation which life of it this is.
 * QG_LIMIT: all are taken; QG_STATE: the one given is; QG_INVALID: there is no such slot. */
int qg_group_claim(qg_group *group, int slot, uint32_t pid, uint32_t *generation);

/* Set the state of each worker to DEAD whose process is gone without a word, also when nobody has waited
 * for it so far. Writes the slots that are DEAD into `dead`, which has room for QG_GROUP_SLOTS_MAX, and
 * returns how many. */
int qg_group_bury(qg_group *group, uint8_t *dead);

/* QG_OK; QG_GONE: the slot is in another life; QG_INVALID. Any state may follow any other. */
int qg_group_set_state(qg_group *group, uint32_t slot, uint32_t generation, uint32_t state);

/* This worker is well, now. QG_OK, QG_GONE, QG_INVALID. */
int qg_group_beat(qg_group *group, uint32_t slot, uint32_t generation);

/* QG_OK or QG_INVALID. */
int qg_group_worker(const qg_group *group, uint32_t slot, qg_worker_info *out);

/* The slot's counters, NULL: there is no such slot. An engine with this group and slot counts here. They
 * stay after the worker's death, until the slot is claimed again. Valid as long as the group. */
const qg_counters *qg_group_counters(const qg_group *group, uint32_t slot);

/* ---------------------------------------------------------------- steering */

/* Attach a program to the SO_REUSEPORT group that the UDP socket `fd` is in, made of the states of
 * now: a packet with a connection id of this group goes to the socket of its slot, if a worker is there;
 * all other packets are spread over the slots that are ACCEPTING (when there are none, over those that
 * are STARTING). The n-th socket of the group must be slot n's: bound in that order, and none closed
 * while the group exists, since the last one would move to its place. Needs no privilege.
 * QG_OK; QG_SYSTEM: errno tells; without a program the kernel spreads packets by addresses, and the
 * engines hand over what is another's. */
int qg_group_steer(const qg_group *group, int fd);

/* Which socket a packet goes to by that program, for tests and tools; -1: the kernel decides. */
int qg_group_steers_to(const qg_group *group, const uint8_t *packet, size_t len);

/* ---------------------------------------------------------------- the dead */

/* Tell the peers of slot `slot`'s listed connections whose worker is gone that they are gone: a stateless
 * reset (RFC 9000, section 10.3) for each of their ids, from the UDP socket `fd`. Those are told that know this
 * socket's port (and family), and taken off the list. Some 1024 resets a call; it never waits. Returns how
 * many were sent, 0: nobody is left to be told; QG_AGAIN: the socket is full; QG_SYSTEM; QG_INVALID. */
int qg_group_reset(qg_group *group, uint32_t slot, int fd);

/* Write a stateless reset into `out` (64 bytes) in answer to a packet of `len` bytes, for who reads a
 * dead slot's socket. Returns its length; 0: the packet is not for a connection id of this group whose
 * worker is gone, or too short to be answered. */
size_t qg_group_answer(qg_group *group, const uint8_t *packet, size_t len, uint8_t *out);

/* ---------------------------------------------------------------- orphans */

/* From now on this process ends when its parent, process `parent`, does: it gets the signal `number`,
 * whose handler of now runs, and unless it has ended by itself it is ended by an alarm `patience_s`
 * seconds later (at least 1), also when it is stuck where no handler can help. The signal without that
 * death does nothing. For the thread that was forked. To be called again when the signal's handler was
 * changed, or the user of the process, which makes the system forget.
 * QG_OK; QG_GONE: it is dead already; QG_INVALID: there is no such signal. */
int qg_orphan_ends(uint32_t parent, int number, uint32_t patience_s);
/* ---- end of cdef ---- */
#endif
