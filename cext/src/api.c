/* api.c: the public functions about connections and streams. Each first takes the submissions, so
 * that what the caller said before happens before. */
#include <errno.h>
#include <stdio.h>

#include "engine.h"
#include "h3.h"
#include "qlog.h"
#include "qpack.h"
#include "quicgreen_seeing.h"
#include "raw.h"
#include "resumption.h"

/* ------------------------------------------------------------- words */

int qg_abi(void) {
    return QG_ABI;
}

const char *qg_build(void) {
    static char text[96];
    if (text[0] == '\0') {
        snprintf(text, sizeof text, "quiche %s, %s", quiche_version(),
                 OpenSSL_version(OPENSSL_VERSION));
    }
    return text;
}

const char *qg_error_text(int code) {
    static const char *const texts[] = {
        "success",
        "would block",
        "gone: the id names nothing alive",
        "not allowed in this state",
        "invalid argument",
        "out of memory",
        "the peer reset the stream",
        "the peer asked to stop sending",
        "the connection is closed",
        "a limit was reached",
        "a system call failed",
        "TLS failed",
        "the peer broke the protocol",
        "the engine was made in another process",
        "too large",
        "not processed by the peer",
        "not announced by the peer",
        "the body ended before its content-length",
    };
    return code <= 0 && -code < (int)(sizeof texts / sizeof *texts) ? texts[-code] : "unknown code";
}

int qg_field_encode(const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len,
                    uint8_t *out, size_t capacity) {
    uint8_t lower[256];
    if (name_len == 0 || name_len > sizeof lower) {
        return QG_INVALID;
    }
    for (size_t i = 0; i < name_len; i++) {
        lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i];
    }
    int rc = qg__field_sendable(lower, name_len, value, value_len);
    return rc <= 0 ? rc : qg__qpack_encode(lower, name_len, value, value_len, out, capacity);
}

/* ------------------------------------------------------------- look-ups */

/* The connection, if it can still be used. QG_OK or a code. */
static int conn_of(qg_engine *e, uint64_t id, qg_conn **out) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    e->now_ns = qg__now_ns();
    qg__engine_take(e);
    *out = qg__engine_conn(e, id);
    return *out == NULL ? QG_GONE : (*out)->state >= QG_CONN_ENDING ? QG_CLOSED : QG_OK;
}

/* Also one that outlives its connection (see conn_end.c): for what needs no peer. */
static int readable_of(qg_engine *e, uint64_t conn_id, uint64_t id, qg_stream **out) {
    qg_conn *conn;
    int rc = conn_of(e, conn_id, &conn);
    if (rc < 0 && rc != QG_CLOSED) {
        return rc;
    }
    *out = qg__streams_find(&conn->streams, id);
    bool callers =
        *out != NULL && ((*out)->kind == QG_STREAM_MESSAGE || (*out)->kind == QG_STREAM_RAW);
    return callers ? QG_OK : rc == QG_CLOSED ? QG_CLOSED : QG_GONE;
}

static int stream_of(qg_engine *e, uint64_t conn_id, uint64_t id, qg_stream **out) {
    int rc = readable_of(e, conn_id, id, out);
    return rc == QG_OK && (*out)->conn->state >= QG_CONN_ENDING ? QG_CLOSED : rc;
}

/* ------------------------------------------------------------- connections */

int qg_connect(qg_engine *e, int endpoint, const qg_addr *peer, qg_config *config,
               const char *server_name, uint64_t token, uint64_t timeout_us, uint64_t *conn_id) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    if (token == 0 || config->options.is_server || peer->len == 0) {
        return QG_INVALID;
    }
    int rc = QG_GONE;
    qg_addr to = *peer;
    qg_endpoint *ep = qg__endpoint_for(e, endpoint, &to, &rc);
    if (ep == NULL) {
        return rc;
    }
    e->now_ns = qg__now_ns();
    qg_conn *conn = qg__conn_new(e, ep, config, false, &ep->dp->local, &to);
    if (conn == NULL) {
        return e->slot_capacity >= e->max_connections ? QG_LIMIT : QG_NOMEM;
    }
    rc = qg__cid_issue(&e->cids, conn->id, conn->cids[0]);
    if (rc == QG_OK) {
        conn->cid_count = 1;
        rc = qg__conn_start(conn, conn->cids[0], QG_CID_LEN, NULL, 0, server_name);
    }
    if (rc < 0) {
        qg__conn_free(conn);
        return rc;
    }
    conn->token = token;
    if (timeout_us > 0) {
        qg__timer_set(&e->timers, &conn->phase, qg__later(e->now_ns, timeout_us, QG_NS_PER_US));
    }
    e->counters->connections_opened++;
    qg__conn_dirty(conn);
    *conn_id = conn->id;
    return QG_OK;
}

static size_t copy(uint8_t *out, size_t capacity, const uint8_t *in, size_t len) {
    size_t n = qg__min(len, capacity);
    qg__copy(out, in, n);
    return n;
}

int qg_conn_info_of(qg_engine *e, uint64_t id, qg_conn_info *out) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0 && rc != QG_CLOSED) {
        return rc;
    }
    *out = (qg_conn_info){.local = conn->local,
                          .peer = conn->peer,
                          .is_server = conn->is_server,
                          .is_established = conn->established,
                          .is_resumed = SSL_session_reused(conn->ssl) == 1,
                          .is_raw = conn->raw,
                          .endpoint = (uint32_t)conn->endpoint->index,
                          .extended_connect = conn->h3.peer_extended_connect,
                          .max_datagram = quiche_conn_max_send_udp_payload_size(conn->quiche),
                          .streams_left = quiche_conn_peer_streams_left_bidi(conn->quiche),
                          .unknown_frame = conn->h3.unknown_frame};
    const uint8_t *text;
    size_t len;
    quiche_conn_application_proto(conn->quiche, &text, &len);
    out->alpn_len = (uint32_t)copy(out->alpn, sizeof out->alpn, text, len);
    const char *name = SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
    if (name != NULL) {
        out->server_name_len = (uint32_t)copy(out->server_name, sizeof out->server_name,
                                              (const uint8_t *)name, strlen(name));
    }
    return QG_OK;
}

int qg_conn_stats_of(qg_engine *e, uint64_t id, qg_conn_stats *out) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0 && rc != QG_CLOSED) {
        return rc;
    }
    quiche_stats s;
    quiche_path_stats p = {0};
    quiche_conn_stats(conn->quiche, &s);
    for (size_t i = 0; i < s.paths_count && !p.active; i++) {
        quiche_conn_path_stats(conn->quiche, i, &p);
    }
    *out = (qg_conn_stats){.recv = s.recv,
                           .sent = s.sent,
                           .lost = s.lost,
                           .spurious_lost = s.spurious_lost,
                           .retrans = s.retrans,
                           .sent_bytes = s.sent_bytes,
                           .recv_bytes = s.recv_bytes,
                           .acked_bytes = s.acked_bytes,
                           .lost_bytes = s.lost_bytes,
                           .stream_retrans_bytes = s.stream_retrans_bytes,
                           .paths_count = s.paths_count,
                           .reset_stream_count_local = s.reset_stream_count_local,
                           .stopped_stream_count_local = s.stopped_stream_count_local,
                           .reset_stream_count_remote = s.reset_stream_count_remote,
                           .stopped_stream_count_remote = s.stopped_stream_count_remote,
                           .data_blocked_sent_count = s.data_blocked_sent_count,
                           .stream_data_blocked_sent_count = s.stream_data_blocked_sent_count,
                           .data_blocked_recv_count = s.data_blocked_recv_count,
                           .stream_data_blocked_recv_count = s.stream_data_blocked_recv_count,
                           .path_challenge_rx_count = s.path_challenge_rx_count,
                           .total_pto_count = p.total_pto_count,
                           .rtt = p.rtt,
                           .min_rtt = p.min_rtt,
                           .max_rtt = p.max_rtt,
                           .rttvar = p.rttvar,
                           .cwnd = p.cwnd,
                           .pmtu = p.pmtu,
                           .delivery_rate = p.delivery_rate,
                           .max_bandwidth = p.max_bandwidth};
    return QG_OK;
}

int qg_conn_qlog(qg_engine *e, uint64_t id, const char *path) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0) {
        return rc;
    }
    rc = qg__qlog_begin(conn, path, false, true);
    return rc == QG_SYSTEM && errno == EISDIR ? qg__qlog_begin(conn, path, true, true) : rc;
}

int qg_conn_peer_cert(qg_engine *e, uint64_t id, uint8_t *out, size_t capacity) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0) {
        return rc;
    }
    const uint8_t *der = NULL;
    size_t len = 0;
    quiche_conn_peer_cert(conn->quiche, &der, &len);
    if (len > capacity) {
        return QG_TOO_LARGE;
    }
    copy(out, capacity, der, len);
    return (int)len;
}

/* ------------------------------------------------------------- sessions */

int qg_conn_resume(qg_engine *e, uint64_t id, const uint8_t *ticket, size_t len, uint32_t early) {
    qg_conn *conn;
    size_t session_len;
    int rc = conn_of(e, id, &conn);
    if (rc < 0) {
        return rc;
    }
    if (conn->is_server || conn->begun) {
        return QG_STATE;
    }
    const uint8_t *session = qg__ticket_open(ticket, len, &conn->remembered, &session_len);
    /* The peer's limits of that time hold for early data only (RFC 9000, section 7.4.1); quiche keeps
     * the larger of its old and new ones, once it has both. */
    if (session == NULL ||
        !(early != 0 ? quiche_conn_set_session(conn->quiche, session, session_len) == 0
                     : qg__session_take_up(conn->ssl, session, session_len))) {
        SSL_set_session(conn->ssl, NULL); /* quiche may have got half of it */
        return QG_INVALID;
    }
    SSL_set_early_data_enabled(conn->ssl, early != 0);
    conn->wants_early = early != 0;
    return QG_OK;
}

int qg_session_info_of(qg_engine *e, uint64_t id, qg_session_info *out) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0 && rc != QG_CLOSED) {
        return rc;
    }
    bool accepted = SSL_early_data_accepted(conn->ssl) == 1;
    *out = (qg_session_info){
        .is_resumed = SSL_session_reused(conn->ssl) == 1,
        .in_early_data = qg__conn_is_early(conn),
        .early_data = !conn->established || !qg__conn_early_tried(conn) ? QG_EARLY_NONE
                      : accepted                                        ? QG_EARLY_ACCEPTED
                                                                        : QG_EARLY_REFUSED,
        .reason = SSL_early_data_reason_string(SSL_get_early_data_reason(conn->ssl)),
    };
    return QG_OK;
}

/* ------------------------------------------------------------- opening */

/* May the caller open a stream of its own here? QG_AGAIN after arming the wait. */
static int may_open(qg_conn *conn, bool bidi, uint16_t flags, uint64_t token, uint64_t timeout_us) {
    if (conn->draining) {
        return QG_REFUSED;
    }
    bool room =
        conn->state == QG_CONN_OPEN && (bidi ? quiche_conn_peer_streams_left_bidi(conn->quiche)
                                             : quiche_conn_peer_streams_left_uni(conn->quiche)) > 0;
    if (!room || ((flags & QG_EXTENDED) && !conn->h3.settings_seen)) {
        return qg__conn_await_stream(conn, bidi, flags, token, timeout_us);
    }
    return (flags & QG_EXTENDED) && !conn->h3.peer_extended_connect ? QG_UNABLE : QG_OK;
}

int qg_stream_open(qg_engine *e, uint64_t conn_id, uint32_t bidi, uint64_t token,
                   uint64_t timeout_us, uint64_t *stream) {
    qg_conn *conn;
    int rc = conn_of(e, conn_id, &conn);
    if (rc == QG_OK) {
        rc = conn->raw ? may_open(conn, bidi != 0, 0, token, timeout_us) : QG_STATE;
    }
    if (rc < 0) {
        return rc;
    }
    qg_stream *s = qg__raw_open(conn, bidi != 0);
    if (s == NULL) {
        return QG_NOMEM;
    }
    *stream = s->id;
    return QG_OK;
}

int qg_stream_request(qg_engine *e, uint64_t conn_id, const uint8_t *head, size_t head_len,
                      uint32_t flags, uint64_t token, uint64_t timeout_us, uint64_t *stream) {
    qg_conn *conn;
    int rc = conn_of(e, conn_id, &conn);
    if (rc == QG_OK) {
        rc = conn->raw || conn->is_server
                 ? QG_STATE
                 : may_open(conn, true, (uint16_t)flags, token, timeout_us);
    }
    if (rc < 0) {
        return rc;
    }
    qg_stream *s = qg__h3_open_request(conn);
    if (s == NULL) {
        return QG_NOMEM;
    }
    s->head_only = (flags & QG_HEAD) != 0;
    rc = qg__h3_send_head(s, head, head_len, NULL, 0, (uint16_t)flags);
    if (rc < 0) {
        qg__stream_release(s);
        return rc;
    }
    *stream = s->id;
    return QG_OK;
}

int qg_stream_await_response(qg_engine *e, uint64_t conn_id, uint64_t id, uint64_t token,
                             uint64_t timeout_us) {
    qg_stream *s;
    int rc = stream_of(e, conn_id, id, &s);
    if (rc < 0) {
        return rc;
    }
    if (s->recv_state == QG_RECV_RESET) {
        return s->recv_code == H3_REQUEST_REJECTED ? QG_REFUSED : QG_RESET;
    }
    if (s->recv_state != QG_RECV_HEAD || s->conn->is_server) {
        return QG_STATE;
    }
    if (s->awaiting_head && s->read.token == token) {
        return qg__wait_time(s, &s->read, timeout_us);
    }
    rc = qg__wait_arm(s, &s->read, token, timeout_us);
    if (rc == QG_AGAIN) {
        s->awaiting_head = true;
        if (s->unread && qg__link_alone(&s->deferred)) {
            qg__link_append(&s->conn->deferred, &s->deferred);
            qg__conn_touch(s->conn);
        }
    }
    return rc;
}

/* ------------------------------------------------------------- reading and writing */

/* All was read of a stream that outlived its connection: nobody else will end it. */
static bool outlived(qg_stream *s) {
    bool all = s->conn->state == QG_CONN_ENDED && s->trailers == NULL;
    if (all) {
        qg__stream_free(s);
    }
    return all;
}

int64_t qg_stream_read(qg_engine *e, uint64_t conn_id, uint64_t id, uint8_t *out, size_t capacity,
                       uint64_t token, uint64_t timeout_us, uint32_t *flags, uint64_t *code) {
    qg_stream *s;
    *flags = 0;
    *code = 0;
    int rc = readable_of(e, conn_id, id, &s);
    if (rc < 0) {
        return rc;
    }
    if (s->recv_state == QG_RECV_RESET) {
        *code = s->recv_code;
        return QG_RESET;
    }
    if (s->recv_state == QG_RECV_DONE) {
        *flags = QG_FIN | (s->trailers != NULL ? QG_MORE : 0);
        return 0;
    }
    if (s->recv_state != QG_RECV_BODY) {
        return QG_STATE;
    }
    if (capacity == 0) {
        return 0;
    }
    bool fin;
    int64_t n = s->kind == QG_STREAM_RAW ? qg__raw_read(s, out, capacity, &fin)
                                         : qg__h3_read(s, out, capacity, &fin);
    if (n == QG_AGAIN && s->conn->state >= QG_CONN_ENDING) {
        outlived(s);
        return QG_CLOSED;
    }
    if (n == QG_AGAIN) {
        return qg__wait_arm(s, &s->read, token, timeout_us);
    }
    if (n == QG_RESET) {
        /* It may have been freed if nobody was to be told; it was not: the caller is here. */
        s = qg__streams_find(&qg__engine_conn(e, conn_id)->streams, id);
        *code = s != NULL ? s->recv_code : 0;
    }
    if (n >= 0 && fin) {
        *flags = QG_FIN | (s->trailers != NULL ? QG_MORE : 0);
        if (!outlived(s)) {
            qg__stream_settle(s);
        }
    }
    return n;
}

int64_t qg_stream_read_on(qg_engine *e, uint64_t conn, uint64_t id, uint8_t *out, size_t capacity,
                          uint64_t token, uint64_t timeout_us, uint32_t *flags, uint64_t *code) {
    size_t total = 0;
    for (;;) {
        int64_t n = qg_stream_read(e, conn, id, out + total, capacity - total, token, timeout_us,
                                   flags, code);
        if (n < 0 && total > 0) {
            *flags = n == QG_AGAIN ? QG_MORE : 0;
            return (int64_t)total;
        }
        if (n < 0) {
            return n;
        }
        total += (size_t)n;
        if ((*flags & QG_FIN) || total == capacity) {
            return (int64_t)total;
        }
    }
}

int64_t qg_stream_write(qg_engine *e, uint64_t conn_id, uint64_t id, const uint8_t *data,
                        size_t len, uint32_t flags, uint64_t token, uint64_t timeout_us,
                        uint64_t *code) {
    qg_stream *s;
    *code = 0;
    int rc = stream_of(e, conn_id, id, &s);
    if (rc < 0) {
        return rc;
    }
    bool fin = (flags & QG_FIN) != 0;
    int64_t n;
    if (s->kind != QG_STREAM_RAW) {
        n = qg__h3_write(s, data, len, fin);
    } else if (s->send_state == QG_SEND_BODY) {
        n = qg__stream_send(s, data, len, fin);
    } else {
        n = s->send_state == QG_SEND_STOPPED ? QG_STOPPED : QG_STATE;
    }
    if (n == QG_AGAIN) {
        return qg__wait_arm(s, &s->write, token, timeout_us);
    }
    if (n == QG_STOPPED) {
        *code = s->send_code;
    }
    if (n >= 0) {
        qg__stream_settle(s);
    }
    return n;
}

int qg_stream_send_trailers(qg_engine *e, uint64_t conn_id, uint64_t id, const uint8_t *head,
                            size_t head_len) {
    qg_stream *s;
    int rc = stream_of(e, conn_id, id, &s);
    if (rc == QG_OK) {
        rc = s->kind == QG_STREAM_MESSAGE ? qg__h3_send_trailers(s, head, head_len) : QG_STATE;
    }
    if (rc == QG_OK) {
        qg__stream_settle(s);
    }
    return rc;
}

int qg_stream_trailers(qg_engine *e, uint64_t conn_id, uint64_t id, uint8_t *out, size_t capacity) {
    qg_stream *s;
    int rc = readable_of(e, conn_id, id, &s);
    if (rc < 0) {
        return rc;
    }
    if (s->trailers_len > capacity) {
        return QG_TOO_LARGE;
    }
    return (int)copy(out, capacity, s->trailers, s->trailers_len);
}

/* ------------------------------------------------------------- ending */

int qg_stream_unwait(qg_engine *e, uint64_t conn_id, uint64_t id, uint64_t token) {
    qg_stream *s;
    int rc = stream_of(e, conn_id, id, &s);
    if (rc < 0) {
        return rc;
    }
    qg_wait *wait = s->read.token == token ? &s->read : s->write.token == token ? &s->write : NULL;
    if (wait == NULL || token == 0) {
        return QG_GONE;
    }
    qg__wait_clear(s, wait);
    return QG_OK;
}

int qg_stream_shutdown(qg_engine *e, uint64_t conn_id, uint64_t id, uint32_t sides, uint64_t code) {
    qg_stream *s;
    int rc = code <= QG_VARINT_MAX ? stream_of(e, conn_id, id, &s) : QG_INVALID;
    if (rc < 0) {
        return rc;
    }
    if (sides & QG_SIDE_READ) {
        qg__stream_stop(s, code);
        qg__wait_wake(s, &s->read, QG_EVENT_STREAM_ERROR, QG_STATE, code);
    }
    if (sides & QG_SIDE_WRITE) {
        qg__stream_reset(s, code);
        qg__wait_wake(s, &s->write, QG_EVENT_STREAM_ERROR, QG_STATE, code);
    }
    return QG_OK;
}

int qg_stream_release(qg_engine *e, uint64_t conn_id, uint64_t id) {
    qg_stream *s;
    int rc = readable_of(e, conn_id, id, &s);
    if (rc == QG_OK) {
        qg__stream_release(s);
    }
    return rc;
}

int qg_conn_close(qg_engine *e, uint64_t id, uint32_t app, uint64_t code, const uint8_t *reason,
                  size_t reason_len) {
    qg_conn *conn;
    int rc = code <= QG_VARINT_MAX ? conn_of(e, id, &conn) : QG_INVALID;
    if (rc == QG_OK) {
        char text[128];
        snprintf(text, sizeof text, "%.*s", (int)qg__min(reason_len, sizeof text - 1),
                 (const char *)reason);
        qg__conn_close(conn, app != 0, code, text);
    }
    return rc;
}

int qg_conn_finish(qg_engine *e, uint64_t id, uint64_t timeout_us) {
    qg_conn *conn;
    int rc = conn_of(e, id, &conn);
    if (rc < 0) {
        return rc;
    }
    if (conn->state == QG_CONN_HANDSHAKE || timeout_us == 0) {
        qg__conn_close(conn, true, conn->raw ? 0 : H3_NO_ERROR, "");
    } else {
        qg__conn_finish(conn, timeout_us);
    }
    return QG_OK;
}
