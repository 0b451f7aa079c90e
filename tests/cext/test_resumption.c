/* Tickets, and connections that take up a session. Early data: test_resumption_client.c,
 * test_resumption_server.c, test_resumption_refused.c. */
#include "resumption.h"

#include <stdlib.h>

#include "early.h"
#include "h3_peer.h"

/* ---------------------------------------------------------------- QG_EVENT_TICKET */

/* An HTTP/3 client, and a server that plays byte by byte and has keys. */
static void open_played(rig *r, qg_keys **keys) {
    rig_options o;
    rig_raw_server(&o);
    *keys = qg_keys_new(NULL, 1000, 3, qg__wall_s());
    o.tickets = *keys;
    o.take_tickets = true;
    rig_start(r, &o);
}

static void say_settings(rig *r, uint64_t max_field_section, bool extended) {
    wire settings = {0}, w = {0};
    put_number(&settings, 0x6);
    put_number(&settings, max_field_section);
    if (extended) {
        put_number(&settings, 0x8);
        put_number(&settings, 1);
    }
    put_number(&w, 0); /* a control stream */
    put_frame(&w, SETTINGS, settings.data, settings.len);
    peer_open(r, false, &w, false);
}

/* What the server's SETTINGS say is part of a ticket, so it is told after they came. */
TEST(a_ticket_is_told_after_the_settings) {
    rig r;
    qg_keys *keys;
    qg_remembered remembered;
    size_t len;
    open_played(&r, &keys);
    UNTIL(&r, conn_at(&r.client, r.conn)->handshake.ticket_count == 2);
    turn(&r);
    CHECK(take_event(&r.client, QG_EVENT_TICKET) == NULL);
    say_settings(&r, 4096, true);
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_TICKET), 2);
    const seen *e;
    while ((e = take_event(&r.client, QG_EVENT_TICKET)) != NULL) {
        CHECK_EQ(e->event.token, CONN_TOKEN);
        CHECK_EQ(e->event.conn, r.conn);
        CHECK_EQ(e->event.value, 2000); /* (3 - 1) * 1000 s */
        CHECK_EQ(e->event.flags, 0);    /* the server takes no early data */
        CHECK(qg__ticket_open(head_of(e), e->event.head_len, &remembered, &len) != NULL);
        CHECK_EQ(remembered.max_field_section_size, 4096);
        CHECK(remembered.extended_connect);
    }
    rig_close(&r);
    qg_keys_free(keys);
}

TEST(a_full_ring_delays_tickets_and_loses_none) {
    rig r;
    qg_keys *keys;
    open_played(&r, &keys);
    qg_conn *conn = conn_at(&r.client, r.conn);
    UNTIL(&r, conn->handshake.ticket_count == 2);
    conn->h3.settings_seen = true;
    qg_events *events = &r.client.engine->events;
    uint32_t count = events->count, used = events->used;
    events->count = events->capacity;
    CHECK(!qg__conn_say_tickets(conn));
    events->count = count;
    events->used = events->bytes - 10; /* no room for its bytes */
    CHECK(!qg__conn_say_tickets(conn));
    events->used = used;
    CHECK_EQ(conn->handshake.ticket_count, 2);
    qg__conn_touch(conn);
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_TICKET), 2);
    CHECK_EQ(conn->handshake.ticket_count, 0);
    rig_close(&r);
    qg_keys_free(keys);
}

/* In the smallest ring that there may be, between all else that happens. */
TEST(tickets_among_many_events) {
    rig_options o;
    early e;
    early_options(&o);
    o.client_engine.events = 64;
    early_open(&e, &o);
    SSL_CTX_set_num_tickets(e.r.server_tls->ctx, QG_TICKETS_KEPT);
    e.r.conn = rig_dial(&e.r);
    for (unsigned i = 0; i < 100; i++) {
        request(&e.r, 1 + i, "GET", "/", NULL, 0, QG_FIN);
    }
    UNTIL(&e.r, (answer_all(&e.r.server), e.r.client.counters.responses_received == 100));
    UNTIL(&e.r, count_events(&e.r.client, QG_EVENT_TICKET) == QG_TICKETS_KEPT);
    early_close(&e);
}

/* ---------------------------------------------------------------- taking it up */

TEST(a_ticket_resumes) {
    early e;
    ticket t;
    qg_conn_info info;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned i = 0; i < 3; i++) { /* the caller decides how often */
        dial_with(&e.r, &t, false);
        exchange(&e.r, 1 + i);
        check_session(&e.r, true, QG_EARLY_NONE, NULL);
        CHECK_EQ(qg_conn_info_of(e.r.client.engine, e.r.conn, &info), QG_OK);
        CHECK(info.is_resumed && info.is_established);
        CHECK_EQ(e.r.client.counters.handshakes_resumed, 1 + i);
        CHECK_EQ(e.r.server.counters.handshakes_resumed, 1 + i);
    }
    CHECK_EQ(e.r.client.counters.handshakes_completed, 4);
    early_close(&e);
}

TEST(a_raw_connection_resumes) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.client.raw = o.server.raw = 1;
    o.client_alpn = o.server_alpn = ALPN_RAW;
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    dial_with(&e.r, &t, false);
    CHECK_EQ(await_event(&e.r, &e.r.client, QG_EVENT_CONNECTED)->event.conn, e.r.conn);
    check_session(&e.r, true, QG_EARLY_NONE, NULL);
    early_close(&e);
}

/* Another name's ticket is refused by the server, in a full handshake. */
TEST(a_ticket_of_another_name) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    e.r.server_name = "localhost";
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/1");
    check_answer(&e.r, 1, "/1");
    check_session(&e.r, false, QG_EARLY_REFUSED, NULL);
    early_close(&e);
}

/* Keys go on; their tickets live as long as the window, early data included, and no longer. */
TEST(a_ticket_and_the_ring_of_keys) {
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned epoch = 0; epoch < 5; epoch++) {
        check_note("epoch %u", epoch);
        qg_keys_rotate(e.keys, qg__wall_s() + epoch * 1000);
        dial_with(&e.r, &t, true);
        get_early(&e.r, 1, "/1");
        check_answer(&e.r, 1, "/1");
        check_session(&e.r, epoch < 3, epoch < 3 ? QG_EARLY_ACCEPTED : QG_EARLY_REFUSED, NULL);
    }
    early_close(&e);
}

/* ---------------------------------------------------------------- what is no ticket */

/* A connection that was offered this goes on without: nothing of it is on the wire. */
static void goes_on_without(early *e, const char *name, const uint8_t *bytes, size_t len) {
    check_note("%s", name);
    e->r.conn = rig_dial(&e->r);
    CHECK_EQ(qg_conn_resume(e->r.client.engine, e->r.conn, bytes, len, 1), QG_INVALID);
    get_early(&e->r, 1, "/1");
    check_answer(&e->r, 1, "/1");
    check_session(&e->r, false, QG_EARLY_NONE, NULL);
    CHECK_EQ(qg_conn_close(e->r.client.engine, e->r.conn, 1, H3_NO_ERROR, NULL, 0), QG_OK);
    turn(&e->r);
}

/* The same ticket with another form of the session, sealed. */
static void goes_on_without_form(early *e, const char *name, const uint8_t *form, size_t len) {
    qg_ticket *t = calloc(1, sizeof *t + QG_TICKET_HEADER + len);
    t->len = QG_TICKET_HEADER + (uint32_t)len;
    memcpy(t->bytes + QG_TICKET_HEADER, form, len);
    qg__ticket_seal(t, &(qg_remembered){QG_NEVER, false});
    goes_on_without(e, name, t->bytes, t->len);
    free(t);
}

TEST(what_is_no_ticket) {
    static uint8_t large[QG_TICKET_MAX + 1];
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    goes_on_without(&e, "nothing", t.bytes, 0);
    goes_on_without(&e, "a word", (const uint8_t *)"ticket", 6);
    goes_on_without(&e, "a header", t.bytes, QG_TICKET_HEADER);
    goes_on_without(&e, "half of one", t.bytes, t.len / 2);
    goes_on_without(&e, "all but a byte", t.bytes, t.len - 1);
    memcpy(large, t.bytes, t.len);
    goes_on_without(&e, "one too long", large, sizeof large);
    t.bytes[3]++;
    goes_on_without(&e, "another version", t.bytes, t.len);
    t.bytes[3]--;
    /* Somewhere in the middle stands the secret: a server would fail the handshake over it. */
    for (size_t at = QG_TICKET_HEADER; at < t.len; at += 13) {
        t.bytes[at] ^= 1;
        goes_on_without(&e, "one that was altered", t.bytes, t.len);
        t.bytes[at] ^= 1;
    }
    early_close(&e);
}

/* Sealed as it should be, by somebody who sealed nonsense. */
TEST(what_is_no_session) {
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    const uint8_t *form = t.bytes + QG_TICKET_HEADER;
    size_t len = t.len - QG_TICKET_HEADER, session_len = 8 + (size_t)qg__get64(form);
    goes_on_without_form(&e, "noise", (const uint8_t *)"\1\2\3\4\5\6\7\10\11\12", 10);
    goes_on_without_form(&e, "a cut session", form, session_len - 5);
    goes_on_without_form(&e, "without parameters", form, session_len);
    goes_on_without_form(&e, "with cut parameters", form, len - 3);
    early_close(&e);
}

/* ---------------------------------------------------------------- promises */

/* The ticket as another server would have given it. */
static void dial_remembering(early *e, const ticket *t, const qg_remembered *remembered) {
    qg_ticket *sealed = calloc(1, sizeof *sealed + t->len);
    sealed->len = (uint32_t)t->len;
    memcpy(sealed->bytes, t->bytes, t->len);
    qg__ticket_seal(sealed, remembered);
    e->r.conn = rig_dial(&e->r);
    CHECK_EQ(qg_conn_resume(e->r.client.engine, e->r.conn, sealed->bytes, sealed->len, 1), QG_OK);
    free(sealed);
}

/* RFC 9114, section 7.2.4.2: who takes early data stands by the settings that it was sent under. */
TEST(a_server_that_lowers_a_limit_after_it_took_early_data) {
    static const qg_remembered rows[] = {{QG_NEVER, false}, {32769, false}, {1024, true}};
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    for (unsigned i = 0; i < 3; i++) {
        check_note("row %u", i);
        dial_remembering(&e, &t, &rows[i]);
        get_early(&e.r, 1 + i, "/");
        await_closed(&e.r, &e.r.client, H3_SETTINGS_ERROR, QG_APP | QG_ESTABLISHED);
        await_token(&e.r, &e.r.client, 1 + i);
        while (take_event(&e.r.server, QG_EVENT_REQUEST) != NULL) {
        }
    }
    dial_remembering(&e, &t, &(qg_remembered){32768, false}); /* as it was */
    get_early(&e.r, 5, "/");
    check_answer(&e.r, 5, "/");
    dial_remembering(&e, &t, &(qg_remembered){1024, false}); /* a limit that was raised */
    get_early(&e.r, 6, "/");
    check_answer(&e.r, 6, "/");
    early_close(&e);
}

/* Where none was taken nothing was promised. */
TEST(a_server_that_lowers_a_limit_and_took_no_early_data) {
    early e;
    ticket t;
    early_open(&e, NULL);
    earn_ticket(&e.r, &t);
    dial_remembering(&e, &t, &(qg_remembered){QG_NEVER, true});
    request(&e.r, 1, "GET", "/1", NULL, 0, QG_FIN); /* none was sent */
    check_answer(&e.r, 1, "/1");
    qg_replay_free(e.replay);
    e.replay = NULL;
    early_again(&e, NULL);
    dial_remembering(&e, &t, &(qg_remembered){QG_NEVER, true});
    get_early(&e.r, 1, "/1"); /* it was refused */
    check_answer(&e.r, 1, "/1");
    check_session(&e.r, true, QG_EARLY_REFUSED, NULL);
    early_close(&e);
}

/* What the ticket remembers counts until SETTINGS come. */
TEST(settings_are_known_while_early) {
    rig_options o;
    early e;
    ticket t;
    qg_conn_info info;
    early_options(&o);
    o.server.extended_connect = 1;
    start_early(&e, &o, &t);
    side_turn(&e.r.client);
    CHECK_EQ(qg_conn_info_of(e.r.client.engine, e.r.conn, &info), QG_OK);
    CHECK_EQ(info.is_established, 0);
    CHECK_EQ(info.extended_connect, 1);
    CHECK_EQ(info.streams_left, o.server.initial_max_streams_bidi);
    early_close(&e);
}
