/* A server's side of early data: what is announced before the handshake is complete, and what is not. */
#include <stdio.h>
#include <stdlib.h>

#include "early.h"

/* The client's first flight is there, nothing else: the handshake is not complete. */
static void first_flight(early *e) {
    side_turn(&e->r.client);
    side_turn(&e->r.server);
}

static qg_conn *only_conn(const side *s) {
    qg_conn *found = NULL;
    for (uint32_t i = 0; i < s->engine->slot_capacity; i++) {
        found = s->engine->slots[i].conn != NULL ? s->engine->slots[i].conn : found;
    }
    CHECK(found != NULL);
    return found;
}

static void send_early(rig *r, uint64_t token, const char *method, const char *body, bool fin) {
    request(
        r, token, method, "/", body, strlen(body),
        (uint16_t)(QG_EARLY | (fin ? QG_FIN : 0) | (strcmp(method, "HEAD") == 0 ? QG_HEAD : 0)));
}

/* ---------------------------------------------------------------- safe, or held */

TEST(what_is_safe_is_announced_at_once) {
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS"};
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned i = 0; i < 3; i++) {
        check_note("%s", methods[i]);
        dial_with(&e.r, &t, true);
        send_early(&e.r, 1 + i, methods[i], "", true);
        first_flight(&e);
        const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
        CHECK(request != NULL);
        CHECK_EQ(request->event.flags, QG_FIN | QG_EARLY);
        qg_conn *conn = conn_at(&e.r.server, request->event.conn);
        CHECK(!conn->established);
        respond(&e.r.server, request, "200", NULL, 0, QG_FIN);
        CHECK_EQ(await_token(&e.r, &e.r.client, 1 + i)->event.type, QG_EVENT_RESPONSE);
        qg_session_info info;
        UNTIL(&e.r, conn->established);
        CHECK_EQ(qg_session_info_of(e.r.server.engine, request->event.conn, &info), QG_OK);
        CHECK(info.is_resumed);
        CHECK_EQ(info.early_data, QG_EARLY_ACCEPTED);
        CHECK_EQ(e.r.server.counters.early_requests, 1 + i);
        CHECK_EQ(e.r.server.counters.early_data_accepted, 1 + i);
    }
    CHECK_EQ(e.r.server.counters.early_requests_held, 0);
    early_close(&e);
}

TEST(what_is_not_safe_is_held_until_the_handshake_is_complete) {
    static const struct {
        const char *method, *body;
        bool fin;
    } rows[] = {{"POST", "", true},   {"POST", "hello", true}, {"PUT", "x", true},
                {"DELETE", "", true}, {"PATCH", "x", true},    {"BREW", "", true},
                {"GET", "x", true},   {"OPTIONS", "x", true},  {"GET", "", false},
                {"HEAD", "", false},  {"GET", "x", false},     {"POST", "x", false}};
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        check_note("row %u", i);
        dial_with(&e.r, &t, true);
        send_early(&e.r, 1 + i, rows[i].method, rows[i].body, rows[i].fin);
        first_flight(&e);
        CHECK(take_event(&e.r.server, QG_EVENT_REQUEST) == NULL);
        CHECK_EQ(e.r.server.counters.early_requests_held, 1 + i);
        side_turn(&e.r.client); /* the handshake's end */
        side_turn(&e.r.server);
        const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
        CHECK(request != NULL);
        CHECK(conn_at(&e.r.server, request->event.conn)->established);
        CHECK_EQ(request->event.flags, rows[i].fin ? QG_FIN : 0);
        CHECK_TEXT(body_of(request), request->event.body_len, rows[i].body);
        respond(&e.r.server, request, "200", NULL, 0, QG_FIN);
        CHECK_EQ(await_token(&e.r, &e.r.client, 1 + i)->event.type, QG_EVENT_RESPONSE);
        turn(&e.r);
        CHECK(take_event(&e.r.server, QG_EVENT_REQUEST) == NULL);
        CHECK_EQ(e.r.server.counters.requests_received, 1 + i);
    }
    CHECK_EQ(e.r.server.counters.early_requests, 0);
    early_close(&e);
}

/* A session is announced when its handshake is complete, and its requests after it. */
TEST(a_listener_for_sessions_announces_nothing_early) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.listen.flags = QG_LISTEN_SESSIONS;
    start_early(&e, &o, &t);
    while (take_event(&e.r.server, QG_EVENT_ACCEPTED) != NULL) {
    }
    get_early(&e.r, 1, "/1");
    first_flight(&e);
    CHECK_EQ(e.r.server.counters.early_requests_held, 1);
    CHECK(take_event(&e.r.server, QG_EVENT_REQUEST) == NULL);
    CHECK(take_event(&e.r.server, QG_EVENT_ACCEPTED) == NULL);
    size_t before = e.r.server.count;
    side_turn(&e.r.client);
    side_turn(&e.r.server);
    CHECK(e.r.server.count >= before + 2);
    CHECK_EQ(e.r.server.events[before]->event.type, QG_EVENT_ACCEPTED);
    CHECK_EQ(e.r.server.events[before + 1]->event.type, QG_EVENT_REQUEST);
    CHECK_EQ(e.r.server.events[before + 1]->event.flags, QG_FIN);
    check_answer(&e.r, 1, "/1");
    early_close(&e);
}

static void give_credit(side *s, uint64_t credit) {
    submit(s, (qg_submission){.op = QG_OP_CREDIT, .conn = (uint64_t)s->endpoint, .code = credit},
           NULL, 0, NULL, 0);
}

/* Who has no room for a request hears of none, early or not; also of one that was held. */
TEST(without_credit_they_wait) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.listen.credit = 0;
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    for (unsigned late = 0; late < 2; late++) {
        check_note("%s", late ? "credit after the handshake" : "credit before");
        dial_with(&e.r, &t, true);
        get_early(&e.r, 1, "/1");
        request(&e.r, 2, "POST", "/2", "x", 1, QG_FIN | QG_EARLY);
        first_flight(&e);
        if (late) {
            turn(&e.r);
            CHECK(conn_at(&e.r.client, e.r.conn)->established);
        }
        CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 0);
        for (unsigned i = 0; i < 2; i++) {
            give_credit(&e.r.server, 1);
            side_turn(&e.r.server);
            if (i == 1) {
                turn(&e.r);
            }
            CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 1);
            const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
            bool is_early = !late && i == 0;
            CHECK_EQ(request->event.status, i == 0 ? QG_METHOD_GET : QG_METHOD_POST);
            CHECK_EQ(request->event.flags, QG_FIN | (is_early ? QG_EARLY : 0));
            respond(&e.r.server, request, "200", "ok", 2, QG_FIN);
        }
        check_answer(&e.r, 1, "ok");
        check_answer(&e.r, 2, "ok");
    }
    early_close(&e);
}

/* One that was held already still costs credit. */
TEST(what_was_held_waits_for_credit_too) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.listen.credit = 1;
    start_early(&e, &o, &t);
    request(&e.r, 1, "POST", "/1", "x", 1, QG_FIN | QG_EARLY);
    request(&e.r, 2, "POST", "/2", "x", 1, QG_FIN | QG_EARLY);
    first_flight(&e);
    CHECK_EQ(e.r.server.counters.early_requests_held, 2);
    turn(&e.r);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 1);
    CHECK_EQ(answer_all(&e.r.server), 1);
    turn(&e.r);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 0);
    give_credit(&e.r.server, 1);
    turn(&e.r);
    CHECK_EQ(answer_all(&e.r.server), 1);
    CHECK_EQ(await_token(&e.r, &e.r.client, 1)->event.type, QG_EVENT_RESPONSE);
    CHECK_EQ(await_token(&e.r, &e.r.client, 2)->event.type, QG_EVENT_RESPONSE);
    early_close(&e);
}

/* As many as streams are allowed, whatever a client sends. */
TEST(what_is_held_is_bounded) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.server.initial_max_streams_bidi = 10;
    start_early(&e, &o, &t);
    for (unsigned i = 0; i < 30; i++) {
        request(&e.r, 1 + i, "POST", "/", "x", 1, QG_FIN | QG_EARLY);
    }
    first_flight(&e);
    CHECK_EQ(e.r.server.counters.early_requests_held, 10);
    CHECK_EQ(only_conn(&e.r.server)->held, 10);
    UNTIL(&e.r, (answer_all(&e.r.server), e.r.client.counters.responses_received == 30));
    CHECK_EQ(e.r.server.counters.requests_received, 30);
    early_close(&e);
}

/* ---------------------------------------------------------------- 0.5-RTT */

TEST(the_answer_leaves_before_the_handshake_is_complete) {
    early e;
    ticket t;
    tap out;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/half");
    first_flight(&e);
    CHECK_EQ(answer_all(&e.r.server), 1);
    tap_side(&e.r.server, &out);
    side_turn(&e.r.server);
    CHECK(out.packets[TAP_SHORT] > 0);
    CHECK(!only_conn(&e.r.server)->established);
    side_turn(&e.r.client);
    CHECK(take_event(&e.r.client, QG_EVENT_CONNECTED) != NULL);
    const seen *answer = take_token(&e.r.client, 1);
    CHECK(answer != NULL); /* one round trip after nothing at all */
    CHECK_TEXT(body_of(answer), answer->event.body_len, "/half");
    early_close(&e);
}

/* ---------------------------------------------------------------- a client that is not there */

static bool nothing_passes(void *arg, uint8_t *data, size_t len) {
    (void)arg, (void)data, (void)len;
    return false;
}

TEST(what_is_held_never_runs_when_its_client_vanishes) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.server.handshake_timeout_ms = 40;
    start_early(&e, &o, &t);
    request(&e.r, 1, "POST", "/", "x", 1, QG_FIN | QG_EARLY);
    first_flight(&e);
    CHECK_EQ(only_conn(&e.r.server)->held, 1);
    qg__pair_set_filter(datapath_of(&e.r.client), nothing_passes, NULL);
    UNTIL(&e.r, e.r.server.counters.connections == 0);
    CHECK(take_event(&e.r.server, QG_EVENT_REQUEST) == NULL);
    CHECK_EQ(e.r.server.counters.requests_received, 0);
    CHECK_EQ(e.r.server.counters.handshakes_failed, 1);
    early_close(&e);
}

/* Its handler, which ran, is told when it asks. */
TEST(what_was_announced_is_told_when_its_client_vanishes) {
    rig_options o;
    early e;
    ticket t;
    uint8_t body[1 << 16] = {0};
    uint64_t code;
    early_options(&o);
    o.server.handshake_timeout_ms = 40;
    start_early(&e, &o, &t);
    get_early(&e.r, 1, "/");
    first_flight(&e);
    const seen *request = take_event(&e.r.server, QG_EVENT_REQUEST);
    CHECK(request != NULL);
    qg__pair_set_filter(datapath_of(&e.r.client), nothing_passes, NULL);
    respond(&e.r.server, request, "200", NULL, 0, 0);
    int64_t n;
    do {
        n = qg_stream_write(e.r.server.engine, request->event.conn, request->event.stream, body,
                            sizeof body, 0, 77, 0, &code);
    } while (n > 0);
    CHECK_EQ(n, QG_AGAIN);
    const seen *told = await_token(&e.r, &e.r.server, 77);
    CHECK_EQ(told->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(told->event.status, -QG_CLOSED);
    CHECK_EQ(told->event.flags & QG_ESTABLISHED, 0);
    early_close(&e);
}

/* ---------------------------------------------------------------- replays */

/* A worker of its own for each, as on a large site: they share keys and register. */
static void replay_to_a_worker(const early *e, const tap *flight, uint64_t *announced,
                               uint64_t *held) {
    side worker;
    qg_engine_options o;
    rig_options options;
    qg_addr from = e->r.client_addr, nowhere;
    int ends[2];
    qg_engine_defaults(&o);
    o.events = 64;
    o.submissions = 16;
    early_options(&options);
    side_open(&worker, &o);
    qg_addr_parse(&nowhere, "192.0.2.3", 1);
    CHECK_EQ(qg_endpoint_pair(worker.engine, &e->r.server_addr, worker.engine, &nowhere, ends),
             QG_OK);
    worker.endpoint = ends[0];
    CHECK_EQ(qg_listen(worker.engine, ends[0], &options.listen, e->r.server_config), QG_OK);
    for (unsigned i = 0; i < flight->datagrams; i++) {
        uint8_t copy[1500];
        memcpy(copy, flight->kept[i].bytes, flight->kept[i].len);
        CHECK_EQ(qg_engine_inject(worker.engine, ends[0], copy, flight->kept[i].len, &from,
                                  &e->r.server_addr),
                 QG_OK);
    }
    side_turn(&worker);
    *announced += worker.counters.requests_received;
    *held += worker.counters.early_requests_held;
    CHECK_EQ(worker.counters.connections, 1);
    side_close(&worker);
}

static void record_flight(early *e, ticket *t, tap *flight, const char *method) {
    early_open(e, NULL);
    earn_ticket(&e->r, t);
    dial_with(&e->r, t, true);
    send_early(&e->r, 1, method, "", true);
    tap_side(&e->r.client, flight);
    flight->cut = true; /* the true client's is delayed: the replays come first */
    side_turn(&e->r.client);
    CHECK(flight->packets[TAP_ZERO_RTT] > 0);
    CHECK(flight->datagrams <= TAP_KEPT);
}

TEST(a_flight_that_is_sent_a_thousand_times_runs_once) {
    early e;
    ticket t;
    tap flight;
    qg_replay_counts counts;
    uint64_t announced = 0, held = 0;
    record_flight(&e, &t, &flight, "GET");
    for (unsigned i = 0; i < 1000; i++) {
        replay_to_a_worker(&e, &flight, &announced, &held);
    }
    CHECK_EQ(announced, 1);
    qg_replay_counts_of(e.replay, &counts);
    CHECK_EQ(counts.first, 1);
    CHECK_EQ(counts.repeated, 999);
    CHECK_EQ(counts.full + counts.quiet, 0);
    early_close(&e);
}

/* Even the first is not announced: nobody proved to be there. */
TEST(a_post_that_is_replayed_never_runs) {
    early e;
    ticket t;
    tap flight;
    uint64_t announced = 0, held = 0;
    record_flight(&e, &t, &flight, "POST");
    for (unsigned i = 0; i < 20; i++) {
        replay_to_a_worker(&e, &flight, &announced, &held);
    }
    CHECK_EQ(announced, 0);
    CHECK_EQ(held, 1);
    early_close(&e);
}

/* The same packets once more to the server that has the connection are duplicates, as always. */
TEST(a_flight_that_comes_twice_to_its_server) {
    early e;
    ticket t;
    tap flight;
    qg_replay_counts counts;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/1");
    tap_side(&e.r.client, &flight);
    side_turn(&e.r.client);
    for (unsigned i = 0; i < flight.datagrams; i++) {
        CHECK_EQ(qg_engine_inject(e.r.server.engine, e.r.server.endpoint, flight.kept[i].bytes,
                                  flight.kept[i].len, &e.r.client_addr, &e.r.server_addr),
                 QG_OK);
    }
    check_answer(&e.r, 1, "/1");
    CHECK_EQ(e.r.server.counters.requests_received, 1);
    qg_replay_counts_of(e.replay, &counts);
    CHECK_EQ(counts.first, 1);
    CHECK_EQ(counts.repeated, 0);
    early_close(&e);
}

/* ---------------------------------------------------------------- raw streams */

/* Nobody can tell what is safe there: bytes that came early are read after the handshake. */
TEST(a_raw_server_opens_nothing_early) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    start_early(&e, &o, &t);
    rig_close(&e.r);
    o.server.raw = 1; /* the client says HTTP/3 all the same */
    o.listen.flags = QG_LISTEN_SESSIONS;
    o.tickets = e.keys;
    o.replay = e.replay;
    rig_open(&e.r, &o);
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/");
    first_flight(&e);
    CHECK(take_event(&e.r.server, QG_EVENT_STREAM_OPENED) == NULL);
    CHECK_EQ(e.r.server.counters.streams, 0);
    size_t before = e.r.server.count;
    side_turn(&e.r.client);
    side_turn(&e.r.server);
    CHECK(e.r.server.count > before);
    CHECK_EQ(e.r.server.events[before]->event.type, QG_EVENT_ACCEPTED);
    CHECK(take_event(&e.r.server, QG_EVENT_STREAM_OPENED) != NULL);
    early_close(&e);
}

/* ---------------------------------------------------------------- life goes on */

/* A handler that takes longer than the idle timeout, begun in early data. */
TEST(keep_alive_of_a_request_that_came_early) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.server.max_idle_ms = o.client.max_idle_ms = 150;
    start_early(&e, &o, &t);
    get_early(&e.r, 1, "/slow");
    first_flight(&e);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 1);
    pass_ms(&e.r, 400);
    CHECK(e.r.server.counters.keep_alives_sent + e.r.client.counters.keep_alives_sent > 0);
    check_answer(&e.r, 1, "/slow");
    early_close(&e);
}

TEST(a_listener_that_stops_while_early) {
    early e;
    ticket t;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/1");
    request(&e.r, 2, "POST", "/2", "x", 1, QG_FIN | QG_EARLY);
    first_flight(&e);
    CHECK_EQ(qg_listen_stop(e.r.server.engine, e.r.server.endpoint, 0), QG_OK);
    check_answer(&e.r, 1, "/1");
    check_answer(&e.r, 2, "/2");
    CHECK(await_event(&e.r, &e.r.client, QG_EVENT_GOAWAY) != NULL);
    await_closed(&e.r, &e.r.client, H3_NO_ERROR, QG_APP | QG_REMOTE | QG_ESTABLISHED);
    await_event(&e.r, &e.r.server, QG_EVENT_IDLE);
    CHECK_EQ(e.r.server.counters.requests_received, 2);
    early_close(&e);
}

TEST(a_listener_that_closes_while_early) {
    early e;
    ticket t;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/1");
    request(&e.r, 2, "POST", "/2", "x", 1, QG_FIN | QG_EARLY);
    first_flight(&e);
    CHECK_EQ(count_events(&e.r.server, QG_EVENT_REQUEST), 1);
    CHECK_EQ(qg_listen_close(e.r.server.engine, e.r.server.endpoint, H3_NO_ERROR), QG_OK);
    const seen *closed = await_event(&e.r, &e.r.client, QG_EVENT_CLOSED);
    CHECK(closed->event.flags & QG_REMOTE);
    for (uint64_t token = 1; token <= 2; token++) {
        const seen *told = await_token(&e.r, &e.r.client, token);
        CHECK_EQ(told->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(told->event.flags & QG_MORE, 0); /* both were sent */
    }
    CHECK_EQ(e.r.server.counters.requests_received, 1); /* the POST never ran */
    early_close(&e);
}
