/* base.h: what every file of the engine uses: the clock, bytes, lists. No allocation, no syscall
 * but clock_gettime (the vDSO answers it). */
#ifndef QG_BASE_H
#define QG_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "quicgreen.h"

#define QG_NS_PER_US UINT64_C(1000)
#define QG_NS_PER_MS UINT64_C(1000000)
#define QG_NS_PER_S  UINT64_C(1000000000)
#define QG_NEVER     UINT64_MAX

#define QG_CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define QG_LIKELY(x)   __builtin_expect(!!(x), 1)
#define QG_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Clang and gcc tell of the address sanitizer in two ways. */
#if defined(__SANITIZE_ADDRESS__)
#define QG_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QG_SANITIZED 1
#endif
#endif
#ifndef QG_SANITIZED
#define QG_SANITIZED 0
#endif

static inline uint64_t qg__now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * QG_NS_PER_S + (uint64_t)t.tv_nsec;
}

/* Wall-clock seconds: for ticket and token ages, and the date field. */
static inline uint64_t qg__wall_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec;
}

/* `count` units of time after `now_ns`; QG_NEVER when that is beyond the clock. */
static inline uint64_t qg__later(uint64_t now_ns, uint64_t count, uint64_t unit_ns) {
    uint64_t ns;
    return __builtin_mul_overflow(count, unit_ns, &ns) || __builtin_add_overflow(now_ns, ns, &ns)
               ? QG_NEVER
               : ns;
}

static inline uint64_t qg__min64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static inline size_t qg__min(size_t a, size_t b) {
    return a < b ? a : b;
}

/* memcpy, to which NULL may be given for no bytes (C11, section 7.24.1, forbids it). */
static inline void qg__copy(void *to, const void *from, size_t len) {
    if (len > 0) {
        memcpy(to, from, len);
    }
}

/* Big-endian numbers in unaligned memory. */
static inline void qg__put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static inline void qg__put24(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 16);
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)v;
}
static inline void qg__put32(uint8_t *p, uint32_t v) {
    qg__put16(p, (uint16_t)(v >> 16));
    qg__put16(p + 2, (uint16_t)v);
}
static inline void qg__put64(uint8_t *p, uint64_t v) {
    qg__put32(p, (uint32_t)(v >> 32));
    qg__put32(p + 4, (uint32_t)v);
}
static inline uint16_t qg__get16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t qg__get24(const uint8_t *p) {
    return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
}
static inline uint32_t qg__get32(const uint8_t *p) {
    return (uint32_t)qg__get16(p) << 16 | qg__get16(p + 2);
}
static inline uint64_t qg__get64(const uint8_t *p) {
    return (uint64_t)qg__get32(p) << 32 | qg__get32(p + 4);
}

/* Variable-length integers (RFC 9000, section 16). */
#define QG_VARINT_MAX ((UINT64_C(1) << 62) - 1)

static inline size_t qg__varint_size(uint64_t v) {
    return v < 64 ? 1 : v < 16384 ? 2 : v < 1073741824 ? 4 : 8;
}

/* How many bytes the integer that begins with `first` takes. */
static inline size_t qg__varint_width(uint8_t first) {
    return (size_t)1 << (first >> 6);
}

/* Returns the bytes written (1, 2, 4 or 8). */
static inline size_t qg__varint_put(uint8_t *p, uint64_t v) {
    switch (qg__varint_size(v)) {
    case 1:
        p[0] = (uint8_t)v;
        return 1;
    case 2:
        qg__put16(p, (uint16_t)(v | 0x4000));
        return 2;
    case 4:
        qg__put32(p, (uint32_t)(v | 0x80000000));
        return 4;
    default:
        qg__put64(p, v | UINT64_C(0xc000000000000000));
        return 8;
    }
}

/* Reads from `p`, of which `len` bytes are there. Returns the bytes read, 0 when more are needed.
 */
static inline size_t qg__varint_get(const uint8_t *p, size_t len, uint64_t *v) {
    if (len == 0 || len < qg__varint_width(p[0])) {
        return 0;
    }
    switch (p[0] >> 6) {
    case 0:
        *v = p[0];
        return 1;
    case 1:
        *v = qg__get16(p) & 0x3fff;
        return 2;
    case 2:
        *v = qg__get32(p) & 0x3fffffff;
        return 4;
    default:
        *v = qg__get64(p) & UINT64_C(0x3fffffffffffffff);
        return 8;
    }
}

/* An intrusive ring of links. An empty one, and a link in none, points to itself. */
typedef struct qg_link {
    struct qg_link *next, *prev;
} qg_link;

static inline void qg__link_init(qg_link *l) {
    l->next = l->prev = l;
}
static inline bool qg__link_alone(const qg_link *l) {
    return l->next == l;
}
static inline void qg__link_remove(qg_link *l) {
    l->prev->next = l->next;
    l->next->prev = l->prev;
    qg__link_init(l);
}
/* Put `l`, which is in no ring, at the end of `ring`. */
static inline void qg__link_append(qg_link *ring, qg_link *l) {
    l->prev = ring->prev;
    l->next = ring;
    ring->prev->next = l;
    ring->prev = l;
}

static inline bool qg__addr_equal(const qg_addr *a, const qg_addr *b) {
    return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

#endif
