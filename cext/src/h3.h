/* h3.h: HTTP/3 over quiche's streams (RFC 9114).
 *
 * Why not quiche's own: it copies every name and value into a heap object of its own, asks every
 * readable stream at each poll, writes a response in four pieces, sends a head whole or not at all
 * (one beyond the free congestion window never leaves an idle connection), and checks no message.
 * Ours decodes from the packet's bytes to checked text in one pass and writes head and body at
 * once. The measurement stands in docs/decisions/.
 *
 * Functions return false, or a negative code, when the connection failed or the stream is gone; the
 * stream must then not be touched. */
#ifndef QG_H3_H
#define QG_H3_H

#include "conn.h"

/* Frame types (RFC 9114, section 11.2.1). */
#define H3_DATA    0x0
#define H3_HEADERS 0x1

/* The connection is established: open our control stream and send SETTINGS. */
void qg__h3_start(qg_conn *conn);

/* quiche says that this stream has something. False when the ring has no room for what it may say.
 */
bool qg__h3_readable(qg_conn *conn, uint64_t id);

/* Announce the requests that were held, as far as there is credit and room. False: no room. */
bool qg__h3_say_held(qg_conn *conn);

/* Go on with a stream whose request waited for credit, or whose response for somebody who wants it.
 */
bool qg__h3_resume(qg_stream *stream);

/* Body bytes into `out`. Returns how many (0 only at the end), with *fin; QG_AGAIN, QG_RESET,
 * QG_CLOSED, or QG_PROTOCOL or QG_SHORT when the message turned out malformed. */
int64_t qg__h3_read(qg_stream *stream, uint8_t *out, size_t capacity, bool *fin);

/* Offer body bytes: a DATA frame of what fits. Returns as qg__stream_send. */
int64_t qg__h3_write(qg_stream *stream, const uint8_t *data, size_t len, bool fin);

/* A head (field lines without prefix) and the beginning of the body. */
int qg__h3_send_head(qg_stream *stream, const uint8_t *head, size_t head_len, const uint8_t *body,
                     size_t body_len, uint16_t flags);

int qg__h3_send_trailers(qg_stream *stream, const uint8_t *head, size_t head_len);

/* GOAWAY with this request id. */
void qg__h3_goaway(qg_conn *conn, uint64_t id);

/* A new request stream of ours, or NULL when the peer's limit does not allow one now. */
qg_stream *qg__h3_open_request(qg_conn *conn);

#endif
