#include "replay.h"

#include <pthread.h>
#include <stdlib.h>

#include "check.h"
#include "keys.h"
#include "registers.h"
#include "tls.h"

static const clocked any = {.make = qg_replay_new};

TEST(what_every_register_must_do) {
    check_register_contract(qg_replay_new);
}

/* What is older than two periods is forgotten: the register does not grow with its age. */
TEST(it_is_forgotten_after_two_periods) {
    clocked c = any;
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
    clocked c = any;
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
    clocked c = any;
    open_clocked(&c, 0, 0);
    CHECK(!first(&c, 1));
    check_counts(&c, 0, 0, 1, 0);
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
