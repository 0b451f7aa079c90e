#include "check.h"
#include "keys.h"

#include <pthread.h>

#define PERIOD 100
#define ORIGIN 1000000

static const uint8_t secret[32] = "a secret of thirty-two bytes ...";

static bool same(const qg_key *a, const qg_key *b) {
    return memcmp(a->name, b->name, sizeof a->name) == 0 &&
           memcmp(a->secret, b->secret, sizeof a->secret) == 0 && a->epoch == b->epoch &&
           a->use == b->use;
}

TEST(arguments_out_of_range) {
    qg_key key;
    CHECK(qg_keys_new(secret, 0, 2, 0) == NULL);
    CHECK(qg_keys_new(secret, PERIOD, 0, 0) == NULL);
    CHECK(qg_keys_new(secret, PERIOD, QG_KEYS_WINDOW_MAX + 1, 0) == NULL);
    qg_keys *keys = qg_keys_new(secret, PERIOD, QG_KEYS_WINDOW_MAX, 0);
    CHECK(keys != NULL);
    CHECK_EQ(qg_keys_current(keys, 4, &key), QG_INVALID);
    CHECK_EQ(qg_keys_find(keys, 4, secret, &key), QG_INVALID);
    qg_keys_free(keys);
    qg_keys_free(NULL);
}

/* Contract 1: one rotates at every epoch, one joins late, one leaps. */
TEST(rings_with_one_secret_agree_however_they_rotate) {
    qg_keys *steady = qg_keys_new(secret, PERIOD, 3, ORIGIN);
    qg_keys *leaping = qg_keys_new(secret, PERIOD, 3, ORIGIN);
    for (uint64_t now = ORIGIN; now < ORIGIN + 40 * PERIOD; now += 37) {
        uint32_t epoch = qg_keys_rotate(steady, now);
        CHECK_EQ(epoch, (now - ORIGIN) / PERIOD);
        qg_keys *late = qg_keys_new(secret, PERIOD, 3, ORIGIN);
        CHECK_EQ(qg_keys_rotate(late, now), epoch);
        if (epoch % 7 == 0) {
            CHECK_EQ(qg_keys_rotate(leaping, now), epoch);
        }
        for (uint32_t use = 0; use < 4; use++) {
            qg_key a, b;
            CHECK_EQ(qg_keys_current(steady, use, &a), QG_OK);
            CHECK_EQ(qg_keys_current(late, use, &b), QG_OK);
            CHECK(same(&a, &b));
            CHECK_EQ(a.epoch, use == QG_KEY_RESET ? 0 : epoch);
            if (epoch % 7 == 0) {
                CHECK_EQ(qg_keys_current(leaping, use, &b), QG_OK);
                CHECK(same(&a, &b));
            }
        }
        qg_keys_free(late);
    }
    qg_keys_free(steady);
    qg_keys_free(leaping);
}

/* Contract 3: what an epoch sealed opens for `window` epochs, its own included. */
static void check_window(uint32_t window) {
    qg_key sealed[100], found;
    qg_keys *keys = qg_keys_new(secret, PERIOD, window, ORIGIN);
    for (uint32_t epoch = 0; epoch < 100; epoch++) {
        CHECK_EQ(qg_keys_rotate(keys, ORIGIN + epoch * PERIOD), epoch);
        qg_keys_current(keys, QG_KEY_TICKET, &sealed[epoch]);
        for (uint32_t old = 0; old <= epoch; old++) {
            int expected = old == epoch ? 0 : epoch - old < window ? 1 : QG_GONE;
            check_note("window %u, key %u in epoch %u", window, old, epoch);
            CHECK_EQ(qg_keys_find(keys, QG_KEY_TICKET, sealed[old].name, &found), expected);
            CHECK(expected == QG_GONE || same(&found, &sealed[old]));
        }
    }
    qg_keys_free(keys);
}

TEST(old_keys_open_inside_the_window_only) {
    check_window(1);
    check_window(2);
    check_window(5);
    check_window(QG_KEYS_WINDOW_MAX);
}

TEST(a_late_ring_opens_what_others_sealed_in_the_window) {
    qg_keys *early = qg_keys_new(secret, PERIOD, 4, ORIGIN);
    qg_keys *late = qg_keys_new(secret, PERIOD, 4, ORIGIN);
    qg_key sealed[20], found;
    for (uint32_t epoch = 0; epoch < 20; epoch++) {
        qg_keys_rotate(early, ORIGIN + epoch * PERIOD);
        qg_keys_current(early, QG_KEY_RETRY, &sealed[epoch]);
    }
    qg_keys_rotate(late, ORIGIN + 19 * PERIOD);
    for (uint32_t old = 0; old < 20; old++) {
        int expected = old == 19 ? 0 : old > 15 ? 1 : QG_GONE;
        CHECK_EQ(qg_keys_find(late, QG_KEY_RETRY, sealed[old].name, &found), expected);
        CHECK(expected < 0 || same(&found, &sealed[old]));
    }
    qg_keys_free(early);
    qg_keys_free(late);
}

/* Contract 5. */
TEST(a_clock_set_back_keeps_the_epoch) {
    qg_key before, after;
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN);
    CHECK_EQ(qg_keys_rotate(keys, ORIGIN + 10 * PERIOD), 10);
    qg_keys_current(keys, QG_KEY_TICKET, &before);
    CHECK_EQ(qg_keys_rotate(keys, ORIGIN), 10);
    CHECK_EQ(qg_keys_rotate(keys, 0), 10);
    qg_keys_current(keys, QG_KEY_TICKET, &after);
    CHECK(same(&before, &after));
    qg_keys_free(keys);
}

TEST(before_its_origin_a_ring_is_in_epoch_0) {
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN);
    CHECK_EQ(qg_keys_rotate(keys, 0), 0);
    CHECK_EQ(qg_keys_rotate(keys, ORIGIN - 1), 0);
    CHECK_EQ(qg_keys_rotate(keys, ORIGIN + PERIOD - 1), 0);
    CHECK_EQ(qg_keys_rotate(keys, ORIGIN + PERIOD), 1);
    qg_keys_free(keys);
}

/* Contract 4. */
TEST(the_reset_key_stays) {
    qg_key first, later, found;
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN);
    qg_keys_current(keys, QG_KEY_RESET, &first);
    qg_keys_rotate(keys, ORIGIN + 50 * PERIOD);
    qg_keys_current(keys, QG_KEY_RESET, &later);
    CHECK(same(&first, &later));
    CHECK_EQ(qg_keys_find(keys, QG_KEY_RESET, first.name, &found), 0);
    CHECK(same(&first, &found));
    first.name[0] ^= 1;
    CHECK_EQ(qg_keys_find(keys, QG_KEY_RESET, first.name, &found), QG_GONE);
    qg_keys_free(keys);
}

TEST(keys_differ_by_use_by_epoch_and_by_secret) {
    qg_key keys_seen[12];
    size_t count = 0;
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN), *other = NULL;
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        qg_keys_rotate(keys, ORIGIN + epoch * PERIOD);
        for (uint32_t use = 0; use < 4; use++) {
            if (use != QG_KEY_RESET || epoch == 0) {
                qg_keys_current(keys, use, &keys_seen[count++]);
            }
        }
    }
    other = qg_keys_new(NULL, PERIOD, 2, ORIGIN);
    for (uint32_t use = 0; use < 4; use++) {
        qg_keys_current(other, use, &keys_seen[count++]);
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            CHECK(memcmp(keys_seen[i].name, keys_seen[k].name, 16) != 0);
            CHECK(memcmp(keys_seen[i].secret, keys_seen[k].secret, 64) != 0);
        }
        CHECK(memcmp(keys_seen[i].secret, keys_seen[i].secret + 32, 32) != 0);
    }
    qg_keys_free(keys);
    qg_keys_free(other);
}

TEST(a_key_is_found_under_its_own_use_only) {
    qg_key key, found;
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN);
    qg_keys_current(keys, QG_KEY_TICKET, &key);
    CHECK_EQ(qg_keys_find(keys, QG_KEY_TICKET, key.name, &found), 0);
    CHECK_EQ(qg_keys_find(keys, QG_KEY_RETRY, key.name, &found), QG_GONE);
    CHECK_EQ(qg_keys_find(keys, QG_KEY_REPLAY, key.name, &found), QG_GONE);
    CHECK_EQ(qg_keys_find(keys, QG_KEY_RESET, key.name, &found), QG_GONE);
    qg_keys_free(keys);
}

/* No old secret stands in the ring's memory any more: contract 1, and "old secrets are wiped". */
TEST(old_secrets_leave_the_memory) {
    qg_key old;
    qg_keys *keys = qg_keys_new(secret, PERIOD, 2, ORIGIN);
    qg_keys_current(keys, QG_KEY_TICKET, &old);
    const uint8_t *memory = (const uint8_t *)keys;
    size_t size = sizeof(qg_keys) + 2 * 4 * sizeof(qg_key) + sizeof(qg_key); /* at the least */
    CHECK(memmem(memory, size, old.secret, 64) != NULL);
    CHECK(memmem(memory, size, secret, 32) != NULL);
    qg_keys_rotate(keys, ORIGIN + 2 * PERIOD);
    CHECK(memmem(memory, size, old.secret, 64) == NULL);
    CHECK(memmem(memory, size, secret, 32) == NULL);
    qg_keys_free(keys);
}

TEST(the_lifetime_is_what_is_sure) {
    qg_keys *keys = qg_keys_new(secret, PERIOD, 5, ORIGIN);
    CHECK_EQ(qg__keys_lifetime_s(keys), 4 * PERIOD);
    qg_keys_free(keys);
    keys = qg_keys_new(secret, PERIOD, 1, ORIGIN);
    CHECK_EQ(qg__keys_lifetime_s(keys), 0);
    qg_keys_free(keys);
    keys = qg_keys_new(secret, UINT32_MAX, 64, ORIGIN);
    CHECK_EQ(qg__keys_lifetime_s(keys), UINT32_MAX);
    qg_keys_free(keys);
}

static void *use_ring(void *arg) {
    qg_keys *keys = arg;
    qg_key key, found;
    for (uint64_t i = 0; i < 2000; i++) {
        qg_keys_rotate(keys, ORIGIN + i * PERIOD / 10);
        qg_keys_current(keys, QG_KEY_TICKET, &key);
        if (qg_keys_find(keys, QG_KEY_TICKET, key.name, &found) >= 0 && !same(&key, &found)) {
            return keys; /* a key in halves */
        }
        qg_keys_free(qg__keys_reference(keys));
    }
    return NULL;
}

/* Contract 6. */
TEST(threads_may_share_a_ring) {
    pthread_t threads[4];
    qg_keys *keys = qg_keys_new(secret, PERIOD, 3, ORIGIN);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, use_ring, keys), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *torn;
        pthread_join(threads[i], &torn);
        CHECK(torn == NULL);
    }
    CHECK_EQ(keys->references, 1);
    qg_keys_free(keys);
}
