#include "harness.h"
#include "token.h"

static void close_with(side *s, uint64_t conn, bool app, uint64_t code, const char *reason) {
    CHECK_EQ(qg_conn_close(s->engine, conn, app, code, (const uint8_t *)reason, strlen(reason)),
             QG_OK);
}

/* The server's connection is announced with this token from now on, its end included. */
static void attach(rig *r, uint64_t token) {
    submit(&r->server, (qg_submission){.op = QG_OP_ATTACH, .conn = r->server_conn, .token = token},
           NULL, 0, NULL, 0);
    turn(r);
}

TEST(a_client_closes) {
    rig r;
    rig_start(&r, NULL);
    attach(&r, 77);
    close_with(&r.client, r.conn, true, 0x10c, "because");
    const seen *e = await_closed(&r, &r.client, 0x10c, QG_APP | QG_ESTABLISHED);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK_TEXT(head_of(e), e->event.head_len, "because");
    e = await_closed(&r, &r.server, 0x10c, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    CHECK_EQ(e->event.token, 77);
    CHECK_TEXT(head_of(e), e->event.head_len, "because");
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_CLOSED), 0);
    CHECK_EQ(r.client.counters.connections_closed, 1);
    CHECK_EQ(r.server.counters.connections_closed, 1);
    rig_close(&r);
}

TEST(a_server_closes) {
    rig r;
    rig_start(&r, NULL);
    attach(&r, 77);
    close_with(&r.server, r.server_conn, true, 0, "");
    await_closed(&r, &r.server, 0, QG_APP | QG_ESTABLISHED);
    const seen *e = await_closed(&r, &r.client, 0, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    CHECK_EQ(e->event.head_len, 0);
    rig_close(&r);
}

TEST(a_transport_code) {
    rig r;
    rig_start(&r, NULL);
    close_with(&r.server, r.server_conn, false, 0x0a, "protocol violation");
    const seen *e = await_closed(&r, &r.client, 0x0a, QG_REMOTE | QG_ESTABLISHED);
    CHECK_TEXT(head_of(e), e->event.head_len, "protocol violation");
    rig_close(&r);
}

TEST(a_long_reason_is_cut) {
    char reason[1000];
    rig r;
    memset(reason, 'r', sizeof reason);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_close(r.client.engine, r.conn, 1, 5, (uint8_t *)reason, sizeof reason), QG_OK);
    const seen *e = await_closed(&r, &r.client, 5, QG_APP | QG_ESTABLISHED);
    CHECK(e->event.head_len >= 100 && e->event.head_len <= 127);
    rig_close(&r);
}

TEST(the_first_reason_counts) {
    rig r;
    rig_start(&r, NULL);
    close_with(&r.client, r.conn, true, 1, "first");
    close_with(&r.client, r.conn, true, 2, "second");
    const seen *e = await_closed(&r, &r.client, 1, QG_APP | QG_ESTABLISHED);
    CHECK_TEXT(head_of(e), e->event.head_len, "first");
    rig_close(&r);
}

TEST(a_connection_closed_before_it_began) {
    rig r;
    rig_open(&r, NULL);
    r.conn = rig_dial(&r);
    close_with(&r.client, r.conn, true, 9, "changed my mind");
    const seen *e = await_event(&r, &r.client, QG_EVENT_CLOSED);
    CHECK_EQ(e->event.flags & (QG_REMOTE | QG_ESTABLISHED), 0);
    UNTIL(&r, r.client.engine->cids.count == 0);
    CHECK_EQ(r.server.counters.connections, 0);
    rig_close(&r);
}

TEST(a_connection_closed_in_its_first_turn) {
    rig r;
    rig_open(&r, NULL);
    r.conn = rig_dial(&r);
    while (take_event(&r.client, QG_EVENT_CONNECTED) == NULL) {
        side_turn(&r.client);
        side_turn(&r.server);
    }
    close_with(&r.client, r.conn, true, 0x100, "");
    await_closed(&r, &r.client, 0x100, QG_APP | QG_ESTABLISHED);
    UNTIL(&r, r.server.counters.connections == 0);
    CHECK_EQ(r.server.counters.handshakes_completed, 1);
    rig_close(&r);
}

/* The server knows nothing of the connection any more, but has the key that its token came from. */
TEST(a_stateless_reset_is_recognised) {
    rig r;
    rig_start(&r, NULL);
    exchange(&r, 1);
    qg__conn_free(conn_at(&r.server, r.server_conn));
    request(&r, 2, "GET", "/lost", NULL, 0, QG_FIN);
    await_closed(&r, &r.client, 0, QG_LOST | QG_REMOTE | QG_ESTABLISHED);
    const seen *e = await_token(&r, &r.client, 2);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK_EQ(r.server.counters.resets_sent, 1);
    rig_close(&r);
}

/* Two connections have one socket and one peer, as a client's to a server's dead worker: the reset of the first
 * is not taken for that of the second, though neither has been looked at yet. */
TEST(neighbours_are_reset_in_one_turn) {
    rig r;
    uint64_t conns[2], server_conns[2];
    rig_start(&r, NULL);
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            rig_connect(&r);
        }
        conns[i] = r.conn;
        server_conns[i] = r.server_conn;
    }
    turn(&r);
    uint8_t packets[2][QG_RESET_ROOM];
    size_t len[2];
    for (int i = 0; i < 2; i++) {
        qg_conn *c = conn_at(&r.server, server_conns[i]);
        len[i] = qg__reset_packet(qg__engine_keys(r.server.engine, c->config), c->cids[0],
                                  QG_CID_LEN, 1200, packets[i], QG_RESET_ROOM);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(qg_engine_inject(r.client.engine, r.client.endpoint, packets[i], len[i],
                                  &r.server_addr, &r.client_addr),
                 QG_OK);
    }
    side_turn(&r.client);
    unsigned lost = 0;
    const seen *e;
    while ((e = take_event(&r.client, QG_EVENT_CLOSED)) != NULL) {
        CHECK(e->event.conn == conns[0] || e->event.conn == conns[1]);
        lost += (e->event.flags & QG_LOST) != 0;
    }
    CHECK_EQ(lost, 2);
    rig_close(&r);
}

static bool answer_with_versions(void *arg, uint8_t *data, size_t len) {
    rig *r = arg;
    uint8_t out[64] = {0x80}, *at = out + 5;
    *at++ = data[6 + data[5]]; /* the ids change places */
    memcpy(at, data + 7 + data[5], at[-1]);
    at += at[-1];
    *at++ = data[5];
    memcpy(at, data + 6, data[5]);
    at += data[5];
    memcpy(at, "\x1a\x2a\x3a\x4a", 4);
    (void)len;
    qg_engine_inject(r->client.engine, r->client.endpoint, out, (size_t)(at + 4 - out),
                     &r->server_addr, &r->client_addr);
    return false;
}

TEST(no_common_version) {
    rig r;
    rig_open(&r, NULL);
    qg__pair_set_filter(datapath_of(&r.client), answer_with_versions, &r);
    r.conn = rig_dial(&r);
    await_closed(&r, &r.client, 0, QG_VERSION | QG_REMOTE);
    rig_close(&r);
}

TEST(everybody_who_waits_is_told) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_options o;
    rig_defaults(&o);
    o.server.initial_max_streams_bidi = 2;
    rig_start(&r, &o);
    request(&r, 1, "GET", "/waits", NULL, 0, QG_FIN);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    request(&r, 2, "GET", "/pending", NULL, 0, QG_FIN); /* the limit is reached */
    turn(&r);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 3, 0), QG_AGAIN);
    CHECK_EQ(qg_stream_read(r.server.engine, r.server_conn, stream, &byte, 1, 4, 0, &flags, &code),
             QG_AGAIN);
    close_with(&r.client, r.conn, true, 0x102, "bye");
    await_closed(&r, &r.client, 0x102, QG_APP | QG_ESTABLISHED);
    for (uint64_t token = 1; token <= 3; token++) {
        const seen *e = await_token(&r, &r.client, token);
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, -QG_CLOSED);
        CHECK_EQ(e->event.code, 0x102);
        CHECK_EQ((e->event.flags & QG_MORE) != 0, token == 2); /* nothing of it was sent */
    }
    const seen *e = await_token(&r, &r.server, 4);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK(e->event.flags & QG_REMOTE);
    rig_close(&r);
}

/* ---------------------------------------------------------------- draining */

#define ALL ((UINT64_C(1) << 62) - 4)

TEST(a_listener_stops_in_two_steps) {
    rig r;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/first", NULL, 0, QG_FIN);
    UNTIL(&r, count_events(&r.server, QG_EVENT_REQUEST) == 1);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    uint64_t begin = qg__now_ns();
    const seen *e = await_event(&r, &r.client, QG_EVENT_GOAWAY);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK_EQ(e->event.stream, ALL);
    e = await_event(&r, &r.client, QG_EVENT_GOAWAY);
    CHECK_EQ(e->event.stream, 4);
    CHECK(qg__now_ns() - begin >= 15 * QG_NS_PER_MS);
    CHECK(take_event(&r.client, QG_EVENT_CLOSED) == NULL); /* the request is under way */
    CHECK_EQ(answer_all(&r.server), 1);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.status, 200);
    await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_IDLE)->event.token, LISTEN_TOKEN);
    CHECK_EQ(r.server.counters.connections, 0);
    rig_close(&r);
}

TEST(after_goaway_a_client_sends_no_request) {
    rig r;
    uint64_t stream;
    uint8_t head[8] = {0xd1};
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    turn(&r);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    await_event(&r, &r.client, QG_EVENT_GOAWAY);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    const seen *e = await_token(&r, &r.client, 2);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_REFUSED);
    CHECK(e->event.flags & QG_MORE);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 3, 0, &stream), QG_REFUSED);
    rig_close(&r);
}

/* So that the clients do not all come to somebody else in the same moment. */
TEST(goaways_are_spread_over_a_while) {
    rig r;
    rig_start(&r, NULL);
    rig_connect(&r);
    rig_connect(&r);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 4000000), QG_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(await_event(&r, &r.client, QG_EVENT_GOAWAY)->event.stream, ALL);
    }
    CHECK(qg__now_ns() - begin >= 2 * QG_GOAWAY_GAP_US * QG_NS_PER_US);
    await_event(&r, &r.server, QG_EVENT_IDLE);
    rig_close(&r);
}

TEST(who_waits_for_a_goaway_is_served_and_may_be_hurried) {
    rig r;
    rig_start(&r, NULL);
    for (int i = 0; i < 19; i++) {
        rig_connect(&r);
    }
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 4000000), QG_OK);
    exchange(&r, 1); /* on the last, which is told after 190 ms */
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    uint64_t begin = qg__now_ns();
    for (int i = 0; i < 20; i++) {
        await_event(&r, &r.client, QG_EVENT_GOAWAY);
    }
    await_event(&r, &r.server, QG_EVENT_IDLE);
    CHECK(qg__now_ns() - begin < 20 * QG_NS_PER_S); /* and all of them are */
    rig_close(&r);
}

TEST(a_handshake_under_way_is_drained_when_it_is_complete) {
    rig r;
    rig_open(&r, NULL);
    r.conn = rig_dial(&r);
    side_turn(&r.client);
    side_turn(&r.server);
    CHECK_EQ(r.server.counters.connections, 1);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    await_event(&r, &r.client, QG_EVENT_CONNECTED);
    await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    await_event(&r, &r.server, QG_EVENT_IDLE);
    rig_close(&r);
}

/* ---------------------------------------------------------------- finish */

TEST(finish_delivers_what_was_written_even_with_loss) {
    rig r;
    static uint8_t body[300000];
    uint64_t code;
    rig_start(&r, NULL);
    exchange(&r, 1);
    uint64_t stream = open_request(&r, "GET", "/large", QG_FIN);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    lossy up = {.random = 3, .percent = 15}, down = {.random = 4, .percent = 15};
    make_lossy(&r.client, &up);
    make_lossy(&r.server, &down);
    respond(&r.server, e, "200", NULL, 0, 0);
    fill_pattern(body, sizeof body, 0);
    size_t sent = 0;
    flow down_flow = {.from = &r.server,
                      .to = &r.client,
                      .from_conn = r.server_conn,
                      .to_conn = r.conn,
                      .stream = stream,
                      .size = sizeof body,
                      .piece = 50000,
                      .token = 500};
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 3, 0), QG_AGAIN);
    while (sent < sizeof body) { /* the client reads nothing: it all waits in quiche */
        int64_t n = qg_stream_write(r.server.engine, r.server_conn, stream, body + sent,
                                    sizeof body - sent, QG_FIN, 0, 0, &code);
        CHECK(n > 0 || n == QG_AGAIN);
        sent += n > 0 ? (size_t)n : 0;
        breathe(&r);
    }
    CHECK_EQ(qg_conn_finish(r.server.engine, r.server_conn, 5000000), QG_OK);
    e = await_token(&r, &r.client, 3);
    down_flow.got = e->event.body_len;
    down_flow.fin_sent = true;
    flow_all(&r, &down_flow);
    /* The packet that closes may be among those that are lost, and is not sent again by itself. */
    qg_conn_info info;
    UNTIL(&r, qg_conn_info_of(r.server.engine, r.server_conn, &info) == QG_GONE);
    CHECK(down.dropped > 0);
    rig_close(&r);
}

TEST(finish_waits_no_longer_than_it_may) {
    rig r;
    rig_start(&r, NULL);
    open_request(&r, "POST", "/", 0); /* never ended */
    turn(&r);
    CHECK_EQ(qg_conn_finish(r.client.engine, r.conn, 30000), QG_OK);
    uint64_t begin = qg__now_ns();
    await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_ESTABLISHED);
    CHECK(qg__now_ns() - begin >= 20 * QG_NS_PER_MS);
    rig_close(&r);
}

TEST(finish_without_work_or_time_closes_at_once) {
    for (uint64_t timeout_us = 0; timeout_us < 2000000; timeout_us += 1000000) {
        rig r;
        rig_start(&r, NULL);
        exchange(&r, 1);
        uint64_t begin = qg__now_ns();
        CHECK_EQ(qg_conn_finish(r.client.engine, r.conn, timeout_us), QG_OK);
        await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_ESTABLISHED);
        CHECK(qg__now_ns() - begin < QG_NS_PER_S / 2);
        rig_close(&r);
    }
}

TEST(a_server_leaves_closing_to_its_client_for_a_little_while) {
    for (int by_client = 0; by_client < 2; by_client++) {
        rig r;
        rig_start(&r, NULL);
        exchange(&r, 1);
        uint64_t begin = qg__now_ns();
        CHECK_EQ(qg_conn_finish(r.server.engine, r.server_conn, 5000000), QG_OK);
        if (by_client) {
            turn(&r);
            CHECK_EQ(qg_conn_close(r.client.engine, r.conn, 1, 0x107, NULL, 0), QG_OK);
            await_event(&r, &r.server, QG_EVENT_CLOSED);
            await_closed(&r, &r.client, 0x107, QG_APP | QG_ESTABLISHED);
        } else {
            await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_REMOTE | QG_ESTABLISHED);
            CHECK(qg__now_ns() - begin >= 15 * QG_NS_PER_MS);
            CHECK(qg__now_ns() - begin < QG_NS_PER_S);
        }
        rig_close(&r);
    }
}

TEST(a_finishing_connection_takes_no_request) {
    rig r;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    turn(&r);
    CHECK_EQ(qg_conn_finish(r.client.engine, r.conn, 5000000), QG_OK);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 2)->event.status, -QG_REFUSED);
    answer_all(&r.server);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.status, 200); /* which was under way */
    await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_ESTABLISHED);
    rig_close(&r);
}

TEST(finish_of_raw_streams) {
    rig_options o;
    rig r;
    uint8_t got[10];
    bool fin;
    rig_defaults(&o);
    o.client.raw = o.server.raw = 1;
    rig_start(&r, &o);
    uint64_t stream = raw_send(&r.client, r.conn, false, "last words", 10, true);
    CHECK_EQ(qg_conn_finish(r.client.engine, r.conn, 5000000), QG_OK);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_STREAM_OPENED)->event.stream, stream);
    CHECK_EQ(raw_read(&r.server, r.server_conn, stream, got, sizeof got, &fin), 10);
    CHECK(fin);
    await_closed(&r, &r.client, 0, QG_APP | QG_ESTABLISHED);
    rig_close(&r);
}

/* ---------------------------------------------------------------- reading after the end */

#define LARGE 60000

/* The answer to one request has arrived, and no more of it was read than came with its head. The
 * server closed. */
static const seen *large_answer_and_the_end(rig *r, uint16_t fin) {
    static uint8_t body[LARGE];
    fill_pattern(body, sizeof body, 0);
    rig_start(r, NULL);
    request(r, 1, "GET", "/large", NULL, 0, QG_FIN);
    request(r, 2, "GET", "/waits", NULL, 0, QG_FIN);
    const seen *e = await_event(r, &r->server, QG_EVENT_REQUEST);
    respond(&r->server, e, "200", body, sizeof body, fin);
    turn(r);
    CHECK_EQ(qg_listen_close(r->server.engine, r->server.endpoint, 0x102), QG_OK);
    e = await_token(r, &r->client, 1);
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK(e->event.body_len < LARGE);
    await_closed(r, &r->client, 0x102, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    CHECK_EQ(await_token(r, &r->client, 2)->event.status, -QG_CLOSED); /* at once */
    CHECK_EQ(r->client.counters.streams, 1);
    CHECK_EQ(r->client.counters.connections, 0);
    return e;
}

/* All of it, in small pieces, as the last call answers. */
static int64_t read_to_the_end(rig *r, const seen *e, uint32_t *flags) {
    uint8_t got[5000], expected[sizeof got];
    uint64_t code, at = e->event.body_len;
    int64_t n;
    do {
        n = qg_stream_read(r->client.engine, r->conn, e->event.stream, got, sizeof got, 9, 0, flags,
                           &code);
        fill_pattern(expected, sizeof expected, at);
        CHECK_BYTES(got, n > 0 ? (size_t)n : 0, expected, n > 0 ? (size_t)n : 0);
        at += n > 0 ? (uint64_t)n : 0;
        breathe(r);
    } while (n > 0 && !(*flags & QG_FIN));
    CHECK_EQ(at, LARGE);
    return n;
}

TEST(what_came_before_the_end_can_be_read) {
    rig r;
    uint32_t flags;
    const seen *e = large_answer_and_the_end(&r, QG_FIN);
    UNTIL(&r, quiche_conn_is_closed(conn_at(&r.client, r.conn)->quiche)); /* three PTOs later */
    CHECK(read_to_the_end(&r, e, &flags) > 0);
    CHECK_EQ(flags, QG_FIN);
    CHECK_EQ(r.client.counters.streams, 0);
    CHECK(qg__engine_conn(r.client.engine, r.conn) == NULL);
    rig_close(&r);
}

TEST(a_body_that_the_end_cut_off_is_not_whole) {
    rig r;
    uint32_t flags;
    const seen *e = large_answer_and_the_end(&r, 0);
    CHECK_EQ(read_to_the_end(&r, e, &flags), QG_CLOSED);
    CHECK_EQ(r.client.counters.streams, 0);
    CHECK(take_token(&r.client, 9) == NULL); /* no wait was armed */
    rig_close(&r);
}

TEST(what_nobody_wants_to_read_after_the_end_goes) {
    for (unsigned way = 0; way < 3; way++) {
        rig r;
        check_note("way %u", way);
        const seen *e = large_answer_and_the_end(&r, QG_FIN);
        if (way == 0) {
            CHECK_EQ(qg_stream_release(r.client.engine, r.conn, e->event.stream), QG_OK);
        } else {
            submit(&r.client,
                   (qg_submission){.op = way == 1 ? QG_OP_RELEASE : QG_OP_RESET,
                                   .conn = r.conn,
                                   .stream = e->event.stream},
                   NULL, 0, NULL, 0);
        }
        turn(&r);
        check_note("way %u", way);
        CHECK_EQ(r.client.counters.streams, 0);
        UNTIL(&r, qg__engine_conn(r.client.engine, r.conn) == NULL);
        rig_close(&r);
    }
}

/* Its owner might never come: the time is moved, not waited for. */
TEST(what_nobody_reads_after_the_end_goes_in_time) {
    rig r;
    large_answer_and_the_end(&r, QG_FIN);
    qg_conn *conn = conn_at(&r.client, r.conn);
    CHECK(qg__timer_armed(&conn->phase));
    CHECK(conn->phase.deadline_ns > qg__now_ns() + 20 * QG_NS_PER_S);
    qg__timer_set(&r.client.engine->timers, &conn->phase, qg__now_ns());
    turn(&r);
    CHECK_EQ(r.client.counters.streams, 0);
    UNTIL(&r, qg__engine_conn(r.client.engine, r.conn) == NULL);
    rig_close(&r);
}

TEST(who_closes_reads_no_more) {
    static uint8_t body[LARGE];
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/large", NULL, 0, QG_FIN);
    respond(&r.server, await_event(&r, &r.server, QG_EVENT_REQUEST), "200", body, sizeof body,
            QG_FIN);
    const seen *e = await_token(&r, &r.client, 1);
    close_with(&r.client, r.conn, true, 0x100, "");
    await_closed(&r, &r.client, 0x100, QG_APP | QG_ESTABLISHED);
    CHECK_EQ(
        qg_stream_read(r.client.engine, r.conn, e->event.stream, &byte, 1, 0, 0, &flags, &code),
        QG_CLOSED);
    CHECK_EQ(r.client.counters.streams, 0);
    rig_close(&r);
}
