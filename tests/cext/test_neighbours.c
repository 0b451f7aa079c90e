#include "neighbours.h"

#include "check.h"

static qg_eth_frame frame_from(const char *ip, uint8_t mac) {
    qg_eth_frame f = {.mac = {2, 0, 0, 0, 0, mac}};
    CHECK_EQ(qg_addr_parse(&f.from, ip, 40000), QG_OK);
    CHECK_EQ(qg_addr_parse(&f.to, "192.0.2.9", 4433), QG_OK);
    return f;
}

static const qg_neighbour *find(const qg_neighbours *all, const char *ip, uint64_t now_ns) {
    qg_addr addr;
    CHECK_EQ(qg_addr_parse(&addr, ip, 9), QG_OK);
    return qg__neighbours_find(all, &addr, now_ns);
}

TEST(who_was_heard_of_is_known) {
    qg_neighbours *all = qg__neighbours_new();
    uint64_t now = 100 * QG_NS_PER_S;
    CHECK(find(all, "192.0.2.1", now) == NULL);
    qg_eth_frame f = frame_from("192.0.2.1", 7);
    qg__neighbours_learn(all, &f, 3, now);
    const qg_neighbour *n = find(all, "192.0.2.1", now);
    CHECK(n != NULL);
    CHECK_EQ(n->mac[5], 7);
    CHECK_EQ(n->queue, 3);
    CHECK(qg__addr_equal(&n->local, &f.to));
    CHECK(find(all, "::ffff:192.0.2.1", now) == n); /* the same host */
    CHECK(find(all, "192.0.2.2", now) == NULL);
    CHECK(find(all, "::", now) == NULL);
    f = frame_from("192.0.2.1", 8); /* it moved */
    qg__neighbours_learn(all, &f, 1, now + 1);
    n = find(all, "192.0.2.1", now + 1);
    CHECK_EQ(n->mac[5], 8);
    CHECK_EQ(n->queue, 1);
    qg__neighbours_free(all);
}

TEST(who_is_silent_is_forgotten) {
    qg_neighbours *all = qg__neighbours_new();
    uint64_t now = 100 * QG_NS_PER_S;
    qg_eth_frame f = frame_from("2001:db8::1", 7);
    qg__neighbours_learn(all, &f, 0, now);
    CHECK(find(all, "2001:db8::1", now + 4 * QG_NS_PER_S) != NULL);
    CHECK(find(all, "2001:db8::1", now + 6 * QG_NS_PER_S) == NULL);
    qg__neighbours_learn(all, &f, 0, now + 6 * QG_NS_PER_S);
    CHECK(find(all, "2001:db8::1", now + 7 * QG_NS_PER_S) != NULL);
    qg__neighbours_free(all);
}

/* Its memory does not grow; those heard of last are there, nearly all. */
TEST(a_crowd_is_bounded) {
    qg_neighbours *all = qg__neighbours_new();
    uint64_t now = 100 * QG_NS_PER_S;
    for (uint32_t i = 0; i < 100000; i++) {
        qg_eth_frame f = frame_from("10.0.0.0", 1);
        qg__put32(f.from.bytes + 4, 0x0a000000 + i);
        qg__neighbours_learn(all, &f, 0, now++);
    }
    unsigned known = 0;
    for (uint32_t i = 100000 - 1000; i < 100000; i++) {
        qg_eth_frame f = frame_from("10.0.0.0", 1);
        qg__put32(f.from.bytes + 4, 0x0a000000 + i);
        known += qg__neighbours_find(all, &f.from, now) != NULL;
    }
    CHECK(known > 950);
    qg__neighbours_free(all);
}
