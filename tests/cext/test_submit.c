#include "harness.h"

static void submit_bare(side *s, qg_submission op) {
    submit(s, op, NULL, 0, NULL, 0);
}

static const seen *next_request(rig *r) {
    return await_event(r, &r->server, QG_EVENT_REQUEST);
}

/* What a read on the server's end of a stream answers once no more can come of it. */
static int64_t read_result(rig *r, const seen *e, uint64_t *code) {
    uint8_t bytes[100];
    uint32_t flags;
    int64_t n;
    UNTIL(r, (n = qg_stream_read(r->server.engine, e->event.conn, e->event.stream, bytes,
                                 sizeof bytes, 0, 0, &flags, code)) != QG_AGAIN &&
                 (n <= 0 || (flags & QG_FIN)));
    return n;
}

/* ---------------------------------------------------------------- the ring */

TEST(the_ring_goes_round) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client_engine.submissions = o.server_engine.submissions = 16;
    rig_start(&r, &o);
    for (uint64_t i = 0; i < 90; i++) { /* five and a half times */
        request(&r, 1 + i, "GET", "/", NULL, 0, QG_FIN);
    }
    CHECK_EQ(r.client.next_op, 90 % 16);
    for (uint64_t i = 0; i < 90; i++) {
        const seen *e;
        UNTIL(&r, (answer_all(&r.server), (e = take_token(&r.client, 1 + i)) != NULL));
        CHECK_EQ(e->event.status, 200);
    }
    for (unsigned i = 0; i < 16; i++) {
        CHECK_EQ(r.client.memory.submissions[i].op, 0);
    }
    CHECK_EQ(r.client.engine->submission_next, 90 % 16);
    CHECK_EQ(r.server.counters.requests_received, 90);
    rig_close(&r);
}

/* A full ring is taken in one entry, and each record once. */
TEST(a_full_ring) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client_engine.submissions = 16;
    rig_start(&r, &o);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 16; i++) {
            r.client.memory.submissions[i] =
                (qg_submission){.op = QG_OP_REQUEST, .conn = 5, .token = 100 * round + i + 1};
        }
        turn(&r);
        for (unsigned i = 0; i < 16; i++) {
            const seen *e = take_token(&r.client, 100 * round + i + 1);
            CHECK(e != NULL);
            CHECK_EQ(e->event.status, -QG_GONE);
        }
    }
    CHECK_EQ(r.client.count, 1 + 48); /* one was CONNECTED */
    rig_close(&r);
}

/* `op` is written last: until then nothing of the record, or behind it, counts. */
TEST(a_record_counts_when_its_op_is_written) {
    rig r;
    rig_start(&r, NULL);
    qg_submission *ring = r.client.memory.submissions;
    ring[0] = (qg_submission){.op = 0, .conn = 5, .token = 1};
    ring[1] = (qg_submission){.op = QG_OP_REQUEST, .conn = 5, .token = 2};
    turn(&r);
    CHECK(take_token(&r.client, 1) == NULL);
    CHECK(take_token(&r.client, 2) == NULL);
    ring[0].op = QG_OP_REQUEST;
    turn(&r);
    CHECK_EQ(take_token(&r.client, 1)->event.status, -QG_GONE);
    CHECK_EQ(take_token(&r.client, 2)->event.status, -QG_GONE);
    rig_close(&r);
}

/* Every entry takes them, a call on a connection too. */
TEST(records_are_taken_before_a_call_is_served) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    qg_conn_info info;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "GET", "/", 0);
    submit_bare(&r.client, (qg_submission){.op = QG_OP_RELEASE, .conn = r.conn, .stream = stream});
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, stream, &byte, 1, 0, 0, &flags, &code),
             QG_GONE);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &info), QG_OK);
    CHECK_EQ(r.client.memory.submissions[1].op, 0);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    CHECK(qg_engine_submit(r.client.engine) >= 0);
    CHECK_EQ(r.client.memory.submissions[2].op, 0);
    CHECK_EQ(r.client.counters.requests_sent, 3);
    rig_close(&r);
}

/* ---------------------------------------------------------------- what names nothing */

TEST(every_operation_on_what_is_gone) {
    rig r;
    rig_start(&r, NULL);
    exchange(&r, 500); /* stream 0 has ended */
    const struct {
        uint64_t conn, stream;
    } gone[] = {{0, 0},          {UINT64_MAX, UINT64_MAX},
                {r.conn + 1, 0}, {r.conn + (UINT64_C(1) << 32), 0},
                {r.conn, 0},     {r.conn, 4},
                {r.conn, 2}, /* our control stream, which is not the caller's */
                {r.conn, 3}, /* the peer's */
                {r.conn, 999}};
    size_t before = r.client.count;
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
        for (uint16_t op = 1; op <= 9; op++) {
            if (op == QG_OP_REQUEST || (op == QG_OP_ATTACH && gone[i].conn == r.conn)) {
                continue;
            }
            submit(&r.client,
                   (qg_submission){
                       .op = op, .conn = gone[i].conn, .stream = gone[i].stream, .token = 600},
                   "x", 1, "y", 1);
        }
        turn(&r);
        check_note("row %zu", i);
        CHECK(conn_at(&r.client, r.conn)->state == QG_CONN_OPEN);
        CHECK_EQ(count_events(&r.client, QG_EVENT_CLOSED), 0);
    }
    CHECK_EQ(r.client.count, before);
    exchange(&r, 501);
    rig_close(&r);
}

TEST(a_request_to_what_is_gone_is_answered) {
    rig r;
    rig_start(&r, NULL);
    uint64_t conn = r.conn;
    CHECK_EQ(qg_conn_close(r.client.engine, conn, 1, 0x123, NULL, 0), QG_OK);
    turn(&r);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN); /* over, and not yet forgotten */
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.status, -QG_CLOSED);
    CHECK_EQ(e->event.code, 0x123);
    CHECK_EQ(e->event.flags, QG_MORE);
    CHECK_EQ(e->event.conn, conn);
    UNTIL(&r, r.client.engine->cids.count == 0);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    e = await_token(&r, &r.client, 2);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_GONE);
    CHECK_EQ(e->event.flags, QG_MORE);
    rig_close(&r);
}

/* Lengths that lead out of the arena, and bodies that are longer than a submission's may be. */
TEST(records_with_wrong_lengths) {
    rig r;
    static uint8_t body[QG_BODY_INLINE_MAX + 1];
    rig_start(&r, NULL);
    const qg_submission wrong[] = {
        {.offset = r.client.arena, .head_len = 1},
        {.offset = UINT32_MAX, .head_len = UINT32_MAX, .body_len = UINT32_MAX},
        {.offset = 0, .head_len = 0, .body_len = r.client.arena + 1},
        {.offset = r.client.arena - 10, .head_len = 5, .body_len = 6},
    };
    qg_submission *ring = r.client.memory.submissions;
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ring[i] = wrong[i];
        ring[i].conn = r.conn;
        ring[i].token = 1 + i;
        ring[i].op = QG_OP_REQUEST;
        check_note("row %u", i);
        const seen *e = await_token(&r, &r.client, 1 + i);
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, -QG_INVALID);
        CHECK_EQ(e->event.flags, QG_MORE);
    }
    r.client.next_op = sizeof wrong / sizeof *wrong;
    request(&r, 10, "POST", "/", body, sizeof body, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 10)->event.status, -QG_TOO_LARGE);
    CHECK_EQ(r.client.counters.requests_sent, 0);
    exchange(&r, 11);
    rig_close(&r);
}

/* ---------------------------------------------------------------- RESPOND */

TEST(the_longest_body_of_a_submission) {
    rig r;
    static uint8_t body[QG_BODY_INLINE_MAX], got[sizeof body + 1];
    uint32_t flags;
    uint64_t code;
    fill_pattern(body, sizeof body, 3);
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    respond(&r.server, next_request(&r), "200", body, sizeof body, QG_FIN);
    const seen *e = await_token(&r, &r.client, 1);
    size_t at = e->event.body_len;
    memcpy(got, body_of(e), at);
    do {
        breathe(&r);
        int64_t n = qg_stream_read(r.client.engine, r.conn, e->event.stream, got + at,
                                   sizeof got - at, 0, 0, &flags, &code);
        CHECK(n >= 0 || n == QG_AGAIN);
        at += n > 0 ? (size_t)n : 0;
    } while (!(flags & QG_FIN));
    CHECK_BYTES(got, at, body, sizeof body);
    rig_close(&r);
}

/* The answer cannot be given; the client must not wait for it. */
TEST(a_response_that_is_too_long_resets) {
    rig r;
    static uint8_t body[QG_BODY_INLINE_MAX + 1];
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    respond(&r.server, next_request(&r), "200", body, sizeof body, QG_FIN);
    const seen *e = await_token(&r, &r.client, 1);
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_RESET);
    CHECK_EQ(e->event.code, H3_INTERNAL_ERROR);
    CHECK_EQ(r.server.counters.streams, 2);
    rig_close(&r);
}

TEST(a_response_in_steps) {
    rig r;
    uint8_t got[32];
    uint64_t code;
    uint32_t flags;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    const seen *e = next_request(&r);
    respond(&r.server, e, "103", NULL, 0, QG_INTERIM);
    respond(&r.server, e, "200", "one ", 4, 0);
    turn(&r);
    CHECK_EQ(qg_stream_write(r.server.engine, e->event.conn, e->event.stream, (uint8_t *)"two", 3,
                             QG_FIN, 0, 0, &code),
             3);
    const seen *answer = await_token(&r, &r.client, 1);
    CHECK_EQ(answer->event.status, 200);
    CHECK_TEXT(body_of(answer), answer->event.body_len, "one ");
    CHECK_EQ(answer->event.flags, 0);
    turn(&r);
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, answer->event.stream, got, sizeof got, 0, 0,
                            &flags, &code),
             3);
    CHECK_TEXT(got, 3, "two");
    CHECK_EQ(flags, QG_FIN);
    rig_close(&r);
}

/* One that would end an answer twice is a fault of the server's: the client is not left with half. */
TEST(a_second_response_resets_what_is_open) {
    rig r;
    uint8_t got[32];
    uint64_t code;
    uint32_t flags;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    const seen *e = next_request(&r);
    respond(&r.server, e, "200", "half", 4, 0);
    const seen *answer = await_token(&r, &r.client, 1);
    respond(&r.server, e, "500", NULL, 0, QG_FIN);
    turn(&r);
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, answer->event.stream, got, sizeof got, 0, 0,
                            &flags, &code),
             QG_RESET);
    CHECK_EQ(code, H3_INTERNAL_ERROR);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    e = next_request(&r);
    respond(&r.server, e, "200", "all", 3, QG_FIN);
    respond(&r.server, e, "500", NULL, 0, QG_FIN); /* its stream has ended: dropped */
    CHECK_EQ(await_token(&r, &r.client, 2)->event.status, 200);
    exchange(&r, 3);
    rig_close(&r);
}

/* ---------------------------------------------------------------- RESET and RELEASE */

/* How far a request has come when its server ends it. */
enum stage { UPLOADING, UNANSWERED, ANSWERING, ANSWERED, STAGES };

static const seen *bring_to(rig *r, enum stage stage) {
    request(r, 1, "POST", "/", "some", 4, stage == UPLOADING ? 0 : QG_FIN);
    const seen *e = next_request(r);
    if (stage >= ANSWERING) {
        respond(&r->server, e, "200", "half", 4, stage == ANSWERED ? QG_FIN : 0);
        turn(r);
    }
    return e;
}

/* What the client sees of it. */
static void check_client_sees(rig *r, enum stage stage, uint64_t code_expected) {
    uint8_t got[8];
    uint32_t flags;
    uint64_t code;
    const seen *e = await_token(r, &r->client, 1);
    if (stage < ANSWERING) {
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, -QG_RESET);
        CHECK_EQ(e->event.code, code_expected);
        return;
    }
    CHECK_EQ(e->event.type, QG_EVENT_RESPONSE);
    CHECK_TEXT(body_of(e), e->event.body_len, "half");
    CHECK_EQ(e->event.flags, stage == ANSWERED ? QG_FIN : 0);
    int64_t n = qg_stream_read(r->client.engine, r->conn, e->event.stream, got, sizeof got, 0, 0,
                               &flags, &code);
    CHECK_EQ(n, stage == ANSWERED ? QG_GONE : QG_RESET);
    CHECK_EQ(code, stage == ANSWERED ? 0 : code_expected);
}

static void end_at_every_stage(uint16_t op, uint64_t code, uint64_t code_expected) {
    for (enum stage stage = 0; stage < STAGES; stage++) {
        rig r;
        rig_start(&r, NULL);
        const seen *e = bring_to(&r, stage);
        for (unsigned twice = 0; twice < 2; twice++) {
            submit_bare(&r.server, (qg_submission){.op = op,
                                                   .conn = e->event.conn,
                                                   .stream = e->event.stream,
                                                   .code = code});
        }
        turn(&r);
        check_note("operation %d at stage %d", op, stage);
        if (stage == UPLOADING) { /* which the server waits for, at most 256 KiB of it */
            CHECK_EQ(r.server.counters.streams, op == QG_OP_RELEASE ? 3 : 2);
        } else {
            CHECK_EQ(r.server.counters.streams, 2);
        }
        check_client_sees(&r, stage, code_expected);
        exchange(&r, 2);
        rig_close(&r);
    }
}

TEST(reset_at_every_stage) {
    end_at_every_stage(QG_OP_RESET, 0x777, 0x777);
}

TEST(release_at_every_stage) {
    end_at_every_stage(QG_OP_RELEASE, 0, H3_INTERNAL_ERROR);
}

/* Integers of QUIC are below 2^62; a record cannot be refused. */
TEST(a_code_that_cannot_be_sent_is_the_largest_that_can) {
    rig r;
    rig_start(&r, NULL);
    const seen *e = bring_to(&r, UNANSWERED);
    submit_bare(&r.server, (qg_submission){.op = QG_OP_RESET,
                                           .conn = e->event.conn,
                                           .stream = e->event.stream,
                                           .code = UINT64_MAX});
    check_client_sees(&r, UNANSWERED, (UINT64_C(1) << 62) - 1);
    rig_close(&r);
}

/* After a release no event comes with a token of the stream, not even one that was due. */
TEST(release_withdraws_every_wait) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    request(&r, 1, "POST", "/", NULL, 0, 0);
    const seen *e = next_request(&r);
    CHECK_EQ(qg_stream_read(r.server.engine, e->event.conn, e->event.stream, &byte, 1, 70, 20000,
                            &flags, &code),
             QG_AGAIN);
    submit_bare(
        &r.server,
        (qg_submission){.op = QG_OP_RELEASE, .conn = e->event.conn, .stream = e->event.stream});
    turn(&r);
    pass_ms(&r, 30);
    CHECK(take_token(&r.server, 70) == NULL);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.type, QG_EVENT_STREAM_ERROR);
    rig_close(&r);
}

TEST(a_client_resets_its_request) {
    rig r;
    uint64_t code;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    const seen *e = next_request(&r);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 9, 0), QG_AGAIN);
    submit_bare(&r.client, (qg_submission){
                               .op = QG_OP_RESET, .conn = r.conn, .stream = stream, .code = 0x10c});
    CHECK_EQ(read_result(&r, e, &code), QG_RESET);
    CHECK_EQ(code, 0x10c);
    e = take_token(&r.client, 9); /* who waits is told, once */
    CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
    CHECK_EQ(e->event.status, -QG_STATE);
    CHECK_EQ(e->event.code, 0x10c);
    CHECK(take_token(&r.client, 9) == NULL);
    CHECK_EQ(r.client.counters.streams, 2);
    rig_close(&r);
}

/* The response's head has come: the token is used up, and the body goes on. */
TEST(cancel_after_the_head_changes_nothing) {
    rig r;
    uint64_t code;
    uint32_t flags;
    uint8_t got[8];
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    const seen *e = next_request(&r);
    respond(&r.server, e, "200", NULL, 0, 0);
    const seen *answer = await_token(&r, &r.client, 1);
    submit_bare(&r.client,
                (qg_submission){.op = QG_OP_CANCEL, .conn = r.conn, .token = 1, .code = 0x10c});
    turn(&r);
    CHECK_EQ(qg_stream_write(r.server.engine, e->event.conn, e->event.stream, (uint8_t *)"rest", 4,
                             QG_FIN, 0, 0, &code),
             4);
    turn(&r);
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, answer->event.stream, got, sizeof got, 0, 0,
                            &flags, &code),
             4);
    rig_close(&r);
}

/* ---------------------------------------------------------------- CREDIT and ATTACH */

static void give_credit(rig *r, uint64_t endpoint, uint64_t count) {
    submit_bare(&r->server, (qg_submission){.op = QG_OP_CREDIT, .conn = endpoint, .code = count});
}

TEST(so_many_requests_are_announced_as_there_is_credit) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.credit = 2;
    rig_start(&r, &o);
    for (uint64_t i = 0; i < 6; i++) {
        request(&r, 1 + i, "GET", "/", NULL, 0, QG_FIN);
    }
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 2);
    give_credit(&r, (uint64_t)r.server.endpoint, 1);
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 3);
    give_credit(&r, (uint64_t)r.server.endpoint + 1, 10);
    give_credit(&r, (UINT64_C(1) << 32) + (uint64_t)r.server.endpoint, 10);
    give_credit(&r, UINT64_MAX, 10);
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 3);
    give_credit(&r, (uint64_t)r.server.endpoint, 10);
    turn(&r);
    CHECK_EQ(count_events(&r.server, QG_EVENT_REQUEST), 6);
    CHECK_EQ(r.server.engine->endpoints[r.server.endpoint]->credit, 7);
    CHECK_EQ(answer_all(&r.server), 6);
    for (uint64_t i = 0; i < 6; i++) {
        CHECK_EQ(await_token(&r, &r.client, 1 + i)->event.status, 200);
    }
    rig_close(&r);
}

/* One that was given up before it was announced takes no credit and is not announced. */
TEST(a_request_given_up_before_there_is_credit) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.credit = 0;
    rig_start(&r, &o);
    request(&r, 1, "POST", "/1", NULL, 0, 0);
    request(&r, 2, "GET", "/2", NULL, 0, QG_FIN);
    turn(&r);
    submit_bare(&r.client,
                (qg_submission){.op = QG_OP_CANCEL, .conn = r.conn, .token = 1, .code = 0x10c});
    turn(&r);
    give_credit(&r, (uint64_t)r.server.endpoint, 1);
    const seen *e = next_request(&r);
    CHECK_TEXT(path_of(e), e->event.path_len, "/2");
    rig_close(&r);
}

TEST(attach_names_who_is_told) {
    rig r;
    rig_start(&r, NULL);
    submit_bare(&r.server,
                (qg_submission){.op = QG_OP_ATTACH, .conn = r.server_conn, .token = 4711});
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(next_request(&r)->event.token, 4711);
    submit_bare(&r.server, /* 0: the listener again */
                (qg_submission){.op = QG_OP_ATTACH, .conn = r.server_conn, .token = 0});
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(next_request(&r)->event.token, LISTEN_TOKEN);
    rig_close(&r);
}
