/* xsk.h: an AF_XDP socket on one queue of an interface: frames come and go through rings in memory that the
 * system shares. Knows nothing of what is in a frame.
 *
 * Receiving: `available`, look at each, `release` all that were looked at.
 * Sending:   `room`, write a frame there, `send`; `flush` once a turn. */
#ifndef QG_XSK_H
#define QG_XSK_H

#include "base.h"

/* Memory of a frame, and what of it a received one may fill: the system keeps 256 bytes before it. */
#define QG_XSK_FRAME       2048
#define QG_XSK_RECEIVE_MAX (QG_XSK_FRAME - 256)

/* Frames each way. As many as a turn sends at most (FLUSH_PACKETS in engine.c); and 2 ms of 10 Gbit/s that
 * comes in, while the process does something else. Together 8 MiB, which is what a process may lock by
 * default. */
#define QG_XSK_FRAMES 2048

/* One side of a ring is ours, and one the system's. */
typedef struct qg_ring {
    uint32_t *producer, *consumer; /* shared */
    uint32_t *flags;               /* shared */
    void *entries;                 /* shared */
    uint32_t own;                  /* our side's, not shown yet */
    void *map;
    size_t map_len;
} qg_ring;

typedef struct qg_xsk {
    int fd;
    uint8_t *frames; /* QG_XSK_FRAMES for receiving, then as many for sending */
    qg_ring fill, completion, rx, tx;
    uint32_t free[QG_XSK_FRAMES]; /* frames for sending that are not under way */
    uint32_t free_count;
    bool down; /* the last flush found the interface so */
} qg_xsk;

/* What a socket counted since it was opened. */
typedef struct qg_xsk_counts {
    uint64_t dropped; /* received frames that found no room */
    uint64_t invalid; /* of the entries that we wrote, those that the system did not understand */
} qg_xsk_counts;

/* A socket bound to a queue, in copy mode, which every driver has. 0, or -1 with errno, and in *step what
 * failed: EINVAL there is no such queue, EBUSY somebody has it (or had, up to a second ago), EPERM,
 * EAFNOSUPPORT, ENOBUFS too little memory may be locked. */
int qg__xsk_open(qg_xsk *x, uint32_t interface, uint32_t queue, const char **step);
void qg__xsk_close(qg_xsk *x);

/* How many frames have come. */
uint32_t qg__xsk_available(const qg_xsk *x);

/* The i-th of them; it is ours until `release`. NULL: its entry makes no sense. */
uint8_t *qg__xsk_look(const qg_xsk *x, uint32_t i, uint32_t *len);

/* Give the first `count` of them back. */
void qg__xsk_release(qg_xsk *x, uint32_t count);

/* QG_XSK_FRAME bytes for a frame to be sent, NULL: all are under way. The same ones until `send`. */
uint8_t *qg__xsk_room(qg_xsk *x);

/* `len` bytes were written there. */
void qg__xsk_send(qg_xsk *x, uint32_t len);

/* Let the system take them, and take back those that are done. QG_OK; QG_AGAIN when some wait for a later
 * flush; QG_SYSTEM when the interface is down: they wait until it is up. */
int qg__xsk_flush(qg_xsk *x, qg_counters *counters);

qg_xsk_counts qg__xsk_counts(const qg_xsk *x);

#endif
