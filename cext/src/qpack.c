#include "qpack.h"

#include "huffman.h"
#include "qpack_tables.h"

/* An integer with a prefix of `bits` bits (RFC 7541, section 5.1). False when it is cut short or
 * above 2^32: nothing here may be that long. */
static bool read_int(qg_qpack_reader *r, unsigned bits, uint32_t *out) {
    if (r->at == r->end) {
        return false;
    }
    uint64_t mask = (UINT64_C(1) << bits) - 1;
    uint64_t v = *r->at++ & mask;
    if (v == mask) {
        for (unsigned shift = 0;; shift += 7) {
            if (r->at == r->end || shift > 28) {
                return false;
            }
            uint8_t b = *r->at++;
            v += (uint64_t)(b & 0x7f) << shift;
            if (!(b & 0x80)) {
                break;
            }
        }
    }
    *out = (uint32_t)v;
    return v <= UINT32_MAX;
}

/* A string whose length has a prefix of `bits` bits, below the Huffman flag. `scratch` advances. */
static int read_string(qg_qpack_reader *r, unsigned bits, uint8_t **scratch, const uint8_t **out,
                       uint32_t *out_len) {
    bool coded = r->at < r->end && (*r->at & (1u << bits)) != 0;
    uint32_t len;
    if (!read_int(r, bits, &len) || len > (size_t)(r->end - r->at)) {
        return QG_PROTOCOL;
    }
    if (!coded) {
        *out = r->at;
        *out_len = len;
        r->at += len;
        return QG_OK;
    }
    size_t room = r->scratch_len - (size_t)(*scratch - r->scratch);
    int64_t n = qg__huffman_decode(r->at, len, *scratch, room);
    if (n < 0) {
        return (int)n;
    }
    *out = *scratch;
    *out_len = (uint32_t)n;
    *scratch += n;
    r->at += len;
    return QG_OK;
}

int qg__qpack_begin(qg_qpack_reader *r, const uint8_t *section, size_t len, uint8_t *scratch,
                    size_t scratch_len) {
    *r = (qg_qpack_reader){section, section + len, scratch, scratch_len};
    uint32_t required, base;
    if (!read_int(r, 8, &required) || required != 0) {
        return QG_PROTOCOL;
    }
    /* With nothing inserted, a sign of 1 would make the base negative (section 4.5.1.2). */
    bool negative = r->at < r->end && (*r->at & 0x80) != 0;
    if (negative || !read_int(r, 7, &base)) {
        return QG_PROTOCOL;
    }
    return QG_OK;
}

static bool static_name(uint32_t index, qg_field *f) {
    if (index >= QG_STATIC_FIELDS) {
        return false;
    }
    f->name = (const uint8_t *)static_table[index].name;
    f->name_len = static_table[index].name_len;
    f->static_name = (int)index;
    return true;
}

int qg__qpack_next(qg_qpack_reader *r, qg_field *f) {
    if (r->at == r->end) {
        return 0;
    }
    uint8_t *scratch = r->scratch;
    uint8_t first = *r->at;
    uint32_t index;
    if ((first & 0xc0) == 0xc0) { /* indexed, static: 1 1 index(6+) */
        if (!read_int(r, 6, &index) || !static_name(index, f)) {
            return QG_PROTOCOL;
        }
        f->value = (const uint8_t *)static_table[index].value;
        f->value_len = static_table[index].value_len;
        return 1;
    }
    int rc;
    if ((first & 0xd0) == 0x50) { /* literal, static name: 0 1 never 1 index(4+) */
        if (!read_int(r, 4, &index) || !static_name(index, f)) {
            return QG_PROTOCOL;
        }
    } else if ((first & 0xe0) == 0x20) { /* literal name: 0 0 1 never huffman length(3+) */
        f->static_name = -1;
        rc = read_string(r, 3, &scratch, &f->name, &f->name_len);
        if (rc < 0) {
            return rc;
        }
    } else {
        return QG_PROTOCOL; /* refers to the dynamic table, which is empty */
    }
    rc = read_string(r, 7, &scratch, &f->value, &f->value_len);
    return rc < 0 ? rc : 1;
}

static uint8_t *write_int(uint8_t *out, uint8_t pattern, unsigned bits, size_t v) {
    size_t mask = ((size_t)1 << bits) - 1;
    if (v < mask) {
        *out++ = (uint8_t)(pattern | v);
        return out;
    }
    *out++ = (uint8_t)(pattern | mask);
    for (v -= mask; v >= 0x80; v >>= 7) {
        *out++ = (uint8_t)(v | 0x80);
    }
    *out++ = (uint8_t)v;
    return out;
}

/* `flag` marks a coded string; it stands just above the length's prefix. */
static uint8_t *write_string(uint8_t *out, uint8_t pattern, uint8_t flag, unsigned bits,
                             const uint8_t *s, size_t len) {
    size_t coded = qg__huffman_size(s, len);
    if (coded < len) {
        out = write_int(out, pattern | flag, bits, coded);
        qg__huffman_encode(s, len, out);
        return out + coded;
    }
    out = write_int(out, pattern, bits, len);
    memcpy(out, s, len);
    return out + len;
}

/* Find the line in the static table: its index, or -1; *name_index is that of its name, or -1.
 * Plain search: the caller keeps what was encoded, so this is not where time goes. */
static int find_static(const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len,
                       int *name_index) {
    *name_index = -1;
    for (int i = 0; i < QG_STATIC_FIELDS; i++) {
        const qg_static_field *s = &static_table[i];
        if (s->name_len != name_len || memcmp(s->name, name, name_len) != 0) {
            continue;
        }
        if (*name_index < 0) {
            *name_index = i;
        }
        if (s->value_len == value_len && memcmp(s->value, value, value_len) == 0) {
            return i;
        }
    }
    return -1;
}

int qg__qpack_encode(const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len,
                     uint8_t *out, size_t capacity) {
    /* 6 bytes hold any length below 2^32. */
    if (name_len + value_len + 12 > capacity) {
        return QG_TOO_LARGE;
    }
    int name_index;
    int index = find_static(name, name_len, value, value_len, &name_index);
    uint8_t *at = out;
    if (index >= 0) {
        at = write_int(at, 0xc0, 6, (size_t)index);
        return (int)(at - out);
    }
    if (name_index >= 0) {
        at = write_int(at, 0x50, 4, (size_t)name_index);
    } else {
        at = write_string(at, 0x20, 0x08, 3, name, name_len);
    }
    at = write_string(at, 0, 0x80, 7, value, value_len);
    return (int)(at - out);
}
