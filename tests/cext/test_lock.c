#include "lock.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define THREADS 3
#define FORKS   300

/* Two numbers that are the same whenever nobody is at work on them. */
static volatile uint64_t here, there;
static volatile bool stop;

static void work(void) {
    qg__lock();
    here++;
    for (volatile int i = 0; i < 100; i++) {
    }
    there++;
    qg__unlock();
}

static void *work_on(void *unused) {
    (void)unused;
    while (!stop) {
        work();
    }
    return NULL;
}

TEST(it_is_one_thread_at_a_time) {
    pthread_t threads[THREADS];
    stop = false;
    here = there = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, work_on, NULL), 0);
    }
    for (int i = 0; i < 10000; i++) {
        qg__lock();
        CHECK_EQ(here, there);
        qg__unlock();
    }
    stop = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_EQ(here, there);
}

/* Without the hooks of lock.c one of a dozen children hangs. */
TEST(a_forked_child_finds_it_free_and_nothing_half_done) {
    pthread_t threads[THREADS];
    stop = false;
    here = there = 0;
    for (int i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_create(&threads[i], NULL, work_on, NULL), 0);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(20);
            bool whole = here == there;
            work();
            work();
            _exit(whole ? 0 : 1);
        }
        int status;
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        check_note("fork %d", i);
        CHECK_EQ(status, 0);
    }
    stop = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}
