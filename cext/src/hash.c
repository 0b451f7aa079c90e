#include "hash.h"

#include <stdlib.h>

#define GONE 0xff

static uint64_t rotl(uint64_t x, int b) {
    return x << b | x >> (64 - b);
}

static uint64_t load_le(const uint8_t *p) {
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) {
        v = v << 8 | p[i];
    }
    return v;
}

static void rounds(uint64_t v[4], int n) {
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = rotl(v[1], 13) ^ v[0];
        v[0] = rotl(v[0], 32);
        v[2] += v[3];
        v[3] = rotl(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotl(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotl(v[1], 17) ^ v[2];
        v[2] = rotl(v[2], 32);
    }
}

uint64_t qg__siphash(const uint8_t secret[16], const uint8_t *data, size_t len) {
    uint64_t k0 = load_le(secret), k1 = load_le(secret + 8);
    uint64_t v[4] = {k0 ^ UINT64_C(0x736f6d6570736575), k1 ^ UINT64_C(0x646f72616e646f6d),
                     k0 ^ UINT64_C(0x6c7967656e657261), k1 ^ UINT64_C(0x7465646279746573)};
    size_t whole = len & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t m = load_le(data + i);
        v[3] ^= m;
        rounds(v, 2);
        v[0] ^= m;
    }
    uint64_t last = (uint64_t)len << 56;
    for (size_t i = whole; i < len; i++) {
        last |= (uint64_t)data[i] << (8 * (i - whole));
    }
    v[3] ^= last;
    rounds(v, 2);
    v[0] ^= last;
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void qg__hash_init(qg_hash *hash, const uint8_t secret[16]) {
    *hash = (qg_hash){0};
    memcpy(hash->secret, secret, sizeof hash->secret);
}

void qg__hash_free(qg_hash *hash) {
    free(hash->entries);
    hash->entries = NULL;
    hash->capacity = hash->used = hash->count = 0;
}

/* The entry with this key, or the first one where it may be put. Linear probing: the table is at
 * most three quarters full, so a walk ends. */
static qg_hash_entry *probe(const qg_hash *hash, const uint8_t *key, size_t len) {
    uint32_t mask = hash->capacity - 1;
    uint32_t i = (uint32_t)qg__siphash(hash->secret, key, len) & mask;
    qg_hash_entry *free_entry = NULL;
    for (;; i = (i + 1) & mask) {
        qg_hash_entry *e = &hash->entries[i];
        if (e->len == 0) {
            return free_entry != NULL ? free_entry : e;
        }
        if (e->len == GONE) {
            free_entry = free_entry != NULL ? free_entry : e;
        } else if (e->len == len && memcmp(e->key, key, len) == 0) {
            return e;
        }
    }
}

static void insert(qg_hash *hash, const uint8_t *key, size_t len, uint64_t value) {
    qg_hash_entry *e = probe(hash, key, len);
    if (e->len == 0 || e->len == GONE) {
        hash->used += e->len == 0;
        hash->count++;
        memcpy(e->key, key, len);
        e->len = (uint8_t)len;
    }
    e->value = value;
}

/* Make room for one more; this also sweeps the entries that are gone. */
static bool grow(qg_hash *hash) {
    if (4 * (hash->used + 1) <= 3 * hash->capacity) {
        return true;
    }
    uint32_t capacity = 16;
    while (capacity < 4 * hash->count) {
        capacity *= 2;
    }
    qg_hash old = *hash;
    hash->entries = calloc(capacity, sizeof *hash->entries);
    if (hash->entries == NULL) {
        *hash = old;
        return false;
    }
    hash->capacity = capacity;
    hash->used = hash->count = 0;
    for (uint32_t i = 0; i < old.capacity; i++) {
        const qg_hash_entry *e = &old.entries[i];
        if (e->len != 0 && e->len != GONE) {
            insert(hash, e->key, e->len, e->value);
        }
    }
    free(old.entries);
    return true;
}

bool qg__hash_put(qg_hash *hash, const uint8_t *key, size_t len, uint64_t value) {
    if (len == 0 || len > QG_HASH_KEY_MAX || !grow(hash)) {
        return false;
    }
    insert(hash, key, len, value);
    return true;
}

bool qg__hash_get(const qg_hash *hash, const uint8_t *key, size_t len, uint64_t *value) {
    if (hash->count == 0 || len == 0 || len > QG_HASH_KEY_MAX) {
        return false;
    }
    const qg_hash_entry *e = probe(hash, key, len);
    if (e->len != len) {
        return false;
    }
    *value = e->value;
    return true;
}

void qg__hash_remove(qg_hash *hash, const uint8_t *key, size_t len) {
    if (hash->count == 0 || len == 0 || len > QG_HASH_KEY_MAX) {
        return;
    }
    qg_hash_entry *e = probe(hash, key, len);
    if (e->len == len && memcmp(e->key, key, len) == 0) {
        e->len = GONE;
        hash->count--;
    }
}
