#include "harness.h"

/* A server that lets two requests be under way at a time. */
static void start_with_two(rig *r) {
    rig_options o;
    rig_defaults(&o);
    o.server.initial_max_streams_bidi = 2;
    rig_start(r, &o);
}

static void get(rig *r, uint64_t token, const char *path) {
    request(r, token, "GET", path, NULL, 0, QG_FIN);
}

/* The next request that the server sees must be this one. */
static const seen *expect_path(rig *r, const char *path) {
    const seen *e = await_event(r, &r->server, QG_EVENT_REQUEST);
    CHECK_TEXT(path_of(e), e->event.path_len, path);
    return e;
}

static void answer(rig *r, const seen *e) {
    respond(&r->server, e, "200", path_of(e), e->event.path_len, QG_FIN);
}

static void check_answered(rig *r, uint64_t token, const char *path) {
    const seen *e = await_token(r, &r->client, token);
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK_TEXT(body_of(e), e->event.body_len, path);
}

/* Nothing of it was sent, and why. */
static void check_unsent(rig *r, uint64_t token, int result, uint64_t code) {
    const seen *e = await_token(r, &r->client, token);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -result);
    CHECK_EQ(e->event.code, code);
    CHECK_EQ(e->event.conn, r->conn);
    CHECK_EQ(e->event.flags, QG_MORE);
    CHECK(take_token(&r->client, token) == NULL);
}

/* ---------------------------------------------------------------- in line */

TEST(requests_before_the_handshake_are_sent_after_it_in_order) {
    rig r;
    rig_open(&r, NULL);
    r.conn = rig_dial(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    get(&r, 3, "/3");
    answer(&r, expect_path(&r, "/1"));
    answer(&r, expect_path(&r, "/2"));
    answer(&r, expect_path(&r, "/3"));
    check_answered(&r, 1, "/1");
    check_answered(&r, 2, "/2");
    check_answered(&r, 3, "/3");
    rig_close(&r);
}

TEST(requests_wait_behind_the_limit_in_order) {
    static const char *const paths[] = {"/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"};
    rig r;
    start_with_two(&r);
    for (unsigned i = 0; i < 8; i++) {
        get(&r, 1 + i, paths[i]);
    }
    const seen *first = expect_path(&r, "/0"), *second = expect_path(&r, "/1");
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    CHECK_EQ(r.client.counters.requests_sent, 2);
    answer(&r, second); /* whichever ends first makes room */
    answer(&r, first);
    for (unsigned i = 2; i < 8; i++) {
        answer(&r, expect_path(&r, paths[i]));
    }
    for (unsigned i = 0; i < 8; i++) {
        check_answered(&r, 1 + i, paths[i]);
    }
    CHECK_EQ(r.client.counters.requests_sent, 8);
    rig_close(&r);
}

/* Past the queue: quiche knows what came, and nobody has looked at it yet. */
static bool hand_over(void *arg, uint8_t *data, size_t len) {
    rig *r = arg;
    uint8_t copy[1500];
    CHECK(len <= sizeof copy);
    memcpy(copy, data, len);
    CHECK_EQ(qg_engine_inject(r->client.engine, r->client.endpoint, copy, len, &r->server_addr,
                              &r->client_addr),
             QG_OK);
    return false;
}

/* One that comes when there is room does not go before those that wait. */
TEST(nobody_overtakes) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    get(&r, 3, "/3");
    const seen *e = expect_path(&r, "/1");
    expect_path(&r, "/2");
    turn(&r);
    answer(&r, e);
    side_turn(&r.server);
    side_turn(&r.client); /* acknowledges, and so ends the stream */
    qg__pair_set_filter(datapath_of(&r.server), hand_over, &r);
    side_turn(&r.server);
    qg__pair_set_filter(datapath_of(&r.server), NULL, NULL);
    CHECK(quiche_conn_peer_streams_left_bidi(conn_at(&r.client, r.conn)->quiche) > 0);
    get(&r, 4, "/4");
    CHECK(qg_engine_submit(r.client.engine) >= 0);
    expect_path(&r, "/3");
    rig_close(&r);
}

TEST(what_waits_is_a_copy) {
    rig r;
    static uint8_t body[QG_BODY_INLINE_MAX];
    uint8_t got[sizeof body];
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    fill_pattern(body, sizeof body, 7);
    request(&r, 3, "POST", "/upload", body, sizeof body, QG_FIN);
    turn(&r);
    memset(r.client.memory.submission_arena, 'x', r.client.arena);
    CHECK_EQ(answer_all(&r.server), 2);
    const seen *e = expect_path(&r, "/upload");
    memcpy(got, body_of(e), e->event.body_len);
    flow f = {.from = &r.client,
              .to = &r.server,
              .to_conn = r.server_conn,
              .stream = e->event.stream,
              .size = sizeof body,
              .piece = 4000,
              .token = 600,
              .fin_sent = true};
    size_t at = e->event.body_len;
    bool fin = (e->event.flags & QG_FIN) != 0;
    while (!fin) {
        uint32_t flags;
        uint64_t code;
        int64_t n = qg_stream_read(r.server.engine, f.to_conn, f.stream, got + at,
                                   sizeof got - at + 1, 0, 0, &flags, &code);
        CHECK(n >= 0 || n == QG_AGAIN);
        at += n > 0 ? (size_t)n : 0;
        fin = n >= 0 && (flags & QG_FIN);
        breathe(&r);
    }
    CHECK_BYTES(got, at, body, sizeof body);
    rig_close(&r);
}

/* A response to HEAD has no body, whatever its length says, also when the request had to wait. */
TEST(a_head_that_waited_is_still_a_head) {
    rig r;
    uint8_t head[64];
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    request(&r, 3, "HEAD", "/3", NULL, 0, QG_FIN | QG_HEAD);
    turn(&r);
    CHECK_EQ(answer_all(&r.server), 2);
    const seen *e = expect_path(&r, "/3");
    size_t len = fields(head, sizeof head, ":status", "200", "content-length", "1000", NULL);
    submit(
        &r.server,
        (qg_submission){
            .op = QG_OP_RESPOND, .conn = e->event.conn, .stream = e->event.stream, .flags = QG_FIN},
        head, len, NULL, 0);
    e = await_token(&r, &r.client, 3);
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK_EQ(e->event.flags, QG_FIN);
    rig_close(&r);
}

/* ---------------------------------------------------------------- time */

static void submit_get(rig *r, uint64_t token, const char *path, uint64_t timeout_us) {
    uint8_t head[200];
    size_t len = fields(head, sizeof head, ":method", "GET", ":scheme", "https", ":authority",
                        "a.test", ":path", path, NULL);
    submit(&r->client,
           (qg_submission){.op = QG_OP_REQUEST,
                           .conn = r->conn,
                           .token = token,
                           .flags = QG_FIN,
                           .timeout_us = timeout_us},
           head, len, NULL, 0);
}

TEST(a_deadline_while_it_waits) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    uint64_t begin = qg__now_ns();
    submit_get(&r, 3, "/3", 20000);
    get(&r, 4, "/4");
    const seen *e = await_token(&r, &r.client, 3);
    CHECK_EQ(e->event.type, QG_EVENT_DEADLINE);
    CHECK_EQ(e->event.conn, 0); /* it has no stream that would be ended */
    CHECK(qg__now_ns() - begin >= 20 * QG_NS_PER_MS);
    CHECK_EQ(r.client.counters.deadlines_passed, 1);
    CHECK_EQ(answer_all(&r.server), 2);
    expect_path(&r, "/4");
    CHECK(take_token(&r.client, 3) == NULL);
    CHECK_EQ(r.client.counters.requests_sent, 3);
    rig_close(&r);
}

/* The time counts from the submission: waiting in line does not begin it anew, nor end it. */
TEST(a_deadline_goes_along_when_it_is_sent) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    uint64_t begin = qg__now_ns();
    submit_get(&r, 3, "/3", 150000);
    turn(&r);
    CHECK_EQ(answer_all(&r.server), 2);
    const seen *e = await_token(&r, &r.client, 3);
    CHECK_EQ(e->event.type, QG_EVENT_DEADLINE);
    CHECK(qg__now_ns() - begin >= 150 * QG_NS_PER_MS);
    if (e->event.conn != 0) { /* 0: the machine was so busy that it was never sent */
        CHECK_EQ(e->event.conn, r.conn);
        CHECK_EQ(e->event.stream, 8);
        CHECK_EQ(r.client.counters.requests_sent, 3);
    }
    rig_close(&r);
}

/* ---------------------------------------------------------------- given up */

static void cancel(rig *r, uint64_t token) {
    submit(&r->client,
           (qg_submission){
               .op = QG_OP_CANCEL, .conn = r->conn, .token = token, .code = H3_REQUEST_CANCELLED},
           NULL, 0, NULL, 0);
}

TEST(cancelled_while_it_waits) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    submit_get(&r, 3, "/3", 30000);
    get(&r, 4, "/4");
    turn(&r);
    cancel(&r, 3);
    turn(&r);
    CHECK_EQ(answer_all(&r.server), 2);
    expect_path(&r, "/4");
    pass_ms(&r, 40); /* its deadline is not said either */
    CHECK(take_token(&r.client, 3) == NULL);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    rig_close(&r);
}

/* In the turn in which it was submitted. */
TEST(cancelled_at_once) {
    rig r;
    rig_start(&r, NULL);
    get(&r, 1, "/1");
    cancel(&r, 1);
    get(&r, 2, "/2");
    UNTIL(&r, count_events(&r.server, QG_EVENT_REQUEST) == 2); /* it had been sent, to its end */
    answer(&r, expect_path(&r, "/1"));
    answer(&r, expect_path(&r, "/2"));
    check_answered(&r, 2, "/2");
    CHECK(take_token(&r.client, 1) == NULL);
    CHECK_EQ(r.client.counters.streams, 2); /* the control streams */
    CHECK_EQ(r.server.counters.streams, 2);
    rig_close(&r);
}

TEST(cancelled_under_way) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    request(&r, 1, "POST", "/1", "abc", 3, 0);
    const seen *e = expect_path(&r, "/1");
    cancel(&r, 1);
    turn(&r);
    CHECK(take_token(&r.client, 1) == NULL);
    CHECK_EQ(r.client.counters.streams, 2); /* the control streams */
    CHECK_EQ(qg_stream_read(r.server.engine, e->event.conn, e->event.stream, &byte, 1, 0, 0, &flags,
                            &code),
             QG_RESET);
    CHECK_EQ(code, H3_REQUEST_CANCELLED);
    respond(&r.server, e, "200", NULL, 0, 0);
    turn(&r);
    CHECK_EQ(
        qg_stream_write(r.server.engine, e->event.conn, e->event.stream, &byte, 1, 0, 0, 0, &code),
        QG_STOPPED);
    CHECK_EQ(code, H3_REQUEST_CANCELLED);
    exchange(&r, 2);
    rig_close(&r);
}

/* No request has the token 0, but many streams have nobody who waits. */
TEST(cancelling_nothing) {
    rig r;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "GET", "/1", QG_FIN);
    const seen *e = expect_path(&r, "/1");
    cancel(&r, 0);
    cancel(&r, 77);
    turn(&r);
    answer(&r, e);
    turn(&r);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 5, 0), QG_AGAIN);
    check_answered(&r, 5, "/1");
    exchange(&r, 2);
    rig_close(&r);
}

/* ---------------------------------------------------------------- the connection fails */

TEST(the_connection_ends_while_it_waits) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    get(&r, 3, "/3");
    get(&r, 4, "/4");
    turn(&r);
    CHECK_EQ(qg_conn_close(r.server.engine, r.server_conn, 1, 0x107, NULL, 0), QG_OK);
    await_closed(&r, &r.client, 0x107, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    check_unsent(&r, 3, QG_CLOSED, 0x107);
    check_unsent(&r, 4, QG_CLOSED, 0x107);
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK_EQ(e->event.flags & QG_MORE, 0); /* this one may have been processed */
    rig_close(&r);
}

TEST(the_handshake_fails_while_it_waits) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.distrust = true;
    rig_open(&r, &o);
    r.conn = rig_dial(&r);
    get(&r, 1, "/1");
    submit_get(&r, 2, "/2", 4000000);
    const seen *e = await_event(&r, &r.client, QG_EVENT_CLOSED);
    CHECK(e->event.flags & QG_TLS_ALERT);
    CHECK_EQ(e->event.flags & QG_ESTABLISHED, 0);
    check_unsent(&r, 1, QG_CLOSED, e->event.code);
    check_unsent(&r, 2, QG_CLOSED, e->event.code);
    CHECK_EQ(r.server.counters.requests_received, 0);
    CHECK_EQ(r.client.counters.requests_sent, 0);
    CHECK_EQ(qg__timers_first(&r.client.engine->timers) == NULL ||
                 qg__timers_first(&r.client.engine->timers)->kind != QG_TIMER_PENDING,
             true);
    rig_close(&r);
}

TEST(goaway_while_it_waits) {
    rig r;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    get(&r, 3, "/3");
    get(&r, 4, "/4");
    turn(&r);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    check_unsent(&r, 3, QG_REFUSED, H3_REQUEST_REJECTED);
    check_unsent(&r, 4, QG_REFUSED, H3_REQUEST_REJECTED);
    CHECK(await_event(&r, &r.client, QG_EVENT_GOAWAY) != NULL);
    CHECK_EQ(answer_all(&r.server), 2);
    check_answered(&r, 1, "/1");
    check_answered(&r, 2, "/2");
    await_closed(&r, &r.client, H3_NO_ERROR, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    rig_close(&r);
}

TEST(an_engine_freed_while_they_wait) {
    rig r;
    start_with_two(&r);
    for (unsigned i = 0; i < 5; i++) {
        submit_get(&r, 1 + i, "/", 1000000);
    }
    turn(&r);
    rig_close(&r); /* the sanitizer looks for what was left */
}

/* Who asks for a request of a kind that is not there. */
TEST(requests_of_the_wrong_side_are_answered) {
    rig_options o;
    rig r;
    uint8_t head[8] = {0xd1};
    uint64_t stream;
    rig_start(&r, NULL);
    submit(&r.server, (qg_submission){.op = QG_OP_REQUEST, .conn = r.server_conn, .token = 1}, head,
           1, NULL, 0);
    CHECK_EQ(await_token(&r, &r.server, 1)->event.status, -QG_STATE);
    CHECK_EQ(qg_stream_request(r.server.engine, r.server_conn, head, 1, 0, 0, 0, &stream),
             QG_STATE);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 0, 0, &stream), QG_STATE);
    rig_close(&r);
    rig_raw_client(&o);
    rig_start(&r, &o);
    get(&r, 2, "/");
    check_unsent(&r, 2, QG_STATE, 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- waiting to open one's own */

TEST(a_stream_may_be_opened_once_another_has_ended) {
    rig r;
    uint8_t head[8] = {0xd1}; /* not whole, but what is tested is when it may be sent */
    uint64_t stream;
    start_with_two(&r);
    get(&r, 1, "/1");
    get(&r, 2, "/2");
    turn(&r);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 0, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 5, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 6, 20000, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 7, 0, &stream), QG_AGAIN);
    cancel(&r, 7);
    CHECK_EQ(await_token(&r, &r.client, 6)->event.type, QG_EVENT_DEADLINE);
    CHECK(take_token(&r.client, 5) == NULL);
    CHECK_EQ(answer_all(&r.server), 2);
    const seen *e = await_token(&r, &r.client, 5);
    CHECK_EQ(e->event.type, QG_EVENT_OPENED);
    CHECK_EQ(e->event.conn, r.conn);
    CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 0, 0, &stream), QG_OK);
    turn(&r);
    CHECK(take_token(&r.client, 7) == NULL);
    rig_close(&r);
}

TEST(raw_streams_wait_for_the_handshake) {
    rig_options o;
    rig r;
    uint64_t stream;
    rig_defaults(&o);
    o.client.raw = o.server.raw = 1;
    o.server.initial_max_streams_bidi = 1;
    rig_open(&r, &o);
    r.conn = rig_dial(&r);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 1, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 2, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 0, 3, 0, &stream), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.type, QG_EVENT_OPENED);
    uint8_t got[8];
    bool fin;
    stream = raw_send(&r.client, r.conn, true, "ping", 4, true);
    uint64_t server_conn = await_event(&r, &r.server, QG_EVENT_ACCEPTED)->event.conn;
    await_event(&r, &r.server, QG_EVENT_STREAM_OPENED);
    CHECK_EQ(raw_read(&r.server, server_conn, stream, got, sizeof got, &fin), 4);
    raw_write(&r.server, server_conn, stream, "pong", 4, true);
    UNTIL(&r, raw_read(&r.client, r.conn, stream, got, 4, &fin) == 4);
    CHECK_EQ(await_token(&r, &r.client, 2)->event.type, QG_EVENT_OPENED);
    CHECK_EQ(await_token(&r, &r.client, 3)->event.type, QG_EVENT_OPENED);
    rig_close(&r);
}

/* Streams of one kind do not wait for the other's limit. */
TEST(raw_streams_wait_for_their_own_kind) {
    rig_options o;
    rig r;
    uint64_t stream;
    uint8_t got[8];
    bool fin;
    rig_defaults(&o);
    o.client.raw = o.server.raw = 1;
    o.server.initial_max_streams_bidi = o.server.initial_max_streams_uni = 1;
    rig_start(&r, &o);
    raw_send(&r.client, r.conn, true, "ping", 4, false);
    uint64_t uni = raw_send(&r.client, r.conn, false, "done", 4, true);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 1, 1, 0, &stream), QG_AGAIN);
    CHECK_EQ(qg_stream_open(r.client.engine, r.conn, 0, 2, 0, &stream), QG_AGAIN);
    turn(&r);
    CHECK(take_token(&r.client, 2) == NULL);
    CHECK_EQ(raw_read(&r.server, r.server_conn, uni, got, sizeof got, &fin), 4);
    CHECK(fin);
    CHECK_EQ(await_token(&r, &r.client, 2)->event.type, QG_EVENT_OPENED);
    CHECK(take_token(&r.client, 1) == NULL);
    rig_close(&r);
}
