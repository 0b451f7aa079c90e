/* pair.c: a datapath in memory: what one end sends, the other receives. For tests, and for programs
 * that want a connection without a network. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "datapath.h"

/* More than any test sends in one turn; beyond it datagrams are lost, as in a socket's buffer. */
#define QUEUE_MAX 8192

typedef struct packet {
    struct packet *next;
    size_t len, segment;
    qg_addr from, to;
    uint8_t data[];
} packet;

typedef struct pair_end {
    qg_datapath base;
    struct pair_end *other; /* NULL when it was closed */
    packet *first, *last;   /* arrived here */
    unsigned queued;
    packet *lent; /* what the last receive gave out */
    uint8_t *tx;
    size_t tx_used; /* since begin */
    qg_pair_filter filter;
    void *filter_arg;
    qg_addr outside; /* what the other end sees as our address; none: that itself */
} pair_end;

static void free_list(packet *p) {
    while (p != NULL) {
        packet *next = p->next;
        free(p);
        p = next;
    }
}

static int pair_receive(qg_datapath *dp, qg_dgram *out, int max) {
    pair_end *end = (pair_end *)dp;
    free_list(end->lent);
    end->lent = NULL;
    int n = 0;
    while (n < max && end->first != NULL) {
        packet *p = end->first;
        end->first = p->next;
        end->queued--;
        p->next = end->lent;
        end->lent = p;
        out[n++] = (qg_dgram){p->data, (uint32_t)p->len, (uint32_t)p->segment, p->from, p->to};
        dp->counters->bytes_received += p->len;
    }
    if (end->first == NULL) {
        end->last = NULL;
        eventfd_t value;
        eventfd_read(dp->fd, &value);
    }
    dp->counters->receive_calls++;
    return n;
}

static uint8_t *pair_begin(qg_datapath *dp) {
    pair_end *end = (pair_end *)dp;
    end->tx_used = 0;
    return end->tx;
}

static void deliver(pair_end *end, const uint8_t *data, size_t len, const qg_addr *from,
                    const qg_addr *to) {
    pair_end *other = end->other;
    packet *p = other != NULL && other->queued < QUEUE_MAX ? malloc(sizeof *p + len) : NULL;
    if (p == NULL) {
        end->base.counters->send_errors++;
        return;
    }
    *p = (packet){.len = len, .segment = len, .from = *from, .to = *to};
    memcpy(p->data, data, len);
    if (other->last != NULL) {
        other->last->next = p;
    } else {
        other->first = p;
    }
    other->last = p;
    other->queued++;
}

/* As the NATs between do. False: nobody is there. */
static bool translate(const pair_end *end, const qg_addr **from, const qg_addr **to) {
    const pair_end *other = end->other;
    if (end->outside.len > 0) {
        *from = &end->outside;
    }
    if (other == NULL || other->outside.len == 0) {
        return true;
    }
    bool there = qg__addr_equal(*to, &other->outside);
    *to = &other->base.local;
    return there;
}

static void pair_commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                        const qg_addr *to) {
    pair_end *end = (pair_end *)dp;
    uint8_t *run = end->tx + end->tx_used;
    bool there = translate(end, &from, &to);
    for (size_t at = 0; at < len; at += segment) {
        size_t n = qg__min(segment, len - at);
        dp->counters->datagrams_sent++;
        dp->counters->bytes_sent += n;
        if (there && (end->filter == NULL || end->filter(end->filter_arg, run + at, n))) {
            deliver(end, run + at, n, from, to);
        }
    }
    end->tx_used += len;
}

static int pair_flush(qg_datapath *dp) {
    pair_end *end = (pair_end *)dp;
    if (end->other != NULL && end->other->first != NULL) {
        eventfd_write(end->other->base.fd, 1);
    }
    dp->counters->send_calls++;
    return QG_OK;
}

static int pair_errors(qg_datapath *dp, qg_unreachable *out, int max) {
    (void)dp, (void)out, (void)max;
    return 0;
}

static void pair_close(qg_datapath *dp) {
    pair_end *end = (pair_end *)dp;
    if (end->other != NULL) {
        end->other->other = NULL;
    }
    free_list(end->first);
    free_list(end->lent);
    if (dp->fd >= 0) {
        close(dp->fd);
    }
    free(end->tx);
    free(end);
}

static void pair_abandon(qg_datapath *dp) {
    close(dp->fd);
    dp->fd = -1;
}

static const qg_datapath_ops pair_ops = {"pair",     pair_receive, pair_begin, pair_commit,
                                         pair_flush, pair_errors,  pair_close, pair_abandon};

static pair_end *new_end(const qg_addr *addr, qg_counters *counters) {
    pair_end *end = calloc(1, sizeof *end);
    if (end == NULL) {
        return NULL;
    }
    end->base = (qg_datapath){.ops = &pair_ops,
                              .counters = counters,
                              .local = *addr,
                              .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                              .capabilities = QG_CAP_GSO | QG_CAP_BUFFERS | QG_CAP_PMTUD};
    end->tx = malloc(QG_RUN_MAX);
    if (end->base.fd < 0 || end->tx == NULL) {
        pair_close(&end->base);
        return NULL;
    }
    return end;
}

bool qg__pair_open(const qg_addr *addr_a, qg_counters *counters_a, const qg_addr *addr_b,
                   qg_counters *counters_b, qg_datapath *out[2]) {
    pair_end *a = new_end(addr_a, counters_a), *b = new_end(addr_b, counters_b);
    if (a == NULL || b == NULL) {
        if (a != NULL) {
            pair_close(&a->base);
        }
        if (b != NULL) {
            pair_close(&b->base);
        }
        return false;
    }
    a->other = b;
    b->other = a;
    out[0] = &a->base;
    out[1] = &b->base;
    return true;
}

void qg__pair_set_filter(qg_datapath *dp, qg_pair_filter filter, void *arg) {
    ((pair_end *)dp)->filter = filter;
    ((pair_end *)dp)->filter_arg = arg;
}

void qg__pair_rebind(qg_datapath *dp, const qg_addr *outside) {
    ((pair_end *)dp)->outside = *outside;
}
