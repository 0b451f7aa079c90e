#include "keys.h"

#include <openssl/digest.h>
#include <openssl/hkdf.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <stdlib.h>

#include "lock.h"

#define SECRET QG_KEYS_SECRET
#define USES   QG_KEYS_USES

/* The keys of one epoch. */
typedef struct epoch_keys {
    qg_key key[USES];
} epoch_keys;

/* All but what is in `base` under the lock: engines of several threads may share a ring. */
typedef struct memory_keys {
    qg_keys base;
    uint64_t origin_s;
    uint32_t epoch;
    uint8_t root[SECRET]; /* K[epoch] */
    qg_key reset;
    epoch_keys ring[QG_KEYS_WINDOW_MAX]; /* epoch e stands at e % window */
} memory_keys;

static void expand(uint8_t *out, size_t len, const uint8_t root[SECRET], const char *info) {
    /* Fails only for an output of more than 255 digests. */
    HKDF_expand(out, len, EVP_sha256(), root, SECRET, (const uint8_t *)info, strlen(info));
}

void qg__keys_derive(qg_key *key, const uint8_t root[SECRET], uint32_t use, uint32_t epoch) {
    static const char *const info[USES] = {"quicgreen ticket", "quicgreen retry", "quicgreen reset",
                                           "quicgreen replay"};
    uint8_t material[sizeof key->name + sizeof key->secret];
    expand(material, sizeof material, root, info[use]);
    memcpy(key->name, material, sizeof key->name);
    memcpy(key->secret, material + sizeof key->name, sizeof key->secret);
    key->use = use;
    key->epoch = epoch;
    OPENSSL_cleanse(material, sizeof material);
}

void qg__keys_ratchet(uint8_t root[SECRET]) {
    uint8_t next[SECRET];
    expand(next, sizeof next, root, "quicgreen ratchet");
    memcpy(root, next, sizeof next);
    OPENSSL_cleanse(next, sizeof next);
}

uint32_t qg__keys_epoch_at(uint64_t now_s, uint64_t origin_s, uint32_t period_s) {
    uint64_t epoch = now_s > origin_s ? (now_s - origin_s) / period_s : 0;
    return epoch > UINT32_MAX ? UINT32_MAX : (uint32_t)epoch;
}

static void derive_epoch(memory_keys *m) {
    for (uint32_t use = 0; use < USES; use++) {
        qg__keys_derive(&m->ring[m->epoch % m->base.window].key[use], m->root, use, m->epoch);
    }
}

static uint32_t memory_rotate(qg_keys *keys, uint64_t now_s) {
    memory_keys *m = (memory_keys *)keys;
    qg__lock();
    uint32_t target = qg__keys_epoch_at(now_s, m->origin_s, keys->period_s);
    while (m->epoch < target) {
        qg__keys_ratchet(m->root);
        m->epoch++;
        /* A ring that joins late has no use for keys that nobody may open with any more. */
        if ((uint64_t)m->epoch + keys->window > target) {
            derive_epoch(m);
        }
    }
    uint32_t epoch = m->epoch;
    qg__unlock();
    return epoch;
}

static int memory_current(qg_keys *keys, uint32_t use, qg_key *out) {
    memory_keys *m = (memory_keys *)keys;
    qg__lock();
    *out = use == QG_KEY_RESET ? m->reset : m->ring[m->epoch % keys->window].key[use];
    qg__unlock();
    return QG_OK;
}

static int find(const memory_keys *m, uint32_t use, const uint8_t *name, qg_key *out) {
    if (use == QG_KEY_RESET) {
        *out = m->reset;
        return memcmp(name, out->name, sizeof out->name) == 0 ? 0 : QG_GONE;
    }
    for (uint32_t age = 0; age < m->base.window && age <= m->epoch; age++) {
        const qg_key *key = &m->ring[(m->epoch - age) % m->base.window].key[use];
        if (memcmp(name, key->name, sizeof key->name) == 0) {
            *out = *key;
            return age == 0 ? 0 : 1;
        }
    }
    return QG_GONE;
}

static int memory_find(qg_keys *keys, uint32_t use, const uint8_t *name, qg_key *out) {
    memory_keys *m = (memory_keys *)keys;
    qg__lock();
    int found = find(m, use, name, out);
    qg__unlock();
    return found;
}

static void memory_destroy(qg_keys *keys) {
    OPENSSL_cleanse(keys, sizeof(memory_keys));
    free(keys);
}

static const qg_keys_ops memory_ops = {memory_rotate, memory_current, memory_find, memory_destroy};

qg_keys *qg_keys_new(const uint8_t *secret, uint32_t period_s, uint32_t window, uint64_t origin_s) {
    if (period_s == 0 || window == 0 || window > QG_KEYS_WINDOW_MAX) {
        return NULL;
    }
    memory_keys *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    m->base = (qg_keys){&memory_ops, 1, period_s, window};
    m->origin_s = origin_s;
    if (secret != NULL) {
        memcpy(m->root, secret, SECRET);
    } else {
        RAND_bytes(m->root, SECRET);
    }
    qg__keys_derive(&m->reset, m->root, QG_KEY_RESET, 0);
    derive_epoch(m);
    return &m->base;
}

qg_keys *qg__keys_reference(qg_keys *keys) {
    keys->references++;
    return keys;
}

void qg_keys_free(qg_keys *keys) {
    if (keys != NULL && --keys->references == 0) {
        keys->ops->destroy(keys);
    }
}

uint32_t qg_keys_rotate(qg_keys *keys, uint64_t now_s) {
    return keys->ops->rotate(keys, now_s);
}

int qg_keys_current(qg_keys *keys, uint32_t use, qg_key *out) {
    return use < USES ? keys->ops->current(keys, use, out) : QG_INVALID;
}

int qg_keys_find(qg_keys *keys, uint32_t use, const uint8_t *name, qg_key *out) {
    return use < USES ? keys->ops->find(keys, use, name, out) : QG_INVALID;
}

uint32_t qg__keys_lifetime_s(const qg_keys *keys) {
    uint64_t s = (uint64_t)(keys->window - 1) * keys->period_s;
    return s > UINT32_MAX ? UINT32_MAX : (uint32_t)s;
}
