#include "harness.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>

#include "wire.h"

static void check_round(const char *text, uint16_t port, const char *shown, uint32_t len) {
    qg_addr addr;
    char ip[64];
    check_note("%s", text);
    CHECK_EQ(qg_addr_parse(&addr, text, port), QG_OK);
    CHECK_EQ(addr.len, len);
    CHECK_EQ(qg_addr_format(&addr, ip, sizeof ip), port);
    CHECK_TEXT(ip, strlen(ip), shown);
}

TEST(addresses_come_back) {
    check_round("127.0.0.1", 443, "127.0.0.1", 16);
    check_round("0.0.0.0", 0, "0.0.0.0", 16);
    check_round("255.255.255.255", 65535, "255.255.255.255", 16);
    check_round("::1", 443, "::1", 28);
    check_round("2001:DB8:0:0::1", 1, "2001:db8::1", 28);
    check_round("::ffff:192.0.2.1", 1, "::ffff:192.0.2.1", 28);
}

TEST(what_is_no_address) {
    static const char *const bad[] = {"",
                                      "a.test",
                                      "127.0.0",
                                      "127.0.0.256",
                                      "127.0.0.1 ",
                                      "1:2",
                                      "[::1]",
                                      ":::",
                                      "fe80::1%nosuchdevice",
                                      "127.0.0.1%lo",
                                      "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:"
                                      "dddd:eeee:ffff"};
    qg_addr addr;
    char ip[64];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_note("%s", bad[i]);
        CHECK_EQ(qg_addr_parse(&addr, bad[i], 1), QG_INVALID);
    }
    addr = (qg_addr){0};
    CHECK_EQ(qg_addr_format(&addr, ip, sizeof ip), QG_INVALID);
    qg_addr_parse(&addr, "127.0.0.1", 1);
    CHECK_EQ(qg_addr_format(&addr, ip, 10), QG_INVALID);
}

TEST(a_zone_is_an_interface) {
    struct if_nameindex *all = if_nameindex();
    qg_addr with, without;
    char text[100];
    if (all == NULL || all[0].if_index == 0) {
        if_freenameindex(all);
        return;
    }
    snprintf(text, sizeof text, "fe80::1%%%s", all[0].if_name);
    if_freenameindex(all);
    CHECK_EQ(qg_addr_parse(&with, text, 1), QG_OK);
    CHECK_EQ(qg_addr_parse(&without, "fe80::1", 1), QG_OK);
    CHECK(!qg__addr_equal(&with, &without));
}

static void open_engine(side *s) {
    qg_engine_options o;
    qg_engine_defaults(&o);
    side_open(s, &o);
}

TEST(numbers_are_given_again) {
    side s;
    qg_addr any;
    qg_endpoint_info info;
    qg_addr_parse(&any, "127.0.0.1", 0);
    open_engine(&s);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(qg_endpoint_udp(s.engine, &any, 0, -1), i);
    }
    CHECK_EQ(qg_endpoint_close(s.engine, 1), QG_OK);
    CHECK_EQ(qg_endpoint_close(s.engine, 1), QG_GONE);
    CHECK_EQ(qg_endpoint_info_of(s.engine, 1, &info), QG_GONE);
    CHECK_EQ(qg_endpoint_info_of(s.engine, -1, &info), QG_GONE);
    CHECK_EQ(qg_endpoint_info_of(s.engine, 3, &info), QG_GONE);
    CHECK_EQ(qg_endpoint_udp(s.engine, &any, 0, -1), 1);
    side_turn(&s);
    side_close(&s);
}

TEST(what_is_known_of_an_endpoint) {
    side s;
    qg_addr any;
    qg_endpoint_info info;
    char ip[64];
    qg_addr_parse(&any, "127.0.0.1", 0);
    open_engine(&s);
    int ep = qg_endpoint_udp(s.engine, &any, 0, -1);
    CHECK_EQ(qg_endpoint_info_of(s.engine, ep, &info), QG_OK);
    CHECK(qg_addr_format(&info.local, ip, sizeof ip) > 0);
    CHECK_TEXT(ip, strlen(ip), "127.0.0.1");
    CHECK(info.fd >= 0);
    CHECK(info.receive_buffer > 0 && info.send_buffer > 0);
    CHECK_EQ(info.connections, 0);
    CHECK(info.capabilities & QG_CAP_RECVERR);
    side_close(&s);
}

TEST(an_address_in_use_is_an_error_of_the_system) {
    side s;
    qg_addr any;
    qg_endpoint_info info;
    qg_addr_parse(&any, "127.0.0.1", 0);
    open_engine(&s);
    int ep = qg_endpoint_udp(s.engine, &any, 0, -1);
    qg_endpoint_info_of(s.engine, ep, &info);
    CHECK_EQ(qg_endpoint_udp(s.engine, &info.local, 0, -1), QG_SYSTEM);
    CHECK_EQ(errno, EADDRINUSE);
    side_close(&s);
}

TEST(an_endpoint_in_use_is_not_closed) {
    rig r;
    qg_endpoint_info info;
    rig_start(&r, NULL);
    CHECK_EQ(qg_endpoint_close(r.client.engine, r.client.endpoint), QG_STATE);
    CHECK_EQ(qg_endpoint_close(r.server.engine, r.server.endpoint), QG_STATE);
    qg_endpoint_info_of(r.server.engine, r.server.endpoint, &info);
    CHECK_EQ(info.connections, 1);
    CHECK_EQ(info.fd, datapath_of(&r.server)->fd);
    CHECK_EQ(qg_conn_close(r.client.engine, r.conn, 1, 0x100, NULL, 0), QG_OK);
    turn(&r); /* over, and kept for late packets */
    CHECK_EQ(qg_endpoint_close(r.client.engine, r.client.endpoint), QG_OK);
    UNTIL(&r, r.server.counters.connections == 0);
    CHECK_EQ(qg_endpoint_close(r.server.engine, r.server.endpoint), QG_OK);
    rig_close(&r);
}

/* ---------------------------------------------------------------- listening */

TEST(arguments_of_listen) {
    rig r;
    qg_listen_options o = {.abi = QG_ABI, .max_connections = 1, .token = 1};
    rig_open(&r, NULL);
    qg_engine *e = r.server.engine;
    CHECK_EQ(qg_listen(e, r.server.endpoint, &o, r.server_config), QG_STATE); /* it does already */
    CHECK_EQ(qg_listen(e, 9, &o, r.server_config), QG_GONE);
    CHECK_EQ(qg_listen_stop(e, 9, 0), QG_GONE);
    CHECK_EQ(qg_listen_close(e, 9, 0), QG_GONE);
    e = r.client.engine;
    CHECK_EQ(qg_listen(e, r.client.endpoint, &o, r.client_config), QG_INVALID);
    CHECK_EQ(qg_listen_stop(e, r.client.endpoint, 0), QG_STATE);
    o.token = 0;
    CHECK_EQ(qg_listen(e, r.client.endpoint, &o, r.server_config), QG_INVALID);
    o.token = 1;
    o.abi = QG_ABI + 1;
    CHECK_EQ(qg_listen(e, r.client.endpoint, &o, r.server_config), QG_INVALID);
    side_turn(&r.client);
    CHECK_EQ(r.client.count, 0);
    rig_close(&r);
}

TEST(a_listener_holds_its_configuration) {
    rig r;
    rig_open(&r, NULL);
    CHECK_EQ(r.server_config->references, 2);
    CHECK_EQ(qg_endpoint_close(r.server.engine, r.server.endpoint), QG_OK);
    CHECK_EQ(r.server_config->references, 1);
    rig_close(&r);
}

TEST(a_stopped_listener_without_connections_is_idle) {
    rig r;
    rig_open(&r, NULL);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_IDLE)->event.token, LISTEN_TOKEN);
    turn(&r);
    CHECK(take_event(&r.server, QG_EVENT_IDLE) == NULL);
    rig_close(&r);
}

TEST(listen_close_ends_all_connections) {
    rig r;
    rig_start(&r, NULL);
    CHECK_EQ(qg_listen_close(r.server.engine, r.server.endpoint, 0x105), QG_OK);
    await_closed(&r, &r.client, 0x105, QG_REMOTE | QG_APP | QG_ESTABLISHED);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_IDLE)->event.token, LISTEN_TOKEN);
    CHECK_EQ(r.server.counters.connections, 0);
    rig_close(&r);
}

/* Integers of QUIC are below 2^62 (RFC 9000, section 16). */
TEST(listen_close_with_a_code_that_cannot_be_sent) {
    rig r;
    rig_start(&r, NULL);
    CHECK_EQ(qg_listen_close(r.server.engine, r.server.endpoint, UINT64_C(1) << 62), QG_INVALID);
    exchange(&r, 1);
    rig_close(&r);
}

/* ---------------------------------------------------------------- a client's own sockets */

TEST(connections_are_spread_over_the_engines_sockets) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.udp = true;
    rig_open(&r, &o);
    for (unsigned i = 0; i < 2 * QG_CLIENT_SOCKETS; i++) {
        uint64_t conn;
        CHECK_EQ(qg_connect(r.client.engine, QG_ENDPOINT_AUTO, &r.server_addr, r.client_config,
                            "a.test", 100 + i, 0, &conn),
                 QG_OK);
    }
    CHECK_EQ(r.client.engine->endpoint_count, 1 + QG_CLIENT_SOCKETS);
    for (unsigned i = 0; i < 2 * QG_CLIENT_SOCKETS; i++) {
        qg_conn_info info;
        const seen *e = await_token(&r, &r.client, 100 + i);
        CHECK_EQ(e->event.type, QG_EVENT_CONNECTED);
        CHECK_EQ(qg_conn_info_of(r.client.engine, e->event.conn, &info), QG_OK);
        CHECK_EQ(info.endpoint, 1 + i % QG_CLIENT_SOCKETS);
    }
    CHECK_EQ(count_events(&r.server, QG_EVENT_ACCEPTED), 2 * QG_CLIENT_SOCKETS);
    rig_close(&r);
}

/* ---------------------------------------------------------------- AF_XDP */

static void check_refused(side *s, int endpoint, const char *interface, int result,
                          const char *words) {
    char reason[200] = "";
    int rc = qg_endpoint_xdp(s->engine, endpoint, interface, reason, sizeof reason);
    check_note("%d: %s", rc, reason);
    CHECK_EQ(rc, result);
    CHECK(strstr(reason, words) != NULL);
}

/* The socket is as it was, traced or not. */
TEST(no_xdp_leaves_an_endpoint_alone) {
    side s;
    qg_addr any;
    char reason[200];
    qg_addr_parse(&any, "127.0.0.1", 0);
    open_engine(&s);
    int ep = qg_endpoint_udp(s.engine, &any, 0, -1), ends[2];
    check_refused(&s, ep, "nowhere0", QG_INVALID, "no such interface");
    check_refused(&s, 7, "nowhere0", QG_GONE, "");
    CHECK_EQ(qg_endpoint_client_xdp(s.engine, "nowhere0", reason, sizeof reason), QG_INVALID);
    CHECK_EQ(s.engine->endpoint_count, 2);
    CHECK(s.engine->endpoints[1] == NULL);
    CHECK_EQ(qg_endpoint_pair(s.engine, &any, s.engine, &any, ends), QG_OK);
    check_refused(&s, ends[0], "nowhere0", QG_INVALID, "no UDP socket");
    side_turn(&s);
    side_close(&s);
}

TEST(workers_share_by_udp) {
    qg_group_options go;
    rig_options o;
    rig r;
    char problem[256];
    uint32_t generation;
    int rc;
    qg_group_defaults(&go);
    go.slots = 2;
    go.connections = 16;
    qg_group *group = qg_group_new(&go, &rc, problem, sizeof problem);
    CHECK(group != NULL);
    CHECK_EQ(qg_group_claim(group, 0, (uint32_t)getpid(), &generation), 0);
    rig_defaults(&o);
    o.udp = true;
    o.server_engine.group = group;
    o.server_engine.generation = (uint8_t)generation;
    rig_open(&r, &o);
    check_refused(&r.server, r.server.endpoint, "lo", QG_STATE, "workers share their port");
    rig_close(&r);
    qg_group_free(group);
}

/* One client socket for both families; a peer of IPv4's has a mapped address there. */
TEST(a_client_socket_by_xdp) {
    side s;
    int far;
    char reason[200], ip[64];
    qg_endpoint_info info;
    qg_addr v4, v6, to;
    if (!wire_open(&far)) {
        return;
    }
    open_engine(&s);
    int index = qg_endpoint_client_xdp(s.engine, "wire", reason, sizeof reason);
    check_note("%s", reason);
    CHECK(index >= 0);
    CHECK_EQ(qg_endpoint_info_of(s.engine, index, &info), QG_OK);
    CHECK(info.capabilities & QG_CAP_XDP);
    CHECK_EQ(qg_endpoint_client_xdp(s.engine, "wire", reason, sizeof reason), QG_STATE);
    check_refused(&s, index, "wire", QG_STATE, "in use already");
    qg_addr_parse(&v4, FAR_IP, 443);
    qg_addr_parse(&v6, FAR_IP6, 443);
    int rc;
    to = v4;
    CHECK(qg__endpoint_for(s.engine, index, &to, &rc) == s.engine->endpoints[index]);
    CHECK_EQ(qg_addr_format(&to, ip, sizeof ip), 443);
    CHECK_TEXT(ip, strlen(ip), "::ffff:" FAR_IP);
    to = v6;
    CHECK(qg__endpoint_for(s.engine, index, &to, &rc) == s.engine->endpoints[index]);
    CHECK(qg__addr_equal(&to, &v6));
    to = v4;
    CHECK(qg__endpoint_for(s.engine, QG_ENDPOINT_AUTO, &to, &rc) != s.engine->endpoints[index]);
    CHECK(qg__addr_equal(&to, &v4));
    CHECK(qg__endpoint_for(s.engine, 99, &to, &rc) == NULL);
    CHECK_EQ(rc, QG_GONE);
    side_turn(&s);
    side_close(&s);
    close(far);
}

/* An endpoint of IPv4's sends to no IPv6 peer: the engine's own socket does. */
TEST(a_socket_of_the_other_family) {
    side s;
    qg_addr any, v6, to;
    int rc;
    qg_addr_parse(&any, "127.0.0.1", 0);
    qg_addr_parse(&v6, "2001:db8::1", 443);
    open_engine(&s);
    int ep = qg_endpoint_udp(s.engine, &any, 0, -1);
    to = v6;
    const qg_endpoint *own = qg__endpoint_for(s.engine, ep, &to, &rc);
    CHECK(own != s.engine->endpoints[ep]); /* or none, where there is no IPv6 */
    side_close(&s);
}
