/* conn.h: one connection: its quiche_conn, its streams, what the caller was told of it.
 *
 * Life:  HANDSHAKE -> OPEN -> ENDING -> ENDED -> (freed)
 * ENDING: it is over, and not everybody who waits has been told (the ring may be full).
 * ENDED:  all were told; quiche still answers late packets (RFC 9000, section 10.2), streams with
 *         bytes that came before the end can be read, and the id is answered QG_CLOSED until the
 *         slot is free.
 *
 * Whatever changes a connection ends with qg__conn_dirty (something to send) or qg__conn_touch
 * (something to look at); nothing is sent or told on the spot. */
#ifndef QG_CONN_H
#define QG_CONN_H

#include "cid.h"
#include "config.h"
#include "stream.h"
#include "token.h"

struct qg_engine;
struct qg_endpoint;

/* HTTP/3 and QPACK error codes (RFC 9114, section 8.1; RFC 9204, section 6). */
#define H3_NO_ERROR                0x100
#define H3_GENERAL_PROTOCOL_ERROR  0x101
#define H3_INTERNAL_ERROR          0x102
#define H3_STREAM_CREATION_ERROR   0x103
#define H3_CLOSED_CRITICAL_STREAM  0x104
#define H3_FRAME_UNEXPECTED        0x105
#define H3_FRAME_ERROR             0x106
#define H3_EXCESSIVE_LOAD          0x107
#define H3_ID_ERROR                0x108
#define H3_SETTINGS_ERROR          0x109
#define H3_MISSING_SETTINGS        0x10a
#define H3_REQUEST_REJECTED        0x10b
#define H3_REQUEST_CANCELLED       0x10c
#define H3_REQUEST_INCOMPLETE      0x10d
#define H3_MESSAGE_ERROR           0x10e
#define QPACK_DECOMPRESSION_FAILED 0x200
#define QPACK_ENCODER_STREAM_ERROR 0x201
#define QPACK_DECODER_STREAM_ERROR 0x202

/* More responses than this in one round trip at the very end are rare; those before them have
 * arrived. */
#define QG_RECENT 32

typedef enum qg_conn_state {
    QG_CONN_HANDSHAKE,
    QG_CONN_OPEN,
    QG_CONN_ENDING,
    QG_CONN_ENDED,
} qg_conn_state;

/* A request, or a wait for a stream, that the peer's stream limit holds back. */
typedef struct qg_pending {
    qg_link link;         /* in conn->pending, or engine->failed */
    struct qg_conn *conn; /* NULL once it failed */
    uint64_t conn_id;
    uint64_t token;
    qg_timer timer;
    uint16_t flags;
    bool request; /* else: tell with QG_EVENT_OPENED that one may be opened */
    bool bidi;
    int result;    /* failed: why */
    uint64_t code; /* failed: the peer's or our code */
    uint32_t head_len, body_len;
    uint8_t *bytes; /* head, then body */
} qg_pending;

typedef struct qg_qlog qg_qlog; /* qlog.h */

/* What HTTP/3 keeps of a connection. */
typedef struct qg_h3 {
    uint64_t control_id;      /* ours */
    uint64_t next_request_id; /* client */
    uint64_t next_uni_id;
    uint64_t first_unseen_id; /* server: above every request that was seen */
    uint64_t goaway_sent;     /* QG_NEVER: none */
    uint64_t goaway_received; /* QG_NEVER: none */
    uint64_t max_push_id;     /* server: the last that was allowed; none is used */
    uint64_t peer_max_field_section_size;
    uint64_t unknown_frame; /* type of the first one that was skipped; 0: none */
    bool control_seen, encoder_seen, decoder_seen;
    bool settings_seen;
    bool peer_extended_connect;
} qg_h3;

typedef struct qg_conn {
    qg_link work;        /* in engine->work: to be looked at */
    qg_link dirty;       /* in engine->dirty: to be flushed */
    qg_link of_endpoint; /* in endpoint->conns */
    struct qg_engine *engine;
    struct qg_endpoint *endpoint;
    qg_config *config;
    quiche_conn *quiche;
    SSL *ssl;      /* quiche's; see tls.h */
    qg_qlog *qlog; /* NULL: none */
    qg_handshake handshake;
    qg_remembered remembered; /* client: the settings that the session came with */
    uint64_t id;
    uint64_t token; /* 0: the caller does not know this connection */
    qg_addr local, peer;

    uint8_t state; /* qg_conn_state */
    bool is_server;
    bool raw;
    bool begun;       /* something was sent, or may have been */
    bool started;     /* HTTP/3 runs, or raw streams: see resumption.h */
    bool wants_early; /* client: to be started once the first flight is out */
    bool early_sent;  /* client: a request left before the handshake was complete */
    bool nudge;       /* client: what quiche has to send again shall not wait */
    bool answered;    /* client: a server's Initial came, and no other server is heard */
    bool established; /* the handshake was complete once */
    bool announced;   /* QG_EVENT_ACCEPTED or CONNECTED was said */
    bool said_closed; /* QG_EVENT_CLOSED was said */
    bool draining;    /* takes no new request: GOAWAY was sent or received */
    bool half_open;   /* counted in endpoint->half_open */
    bool late;        /* a stream has an event that found no room */
    bool dead;        /* over without a word to the peer: not kept for its late packets */
    bool retire;      /* to be drained: too many streams were abandoned */
    bool goaway_due;  /* QG_EVENT_GOAWAY is to be said */
    bool finishing;   /* to be closed once nothing is under way */
    bool retried;     /* initial_cid is an id of ours, out of a Retry */
    bool unlisted;    /* counted: the group's list has no place for it */
    bool parting;     /* nothing is: the client may close it by itself, for a little while */
    bool heard;       /* a stream had something since the keep-alive's timer was last due */

    qg_timer quic;  /* quiche's next timeout */
    qg_timer phase; /* the handshake's deadline; the next GOAWAY; who has not read by then */
    qg_timer alive; /* keep-alive while streams are open */

    uint8_t cids[2][QG_CID_LEN]; /* ours, in the table */
    uint8_t cid_count;
    uint8_t initial_cid[QG_CID_MAX]; /* in engine->initial_cids */
    uint8_t initial_cid_len;

    qg_stream_table streams;
    qg_link deferred; /* streams whose request waits for credit */
    qg_link pending;  /* qg_pending */
    uint32_t active;  /* messages and RAW streams */
    uint32_t held;    /* requests that wait for the handshake to be complete */
    qg_h3 h3;

    /* Streams whose end went to quiche last: while it still knows one, some of it may not have
     * arrived. */
    uint64_t recent[QG_RECENT];
    uint32_t recent_next;

    uint64_t *abandoned; /* streams we stopped reading: see qg__conn_abandon */
    uint32_t abandoned_count, abandoned_capacity;

    uint64_t alive_ns;   /* how often a keep-alive is due */
    uint64_t silence_ns; /* how long from now, when nothing is heard: see on_silence in conn.c */
    int recv_error;      /* quiche's, of the packet that ended it */

    uint64_t close_code; /* why it ended */
    uint16_t close_flags;
    char close_text[120];
} qg_conn;

static inline uint32_t qg__conn_slot(uint64_t id) {
    return (uint32_t)id;
}

/* Do streams run although the handshake is not complete? See resumption.h. */
static inline bool qg__conn_is_early(const qg_conn *conn) {
    return conn->state == QG_CONN_HANDSHAKE && conn->started;
}

/* In the engine's work ring: qg__conn_process will see it before the turn ends. */
void qg__conn_touch(qg_conn *conn);

/* In the engine's dirty ring: it will be flushed. */
void qg__conn_dirty(qg_conn *conn);

/* Make one, in the engine's table. NULL: out of memory or at the limit. */
qg_conn *qg__conn_new(struct qg_engine *engine, struct qg_endpoint *endpoint, qg_config *config,
                      bool is_server, const qg_addr *local, const qg_addr *peer);
void qg__conn_free(qg_conn *conn);
void qg__conn_free_streams(qg_conn *conn);

/* Keep the group's list true, in which whoever outlives us looks for the peers (group.h). */
void qg__conn_list(qg_conn *conn);

/* Give it its quiche_conn. `retry_odcid`: the original id when a Retry was answered. */
int qg__conn_start(qg_conn *conn, const uint8_t *scid, size_t scid_len, const uint8_t *retry_odcid,
                   size_t retry_odcid_len, const char *server_name);

/* Look at everything that may have changed. False when the event ring has no more room: it stays in
 * the work ring. */
bool qg__conn_process(qg_conn *conn);

/* Pull packets from quiche into the datapath. False when the datapath takes no more. */
bool qg__conn_flush(qg_conn *conn, unsigned *budget);

void qg__conn_on_timer(qg_conn *conn, qg_timer *timer);

/* Have the keep-alive's timer armed while something is under way. */
void qg__conn_set_alive(qg_conn *conn);

/* quiche 0.30 frees a stream that we stopped reading only if the peer's end of it comes before the
 * last acknowledgement of ours; one that does not is lost for the peer's stream limit. They are
 * counted, and a connection with many of them is drained. */
void qg__conn_abandon(qg_conn *conn, uint64_t stream_id);

/* ---- conn_end.c ---- */

/* Close: our decision, or the peer's breach of HTTP/3. */
void qg__conn_close(qg_conn *conn, bool app, uint64_t code, const char *text);

/* It is over without a packet: refused by the network, or by its owner during the handshake. */
void qg__conn_lost(qg_conn *conn, uint16_t flags, uint64_t code, const char *text);

/* GOAWAY, then no new requests, then the end (RFC 9114, section 5.2). */
void qg__conn_drain(qg_conn *conn);

/* The same, at that time. */
void qg__conn_drain_at(qg_conn *conn, uint64_t at_ns);

/* Close once all that was written has arrived, at the latest after `timeout_us`. */
void qg__conn_finish(qg_conn *conn, uint64_t timeout_us);

/* Is it over, or could it be? Then say why and to whom. False when the event ring has no more room. */
bool qg__conn_look_for_end(qg_conn *conn);

/* ---- request.c ---- */

/* Open what waits for the peer's stream limit, as far as it goes. */
bool qg__conn_open_pending(qg_conn *conn);

/* Is a request with this token waiting or under way here? Then end it (QG_OP_CANCEL). */
bool qg__conn_cancel(qg_conn *conn, uint64_t token, uint64_t code);

/* Begin a request: on a stream now, or in conn->pending. QG_OK, or a result code for the event. */
int qg__conn_request(qg_conn *conn, const uint8_t *head, size_t head_len, const uint8_t *body,
                     size_t body_len, uint16_t flags, uint64_t token, uint64_t timeout_us);

/* The handshake is complete. Requests that left in early data which was refused are sent again, on
 * streams of their own: quiche would send them again on the old ones, when it thinks that they were
 * lost, which takes a round trip at least. */
void qg__conn_settle_early(qg_conn *conn, bool accepted);

/* Wait until a stream may be opened: QG_AGAIN, and QG_EVENT_OPENED later. With QG_EXTENDED in `flags`,
 * until the peer's SETTINGS are known too. */
int qg__conn_await_stream(qg_conn *conn, bool bidi, uint16_t flags, uint64_t token,
                          uint64_t timeout_us);

void qg__pending_fail(qg_pending *pending, int result, uint64_t code);
void qg__pending_free(qg_pending *pending);

#endif
