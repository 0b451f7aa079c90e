/* registers.h: what every replay register must do, whatever holds it: the contract of replay.h. */
#ifndef REGISTERS_H
#define REGISTERS_H

#include "check.h"
#include "random.h"
#include "replay.h"

#define PERIOD_NS (QG_REPLAY_PERIOD_S * QG_NS_PER_S)

/* A wall-clock second; any will do. */
#define WALL_S UINT64_C(1700000000)

/* A register and the clocks that it is asked at. */
typedef struct clocked {
    qg_replay *(*make)(uint32_t capacity, uint32_t quiet_s);
    qg_replay *replay;
    uint64_t now_ns, wall_s;
    uint64_t begin_ns;
} clocked;

static inline void open_clocked(clocked *c, uint32_t capacity, uint32_t quiet_s) {
    c->replay = c->make(capacity, quiet_s);
    CHECK(c->replay != NULL);
    c->now_ns = c->begin_ns = qg__now_ns();
    c->wall_s = WALL_S;
}

/* Both clocks go on. */
static inline void pass(clocked *c, uint64_t s) {
    c->now_ns += s * QG_NS_PER_S;
    c->wall_s += s;
}

/* The ClientHello called `name`. */
static inline bool first(clocked *c, uint64_t name) {
    uint8_t random[32] = {0};
    qg__put64(random, name);
    return c->replay->ops->first(c->replay, random, c->now_ns, c->wall_s);
}

static inline void check_counts(const clocked *c, uint64_t let_through, uint64_t repeated,
                                uint64_t full, uint64_t quiet) {
    qg_replay_counts counts;
    qg_replay_counts_of(c->replay, &counts);
    CHECK_EQ(counts.first, let_through);
    CHECK_EQ(counts.repeated, repeated);
    CHECK_EQ(counts.full, full);
    CHECK_EQ(counts.quiet, quiet);
}

static inline void check_each_is_let_through_once(clocked c) {
    open_clocked(&c, 100, 0);
    for (uint64_t name = 0; name < 100; name++) {
        CHECK(first(&c, name));
    }
    for (uint64_t name = 0; name < 100; name++) {
        CHECK(!first(&c, name));
    }
    check_counts(&c, 100, 100, 0, 0);
    qg_replay_free(c.replay);
}

/* Those that differ late differ: 20 bytes of the random are looked at. */
static inline void check_one_byte_makes_another(clocked c) {
    uint8_t random[32] = {0};
    open_clocked(&c, 100, 0);
    for (unsigned i = 0; i < 20; i++) {
        random[i] = 1;
        CHECK(c.replay->ops->first(c.replay, random, c.now_ns, c.wall_s));
        CHECK(!c.replay->ops->first(c.replay, random, c.now_ns, c.wall_s));
    }
    qg_replay_free(c.replay);
}

/* Whenever it came, and whatever else comes in between. */
static inline void check_it_is_remembered_for_the_period(clocked c) {
    uint64_t state = 1;
    for (unsigned round = 0; round < 300; round++) {
        open_clocked(&c, 100000, 0);
        check_note("round %u", round);
        uint64_t others = 1000;
        pass(&c, random_below(&state, 400));
        first(&c, others++);
        pass(&c, random_below(&state, 121));
        CHECK(first(&c, 7));
        uint64_t end_ns = c.now_ns + PERIOD_NS;
        uint64_t step_s = 1 + random_below(&state, 130);
        while (c.now_ns + step_s * QG_NS_PER_S < end_ns) {
            pass(&c, step_s);
            first(&c, others++);
        }
        c.wall_s = c.wall_s + (end_ns - c.now_ns) / QG_NS_PER_S;
        c.now_ns = end_ns - 1;
        CHECK(!first(&c, 7));
        qg_replay_free(c.replay);
    }
}

/* It is younger than the keys: what came before it was there is not known. */
static inline void check_a_young_register_lets_nothing_through(clocked c) {
    open_clocked(&c, 100, QG_REPLAY_PERIOD_S);
    CHECK(!first(&c, 1));
    pass(&c, QG_REPLAY_PERIOD_S - 1);
    CHECK(!first(&c, 1));
    check_counts(&c, 0, 0, 0, 2);
    pass(&c, 1);
    CHECK(first(&c, 1)); /* it was refused, so it did not count */
    CHECK(!first(&c, 1));
    check_counts(&c, 1, 1, 0, 2);
    qg_replay_free(c.replay);
}

/* The age of a ticket is told by the wall clock. A ClientHello that was forgotten would look as fresh as
 * ever when the clock comes by the time at which it was made: also an hour later. */
static inline void check_a_clock_set_back_makes_nothing_young_again(clocked c) {
    open_clocked(&c, 1000, 0);
    CHECK(first(&c, 1));
    uint64_t made_s = c.wall_s;
    pass(&c, 10);
    c.wall_s -= 3600;
    uint64_t others = 1000;
    while (c.wall_s < made_s + QG_REPLAY_PERIOD_S) {
        check_note("%d s from when it was made", (int)(c.wall_s - made_s));
        CHECK(!first(&c, 1));
        first(&c, others++);
        pass(&c, 30);
    }
    check_note(NULL);
    CHECK(first(&c, others)); /* it has caught up */
    qg_replay_free(c.replay);
}

/* The same where nobody asked when it was set. */
static inline void check_a_clock_set_back_while_it_is_quiet(clocked c) {
    open_clocked(&c, 1000, 0);
    CHECK(first(&c, 1));
    pass(&c, 500);
    c.wall_s -= 480;
    CHECK(!first(&c, 1));
    CHECK(!first(&c, 2));
    check_counts(&c, 1, 0, 0, 2);
    pass(&c, QG_REPLAY_PERIOD_S);
    CHECK(first(&c, 2));
    qg_replay_free(c.replay);
}

/* A leap, and back to the truth. */
static inline void check_a_clock_that_leaps_forward(clocked c) {
    open_clocked(&c, 1000, 0);
    CHECK(first(&c, 1));
    c.wall_s += 3600;
    CHECK(first(&c, 2)); /* older tickets are refused for their age; new ones are as safe as ever */
    CHECK(!first(&c, 1));
    CHECK(!first(&c, 2));
    pass(&c, 2 * QG_REPLAY_PERIOD_S);
    c.wall_s -= 3600;
    CHECK(!first(&c, 3));
    pass(&c, 3600);
    CHECK(first(&c, 3));
    qg_replay_free(c.replay);
}

/* Small corrections cost nothing: everything is still remembered. */
static inline void check_a_clock_that_is_corrected(clocked c) {
    open_clocked(&c, 10000, 0);
    for (uint64_t name = 0; name < 300; name++) {
        CHECK(first(&c, name));
        pass(&c, 2);
        c.wall_s -= name % 100 == 99;
    }
    check_counts(&c, 300, 0, 0, 0);
    qg_replay_free(c.replay);
}

static inline void check_register_contract(qg_replay *(*make)(uint32_t capacity,
                                                              uint32_t quiet_s)) {
    clocked c = {.make = make};
    check_each_is_let_through_once(c);
    check_one_byte_makes_another(c);
    check_it_is_remembered_for_the_period(c);
    check_a_young_register_lets_nothing_through(c);
    check_a_clock_set_back_makes_nothing_young_again(c);
    check_a_clock_set_back_while_it_is_quiet(c);
    check_a_clock_that_leaps_forward(c);
    check_a_clock_that_is_corrected(c);
}

#endif
