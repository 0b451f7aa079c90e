#include "lock.h"

#include <pthread.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void take(void) {
    pthread_mutex_lock(&mutex);
}

static void give(void) {
    pthread_mutex_unlock(&mutex);
}

static void watch_forks(void) {
    pthread_atfork(take, give, give);
}

void qg__lock(void) {
    pthread_once(&once, watch_forks);
    take();
}

void qg__unlock(void) {
    give();
}
