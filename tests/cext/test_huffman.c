#include "check.h"
#include "huffman.h"
#include "random.h"

#include <stdlib.h>

static void round_trip(const uint8_t *in, size_t len) {
    size_t size = qg__huffman_size(in, len);
    uint8_t *coded = malloc(size + 1), *back = malloc(len + 1); /* exact, for the sanitizer */
    qg__huffman_encode(in, len, coded);
    int64_t n = qg__huffman_decode(coded, size, back, len);
    CHECK_EQ(n, len);
    CHECK_BYTES(back, len, in, len);
    CHECK_EQ(qg__huffman_decode(coded, size, back, len + 1), len);
    if (len > 0) {
        CHECK_EQ(qg__huffman_decode(coded, size, back, len - 1), QG_TOO_LARGE);
    }
    free(coded);
    free(back);
}

typedef struct vector {
    const char *text;
    const char *coded;
    size_t len;
} vector;

/* RFC 7541, appendices C.4 and C.6. */
TEST(rfc_7541_examples) {
    static const vector vectors[] = {
        {"www.example.com", "\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", 12},
        {"no-cache", "\xa8\xeb\x10\x64\x9c\xbf", 6},
        {"custom-key", "\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", 8},
        {"custom-value", "\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", 9},
        {"302", "\x64\x02", 2},
        {"private", "\xae\xc3\x77\x1a\x4b", 5},
        {"Mon, 21 Oct 2013 20:13:21 GMT",
         "\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
         22},
        {"https://www.example.com",
         "\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3", 17},
        {"307", "\x64\x0e\xff", 3},
        {"gzip", "\x9b\xd9\xab", 3},
        {"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
         "\x94\xe7\x82\x1d\xd7\xf2\xe6\xc7\xb3\x35\xdf\xdf\xcd\x5b\x39\x60\xd5\xaf\x27\x08\x7f\x36"
         "\x72\xc1\xab\x27\x0f\xb5\x29\x1f\x95\x87\x31\x60\x65\xc0\x03\xed\x4e\xe5\xb1\x06\x3d\x50"
         "\x07",
         45},
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const vector *v = &vectors[i];
        uint8_t out[64];
        size_t len = strlen(v->text);
        CHECK_EQ(qg__huffman_size((const uint8_t *)v->text, len), v->len);
        qg__huffman_encode((const uint8_t *)v->text, len, out);
        CHECK_BYTES(out, v->len, v->coded, v->len);
        int64_t n = qg__huffman_decode((const uint8_t *)v->coded, v->len, out, sizeof out);
        CHECK_TEXT(out, (size_t)n, v->text);
    }
}

TEST(every_symbol_alone_and_many_times) {
    for (int c = 0; c < 256; c++) {
        check_note("symbol %d", c);
        for (size_t len = 0; len <= 9; len++) {
            uint8_t in[9];
            memset(in, c, len);
            round_trip(in, len);
        }
    }
}

TEST(random_strings_come_back) {
    uint64_t random = 1;
    for (int i = 0; i < 3000; i++) {
        uint8_t in[300];
        size_t len = random_below(&random, sizeof in);
        random_bytes(&random, in, len);
        for (size_t k = 0; i % 2 == 0 && k < len; k++) {
            in[k] &= 0x7f; /* mostly short words, which take the other way through the decoder */
        }
        round_trip(in, len);
    }
}

static int64_t decode(const char *bytes, size_t len) {
    uint8_t out[64];
    uint8_t *in = malloc(len + 1);
    memcpy(in, bytes, len);
    int64_t n = qg__huffman_decode(in, len, out, sizeof out);
    free(in);
    return n;
}

/* RFC 7541, section 5.2: padding is less than a byte of the end-of-string word's beginning. */
TEST(padding) {
    CHECK_EQ(decode("", 0), 0);
    CHECK_EQ(decode("\x1f", 1), 1);                       /* "a" is 00011, then 111 */
    CHECK_EQ(decode("\x1e", 1), QG_PROTOCOL);             /* ... 110 */
    CHECK_EQ(decode("\x18", 1), QG_PROTOCOL);             /* ... 000 */
    CHECK_EQ(decode("\xf8", 1), 1);                       /* "&" is 11111000: no padding */
    CHECK_EQ(decode("\xf8\xff", 2), QG_PROTOCOL);         /* and a whole byte of it */
    CHECK_EQ(decode("\xff", 1), QG_PROTOCOL);             /* nothing but padding */
    CHECK_EQ(decode("\xff\xff\xff\xff", 4), QG_PROTOCOL); /* the end-of-string word */
    CHECK_EQ(decode("\x1f\xff\xff\xff\xff", 5), QG_PROTOCOL);
}

TEST(whatever_is_decoded_encodes_to_the_same) {
    uint64_t random = 5;
    unsigned accepted = 0;
    for (int i = 0; i < 200000; i++) {
        uint8_t in[8], out[64], again[64];
        size_t len = 1 + random_below(&random, sizeof in);
        random_bytes(&random, in, len);
        in[len - 1] |= (uint8_t)(0xff >> random_below(&random, 9)); /* likely padding */
        int64_t n = qg__huffman_decode(in, len, out, sizeof out);
        if (n < 0) {
            CHECK_EQ(n, QG_PROTOCOL);
            continue;
        }
        accepted++;
        CHECK_EQ(qg__huffman_size(out, (size_t)n), len);
        qg__huffman_encode(out, (size_t)n, again);
        CHECK_BYTES(again, len, in, len);
    }
    CHECK(accepted > 1000);
}
