#include "harness.h"

#include <stdlib.h>

/* What an engine sends, kept instead of sent. */
typedef struct wire {
    uint8_t data[64][1500];
    size_t len[64];
    unsigned count;
    bool deliver; /* all the same */
} wire;

static wire caught;

static bool catch_packet(void *arg, uint8_t *data, size_t len) {
    (void)arg;
    if (caught.count < 64 && len <= sizeof caught.data[0]) {
        memcpy(caught.data[caught.count], data, len);
        caught.len[caught.count++] = len;
    }
    return caught.deliver;
}

static void catch_from(const side *s) {
    caught.count = 0;
    caught.deliver = false;
    qg__pair_set_filter(datapath_of(s), catch_packet, NULL);
}

/* From a stranger to the server; what it answers is caught. */
static void inject(rig *r, const void *data, size_t len) {
    uint8_t *copy = malloc(len > 0 ? len : 1); /* exact, for the sanitizer */
    qg__copy(copy, data, len);
    qg_addr from;
    qg_addr_parse(&from, "198.51.100.7", 5555);
    CHECK_EQ(
        qg_engine_inject(r->server.engine, r->server.endpoint, copy, len, &from, &r->server_addr),
        QG_OK);
    free(copy);
    side_turn(&r->server);
}

static void check_nothing_kept(const rig *r) {
    CHECK_EQ(r->server.counters.connections, 0);
    CHECK_EQ(r->server.counters.connections_accepted, 0);
    CHECK_EQ(r->server.engine->initial_cids.count, 0);
    CHECK_EQ(r->server.engine->cids.count, 0);
    CHECK_EQ(r->server.engine->timers.count, 0);
    CHECK_EQ(r->server.engine->endpoints[r->server.endpoint]->half_open, 0);
    CHECK_EQ(caught.count, 0);
}

static void open_deaf(rig *r, const rig_options *o) {
    rig_open(r, o);
    catch_from(&r->server);
}

#define VERSION_1 "\x00\x00\x00\x01"

/* A long header of `len` bytes with ids of these lengths and, for an Initial, no token. */
static size_t long_packet(uint8_t *out, uint8_t first, const char *version, uint8_t dcid_len,
                          uint8_t scid_len, size_t len) {
    memset(out, 0x77, len);
    out[0] = first;
    memcpy(out + 1, version, 4);
    out[5] = dcid_len;
    memset(out + 6, 0xdd, dcid_len);
    out[6 + dcid_len] = scid_len;
    memset(out + 7 + dcid_len, 0x5c, scid_len);
    out[7 + dcid_len + scid_len] = 0;
    return len;
}

TEST(junk_costs_a_look_and_leaves_nothing) {
    rig r;
    uint8_t data[1500];
    uint64_t random = 5, count = 0;
    open_deaf(&r, NULL);
    for (size_t len = 0; len < 21; len++, count++) { /* shorter than any packet */
        memset(data, 0xc0, sizeof data);
        inject(&r, data, len);
    }
    for (int i = 0; i < 2000; i++, count++) {
        size_t len = random_below(&random, sizeof data);
        random_bytes(&random, data, len);
        data[0] &= 0x3f; /* neither a long header nor the fixed bit */
        inject(&r, data, len);
    }
    CHECK_EQ(r.server.counters.datagrams_junk, count);
    CHECK_EQ(r.server.counters.datagrams_received, count);
    check_nothing_kept(&r);
    rig_close(&r);
}

TEST(long_headers_that_are_cut_short_or_lie) {
    rig r;
    uint8_t data[1500];
    open_deaf(&r, NULL);
    for (unsigned dcid_len = 0; dcid_len < 256; dcid_len += 5) {
        for (unsigned scid_len = 0; scid_len < 256; scid_len += 5) {
            for (size_t len = 21; len < 60; len += 3) {
                size_t n = long_packet(data, 0xc0, VERSION_1, 8, 8, 1200);
                data[5] = (uint8_t)dcid_len;
                data[qg__min(6u + dcid_len, n - 1)] = (uint8_t)scid_len;
                inject(&r, data, len);
            }
        }
    }
    long_packet(data, 0xc0, VERSION_1, 8, 8, 1200);
    memset(data + 23, 0xff, 8); /* a token longer than the datagram */
    inject(&r, data, 1200);
    check_nothing_kept(&r);
    rig_close(&r);
}

TEST(what_is_no_clients_first_packet) {
    rig r;
    uint8_t data[1500];
    open_deaf(&r, NULL);
    inject(&r, data, long_packet(data, 0xc0, VERSION_1, 8, 8, 1199)); /* RFC 9000, section 14.1 */
    inject(&r, data, long_packet(data, 0xc0, VERSION_1, 7, 8, 1200)); /* section 7.2 */
    inject(&r, data, long_packet(data, 0x80, VERSION_1, 8, 8, 1200)); /* no fixed bit */
    inject(&r, data, long_packet(data, 0xd0, VERSION_1, 8, 8, 1200)); /* 0-RTT */
    inject(&r, data, long_packet(data, 0xe0, VERSION_1, 8, 8, 1200)); /* Handshake */
    inject(&r, data, long_packet(data, 0xf0, VERSION_1, 8, 8, 1200)); /* Retry */
    CHECK_EQ(r.server.counters.datagrams_junk, 6);
    inject(&r, data, long_packet(data, 0xc0, VERSION_1, 8, 8, 1200)); /* does not decrypt */
    CHECK_EQ(r.server.counters.datagrams_junk, 7);
    check_nothing_kept(&r);
    rig_close(&r);
}

/* RFC 9000, section 17.2.1; RFC 8999, section 6. */
TEST(version_negotiation) {
    rig r;
    uint8_t data[1500], expected[64] = {0};
    open_deaf(&r, NULL);
    inject(&r, data, long_packet(data, 0xc0, "\x1a\x2a\x3a\x4a", 9, 5, 1199));
    inject(&r, data, long_packet(data, 0x80, "\x00\x00\x00\x00", 9, 5, 1200)); /* itself one */
    CHECK_EQ(caught.count, 0);
    inject(&r, data, long_packet(data, 0xc0, "\x1a\x2a\x3a\x4a", 9, 5, 1200));
    CHECK_EQ(caught.count, 1);
    CHECK_EQ(r.server.counters.versions_sent, 1);
    CHECK(caught.data[0][0] & 0x80);
    uint8_t *at = expected + 5; /* version 0 stands before */
    *at++ = 5;
    memset(at, 0x5c, 5);
    at += 5;
    *at++ = 9;
    memset(at, 0xdd, 9);
    at += 9;
    memcpy(at, VERSION_1, 4);
    at += 4;
    CHECK_BYTES(caught.data[0] + 1, caught.len[0] - 1, expected + 1, (size_t)(at - expected) - 1);
    caught.count = 0;
    check_nothing_kept(&r);
    rig_close(&r);
}

/* At most so many at once, and a second: see acceptor.c. */
static void check_rationed(uint64_t sent) {
    CHECK(sent >= 100);
    CHECK(sent < 1000);
}

TEST(version_negotiation_is_rationed) {
    rig r;
    uint8_t data[1500];
    open_deaf(&r, NULL);
    uint64_t begin = qg__now_ns();
    for (int i = 0; i < 3000; i++) {
        inject(&r, data, long_packet(data, 0xc0, "\x1a\x2a\x3a\x4a", 9, 5, 1200));
    }
    if (qg__now_ns() - begin < QG_NS_PER_S / 2) {
        check_rationed(r.server.counters.versions_sent);
    }
    rig_close(&r);
}

/* ---------------------------------------------------------------- Retry */

TEST(with_retry_a_handshake_completes) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    rig_start(&r, &o);
    CHECK(r.server.counters.retries_sent > 0);
    CHECK_EQ(r.server.counters.retry_tokens_refused, 0);
    exchange(&r, 1);
    rig_close(&r);
}

TEST(a_retry_is_asked_for_by_itself_when_many_handshakes_are_under_way) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_AUTO;
    rig_start(&r, &o);
    const qg_endpoint *ep = r.server.engine->endpoints[r.server.endpoint];
    for (int i = 0; i < 100; i++) {
        rig_dial(&r);
    }
    side_turn(&r.client);
    for (int i = 0; i < 100 && ep->half_open < 100; i++) {
        side_turn(&r.server); /* whose answers nobody reads yet */
    }
    CHECK_EQ(ep->half_open, 100);
    CHECK_EQ(r.server.counters.retries_sent, 0);
    for (int i = 0; i < 10; i++) {
        rig_dial(&r);
    }
    UNTIL(&r, r.server.counters.handshakes_completed == 111);
    CHECK(r.server.counters.retries_sent >= 10);
    CHECK_EQ(r.server.counters.retry_tokens_refused, 0);
    uint64_t sent = r.server.counters.retries_sent;
    rig_dial(&r); /* calm again */
    UNTIL(&r, r.server.counters.handshakes_completed == 112);
    CHECK_EQ(r.server.counters.retries_sent, sent);
    exchange(&r, 1);
    rig_close(&r);
}

/* The client's first packets after the Retry, caught. */
static void catch_answer_to_retry(rig *r) {
    rig_options o;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    rig_open(r, &o);
    rig_dial(r);
    side_turn(&r->client);
    side_turn(&r->server);
    CHECK(r->server.counters.retries_sent > 0);
    catch_from(&r->client);
    side_turn(&r->client);
    CHECK(caught.count > 0);
}

static size_t token_at(const uint8_t *packet, size_t *len) {
    size_t at = 7u + packet[5] + packet[6 + packet[5]];
    uint64_t token_len;
    at += qg__varint_get(packet + at, 8, &token_len);
    *len = (size_t)token_len;
    return at;
}

static void inject_from(rig *r, const qg_addr *from, const uint8_t *packet, size_t len) {
    uint8_t copy[1500];
    memcpy(copy, packet, len);
    CHECK_EQ(
        qg_engine_inject(r->server.engine, r->server.endpoint, copy, len, from, &r->server_addr),
        QG_OK);
}

TEST(a_retry_token_counts_unaltered_from_its_address_only) {
    rig r;
    uint8_t packet[1500];
    size_t token_len, refused = 0;
    catch_answer_to_retry(&r);
    size_t len = caught.len[0], at = token_at(caught.data[0], &token_len);
    CHECK(token_len > 40);
    for (size_t i = 0; i < token_len; i++) {
        memcpy(packet, caught.data[0], len);
        packet[at + i] ^= 0x10;
        inject_from(&r, &r.client_addr, packet, len);
        CHECK_EQ(r.server.counters.retry_tokens_refused, ++refused);
    }
    memcpy(packet, caught.data[0], len);
    packet[6 + 11] ^= 1; /* the last byte of the id that the Retry gave */
    inject_from(&r, &r.client_addr, packet, len);
    CHECK_EQ(r.server.counters.retry_tokens_refused, ++refused);
    qg_addr other;
    qg_addr_parse(&other, "192.0.2.99", 40000);
    inject_from(&r, &other, caught.data[0], len);
    CHECK_EQ(r.server.counters.retry_tokens_refused, ++refused);
    CHECK_EQ(r.server.counters.connections, 0);
    inject_from(&r, &r.client_addr, caught.data[0], len);
    CHECK_EQ(r.server.counters.connections, 1);
    CHECK_EQ(r.server.counters.retry_tokens_refused, refused);
    rig_close(&r);
}

/* ---------------------------------------------------------------- stateless reset */

static size_t short_packet(uint8_t *out, size_t len) {
    memset(out, 0x11, len);
    out[0] = 0x41;
    qg__cid_write((qg_cid_origin){0, 0, 0}, 5, out + 1);
    return len;
}

TEST(an_unknown_short_header_is_answered_with_a_reset) {
    rig r;
    uint8_t data[100], token[QG_RESET_TOKEN];
    open_deaf(&r, NULL);
    inject(&r, data, short_packet(data, 100));
    CHECK_EQ(r.server.counters.unknown_connection_ids, 1);
    CHECK_EQ(r.server.counters.resets_sent, 1);
    CHECK_EQ(caught.count, 1);
    qg__reset_token(r.server.engine->keys, data + 1, QG_CID_LEN, token);
    CHECK_BYTES(caught.data[0] + caught.len[0] - QG_RESET_TOKEN, QG_RESET_TOKEN, token,
                sizeof token);
    CHECK(caught.len[0] < 100);
    inject(&r, data, short_packet(data, 21)); /* nothing shorter would look like a packet */
    CHECK_EQ(r.server.counters.resets_sent, 1);
    inject(&r, data, short_packet(data, 22));
    CHECK_EQ(caught.len[1], 21);
    rig_close(&r);
}

TEST(resets_are_rationed) {
    rig r;
    uint8_t data[100];
    open_deaf(&r, NULL);
    uint64_t begin = qg__now_ns();
    for (int i = 0; i < 3000; i++) {
        inject(&r, data, short_packet(data, 100));
    }
    if (qg__now_ns() - begin < QG_NS_PER_S / 2) {
        check_rationed(r.server.counters.resets_sent);
    }
    CHECK_EQ(r.server.counters.unknown_connection_ids, 3000);
    rig_close(&r);
}

TEST(who_does_not_listen_sends_none) {
    rig r;
    uint8_t data[100];
    rig_open(&r, NULL);
    catch_from(&r.client);
    short_packet(data, 100);
    qg_engine_inject(r.client.engine, r.client.endpoint, data, 100, &r.server_addr, &r.client_addr);
    side_turn(&r.client);
    CHECK_EQ(r.client.counters.unknown_connection_ids, 1);
    CHECK_EQ(caught.count, 0);
    rig_close(&r);
}

TEST(a_listener_that_was_stopped_sends_no_retry) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    rig_open(&r, &o);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    rig_dial(&r);
    pass_ms(&r, 20);
    CHECK_EQ(r.server.counters.retries_sent, 0);
    CHECK(r.server.counters.connections_refused > 0);
    CHECK_EQ(count_events(&r.server, QG_EVENT_IDLE), 1); /* at once: it is in no group */
    rig_close(&r);
}

/* ---------------------------------------------------------------- connections */

TEST(a_first_packet_with_any_altered_byte_leaves_nothing) {
    rig r;
    uint8_t packet[1500];
    rig_open(&r, NULL);
    catch_from(&r.client);
    rig_dial(&r);
    side_turn(&r.client);
    memcpy(packet, caught.data[0], caught.len[0]);
    size_t len = caught.len[0];
    CHECK(len >= 1200);
    catch_from(&r.server);
    for (size_t i = 0; i < len; i += i < 60 ? 1 : 37) {
        bool version = i >= 1 && i <= 4; /* which is answered: see above */
        check_note("byte %zu", i);
        packet[i] ^= 0x20;
        inject(&r, packet, len);
        packet[i] ^= 0x20;
        caught.count = version ? 0 : caught.count;
        check_nothing_kept(&r);
    }
    inject(&r, packet, len);
    CHECK_EQ(r.server.counters.connections, 1);
    rig_close(&r);
}

TEST(beyond_the_limit_strangers_are_refused) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.max_connections = 1;
    o.client.handshake_timeout_ms = 50;
    rig_start(&r, &o);
    uint64_t second = rig_dial(&r);
    const seen *e = await_closed(&r, &r.client, 0, QG_TIMED_OUT);
    CHECK_EQ(e->event.conn, second);
    CHECK(r.server.counters.connections_refused > 0);
    CHECK_EQ(r.server.counters.connections, 1);
    exchange(&r, 1); /* the first goes on */
    rig_close(&r);
}

TEST(who_stops_takes_no_strangers) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.handshake_timeout_ms = 50;
    rig_open(&r, &o);
    CHECK_EQ(qg_listen_stop(r.server.engine, r.server.endpoint, 0), QG_OK);
    rig_dial(&r);
    await_closed(&r, &r.client, 0, QG_TIMED_OUT);
    CHECK(r.server.counters.connections_refused > 0);
    rig_close(&r);
}

/* Packets that were caught and handed in by hand are as good as those of the network. */
TEST(an_injected_packet_reaches_its_connection) {
    rig r;
    rig_start(&r, NULL);
    turn(&r);
    catch_from(&r.client);
    request(&r, 1, "GET", "/injected", NULL, 0, QG_FIN);
    side_turn(&r.client);
    CHECK(caught.count > 0);
    for (unsigned i = 0; i < caught.count; i++) {
        inject_from(&r, &r.client_addr, caught.data[i], caught.len[i]);
    }
    side_turn(&r.server);
    const seen *e = take_event(&r.server, QG_EVENT_REQUEST);
    CHECK(e != NULL);
    CHECK_TEXT(path_of(e), e->event.path_len, "/injected");
    rig_close(&r);
}

TEST(inject_checks_its_arguments) {
    rig r;
    static uint8_t large[QG_RUN_MAX + 1];
    rig_open(&r, NULL);
    CHECK_EQ(qg_engine_inject(r.server.engine, 5, large, 10, &r.client_addr, &r.server_addr),
             QG_GONE);
    CHECK_EQ(qg_engine_inject(r.server.engine, -1, large, 10, &r.client_addr, &r.server_addr),
             QG_GONE);
    CHECK_EQ(qg_engine_inject(r.server.engine, r.server.endpoint, large, sizeof large,
                              &r.client_addr, &r.server_addr),
             QG_TOO_LARGE);
    rig_close(&r);
}

TEST(several_packets_in_one_buffer_are_told_apart) {
    rig r;
    uint8_t data[250];
    open_deaf(&r, NULL);
    short_packet(data, 100);
    short_packet(data + 100, 100);
    short_packet(data + 200, 50);
    qg_dgram dgram = {data, sizeof data, 100, r.client_addr, r.server_addr};
    qg__endpoint_receive(r.server.engine->endpoints[r.server.endpoint], &dgram);
    side_turn(&r.server);
    CHECK_EQ(r.server.counters.datagrams_received, 3);
    CHECK_EQ(r.server.counters.receive_coalesced, 3);
    CHECK_EQ(r.server.counters.unknown_connection_ids, 3);
    CHECK_EQ(caught.count, 3);
    rig_close(&r);
}

TEST(tables_are_empty_after_the_last_connection) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    rig_start(&r, &o);
    CHECK_EQ(r.server.engine->initial_cids.count, 1); /* the id that the Retry gave */
    CHECK_EQ(qg_conn_close(r.client.engine, r.conn, 1, 0x100, NULL, 0), QG_OK);
    UNTIL(&r, r.server.counters.connections == 0 && r.client.counters.connections == 0);
    UNTIL(&r, r.server.engine->cids.count == 0 && r.client.engine->cids.count == 0);
    CHECK_EQ(r.server.engine->initial_cids.count, 0);
    CHECK_EQ(r.server.engine->timers.count, 0);
    CHECK_EQ(r.client.engine->timers.count, 0);
    rig_close(&r);
}
