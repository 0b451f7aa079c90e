#include "harness.h"

#include <poll.h>
#include <stdio.h>

/* The smallest rings there may be. */
static void smallest(qg_engine_options *o) {
    o->events = 64;
    o->event_bytes = 512 << 10;
    o->submissions = 16;
    o->submission_bytes = 2 * QG_BODY_INLINE_MAX;
}

/* ---------------------------------------------------------------- options */

TEST(options_out_of_range) {
    qg_engine_options good, bad[9];
    qg_engine_defaults(&good);
    smallest(&good);
    good.max_connections = 1;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bad[i] = good;
    }
    bad[0].abi = QG_ABI + 1;
    bad[1].events = 63;
    bad[2].events = 0;
    bad[3].event_bytes = (512 << 10) - 1;
    bad[4].submissions = 15;
    bad[5].submissions = 0;
    bad[6].submission_bytes = 2 * QG_BODY_INLINE_MAX - 1;
    bad[7].max_connections = 0;
    bad[8] = (qg_engine_options){0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int error = 77;
        check_note("row %zu", i);
        CHECK(qg_engine_new(&bad[i], &error) == NULL);
        CHECK_EQ(error, QG_INVALID);
    }
    int error = 77;
    qg_engine *e = qg_engine_new(&good, &error);
    CHECK(e != NULL);
    CHECK_EQ(error, QG_OK);
    CHECK_EQ(qg_engine_drain(e), 0);
    CHECK_EQ(qg_engine_flush(e), 0);
    CHECK_EQ(qg_engine_submit(e), 0);
    CHECK_EQ(qg_engine_next_timeout(e), UINT64_MAX);
    CHECK(!wakes_within(e, 0));
    qg_engine_free(e);
    qg_engine_free(NULL);
}

TEST(counters_are_where_the_caller_wants_them) {
    qg_engine_options o;
    qg_counters mine = {0};
    qg_engine_memory memory;
    int error;
    qg_engine_defaults(&o);
    o.counters = &mine;
    qg_engine *e = qg_engine_new(&o, &error);
    qg_engine_memory_of(e, &memory);
    CHECK(memory.counters == &mine);
    qg_engine_drain(e);
    qg_engine_flush(e);
    qg_engine_flush(e);
    CHECK_EQ(mine.drains, 1);
    CHECK_EQ(mine.flushes, 2);
    qg_engine_free(e);
    CHECK_EQ(mine.drains, 1); /* and they outlive the engine */
    o.counters = NULL;
    e = qg_engine_new(&o, &error);
    qg_engine_memory_of(e, &memory);
    CHECK(memory.counters != NULL && memory.counters != &mine);
    qg_engine_drain(e);
    CHECK_EQ(memory.counters->drains, 1);
    qg_engine_free(e);
}

/* ---------------------------------------------------------------- a full ring */

/* Drain once, and record: side_turn would go on. */
static int64_t drain_once(side *s, unsigned *seen_of, size_t tokens) {
    int64_t n = qg_engine_drain(s->engine);
    CHECK(n >= 0);
    uint32_t count = (uint32_t)(n & ~(int64_t)QG_DRAIN_MORE);
    CHECK(count <= 64);
    for (uint32_t i = 0; i < count; i++) {
        const qg_event *e = &s->memory.events[i];
        CHECK((uint64_t)e->offset + e->path_len + e->head_len + e->body_len <= 512 << 10);
        if (e->token < tokens) {
            seen_of[e->token]++;
        }
    }
    return n;
}

static void give_credit(rig *r, uint64_t count) {
    submit(&r->server,
           (qg_submission){.op = QG_OP_CREDIT, .conn = (uint64_t)r->server.endpoint, .code = count},
           NULL, 0, NULL, 0);
}

TEST(a_full_ring_stops_the_drain_and_nothing_is_lost) {
    rig_options o;
    rig r;
    unsigned seen_of[100] = {0};
    rig_defaults(&o);
    smallest(&o.server_engine);
    o.listen.credit = 0; /* all of them are there before one is announced */
    rig_start(&r, &o);
    for (unsigned i = 0; i < 100; i++) {
        char path[8];
        snprintf(path, sizeof path, "/%u", i);
        request(&r, 1 + i, "GET", path, NULL, 0, QG_FIN);
    }
    turn(&r);
    give_credit(&r, 100);
    unsigned full = 0;
    int64_t n;
    do {
        n = qg_engine_drain(r.server.engine);
        full += (n & QG_DRAIN_MORE) != 0;
        for (int64_t i = 0; i < (n & 0xffff); i++) {
            const qg_event *e = &r.server.memory.events[i];
            const char *path = (const char *)r.server.memory.event_arena + e->offset;
            unsigned number = 0;
            CHECK_EQ(e->type, QG_EVENT_REQUEST);
            for (uint32_t k = 1; k < e->path_len; k++) {
                number = 10 * number + (unsigned)(path[k] - '0');
            }
            CHECK(number < 100);
            seen_of[number]++;
        }
    } while (n != 0);
    CHECK(full > 0);
    CHECK_EQ(r.server.counters.ring_full, full);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(seen_of[i], 1);
    }
    CHECK_EQ(r.server.counters.requests_received, 100);
    rig_close(&r);
}

/* The arena, too, before the ring is full. */
TEST(a_full_arena_stops_the_drain_and_nothing_is_lost) {
    enum { COUNT = 50, BODY = 12000 };
    static uint8_t body[BODY], expected[BODY];
    rig_options o;
    rig r;
    rig_defaults(&o);
    smallest(&o.server_engine);
    o.listen.credit = 0;
    rig_start(&r, &o);
    for (unsigned i = 0; i < COUNT; i++) {
        fill_pattern(body, sizeof body, i);
        request(&r, 1 + i, "POST", "/", body, sizeof body, QG_FIN);
        turn(&r);
    }
    give_credit(&r, COUNT);
    unsigned full = 0, got = 0;
    int64_t n;
    do {
        n = qg_engine_drain(r.server.engine);
        full += (n & QG_DRAIN_MORE) != 0;
        CHECK((n & 0xffff) < 64);
        for (int64_t i = 0; i < (n & 0xffff); i++) {
            const qg_event *e = &r.server.memory.events[i];
            const uint8_t *at = r.server.memory.event_arena + e->offset + e->path_len + e->head_len;
            fill_pattern(expected, BODY, e->stream / 4);
            CHECK_BYTES(at, e->body_len, expected, BODY);
            CHECK_EQ(e->flags, QG_FIN);
            got++;
        }
    } while (n != 0);
    CHECK_EQ(got, COUNT);
    CHECK(full > 0);
    rig_close(&r);
}

/* A hundred who wait, and the end of their connection. */
TEST(everybody_is_told_of_the_end_however_small_the_ring) {
    rig_options o;
    rig r;
    unsigned seen_of[201] = {0};
    rig_defaults(&o);
    smallest(&o.client_engine);
    rig_start(&r, &o);
    for (unsigned i = 1; i <= 200; i++) { /* half of them behind the limit */
        request(&r, i, "GET", "/", NULL, 0, QG_FIN);
    }
    turn(&r);
    CHECK_EQ(qg_listen_close(r.server.engine, r.server.endpoint, 0x100), QG_OK);
    side_turn(&r.server);
    unsigned full = 0;
    int64_t n;
    do {
        n = drain_once(&r.client, seen_of, 201);
        full += (n & QG_DRAIN_MORE) != 0;
    } while (n != 0);
    CHECK(full >= 3);
    for (unsigned i = 1; i <= 200; i++) {
        check_note("token %u", i);
        CHECK_EQ(seen_of[i], 1);
    }
    CHECK_EQ(r.client.counters.connections, 0);
    rig_close(&r);
}

TEST(deadlines_that_pass_together_are_all_said) {
    rig_options o;
    rig r;
    unsigned seen_of[151] = {0};
    uint8_t head[200];
    rig_defaults(&o);
    smallest(&o.client_engine);
    rig_start(&r, &o);
    size_t len = fields(head, sizeof head, ":method", "GET", ":scheme", "https", ":authority",
                        "a.test", ":path", "/", NULL);
    for (unsigned i = 1; i <= 150; i++) {
        submit(&r.client,
               (qg_submission){.op = QG_OP_REQUEST,
                               .conn = r.conn,
                               .token = i,
                               .flags = QG_FIN,
                               .timeout_us = 5000},
               head, len, NULL, 0);
    }
    CHECK_EQ(qg_engine_submit(r.client.engine), 0);
    poll(NULL, 0, 10); /* for all of them to pass */
    unsigned full = 0;
    int64_t n;
    do {
        n = drain_once(&r.client, seen_of, 151);
        full += (n & QG_DRAIN_MORE) != 0;
    } while (n & QG_DRAIN_MORE);
    CHECK(full >= 2);
    for (unsigned i = 1; i <= 150; i++) {
        check_note("token %u", i);
        CHECK_EQ(seen_of[i], 1);
    }
    CHECK_EQ(r.client.counters.deadlines_passed, 150);
    rig_close(&r);
}

TEST(listeners_that_stop_together_are_all_said) {
    enum { COUNT = 70 };
    rig_options o;
    rig r;
    unsigned seen_of[COUNT + 1] = {0};
    rig_defaults(&o);
    smallest(&o.server_engine);
    rig_open(&r, &o);
    for (unsigned i = 1; i <= COUNT; i++) {
        int ends[2];
        CHECK_EQ(qg_endpoint_pair(r.server.engine, &r.server_addr, r.server.engine, &r.client_addr,
                                  ends),
                 QG_OK);
        o.listen.token = i;
        CHECK_EQ(qg_listen(r.server.engine, ends[0], &o.listen, r.server_config), QG_OK);
        CHECK_EQ(qg_listen_stop(r.server.engine, ends[0], 0), QG_OK);
    }
    CHECK(drain_once(&r.server, seen_of, COUNT + 1) & QG_DRAIN_MORE);
    CHECK_EQ(drain_once(&r.server, seen_of, COUNT + 1), COUNT - 64);
    for (unsigned i = 1; i <= COUNT; i++) {
        CHECK_EQ(seen_of[i], 1);
    }
    rig_close(&r);
}

/* A flush that fills the ring owes the rest, and the descriptor says so. */
TEST(what_a_flush_could_not_say_wakes_the_caller) {
    rig_options o;
    rig r;
    unsigned seen_of[101] = {0};
    rig_defaults(&o);
    smallest(&o.client_engine);
    o.client_engine.submissions = 128;
    rig_open(&r, &o);
    CHECK_EQ(qg_engine_drain(r.client.engine), 0);
    for (unsigned i = 0; i < 100; i++) {
        r.client.memory.submissions[i] =
            (qg_submission){.op = QG_OP_REQUEST, .conn = 5, .token = 1 + i};
    }
    CHECK_EQ(qg_engine_flush(r.client.engine), 64);
    for (unsigned i = 0; i < 64; i++) {
        seen_of[r.client.memory.events[i].token]++;
    }
    CHECK(wakes_within(r.client.engine, 1000));
    CHECK_EQ(drain_once(&r.client, seen_of, 101), 36);
    for (unsigned i = 1; i <= 100; i++) {
        CHECK_EQ(seen_of[i], 1);
    }
    CHECK(!wakes_within(r.client.engine, 0));
    rig_close(&r);
}

/* ---------------------------------------------------------------- how long records live */

TEST(records_stay_until_the_next_drain) {
    rig r;
    rig_start(&r, NULL);
    request(&r, 1, "GET", "/first", NULL, 0, QG_FIN);
    side_turn(&r.client);
    CHECK_EQ(qg_engine_drain(r.server.engine), 1);
    qg_event first = r.server.memory.events[0];
    CHECK_EQ(first.type, QG_EVENT_REQUEST);
    request(&r, 2, "GET", "/second", NULL, 0, QG_FIN);
    side_turn(&r.client);
    qg_engine_set_spin(r.server.engine, 1000);
    r.server.memory.submissions[r.server.next_op++] =
        (qg_submission){.op = QG_OP_REQUEST, .conn = 5, .token = 9};
    CHECK_EQ(qg_engine_submit(r.server.engine), 1); /* takes it, and says nothing yet */
    CHECK_EQ(qg_engine_flush(r.server.engine), 2);  /* behind the first one; no spin */
    CHECK_EQ(r.server.counters.spins, 0);
    CHECK_BYTES(&r.server.memory.events[0], sizeof first, &first, sizeof first);
    CHECK_TEXT(r.server.memory.event_arena + first.offset, first.path_len, "/first");
    CHECK_EQ(r.server.memory.events[1].token, 9);
    CHECK_EQ(qg_engine_drain(r.server.engine), 1);
    first = r.server.memory.events[0];
    CHECK_TEXT(r.server.memory.event_arena + first.offset, first.path_len, "/second");
    CHECK_EQ(first.offset, 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- what a turn takes */

/* So many buffers a turn; the rest waits in the socket, and the descriptor says so. */
static void check_share(rig *r) {
    for (unsigned i = 0; i < 100; i++) {
        uint8_t junk[] = {0x40, 1, 2, 3};
        uint8_t *room = datapath_of(&r->client)->ops->begin(datapath_of(&r->client));
        memcpy(room, junk, sizeof junk);
        datapath_of(&r->client)
            ->ops->commit(datapath_of(&r->client), sizeof junk, sizeof junk, &r->client_addr,
                          &r->server_addr);
    }
    datapath_of(&r->client)->ops->flush(datapath_of(&r->client));
    for (unsigned turns = 1; turns <= 4; turns++) {
        CHECK(wakes_within(r->server.engine, 1000));
        CHECK_EQ(qg_engine_drain(r->server.engine), 0);
        CHECK_EQ(r->server.counters.datagrams_junk, turns < 4 ? 32 * turns : 100);
    }
    CHECK(!wakes_within(r->server.engine, 0));
}

TEST(a_turn_takes_only_so_much) {
    rig r;
    rig_open(&r, NULL);
    check_share(&r);
    rig_close(&r);
}

TEST(a_turn_takes_only_so_much_of_each_endpoint) {
    rig r;
    int ends[2];
    rig_open(&r, NULL);
    CHECK_EQ(
        qg_endpoint_pair(r.server.engine, &r.server_addr, r.server.engine, &r.client_addr, ends),
        QG_OK);
    check_share(&r);
    rig_close(&r);
}

/* ---------------------------------------------------------------- time */

/* With nothing else to wake it, the descriptor is readable when a deadline is due, and quiet again
 * once it was said. */
TEST(the_descriptor_wakes_for_a_deadline) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_start(&r, NULL);
    uint64_t stream = open_request(&r, "GET", "/", QG_FIN);
    turn(&r);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    respond(&r.server, e, "200", NULL, 0, 0);
    pass_ms(&r, 60); /* for acknowledgements and whatever else is due */
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 5, 0), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 5)->event.type, QG_EVENT_RESPONSE);
    turn(&r);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(qg_stream_read(r.client.engine, r.conn, stream, &byte, 1, 6, 30000, &flags, &code),
             QG_AGAIN);
    side_turn(&r.client);
    CHECK(qg_engine_next_timeout(r.client.engine) <= qg__now_ns() + 30 * QG_NS_PER_MS);
    unsigned wakes = 0;
    do {
        CHECK(wakes_within(r.client.engine, 5000));
        side_turn(&r.client);
        wakes++;
    } while ((e = take_token(&r.client, 6)) == NULL);
    CHECK_EQ(e->event.type, QG_EVENT_DEADLINE);
    CHECK_EQ(e->event.stream, stream);
    CHECK(qg__now_ns() - begin >= 30 * QG_NS_PER_MS);
    CHECK(wakes < 20); /* it does not stay readable */
    CHECK_EQ(r.client.counters.deadlines_passed, 1);
    rig_close(&r);
}

/* A later deadline does not move an earlier one, an earlier one comes first, and one that is
 * withdrawn wakes nobody for long. */
TEST(deadlines_are_said_in_their_order) {
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code, streams[3];
    static const uint64_t after_us[] = {40000, 20000, 30000};
    rig_start(&r, NULL);
    for (unsigned i = 0; i < 3; i++) {
        streams[i] = open_request(&r, "POST", "/", 0);
    }
    turn(&r);
    for (unsigned i = 0; i < 3; i++) {
        const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
        CHECK_EQ(qg_stream_read(r.server.engine, e->event.conn, e->event.stream, &byte, 1, 10 + i,
                                after_us[i], &flags, &code),
                 QG_AGAIN);
        streams[i] = e->event.stream;
    }
    CHECK_EQ(qg_stream_unwait(r.server.engine, r.server_conn, streams[2], 12), QG_OK);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_DEADLINE)->event.token, 11);
    CHECK_EQ(await_event(&r, &r.server, QG_EVENT_DEADLINE)->event.token, 10);
    CHECK(take_token(&r.server, 12) == NULL);
    rig_close(&r);
}

static bool in_flight(rig *r) {
    side_turn(&r->client);
    return wakes_within(r->server.engine, 0);
}

TEST(a_spin_takes_what_comes) {
    rig r;
    rig_start(&r, NULL);
    CHECK_EQ(r.server.counters.spins, 0);
    qg_engine_set_spin(r.server.engine, 2000000);
    request(&r, 1, "GET", "/spun", NULL, 0, QG_FIN);
    CHECK(in_flight(&r));
    qg_engine_drain(r.client.engine);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(qg_engine_flush(r.server.engine), 1); /* an event of a flush */
    CHECK(qg__now_ns() - begin < 2 * QG_NS_PER_S);
    CHECK_EQ(r.server.memory.events[0].type, QG_EVENT_REQUEST);
    CHECK_TEXT(r.server.memory.event_arena, r.server.memory.events[0].path_len, "/spun");
    CHECK_EQ(r.server.counters.spins, 1);
    CHECK_EQ(r.server.counters.spin_hits, 1);
    CHECK(wakes_within(r.client.engine, 0)); /* and the acknowledgement has left */
    rig_close(&r);
}

TEST(a_spin_ends_by_itself) {
    rig r;
    rig_open(&r, NULL);
    qg_engine_set_spin(r.server.engine, 3000);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(qg_engine_flush(r.server.engine), 0);
    CHECK(qg__now_ns() - begin >= 3 * QG_NS_PER_MS);
    CHECK_EQ(r.server.counters.spins, 1);
    CHECK_EQ(r.server.counters.spin_hits, 0);
    qg_engine_set_spin(r.server.engine, 0);
    CHECK_EQ(qg_engine_flush(r.server.engine), 0);
    CHECK_EQ(r.server.counters.spins, 1);
    rig_close(&r);
}

/* RFC 9110, section 6.6.1. */
TEST(the_date_is_the_wall_clocks) {
    rig r;
    rig_start(&r, NULL);
    time_t before = time(NULL);
    request(&r, 1, "GET", "/", NULL, 0, QG_FIN);
    respond(&r.server, await_event(&r, &r.server, QG_EVENT_REQUEST), "200", NULL, 0,
            QG_FIN | QG_DATE);
    const seen *e = await_token(&r, &r.client, 1);
    const char *date = field_of(e, "date");
    struct tm tm = {0};
    CHECK(date != NULL);
    const char *rest = strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    CHECK(rest != NULL && *rest == '\0');
    CHECK_EQ(strlen(date), 29);
    time_t said = timegm(&tm);
    CHECK(said >= before && said <= time(NULL));
    rig_close(&r);
}

TEST(the_key_ring_turns_with_the_wall_clock) {
    rig_options o;
    rig r;
    qg_keys *keys = qg_keys_new(NULL, 10, 2, qg__wall_s() - 1000);
    rig_defaults(&o);
    o.server_engine.keys = keys;
    rig_open(&r, &o);
    side_turn(&r.server);
    CHECK(qg_keys_rotate(keys, 0) >= 100);
    qg_keys_free(keys);
    side_turn(&r.server); /* the engine has a reference of its own */
    rig_close(&r);
}

TEST(a_bucket) {
    qg_bucket b = {0};
    uint64_t now = 5 * QG_NS_PER_S;
    for (unsigned i = 0; i < 3; i++) {
        CHECK(qg__bucket_take(&b, now, 3, 10));
    }
    CHECK(!qg__bucket_take(&b, now, 3, 10));
    CHECK(!qg__bucket_take(&b, now + 60 * QG_NS_PER_MS, 3, 10));
    CHECK(qg__bucket_take(&b, now + 120 * QG_NS_PER_MS, 3, 10));
    CHECK(!qg__bucket_take(&b, now + 120 * QG_NS_PER_MS, 3, 10));
    now += 100 * QG_NS_PER_S; /* it holds no more than a burst */
    for (unsigned i = 0; i < 3; i++) {
        CHECK(qg__bucket_take(&b, now, 3, 10));
    }
    CHECK(!qg__bucket_take(&b, now, 3, 10));
}
