/* head.h: the head of an HTTP message: from a QPACK field section to checked text.
 *
 * A handler never sees a message that RFC 9114 calls malformed (sections 4.1.2, 4.2, 4.3 and 10.3):
 * what is let through here is what gateways and WSGI applications further on would read in two
 * ways.
 *
 * The text, which the caller decodes when it wants to:
 *    path                          requests only
 *    LF                            so that every name has LF before and NUL after it
 *    name NUL value LF             pseudo-fields first (":authority", ":scheme", ...), then the
 *    name NUL value LF ...         others in their order
 * NUL, LF and CR occur in no name or value that was let through, so "find LF name NUL" finds a
 * field and splitting at both gives all. */
#ifndef QG_HEAD_H
#define QG_HEAD_H

#include "base.h"

typedef enum qg_head_kind { QG_HEAD_REQUEST, QG_HEAD_RESPONSE, QG_HEAD_TRAILERS } qg_head_kind;

typedef struct qg_head_limits {
    uint64_t size;   /* names, values and 32 for each field (RFC 9114, section 4.2.2) */
    uint64_t fields; /* how many */
    bool extended_connect;
} qg_head_limits;

typedef struct qg_head {
    uint32_t method; /* QG_METHOD_* */
    uint32_t status;
    uint32_t path_len;
    uint32_t text_len;       /* path included */
    uint64_t content_length; /* QG_UNKNOWN_LENGTH */
    bool has_priority;       /* the next two were given (RFC 9218, section 4) */
    uint8_t urgency;
    bool incremental;
} qg_head;

/* Decode and check `section`. `text` has room for limits->size bytes and QG_HEAD_SLACK more,
 * `scratch` for twice that. QG_OK; QG_INVALID: the message is malformed (a stream error);
 * QG_TOO_LARGE: beyond a limit; QG_PROTOCOL: not QPACK (a connection error). */
int qg__head_decode(qg_head_kind kind, const uint8_t *section, size_t len,
                    const qg_head_limits *limits, uint8_t *scratch, uint8_t *text, qg_head *out);

#define QG_HEAD_SLACK 512 /* the pseudo-fields' names and separators, with room to spare */

/* "u=N" and "i" of a priority field value; what is not understood is ignored (RFC 9218, section 4).
 */
void qg__priority_parse(const uint8_t *value, size_t len, uint8_t *urgency, bool *incremental);

/* May this be sent? Checks as above; connection-specific names are answered 0, which means "leave
 * it out" (RFC 9114, section 4.2), others 1, wrong ones QG_INVALID. */
int qg__field_sendable(const uint8_t *name, size_t name_len, const uint8_t *value,
                       size_t value_len);

#endif
