#include "h3_peer.h"

/* One of both sides, by number: 0 the client. */
static side *side_at(rig *r, int which) {
    return which == 0 ? &r->client : &r->server;
}

static uint64_t conn_of(const rig *r, int which) {
    return which == 0 ? r->conn : r->server_conn;
}

static void raw_defaults(rig_options *o) {
    rig_defaults(o);
    o->client.raw = o->server.raw = 1;
    o->client_alpn = o->server_alpn = ALPN_RAW;
}

static void raw_start(rig *r) {
    rig_options o;
    raw_defaults(&o);
    rig_start(r, &o);
}

/* A stream of either kind from either side, and back where there is a way back. */
TEST(streams_both_ways) {
    rig r;
    raw_start(&r);
    for (uint64_t kind = 0; kind < 4; kind++) {
        int from = kind & 1, to = 1 - from;
        bool bidi = (kind & 2) == 0, fin;
        uint8_t got[32];
        for (uint64_t i = 0; i < 3; i++) {
            check_note("stream %d of kind %d", (int)i, (int)kind);
            uint64_t stream =
                raw_send(side_at(&r, from), conn_of(&r, from), bidi, "there", 5, true);
            CHECK_EQ(stream, kind + 4 * i); /* RFC 9000, section 2.1 */
            const seen *e = await_event(&r, side_at(&r, to), QG_EVENT_STREAM_OPENED);
            CHECK_EQ(e->event.stream, stream);
            CHECK_EQ(e->event.conn, conn_of(&r, to));
            CHECK_EQ(e->event.token, to == 0 ? CONN_TOKEN : LISTEN_TOKEN);
            size_t n = raw_read(side_at(&r, to), conn_of(&r, to), stream, got, sizeof got, &fin);
            CHECK_TEXT(got, n, "there");
            CHECK(fin);
            if (bidi) {
                raw_write(side_at(&r, to), conn_of(&r, to), stream, "and back", 8, true);
                turn(&r);
                n = raw_read(side_at(&r, from), conn_of(&r, from), stream, got, sizeof got, &fin);
                CHECK_TEXT(got, n, "and back");
                CHECK(fin);
            }
        }
    }
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_STREAM_OPENED), 0); /* each was said once */
    CHECK_EQ(count_events(&r.server, QG_EVENT_STREAM_OPENED), 0);
    CHECK_EQ(r.client.counters.streams, 0);
    CHECK_EQ(r.server.counters.streams, 0);
    rig_close(&r);
}

/* Nothing is said for bytes that come later, but to who waits. */
TEST(a_stream_is_announced_once) {
    rig r;
    uint8_t got[32];
    bool fin;
    raw_start(&r);
    uint64_t stream = raw_send(&r.client, r.conn, true, "one ", 4, false);
    turn(&r);
    raw_write(&r.client, r.conn, stream, "two ", 4, false);
    turn(&r);
    raw_write(&r.client, r.conn, stream, "three", 5, true);
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_STREAM_OPENED), 1);
    CHECK_EQ(count_events(&r.server, QG_EVENT_READABLE), 0);
    size_t n = raw_read(&r.server, r.server_conn, stream, got, sizeof got, &fin);
    CHECK_TEXT(got, n, "one two three");
    rig_close(&r);
}

TEST(an_attached_session_has_its_own_token) {
    rig r;
    raw_start(&r);
    submit(&r.server, (qg_submission){.op = QG_OP_ATTACH, .conn = r.server_conn, .token = 77}, NULL,
           0, NULL, 0);
    raw_send(&r.client, r.conn, true, "x", 1, false);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_STREAM_OPENED)->event.token, 77);
    rig_close(&r);
}

TEST(an_empty_stream) {
    rig r;
    uint8_t got[4];
    bool fin;
    raw_start(&r);
    uint64_t stream = raw_send(&r.client, r.conn, false, NULL, 0, true);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_STREAM_OPENED)->event.stream, stream);
    CHECK_EQ(raw_read(&r.server, r.server_conn, stream, got, sizeof got, &fin), 0);
    CHECK(fin);
    rig_close(&r);
}

/* A side that a stream does not have. */
TEST(one_way_streams) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    raw_start(&r);
    uint64_t stream = raw_send(&r.client, r.conn, false, "x", 1, false);
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, stream, &byte, 1, 5, 0, &flags, &code),
             QG_STATE);
    CHECK_EQ(qg_stream_write(r.server.engine, r.server_conn, stream, &byte, 1, 0, 5, 0, &code),
             QG_STATE);
    CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, stream, QG_SIDE_WRITE, 1), QG_OK);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_READ, 1), QG_OK);
    turn(&r);
    raw_write(&r.client, r.conn, stream, "y", 1, true); /* neither did anything */
    turn(&r);
    uint8_t got[4];
    bool fin;
    CHECK_EQ(raw_read(&r.server, r.server_conn, stream, got, sizeof got, &fin), 2);
    CHECK(fin);
    rig_close(&r);
}

/* What is HTTP's, and what is not. */
TEST(calls_of_the_other_kind_of_connection) {
    rig r;
    uint8_t byte = 0xd1;
    uint64_t stream;
    raw_start(&r);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, &byte, 1, 0, 5, 0, &stream), QG_STATE);
    request(&r, 6, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 6)->event.status, -QG_STATE);
    stream = raw_send(&r.client, r.conn, true, "x", 1, false);
    CHECK_EQ(qg_stream_send_trailers(r.client.engine, r.conn, stream, &byte, 1), QG_STATE);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 7, 0), QG_STATE);
    rig_close(&r);
    rig_start(&r, NULL);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 5, 0, &stream), QG_STATE);
    CHECK_EQ(qg_stream_open(r.server.engine, r.server_conn, 0, 5, 0, &stream), QG_STATE);
    rig_close(&r);
}

/* ---------------------------------------------------------------- limits */

/* Opening waits for the peer's limit, is told when there is room, and then may open. */
static void check_limit(bool bidi, int from) {
    rig_options o;
    rig r;
    uint64_t stream, streams[3];
    uint8_t got[4];
    bool fin;
    check_note("%s streams of side %d", bidi ? "bidirectional" : "unidirectional", from);
    raw_defaults(&o);
    o.client.initial_max_streams_bidi = o.client.initial_max_streams_uni = 3;
    o.server.initial_max_streams_bidi = o.server.initial_max_streams_uni = 3;
    rig_start(&r, &o);
    side *s = side_at(&r, from), *t = side_at(&r, 1 - from);
    uint64_t conn = conn_of(&r, from), other = conn_of(&r, 1 - from);
    for (int i = 0; i < 3; i++) { /* opening alone counts */
        CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 0, 0, &streams[i]), QG_OK);
    }
    CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 0, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 5, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 6, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 7, 20000, &stream), QG_AGAIN);
    CHECK_EQ(await_token(&r, s, 7)->event.type, QG_EVENT_DEADLINE);
    CHECK_EQ(count_events(s, QG_EVENT_OPENED), 0);
    for (int i = 0; i < 3; i++) {
        raw_write(s, conn, streams[i], "x", 1, true);
        turn(&r);
        CHECK_EQ(raw_read(t, other, streams[i], got, sizeof got, &fin), 1);
        if (bidi) {
            raw_write(t, other, streams[i], NULL, 0, true);
            turn(&r);
            CHECK_EQ(raw_read(s, conn, streams[i], got, sizeof got, &fin), 0);
        }
    }
    CHECK_EQ(await_token(&r, s, 5)->event.type, QG_EVENT_OPENED);
    CHECK_EQ(await_token(&r, s, 6)->event.type, QG_EVENT_OPENED);
    for (int i = 0; i < 2; i++) {
        stream = raw_send(s, conn, bidi, "y", 1, true);
        CHECK_EQ(stream, streams[2] + 4 * (unsigned)(i + 1));
    }
    rig_close(&r);
}

TEST(the_peers_limit_of_streams) {
    for (int i = 0; i < 4; i++) {
        check_limit(i & 1, i >> 1);
    }
}

/* Before the handshake is through. */
TEST(a_stream_of_a_connection_to_come) {
    rig_options o;
    rig r;
    uint64_t stream;
    raw_defaults(&o);
    rig_open(&r, &o);
    r.conn = rig_dial(&r);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 5, 0, &stream), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 5)->event.type, QG_EVENT_OPENED);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 5, 0, &stream), QG_OK);
    rig_close(&r);
}

/* One that was opened, given up and never written to gives its place back. */
TEST(streams_that_were_never_used) {
    rig_options o;
    rig r;
    uint64_t stream;
    raw_defaults(&o);
    o.server.initial_max_streams_uni = 4;
    rig_start(&r, &o);
    for (int i = 0; i < 30; i++) {
        check_note("stream %d", i);
        UNTIL(&r, qg_stream_open(r.client.engine, r.conn, 0, 0, 0, &stream) == QG_OK);
        CHECK_EQ(qg_stream_release(r.client.engine, r.conn, stream), QG_OK);
        const seen *e = await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
        uint8_t byte;
        uint32_t flags;
        uint64_t code;
        CHECK_EQ(e->event.stream, stream);
        CHECK_EQ(
            qg_stream_read(r.server.engine, r.server_conn, stream, &byte, 1, 0, 0, &flags, &code),
            QG_RESET);
        CHECK_EQ(qg_stream_release(r.server.engine, r.server_conn, stream), QG_OK);
    }
    CHECK_EQ(r.client.counters.streams, 0);
    CHECK_EQ(r.server.counters.streams, 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- endings */

TEST(a_reset_is_told_with_its_code) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    raw_start(&r);
    uint64_t stream = raw_send(&r.client, r.conn, true, "x", 1, false);
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    CHECK_EQ(qg_stream_read(r.server.engine, r.server_conn, stream, &byte, 1, 0, 0, &flags, &code),
             1);
    CHECK_EQ(qg_stream_read(r.server.engine, r.server_conn, stream, &byte, 1, 9, 0, &flags, &code),
             QG_AGAIN);
    CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_WRITE, QG_VARINT_MAX),
             QG_OK);
    CHECK_EQ(await_token(&r, &r.server, 9)->event.type, QG_EVENT_READABLE);
    for (int i = 0; i < 2; i++) { /* whoever asks again is told again */
        CHECK_EQ(
            qg_stream_read(r.server.engine, r.server_conn, stream, &byte, 1, 9, 0, &flags, &code),
            QG_RESET);
        CHECK_EQ(code, QG_VARINT_MAX);
    }
    raw_write(&r.server, r.server_conn, stream, "still", 5, true); /* the other way is open */
    turn(&r);
    uint8_t got[8];
    bool fin;
    CHECK_EQ(raw_read(&r.client, r.conn, stream, got, sizeof got, &fin), 5);
    rig_close(&r);
}

TEST(a_stop_is_told_with_its_code) {
    rig r;
    uint64_t code;
    static uint8_t lots[1 << 21];
    raw_start(&r);
    uint64_t stream = raw_send(&r.client, r.conn, false, "x", 1, false);
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    int64_t n;
    while ((n = qg_stream_write(r.client.engine, r.conn, stream, lots, sizeof lots, 0, 9, 0,
                                &code)) > 0) {
        turn(&r);
    }
    CHECK_EQ(n, QG_AGAIN);
    CHECK_EQ(qg_stream_shutdown(r.server.engine, r.server_conn, stream, QG_SIDE_READ, 1234), QG_OK);
    const seen *e = await_token(&r, &r.client, 9);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_STOPPED);
    CHECK_EQ(e->event.code, 1234);
    CHECK_EQ(qg_stream_write(r.client.engine, r.conn, stream, lots, 1, 0, 9, 0, &code), QG_STOPPED);
    CHECK_EQ(code, 1234);
    rig_close(&r);
}

TEST(a_raw_connection_is_closed_with_code_0) {
    rig r;
    raw_start(&r);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    await_closed(&r, &r.client, 0, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    rig_close(&r);
}

/* ---------------------------------------------------------------- lots of bytes */

static void check_flows(uint64_t size, size_t piece, unsigned loss) {
    rig_options o;
    rig r;
    lossy up = {.random = 5, .percent = loss}, down = {.random = 6, .percent = loss};
    raw_defaults(&o);
    o.server.initial_max_stream_data_bidi_remote = 3000;
    o.client.initial_max_stream_data_bidi_local = 3000;
    rig_start(&r, &o);
    make_lossy(&r.client, &up);
    make_lossy(&r.server, &down);
    flow flows[4];
    for (unsigned i = 0; i < 4; i++) { /* two streams, both ways on each */
        uint64_t stream = i & 1 ? flows[i - 1].stream : 0;
        if (!(i & 1)) {
            CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 0, 0, &stream), QG_OK);
            raw_write(&r.client, r.conn, stream, (uint8_t[]){pattern(0)}, 1, false);
        }
        int from = i & 1;
        flows[i] = (flow){.from = side_at(&r, from),
                          .to = side_at(&r, 1 - from),
                          .from_conn = conn_of(&r, from),
                          .to_conn = conn_of(&r, 1 - from),
                          .stream = stream,
                          .size = size + i,
                          .piece = piece,
                          .token = 100 + 2 * i,
                          .sent = i & 1 ? 0 : 1};
    }
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    bool done[4] = {false};
    UNTIL(&r, ({
        bool all = true;
        for (unsigned i = 0; i < 4; i++) {
            done[i] = done[i] || flow_step(&r, &flows[i]);
            all &= done[i];
        }
        all;
    }));
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(flows[i].got, size + i);
    }
    CHECK_EQ(up.dropped > 0, loss > 0);
    rig_close(&r);
}

TEST(bytes_both_ways_at_once) {
    check_flows(500000, 10000, 0);
    check_flows(20000, 7, 0);
}

TEST(bytes_both_ways_with_loss) {
    check_flows(100000, 5000, 10);
}
