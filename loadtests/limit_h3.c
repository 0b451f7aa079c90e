/* limit_h3.c: requests and responses, through quiche_h3_*. */
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A body is offered to quiche in pieces of this size. */
#define PIECE 65536

#define COUNT(array) (sizeof(array) / sizeof *(array))

#define FIELD(name, value)                                                                         \
    {(const uint8_t *)(name), sizeof(name) - 1, (const uint8_t *)(value), sizeof(value) - 1}

/* The first four are all that a plain request has. */
#define PLAIN_REQUEST 4
static quiche_h3_header request_fields[] = {
    FIELD(":method", "GET"),
    FIELD(":scheme", "https"),
    FIELD(":authority", "127.0.0.1"),
    FIELD(":path", "/small"),
    FIELD("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    FIELD("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    FIELD("accept-language", "en-US,en;q=0.5"),
    FIELD("accept-encoding", "gzip, deflate, br, zstd"),
    FIELD("referer", "https://example.org/articles/index.html"),
    FIELD("cookie", "session=2b7e151628aed2a6abf7158809cf4f3c; theme=dark; seen=17"),
    FIELD("upgrade-insecure-requests", "1"),
    FIELD("sec-fetch-dest", "document"),
    FIELD("sec-fetch-mode", "navigate"),
    FIELD("sec-fetch-site", "same-origin"),
    FIELD("if-none-match", "\"33a64df551425fcc55e4d42a148795d9\""),
    FIELD("priority", "u=0, i"),
};

/* The first two are all that a plain response has; content-length is filled in. The others are what
 * the handler of the measured servers answers (green_server.py), and the date that they add. */
#define PLAIN_RESPONSE 2
static quiche_h3_header response_fields[] = {
    FIELD(":status", "200"),
    FIELD("content-length", ""),
    FIELD("content-type", "text/html; charset=utf-8"),
    FIELD("cache-control", "max-age=600"),
    FIELD("etag", "\"6b86b273ff34fce19d6b804eff5a3f57\""),
    FIELD("vary", "accept-encoding"),
    FIELD("server", "quicgreen"),
    FIELD("x-content-type-options", "nosniff"),
    FIELD("date", "Sat, 01 Mar 2025 12:00:00 GMT"),
};

static quiche_h3_config *config;
static uint8_t body[PIECE];

void h3_configure(void) {
    static char length[24];
    response_fields[1].value = (const uint8_t *)length;
    response_fields[1].value_len = (size_t)sprintf(length, "%ld", options.bytes);
    if (options.mode == POST) {
        request_fields[0].value = (const uint8_t *)"POST";
        request_fields[0].value_len = 4;
    }
    memset(body, 'x', sizeof body);
    config = quiche_h3_config_new();
}

/* ------------------------------------------------------------- sending */

/* Offer quiche the rest of the message. True when it took all. */
static bool send_rest(conn *c, transfer *t) {
    if (!t->head_sent) { /* a server's: a request's head has opened the stream */
        size_t n = options.browser ? COUNT(response_fields) : PLAIN_RESPONSE;
        bool fin = t->left == 0;
        if (quiche_h3_send_response(c->h3, c->quic, t->stream, response_fields, n, fin) != 0) {
            return false;
        }
        t->head_sent = true;
    }
    while (t->left > 0) {
        size_t size = t->left < PIECE ? t->left : PIECE;
        ssize_t n = quiche_h3_send_body(c->h3, c->quic, t->stream, body, size, size == t->left);
        if (n <= 0) {
            return false;
        }
        t->left -= (size_t)n;
        totals.body_sent += (uint64_t)n;
    }
    return true;
}

/* Send now what goes, and keep the rest until the congestion window has room. */
static void begin(conn *c, transfer t) {
    if (send_rest(c, &t)) {
        return;
    }
    if (c->waiting_n == c->waiting_cap) {
        c->waiting_cap = c->waiting_cap > 0 ? 2 * c->waiting_cap : 4;
        c->waiting = realloc(c->waiting, c->waiting_cap * sizeof *c->waiting);
        if (c->waiting == NULL) {
            die("transfer");
        }
    }
    c->waiting[c->waiting_n++] = t;
}

static void go_on(conn *c) {
    for (size_t i = 0; i < c->waiting_n;) {
        if (send_rest(c, &c->waiting[i])) {
            c->waiting[i] = c->waiting[--c->waiting_n];
        } else {
            i++;
        }
    }
}

static void ask(conn *c) {
    size_t fields = options.browser ? COUNT(request_fields) : PLAIN_REQUEST;
    size_t upload = options.mode == POST ? (size_t)options.bytes : 0;
    while (c->in_flight < options.streams && c->sent < c->wanted) {
        int64_t stream =
            quiche_h3_send_request(c->h3, c->quic, request_fields, fields, upload == 0);
        if (stream < 0) {
            return; /* the peer's limit of streams, or no room: tried again when something came */
        }
        c->sent++;
        c->in_flight++;
        if (options.latencies) {
            c->asked_ns = now_ns();
        }
        if (upload > 0) {
            begin(c, (transfer){.stream = (uint64_t)stream, .left = upload, .head_sent = true});
        }
    }
}

/* ------------------------------------------------------------- receiving */

/* A status other than 200 ends the program: its numbers would mean nothing. */
static int check_field(uint8_t *name, size_t name_len, uint8_t *value, size_t value_len, void *c) {
    (void)c;
    if (options.mode != SERVER && name_len == 7 && memcmp(name, ":status", 7) == 0 &&
        (value_len != 3 || memcmp(value, "200", 3) != 0)) {
        fprintf(stderr, "limit: status %.*s\n", (int)value_len, (const char *)value);
        exit(1);
    }
    return 0;
}

static void read_body(conn *c, uint64_t stream) {
    static uint8_t sink[4 * PIECE];
    ssize_t n;
    while ((n = quiche_h3_recv_body(c->h3, c->quic, stream, sink, sizeof sink)) > 0) {
        totals.body_received += (uint64_t)n;
    }
}

static void finished(conn *c, uint64_t stream) {
    if (options.mode == SERVER) {
        totals.requests++;
        begin(c, (transfer){.stream = stream, .left = (size_t)options.bytes});
        return;
    }
    if (options.latencies) {
        latencies_ns[totals.requests] = (uint32_t)(now_ns() - c->asked_ns);
    }
    totals.requests++;
    c->done++;
    c->in_flight--;
}

static void on_event(conn *c, uint64_t stream, quiche_h3_event *event) {
    switch (quiche_h3_event_type(event)) {
    case QUICHE_H3_EVENT_HEADERS:
        quiche_h3_event_for_each_header(event, check_field, c);
        break;
    case QUICHE_H3_EVENT_DATA:
        read_body(c, stream);
        break;
    case QUICHE_H3_EVENT_FINISHED:
        finished(c, stream);
        break;
    case QUICHE_H3_EVENT_RESET:
        totals.errors++;
        c->done++;
        c->in_flight--;
        break;
    default:
        break;
    }
}

void h3_handle(conn *c) {
    if (c->h3 == NULL) {
        if (!quiche_conn_is_established(c->quic)) {
            return;
        }
        c->h3 = quiche_h3_conn_new_with_transport(c->quic, config);
        if (c->h3 == NULL) {
            return;
        }
        totals.connections++;
    }
    quiche_h3_event *event;
    int64_t stream;
    while ((stream = quiche_h3_conn_poll(c->h3, c->quic, &event)) >= 0) {
        on_event(c, (uint64_t)stream, event);
        quiche_h3_event_free(event);
    }
    if (options.mode != SERVER) {
        ask(c);
    }
    go_on(c);
}
