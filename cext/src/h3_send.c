#include "h3.h"

#include "engine.h"
#include "qpack.h"

/* HEADERS up to the field lines. */
static size_t head_prefix(uint8_t *out, size_t head_len) {
    size_t at = qg__varint_put(out, H3_HEADERS);
    at += qg__varint_put(out + at, head_len + QG_QPACK_PREFIX_LEN);
    memcpy(out + at, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
    return at + QG_QPACK_PREFIX_LEN;
}

static size_t data_prefix(uint8_t *out, size_t len) {
    size_t at = qg__varint_put(out, H3_DATA);
    return at + qg__varint_put(out + at, len);
}

/* Put the parts of a message one after the other; the last one ends it with `fin`. */
typedef struct part {
    const uint8_t *data;
    size_t len;
} part;

static int put_parts(qg_stream *s, const part *parts, unsigned count, bool fin) {
    uint8_t *io = s->conn->engine->io;
    size_t total = 0;
    for (unsigned i = 0; i < count; i++) {
        total += parts[i].len;
    }
    if (total <= QG_IO_BYTES) {
        /* One write: quiche makes an object of each. */
        size_t at = 0;
        for (unsigned i = 0; i < count; i++) {
            qg__copy(io + at, parts[i].data, parts[i].len);
            at += parts[i].len;
        }
        return qg__stream_put(s, io, total, fin);
    }
    int rc = QG_OK;
    for (unsigned i = 0; rc == QG_OK && i < count; i++) {
        rc = qg__stream_put(s, parts[i].data, parts[i].len, fin && i == count - 1);
    }
    return rc;
}

int qg__h3_send_head(qg_stream *s, const uint8_t *head, size_t head_len, const uint8_t *body,
                     size_t body_len, uint16_t flags) {
    qg_engine *engine = s->conn->engine;
    size_t date_len = flags & QG_DATE ? engine->date_len : 0;
    uint8_t prefix[32], data[16];
    if (s->send_state != QG_SEND_HEAD) {
        return s->send_state == QG_SEND_STOPPED ? QG_STOPPED : QG_STATE;
    }
    if (!(flags & QG_INTERIM)) {
        s->send_state = QG_SEND_BODY;
    }
    part parts[] = {{prefix, head_prefix(prefix, head_len + date_len)},
                    {head, head_len},
                    {engine->date, date_len},
                    {data, body_len > 0 ? data_prefix(data, body_len) : 0},
                    {body, body_len}};
    return put_parts(s, parts, sizeof parts / sizeof *parts, (flags & QG_FIN) != 0);
}

/* Body and trailers may come: QG_OK, or why not. */
static int may_follow(const qg_stream *s) {
    if (s->send_state != QG_SEND_BODY) {
        return s->send_state == QG_SEND_STOPPED ? QG_STOPPED : QG_STATE;
    }
    return s->out_fin ? QG_STATE : QG_OK; /* the end waits in `out` */
}

int64_t qg__h3_write(qg_stream *s, const uint8_t *data, size_t len, bool fin) {
    qg_conn *conn = s->conn;
    int follows = may_follow(s);
    if (follows < 0) {
        return follows;
    }
    if (s->out_len > s->out_at) {
        return QG_AGAIN;
    }
    if (len == 0) {
        return fin ? qg__stream_send(s, NULL, 0, true) : 0;
    }
    int64_t room = qg__stream_room(s);
    if (room < 0) {
        return room;
    }
    uint8_t *io = conn->engine->io;
    size_t overhead = 1 + qg__varint_size(len);
    if ((size_t)room <= overhead) {
        /* Not even a byte: this call's own refusal makes quiche remember the stream. */
        int64_t rc = qg__stream_send(s, NULL, 0, false);
        int armed = rc >= 0 ? quiche_conn_stream_writable(conn->quiche, s->id,
                                                          overhead + qg__stream_low_water(s, len))
                            : 0;
        return rc < 0 ? rc : armed < 0 ? QG_CLOSED : QG_AGAIN;
    }
    size_t n = qg__min(len, (size_t)room - overhead);
    bool ends = fin && n == len;
    size_t prefix = data_prefix(io, n);
    int64_t rc;
    if (prefix + n <= QG_HEAD_CHUNK) {
        memcpy(io + prefix, data, n);
        rc = qg__stream_send(s, io, prefix + n, ends);
    } else {
        rc = qg__stream_send(s, io, prefix, false);
        rc = rc < 0 ? rc : qg__stream_send(s, data, n, ends);
    }
    if (rc >= 0 && n < len) {
        quiche_conn_stream_writable(conn->quiche, s->id,
                                    overhead + qg__stream_low_water(s, len - n));
    }
    return rc < 0 ? rc : (int64_t)n;
}

int qg__h3_send_trailers(qg_stream *s, const uint8_t *head, size_t head_len) {
    uint8_t prefix[32];
    int follows = may_follow(s);
    if (follows < 0) {
        return follows;
    }
    part parts[] = {{prefix, head_prefix(prefix, head_len)}, {head, head_len}};
    return put_parts(s, parts, 2, true);
}

qg_stream *qg__h3_open_request(qg_conn *conn) {
    if (quiche_conn_peer_streams_left_bidi(conn->quiche) == 0) {
        return NULL;
    }
    qg_stream *s = qg__stream_new(conn, conn->h3.next_request_id, QG_STREAM_MESSAGE, QG_RECV_HEAD,
                                  QG_SEND_HEAD);
    if (s != NULL) {
        s->told = true;
        conn->h3.next_request_id += 4;
        conn->engine->counters->requests_sent++;
    }
    return s;
}
