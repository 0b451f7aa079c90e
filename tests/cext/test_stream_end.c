/* How streams end, with us and with quiche: more tests of stream.c. */
#include "h3_peer.h"

/* ---------------------------------------------------------------- what the engine holds */

static const seen *ask(rig *r, uint64_t *stream) {
    wire w = {0};
    put_head(&w, GET_LINES);
    *stream = peer_open(r, true, &w, true);
    return await_event(r, &r->server, QG_EVENT_REQUEST);
}

static void slow_reader(rig *r, rig_options *o, uint64_t write_timeout_ms) {
    rig_defaults(o);
    o->client.initial_max_stream_data_bidi_local = 2000;
    o->server.write_timeout_ms = write_timeout_ms;
    peer_client(r, o);
}

TEST(engine_held_bytes_are_bounded_and_go) {
    static uint8_t body[QG_BODY_INLINE_MAX];
    rig_options o;
    rig r;
    uint64_t stream;
    slow_reader(&r, &o, 60000);
    respond(&r.server, ask(&r, &stream), "200", body, sizeof body, QG_FIN);
    turn(&r);
    qg_stream *s = qg__streams_find(&conn_at(&r.server, r.server_conn)->streams, stream);
    CHECK(s->out_len > 0 && s->out_len <= QG_BODY_INLINE_MAX + 64);
    CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
    wire w;
    read_all(&r, stream, &w); /* what was said is still delivered */
    CHECK(w.len > sizeof body);
    UNTIL(&r, r.server.counters.streams == 2);
    rig_close(&r);
}

TEST(engine_held_bytes_wait_only_so_long) {
    static uint8_t body[30000];
    rig_options o;
    rig r;
    uint64_t stream, begin = qg__now_ns();
    slow_reader(&r, &o, 40);
    respond(&r.server, ask(&r, &stream), "200", body, sizeof body, QG_FIN);
    CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
    UNTIL(&r, r.server.counters.streams == 2);
    CHECK(qg__now_ns() - begin >= 35 * QG_NS_PER_MS);
    await_peer_reset(&r, stream, H3_REQUEST_CANCELLED);
    still_serves(&r);
    rig_close(&r);
}

/* Nobody released it, since the response was handed over whole: it goes all the same. */
TEST(a_response_that_nobody_takes_leaves_nothing_behind) {
    static uint8_t body[30000];
    rig_options o;
    rig r;
    uint64_t stream;
    slow_reader(&r, &o, 40);
    respond(&r.server, ask(&r, &stream), "200", body, sizeof body, QG_FIN);
    UNTIL(&r, r.server.counters.streams_reset_local == 1);
    await_peer_reset(&r, stream, H3_REQUEST_CANCELLED);
    CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
    CHECK_EQ(r.server.counters.streams, 2);
    rig_close(&r);
}

/* A peer that takes some of it, in time, again and again, gets it all. */
TEST(a_slow_reader_is_no_dead_one) {
    static uint8_t body[8000];
    rig_options o;
    rig r;
    uint64_t stream;
    wire w = {0};
    bool fin = false;
    slow_reader(&r, &o, 200);
    respond(&r.server, ask(&r, &stream), "200", body, sizeof body, QG_FIN);
    uint64_t begin = qg__now_ns();
    while (!fin) {
        pass_ms(&r, 20); /* a tenth of the time it has */
        w.len += raw_read(&r.client, r.conn, stream, w.data + w.len, 600, &fin);
    }
    CHECK(qg__now_ns() - begin > 220 * QG_NS_PER_MS); /* longer than the timeout in all */
    CHECK(w.len > sizeof body);
    rig_close(&r);
}

/* ---------------------------------------------------------------- release */

/* The server lets go of a request at each stage; nothing is left, and the peer hears what is due. */
TEST(a_server_lets_go) {
    static const struct {
        const char *what;
        bool whole, answered, ended;
        uint64_t reset;
    } rows[] = {
        {"at once", false, false, false, H3_INTERNAL_ERROR},
        {"a whole request", true, false, false, H3_INTERNAL_ERROR},
        {"after a head", false, true, false, H3_INTERNAL_ERROR},
        {"after the head of an answer to a whole one", true, true, false, H3_INTERNAL_ERROR},
        {"after the answer to a whole one", true, true, true, 0},
        {"after the answer, before the request's end", false, true, true, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        rig r;
        wire w = {0};
        peer_client(&r, NULL);
        put_head(&w, POST_LINES);
        put_frame(&w, DATA, BYTES("begin"));
        uint64_t stream = peer_open(&r, true, &w, rows[i].whole);
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        check_note("%s", rows[i].what);
        if (rows[i].answered) {
            respond(&r.server, e, "200", "x", 1, rows[i].ended ? QG_FIN : 0);
        }
        int rc = qg_stream_release(r.server.engine, r.server_conn, stream);
        CHECK_EQ(rc, rows[i].whole && rows[i].ended ? QG_GONE : QG_OK); /* it had gone by itself */
        turn(&r);
        CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream),
                 rows[i].whole ? QG_GONE : QG_OK);
        if (rows[i].reset != 0) {
            await_peer_reset(&r, stream, rows[i].reset);
        } else {
            read_all(&r, stream, &w);
        }
        if (!rows[i].whole) { /* a small body is taken and dropped: the client is not disturbed */
            w.len = 0;
            put_frame(&w, DATA, BYTES("end"));
            peer_send(&r, stream, &w, true);
        }
        UNTIL(&r, r.server.counters.streams == 2);
        still_serves(&r);
        rig_close(&r);
    }
}

/* A client is not interested any more. */
TEST(a_client_lets_go) {
    for (int stage = 0; stage < 4; stage++) {
        rig r;
        wire w = {0};
        peer_server(&r, NULL);
        uint64_t stream =
            open_request(&r, stage == 0 ? "POST" : "GET", "/", stage == 0 ? 0 : QG_FIN);
        turn(&r);
        check_note("stage %d", stage);
        if (stage >= 2) {
            put_head(&w, ":status: 200\n");
            put_frame(&w, DATA, BYTES("begin"));
            peer_send(&r, stream, &w, false);
            CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 5, 0), QG_AGAIN);
            turn(&r);
        }
        if (stage == 3) { /* while it waits */
            uint8_t byte;
            uint32_t flags;
            uint64_t code;
            CHECK_EQ(qg_stream_read(r.client.engine, r.conn, stream, &byte, 1, 6, 0, &flags, &code),
                     QG_AGAIN);
        }
        CHECK_EQ(qg_stream_release(r.client.engine, r.conn, stream), QG_OK);
        await_peer_stopped(&r, stream, H3_REQUEST_CANCELLED);
        if (stage == 0) {
            await_peer_reset(&r, stream, H3_REQUEST_CANCELLED);
        }
        CHECK_EQ(qg_stream_release(r.client.engine, r.conn, stream), QG_GONE);
        CHECK(take_token(&r.client, 6) == NULL); /* no event after the last word */
        CHECK_EQ(r.client.counters.streams, 2);
        still_serves(&r);
        rig_close(&r);
    }
}

/* QG_OP_RESET: both ways, with the code that was given. */
TEST(both_sides_at_once) {
    rig r;
    wire w = {0};
    peer_client(&r, NULL);
    put_head(&w, POST_LINES);
    uint64_t stream = peer_open(&r, true, &w, false);
    await_event(&r, &r.server, QG_EVENT_REQUEST);
    submit(
        &r.server,
        (qg_submission){.op = QG_OP_RESET, .conn = r.server_conn, .stream = stream, .code = 0x777},
        NULL, 0, NULL, 0);
    turn(&r);
    await_peer_stopped(&r, stream, 0x777);
    await_peer_reset(&r, stream, 0x777);
    CHECK_EQ(r.server.counters.streams, 2);
    rig_close(&r);
}

/* ---------------------------------------------------------------- bodies that nobody wants */

/* A client that sends all before it listens gets its answer when the body is small (decision 007). */
static bool send_unwanted(rig *r, uint64_t stream, size_t size, uint64_t *code) {
    static wire w;
    static uint8_t bytes[20000];
    size_t sent = 0, at = 0;
    w.len = 0;
    put_frame(&w, DATA, bytes, sizeof bytes);
    while (sent < size) {
        int64_t n = qg_stream_write(r->client.engine, r->conn, stream, w.data + at, w.len - at, 0,
                                    0, 0, code);
        if (n == QG_STOPPED) {
            return false;
        }
        CHECK(n >= 0 || n == QG_AGAIN);
        at = n > 0 ? at + (size_t)n : at;
        sent += n > 0 ? (size_t)n : 0;
        at = at == w.len ? 0 : at;
        breathe(r);
    }
    w.len -= at; /* the rest of the frame */
    memmove(w.data, w.data + at, w.len);
    peer_send(r, stream, &w, true);
    return true;
}

TEST(a_body_that_nobody_wants) {
    for (size_t size = 100000; size <= 800000; size += 700000) {
        rig r;
        wire w = {0};
        uint64_t code = 0;
        peer_client(&r, NULL);
        put_head(&w, POST_LINES);
        uint64_t stream = peer_open(&r, true, &w, false);
        respond(&r.server, await_event(&r, &r.server, QG_EVENT_REQUEST), "403", "no", 2, QG_FIN);
        CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
        check_note("%zu bytes", size);
        bool taken = send_unwanted(&r, stream, size, &code);
        CHECK_EQ(taken, size == 100000);
        CHECK_EQ(code, taken ? 0 : H3_NO_ERROR); /* RFC 9114, section 4.1 */
        read_all(&r, stream, &w);                /* the answer came in either case */
        frame f;
        size_t at = 0;
        CHECK(next_frame(&w, &at, &f) && next_frame(&w, &at, &f));
        CHECK_TEXT(f.payload, f.len, "no");
        UNTIL(&r, r.server.counters.streams == 2);
        still_serves(&r);
        rig_close(&r);
    }
}

/* A client that wants no more of an answer when we have given all of it to quiche already: quiche waits
 * for us to hear of it before it lets the stream go, and the client may open another one. */
TEST(answers_that_are_cancelled_late_cost_no_stream) {
    for (int how = 0; how < 2; how++) {
        static uint8_t body[6000];
        rig_options o;
        rig r;
        wire w = {0};
        rig_defaults(&o);
        o.server.initial_max_streams_bidi = 8;
        peer_client(&r, &o);
        put_head(&w, GET_LINES);
        for (int i = 0; i < 40; i++) {
            qg_conn_info info;
            check_note("request %d, way %d", i, how);
            UNTIL(&r, (qg_conn_info_of(r.client.engine, r.conn, &info), info.streams_left > 0));
            uint64_t stream = peer_open(&r, true, &w, true);
            const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
            if (how == 0) {
                respond(&r.server, e, "200", body, sizeof body, QG_FIN);
            } else { /* we give up at the same time */
                CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
            }
            side_turn(&r.server); /* it is on its way */
            CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_READ, 0x10c),
                     QG_OK);
            turn(&r);
        }
        CHECK_EQ(r.server.counters.streams, 2);
        rig_close(&r);
    }
}

/* One that is stopped and whose end comes late is lost for quiche. A connection that lost many is
 * retired before its peer runs out of streams (decision 007). */
static void check_retired(uint64_t limit) {
    static wire w;
    static uint8_t bytes[30000];
    rig_options o;
    rig r;
    uint64_t used = 0, streams[400];
    rig_defaults(&o);
    o.server.initial_max_streams_bidi = limit;
    peer_client(&r, &o);
    w.len = 0;
    put_head(&w, POST_LINES);
    put_frame(&w, DATA, bytes, sizeof bytes);
    w.len -= 5; /* the client never ends it */
    while (conn_at(&r.server, r.server_conn)->h3.goaway_sent == QG_NEVER) {
        qg_conn_info info;
        check_note("limit %d, %d streams", (int)limit, (int)used);
        CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &info), QG_OK);
        CHECK(info.streams_left > 0); /* else nothing will ever come again */
        CHECK(used < COUNT(streams));
        streams[used] = peer_open(&r, true, &w, false);
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        respond(&r.server, e, "403", NULL, 0, QG_FIN);
        turn(&r); /* the answer is acknowledged */
        CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, streams[used], QG_SIDE_READ,
                                    H3_NO_ERROR),
                 QG_OK);
        turn(&r);
        used++;
    }
    CHECK(used > limit / 4); /* not for a few */
    rig_close(&r);
}

TEST(a_connection_with_many_lost_streams_is_retired) {
    check_retired(100);
    check_retired(300);
    check_retired(16);
    check_retired(8);
    check_retired(3);
}

/* A client's cost memory only, so it may gather more of them. */
TEST(a_client_with_many_lost_streams_looks_for_another_connection) {
    rig r;
    rig_start(&r, NULL);
    uint64_t i = 0;
    for (; count_events(&r.client, QG_EVENT_GOAWAY) == 0; i++) {
        check_note("request %d", (int)i);
        CHECK(i < 5000);
        uint64_t stream = open_request(&r, "GET", "/", QG_FIN);
        turn(&r); /* the request is acknowledged */
        CHECK_EQ(qg_stream_release(r.client.engine, r.conn, stream), QG_OK);
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, e->event.stream), QG_OK);
        turn(&r);
    }
    CHECK(i > 4000);
    CHECK(!conn_at(&r.server, r.server_conn)->draining); /* whose streams were not lost */
    request(&r, 5, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 5)->event.status, -QG_REFUSED);
    rig_close(&r);
}
