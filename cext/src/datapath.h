/* datapath.h: how datagrams come and go. A datapath knows addresses and bytes, nothing of QUIC; the
 * engine knows seven functions, nothing of sockets. Backends: udp.c, pair.c (in memory), xdp.c.
 *
 * Call order for sending: begin, write a run of packets, commit; again for the next run; flush once
 * a turn. A run is one or more datagrams to one peer, all `segment` bytes long but the last, which
 * may be shorter: what UDP_SEGMENT wants.
 *
 * Rule: what was committed is sent or kept. When the network takes no more, flush answers QG_AGAIN
 * and begin answers NULL until a later flush succeeds: so nobody pulls packets from quiche that
 * cannot leave (quiche counts a pulled packet as sent). */
#ifndef QG_DATAPATH_H
#define QG_DATAPATH_H

#include "base.h"

#define QG_RUN_MAX          65507 /* the largest payload of one UDP send over IPv4 */
#define QG_RUN_SEGMENTS_MAX 64    /* UDP_MAX_SEGMENTS of every kernel that has UDP_SEGMENT */

/* Received bytes: one datagram, or several of `segment` bytes each but the last. */
typedef struct qg_dgram {
    uint8_t *data;
    uint32_t len;
    uint32_t segment;
    qg_addr from;
    qg_addr to; /* our address, with our port */
} qg_dgram;

/* The network, or the system, said that what was sent to `to` does not arrive. */
typedef struct qg_unreachable {
    qg_addr to;
    int error; /* errno */
} qg_unreachable;

typedef struct qg_datapath qg_datapath;

typedef struct qg_datapath_ops {
    const char *name;

    /* Fill up to `max` records. Their bytes are the datapath's and may be written to; they live
     * until the next receive. Returns how many; fewer than `max` means there is no more now. */
    int (*receive)(qg_datapath *dp, qg_dgram *out, int max);

    /* Room for the next run, at least QG_RUN_MAX bytes, or NULL when nothing may be sent now. */
    uint8_t *(*begin)(qg_datapath *dp);

    /* `len` bytes were written there, in datagrams of `segment` bytes. A second commit after one begin
     * is for the bytes behind those of the first. */
    void (*commit)(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                   const qg_addr *to);

    /* Send what was committed. QG_OK, or QG_AGAIN when some is kept. */
    int (*flush)(qg_datapath *dp);

    /* Fill up to `max` records of destinations that are unreachable. Returns how many. */
    int (*errors)(qg_datapath *dp, qg_unreachable *out, int max);

    void (*close)(qg_datapath *dp);

    /* In a forked child: close our copies of the descriptors, and leave the rest alone. `close` may follow. */
    void (*abandon)(qg_datapath *dp);
} qg_datapath_ops;

struct qg_datapath {
    const qg_datapath_ops *ops;
    struct qg_trace *trace; /* NULL: none (trace.h) */
    qg_counters *counters;
    qg_addr local;
    int fd;                /* what to wait for; readable when there is something to receive */
    uint32_t capabilities; /* QG_CAP_* */
    uint32_t receive_buffer;
    uint32_t send_buffer;
    bool blocked;        /* the last flush kept something */
    bool errors_pending; /* errors() has something to say */
    bool wildcard;       /* bound to no one address */
};

/* A UDP socket bound to `bind`, or the bound socket `fd` when that is not negative. On failure NULL
 * with *result. */
qg_datapath *qg__udp_open(const qg_addr *bind, uint32_t flags, int fd, qg_counters *counters,
                          int *result);

/* AF_XDP sockets on all queues of an interface, in front of a UDP socket that nothing was sent on yet, and
 * which the datapath returned owns. NULL: it cannot be had, `reason` says why in words that go on after
 * "INTERFACE: ", and the socket is as it was; *result is QG_AGAIN when somebody has it, perhaps for a moment
 * only: the system takes up to a second to give back what a process had that ended. */
qg_datapath *qg__xdp_open(qg_datapath *udp, const char *interface, char *reason, size_t reason_size,
                          int *result);

/* Close all but the UDP socket, and return that. */
qg_datapath *qg__xdp_give_back(qg_datapath *dp);

/* Two ends of a link in memory. */
bool qg__pair_open(const qg_addr *addr_a, qg_counters *counters_a, const qg_addr *addr_b,
                   qg_counters *counters_b, qg_datapath *out[2]);

/* For tests: `filter` sees every datagram that `dp` is about to send and answers whether it
 * arrives. */
typedef bool (*qg_pair_filter)(void *arg, uint8_t *data, size_t len);
void qg__pair_set_filter(qg_datapath *dp, qg_pair_filter filter, void *arg);

/* For tests: from now on the other end sees `dp` at this address, as behind a NAT, and what it sends to
 * another one is lost. */
void qg__pair_rebind(qg_datapath *dp, const qg_addr *outside);

#endif
