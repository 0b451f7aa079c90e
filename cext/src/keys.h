/* keys.h: the key ring.
 *
 * Contract
 * 1. Everything comes from one 32-byte secret K[0]; K[e+1] = HKDF-Expand(K[e], "ratchet"), and
 *    K[e] is wiped, at the latest when nothing that it opens counts any more. So processes with the
 *    same secret and clock hold the same keys with no leader, and who steals the ring learns nothing
 *    about epochs before its window.
 * 2. The key for a use in an epoch is HKDF-Expand(K[e], use): 16 bytes of name, 64 of secret. A
 *    name tells nothing of the secret, and appears in the clear in what is sealed.
 * 3. The current epoch's key seals; the keys of the last `window` epochs open. So a ticket may live
 *    (window - 1) periods and is never offered in vain.
 * 4. The reset key comes from K[0] and does not rotate: a stateless-reset token must be
 *    recognisable for as long as the connection lives, and longer than the process.
 * 5. Time only goes forward: a clock set back keeps the epoch.
 * 6. A ring may be used by engines of several threads at once.
 *
 * Backends fill `qg_keys_ops`: keys.c in this process's memory, group_keys.c in what the workers of a
 * group share. */
#ifndef QG_KEYS_H
#define QG_KEYS_H

#include "base.h"

#define QG_KEYS_WINDOW_MAX 64
#define QG_KEYS_SECRET     32
#define QG_KEYS_USES       4

typedef struct qg_keys_ops {
    uint32_t (*rotate)(qg_keys *keys, uint64_t now_s);
    int (*current)(qg_keys *keys, uint32_t use, qg_key *out);
    int (*find)(qg_keys *keys, uint32_t use, const uint8_t *name, qg_key *out);
    void (*destroy)(qg_keys *keys);
} qg_keys_ops;

struct qg_keys {
    const qg_keys_ops *ops;
    _Atomic uint32_t references; /* engines of several threads may share it */
    uint32_t period_s;
    uint32_t window;
};

/* K[e] becomes K[e+1]. */
void qg__keys_ratchet(uint8_t root[QG_KEYS_SECRET]);

/* The key for a use out of K[epoch]. */
void qg__keys_derive(qg_key *key, const uint8_t root[QG_KEYS_SECRET], uint32_t use, uint32_t epoch);

uint32_t qg__keys_epoch_at(uint64_t now_s, uint64_t origin_s, uint32_t period_s);

qg_keys *qg__keys_reference(qg_keys *keys);

/* Seconds that what is sealed now will stay openable, at least. */
uint32_t qg__keys_lifetime_s(const qg_keys *keys);

#endif
