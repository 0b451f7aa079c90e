#include "check.h"
#include "random.h"
#include "timer.h"

#define TIMERS 200

/* The naive model: look at all of them. */
static uint64_t earliest(const qg_timer *timers, size_t count) {
    uint64_t best = QG_NEVER;
    for (size_t i = 0; i < count; i++) {
        if (qg__timer_armed(&timers[i])) {
            best = qg__min64(best, timers[i].deadline_ns);
        }
    }
    return best;
}

static void check_places(const qg_timers *heap) {
    for (uint32_t i = 0; i < heap->count; i++) {
        CHECK_EQ(heap->heap[i]->place, i + 1);
        CHECK(i == 0 || heap->heap[(i - 1) / 2]->deadline_ns <= heap->heap[i]->deadline_ns);
    }
}

TEST(the_first_is_the_earliest_after_any_change) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
        check_note("seed %d", (int)seed);
        uint64_t random = seed;
        qg_timers heap = {0};
        qg_timer timers[TIMERS] = {0};
        uint32_t armed = 0;
        for (int step = 0; step < 3000; step++) {
            qg_timer *t = &timers[random_below(&random, TIMERS)];
            armed -= qg__timer_armed(t);
            if (random_below(&random, 3) == 0) {
                qg__timer_clear(&heap, t);
                CHECK(!qg__timer_armed(t));
            } else { /* few values, so that many are equal */
                CHECK(qg__timer_set(&heap, t, random_below(&random, 50)));
                CHECK(qg__timer_armed(t));
                armed++;
            }
            CHECK_EQ(heap.count, armed);
            qg_timer *first = qg__timers_first(&heap);
            CHECK_EQ(first != NULL ? first->deadline_ns : QG_NEVER, earliest(timers, TIMERS));
        }
        check_places(&heap);
        qg__timers_free(&heap);
    }
}

TEST(they_come_out_in_order) {
    uint64_t random = 7;
    qg_timers heap = {0};
    qg_timer timers[TIMERS] = {0};
    for (size_t i = 0; i < TIMERS; i++) {
        qg__timer_set(&heap, &timers[i], random_next(&random));
    }
    uint64_t before = 0;
    for (size_t i = 0; i < TIMERS; i++) {
        qg_timer *first = qg__timers_first(&heap);
        CHECK(first->deadline_ns >= before);
        before = first->deadline_ns;
        qg__timer_clear(&heap, first);
    }
    CHECK(qg__timers_first(&heap) == NULL);
    qg__timers_free(&heap);
}

TEST(to_clear_what_is_not_armed_does_nothing) {
    qg_timers heap = {0};
    qg_timer a = {0}, b = {0};
    qg__timer_clear(&heap, &a);
    CHECK(qg__timers_first(&heap) == NULL);
    qg__timer_set(&heap, &a, 5);
    qg__timer_clear(&heap, &b);
    CHECK(qg__timers_first(&heap) == &a);
    qg__timer_clear(&heap, &a);
    qg__timer_clear(&heap, &a);
    CHECK_EQ(heap.count, 0);
    qg__timers_free(&heap);
    CHECK(heap.heap == NULL);
}

TEST(an_armed_timer_moves_both_ways) {
    qg_timers heap = {0};
    qg_timer a = {0}, b = {0};
    qg__timer_set(&heap, &a, 10);
    qg__timer_set(&heap, &b, 20);
    qg__timer_set(&heap, &a, 30);
    CHECK(qg__timers_first(&heap) == &b);
    qg__timer_set(&heap, &a, QG_NEVER);
    CHECK(qg__timers_first(&heap) == &b);
    qg__timer_set(&heap, &a, 0);
    CHECK(qg__timers_first(&heap) == &a);
    CHECK_EQ(heap.count, 2);
    qg__timers_free(&heap);
}
