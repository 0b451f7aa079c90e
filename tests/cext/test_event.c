#include "check.h"
#include "event.h"

TEST(a_ring_starts_empty_and_fills) {
    qg_events events;
    CHECK(qg__events_init(&events, 3, 10));
    CHECK(qg__events_room(&events, 0));
    CHECK(qg__events_room(&events, 10));
    CHECK(!qg__events_room(&events, 11));
    for (int i = 0; i < 3; i++) {
        CHECK(qg__events_room(&events, 0));
        qg__events_add(&events, QG_EVENT_READABLE);
    }
    CHECK(!qg__events_room(&events, 0));
    CHECK_EQ(events.count, 3);
    qg__events_clear(&events);
    CHECK_EQ(events.count, 0);
    CHECK(qg__events_room(&events, 10));
    qg__events_free(&events);
    CHECK(events.ring == NULL && events.arena == NULL);
}

TEST(an_event_begins_where_the_last_one_ended) {
    qg_events events;
    qg__events_init(&events, 4, 100);
    qg_event *a = qg__events_add(&events, QG_EVENT_REQUEST);
    memcpy(qg__events_at(&events), "abc", 3);
    qg__events_took(&events, 3);
    qg_event *b = qg__events_add(&events, QG_EVENT_CLOSED);
    CHECK_EQ(a->offset, 0);
    CHECK_EQ(b->offset, 3);
    CHECK_EQ(b->type, QG_EVENT_CLOSED);
    CHECK(qg__events_room(&events, 97));
    CHECK(!qg__events_room(&events, 98));
    qg__events_free(&events);
}

TEST(a_record_is_zeroed_when_it_is_used_again) {
    qg_events events;
    qg__events_init(&events, 1, 1);
    qg_event *event = qg__events_add(&events, QG_EVENT_REQUEST);
    memset(event, 0xff, sizeof *event);
    qg__events_clear(&events);
    event = qg__events_add(&events, QG_EVENT_IDLE);
    qg_event expected = {.type = QG_EVENT_IDLE};
    CHECK_BYTES(event, sizeof *event, &expected, sizeof expected);
    qg__events_free(&events);
}

/* The caller reads records and arenas through the public header's structs. */
TEST(records_are_64_bytes) {
    CHECK_EQ(sizeof(qg_event), 64);
    CHECK_EQ(sizeof(qg_submission), 64);
}
