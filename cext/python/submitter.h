/* submitter.h: submissions from Python, without the way through cffi.
 *
 * A call through cffi drops the GIL and takes it again, and packing a record in Python costs as
 * much: some 200 ns for each answer. These are functions of CPython's own kind (METH_FASTCALL) that
 * write to the engine's submission ring in 50.
 *
 * Below the marker line is cffi's text. */
#ifndef QG_SUBMITTER_H
#define QG_SUBMITTER_H
#include "quicgreen.h"
/* ---- cdef ---- */

/* Put two functions into the dict whose address `namespace` is (in CPython: its `id`). Both return
 * False when head and body are larger than the arena, and True when the submission is written.
 *
 *   submit(op, flags, conn, stream, token, timeout_us, code, head, body)
 *   respond(flags, conn, stream, head, body)
 *
 * Numbers are ints, head and body bytes. Neither may be called once the engine is freed.
 * 0, or -1 with Python's memory at its end. */
int qg_submitter_bind(qg_engine *engine, const qg_engine_options *options, uintptr_t namespace);

/* ---- end of cdef ---- */
#endif
