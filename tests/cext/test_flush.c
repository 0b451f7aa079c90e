#include "harness.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A path on which thousands of packets may be under way. */
static void wide(rig_options *o) {
    rig_defaults(o);
    o->server.initial_congestion_window_packets = 10000;
    o->client.initial_max_data = 64 << 20;
    o->client.max_connection_window = 64 << 20;
    o->client.initial_max_stream_data_bidi_local = 32 << 20;
    o->client.max_stream_window = 32 << 20;
}

/* A request on this connection, to which the server has said 200 and nothing else. */
static const seen *begin_download(rig *r, uint64_t conn, uint64_t token) {
    uint64_t saved = r->conn;
    r->conn = conn;
    request(r, token, "GET", "/", NULL, 0, QG_FIN);
    r->conn = saved;
    const seen *e = await_event(r, &r->server, QG_EVENT_REQUEST);
    respond(&r->server, e, "200", NULL, 0, 0);
    CHECK_EQ(await_token(r, &r->client, token)->event.type, QG_EVENT_RESPONSE);
    turn(r);
    return e;
}

/* Offer `len` bytes of pattern, from `at`; how many were taken. */
static size_t offer(rig *r, const seen *e, size_t len, uint64_t at, uint32_t flags) {
    uint8_t *data = malloc(len);
    uint64_t code;
    size_t taken = 0;
    fill_pattern(data, len, at);
    while (taken < len) {
        int64_t n = qg_stream_write(r->server.engine, e->event.conn, e->event.stream, data + taken,
                                    len - taken, flags, 0, 0, &code);
        CHECK(n > 0 || n == QG_AGAIN);
        if (n == QG_AGAIN) {
            break;
        }
        taken += (size_t)n;
    }
    free(data);
    return taken;
}

static flow download(rig *r, const seen *e, uint64_t conn, uint64_t size) {
    return (flow){.from = &r->server,
                  .to = &r->client,
                  .from_conn = e->event.conn,
                  .to_conn = conn,
                  .stream = e->event.stream,
                  .size = size,
                  .piece = 65536,
                  .token = 800 + 2 * e->event.stream};
}

/* ---------------------------------------------------------------- runs */

/* What the engine hands to the server's datapath, by a table of functions with one changed. */
typedef struct spy {
    const qg_datapath_ops *real;
    qg_datapath_ops ops;
    unsigned runs, datagrams, longest;
    bool mixed; /* a run that the system could not cut where quiche's packets end */
    bool blocked;
} spy;

static spy watched;

static void spy_commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                       const qg_addr *to) {
    unsigned count = (unsigned)((len + segment - 1) / segment);
    watched.runs++;
    watched.datagrams += count;
    watched.longest = count > watched.longest ? count : watched.longest;
    watched.mixed |=
        segment == 0 || segment > len || len > QG_RUN_MAX || count > QG_RUN_SEGMENTS_MAX;
    watched.real->commit(dp, len, segment, from, to);
}

static uint8_t *spy_begin(qg_datapath *dp) {
    dp->blocked = watched.blocked;
    return watched.blocked ? NULL : watched.real->begin(dp);
}

static int spy_flush(qg_datapath *dp) {
    dp->blocked = watched.blocked;
    return watched.blocked ? QG_AGAIN : watched.real->flush(dp);
}

static void watch(qg_datapath *dp) {
    watched = (spy){.real = dp->ops, .ops = *dp->ops};
    watched.ops.commit = spy_commit;
    watched.ops.begin = spy_begin;
    watched.ops.flush = spy_flush;
    dp->ops = &watched.ops;
}

/* On the wire: some ten packets of one size, in one buffer and one call. */
TEST(equal_packets_leave_as_one_run_over_udp) {
    rig_options o;
    rig r;
    wide(&o);
    o.udp = true;
    rig_start(&r, &o);
    const seen *e = begin_download(&r, r.conn, 1);
    bool gso = (datapath_of(&r.server)->capabilities & QG_CAP_GSO) != 0;
    qg_counters before = r.server.counters;
    CHECK_EQ(offer(&r, e, 50000, 0, QG_FIN), 50000);
    CHECK_EQ(qg_engine_flush(r.server.engine), 0);
    uint64_t sent = r.server.counters.datagrams_sent - before.datagrams_sent;
    uint64_t segmented = r.server.counters.send_segmented - before.send_segmented;
    CHECK(sent >= 50000 / 1452);
    CHECK_EQ(r.server.counters.send_calls - before.send_calls, 1);
    CHECK_EQ(segmented > 0, gso);
    CHECK(!gso || segmented + 2 >= sent); /* but for a path MTU probe and what it parted */
    flow f = download(&r, e, r.conn, 50000);
    f.fin_sent = true;
    flow_all(&r, &f);
    rig_close(&r);
}

TEST(a_run_is_what_the_system_can_cut) {
    rig_options o;
    rig r;
    wide(&o);
    rig_start(&r, &o);
    watch(datapath_of(&r.server));
    const seen *e = begin_download(&r, r.conn, 1);
    flow f = download(&r, e, r.conn, 3000000);
    flow_all(&r, &f);
    CHECK(!watched.mixed);
    CHECK(watched.longest > 16);
    CHECK(watched.runs < watched.datagrams / 4);
    rig_close(&r);
}

/* Without UDP_SEGMENT each packet is a run. */
TEST(no_runs_where_the_system_cuts_none) {
    rig_options o;
    rig r;
    wide(&o);
    o.udp = true;
    rig_start(&r, &o);
    datapath_of(&r.server)->capabilities &= ~(uint32_t)QG_CAP_GSO;
    watch(datapath_of(&r.server));
    const seen *e = begin_download(&r, r.conn, 1);
    uint64_t before = r.server.counters.send_segmented;
    flow f = download(&r, e, r.conn, 300000);
    flow_all(&r, &f);
    CHECK_EQ(watched.longest, 1);
    CHECK_EQ(r.server.counters.send_segmented, before);
    rig_close(&r);
}

/* What quiche makes is what leaves, datagram by datagram. */
static void check_one_packet_each(rig *r) {
    qg_conn_stats before, after;
    uint64_t datagrams = r->server.counters.datagrams_sent;
    CHECK_EQ(qg_conn_stats_of(r->server.engine, r->server_conn, &before), QG_OK);
    qg_engine_flush(r->server.engine);
    CHECK_EQ(qg_conn_stats_of(r->server.engine, r->server_conn, &after), QG_OK);
    CHECK(after.sent - before.sent >= 30);
    CHECK_EQ(r->server.counters.datagrams_sent - datagrams, after.sent - before.sent);
}

/* One that is longer than those before it, as a probe of the path MTU is. Cut at their length it
 * would be two that nobody can read. */
TEST(a_longer_packet_is_not_cut) {
    static uint8_t body[60000];
    for (unsigned udp = 0; udp < 2; udp++) {
        rig_options o;
        rig r;
        qg_conn_info client, server;
        wide(&o);
        o.udp = udp != 0;
        rig_open(&r, &o);
        r.conn = rig_dial(&r);
        request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
        request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
        UNTIL(&r, count_events(&r.server, QG_EVENT_REQUEST) == 2);
        const seen *e = take_event(&r.server, QG_EVENT_REQUEST);
        r.server_conn = e->event.conn;
        respond(&r.server, e, "200", "short", 5, QG_FIN); /* a packet of its own, and the first */
        e = take_event(&r.server, QG_EVENT_REQUEST);
        respond(&r.server, e, "200", body, sizeof body, QG_FIN);
        check_one_packet_each(&r);
        UNTIL(&r, (qg_conn_info_of(r.client.engine, r.conn, &client),
                   qg_conn_info_of(r.server.engine, r.server_conn, &server),
                   client.max_datagram == 1452 && server.max_datagram == 1452));
        rig_close(&r);
    }
}

/* QUIC allows more than a UDP send carries (RFC 9000, section 18.2). */
TEST(the_largest_payload_that_may_be_asked_for) {
    rig_options o;
    rig r;
    wide(&o);
    o.udp = true;
    o.client.max_udp_payload_size = o.server.max_udp_payload_size = 65527;
    rig_start(&r, &o);
    const seen *e = begin_download(&r, r.conn, 1);
    flow f = download(&r, e, r.conn, 1000000);
    flow_all(&r, &f);
    rig_close(&r);
}

/* ---------------------------------------------------------------- shares and budget */

/* A turn sends so many packets; the descriptor says that there are more. */
TEST(a_flush_sends_only_so_much) {
    rig_options o;
    rig r;
    wide(&o);
    rig_start(&r, &o);
    const seen *e = begin_download(&r, r.conn, 1);
    uint64_t before = r.server.counters.datagrams_sent;
    CHECK_EQ(offer(&r, e, 6000000, 0, QG_FIN), 6000000);
    qg_engine_flush(r.server.engine);
    uint64_t first = r.server.counters.datagrams_sent - before;
    /* A share of 128 may be passed by what is left of its last run. */
    CHECK(first >= 2048 && first <= 2048 / 128 * (128 + QG_RUN_SEGMENTS_MAX));
    CHECK(r.server.engine->armed_ns <= r.server.engine->now_ns); /* at once, not with a timeout */
    CHECK(wakes_within(r.server.engine, 1000));
    CHECK_EQ(qg_engine_drain(r.server.engine), 0);
    CHECK(r.server.counters.datagrams_sent - before == first); /* a drain sends nothing */
    qg_engine_flush(r.server.engine);
    uint64_t second = r.server.counters.datagrams_sent - before - first;
    CHECK(second >= 500);
    flow f = download(&r, e, r.conn, 6000000);
    f.fin_sent = true;
    flow_all(&r, &f);
    rig_close(&r);
}

/* Datagrams in the order in which they leave. */
typedef struct order {
    const uint8_t *cid;    /* of the small one */
    unsigned count, first; /* datagrams; the first of that connection */
} order;

static bool note_order(void *arg, uint8_t *data, size_t len) {
    order *o = arg;
    o->count++;
    if (o->first == 0 && len > 1 + QG_CID_LEN && memcmp(data + 1, o->cid, QG_CID_LEN) == 0) {
        o->first = o->count;
    }
    return true;
}

/* Four large downloads and a small answer: it is not behind all of them. */
TEST(a_large_download_does_not_hold_up_the_others) {
    enum { BULK = 4 };
    rig_options o;
    rig r;
    const seen *bulk[BULK];
    wide(&o);
    rig_start(&r, &o);
    uint64_t small = r.conn;
    const seen *small_one = begin_download(&r, small, 1);
    for (unsigned i = 0; i < BULK; i++) {
        rig_connect(&r);
        bulk[i] = begin_download(&r, r.conn, 2 + i);
    }
    for (unsigned i = 0; i < BULK; i++) {
        CHECK_EQ(offer(&r, bulk[i], 3000000, 0, QG_FIN), 3000000);
    }
    CHECK_EQ(offer(&r, small_one, 100, 0, QG_FIN), 100);
    order seen_order = {.cid = conn_at(&r.client, small)->cids[0]};
    qg__pair_set_filter(datapath_of(&r.server), note_order, &seen_order);
    qg_engine_flush(r.server.engine);
    CHECK(seen_order.first > 0);
    CHECK(seen_order.first <= BULK * (128 + QG_RUN_SEGMENTS_MAX) + 1);
    /* The budget went around: no one had all of it. */
    for (unsigned i = 0; i < BULK; i++) {
        qg_conn_stats stats;
        CHECK_EQ(qg_conn_stats_of(r.server.engine, bulk[i]->event.conn, &stats), QG_OK);
        CHECK(stats.sent >= 2048 / BULK - 2 * 128);
    }
    qg__pair_set_filter(datapath_of(&r.server), NULL, NULL);
    rig_close(&r);
}

/* ---------------------------------------------------------------- a full socket */

/* A local pair of sockets instead of UDP's, for both sides: on the loopback device UDP is never full.
 * It knows no addresses. */
static const qg_datapath_ops *udp_ops;
static qg_datapath_ops local_ops;
static rig *local_rig;

static int local_receive(qg_datapath *dp, qg_dgram *out, int max) {
    int n = udp_ops->receive(dp, out, max);
    bool client = dp == datapath_of(&local_rig->client);
    for (int i = 0; i < n; i++) {
        out[i].from = client ? local_rig->server_addr : local_rig->client_addr;
    }
    return n;
}

static void local_commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                         const qg_addr *to) {
    static const qg_addr nobody;
    (void)to;
    udp_ops->commit(dp, len, segment, from, &nobody);
}

static void put_in(side *s, int fd) {
    qg_datapath *dp = datapath_of(s);
    CHECK_EQ(dup2(fd, dp->fd), dp->fd);
    close(fd);
    dp->capabilities &= ~(uint32_t)QG_CAP_GSO;
    dp->ops = &local_ops;
    CHECK_EQ(qg__engine_watch(s->engine, s->engine->endpoints[s->endpoint], false, true), QG_OK);
}

static void use_local_sockets(rig *r) {
    int fds[2], small = 20000;
    local_rig = r;
    udp_ops = datapath_of(&r->server)->ops;
    local_ops = *udp_ops;
    local_ops.receive = local_receive;
    local_ops.commit = local_commit;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    put_in(&r->server, fds[0]);
    put_in(&r->client, fds[1]);
}

/* The system takes some packets and then no more until the peer has read. */
TEST(what_a_full_socket_refuses_is_kept) {
    enum { SIZE = 1000000 };
    rig_options o;
    rig r;
    wide(&o);
    o.udp = true;
    rig_open(&r, &o);
    use_local_sockets(&r);
    rig_connect(&r);
    const seen *e = begin_download(&r, r.conn, 1);
    qg_datapath *dp = datapath_of(&r.server);
    const qg_endpoint *ep = r.server.engine->endpoints[r.server.endpoint];
    CHECK(!ep->wants_output);
    CHECK_EQ(offer(&r, e, SIZE, 0, QG_FIN), SIZE);
    qg_engine_flush(r.server.engine);
    CHECK(dp->blocked && ep->wants_output);
    CHECK(r.server.counters.send_blocked > 0);
    /* No more is pulled from quiche while it is so: what was pulled counts as sent. */
    uint64_t pulled = r.server.counters.datagrams_sent;
    CHECK(pulled < 512);
    qg_engine_flush(r.server.engine);
    CHECK_EQ(r.server.counters.datagrams_sent, pulled);
    side_turn(&r.client); /* it reads: there is room again */
    CHECK(wakes_within(r.server.engine, 5000));
    flow f = download(&r, e, r.conn, SIZE);
    f.fin_sent = true;
    flow_all(&r, &f);
    turn(&r);
    CHECK(!dp->blocked && !ep->wants_output);
    CHECK_EQ(r.server.counters.send_errors, 0);
    CHECK(r.server.counters.send_blocked > 10);
    rig_close(&r);
}

/* One endpoint that takes nothing does not stop the others, nor the engine. */
TEST(a_blocked_endpoint_holds_up_only_its_own) {
    rig_options o;
    rig r;
    int ends[2];
    uint64_t other;
    wide(&o);
    rig_start(&r, &o);
    CHECK_EQ(
        qg_endpoint_pair(r.client.engine, &r.client_addr, r.server.engine, &r.server_addr, ends),
        QG_OK);
    CHECK_EQ(qg_listen(r.server.engine, ends[1], &o.listen, r.server_config), QG_OK);
    CHECK_EQ(qg_connect(r.client.engine, ends[0], &r.server_addr, r.client_config, "a.test", 3000,
                        0, &other),
             QG_OK);
    CHECK_EQ(await_token(&r, &r.client, 3000)->event.type, QG_EVENT_CONNECTED);
    turn(&r);
    watch(datapath_of(&r.client));
    watched.blocked = true;
    uint64_t blocked = r.conn;
    request(&r, 1, "GET", "/blocked", NULL, 0, QG_FIN);
    r.conn = other;
    request(&r, 2, "GET", "/free", NULL, 0, QG_FIN);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_TEXT(path_of(e), e->event.path_len, "/free");
    respond(&r.server, e, "200", NULL, 0, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 2)->event.status, 200);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 0);
    CHECK_EQ(watched.runs, 0);
    r.conn = blocked;
    watched.blocked = false;
    e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_TEXT(path_of(e), e->event.path_len, "/blocked");
    rig_close(&r);
}

/* Nothing to say: nothing is sent, and no call is made of it. */
TEST(a_quiet_flush_sends_nothing) {
    rig r;
    rig_start(&r, NULL);
    exchange(&r, 1);
    pass_ms(&r, 60);
    uint64_t sent = r.server.counters.datagrams_sent;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_EQ(qg_engine_flush(r.server.engine), 0);
    }
    CHECK_EQ(r.server.counters.datagrams_sent, sent);
    CHECK(qg__link_alone(&r.server.engine->dirty));
    rig_close(&r);
}
