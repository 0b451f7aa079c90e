#include "check.h"
#include "qpack.h"
#include "random.h"

#include <stdlib.h>

static uint8_t scratch[70000];

/* Begin the section `bytes`, copied to where the sanitizer sees its end. The caller frees it. */
static uint8_t *begin(qg_qpack_reader *r, const void *bytes, size_t len, int *rc) {
    uint8_t *section = malloc(len > 0 ? len : 1);
    memcpy(section, bytes, len);
    *rc = qg__qpack_begin(r, section, len, scratch, sizeof scratch);
    return section;
}

/* What reading the first line of a section with a plain prefix gives. The field's strings live until
 * the next call. */
static int first_line(const void *line, size_t len, qg_field *field) {
    static uint8_t *section;
    section = realloc(section, QG_QPACK_PREFIX_LEN + len);
    qg_qpack_reader r;
    memcpy(section, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
    memcpy(section + QG_QPACK_PREFIX_LEN, line, len);
    int rc = qg__qpack_begin(&r, section, QG_QPACK_PREFIX_LEN + len, scratch, sizeof scratch);
    return rc == QG_OK ? qg__qpack_next(&r, field) : rc;
}

#define FIRST(text, field) first_line(text, sizeof(text) - 1, field)

/* RFC 9204, appendix B.1. */
TEST(rfc_9204_example) {
    static const char section[] = "\x00\x00\x51\x0b/index.html";
    qg_qpack_reader r;
    qg_field f;
    int rc;
    uint8_t *copy = begin(&r, section, sizeof section - 1, &rc);
    CHECK_EQ(rc, QG_OK);
    CHECK_EQ(qg__qpack_next(&r, &f), 1);
    CHECK_TEXT(f.name, f.name_len, ":path");
    CHECK_TEXT(f.value, f.value_len, "/index.html");
    CHECK_EQ(f.static_name, QG_STATIC_PATH);
    CHECK_EQ(qg__qpack_next(&r, &f), 0);
    CHECK_EQ(qg__qpack_next(&r, &f), 0);
    free(copy);
}

/* Lines of RFC 9204, appendix A, from both ends and the middle. */
TEST(static_table) {
    static const struct {
        uint8_t index;
        const char *name, *value;
    } lines[] = {
        {0, ":authority", ""},
        {1, ":path", "/"},
        {2, "age", "0"},
        {4, "content-length", "0"},
        {14, "set-cookie", ""},
        {15, ":method", "CONNECT"},
        {17, ":method", "GET"},
        {21, ":method", "PUT"},
        {22, ":scheme", "http"},
        {23, ":scheme", "https"},
        {25, ":status", "200"},
        {28, ":status", "503"},
        {31, "accept-encoding", "gzip, deflate, br"},
        {52, "content-type", "text/html; charset=utf-8"},
        {63, ":status", "100"},
        {71, ":status", "500"},
        {72, "accept-language", ""},
        {84, "authorization", ""},
        {95, "user-agent", ""},
        {98, "x-frame-options", "sameorigin"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        uint8_t out[64];
        qg_field f;
        int n = qg__qpack_encode((const uint8_t *)lines[i].name, strlen(lines[i].name),
                                 (const uint8_t *)lines[i].value, strlen(lines[i].value), out,
                                 sizeof out);
        CHECK_EQ(n, lines[i].index < 63 ? 1 : 2);
        CHECK_EQ(out[0], lines[i].index < 63 ? 0xc0 | lines[i].index : 0xff);
        CHECK_EQ(first_line(out, (size_t)n, &f), 1);
        CHECK_TEXT(f.name, f.name_len, lines[i].name);
        CHECK_TEXT(f.value, f.value_len, lines[i].value);
        CHECK_EQ(f.static_name, lines[i].index);
    }
}

TEST(the_static_table_ends_at_98) {
    qg_field f;
    CHECK_EQ(FIRST("\xff\x23", &f), 1);           /* 63 + 35 */
    CHECK_EQ(FIRST("\xff\x24", &f), QG_PROTOCOL); /* 99 */
    CHECK_EQ(FIRST("\x5f\x53\x00", &f), 1);       /* as a name: 15 + 83 */
    CHECK_EQ(FIRST("\x5f\x54\x00", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\xff\xff\xff\x0f", &f), QG_PROTOCOL);
}

/* Capacity is 0, so every reference to the dynamic table is wrong (RFC 9204, section 2.2). */
TEST(dynamic_references_are_refused) {
    qg_field f;
    CHECK_EQ(FIRST("\x80", &f), QG_PROTOCOL); /* indexed */
    CHECK_EQ(FIRST("\xbf\x00", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x10", &f), QG_PROTOCOL);      /* indexed, post-base */
    CHECK_EQ(FIRST("\x40\x01x", &f), QG_PROTOCOL); /* name reference */
    CHECK_EQ(FIRST("\x60\x01x", &f), QG_PROTOCOL); /* the same, never indexed */
    CHECK_EQ(FIRST("\x00\x01x", &f), QG_PROTOCOL); /* name reference, post-base */
    CHECK_EQ(FIRST("\x0f\x00\x01x", &f), QG_PROTOCOL);
}

static int begin_only(const void *bytes, size_t len) {
    qg_qpack_reader r;
    int rc;
    free(begin(&r, bytes, len, &rc));
    return rc;
}

/* RFC 9204, section 4.5.1. */
TEST(section_prefix) {
    CHECK_EQ(begin_only("\x00\x00", 2), QG_OK);
    CHECK_EQ(begin_only("\x00\x05", 2), QG_OK); /* a base nothing refers to */
    CHECK_EQ(begin_only("", 0), QG_PROTOCOL);
    CHECK_EQ(begin_only("\x00", 1), QG_PROTOCOL);
    CHECK_EQ(begin_only("\x01\x00", 2), QG_PROTOCOL);
    CHECK_EQ(begin_only("\xff\x00\x00", 3), QG_PROTOCOL);
    CHECK_EQ(begin_only("\xff", 1), QG_PROTOCOL);
    CHECK_EQ(begin_only("\x00\x7f", 2), QG_PROTOCOL);
    CHECK_EQ(begin_only("\x00\x7f\x80", 3), QG_PROTOCOL);
    /* Section 4.5.1.2: a sign of 1 makes the base negative when nothing was inserted. */
    CHECK_EQ(begin_only("\x00\x80", 2), QG_PROTOCOL);
    CHECK_EQ(begin_only("\x00\x85", 2), QG_PROTOCOL);
}

TEST(integers_that_are_cut_short_or_too_large) {
    qg_field f;
    CHECK_EQ(FIRST("\xff", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\x80", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\x80\x80\x80\x80", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\x80\x80\x80\x80\x00", &f), 1); /* 63, with four zeros too many */
    CHECK_EQ(FIRST("\xff\x80\x80\x80\x80\x80\x00", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\xff\x80\x80\x80\x80\x10", &f), QG_PROTOCOL); /* 2^32 and more */
    CHECK_EQ(FIRST("\x5f", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x27", &f), QG_PROTOCOL);
}

TEST(strings_that_do_not_fit_the_section) {
    qg_field f;
    CHECK_EQ(FIRST("\x51", &f), QG_PROTOCOL);     /* no value */
    CHECK_EQ(FIRST("\x51\x01", &f), QG_PROTOCOL); /* one byte, and it is missing */
    CHECK_EQ(FIRST("\x51\x02x", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x51\x81", &f), QG_PROTOCOL); /* the same, coded */
    CHECK_EQ(FIRST("\x51\x7f", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x51\x7f\xff\xff\xff\xff\x0f", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x21", &f), QG_PROTOCOL);  /* no name */
    CHECK_EQ(FIRST("\x21x", &f), QG_PROTOCOL); /* a name, no value */
    CHECK_EQ(FIRST("\x23xy", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x21x\x01", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x21x\x00", &f), 1);
    CHECK_EQ(FIRST("\x20\x00", &f), 1); /* an empty name is head.c's business */
    CHECK_EQ(f.name_len, 0);
}

TEST(a_wrong_huffman_code_is_a_wrong_section) {
    qg_field f;
    CHECK_EQ(FIRST("\x51\x81\x1f", &f), 1); /* "a" */
    CHECK_TEXT(f.value, f.value_len, "a");
    CHECK_EQ(FIRST("\x51\x81\x18", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x51\x84\xff\xff\xff\xff", &f), QG_PROTOCOL);
    CHECK_EQ(FIRST("\x29\x18\x00", &f), QG_PROTOCOL); /* the name */
}

TEST(a_line_beyond_the_scratch_is_too_large) {
    static const char section[] = "\x00\x00\x2a\x1f\xff\x82\x1f\xff"; /* coded name and value */
    uint8_t small[4];
    qg_qpack_reader r;
    qg_field f;
    static const char line[] = "\x00\x00\x51\x83\x18\xc6\x3f"; /* "aaaa" */
    for (size_t room = 0; room <= sizeof small; room++) {
        CHECK_EQ(qg__qpack_begin(&r, (const uint8_t *)line, sizeof line - 1, small, room), QG_OK);
        CHECK_EQ(qg__qpack_next(&r, &f), room < 4 ? QG_TOO_LARGE : 1);
    }
    qg__qpack_begin(&r, (const uint8_t *)section, sizeof section - 1, small, 1);
    CHECK_EQ(qg__qpack_next(&r, &f), QG_PROTOCOL); /* a byte of padding too many comes first */
}

static void one_round(const uint8_t *name, size_t name_len, const uint8_t *value,
                      size_t value_len) {
    size_t capacity = name_len + value_len + 12;
    uint8_t *out = malloc(capacity);
    qg_field f;
    CHECK_EQ(qg__qpack_encode(name, name_len, value, value_len, out, capacity - 1), QG_TOO_LARGE);
    int n = qg__qpack_encode(name, name_len, value, value_len, out, capacity);
    CHECK(n > 0);
    CHECK_EQ(first_line(out, (size_t)n, &f), 1);
    CHECK_BYTES(f.name, f.name_len, name, name_len);
    CHECK_BYTES(f.value, f.value_len, value, value_len);
    free(out);
}

TEST(random_sections_come_back) {
    uint64_t random = 11;
    for (int i = 0; i < 500; i++) {
        uint8_t section[8192], names[20][40], values[20][200];
        size_t name_len[20], value_len[20], len = QG_QPACK_PREFIX_LEN;
        size_t count = random_below(&random, 20);
        memcpy(section, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
        for (size_t k = 0; k < count; k++) {
            name_len[k] = 1 + random_below(&random, 39);
            value_len[k] = random_below(&random, 200);
            random_bytes(&random, names[k], name_len[k]);
            random_bytes(&random, values[k], value_len[k]);
            for (size_t b = 0; k % 2 == 0 && b < value_len[k]; b++) {
                values[k][b] = (uint8_t)('a' + values[k][b] % 26); /* what is worth coding */
            }
            len += (size_t)qg__qpack_encode(names[k], name_len[k], values[k], value_len[k],
                                            section + len, sizeof section - len);
        }
        qg_qpack_reader r;
        qg_field f;
        CHECK_EQ(qg__qpack_begin(&r, section, len, scratch, sizeof scratch), QG_OK);
        for (size_t k = 0; k < count; k++) {
            CHECK_EQ(qg__qpack_next(&r, &f), 1);
            CHECK_BYTES(f.name, f.name_len, names[k], name_len[k]);
            CHECK_BYTES(f.value, f.value_len, values[k], value_len[k]);
        }
        CHECK_EQ(qg__qpack_next(&r, &f), 0);
    }
}

TEST(lengths_around_every_prefix) {
    static uint8_t text[70000];
    memset(text, '\\', sizeof text); /* 19 bits: never worth coding */
    size_t lengths[] = {0, 1, 6, 7, 8, 126, 127, 128, 254, 255, 16383 + 127, 16384 + 127, 66000};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        check_note("length %zu", lengths[i]);
        one_round((const uint8_t *)"x", 1, text, lengths[i]);
        one_round(text, lengths[i], (const uint8_t *)"x", 1);
    }
}

TEST(every_section_cut_short_is_read_safely) {
    uint8_t whole[256];
    size_t len = QG_QPACK_PREFIX_LEN;
    static const char *const lines[][2] = {
        {":path", "/index.html"}, {"x-custom-name", "some value"}, {":method", "GET"}, {"a", "\\"}};
    memcpy(whole, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
    for (size_t i = 0; i < 4; i++) {
        len += (size_t)qg__qpack_encode((const uint8_t *)lines[i][0], strlen(lines[i][0]),
                                        (const uint8_t *)lines[i][1], strlen(lines[i][1]),
                                        whole + len, sizeof whole - len);
    }
    for (size_t cut = 0; cut < len; cut++) {
        qg_qpack_reader r;
        qg_field f;
        int rc;
        uint8_t *section = begin(&r, whole, cut, &rc);
        while (rc >= 0 && (rc = qg__qpack_next(&r, &f)) > 0) {
        }
        CHECK(rc == 0 || rc == QG_PROTOCOL);
        free(section);
    }
}
