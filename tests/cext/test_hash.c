#include "check.h"
#include "hash.h"
#include "random.h"

static const uint8_t secret[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* The vectors of the SipHash paper's reference code: message 00 01 02 ... of each length. */
TEST(siphash_vectors) {
    static const uint64_t expected[] = {
        UINT64_C(0x726fdb47dd0e0e31), UINT64_C(0x74f839c593dc67fd), UINT64_C(0x0d6c8009d9a94f5a),
        UINT64_C(0x85676696d7fb7e2d), UINT64_C(0xcf2794e0277187b7), UINT64_C(0x18765564cd99a68d),
        UINT64_C(0xcbc9466e58fee3ce), UINT64_C(0xab0200f58b01d137), UINT64_C(0x93f5f5799a932462),
    };
    uint8_t message[15];
    for (uint8_t i = 0; i < sizeof message; i++) {
        message[i] = i;
    }
    for (size_t len = 0; len < sizeof expected / sizeof *expected; len++) {
        CHECK_EQ(qg__siphash(secret, message, len), expected[len]);
    }
    /* The paper's own example, appendix A. */
    CHECK_EQ(qg__siphash(secret, message, 15), UINT64_C(0xa129ca6149be45e5));
}

TEST(an_empty_table_has_nothing) {
    qg_hash hash;
    uint64_t value = 1;
    qg__hash_init(&hash, secret);
    CHECK(!qg__hash_get(&hash, secret, 8, &value));
    qg__hash_remove(&hash, secret, 8);
    CHECK_EQ(value, 1);
    qg__hash_free(&hash);
}

TEST(keys_of_0_and_of_21_bytes_are_refused) {
    qg_hash hash;
    uint64_t value;
    uint8_t key[32] = {0};
    qg__hash_init(&hash, secret);
    CHECK(!qg__hash_put(&hash, key, 0, 1));
    CHECK(!qg__hash_put(&hash, key, QG_HASH_KEY_MAX + 1, 1));
    CHECK(qg__hash_put(&hash, key, QG_HASH_KEY_MAX, 1));
    CHECK(!qg__hash_get(&hash, key, 0, &value));
    CHECK(!qg__hash_get(&hash, key, QG_HASH_KEY_MAX + 1, &value));
    qg__hash_remove(&hash, key, QG_HASH_KEY_MAX + 1);
    CHECK(qg__hash_get(&hash, key, QG_HASH_KEY_MAX, &value));
    qg__hash_free(&hash);
}

TEST(a_prefix_of_a_key_is_another_key) {
    qg_hash hash;
    uint64_t value;
    uint8_t key[20] = {1, 2, 3};
    qg__hash_init(&hash, secret);
    for (size_t len = 1; len <= sizeof key; len++) {
        CHECK(qg__hash_put(&hash, key, len, len));
    }
    CHECK_EQ(hash.count, 20);
    for (size_t len = 1; len <= sizeof key; len++) {
        CHECK(qg__hash_get(&hash, key, len, &value));
        CHECK_EQ(value, len);
    }
    qg__hash_free(&hash);
}

TEST(a_key_put_twice_is_replaced) {
    qg_hash hash;
    uint64_t value;
    qg__hash_init(&hash, secret);
    qg__hash_put(&hash, secret, 8, 1);
    qg__hash_put(&hash, secret, 8, 2);
    CHECK_EQ(hash.count, 1);
    CHECK(qg__hash_get(&hash, secret, 8, &value));
    CHECK_EQ(value, 2);
    qg__hash_remove(&hash, secret, 8);
    CHECK(!qg__hash_get(&hash, secret, 8, &value));
    CHECK_EQ(hash.count, 0);
    qg__hash_free(&hash);
}

/* Key number `i`, 8 to 20 bytes. */
static size_t key_of(uint64_t i, uint8_t key[QG_HASH_KEY_MAX]) {
    uint64_t state = i + 1;
    random_bytes(&state, key, QG_HASH_KEY_MAX);
    return 8 + i % 13;
}

#define KEYS 5000

TEST(many_keys_come_and_go_as_in_a_model) {
    static bool there[KEYS];
    memset(there, 0, sizeof there);
    qg_hash hash;
    uint64_t random = 3, value;
    uint32_t count = 0;
    qg__hash_init(&hash, secret);
    for (int step = 0; step < 40000; step++) {
        uint64_t i = random_below(&random, KEYS);
        uint8_t key[QG_HASH_KEY_MAX];
        size_t len = key_of(i, key);
        CHECK_EQ(qg__hash_get(&hash, key, len, &value), there[i]);
        CHECK(!there[i] || value == i);
        if (random_below(&random, 2) == 0) {
            qg__hash_remove(&hash, key, len);
            count -= there[i];
            there[i] = false;
        } else {
            CHECK(qg__hash_put(&hash, key, len, i));
            count += !there[i];
            there[i] = true;
        }
        CHECK_EQ(hash.count, count);
        CHECK(4 * hash.used <= 3 * hash.capacity); /* a look-up ends */
    }
    qg__hash_free(&hash);
}

TEST(entries_that_are_gone_do_not_make_it_grow) {
    qg_hash hash;
    uint64_t value;
    qg__hash_init(&hash, secret);
    for (uint64_t i = 0; i < 100000; i++) {
        uint8_t key[QG_HASH_KEY_MAX];
        size_t len = key_of(i, key);
        CHECK(qg__hash_put(&hash, key, len, i));
        CHECK(qg__hash_get(&hash, key, len, &value));
        qg__hash_remove(&hash, key, len);
    }
    CHECK_EQ(hash.count, 0);
    CHECK_EQ(hash.capacity, 16);
    qg__hash_free(&hash);
}
