/* flush.c: a connection's packets into its datapath. */
#include "engine.h"
#include "resumption.h"

/* The addresses that quiche wants a packet to take. */
static void addresses(const quiche_send_info *info, qg_addr *from, qg_addr *to) {
    memcpy(from->bytes, &info->from, info->from_len);
    from->len = info->from_len;
    memcpy(to->bytes, &info->to, info->to_len);
    to->len = info->to_len;
}

static bool same_path(const quiche_send_info *a, const quiche_send_info *b) {
    return a->to_len == b->to_len && a->from_len == b->from_len &&
           memcmp(&a->to, &b->to, a->to_len) == 0 && memcmp(&a->from, &b->from, a->from_len) == 0;
}

static void commit(qg_datapath *dp, size_t len, size_t segment, const quiche_send_info *info) {
    qg_addr from, to;
    addresses(info, &from, &to);
    dp->ops->commit(dp, len, segment, &from, &to);
}

/* One run: packets of one length to one address, and a shorter one at the end. What does not fit
 * the run (a probe of the path MTU is longer, a packet for another path) follows as a run of its
 * own. Returns the packets pulled; 0: quiche has no more. */
static unsigned send_run(qg_conn *conn, uint8_t *room) {
    qg_datapath *dp = conn->endpoint->dp;
    /* QUIC allows a little more than one UDP send over IPv4 carries (RFC 9000, section 18.2). */
    size_t packet_max = qg__min(conn->config->options.max_udp_payload_size, QG_RUN_MAX);
    unsigned segments_max = dp->capabilities & QG_CAP_GSO ? QG_RUN_SEGMENTS_MAX : 1;
    quiche_send_info first, info;
    size_t len = 0, segment = 0;
    unsigned count = 0;
    while (count < segments_max && len + packet_max <= QG_RUN_MAX) {
        int64_t n = quiche_conn_send(conn->quiche, room + len, packet_max, &info);
        if (n <= 0) {
            break;
        }
        size_t size = (size_t)n;
        if (count > 0 && (size > segment || !same_path(&first, &info))) {
            commit(dp, len, segment, &first);
            commit(dp, size, size, &info);
            return count + 1;
        }
        if (count == 0) {
            first = info;
            segment = size;
        }
        count++;
        len += size;
        if (size < segment) {
            break;
        }
    }
    if (count > 0) {
        commit(dp, len, segment, &first);
    }
    return count;
}

static void set_timers(qg_conn *conn) {
    qg_engine *e = conn->engine;
    uint64_t due = qgq_conn_timeout_at_ns(conn->quiche, e->now_ns);
    if (due == QG_NEVER) {
        qg__timer_clear(&e->timers, &conn->quic);
    } else if (due != conn->quic.deadline_ns || !qg__timer_armed(&conn->quic)) {
        qg__timer_set(&e->timers, &conn->quic, due);
    }
    qg__conn_set_alive(conn);
}

bool qg__conn_flush(qg_conn *conn, unsigned *budget) {
    qg_datapath *dp = conn->endpoint->dp;
    bool more = true;
    while (more && *budget > 0) {
        uint8_t *room = dp->ops->begin(dp);
        if (room == NULL) {
            return false;
        }
        unsigned sent = send_run(conn, room);
        *budget -= sent < *budget ? sent : *budget;
        conn->begun = true;
        more = sent > 0 || qg__conn_on_sent(conn);
    }
    set_timers(conn);
    /* A client's handshake may become complete here: after early data was refused, quiche goes on with
     * it only when it is asked for packets. */
    bool completed = conn->state == QG_CONN_HANDSHAKE && quiche_conn_is_established(conn->quiche);
    if (completed || quiche_conn_is_closed(conn->quiche)) {
        qg__conn_touch(conn);
    }
    return !more;
}
