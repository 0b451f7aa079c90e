#include "conn.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "h3.h"
#include "qlog.h"
#include "raw.h"
#include "resumption.h"

/* A NAT forgets a UDP flow after 30 s at the least (RFC 9308, section 3.5). */
#define KEEP_ALIVE_MAX_NS (15 * QG_NS_PER_S)

/* A NAT may also forget a client at once, and a client that only receives has nothing to say: its server
 * goes on sending to where it was, until the client speaks. Whoever waits notices a second. */
#define SILENCE_NS QG_NS_PER_S

/* How many abandoned streams a client's connection may gather, at some 500 bytes each. A server's
 * may gather a quarter of its stream limit, which they count against. */
#define ABANDONED_CLIENT 4096
#define ABANDONED_STEP   16 /* how many are gathered before the list is looked through */

/* ------------------------------------------------------------- life */

void qg__conn_touch(qg_conn *conn) {
    if (qg__link_alone(&conn->work)) {
        qg__link_append(&conn->engine->work, &conn->work);
    }
}

void qg__conn_dirty(qg_conn *conn) {
    if (qg__link_alone(&conn->dirty)) {
        qg__link_append(&conn->engine->dirty, &conn->dirty);
    }
}

static bool grow_slots(qg_engine *e) {
    if (e->slot_capacity >= e->max_connections) {
        return false;
    }
    uint32_t capacity = e->slot_capacity > 0 ? 2 * e->slot_capacity : 64;
    capacity = capacity < e->max_connections ? capacity : e->max_connections;
    qg_slot *slots = realloc(e->slots, capacity * sizeof *slots);
    if (slots == NULL) {
        return false;
    }
    for (uint32_t i = capacity; i > e->slot_capacity; i--) {
        slots[i - 1] = (qg_slot){NULL, e->slot_free};
        e->slot_free = i - 1;
    }
    e->slots = slots;
    e->slot_capacity = capacity;
    return true;
}

qg_conn *qg__conn_new(qg_engine *e, qg_endpoint *endpoint, qg_config *config, bool is_server,
                      const qg_addr *local, const qg_addr *peer) {
    if (e->slot_free == UINT32_MAX && !grow_slots(e)) {
        return NULL;
    }
    qg_conn *conn = qg__pool_get(&e->conn_pool);
    if (conn == NULL) {
        return NULL;
    }
    uint32_t slot = e->slot_free;
    e->slot_free = e->slots[slot].next_free;
    e->slots[slot].conn = conn;
    conn->id = (uint64_t)++e->generation << 32 | slot;
    conn->engine = e;
    conn->endpoint = endpoint;
    conn->config = qg__config_reference(config);
    conn->is_server = is_server;
    conn->raw = config->options.raw != 0;
    conn->local = *local;
    conn->peer = *peer;
    conn->h3.goaway_sent = conn->h3.goaway_received = QG_NEVER;
    conn->h3.peer_max_field_section_size = QG_NEVER; /* until SETTINGS say otherwise */
    conn->quic.kind = QG_TIMER_QUIC;
    conn->phase.kind = QG_TIMER_PHASE;
    conn->alive.kind = QG_TIMER_ALIVE;
    qg__link_init(&conn->work);
    qg__link_init(&conn->dirty);
    qg__link_init(&conn->deferred);
    qg__link_init(&conn->pending);
    qg__link_init(&conn->of_endpoint);
    qg__link_append(&endpoint->conns, &conn->of_endpoint);
    endpoint->connections++;
    e->counters->connections++;
    return conn;
}

void qg__conn_list(qg_conn *conn) {
    qg_engine *e = conn->engine;
    uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN];
    uint32_t count = 0;
    if (e->group == NULL || !conn->is_server) {
        return;
    }
    if (conn->state == QG_CONN_ENDED) {
        qg__group_unlist(e->group, e->cids.origin.slot, qg__conn_slot(conn->id));
        return;
    }
    if (conn->retried) {
        memcpy(cids[count++], conn->initial_cid, QG_CID_LEN);
    }
    for (unsigned i = 0; i < conn->cid_count; i++) {
        memcpy(cids[count++], conn->cids[i], QG_CID_LEN);
    }
    if (!qg__group_list(e->group, e->cids.origin.slot, qg__conn_slot(conn->id), &conn->peer,
                        &conn->local, (const uint8_t(*)[QG_CID_LEN])cids, count) &&
        !conn->unlisted) {
        conn->unlisted = true;
        e->counters->connections_unlisted++;
    }
}

void qg__conn_free_streams(qg_conn *conn) {
    for (uint32_t i = 0; i < conn->streams.capacity;) {
        if (conn->streams.slots[i] != NULL) {
            qg__stream_free(conn->streams.slots[i]); /* another may move to this place */
        } else {
            i++;
        }
    }
}

void qg__conn_free(qg_conn *conn) {
    qg_engine *e = conn->engine;
    uint32_t slot = qg__conn_slot(conn->id);
    qg__conn_free_streams(conn);
    while (!qg__link_alone(&conn->pending)) {
        qg__pending_free(QG_CONTAINER(conn->pending.next, qg_pending, link));
    }
    for (unsigned i = 0; i < conn->cid_count; i++) {
        qg__cid_retire(&e->cids, conn->cids[i], QG_CID_LEN);
    }
    qg__hash_remove(&e->initial_cids, conn->initial_cid, conn->initial_cid_len);
    qg__timer_clear(&e->timers, &conn->quic);
    qg__timer_clear(&e->timers, &conn->phase);
    qg__timer_clear(&e->timers, &conn->alive);
    qg__link_remove(&conn->work);
    qg__link_remove(&conn->dirty);
    qg__link_remove(&conn->of_endpoint);
    free(conn->streams.slots);
    free(conn->abandoned);
    qg__session_forget(&conn->handshake);
    if (conn->quiche != NULL) {
        quiche_conn_free(conn->quiche);
    }
    qg__qlog_conn_gone(conn);
    qg_config_free(conn->config);
    if (conn->state != QG_CONN_ENDED) {
        conn->endpoint->connections--;
        conn->endpoint->half_open -= conn->half_open;
        e->counters->connections--;
    }
    conn->state = QG_CONN_ENDED;
    qg__conn_list(conn);
    e->slots[slot] = (qg_slot){NULL, e->slot_free};
    e->slot_free = slot;
    qg__pool_put(&e->conn_pool, conn);
}

int qg__conn_start(qg_conn *conn, const uint8_t *scid, size_t scid_len, const uint8_t *retry_odcid,
                   size_t retry_odcid_len, const char *server_name) {
    qg_engine *e = conn->engine;
    qg_config *config = conn->config;
    SSL *ssl = conn->is_server ? qg__tls_accept(config->tls, &conn->handshake)
                               : qg__tls_connect(config->tls, server_name, &conn->handshake);
    if (ssl == NULL) {
        return conn->is_server ? QG_NOMEM : QG_INVALID;
    }
    uint8_t token[QG_RESET_TOKEN];
    qg__reset_token(qg__engine_keys(e, config), scid, scid_len, token);
    quiche_config_set_stateless_reset_token(config->quiche, token);
    conn->quiche = quiche_conn_new_with_tls(
        scid, scid_len, retry_odcid, retry_odcid_len,
        (const struct sockaddr *)(const void *)conn->local.bytes, conn->local.len,
        (const struct sockaddr *)(const void *)conn->peer.bytes, conn->peer.len, config->quiche,
        ssl, conn->is_server);
    if (conn->quiche == NULL) {
        return QG_NOMEM; /* and quiche freed the SSL */
    }
    conn->ssl = ssl;
    if (conn->is_server) {
        qg__tls_bind_early_data(ssl, config->digest);
    }
    if (config->qlog_dir != NULL) {
        qg__qlog_begin(conn, config->qlog_dir, true, false); /* without memory for it: without it */
    }
    uint64_t patience = config->options.handshake_timeout_ms;
    if (patience > 0) {
        qg__timer_set(&e->timers, &conn->phase, qg__later(e->now_ns, patience, QG_NS_PER_MS));
    }
    return QG_OK;
}

/* ------------------------------------------------------------- established */

/* One spare id, so that a client may move (RFC 9000, section 5.1.1). The first is never retired by
 * us: quiche's clients know only its reset token. */
static void issue_spare_cid(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (conn->cid_count >= sizeof conn->cids / sizeof *conn->cids ||
        quiche_conn_scids_left(conn->quiche) == 0) {
        return;
    }
    uint8_t *cid = conn->cids[conn->cid_count];
    if (qg__cid_issue(&e->cids, conn->id, cid) != QG_OK) {
        return;
    }
    uint8_t token[QG_RESET_TOKEN];
    uint64_t sequence;
    qg__reset_token(qg__engine_keys(e, conn->config), cid, QG_CID_LEN, token);
    if (quiche_conn_new_scid(conn->quiche, cid, QG_CID_LEN, token, false, &sequence) < 0) {
        qg__cid_retire(&e->cids, cid, QG_CID_LEN);
        return;
    }
    conn->cid_count++;
    qg__conn_list(conn);
}

/* The peer no longer uses some of our ids. */
static void retire_cids(qg_conn *conn) {
    if (quiche_conn_retired_scids(conn->quiche) == 0) {
        return;
    }
    quiche_connection_id_iter *iter = quiche_conn_retired_scid_iter(conn->quiche);
    const uint8_t *cid;
    size_t len;
    while (quiche_connection_id_iter_next(iter, &cid, &len)) {
        qg__cid_retire(&conn->engine->cids, cid, len);
        for (unsigned i = 0; i < conn->cid_count; i++) {
            if (len == QG_CID_LEN && memcmp(conn->cids[i], cid, len) == 0) {
                memmove(conn->cids[i], conn->cids[i + 1],
                        (size_t)(conn->cid_count - i - 1) * QG_CID_LEN);
                conn->cid_count--;
                break;
            }
        }
    }
    quiche_connection_id_iter_free(iter);
    qg__conn_list(conn);
    issue_spare_cid(conn);
}

static uint64_t keep_alive_interval(const qg_conn *conn) {
    uint64_t ours = conn->config->options.max_idle_ms;
    uint64_t peers = qgq_conn_peer_idle_timeout_ms(conn->quiche);
    uint64_t idle = ours == 0 || (peers > 0 && peers < ours) ? peers : ours;
    uint64_t third = qg__later(0, idle, QG_NS_PER_MS) / 3;
    return third > 0 ? qg__min64(third, KEEP_ALIVE_MAX_NS) : KEEP_ALIVE_MAX_NS;
}

static uint64_t first_silence(const qg_conn *conn) {
    return conn->is_server ? conn->alive_ns : qg__min64(conn->alive_ns, SILENCE_NS);
}

void qg__conn_set_alive(qg_conn *conn) {
    bool late = conn->heard && conn->silence_ns > first_silence(conn);
    if (conn->active == 0 || conn->state != QG_CONN_OPEN ||
        (qg__timer_armed(&conn->alive) && !late)) {
        return;
    }
    if (late) {
        conn->silence_ns = first_silence(conn);
    }
    qg__timer_set(&conn->engine->timers, &conn->alive, conn->engine->now_ns + conn->silence_ns);
}

/* A request is under way. A client speaks the later the longer nothing came but acknowledgements: its
 * server may be thinking. */
static void on_silence(qg_conn *conn) {
    if (conn->heard && !conn->is_server) {
        conn->silence_ns = first_silence(conn);
    } else {
        quiche_conn_send_ack_eliciting(conn->quiche);
        conn->engine->counters->keep_alives_sent++;
        conn->silence_ns = qg__min64(2 * conn->silence_ns, conn->alive_ns);
    }
    conn->heard = false;
    qg__conn_dirty(conn); /* which arms it again */
}

static void say_established(qg_conn *conn) {
    qg_engine *e = conn->engine;
    bool sessions = conn->is_server && (conn->endpoint->listen.flags & QG_LISTEN_SESSIONS) != 0;
    uint64_t token = conn->token != 0 ? conn->token : sessions ? conn->endpoint->listen.token : 0;
    if (token == 0 || conn->announced) {
        return;
    }
    conn->announced = true;
    conn->token =
        token; /* a session's end and streams are told too, until QG_OP_ATTACH to the listener */
    const uint8_t *alpn;
    size_t len;
    quiche_conn_application_proto(conn->quiche, &alpn, &len);
    memcpy(qg__events_at(&e->events), alpn, len);
    qg_event *event =
        qg__events_add(&e->events, conn->is_server ? QG_EVENT_ACCEPTED : QG_EVENT_CONNECTED);
    event->token = token;
    event->conn = conn->id;
    event->head_len = (uint32_t)len;
    qg__events_took(&e->events, len);
}

static void on_established(qg_conn *conn) {
    qg_engine *e = conn->engine;
    conn->state = QG_CONN_OPEN;
    conn->established = true;
    conn->endpoint->half_open -= conn->half_open;
    conn->half_open = false;
    qg__timer_clear(&e->timers, &conn->phase);
    e->counters->handshakes_completed++;
    e->counters->handshakes_resumed += SSL_session_reused(conn->ssl) == 1;
    conn->alive_ns = keep_alive_interval(conn);
    conn->silence_ns = first_silence(conn);
    if (conn->is_server) {
        issue_spare_cid(conn);
    }
    qg__conn_start_streams(conn);
    qg__conn_end_early(conn);
    say_established(conn);
    if (conn->endpoint->stopping && conn->is_server) {
        qg__conn_drain(conn);
    }
}

/* ------------------------------------------------------------- one look */

static void follow_path(qg_conn *conn) {
    quiche_path_event *event;
    while ((event = quiche_conn_path_event_next(conn->quiche)) != NULL) {
        if (quiche_path_event_type(event) == QUICHE_PATH_EVENT_PEER_MIGRATED) {
            struct sockaddr_storage local, peer;
            socklen_t local_len, peer_len;
            quiche_path_event_peer_migrated(event, &local, &local_len, &peer, &peer_len);
            memcpy(conn->local.bytes, &local, local_len);
            conn->local.len = local_len;
            memcpy(conn->peer.bytes, &peer, peer_len);
            conn->peer.len = peer_len;
            qg__conn_list(conn);
        }
        quiche_path_event_free(event);
    }
}

static bool say_late(qg_conn *conn) {
    for (uint32_t i = 0; conn->late && i < conn->streams.capacity; i++) {
        qg_stream *s = conn->streams.slots[i];
        if (s != NULL && !qg__waits_say(s)) {
            return false;
        }
    }
    conn->late = false;
    return true;
}

static bool say_goaway(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (!conn->goaway_due) {
        return true;
    }
    if (!qg__events_room(&e->events, 0)) {
        return false;
    }
    conn->goaway_due = false;
    if (conn->token != 0) {
        qg_event *event = qg__events_add(&e->events, QG_EVENT_GOAWAY);
        event->token = conn->token;
        event->conn = conn->id;
        event->stream = conn->h3.goaway_received;
    }
    return true;
}

/* Everything streams have to say. False when the ring has no room for more. */
static bool serve_streams(qg_conn *conn) {
    qg_engine *e = conn->engine;
    int64_t id;
    while ((id = quiche_conn_stream_writable_next(conn->quiche)) >= 0) {
        qg_stream *s = qg__streams_find(&conn->streams, (uint64_t)id);
        if (s != NULL && qg__stream_is_sending(s)) {
            qg__stream_writable(s);
        } else {
            /* The peer stopped what we had ended. quiche keeps the stream, which counts against the
             * peer's limit, until somebody was told. */
            quiche_conn_stream_capacity(conn->quiche, (uint64_t)id);
        }
    }
    if (conn->held > 0 && conn->state == QG_CONN_OPEN && !qg__h3_say_held(conn)) {
        return false;
    }
    for (qg_link *l = conn->deferred.next, *next; l != &conn->deferred; l = next) {
        next = l->next;
        if (!qg__h3_resume(QG_CONTAINER(l, qg_stream, deferred))) {
            return false;
        }
    }
    while (quiche_conn_is_readable(conn->quiche)) {
        if (!qg__engine_room(e, conn->config)) {
            return false;
        }
        conn->heard = true;
        id = quiche_conn_stream_readable_next(conn->quiche);
        qg_stream *s = id < 0 ? NULL : qg__streams_find(&conn->streams, (uint64_t)id);
        if (s != NULL && s->write.token != 0) {
            /* While nothing may be sent at all quiche names no stream that was stopped, and with the
             * end of what is read it forgets it: who waits to write would wait for good. */
            qg__stream_room(s);
        }
        if (id < 0 || !(conn->raw ? qg__raw_readable(conn, (uint64_t)id)
                                  : qg__h3_readable(conn, (uint64_t)id))) {
            break;
        }
    }
    return true;
}

static bool serve(qg_conn *conn) {
    /* Tickets before responses: who has the response may end the program. */
    qg__conn_read_settings(conn);
    /* GOAWAY comes on a stream, and nothing else may come for long. */
    if (!say_late(conn) || !qg__conn_say_tickets(conn) || !serve_streams(conn) ||
        !say_goaway(conn) || !qg__conn_say_tickets(conn)) {
        return false;
    }
    if (conn->state != QG_CONN_OPEN) {
        return true;
    }
    if (conn->retire && !conn->draining) {
        conn->draining = true;
        conn->goaway_due = true;
        if (conn->is_server) {
            qg__conn_drain(conn);
        }
        qg__conn_touch(conn);
    }
    follow_path(conn);
    retire_cids(conn);
    return qg__conn_open_pending(conn);
}

/* Nothing is under way, and quiche forgot every stream whose end we gave it: the peer has it all.
 */
bool qg__conn_process(qg_conn *conn) {
    if (conn->state == QG_CONN_HANDSHAKE && quiche_conn_is_established(conn->quiche)) {
        if (!qg__engine_room(conn->engine, conn->config)) {
            return false;
        }
        on_established(conn);
    }
    if (conn->state == QG_CONN_HANDSHAKE) {
        qg__conn_look_for_early(conn);
    }
    /* What came before the end is read before the end is told. */
    if ((conn->state == QG_CONN_OPEN || qg__conn_is_early(conn)) && !serve(conn)) {
        return false;
    }
    if (!qg__conn_look_for_end(conn)) {
        return false;
    }
    if (conn->state == QG_CONN_ENDED && conn->streams.count == 0 &&
        (conn->dead || quiche_conn_is_closed(conn->quiche))) {
        qg__conn_free(conn);
    }
    return true;
}

/* ------------------------------------------------------------- timers */

void qg__conn_on_timer(qg_conn *conn, qg_timer *timer) {
    switch (timer->kind) {
    case QG_TIMER_QUIC:
        quiche_conn_on_timeout(conn->quiche);
        qg__conn_dirty(conn);
        qg__conn_touch(conn);
        break;
    case QG_TIMER_PHASE:
        if (conn->state == QG_CONN_HANDSHAKE) {
            qg__conn_lost(conn, QG_TIMED_OUT, 0, "the handshake took too long");
        } else if (conn->state == QG_CONN_ENDED) {
            qg__conn_free_streams(conn); /* which nobody came to read */
            qg__conn_touch(conn);
        } else if (conn->state == QG_CONN_OPEN && conn->finishing) {
            qg__conn_close(conn, true, conn->raw ? 0 : H3_NO_ERROR, ""); /* its time is over */
        } else if (conn->state == QG_CONN_OPEN && conn->draining) {
            qg__conn_finish(conn, 0);
        } else if (conn->state == QG_CONN_OPEN) {
            qg__conn_drain(conn);
        }
        break;
    default: /* QG_TIMER_ALIVE */
        if (conn->state == QG_CONN_OPEN && conn->active > 0) {
            on_silence(conn);
        }
        break;
    }
}

/* Forget those that quiche has freed after all. */
static void sweep_abandoned(qg_conn *conn) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < conn->abandoned_count; i++) {
        if (quiche_conn_stream_capacity(conn->quiche, conn->abandoned[i]) !=
            QUICHE_ERR_INVALID_STREAM_STATE) {
            conn->abandoned[kept++] = conn->abandoned[i];
        }
    }
    conn->abandoned_count = kept;
}

static bool grow_abandoned(qg_conn *conn) {
    uint32_t capacity = conn->abandoned_capacity + ABANDONED_STEP;
    uint64_t *grown = realloc(conn->abandoned, capacity * sizeof *grown);
    if (grown != NULL) {
        conn->abandoned = grown;
        conn->abandoned_capacity = capacity;
    }
    return grown != NULL;
}

void qg__conn_abandon(qg_conn *conn, uint64_t stream_id) {
    uint64_t limit =
        conn->is_server ? conn->config->options.initial_max_streams_bidi / 4 : ABANDONED_CLIENT;
    if (conn->abandoned_count == conn->abandoned_capacity) {
        sweep_abandoned(conn);
    }
    if (conn->abandoned_count == conn->abandoned_capacity && !grow_abandoned(conn)) {
        return;
    }
    conn->abandoned[conn->abandoned_count++] = stream_id;
    if (conn->abandoned_count > limit && !conn->retire) {
        sweep_abandoned(conn);
        conn->retire = conn->abandoned_count > limit;
        qg__conn_touch(conn);
    }
}
