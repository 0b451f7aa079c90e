/* acceptor.c: whose datagram is this, and may a stranger come in?
 *
 * What a stranger's packet can cost us is bounded: one that is not QUIC, too short (RFC 9000,
 * section 14.1) or for an unknown connection costs a look at its header; answers to strangers are
 * rationed and shorter than what they answer; state is made only for an Initial that decrypts. */
#include "engine.h"
#include "qlog.h"
#include "steer.h"

/* RFC 9000, section 14.1. */
#define INITIAL_MIN 1200

/* Answers to strangers: this many at once, and a second. A busy server's restart is noticed by a
 * thousand clients a second; a flood gains nothing. */
#define ANSWER_BURST 100
#define ANSWER_RATE  1000

/* Packets that may be resets, at once: when a server's worker dies all connections of a client to it
 * are told in one moment, by each of their ids. */
#define OFFER_BURST 4096

/* Packets handed to other workers: as many as one of them can use. A flood of forged ids takes no more
 * of them than it would by going there itself. */
#define HAND_OVER_BURST 10000
#define HAND_OVER_RATE  100000

/* With QG_RETRY_AUTO: handshakes under way up to which strangers are taken at their word. Each is some 200 us
 * of work and 40 kB, so a flood of forged addresses costs 4 MB at most; haproxy draws the line at the same
 * number (quic-retry-threshold). */
#define HALF_OPEN_CALM 100

/* After a listener was stopped it accepts those whom it sent a Retry: nobody else can, since their packets
 * come here. */
#define LAST_RETRY_NS (QG_TOKEN_VALID_S * QG_NS_PER_S)

typedef struct long_header {
    uint32_t version;
    uint8_t type; /* 0 Initial, 1 0-RTT, 2 Handshake, 3 Retry */
    const uint8_t *dcid, *scid, *token;
    size_t dcid_len, scid_len, token_len;
} long_header;

/* RFC 8999, section 5.1; RFC 9000, section 17.2. */
static bool parse_long(const uint8_t *p, size_t len, long_header *h) {
    const uint8_t *end = p + len;
    *h = (long_header){.version = qg__get32(p + 1), .type = p[0] >> 4 & 3};
    p += 5;
    h->dcid_len = *p++;
    h->dcid = p;
    if (h->dcid_len > QG_CID_MAX || (size_t)(end - p) < h->dcid_len + 1) {
        return false;
    }
    p += h->dcid_len;
    h->scid_len = *p++;
    h->scid = p;
    if (h->scid_len > QG_CID_MAX || (size_t)(end - p) < h->scid_len) {
        return false;
    }
    p += h->scid_len;
    if (h->version == QUICHE_PROTOCOL_VERSION && h->type == 0) {
        uint64_t token_len;
        size_t n = qg__varint_get(p, (size_t)(end - p), &token_len);
        if (n == 0 || token_len > (size_t)(end - p) - n) {
            return false;
        }
        h->token = p + n;
        h->token_len = (size_t)token_len;
    }
    return true;
}

static qg_conn *find(qg_engine *e, const uint8_t *cid, size_t len) {
    uint64_t id = qg__cid_find(&e->cids, cid, len);
    if (id == 0 && !qg__hash_get(&e->initial_cids, cid, len, &id)) {
        return NULL;
    }
    return qg__engine_conn(e, id);
}

static int64_t deliver(qg_conn *conn, uint8_t *data, size_t len, const qg_addr *from,
                       const qg_addr *to) {
    /* A client knows its address as its socket does, perhaps as "any". */
    const qg_addr *local = conn->is_server ? to : &conn->local;
    quiche_recv_info info = {(struct sockaddr *)(void *)(uintptr_t)from->bytes, from->len,
                             (struct sockaddr *)(void *)(uintptr_t)local->bytes, local->len};
    int64_t rc = quiche_conn_recv(conn->quiche, data, len, &info);
    if (rc < 0 && rc != QUICHE_ERR_DONE) {
        conn->recv_error = (int)rc;
    }
    qg__conn_touch(conn);
    qg__conn_dirty(conn);
    return rc;
}

static bool is_peer_cid(qg_conn *conn, const long_header *h) {
    const uint8_t *cid;
    size_t len;
    quiche_conn_destination_id(conn->quiche, &cid, &len);
    return len == h->scid_len && memcmp(cid, h->scid, len) == 0;
}

/* The first server that answers is the one: "any subsequent packet it receives on that connection with a
 * different Source Connection ID" is discarded (RFC 9000, section 7.2), which quiche does not do. Two answer
 * when a first flight of several packets comes just when workers change, and when one is slow and its client
 * asked again. */
static void deliver_handshake(qg_conn *conn, const long_header *h, uint8_t *data, size_t len,
                              const qg_addr *from, const qg_addr *to) {
    if (conn->answered && !is_peer_cid(conn, h)) {
        conn->engine->counters->datagrams_junk++;
        return;
    }
    deliver(conn, data, len, from, to);
    conn->answered |= h->type == 0 && is_peer_cid(conn, h);
}

/* ------------------------------------------------------------- answers to strangers */

static void answer(qg_endpoint *ep, const uint8_t *data, size_t len, const qg_addr *from,
                   const qg_addr *to) {
    uint8_t *room = ep->dp->ops->begin(ep->dp);
    if (room != NULL) {
        memcpy(room, data, len);
        ep->dp->ops->commit(ep->dp, len, len, to, from);
    }
}

static void offer_versions(qg_endpoint *ep, const long_header *h, const qg_addr *from,
                           const qg_addr *to) {
    qg_engine *e = ep->engine;
    uint8_t out[128];
    if (!qg__bucket_take(&e->version_bucket, e->now_ns, ANSWER_BURST, ANSWER_RATE)) {
        return;
    }
    int64_t n =
        quiche_negotiate_version(h->scid, h->scid_len, h->dcid, h->dcid_len, out, sizeof out);
    if (n > 0) {
        answer(ep, out, (size_t)n, from, to);
        e->counters->versions_sent++;
    }
}

static void send_retry(qg_endpoint *ep, const long_header *h, const qg_addr *from,
                       const qg_addr *to) {
    qg_engine *e = ep->engine;
    uint8_t scid[QG_CID_LEN], token[QG_TOKEN_MAX], out[INITIAL_MIN];
    qg__cid_write(e->cids.origin, QG_CID_NO_INDEX, scid);
    int token_len = qg__token_seal(qg__engine_keys(e, ep->config), qg__wall_s(), from, scid,
                                   sizeof scid, h->dcid, h->dcid_len, token);
    if (token_len < 0) {
        return;
    }
    int64_t n = quiche_retry(h->scid, h->scid_len, h->dcid, h->dcid_len, scid, sizeof scid, token,
                             (size_t)token_len, h->version, out, sizeof out);
    if (n > 0) {
        answer(ep, out, (size_t)n, from, to);
        e->counters->retries_sent++;
        ep->retried_ns = e->now_ns;
    }
}

static void reset_unknown(qg_endpoint *ep, const uint8_t *cid, size_t received, const qg_addr *from,
                          const qg_addr *to) {
    qg_engine *e = ep->engine;
    uint8_t out[64];
    if (!qg__bucket_take(&e->reset_bucket, e->now_ns, ANSWER_BURST, ANSWER_RATE)) {
        return;
    }
    size_t n = qg__reset_packet(qg__engine_keys(e, ep->config), cid, QG_CID_LEN, received, out,
                                sizeof out);
    if (n > 0) {
        answer(ep, out, n, from, to);
        e->counters->resets_sent++;
    }
}

/* ------------------------------------------------------------- other workers' packets */

/* Not twice: two workers that take each other for the right one would never stop. */
static void hand_over(qg_endpoint *ep, uint32_t slot, const uint8_t *data, size_t len,
                      const qg_addr *from, const qg_addr *to) {
    qg_engine *e = ep->engine;
    if (e->handed_over ||
        !qg__bucket_take(&e->handover_bucket, e->now_ns, HAND_OVER_BURST, HAND_OVER_RATE)) {
        e->counters->handed_over_lost++;
        return;
    }
    qg__handover_add(&e->handover, slot, data, len, from, to);
}

/* Is this id another worker's, and does he live? Then the packet is his, and no business of ours whatever
 * becomes of it: a reset would end a connection that is well. */
static bool is_anothers(qg_endpoint *ep, const uint8_t *cid, const uint8_t *data, size_t len,
                        const qg_addr *from, const qg_addr *to) {
    qg_engine *e = ep->engine;
    qg_cid_origin origin;
    uint32_t index;
    if (e->group == NULL || !ep->listening || !qg__cid_read(cid, QG_CID_LEN, &origin, &index) ||
        origin.slot == e->cids.origin.slot || !qg__group_is_served(e->group, origin)) {
        return false;
    }
    hand_over(ep, origin.slot, data, len, from, to);
    return true;
}

/* We take no new connections any more: does somebody else? */
static bool passed_on(qg_endpoint *ep, const uint8_t *data, size_t len, const qg_addr *from,
                      const qg_addr *to) {
    qg_engine *e = ep->engine;
    int slot = e->group != NULL && ep->stopping ? qg__steer_stranger(e->group, data, len) : -1;
    if (slot < 0 || slot == e->cids.origin.slot) {
        return false;
    }
    hand_over(ep, (uint32_t)slot, data, len, from, to);
    return true;
}

/* ------------------------------------------------------------- a new connection */

static bool wants_retry(const qg_endpoint *ep) {
    return ep->listen.retry == QG_RETRY_ALWAYS ||
           (ep->listen.retry == QG_RETRY_AUTO && ep->half_open >= HALF_OPEN_CALM);
}

/* A valid token tells the original id; its length, or 0 when no token was needed, or -1: go away.
 */
static int check_token(qg_endpoint *ep, const long_header *h, const qg_addr *from,
                       const qg_addr *to, uint8_t *odcid) {
    qg_engine *e = ep->engine;
    qg_cid_origin origin;
    uint32_t index;
    if (ep->listen.retry == QG_RETRY_NEVER) {
        return 0;
    }
    if (h->token_len > 0) {
        int n = qg__token_open(qg__engine_keys(e, ep->config), qg__wall_s(), from, h->dcid,
                               h->dcid_len, h->token, h->token_len, odcid);
        bool after_retry =
            qg__cid_read(h->dcid, h->dcid_len, &origin, &index) && index == QG_CID_NO_INDEX;
        if (n > 0 && after_retry) {
            return n;
        }
        e->counters->retry_tokens_refused++;
        if (after_retry) {
            return -1;
        }
        /* It is of another kind, or another server's: as good as none (RFC 9000, section 8.1.3). */
    }
    if (!wants_retry(ep)) {
        return 0;
    }
    send_retry(ep, h, from, to);
    return -1;
}

static void accept_initial(qg_endpoint *ep, const long_header *h, uint8_t *data, size_t len,
                           const qg_addr *from, const qg_addr *to) {
    qg_engine *e = ep->engine;
    uint8_t odcid[QG_CID_MAX];
    bool late = ep->stopping && (h->token_len == 0 || e->now_ns > ep->stopped_ns + LAST_RETRY_NS);
    int odcid_len = late ? 0 : check_token(ep, h, from, to, odcid);
    if (odcid_len < 0) {
        return;
    }
    late |= ep->stopping && odcid_len == 0;
    qg_conn *conn = late || ep->connections >= ep->listen.max_connections
                        ? NULL
                        : qg__conn_new(e, ep, ep->config, true, to, from);
    if (conn == NULL) {
        e->counters->connections_refused++;
        return;
    }
    conn->half_open = true;
    ep->half_open++;
    const uint8_t *scid = h->dcid; /* after a Retry: the id we gave there */
    size_t scid_len = h->dcid_len;
    bool ok = qg__hash_put(&e->initial_cids, h->dcid, h->dcid_len, conn->id);
    if (ok) {
        memcpy(conn->initial_cid, h->dcid, h->dcid_len);
        conn->initial_cid_len = (uint8_t)h->dcid_len;
    }
    conn->retried = odcid_len > 0;
    if (odcid_len == 0) {
        ok = ok && qg__cid_issue(&e->cids, conn->id, conn->cids[0]) == QG_OK;
        conn->cid_count = ok;
        scid = conn->cids[0];
        scid_len = QG_CID_LEN;
    }
    ok = ok && qg__conn_start(conn, scid, scid_len, odcid, (size_t)odcid_len, NULL) == QG_OK;
    /* What does not decrypt was not meant for us: nothing is kept of it, and nothing is answered. A
     * hello that was read and refused is told why (RFC 9001, section 4.8). */
    int64_t rc = ok ? deliver(conn, data, len, from, to) : QUICHE_ERR_DONE;
    if (rc < 0 && rc != QUICHE_ERR_TLS_FAIL) {
        qg__qlog_forget(conn);
        qg__conn_free(conn);
        e->counters->datagrams_junk++;
        return;
    }
    e->counters->connections_accepted++;
    qg__conn_list(conn);
}

/* ------------------------------------------------------------- demultiplexing */

/* A client that has completed a handshake with a worker that is gone, which did not get to see the end of
 * it, sends nothing else for a while. Before that it knows no token. */
static bool is_of_the_dead(const qg_endpoint *ep, const long_header *h) {
    const qg_engine *e = ep->engine;
    qg_cid_origin origin;
    uint32_t index;
    return e->group != NULL && ep->listening && h->type == 2 &&
           qg__cid_read(h->dcid, h->dcid_len, &origin, &index) &&
           origin.host_id == e->cids.origin.host_id && !qg__group_is_served(e->group, origin);
}

static void take_long(qg_endpoint *ep, uint8_t *data, size_t len, const qg_addr *from,
                      const qg_addr *to) {
    qg_engine *e = ep->engine;
    long_header h;
    if (!parse_long(data, len, &h)) {
        e->counters->datagrams_junk++;
        return;
    }
    qg_conn *conn = find(e, h.dcid, h.dcid_len);
    bool ours = h.dcid_len == QG_CID_LEN && conn == NULL;
    if (conn != NULL && conn->endpoint == ep && conn->state == QG_CONN_HANDSHAKE &&
        !conn->is_server) {
        deliver_handshake(conn, &h, data, len, from, to);
    } else if (conn != NULL && conn->endpoint == ep) {
        deliver(conn, data, len, from, to);
    } else if (ours && is_anothers(ep, h.dcid, data, len, from, to)) {
        return;
    } else if (ours && is_of_the_dead(ep, &h)) {
        reset_unknown(ep, h.dcid, len, from, to);
    } else if (conn != NULL || !ep->listening || h.version == 0 || len < INITIAL_MIN) {
        e->counters->datagrams_junk++;
    } else if (!quiche_version_is_supported(h.version)) {
        offer_versions(ep, &h, from, to);
    } else if (h.type <= 1 && h.token_len == 0 && passed_on(ep, data, len, from, to)) {
        return;
    } else if (h.type == 0 && h.dcid_len >= 8 && (data[0] & 0x40) != 0) {
        accept_initial(ep, &h, data, len, from, to);
    } else {
        e->counters->datagrams_junk++;
    }
}

/* A stateless reset bears no id that we know: its last bytes tell the connection that it ends, and
 * quiche knows them (RFC 9000, section 10.3.1). Rationed, since anybody can send what looks alike and
 * makes every connection to that address look at it. True when it was one. */
static bool take_reset(qg_endpoint *ep, const uint8_t *data, size_t len, const qg_dgram *whole) {
    qg_engine *e = ep->engine;
    if (qg__link_alone(&ep->conns) ||
        !qg__bucket_take(&e->offer_bucket, e->now_ns, OFFER_BURST, ANSWER_RATE)) {
        return false;
    }
    for (qg_link *l = ep->conns.next; l != &ep->conns; l = l->next) {
        qg_conn *conn = QG_CONTAINER(l, qg_conn, of_endpoint);
        /* One that was closed by an earlier reset of this turn is not looked at before its end: it
         * would take those of all its neighbours for its own. */
        if (conn->is_server || conn->state != QG_CONN_OPEN || quiche_conn_is_closed(conn->quiche) ||
            !qg__addr_equal(&conn->peer, &whole->from)) {
            continue;
        }
        memcpy(e->io, data, len); /* quiche writes into what it is given */
        deliver(conn, e->io, len, &whole->from, &whole->to);
        if (quiche_conn_is_closed(conn->quiche)) {
            return true;
        }
    }
    return false;
}

static void take_short(qg_endpoint *ep, uint8_t *data, size_t len, const qg_dgram *whole) {
    qg_engine *e = ep->engine;
    qg_conn *conn = find(e, data + 1, QG_CID_LEN);
    if (conn != NULL && conn->endpoint == ep) {
        deliver(conn, data, len, &whole->from, &whole->to);
        return;
    }
    if (take_reset(ep, data, len, whole)) {
        return;
    }
    e->counters->unknown_connection_ids++;
    if (is_anothers(ep, data + 1, data, len, &whole->from, &whole->to)) {
        return;
    }
    if (ep->listening) {
        reset_unknown(ep, data + 1, len, &whole->from, &whole->to);
    }
}

void qg__endpoint_receive(qg_endpoint *ep, const qg_dgram *dgram) {
    qg_engine *e = ep->engine;
    size_t segment = dgram->segment > 0 ? dgram->segment : dgram->len;
    if (dgram->len == 0) {
        e->counters->datagrams_received++;
        e->counters->datagrams_junk++;
        return;
    }
    for (size_t at = 0; at < dgram->len; at += segment) {
        uint8_t *data = dgram->data + at;
        size_t len = qg__min(segment, dgram->len - at);
        e->counters->datagrams_received++;
        e->counters->receive_coalesced += segment < dgram->len;
        if (len < QG_PACKET_MIN) {
            e->counters->datagrams_junk++;
        } else if (data[0] & 0x80) {
            take_long(ep, data, len, &dgram->from, &dgram->to);
        } else if (data[0] & 0x40) {
            take_short(ep, data, len, dgram);
        } else {
            e->counters->datagrams_junk++;
        }
    }
}
