/* submit.c: what the caller left in the submission ring. */
#include "engine.h"
#include "h3.h"

/* The stream, if it is one that the caller may name: not a control stream. */
static qg_stream *stream_of(const qg_conn *conn, uint64_t id) {
    qg_stream *s = qg__streams_find(&conn->streams, id);
    bool callers = s != NULL && (s->kind == QG_STREAM_MESSAGE || s->kind == QG_STREAM_RAW);
    return callers ? s : NULL;
}

static void respond(qg_conn *conn, const qg_submission *op, const uint8_t *bytes, int valid) {
    qg_stream *s = qg__streams_find(&conn->streams, op->stream);
    if (s == NULL || s->kind != QG_STREAM_MESSAGE) {
        return;
    }
    int rc = valid != QG_OK ? valid
                            : qg__h3_send_head(s, bytes, op->head_len, bytes + op->head_len,
                                               op->body_len, op->flags);
    if (rc < 0 && (op->flags & QG_FIN)) {
        s->released = true; /* the caller said its last word about it */
        qg__stream_reset(s, H3_INTERNAL_ERROR);
    }
    qg__stream_settle(s);
}

/* A request for something that is gone, or refused, is answered all the same. `valid`: QG_OK, or
 * what is wrong with the record. */
static void request(qg_engine *e, qg_conn *conn, const qg_submission *op, const uint8_t *bytes,
                    int valid) {
    int rc = valid;
    if (rc == QG_OK) {
        rc = conn == NULL ? QG_GONE
                          : qg__conn_request(conn, bytes, op->head_len, bytes + op->head_len,
                                             op->body_len, op->flags, op->token, op->timeout_us);
    }
    if (rc == QG_OK || op->token == 0) {
        return;
    }
    qg_pending *p = qg__pool_get(&e->pending_pool);
    if (p == NULL) {
        return; /* its own deadline is all that is left */
    }
    *p = (qg_pending){.token = op->token, .conn_id = op->conn, .result = rc};
    if (conn != NULL) {
        p->code = conn->close_code;
    }
    qg__link_init(&p->link);
    qg__link_append(&e->failed, &p->link);
}

static void reset(qg_conn *conn, uint64_t stream, uint64_t code) {
    qg_stream *s = stream_of(conn, stream);
    if (s != NULL) {
        if (conn->state < QG_CONN_ENDING) {
            qg__stream_fail(s, code, QG_STATE);
        }
        qg__stream_release(s);
    }
}

static void release(qg_conn *conn, const qg_submission *op) {
    qg_stream *s = stream_of(conn, op->stream);
    if (s != NULL) {
        qg__stream_release(s);
    }
}

static void credit(qg_engine *e, const qg_submission *op) {
    qg_endpoint *endpoint = qg__endpoint_get(e, op->conn <= INT32_MAX ? (int)op->conn : -1);
    if (endpoint == NULL) {
        return;
    }
    bool had_none = endpoint->credit == 0;
    endpoint->credit += op->code;
    if (!had_none) {
        return;
    }
    for (qg_link *l = endpoint->conns.next; l != &endpoint->conns; l = l->next) {
        qg_conn *conn = QG_CONTAINER(l, qg_conn, of_endpoint);
        if (!qg__link_alone(&conn->deferred) || conn->held > 0) {
            qg__conn_touch(conn);
        }
    }
}

static void take(qg_engine *e, const qg_submission *op) {
    int valid = (uint64_t)op->offset + op->head_len + op->body_len > e->submission_bytes
                    ? QG_INVALID
                : op->body_len > QG_BODY_INLINE_MAX ? QG_TOO_LARGE
                                                    : QG_OK;
    const uint8_t *bytes = e->submission_arena + (valid == QG_OK ? op->offset : 0);
    qg_conn *conn = qg__engine_conn(e, op->conn);
    if (op->op == QG_OP_REQUEST) {
        request(e, conn, op, bytes, valid);
        return;
    }
    if (op->op == QG_OP_CREDIT) {
        credit(e, op);
        return;
    }
    bool last_word = op->op == QG_OP_RESET || op->op == QG_OP_RELEASE;
    if (conn == NULL || (conn->state >= QG_CONN_ENDING && !last_word)) {
        return;
    }
    /* No larger code can be sent; nobody is here to be told. */
    uint64_t code = qg__min64(op->code, QG_VARINT_MAX);
    switch (op->op) {
    case QG_OP_RESPOND:
        respond(conn, op, bytes, valid);
        break;
    case QG_OP_RESET:
        reset(conn, op->stream, code);
        break;
    case QG_OP_RELEASE:
        release(conn, op);
        break;
    case QG_OP_CANCEL:
        qg__conn_cancel(conn, op->token, code);
        break;
    case QG_OP_ATTACH:
        conn->token = op->token;
        break;
    default:
        break;
    }
}

void qg__engine_take(qg_engine *e) {
    for (;;) {
        qg_submission *op = &e->submissions[e->submission_next];
        if (op->op == 0) {
            return;
        }
        take(e, op);
        op->op = 0;
        e->submission_next = (e->submission_next + 1) % e->submission_capacity;
    }
}
