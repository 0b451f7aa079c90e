/* quicgreen_ws.h: WebSocket's frames (RFC 6455, section 5). The third part of the public interface,
 * under the rules of quicgreen.h, except that no engine is concerned: whose memory it is may call.
 *
 * Receiving: qg_ws_reader_init, then for each run of bytes that came from the peer
 *    qg_ws_feed -> look at reader->count pieces, then at reader->error; again from reader->used
 *    until that is the end.
 * Sending: qg_ws_frame_size -> qg_ws_build.
 * Nothing here allocates, and nothing is kept but what a reader has room for: a message passes
 * through in pieces, as it came. */
#ifndef QUICGREEN_WS_H
#define QUICGREEN_WS_H
#include "quicgreen.h"
/* ---- cdef ---- */

#define QG_WS_CONTINUATION 0
#define QG_WS_TEXT         1
#define QG_WS_BINARY       2
#define QG_WS_CLOSE        8
#define QG_WS_PING         9
#define QG_WS_PONG         10

/* Flags of a piece; QG_WS_RSV1 also for qg_ws_reader_init and qg_ws_build. */
#define QG_WS_FRAME_END     1   /* it ends a frame */
#define QG_WS_MESSAGE_END   2   /* it ends a message */
#define QG_WS_RSV1          4   /* of the message: compressed (RFC 7692, section 6) */
#define QG_WS_MESSAGE_START 8   /* it begins a message */
#define QG_WS_KEPT          16  /* it stands in reader->control */
#define QG_WS_SERVER        32  /* qg_ws_reader_init: frames come from a client, masked */
#define QG_WS_FIN           64  /* qg_ws_build: the last frame of its message */
#define QG_WS_MASK          128 /* qg_ws_build: we are a client */

#define QG_WS_CONTROL_MAX 125 /* bytes in a control frame (RFC 6455, section 5.5) */
#define QG_WS_HEAD_MAX    14  /* bytes before a frame's payload */
#define QG_WS_PIECES      15  /* of one call; with their count, a reader's first 256 bytes */

/* UTF-8 of which a part has come (RFC 3629, section 4). All zeros: nothing yet. */
typedef struct qg_ws_utf8 {
    uint8_t need; /* bytes that are missing of a character */
    uint8_t low;  /* the next one is no less */
    uint8_t high; /* and no more */
} qg_ws_utf8;

/* Received bytes of one frame: of a text or binary message as many as came, of a control frame all,
 * with the three flags of a whole message. */
typedef struct qg_ws_piece {
    uint32_t offset; /* into the bytes that were fed */
    uint32_t len;
    uint32_t opcode; /* of the message: continuation frames have their message's */
    uint32_t flags;
} qg_ws_piece;

/* One direction of one socket. A caller looks at what stands before `left`, the rest is the
 * codec's own. */
typedef struct qg_ws_reader {
    uint32_t count;  /* pieces of this call */
    uint32_t used;   /* the first byte that was not looked at */
    uint32_t error;  /* close code to fail the connection with, after these pieces; or 0 */
    uint32_t closed; /* a close frame came: what follows it is dropped */
    qg_ws_piece pieces[QG_WS_PIECES];
    const char *problem; /* the error in words. Static */
    uint64_t left;       /* payload of this frame that has not come */
    uint32_t key;        /* of this frame's mask, turned to the next byte */
    uint8_t flags;       /* QG_WS_SERVER, QG_WS_RSV1 */
    uint8_t in_payload;
    uint8_t opcode; /* of this frame */
    uint8_t fin;
    uint8_t message;       /* opcode of the message that goes on, or 0 */
    uint8_t message_flags; /* its QG_WS_RSV1, and QG_WS_MESSAGE_START until its first piece */
    uint8_t head_len;
    uint8_t control_len;
    qg_ws_utf8 utf8;
    uint8_t head[QG_WS_HEAD_MAX];
    uint8_t control[QG_WS_CONTROL_MAX];
} qg_ws_reader;

/* `flags`: QG_WS_SERVER, QG_WS_RSV1 (an extension uses that bit). */
void qg_ws_reader_init(qg_ws_reader *reader, uint32_t flags);

/* Take bytes[begin, end): unmask them in place, and say in `reader` what they are. The call stops
 * early, at `used`, when there is no room for more pieces or one is in reader->control, where it
 * lives until the next call. Returns the number of pieces.
 * Text is checked to be UTF-8, unless compressed; a close frame's payload as well. After an error
 * every call says the same error, and no pieces. */
uint32_t qg_ws_feed(qg_ws_reader *reader, uint8_t *bytes, uint32_t begin, uint32_t end);

/* How many bytes a frame takes with a payload of `len`. `flags`: of QG_WS_MASK. */
size_t qg_ws_frame_size(size_t len, uint32_t flags);

/* Write a frame to `out`, which has room for qg_ws_frame_size bytes and does not overlap `payload`.
 * `flags`: QG_WS_FIN, QG_WS_RSV1, QG_WS_MASK (with a random key). Returns the bytes written;
 * QG_INVALID for an opcode, or a control frame, that RFC 6455 does not allow. */
int64_t qg_ws_build(uint32_t opcode, uint32_t flags, const uint8_t *payload, size_t len,
                    uint8_t *out);

/* Does this text go on as UTF-8, and with `end`: is it whole? Returns 1 or 0; 0 is final. */
int qg_ws_utf8_feed(qg_ws_utf8 *state, const uint8_t *bytes, size_t len, uint32_t end);

/* ---- end of cdef ---- */
#endif
