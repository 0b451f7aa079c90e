/* orphan.c: the end of a process whose parent has died, whatever it is doing.
 *
 * The kernel tells with a signal. A handler in Python runs when the interpreter comes to it, which one that
 * is inside of somebody's C never does; so the alarm is set here, between the kernel and that handler.
 * All calls of the handler are async-signal-safe (signal-safety(7)). */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "quicgreen_group.h"

/* A signal's handler can be given nothing. */
static struct sigaction chained;
static pid_t parent_pid;
static unsigned alarm_s;

static void on_signal(int number, siginfo_t *info, void *context) {
    int saved = errno;
    if (getppid() == parent_pid) {
        return; /* somebody else sent it */
    }
    struct sigaction fatal = {.sa_handler = SIG_DFL};
    sigaction(SIGALRM, &fatal, NULL);
    sigdelset(&((ucontext_t *)context)->uc_sigmask, SIGALRM); /* the mask after this handler */
    alarm(alarm_s);
    if (chained.sa_flags & SA_SIGINFO) {
        chained.sa_sigaction(number, info, context);
    } else if (chained.sa_handler != SIG_DFL && chained.sa_handler != SIG_IGN) {
        chained.sa_handler(number);
    }
    errno = saved;
}

int qg_orphan_ends(uint32_t parent, int number, uint32_t patience_s) {
    struct sigaction ours = {.sa_sigaction = on_signal}, before;
    sigset_t only;
    parent_pid = (pid_t)parent;
    alarm_s = patience_s;
    if (patience_s == 0 || sigaction(number, NULL, &before) != 0) {
        return QG_INVALID;
    }
    if (!(before.sa_flags & SA_SIGINFO) || before.sa_sigaction != on_signal) {
        chained = before;
    }
    ours.sa_flags = chained.sa_flags | SA_SIGINFO;
    ours.sa_mask = chained.sa_mask;
    sigemptyset(&only);
    sigaddset(&only, number);
    if (sigaction(number, &ours, NULL) != 0 || pthread_sigmask(SIG_UNBLOCK, &only, NULL) != 0 ||
        prctl(PR_SET_PDEATHSIG, number) != 0) {
        return QG_INVALID;
    }
    return getppid() == parent_pid ? QG_OK : QG_GONE;
}
