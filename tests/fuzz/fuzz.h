/* fuzz.h: what the fuzz targets share: an input that is read piece by piece, and how a check of the
 * harness ends the process, which is how both libFuzzer and replay.c see a finding. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* What libFuzzer calls, and replay.c. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct fuzz_input {
    const uint8_t *at, *end;
} fuzz_input;

/* The next byte; 0 when there is none. */
static inline uint8_t fuzz_byte(fuzz_input *in) {
    return in->at < in->end ? *in->at++ : 0;
}

/* A length byte, and as many of the bytes after it as there are. */
static inline const uint8_t *fuzz_bytes(fuzz_input *in, size_t *len) {
    size_t wanted = fuzz_byte(in), left = (size_t)(in->end - in->at);
    const uint8_t *bytes = in->at;
    *len = wanted < left ? wanted : left;
    in->at += *len;
    return bytes;
}

/* A copy that the address sanitizer knows the end of. The caller frees it. */
uint8_t *fuzz_copy(const uint8_t *bytes, size_t len);

/* Abort unless `text`, of a head that was let through, has the form that head.h promises. */
void fuzz_check_head(const uint8_t *text, size_t len);

#endif
