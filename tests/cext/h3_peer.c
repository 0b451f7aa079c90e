#include "h3_peer.h"

#include <stdio.h>

#include "qpack.h"

/* ---------------------------------------------------------------- composing */

void put_bytes(wire *w, const void *data, size_t len) {
    CHECK(w->len + len <= WIRE_MAX);
    qg__copy(w->data + w->len, data, len);
    w->len += len;
}

void put_number(wire *w, uint64_t number) {
    uint8_t out[8];
    put_bytes(w, out, qg__varint_put(out, number));
}

void put_frame(wire *w, uint64_t type, const void *payload, size_t len) {
    put_number(w, type);
    put_number(w, len);
    put_bytes(w, payload, len);
}

void put_head(wire *w, const char *lines) {
    static uint8_t section[WIRE_MAX];
    size_t len = QG_QPACK_PREFIX_LEN;
    memcpy(section, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
    while (*lines != '\0') {
        size_t line = strcspn(lines, "\n");
        const char *colon = memmem(lines + 1, line - 1, ": ", 2);
        CHECK(colon != NULL);
        int n = qg__qpack_encode((const uint8_t *)lines, (size_t)(colon - lines),
                                 (const uint8_t *)colon + 2, (size_t)(lines + line - colon - 2),
                                 section + len, sizeof section - len);
        CHECK(n > 0);
        len += (size_t)n;
        lines += line + 1;
    }
    put_frame(w, HEADERS, section, len);
}

/* ---------------------------------------------------------------- a client, a server */

void silent_client(rig *r, rig_options *o) {
    rig_options mine;
    rig_defaults(&mine);
    mine = o != NULL ? *o : mine;
    mine.client.raw = 1;
    rig_start(r, &mine);
    turn(r);
}

void silent_server(rig *r, rig_options *o) {
    rig_options mine;
    rig_defaults(&mine);
    mine = o != NULL ? *o : mine;
    mine.server.raw = 1;
    rig_start(r, &mine);
    turn(r);
}

static void say_settings(rig *r) {
    wire w = {0};
    put_number(&w, 0);
    put_frame(&w, SETTINGS, NULL, 0);
    peer_open(r, false, &w, false);
    turn(r);
}

void peer_client(rig *r, rig_options *o) {
    silent_client(r, o);
    say_settings(r);
}

void peer_server(rig *r, rig_options *o) {
    silent_server(r, o);
    say_settings(r);
}

static bool plays_client(const rig *r) {
    return r->client_config->options.raw != 0;
}

side *peer_of(rig *r) {
    return plays_client(r) ? &r->client : &r->server;
}

uint64_t peer_conn(rig *r) {
    return plays_client(r) ? r->conn : r->server_conn;
}

/* As the other side lets it. True when all is sent. */
static bool send_more(rig *r, uint64_t stream, const wire *w, bool fin, size_t *sent) {
    uint64_t code;
    int64_t n = qg_stream_write(peer_of(r)->engine, peer_conn(r), stream, w->data + *sent,
                                w->len - *sent, fin ? QG_FIN : 0, 0, 0, &code);
    CHECK(n >= 0 || n == QG_AGAIN);
    *sent += n > 0 ? (size_t)n : 0;
    return n >= 0 && *sent == w->len;
}

void peer_send(rig *r, uint64_t stream, const wire *w, bool fin) {
    size_t sent = 0;
    UNTIL(r, send_more(r, stream, w, fin, &sent));
}

uint64_t peer_open(rig *r, bool bidi, const wire *w, bool fin) {
    uint64_t stream;
    CHECK_EQ(qg_stream_open(peer_of(r)->engine, peer_conn(r), bidi, 0, 0, &stream), QG_OK);
    peer_send(r, stream, w, fin);
    return stream;
}

/* Reads, and drops what comes, until the end. */
static int64_t read_out(rig *r, uint64_t stream, uint64_t *code) {
    uint8_t dropped[4096];
    uint32_t flags;
    int64_t n;
    do {
        n = qg_stream_read(peer_of(r)->engine, peer_conn(r), stream, dropped, sizeof dropped, 0, 0,
                           &flags, code);
    } while (n > 0 && !(flags & QG_FIN));
    return n;
}

void await_peer_reset(rig *r, uint64_t stream, uint64_t code) {
    uint64_t got = 0;
    int64_t n;
    UNTIL(r, (n = read_out(r, stream, &got)) != QG_AGAIN);
    CHECK_EQ(n, QG_RESET);
    CHECK_EQ(got, code);
}

void await_peer_stopped(rig *r, uint64_t stream, uint64_t code) {
    uint64_t got = 0;
    int64_t n;
    UNTIL(r, (n = qg_stream_write(peer_of(r)->engine, peer_conn(r), stream, (const uint8_t *)"", 0,
                                  0, 0, 0, &got)) < 0);
    CHECK_EQ(n, QG_STOPPED);
    CHECK_EQ(got, code);
}

void ends_with(rig *r, uint64_t code) {
    const seen *e = await_event(r, peer_of(r), QG_EVENT_CLOSED);
    check_note("closed with \"%.*s\"", (int)e->event.head_len, (const char *)head_of(e));
    CHECK_EQ(e->event.code, code);
    CHECK_EQ(e->event.flags, BY_PEER);
    CHECK(e->event.head_len > 0); /* it says what was wrong */
    check_note(NULL);
    rig_close(r);
}

uint64_t await_request(rig *r, uint64_t token) {
    const seen *e;
    request(r, token, "GET", "/", NULL, 0, QG_FIN);
    do {
        e = await_event(r, &r->server, QG_EVENT_STREAM_OPENED);
    } while ((e->event.stream & 2) != 0); /* the control stream */
    return e->event.stream;
}

static void serves_peer_client(rig *r) {
    wire w = {0};
    put_head(&w, GET_LINES);
    uint64_t stream = peer_open(r, true, &w, true);
    const seen *e = await_event(r, &r->server, QG_EVENT_REQUEST);
    CHECK_EQ(e->event.stream, stream);
    respond(&r->server, e, "200", "served", 6, QG_FIN);
    read_all(r, stream, &w);
    frame f;
    size_t at = 0;
    CHECK(next_frame(&w, &at, &f));
    CHECK_EQ(f.type, HEADERS);
    CHECK(next_frame(&w, &at, &f));
    CHECK_TEXT(f.payload, f.len, "served");
}

static void serves_peer_server(rig *r) {
    const uint64_t token = 987654;
    wire w = {0};
    uint64_t stream = await_request(r, token);
    put_head(&w, ":status: 200\n");
    put_frame(&w, DATA, BYTES("served"));
    peer_send(r, stream, &w, true);
    const seen *e = await_token(r, &r->client, token);
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK_TEXT(body_of(e), e->event.body_len, "served");
}

void still_serves(rig *r) {
    if (plays_client(r)) {
        serves_peer_client(r);
    } else {
        serves_peer_server(r);
    }
}

/* ---------------------------------------------------------------- what comes back */

void read_all(rig *r, uint64_t stream, wire *w) {
    bool fin = false;
    w->len = 0;
    UNTIL(r, (w->len +=
              raw_read(peer_of(r), peer_conn(r), stream, w->data + w->len, WIRE_MAX - w->len, &fin),
              fin));
}

bool next_frame(const wire *w, size_t *at, frame *out) {
    uint64_t len;
    if (*at == w->len) {
        return false;
    }
    size_t a = qg__varint_get(w->data + *at, w->len - *at, &out->type);
    CHECK(a > 0);
    size_t b = qg__varint_get(w->data + *at + a, w->len - *at - a, &len);
    CHECK(b > 0 && len <= w->len - *at - a - b);
    out->payload = w->data + *at + a + b;
    out->len = (size_t)len;
    *at += a + b + (size_t)len;
    return true;
}

const char *lines_of(const frame *f) {
    static char text[WIRE_MAX];
    static uint8_t scratch[WIRE_MAX];
    qg_qpack_reader reader;
    qg_field field;
    size_t at = 0;
    CHECK_EQ(f->type, HEADERS);
    CHECK_EQ(qg__qpack_begin(&reader, f->payload, f->len, scratch, sizeof scratch), QG_OK);
    text[0] = '\0';
    int rc;
    while ((rc = qg__qpack_next(&reader, &field)) == 1) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%.*s: %.*s\n", (int)field.name_len,
                               (const char *)field.name, (int)field.value_len,
                               (const char *)field.value);
    }
    CHECK_EQ(rc, 0);
    return text;
}

/* ---------------------------------------------------------------- what was received */

size_t read_body(rig *r, side *s, const seen *e, uint8_t *out, size_t capacity, size_t piece,
                 uint32_t *flags) {
    size_t total = e->event.body_len;
    uint64_t code;
    CHECK(total <= capacity);
    memcpy(out, body_of(e), total);
    *flags = e->event.flags;
    while (!(*flags & QG_FIN)) {
        int64_t n;
        size_t want = qg__min(piece, capacity - total);
        UNTIL(r, (n = qg_stream_read(s->engine, e->event.conn, e->event.stream, out + total, want,
                                     0, 0, flags, &code)) != QG_AGAIN);
        CHECK(n > 0 || (n == 0 && (*flags & QG_FIN)));
        total += (size_t)n;
    }
    return total;
}
