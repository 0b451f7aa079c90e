#include "harness.h"

#define BEYOND (UINT64_C(1) << 62) /* the first integer that QUIC cannot send */

TEST(words) {
    CHECK_EQ(qg_abi(), QG_ABI);
    CHECK(strncmp(qg_build(), "quiche 0.", 9) == 0);
    CHECK(qg_build() == qg_build());
    CHECK_TEXT(qg_error_text(QG_OK), strlen(qg_error_text(QG_OK)), "success");
    for (int a = QG_REFUSED; a <= QG_OK; a++) {
        CHECK(strcmp(qg_error_text(a), "unknown code") != 0);
        for (int b = QG_REFUSED; b < a; b++) {
            CHECK(strcmp(qg_error_text(a), qg_error_text(b)) != 0);
        }
    }
    CHECK(strcmp(qg_error_text(QG_REFUSED - 1), "unknown code") == 0);
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
