/* request.c: requests that begin, wait and are given up. */
#include <stdlib.h>

#include "engine.h"
#include "h3.h"
#include "raw.h"

void qg__pending_free(qg_pending *p) {
    qg_engine *e = p->conn->engine;
    qg__timer_clear(&e->timers, &p->timer);
    qg__link_remove(&p->link);
    free(p->bytes);
    qg__pool_put(&e->pending_pool, p);
}

void qg__pending_fail(qg_pending *p, int result, uint64_t code) {
    qg_engine *e = p->conn->engine;
    p->result = result;
    p->code = code;
    p->conn_id = p->conn->id;
    p->conn = NULL;
    qg__timer_clear(&e->timers, &p->timer);
    qg__link_remove(&p->link);
    qg__link_append(&e->failed, &p->link);
}

static uint64_t deadline(const qg_engine *e, uint64_t timeout_us) {
    return timeout_us > 0 ? qg__later(e->now_ns, timeout_us, QG_NS_PER_US) : QG_NEVER;
}

/* What is left of a request's time, for the wait that takes over. */
static uint64_t remaining_us(const qg_engine *e, const qg_timer *timer) {
    if (!qg__timer_armed(timer)) {
        return 0;
    }
    uint64_t left = timer->deadline_ns > e->now_ns ? timer->deadline_ns - e->now_ns : 0;
    return left / QG_NS_PER_US + 1;
}

/* Keep a request that leaves in early data. Without memory it is left to quiche to send it again. */
static void keep_early(qg_stream *s, const uint8_t *head, size_t head_len, const uint8_t *body,
                       size_t body_len, uint16_t flags) {
    s->early = malloc(sizeof *s->early + head_len + body_len);
    if (s->early != NULL) {
        *s->early = (qg_early){flags, (uint32_t)head_len, (uint32_t)body_len};
        qg__copy(s->early->bytes, head, head_len);
        qg__copy(s->early->bytes + head_len, body, body_len);
    }
}

static int send_now(qg_conn *conn, const uint8_t *head, size_t head_len, const uint8_t *body,
                    size_t body_len, uint16_t flags, uint64_t token, uint64_t timeout_us) {
    qg_stream *s = qg__h3_open_request(conn);
    if (s == NULL) {
        return QG_NOMEM;
    }
    s->head_only = (flags & QG_HEAD) != 0;
    if (conn->state == QG_CONN_HANDSHAKE) {
        conn->early_sent = true;
        keep_early(s, head, head_len, body, body_len, flags);
    }
    int rc = qg__h3_send_head(s, head, head_len, body, body_len, flags);
    if (rc == QG_OK) {
        s->awaiting_head = true;
        rc = qg__wait_arm(s, &s->read, token, timeout_us);
    }
    if (rc < 0 && rc != QG_AGAIN) {
        s->released = true;
        qg__stream_fail(s, H3_REQUEST_CANCELLED, rc);
        qg__stream_settle(s);
        return rc;
    }
    return QG_OK;
}

static bool may_open(const qg_conn *conn, uint16_t flags) {
    bool now = conn->state == QG_CONN_OPEN ? qg__link_alone(&conn->pending)
                                           : qg__conn_is_early(conn) && (flags & QG_EARLY) != 0;
    return now && quiche_conn_peer_streams_left_bidi(conn->quiche) > 0;
}

/* Copy a request until a stream may be opened for it. */
static int wait_in_line(qg_conn *conn, const uint8_t *head, size_t head_len, const uint8_t *body,
                        size_t body_len, uint16_t flags, uint64_t token, uint64_t timeout_us) {
    qg_engine *e = conn->engine;
    qg_pending *p = qg__pool_get(&e->pending_pool);
    if (p == NULL) {
        return QG_NOMEM;
    }
    qg__link_init(&p->link);
    p->conn = conn;
    p->token = token;
    p->timer.kind = QG_TIMER_PENDING;
    p->flags = flags;
    p->request = true;
    p->head_len = (uint32_t)head_len;
    p->body_len = (uint32_t)body_len;
    p->bytes = malloc(head_len + body_len + 1);
    if (p->bytes == NULL ||
        (timeout_us > 0 && !qg__timer_set(&e->timers, &p->timer, deadline(e, timeout_us)))) {
        qg__pending_free(p);
        return QG_NOMEM;
    }
    qg__copy(p->bytes, head, head_len);
    qg__copy(p->bytes + head_len, body, body_len);
    qg__link_append(&conn->pending, &p->link);
    return QG_OK;
}

int qg__conn_request(qg_conn *conn, const uint8_t *head, size_t head_len, const uint8_t *body,
                     size_t body_len, uint16_t flags, uint64_t token, uint64_t timeout_us) {
    if (conn->state >= QG_CONN_ENDING) {
        return QG_CLOSED;
    }
    if (conn->draining) {
        return QG_REFUSED;
    }
    if (conn->is_server || conn->raw) {
        return QG_STATE;
    }
    return may_open(conn, flags)
               ? send_now(conn, head, head_len, body, body_len, flags, token, timeout_us)
               : wait_in_line(conn, head, head_len, body, body_len, flags, token, timeout_us);
}

int qg__conn_await_stream(qg_conn *conn, bool bidi, uint16_t flags, uint64_t token,
                          uint64_t timeout_us) {
    if (token == 0) {
        return QG_AGAIN;
    }
    int rc = wait_in_line(conn, NULL, 0, NULL, 0, flags, token, timeout_us);
    if (rc != QG_OK) {
        return rc;
    }
    qg_pending *p = QG_CONTAINER(conn->pending.prev, qg_pending, link);
    p->request = false;
    p->bidi = bidi;
    return QG_AGAIN;
}

/* False when the ring has no room. */
static bool say_opened(qg_conn *conn, qg_pending *p) {
    qg_events *events = &conn->engine->events;
    if (!qg__events_room(events, 0)) {
        return false;
    }
    qg_event *event = qg__events_add(events, QG_EVENT_OPENED);
    event->token = p->token;
    event->conn = conn->id;
    qg__pending_free(p);
    return true;
}

bool qg__conn_open_pending(qg_conn *conn) {
    /* Streams promised to those who were told that they may open one. Neither kind waits for the
     * other; requests are all of one. */
    uint64_t bidi = quiche_conn_peer_streams_left_bidi(conn->quiche);
    uint64_t uni = conn->raw ? quiche_conn_peer_streams_left_uni(conn->quiche) : 0;
    for (qg_link *l = conn->pending.next, *next; l != &conn->pending && bidi + uni > 0; l = next) {
        next = l->next;
        qg_pending *p = QG_CONTAINER(l, qg_pending, link);
        if (conn->state == QG_CONN_HANDSHAKE && !(p->flags & QG_EARLY)) {
            continue; /* not before the handshake is complete */
        }
        if ((p->flags & QG_EXTENDED) && !conn->h3.settings_seen) {
            continue;
        }
        uint64_t *left = p->request || p->bidi ? &bidi : &uni;
        if (*left == 0) {
            continue;
        }
        --*left;
        if (!p->request) {
            if (!say_opened(conn, p)) {
                return false;
            }
            continue;
        }
        int rc = send_now(conn, p->bytes, p->head_len, p->bytes + p->head_len, p->body_len,
                          p->flags, p->token, remaining_us(conn->engine, &p->timer));
        if (rc == QG_OK) {
            qg__pending_free(p);
        } else {
            qg__pending_fail(p, rc, 0);
        }
    }
    return true;
}

/* Nobody waits for this request any more. */
static void give_up(qg_stream *s, uint64_t code) {
    qg__wait_clear(s, &s->read);
    s->released = true;
    qg__stream_fail(s, code, QG_STATE);
    qg__stream_settle(s);
}

void qg__conn_settle_early(qg_conn *conn, bool accepted) {
    for (uint32_t i = 0; i < conn->streams.capacity; i++) {
        qg_stream *s = conn->streams.slots[i];
        if (s == NULL || s->early == NULL) {
            continue;
        }
        qg_early *early = s->early;
        s->early = NULL;
        if (!accepted && s->read.token != 0 &&
            wait_in_line(conn, early->bytes, early->head_len, early->bytes + early->head_len,
                         early->body_len, early->flags, s->read.token,
                         remaining_us(conn->engine, &s->read.timer)) == QG_OK) {
            conn->engine->counters->requests_sent--; /* it is one request all the same */
            /* Also what has its end already: else quiche sends it again, and it runs twice. */
            quiche_conn_stream_shutdown(conn->quiche, s->id, QUICHE_SHUTDOWN_WRITE,
                                        H3_REQUEST_CANCELLED);
            give_up(s, H3_REQUEST_CANCELLED);
            i = UINT32_MAX; /* others may have moved: from the beginning */
        }
        free(early);
    }
}

bool qg__conn_cancel(qg_conn *conn, uint64_t token, uint64_t code) {
    if (token == 0) {
        return false; /* what nobody waits for has it */
    }
    for (qg_link *l = conn->pending.next; l != &conn->pending; l = l->next) {
        qg_pending *p = QG_CONTAINER(l, qg_pending, link);
        if (p->token == token) {
            qg__pending_free(p);
            return true;
        }
    }
    for (uint32_t i = 0; i < conn->streams.capacity; i++) {
        qg_stream *s = conn->streams.slots[i];
        if (s != NULL && s->read.token == token) {
            give_up(s, code);
            return true;
        }
    }
    return false;
}
