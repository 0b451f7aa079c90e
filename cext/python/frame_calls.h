/* frame_calls.h: WebSocket's frames, for each message (see python.h).
 *
 * Below the marker line is cffi's text. */
#ifndef QG_FRAME_CALLS_H
#define QG_FRAME_CALLS_H
#include "quicgreen_ws.h"
/* ---- cdef ---- */

/* Put `feed` into the dict whose address `namespace` is (in CPython: its `id`), a function with a
 * qg_ws_reader of its own. `flags` as for qg_ws_reader_init.
 *
 *   feed(buffer, n)
 *      Take the first n bytes of a writable buffer, which are unmasked in place: a list of pieces
 *      (opcode, flags, payload). After an error, a tuple instead: (the pieces before it, close code,
 *      what is wrong).
 *
 * 0, or -1 with memory at its end. */
int qg_frame_reader(uint32_t flags, uintptr_t namespace);

/* Put `build` into it:
 *
 *   build(opcode, flags, payload)
 *      A frame as bytes, by qg_ws_build, of any contiguous buffer; None when there is no such frame. */
int qg_frame_builder(uintptr_t namespace);

/* ---- end of cdef ---- */
#endif
