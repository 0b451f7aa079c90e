#include "h3_peer.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- the table of ids */

static uint64_t some_id(uint64_t *random) {
    switch (random_below(random, 3)) {
    case 0: /* as they come: one type, in order */
        return 4 * random_below(random, 200);
    case 1: /* ids that begin at the same place */
        return 4 * 64 * random_below(random, 40) + random_below(random, 4);
    default:
        return random_next(random) >> 2;
    }
}

/* Against a list. */
TEST(streams_by_id) {
    static qg_stream streams[300];
    bool in[300] = {false};
    qg_stream_table table = {0};
    uint64_t random = 7;
    CHECK(qg__streams_find(&table, 0) == NULL);
    for (size_t i = 0; i < COUNT(streams); i++) {
        bool again = true;
        while (again) {
            streams[i].id = some_id(&random);
            again = false;
            for (size_t j = 0; j < i; j++) {
                again |= streams[j].id == streams[i].id;
            }
        }
    }
    for (int step = 0; step < 20000; step++) {
        size_t i = random_below(&random, COUNT(streams));
        check_note("step %d", step);
        if (in[i]) {
            qg__streams_remove(&table, streams[i].id);
        } else {
            CHECK(qg__streams_add(&table, &streams[i]));
        }
        in[i] = !in[i];
        size_t j = random_below(&random, COUNT(streams));
        CHECK(qg__streams_find(&table, streams[j].id) == (in[j] ? &streams[j] : NULL));
        if (step % 1000 == 0) {
            uint32_t count = 0;
            for (size_t k = 0; k < COUNT(streams); k++) {
                CHECK(qg__streams_find(&table, streams[k].id) == (in[k] ? &streams[k] : NULL));
                count += in[k];
            }
            CHECK_EQ(table.count, count);
        }
    }
    qg__streams_remove(&table, UINT64_MAX >> 2); /* is not there */
    free(table.slots);
}

/* ---------------------------------------------------------------- two RAW sides, one stream */

typedef struct line {
    rig r;
    uint64_t stream;
} line;

static void line_open(line *l, rig_options *o) {
    rig_options mine;
    rig_defaults(&mine);
    mine = o != NULL ? *o : mine;
    mine.client.raw = mine.server.raw = 1;
    rig_start(&l->r, &mine);
    l->stream = raw_send(&l->r.client, l->r.conn, true, "!", 1, false);
    await_event(&l->r, &l->r.server, QG_EVENT_STREAM_OPENED);
    uint8_t byte;
    bool fin;
    CHECK_EQ(raw_read(&l->r.server, l->r.server_conn, l->stream, &byte, 1, &fin), 1);
}

/* The server reads. */
static int64_t read_at(line *l, uint64_t token, uint64_t timeout_us) {
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    return qg_stream_read(l->r.server.engine, l->r.server_conn, l->stream, &byte, 1, token,
                          timeout_us, &flags, &code);
}

/* The client writes as much as goes. */
static int64_t write_at(line *l, uint64_t token, uint64_t timeout_us) {
    static const uint8_t lots[100000];
    uint64_t code;
    int64_t n;
    do {
        n = qg_stream_write(l->r.client.engine, l->r.conn, l->stream, lots, sizeof lots, 0, token,
                            timeout_us, &code);
        turn(&l->r);
    } while (n > 0);
    return n;
}

static void say(line *l, const char *text, bool fin) {
    raw_write(&l->r.client, l->r.conn, l->stream, text, strlen(text), fin);
}

/* ---------------------------------------------------------------- waits */

TEST(a_wait_is_answered_once) {
    line l;
    line_open(&l, NULL);
    CHECK_EQ(read_at(&l, 5, 0), QG_AGAIN);
    for (int i = 0; i < 5; i++) { /* nobody reads; more comes */
        say(&l, "x", i == 4);
        turn(&l.r);
    }
    const seen *e = take_token(&l.r.server, 5);
    CHECK_EQ(e->event.type, QG_EVENT_READABLE);
    CHECK_EQ(e->event.conn, l.r.server_conn);
    CHECK_EQ(e->event.stream, l.stream);
    CHECK(take_token(&l.r.server, 5) == NULL);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(read_at(&l, 5, 0), 1);
    }
    CHECK(read_at(&l, 5, 0) != QG_AGAIN);
    turn(&l.r);
    CHECK(take_token(&l.r.server, 5) == NULL);
    rig_close(&l.r);
}

TEST(one_reader_and_one_writer_may_wait) {
    line l;
    line_open(&l, NULL);
    CHECK_EQ(read_at(&l, 5, 0), QG_AGAIN);
    CHECK_EQ(read_at(&l, 6, 0), QG_INVALID);
    CHECK_EQ(read_at(&l, 5, 0), QG_INVALID);
    CHECK_EQ(read_at(&l, 0, 0), QG_AGAIN); /* without a token nobody waits */
    uint64_t code;
    uint8_t byte = 0;
    uint32_t flags;
    CHECK_EQ(qg_stream_read(l.r.client.engine, l.r.conn, l.stream, &byte, 1, 7, 0, &flags, &code),
             QG_AGAIN);
    CHECK_EQ(write_at(&l, 8, 0), QG_AGAIN); /* on the same stream */
    CHECK_EQ(write_at(&l, 9, 0), QG_INVALID);
    CHECK_EQ(await_token(&l.r, &l.r.server, 5)->event.type, QG_EVENT_READABLE);
    CHECK(take_token(&l.r.server, 6) == NULL);
    CHECK(take_token(&l.r.client, 9) == NULL);
    rig_close(&l.r);
}

TEST(a_wait_has_a_deadline) {
    line l;
    line_open(&l, NULL);
    uint64_t begin = qg__now_ns();
    CHECK_EQ(read_at(&l, 5, 30000), QG_AGAIN);
    CHECK_EQ(write_at(&l, 6, 30000), QG_AGAIN);
    CHECK_EQ(await_token(&l.r, &l.r.client, 6)->event.type, QG_EVENT_DEADLINE);
    CHECK(qg__now_ns() - begin >= 25 * QG_NS_PER_MS);
    CHECK_EQ(take_token(&l.r.server, 5)->event.type, QG_EVENT_READABLE);
    CHECK_EQ(write_at(&l, 6, 0), QG_AGAIN); /* nothing else changed */
    char drained[4096];
    bool fin;
    UNTIL(&l.r, (raw_read(&l.r.server, l.r.server_conn, l.stream, drained, sizeof drained, &fin),
                 count_events(&l.r.client, QG_EVENT_WRITABLE) == 1));
    CHECK_EQ(l.r.client.counters.deadlines_passed, 1);
    CHECK_EQ(l.r.server.counters.deadlines_passed, 0);
    rig_close(&l.r);
}

/* What was answered has no deadline any more. */
TEST(a_deadline_goes_with_its_wait) {
    line l;
    line_open(&l, NULL);
    CHECK_EQ(read_at(&l, 5, 20000), QG_AGAIN);
    say(&l, "x", false);
    CHECK_EQ(await_token(&l.r, &l.r.server, 5)->event.type, QG_EVENT_READABLE);
    CHECK_EQ(read_at(&l, 6, 0), 1);
    CHECK_EQ(read_at(&l, 6, 0), QG_AGAIN);
    pass_ms(&l.r, 40);
    CHECK(take_token(&l.r.server, 5) == NULL);
    CHECK(take_token(&l.r.server, 6) == NULL);
    CHECK_EQ(l.r.server.counters.deadlines_passed, 0);
    rig_close(&l.r);
}

TEST(a_wait_that_was_withdrawn) {
    line l;
    line_open(&l, NULL);
    qg_engine *e = l.r.server.engine;
    CHECK_EQ(read_at(&l, 5, 20000), QG_AGAIN);
    CHECK_EQ(qg_stream_unwait(e, l.r.server_conn, l.stream, 6), QG_GONE);
    CHECK_EQ(qg_stream_unwait(e, l.r.server_conn, l.stream, 0), QG_GONE);
    CHECK_EQ(qg_stream_unwait(e, l.r.server_conn, l.stream, 5), QG_OK);
    CHECK_EQ(qg_stream_unwait(e, l.r.server_conn, l.stream, 5), QG_GONE);
    say(&l, "x", false);
    pass_ms(&l.r, 30);
    CHECK(take_token(&l.r.server, 5) == NULL);
    CHECK_EQ(read_at(&l, 6, 0), 1); /* which it left where it was */
    CHECK_EQ(read_at(&l, 6, 0), QG_AGAIN);
    say(&l, "y", false);
    CHECK_EQ(await_token(&l.r, &l.r.server, 6)->event.type, QG_EVENT_READABLE);
    rig_close(&l.r);
}

/* The ring is smaller than the news: nothing is lost and nothing is said twice. */
TEST(more_failures_than_the_ring_has_room_for) {
    enum { STREAMS = 90 }; /* and 64 records */
    rig_options o;
    rig r;
    uint8_t byte;
    uint32_t flags;
    uint64_t code;
    rig_defaults(&o);
    o.client.raw = o.server.raw = 1;
    o.client_engine.events = 64;
    rig_start(&r, &o);
    uint64_t streams[STREAMS];
    for (uint64_t i = 0; i < STREAMS; i++) {
        streams[i] = raw_send(&r.client, r.conn, true, "x", 1, false);
        CHECK_EQ(qg_stream_read(r.client.engine, r.conn, streams[i], &byte, 1, 100 + i, 0, &flags,
                                &code),
                 QG_AGAIN);
    }
    for (uint64_t i = 0; i < STREAMS; i++) {
        CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, streams[i], QG_SIDE_READ, 9), QG_OK);
    }
    for (uint64_t i = 0; i < STREAMS; i++) {
        const seen *e = await_token(&r, &r.client, 100 + i);
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, -QG_STATE);
    }
    CHECK_EQ(count_events(&r.client, QG_EVENT_STREAM_ERROR), 0);
    rig_close(&r);
}

/* ---------------------------------------------------------------- back-pressure */

/* What nobody reads stays in quiche, and the sender stops at the window (invariant 6). */
TEST(a_sender_is_held_up_until_somebody_reads) {
    enum { WINDOW = 50000 };
    rig_options o;
    rig r;
    static uint8_t body[WINDOW], got[WINDOW];
    uint64_t code;
    uint32_t flags;
    size_t sent = 0;
    rig_defaults(&o);
    o.server.initial_max_stream_data_bidi_remote = WINDOW;
    rig_start(&r, &o);
    uint64_t stream = open_request(&r, "POST", "/", 0);
    int64_t n;
    do {
        n = qg_stream_write(r.client.engine, r.conn, stream, body, sizeof body, 0, 5, 0, &code);
        sent += n > 0 ? (size_t)n : 0;
        turn(&r);
    } while (n > 0);
    CHECK_EQ(n, QG_AGAIN);
    CHECK(sent <= WINDOW + QG_INLINE_BODY && sent > WINDOW / 2);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    pass_ms(&r, 20);
    CHECK(take_token(&r.client, 5) == NULL);
    CHECK(e->event.body_len <= QG_INLINE_BODY);
    qg_stream *s = qg__streams_find(&conn_at(&r.server, r.server_conn)->streams, stream);
    CHECK(s->section == NULL && s->out == NULL); /* we keep nothing of it */
    size_t total = e->event.body_len;
    while ((n = qg_stream_read(r.server.engine, r.server_conn, stream, got, sizeof got, 6, 0,
                               &flags, &code)) > 0) {
        total += (size_t)n;
    }
    CHECK_EQ(n, QG_AGAIN);
    CHECK_EQ(total, sent);
    CHECK_EQ(await_token(&r, &r.client, 5)->event.type, QG_EVENT_WRITABLE);
    CHECK(qg_stream_write(r.client.engine, r.conn, stream, body, sizeof body, 0, 5, 0, &code) > 0);
    CHECK_EQ(await_token(&r, &r.server, 6)->event.type, QG_EVENT_READABLE);
    rig_close(&r);
}

/* The connection's window holds up all streams; one that is read lets another go on. */
TEST(the_connections_window) {
    enum { WINDOW = 40000 };
    rig_options o;
    rig r;
    static uint8_t bytes[WINDOW], got[WINDOW];
    uint64_t code;
    uint32_t flags;
    rig_defaults(&o);
    o.client.raw = o.server.raw = 1;
    o.server.initial_max_data = WINDOW;
    rig_start(&r, &o);
    uint64_t a = raw_send(&r.client, r.conn, true, "a", 1, false);
    uint64_t b = raw_send(&r.client, r.conn, true, "b", 1, false);
    size_t sent = 2;
    int64_t n;
    while ((n = qg_stream_write(r.client.engine, r.conn, a, bytes, sizeof bytes, 0, 5, 0, &code)) >
           0) {
        sent += (size_t)n;
        turn(&r);
    }
    CHECK_EQ(n, QG_AGAIN);
    CHECK_EQ(sent, WINDOW);
    CHECK_EQ(qg_stream_write(r.client.engine, r.conn, b, bytes, 5, 0, 6, 0, &code), QG_AGAIN);
    turn(&r);
    CHECK(take_token(&r.client, 6) == NULL);
    while ((n = qg_stream_read(r.server.engine, r.server_conn, a, got, sizeof got, 0, 0, &flags,
                               &code)) > 0) {
    }
    CHECK_EQ(await_token(&r, &r.client, 6)->event.type, QG_EVENT_WRITABLE);
    raw_write(&r.client, r.conn, b, bytes, 5, true);
    rig_close(&r);
}

TEST(codes_that_cannot_be_sent) {
    line l;
    line_open(&l, NULL);
    CHECK_EQ(
        qg_stream_shutdown(l.r.client.engine, l.r.conn, l.stream, QG_SIDE_WRITE, QG_VARINT_MAX + 1),
        QG_INVALID);
    say(&l, "still open", false);
    rig_close(&l.r);
}
