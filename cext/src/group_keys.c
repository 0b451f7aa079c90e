/* group_keys.c: the key ring of a group: keys.h's contract, with the roots in shared memory. */
#include <errno.h>
#include <openssl/mem.h>
#include <stdlib.h>

#include "group.h"
#include "lock.h"

/* The keys of one epoch. */
typedef struct epoch_keys {
    uint64_t epoch; /* plus 1; 0: none */
    qg_key key[QG_KEYS_USES];
} epoch_keys;

/* What this process derived from the shared root; under the lock, since engines of several threads may share a
 * ring. */
typedef struct group_keys {
    qg_keys base;
    qg_group *group;
    uint64_t epoch;                      /* plus 1; 0: nothing is derived yet */
    epoch_keys ring[QG_KEYS_WINDOW_MAX]; /* epoch e stands at e % window */
} group_keys;

static uint32_t oldest(uint32_t epoch, uint32_t window) {
    return epoch >= window ? epoch - window + 1 : 0;
}

/* ---------------------------------------------------------------- the shared root */

/* Copy the root that counts; returns its epoch. */
static uint32_t read_root(group_secrets *s, uint8_t out[QG_KEYS_SECRET]) {
    for (;;) {
        uint32_t version = s->version;
        const group_root *root = &s->roots[version & 1];
        uint64_t epoch = root->epoch;
        for (size_t i = 0; i < QG_KEYS_SECRET / 8; i++) {
            uint64_t word = root->words[i];
            memcpy(out + 8 * i, &word, 8);
        }
        if (s->version == version) {
            return (uint32_t)(epoch - 1);
        }
    }
}

static void write_root(group_root *root, uint32_t epoch, const uint8_t from[QG_KEYS_SECRET]) {
    for (size_t i = 0; i < QG_KEYS_SECRET / 8; i++) {
        uint64_t word;
        memcpy(&word, from + 8 * i, 8);
        root->words[i] = word;
        qg__group_stepped();
    }
    root->epoch = (uint64_t)epoch + 1;
    qg__group_stepped();
}

static void wipe_root(group_root *root) {
    for (size_t i = 0; i < QG_KEYS_SECRET / 8; i++) {
        root->words[i] = 0;
        qg__group_stepped();
    }
    root->epoch = 0; /* last: who dies before this is finished by the next one */
    qg__group_stepped();
}

static bool lock(group_secrets *s) {
    int rc = pthread_mutex_trylock(&s->forgetting);
    if (rc == EOWNERDEAD) {
        pthread_mutex_consistent(&s->forgetting);
        rc = 0;
    }
    return rc == 0;
}

/* Forget the roots before `keep`. */
static void forget(group_secrets *s, uint32_t keep) {
    uint8_t root[QG_KEYS_SECRET];
    uint32_t version = s->version;
    if (s->roots[version & 1].epoch > keep && s->roots[~version & 1].epoch == 0) {
        return;
    }
    if (!lock(s)) {
        return; /* somebody is at it */
    }
    qg__group_stepped();
    version = s->version;
    wipe_root(&s->roots[~version & 1]); /* perhaps somebody died at it */
    uint32_t epoch = read_root(s, root);
    if (epoch < keep) {
        for (; epoch < keep; epoch++) {
            qg__keys_ratchet(root);
        }
        write_root(&s->roots[~version & 1], epoch, root);
        s->version = version + 1;
        qg__group_stepped();
        wipe_root(&s->roots[version & 1]);
    }
    OPENSSL_cleanse(root, sizeof root);
    pthread_mutex_unlock(&s->forgetting);
}

/* ---------------------------------------------------------------- this process's keys */

/* Derive what opens in `epoch`; wipe all else. */
static void derive_window(group_keys *k, uint32_t epoch) {
    uint8_t root[QG_KEYS_SECRET];
    uint32_t window = k->base.window;
    uint32_t at = read_root(k->group->secrets, root);
    OPENSSL_cleanse(k->ring, sizeof k->ring);
    for (;; at++, qg__keys_ratchet(root)) {
        if (at >= oldest(epoch, window) && at <= epoch) {
            epoch_keys *keys = &k->ring[at % window];
            keys->epoch = (uint64_t)at + 1;
            for (uint32_t use = 0; use < QG_KEYS_USES; use++) {
                qg__keys_derive(&keys->key[use], root, use, at);
            }
        }
        if (at >= epoch) {
            break;
        }
    }
    OPENSSL_cleanse(root, sizeof root);
    k->epoch = (uint64_t)epoch + 1;
}

/* Another process may have begun a new epoch. */
static uint32_t catch_up(group_keys *k) {
    for (;;) {
        uint32_t epoch = k->group->secrets->epoch;
        if (k->epoch == (uint64_t)epoch + 1) {
            return epoch;
        }
        /* Should the others move on by a whole window meanwhile, its root is gone: look again. */
        derive_window(k, epoch);
    }
}

static uint32_t group_rotate(qg_keys *keys, uint64_t now_s) {
    group_keys *k = (group_keys *)keys;
    group_secrets *s = k->group->secrets;
    const group_header *h = k->group->header;
    uint32_t target = qg__keys_epoch_at(now_s, h->key_origin_s, h->key_period_s);
    qg__lock();
    uint32_t epoch = s->epoch;
    while (epoch < target && !atomic_compare_exchange_weak(&s->epoch, &epoch, target)) {
    }
    qg__group_stepped();
    epoch = catch_up(k);
    forget(s, oldest(epoch, k->base.window));
    qg__unlock();
    return epoch;
}

static int group_current(qg_keys *keys, uint32_t use, qg_key *out) {
    group_keys *k = (group_keys *)keys;
    if (use == QG_KEY_RESET) {
        *out = k->group->secrets->reset;
        return QG_OK;
    }
    qg__lock();
    *out = k->ring[catch_up(k) % keys->window].key[use];
    qg__unlock();
    return QG_OK;
}

static int find(group_keys *k, uint32_t use, const uint8_t *name, qg_key *out) {
    uint32_t epoch = catch_up(k);
    for (uint32_t age = 0; age < k->base.window && age <= epoch; age++) {
        const epoch_keys *keys = &k->ring[(epoch - age) % k->base.window];
        if (keys->epoch != 0 && memcmp(name, keys->key[use].name, sizeof out->name) == 0) {
            *out = keys->key[use];
            return age == 0 ? 0 : 1;
        }
    }
    return QG_GONE;
}

static int group_find(qg_keys *keys, uint32_t use, const uint8_t *name, qg_key *out) {
    group_keys *k = (group_keys *)keys;
    if (use == QG_KEY_RESET) {
        *out = k->group->secrets->reset;
        return memcmp(name, out->name, sizeof out->name) == 0 ? 0 : QG_GONE;
    }
    qg__lock();
    int found = find(k, use, name, out);
    qg__unlock();
    return found;
}

static void group_destroy(qg_keys *keys) {
    group_keys *k = (group_keys *)keys;
    qg_group_free(k->group);
    OPENSSL_cleanse(k, sizeof *k);
    free(k);
}

static const qg_keys_ops group_ops = {group_rotate, group_current, group_find, group_destroy};

qg_keys *qg_group_keys(qg_group *group) {
    group_keys *k = calloc(1, sizeof *k);
    if (k == NULL) {
        return NULL;
    }
    k->base = (qg_keys){&group_ops, 1, group->header->key_period_s, group->header->key_window};
    k->group = qg__group_reference(group);
    return &k->base;
}
