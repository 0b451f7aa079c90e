#include "harness.h"

#include <poll.h>

typedef struct ends {
    qg_counters counters[2];
    qg_datapath *dp[2];
    qg_addr addr[2];
} ends;

static void open_ends(ends *e) {
    *e = (ends){0};
    qg_addr_parse(&e->addr[0], "192.0.2.1", 1);
    qg_addr_parse(&e->addr[1], "192.0.2.2", 2);
    CHECK(qg__pair_open(&e->addr[0], &e->counters[0], &e->addr[1], &e->counters[1], e->dp));
}

static void send_bytes(ends *e, int from, const void *data, size_t len, size_t segment) {
    uint8_t *room = e->dp[from]->ops->begin(e->dp[from]);
    CHECK(room != NULL);
    memcpy(room, data, len);
    e->dp[from]->ops->commit(e->dp[from], len, segment, &e->addr[from], &e->addr[1 - from]);
}

static bool readable(const qg_datapath *dp) {
    struct pollfd p = {.fd = dp->fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void close_ends(ends *e) {
    e->dp[0]->ops->close(e->dp[0]);
    e->dp[1]->ops->close(e->dp[1]);
}

TEST(what_one_end_sends_the_other_receives) {
    ends e;
    qg_dgram got[8];
    open_ends(&e);
    send_bytes(&e, 0, "hello", 5, 5);
    send_bytes(&e, 0, "world!", 6, 6);
    CHECK(!readable(e.dp[1]));
    CHECK_EQ(e.dp[0]->ops->flush(e.dp[0]), QG_OK);
    CHECK(readable(e.dp[1]));
    CHECK(!readable(e.dp[0]));
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 2);
    CHECK_TEXT(got[0].data, got[0].len, "hello");
    CHECK_TEXT(got[1].data, got[1].len, "world!");
    CHECK(qg__addr_equal(&got[0].from, &e.addr[0]));
    CHECK(qg__addr_equal(&got[0].to, &e.addr[1]));
    CHECK(!readable(e.dp[1]));
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 0);
    CHECK_EQ(e.counters[0].datagrams_sent, 2);
    CHECK_EQ(e.counters[0].bytes_sent, 11);
    CHECK_EQ(e.counters[1].bytes_received, 11);
    close_ends(&e);
}

TEST(a_run_arrives_in_datagrams) {
    ends e;
    qg_dgram got[8];
    open_ends(&e);
    send_bytes(&e, 1, "aaabbbcc", 8, 3);
    e.dp[1]->ops->flush(e.dp[1]);
    CHECK_EQ(e.dp[0]->ops->receive(e.dp[0], got, 8), 3);
    CHECK_TEXT(got[0].data, got[0].len, "aaa");
    CHECK_TEXT(got[1].data, got[1].len, "bbb");
    CHECK_TEXT(got[2].data, got[2].len, "cc");
    CHECK_EQ(e.counters[1].datagrams_sent, 3);
    close_ends(&e);
}

/* A packet that is longer than the run it was written behind follows as a run of its own. */
TEST(two_runs_of_one_room) {
    ends e;
    qg_dgram got[8];
    open_ends(&e);
    for (int i = 0; i < 2; i++) {
        uint8_t *room = e.dp[0]->ops->begin(e.dp[0]);
        memcpy(room, "abc1234567", 10);
        e.dp[0]->ops->commit(e.dp[0], 3, 3, &e.addr[0], &e.addr[1]);
        e.dp[0]->ops->commit(e.dp[0], 7, 7, &e.addr[0], &e.addr[1]);
    }
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 4);
    for (int i = 0; i < 4; i += 2) {
        CHECK_TEXT(got[i].data, got[i].len, "abc");
        CHECK_TEXT(got[i + 1].data, got[i + 1].len, "1234567");
    }
    close_ends(&e);
}

TEST(what_does_not_fit_a_receive_comes_with_the_next) {
    ends e;
    qg_dgram got[2];
    open_ends(&e);
    for (uint8_t i = 0; i < 5; i++) {
        send_bytes(&e, 0, &i, 1, 1);
    }
    e.dp[0]->ops->flush(e.dp[0]);
    for (int i = 0; i < 5; i += 2) {
        CHECK(readable(e.dp[1]));
        CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 2), i < 4 ? 2 : 1);
        CHECK_EQ(got[0].data[0], i);
    }
    CHECK(!readable(e.dp[1]));
    close_ends(&e);
}

static bool drop_second(void *arg, uint8_t *data, size_t len) {
    int *seen_before = arg;
    CHECK(len == 2);
    data[0] = 'X'; /* a filter may alter, too */
    return ++*seen_before != 2;
}

TEST(a_filter_decides_what_arrives) {
    ends e;
    qg_dgram got[8];
    int count = 0;
    open_ends(&e);
    qg__pair_set_filter(e.dp[0], drop_second, &count);
    send_bytes(&e, 0, "aabbcc", 6, 2);
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 2);
    CHECK_TEXT(got[0].data, got[0].len, "Xa");
    CHECK_TEXT(got[1].data, got[1].len, "Xc");
    send_bytes(&e, 1, "dd", 2, 2); /* the other way has none */
    CHECK_EQ(e.dp[0]->ops->receive(e.dp[0], got, 8), 1);
    CHECK_TEXT(got[0].data, got[0].len, "dd");
    close_ends(&e);
}

TEST(a_full_queue_loses_as_a_socket_does) {
    ends e;
    qg_dgram got[64];
    open_ends(&e);
    for (int i = 0; i < 9000; i++) {
        send_bytes(&e, 0, "x", 1, 1);
    }
    CHECK_EQ(e.counters[0].send_errors, 9000 - 8192);
    int n, total = 0;
    while ((n = e.dp[1]->ops->receive(e.dp[1], got, 64)) > 0) {
        total += n;
    }
    CHECK_EQ(total, 8192);
    close_ends(&e);
}

TEST(an_end_outlives_the_other) {
    ends e;
    qg_dgram got[8];
    qg_unreachable errors[4];
    open_ends(&e);
    send_bytes(&e, 0, "late", 4, 4);
    e.dp[0]->ops->close(e.dp[0]);
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 1);
    CHECK_TEXT(got[0].data, got[0].len, "late");
    send_bytes(&e, 1, "void", 4, 4);
    CHECK_EQ(e.dp[1]->ops->flush(e.dp[1]), QG_OK);
    CHECK_EQ(e.counters[1].send_errors, 1);
    CHECK_EQ(e.dp[1]->ops->errors(e.dp[1], errors, 4), 0);
    send_bytes(&e, 1, "void", 4, 4);
    e.dp[1]->ops->close(e.dp[1]); /* with bytes it never gave out */
}

/* quicgreen.h: "or one with itself". */
TEST(an_engine_joined_with_itself) {
    rig r;
    int out[2];
    qg_engine_options options;
    rig_open(&r, NULL);
    qg_engine_defaults(&options);
    side both;
    side_open(&both, &options);
    CHECK_EQ(qg_endpoint_pair(both.engine, &r.client_addr, both.engine, &r.server_addr, out),
             QG_OK);
    CHECK(out[0] >= 0 && out[1] >= 0 && out[0] != out[1]);
    qg_listen_options listen = {.abi = QG_ABI, .max_connections = 1, .token = 5, .credit = 10};
    CHECK_EQ(qg_listen(both.engine, out[1], &listen, r.server_config), QG_OK);
    uint64_t conn;
    CHECK_EQ(
        qg_connect(both.engine, out[0], &r.server_addr, r.client_config, "a.test", 6, 0, &conn),
        QG_OK);
    for (int i = 0; i < 50; i++) {
        side_turn(&both);
    }
    CHECK(take_event(&both, QG_EVENT_CONNECTED) != NULL);
    CHECK_EQ(both.counters.handshakes_completed, 2);
    side_close(&both);
    rig_close(&r);
}

TEST(one_end_behind_a_nat) {
    ends e;
    qg_dgram got[8];
    qg_addr outside;
    qg_addr_parse(&outside, "192.0.2.9", 9);
    open_ends(&e);
    qg__pair_rebind(e.dp[0], &outside);
    send_bytes(&e, 0, "hello", 5, 5);
    CHECK_EQ(e.dp[1]->ops->receive(e.dp[1], got, 8), 1);
    CHECK(qg__addr_equal(&got[0].from, &outside));
    send_bytes(&e, 1, "lost", 4, 4);
    e.addr[0] = outside;
    send_bytes(&e, 1, "answer", 6, 6);
    CHECK_EQ(e.dp[0]->ops->receive(e.dp[0], got, 8), 1);
    CHECK_TEXT(got[0].data, got[0].len, "answer");
    CHECK(qg__addr_equal(&got[0].to, &e.dp[0]->local));
    close_ends(&e);
}
