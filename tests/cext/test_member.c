#include "member.h"

#include "harness.h"

static qg_group *make(void) {
    qg_group_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&o);
    o.slots = 4;
    o.connections = 8;
    qg_group *g = qg_group_new(&o, &rc, problem, sizeof problem);
    CHECK(g != NULL);
    return g;
}

TEST(an_engine_counts_in_its_slot_and_outlives_nobody) {
    qg_group *g = make();
    uint32_t generation;
    qg_engine_options o;
    int rc;
    qg_engine_defaults(&o);
    o.group = g;
    o.slot = 3;
    o.generation = 1;
    CHECK(qg_engine_new(&o, &rc) == NULL); /* nobody claimed it */
    CHECK_EQ(rc, QG_INVALID);
    CHECK_EQ(qg_group_claim(g, 3, 1, &generation), 3);
    qg_engine *e = qg_engine_new(&o, &rc);
    CHECK(e != NULL);
    CHECK_EQ(e->cids.origin.host_id, g->header->host_id);
    CHECK_EQ(e->cids.origin.slot, 3);
    CHECK_EQ(qg_engine_drain(e), 0);
    CHECK_EQ(qg_engine_drain(e), 0);
    CHECK_EQ(qg_group_counters(g, 3)->drains, 2);
    CHECK_EQ(qg_group_counters(g, 2)->drains, 0);
    qg_engine_free(e);
    CHECK_EQ(qg_group_counters(g, 3)->drains, 2); /* for who looks after its death */
    qg_group_set_state(g, 3, 1, QG_WORKER_FREE);
    CHECK_EQ(qg_group_claim(g, 3, 1, &generation), 3);
    CHECK_EQ(qg_group_counters(g, 3)->drains, 0);
    qg_group_free(g);
}

TEST(who_is_in_no_group_has_its_own_of_everything) {
    qg_engine_options o;
    int rc;
    qg_engine_defaults(&o);
    o.host_id = 7;
    o.slot = 3;
    qg_engine *e = qg_engine_new(&o, &rc);
    CHECK(e != NULL);
    CHECK(e->counters == &e->own_counters);
    CHECK(e->group == NULL);
    CHECK_EQ(e->cids.origin.host_id, 7);
    CHECK_EQ(e->cids.origin.slot, 3);
    CHECK_EQ(e->keys->period_s, QG_TOKEN_VALID_S);
    qg_engine_free(e);
}

TEST(workers_share_the_reset_key) {
    qg_group *g = make();
    qg_engine *engines[2];
    qg_key keys[2];
    for (uint8_t slot = 0; slot < 2; slot++) {
        qg_engine_options o;
        uint32_t generation;
        int rc;
        qg_engine_defaults(&o);
        o.group = g;
        o.slot = slot;
        CHECK_EQ(qg_group_claim(g, slot, 1, &generation), slot);
        o.generation = (uint8_t)generation;
        engines[slot] = qg_engine_new(&o, &rc);
        CHECK(engines[slot] != NULL);
        CHECK_EQ(qg_keys_current(engines[slot]->keys, QG_KEY_RESET, &keys[slot]), QG_OK);
        CHECK(!qg__member_take(engines[slot]));
    }
    CHECK_BYTES(&keys[0], sizeof keys[0], &keys[1], sizeof keys[1]);
    qg_group_free(g); /* they have references of their own */
    qg_engine_free(engines[0]);
    qg_engine_free(engines[1]);
}
