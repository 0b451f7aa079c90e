#include "conn.h"

#include <stdio.h>

#include "engine.h"
#include "h3.h"

/* The first GOAWAY promises nothing; the second, this much later at least, names the last request
 * that will be served. In between those on their way arrive (RFC 9114, section 5.2). */
#define GOAWAY_MIN_NS (20 * QG_NS_PER_MS)
#define GOAWAY_MAX_NS (1 * QG_NS_PER_S)
#define GOAWAY_ALL    ((UINT64_C(1) << 62) - 4)

/* How long the last bytes of a connection that is to be closed may take to be acknowledged. */
#define LINGER_NS (1 * QG_NS_PER_S)

/* So long a client may take to close a connection that has served its purpose. Clients are known (curl
 * with ngtcp2) that lose an answer which they have acknowledged, and not yet looked at, to a
 * CONNECTION_CLOSE that comes upon it. */
#define PART_NS (20 * QG_NS_PER_MS)

/* How long what came before the end waits for its reader: as long as it would have by default, had
 * the peer vanished without a word. */
#define UNREAD_NS (30 * QG_NS_PER_S)

/* More than a client's last handshake flight, a certificate chain included, ever takes. */
#define LAST_FLIGHT_PACKETS 16

/* ------------------------------------------------------------- why */

static void set_cause(qg_conn *conn, uint16_t flags, uint64_t code, const char *text, size_t len) {
    conn->close_flags = flags | (conn->established ? QG_ESTABLISHED : 0);
    conn->close_code = code;
    snprintf(conn->close_text, sizeof conn->close_text, "%.*s", (int)len, text);
}

static bool is_alert(uint64_t code) {
    return code >= 0x100 && code <= 0x1ff;
}

/* quiche says that it is over: why? */
static void find_cause(qg_conn *conn) {
    bool app;
    uint64_t code;
    const uint8_t *reason;
    size_t len;
    char text[sizeof conn->close_text];
    if (conn->recv_error == QUICHE_ERR_UNKNOWN_VERSION) {
        set_cause(conn, QG_VERSION | QG_REMOTE, 0, "no common QUIC version", 64);
    } else if (quiche_conn_peer_error(conn->quiche, &app, &code, &reason, &len)) {
        if (!app && is_alert(code)) {
            qg__tls_failure(conn->ssl, code - 0x100, true, text, sizeof text);
            set_cause(conn, QG_REMOTE | QG_TLS_ALERT, code, text, sizeof text);
        } else {
            set_cause(conn, QG_REMOTE | (app ? QG_APP : 0), code, (const char *)reason, len);
        }
    } else if (quiche_conn_local_error(conn->quiche, &app, &code, &reason, &len)) {
        if (!app && is_alert(code)) {
            qg__tls_failure(conn->ssl, code - 0x100, false, text, sizeof text);
            set_cause(conn, QG_TLS_ALERT, code, text, sizeof text);
        } else {
            set_cause(conn, app ? QG_APP : 0, code, (const char *)reason, len);
        }
    } else if (quiche_conn_is_timed_out(conn->quiche)) {
        set_cause(conn, QG_TIMED_OUT, 0, "no packet came for the idle timeout", 64);
    } else {
        set_cause(conn, QG_LOST | QG_REMOTE, 0, "stateless reset: the peer lost the connection",
                  64);
    }
}

/* ------------------------------------------------------------- telling */

static void begin_end(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (!conn->established) {
        e->counters->handshakes_failed++;
    }
    conn->state = QG_CONN_ENDING;
    qg__timer_clear(&e->timers, &conn->phase);
    qg__timer_clear(&e->timers, &conn->alive);
    qg__conn_touch(conn);
}

static bool is_over(const qg_conn *conn) {
    bool app;
    uint64_t code;
    const uint8_t *reason;
    size_t len;
    return quiche_conn_is_closed(conn->quiche) || quiche_conn_is_draining(conn->quiche) ||
           quiche_conn_local_error(conn->quiche, &app, &code, &reason, &len);
}

static bool say_wait_over(qg_stream *s, qg_wait *wait) {
    qg_events *events = &s->conn->engine->events;
    if (wait->token == 0) {
        return true;
    }
    if (!qg__events_room(events, 0)) {
        return false;
    }
    qg_event *event = qg__events_add(events, QG_EVENT_STREAM_ERROR);
    event->token = wait->token;
    event->conn = s->conn->id;
    event->stream = s->id;
    event->status = (uint32_t)-QG_CLOSED;
    event->code = s->conn->close_code;
    event->flags = s->conn->close_flags;
    qg__wait_clear(s, wait);
    return true;
}

static bool say_closed(qg_conn *conn) {
    qg_engine *e = conn->engine;
    size_t len = strlen(conn->close_text);
    if (conn->token == 0 || conn->said_closed) {
        return true;
    }
    if (!qg__events_room(&e->events, len)) {
        return false;
    }
    memcpy(qg__events_at(&e->events), conn->close_text, len);
    qg_event *event = qg__events_add(&e->events, QG_EVENT_CLOSED);
    event->token = conn->token;
    event->conn = conn->id;
    event->code = conn->close_code;
    event->flags = conn->close_flags;
    event->head_len = (uint32_t)len;
    qg__events_took(&e->events, len);
    conn->said_closed = true;
    return true;
}

/* Does the caller still have to read what the peer sent before the end? The peer was told that all
 * of it had arrived. */
static bool is_unread(const qg_stream *s) {
    const qg_conn *conn = s->conn;
    return (conn->close_flags & (QG_REMOTE | QG_TIMED_OUT)) != 0 && s->told && !s->released &&
           (s->trailers != NULL ||
            (s->recv_state == QG_RECV_BODY && quiche_conn_stream_readable(conn->quiche, s->id)));
}

/* Tell the owner, who will be asked why, then everybody who waits. False when the ring is full. */
static bool say_end(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (!say_closed(conn)) {
        return false;
    }
    for (uint32_t i = 0; i < conn->streams.capacity;) {
        qg_stream *s = conn->streams.slots[i];
        if (s == NULL) {
            i++;
            continue;
        }
        if (!say_wait_over(s, &s->read) || !say_wait_over(s, &s->write)) {
            return false;
        }
        if (is_unread(s)) {
            i++;
        } else {
            qg__stream_free(s);
        }
    }
    if (conn->streams.count > 0) {
        qg__timer_set(&e->timers, &conn->phase, e->now_ns + UNREAD_NS);
    }
    while (!qg__link_alone(&conn->pending)) {
        /* Nothing of these was sent. */
        qg__pending_fail(QG_CONTAINER(conn->pending.next, qg_pending, link), QG_CLOSED,
                         conn->close_code);
    }
    conn->state = QG_CONN_ENDED;
    qg__conn_list(conn);
    conn->endpoint->connections--;
    conn->endpoint->half_open -= conn->half_open;
    conn->half_open = false;
    e->counters->connections--;
    e->counters->connections_closed++;
    qg__endpoint_check_idle(conn->endpoint);
    qg__conn_dirty(conn);
    return true;
}

/* ------------------------------------------------------------- asking for it */

void qg__conn_close(qg_conn *conn, bool app, uint64_t code, const char *text) {
    if (conn->state >= QG_CONN_ENDING) {
        return;
    }
    /* quiche 0.30 sends no more of the handshake once it is closing, and nothing else before that: what
     * is left of it goes first. And a probe of the handshake that falls due in between is made again and
     * again: so the last packet goes at once. */
    bool by_client = app && !conn->is_server && conn->state == QG_CONN_OPEN;
    unsigned budget = LAST_FLIGHT_PACKETS;
    if (by_client && !qg__link_alone(&conn->dirty)) {
        qg__conn_flush(conn, &budget);
    }
    quiche_conn_close(conn->quiche, app, code, (const uint8_t *)text, strlen(text));
    if (by_client) {
        qg__conn_flush(conn, &budget);
    }
    qg__conn_dirty(conn);
    qg__conn_touch(conn);
}

void qg__conn_lost(qg_conn *conn, uint16_t flags, uint64_t code, const char *text) {
    if (conn->state >= QG_CONN_ENDING) {
        return;
    }
    set_cause(conn, flags, code, text, strlen(text));
    conn->dead = true;
    begin_end(conn);
}

void qg__conn_drain(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (conn->state == QG_CONN_HANDSHAKE) {
        return; /* on_established comes here again */
    }
    if (conn->state != QG_CONN_OPEN || conn->h3.goaway_sent != QG_NEVER || conn->finishing) {
        return;
    }
    conn->draining = true;
    if (conn->raw || !conn->is_server) {
        qg__conn_finish(conn, 0);
        return;
    }
    quiche_path_stats path;
    uint64_t wait = GOAWAY_MIN_NS;
    if (quiche_conn_path_stats(conn->quiche, 0, &path) == 0 && 2 * path.rtt > wait) {
        wait = qg__min64(2 * path.rtt, GOAWAY_MAX_NS);
    }
    qg__h3_goaway(conn, GOAWAY_ALL);
    qg__timer_set(&e->timers, &conn->phase, e->now_ns + wait);
}

void qg__conn_drain_at(qg_conn *conn, uint64_t at_ns) {
    qg_engine *e = conn->engine;
    if (at_ns <= e->now_ns) {
        qg__conn_drain(conn);
    } else if (conn->state == QG_CONN_OPEN && !conn->draining) {
        qg__timer_set(&e->timers, &conn->phase, at_ns);
    }
}

void qg__conn_finish(qg_conn *conn, uint64_t timeout_us) {
    qg_engine *e = conn->engine;
    conn->draining = conn->finishing = true;
    if (conn->is_server && !conn->raw) {
        qg__h3_goaway(conn, conn->h3.first_unseen_id);
    }
    if (timeout_us > 0) {
        qg__timer_set(&e->timers, &conn->phase, qg__later(e->now_ns, timeout_us, QG_NS_PER_US));
    }
    qg__conn_touch(conn);
}

/* ------------------------------------------------------------- has it come? */

/* All that was sent has been acknowledged: the connection may be closed. */
static bool has_arrived(qg_conn *conn) {
    qg_engine *e = conn->engine;
    if (conn->active > 0) {
        return false;
    }
    for (unsigned i = 0; i < QG_RECENT; i++) {
        if (conn->recent[i] != 0 &&
            quiche_conn_stream_capacity(conn->quiche, conn->recent[i] - 1) !=
                QUICHE_ERR_INVALID_STREAM_STATE) {
            if (!qg__timer_armed(&conn->phase)) {
                qg__timer_set(&e->timers, &conn->phase, e->now_ns + LINGER_NS);
            }
            return false;
        }
    }
    return true;
}

/* A server has said GOAWAY, so the client may close it; after a while, or when the time is over that it
 * was given, the server does. */
static void part(qg_conn *conn) {
    qg_engine *e = conn->engine;
    uint64_t until = e->now_ns + PART_NS;
    if (qg__timer_armed(&conn->phase)) {
        until = qg__min64(until, conn->phase.deadline_ns);
    }
    conn->parting = true;
    qg__timer_set(&e->timers, &conn->phase, until);
}

bool qg__conn_look_for_end(qg_conn *conn) {
    if (conn->state == QG_CONN_OPEN && conn->finishing && !conn->parting && has_arrived(conn)) {
        if (conn->is_server && !conn->raw && conn->h3.first_unseen_id > 0) {
            part(conn);
        } else {
            qg__conn_close(conn, true, conn->raw ? 0 : H3_NO_ERROR, "");
        }
    }
    if (conn->state <= QG_CONN_OPEN && is_over(conn)) {
        find_cause(conn);
        begin_end(conn);
    }
    if (conn->state == QG_CONN_ENDING && !say_end(conn)) {
        return false;
    }
    return true;
}
