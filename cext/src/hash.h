/* hash.h: a table from byte strings (connection ids that peers chose, 8 to 20 bytes) to numbers.
 * Keyed with SipHash-2-4 (Aumasson and Bernstein, 2012), since the keys are the peers' choice and a
 * plain hash would let them make every look-up walk the whole table. */
#ifndef QG_HASH_H
#define QG_HASH_H

#include "base.h"

#define QG_HASH_KEY_MAX                                                                            \
    20 /* the longest connection id of QUIC version 1 (RFC 9000, section 17.2) */

typedef struct qg_hash_entry {
    uint8_t key[QG_HASH_KEY_MAX];
    uint8_t len; /* 0: empty; QG_HASH_GONE: was taken out */
    uint64_t value;
} qg_hash_entry;

typedef struct qg_hash {
    uint8_t secret[16];
    qg_hash_entry *entries;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t used;     /* entries that are not empty, gone ones included */
    uint32_t count;
} qg_hash;

uint64_t qg__siphash(const uint8_t secret[16], const uint8_t *data, size_t len);

void qg__hash_init(qg_hash *hash, const uint8_t secret[16]);
void qg__hash_free(qg_hash *hash);

/* False when there is no memory. An entry with this key is replaced. */
bool qg__hash_put(qg_hash *hash, const uint8_t *key, size_t len, uint64_t value);

/* True, and *value, when the key is there. */
bool qg__hash_get(const qg_hash *hash, const uint8_t *key, size_t len, uint64_t *value);
void qg__hash_remove(qg_hash *hash, const uint8_t *key, size_t len);

#endif
