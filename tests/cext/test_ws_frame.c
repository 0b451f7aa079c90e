#include "check.h"
#include "random.h"
#include "ws_frame.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- masks */

TEST(masks_of_every_length_and_place) {
    uint64_t random = 3;
    uint8_t in[120], out[120], key[4];
    uint32_t word;
    for (size_t place = 0; place < 9; place++) {
        for (size_t len = 0; len <= 100; len++) {
            check_note("%zu bytes at %zu", len, place);
            random_bytes(&random, in, sizeof in);
            random_bytes(&random, key, sizeof key);
            memcpy(&word, key, 4);
            memset(out, 0xaa, sizeof out);
            qg__ws_mask(out + place, in + 3, len, word);
            for (size_t i = 0; i < len; i++) {
                CHECK_EQ(out[place + i], in[3 + i] ^ key[i & 3]);
            }
            CHECK(place == 0 || out[place - 1] == 0xaa);
            CHECK_EQ(out[place + len], 0xaa);
            qg__ws_mask(out + place, out + place, len, word); /* where it lies, and back */
            CHECK_BYTES(out + place, len, in + 3, len);
        }
    }
}

TEST(a_mask_goes_on_where_it_stopped) {
    uint64_t random = 4;
    uint8_t in[200], whole[200], parts[200];
    random_bytes(&random, in, sizeof in);
    for (int i = 0; i < 500; i++) {
        uint32_t key = (uint32_t)random_next(&random), turned = key;
        qg__ws_mask(whole, in, sizeof in, key);
        for (size_t at = 0, n; at < sizeof in; at += n) {
            n = qg__min(random_below(&random, 50), sizeof in - at);
            turned = qg__ws_mask(parts + at, in + at, n, turned);
        }
        CHECK_BYTES(parts, sizeof parts, whole, sizeof whole);
        CHECK_EQ(turned, key); /* 200 is a multiple of four */
    }
}

/* ---------------------------------------------------------------- UTF-8 */

/* As RFC 3629 says it, in words of code points. */
static bool is_utf8(const uint8_t *p, size_t len) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < len;) {
        size_t more = p[i] < 0x80             ? 0
                      : (p[i] & 0xe0) == 0xc0 ? 1
                      : (p[i] & 0xf0) == 0xe0 ? 2
                      : (p[i] & 0xf8) == 0xf0 ? 3
                                              : 4;
        if (more == 4 || i + more >= len) {
            return false;
        }
        uint32_t point = more == 0 ? p[i] : p[i] & (0x3fu >> more);
        for (size_t k = 1; k <= more; k++) {
            if ((p[i + k] & 0xc0) != 0x80) {
                return false;
            }
            point = point << 6 | (p[i + k] & 0x3f);
        }
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

static bool feed_text(const uint8_t *bytes, size_t len, size_t cut) {
    qg_ws_utf8 state = {0};
    int ok = 1;
    for (size_t at = 0; ok && at < len; at += cut) {
        ok = qg_ws_utf8_feed(&state, bytes + at, qg__min(cut, len - at), 0);
    }
    int end = qg_ws_utf8_feed(&state, (const uint8_t *)"", 0, 1);
    CHECK(ok || !end);
    return end;
}

static void check_utf8(const uint8_t *four) {
    bool expect = is_utf8(four, 4);
    uint8_t within[12] = {'a', 0, 0, 0, 0, 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
    memcpy(within + 1, four, 4);
    if (feed_text(four, 4, 4) != expect || feed_text(four, 4, 1) != expect ||
        feed_text(within, sizeof within, 3) != expect ||
        feed_text(within, sizeof within, 12) != expect) {
        check_note("%02x %02x %02x %02x", four[0], four[1], four[2], four[3]);
        CHECK(!"they agree");
    }
}

/* The first two bytes decide most; of the others, those at the borders. */
TEST(four_bytes_of_any_kind) {
    static const uint8_t borders[] = {0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff};
    for (unsigned i = 0; i < 65536; i++) {
        for (unsigned k = 0; k < 36; k++) {
            uint8_t four[] = {(uint8_t)(i >> 8), (uint8_t)i, borders[k / 6], borders[k % 6]};
            if (four[0] >= 0x80 || k == 14) { /* the rest is the same with one byte less */
                check_utf8(four);
            }
        }
    }
    uint64_t random = 8;
    for (int i = 0; i < 200000; i++) {
        uint8_t four[4];
        random_bytes(&random, four, 4);
        four[0] |= 0xc0;
        four[1] = (four[1] & 0x3f) | 0x80;
        check_utf8(four);
    }
}

static size_t encode(uint32_t point, uint8_t *out) {
    size_t more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const uint8_t begin[] = {0, 0xc0, 0xe0, 0xf0};
    for (size_t k = more; k > 0; k--) {
        out[k] = (uint8_t)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    out[0] = (uint8_t)(begin[more] | point);
    return more + 1;
}

TEST(every_character) {
    uint8_t *all = malloc(4 * 0x110000);
    size_t len = 0;
    for (uint32_t point = 0; point < 0x110000; point++) {
        if (point < 0xd800 || point > 0xdfff) {
            len += encode(point, all + len);
        }
    }
    CHECK(feed_text(all, len, len));
    CHECK(feed_text(all, len, 4093));
    CHECK(feed_text(all, len, 7));
    free(all);
}

TEST(one_wrong_byte_in_a_long_text) {
    uint8_t text[100];
    for (size_t at = 0; at < sizeof text; at++) {
        for (size_t begin = 0; begin < 8; begin++) {
            memset(text, 'x', sizeof text);
            CHECK(feed_text(text + begin, sizeof text - begin, 100));
            text[at] = 0xff;
            CHECK_EQ(feed_text(text + begin, sizeof text - begin, 100), at < begin);
        }
    }
}

/* ---------------------------------------------------------------- heads */

/* Feed a copy that the address sanitizer knows the end of. Returns the error. */
static uint32_t feed(qg_ws_reader *r, const void *bytes, size_t len) {
    uint8_t *copy = malloc(len);
    memcpy(copy, bytes, len);
    qg_ws_feed(r, copy, 0, (uint32_t)len);
    free(copy);
    return r->error;
}

static uint32_t error_of(uint32_t flags, const char *bytes, size_t len) {
    qg_ws_reader r;
    qg_ws_reader_init(&r, flags);
    return feed(&r, bytes, len);
}

TEST(lengths_have_their_shortest_form) {
    CHECK_EQ(error_of(0, "\x82\x7e\x00\x7d", 4), 1002);
    CHECK_EQ(error_of(0, "\x82\x7e\x00\x7e", 4), 0);
    CHECK_EQ(error_of(0, "\x82\x7f\0\0\0\0\0\0\xff\xff", 10), 1002);
    CHECK_EQ(error_of(0, "\x82\x7f\0\0\0\0\0\x01\0\0", 10), 0);
    CHECK_EQ(error_of(0, "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 10), 0);
    CHECK_EQ(error_of(0, "\x82\x7f\x80\0\0\0\0\0\0\0", 10), 1002);
}

TEST(who_masks) {
    CHECK_EQ(error_of(0, "\x82\x00", 2), 0);
    CHECK_EQ(error_of(0, "\x82\x80\1\2\3\4", 6), 1002);
    CHECK_EQ(error_of(QG_WS_SERVER, "\x82\x00", 2), 1002);
    CHECK_EQ(error_of(QG_WS_SERVER, "\x82\x80\1\2\3\4", 6), 0);
}

/* The two bytes say it; a peer that stops there is not waited for. */
TEST(errors_do_not_wait_for_the_rest) {
    CHECK_EQ(error_of(QG_WS_SERVER, "\x82\x7f", 2), 1002); /* not masked */
    CHECK_EQ(error_of(0, "\x83\x7e", 2), 1002);            /* no such opcode */
    CHECK_EQ(error_of(0, "\x89\x7e", 2), 1002);            /* a ping that long */
    CHECK_EQ(error_of(0, "\x80\x7e", 2), 1002);            /* continues nothing */
}

TEST(compressed_messages) {
    qg_ws_reader r;
    uint8_t bytes[] = "\x41\x01\xff\x89\x00\x80\x02\xff\xff\x81\x01y";
    qg_ws_reader_init(&r, QG_WS_RSV1);
    CHECK_EQ(qg_ws_feed(&r, bytes, 0, sizeof bytes - 1), 4);
    CHECK_EQ(r.error, 0); /* what is no UTF-8 may become it */
    CHECK_EQ(r.pieces[0].flags, QG_WS_RSV1 | QG_WS_MESSAGE_START | QG_WS_FRAME_END);
    CHECK_EQ(r.pieces[2].flags, QG_WS_RSV1 | QG_WS_FRAME_END | QG_WS_MESSAGE_END);
    CHECK_EQ(r.pieces[2].opcode, QG_WS_TEXT);
    CHECK_EQ(r.pieces[3].flags, QG_WS_MESSAGE_START | QG_WS_FRAME_END | QG_WS_MESSAGE_END);
    CHECK_EQ(error_of(0, "\xc1\x00", 2), 1002);                  /* not agreed upon */
    CHECK_EQ(error_of(QG_WS_RSV1, "\xc9\x00", 2), 1002);         /* a ping */
    CHECK_EQ(error_of(QG_WS_RSV1, "\x41\x00\xc0\x00", 4), 1002); /* not the first frame */
    CHECK_EQ(error_of(QG_WS_RSV1, "\xe1\x00", 2), 1002);         /* another bit beside it */
    CHECK_EQ(error_of(QG_WS_RSV1, "\x81\x01\xff", 3), 1007);     /* one that is not compressed */
}

/* ---------------------------------------------------------------- pieces */

TEST(a_message_passes_as_it_comes) {
    qg_ws_reader r;
    uint8_t bytes[] = "\x02\x05"
                      "abc"
                      "de"
                      "\x80\x01"
                      "f";
    qg_ws_reader_init(&r, 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 0, 1), 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 1, 2), 0); /* a head alone is no piece */
    CHECK_EQ(qg_ws_feed(&r, bytes, 2, 5), 1);
    CHECK_BYTES(bytes + r.pieces[0].offset, r.pieces[0].len, "abc", 3);
    CHECK_EQ(r.pieces[0].flags, QG_WS_MESSAGE_START);
    CHECK_EQ(qg_ws_feed(&r, bytes, 5, sizeof bytes - 1), 2);
    CHECK_BYTES(bytes + r.pieces[0].offset, r.pieces[0].len, "de", 2);
    CHECK_EQ(r.pieces[0].flags, QG_WS_FRAME_END);
    CHECK_BYTES(bytes + r.pieces[1].offset, r.pieces[1].len, "f", 1);
    CHECK_EQ(r.pieces[1].flags, QG_WS_FRAME_END | QG_WS_MESSAGE_END);
    CHECK_EQ(r.pieces[1].opcode, QG_WS_BINARY);
}

TEST(more_pieces_than_there_is_room_for) {
    qg_ws_reader r;
    uint8_t bytes[2 * 40];
    uint32_t pieces = 0, calls = 0;
    for (size_t i = 0; i < sizeof bytes; i += 2) {
        qg__put16(bytes + i, 0x8a00);
    }
    qg_ws_reader_init(&r, 0);
    for (; r.used < sizeof bytes; calls++) {
        pieces += qg_ws_feed(&r, bytes, r.used, sizeof bytes);
        CHECK_EQ(r.used, 2 * pieces);
    }
    CHECK_EQ(pieces, 40);
    CHECK_EQ(calls, 3);
}

/* Two pings that were cut: the second one's beginning waits until the first one was looked at. */
TEST(a_kept_payload_lives_until_the_next_call) {
    qg_ws_reader r;
    uint8_t bytes[] = "\x89\x04"
                      "abcd"
                      "\x89\x04"
                      "efgh";
    qg_ws_reader_init(&r, 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 0, 4), 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 4, 10), 1);
    CHECK_EQ(r.used, 6);
    CHECK(r.pieces[0].flags & QG_WS_KEPT);
    CHECK_BYTES(r.control, r.pieces[0].len, "abcd", 4);
    CHECK_EQ(qg_ws_feed(&r, bytes, r.used, 10), 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 10, 12), 1);
    CHECK_BYTES(r.control, r.pieces[0].len, "efgh", 4);
}

TEST(pieces_before_an_error_are_good) {
    qg_ws_reader r;
    uint8_t bytes[] = "\x81\x02hi\x89\x00\x83\x00\x81\x00";
    qg_ws_reader_init(&r, 0);
    CHECK_EQ(qg_ws_feed(&r, bytes, 0, sizeof bytes - 1), 2);
    CHECK_EQ(r.error, 1002);
    CHECK_EQ(r.used, sizeof bytes - 1);
    CHECK_TEXT(r.problem, strlen(r.problem), "the opcode is reserved");
    CHECK_EQ(qg_ws_feed(&r, bytes, 0, 4), 0); /* it stays so */
    CHECK_EQ(r.error, 1002);
}

TEST(a_reader_is_small) {
    CHECK(sizeof(qg_ws_reader) <= 448);
}

/* ---------------------------------------------------------------- building */

static void round_trip(uint32_t opcode, uint32_t flags, size_t len) {
    size_t size = qg_ws_frame_size(len, flags);
    uint8_t *payload = malloc(len + 1), *frame = malloc(size);
    uint64_t random = len + 1;
    qg_ws_reader r;
    random_bytes(&random, payload, len);
    CHECK_EQ(qg_ws_build(opcode, flags, payload, len, frame), size);
    qg_ws_reader_init(&r, QG_WS_RSV1 | (flags & QG_WS_MASK ? QG_WS_SERVER : 0));
    CHECK_EQ(qg_ws_feed(&r, frame, 0, (uint32_t)size), 1);
    CHECK_EQ(r.used, size);
    CHECK_EQ(r.pieces[0].opcode, opcode);
    CHECK_EQ(r.pieces[0].flags & QG_WS_RSV1, flags & QG_WS_RSV1);
    CHECK_EQ((r.pieces[0].flags & QG_WS_MESSAGE_END) != 0, (flags & QG_WS_FIN) != 0);
    CHECK_BYTES(frame + r.pieces[0].offset, r.pieces[0].len, payload, len);
    free(payload);
    free(frame);
}

TEST(what_is_built_is_read) {
    static const size_t sizes[] = {0, 1, 16, 124, 125, 126, 127, 65535, 65536, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint32_t masked = 0; masked <= QG_WS_MASK; masked += QG_WS_MASK) {
            check_note("%zu bytes", sizes[i]);
            round_trip(QG_WS_BINARY, QG_WS_FIN | masked, sizes[i]);
            round_trip(QG_WS_BINARY, masked, sizes[i]);
            round_trip(QG_WS_TEXT, QG_WS_FIN | QG_WS_RSV1 | masked, sizes[i]);
            if (sizes[i] <= 125) {
                round_trip(QG_WS_PONG, QG_WS_FIN | masked, sizes[i]);
            }
        }
    }
}

/* RFC 6455, section 5.7, and what stands there of lengths. */
TEST(bytes_of_frames) {
    uint8_t out[300], payload[256] = {0};
    CHECK_EQ(qg_ws_build(QG_WS_TEXT, QG_WS_FIN, (const uint8_t *)"Hello", 5, out), 7);
    CHECK_TEXT(out, 7, "\x81\x05Hello");
    CHECK_EQ(qg_ws_build(QG_WS_TEXT, 0, (const uint8_t *)"Hel", 3, out), 5);
    CHECK_TEXT(out, 5, "\x01\x03Hel");
    CHECK_EQ(qg_ws_build(QG_WS_CONTINUATION, QG_WS_FIN, (const uint8_t *)"lo", 2, out), 4);
    CHECK_TEXT(out, 4, "\x80\x02lo");
    CHECK_EQ(qg_ws_build(QG_WS_BINARY, QG_WS_FIN | QG_WS_RSV1, payload, 256, out), 260);
    CHECK_BYTES(out, 4, "\xc2\x7e\x01\x00", 4);
}

TEST(keys_are_not_the_same) {
    uint8_t one[10], other[10];
    unsigned same = 0;
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(qg_ws_build(QG_WS_PING, QG_WS_FIN | QG_WS_MASK, (const uint8_t *)"same", 4, one),
                 10);
        CHECK_EQ(qg_ws_build(QG_WS_PING, QG_WS_FIN | QG_WS_MASK, (const uint8_t *)"same", 4, other),
                 10);
        same += memcmp(one + 2, other + 2, 4) == 0;
    }
    CHECK(same <= 1); /* one in 4 thousand million */
}

TEST(frames_that_may_not_be) {
    uint8_t out[300], payload[200] = {0};
    CHECK_EQ(qg_ws_build(3, QG_WS_FIN, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(7, QG_WS_FIN, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(11, QG_WS_FIN, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(256 + 1, QG_WS_FIN, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(QG_WS_CONTINUATION, QG_WS_RSV1, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(QG_WS_PING, 0, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(QG_WS_PING, QG_WS_FIN | QG_WS_RSV1, payload, 0, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(QG_WS_CLOSE, QG_WS_FIN, payload, 126, out), QG_INVALID);
    CHECK_EQ(qg_ws_build(QG_WS_CLOSE, QG_WS_FIN, payload, 125, out), 127);
}
