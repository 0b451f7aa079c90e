#include "ws_frame.h"

#include <openssl/rand.h>

/* The first two bytes of a frame (RFC 6455, section 5.2). */
#define FIN      0x80
#define RSV1     0x40
#define RSV23    0x30
#define OPCODE   0x0f
#define CONTROL  0x08 /* the bit of an opcode that says so */
#define MASKED   0x80
#define LENGTH   0x7f
#define LENGTH16 126
#define LENGTH64 127

/* Close codes (RFC 6455, section 7.4.1). */
#define PROTOCOL_ERROR 1002
#define NOT_UTF8       1007

#define WHOLE (QG_WS_MESSAGE_START | QG_WS_FRAME_END | QG_WS_MESSAGE_END)

/* ---------------------------------------------------------------- masks */

static uint64_t load64(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static uint32_t load32(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

/* On machines whose words begin with their low byte, which all are that we build on. */
static uint32_t turned(uint32_t key, size_t bytes) {
    unsigned bits = 8 * (bytes & 3);
    return bits == 0 ? key : key >> bits | key << (32 - bits);
}

/* Two registers of the least machine, one of others. */
typedef uint64_t wide __attribute__((vector_size(32)));

uint32_t qg__ws_mask(uint8_t *out, const uint8_t *in, size_t len, uint32_t key) {
    uint64_t keys = (uint64_t)key << 32 | key;
    size_t i = 0;
    for (; i + sizeof(wide) <= len; i += sizeof(wide)) {
        wide w;
        memcpy(&w, in + i, sizeof w);
        w ^= keys;
        memcpy(out + i, &w, sizeof w);
    }
    for (; i + 8 <= len; i += 8) {
        uint64_t w = load64(in + i) ^ keys;
        memcpy(out + i, &w, 8);
    }
    for (; i < len; i++, keys >>= 8) { /* seven at most */
        out[i] = in[i] ^ (uint8_t)keys;
    }
    return turned(key, len);
}

/* ---------------------------------------------------------------- UTF-8 */

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The first byte that is not ASCII, or `end`. */
static const uint8_t *skip_ascii(const uint8_t *p, const uint8_t *end) {
    while (end - p >= 32 &&
           ((load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24)) & HIGH_BITS) == 0) {
        p += 32;
    }
    while (end - p >= 8) {
        uint64_t high = load64(p) & HIGH_BITS;
        if (high != 0) {
            return p + __builtin_ctzll(high) / 8;
        }
        p += 8;
    }
    while (p < end && *p < 0x80) {
        p++;
    }
    return p;
}

/* The length of the character at `p`, which is not ASCII and of which four bytes can be read; 0 when
 * there is none. RFC 3629, section 4: no longer form than needed, no surrogates, up to U+10FFFF. */
static size_t character(const uint8_t *p) {
    uint32_t w = qg__get32(p);
    if ((w & 0xe0c00000) == 0xc0800000) {
        return w >= 0xc2000000 ? 2 : 0;
    }
    if ((w & 0xf0c0c000) == 0xe0808000) {
        uint32_t top = w & 0x0f200000; /* the upper five of its 16 bits */
        return top != 0 && top != 0x0d200000 ? 3 : 0;
    }
    if ((w & 0xf8c0c0c0) == 0xf0808080) {
        uint32_t top = w & 0x07300000; /* the upper five of its 21 bits */
        return top >= 0x00100000 && top <= 0x04000000 ? 4 : 0;
    }
    return 0;
}

/* What may follow the first byte of a character. False when none begins so. */
static bool begin_character(qg_ws_utf8 *s, uint8_t c) {
    s->low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    s->high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    s->need = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    return c < 0x80 || (c >= 0xc2 && c <= 0xf4);
}

static bool take_byte(qg_ws_utf8 *s, uint8_t c) {
    if (s->need == 0) {
        return begin_character(s, c);
    }
    if (c < s->low || c > s->high) {
        return false;
    }
    s->low = 0x80;
    s->high = 0xbf;
    s->need--;
    return true;
}

static bool utf8(qg_ws_utf8 *s, const uint8_t *p, size_t len) {
    const uint8_t *end = p + len;
    while (p < end) {
        if (s->need == 0 && *p < 0x80) {
            p = skip_ascii(p, end);
        } else if (s->need == 0 && end - p >= 4) {
            size_t n = character(p);
            if (n == 0) {
                return false;
            }
            p += n;
        } else if (!take_byte(s, *p++)) { /* the end may cut this one, or the last end did */
            return false;
        }
    }
    return true;
}

int qg_ws_utf8_feed(qg_ws_utf8 *state, const uint8_t *bytes, size_t len, uint32_t end) {
    if (utf8(state, bytes, len) && (!end || state->need == 0)) {
        return 1;
    }
    *state = (qg_ws_utf8){.need = 1, .low = 1, .high = 0}; /* nothing goes on from here */
    return 0;
}

/* ---------------------------------------------------------------- reading */

void qg_ws_reader_init(qg_ws_reader *r, uint32_t flags) {
    memset(r, 0, sizeof *r);
    r->flags = (uint8_t)flags;
}

static void fail(qg_ws_reader *r, uint32_t code, const char *problem) {
    r->error = code;
    r->problem = problem;
}

/* How many bytes the head has that begins with the two at `p`. */
static size_t head_size(const uint8_t *p) {
    uint8_t length = p[1] & LENGTH;
    return 2u + (length < LENGTH16 ? 0u : length == LENGTH16 ? 2u : 8u) + (p[1] & MASKED ? 4u : 0u);
}

/* What is wrong with the first two bytes of a frame, or NULL. */
static const char *check_start(const qg_ws_reader *r, const uint8_t *p) {
    uint8_t opcode = p[0] & OPCODE, length = p[1] & LENGTH;
    bool begins = opcode == QG_WS_TEXT || opcode == QG_WS_BINARY;
    if ((p[0] & RSV23) != 0 || ((p[0] & RSV1) != 0 && !(begins && (r->flags & QG_WS_RSV1) != 0))) {
        return "a reserved bit is set";
    }
    if (((p[1] & MASKED) != 0) != ((r->flags & QG_WS_SERVER) != 0)) {
        return (p[1] & MASKED) != 0 ? "a server's frame is masked"
                                    : "a client's frame is not masked";
    }
    if ((opcode & CONTROL) != 0) {
        return opcode > QG_WS_PONG          ? "the opcode is reserved"
               : (p[0] & FIN) == 0          ? "a control frame is fragmented"
               : length > QG_WS_CONTROL_MAX ? "a control frame is longer than 125 bytes"
                                            : NULL;
    }
    if (opcode > QG_WS_BINARY) {
        return "the opcode is reserved";
    }
    if (begins) {
        return r->message != 0 ? "a message begins within another one" : NULL;
    }
    return r->message == 0 ? "a continuation frame continues nothing" : NULL;
}

/* The payload's length that stands at *p, which is moved behind it. */
static const char *read_length(const uint8_t **p, uint64_t *length) {
    *length = (*p)[1] & LENGTH;
    *p += 2;
    if (*length == LENGTH16) {
        *length = qg__get16(*p);
        *p += 2;
        return *length < LENGTH16 ? "a length is not in its shortest form" : NULL;
    }
    if (*length == LENGTH64) {
        *length = qg__get64(*p);
        *p += 8;
        return *length <= UINT16_MAX ? "a length is not in its shortest form"
               : *length > INT64_MAX ? "a length has its highest bit set"
                                     : NULL;
    }
    return NULL;
}

/* A frame begins: its whole head is at `p`. */
static void begin_frame(qg_ws_reader *r, const uint8_t *p) {
    uint8_t first = p[0];
    const char *problem = check_start(r, p);
    if (problem == NULL) {
        problem = read_length(&p, &r->left);
    }
    if (problem != NULL) {
        fail(r, PROTOCOL_ERROR, problem);
        return;
    }
    r->key = (r->flags & QG_WS_SERVER) != 0 ? load32(p) : 0;
    r->in_payload = 1;
    r->opcode = first & OPCODE;
    r->fin = first & FIN;
    if ((r->opcode & CONTROL) != 0) {
        r->control_len = 0;
    } else if (r->opcode != QG_WS_CONTINUATION) {
        r->message = r->opcode;
        r->message_flags = QG_WS_MESSAGE_START | ((first & RSV1) != 0 ? QG_WS_RSV1 : 0);
    }
}

/* Take of `p` what belongs to a frame's head. Returns how much that is. */
static uint32_t take_head(qg_ws_reader *r, const uint8_t *p, uint32_t len) {
    if (r->head_len == 0 && len >= 2 && len >= head_size(p)) {
        begin_frame(r, p);
        return (uint32_t)head_size(p);
    }
    uint32_t used = 0;
    while (used < len && r->error == 0) { /* one that was cut: 14 bytes at most */
        r->head[r->head_len++] = p[used++];
        if (r->head_len == 2) { /* what is wrong is said now, whether more comes or not */
            const char *problem = check_start(r, r->head);
            if (problem != NULL) {
                fail(r, PROTOCOL_ERROR, problem);
            }
        }
        if (r->error == 0 && r->head_len >= 2 && r->head_len == head_size(r->head)) {
            r->head_len = 0;
            begin_frame(r, r->head);
            break;
        }
    }
    return used;
}

static void add_piece(qg_ws_reader *r, uint32_t offset, uint32_t len, uint32_t opcode,
                      uint32_t flags) {
    r->pieces[r->count++] = (qg_ws_piece){offset, len, opcode, flags};
}

/* Codes that may stand in a close frame: RFC 6455, section 7.4, and IANA's registry. */
static bool is_close_code(uint32_t code) {
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static void check_close(qg_ws_reader *r, const uint8_t *payload, uint32_t len) {
    if (len == 0) {
        return;
    }
    qg_ws_utf8 reason = {0};
    if (len == 1) {
        fail(r, PROTOCOL_ERROR, "a close frame has half a code");
    } else if (!is_close_code(qg__get16(payload))) {
        fail(r, PROTOCOL_ERROR, "a close frame has a code that is none");
    } else if (!qg_ws_utf8_feed(&reason, payload + 2, len - 2, 1)) {
        fail(r, NOT_UTF8, "a close frame's reason is not UTF-8");
    }
}

/* `len` bytes of a control frame, unmasked, are at `offset`. */
static void take_control(qg_ws_reader *r, const uint8_t *bytes, uint32_t offset, uint32_t len) {
    const uint8_t *payload = bytes + offset;
    uint32_t kept = 0;
    if (r->left > 0 || r->control_len > 0) {
        qg__copy(r->control + r->control_len, payload, len);
        r->control_len = (uint8_t)(r->control_len + len);
        payload = r->control;
        offset = 0;
        len = r->control_len;
        kept = QG_WS_KEPT;
    }
    if (r->left > 0) {
        return;
    }
    r->in_payload = 0;
    if (r->opcode == QG_WS_CLOSE) {
        check_close(r, payload, len);
        r->closed = r->error == 0;
    }
    if (r->error == 0) {
        add_piece(r, offset, len, r->opcode, WHOLE | kept);
    }
}

/* The same for a frame of a message. */
static void take_data(qg_ws_reader *r, const uint8_t *bytes, uint32_t offset, uint32_t len) {
    bool frame_end = r->left == 0, message_end = frame_end && r->fin;
    if (len == 0 && !frame_end) {
        return;
    }
    if (r->message == QG_WS_TEXT && (r->message_flags & QG_WS_RSV1) == 0 &&
        !qg_ws_utf8_feed(&r->utf8, bytes + offset, len, message_end)) {
        fail(r, NOT_UTF8, "a text is not UTF-8");
        return;
    }
    add_piece(r, offset, len, r->message,
              r->message_flags | (frame_end ? QG_WS_FRAME_END : 0u) |
                  (message_end ? QG_WS_MESSAGE_END : 0u));
    r->message_flags &= QG_WS_RSV1;
    r->in_payload = !frame_end;
    if (message_end) {
        r->message = 0;
    }
}

/* Returns how much of bytes[offset, offset + len) belongs to this frame. */
static uint32_t take_payload(qg_ws_reader *r, uint8_t *bytes, uint32_t offset, uint32_t len) {
    uint32_t n = (uint32_t)qg__min64(len, r->left);
    if (r->key != 0) {
        r->key = qg__ws_mask(bytes + offset, bytes + offset, n, r->key);
    }
    r->left -= n;
    if ((r->opcode & CONTROL) != 0) {
        take_control(r, bytes, offset, n);
    } else {
        take_data(r, bytes, offset, n);
    }
    return n;
}

uint32_t qg_ws_feed(qg_ws_reader *r, uint8_t *bytes, uint32_t begin, uint32_t end) {
    uint32_t at = begin;
    bool kept = false;
    r->count = 0;
    while (r->error == 0 && !r->closed && at < end && r->count < QG_WS_PIECES && !kept) {
        if (!r->in_payload) {
            at += take_head(r, bytes + at, end - at);
        }
        if (r->in_payload) {
            at += take_payload(r, bytes, at, end - at);
        }
        kept = r->count > 0 && (r->pieces[r->count - 1].flags & QG_WS_KEPT) != 0;
    }
    r->used = r->error != 0 || r->closed ? end : at;
    return r->count;
}

/* ---------------------------------------------------------------- building */

size_t qg_ws_frame_size(size_t len, uint32_t flags) {
    size_t head = len < LENGTH16 ? 2 : len <= UINT16_MAX ? 4 : 10;
    return head + ((flags & QG_WS_MASK) != 0 ? 4 : 0) + len;
}

static bool may_build(uint32_t opcode, uint32_t flags, size_t len) {
    if (opcode <= QG_WS_BINARY) {
        return opcode != QG_WS_CONTINUATION || (flags & QG_WS_RSV1) == 0;
    }
    return opcode >= QG_WS_CLOSE && opcode <= QG_WS_PONG && len <= QG_WS_CONTROL_MAX &&
           (flags & (QG_WS_FIN | QG_WS_RSV1)) == QG_WS_FIN;
}

/* Returns what follows the length. */
static uint8_t *put_length(uint8_t *p, size_t len, uint8_t masked) {
    if (len < LENGTH16) {
        p[0] = (uint8_t)(masked | len);
        return p + 1;
    }
    if (len <= UINT16_MAX) {
        p[0] = masked | LENGTH16;
        qg__put16(p + 1, (uint16_t)len);
        return p + 3;
    }
    p[0] = masked | LENGTH64;
    qg__put64(p + 1, len);
    return p + 9;
}

int64_t qg_ws_build(uint32_t opcode, uint32_t flags, const uint8_t *payload, size_t len,
                    uint8_t *out) {
    if (!may_build(opcode, flags, len)) {
        return QG_INVALID;
    }
    bool masked = (flags & QG_WS_MASK) != 0;
    uint8_t *p = out;
    *p++ = (uint8_t)(opcode | ((flags & QG_WS_FIN) != 0 ? FIN : 0) |
                     ((flags & QG_WS_RSV1) != 0 ? RSV1 : 0));
    p = put_length(p, len, masked ? MASKED : 0);
    if (masked) {
        RAND_bytes(p, 4);
        qg__ws_mask(p + 4, payload, len, load32(p));
        p += 4;
    } else {
        qg__copy(p, payload, len);
    }
    return p + len - out;
}
