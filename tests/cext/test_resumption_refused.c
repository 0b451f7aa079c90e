/* Early data that the server does not take is sent again by itself, once, and soon. */
#include "early.h"
#include "h3_peer.h"

/* A server that the ticket's own has become. `change` makes it so. */
typedef struct refusal {
    const char *name;
    void (*change)(early *e, rig_options *o);
    const char *reason;
    bool resumed;
    bool taken; /* the server took early data after all, but not what had been sent by then */
} refusal;

static void no_register(early *e, rig_options *o) {
    (void)o;
    qg_replay_free(e->replay);
    e->replay = NULL;
}

static void full_register(early *e, rig_options *o) {
    (void)o;
    qg_replay_free(e->replay);
    e->replay = qg_replay_new(0, 0);
}

static void other_keys(early *e, rig_options *o) {
    (void)o;
    qg_keys_free(e->keys);
    e->keys = qg_keys_new(NULL, 1000, 3, qg__wall_s());
}

static void other_settings(early *e, rig_options *o) {
    (void)e;
    o->server.initial_max_data *= 2;
}

static void other_trust(early *e, rig_options *o) {
    (void)e;
    o->ask_client = true;
}

static void other_group(early *e, rig_options *o) {
    (void)e;
    o->server_groups = "P-256"; /* the client guessed another one: HelloRetryRequest */
}

static void retry(early *e, rig_options *o) {
    (void)e;
    o->listen.retry = QG_RETRY_ALWAYS;
}

static const refusal refusals[] = {
    {"no register", no_register, "peer_declined", true, false},
    {"a full register", full_register, "peer_declined", true, false},
    {"other keys", other_keys, "session_not_resumed", false, false},
    {"other settings", other_settings, "peer_declined", true, false},
    {"other trust", other_trust, "session_not_resumed", false, false},
    {"another group", other_group, "hello_retry_request", true, false},
    {"retry", retry, "accepted", true, true},
};

static size_t probes(const qg_conn *conn) {
    quiche_path_stats path;
    CHECK_EQ(quiche_conn_path_stats(conn->quiche, 0, &path), 0);
    return path.total_pto_count;
}

/* Two requests whose early data comes to nothing. Returns how often quiche's probe timeout passed. */
static size_t send_again(const refusal *row) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.client.discover_pmtu = 0; /* a probe of the path that comes through would do by chance */
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    row->change(&e, &o);
    early_again(&e, &o);
    dial_with(&e.r, &t, true);
    tap out;
    tap_side(&e.r.client, &out);
    get_early(&e.r, 1, "/1");
    request(&e.r, 2, "POST", "/2", "hello", 5, QG_FIN | QG_EARLY);
    side_turn(&e.r.client);
    CHECK(out.packets[TAP_ZERO_RTT] > 0);
    CHECK_EQ(e.r.client.counters.requests_sent, 2);
    for (unsigned i = 0; i < 2; i++) { /* in no order that quiche promises */
        const seen *got = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
        bool get = got->event.status == QG_METHOD_GET;
        CHECK_TEXT(path_of(got), got->event.path_len, get ? "/1" : "/2");
        CHECK_TEXT(body_of(got), got->event.body_len, get ? "" : "hello");
        CHECK_EQ(got->event.flags, QG_FIN);
        respond(&e.r.server, got, "200", get ? "/1" : "/2", 2, QG_FIN);
    }
    size_t probed = probes(conn_at(&e.r.client, e.r.conn));
    check_answer(&e.r, 1, "/1");
    check_answer(&e.r, 2, "/2");
    pass_ms(&e.r, 3);
    CHECK_EQ(e.r.server.counters.requests_received, 2);
    CHECK_EQ(e.r.server.counters.early_requests + e.r.server.counters.early_requests_held, 0);
    CHECK_EQ(e.r.client.counters.requests_sent, 2);
    CHECK_EQ(e.r.client.counters.early_data_accepted, row->taken);
    CHECK_EQ(e.r.client.counters.early_data_refused, !row->taken);
    CHECK_EQ(e.r.server.counters.early_data_accepted, row->taken);
    CHECK_EQ(e.r.server.counters.early_data_refused, !row->taken);
    check_session(&e.r, row->resumed, row->taken ? QG_EARLY_ACCEPTED : QG_EARLY_REFUSED,
                  row->reason);
    exchange(&e.r, 3);
    early_close(&e);
    return probed;
}

/* Without the packet that asks for an acknowledgement it takes a probe timeout, always. With it a machine
 * must stand still for 25 ms in the wrong moment for one to pass; that it never does is not asked. */
static void sends_again_soon(const refusal *row) {
    for (unsigned tries = 0; tries < 20; tries++) {
        if (send_again(row) == 0) {
            return;
        }
    }
    check_note("%s", row->name);
    CHECK(!"a probe timeout had to pass");
}

TEST(without_a_register) {
    sends_again_soon(&refusals[0]);
}

TEST(with_a_full_register) {
    sends_again_soon(&refusals[1]);
}

TEST(with_other_keys) {
    sends_again_soon(&refusals[2]);
}

TEST(with_other_settings) {
    sends_again_soon(&refusals[3]);
}

TEST(with_other_trust) {
    sends_again_soon(&refusals[4]);
}

TEST(with_another_group) {
    sends_again_soon(&refusals[5]);
}

TEST(with_retry) {
    sends_again_soon(&refusals[6]);
}

static bool lose_zero_rtt(void *arg, uint8_t *data, size_t len) {
    unsigned *lost = arg;
    (void)len;
    bool is_zero_rtt = (data[0] & 0x80) && (data[0] >> 4 & 3) == TAP_ZERO_RTT;
    *lost += is_zero_rtt;
    return !is_zero_rtt;
}

/* Early data is accepted, and did not arrive (a packet that comes before the hello is for nobody). */
TEST(that_was_lost) {
    rig_options o;
    early e;
    ticket t;
    unsigned lost = 0;
    early_options(&o);
    start_early(&e, &o, &t);
    qg__pair_set_filter(datapath_of(&e.r.client), lose_zero_rtt, &lost);
    get_early(&e.r, 1, "/1");
    const seen *got = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
    CHECK(lost > 0);
    CHECK_EQ(got->event.flags, QG_FIN);
    respond(&e.r.server, got, "200", "/1", 2, QG_FIN);
    check_answer(&e.r, 1, "/1");
    check_session(&e.r, true, QG_EARLY_ACCEPTED, NULL);
    CHECK_EQ(e.r.server.counters.requests_received, 1);
    early_close(&e);
}

/* quiche goes on with the handshake after a refusal when it is asked for packets: that it is complete then
 * is known at once, not when the server's next packet comes, a round trip later. */
TEST(the_handshake_is_complete_with_its_last_packet) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    no_register(&e, &o);
    early_again(&e, &o);
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/1");
    request(&e.r, 2, "GET", "/2", NULL, 0, QG_FIN);
    side_turn(&e.r.client);
    side_turn(&e.r.server);
    side_turn(&e.r.client);
    CHECK(take_event(&e.r.client, QG_EVENT_CONNECTED) != NULL);
    check_session(&e.r, true, QG_EARLY_REFUSED, NULL);
    CHECK_EQ(e.r.client.counters.requests_sent, 2); /* what had to wait waits no longer */
    CHECK(wakes_within(e.r.client.engine, 5000));   /* to send it */
    check_answer(&e.r, 2, "/2");
    check_answer(&e.r, 1, "/1");
    early_close(&e);
}

/* Somebody else came first with a copy of the first flight: the true client's is a repetition then. */
TEST(that_the_register_had_already) {
    early e;
    ticket t;
    uint8_t random[SSL3_RANDOM_SIZE];
    qg_replay_counts counts;
    start_early(&e, NULL, &t);
    get_early(&e.r, 1, "/1");
    side_turn(&e.r.client);
    SSL_get_client_random(conn_at(&e.r.client, e.r.conn)->ssl, random, sizeof random);
    CHECK(qg__replay_first(e.replay, random));
    const seen *got = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
    CHECK_EQ(got->event.flags, QG_FIN);
    respond(&e.r.server, got, "200", "/1", 2, QG_FIN);
    check_answer(&e.r, 1, "/1");
    check_session(&e.r, true, QG_EARLY_REFUSED, "peer_declined");
    CHECK_EQ(e.r.server.counters.requests_received, 1);
    qg_replay_counts_of(e.replay, &counts);
    CHECK_EQ(counts.first, 1);
    CHECK_EQ(counts.repeated, 1);
    early_close(&e);
}

/* A ticket of such a connection carries no early data; the next one's does again. */
TEST(the_tickets_after_a_refusal) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    o.replay = qg_replay_new(0, 0);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    CHECK(t.flags & QG_EARLY);
    for (unsigned i = 0; i < 2; i++) {
        tap out;
        dial_with(&e.r, &t, true);
        tap_side(&e.r.client, &out);
        get_early(&e.r, 1 + i, "/");
        check_answer(&e.r, 1 + i, "/");
        CHECK_EQ(out.packets[TAP_ZERO_RTT] > 0, i == 0);
        check_session(&e.r, true, i == 0 ? QG_EARLY_REFUSED : QG_EARLY_NONE, NULL);
        const seen *ticket = await_event(&e.r, &e.r.client, QG_EVENT_TICKET);
        CHECK_EQ(ticket->event.flags, i == 0 ? 0 : QG_EARLY);
        memcpy(t.bytes, head_of(ticket), ticket->event.head_len);
        t.len = ticket->event.head_len;
        while (take_event(&e.r.client, QG_EVENT_TICKET) != NULL) {
        }
    }
    qg_replay_free(o.replay);
    early_close(&e);
}

/* Its body was longer than a first flight, and is sent from its beginning. */
TEST(a_long_body_is_sent_again) {
    static uint8_t body[QG_BODY_INLINE_MAX], got[QG_BODY_INLINE_MAX + 1];
    early e;
    ticket t;
    rig_options o;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    other_keys(&e, &o);
    early_again(&e, &o);
    dial_with(&e.r, &t, true);
    fill_pattern(body, sizeof body, 9);
    request(&e.r, 1, "POST", "/", body, sizeof body, QG_FIN | QG_EARLY);
    const seen *request = await_event(&e.r, &e.r.server, QG_EVENT_REQUEST);
    uint32_t flags;
    size_t len = read_body(&e.r, &e.r.server, request, got, sizeof got, 5000, &flags);
    CHECK_BYTES(got, len, body, sizeof body);
    respond(&e.r.server, request, "200", "ok", 2, QG_FIN);
    check_answer(&e.r, 1, "ok");
    early_close(&e);
}

/* What was given up before the refusal stays given up. */
TEST(cancelled_before_it_was_refused) {
    rig_options o;
    early e;
    ticket t;
    early_options(&o);
    early_open(&e, &o);
    earn_ticket(&e.r, &t);
    other_keys(&e, &o);
    early_again(&e, &o);
    dial_with(&e.r, &t, true);
    get_early(&e.r, 1, "/1");
    get_early(&e.r, 2, "/2");
    side_turn(&e.r.client);
    submit(&e.r.client,
           (qg_submission){
               .op = QG_OP_CANCEL, .conn = e.r.conn, .token = 1, .code = H3_REQUEST_CANCELLED},
           NULL, 0, NULL, 0);
    check_answer(&e.r, 2, "/2");
    pass_ms(&e.r, 5);
    CHECK(take_token(&e.r.client, 1) == NULL);
    exchange(&e.r, 3);
    early_close(&e);
}
