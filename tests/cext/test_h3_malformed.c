/* Messages that are no messages, and larger ones than are wanted: more tests of h3.c. */
#include "h3_peer.h"

/* ---------------------------------------------------------------- malformed messages */

typedef struct malformed {
    const char *what;
    const char *head;
    const char *body; /* NULL: none */
    const char *trailers;
} malformed;

#define TARGET ":scheme: https\n:authority: a.test\n:path: /\n"

/* Sections 4.1.2, 4.2 and 4.3. More of them are in test_head.c. */
static const malformed bad_requests[] = {
    {"a pseudo-field twice", ":method: GET\n" GET_LINES, NULL, NULL},
    {"no method", TARGET, NULL, NULL},
    {"a pseudo-field of a response", GET_LINES ":status: 200\n", NULL, NULL},
    {"an unknown pseudo-field", GET_LINES ":autority: a.test\n", NULL, NULL},
    {"a pseudo-field after another field", ":method: GET\nx: y\n" TARGET, NULL, NULL},
    {"a name in upper case", GET_LINES "Accept: x\n", NULL, NULL},
    {"a connection's field", GET_LINES "connection: close\n", NULL, NULL},
    {"a body that is too long", POST_LINES "content-length: 4\n", "hello", NULL},
    {"a body that is too short", POST_LINES "content-length: 6\n", "hello", NULL},
    {"a body that is missing", POST_LINES "content-length: 1\n", NULL, NULL},
    {"a body that should be empty", POST_LINES "content-length: 0\n", "x", NULL},
    {"a length that is none", POST_LINES "content-length: 5x\n", "hello", NULL},
    {"a pseudo-field in trailers", POST_LINES, "hello", ":path: /\n"},
    {"a short body and trailers", POST_LINES "content-length: 6\n", "hello", "a: b\n"},
};

static void put_malformed(wire *w, const malformed *m) {
    w->len = 0;
    put_head(w, m->head);
    if (m->body != NULL) {
        put_frame(w, DATA, m->body, strlen(m->body));
    }
    if (m->trailers != NULL) {
        put_head(w, m->trailers);
    }
}

TEST(a_malformed_request_ends_its_stream_only) {
    static wire w;
    rig r;
    peer_client(&r, NULL);
    for (size_t i = 0; i < COUNT(bad_requests); i++) {
        check_note("%s", bad_requests[i].what);
        put_malformed(&w, &bad_requests[i]);
        uint64_t stream = peer_open(&r, true, &w, true);
        await_peer_reset(&r, stream, H3_MESSAGE_ERROR);
        CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0); /* no handler saw it */
        CHECK_EQ(r.server.counters.messages_malformed, i + 1);
    }
    still_serves(&r);
    UNTIL(&r, r.server.counters.streams == 2); /* both control streams */
    rig_close(&r);
}

/* One that is still sending is told to stop. */
TEST(a_malformed_request_that_goes_on_is_stopped) {
    rig r;
    wire w = {0};
    peer_client(&r, NULL);
    put_head(&w, TARGET);
    uint64_t stream = peer_open(&r, true, &w, false);
    turn(&r);
    await_peer_stopped(&r, stream, H3_MESSAGE_ERROR);
    await_peer_reset(&r, stream, H3_MESSAGE_ERROR);
    still_serves(&r);
    rig_close(&r);
}

/* The handler is reading when it shows. */
TEST(a_body_of_another_length_than_announced) {
    for (int longer = 0; longer < 2; longer++) {
        rig r;
        wire w = {0};
        uint8_t body[64];
        uint64_t code;
        uint32_t flags;
        check_note(longer ? "longer" : "shorter");
        peer_client(&r, NULL);
        put_head(&w, POST_LINES "content-length: 8\n");
        put_frame(&w, DATA, BYTES("hello"));
        uint64_t stream = peer_open(&r, true, &w, false);
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        CHECK_TEXT(body_of(e), e->event.body_len, "hello");
        CHECK_EQ(qg_stream_read(r.server.engine, r.server_conn, stream, body, sizeof body, 5, 0,
                                &flags, &code),
                 QG_AGAIN);
        w.len = 0;
        put_frame(&w, DATA, "more than that", longer ? 14 : 2);
        peer_send(&r, stream, &w, true);
        CHECK_EQ(await_token(&r, &r.server, 5)->event.type, QG_EVENT_READABLE);
        int64_t n;
        do {
            n = qg_stream_read(r.server.engine, r.server_conn, stream, body, sizeof body, 0, 0,
                               &flags, &code);
            CHECK_EQ(flags & QG_FIN, 0); /* never called whole */
        } while (n > 0);
        CHECK_EQ(n, longer ? QG_PROTOCOL : QG_SHORT);
        await_peer_reset(&r, stream, H3_MESSAGE_ERROR);
        CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
        still_serves(&r);
        rig_close(&r);
    }
}

static const malformed bad_responses[] = {
    {"no status", "server: x\n", NULL, NULL},
    {"a status that is none", ":status: 2x0\n", NULL, NULL},
    {"a pseudo-field of a request", ":status: 200\n:path: /\n", NULL, NULL},
    {"a name in upper case", ":status: 200\nServer: x\n", NULL, NULL},
    {"a body that is too long", ":status: 200\ncontent-length: 4\n", "hello", NULL},
    {"a body that is too short", ":status: 200\ncontent-length: 6\n", "hello", NULL},
    {"nothing after an informational response", ":status: 103\n", NULL, NULL},
};

TEST(a_malformed_response_ends_its_stream_only) {
    static wire w;
    rig r;
    peer_server(&r, NULL);
    for (size_t i = 0; i < COUNT(bad_responses); i++) {
        uint64_t stream = await_request(&r, 1 + i);
        check_note("%s", bad_responses[i].what);
        put_malformed(&w, &bad_responses[i]);
        peer_send(&r, stream, &w, true);
        turn(&r);
        const seen *e = take_token(&r.client, 1 + i);
        CHECK(e != NULL);
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        bool is_short = strstr(bad_responses[i].what, "short") != NULL;
        CHECK_EQ(e->event.status, is_short ? -QG_SHORT : -QG_PROTOCOL);
        CHECK_EQ(e->event.code, H3_MESSAGE_ERROR);
    }
    still_serves(&r);
    rig_close(&r);
}

/* Section 4.1: "If a server does not receive a complete request". */
TEST(a_request_without_a_head) {
    rig r;
    wire w = {0};
    peer_client(&r, NULL);
    await_peer_reset(&r, peer_open(&r, true, &w, true), H3_REQUEST_INCOMPLETE);
    put_frame(&w, GREASE, BYTES("hm"));
    await_peer_reset(&r, peer_open(&r, true, &w, true), H3_REQUEST_INCOMPLETE);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    still_serves(&r);
    UNTIL(&r, r.server.counters.streams == 2);
    rig_close(&r);
}

TEST(a_request_that_is_reset_before_its_head_is_whole) {
    rig r;
    wire w = {0};
    peer_client(&r, NULL);
    put_head(&w, POST_LINES);
    w.len -= 3;
    uint64_t stream = peer_open(&r, true, &w, false);
    turn(&r);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_WRITE, 0x10c), QG_OK);
    await_peer_reset(&r, stream, H3_REQUEST_CANCELLED);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    CHECK_EQ(r.server.counters.streams_reset_remote, 1);
    UNTIL(&r, r.server.counters.streams == 2);
    rig_close(&r);
}

/* ---------------------------------------------------------------- large heads */

static void put_large_head(wire *w, const char *begin, size_t size) {
    static char lines[WIRE_MAX];
    char *at = stpcpy(stpcpy(lines, begin), "x: ");
    memset(at, 'm', size);
    strcpy(at + size, "\n");
    put_head(w, lines);
}

static void check_refused(rig *r, uint64_t stream) {
    static wire w;
    frame f;
    size_t at = 0;
    read_all(r, stream, &w);
    CHECK(next_frame(&w, &at, &f));
    const char *lines = lines_of(&f);
    CHECK(strncmp(lines, ":status: 431\n", 13) == 0);
    CHECK(strstr(lines, "date: ") != NULL);
    CHECK(!next_frame(&w, &at, &f));
}

/* RFC 9114, section 4.2.2; RFC 6585, section 5. */
TEST(a_request_head_that_is_too_large) {
    static wire w;
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.server.max_field_section_size = 4096;
    peer_client(&r, &o);
    for (size_t size = 3000; size <= 12000; size += 4500) { /* decoded; by the frame's length */
        check_note("%zu bytes", size);
        w.len = 0;
        put_large_head(&w, POST_LINES, size);
        put_frame(&w, DATA, BYTES("which nobody wants"));
        uint64_t stream = peer_open(&r, true, &w, true);
        if (size > 4096) {
            check_refused(&r, stream);
            CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
        } else {
            respond(&r.server, await_event(&r, &r.server, QG_EVENT_REQUEST), "200", NULL, 0,
                    QG_FIN);
        }
    }
    still_serves(&r);
    UNTIL(&r, r.server.counters.streams == 2);
    rig_close(&r);
}

TEST(a_request_head_of_too_many_fields) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.server.max_fields = 10;
    peer_client(&r, &o);
    for (int over = 0; over < 2; over++) {
        static wire w;
        char lines[1000], *at = stpcpy(lines, POST_LINES);
        for (int i = 0; i < 6 + over; i++) {
            at = stpcpy(at, "x: y\n");
        }
        w.len = 0;
        put_head(&w, lines);
        uint64_t stream = peer_open(&r, true, &w, true);
        if (over) {
            check_refused(&r, stream);
        }
    }
    await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    rig_close(&r);
}

TEST(trailers_that_are_too_large) {
    static wire w;
    rig_options o;
    rig r;
    uint8_t body[8];
    uint64_t code;
    uint32_t flags;
    rig_defaults(&o);
    o.server.max_field_section_size = 4096;
    peer_client(&r, &o);
    w.len = 0;
    put_head(&w, POST_LINES);
    uint64_t stream = peer_open(&r, true, &w, false);
    await_event(&r, &r.server, QG_EVENT_REQUEST);
    w.len = 0;
    put_large_head(&w, "", 5000);
    peer_send(&r, stream, &w, false);
    turn(&r);
    CHECK_EQ(qg_stream_read(r.server.engine, r.server_conn, stream, body, sizeof body, 0, 0, &flags,
                            &code),
             QG_TOO_LARGE);
    await_peer_stopped(&r, stream, H3_EXCESSIVE_LOAD);
    await_peer_reset(&r, stream, H3_EXCESSIVE_LOAD);
    still_serves(&r);
    rig_close(&r);
}

TEST(a_response_head_that_is_too_large) {
    static wire w;
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.max_field_section_size = 4096;
    peer_server(&r, &o);
    uint64_t stream = await_request(&r, 1);
    w.len = 0;
    put_large_head(&w, ":status: 200\n", 5000);
    peer_send(&r, stream, &w, false);
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_TOO_LARGE);
    await_peer_stopped(&r, stream, H3_EXCESSIVE_LOAD);
    still_serves(&r);
    rig_close(&r);
}
