#include "huffman.h"

#include "qpack_tables.h"

size_t qg__huffman_size(const uint8_t *in, size_t len) {
    uint64_t bits = 0;
    for (size_t i = 0; i < len; i++) {
        bits += huffman_words[in[i]].length;
    }
    return (size_t)((bits + 7) / 8);
}

void qg__huffman_encode(const uint8_t *in, size_t len, uint8_t *out) {
    uint64_t pending = 0; /* bits not yet written, at the bottom */
    unsigned count = 0;
    for (size_t i = 0; i < len; i++) {
        qg_huffman_word w = huffman_words[in[i]];
        pending = pending << w.length | w.word;
        count += w.length;
        while (count >= 8) {
            count -= 8;
            *out++ = (uint8_t)(pending >> count);
        }
    }
    if (count > 0) {
        /* Padding is the beginning of the end-of-string word: ones. */
        *out = (uint8_t)(pending << (8 - count) | (0xffu >> count));
    }
}

/* The length of the word that `window` begins with, when it is longer than eight bits. */
static unsigned long_length(uint32_t window) {
    unsigned length = 9;
    while (length < 30 && window >= huffman_limit[length]) {
        length++;
    }
    return length;
}

int64_t qg__huffman_decode(const uint8_t *in, size_t len, uint8_t *out, size_t capacity) {
    uint64_t window = 0; /* bits not yet decoded, at the top */
    unsigned have = 0;
    size_t written = 0;
    for (size_t i = 0;;) {
        while (have <= 56 && i < len) {
            window |= (uint64_t)in[i++] << (56 - have);
            have += 8;
        }
        qg_huffman_short hit = huffman_short[window >> 56];
        unsigned length = hit.length > 0 ? hit.length : long_length((uint32_t)(window >> 32));
        if (length > have) {
            break;
        }
        uint8_t symbol = hit.symbol;
        if (hit.length == 0) {
            uint32_t word = (uint32_t)(window >> (64 - length));
            uint16_t s = huffman_order[(int64_t)word + huffman_offset[length]];
            if (s == 256) {
                return QG_PROTOCOL; /* an explicit end of string (RFC 7541, section 5.2) */
            }
            symbol = (uint8_t)s;
        }
        if (written == capacity) {
            return QG_TOO_LARGE;
        }
        out[written++] = symbol;
        window <<= length;
        have -= length;
    }
    /* What is left must be less than a byte of ones. */
    if (have > 7 || (have > 0 && window >> (64 - have) != (1u << have) - 1)) {
        return QG_PROTOCOL;
    }
    return (int64_t)written;
}
