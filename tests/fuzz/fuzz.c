#include "fuzz.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static char note[200];

uint8_t *fuzz_copy(const uint8_t *bytes, size_t len) {
    uint8_t *copy = malloc(len > 0 ? len : 1);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    return copy;
}

void fuzz_check_head(const uint8_t *text, size_t len) {
    CHECK(len >= 1 && text[0] == '\n' && text[len - 1] == '\n');
    for (size_t at = 1; at < len;) {
        const uint8_t *nul = memchr(text + at, '\0', len - at);
        const uint8_t *lf = memchr(text + at, '\n', len - at);
        CHECK(nul != NULL && lf != NULL && nul > text + at && nul < lf);
        CHECK(memchr(nul + 1, '\0', (size_t)(lf - nul - 1)) == NULL);
        CHECK(memchr(text + at, '\r', (size_t)(lf - text) - at) == NULL);
        for (const uint8_t *c = text + at; c < nul; c++) {
            CHECK(*c > ' ' && *c < 0x7f && !(*c >= 'A' && *c <= 'Z'));
        }
        at = (size_t)(lf - text) + 1;
    }
}

/* ---------------------------------------------------------------- check.h, for one input */

void check_note(const char *format, ...) {
    note[0] = '\0';
    if (format != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(note, sizeof note, format, arguments);
        va_end(arguments);
    }
}

void check_true(bool ok, const char *text, const char *file, int line) {
    if (!ok) {
        fprintf(stderr, "%s:%d: %s %s\n", file, line, text, note);
        abort();
    }
}

void check_equal(int64_t a, int64_t b, const char *text, const char *file, int line) {
    if (a != b) {
        fprintf(stderr, "%lld and %lld\n", (long long)a, (long long)b);
        check_true(false, text, file, line);
    }
}

void check_bytes(const void *a, size_t a_len, const void *b, size_t b_len, const char *text,
                 const char *file, int line) {
    check_true(a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0), text, file, line);
}

/* ---------------------------------------------------------------- speed */

/* quiche reads the system's root certificates for every configuration, which takes longer than most
 * inputs do. Nothing here looks at them. */
__attribute__((constructor)) static void no_roots(void) {
    setenv("SSL_CERT_FILE", "/dev/null", 1);
    setenv("SSL_CERT_DIR", "/dev/null", 1);
}
