#include "harness.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---------------------------------------------------------------- one engine */

void side_open(side *s, const qg_engine_options *options) {
    int error = -1;
    qg_engine_options o = *options;
    *s = (side){.endpoint = -1, .ops = o.submissions, .arena = o.submission_bytes};
    if (o.counters == NULL) {
        o.counters = &s->counters;
    }
    s->engine = qg_engine_new(&o, &error);
    CHECK(s->engine != NULL);
    CHECK_EQ(error, QG_OK);
    qg_engine_memory_of(s->engine, &s->memory);
}

void side_close(side *s) {
    qg_engine_free(s->engine);
    for (size_t i = 0; i < s->count; i++) {
        free(s->events[i]->bytes);
        free(s->events[i]);
    }
    free(s->events);
    CHECK_EQ(s->counters.connections, 0);
    CHECK_EQ(s->counters.streams, 0);
}

static void record(side *s, const qg_event *event) {
    size_t len = (size_t)event->path_len + event->head_len + event->body_len;
    if (s->count == s->capacity) {
        s->capacity = s->capacity > 0 ? 2 * s->capacity : 64;
        s->events = realloc(s->events, s->capacity * sizeof *s->events);
    }
    seen *copy = malloc(sizeof *copy);
    *copy = (seen){.event = *event, .bytes = malloc(len + 1)};
    memcpy(copy->bytes, s->memory.event_arena + event->offset, len);
    copy->bytes[len] = '\0';
    s->events[s->count++] = copy;
}

/* What is new of the `n` events in the ring. */
static void record_new(side *s, int64_t n) {
    CHECK(n >= 0);
    for (; s->recorded < n; s->recorded++) {
        record(s, &s->memory.events[s->recorded]);
    }
}

void side_turn(side *s) {
    int64_t n;
    record_new(s,
               qg_engine_submit(s->engine)); /* of calls since the last turn: a drain begins anew */
    do {
        s->recorded = 0;
        n = qg_engine_drain(s->engine);
        record_new(s, n < 0 ? n : n & ~(int64_t)QG_DRAIN_MORE);
    } while (n & QG_DRAIN_MORE);
    record_new(s, qg_engine_flush(s->engine));
}

bool wakes_within(const qg_engine *e, int wait_ms) {
    struct pollfd p = {.fd = qg_engine_fd(e), .events = POLLIN};
    return poll(&p, 1, wait_ms) == 1;
}

const uint8_t *path_of(const seen *e) {
    return e->bytes;
}

const uint8_t *head_of(const seen *e) {
    return e->bytes + e->event.path_len;
}

const uint8_t *body_of(const seen *e) {
    return head_of(e) + e->event.head_len;
}

const char *field_of(const seen *e, const char *name) {
    static char value[1024];
    char line[256];
    size_t name_len = strlen(name) + 2;
    snprintf(line, sizeof line, "\n%s", name);
    const char *at = memmem(head_of(e), e->event.head_len, line, name_len); /* with its NUL */
    if (at == NULL) {
        return NULL;
    }
    at += name_len;
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\n"), at);
    return value;
}

static const seen *take(side *s, bool by_type, uint64_t wanted) {
    while (s->untaken < s->count && s->events[s->untaken]->taken) {
        s->untaken++;
    }
    for (size_t i = s->untaken; i < s->count; i++) {
        seen *e = s->events[i];
        if (!e->taken && (by_type ? e->event.type : e->event.token) == wanted) {
            e->taken = true;
            return e;
        }
    }
    return NULL;
}

const seen *take_event(side *s, uint16_t type) {
    return take(s, true, type);
}

const seen *take_token(side *s, uint64_t token) {
    return take(s, false, token);
}

size_t count_events(const side *s, uint16_t type) {
    size_t n = 0;
    for (size_t i = s->untaken; i < s->count; i++) {
        n += !s->events[i]->taken && s->events[i]->event.type == type;
    }
    return n;
}

qg_datapath *datapath_of(const side *s) {
    return s->engine->endpoints[s->endpoint]->dp;
}

qg_conn *conn_at(const side *s, uint64_t conn) {
    qg_conn *c = qg__engine_conn(s->engine, conn);
    CHECK(c != NULL);
    return c;
}

static bool drop_some(void *arg, uint8_t *data, size_t len) {
    lossy *state = arg;
    (void)data, (void)len;
    bool drop = random_below(&state->random, 100) < state->percent;
    state->dropped += drop;
    return !drop;
}

void make_lossy(side *s, lossy *state) {
    qg__pair_set_filter(datapath_of(s), drop_some, state);
}

/* ---------------------------------------------------------------- certificates */

typedef struct certificate {
    const char *names;
    char cert[4096], key[4096];
    char file[64]; /* the certificate, for who is to trust it */
} certificate;

static certificate certificates[4];

static void remove_files(void) {
    for (size_t i = 0; i < sizeof certificates / sizeof *certificates; i++) {
        if (certificates[i].names != NULL) {
            unlink(certificates[i].file);
        }
    }
}

/* One for these names, made once. */
static const certificate *certificate_for(const char *names) {
    certificate *c = certificates;
    while (c->names != NULL && strcmp(c->names, names) != 0) {
        c++;
        CHECK(c < certificates + sizeof certificates / sizeof *certificates);
    }
    if (c->names != NULL) {
        return c;
    }
    if (c == certificates) {
        atexit(remove_files);
    }
    CHECK_EQ(qg_tls_self_signed(names, 2, c->cert, sizeof c->cert, c->key, sizeof c->key), QG_OK);
    strcpy(c->file, "/tmp/quicgreen-test-XXXXXX");
    int fd = mkstemp(c->file);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, c->cert, strlen(c->cert)), strlen(c->cert));
    close(fd);
    c->names = names;
    return c;
}

static qg_tls *new_tls(const rig_options *o, bool is_server) {
    const certificate *c = certificate_for(o->names);
    const char *alpn = is_server ? o->server_alpn : o->client_alpn;
    bool mine = is_server || o->client_cert;
    bool checks = is_server ? o->ask_client : o->verify || o->distrust;
    char *chain = calloc(o->chain + 1, sizeof c->cert);
    for (unsigned i = 0; mine && i <= o->chain; i++) {
        strcat(chain, c->cert);
    }
    qg_tls_options options = {
        .abi = QG_ABI,
        .is_server = is_server,
        .verify_peer = checks,
        .require_peer = is_server && o->need_client,
        .cert_pem = mine ? chain : NULL,
        .key_pem = mine ? c->key : NULL,
        .ca_file = checks && !o->distrust ? c->file : NULL,
        .alpn = (const uint8_t *)alpn,
        .alpn_len = strlen(alpn),
        .keys = is_server ? o->tickets : NULL,
        .replay = is_server ? o->replay : NULL,
        .tickets = !is_server && o->take_tickets,
        .groups = is_server ? o->server_groups : o->client_groups,
    };
    char error[200] = "";
    qg_tls *tls = qg_tls_new(&options, error, sizeof error);
    free(chain);
    CHECK_TEXT(error, strlen(error), "");
    CHECK(tls != NULL);
    return tls;
}

static qg_config *new_config(const qg_config_options *o, qg_tls *tls) {
    char error[200] = "";
    qg_config *config = qg_config_new(o, tls, error, sizeof error);
    CHECK_TEXT(error, strlen(error), "");
    CHECK(config != NULL);
    return config;
}

/* ---------------------------------------------------------------- two engines */

void rig_defaults(rig_options *o) {
    *o = (rig_options){.client_alpn = ALPN_H3,
                       .server_alpn = ALPN_H3,
                       .server_name = "a.test",
                       .names = "a.test,localhost,127.0.0.1,::1"};
    qg_engine_defaults(&o->client_engine);
    qg_engine_defaults(&o->server_engine);
    qg_config_defaults(&o->client, 0);
    qg_config_defaults(&o->server, 1);
    o->listen = (qg_listen_options){.abi = QG_ABI,
                                    .flags = QG_LISTEN_SESSIONS,
                                    .max_connections = 1000,
                                    .token = LISTEN_TOKEN,
                                    .credit = 1000000};
}

void rig_raw_client(rig_options *o) {
    rig_defaults(o);
    o->client.raw = 1;
}

void rig_raw_server(rig_options *o) {
    rig_defaults(o);
    o->server.raw = 1;
}

void rig_open(rig *r, const rig_options *options) {
    rig_options o;
    rig_defaults(&o);
    o = options != NULL ? *options : o;
    *r = (rig){.server_name = o.server_name};
    side_open(&r->client, &o.client_engine);
    side_open(&r->server, &o.server_engine);
    r->client_tls = new_tls(&o, false);
    r->server_tls = new_tls(&o, true);
    r->client_config = new_config(&o.client, r->client_tls);
    r->server_config = new_config(&o.server, r->server_tls);
    if (o.udp) {
        qg_endpoint_info info;
        qg_addr any;
        qg_addr_parse(&any, "127.0.0.1", 0);
        r->server.endpoint = qg_endpoint_udp(r->server.engine, &any, 0, -1);
        r->client.endpoint = qg_endpoint_udp(r->client.engine, &any, 0, -1);
        CHECK(r->server.endpoint >= 0 && r->client.endpoint >= 0);
        qg_endpoint_info_of(r->server.engine, r->server.endpoint, &info);
        r->server_addr = info.local;
        qg_endpoint_info_of(r->client.engine, r->client.endpoint, &info);
        r->client_addr = info.local;
    } else {
        int ends[2];
        qg_addr_parse(&r->client_addr, "192.0.2.1", 40000);
        qg_addr_parse(&r->server_addr, "192.0.2.2", 443);
        CHECK_EQ(qg_endpoint_pair(r->client.engine, &r->client_addr, r->server.engine,
                                  &r->server_addr, ends),
                 QG_OK);
        r->client.endpoint = ends[0];
        r->server.endpoint = ends[1];
    }
    CHECK_EQ(qg_listen(r->server.engine, r->server.endpoint, &o.listen, r->server_config), QG_OK);
}

uint64_t rig_dial(rig *r) {
    uint64_t conn = 0;
    CHECK_EQ(qg_connect(r->client.engine, r->client.endpoint, &r->server_addr, r->client_config,
                        r->server_name, CONN_TOKEN, 0, &conn),
             QG_OK);
    return conn;
}

void rig_connect(rig *r) {
    r->conn = rig_dial(r);
    const seen *e = await_event(r, &r->client, QG_EVENT_CONNECTED);
    CHECK_EQ(e->event.conn, r->conn);
    r->server_conn = await_event(r, &r->server, QG_EVENT_ACCEPTED)->event.conn;
}

void rig_start(rig *r, const rig_options *o) {
    rig_open(r, o);
    rig_connect(r);
}

void rig_close(rig *r) {
    side_close(&r->client);
    side_close(&r->server);
    qg_config_free(r->client_config);
    qg_config_free(r->server_config);
    qg_tls_free(r->client_tls);
    qg_tls_free(r->server_tls);
}

/* Changes whenever something moved. */
static uint64_t motion(const rig *r) {
    return r->client.memory.counters->datagrams_sent + r->server.memory.counters->datagrams_sent +
           r->client.count + r->server.count;
}

void turn(rig *r) {
    uint64_t before;
    do {
        before = motion(r);
        side_turn(&r->client);
        side_turn(&r->server);
    } while (motion(r) != before);
}

void breathe(rig *r) {
    turn(r);
    struct pollfd fds[2] = {{.fd = qg_engine_fd(r->client.engine), .events = POLLIN},
                            {.fd = qg_engine_fd(r->server.engine), .events = POLLIN}};
    poll(fds, 2, 1);
}

void pass_ms(rig *r, unsigned ms) {
    uint64_t end = qg__now_ns() + ms * QG_NS_PER_MS;
    do {
        breathe(r);
    } while (qg__now_ns() < end);
}

const seen *await_event(rig *r, side *s, uint16_t type) {
    const seen *e;
    check_note("waiting for event %d", type);
    UNTIL(r, (e = take_event(s, type)) != NULL);
    check_note(NULL);
    return e;
}

const seen *await_token(rig *r, side *s, uint64_t token) {
    const seen *e;
    check_note("waiting for token %d", (int)token);
    UNTIL(r, (e = take_token(s, token)) != NULL);
    check_note(NULL);
    return e;
}

const seen *await_closed(rig *r, side *s, uint64_t code, uint16_t flags) {
    const seen *e = await_event(r, s, QG_EVENT_CLOSED);
    check_note("closed with \"%.*s\"", (int)e->event.head_len, (const char *)head_of(e));
    CHECK_EQ(e->event.code, code);
    CHECK_EQ(e->event.flags, flags);
    check_note(NULL);
    return e;
}

/* ---------------------------------------------------------------- messages */

size_t fields(uint8_t *out, size_t capacity, ...) {
    va_list arguments;
    size_t len = 0;
    const char *name;
    va_start(arguments, capacity);
    while ((name = va_arg(arguments, const char *)) != NULL) {
        const char *value = va_arg(arguments, const char *);
        int n = qg_field_encode((const uint8_t *)name, strlen(name), (const uint8_t *)value,
                                strlen(value), out + len, capacity - len);
        CHECK(n > 0);
        len += (size_t)n;
    }
    va_end(arguments);
    return len;
}

void submit(side *s, qg_submission op, const void *head, size_t head_len, const void *body,
            size_t body_len) {
    qg_submission *place = &s->memory.submissions[s->next_op];
    size_t len = head_len + body_len;
    CHECK(len <= s->arena);
    if (place->op != 0 || s->arena - s->arena_used < len) {
        CHECK(qg_engine_submit(s->engine) >= 0);
        CHECK_EQ(place->op, 0);
        s->arena_used = 0;
    }
    uint16_t kind = op.op;
    op.op = 0;
    op.offset = s->arena_used;
    op.head_len = (uint32_t)head_len;
    op.body_len = (uint32_t)body_len;
    uint8_t *bytes = s->memory.submission_arena + s->arena_used;
    for (size_t i = 0; i < len; i++) {
        bytes[i] =
            i < head_len ? ((const uint8_t *)head)[i] : ((const uint8_t *)body)[i - head_len];
    }
    *place = op;
    place->op = kind; /* last: see quicgreen.h */
    s->arena_used += (uint32_t)len;
    s->next_op = (s->next_op + 1) % s->ops;
}

static size_t request_head(uint8_t *out, size_t capacity, const char *method, const char *path) {
    return fields(out, capacity, ":method", method, ":scheme", "https", ":authority", "a.test",
                  ":path", path, NULL);
}

void request(rig *r, uint64_t token, const char *method, const char *path, const void *body,
             size_t body_len, uint16_t flags) {
    uint8_t head[4096];
    size_t len = request_head(head, sizeof head, method, path);
    submit(&r->client,
           (qg_submission){.op = QG_OP_REQUEST, .conn = r->conn, .token = token, .flags = flags},
           head, len, body, body_len);
}

void respond(side *s, const seen *to, const char *status, const void *body, size_t body_len,
             uint16_t flags) {
    uint8_t head[64];
    size_t len = fields(head, sizeof head, ":status", status, NULL);
    submit(s,
           (qg_submission){.op = QG_OP_RESPOND,
                           .conn = to->event.conn,
                           .stream = to->event.stream,
                           .flags = flags},
           head, len, body, body_len);
}

size_t answer_all(side *s) {
    size_t count = 0;
    const seen *e;
    while ((e = take_event(s, QG_EVENT_REQUEST)) != NULL) {
        respond(s, e, "200", path_of(e), e->event.path_len, QG_FIN);
        count++;
    }
    return count;
}

void exchange(rig *r, uint64_t token) {
    const seen *answer;
    request(r, token, "GET", "/hello", NULL, 0, QG_FIN);
    UNTIL(r, (answer_all(&r->server), (answer = take_token(&r->client, token)) != NULL));
    CHECK_EQ(answer->event.type, QG_EVENT_RESPONSE);
    CHECK_EQ(answer->event.status, 200);
    CHECK_TEXT(body_of(answer), answer->event.body_len, "/hello");
    CHECK_EQ(answer->event.flags, QG_FIN);
}

uint64_t open_request(rig *r, const char *method, const char *path, uint16_t flags) {
    uint8_t head[4096];
    uint64_t stream = UINT64_MAX;
    size_t len = request_head(head, sizeof head, method, path);
    CHECK_EQ(qg_stream_request(r->client.engine, r->conn, head, len, flags, 0, 0, &stream), QG_OK);
    return stream;
}

/* ---------------------------------------------------------------- bytes */

void fill_pattern(uint8_t *out, size_t len, uint64_t at) {
    for (size_t i = 0; i < len; i++) {
        out[i] = pattern(at + i);
    }
}

static void flow_write(flow *f) {
    uint64_t code;
    if (f->writer_waits) {
        const seen *e = take_token(f->from, f->token);
        if (e == NULL) {
            return;
        }
        CHECK_EQ(e->event.type, QG_EVENT_WRITABLE);
        f->writer_waits = false;
    }
    uint8_t *data = malloc(f->piece);
    while (!f->fin_sent && !f->writer_waits) {
        size_t len = (size_t)qg__min64(f->piece, f->size - f->sent);
        bool last = f->sent + len == f->size;
        fill_pattern(data, len, f->sent);
        int64_t n = qg_stream_write(f->from->engine, f->from_conn, f->stream, data, len,
                                    last ? QG_FIN : 0, f->token, 0, &code);
        f->writer_waits = n == QG_AGAIN;
        CHECK(n >= 0 || n == QG_AGAIN);
        f->sent += n > 0 ? (uint64_t)n : 0;
        f->fin_sent = last && n == (int64_t)len;
    }
    free(data);
}

static void flow_read(flow *f) {
    uint64_t code;
    uint32_t flags;
    if (f->reader_waits) {
        const seen *e = take_token(f->to, f->token + 1);
        if (e == NULL) {
            return;
        }
        CHECK_EQ(e->event.type, QG_EVENT_READABLE);
        f->reader_waits = false;
    }
    uint8_t *data = malloc(f->piece), *expected = malloc(f->piece);
    while (!f->fin_got && !f->reader_waits) {
        int64_t n = qg_stream_read(f->to->engine, f->to_conn, f->stream, data, f->piece,
                                   f->token + 1, 0, &flags, &code);
        f->reader_waits = n == QG_AGAIN;
        CHECK(n > 0 || n == QG_AGAIN || (n == 0 && (flags & QG_FIN)));
        if (n > 0) {
            fill_pattern(expected, (size_t)n, f->got);
            CHECK_BYTES(data, (size_t)n, expected, (size_t)n);
            f->got += (uint64_t)n;
        }
        f->fin_got = n >= 0 && (flags & QG_FIN);
    }
    free(data);
    free(expected);
}

bool flow_step(rig *r, flow *f) {
    if (!f->fin_sent) {
        flow_write(f);
    }
    turn(r);
    if (!f->fin_got) {
        flow_read(f);
    }
    return f->fin_sent && f->fin_got;
}

void flow_all(rig *r, flow *f) {
    UNTIL(r, flow_step(r, f));
    CHECK_EQ(f->got, f->size);
}

void raw_write(side *s, uint64_t conn, uint64_t stream, const void *data, size_t len, bool fin) {
    uint64_t code;
    CHECK_EQ(qg_stream_write(s->engine, conn, stream, data, len, fin ? QG_FIN : 0, 0, 0, &code),
             len);
}

uint64_t raw_send(side *s, uint64_t conn, bool bidi, const void *data, size_t len, bool fin) {
    uint64_t stream = UINT64_MAX;
    CHECK_EQ(qg_stream_open(s->engine, conn, bidi, 0, 0, &stream), QG_OK);
    raw_write(s, conn, stream, data, len, fin);
    return stream;
}

size_t raw_read(side *s, uint64_t conn, uint64_t stream, void *out, size_t capacity, bool *fin) {
    size_t total = 0;
    uint64_t code;
    uint32_t flags = 0;
    while (total < capacity && !(flags & QG_FIN)) {
        int64_t n = qg_stream_read(s->engine, conn, stream, (uint8_t *)out + total,
                                   capacity - total, 0, 0, &flags, &code);
        if (n == QG_AGAIN) {
            break;
        }
        CHECK(n >= 0);
        total += (size_t)n;
    }
    *fin = (flags & QG_FIN) != 0;
    return total;
}
