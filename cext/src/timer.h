/* timer.h: a binary heap of deadlines. The timers stand inside the objects they belong to; the heap
 * holds pointers to them, and each knows its place, so one can be moved or taken out in O(log n).
 * Most deadlines are set later than all others (a request's timeout), which costs O(1). */
#ifndef QG_TIMER_H
#define QG_TIMER_H

#include "base.h"

typedef struct qg_timer {
    uint64_t deadline_ns;
    uint32_t place; /* index in the heap + 1; 0: not armed */
    uint32_t kind;  /* the owner's: which object this stands in */
} qg_timer;

typedef struct qg_timers {
    qg_timer **heap;
    uint32_t count;
    uint32_t capacity;
} qg_timers;

void qg__timers_free(qg_timers *timers);

/* Arm `timer` for `deadline_ns`, or move it there. False when there is no memory to grow. */
bool qg__timer_set(qg_timers *timers, qg_timer *timer, uint64_t deadline_ns);

/* Does nothing to a timer that is not armed. */
void qg__timer_clear(qg_timers *timers, qg_timer *timer);

/* The earliest timer, or NULL. */
static inline qg_timer *qg__timers_first(const qg_timers *timers) {
    return timers->count > 0 ? timers->heap[0] : NULL;
}

static inline bool qg__timer_armed(const qg_timer *timer) {
    return timer->place != 0;
}

#endif
