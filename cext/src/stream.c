#include "stream.h"

#include <stdlib.h>

#include "engine.h"
#include "h3.h"

/* A request body that the handler did not read is read and dropped up to here, so that a client
 * which sends before it listens gets its answer; beyond it the client is told to stop. */
#define DISCARD_MAX (256 << 10)

/* Ask to be woken when at least this much can be sent: less makes tiny frames, much more might
 * never come (the smallest congestion window is two packets). See qg__stream_low_water. */
#define SEND_LOW_WATER 1024

/* ------------------------------------------------------------- the table */

static uint32_t start_of(const qg_stream_table *t, uint64_t id) {
    /* Ids of one type are multiples of four apart; neighbours get neighbouring slots. */
    return (uint32_t)((id >> 2) ^ (id << 5)) & (t->capacity - 1);
}

qg_stream *qg__streams_find(const qg_stream_table *t, uint64_t id) {
    if (t->count == 0) {
        return NULL;
    }
    for (uint32_t i = start_of(t, id);; i = (i + 1) & (t->capacity - 1)) {
        qg_stream *s = t->slots[i];
        if (s == NULL || s->id == id) {
            return s;
        }
    }
}

static void place(qg_stream_table *t, qg_stream *s) {
    uint32_t i = start_of(t, s->id);
    while (t->slots[i] != NULL) {
        i = (i + 1) & (t->capacity - 1);
    }
    t->slots[i] = s;
}

bool qg__streams_add(qg_stream_table *t, qg_stream *s) {
    if (2 * (t->count + 1) > t->capacity) {
        qg_stream_table old = *t;
        t->capacity = old.capacity > 0 ? 2 * old.capacity : 8;
        t->slots = calloc(t->capacity, sizeof *t->slots);
        if (t->slots == NULL) {
            *t = old;
            return false;
        }
        for (uint32_t i = 0; i < old.capacity; i++) {
            if (old.slots[i] != NULL) {
                place(t, old.slots[i]);
            }
        }
        free(old.slots);
    }
    place(t, s);
    t->count++;
    return true;
}

void qg__streams_remove(qg_stream_table *t, uint64_t id) {
    uint32_t mask = t->capacity - 1;
    uint32_t hole = start_of(t, id);
    while (t->slots[hole] != NULL && t->slots[hole]->id != id) {
        hole = (hole + 1) & mask;
    }
    if (t->slots[hole] == NULL) {
        return;
    }
    t->count--;
    /* Move back what stands behind the hole only because the hole was taken. */
    for (uint32_t i = (hole + 1) & mask; t->slots[i] != NULL; i = (i + 1) & mask) {
        uint32_t home = start_of(t, t->slots[i]->id);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole] = NULL;
}

/* ------------------------------------------------------------- life */

bool qg__stream_is_sending(const qg_stream *s) {
    return s->send_state == QG_SEND_HEAD || s->send_state == QG_SEND_BODY;
}

static bool recv_open(const qg_stream *s) {
    return s->recv_state == QG_RECV_HEAD || s->recv_state == QG_RECV_BODY ||
           s->recv_state == QG_RECV_DISCARD;
}

static bool is_active(const qg_stream *s) {
    return s->kind == QG_STREAM_MESSAGE || s->kind == QG_STREAM_RAW;
}

static void drop_out(qg_stream *s) {
    free(s->out);
    s->out = NULL;
    s->out_at = s->out_len = 0;
}

static void end_send(qg_stream *s, qg_send_state state) {
    s->send_state = (uint8_t)state;
    if (state != QG_SEND_DONE) {
        drop_out(s);
    } else {
        s->conn->recent[s->conn->recent_next++ % QG_RECENT] = s->id + 1;
        /* Who still waits to write hears from the next write that another one ended it. */
        qg__wait_wake(s, &s->write, QG_EVENT_WRITABLE, 0, 0);
    }
}

qg_stream *qg__stream_new(qg_conn *conn, uint64_t id, qg_stream_kind kind, qg_recv_state recv_state,
                          qg_send_state send_state) {
    qg_engine *engine = conn->engine;
    qg_stream *s = qg__pool_get(&engine->stream_pool);
    if (s == NULL) {
        return NULL;
    }
    s->id = id;
    s->conn = conn;
    s->kind = (uint8_t)kind;
    s->recv_state = (uint8_t)recv_state;
    s->send_state = (uint8_t)send_state;
    s->content_length = QG_UNKNOWN_LENGTH;
    s->read.timer.kind = QG_TIMER_READ;
    s->write.timer.kind = QG_TIMER_WRITE;
    qg__link_init(&s->deferred);
    if (!qg__streams_add(&conn->streams, s)) {
        qg__pool_put(&engine->stream_pool, s);
        return NULL;
    }
    conn->active += is_active(s);
    engine->counters->streams++;
    return s;
}

void qg__stream_free(qg_stream *s) {
    qg_engine *engine = s->conn->engine;
    qg__wait_clear(s, &s->read);
    qg__wait_clear(s, &s->write);
    qg__link_remove(&s->deferred);
    qg__streams_remove(&s->conn->streams, s->id);
    s->conn->active -= is_active(s);
    if ((s->conn->finishing || s->conn->state == QG_CONN_ENDED) && s->conn->active == 0) {
        qg__conn_touch(s->conn); /* which was waiting for this one */
    }
    engine->counters->streams--;
    s->conn->held -= s->held != NULL;
    free(s->held);
    free(s->early);
    free(s->section);
    free(s->trailers);
    drop_out(s);
    qg__pool_put(&engine->stream_pool, s);
}

bool qg__stream_settle(qg_stream *s) {
    if (recv_open(s) || qg__stream_is_sending(s) || s->read.token != 0 || s->write.token != 0) {
        return false;
    }
    bool well = s->recv_state != QG_RECV_RESET && s->send_state != QG_SEND_RESET &&
                s->send_state != QG_SEND_STOPPED && s->trailers == NULL;
    if (!well && !s->released) {
        return false;
    }
    qg__stream_free(s);
    return true;
}

/* ------------------------------------------------------------- sending */

static void on_stopped(qg_stream *s, uint64_t code) {
    s->send_code = code;
    end_send(s, QG_SEND_STOPPED);
    qg__wait_wake(s, &s->write, QG_EVENT_STREAM_ERROR, QG_STOPPED, code);
}

/* What a refusal of quiche means. `code` came with it: quiche says it once and may then forget the
 * stream. It also forgets one that was stopped while nobody had been refused, as soon as the peer has
 * acknowledged the end; the code is lost then. */
static int send_error(qg_stream *s, int64_t rc, uint64_t code) {
    if (rc == QUICHE_ERR_INVALID_STREAM_STATE) {
        /* Stopped, and forgotten since. Who gives up a request does both with the same code. */
        code = s->recv_state == QG_RECV_RESET ? s->recv_code : 0;
    } else if (rc != QUICHE_ERR_STREAM_STOPPED) {
        end_send(s, QG_SEND_RESET);
        return QG_CLOSED;
    }
    on_stopped(s, code);
    return QG_STOPPED;
}

int64_t qg__stream_room(qg_stream *s) {
    uint64_t code = 0;
    int64_t room = qgq_conn_stream_capacity(s->conn->quiche, s->id, &code);
    return room >= 0 ? room : send_error(s, room, code);
}

/* A peer's window may be smaller than that. So no more than half of the most that was ever taken at
 * a stretch, as TCP does it (RFC 1122, section 4.2.3.4). */
size_t qg__stream_low_water(qg_stream *s, size_t left) {
    size_t half = qg__min(s->stretch / 2, SEND_LOW_WATER);
    s->stretch = 0;
    s->low_water = half > s->low_water ? (uint16_t)half : s->low_water;
    return s->low_water > 0 ? qg__min(left, s->low_water) : 1;
}

int64_t qg__stream_send(qg_stream *s, const uint8_t *data, size_t len, bool fin) {
    uint64_t code = 0;
    int64_t n = quiche_conn_stream_send(s->conn->quiche, s->id, data, len, fin, &code);
    if (n < 0 && n != QUICHE_ERR_DONE) {
        return send_error(s, n, code);
    }
    qg__conn_dirty(s->conn);
    if (n < 0) {
        n = 0;
    }
    s->stretch += (size_t)n;
    if ((size_t)n == len) {
        if (fin) {
            end_send(s, QG_SEND_DONE);
        }
        return n;
    }
    /* Tells quiche to remember the stream, and the peer that it holds us up. */
    int rc = quiche_conn_stream_writable(s->conn->quiche, s->id,
                                         qg__stream_low_water(s, len - (size_t)n));
    if (rc < 0) {
        return send_error(s, rc, 0); /* it was not stopped a moment ago */
    }
    return n > 0 ? n : QG_AGAIN;
}

/* Keep what quiche did not take. */
static int keep(qg_stream *s, const uint8_t *data, size_t len, bool fin) {
    uint8_t *out = realloc(s->out, s->out_len + len);
    if (out == NULL) {
        return QG_NOMEM;
    }
    memcpy(out + s->out_len, data, len);
    s->out = out;
    s->out_len += (uint32_t)len;
    s->out_fin = fin;
    uint64_t patience = s->conn->config->options.write_timeout_ms;
    if (s->write.token == 0 && patience > 0) {
        qg_engine *engine = s->conn->engine;
        qg__timer_set(&engine->timers, &s->write.timer,
                      qg__later(engine->now_ns, patience, QG_NS_PER_MS));
    }
    return QG_OK;
}

int qg__stream_put(qg_stream *s, const uint8_t *data, size_t len, bool fin) {
    if (s->out_len > s->out_at) {
        return keep(s, data, len, fin);
    }
    int64_t n = qg__stream_send(s, data, len, fin);
    if (n < 0 && n != QG_AGAIN) {
        return (int)n;
    }
    size_t sent = n > 0 ? (size_t)n : 0;
    return sent == len ? QG_OK : keep(s, data + sent, len - sent, fin);
}

/* Send from `out`. True when it is empty. */
static bool push_out(qg_stream *s) {
    size_t left = s->out_len - s->out_at;
    int64_t n = qg__stream_send(s, s->out + s->out_at, left, s->out_fin);
    if (n > 0) {
        s->out_at += (uint32_t)n;
        if (qg__timer_armed(&s->write.timer) && s->write.token == 0) {
            /* The peer takes some: its time begins anew. */
            qg_engine *engine = s->conn->engine;
            uint64_t patience = s->conn->config->options.write_timeout_ms;
            qg__timer_set(&engine->timers, &s->write.timer,
                          qg__later(engine->now_ns, patience, QG_NS_PER_MS));
        }
    }
    if (s->out_at < s->out_len) {
        return false;
    }
    drop_out(s);
    if (s->write.token == 0) {
        qg__timer_clear(&s->conn->engine->timers, &s->write.timer);
    }
    return true;
}

void qg__stream_writable(qg_stream *s) {
    int64_t room = qg__stream_room(s);
    if (room < 0) {
        qg__stream_settle(s);
        return;
    }
    if (s->out_len > s->out_at && !push_out(s)) {
        return;
    }
    if (qg__stream_is_sending(s) && s->write.token != 0 && room > 0) {
        qg__wait_wake(s, &s->write, QG_EVENT_WRITABLE, 0, 0);
    }
    qg__stream_settle(s);
}

/* ------------------------------------------------------------- ending */

void qg__stream_reset(qg_stream *s, uint64_t code) {
    if (!qg__stream_is_sending(s)) {
        return;
    }
    quiche_conn_stream_shutdown(s->conn->quiche, s->id, QUICHE_SHUTDOWN_WRITE, code);
    s->send_code = code;
    end_send(s, QG_SEND_RESET);
    s->conn->engine->counters->streams_reset_local++;
    qg__conn_dirty(s->conn);
}

/* quiche may know a stopped stream for good (qg__conn_abandon), which then says nothing of what was sent
 * on it. A client that gives up the response does not wait for its request to arrive either. */
static void forget_arrival(const qg_stream *s) {
    qg_conn *conn = s->conn;
    if (conn->is_server || s->kind != QG_STREAM_MESSAGE) {
        return;
    }
    for (unsigned i = 0; i < QG_RECENT; i++) {
        if (conn->recent[i] == s->id + 1) {
            conn->recent[i] = 0;
        }
    }
}

void qg__stream_stop(qg_stream *s, uint64_t code) {
    if (!recv_open(s)) {
        return;
    }
    quiche_conn_stream_shutdown(s->conn->quiche, s->id, QUICHE_SHUTDOWN_READ, code);
    s->recv_state = QG_RECV_STOPPED;
    s->recv_code = code;
    free(s->section);
    s->section = NULL;
    qg__conn_abandon(s->conn, s->id);
    forget_arrival(s);
    qg__conn_dirty(s->conn);
}

void qg__stream_fail(qg_stream *s, uint64_t code, int result) {
    qg__stream_stop(s, code);
    qg__stream_reset(s, code);
    qg__wait_wake(s, &s->read, QG_EVENT_STREAM_ERROR, result, code);
    qg__wait_wake(s, &s->write, QG_EVENT_STREAM_ERROR, result, code);
}

void qg__stream_on_reset(qg_stream *s, uint64_t code) {
    qg_conn *conn = s->conn;
    s->recv_state = QG_RECV_RESET;
    s->recv_code = code;
    conn->engine->counters->streams_reset_remote++;
    if (!s->told) {
        qg__stream_reset(s, H3_REQUEST_CANCELLED);
        s->released = true;
    }
    bool refused = !conn->is_server && code == H3_REQUEST_REJECTED;
    qg__wait_wake(s, &s->read, QG_EVENT_STREAM_ERROR, refused ? QG_REFUSED : QG_RESET, code);
    qg__stream_settle(s);
}

void qg__stream_discard(qg_stream *s) {
    qg_engine *engine = s->conn->engine;
    while (s->recv_state == QG_RECV_DISCARD) {
        bool fin = false;
        uint64_t code = 0;
        int64_t n =
            quiche_conn_stream_recv(s->conn->quiche, s->id, engine->io, QG_IO_BYTES, &fin, &code);
        if (n == QUICHE_ERR_DONE) {
            break;
        }
        qg__conn_dirty(s->conn); /* flow control */
        if (n < 0 || fin) {
            s->recv_state = n < 0 ? QG_RECV_RESET : QG_RECV_DONE;
            break;
        }
        s->discarded += (uint64_t)n;
        if (s->discarded > DISCARD_MAX) {
            qg__stream_stop(s, s->conn->raw ? 0 : H3_NO_ERROR);
        }
    }
}

void qg__stream_release(qg_stream *s) {
    qg_conn *conn = s->conn;
    if (conn->state >= QG_CONN_ENDING) {
        qg__stream_free(s); /* no peer is left to be told */
        return;
    }
    s->released = true;
    qg__wait_clear(s, &s->read);
    if (s->write.token != 0) {
        qg__wait_clear(s, &s->write);
    }
    if (recv_open(s)) {
        s->recv_state = QG_RECV_DISCARD;
        qg__stream_discard(s);
        if (!conn->is_server) {
            /* Nobody will want the rest of this response. */
            qg__stream_stop(s, conn->raw ? 0 : H3_REQUEST_CANCELLED);
        }
    }
    if (!s->out_fin || s->out_len == s->out_at) {
        qg__stream_reset(s, conn->raw         ? 0
                            : conn->is_server ? H3_INTERNAL_ERROR
                                              : H3_REQUEST_CANCELLED);
    }
    qg__stream_settle(s);
}

/* ------------------------------------------------------------- waiting */

int qg__wait_arm(qg_stream *s, qg_wait *wait, uint64_t token, uint64_t timeout_us) {
    if (token == 0) {
        return QG_AGAIN;
    }
    if (wait->token != 0) {
        return QG_INVALID;
    }
    wait->token = token;
    wait->due_type = 0;
    int rc = qg__wait_time(s, wait, timeout_us);
    if (rc == QG_NOMEM) {
        wait->token = 0;
    }
    return rc;
}

int qg__wait_time(qg_stream *s, qg_wait *wait, uint64_t timeout_us) {
    qg_engine *engine = s->conn->engine;
    qg__timer_clear(&engine->timers, &wait->timer);
    bool ok = timeout_us == 0 || qg__timer_set(&engine->timers, &wait->timer,
                                               qg__later(engine->now_ns, timeout_us, QG_NS_PER_US));
    return ok ? QG_AGAIN : QG_NOMEM;
}

void qg__wait_clear(qg_stream *s, qg_wait *wait) {
    qg__timer_clear(&s->conn->engine->timers, &wait->timer);
    wait->token = 0;
    wait->due_type = 0;
    if (wait == &s->read) {
        s->awaiting_head = false;
    }
}

static bool say(qg_stream *s, qg_wait *wait) {
    qg_events *events = &s->conn->engine->events;
    if (!qg__events_room(events, 0)) {
        return false;
    }
    qg_event *event = qg__events_add(events, wait->due_type);
    event->token = wait->token;
    event->conn = s->conn->id;
    event->stream = s->id;
    event->status = (uint32_t)-wait->due_result;
    event->code = wait->due_code;
    qg__wait_clear(s, wait);
    return true;
}

void qg__wait_wake(qg_stream *s, qg_wait *wait, uint16_t type, int result, uint64_t code) {
    if (wait->token == 0 || wait->due_type != 0) {
        return;
    }
    wait->due_type = type;
    wait->due_result = (int16_t)result;
    wait->due_code = code;
    if (!say(s, wait)) {
        s->conn->late = true;
        qg__conn_touch(s->conn);
    }
}

bool qg__waits_say(qg_stream *s) {
    return (s->read.due_type == 0 || say(s, &s->read)) &&
           (s->write.due_type == 0 || say(s, &s->write));
}
