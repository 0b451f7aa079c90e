#include "quicgreen_group.h"

#include <sys/prctl.h>
#include <time.h>

#include "victims.h"

/* Then the grandchild ends although nothing has ended it. */
#define LONGEST_S 15

/* A grandchild of the test, whose parent dies once it is told to. What the grandchild does then is told by the
 * end of its pipe, which the kernel closes with it. */
typedef struct story {
    bool blocks_alarm; /* and has a handler of its own for it */
    bool leaves;       /* its handler of the signal ends it */
    bool twice;        /* it asks twice */
    int handled;       /* how often its handler ran */
    volatile int ready, dead, stray;
} story;

static story *told;

static void on_death(int number) {
    (void)number;
    told->handled++;
    if (told->leaves) {
        _exit(0);
    }
}

static void on_alarm(int number) {
    (void)number;
}

static int spin(pid_t parent) {
    signal(SIGRTMAX, on_death);
    if (told->blocks_alarm) {
        sigset_t alarms;
        sigemptyset(&alarms);
        sigaddset(&alarms, SIGALRM);
        sigprocmask(SIG_BLOCK, &alarms, NULL);
        signal(SIGALRM, on_alarm);
    }
    for (int i = 0; i <= told->twice; i++) {
        if (qg_orphan_ends((uint32_t)parent, SIGRTMAX, 1) != QG_OK) {
            return 1;
        }
    }
    raise(SIGRTMAX);
    told->stray = told->handled;
    told->ready = 1;
    for (time_t end = time(NULL) + LONGEST_S; time(NULL) < end;) { /* no loop, no interpreter */
    }
    return 1;
}

static int parent_of_one(void *arg) {
    const int *end = arg;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        _exit(spin(parent));
    }
    close(end[1]);
    while (!told->ready) {
        usleep(1000);
    }
    return 0; /* and so the grandchild is an orphan */
}

/* How long the grandchild lived without its parent, in ms. */
static int64_t life_after(story how) {
    int end[2];
    told = shared_memory(4096);
    *told = how;
    CHECK_EQ(pipe(end), 0);
    pid_t pid = start_victim(parent_of_one, end, 0, 0);
    close(end[1]);
    CHECK_EQ(wait_for(pid, 0), 0);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    char byte;
    CHECK_EQ(read(end[0], &byte, 1), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    close(end[0]);
    CHECK_EQ(told->stray, 0);
    return (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
}

TEST(one_that_can_ends_by_itself) {
    CHECK(life_after((story){.leaves = true}) < 900);
    CHECK_EQ(told->handled, 1);
}

TEST(one_that_cannot_is_ended) {
    int64_t ms = life_after((story){0});
    CHECK(ms > 500 && ms < (LONGEST_S - 2) * 1000);
    CHECK_EQ(told->handled, 1);
}

TEST(whatever_it_has_done_to_its_alarm) {
    int64_t ms = life_after((story){.blocks_alarm = true, .twice = true});
    CHECK(ms > 500 && ms < (LONGEST_S - 2) * 1000);
    CHECK_EQ(told->handled, 1);
}

TEST(who_is_an_orphan_already_is_told_so) {
    CHECK_EQ(qg_orphan_ends((uint32_t)getpid(), SIGRTMAX, 1), QG_GONE);
    prctl(PR_SET_PDEATHSIG, 0);
    CHECK_EQ(qg_orphan_ends((uint32_t)getppid(), SIGKILL, 1), QG_INVALID);
    CHECK_EQ(qg_orphan_ends((uint32_t)getppid(), -1, 1), QG_INVALID);
    CHECK_EQ(qg_orphan_ends((uint32_t)getppid(), SIGRTMAX, 0), QG_INVALID);
    signal(SIGRTMAX, SIG_DFL);
}
