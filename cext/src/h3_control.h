/* h3_control.h: the unidirectional streams of HTTP/3: control and QPACK (RFC 9114, section 6.2). */
#ifndef QG_H3_CONTROL_H
#define QG_H3_CONTROL_H

#include "conn.h"

/* Read what has come on one of the peer's unidirectional streams. */
void qg__h3_control_readable(qg_stream *stream);

#endif
