/* h3_peer.h: an HTTP/3 peer that says whatever a test wants: bytes are composed here and go out on
 * streams of a RAW connection (rig_raw_client, rig_raw_server). Nothing is checked on the way. */
#ifndef H3_PEER_H
#define H3_PEER_H

#include "harness.h"

#define BYTES(text)  (text), sizeof(text) - 1
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* What a peer says at the connection's end, seen from the other side. */
#define BY_PEER (QG_APP | QG_REMOTE | QG_ESTABLISHED)

/* Frame types (RFC 9114, section 7.2; RFC 9218, section 7.2). */
enum {
    DATA = 0x0,
    HEADERS = 0x1,
    CANCEL_PUSH = 0x3,
    SETTINGS = 0x4,
    PUSH_PROMISE = 0x5,
    GOAWAY = 0x7,
    MAX_PUSH_ID = 0xd,
    GREASE = 0x21, /* of the form 0x1f * N + 0x21: means nothing */
    PRIORITY_UPDATE = 0xf0700,
    PRIORITY_UPDATE_PUSH = 0xf0701
};

/* ---------------------------------------------------------------- composing */

#define WIRE_MAX 70000

typedef struct wire {
    size_t len;
    uint8_t data[WIRE_MAX];
} wire;

void put_bytes(wire *w, const void *data, size_t len);
void put_number(wire *w, uint64_t number);
void put_frame(wire *w, uint64_t type, const void *payload, size_t len);

/* A HEADERS frame of "name: value\n" lines. */
void put_head(wire *w, const char *lines);

#define GET_LINES  ":method: GET\n:scheme: https\n:authority: a.test\n:path: /\n"
#define POST_LINES ":method: POST\n:scheme: https\n:authority: a.test\n:path: /\n"

/* ---------------------------------------------------------------- a client, a server */

/* A connection between the peer and the engine under test: a server, to which the peer has said its
 * SETTINGS, or a client. `o` NULL: the defaults. */
void peer_client(rig *r, rig_options *o);
void peer_server(rig *r, rig_options *o);

/* The same, silent. */
void silent_client(rig *r, rig_options *o);
void silent_server(rig *r, rig_options *o);

/* What the peer's side calls the connection. */
side *peer_of(rig *r);
uint64_t peer_conn(rig *r);

/* On a stream of the peer's own. */
uint64_t peer_open(rig *r, bool bidi, const wire *w, bool fin);
void peer_send(rig *r, uint64_t stream, const wire *w, bool fin);

/* The peer's stream was reset, and (or) stopped, with this code. */
void await_peer_reset(rig *r, uint64_t stream, uint64_t code);
void await_peer_stopped(rig *r, uint64_t stream, uint64_t code);

/* The peer is told that the connection is over, with this HTTP/3 code; then the rig is closed. */
void ends_with(rig *r, uint64_t code);

/* The engine under test is a client: its request as the peer sees it. The stream. */
uint64_t await_request(rig *r, uint64_t token);

/* The connection still serves a request. */
void still_serves(rig *r);

/* ---------------------------------------------------------------- what comes back */

/* All that came on a stream, to its end. */
void read_all(rig *r, uint64_t stream, wire *w);

typedef struct frame {
    uint64_t type;
    const uint8_t *payload;
    size_t len;
} frame;

/* The next whole frame; *at moves on. False at the end. */
bool next_frame(const wire *w, size_t *at, frame *out);

/* A field section as "name: value\n" lines; static. */
const char *lines_of(const frame *f);

/* ---------------------------------------------------------------- what was received */

/* The rest of a body of which the event brought the beginning, read in pieces, to its end. Returns
 * its length; *flags are those of the last piece (or of the event). */
size_t read_body(rig *r, side *s, const seen *e, uint8_t *out, size_t capacity, size_t piece,
                 uint32_t *flags);

#endif
