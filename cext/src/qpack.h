/* qpack.h: field lines with the static table only (RFC 9204).
 *
 * Why no dynamic table: it saves bytes on links that are slow beyond what our users have, and costs
 * state per connection, blocked streams and a class of attacks. Without one every field line stands
 * by itself, so an encoded line can be kept and used again by any connection, and nothing that is
 * decoded needs memory. We announce capacity 0, so a peer's field section must have Required Insert
 * Count 0, and its encoder stream must stay empty but for "set capacity to 0". */
#ifndef QG_QPACK_H
#define QG_QPACK_H

#include "base.h"

/* A decoded line. The strings stand in the section, in the static table or in the reader's scratch,
 * and live until the next qg__qpack_next. */
typedef struct qg_field {
    const uint8_t *name;
    const uint8_t *value;
    uint32_t name_len;
    uint32_t value_len;
    int static_name; /* index in the static table of this name, or -1: a literal one */
} qg_field;

typedef struct qg_qpack_reader {
    const uint8_t *at, *end;
    uint8_t *scratch; /* holds the decoded strings of one line */
    size_t scratch_len;
} qg_qpack_reader;

/* Begin a section. QG_PROTOCOL when its prefix refers to a dynamic table (RFC 9204, section 4.5.1).
 */
int qg__qpack_begin(qg_qpack_reader *reader, const uint8_t *section, size_t len, uint8_t *scratch,
                    size_t scratch_len);

/* 1 and a line, 0 at the end, QG_PROTOCOL, or QG_TOO_LARGE when a line does not fit the scratch. */
int qg__qpack_next(qg_qpack_reader *reader, qg_field *field);

/* Encode one line. Returns its length, or QG_TOO_LARGE: when `capacity` is not 12 more than both
 * strings together, however short the line would be. */
int qg__qpack_encode(const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len,
                     uint8_t *out, size_t capacity);

#define QG_QPACK_PREFIX     "\0\0" /* Required Insert Count 0, Delta Base 0 */
#define QG_QPACK_PREFIX_LEN 2

/* Static table indexes that the code refers to. */
#define QG_STATIC_AUTHORITY      0
#define QG_STATIC_PATH           1
#define QG_STATIC_CONTENT_LENGTH 4
#define QG_STATIC_METHOD_FIRST   15
#define QG_STATIC_METHOD_LAST    21
#define QG_STATIC_SCHEME_HTTP    22
#define QG_STATIC_SCHEME_HTTPS   23

#endif
