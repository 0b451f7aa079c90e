#include "h3_peer.h"

/* ---------------------------------------------------------------- whole messages in pieces */

#define TRAILERS_TEXT "\ncheck\0sum\n"

/* A body with everything around it that means nothing (RFC 9114, section 9). */
static void put_body(wire *w) {
    put_frame(w, DATA, BYTES("hello"));
    put_frame(w, GREASE + 0x1f * 7, NULL, 0);
    put_frame(w, DATA, NULL, 0);
    put_frame(w, GREASE, BYTES("grease"));
    put_frame(w, DATA, BYTES(" world"));
    put_head(w, "check: sum\n");
    put_frame(w, UINT64_C(0x1f) * 1000000000 + 0x21, BYTES("after"));
}

static void put_whole_request(wire *w) {
    put_frame(w, GREASE, BYTES("abc"));
    put_head(w, POST_LINES "x-field: value\ncontent-length: 11\n");
    put_body(w);
}

static void put_whole_response(wire *w) {
    put_frame(w, GREASE, BYTES("abc"));
    put_head(w, ":status: 103\nlink: </a>\n");
    put_head(w, ":status: 103\n");
    put_head(w, ":status: 200\nx-field: value\ncontent-length: 11\n");
    put_body(w);
}

static void check_whole(rig *r, side *s, const seen *e) {
    uint8_t body[64], trailers[64];
    uint32_t flags;
    CHECK_EQ(e->event.value, 11);
    const char *field = field_of(e, "x-field");
    CHECK(field != NULL && strcmp(field, "value") == 0);
    size_t len = read_body(r, s, e, body, sizeof body, 4, &flags);
    CHECK_TEXT(body, len, "hello world");
    CHECK_EQ(flags, QG_FIN | QG_MORE);
    int n =
        qg_stream_trailers(s->engine, e->event.conn, e->event.stream, trailers, sizeof trailers);
    CHECK_BYTES(trailers, (size_t)n, TRAILERS_TEXT, sizeof TRAILERS_TEXT - 1);
    CHECK_EQ(qg_stream_trailers(s->engine, e->event.conn, e->event.stream, trailers, 5),
             QG_TOO_LARGE);
    CHECK_EQ(qg_stream_release(s->engine, e->event.conn, e->event.stream), QG_OK);
}

TEST(a_request_split_at_every_byte) {
    rig r;
    wire w = {0};
    put_whole_request(&w);
    peer_client(&r, NULL);
    for (size_t cut = 0; cut <= w.len; cut++) {
        check_note("split at %zu", cut);
        uint64_t stream = raw_send(&r.client, r.conn, true, w.data, cut, false);
        turn(&r);
        raw_write(&r.client, r.conn, stream, w.data + cut, w.len - cut, true);
        turn(&r);
        const seen *e = take_event(&r.server, QG_EVENT_REQUEST);
        CHECK(e != NULL);
        CHECK_EQ(e->event.stream, stream);
        CHECK_EQ(e->event.status, QG_METHOD_POST);
        respond(&r.server, e, "200", NULL, 0, QG_FIN);
        check_whole(&r, &r.server, e);
        read_all(&r, stream, &(wire){0});
    }
    CHECK_EQ(r.server.counters.requests_received, w.len + 1);
    rig_close(&r);
}

TEST(a_request_byte_by_byte) {
    rig r;
    wire w = {0};
    put_whole_request(&w);
    peer_client(&r, NULL);
    uint64_t stream = raw_send(&r.client, r.conn, true, w.data, 1, false);
    for (size_t i = 1; i < w.len; i++) {
        turn(&r);
        raw_write(&r.client, r.conn, stream, w.data + i, 1, i == w.len - 1);
    }
    check_whole(&r, &r.server, await_event(&r, &r.server, QG_EVENT_REQUEST));
    rig_close(&r);
}

TEST(a_response_split_at_every_byte) {
    rig r;
    wire w = {0};
    put_whole_response(&w);
    peer_server(&r, NULL);
    for (size_t cut = 0; cut <= w.len; cut++) {
        check_note("split at %zu", cut);
        uint64_t stream = await_request(&r, 1 + cut);
        raw_write(&r.server, r.server_conn, stream, w.data, cut, false);
        turn(&r);
        raw_write(&r.server, r.server_conn, stream, w.data + cut, w.len - cut, true);
        turn(&r);
        const seen *e = take_token(&r.client, 1 + cut);
        CHECK(e != NULL);
        CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
        CHECK_EQ(e->event.status, 200);
        check_whole(&r, &r.client, e);
    }
    rig_close(&r);
}

/* Frame headers, payloads and the pieces that are read never end at the same place. */
TEST(a_body_of_many_small_frames) {
    static uint8_t body[60000], got[60000];
    rig r;
    wire w = {0};
    uint32_t flags;
    fill_pattern(body, sizeof body, 0);
    for (size_t piece = 1; piece < 5000; piece = piece * 3 + 1) {
        check_note("pieces of %zu", piece);
        peer_client(&r, NULL);
        w.len = 0;
        put_head(&w, POST_LINES);
        size_t at = 0, step = 0;
        while (at < sizeof body && w.len < WIRE_MAX - 2000) {
            size_t n = qg__min(step++ * 7 % 300, sizeof body - at);
            put_frame(&w, DATA, body + at, n);
            at += n;
        }
        uint64_t stream = peer_open(&r, true, &w, true);
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        CHECK_EQ(e->event.stream, stream);
        CHECK(e->event.body_len <= QG_INLINE_BODY);
        CHECK_EQ(read_body(&r, &r.server, e, got, sizeof got, piece, &flags), at);
        CHECK_BYTES(got, at, body, at);
        rig_close(&r);
    }
}

TEST(a_long_unknown_frame_is_skipped) {
    static uint8_t nothing[60000];
    rig r;
    uint8_t got[10];
    uint32_t flags;
    wire w = {0};
    peer_client(&r, NULL);
    put_frame(&w, 0x1f, nothing, sizeof nothing);
    uint64_t stream = peer_open(&r, true, &w, false);
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    w.len = 0;
    put_head(&w, POST_LINES "content-length: 2\n");
    put_frame(&w, DATA, "a", 1);
    put_frame(&w, GREASE, nothing, sizeof nothing);
    peer_send(&r, stream, &w, false);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_TEXT(body_of(e), e->event.body_len, "a");
    w.len = 0;
    put_frame(&w, DATA, "b", 1);
    peer_send(&r, stream, &w, true);
    size_t len = read_body(&r, &r.server, e, got, sizeof got, 5, &flags);
    CHECK_TEXT(got, len, "ab");
    qg_conn_info info;
    CHECK_EQ(qg_conn_info_of(r.server.engine, r.server_conn, &info), QG_OK);
    CHECK_EQ(info.unknown_frame, 0x1f);
    CHECK_EQ(r.server.counters.frames_unknown, 1); /* grease is to be unknown: not counted */
    rig_close(&r);
}

/* ---------------------------------------------------------------- breaches */

typedef struct breach {
    const char *what;
    const char *head; /* lines of a head before it, or NULL */
    const char *trailers;
    const char *bytes;
    size_t len;
    bool fin;
    uint64_t code;
} breach;

/* RFC 9114, sections 4.1, 7.1, 7.2 and 11.2.1; RFC 9218, section 7.2. */
static const breach everybodys[] = {
    {"DATA first", NULL, NULL, BYTES("\x00\x01x"), false, H3_FRAME_UNEXPECTED},
    {"empty DATA first", NULL, NULL, BYTES("\x00\x00"), false, H3_FRAME_UNEXPECTED},
    {"DATA after grease", NULL, NULL, BYTES("\x21\x00\x00\x00"), false, H3_FRAME_UNEXPECTED},
    {"DATA after trailers", "", "a: b\n", BYTES("\x00\x00"), false, H3_FRAME_UNEXPECTED},
    {"HEADERS after trailers", "", "a: b\n", BYTES("\x01\x02\0\0"), false, H3_FRAME_UNEXPECTED},
    {"reserved 0x2", "", NULL, BYTES("\x02\x00"), false, H3_FRAME_UNEXPECTED},
    {"reserved 0x6", "", NULL, BYTES("\x06\x00"), false, H3_FRAME_UNEXPECTED},
    {"reserved 0x8", "", NULL, BYTES("\x08\x00"), false, H3_FRAME_UNEXPECTED},
    {"reserved 0x9", "", NULL, BYTES("\x09\x00"), false, H3_FRAME_UNEXPECTED},
    {"reserved 0x9 first", NULL, NULL, BYTES("\x09\x00"), false, H3_FRAME_UNEXPECTED},
    {"CANCEL_PUSH", "", NULL, BYTES("\x03\x01\x00"), false, H3_FRAME_UNEXPECTED},
    {"SETTINGS first", NULL, NULL, BYTES("\x04\x00"), false, H3_FRAME_UNEXPECTED},
    {"SETTINGS", "", NULL, BYTES("\x04\x00"), false, H3_FRAME_UNEXPECTED},
    {"GOAWAY", "", NULL, BYTES("\x07\x01\x00"), false, H3_FRAME_UNEXPECTED},
    {"MAX_PUSH_ID", "", NULL, BYTES("\x0d\x01\x00"), false, H3_FRAME_UNEXPECTED},
    {"PRIORITY_UPDATE", "", NULL, BYTES("\x80\x0f\x07\x00\x01\x00"), false, H3_FRAME_UNEXPECTED},
    {"PRIORITY_UPDATE of a push", "", NULL, BYTES("\x80\x0f\x07\x01\x01\x00"), false,
     H3_FRAME_UNEXPECTED},
    {"a type in eight bytes", "", NULL, BYTES("\xc0\0\0\0\0\0\0\x09\x00"), false,
     H3_FRAME_UNEXPECTED},
    {"an end after a type", "", NULL, BYTES("\x00"), true, H3_FRAME_ERROR},
    {"an end inside a type", "", NULL, BYTES("\x40"), true, H3_FRAME_ERROR},
    {"an end inside a length", "", NULL, BYTES("\x00\x40"), true, H3_FRAME_ERROR},
    {"an end before DATA's payload", "", NULL, BYTES("\x00\x05"), true, H3_FRAME_ERROR},
    {"an end inside DATA", "", NULL, BYTES("\x00\x05xxxx"), true, H3_FRAME_ERROR},
    {"an end inside an unknown frame", "", NULL, BYTES("\x21\x05xxxx"), true, H3_FRAME_ERROR},
    {"an end inside HEADERS", NULL, NULL, BYTES("\x01\x10\0\0\xd1"), true, H3_FRAME_ERROR},
    {"an end inside trailers", "", NULL, BYTES("\x01\x10\0\0"), true, H3_FRAME_ERROR},
    {"static index 99", NULL, NULL, BYTES("\x01\x04\0\0\xff\x24"), false,
     QPACK_DECOMPRESSION_FAILED},
    {"static index 99 in trailers", "", NULL, BYTES("\x01\x04\0\0\xff\x24"), false,
     QPACK_DECOMPRESSION_FAILED},
    {"a dynamic reference", NULL, NULL, BYTES("\x01\x03\x02\0\x80"), false,
     QPACK_DECOMPRESSION_FAILED},
    {"a section without prefix", NULL, NULL, BYTES("\x01\x00"), false, QPACK_DECOMPRESSION_FAILED},
    {"a section cut in a line", NULL, NULL, BYTES("\x01\x04\0\0\x51\x09"), false,
     QPACK_DECOMPRESSION_FAILED},
};

static void put_breach(wire *w, const breach *b, const char *head) {
    w->len = 0;
    if (b->head != NULL) {
        put_head(w, head);
    }
    if (b->trailers != NULL) {
        put_head(w, b->trailers);
    }
    put_bytes(w, b->bytes, b->len);
}

static void check_request_breach(const breach *b) {
    static uint8_t body[64];
    static wire w;
    uint64_t code;
    uint32_t flags;
    rig r;
    put_breach(&w, b, POST_LINES);
    /* At once, and after the head was announced: the frame is met by different readers. */
    for (int late = 0; late <= (b->head != NULL); late++) {
        size_t first = late ? w.len - b->len : 0;
        check_note("%s, %s", b->what, late ? "late" : "at once");
        peer_client(&r, NULL);
        uint64_t stream = raw_send(&r.client, r.conn, true, w.data, first, false);
        turn(&r);
        raw_write(&r.client, r.conn, stream, w.data + first, w.len - first, b->fin);
        turn(&r);
        if (late) {
            const seen *e = take_event(&r.server, QG_EVENT_REQUEST);
            CHECK(e != NULL);
            int64_t n = qg_stream_read(r.server.engine, r.server_conn, stream, body, sizeof body, 0,
                                       0, &flags, &code);
            CHECK(n == QG_CLOSED || n > 0);
            n = n < 0 ? n
                      : qg_stream_read(r.server.engine, r.server_conn, stream, body, sizeof body, 0,
                                       0, &flags, &code);
            CHECK_EQ(n, QG_CLOSED);
        } else {
            CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
        }
        ends_with(&r, b->code);
    }
}

TEST(breaches_of_a_client) {
    for (size_t i = 0; i < COUNT(everybodys); i++) {
        check_request_breach(&everybodys[i]);
    }
    check_request_breach(
        &(breach){"PUSH_PROMISE", "", NULL, BYTES("\x05\x03\x00\0\0"), false, H3_FRAME_UNEXPECTED});
}

static void check_response_breach(const breach *b) {
    static wire w;
    rig r;
    check_note("%s", b->what);
    peer_server(&r, NULL);
    uint64_t stream = await_request(&r, 1);
    check_note("%s", b->what);
    put_breach(&w, b, ":status: 200\n");
    peer_send(&r, stream, &w, b->fin);
    turn(&r);
    const seen *e = take_token(&r.client, 1);
    CHECK(e != NULL);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK_EQ(e->event.code, b->code);
    ends_with(&r, b->code);
}

TEST(breaches_of_a_server) {
    for (size_t i = 0; i < COUNT(everybodys); i++) {
        check_response_breach(&everybodys[i]);
    }
    /* No MAX_PUSH_ID was sent (section 7.2.5). */
    check_response_breach(
        &(breach){"PUSH_PROMISE", "", NULL, BYTES("\x05\x03\x00\0\0"), false, H3_ID_ERROR});
    check_response_breach(
        &(breach){"PUSH_PROMISE first", NULL, NULL, BYTES("\x05\x03\x00\0\0"), false, H3_ID_ERROR});
}

/* Section 6.1. */
TEST(a_request_from_a_server) {
    rig r;
    wire w = {0};
    rig_options o;
    rig_defaults(&o);
    peer_server(&r, &o);
    put_head(&w, GET_LINES);
    peer_open(&r, true, &w, true);
    ends_with(&r, H3_STREAM_CREATION_ERROR);
}

/* ---------------------------------------------------------------- responses */

TEST(informational_responses_have_an_end) {
    for (int count = 16; count <= 17; count++) {
        static wire w;
        rig r;
        peer_server(&r, NULL);
        uint64_t stream = await_request(&r, 1);
        check_note("%d of them", count);
        w.len = 0;
        for (int i = 0; i < count; i++) {
            put_head(&w, i % 2 ? ":status: 103\n" : ":status: 100\n");
        }
        put_head(&w, ":status: 204\n");
        peer_send(&r, stream, &w, true);
        turn(&r);
        const seen *e = take_token(&r.client, 1);
        CHECK(e != NULL);
        CHECK_EQ(e->event.type, count == 16 ? QG_EVENT_RESPONSE : QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, count == 16 ? 204 : -QG_PROTOCOL);
        rig_close(&r);
    }
}

/* RFC 9110, sections 6.4.1 and 8.6: a length that speaks of another response's body. */
TEST(responses_that_have_no_body) {
    static const struct {
        const char *method, *head, *body;
        bool good;
    } rows[] = {
        {"HEAD", ":status: 200\ncontent-length: 5\n", NULL, true},
        {"HEAD", ":status: 200\ncontent-length: 5\n", "", true},
        {"HEAD", ":status: 200\ncontent-length: 5\n", "hello", false},
        {"HEAD", ":status: 200\n", "hello", false},
        {"GET", ":status: 304\ncontent-length: 5\n", NULL, true},
        {"GET", ":status: 204\n", NULL, true},
        {"GET", ":status: 200\ncontent-length: 5\n", NULL, false},
        {"GET", ":status: 200\ncontent-length: 0\n", NULL, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        rig r;
        wire w = {0};
        peer_server(&r, NULL);
        request(&r, 1, rows[i].method, "/", NULL, 0,
                QG_FIN | (rows[i].method[0] == 'H' ? QG_HEAD : 0));
        turn(&r);
        put_head(&w, rows[i].head);
        if (rows[i].body != NULL) {
            put_frame(&w, DATA, rows[i].body, strlen(rows[i].body));
        }
        check_note("row %zu", i);
        peer_send(&r, 0, &w, true);
        turn(&r);
        const seen *e = take_token(&r.client, 1);
        CHECK(e != NULL);
        CHECK_EQ(e->event.type, rows[i].good ? QG_EVENT_RESPONSE : QG_EVENT_STREAM_ERROR);
        if (rows[i].good) {
            CHECK_EQ(e->event.flags & QG_FIN, QG_FIN);
        } else {
            CHECK_EQ(e->event.status, rows[i].body == NULL ? -QG_SHORT : -QG_PROTOCOL);
        }
        rig_close(&r);
    }
}

/* It stays in quiche, its body too, until somebody asks. */
TEST(a_response_that_comes_before_anybody_asks) {
    rig r;
    wire w = {0};
    peer_server(&r, NULL);
    uint64_t stream = open_request(&r, "GET", "/", QG_FIN);
    turn(&r);
    put_head(&w, ":status: 200\n");
    put_frame(&w, DATA, BYTES("early"));
    peer_send(&r, stream, &w, true);
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_RESPONSE), 0);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 7, 0), QG_AGAIN);
    const seen *e = await_token(&r, &r.client, 7);
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK_TEXT(body_of(e), e->event.body_len, "early");
    UNTIL(&r, r.client.counters.streams == 2);
    rig_close(&r);
}

TEST(a_response_that_is_reset) {
    rig r;
    peer_server(&r, NULL);
    uint64_t stream = await_request(&r, 1);
    CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, stream, QG_SIDE_WRITE, 0x123),
             QG_OK);
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_RESET);
    CHECK_EQ(e->event.code, 0x123);
    still_serves(&r);
    rig_close(&r);
}

/* Section 4.1.1: it may be sent again. */
TEST(a_request_that_is_rejected) {
    rig r;
    peer_server(&r, NULL);
    uint64_t stream = await_request(&r, 1);
    CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, stream, QG_SIDE_WRITE,
                                H3_REQUEST_REJECTED),
             QG_OK);
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.status, -QG_REFUSED);
    CHECK_EQ(e->event.code, H3_REQUEST_REJECTED);
    /* The same for who asks later. */
    stream = open_request(&r, "GET", "/", QG_FIN);
    turn(&r);
    CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, stream, QG_SIDE_WRITE,
                                H3_REQUEST_REJECTED),
             QG_OK);
    turn(&r);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 2, 0), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 2)->event.status, -QG_REFUSED);
    rig_close(&r);
}

/* ---------------------------------------------------------------- who may come in */

static void give_credit(rig *r, uint64_t count) {
    submit(&r->server,
           (qg_submission){.op = QG_OP_CREDIT, .conn = (uint64_t)r->server.endpoint, .code = count},
           NULL, 0, NULL, 0);
    turn(r);
}

TEST(requests_wait_for_credit) {
    rig_options o;
    rig r;
    wire w = {0};
    rig_defaults(&o);
    o.listen.credit = 2;
    peer_client(&r, &o);
    put_head(&w, GET_LINES);
    for (int i = 0; i < 5; i++) {
        peer_open(&r, true, &w, true);
    }
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 2);
    give_credit(&r, 1);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 3);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, 12, QG_SIDE_WRITE, 0x10c), QG_OK);
    give_credit(&r, 10);
    CHECK_EQ(answer_all(&r.server), 5); /* RESET_STREAM after the end says nothing any more */
    CHECK_EQ(r.server.engine->endpoints[r.server.endpoint]->credit, 8);
    rig_close(&r);
}

/* One that gave up while it waited costs none. */
TEST(a_request_that_is_reset_while_it_waits_for_credit) {
    rig_options o;
    rig r;
    wire w = {0};
    rig_defaults(&o);
    o.listen.credit = 0;
    peer_client(&r, &o);
    put_head(&w, POST_LINES);
    uint64_t stream = peer_open(&r, true, &w, false);
    peer_open(&r, true, &w, true);
    turn(&r);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_WRITE, 0x10c), QG_OK);
    turn(&r);
    give_credit(&r, 1);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_REQUEST)->event.stream, stream + 4);
    await_peer_reset(&r, stream, H3_REQUEST_CANCELLED);
    rig_close(&r);
}

/* Section 5.2: beyond what GOAWAY named. */
TEST(a_request_after_goaway_is_rejected) {
    rig r;
    wire w = {0};
    peer_client(&r, NULL);
    put_head(&w, GET_LINES);
    peer_open(&r, true, &w, true);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_EQ(qg_conn_finish(r.server.engine, r.server_conn, 60000000), QG_OK);
    uint64_t stream = peer_open(&r, true, &w, true);
    await_peer_reset(&r, stream, H3_REQUEST_REJECTED);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    respond(&r.server, e, "200", NULL, 0, QG_FIN);
    side_turn(&r.server);
    side_turn(&r.client);
    bool fin;
    CHECK(raw_read(&r.client, r.conn, 0, w.data, WIRE_MAX, &fin) > 0 && fin); /* it is served */
    e = await_event(&r, &r.client, QG_EVENT_CLOSED);
    CHECK_EQ(e->event.code, H3_NO_ERROR);
    rig_close(&r);
}

/* RFC 9218: the more urgent of two large responses is whole first. */
TEST(the_priority_field_counts) {
    for (unsigned first = 0; first < 2; first++) {
        rig r;
        peer_client(&r, NULL);
        for (unsigned i = 0; i < 2; i++) {
            wire w = {0};
            put_head(&w, i == first ? GET_LINES "priority: u=1\n" : GET_LINES "priority: u=6\n");
            peer_open(&r, true, &w, true);
        }
        turn(&r);
        CHECK_EQ(race(&r), first);
        rig_close(&r);
    }
}
