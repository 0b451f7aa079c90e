/* h3_control.h: the unidirectional streams of HTTP/3: control and QPACK (RFC 9114, section 6.2). */
#ifndef QG_H3_CONTROL_H
#define QG_H3_CONTROL_H

#include "conn.h"

/* Read what has come on one of the peer's unidirectional streams. */
void qg__h3_control_readable(qg_stream *stream);

/* A frame, on whichever stream, of a type that this file and h3.c have no name for. Most are skipped, and
 * counted where they are not reserved to be skipped (RFC 9114, sections 7.2.8 and 9). False: it was one of
 * HTTP/2's, and the connection failed. */
bool qg__h3_skip_unknown(qg_conn *conn, uint64_t type);

#endif
