/* endpoint.h: a datapath in an engine, and the listener on it, if any. */
#ifndef QG_ENDPOINT_H
#define QG_ENDPOINT_H

#include "cid.h"
#include "config.h"
#include "datapath.h"
#include "timer.h"

struct qg_engine;

typedef struct qg_endpoint {
    struct qg_engine *engine;
    qg_datapath *dp;
    int index;
    bool client;       /* one of the engine's own sockets */
    bool wants_output; /* EPOLLOUT is asked for */
    qg_link conns;
    uint32_t connections;

    /* The listener. */
    bool listening;
    bool stopping;
    bool idle_due; /* stopped and empty: QG_EVENT_IDLE is to be said */
    qg_config *config;
    qg_listen_options listen;
    uint64_t credit;
    uint32_t half_open;
    uint64_t stopped_ns;
    uint64_t retried_ns; /* the last Retry; 0: none */
    qg_timer patience;   /* stopped: with those who were sent one */
} qg_endpoint;

qg_endpoint *qg__endpoint_get(struct qg_engine *engine, int index);
void qg__endpoint_free(qg_endpoint *endpoint);

/* The last connection may be gone: note that QG_EVENT_IDLE is due. */
void qg__endpoint_check_idle(qg_endpoint *endpoint);

/* Where a connection to `peer` begins: endpoint number `index`, if it can send there, *peer as its socket has
 * addresses; else one of the engine's client sockets for this family. NULL: *result. */
qg_endpoint *qg__endpoint_for(struct qg_engine *engine, int index, qg_addr *peer, int *result);

/* The listener that has this address, for a packet that was sent to it; NULL. */
qg_endpoint *qg__endpoint_at(struct qg_engine *engine, const qg_addr *to);

/* A datagram, or several of one size, came in: find the connections they are for (acceptor.c). */
void qg__endpoint_receive(qg_endpoint *endpoint, const qg_dgram *dgram);

#endif
