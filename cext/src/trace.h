/* trace.h: a line for each datagram of an endpoint (quicgreen_seeing.h).
 *
 * A traced datapath has other functions: they write their lines and call its own. One that is not traced
 * does not know of it. */
#ifndef QG_TRACE_H
#define QG_TRACE_H

#include "datapath.h"

typedef struct qg_trace qg_trace;

/* Trace what comes and goes here to `fd`. `now_ns` is where the engine keeps its clock. Without memory
 * for it nothing is traced. */
void qg__trace(qg_datapath *dp, int fd, const uint64_t *now_ns);

/* Give it its own functions again. */
void qg__untrace(qg_datapath *dp);

#endif
