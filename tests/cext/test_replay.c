#include "replay.h"

#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "keys.h"
#include "random.h"
#include "tls.h"

#define PERIOD_NS (QG_REPLAY_PERIOD_S * QG_NS_PER_S)

/* A wall-clock second; any will do. */
#define WALL_S UINT64_C(1700000000)

/* A register and the clocks that it is asked at. */
typedef struct clocked {
    qg_replay *replay;
    uint64_t now_ns, wall_s;
    uint64_t begin_ns;
} clocked;

static void open_clocked(clocked *c, uint32_t capacity, uint32_t quiet_s) {
    c->replay = qg_replay_new(capacity, quiet_s);
    CHECK(c->replay != NULL);
    c->now_ns = c->begin_ns = qg__now_ns();
    c->wall_s = WALL_S;
}

/* Both clocks go on. */
static void pass(clocked *c, uint64_t s) {
    c->now_ns += s * QG_NS_PER_S;
    c->wall_s += s;
}

/* The ClientHello called `name`. */
static bool first(clocked *c, uint64_t name) {
    uint8_t random[32] = {0};
    qg__put64(random, name);
    return c->replay->ops->first(c->replay, random, c->now_ns, c->wall_s);
}

static void check_counts(const clocked *c, uint64_t let_through, uint64_t repeated, uint64_t full,
                         uint64_t quiet) {
    qg_replay_counts counts;
    qg_replay_counts_of(c->replay, &counts);
    CHECK_EQ(counts.first, let_through);
    CHECK_EQ(counts.repeated, repeated);
    CHECK_EQ(counts.full, full);
    CHECK_EQ(counts.quiet, quiet);
}

TEST(each_is_let_through_once) {
    clocked c;
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
TEST(one_byte_makes_another) {
    clocked c;
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
TEST(it_is_remembered_for_the_period) {
    uint64_t state = 1;
    for (unsigned round = 0; round < 300; round++) {
        clocked c;
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

/* What is older than two periods is forgotten: the register does not grow with its age. */
TEST(it_is_forgotten_after_two_periods) {
    clocked c;
    open_clocked(&c, 10, 0);
    for (unsigned period = 0; period < 20; period++) {
        for (uint64_t name = 0; name < 10; name++) {
            CHECK(first(&c, name));
            CHECK(!first(&c, name));
        }
        CHECK(!first(&c, 11)); /* full */
        pass(&c, 2 * QG_REPLAY_PERIOD_S);
    }
    check_counts(&c, 200, 200, 20, 0);
    qg_replay_free(c.replay);
}

TEST(a_full_register_lets_nothing_new_through) {
    clocked c;
    open_clocked(&c, 3, 0);
    CHECK(first(&c, 1) && first(&c, 2) && first(&c, 3));
    CHECK(!first(&c, 4));
    CHECK(!first(&c, 3));
    check_counts(&c, 3, 1, 1, 0);
    pass(&c, QG_REPLAY_PERIOD_S); /* another table, and the full one is still looked at */
    CHECK(!first(&c, 3));
    CHECK(first(&c, 4));
    check_counts(&c, 4, 2, 1, 0);
    qg_replay_free(c.replay);
}

TEST(a_register_without_room) {
    clocked c;
    open_clocked(&c, 0, 0);
    CHECK(!first(&c, 1));
    check_counts(&c, 0, 0, 1, 0);
    qg_replay_free(c.replay);
}

/* It is younger than the keys: what came before it was there is not known. */
TEST(a_young_register_lets_nothing_through) {
    clocked c;
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

/* ---------------------------------------------------------------- the wall clock is set */

/* The age of a ticket is told by the wall clock. A ClientHello that was forgotten would look as fresh as
 * ever when the clock comes by the time at which it was made: also an hour later. */
TEST(a_clock_set_back_makes_nothing_young_again) {
    clocked c;
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
TEST(a_clock_set_back_while_it_is_quiet) {
    clocked c;
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
TEST(a_clock_that_leaps_forward) {
    clocked c;
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
TEST(a_clock_that_is_corrected) {
    clocked c;
    open_clocked(&c, 10000, 0);
    for (uint64_t name = 0; name < 300; name++) {
        CHECK(first(&c, name));
        pass(&c, 2);
        c.wall_s -= name % 100 == 99;
    }
    check_counts(&c, 300, 0, 0, 0);
    qg_replay_free(c.replay);
}

/* ---------------------------------------------------------------- shared */

#define THREADS 4
#define HELLOS  2000

static void *ask_all(void *arg) {
    uint8_t random[32] = {0};
    uintptr_t let_through = 0;
    for (uint64_t name = 0; name < HELLOS; name++) {
        qg__put64(random, name);
        let_through += qg__replay_first(arg, random);
    }
    return (void *)let_through; /* NOLINT */
}

TEST(threads_share_it) {
    pthread_t threads[THREADS];
    qg_replay *replay = qg_replay_new(HELLOS, 0);
    uintptr_t total = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, ask_all, replay), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *let_through;
        pthread_join(threads[i], &let_through);
        total += (uintptr_t)let_through;
    }
    CHECK_EQ(total, HELLOS);
    clocked c = {.replay = replay};
    check_counts(&c, HELLOS, (THREADS - 1) * HELLOS, 0, 0);
    qg_replay_free(replay);
}

TEST(a_context_keeps_it) {
    char cert[4096], key[1024], error[100];
    qg_replay *replay = qg_replay_new(10, 0);
    CHECK_EQ(qg_tls_self_signed("a.test", 1, cert, sizeof cert, key, sizeof key), QG_OK);
    qg_tls_options o = {.abi = QG_ABI,
                        .is_server = 1,
                        .cert_pem = cert,
                        .key_pem = key,
                        .alpn = (const uint8_t *)"\x02h3",
                        .alpn_len = 3,
                        .replay = replay};
    qg_tls *tls = qg_tls_new(&o, error, sizeof error);
    CHECK(tls != NULL);
    CHECK_EQ(replay->references, 2);
    qg_replay_free(replay);
    uint8_t random[32] = {0};
    CHECK(qg__replay_first(tls->replay, random));
    CHECK(!qg__replay_first(tls->replay, random));
    qg_tls_free(tls);
    qg_replay_free(NULL);
}
