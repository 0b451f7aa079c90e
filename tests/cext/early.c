#include "early.h"

#include <stdlib.h>

void early_options(rig_options *o) {
    rig_defaults(o);
    o->listen.flags = 0;
    o->take_tickets = true;
}

static void open_rig(early *e, const rig_options *options) {
    rig_options o;
    early_options(&o);
    o = options != NULL ? *options : o;
    o.tickets = e->keys;
    o.replay = o.replay != NULL ? o.replay : e->replay;
    rig_open(&e->r, &o);
}

void early_open(early *e, const rig_options *options) {
    e->keys = qg_keys_new(NULL, 1000, 3, qg__wall_s());
    e->replay = qg_replay_new(1000, 0);
    CHECK(e->keys != NULL && e->replay != NULL);
    open_rig(e, options);
}

void early_again(early *e, const rig_options *options) {
    rig_close(&e->r);
    open_rig(e, options);
}

void early_close(early *e) {
    rig_close(&e->r);
    qg_keys_free(e->keys);
    qg_replay_free(e->replay);
}

void earn_ticket(rig *r, ticket *t) {
    r->conn = rig_dial(r);
    CHECK_EQ(await_event(r, &r->client, QG_EVENT_CONNECTED)->event.conn, r->conn);
    const seen *e = await_event(r, &r->client, QG_EVENT_TICKET);
    CHECK_EQ(e->event.conn, r->conn);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK(e->event.head_len > 0 && e->event.head_len <= sizeof t->bytes);
    memcpy(t->bytes, head_of(e), e->event.head_len);
    t->len = e->event.head_len;
    t->flags = e->event.flags;
    t->lifetime_s = e->event.value;
    CHECK_EQ(qg_conn_close(r->client.engine, r->conn, 1, H3_NO_ERROR, NULL, 0), QG_OK);
    await_event(r, &r->client, QG_EVENT_CLOSED);
    UNTIL(r, r->server.counters.connections == 0);
    while (take_event(&r->client, QG_EVENT_TICKET) != NULL) {
    }
}

void dial_with(rig *r, const ticket *t, bool early_data) {
    r->conn = rig_dial(r);
    CHECK_EQ(qg_conn_resume(r->client.engine, r->conn, t->bytes, t->len, early_data), QG_OK);
}

void start_early(early *e, const rig_options *o, ticket *t) {
    early_open(e, o);
    earn_ticket(&e->r, t);
    dial_with(&e->r, t, true);
}

void get_early(rig *r, uint64_t token, const char *path) {
    request(r, token, "GET", path, NULL, 0, QG_FIN | QG_EARLY);
}

void check_answer(rig *r, uint64_t token, const char *path) {
    const seen *answer;
    UNTIL(r, (answer_all(&r->server), (answer = take_token(&r->client, token)) != NULL));
    CHECK_EQ(answer->event.type, QG_EVENT_RESPONSE);
    CHECK_TEXT(body_of(answer), answer->event.body_len, path);
    CHECK(take_token(&r->client, token) == NULL);
}

void check_session(rig *r, bool resumed, uint32_t early_data, const char *reason) {
    qg_session_info info;
    CHECK_EQ(qg_session_info_of(r->client.engine, r->conn, &info), QG_OK);
    check_note("\"%s\"", info.reason);
    CHECK_EQ(info.is_resumed, resumed);
    CHECK_EQ(info.in_early_data, 0);
    CHECK_EQ(info.early_data, early_data);
    CHECK(reason == NULL || strcmp(info.reason, reason) == 0);
    check_note(NULL);
}

/* ---------------------------------------------------------------- the wire */

/* The long-header packet at `p`: its length, all that is left when it names none. */
static size_t long_packet(const uint8_t *p, size_t len) {
    uint64_t n;
    size_t at = 5;
    at += 1 + (size_t)p[at]; /* both ids */
    at += 1 + (size_t)p[at];
    if ((p[0] >> 4 & 3) == TAP_RETRY) {
        return len;
    }
    if ((p[0] >> 4 & 3) == TAP_INITIAL) {
        at += qg__varint_get(p + at, len - at, &n); /* the token */
        at += (size_t)n;
    }
    at += qg__varint_get(p + at, len - at, &n);
    CHECK(at + n <= len);
    return at + (size_t)n;
}

static bool count(void *arg, uint8_t *data, size_t len) {
    tap *t = arg;
    CHECK(len <= sizeof t->kept[0].bytes);
    if (t->datagrams < TAP_KEPT) {
        memcpy(t->kept[t->datagrams].bytes, data, len);
        t->kept[t->datagrams].len = len;
    }
    t->datagrams++;
    for (size_t at = 0; at < len;) {
        bool is_long = (data[at] & 0x80) != 0;
        if (!is_long && !(data[at] & 0x40)) {
            break; /* padding of the datagram */
        }
        t->packets[is_long ? data[at] >> 4 & 3 : TAP_SHORT]++;
        at += is_long ? long_packet(data + at, len - at) : len - at;
    }
    return !t->cut;
}

void tap_side(side *s, tap *t) {
    *t = (tap){0};
    qg__pair_set_filter(datapath_of(s), count, t);
}
