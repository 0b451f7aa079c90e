/* Field sections and what they are made of: Huffman code, QPACK lines, heads, priorities. What a
 * decoder accepts must have the form that the rest of the engine relies on, and encode back. */
#include "fuzz.h"

#include <stdlib.h>

#include "check.h"
#include "head.h"
#include "huffman.h"
#include "qpack.h"

#define SIZE_MAX_OF_HEAD 2048

static void huffman(const uint8_t *in, size_t len) {
    size_t room = len * 2; /* the shortest words have five bits */
    uint8_t *out = malloc(room + 1);
    int64_t n = qg__huffman_decode(in, len, out, room);
    if (n >= 0) { /* the code is canonical: only one input gives this text */
        CHECK_EQ(qg__huffman_size(out, (size_t)n), len);
        uint8_t *again = malloc(len + 1);
        qg__huffman_encode(out, (size_t)n, again);
        CHECK_BYTES(again, len, in, len);
        free(again);
    }
    free(out);
}

static void lines(const uint8_t *in, size_t len) {
    uint8_t *scratch = malloc(SIZE_MAX_OF_HEAD);
    qg_qpack_reader reader;
    qg_field field;
    size_t total = 0;
    int rc = qg__qpack_begin(&reader, in, len, scratch, SIZE_MAX_OF_HEAD);
    while (rc >= 0 && (rc = qg__qpack_next(&reader, &field)) == 1) {
        uint8_t *name = fuzz_copy(field.name, field.name_len); /* all of it can be read */
        uint8_t *value = fuzz_copy(field.value, field.value_len);
        size_t room = (size_t)field.name_len + field.value_len + 16;
        uint8_t *coded = malloc(room);
        CHECK(qg__qpack_encode(name, field.name_len, value, field.value_len, coded, room) > 0);
        free(coded);
        free(value);
        free(name);
        CHECK(total++ < len); /* every line takes a byte */
    }
    CHECK(rc == 0 || rc == QG_PROTOCOL || rc == QG_TOO_LARGE);
    free(scratch);
}

static void head(qg_head_kind kind, bool extended, const uint8_t *in, size_t len) {
    qg_head_limits limits = {SIZE_MAX_OF_HEAD, 20, extended};
    uint8_t *scratch = malloc(2 * (SIZE_MAX_OF_HEAD + QG_HEAD_SLACK));
    uint8_t *text = malloc(SIZE_MAX_OF_HEAD + QG_HEAD_SLACK);
    qg_head out;
    int rc = qg__head_decode(kind, in, len, &limits, scratch, text, &out);
    if (rc == QG_OK) {
        CHECK(out.path_len <= out.text_len);
        for (uint32_t i = 0; i < out.path_len; i++) {
            CHECK(text[i] > ' ' && text[i] < 0x7f);
        }
        fuzz_check_head(text + out.path_len, out.text_len - out.path_len);
        CHECK(kind != QG_HEAD_RESPONSE || (out.status >= 100 && out.status <= 999));
        CHECK(!out.has_priority || out.urgency <= 7);
    } else {
        CHECK(rc == QG_INVALID || rc == QG_TOO_LARGE || rc == QG_PROTOCOL);
    }
    free(text);
    free(scratch);
}

/* What we would send must be what the other side takes. */
static void encode(const uint8_t *in, size_t len) {
    fuzz_input input = {in, in + len};
    size_t name_len, value_len = 0;
    const uint8_t *name = fuzz_bytes(&input, &name_len);
    const uint8_t *value = fuzz_bytes(&input, &value_len);
    uint8_t line[2 + 600] = {0}, scratch[600];
    int n = qg_field_encode(name, name_len, value, value_len, line + 2, sizeof line - 2);
    CHECK(n >= 0 || n == QG_INVALID);
    if (n <= 0) {
        return;
    }
    qg_qpack_reader reader;
    qg_field field;
    CHECK_EQ(qg__qpack_begin(&reader, line, 2 + (size_t)n, scratch, sizeof scratch), QG_OK);
    CHECK_EQ(qg__qpack_next(&reader, &field), 1);
    CHECK_EQ(field.name_len, name_len);
    CHECK_EQ(field.value_len, value_len);
    CHECK_EQ(qg__qpack_next(&reader, &field), 0);
    if (name[0] != ':') {
        head(QG_HEAD_TRAILERS, false, line, 2 + (size_t)n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    size_t len = size - 1;
    uint8_t *in = fuzz_copy(data + 1, len);
    switch (data[0] & 7) {
    case 0:
        huffman(in, len);
        break;
    case 1:
        lines(in, len);
        break;
    case 2:
    case 3:
        head(QG_HEAD_REQUEST, (data[0] & 1) != 0, in, len);
        break;
    case 4:
        head(QG_HEAD_RESPONSE, false, in, len);
        break;
    case 5:
        head(QG_HEAD_TRAILERS, false, in, len);
        break;
    case 6:
        encode(in, len);
        break;
    default: {
        uint8_t urgency = 9;
        bool incremental = false;
        qg__priority_parse(in, len, &urgency, &incremental);
        CHECK(urgency <= 7);
    }
    }
    free(in);
    return 0;
}
