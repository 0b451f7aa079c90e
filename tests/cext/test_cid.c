#include "check.h"
#include "cid.h"
#include "random.h"

static const qg_cid_origin origin = {0x1234, 7, 9};

TEST(an_id_is_written_as_the_picture_says) {
    uint8_t cid[QG_CID_LEN], again[QG_CID_LEN];
    qg__cid_write(origin, 0x0a0b0c, cid);
    CHECK_BYTES(cid, 8, "\x0b\x12\x34\x07\x09\x0a\x0b\x0c", 8);
    CHECK_EQ(cid[QG_CID_SLOT_AT], 7);
    qg__cid_write(origin, 0x0a0b0c, again);
    CHECK(memcmp(cid + 8, again + 8, 4) != 0);
}

TEST(an_id_is_read_back) {
    uint8_t cid[QG_CID_LEN];
    qg_cid_origin got = {0};
    uint32_t index = 0;
    qg__cid_write(origin, QG_CID_NO_INDEX, cid);
    CHECK(qg__cid_read(cid, sizeof cid, &got, &index));
    CHECK(got.host_id == 0x1234 && got.slot == 7 && got.generation == 9);
    CHECK_EQ(index, QG_CID_NO_INDEX);
    CHECK(!qg__cid_read(cid, QG_CID_LEN - 1, &got, &index));
    CHECK(!qg__cid_read(cid, 0, &got, &index));
    cid[0] ^= 1;
    CHECK(!qg__cid_read(cid, sizeof cid, &got, &index));
}

TEST(an_empty_table_finds_nothing) {
    qg_cid_table table;
    uint8_t cid[QG_CID_LEN];
    qg__cid_init(&table, origin);
    qg__cid_write(origin, 0, cid);
    CHECK_EQ(qg__cid_find(&table, cid, sizeof cid), 0);
    qg__cid_write(origin, QG_CID_NO_INDEX, cid);
    CHECK_EQ(qg__cid_find(&table, cid, sizeof cid), 0);
    qg__cid_retire(&table, cid, sizeof cid);
    CHECK_EQ(table.count, 0);
    qg__cid_free(&table);
}

TEST(an_issued_id_is_found_by_all_its_bytes) {
    qg_cid_table table;
    uint8_t cid[QG_CID_LEN];
    qg__cid_init(&table, origin);
    CHECK_EQ(qg__cid_issue(&table, 42, cid), QG_OK);
    CHECK_EQ(qg__cid_find(&table, cid, sizeof cid), 42);
    CHECK_EQ(qg__cid_find(&table, cid, sizeof cid - 1), 0);
    for (size_t i = 0; i < sizeof cid; i++) {
        cid[i] ^= 0x80;
        CHECK_EQ(qg__cid_find(&table, cid, sizeof cid), 0);
        cid[i] ^= 0x80;
    }
    qg__cid_free(&table);
}

/* A late packet for a connection that is gone must not reach the one that has its place. */
TEST(a_retired_id_stays_unknown_when_its_place_is_used_again) {
    qg_cid_table table;
    uint8_t old[QG_CID_LEN], new[QG_CID_LEN];
    qg__cid_init(&table, origin);
    qg__cid_issue(&table, 1, old);
    qg__cid_retire(&table, old, sizeof old);
    CHECK_EQ(qg__cid_find(&table, old, sizeof old), 0);
    qg__cid_retire(&table, old, sizeof old); /* twice is once */
    CHECK_EQ(table.count, 0);
    qg__cid_issue(&table, 2, new);
    CHECK_BYTES(new, 8, old, 8); /* the same place */
    CHECK_EQ(qg__cid_find(&table, old, sizeof old), 0);
    qg__cid_retire(&table, old, sizeof old);
    CHECK_EQ(qg__cid_find(&table, new, sizeof new), 2);
    qg__cid_free(&table);
}

#define IDS 3000

TEST(many_ids_come_and_go_as_in_a_model) {
    static uint8_t cids[IDS][QG_CID_LEN];
    static uint64_t conns[IDS];
    memset(conns, 0, sizeof conns);
    qg_cid_table table;
    uint64_t random = 9;
    uint32_t count = 0;
    qg__cid_init(&table, origin);
    for (uint64_t step = 1; step < 30000; step++) {
        size_t i = random_below(&random, IDS);
        CHECK_EQ(qg__cid_find(&table, cids[i], QG_CID_LEN), conns[i]);
        if (conns[i] != 0) {
            qg__cid_retire(&table, cids[i], QG_CID_LEN);
            conns[i] = 0;
            count--;
        } else {
            CHECK_EQ(qg__cid_issue(&table, step, cids[i]), QG_OK);
            conns[i] = step;
            count++;
        }
        CHECK_EQ(table.count, count);
    }
    CHECK(table.capacity <= 2 * IDS);
    qg__cid_free(&table);
}
