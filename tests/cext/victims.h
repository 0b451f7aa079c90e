/* victims.h: processes that die, or stand still, between two stores into a group. */
#ifndef VICTIMS_H
#define VICTIMS_H

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Those with many processes take a second or two when the machine does nothing else. */
#define PATIENCE_S 120

/* The process gets `victim_signal` at its step number `victim_step` of those that qg__group_step counts
 * (test_group.c). 0: it goes through. */
extern uint64_t victim_step;
extern int victim_signal;

static inline void *shared_memory(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* A process that runs `body` and exits with what it returns. */
static inline pid_t start_victim(int (*body)(void *), void *arg, uint64_t step, int signal) {
    pid_t pid = fork();
    if (pid == 0) {
        victim_step = step;
        victim_signal = signal;
        _exit(body(arg));
    }
    CHECK(pid > 0);
    return pid;
}

static inline int wait_for(pid_t pid, int options) {
    int status;
    CHECK_EQ(waitpid(pid, &status, options), pid);
    return status;
}

#endif
