#include "session.h"

#include <openssl/ssl.h>
#include <stdlib.h>

#include "early.h"

/* ---------------------------------------------------------------- the form of a ticket */

#define FORM "what quiche made of a session"

static qg_ticket *made(const qg_remembered *remembered) {
    qg_ticket *t = calloc(1, sizeof *t + QG_TICKET_HEADER + strlen(FORM));
    t->len = QG_TICKET_HEADER + (uint32_t)strlen(FORM);
    memcpy(t->bytes + QG_TICKET_HEADER, FORM, strlen(FORM));
    qg__ticket_seal(t, remembered);
    return t;
}

TEST(what_is_sealed_can_be_opened) {
    static const qg_remembered rows[] = {
        {QG_NEVER, false}, {0, true}, {16384, true}, {UINT64_C(0x0102030405060708), false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qg_ticket *t = made(&rows[i]);
        qg_remembered got = {1, !rows[i].extended_connect};
        size_t len = 0;
        const uint8_t *form = qg__ticket_open(t->bytes, t->len, &got, &len);
        CHECK(form != NULL);
        CHECK_TEXT(form, len, FORM);
        CHECK_EQ(got.max_field_section_size, rows[i].max_field_section_size);
        CHECK_EQ(got.extended_connect, rows[i].extended_connect);
        free(t);
    }
}

/* Tickets are kept for days and by other processes: the layout is a contract. */
TEST(the_header) {
    qg_ticket *t = made(&(qg_remembered){UINT64_C(0x0102030405060708), true});
    CHECK_BYTES(t->bytes, 16, "QGS1\0\0\0\x01\x01\x02\x03\x04\x05\x06\x07\x08", 16);
    CHECK_TEXT(t->bytes + 24, t->len - 24, FORM);
    free(t);
}

TEST(a_ticket_that_was_cut_or_altered) {
    qg_ticket *t = made(&(qg_remembered){16384, false});
    qg_remembered got;
    size_t len;
    for (uint32_t n = 0; n < t->len; n++) {
        check_note("cut to %u", n);
        CHECK(qg__ticket_open(t->bytes, n, &got, &len) == NULL);
    }
    for (uint32_t bit = 0; bit < 8 * t->len; bit++) {
        check_note("bit %u", bit);
        t->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(qg__ticket_open(t->bytes, t->len, &got, &len) == NULL);
        t->bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(qg__ticket_open(t->bytes, t->len, &got, &len) != NULL);
    free(t);
}

TEST(the_longest_ticket) {
    qg_ticket *t = calloc(1, sizeof *t + QG_TICKET_MAX + 1);
    qg_remembered got;
    size_t len;
    for (uint32_t more = 0; more < 2; more++) {
        t->len = QG_TICKET_MAX + more;
        qg__ticket_seal(t, &(qg_remembered){0, false});
        CHECK_EQ(qg__ticket_open(t->bytes, t->len, &got, &len) != NULL, more == 0);
    }
    free(t);
}

/* ---------------------------------------------------------------- what is kept */

/* A server's chain, some kB, is no part of a ticket; what resumes with it has all that is needed. */
TEST(certificates_are_left_out) {
    rig_options o;
    early e;
    ticket small, large;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &small);
    o.chain = 12;
    o.verify = true;
    early_again(&e, &o);
    earn_ticket(&e.r, &large);
    CHECK(large.len <= small.len + 8); /* numbers of another length */
    CHECK(large.len < 900);
    dial_with(&e.r, &large, false);
    await_event(&e.r, &e.r.client, QG_EVENT_CONNECTED);
    check_session(&e.r, true, QG_EARLY_NONE, NULL);
    exchange(&e.r, 1);
    early_close(&e);
}

/* The name that a ticket was verified for goes along: it is not verified again. */
TEST(a_ticket_has_the_result_of_the_verification) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.verify = true;
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    dial_with(&e.r, &t, false);
    await_event(&e.r, &e.r.client, QG_EVENT_CONNECTED);
    CHECK_EQ(SSL_get_verify_result(conn_at(&e.r.client, e.r.conn)->ssl), X509_V_OK);
    early_close(&e);
}

/* As many as a server likes to send: those that nobody was told of do not pile up. */
TEST(tickets_that_are_kept_are_bounded) {
    rig r;
    rig_options o;
    rig_defaults(&o);
    qg_keys *keys = qg_keys_new(NULL, 1000, 2, qg__wall_s());
    o.take_tickets = true;
    o.tickets = keys;
    rig_open(&r, &o);
    SSL_CTX_set_num_tickets(r.server_tls->ctx, 16);
    r.conn = rig_dial(&r);
    qg_conn *conn = conn_at(&r.client, r.conn);
    uint64_t token = conn->token;
    conn->token = 0; /* nobody to tell */
    UNTIL(&r, conn->handshake.ticket_count > 0);
    pass_ms(&r, 20);
    CHECK_EQ(conn->handshake.ticket_count, QG_TICKETS_KEPT);
    CHECK(take_event(&r.client, QG_EVENT_TICKET) == NULL);
    conn->token = token; /* somebody came */
    qg__conn_touch(conn);
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_TICKET), QG_TICKETS_KEPT);
    CHECK(conn->handshake.tickets == NULL);
    rig_close(&r);
    qg_keys_free(keys);
}

/* What nobody took is freed with the connection; the sanitizer looks. */
TEST(tickets_of_a_connection_that_goes) {
    rig r;
    rig_options o;
    rig_defaults(&o);
    qg_keys *keys = qg_keys_new(NULL, 1000, 2, qg__wall_s());
    o.take_tickets = true;
    o.tickets = keys;
    rig_open(&r, &o);
    r.conn = rig_dial(&r);
    qg_conn *conn = conn_at(&r.client, r.conn);
    conn->token = 0;
    UNTIL(&r, conn->handshake.ticket_count > 0);
    rig_close(&r);
    qg_keys_free(keys);
}

TEST(a_client_that_wants_no_tickets_gets_none) {
    rig r;
    rig_options o;
    rig_defaults(&o);
    qg_keys *keys = qg_keys_new(NULL, 1000, 2, qg__wall_s());
    o.tickets = keys;
    rig_start(&r, &o);
    exchange(&r, 1);
    pass_ms(&r, 5);
    CHECK(conn_at(&r.client, r.conn)->handshake.tickets == NULL);
    CHECK(take_event(&r.client, QG_EVENT_TICKET) == NULL);
    rig_close(&r);
    qg_keys_free(keys);
}
