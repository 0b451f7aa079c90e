#include "h3.h"

#include <stdlib.h>

#include "engine.h"
#include "h3_control.h"
#include "qpack.h"

/* Informational responses before the final one; a server that sends more has no end in mind. */
#define INTERIM_MAX 16

/* Read at a time where a frame's header may stand: a header takes at most 16 bytes, and what
 * follows in the same piece is copied once more. */
#define SMALL 64

/* What a piece of a message stream yields. */
typedef struct yield {
    uint8_t *body; /* where body bytes go; as many as are fed always fit */
    size_t body_len;
    bool head_done; /* `head` and its text in the event arena are complete */
    qg_head head;
} yield;

/* ------------------------------------------------------------- frames in */

static int unexpected(qg_conn *conn, const char *text) {
    qg__conn_close(conn, true, H3_FRAME_UNEXPECTED, text);
    return QG_CLOSED;
}

/* A frame's type and length are known: may it come here (RFC 9114, section 7.2)? */
static int begin_frame(qg_stream *s, uint64_t type, uint64_t len) {
    qg_conn *conn = s->conn;
    s->frame.type = type;
    s->frame.left = len;
    s->frame.header_len = 0;
    switch (type) {
    case H3_DATA:
        if (s->recv_state == QG_RECV_HEAD || s->trailers_seen) {
            return unexpected(conn, "DATA outside a message's body");
        }
        return s->head_only && len > 0 ? QG_PROTOCOL : QG_OK;
    case H3_HEADERS:
        if (s->trailers_seen) {
            return unexpected(conn, "HEADERS after the trailers");
        }
        if (len > conn->config->limits.size) {
            return QG_TOO_LARGE;
        }
        return QG_OK;
    case 0x5: /* PUSH_PROMISE */
        if (conn->is_server) {
            return unexpected(conn, "PUSH_PROMISE from a client");
        }
        qg__conn_close(conn, true, H3_ID_ERROR, "push was not allowed");
        return QG_CLOSED;
    case 0x3: /* CANCEL_PUSH, SETTINGS, GOAWAY, MAX_PUSH_ID, PRIORITY_UPDATE: control stream only */
    case 0x4:
    case 0x7:
    case 0xd:
    case 0xf0700:
    case 0xf0701:
        return unexpected(conn, "a control frame on a request stream");
    default:
        return qg__h3_skip_unknown(conn, type) ? QG_OK : QG_CLOSED;
    }
}

static int decode_trailers(qg_stream *s, const uint8_t *section, size_t len) {
    const qg_head_limits *limits = &s->conn->config->limits;
    qg_head head;
    uint8_t *text = malloc((size_t)limits->size + QG_HEAD_SLACK);
    if (text == NULL) {
        return QG_TOO_LARGE;
    }
    int rc = qg__head_decode(QG_HEAD_TRAILERS, section, len, limits, s->conn->engine->scratch, text,
                             &head);
    if (rc < 0) {
        free(text);
        return rc;
    }
    s->trailers_seen = true;
    s->trailers_len = head.text_len;
    s->trailers = realloc(text, head.text_len);
    return QG_OK;
}

static int decode_head(qg_stream *s, const uint8_t *section, size_t len, yield *y) {
    qg_conn *conn = s->conn;
    qg_events *events = &conn->engine->events;
    uint8_t *text = qg__events_at(events);
    int rc = qg__head_decode(conn->is_server ? QG_HEAD_REQUEST : QG_HEAD_RESPONSE, section, len,
                             &conn->config->limits, conn->engine->scratch, text, &y->head);
    if (rc < 0) {
        return rc;
    }
    if (!conn->is_server && y->head.status < 200) {
        return ++s->interim > INTERIM_MAX ? QG_INVALID : QG_OK;
    }
    bool bodiless = s->head_only || y->head.status == 204 || y->head.status == 304;
    s->content_length = bodiless ? QG_UNKNOWN_LENGTH : y->head.content_length;
    s->recv_state = QG_RECV_BODY;
    y->head_done = true;
    y->body = text + y->head.text_len;
    return QG_OK;
}

/* A whole field section. */
static int take_section(qg_stream *s, const uint8_t *section, size_t len, yield *y) {
    int rc = s->recv_state == QG_RECV_HEAD ? decode_head(s, section, len, y)
                                           : decode_trailers(s, section, len);
    if (rc == QG_PROTOCOL) {
        qg__conn_close(s->conn, true, QPACK_DECOMPRESSION_FAILED, "field section");
        return QG_CLOSED;
    }
    return rc == QG_INVALID ? QG_PROTOCOL : rc;
}

/* Part of a field section: keep it until the rest is there. */
static int keep_section(qg_stream *s, const uint8_t *p, size_t n, yield *y) {
    if (s->section == NULL) {
        s->section = malloc((size_t)s->frame.left);
        s->section_len = 0;
        if (s->section == NULL) {
            return QG_TOO_LARGE;
        }
    }
    memcpy(s->section + s->section_len, p, n);
    s->section_len += (uint32_t)n;
    s->frame.left -= n;
    if (s->frame.left > 0) {
        return QG_OK;
    }
    int rc = take_section(s, s->section, s->section_len, y);
    free(s->section);
    s->section = NULL;
    return rc;
}

/* Bytes of the current frame's payload. */
static int feed_payload(qg_stream *s, const uint8_t *p, size_t n, yield *y) {
    if (s->frame.type == H3_HEADERS) {
        if (s->section != NULL || n < s->frame.left) {
            return keep_section(s, p, n, y);
        }
        s->frame.left = 0;
        return take_section(s, p, n, y);
    }
    s->frame.left -= n;
    if (s->frame.type == H3_DATA) {
        memcpy(y->body + y->body_len, p, n);
        y->body_len += n;
        s->body_seen += n;
        if (s->body_seen > s->content_length) {
            return QG_PROTOCOL;
        }
    }
    return QG_OK;
}

/* Bytes of a frame's header. Returns how many were taken, or a negative code. */
static int64_t feed_header(qg_stream *s, const uint8_t *p, size_t n, yield *y) {
    qg_frame *f = &s->frame;
    size_t taken = 0;
    for (;;) {
        uint64_t type, len;
        size_t a = qg__varint_get(f->header, f->header_len, &type);
        size_t b = a > 0 ? qg__varint_get(f->header + a, f->header_len - a, &len) : 0;
        if (b > 0) {
            int rc = begin_frame(s, type, len);
            if (rc == QG_OK && type == H3_HEADERS && len == 0) {
                rc = take_section(s, p, 0, y);
            }
            return rc < 0 ? rc : (int64_t)taken;
        }
        if (taken == n) {
            return (int64_t)taken;
        }
        f->header[f->header_len++] = p[taken++];
    }
}

/* Take `n` bytes of a message stream. QG_OK; QG_PROTOCOL: the message is malformed; QG_TOO_LARGE:
 * its head is; QG_CLOSED: the connection failed. */
static int feed(qg_stream *s, const uint8_t *p, size_t n, yield *y) {
    while (n > 0) {
        int64_t taken;
        if (s->frame.left > 0) {
            taken = (int64_t)qg__min64(n, s->frame.left);
            int rc = feed_payload(s, p, (size_t)taken, y);
            if (rc < 0) {
                return rc;
            }
        } else {
            taken = feed_header(s, p, n, y);
            if (taken < 0) {
                return (int)taken;
            }
        }
        p += taken;
        n -= (size_t)taken;
    }
    return QG_OK;
}

/* The stream ended: is the message whole? QG_SHORT: not its body; QG_STATE: a request that never
 * began. */
static int end_message(qg_stream *s) {
    if (s->frame.left > 0 || s->frame.header_len > 0) {
        qg__conn_close(s->conn, true, H3_FRAME_ERROR, "the stream ends inside a frame");
        return QG_CLOSED;
    }
    if (s->recv_state == QG_RECV_HEAD) {
        return s->conn->is_server ? QG_STATE : QG_PROTOCOL;
    }
    if (s->content_length != QG_UNKNOWN_LENGTH && s->body_seen != s->content_length) {
        return QG_SHORT; /* feed sees to it that it is not longer */
    }
    s->recv_state = QG_RECV_DONE;
    return QG_OK;
}

/* ------------------------------------------------------------- what is wrong with a message */

/* "431 Request Header Fields Too Large", and the rest of the request is not wanted. */
static void refuse_head(qg_stream *s) {
    uint8_t status[32]; /* what qg__qpack_encode asks for, not what the line takes */
    int len = qg__qpack_encode((const uint8_t *)":status", 7, (const uint8_t *)"431", 3, status,
                               sizeof status);
    if (len > 0) {
        qg__h3_send_head(s, status, (size_t)len, NULL, 0, QG_FIN | QG_DATE);
    }
    free(s->section);
    s->section = NULL;
    s->recv_state = QG_RECV_DISCARD;
    s->released = true;
    qg__stream_discard(s);
    qg__stream_settle(s);
}

/* `rc` came from feed or end_message. The stream may be gone after this. */
static void message_failed(qg_stream *s, int rc) {
    qg_conn *conn = s->conn;
    if (rc == QG_CLOSED) {
        return;
    }
    if (rc == QG_TOO_LARGE && !s->told) {
        refuse_head(s);
        return;
    }
    conn->engine->counters->messages_malformed++;
    s->released |= !s->told;
    uint64_t code = rc == QG_TOO_LARGE ? H3_EXCESSIVE_LOAD
                    : rc == QG_STATE   ? H3_REQUEST_INCOMPLETE /* RFC 9114, section 4.1 */
                                       : H3_MESSAGE_ERROR;
    qg__stream_fail(s, code, rc);
    qg__stream_settle(s);
}

/* ------------------------------------------------------------- reading */

/* As quiche_conn_stream_recv, with our codes: QG_AGAIN, QG_RESET (and the stream may be gone). */
static int64_t receive(qg_stream *s, uint8_t *out, size_t capacity, bool *fin) {
    uint64_t code = 0;
    *fin = false;
    int64_t n = quiche_conn_stream_recv(s->conn->quiche, s->id, out, capacity, fin, &code);
    if (n >= 0) {
        qg__conn_dirty(s->conn); /* flow control may have news for the peer */
        return n;
    }
    if (n == QUICHE_ERR_DONE) {
        return QG_AGAIN;
    }
    qg__stream_on_reset(s, n == QUICHE_ERR_STREAM_RESET ? code : H3_INTERNAL_ERROR);
    return QG_RESET;
}

int64_t qg__h3_read(qg_stream *s, uint8_t *out, size_t capacity, bool *fin) {
    size_t total = 0;
    *fin = false;
    while (total < capacity && s->recv_state == QG_RECV_BODY) {
        uint8_t small[SMALL];
        bool body = s->frame.type == H3_DATA && s->frame.left > 0;
        size_t want = body ? (size_t)qg__min64(capacity - total, s->frame.left)
                           : qg__min(capacity - total, SMALL);
        int64_t n = receive(s, body ? out + total : small, want, fin);
        if (n < 0) {
            return total > 0 ? (int64_t)total : n;
        }
        int rc = QG_OK;
        if (body) {
            s->frame.left -= (uint64_t)n;
            s->body_seen += (uint64_t)n;
            total += (size_t)n;
            rc = s->body_seen > s->content_length ? QG_PROTOCOL : QG_OK;
        } else {
            yield y = {.body = out + total};
            rc = feed(s, small, (size_t)n, &y);
            total += y.body_len;
        }
        if (rc == QG_OK && *fin) {
            rc = end_message(s);
        }
        if (rc < 0) {
            *fin = false;
            message_failed(s, rc);
            return rc;
        }
    }
    return (int64_t)total;
}

/* ------------------------------------------------------------- heads */

/* Add the event of a request whose bytes stand where the next event's begin. */
static void announce(qg_stream *s, qg_event request) {
    qg_conn *conn = s->conn;
    qg_engine *engine = conn->engine;
    qg_event *event = qg__events_add(&engine->events, QG_EVENT_REQUEST);
    request.offset = event->offset;
    request.token = conn->token != 0 ? conn->token : conn->endpoint->listen.token;
    *event = request;
    qg__events_took(&engine->events, request.path_len + request.head_len + request.body_len);
    conn->endpoint->credit -= conn->endpoint->credit > 0;
    engine->counters->requests_received++;
    s->told = true;
}

/* Not before the handshake is complete: it could be a replay (RFC 8470, section 3). */
static void hold(qg_stream *s, const qg_event *request) {
    size_t len = request->path_len + request->head_len + request->body_len;
    s->held = malloc(sizeof *request + len);
    if (s->held == NULL) {
        message_failed(s, QG_TOO_LARGE);
        return;
    }
    *s->held = *request;
    memcpy(s->held + 1, qg__events_at(&s->conn->engine->events), len);
    s->conn->held++;
    s->conn->engine->counters->early_requests_held++;
}

bool qg__h3_say_held(qg_conn *conn) {
    qg_events *events = &conn->engine->events;
    for (uint32_t i = 0; conn->held > 0 && i < conn->streams.capacity; i++) {
        qg_stream *s = conn->streams.slots[i];
        if (s == NULL || s->held == NULL) {
            continue;
        }
        size_t len = s->held->path_len + s->held->head_len + s->held->body_len;
        if (conn->endpoint->credit == 0) {
            return true;
        }
        if (!qg__events_room(events, len)) {
            return false;
        }
        memcpy(qg__events_at(events), s->held + 1, len);
        announce(s, *s->held);
        free(s->held);
        s->held = NULL;
        conn->held--;
    }
    return true;
}

/* May this be announced before the handshake is complete? Safe methods only (RFC 9110,
 * section 9.2.1), whole, and without a body. A session is announced when its handshake is complete, and
 * its requests after it. */
static bool may_be_early(const qg_stream *s, const yield *y) {
    uint32_t method = y->head.method;
    bool safe = method == QG_METHOD_GET || method == QG_METHOD_HEAD || method == QG_METHOD_OPTIONS;
    return safe && s->recv_state == QG_RECV_DONE && y->body_len == 0 &&
           (s->conn->endpoint->listen.flags & QG_LISTEN_SESSIONS) == 0;
}

static void say_request(qg_stream *s, const yield *y) {
    qg_conn *conn = s->conn;
    qg_event request = {
        .type = QG_EVENT_REQUEST,
        .conn = conn->id,
        .stream = s->id,
        .status = y->head.method,
        .path_len = y->head.path_len,
        .head_len = y->head.text_len - y->head.path_len,
        .body_len = (uint32_t)y->body_len,
        .value = y->head.content_length,
        .flags = (s->recv_state == QG_RECV_DONE ? QG_FIN : 0) | (s->trailers != NULL ? QG_MORE : 0),
    };
    if (y->head.has_priority) {
        /* quiche's default, 127, stands for urgency 3. */
        quiche_conn_stream_priority(conn->quiche, s->id, (uint8_t)(124 + y->head.urgency),
                                    y->head.incremental);
    }
    if (!qg__conn_is_early(conn)) {
        announce(s, request);
    } else if (may_be_early(s, y)) {
        request.flags |= QG_EARLY;
        conn->engine->counters->early_requests++;
        announce(s, request);
    } else {
        hold(s, &request);
    }
}

static void say_response(qg_stream *s, const yield *y) {
    qg_conn *conn = s->conn;
    qg_engine *engine = conn->engine;
    qg_event *event = qg__events_add(&engine->events, QG_EVENT_RESPONSE);
    event->token = s->read.token;
    event->conn = conn->id;
    event->stream = s->id;
    event->status = y->head.status;
    event->head_len = y->head.text_len;
    event->body_len = (uint32_t)y->body_len;
    event->value = y->head.content_length;
    event->flags =
        (s->recv_state == QG_RECV_DONE ? QG_FIN : 0) | (s->trailers != NULL ? QG_MORE : 0);
    qg__events_took(&engine->events, y->head.text_len + y->body_len);
    engine->counters->responses_received++;
    qg__wait_clear(s, &s->read);
    qg__stream_settle(s);
}

/* Read until the head is complete, and as much of the body as comes with it, and tell. */
static void read_head(qg_stream *s) {
    qg_conn *conn = s->conn;
    uint8_t *io = conn->engine->io;
    yield y = {0};
    bool fin = false;
    while (!y.head_done) {
        int64_t n = receive(s, io, QG_HEAD_CHUNK, &fin);
        if (n < 0) {
            return;
        }
        int rc = feed(s, io, (size_t)n, &y);
        if (rc == QG_OK && fin) {
            rc = end_message(s);
        }
        if (rc < 0) {
            message_failed(s, rc);
            return;
        }
    }
    while (s->recv_state == QG_RECV_BODY && y.body_len < QG_INLINE_BODY) {
        int64_t n = qg__h3_read(s, y.body + y.body_len, QG_INLINE_BODY - y.body_len, &fin);
        if (n == QG_AGAIN || n == 0) {
            break;
        }
        if (n < 0) {
            return; /* malformed, or reset: there is nothing to tell any more */
        }
        y.body_len += (size_t)n;
    }
    if (conn->is_server) {
        say_request(s, &y);
    } else {
        say_response(s, &y);
    }
}

/* ------------------------------------------------------------- streams in */

/* Which requests wait? A server's for credit, a client's response for somebody who asks for it. */
static bool must_wait(const qg_stream *s) {
    return s->conn->is_server ? s->conn->endpoint->credit == 0 : !s->awaiting_head;
}

static void message_readable(qg_stream *s) {
    switch (s->recv_state) {
    case QG_RECV_HEAD:
        if (must_wait(s)) {
            s->unread = true;
            if (s->conn->is_server && qg__link_alone(&s->deferred)) {
                qg__link_append(&s->conn->deferred, &s->deferred);
            }
        } else {
            read_head(s);
        }
        break;
    case QG_RECV_BODY:
        qg__wait_wake(s, &s->read, QG_EVENT_READABLE, 0, 0);
        break;
    case QG_RECV_DISCARD:
        qg__stream_discard(s);
        qg__stream_settle(s);
        break;
    default:
        break;
    }
}

bool qg__h3_resume(qg_stream *s) {
    if (!qg__engine_room(s->conn->engine, s->conn->config)) {
        return false;
    }
    if (s->recv_state == QG_RECV_HEAD && must_wait(s)) {
        return true;
    }
    qg__link_remove(&s->deferred);
    s->unread = false;
    if (s->recv_state == QG_RECV_HEAD) {
        read_head(s);
    }
    return true;
}

/* A stream that the peer opened. NULL when it may not be, or there is no memory. */
static qg_stream *accept_stream(qg_conn *conn, uint64_t id) {
    if ((id & 2) != 0) {
        return qg__stream_new(conn, id, QG_STREAM_UNI, QG_RECV_BODY, QG_SEND_NONE);
    }
    if (!conn->is_server) {
        qg__conn_close(conn, true, H3_STREAM_CREATION_ERROR, "a server-initiated request stream");
        return NULL;
    }
    qg_stream *s = qg__stream_new(conn, id, QG_STREAM_MESSAGE, QG_RECV_HEAD, QG_SEND_HEAD);
    if (s != NULL && id >= conn->h3.goaway_sent) {
        s->released = true;
        qg__stream_fail(s, H3_REQUEST_REJECTED, QG_REFUSED);
        qg__stream_settle(s);
        return NULL;
    }
    if (id >= conn->h3.first_unseen_id) {
        conn->h3.first_unseen_id = id + 4;
    }
    return s;
}

bool qg__h3_readable(qg_conn *conn, uint64_t id) {
    qg_stream *s = qg__streams_find(&conn->streams, id);
    if (s == NULL) {
        s = accept_stream(conn, id);
        if (s == NULL) {
            return conn->state <= QG_CONN_OPEN;
        }
    }
    if (s->kind == QG_STREAM_MESSAGE) {
        message_readable(s);
    } else {
        qg__h3_control_readable(s);
    }
    return conn->state <= QG_CONN_OPEN;
}
