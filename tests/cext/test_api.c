#include "harness.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BEYOND (UINT64_C(1) << 62) /* the first integer that QUIC cannot send */

TEST(words) {
    CHECK_EQ(qg_abi(), QG_ABI);
    CHECK(strncmp(qg_build(), "quiche 0.", 9) == 0);
    CHECK(qg_build() == qg_build());
    CHECK_TEXT(qg_error_text(QG_OK), strlen(qg_error_text(QG_OK)), "success");
    for (int a = QG_SHORT; a <= QG_OK; a++) {
        CHECK(strcmp(qg_error_text(a), "unknown code") != 0);
        for (int b = QG_SHORT; b < a; b++) {
            CHECK(strcmp(qg_error_text(a), qg_error_text(b)) != 0);
        }
    }
    CHECK(strcmp(qg_error_text(QG_SHORT - 1), "unknown code") == 0);
    CHECK(strcmp(qg_error_text(1), "unknown code") == 0);
    CHECK(strcmp(qg_error_text(INT32_MIN), "unknown code") == 0);
}

static int encode(const char *name, const char *value, uint8_t *out, size_t capacity) {
    return qg_field_encode((const uint8_t *)name, strlen(name), (const uint8_t *)value,
                           strlen(value), out, capacity);
}

TEST(field_lines) {
    uint8_t a[400], b[400];
    int n = encode("Content-Type", "text/plain", a, sizeof a);
    CHECK_EQ(encode("content-type", "text/plain", b, sizeof b), n);
    CHECK_BYTES(a, (size_t)n, b, (size_t)n);
    CHECK_EQ(encode(":METHOD", "GET", a, sizeof a), 1);
    CHECK_EQ(encode("Connection", "close", a, sizeof a), 0);
    CHECK_EQ(encode("Transfer-Encoding", "chunked", a, sizeof a), 0);
    CHECK_EQ(encode("", "x", a, sizeof a), QG_INVALID);
    CHECK_EQ(encode("a b", "x", a, sizeof a), QG_INVALID);
    CHECK_EQ(encode("x", "a\r\nb: c", a, sizeof a), QG_INVALID);
    CHECK_EQ(encode("x", "value", a, 5), QG_TOO_LARGE);
    CHECK(encode("x", "", a, sizeof a) > 0);
    char name[300];
    memset(name, 'n', sizeof name);
    CHECK(qg_field_encode((uint8_t *)name, 256, a, 0, a, sizeof a) > 0);
    CHECK_EQ(qg_field_encode((uint8_t *)name, 257, b, 0, a, sizeof a), QG_INVALID);
}

/* RFC 9000, section 16: quiche would end the process. */
TEST(codes_that_cannot_be_sent) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    rig_start(&r, &o);
    qg_engine *e = r.client.engine;
    uint64_t stream = open_request(&r, "POST", "/", 0);
    CHECK_EQ(qg_stream_shutdown(e, r.conn, stream, QG_SIDE_READ, BEYOND), QG_INVALID);
    CHECK_EQ(qg_stream_shutdown(e, r.conn, stream, QG_SIDE_WRITE, UINT64_MAX), QG_INVALID);
    CHECK_EQ(qg_conn_close(e, r.conn, 1, BEYOND, NULL, 0), QG_INVALID);
    CHECK_EQ(qg_conn_close(e, r.conn, 0, UINT64_MAX, NULL, 0), QG_INVALID);
    exchange(&r, 1);
    CHECK_EQ(qg_stream_shutdown(e, r.conn, stream, QG_SIDE_WRITE, BEYOND - 1), QG_OK);
    CHECK_EQ(qg_conn_close(e, r.conn, 1, BEYOND - 1, NULL, 0), QG_OK);
    await_closed(&r, &r.client, BEYOND - 1, QG_APP | QG_ESTABLISHED);
    rig_close(&r);
}

TEST(submitted_codes_that_cannot_be_sent) {
    rig r;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    submit(&r.client,
           (qg_submission){.op = QG_OP_RESET, .conn = r.conn, .stream = stream, .code = BEYOND},
           NULL, 0, NULL, 0);
    request(&r, 5, "POST", "/", NULL, 0, 0);
    submit(&r.client,
           (qg_submission){.op = QG_OP_CANCEL, .conn = r.conn, .token = 5, .code = UINT64_MAX},
           NULL, 0, NULL, 0);
    turn(&r);
    exchange(&r, 1);
    CHECK_EQ(r.client.counters.streams, 2); /* the control streams */
    rig_close(&r);
}

TEST(a_closed_connection_says_so_until_it_is_gone) {
    rig r;
    uint8_t byte = 0;
    uint32_t flags;
    uint64_t code, stream;
    qg_conn_info info;
    rig_start(&r, NULL);
    qg_engine *e = r.client.engine;
    stream = open_request(&r, "POST", "/", 0);
    CHECK_EQ(qg_conn_close(e, r.conn, 1, 0x100, NULL, 0), QG_OK);
    side_turn(&r.client);
    CHECK_EQ(qg_conn_close(e, r.conn, 1, 0x100, NULL, 0), QG_CLOSED);
    CHECK_EQ(qg_conn_finish(e, r.conn, 1), QG_CLOSED);
    CHECK_EQ(qg_conn_info_of(e, r.conn, &info), QG_OK); /* which may be asked for still */
    CHECK_EQ(qg_stream_read(e, r.conn, stream, &byte, 1, 1, 0, &flags, &code), QG_CLOSED);
    CHECK_EQ(qg_stream_write(e, r.conn, stream, &byte, 1, 0, 1, 0, &code), QG_CLOSED);
    CHECK_EQ(qg_stream_request(e, r.conn, &byte, 1, 0, 1, 0, &stream), QG_CLOSED);
    CHECK_EQ(qg_stream_release(e, r.conn, 0), QG_CLOSED);
    UNTIL(&r, e->cids.count == 0);
    CHECK_EQ(qg_conn_finish(e, r.conn, 1), QG_GONE);
    CHECK_EQ(qg_conn_info_of(e, r.conn, &info), QG_GONE);
    rig_close(&r);
}

TEST(what_is_not_allowed_on_an_http_3_connection) {
    rig r;
    uint8_t byte[8] = {0};
    uint32_t flags;
    uint64_t code, stream = 0;
    rig_start(&r, NULL);
    qg_engine *c = r.client.engine, *s = r.server.engine;
    CHECK_EQ(qg_stream_open(c, r.conn, 1, 0, 0, &stream), QG_STATE);
    CHECK_EQ(qg_stream_request(s, r.server_conn, byte, 1, 0, 0, 0, &stream), QG_STATE);
    stream = open_request(&r, "POST", "/", 0);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    CHECK_EQ(qg_stream_read(c, r.conn, stream, byte, 1, 0, 0, &flags, &code), QG_STATE);
    CHECK_EQ(qg_stream_await_response(s, r.server_conn, stream, 5, 0), QG_STATE);
    CHECK_EQ(qg_stream_write(s, r.server_conn, stream, byte, 1, 0, 0, 0, &code), QG_STATE);
    CHECK_EQ(qg_stream_send_trailers(s, r.server_conn, stream, byte, 1), QG_STATE);
    CHECK_EQ(qg_stream_read(s, r.server_conn, stream, byte, 0, 0, 0, &flags, &code), 0);
    CHECK_EQ(flags, 0);
    /* Control streams are not the caller's. */
    for (uint64_t id = 2; id < 12; id++) {
        if (id % 4 >= 2) {
            CHECK_EQ(qg_stream_read(c, r.conn, id, byte, 1, 0, 0, &flags, &code), QG_GONE);
            CHECK_EQ(qg_stream_write(c, r.conn, id, byte, 1, 0, 0, 0, &code), QG_GONE);
            CHECK_EQ(qg_stream_release(c, r.conn, id), QG_GONE);
        }
    }
    respond(&r.server, e, "200", NULL, 0, QG_FIN);
    turn(&r);
    rig_close(&r);
}

TEST(reading_on_arms_the_wait_when_nothing_is_left) {
    rig r;
    uint8_t out[8];
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    await_event(&r, &r.server, QG_EVENT_REQUEST);
    qg_engine *c = r.client.engine, *s = r.server.engine;
    CHECK_EQ(qg_stream_read_on(s, r.server_conn, stream, out, 8, 1, 0, &flags, &code), QG_AGAIN);
    CHECK_EQ(qg_stream_write(c, r.conn, stream, (uint8_t *)"abc", 3, 0, 0, 0, &code), 3);
    CHECK_EQ(await_token(&r, &r.server, 1)->event.type, QG_EVENT_READABLE);
    /* Full: nobody waits. */
    CHECK_EQ(qg_stream_read_on(s, r.server_conn, stream, out, 1, 2, 0, &flags, &code), 1);
    CHECK_EQ(flags, 0);
    CHECK_EQ(qg_stream_read_on(s, r.server_conn, stream, out + 1, 7, 3, 0, &flags, &code), 2);
    CHECK_EQ(flags, QG_MORE);
    CHECK(memcmp(out, "abc", 3) == 0);
    CHECK_EQ(qg_stream_write(c, r.conn, stream, (uint8_t *)"d", 1, QG_FIN, 0, 0, &code), 1);
    CHECK_EQ(await_token(&r, &r.server, 3)->event.type, QG_EVENT_READABLE);
    CHECK_EQ(qg_stream_read_on(s, r.server_conn, stream, out, 8, 4, 0, &flags, &code), 1);
    CHECK_EQ(flags, QG_FIN);
    CHECK(take_token(&r.server, 2) == NULL);
    rig_close(&r);
}

TEST(waits_are_one_at_a_time) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    await_event(&r, &r.server, QG_EVENT_REQUEST);
    qg_engine *s = r.server.engine;
    CHECK_EQ(qg_stream_read(s, r.server_conn, stream, &byte, 1, 0, 0, &flags, &code), QG_AGAIN);
    CHECK_EQ(qg_stream_read(s, r.server_conn, stream, &byte, 1, 7, 0, &flags, &code), QG_AGAIN);
    CHECK_EQ(qg_stream_read(s, r.server_conn, stream, &byte, 1, 8, 0, &flags, &code), QG_INVALID);
    CHECK_EQ(qg_stream_unwait(s, r.server_conn, stream, 8), QG_GONE);
    CHECK_EQ(qg_stream_unwait(s, r.server_conn, stream, 0), QG_GONE);
    CHECK_EQ(qg_stream_unwait(s, r.server_conn, stream, 7), QG_OK);
    CHECK_EQ(qg_stream_unwait(s, r.server_conn, stream, 7), QG_GONE);
    CHECK_EQ(qg_stream_read(s, r.server_conn, stream, &byte, 1, 9, 0, &flags, &code), QG_AGAIN);
    CHECK_EQ(qg_stream_write(r.client.engine, r.conn, stream, (uint8_t *)"x", 1, 0, 0, 0, &code),
             1);
    CHECK_EQ(await_token(&r, &r.server, 9)->event.type, QG_EVENT_READABLE);
    CHECK(take_token(&r.server, 7) == NULL);
    rig_close(&r);
}

/* ---------------------------------------------------------------- fork */

/* In the child no check may jump back into the tests: it says by its exit code where it was. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: in the child: %s\n", __FILE__, __LINE__, #condition);          \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static void expect_forked(rig *r, qg_engine *e) {
    uint8_t bytes[16] = {0xd1};
    uint32_t flags;
    uint64_t code, id, conn = r->conn;
    int ends[2], endpoint = r->client.endpoint;
    qg_conn_info info;
    qg_conn_stats stats;
    qg_endpoint_info endpoint_info;
    qg_addr any;
    qg_listen_options listen = {.abi = QG_ABI, .max_connections = 1, .token = 1};
    qg_addr_parse(&any, "127.0.0.1", 0);
    EXPECT(qg_engine_drain(e) == QG_FORKED);
    EXPECT(qg_engine_flush(e) == QG_FORKED);
    EXPECT(qg_engine_submit(e) == QG_FORKED);
    EXPECT(qg_engine_fd(e) == -1);
    EXPECT(qg_endpoint_udp(e, &any, 0, -1) == QG_FORKED);
    EXPECT(qg_endpoint_pair(e, &any, e, &any, ends) == QG_FORKED);
    EXPECT(qg_endpoint_close(e, endpoint) == QG_FORKED);
    EXPECT(qg_endpoint_info_of(e, endpoint, &endpoint_info) == QG_FORKED);
    EXPECT(qg_engine_inject(e, endpoint, bytes, 1, &any, &any) == QG_FORKED);
    EXPECT(qg_listen(e, endpoint, &listen, r->server_config) == QG_FORKED);
    EXPECT(qg_listen_stop(e, endpoint, 0) == QG_FORKED);
    EXPECT(qg_listen_close(e, endpoint, 0) == QG_FORKED);
    EXPECT(qg_connect(e, endpoint, &any, r->client_config, "a", 1, 0, &id) == QG_FORKED);
    EXPECT(qg_connect(e, QG_ENDPOINT_AUTO, &any, r->client_config, "a", 1, 0, &id) == QG_FORKED);
    EXPECT(qg_conn_info_of(e, conn, &info) == QG_FORKED);
    EXPECT(qg_conn_stats_of(e, conn, &stats) == QG_FORKED);
    EXPECT(qg_conn_close(e, conn, 1, 0, NULL, 0) == QG_FORKED);
    EXPECT(qg_conn_finish(e, conn, 1) == QG_FORKED);
    EXPECT(qg_conn_peer_cert(e, conn, bytes, 1) == QG_FORKED);
    EXPECT(qg_stream_open(e, conn, 1, 1, 0, &id) == QG_FORKED);
    EXPECT(qg_stream_request(e, conn, bytes, 1, 0, 1, 0, &id) == QG_FORKED);
    EXPECT(qg_stream_read(e, conn, 0, bytes, 1, 1, 0, &flags, &code) == QG_FORKED);
    EXPECT(qg_stream_write(e, conn, 0, bytes, 1, 0, 1, 0, &code) == QG_FORKED);
    EXPECT(qg_stream_send_trailers(e, conn, 0, bytes, 1) == QG_FORKED);
    EXPECT(qg_stream_trailers(e, conn, 0, bytes, 1) == QG_FORKED);
    EXPECT(qg_stream_await_response(e, conn, 0, 1, 0) == QG_FORKED);
    EXPECT(qg_stream_unwait(e, conn, 0, 1) == QG_FORKED);
    EXPECT(qg_stream_shutdown(e, conn, 0, QG_SIDE_READ, 0) == QG_FORKED);
    EXPECT(qg_stream_release(e, conn, 0) == QG_FORKED);
}

static void child(rig *r, int other) {
    qg_engine *e = r->client.engine;
    int fds[] = {e->epoll_fd, e->timer_fd, datapath_of(&r->client)->fd};
    request(r, 99, "GET", "/from the child", NULL, 0, QG_FIN); /* never taken */
    qg_engine_abandon(e);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(!is_open(fds[i]));
        EXPECT(dup2(other, fds[i]) == fds[i]); /* who opens something now gets these numbers */
    }
    EXPECT(is_open(other));
    qg_engine_abandon(e);
    expect_forked(r, e);
    qg_engine_free(e);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(is_open(fds[i]));
    }
    _exit(0);
}

static void fork_with(bool udp) {
    rig_options o;
    rig r;
    int status, other = open("/dev/null", O_RDONLY | O_CLOEXEC);
    rig_defaults(&o);
    o.udp = udp;
    rig_start(&r, &o);
    exchange(&r, 1);
    uint64_t received = r.server.counters.bytes_received;
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        child(&r, other);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    side_turn(&r.server);
    CHECK_EQ(r.server.counters.bytes_received, received); /* the child sent nothing */
    exchange(&r, 2);
    /* The parent's descriptors still wake it. */
    request(&r, 3, "GET", "/", NULL, 0, QG_FIN);
    side_turn(&r.client);
    CHECK(wakes_within(r.server.engine, 1000));
    side_turn(&r.server);
    CHECK_EQ(answer_all(&r.server), 1);
    side_turn(&r.server);
    CHECK(wakes_within(r.client.engine, 1000));
    CHECK_EQ(await_token(&r, &r.client, 3)->event.status, 200);
    close(other);
    rig_close(&r);
}

TEST(a_forked_child_closes_its_descriptors_and_nothing_else) {
    fork_with(true);
}

TEST(a_forked_child_with_a_link_in_memory) {
    fork_with(false);
}
