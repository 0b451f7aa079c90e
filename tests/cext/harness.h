/* harness.h: what tests of connections share: two engines, what they said, and small words for what
 * is done to them. Every function here checks what it does; one that returns has succeeded. */
#ifndef HARNESS_H
#define HARNESS_H

#include "check.h"
#include "engine.h"
#include "quicgreen_seeing.h"
#include "random.h"

/* For what takes milliseconds: a busy machine gets the rest. */
#define PATIENCE_NS (5 * QG_NS_PER_S)

#define ALPN_H3  "\x02h3"
#define ALPN_RAW "\x03raw"

#define LISTEN_TOKEN 1000 /* requests and sessions of the server */
#define CONN_TOKEN   2000 /* the client's connection */

/* ---------------------------------------------------------------- one engine */

/* An event and its bytes, copied before the next drain. */
typedef struct seen {
    qg_event event;
    uint8_t *bytes; /* path, head, body */
    bool taken;
} seen;

typedef struct side {
    qg_engine *engine;
    qg_engine_memory memory;
    qg_counters counters;
    int endpoint;
    uint32_t ops, next_op; /* of the submission ring */
    uint32_t arena, arena_used;
    uint32_t recorded; /* events of the current drain */
    seen **events;
    size_t count, capacity, untaken; /* all before `untaken` are taken */
} side;

void side_open(side *s, const qg_engine_options *options);

/* Free the engine and check that it counts no connection and no stream. */
void side_close(side *s);

/* Drain and flush once, and record what was said. */
void side_turn(side *s);

/* Would the engine's descriptor wake its caller, within this time? */
bool wakes_within(const qg_engine *engine, int wait_ms);

const uint8_t *path_of(const seen *e);
const uint8_t *head_of(const seen *e);
const uint8_t *body_of(const seen *e);

/* The value of a field as NUL-terminated text (static), or NULL. */
const char *field_of(const seen *e, const char *name);

/* The first recorded event that was not taken: of this type; with this token. It is taken then.
 * NULL: there is none. */
const seen *take_event(side *s, uint16_t type);
const seen *take_token(side *s, uint64_t token);
size_t count_events(const side *s, uint16_t type);

/* The in-memory link or the socket of the side's endpoint. */
qg_datapath *datapath_of(const side *s);
qg_conn *conn_at(const side *s, uint64_t conn);

/* Sends through the side's in-memory link are dropped in `percent` of 100 cases. */
typedef struct lossy {
    uint64_t random;
    unsigned percent;
    unsigned dropped;
} lossy;
void make_lossy(side *s, lossy *state);

/* ---------------------------------------------------------------- two engines */

typedef struct rig_options {
    qg_engine_options client_engine, server_engine;
    qg_config_options client, server;
    qg_listen_options listen;
    const char *client_alpn, *server_alpn;
    const char *server_name;
    const char *names; /* of the server's certificate */
    qg_keys *tickets;  /* the server's; not kept */
    qg_replay *replay; /* the server takes early data; not kept */
    bool take_tickets; /* the client tells of tickets */
    unsigned chain;    /* certificates that the server sends beside its own */
    const char *client_groups, *server_groups; /* of the key exchange; NULL: BoringSSL's */
    bool verify;                  /* the client trusts exactly the server's certificate */
    bool distrust;                /* the client verifies and trusts nobody */
    bool udp;                     /* sockets on 127.0.0.1 instead of a link in memory */
    bool ask_client, need_client; /* for a certificate */
    bool client_cert;             /* the client has one: the same as the server's */
} rig_options;

typedef struct rig {
    side client, server;
    qg_tls *client_tls, *server_tls;
    qg_config *client_config, *server_config;
    qg_addr client_addr, server_addr;
    const char *server_name;
    uint64_t conn, server_conn; /* of rig_connect */
} rig;

void rig_defaults(rig_options *o);

/* Both sides, the server listening. `o` NULL: the defaults. */
void rig_open(rig *r, const rig_options *o);

/* Begin a connection; no packet has moved yet. */
uint64_t rig_dial(rig *r);

/* rig_dial, and go on until both sides know the connection. */
void rig_connect(rig *r);

/* rig_open and rig_connect. */
void rig_start(rig *r, const rig_options *o);
void rig_close(rig *r);

/* For a client (server) that plays an HTTP/3 peer byte by byte. */
void rig_raw_client(rig_options *o);
void rig_raw_server(rig_options *o);

/* Drain and flush both until nothing moves. Time does not pass. */
void turn(rig *r);

/* Turn for this long. */
void pass_ms(rig *r, unsigned ms);

/* turn, then wait a moment for timers. */
void breathe(rig *r);

/* Turn, and let time pass, until `condition` holds. */
#define UNTIL(r, condition)                                                                        \
    do {                                                                                           \
        uint64_t until_ns = qg__now_ns() + PATIENCE_NS;                                            \
        while (!(condition)) {                                                                     \
            check_true(qg__now_ns() < until_ns, "in time: " #condition, __FILE__, __LINE__);       \
            breathe(r);                                                                            \
        }                                                                                          \
    } while (0)

const seen *await_event(rig *r, side *s, uint16_t type);
const seen *await_token(rig *r, side *s, uint64_t token);

/* Wait for the connection's end as the side sees it. */
const seen *await_closed(rig *r, side *s, uint64_t code, uint16_t flags);

/* ---------------------------------------------------------------- messages */

/* Field lines for a head: name, value, ..., NULL. */
size_t fields(uint8_t *out, size_t capacity, ...);

/* A submission, with these bytes in the arena. */
void submit(side *s, qg_submission op, const void *head, size_t head_len, const void *body,
            size_t body_len);

/* QG_OP_REQUEST on r->conn. */
void request(rig *r, uint64_t token, const char *method, const char *path, const void *body,
             size_t body_len, uint16_t flags);

/* QG_OP_RESPOND to a request. */
void respond(side *s, const seen *to, const char *status, const void *body, size_t body_len,
             uint16_t flags);

/* Take and answer every request that was recorded: status 200, the path as body. How many. */
size_t answer_all(side *s);

/* One GET and its answer. */
void exchange(rig *r, uint64_t token);

/* qg_stream_request, which must not wait. The stream. */
uint64_t open_request(rig *r, const char *method, const char *path, uint16_t flags);

/* ---------------------------------------------------------------- bytes */

/* Byte number `at` of what flows carry. */
static inline uint8_t pattern(uint64_t at) {
    return (uint8_t)((at * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}
void fill_pattern(uint8_t *out, size_t len, uint64_t at);

/* A body that one side writes and the other reads, each as far as it may, waiting for its events. */
typedef struct flow {
    side *from, *to;
    uint64_t from_conn, to_conn, stream;
    uint64_t size;  /* the body's */
    size_t piece;   /* offered and asked for at a time */
    uint64_t token; /* of the writer's waits; the reader's is one more */
    uint64_t sent, got;
    bool writer_waits, reader_waits, fin_sent, fin_got;
} flow;

/* As far as it goes now. True when it is through. */
bool flow_step(rig *r, flow *f);
void flow_all(rig *r, flow *f);

/* Write on a RAW stream; all must be taken. */
void raw_write(side *s, uint64_t conn, uint64_t stream, const void *data, size_t len, bool fin);

/* Open a RAW stream and write. */
uint64_t raw_send(side *s, uint64_t conn, bool bidi, const void *data, size_t len, bool fin);

/* Read what is there, up to `capacity`. */
size_t raw_read(side *s, uint64_t conn, uint64_t stream, void *out, size_t capacity, bool *fin);

#endif
