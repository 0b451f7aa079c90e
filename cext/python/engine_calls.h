/* engine_calls.h: what is asked of an engine for each request or message (see python.h).
 *
 * Below the marker line is cffi's text. */
#ifndef QG_ENGINE_CALLS_H
#define QG_ENGINE_CALLS_H
#include "quicgreen.h"
/* ---- cdef ---- */

/* Put functions into the dict whose address `namespace` is (in CPython: its `id`). None may be
 * called once the engine is freed. Numbers are ints.
 *
 *   submit(op, flags, conn, stream, token, timeout_us, code, head, body)
 *   respond(flags, conn, stream, head, body)
 *      Write a submission; head and body are bytes. True, or False when they are larger than the
 *      arena.
 *   stream_read(conn, stream, buffer, token, timeout_us)
 *      qg_stream_read into a writable buffer: (bytes or result code, flags, the peer's code).
 *   stream_read_on(conn, stream, buffer, token, timeout_us)
 *      The same by qg_stream_read_on.
 *   stream_write(conn, stream, data, flags, token, timeout_us)
 *      qg_stream_write of any contiguous buffer: (bytes taken or result code, the peer's code).
 *
 * 0, or -1 with memory at its end. */
int qg_engine_calls(qg_engine *engine, const qg_engine_options *options, uintptr_t namespace);

/* ---- end of cdef ---- */
#endif
