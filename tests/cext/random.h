/* random.h: numbers that are the same in every run (xorshift64*: Marsaglia, 2003; Vigna, 2016). */
#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* `state` is anything but 0. */
static inline uint64_t random_next(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit) {
    return (random_next(state) >> 11) % limit;
}

static inline void random_bytes(uint64_t *state, uint8_t *out, size_t len) {
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(random_next(state) >> 56);
    }
}

#endif
