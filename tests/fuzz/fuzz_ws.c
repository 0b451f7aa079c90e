/* WebSocket's frames: what is made of them does not depend on how they were cut; text that was let
 * through is UTF-8; what is built is read.
 *
 * The input: a byte of what, one of how to cut, then the peer's bytes, a text, or a payload. */
#include "fuzz.h"

#include <stdlib.h>

#include "check.h"
#include "ws_frame.h"

/* ---------------------------------------------------------------- text */

/* The table of RFC 3629, section 4, row by row. */
static bool is_utf8(const uint8_t *p, size_t len) {
    static const struct {
        uint8_t first, last, low, high, more;
    } rows[] = {
        {0x00, 0x7f, 0x00, 0x00, 0}, {0xc2, 0xdf, 0x80, 0xbf, 1}, {0xe0, 0xe0, 0xa0, 0xbf, 2},
        {0xe1, 0xec, 0x80, 0xbf, 2}, {0xed, 0xed, 0x80, 0x9f, 2}, {0xee, 0xef, 0x80, 0xbf, 2},
        {0xf0, 0xf0, 0x90, 0xbf, 3}, {0xf1, 0xf3, 0x80, 0xbf, 3}, {0xf4, 0xf4, 0x80, 0x8f, 3},
    };
    for (size_t i = 0; i < len;) {
        size_t row = 0;
        while (row < 9 && (p[i] < rows[row].first || p[i] > rows[row].last)) {
            row++;
        }
        if (row == 9 || len - i <= rows[row].more) {
            return false;
        }
        for (size_t k = 1; k <= rows[row].more; k++) {
            if (p[i + k] < (k == 1 ? rows[row].low : 0x80) ||
                p[i + k] > (k == 1 ? rows[row].high : 0xbf)) {
                return false;
            }
        }
        i += rows[row].more + 1u;
    }
    return true;
}

/* The next run's length; 0 for `cut` is all at once. */
static size_t next_cut(uint8_t cut, size_t at, size_t len) {
    return cut == 0 ? len - at : qg__min(1 + (cut + at * cut) % 23, len - at);
}

static void text(const uint8_t *in, size_t len, uint8_t cut) {
    qg_ws_utf8 state = {0};
    bool ok = true;
    for (size_t at = 0, n; at < len; at += n) {
        n = next_cut(cut, at, len);
        uint8_t *part = fuzz_copy(in + at, n);
        bool went_on = qg_ws_utf8_feed(&state, part, n, at + n == len);
        CHECK(ok || !went_on); /* false is final */
        ok = went_on;
        free(part);
    }
    CHECK_EQ(ok, is_utf8(in, len));
}

/* ---------------------------------------------------------------- frames */

/* What was heard: of each frame's payload the bytes, and in the end opcode and flags. */
typedef struct heard {
    uint8_t *bytes;
    size_t len;
    uint8_t *message; /* the text that goes on */
    size_t message_len;
    uint32_t error;
} heard;

static void hear_piece(heard *h, const qg_ws_piece *p, const uint8_t *payload) {
    memcpy(h->bytes + h->len, payload, p->len);
    h->len += p->len;
    if (p->flags & QG_WS_FRAME_END) {
        h->bytes[h->len++] = (uint8_t)p->opcode;
        h->bytes[h->len++] = p->flags & (QG_WS_MESSAGE_END | QG_WS_RSV1);
    }
    if (p->opcode == QG_WS_TEXT && (p->flags & QG_WS_RSV1) == 0) {
        h->message_len = p->flags & QG_WS_MESSAGE_START ? 0 : h->message_len;
        memcpy(h->message + h->message_len, payload, p->len);
        h->message_len += p->len;
        CHECK((p->flags & QG_WS_MESSAGE_END) == 0 || is_utf8(h->message, h->message_len));
    }
}

static void hear_run(heard *h, qg_ws_reader *r, const uint8_t *in, size_t len) {
    uint8_t *run = fuzz_copy(in, len);
    uint32_t used = 0;
    do {
        uint32_t begin = used;
        uint32_t count = qg_ws_feed(r, run, begin, (uint32_t)len);
        CHECK_EQ(count, r->count);
        CHECK(r->count <= QG_WS_PIECES && r->used > begin && r->used <= len);
        used = r->used;
        for (uint32_t i = 0; i < r->count; i++) {
            const qg_ws_piece *p = &r->pieces[i];
            bool kept = (p->flags & QG_WS_KEPT) != 0;
            CHECK(kept ? p->len <= QG_WS_CONTROL_MAX && i + 1 == r->count
                       : p->offset >= begin && p->offset <= used && p->len <= used - p->offset);
            hear_piece(h, p, kept ? r->control : run + p->offset);
        }
    } while (used < len);
    free(run);
}

static heard hear(uint32_t flags, const uint8_t *in, size_t len, uint8_t cut) {
    heard h = {.bytes = malloc(2 * len + 2), .message = malloc(len + 1)};
    qg_ws_reader r;
    qg_ws_reader_init(&r, flags);
    for (size_t at = 0, n; at < len; at += n) {
        n = next_cut(cut, at, len);
        hear_run(&h, &r, in + at, n);
    }
    CHECK(r.error == 0 || r.problem != NULL);
    h.error = r.error;
    return h;
}

static void frames(uint32_t flags, const uint8_t *in, size_t len, uint8_t cut) {
    heard whole = hear(flags, in, len, 0), parts = hear(flags, in, len, cut);
    CHECK_EQ(whole.error, parts.error);
    /* In parts, more of a text is heard before the part that is wrong. */
    CHECK(whole.error != 0 ? whole.len <= parts.len : whole.len == parts.len);
    CHECK_BYTES(whole.bytes, whole.len, parts.bytes, whole.len);
    free(whole.bytes);
    free(whole.message);
    free(parts.bytes);
    free(parts.message);
}

/* ---------------------------------------------------------------- building */

static void build(uint8_t what, const uint8_t *in, size_t len) {
    uint32_t flags =
        (what & 1 ? QG_WS_MASK : 0u) | (what & 2 ? QG_WS_RSV1 : 0u) | (what & 4 ? QG_WS_FIN : 0u);
    uint32_t opcode = what >> 3 & 15;
    size_t size = qg_ws_frame_size(len, flags);
    uint8_t *frame = malloc(size);
    int64_t n = qg_ws_build(opcode, flags, in, len, frame);
    CHECK(n == (int64_t)size || n == QG_INVALID);
    if (n > 0 && opcode != QG_WS_CONTINUATION && opcode != QG_WS_TEXT && opcode != QG_WS_CLOSE) {
        qg_ws_reader r;
        qg_ws_reader_init(&r, QG_WS_RSV1 | (flags & QG_WS_MASK ? QG_WS_SERVER : 0u));
        CHECK_EQ(qg_ws_feed(&r, frame, 0, (uint32_t)size), 1);
        CHECK_EQ(r.used, size);
        CHECK_EQ(r.pieces[0].opcode, opcode);
        CHECK_BYTES(frame + r.pieces[0].offset, r.pieces[0].len, in, len);
    }
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    size_t len = size - 2;
    uint8_t *in = fuzz_copy(data + 2, len);
    if (data[0] & 0x80) {
        build(data[1], in, len);
    } else if (data[0] & 0x40) {
        text(in, len, data[1]);
    } else {
        uint32_t flags = (data[0] & 1 ? QG_WS_SERVER : 0u) | (data[0] & 2 ? QG_WS_RSV1 : 0u);
        frames(flags, in, len, data[1]);
    }
    free(in);
    return 0;
}
