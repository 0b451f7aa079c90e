#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "trace.h"

/* How long a worker that has stopped and has no connection waits for those to whom it sent a Retry: longer
 * than a round trip takes. */
#define RETRY_PATIENCE_NS (1 * QG_NS_PER_S)

/* ------------------------------------------------------------- addresses */

int qg_addr_parse(qg_addr *out, const char *ip, uint16_t port) {
    *out = (qg_addr){0};
    struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)out->bytes;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out->bytes;
    if (inet_pton(AF_INET, ip, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        out->len = sizeof *in4;
        return QG_OK;
    }
    char host[64];
    const char *zone = strchr(ip, '%');
    size_t len = zone != NULL ? (size_t)(zone - ip) : strlen(ip);
    if (len >= sizeof host) {
        return QG_INVALID;
    }
    memcpy(host, ip, len);
    host[len] = '\0';
    *out = (qg_addr){0};
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1) {
        return QG_INVALID;
    }
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    if (zone != NULL) {
        in6->sin6_scope_id = qg__interface_index(zone + 1);
        if (in6->sin6_scope_id == 0) {
            return QG_INVALID;
        }
    }
    out->len = sizeof *in6;
    return QG_OK;
}

int qg_addr_format(const qg_addr *addr, char *ip, size_t capacity) {
    const struct sockaddr *sa = (const struct sockaddr *)(const void *)addr->bytes;
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)(const void *)sa;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
    bool v6 = sa->sa_family == AF_INET6;
    if (addr->len == 0 || capacity < INET6_ADDRSTRLEN ||
        inet_ntop(sa->sa_family, v6 ? (const void *)&in6->sin6_addr : &in4->sin_addr, ip,
                  (socklen_t)capacity) == NULL) {
        return QG_INVALID;
    }
    return ntohs(v6 ? in6->sin6_port : in4->sin_port);
}

static bool is_v6(const qg_addr *addr) {
    return ((const struct sockaddr *)(const void *)addr->bytes)->sa_family == AF_INET6;
}

/* ------------------------------------------------------------- life */

qg_endpoint *qg__endpoint_get(qg_engine *e, int index) {
    return index >= 0 && index < e->endpoint_count ? e->endpoints[index] : NULL;
}

static int endpoint_of(qg_engine *e, int index, qg_endpoint **out) {
    *out = e->abandoned ? NULL : qg__endpoint_get(e, index);
    return e->abandoned ? QG_FORKED : *out == NULL ? QG_GONE : QG_OK;
}

/* Give a datapath a place in the engine. The number, or a code: then the datapath is closed. */
static int adopt(qg_engine *e, qg_datapath *dp) {
    int index = 0;
    while (index < e->endpoint_count && e->endpoints[index] != NULL) {
        index++;
    }
    qg_endpoint **grown = e->endpoints;
    if (index == e->endpoint_count) {
        grown = realloc(e->endpoints, (size_t)(index + 1) * sizeof *grown);
        if (grown != NULL) {
            e->endpoints = grown;
            e->endpoints[e->endpoint_count++] = NULL;
        }
    }
    qg_endpoint *ep = calloc(1, sizeof *ep);
    if (grown == NULL || ep == NULL) {
        free(ep);
        dp->ops->close(dp);
        return QG_NOMEM;
    }
    ep->engine = e;
    ep->dp = dp;
    if (e->trace_fd >= 0) {
        qg__trace(dp, e->trace_fd, &e->now_ns);
    }
    ep->index = index;
    ep->patience.kind = QG_TIMER_ENDPOINT;
    qg__link_init(&ep->conns);
    e->endpoints[index] = ep;
    int rc = qg__engine_watch(e, ep, false, true);
    if (rc < 0) {
        qg__endpoint_free(ep);
        return rc;
    }
    return index;
}

void qg__endpoint_free(qg_endpoint *ep) {
    ep->engine->endpoints[ep->index] = NULL;
    qg__engine_unwatch(ep->engine, ep);
    qg__timer_clear(&ep->engine->timers, &ep->patience);
    ep->dp->ops->close(ep->dp);
    qg_config_free(ep->config);
    free(ep);
}

int qg_endpoint_udp(qg_engine *e, const qg_addr *bind_to, uint32_t flags, int fd) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    int result;
    qg_datapath *dp = qg__udp_open(bind_to, flags, fd, e->counters, &result);
    return dp != NULL ? adopt(e, dp) : result;
}

/* Put a datapath in the place of an endpoint's own, which it has taken over or given back. */
static int exchange(qg_endpoint *ep, qg_datapath *dp) {
    qg__engine_unwatch(ep->engine, ep);
    ep->dp = dp;
    return qg__engine_watch(ep->engine, ep, false, true);
}

int qg_endpoint_xdp(qg_engine *e, int index, const char *interface, char *reason, size_t capacity) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    bool fresh = ep->connections == 0 && (ep->dp->capabilities & QG_CAP_XDP) == 0;
    if (!fresh || e->group != NULL) {
        snprintf(reason, capacity, "%s",
                 fresh ? "workers share their port by UDP sockets, and an interface has one program"
                       : "the socket is in use already");
        return QG_STATE;
    }
    qg__untrace(ep->dp);
    qg_datapath *dp = NULL, *udp = ep->dp;
    snprintf(reason, capacity, "there is no UDP socket to stand behind it");
    if (strcmp(udp->ops->name, "udp") != 0) {
        rc = QG_INVALID;
    } else {
        dp = qg__xdp_open(udp, interface, reason, capacity, &rc);
    }
    if (dp != NULL && (rc = exchange(ep, dp)) < 0) {
        snprintf(reason, capacity, "the engine cannot watch it: %s", strerror(errno));
        exchange(ep, qg__xdp_give_back(dp));
    }
    if (e->trace_fd >= 0) {
        qg__trace(ep->dp, e->trace_fd, &e->now_ns);
    }
    return rc;
}

int qg_endpoint_pair(qg_engine *a, const qg_addr *addr_a, qg_engine *b, const qg_addr *addr_b,
                     int *out) {
    qg_datapath *ends[2];
    if (a->abandoned || b->abandoned) {
        return QG_FORKED;
    }
    if (!qg__pair_open(addr_a, a->counters, addr_b, b->counters, ends)) {
        return QG_NOMEM;
    }
    out[0] = adopt(a, ends[0]);
    out[1] = adopt(b, ends[1]);
    return out[0] < 0 ? out[0] : out[1] < 0 ? out[1] : QG_OK;
}

int qg_endpoint_close(qg_engine *e, int index) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    if (ep->connections > 0) {
        return QG_STATE;
    }
    while (!qg__link_alone(&ep->conns)) {
        qg__conn_free(QG_CONTAINER(ep->conns.next, qg_conn, of_endpoint)); /* only late packets' */
    }
    ep->dp->ops->flush(ep->dp);
    qg__endpoint_free(ep);
    return QG_OK;
}

int qg_endpoint_info_of(qg_engine *e, int index, qg_endpoint_info *out) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    *out = (qg_endpoint_info){.local = ep->dp->local,
                              .capabilities = ep->dp->capabilities,
                              .receive_buffer = ep->dp->receive_buffer,
                              .send_buffer = ep->dp->send_buffer,
                              .connections = ep->connections,
                              .fd = ep->dp->fd};
    return QG_OK;
}

int qg_engine_inject(qg_engine *e, int index, uint8_t *packet, size_t len, const qg_addr *from,
                     const qg_addr *to) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    if (len > QG_RUN_MAX) {
        return QG_TOO_LARGE;
    }
    qg_dgram dgram = {packet, (uint32_t)len, (uint32_t)len, *from, *to};
    e->now_ns = qg__now_ns();
    qg__endpoint_receive(ep, &dgram);
    return QG_OK;
}

qg_endpoint *qg__endpoint_at(qg_engine *e, const qg_addr *to) {
    for (int i = 0; i < e->endpoint_count; i++) {
        qg_endpoint *ep = e->endpoints[i];
        /* Family and port; then the address, unless it has all of them. */
        if (ep != NULL && ep->listening && memcmp(ep->dp->local.bytes, to->bytes, 4) == 0 &&
            (ep->dp->wildcard || qg__addr_equal(&ep->dp->local, to))) {
            return ep;
        }
    }
    return NULL;
}

/* ------------------------------------------------------------- client sockets */

int qg_endpoint_client_xdp(qg_engine *e, const char *interface, char *reason, size_t capacity) {
    int rc = e->abandoned ? QG_FORKED : QG_STATE;
    if (rc == QG_FORKED || e->client_xdp >= 0) {
        snprintf(reason, capacity, "connections of this thread go by another interface");
        return rc;
    }
    qg_datapath *dp = NULL;
    for (int i = 0; i < 2 && dp == NULL; i++) { /* a system without IPv6 has no "::" */
        qg_addr any;
        qg_addr_parse(&any, i == 0 ? "::" : "0.0.0.0", 0);
        dp = qg__udp_open(&any, 0, -1, e->counters, &rc);
    }
    if (dp != NULL) {
        dp->wildcard = false; /* as for the others, below */
        rc = adopt(e, dp);
    }
    if (rc < 0) {
        snprintf(reason, capacity, "there is no socket for it");
        return rc;
    }
    int index = rc;
    rc = qg_endpoint_xdp(e, index, interface, reason, capacity);
    if (rc < 0) {
        qg__endpoint_free(e->endpoints[index]);
        return rc;
    }
    e->endpoints[index]->client = true;
    return e->client_xdp = index;
}

/* IPv4's address as a socket for both families has it. */
static void map_v4(qg_addr *addr) {
    qg_addr v4 = *addr;
    qg_addr_parse(addr, "::ffff:0.0.0.0", 0);
    memcpy(addr->bytes + 2, v4.bytes + 2, 2);
    memcpy(addr->bytes + 20, v4.bytes + 4, 4);
}

static qg_endpoint *client_socket(qg_engine *e, const qg_addr *peer, int *result) {
    bool v6 = is_v6(peer);
    unsigned turn = e->client_next[v6]++ % QG_CLIENT_SOCKETS;
    int *place = &e->client_endpoints[v6][turn];
    if (*place >= 0) {
        return e->endpoints[*place];
    }
    qg_addr any;
    qg_addr_parse(&any, v6 ? "::" : "0.0.0.0", 0);
    qg_datapath *dp = qg__udp_open(&any, QG_ENDPOINT_V6ONLY, -1, e->counters, result);
    int index = dp != NULL ? adopt(e, dp) : *result;
    if (index < 0) {
        *result = index;
        return NULL;
    }
    /* A client does not mind which of the host's addresses its packets bear. */
    dp->wildcard = false;
    *place = index;
    e->endpoints[index]->client = true;
    return e->endpoints[index];
}

qg_endpoint *qg__endpoint_for(qg_engine *e, int index, qg_addr *peer, int *result) {
    qg_endpoint *ep = qg__endpoint_get(e, index);
    if (index == QG_ENDPOINT_AUTO || (ep != NULL && is_v6(peer) && !is_v6(&ep->dp->local))) {
        return client_socket(e, peer, result);
    }
    if (ep == NULL) {
        *result = QG_GONE;
    } else if (is_v6(&ep->dp->local) && !is_v6(peer)) {
        map_v4(peer);
    }
    return ep;
}

/* ------------------------------------------------------------- listening */

int qg_listen(qg_engine *e, int index, const qg_listen_options *options, qg_config *config) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    if (options->abi != QG_ABI || !config->options.is_server || options->token == 0) {
        return QG_INVALID;
    }
    if (ep->listening) {
        return QG_STATE;
    }
    ep->config = qg__config_reference(config);
    ep->listen = *options;
    ep->credit = options->credit;
    ep->listening = true;
    return QG_OK;
}

void qg__endpoint_check_idle(qg_endpoint *ep) {
    qg_engine *e = ep->engine;
    if (!ep->stopping || ep->connections > 0) {
        return;
    }
    /* Those who were sent a Retry just now come back to us, and to nobody else of our group. */
    if (e->group != NULL && ep->retried_ns > 0 && e->now_ns < ep->retried_ns + RETRY_PATIENCE_NS) {
        qg__timer_set(&e->timers, &ep->patience, ep->retried_ns + RETRY_PATIENCE_NS);
        return;
    }
    ep->idle_due = true;
}

int qg_listen_stop(qg_engine *e, int index, uint64_t spread_us) {
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    if (!ep->listening) {
        return QG_STATE;
    }
    e->now_ns = qg__now_ns();
    ep->stopping = true;
    ep->stopped_ns = e->now_ns;
    uint64_t gap_us = qg__min64(QG_GOAWAY_GAP_US, spread_us / (ep->connections + 1));
    uint64_t at = e->now_ns;
    for (qg_link *l = ep->conns.next; l != &ep->conns; l = l->next) {
        qg__conn_drain_at(QG_CONTAINER(l, qg_conn, of_endpoint), at);
        at += gap_us * QG_NS_PER_US;
    }
    qg__endpoint_check_idle(ep);
    return QG_OK;
}

int qg_listen_close(qg_engine *e, int index, uint64_t code) {
    if (code > QG_VARINT_MAX) {
        return QG_INVALID;
    }
    qg_endpoint *ep;
    int rc = endpoint_of(e, index, &ep);
    if (rc < 0) {
        return rc;
    }
    ep->stopping = true;
    ep->retried_ns = 0;
    for (qg_link *l = ep->conns.next; l != &ep->conns; l = l->next) {
        qg__conn_close(QG_CONTAINER(l, qg_conn, of_endpoint), true, code, "");
    }
    qg__endpoint_check_idle(ep);
    return QG_OK;
}
