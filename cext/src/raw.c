#include "raw.h"

#include "engine.h"

void qg__raw_start(qg_conn *conn) {
    conn->h3.next_request_id = conn->is_server ? 1 : 0;
    conn->h3.next_uni_id = conn->is_server ? 3 : 2;
}

qg_stream *qg__raw_open(qg_conn *conn, bool bidi) {
    uint64_t left = bidi ? quiche_conn_peer_streams_left_bidi(conn->quiche)
                         : quiche_conn_peer_streams_left_uni(conn->quiche);
    uint64_t *next = bidi ? &conn->h3.next_request_id : &conn->h3.next_uni_id;
    if (left == 0) {
        return NULL;
    }
    qg_stream *s = qg__stream_new(conn, *next, QG_STREAM_RAW, bidi ? QG_RECV_BODY : QG_RECV_NONE,
                                  QG_SEND_BODY);
    if (s != NULL) {
        s->told = true;
        *next += 4;
        /* quiche counts it against the limit when it hears of it first, and could not reset one that
         * it never heard of. */
        qg__stream_send(s, NULL, 0, false);
    }
    return s;
}

static qg_stream *accept_stream(qg_conn *conn, uint64_t id) {
    qg_engine *e = conn->engine;
    bool bidi = (id & 2) == 0;
    qg_stream *s =
        qg__stream_new(conn, id, QG_STREAM_RAW, QG_RECV_BODY, bidi ? QG_SEND_BODY : QG_SEND_NONE);
    if (s == NULL) {
        return NULL;
    }
    s->told = true;
    qg_event *event = qg__events_add(&e->events, QG_EVENT_STREAM_OPENED);
    event->token = conn->token != 0 ? conn->token : conn->endpoint->listen.token;
    event->conn = conn->id;
    event->stream = id;
    return s;
}

bool qg__raw_readable(qg_conn *conn, uint64_t id) {
    qg_stream *s = qg__streams_find(&conn->streams, id);
    if (s == NULL) {
        accept_stream(conn, id);
        return true;
    }
    if (s->recv_state == QG_RECV_DISCARD) {
        qg__stream_discard(s);
        qg__stream_settle(s);
    } else {
        qg__wait_wake(s, &s->read, QG_EVENT_READABLE, 0, 0);
    }
    return true;
}

int64_t qg__raw_read(qg_stream *s, uint8_t *out, size_t capacity, bool *fin) {
    uint64_t code = 0;
    *fin = false;
    int64_t n = quiche_conn_stream_recv(s->conn->quiche, s->id, out, capacity, fin, &code);
    if (n == QUICHE_ERR_DONE) {
        return QG_AGAIN;
    }
    if (n < 0) {
        qg__stream_on_reset(s, n == QUICHE_ERR_STREAM_RESET ? code : 0);
        return QG_RESET;
    }
    qg__conn_dirty(s->conn);
    s->recv_state = *fin ? QG_RECV_DONE : s->recv_state;
    return n;
}
