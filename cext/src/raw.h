/* raw.h: connections whose streams are the application's (any ALPN but HTTP/3's). */
#ifndef QG_RAW_H
#define QG_RAW_H

#include "conn.h"

void qg__raw_start(qg_conn *conn);

/* quiche says that this stream has something. False when the connection failed. */
bool qg__raw_readable(qg_conn *conn, uint64_t id);

/* As the functions of the same purpose in h3.h. */
int64_t qg__raw_read(qg_stream *stream, uint8_t *out, size_t capacity, bool *fin);

/* A new stream of ours, or NULL when the peer's limit does not allow one now. */
qg_stream *qg__raw_open(qg_conn *conn, bool bidi);

#endif
