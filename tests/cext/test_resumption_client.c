/* A client's side of early data. */
#include "early.h"

/* ---------------------------------------------------------------- the first flight */

TEST(a_marked_request_leaves_with_the_first_flight) {
    early e;
    ticket t;
    tap out;
    start_early(&e, NULL, &t);
    CHECK(t.flags & QG_EARLY);
    CHECK_EQ(t.lifetime_s, 2000);
    get_early(&e.r, 1, "/early");
    tap_side(&e.r.client, &out);
    side_turn(&e.r.client);
    CHECK(out.packets[TAP_INITIAL] > 0);
    CHECK(out.packets[TAP_ZERO_RTT] > 0);
    CHECK_EQ(out.packets[TAP_HANDSHAKE] + out.packets[TAP_SHORT], 0);
    qg_session_info info;
    CHECK_EQ(qg_session_info_of(e.r.client.engine, e.r.conn, &info), QG_OK);
    CHECK_EQ(info.in_early_data, 1);
    CHECK_EQ(info.early_data, QG_EARLY_NONE); /* nobody knows yet */
    side_turn(&e.r.server);
    const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
    CHECK(request != NULL);
    CHECK_TEXT(path_of(request), request->event.path_len, "/early");
    CHECK_EQ(request->event.flags, QG_FIN | QG_EARLY);
    respond(&e.r.server, request, "200", "/early", 6, QG_FIN);
    check_answer(&e.r, 1, "/early");
    check_session(&e.r, true, QG_EARLY_ACCEPTED, "accepted");
    CHECK_EQ(e.r.client.counters.early_data_accepted, 1);
    CHECK_EQ(e.r.client.counters.early_data_refused, 0);
    CHECK_EQ(e.r.client.counters.handshakes_resumed, 1);
    CHECK_EQ(e.r.client.counters.requests_sent, 1);
    early_close(&e);
}

/* What may not be replayed is not sent before the handshake is complete, whoever is before it in line. */
TEST(what_is_not_marked_waits) {
    early e;
    ticket t;
    tap out;
    uint8_t head[8] = {0xd1};
    uint64_t stream;
    start_early(&e, NULL, &t);
    request(&e.r, 1, "GET", "/1", NULL, 0, QG_FIN);
    request(&e.r, 2, "POST", "/2", "x", 1, QG_FIN);
    tap_side(&e.r.client, &out);
    side_turn(&e.r.client);
    CHECK_EQ(e.r.client.counters.requests_sent, 0);
    get_early(&e.r, 3, "/3"); /* later, while the handshake goes on */
    request(&e.r, 4, "GET", "/4", NULL, 0, QG_FIN);
    CHECK_EQ(qg_stream_request(e.r.client.engine, e.r.conn, head, 1, QG_EARLY, 5, 0, &stream),
             QG_AGAIN);
    side_turn(&e.r.client);
    CHECK_EQ(e.r.client.counters.requests_sent, 1);
    CHECK(out.packets[TAP_ZERO_RTT] > 1); /* SETTINGS, then the request */
    side_turn(&e.r.server);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 1);
    const seen *first = take_event(&e.r.server, QG_EVENT_REQUEST);
    CHECK_TEXT(path_of(first), first->event.path_len, "/3");
    respond(&e.r.server, first, "200", "/3", 2, QG_FIN);
    const char *const paths[] = {"/1", "/2", "/4"};
    for (unsigned i = 0; i < 3; i++) {
        const seen *later = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
        CHECK_TEXT(path_of(later), later->event.path_len, paths[i]);
        CHECK_EQ(later->event.flags & QG_EARLY, 0);
        respond(&e.r.server, later, "200", paths[i], 2, QG_FIN);
    }
    check_answer(&e.r, 3, "/3");
    check_answer(&e.r, 1, "/1");
    check_answer(&e.r, 2, "/2");
    check_answer(&e.r, 4, "/4");
    CHECK_EQ(await_token(&e.r, &e.r.client, 5)->event.type, QG_EVENT_OPENED);
    early_close(&e);
}

TEST(marked_requests_go_in_order) {
    static const char *const paths[] = {"/0", "/1", "/2", "/3", "/4"};
    early e;
    ticket t;
    start_early(&e, NULL, &t);
    for (unsigned i = 0; i < 5; i++) {
        get_early(&e.r, 1 + i, paths[i]);
    }
    side_turn(&e.r.client);
    side_turn(&e.r.server);
    for (unsigned i = 0; i < 5; i++) {
        const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
        CHECK(request != NULL);
        CHECK_TEXT(path_of(request), request->event.path_len, paths[i]);
        CHECK(request->event.flags & QG_EARLY);
    }
    early_close(&e);
}

/* Without a mark nothing of this happens, and with a mark but no early data asked for neither. */
TEST(without_early_data_a_mark_means_nothing) {
    early e;
    ticket t;
    tap out;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned i = 0; i < 2; i++) {
        e.r.conn = rig_dial(&e.r);
        CHECK_EQ(i == 0 ? qg_conn_resume(e.r.client.engine, e.r.conn, t.bytes, t.len, 0) : QG_OK,
                 QG_OK);
        get_early(&e.r, 1 + i, "/");
        tap_side(&e.r.client, &out);
        check_answer(&e.r, 1 + i, "/");
        CHECK_EQ(out.packets[TAP_ZERO_RTT], 0);
        check_session(&e.r, i == 0, QG_EARLY_NONE, NULL);
    }
    CHECK_EQ(e.r.server.counters.early_requests, 0);
    CHECK_EQ(e.r.client.counters.early_data_accepted + e.r.client.counters.early_data_refused, 0);
    early_close(&e);
}

/* The streams that the ticket's server allowed, and no more. */
TEST(the_tickets_stream_limit_holds) {
    static const char *const paths[] = {"/0", "/1", "/2", "/3", "/4"};
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.server.initial_max_streams_bidi = 2;
    start_early(&e, &o, &t);
    for (unsigned i = 0; i < 5; i++) {
        get_early(&e.r, 1 + i, paths[i]);
    }
    side_turn(&e.r.client);
    CHECK_EQ(e.r.client.counters.requests_sent, 2);
    side_turn(&e.r.server);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 2);
    for (unsigned i = 0; i < 5; i++) {
        check_answer(&e.r, 1 + i, paths[i]);
    }
    early_close(&e);
}

/* A body goes along, as far as the first flight may be long; the rest follows the handshake. */
TEST(a_body_in_early_data) {
    static const size_t sizes[] = {1, 3000, QG_BODY_INLINE_MAX};
    static uint8_t body[QG_BODY_INLINE_MAX], got[QG_BODY_INLINE_MAX];
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    fill_pattern(body, sizeof body, 3);
    for (unsigned i = 0; i < 3; i++) {
        tap out;
        dial_with(&e.r, &t, true);
        tap_side(&e.r.client, &out);
        request(&e.r, 1 + i, "POST", "/upload", body, sizes[i], QG_FIN | QG_EARLY);
        side_turn(&e.r.client);
        CHECK(out.packets[TAP_ZERO_RTT] > sizes[i] / 1500 || sizes[i] > 10000);
        CHECK_EQ(e.r.client.counters.requests_sent, 1 + i);
        const seen *request = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
        CHECK_EQ(request->event.flags & QG_EARLY, 0);
        size_t at = request->event.body_len;
        memcpy(got, body_of(request), at);
        bool fin = (request->event.flags & QG_FIN) != 0;
        while (!fin) {
            uint32_t flags;
            uint64_t code;
            int64_t n =
                qg_stream_read(e.r.server.engine, request->event.conn, request->event.stream,
                               got + at, sizeof got - at + (at == sizeof got), 0, 0, &flags, &code);
            CHECK(n >= 0 || n == QG_AGAIN);
            at += n > 0 ? (size_t)n : 0;
            fin = n >= 0 && (flags & QG_FIN);
            breathe(&e.r);
        }
        CHECK_BYTES(got, at, body, sizes[i]);
        respond(&e.r.server, request, "200", "ok", 2, QG_FIN);
        check_answer(&e.r, 1 + i, "ok");
        check_session(&e.r, true, QG_EARLY_ACCEPTED, NULL);
    }
    early_close(&e);
}

/* ---------------------------------------------------------------- given up while early */

TEST(a_deadline_while_early) {
    early e;
    ticket t;
    tap out;
    start_early(&e, NULL, &t);
    tap_side(&e.r.client, &out);
    out.cut = true;
    uint8_t head[200];
    size_t len = fields(head, sizeof head, ":method", "GET", ":scheme", "https", ":authority",
                        "a.test", ":path", "/late", NULL);
    submit(&e.r.client,
           (qg_submission){.op = QG_OP_REQUEST,
                           .conn = e.r.conn,
                           .token = 1,
                           .flags = QG_FIN | QG_EARLY,
                           .timeout_us = 20000},
           head, len, NULL, 0);
    const seen *over = await_token(&e.r, &e.r.client, 1);
    CHECK_EQ(over->event.type, QG_EVENT_DEADLINE);
    CHECK_EQ(over->event.conn, e.r.conn); /* it was sent: there is a stream to end */
    CHECK_EQ(over->event.stream, 0);
    submit(&e.r.client,
           (qg_submission){.op = QG_OP_RESET,
                           .conn = e.r.conn,
                           .stream = over->event.stream,
                           .code = H3_REQUEST_CANCELLED},
           NULL, 0, NULL, 0);
    side_turn(&e.r.client);
    out.cut = false; /* the connection is as good as before */
    get_early(&e.r, 2, "/next");
    check_answer(&e.r, 2, "/next");
    CHECK(take_token(&e.r.client, 1) == NULL);
    early_close(&e);
}

TEST(cancelled_while_early) {
    early e;
    ticket t;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/1");
    get_early(&e.r, 2, "/2");
    request(&e.r, 3, "GET", "/3", NULL, 0, QG_FIN);
    side_turn(&e.r.client);
    for (uint64_t token = 1; token <= 3; token += 2) {
        submit(
            &e.r.client,
            (qg_submission){
                .op = QG_OP_CANCEL, .conn = e.r.conn, .token = token, .code = H3_REQUEST_CANCELLED},
            NULL, 0, NULL, 0);
    }
    check_answer(&e.r, 2, "/2");
    pass_ms(&e.r, 5);
    answer_all(&e.r.server);
    turn(&e.r);
    CHECK(take_token(&e.r.client, 1) == NULL);
    CHECK(take_token(&e.r.client, 3) == NULL);
    CHECK_EQ(e.r.client.counters.requests_sent, 2);
    CHECK_EQ(e.r.client.counters.streams, 2); /* the control streams */
    early_close(&e);
}

/* ---------------------------------------------------------------- the connection fails while early */

/* QG_MORE says that nothing was sent, and only then may a caller send a POST again. */
static void check_lost(rig *r, uint64_t token, bool sent) {
    const seen *e = await_token(r, &r->client, token);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK_EQ((e->event.flags & QG_MORE) != 0, !sent);
}

static void send_one_of_each(early *e, const rig_options *o, tap *out) {
    ticket t;
    start_early(e, o, &t);
    get_early(&e->r, 1, "/sent");
    request(&e->r, 2, "GET", "/waits", NULL, 0, QG_FIN);
    tap_side(&e->r.client, out);
    out->cut = true;
    side_turn(&e->r.client);
    CHECK(out->packets[TAP_ZERO_RTT] > 0);
}

TEST(nobody_answers_while_early) {
    rig_options o;
    early e;
    tap out;
    early_options(&o);
    o.client.handshake_timeout_ms = 50;
    send_one_of_each(&e, &o, &out);
    await_closed(&e.r, &e.r.client, 0, QG_TIMED_OUT);
    check_lost(&e.r, 1, true);
    check_lost(&e.r, 2, false);
    CHECK_EQ(e.r.client.counters.handshakes_failed, 1);
    early_close(&e);
}

TEST(closed_while_early) {
    early e;
    tap out;
    send_one_of_each(&e, NULL, &out);
    CHECK_EQ(qg_conn_close(e.r.client.engine, e.r.conn, 1, H3_NO_ERROR, NULL, 0), QG_OK);
    await_event(&e.r, &e.r.client, QG_EVENT_CLOSED);
    check_lost(&e.r, 1, true);
    check_lost(&e.r, 2, false);
    early_close(&e);
}

TEST(unreachable_while_early) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.udp = true;
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    qg_addr_parse(&e.r.server_addr, "127.0.0.1", 1); /* nobody listens there */
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/sent");
    request(&e.r, 2, "GET", "/waits", NULL, 0, QG_FIN);
    const seen *closed = await_event(&e.r, &e.r.client, QG_EVENT_CLOSED);
    CHECK_EQ(closed->event.flags, QG_ICMP);
    check_lost(&e.r, 1, true);
    check_lost(&e.r, 2, false);
    early_close(&e);
}

/* By a server that has other certificates and other keys, so that the client must look at them. */
TEST(refused_while_early) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    qg_keys_free(e.keys);
    e.keys = qg_keys_new(NULL, 1000, 3, qg__wall_s());
    o.distrust = true;
    early_again(&e, &o);
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/sent");
    request(&e.r, 2, "GET", "/waits", NULL, 0, QG_FIN);
    const seen *closed = await_event(&e.r, &e.r.client, QG_EVENT_CLOSED);
    CHECK_EQ(closed->event.flags, QG_TLS_ALERT);
    check_lost(&e.r, 1, true);
    check_lost(&e.r, 2, false);
    CHECK_EQ(e.r.server.counters.requests_received, 0);
    early_close(&e);
}

/* ---------------------------------------------------------------- order of calls */

TEST(a_ticket_is_taken_before_the_first_flush_only) {
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    e.r.conn = rig_dial(&e.r);
    side_turn(&e.r.client);
    CHECK_EQ(qg_conn_resume(e.r.client.engine, e.r.conn, t.bytes, t.len, 1), QG_STATE);
    await_event(&e.r, &e.r.client, QG_EVENT_CONNECTED);
    CHECK_EQ(qg_conn_resume(e.r.client.engine, e.r.conn, t.bytes, t.len, 1), QG_STATE);
    check_session(&e.r, false, QG_EARLY_NONE, NULL);
    CHECK_EQ(qg_conn_resume(e.r.client.engine, 12345, t.bytes, t.len, 1), QG_GONE);
    exchange(&e.r, 1);
    early_close(&e);
}

/* By a server without room for our control stream, which it may have by now. */
TEST(a_ticket_with_which_http3_cannot_begin) {
    rig_options o;
    early e;
    ticket t;
    tap out;
    early_options(&o);
    o.client.raw = o.server.raw = 1;
    o.server.initial_max_streams_uni = 0;
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    early_again(&e, NULL);
    dial_with(&e.r, &t, true);
    tap_side(&e.r.client, &out);
    get_early(&e.r, 1, "/1");
    side_turn(&e.r.client);
    CHECK_EQ(out.packets[TAP_ZERO_RTT], 0);
    check_answer(&e.r, 1, "/1");
    check_session(&e.r, true, QG_EARLY_NONE, NULL);
    early_close(&e);
}

TEST(a_raw_client_sends_nothing_early) {
    rig_options o;
    early e;
    ticket t;
    tap out;
    uint64_t stream;
    early_options(&o);
    o.client.raw = o.server.raw = 1;
    o.client_alpn = o.server_alpn = ALPN_RAW;
    start_early(&e, &o, &t);
    tap_side(&e.r.client, &out);
    CHECK_EQ(qg_stream_open(e.r.client.engine, e.r.conn, 1, 5, 0, &stream), QG_AGAIN);
    side_turn(&e.r.client);
    CHECK_EQ(out.packets[TAP_ZERO_RTT], 0);
    CHECK_EQ(await_token(&e.r, &e.r.client, 5)->event.type, QG_EVENT_OPENED);
    raw_send(&e.r.client, e.r.conn, true, "ping", 4, true);
    await_event(&e.r, &e.r.server, QG_EVENT_STREAM_OPENED);
    check_session(&e.r, true, QG_EARLY_NONE, NULL);
    early_close(&e);
}
