#include "harness.h"

static bool drop_all(void *arg, uint8_t *data, size_t len) {
    (void)arg, (void)data, (void)len;
    return false;
}

TEST(a_handshake) {
    rig r;
    qg_conn_info info;
    rig_open(&r, NULL);
    r.conn = rig_dial(&r);
    CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &info), QG_OK);
    CHECK(!info.is_established && !info.is_server);
    const seen *e = await_event(&r, &r.client, QG_EVENT_CONNECTED);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK_EQ(e->event.conn, r.conn);
    CHECK_TEXT(head_of(e), e->event.head_len, "h3");
    e = await_event(&r, &r.server, QG_EVENT_ACCEPTED);
    CHECK_EQ(e->event.token, LISTEN_TOKEN);
    CHECK_TEXT(head_of(e), e->event.head_len, "h3");
    turn(&r);
    CHECK_EQ(r.client.untaken + count_events(&r.client, QG_EVENT_CONNECTED), 0);
    CHECK_EQ(r.client.counters.handshakes_completed, 1);
    CHECK_EQ(r.server.counters.handshakes_completed, 1);
    CHECK_EQ(r.client.counters.connections_opened, 1);
    CHECK_EQ(r.server.counters.connections_accepted, 1);
    CHECK_EQ(r.server.engine->endpoints[r.server.endpoint]->half_open, 0);
    rig_close(&r);
}

TEST(what_is_known_of_a_connection) {
    rig r;
    qg_conn_info client, server;
    qg_conn_stats stats;
    rig_start(&r, NULL);
    exchange(&r, 1);
    CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &client), QG_OK);
    CHECK_EQ(qg_conn_info_of(r.server.engine, r.server_conn, &server), QG_OK);
    CHECK(client.is_established && server.is_established);
    CHECK(server.is_server && !client.is_server && !client.is_raw && !client.is_resumed);
    CHECK_TEXT(client.alpn, client.alpn_len, "h3");
    CHECK_TEXT(server.server_name, server.server_name_len, "a.test");
    CHECK(qg__addr_equal(&client.peer, &r.server_addr));
    CHECK(qg__addr_equal(&server.peer, &r.client_addr));
    CHECK(qg__addr_equal(&server.local, &r.server_addr));
    CHECK(client.max_datagram >= 1200 && client.max_datagram <= 1452);
    CHECK_EQ(client.streams_left, 99);
    CHECK_EQ(qg_conn_stats_of(r.client.engine, r.conn, &stats), QG_OK);
    CHECK(stats.sent > 0 && stats.recv > 0 && stats.rtt > 0 && stats.cwnd > 0);
    CHECK_EQ(stats.lost, 0);
    CHECK_EQ(stats.paths_count, 1);
    rig_close(&r);
}

TEST(arguments_of_connect) {
    rig r;
    uint64_t conn;
    qg_addr none = {0};
    rig_open(&r, NULL);
    qg_engine *e = r.client.engine;
    qg_addr *to = &r.server_addr;
    int ep = r.client.endpoint;
    CHECK_EQ(qg_connect(e, ep, to, r.client_config, "a", 0, 0, &conn), QG_INVALID);
    CHECK_EQ(qg_connect(e, ep, &none, r.client_config, "a", 1, 0, &conn), QG_INVALID);
    CHECK_EQ(qg_connect(e, ep, to, r.server_config, "a", 1, 0, &conn), QG_INVALID);
    CHECK_EQ(qg_connect(e, 7, to, r.client_config, "a", 1, 0, &conn), QG_GONE);
    CHECK_EQ(qg_connect(e, ep, to, r.client_config, "", 1, 0, &conn), QG_INVALID);
    CHECK_EQ(qg_connect(e, ep, to, r.client_config, NULL, 1, 0, &conn), QG_OK);
    CHECK_EQ(r.client.counters.connections, 1);
    CHECK_EQ(r.client.engine->cids.count, 1);
    rig_close(&r);
}

TEST(an_engine_has_room_for_so_many_connections) {
    rig_options o;
    rig r;
    uint64_t conn;
    rig_defaults(&o);
    o.client_engine.max_connections = 3;
    rig_open(&r, &o);
    for (uint64_t i = 0; i < 5; i++) {
        CHECK_EQ(qg_connect(r.client.engine, r.client.endpoint, &r.server_addr, r.client_config,
                            "a", 1 + i, 0, &conn),
                 i < 3 ? QG_OK : QG_LIMIT);
    }
    rig_close(&r);
}

/* ---------------------------------------------------------------- ids */

TEST(a_slot_is_used_again_a_generation_never) {
    rig r;
    qg_conn_info info;
    rig_start(&r, NULL);
    uint64_t old = r.conn;
    CHECK_EQ(qg_conn_close(r.client.engine, old, 1, 0x100, NULL, 0), QG_OK);
    UNTIL(&r, r.client.engine->cids.count == 0);
    CHECK_EQ(qg_conn_info_of(r.client.engine, old, &info), QG_GONE);
    take_event(&r.client, QG_EVENT_CLOSED);
    rig_connect(&r);
    CHECK_EQ((uint32_t)r.conn, (uint32_t)old);
    CHECK((r.conn >> 32) > (old >> 32));
    CHECK_EQ(qg_conn_info_of(r.client.engine, old, &info), QG_GONE);
    exchange(&r, 1);
    rig_close(&r);
}

/* Every call that takes an id, with one that names nothing. */
static void check_gone(qg_engine *e, uint64_t conn) {
    uint8_t byte = 0;
    uint32_t flags;
    uint64_t code, stream;
    qg_conn_info info;
    qg_conn_stats stats;
    CHECK_EQ(qg_conn_info_of(e, conn, &info), QG_GONE);
    CHECK_EQ(qg_conn_stats_of(e, conn, &stats), QG_GONE);
    CHECK_EQ(qg_conn_peer_cert(e, conn, &byte, 1), QG_GONE);
    CHECK_EQ(qg_conn_close(e, conn, 1, 0, NULL, 0), QG_GONE);
    CHECK_EQ(qg_conn_finish(e, conn, 1), QG_GONE);
    CHECK_EQ(qg_stream_open(e, conn, 1, 1, 0, &stream), QG_GONE);
    CHECK_EQ(qg_stream_request(e, conn, &byte, 1, 0, 1, 0, &stream), QG_GONE);
    CHECK_EQ(qg_stream_read(e, conn, 0, &byte, 1, 1, 0, &flags, &code), QG_GONE);
    CHECK_EQ(qg_stream_write(e, conn, 0, &byte, 1, 0, 1, 0, &code), QG_GONE);
    CHECK_EQ(qg_stream_send_trailers(e, conn, 0, &byte, 1), QG_GONE);
    CHECK_EQ(qg_stream_trailers(e, conn, 0, &byte, 1), QG_GONE);
    CHECK_EQ(qg_stream_await_response(e, conn, 0, 1, 0), QG_GONE);
    CHECK_EQ(qg_stream_unwait(e, conn, 0, 1), QG_GONE);
    CHECK_EQ(qg_stream_shutdown(e, conn, 0, QG_SIDE_READ, 0), QG_GONE);
    CHECK_EQ(qg_stream_release(e, conn, 0), QG_GONE);
}

TEST(ids_that_name_nothing) {
    rig r;
    rig_start(&r, NULL);
    check_gone(r.client.engine, 0);
    check_gone(r.client.engine, UINT64_MAX);
    check_gone(r.client.engine, r.conn + 1);
    check_gone(r.client.engine, r.conn + (UINT64_C(1) << 32));
    check_gone(r.client.engine, r.conn - (UINT64_C(1) << 32));
    exchange(&r, 1);
    rig_close(&r);
}

/* ---------------------------------------------------------------- time */

TEST(a_handshake_takes_only_so_long) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.handshake_timeout_ms = 40;
    rig_open(&r, &o);
    qg__pair_set_filter(datapath_of(&r.server), drop_all, NULL);
    r.conn = rig_dial(&r);
    uint64_t begin = qg__now_ns();
    const seen *e = await_closed(&r, &r.client, 0, QG_TIMED_OUT);
    CHECK(qg__now_ns() - begin >= 30 * QG_NS_PER_MS);
    CHECK_TEXT(head_of(e), e->event.head_len, "the handshake took too long");
    CHECK_EQ(r.client.counters.handshakes_failed, 1);
    CHECK_EQ(r.client.counters.connections, 0);
    rig_close(&r);
}

TEST(connects_own_timeout_comes_before_the_configurations) {
    rig r;
    uint64_t conn;
    rig_open(&r, NULL);
    qg__pair_set_filter(datapath_of(&r.server), drop_all, NULL);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(qg_connect(r.client.engine, r.client.endpoint, &r.server_addr, r.client_config, "a",
                        CONN_TOKEN, 30000, &conn),
             QG_OK);
    await_closed(&r, &r.client, 0, QG_TIMED_OUT);
    CHECK(qg__now_ns() - begin < 2 * QG_NS_PER_S);
    rig_close(&r);
}

/* The most that can be asked for is not the least. */
TEST(a_timeout_without_end) {
    rig r;
    uint64_t conn;
    rig_open(&r, NULL);
    qg__pair_set_filter(datapath_of(&r.server), drop_all, NULL);
    CHECK_EQ(qg_connect(r.client.engine, r.client.endpoint, &r.server_addr, r.client_config, "a",
                        CONN_TOKEN, UINT64_MAX, &conn),
             QG_OK);
    pass_ms(&r, 5);
    CHECK(take_event(&r.client, QG_EVENT_CLOSED) == NULL);
    rig_close(&r);
}

TEST(a_servers_half_open_connections_go_by_themselves) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.server.handshake_timeout_ms = 40;
    rig_open(&r, &o);
    qg__pair_set_filter(datapath_of(&r.server), drop_all, NULL);
    rig_dial(&r);
    UNTIL(&r, r.server.counters.connections == 1);
    CHECK_EQ(r.server.engine->endpoints[r.server.endpoint]->half_open, 1);
    qg__pair_set_filter(datapath_of(&r.client), drop_all, NULL); /* no second attempt */
    UNTIL(&r, r.server.counters.connections == 0);
    CHECK_EQ(r.server.engine->endpoints[r.server.endpoint]->half_open, 0);
    CHECK_EQ(r.server.engine->initial_cids.count, 0);
    CHECK_EQ(r.server.counters.handshakes_failed, 1);
    CHECK_EQ(r.server.count, 0); /* nobody was told of it, so nobody is told of its end */
    rig_close(&r);
}

TEST(an_idle_connection_ends_and_a_busy_one_is_kept_alive) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.max_idle_ms = 80;
    rig_start(&r, &o);
    request(&r, 1, "GET", "/slow", NULL, 0, QG_FIN);
    pass_ms(&r, 300);
    CHECK(take_event(&r.client, QG_EVENT_CLOSED) == NULL);
    CHECK(r.client.counters.keep_alives_sent >= 3);
    CHECK_EQ(answer_all(&r.server), 1);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.type, QG_EVENT_RESPONSE);
    await_closed(&r, &r.client, 0, QG_TIMED_OUT | QG_ESTABLISHED);
    UNTIL(&r, r.server.counters.connections == 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- paths */

typedef struct nat {
    rig *r;
    qg_addr outside;
} nat;

/* The client's packets reach the server from another address. */
static bool translate(void *arg, uint8_t *data, size_t len) {
    nat *n = arg;
    uint8_t copy[1500];
    CHECK(len <= sizeof copy);
    memcpy(copy, data, len);
    qg_engine_inject(n->r->server.engine, n->r->server.endpoint, copy, len, &n->outside,
                     &n->r->server_addr);
    return false;
}

/* RFC 9000, section 9: a NAT gave the client another port. */
TEST(a_connection_follows_its_client) {
    rig r;
    qg_conn_info info;
    rig_start(&r, NULL);
    exchange(&r, 1);
    nat n = {.r = &r};
    qg_addr_parse(&n.outside, "192.0.2.1", 50000);
    qg__pair_set_filter(datapath_of(&r.client), translate, &n);
    exchange(&r, 2);
    UNTIL(&r, (qg_conn_info_of(r.server.engine, r.server_conn, &info),
               qg__addr_equal(&info.peer, &n.outside)));
    exchange(&r, 3);
    rig_close(&r);
}

TEST(the_server_issues_a_spare_id) {
    rig r;
    rig_start(&r, NULL);
    turn(&r);
    CHECK_EQ(r.server.engine->cids.count, 2);
    CHECK_EQ(conn_at(&r.server, r.server_conn)->cid_count, 2);
    CHECK_EQ(r.client.engine->cids.count, 1);
    rig_close(&r);
}

TEST(loss_is_made_good) {
    rig r;
    rig_start(&r, NULL);
    exchange(&r, 1);
    lossy up = {.random = 1, .percent = 20}, down = {.random = 2, .percent = 20};
    make_lossy(&r.client, &up);
    make_lossy(&r.server, &down);
    for (uint64_t i = 0; i < 20; i++) {
        exchange(&r, 10 + i);
    }
    CHECK(up.dropped > 0 && down.dropped > 0);
    rig_close(&r);
}

TEST(a_handshake_survives_loss) {
    for (uint64_t seed = 1; seed <= 3; seed++) {
        rig r;
        lossy up = {.random = seed, .percent = 10}, down = {.random = seed + 100, .percent = 10};
        check_note("seed %d", (int)seed);
        rig_open(&r, NULL);
        make_lossy(&r.client, &up);
        make_lossy(&r.server, &down);
        rig_connect(&r);
        exchange(&r, 1);
        rig_close(&r);
    }
}
