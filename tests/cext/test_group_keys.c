#include "check.h"
#include "group.h"

#include <openssl/rand.h>

#define PERIOD 10
#define WINDOW 5
#define ORIGIN 1000

static const uint8_t secret[32] = "a secret of thirty-two bytes ...";

static qg_group *make(const uint8_t *with) {
    qg_group_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&o);
    o.slots = 1;
    o.connections = 1;
    o.key_period_s = PERIOD;
    o.key_window = WINDOW;
    o.key_origin_s = ORIGIN;
    o.secret = with;
    qg_group *g = qg_group_new(&o, &rc, problem, sizeof problem);
    CHECK(g != NULL);
    return g;
}

static void check_same(qg_keys *a, qg_keys *b, const char *when) {
    for (uint32_t use = 0; use < QG_KEYS_USES; use++) {
        qg_key key_a, key_b;
        check_note("%s, use %u", when, use);
        CHECK_EQ(qg_keys_current(a, use, &key_a), QG_OK);
        CHECK_EQ(qg_keys_current(b, use, &key_b), QG_OK);
        CHECK_BYTES(&key_a, sizeof key_a, &key_b, sizeof key_b);
    }
}

/* The contract of keys.h, held against its first backend. */
TEST(the_same_keys_as_a_ring_of_one_process) {
    static const uint64_t times[] = {
        0,           ORIGIN, ORIGIN + 9,  ORIGIN + 10,   ORIGIN + 55,
        ORIGIN + 54, 0,      ORIGIN + 61, ORIGIN + 4000, ORIGIN + 4010};
    qg_group *g = make(secret);
    qg_keys *ours = qg_group_keys(g), *memory = qg_keys_new(secret, PERIOD, WINDOW, ORIGIN);
    qg_key sealed[512];
    uint32_t count = 0;
    check_same(ours, memory, "at once");
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        CHECK_EQ(qg_keys_rotate(ours, times[i]), qg_keys_rotate(memory, times[i]));
        check_same(ours, memory, "turned");
        qg_keys_current(ours, QG_KEY_TICKET, &sealed[count++]);
        for (uint32_t j = 0; j < count; j++) {
            qg_key a, b;
            int found = qg_keys_find(memory, QG_KEY_TICKET, sealed[j].name, &b);
            check_note("time %zu, key %u", i, j);
            CHECK_EQ(qg_keys_find(ours, QG_KEY_TICKET, sealed[j].name, &a), found);
            if (found >= 0) {
                CHECK_BYTES(&a, sizeof a, &sealed[j], sizeof a);
            }
        }
    }
    CHECK_EQ(qg_keys_current(ours, QG_KEYS_USES, &sealed[0]), QG_INVALID);
    qg_keys_free(ours);
    qg_keys_free(memory);
    qg_group_free(g);
}

TEST(who_did_not_turn_the_ring_follows_at_once) {
    qg_group *g = make(NULL);
    qg_keys *a = qg_group_keys(g), *b = qg_group_keys(g);
    qg_key key, found;
    for (uint64_t t = ORIGIN; t < ORIGIN + 40 * PERIOD; t += PERIOD) {
        qg_keys_rotate(t % 20 ? a : b, t);
        qg_keys_current(a, QG_KEY_TICKET, &key);
        CHECK_EQ(qg_keys_find(b, QG_KEY_TICKET, key.name, &found), 0);
        CHECK_BYTES(&key, sizeof key, &found, sizeof found);
        check_same(a, b, "");
    }
    qg_keys_rotate(a, ORIGIN + 5000 * PERIOD); /* beyond what b ever saw */
    CHECK_EQ(qg_keys_find(b, QG_KEY_TICKET, key.name, &found), QG_GONE);
    check_same(a, b, "after a long sleep");
    qg_keys_free(a);
    qg_group_free(g); /* a ring keeps its group */
    check_same(b, b, "alone");
    qg_keys_free(b);
}

/* The root of epoch `epoch`, with the public words of keys.h. */
static void root_of(uint32_t epoch, uint8_t out[32]) {
    memcpy(out, secret, 32);
    while (epoch-- > 0) {
        qg__keys_ratchet(out);
    }
}

TEST(roots_are_wiped_when_nothing_they_open_counts) {
    qg_group *g = make(secret);
    qg_keys *keys = qg_group_keys(g);
    uint8_t root[32];
    for (uint32_t epoch = 0; epoch < 30; epoch++) {
        CHECK_EQ(qg_keys_rotate(keys, ORIGIN + epoch * PERIOD), epoch);
        for (uint32_t old = 0; old <= epoch; old++) {
            root_of(old, root);
            bool there = memmem(g->header, 2 * QG__GROUP_PAGE, root, sizeof root) != NULL;
            check_note("epoch %u, root of %u", epoch, old);
            CHECK_EQ(there, old == (epoch >= WINDOW ? epoch - WINDOW + 1 : 0));
        }
    }
    qg_keys_free(keys);
    qg_group_free(g);
}
