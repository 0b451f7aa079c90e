/* stream.h: one QUIC stream, and the message on it.
 *
 * Rules
 * 1. Received bytes stay in quiche until someone reads: that is the back-pressure. What is kept
 *    here is a head that came in pieces, and trailers.
 * 2. The caller's bytes are never kept: a write takes what quiche takes now. What the engine itself
 *    has to say (heads, the body of a submission) may wait in `out`, at most QG_BODY_INLINE_MAX and
 *    a head, for write_timeout_ms.
 * 3. quiche tells of a stream once (stream_readable_next, stream_writable_next) and again only
 *    after all was read, or a write was refused. So a wait is armed only after a read or write came
 *    back empty; `unread` remembers a stream that was told of while nobody wanted it.
 * 4. A stream lives until both sides have ended and the caller cannot ask about it any more: at
 *    once when both ended well, with its release when one failed (the caller has to hear how). It
 *    outlives its connection while bytes that came before the end are not read. */
#ifndef QG_STREAM_H
#define QG_STREAM_H

#include "base.h"
#include "timer.h"

struct qg_conn;

typedef enum qg_recv_state {
    QG_RECV_HEAD,    /* of an HTTP/3 message: its head is not complete */
    QG_RECV_BODY,    /* body, or RAW bytes */
    QG_RECV_DONE,    /* read to its end */
    QG_RECV_RESET,   /* the peer gave up; recv_code */
    QG_RECV_STOPPED, /* we gave up */
    QG_RECV_DISCARD, /* the rest is read and dropped */
    QG_RECV_NONE,    /* a stream we only send on */
} qg_recv_state;

typedef enum qg_send_state {
    QG_SEND_HEAD,    /* our head is not sent */
    QG_SEND_BODY,    /* body, or RAW bytes */
    QG_SEND_DONE,    /* all is with quiche, the end too */
    QG_SEND_RESET,   /* we gave up */
    QG_SEND_STOPPED, /* the peer asked to stop; send_code */
    QG_SEND_NONE,    /* a stream we only receive on */
} qg_send_state;

typedef enum qg_stream_kind {
    QG_STREAM_MESSAGE, /* request and response */
    QG_STREAM_RAW,
    QG_STREAM_UNI, /* the peer's, type not known yet */
    QG_STREAM_CONTROL,
    QG_STREAM_QPACK_ENCODER,
    QG_STREAM_QPACK_DECODER,
    QG_STREAM_OURS, /* our control stream */
} qg_stream_kind;

typedef struct qg_wait {
    uint64_t token; /* 0: nobody waits */
    qg_timer timer;
    /* The event to say when the ring had no room at the time (conn->late). */
    uint16_t due_type; /* 0: none */
    int16_t due_result;
    uint64_t due_code;
} qg_wait;

/* The frame being read (RFC 9114, section 7.1). */
typedef struct qg_frame {
    uint64_t type;
    uint64_t left;      /* of its payload */
    uint8_t header[16]; /* its type and length, as far as they came */
    uint8_t header_len; /* 0: between frames, or inside one when `left` > 0 */
} qg_frame;

/* A request that left in early data, until the server said whether it takes that. */
typedef struct qg_early {
    uint16_t flags;
    uint32_t head_len, body_len;
    uint8_t bytes[]; /* head, then body */
} qg_early;

typedef struct qg_stream {
    uint64_t id;
    struct qg_conn *conn;
    qg_link deferred; /* in conn->deferred: its request waits for credit */

    uint8_t kind;       /* qg_stream_kind */
    uint8_t recv_state; /* qg_recv_state */
    uint8_t send_state; /* qg_send_state */
    bool unread;        /* quiche told of it, and it was not read empty */
    bool head_only;     /* a HEAD request's response: no body, whatever its fields say */
    bool awaiting_head; /* `read` waits for the response's head */
    bool told;          /* the caller knows this stream */
    bool trailers_seen; /* no frame but unknown ones may follow */
    bool released;      /* the caller is done with it */
    bool settings_seen; /* control stream */
    uint8_t interim;    /* informational responses so far */

    qg_event *held;  /* a request that is to be announced later, and its bytes */
    qg_early *early; /* client: what may have to be sent again */
    qg_frame frame;
    uint8_t *section; /* a field section that comes in pieces; `frame.left` bytes are missing */
    uint32_t section_len;

    uint64_t content_length; /* QG_UNKNOWN_LENGTH */
    uint64_t body_seen;
    uint64_t discarded;
    uint8_t *trailers; /* text, as in qg_event */
    uint32_t trailers_len;

    uint64_t recv_code;
    uint64_t send_code;

    qg_wait read;
    qg_wait write;

    size_t stretch;     /* taken by quiche since it refused last */
    uint16_t low_water; /* see qg__stream_low_water */

    uint8_t *out; /* what we still have to send, from out_at to out_len */
    uint32_t out_at, out_len;
    bool out_fin;
} qg_stream;

/* From QUIC stream ids to streams: open addressing with linear probing. */
typedef struct qg_stream_table {
    qg_stream **slots;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t count;
} qg_stream_table;

qg_stream *qg__streams_find(const qg_stream_table *table, uint64_t id);
bool qg__streams_add(qg_stream_table *table, qg_stream *stream);
void qg__streams_remove(qg_stream_table *table, uint64_t id);

/* A new stream of this connection, in its table. NULL without memory. */
qg_stream *qg__stream_new(struct qg_conn *conn, uint64_t id, qg_stream_kind kind,
                          qg_recv_state recv_state, qg_send_state send_state);

/* Take it out of everything and free it. Waits are dropped silently. */
void qg__stream_free(qg_stream *stream);

/* Free it when rule 4 allows. True when it is gone. */
bool qg__stream_settle(qg_stream *stream);

/* ------------------------------------------------------------- sending */

/* Send bytes that are the engine's own, now or, as far as quiche takes no more, from `out`. QG_OK,
 * QG_STOPPED, QG_CLOSED or QG_NOMEM. */
int qg__stream_put(qg_stream *stream, const uint8_t *data, size_t len, bool fin);

/* How many bytes quiche takes now; QG_STOPPED, QG_CLOSED. */
int64_t qg__stream_room(qg_stream *stream);

/* quiche takes no more: from how many bytes on of the `left` ones is it worth being woken? */
size_t qg__stream_low_water(qg_stream *stream, size_t left);

/* Is our side still open? */
bool qg__stream_is_sending(const qg_stream *stream);

/* quiche may take more: go on with `out`, or wake who waits to write. */
void qg__stream_writable(qg_stream *stream);

/* Offer bytes. Returns how many quiche took; QG_AGAIN, QG_STOPPED, QG_CLOSED. */
int64_t qg__stream_send(qg_stream *stream, const uint8_t *data, size_t len, bool fin);

/* ------------------------------------------------------------- ending */

/* RESET_STREAM: nothing more is sent. */
void qg__stream_reset(qg_stream *stream, uint64_t code);

/* STOP_SENDING: nothing more is read. */
void qg__stream_stop(qg_stream *stream, uint64_t code);

/* Both, and wake who waits with (result, code). */
void qg__stream_fail(qg_stream *stream, uint64_t code, int result);

/* The caller is done: see qg_stream_release. */
void qg__stream_release(qg_stream *stream);

/* Read and drop what has come for a stream in QG_RECV_DISCARD. */
void qg__stream_discard(qg_stream *stream);

/* The peer reset its side. */
void qg__stream_on_reset(qg_stream *stream, uint64_t code);

/* ------------------------------------------------------------- waiting */

/* Arm a wait. QG_AGAIN, or QG_INVALID when another one waits already. */
int qg__wait_arm(qg_stream *stream, qg_wait *wait, uint64_t token, uint64_t timeout_us);

/* Its time begins anew; 0: none. QG_AGAIN or QG_NOMEM. */
int qg__wait_time(qg_stream *stream, qg_wait *wait, uint64_t timeout_us);
void qg__wait_clear(qg_stream *stream, qg_wait *wait);

/* Say an event to who waits, if anybody does: now, or when the ring has room. */
void qg__wait_wake(qg_stream *stream, qg_wait *wait, uint16_t type, int result, uint64_t code);

/* Say what is due on both waits. False when the ring has no room. */
bool qg__waits_say(qg_stream *stream);

#endif
