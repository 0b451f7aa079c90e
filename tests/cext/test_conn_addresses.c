/* A client's address changes, as behind a NAT that forgets, and the connection goes on. */
#include "harness.h"

/* More than there is room for paths in quiche. */
#define CHANGES 150

static void move(rig *r, uint16_t port) {
    qg_addr outside;
    qg_addr_parse(&outside, "192.0.2.7", port);
    qg__pair_rebind(datapath_of(&r->client), &outside);
}

static bool is_at(rig *r, uint16_t port) {
    qg_addr outside;
    qg_addr_parse(&outside, "192.0.2.7", port);
    return qg__addr_equal(&conn_at(&r->server, r->server_conn)->peer, &outside);
}

static bool drop_all(void *arg, uint8_t *data, size_t len) {
    (void)arg, (void)data, (void)len;
    return false;
}

/* What the server sends arrives nowhere, or does again. */
static void mute(rig *r, bool on) {
    qg__pair_set_filter(datapath_of(&r->server), on ? drop_all : NULL, NULL);
}

TEST(a_connection_follows_any_number_of_changes) {
    rig r;
    rig_start(&r, NULL);
    for (uint16_t i = 1; i <= CHANGES; i++) {
        move(&r, i);
        exchange(&r, i);
        UNTIL(&r, is_at(&r, i));
    }
    CHECK_EQ(r.server.counters.connections, 1);
    rig_close(&r);
}

TEST(one_that_comes_back_is_known) {
    rig r;
    rig_start(&r, NULL);
    for (uint16_t i = 1; i <= 40; i++) {
        move(&r, 1 + i % 2);
        exchange(&r, i);
        UNTIL(&r, is_at(&r, 1 + i % 2));
    }
    rig_close(&r);
}

/* None of the paths between is ever validated. */
TEST(changes_that_are_faster_than_validation) {
    rig r;
    rig_start(&r, NULL);
    mute(&r, true);
    for (uint16_t i = 1; i <= CHANGES; i++) {
        move(&r, i);
        request(&r, i, "GET", "/hello", NULL, 0, QG_FIN);
        turn(&r);
    }
    mute(&r, false);
    for (uint16_t i = 1; i <= CHANGES; i++) {
        const seen *answer;
        UNTIL(&r, (answer_all(&r.server), (answer = take_token(&r.client, i)) != NULL));
        CHECK_EQ(answer->event.status, 200);
    }
    UNTIL(&r, is_at(&r, CHANGES));
    rig_close(&r);
}

/* A window full of packets, none of which is missed by the acknowledgement of a later one. */
TEST(what_was_under_way_to_an_address_that_is_no_more) {
    rig_options o;
    rig r;
    rig_raw_server(&o);
    o.client.raw = 1;
    o.client_alpn = o.server_alpn = ALPN_RAW;
    rig_start(&r, &o);
    uint64_t stream = UINT64_MAX;
    CHECK_EQ(qg_stream_open(r.server.engine, r.server_conn, 0, 0, 0, &stream), QG_OK);
    flow f = {.from = &r.server,
              .to = &r.client,
              .from_conn = r.server_conn,
              .to_conn = r.conn,
              .stream = stream,
              .size = 2000000,
              .piece = 100000,
              .token = 50};
    UNTIL(&r, (flow_step(&r, &f), f.got > 300000));
    for (uint16_t i = 1; i <= 3; i++) {
        mute(&r, true);
        flow_step(&r, &f);
        pass_ms(&r, 20);
        uint64_t got = f.got;
        move(&r, i);
        mute(&r, false);
        raw_send(&r.client, r.conn, false, "here", 4, true);
        UNTIL(&r, (flow_step(&r, &f), f.got >= got + 300000));
    }
    flow_all(&r, &f);
    rig_close(&r);
}

/* quiche goes back to the address before, where nobody is. */
TEST(a_validation_that_fails) {
    rig r;
    rig_start(&r, NULL);
    exchange(&r, 1);
    move(&r, 1);
    mute(&r, true);
    for (unsigned i = 0; i < 30; i++) { /* the client's probes get through */
        request(&r, 100 + i, "GET", "/hello", NULL, 0, QG_FIN);
        pass_ms(&r, 120);
    }
    mute(&r, false);
    for (unsigned i = 0; i < 5; i++) { /* several in one receive */
        request(&r, 200 + i, "GET", "/hello", NULL, 0, QG_FIN);
    }
    exchange(&r, 300);
    UNTIL(&r, is_at(&r, 1));
    exchange(&r, 301);
    rig_close(&r);
}

/* Its server sends to where it was, until somebody who only waits has become impatient. */
TEST(a_client_that_only_waits_speaks_after_a_while) {
    rig r;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/slow", NULL, 0, QG_FIN);
    UNTIL(&r, count_events(&r.server, QG_EVENT_REQUEST) == 1);
    pass_ms(&r, 50);
    move(&r, 1);
    CHECK_EQ(answer_all(&r.server), 1);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.status, 200);
    CHECK(r.client.counters.keep_alives_sent >= 1);
    rig_close(&r);
}

/* ---------------------------------------------------------------- the new path's MTU */

static bool drop_large(void *arg, uint8_t *data, size_t len) {
    (void)arg, (void)data;
    return len <= 1400; /* less than what is tried first, as in a tunnel */
}

static void in_a_tunnel(rig *r) {
    qg__pair_set_filter(datapath_of(&r->server), drop_large, NULL);
    qg__pair_set_filter(datapath_of(&r->client), drop_large, NULL);
}

TEST(a_path_that_takes_no_full_packets) {
    static uint8_t body[30000];
    rig r;
    rig_open(&r, NULL);
    in_a_tunnel(&r);
    rig_connect(&r);
    exchange(&r, 1);
    for (uint16_t i = 1; i <= 3; i++) {
        move(&r, i);
        exchange(&r, 10 + i);
        UNTIL(&r, is_at(&r, i)); /* the challenge fitted */
        const seen *asked, *answer;
        request(&r, 20 + i, "GET", "/large", NULL, 0, QG_FIN);
        UNTIL(&r, (asked = take_event(&r.server, QG_EVENT_REQUEST)) != NULL);
        respond(&r.server, asked, "200", body, sizeof body, QG_FIN);
        UNTIL(&r, (answer = take_token(&r.client, 20 + i)) != NULL);
        CHECK_EQ(answer->event.status, 200);
    }
    rig_close(&r);
}
