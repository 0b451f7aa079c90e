#include "h3_control.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine.h"
#include "h3.h"

/* Stream types (RFC 9114, section 6.2; RFC 9204, section 4.2). */
enum { TYPE_CONTROL = 0, TYPE_PUSH = 1, TYPE_ENCODER = 2, TYPE_DECODER = 3 };

/* Frames of the control stream (RFC 9114, section 7.2; RFC 9218, section 7.2). */
enum {
    CANCEL_PUSH = 0x3,
    SETTINGS = 0x4,
    GOAWAY = 0x7,
    ORIGIN = 0xc, /* RFC 9412: a hint, which we do not take */
    MAX_PUSH_ID = 0xd,
    PRIORITY_REQUEST = 0xf0700,
    PRIORITY_PUSH = 0xf0701
};

/* Settings (RFC 9114, section 7.2.4.1; RFC 9220, section 3). */
enum { MAX_FIELD_SECTION_SIZE = 0x6, ENABLE_CONNECT_PROTOCOL = 0x8 };

/* A frame that means something is never longer: a peer's SETTINGS are a few pairs of integers. */
#define PAYLOAD_MAX 4096

#define SETTINGS_MAX 64

/* How the text begins of a connection that ends for such a frame; quicgreen/connection.py looks for it. */
#define UNKNOWN_FRAME "unknown frame type "

#define CHUNK 1024

static bool fail(qg_conn *conn, uint64_t code, const char *text) {
    qg__conn_close(conn, true, code, text);
    return false;
}

/* ------------------------------------------------------------- ours */

void qg__h3_start(qg_conn *conn) {
    qg_h3 *h3 = &conn->h3;
    uint8_t out[64];
    size_t at = qg__varint_put(out, TYPE_CONTROL);
    uint8_t settings[32];
    size_t len = qg__varint_put(settings, MAX_FIELD_SECTION_SIZE);
    len += qg__varint_put(settings + len, conn->config->options.max_field_section_size);
    if (conn->is_server && conn->config->options.extended_connect) {
        len += qg__varint_put(settings + len, ENABLE_CONNECT_PROTOCOL);
        len += qg__varint_put(settings + len, 1);
    }
    at += qg__varint_put(out + at, SETTINGS);
    at += qg__varint_put(out + at, len);
    memcpy(out + at, settings, len);
    at += len;

    h3->control_id = conn->is_server ? 3 : 2;
    h3->next_uni_id = h3->control_id + 4;
    /* We use no dynamic table, so we open no QPACK streams (RFC 9204, section 4.2). */
    qg_stream *s =
        quiche_conn_peer_streams_left_uni(conn->quiche) > 0
            ? qg__stream_new(conn, h3->control_id, QG_STREAM_OURS, QG_RECV_NONE, QG_SEND_BODY)
            : NULL;
    if (s == NULL) {
        fail(conn, H3_STREAM_CREATION_ERROR, "no room for the control stream");
        return;
    }
    quiche_conn_stream_priority(conn->quiche, s->id, 0, false);
    qg__stream_put(s, out, at, false);
}

void qg__h3_goaway(qg_conn *conn, uint64_t id) {
    qg_stream *s = qg__streams_find(&conn->streams, conn->h3.control_id);
    uint8_t out[16];
    size_t at = qg__varint_put(out, GOAWAY);
    at += qg__varint_put(out + at, qg__varint_size(id));
    at += qg__varint_put(out + at, id);
    if (s != NULL && s->kind == QG_STREAM_OURS) {
        qg__stream_put(s, out, at, false);
        conn->h3.goaway_sent = id;
    }
}

/* ------------------------------------------------------------- the peer's frames */

bool qg__h3_skip_unknown(qg_conn *conn, uint64_t type) {
    if (type == 0x2 || type == 0x6 || type == 0x8 || type == 0x9) {
        char text[64];
        snprintf(text, sizeof text, UNKNOWN_FRAME "0x%x (HTTP/2's)", (unsigned)type);
        return fail(conn, H3_FRAME_UNEXPECTED, text);
    }
    bool reserved = type >= 0x21 && (type - 0x21) % 0x1f == 0;
    if (!reserved && type != ORIGIN) {
        conn->engine->counters->frames_unknown++;
        conn->h3.unknown_frame = conn->h3.unknown_frame != 0 ? conn->h3.unknown_frame : type;
    }
    return true;
}

static bool take_setting(qg_conn *conn, uint64_t id, uint64_t value) {
    switch (id) {
    case 0x2: /* HTTP/2's, reserved so that a mix-up shows */
    case 0x3:
    case 0x4:
    case 0x5:
        return fail(conn, H3_SETTINGS_ERROR, "a setting of HTTP/2");
    case MAX_FIELD_SECTION_SIZE:
        conn->h3.peer_max_field_section_size = value;
        return true;
    case ENABLE_CONNECT_PROTOCOL:
        if (value > 1) {
            return fail(conn, H3_SETTINGS_ERROR, "ENABLE_CONNECT_PROTOCOL is neither 0 nor 1");
        }
        conn->h3.peer_extended_connect = value == 1;
        return true;
    default:
        return true;
    }
}

/* A server that takes early data stands by the settings that it was sent under (RFC 9114,
 * section 7.2.4.2). */
static bool keeps_promise(qg_conn *conn) {
    const qg_h3 *h3 = &conn->h3;
    const qg_remembered *old = &conn->remembered;
    bool kept = h3->peer_max_field_section_size >= old->max_field_section_size &&
                h3->peer_extended_connect >= old->extended_connect;
    return kept || conn->is_server || !conn->early_sent ||
           SSL_early_data_accepted(conn->ssl) != 1 ||
           fail(conn, H3_SETTINGS_ERROR, "early data was taken and a limit lowered");
}

static bool take_settings(qg_conn *conn, const uint8_t *p, size_t len) {
    uint64_t seen[SETTINGS_MAX];
    unsigned count = 0;
    conn->h3.peer_max_field_section_size = QG_NEVER;
    conn->h3.peer_extended_connect = false;
    while (len > 0) {
        uint64_t id, value;
        size_t a = qg__varint_get(p, len, &id);
        size_t b = a > 0 ? qg__varint_get(p + a, len - a, &value) : 0;
        if (b == 0) {
            return fail(conn, H3_FRAME_ERROR, "SETTINGS end inside a setting");
        }
        if (count == SETTINGS_MAX) {
            return fail(conn, H3_EXCESSIVE_LOAD, "too many settings");
        }
        for (unsigned i = 0; i < count; i++) {
            if (seen[i] == id) {
                return fail(conn, H3_SETTINGS_ERROR, "a setting was given twice");
            }
        }
        seen[count++] = id;
        if (!take_setting(conn, id, value)) {
            return false;
        }
        p += a + b;
        len -= a + b;
    }
    conn->h3.settings_seen = true;
    return keeps_promise(conn);
}

/* Requests from `id` on were not processed: they may be sent again elsewhere. */
static void refuse_from(qg_conn *conn, uint64_t id) {
    for (uint32_t i = 0; i < conn->streams.capacity; i++) {
        qg_stream *s = conn->streams.slots[i];
        if (s != NULL && s->kind == QG_STREAM_MESSAGE && s->id >= id &&
            s->recv_state == QG_RECV_HEAD) {
            qg__stream_fail(s, H3_REQUEST_CANCELLED, QG_REFUSED);
        }
    }
    while (!qg__link_alone(&conn->pending)) {
        qg__pending_fail(QG_CONTAINER(conn->pending.next, qg_pending, link), QG_REFUSED,
                         H3_REQUEST_REJECTED);
    }
}

static bool take_goaway(qg_conn *conn, uint64_t id) {
    if ((!conn->is_server && (id & 3) != 0) || id > conn->h3.goaway_received) {
        return fail(conn, H3_ID_ERROR, "GOAWAY with a wrong or larger id");
    }
    conn->h3.goaway_received = id;
    if (conn->is_server) {
        return true; /* a push id, and we push nothing */
    }
    conn->draining = true;
    conn->goaway_due = true;
    qg__conn_touch(conn); /* to say it: no other packet may come for long */
    refuse_from(conn, id);
    return true;
}

static bool take_priority(qg_conn *conn, const uint8_t *p, size_t len) {
    uint64_t id;
    size_t n = qg__varint_get(p, len, &id);
    if (n == 0) {
        return fail(conn, H3_FRAME_ERROR, "PRIORITY_UPDATE without an id");
    }
    if (!conn->is_server) {
        return fail(conn, H3_FRAME_UNEXPECTED, "PRIORITY_UPDATE from a server");
    }
    if ((id & 3) != 0) {
        return fail(conn, H3_ID_ERROR, "PRIORITY_UPDATE for no request");
    }
    if (qg__streams_find(&conn->streams, id) != NULL) {
        uint8_t urgency;
        bool incremental;
        qg__priority_parse(p + n, len - n, &urgency, &incremental);
        quiche_conn_stream_priority(conn->quiche, id, (uint8_t)(124 + urgency), incremental);
    }
    return true;
}

static bool take_id(qg_conn *conn, uint64_t type, uint64_t id) {
    if (type == GOAWAY) {
        return take_goaway(conn, id);
    }
    if (type == CANCEL_PUSH) { /* RFC 9114, section 7.2.3 */
        return fail(conn, H3_ID_ERROR, "CANCEL_PUSH of what was never promised");
    }
    if (id < conn->h3.max_push_id) { /* section 7.2.7 */
        return fail(conn, H3_ID_ERROR, "MAX_PUSH_ID that falls");
    }
    conn->h3.max_push_id = id;
    return true;
}

static bool take_frame(qg_stream *s, const uint8_t *p, size_t len) {
    qg_conn *conn = s->conn;
    uint64_t id = 0;
    switch (s->frame.type) {
    case SETTINGS:
        return take_settings(conn, p, len);
    case PRIORITY_REQUEST:
        return take_priority(conn, p, len);
    default: /* GOAWAY, MAX_PUSH_ID, CANCEL_PUSH: one integer */
        if (len == 0 || qg__varint_get(p, len, &id) != len) {
            return fail(conn, H3_FRAME_ERROR, "a control frame of the wrong length");
        }
        return take_id(conn, s->frame.type, id);
    }
}

/* Does the frame's payload mean something to us? */
static bool meaningful(uint64_t type) {
    return type == SETTINGS || type == GOAWAY || type == MAX_PUSH_ID || type == CANCEL_PUSH ||
           type == PRIORITY_REQUEST;
}

static bool begin_frame(qg_stream *s, uint64_t type, uint64_t len) {
    qg_conn *conn = s->conn;
    s->frame.type = type;
    s->frame.left = len;
    s->frame.header_len = 0;
    if (!s->settings_seen && type != SETTINGS) {
        return fail(conn, H3_MISSING_SETTINGS, "the control stream does not begin with SETTINGS");
    }
    bool misplaced = type <= 0x1 || type == 0x5 || (type == SETTINGS && s->settings_seen) ||
                     ((type == MAX_PUSH_ID || type == PRIORITY_PUSH) && !conn->is_server);
    if (misplaced) {
        return fail(conn, H3_FRAME_UNEXPECTED, "not a frame of the control stream");
    }
    if (type == PRIORITY_PUSH) { /* RFC 9218, section 7.2 */
        return fail(conn, H3_ID_ERROR, "PRIORITY_UPDATE of what was never promised");
    }
    s->settings_seen = true;
    if (meaningful(type) && len > PAYLOAD_MAX) {
        return fail(conn, H3_EXCESSIVE_LOAD, "a control frame is too long");
    }
    return meaningful(type) || qg__h3_skip_unknown(conn, type);
}

/* The payload comes in pieces. */
static bool feed_payload(qg_stream *s, const uint8_t *p, size_t n) {
    bool wanted = meaningful(s->frame.type);
    if (wanted && s->section == NULL) {
        s->section = malloc((size_t)s->frame.left + 1);
        s->section_len = 0;
        if (s->section == NULL) {
            return fail(s->conn, H3_INTERNAL_ERROR, "out of memory");
        }
    }
    if (wanted) {
        memcpy(s->section + s->section_len, p, n);
        s->section_len += (uint32_t)n;
    }
    s->frame.left -= n;
    if (s->frame.left > 0 || !wanted) {
        return true;
    }
    bool ok = take_frame(s, s->section, s->section_len);
    free(s->section);
    s->section = NULL;
    return ok;
}

static bool feed_control(qg_stream *s, const uint8_t *p, size_t n) {
    qg_frame *f = &s->frame;
    while (n > 0) {
        if (f->left > 0) {
            size_t k = (size_t)qg__min64(n, f->left);
            if (!feed_payload(s, p, k)) {
                return false;
            }
            p += k;
            n -= k;
            continue;
        }
        uint64_t type, len;
        f->header[f->header_len++] = *p++;
        n--;
        size_t a = qg__varint_get(f->header, f->header_len, &type);
        size_t b = a > 0 ? qg__varint_get(f->header + a, f->header_len - a, &len) : 0;
        if (b > 0 && (!begin_frame(s, type, len) ||
                      (len == 0 && meaningful(type) && !take_frame(s, p, 0)))) {
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------- QPACK streams */

/* With a table of capacity 0 an encoder may only say "capacity 0" (RFC 9204, section 4.3.1). */
static bool feed_encoder(qg_conn *conn, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0x20) {
            return fail(conn, QPACK_ENCODER_STREAM_ERROR, "an insertion into a table of size 0");
        }
    }
    return true;
}

/* A decoder may only cancel streams (section 4.4.2): there is nothing to acknowledge. */
static bool feed_decoder(qg_stream *s, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (s->frame.header_len > 0) { /* inside a long stream id */
            s->frame.header_len = (p[i] & 0x80) != 0;
        } else if ((p[i] & 0xc0) == 0x40) {
            s->frame.header_len = (p[i] & 0x3f) == 0x3f;
        } else {
            return fail(s->conn, QPACK_DECODER_STREAM_ERROR, "an acknowledgement of nothing");
        }
    }
    return true;
}

/* ------------------------------------------------------------- reading */

static bool claim(qg_stream *s, bool *seen, qg_stream_kind kind) {
    if (*seen) {
        return fail(s->conn, H3_STREAM_CREATION_ERROR, "a second stream of a kind that is single");
    }
    *seen = true;
    s->kind = (uint8_t)kind;
    s->frame.header_len = 0;
    return true;
}

static bool take_type(qg_stream *s, uint64_t type) {
    qg_conn *conn = s->conn;
    switch (type) {
    case TYPE_CONTROL:
        return claim(s, &conn->h3.control_seen, QG_STREAM_CONTROL);
    case TYPE_ENCODER:
        return claim(s, &conn->h3.encoder_seen, QG_STREAM_QPACK_ENCODER);
    case TYPE_DECODER:
        return claim(s, &conn->h3.decoder_seen, QG_STREAM_QPACK_DECODER);
    case TYPE_PUSH:
        return conn->is_server ? fail(conn, H3_STREAM_CREATION_ERROR, "a push stream from a client")
                               : fail(conn, H3_ID_ERROR, "push was not allowed");
    default:
        /* Unknown, or grease: read and dropped, since quiche would not free it once it was stopped.
         */
        s->recv_state = QG_RECV_DISCARD;
        s->released = true;
        return true;
    }
}

/* `n` bytes of whichever kind. */
static bool feed(qg_stream *s, const uint8_t *p, size_t n) {
    while (s->kind == QG_STREAM_UNI && n > 0 && s->recv_state == QG_RECV_BODY) {
        uint64_t type;
        s->frame.header[s->frame.header_len++] = *p++;
        n--;
        if (qg__varint_get(s->frame.header, s->frame.header_len, &type) > 0 &&
            !take_type(s, type)) {
            return false;
        }
    }
    switch (s->kind) {
    case QG_STREAM_CONTROL:
        return feed_control(s, p, n);
    case QG_STREAM_QPACK_ENCODER:
        return feed_encoder(s->conn, p, n);
    case QG_STREAM_QPACK_DECODER:
        return feed_decoder(s, p, n);
    default:
        return true;
    }
}

void qg__h3_control_readable(qg_stream *s) {
    qg_conn *conn = s->conn;
    while (s->recv_state == QG_RECV_BODY) {
        uint8_t chunk[CHUNK];
        bool fin = false;
        uint64_t code = 0;
        int64_t n = quiche_conn_stream_recv(conn->quiche, s->id, chunk, sizeof chunk, &fin, &code);
        if (n == QUICHE_ERR_DONE) {
            return;
        }
        qg__conn_dirty(conn);
        bool ended = n < 0 || fin;
        if (n > 0 && !feed(s, chunk, (size_t)n)) {
            return;
        }
        if (ended && s->kind != QG_STREAM_UNI) {
            fail(conn, H3_CLOSED_CRITICAL_STREAM, "a stream that must stay open was closed");
            return;
        }
        if (ended) {
            s->recv_state = n < 0 ? QG_RECV_RESET : QG_RECV_DONE;
            s->released = true;
        }
    }
    qg__stream_discard(s);
    qg__stream_settle(s);
}
