#include "group.h"
#include "registers.h"
#include "victims.h"

#define PROCESSES 8
#define HELLOS    2000

static qg_group *group;

static qg_replay *make(uint32_t capacity, uint32_t quiet_s) {
    qg_group_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&o);
    o.slots = o.connections = 1;
    o.early_data_capacity = capacity;
    o.quiet_s = quiet_s;
    group = qg_group_new(&o, &rc, problem, sizeof problem);
    CHECK(group != NULL);
    qg_replay *replay = qg_group_replay(group);
    qg_group_free(group); /* the register keeps it */
    return replay;
}

static const clocked any = {.make = make};

TEST(what_every_register_must_do) {
    check_register_contract(make);
}

TEST(the_last_byte_makes_another) {
    clocked c = any;
    uint8_t random[32] = {0};
    open_clocked(&c, 100, 0);
    for (unsigned i = 0; i < 32; i++) {
        random[i] = 1;
        CHECK(c.replay->ops->first(c.replay, random, c.now_ns, c.wall_s));
        CHECK(!c.replay->ops->first(c.replay, random, c.now_ns, c.wall_s));
    }
    qg_replay_free(c.replay);
}

TEST(as_many_as_promised_are_let_through_and_a_full_table_lets_nothing) {
    clocked c = any;
    qg_replay_counts counts;
    open_clocked(&c, 1000, 0);
    for (uint64_t period = 0; period < 4; period++) { /* two of them count at a time */
        for (uint64_t name = 0; name < 1000; name++) {
            CHECK(first(&c, period << 32 | name));
        }
        pass(&c, QG_REPLAY_PERIOD_S);
    }
    uint64_t let_through = 0;
    for (uint64_t name = 0; name < 20000; name++) {
        let_through += first(&c, UINT64_C(1) << 40 | name);
    }
    qg_replay_counts_of(c.replay, &counts);
    CHECK(let_through < 4096);
    CHECK_EQ(counts.first, 4000 + let_through);
    CHECK_EQ(counts.full, 20000 - let_through);
    CHECK_EQ(counts.repeated, 0);
    for (uint64_t name = 0; name < 20000; name++) {
        CHECK(!first(&c, UINT64_C(1) << 40 | name)); /* there, or no room */
    }
    pass(&c, 2 * QG_REPLAY_PERIOD_S); /* and it is empty again, with nobody having cleaned it */
    for (uint64_t name = 0; name < 1000; name++) {
        CHECK(first(&c, UINT64_C(1) << 41 | name));
    }
    qg_replay_free(c.replay);
}

/* ---------------------------------------------------------------- processes */

typedef struct asking {
    clocked c;
    _Atomic uint32_t *let_through; /* by name */
} asking;

static int ask_all(void *arg) {
    asking *a = arg;
    qg_replay *own = qg_group_replay(group);
    a->c.replay = own;
    for (uint64_t name = 0; name < HELLOS; name++) {
        a->let_through[name] += first(&a->c, name);
    }
    qg_replay_free(own);
    return 0;
}

/* All ask for the same ones at once. */
static uint64_t ask_together(clocked *c, bool other_period) {
    asking a = {.c = *c, .let_through = shared_memory(HELLOS * 4)};
    pid_t pids[PROCESSES];
    uint64_t total = 0;
    for (int i = 0; i < PROCESSES; i++) {
        a.c.now_ns = c->now_ns + (other_period && i % 2 ? PERIOD_NS : 0);
        pids[i] = start_victim(ask_all, &a, 0, 0);
    }
    for (int i = 0; i < PROCESSES; i++) {
        CHECK_EQ(wait_for(pids[i], 0), 0);
    }
    for (uint64_t name = 0; name < HELLOS; name++) {
        check_note("name %u", (unsigned)name);
        CHECK(a.let_through[name] <= 1);
        total += a.let_through[name];
    }
    munmap(a.let_through, HELLOS * 4);
    return total;
}

TEST(of_eight_processes_one_is_first) {
    alarm(PATIENCE_S);
    clocked c = any;
    open_clocked(&c, HELLOS, 0);
    CHECK_EQ(ask_together(&c, false), HELLOS);
    qg_replay_free(c.replay);
}

/* A crowded table whose words count for some and not for others: the places of one ClientHello differ. Both
 * may be refused, but never is neither. */
TEST(of_processes_whose_clocks_are_a_period_apart_one_is_first_at_most) {
    alarm(PATIENCE_S);
    for (int round = 0; round < 5; round++) {
        clocked c = any;
        open_clocked(&c, HELLOS / 2, 0);
        c.now_ns += 4 * PERIOD_NS;
        for (uint64_t name = 0; name < HELLOS / 2; name++) {
            first(&c, UINT64_C(1) << 32 | name);
        }
        pass(&c, QG_REPLAY_PERIOD_S);
        uint64_t total = ask_together(&c, true);
        CHECK(total > HELLOS / 4);
        qg_replay_free(c.replay);
    }
}

typedef struct question {
    clocked c;
    uint64_t name;
} question;

static int ask_once(void *arg) {
    question *q = arg;
    return first(&q->c, q->name) ? 1 : 2;
}

/* The reason for the second look: one whose clock is a period ahead sees a free place before the one that
 * another has just taken. */
TEST(whoever_enters_another_place_sees_the_first_one) {
    alarm(PATIENCE_S);
    question ahead = {.c = any};
    unsigned others = 0;
    open_clocked(&ahead.c, 16, 0); /* each has the whole table, from another place on */
    for (uint64_t name = 0; name < 20; name++) {
        first(&ahead.c, UINT64_C(1) << 32 | name);
    }
    for (ahead.name = 0; ahead.name < 16; ahead.name++) {
        clocked behind = ahead.c;
        pass(&behind, QG_REPLAY_PERIOD_S);
        pass(&ahead.c, 2 * QG_REPLAY_PERIOD_S);
        pid_t pid = start_victim(ask_once, &ahead, 1, SIGSTOP);
        CHECK(WIFSTOPPED(wait_for(pid, WUNTRACED))); /* it has looked, and entered nothing */
        bool let_through = first(&behind, ahead.name);
        kill(pid, SIGCONT);
        int status = WEXITSTATUS(wait_for(pid, 0));
        check_note("name %u", (unsigned)ahead.name);
        CHECK(!let_through || status == 2);
        others += let_through;
        ahead.c.now_ns -= 2 * PERIOD_NS;
        ahead.c.wall_s -= 2 * QG_REPLAY_PERIOD_S;
    }
    CHECK_EQ(others, 16);
    qg_replay_free(ahead.c.replay);
}

TEST(a_process_killed_at_each_store_lets_nothing_through_twice) {
    alarm(PATIENCE_S);
    uint64_t steps = 0;
    question q = {.c = any};
    open_clocked(&q.c, 1000, 0);
    for (int status = SIGKILL; status == SIGKILL;) {
        q.name++;
        status = wait_for(start_victim(ask_once, &q, ++steps, SIGKILL), 0);
        check_note("step %u, status %d", (unsigned)steps, status);
        bool was_first = WIFEXITED(status) && WEXITSTATUS(status) == 1;
        CHECK(status == SIGKILL || was_first);
        bool again = first(&q.c, q.name);
        CHECK(!again || !was_first);
        CHECK(!first(&q.c, q.name));
        CHECK(first(&q.c, UINT64_C(1) << 32 | q.name)); /* others are served */
        CHECK(!first(&q.c, UINT64_C(1) << 32 | q.name));
        pass(&q.c, QG_REPLAY_PERIOD_S); /* so that walls are noted, and forgotten, on the way */
    }
    CHECK(steps >= 4);
    qg_replay_free(q.c.replay);
}

/* Whoever stands still on the way and goes on when it is too late is refused. */
TEST(a_process_that_stands_still_is_not_let_through_later) {
    alarm(PATIENCE_S);
    uint64_t steps = 0;
    question q = {.c = any};
    open_clocked(&q.c, 1000, 0);
    for (bool stopped = true; stopped;) {
        q.name++;
        pid_t pid = start_victim(ask_once, &q, ++steps, SIGSTOP);
        stopped = WIFSTOPPED(wait_for(pid, WUNTRACED));
        check_note("step %u", (unsigned)steps);
        if (stopped) {
            usleep(1100000);
            first(&q.c, q.name);
            kill(pid, SIGCONT);
            CHECK_EQ(WEXITSTATUS(wait_for(pid, 0)), 2);
        }
        CHECK(!first(&q.c, q.name));
    }
    CHECK(steps >= 4);
    qg_replay_free(q.c.replay);
}

static int ask_for_ever(void *arg) {
    asking a = *(asking *)arg;
    for (uint64_t n = 0;; n++) {
        a.let_through[n % HELLOS] += first(&a.c, n % HELLOS);
        if (n % 8 == 0) {
            usleep(20); /* the others need a processor too */
        }
    }
    return 0;
}

TEST(eight_processes_and_a_thousand_kills) {
    alarm(PATIENCE_S);
    asking a = {.c = any, .let_through = shared_memory(HELLOS * 4)};
    pid_t pids[PROCESSES];
    uint64_t state = 5, total = 0;
    open_clocked(&a.c, HELLOS, 0);
    for (int i = 0; i < 1000 + PROCESSES; i++) {
        size_t at = i < PROCESSES ? (size_t)i : random_below(&state, PROCESSES);
        if (i >= PROCESSES) {
            kill(pids[at], SIGKILL);
            CHECK_EQ(wait_for(pids[at], 0), SIGKILL);
        }
        pids[at] = start_victim(ask_for_ever, &a, 0, 0);
        usleep((useconds_t)random_below(&state, 300));
    }
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        wait_for(pids[i], 0);
    }
    for (uint64_t name = 0; name < HELLOS; name++) {
        CHECK(a.let_through[name] <= 1);
        CHECK(!first(&a.c, name) || a.let_through[name] == 0);
        total += a.let_through[name];
    }
    CHECK(total > 0);
    munmap(a.let_through, HELLOS * 4);
    qg_replay_free(a.c.replay);
}
