#include "check.h"
#include "group.h"

#include "random.h"
#include "victims.h"

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

/* ---------------------------------------------------------------- dying on the way */

typedef struct turn {
    qg_group *group;
    uint64_t at_s;
} turn;

static int turn_ring(void *arg) {
    turn *t = arg;
    qg_keys *keys = qg_group_keys(t->group);
    qg_keys_rotate(keys, t->at_s);
    qg_keys_free(keys);
    return 0;
}

/* Whoever looks at a ring, or joins it, has the keys that follow from the secret: those whose root is not
 * forgotten. */
static void check_ring(qg_group *g, uint64_t at_s) {
    qg_keys *ours = qg_group_keys(g), *memory = qg_keys_new(secret, PERIOD, WINDOW, ORIGIN);
    CHECK_EQ(qg_keys_rotate(ours, at_s), qg_keys_rotate(memory, at_s));
    check_same(ours, memory, "");
    for (uint32_t age = 0; age < WINDOW && at_s >= ORIGIN + (uint64_t)age * PERIOD; age++) {
        qg_keys *then = qg_keys_new(secret, PERIOD, WINDOW, ORIGIN);
        qg_key key, found;
        qg_keys_rotate(then, at_s - (uint64_t)age * PERIOD);
        qg_keys_current(then, QG_KEY_TICKET, &key);
        CHECK_EQ(qg_keys_find(ours, QG_KEY_TICKET, key.name, &found), age > 0);
        CHECK_BYTES(key.secret, sizeof key.secret, found.secret, sizeof found.secret);
        qg_keys_free(then);
    }
    qg_keys_free(ours);
    qg_keys_free(memory);
}

TEST(a_process_killed_at_each_store_harms_no_key) {
    alarm(PATIENCE_S);
    qg_group *g = make(secret);
    uint64_t steps = 0;
    turn t = {g, ORIGIN + 100 * PERIOD};
    for (int status = SIGKILL; status == SIGKILL;) {
        status = wait_for(start_victim(turn_ring, &t, ++steps, SIGKILL), 0);
        check_note("step %u, status %d", (unsigned)steps, status);
        CHECK(status == SIGKILL || status == 0);
        check_ring(g, t.at_s);
        CHECK(g->secrets->roots[0].epoch == 0 || g->secrets->roots[1].epoch == 0);
        t.at_s += (1 + steps % 3) * PERIOD;
    }
    CHECK(steps > 15);
    qg_group_free(g);
}

/* While another one stands still in the middle of forgetting, and after it went on. */
TEST(a_process_that_stands_still_holds_up_nobody) {
    alarm(PATIENCE_S);
    qg_group *g = make(secret);
    uint64_t steps = 0;
    turn t = {g, ORIGIN + 100 * PERIOD};
    for (bool stopped = true; stopped;) {
        pid_t pid = start_victim(turn_ring, &t, ++steps, SIGSTOP);
        stopped = WIFSTOPPED(wait_for(pid, WUNTRACED));
        check_note("step %u", (unsigned)steps);
        for (int i = 0; i < 3; i++) {
            check_ring(g, t.at_s);
            t.at_s += 2 * WINDOW * PERIOD;
        }
        if (stopped) {
            kill(pid, SIGCONT);
            CHECK_EQ(wait_for(pid, 0), 0);
        }
        check_ring(g, t.at_s);
        t.at_s += PERIOD;
    }
    CHECK(steps > 15);
    qg_group_free(g);
}

#define PROCESSES 8
#define KILLS     1000

static int turn_for_ever(void *arg) {
    qg_group *g = arg;
    qg_keys *keys = qg_group_keys(g);
    for (;;) {
        qg_key key, found;
        qg_keys_rotate(keys, ORIGIN + (g->secrets->epoch + 1) * (uint64_t)PERIOD);
        qg_keys_current(keys, QG_KEY_TICKET, &key);
        /* Others turn it meanwhile, perhaps by a whole window. */
        int rc = qg_keys_find(keys, QG_KEY_TICKET, key.name, &found);
        if (rc >= 0 && memcmp(&key, &found, sizeof key) != 0) {
            return 3;
        }
        usleep(20); /* the others need a processor too */
    }
}

TEST(eight_processes_and_a_thousand_kills) {
    alarm(PATIENCE_S);
    qg_group *g = make(secret);
    pid_t pids[PROCESSES] = {0};
    uint64_t state = 11;
    for (int i = 0; i < KILLS + PROCESSES; i++) {
        size_t at = random_below(&state, PROCESSES);
        if (i < PROCESSES) {
            at = (size_t)i;
        } else {
            kill(pids[at], SIGKILL);
            CHECK_EQ(wait_for(pids[at], 0), SIGKILL);
        }
        pids[at] = start_victim(turn_for_ever, g, 0, 0);
        usleep((useconds_t)random_below(&state, 300));
    }
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        CHECK_EQ(wait_for(pids[i], 0), SIGKILL);
    }
    CHECK(g->secrets->epoch > 100);
    check_ring(g, ORIGIN + (g->secrets->epoch + 1) * (uint64_t)PERIOD);
    qg_group_free(g);
}
