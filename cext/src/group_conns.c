/* group_conns.c: the list of each worker's connections, and what their peers are told when it died. */
#include <unistd.h>

#include "datapath.h"
#include "group.h"
#include "steer.h"
#include "token.h"

/* Resets sent before the list is told so, and in one call: a few milliseconds. */
#define BATCH   64
#define AT_ONCE 1024

/* A reset is shorter than what it answers; these answer nothing, and are as long as any. */
#define RESET_TRIGGER 1200

static group_conn *conns_of(const qg_group *g, uint32_t slot) {
    return &g->conns[(size_t)slot * g->header->connections];
}

/* ---------------------------------------------------------------- the worker's part */

bool qg__group_list(qg_group *g, uint32_t slot, uint32_t place, const qg_addr *peer,
                    const qg_addr *local, const uint8_t (*cids)[QG_CID_LEN], uint32_t count) {
    if (place >= g->header->connections) {
        return false;
    }
    group_conn *c = &conns_of(g, slot)[place];
    c->listed = 0;
    atomic_thread_fence(memory_order_seq_cst); /* nothing below is seen before that */
    qg__group_stepped();
    c->peer = *peer;
    qg__group_stepped();
    c->local = *local;
    qg__group_stepped();
    c->cid_count = count;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(c->cids[i], cids[i], QG_CID_LEN);
        qg__group_stepped();
    }
    if (g->slots[slot].top <= place) {
        g->slots[slot].top = place + 1;
    }
    qg__group_stepped();
    c->listed = 1;
    qg__group_stepped();
    return true;
}

void qg__group_unlist(qg_group *g, uint32_t slot, uint32_t place) {
    if (place < g->header->connections) {
        conns_of(g, slot)[place].listed = 0;
        qg__group_stepped();
    }
}

/* ---------------------------------------------------------------- after its death */

bool qg__group_is_served(const qg_group *g, qg_cid_origin origin) {
    if (origin.host_id != g->header->host_id || origin.slot >= g->header->slots) {
        return false;
    }
    uint64_t life = g->slots[origin.slot].life;
    uint8_t state = qg__life_state(life);
    return qg__life_generation(life) == origin.generation &&
           (state == QG_WORKER_ACCEPTING || state == QG_WORKER_DRAINING ||
            state == QG_WORKER_STARTING);
}

size_t qg_group_answer(qg_group *g, const uint8_t *packet, size_t len, uint8_t *out) {
    qg_cid_origin origin;
    uint32_t index;
    const uint8_t *cid = len >= QG_PACKET_MIN ? qg__packet_cid(packet) : NULL;
    if (cid == NULL || !qg__cid_read(cid, QG_CID_LEN, &origin, &index) ||
        origin.host_id != g->header->host_id || qg__group_is_served(g, origin)) {
        return 0;
    }
    qg_keys *keys = qg_group_keys(g);
    size_t n = keys != NULL ? qg__reset_packet(keys, cid, QG_CID_LEN, len, out, QG_RESET_ROOM) : 0;
    qg_keys_free(keys);
    return n;
}

/* A reset for each id of a connection. How many, or QG_AGAIN. */
static int send_resets(qg_datapath *dp, qg_keys *keys, const group_conn *c) {
    uint32_t count = c->cid_count < QG_LISTED_CIDS ? c->cid_count : QG_LISTED_CIDS;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *room = dp->ops->begin(dp);
        if (room == NULL) {
            return QG_AGAIN;
        }
        size_t n =
            qg__reset_packet(keys, c->cids[i], QG_CID_LEN, RESET_TRIGGER, room, QG_RESET_ROOM);
        dp->ops->commit(dp, n, n, &c->local, &c->peer);
    }
    return (int)count;
}

/* Peers that are told together, and then leave the list. */
typedef struct batch {
    uint32_t places[BATCH];
    uint8_t cids[BATCH][QG_CID_LEN];
    uint32_t count;
} batch;

static bool send_batch(group_conn *conns, qg_datapath *dp, batch *b) {
    if (dp->ops->flush(dp) != QG_OK) {
        return false;
    }
    for (uint32_t i = 0; i < b->count; i++) {
        group_conn *c = &conns[b->places[i]];
        if (memcmp(c->cids[0], b->cids[i], QG_CID_LEN) == 0) { /* else it is another one's by now */
            c->listed = 0;
            qg__group_stepped();
        }
    }
    b->count = 0;
    return true;
}

/* Copy the entry at `place`, if it is of a worker that is gone. Somebody may have claimed the slot, and
 * list connections of his own at this moment: so it is the life after the copy that counts. */
static bool copy_orphan(const qg_group *g, uint32_t slot, uint32_t place, group_conn *out) {
    const group_conn *c = &conns_of(g, slot)[place];
    qg_cid_origin origin;
    uint32_t index;
    if (c->listed == 0) {
        return false;
    }
    memcpy(out, c, sizeof *out);
    atomic_thread_fence(memory_order_seq_cst); /* nothing above is read after what follows */
    return !qg__cid_read(out->cids[0], QG_CID_LEN, &origin, &index) ||
           !qg__group_is_served(g, origin);
}

int qg__group_reset(qg_group *g, uint32_t slot, qg_datapath *dp, qg_keys *keys) {
    group_conn *conns = conns_of(g, slot), one;
    uint32_t top = g->slots[slot].top, connections = g->header->connections;
    batch b = {.count = 0};
    int sent = 0, n = 0;
    for (uint32_t at = top < connections ? top : connections; at-- > 0 && sent < AT_ONCE;) {
        if (!copy_orphan(g, slot, at, &one) || memcmp(one.local.bytes, dp->local.bytes, 4) != 0) {
            continue; /* or it knows another port, or family */
        }
        n = send_resets(dp, keys, &one);
        if (n < 0) {
            break;
        }
        sent += n;
        memcpy(b.cids[b.count], one.cids[0], QG_CID_LEN);
        b.places[b.count++] = at;
        if (b.count == BATCH && !send_batch(conns, dp, &b)) {
            return QG_AGAIN;
        }
    }
    return send_batch(conns, dp, &b) && n >= 0 ? sent : QG_AGAIN;
}

int qg_group_reset(qg_group *g, uint32_t slot, int fd) {
    qg_counters counters = {0};
    int result;
    if (slot >= g->header->slots) {
        return QG_INVALID;
    }
    int own = dup(fd); /* which the datapath closes */
    if (own < 0) {
        return QG_SYSTEM;
    }
    qg_keys *keys = qg_group_keys(g);
    qg_datapath *dp = qg__udp_open(NULL, 0, own, &counters, &result);
    if (dp != NULL) {
        result = keys != NULL ? qg__group_reset(g, slot, dp, keys) : QG_NOMEM;
        dp->ops->close(dp);
    }
    qg_keys_free(keys);
    return result;
}
