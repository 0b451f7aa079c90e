#include "h3_peer.h"

/* ---------------------------------------------------------------- what crosses the wire */

/* A peer's request; what it got is answered by the test. */
static const seen *ask(rig *r, uint64_t *stream) {
    wire w = {0};
    put_head(&w, GET_LINES);
    *stream = peer_open(r, true, &w, true);
    return await_event(r, &r->server, QG_EVENT_REQUEST);
}

static void check_frame(const wire *w, size_t *at, uint64_t type, const char *text) {
    frame f;
    CHECK(next_frame(w, at, &f));
    CHECK_EQ(f.type, type);
    if (type == HEADERS) {
        const char *lines = lines_of(&f);
        CHECK_BYTES(lines, strlen(lines), text, strlen(text));
    } else {
        CHECK_TEXT(f.payload, f.len, text);
    }
}

TEST(a_response) {
    static const char expected[] = "\x01\x03\0\0\xd9\x00\x05hello"; /* 25: ":status: 200" */
    rig r;
    wire w;
    uint64_t stream;
    peer_client(&r, NULL);
    respond(&r.server, ask(&r, &stream), "200", "hello", 5, QG_FIN);
    read_all(&r, stream, &w);
    CHECK_BYTES(w.data, w.len, expected, sizeof expected - 1);
    rig_close(&r);
}

TEST(a_response_without_body_has_no_data) {
    static const char expected[] = "\x01\x03\0\0\xdb"; /* 27: ":status: 404" */
    rig r;
    wire w;
    uint64_t stream;
    peer_client(&r, NULL);
    respond(&r.server, ask(&r, &stream), "404", NULL, 0, QG_FIN);
    read_all(&r, stream, &w);
    CHECK_BYTES(w.data, w.len, expected, sizeof expected - 1);
    rig_close(&r);
}

TEST(a_request_on_the_wire) {
    rig r;
    wire w = {0};
    size_t at = 0;
    peer_server(&r, NULL);
    request(&r, 1, "POST", "/path?query", "body", 4, QG_FIN);
    turn(&r);
    read_all(&r, 0, &w);
    check_frame(&w, &at, HEADERS,
                ":method: POST\n:scheme: https\n:authority: a.test\n:path: /path?query\n");
    check_frame(&w, &at, DATA, "body");
    CHECK_EQ(at, w.len);
    rig_close(&r);
}

/* RFC 9110, section 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT". */
TEST(the_date_field) {
    rig r;
    wire w;
    frame f;
    uint64_t stream;
    size_t at = 0;
    peer_client(&r, NULL);
    respond(&r.server, ask(&r, &stream), "200", "x", 1, QG_FIN | QG_DATE);
    read_all(&r, stream, &w);
    CHECK(next_frame(&w, &at, &f));
    const char *date = strstr(lines_of(&f), "date: ");
    CHECK(date != NULL);
    CHECK_EQ(strlen(date), strlen("date: Sun, 06 Nov 1994 08:49:37 GMT\n"));
    CHECK(date[9] == ',' && strcmp(date + 31, " GMT\n") == 0);
    check_frame(&w, &at, DATA, "x");
    rig_close(&r);
}

TEST(informational_responses) {
    rig r;
    wire w;
    uint64_t stream;
    size_t at = 0;
    peer_client(&r, NULL);
    const seen *e = ask(&r, &stream);
    respond(&r.server, e, "103", NULL, 0, QG_INTERIM);
    respond(&r.server, e, "103", NULL, 0, QG_INTERIM);
    respond(&r.server, e, "200", "final", 5, QG_FIN);
    read_all(&r, stream, &w);
    check_frame(&w, &at, HEADERS, ":status: 103\n");
    check_frame(&w, &at, HEADERS, ":status: 103\n");
    check_frame(&w, &at, HEADERS, ":status: 200\n");
    check_frame(&w, &at, DATA, "final");
    CHECK_EQ(at, w.len);
    rig_close(&r);
}

TEST(trailers) {
    rig r;
    wire w;
    uint64_t stream, code;
    uint8_t lines[64];
    size_t at = 0, len = fields(lines, sizeof lines, "check", "sum", NULL);
    peer_client(&r, NULL);
    respond(&r.server, ask(&r, &stream), "200", "begin", 5, 0);
    turn(&r);
    CHECK_EQ(qg_stream_write(r.server.engine, r.server_conn, stream, (uint8_t *)"end", 3, 0, 0, 0,
                             &code),
             3);
    CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len), QG_OK);
    CHECK(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len) < 0);
    read_all(&r, stream, &w);
    check_frame(&w, &at, HEADERS, ":status: 200\n");
    check_frame(&w, &at, DATA, "begin");
    check_frame(&w, &at, DATA, "end");
    check_frame(&w, &at, HEADERS, "check: sum\n");
    CHECK_EQ(at, w.len);
    rig_close(&r);
}

/* ---------------------------------------------------------------- order */

static int64_t write_text(rig *r, uint64_t stream, const char *text, uint32_t flags,
                          uint64_t token) {
    uint64_t code;
    return qg_stream_write(r->server.engine, r->server_conn, stream, (const uint8_t *)text,
                           strlen(text), flags, token, 0, &code);
}

TEST(what_comes_before_and_after_a_head) {
    rig r;
    wire w;
    uint64_t stream;
    uint8_t lines[64];
    size_t at = 0, len = fields(lines, sizeof lines, "check", "sum", NULL);
    wire open = {0};
    peer_client(&r, NULL);
    put_head(&open, POST_LINES);
    stream = peer_open(&r, true, &open, false); /* which keeps the stream alive to the end */
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_EQ(write_text(&r, stream, "early", 0, 5), QG_STATE);
    CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len), QG_STATE);
    respond(&r.server, e, "103", NULL, 0, QG_INTERIM);
    CHECK_EQ(write_text(&r, stream, "early", 0, 5), QG_STATE);
    respond(&r.server, e, "200", NULL, 0, 0);
    respond(&r.server, e, "500", "second", 6, 0); /* dropped: see quicgreen.h */
    CHECK_EQ(write_text(&r, stream, "body", 0, 5), 4);
    CHECK_EQ(write_text(&r, stream, "", 0, 5), 0); /* no frame */
    CHECK_EQ(write_text(&r, stream, "", QG_FIN, 5), 0);
    CHECK_EQ(write_text(&r, stream, "late", 0, 5), QG_STATE);
    CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len), QG_STATE);
    read_all(&r, stream, &w);
    check_frame(&w, &at, HEADERS, ":status: 103\n");
    check_frame(&w, &at, HEADERS, ":status: 200\n");
    check_frame(&w, &at, DATA, "body");
    CHECK_EQ(at, w.len);
    rig_close(&r);
}

/* The end was promised; that the peer has no room for it yet makes no difference. */
TEST(nothing_comes_after_an_end_that_waits) {
    static uint8_t body[30000];
    rig_options o;
    rig r;
    wire w;
    frame f;
    uint64_t stream;
    uint8_t lines[64];
    size_t at = 0, len = fields(lines, sizeof lines, "check", "sum", NULL);
    rig_defaults(&o);
    o.client.initial_max_stream_data_bidi_local = 1000;
    peer_client(&r, &o);
    respond(&r.server, ask(&r, &stream), "200", body, sizeof body, QG_FIN);
    turn(&r);
    CHECK(qg__streams_find(&conn_at(&r.server, r.server_conn)->streams, stream)->out != NULL);
    CHECK_EQ(write_text(&r, stream, "late", 0, 5), QG_STATE);
    CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len), QG_STATE);
    read_all(&r, stream, &w);
    check_frame(&w, &at, HEADERS, ":status: 200\n");
    CHECK(next_frame(&w, &at, &f));
    CHECK_EQ(f.len, sizeof body);
    CHECK_EQ(at, w.len);
    UNTIL(&r, r.server.counters.streams == 2);
    rig_close(&r);
}

/* A writer that waits while another one ends the message does not wait for good. */
TEST(a_writer_is_told_of_an_end) {
    static uint8_t body[30000];
    uint8_t lines[64];
    size_t len = fields(lines, sizeof lines, "check", "sum", NULL);
    for (int how = 0; how < 2; how++) {
        rig_options o;
        rig r;
        wire w;
        uint64_t stream, code;
        check_note("way %d", how);
        rig_defaults(&o);
        o.client.initial_max_stream_data_bidi_local = 1000;
        peer_client(&r, &o);
        respond(&r.server, ask(&r, &stream), "200", body, how == 0 ? sizeof body : 1, 0);
        turn(&r);
        while (qg_stream_write(r.server.engine, r.server_conn, stream, body, 500, 0, 5, 0, &code) >
               0) {
        }
        CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, lines, len),
                 QG_OK);
        read_all(&r, stream, &w);
        check_note("way %d", how);
        UNTIL(&r, count_events(&r.server, QG_EVENT_WRITABLE) == 1);
        CHECK_EQ(take_token(&r.server, 5)->event.type, QG_EVENT_WRITABLE);
        CHECK(write_text(&r, stream, "late", 0, 5) < QG_AGAIN);
        rig_close(&r);
    }
}

/* ---------------------------------------------------------------- room */

/* The peer's window for the stream opens a little at a time; frames stay whole. */
static void check_pieces(uint64_t window, size_t piece, uint64_t size) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.initial_max_stream_data_bidi_local = window;
    rig_start(&r, &o);
    uint64_t stream = open_request(&r, "GET", "/", QG_FIN);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    respond(&r.server, e, "200", NULL, 0, 0);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 3, 0), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 3)->event.body_len, 0);
    flow f = {.from = &r.server,
              .to = &r.client,
              .from_conn = r.server_conn,
              .to_conn = r.conn,
              .stream = stream,
              .size = size,
              .piece = piece,
              .token = 500};
    check_note("window %d, pieces of %zu", (int)window, piece);
    flow_all(&r, &f);
    UNTIL(&r, r.server.counters.streams == 2 && r.client.counters.streams == 2);
    rig_close(&r);
}

TEST(writing_in_pieces) {
    static const uint64_t windows[] = {48, 63, 64, 65, 66, 67, 68, 1000, 16383, 16390, 200000};
    for (size_t i = 0; i < COUNT(windows); i++) {
        check_pieces(windows[i], 10000, windows[i] < 1000 ? 5000 : 60000);
    }
    check_pieces(1000, 1, 3000);
    check_pieces(1000, 62, 3000);
    check_pieces(1000, 63, 3000);
    check_pieces(1000, 64, 3000);
    check_pieces(200000, 300000, 1000000);
}

/* Head and body of a submission wait in the engine until the peer has room (RFC 9114 asks for no
 * order of windows); what is larger than one write of ours is put together all the same. */
TEST(a_submission_larger_than_the_window) {
    static const struct {
        uint64_t window;
        size_t body;
    } rows[] = {{3, 1000}, {50, 1000}, {1000, 65536}, {60000, 65536}, {1000000, 65536}};
    static uint8_t body[65536];
    fill_pattern(body, sizeof body, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        rig_options o;
        rig r;
        wire w;
        frame f;
        uint64_t stream;
        size_t at = 0;
        check_note("row %zu", i);
        rig_defaults(&o);
        o.client.initial_max_stream_data_bidi_local = rows[i].window;
        peer_client(&r, &o);
        respond(&r.server, ask(&r, &stream), "200", body, rows[i].body, QG_FIN);
        read_all(&r, stream, &w);
        check_note("row %zu", i);
        check_frame(&w, &at, HEADERS, ":status: 200\n");
        CHECK(next_frame(&w, &at, &f));
        CHECK_BYTES(f.payload, f.len, body, rows[i].body);
        CHECK_EQ(at, w.len);
        UNTIL(&r, r.server.counters.streams == 2);
        rig_close(&r);
    }
}

/* A head that is larger than the first congestion window is no reason to wait for good. */
TEST(a_head_larger_than_the_congestion_window) {
    static uint8_t lines[40000];
    static char value[30000];
    rig r;
    wire w;
    frame f;
    uint64_t stream;
    size_t at = 0;
    memset(value, '!', sizeof value - 1); /* which Huffman's code makes no shorter */
    size_t len = fields(lines, sizeof lines, ":status", "200", "x", value, NULL);
    peer_client(&r, NULL);
    const seen *e = ask(&r, &stream);
    submit(&r.server,
           (qg_submission){
               .op = QG_OP_RESPOND, .conn = e->event.conn, .stream = stream, .flags = QG_FIN},
           lines, len, NULL, 0);
    read_all(&r, stream, &w);
    CHECK(next_frame(&w, &at, &f));
    CHECK(strlen(lines_of(&f)) > sizeof value);
    rig_close(&r);
}

/* ---------------------------------------------------------------- a peer that stops */

TEST(a_peer_that_wants_no_answer) {
    rig r;
    uint64_t stream, code;
    peer_client(&r, NULL);
    const seen *e = ask(&r, &stream);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_READ, 0x10c), QG_OK);
    turn(&r);
    respond(&r.server, e, "200", "unwanted", 8, 0);
    turn(&r);
    CHECK_EQ(qg_stream_write(r.server.engine, r.server_conn, stream, (uint8_t *)"more", 4, 0, 5, 0,
                             &code),
             QG_STOPPED);
    CHECK_EQ(qg_stream_send_trailers(r.server.engine, r.server_conn, stream, (uint8_t *)"", 0),
             QG_STOPPED);
    CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
    CHECK_EQ(r.server.counters.streams, 2);
    still_serves(&r);
    rig_close(&r);
}

/* The last word about it was said: nobody will release it. */
TEST(an_answer_that_comes_too_late_leaves_nothing_behind) {
    rig r;
    uint64_t stream;
    peer_client(&r, NULL);
    const seen *e = ask(&r, &stream);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_READ, 0x10c), QG_OK);
    turn(&r);
    respond(&r.server, e, "200", "unwanted", 8, QG_FIN);
    UNTIL(&r, r.server.counters.streams == 2);
    still_serves(&r);
    rig_close(&r);
}
