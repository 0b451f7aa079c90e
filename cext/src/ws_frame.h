/* ws_frame.h: WebSocket's frames; the interface is quicgreen_ws.h. Masks and text are gone through
 * by words: a message of 16 bytes takes some ten nanoseconds, a long one as much as its memory. */
#ifndef QG_WS_FRAME_H
#define QG_WS_FRAME_H

#include "base.h"
#include "quicgreen_ws.h"

/* Combine `in` with the mask `key` into `out`, which may be the same place, and otherwise does not
 * overlap. The key is its four bytes as they lie in memory (RFC 6455, section 5.3). Returns the key
 * turned to the byte that follows. */
uint32_t qg__ws_mask(uint8_t *out, const uint8_t *in, size_t len, uint32_t key);

#endif
