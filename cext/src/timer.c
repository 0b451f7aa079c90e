#include "timer.h"

#include <stdlib.h>

static void put(qg_timers *t, uint32_t i, qg_timer *timer) {
    t->heap[i] = timer;
    timer->place = i + 1;
}

static void sift_up(qg_timers *t, uint32_t i, qg_timer *timer) {
    while (i > 0) {
        uint32_t parent = (i - 1) / 2;
        if (t->heap[parent]->deadline_ns <= timer->deadline_ns) {
            break;
        }
        put(t, i, t->heap[parent]);
        i = parent;
    }
    put(t, i, timer);
}

static void sift_down(qg_timers *t, uint32_t i, qg_timer *timer) {
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= t->count) {
            break;
        }
        if (child + 1 < t->count && t->heap[child + 1]->deadline_ns < t->heap[child]->deadline_ns) {
            child++;
        }
        if (timer->deadline_ns <= t->heap[child]->deadline_ns) {
            break;
        }
        put(t, i, t->heap[child]);
        i = child;
    }
    put(t, i, timer);
}

static void place(qg_timers *t, uint32_t i, qg_timer *timer) {
    if (i > 0 && timer->deadline_ns < t->heap[(i - 1) / 2]->deadline_ns) {
        sift_up(t, i, timer);
    } else {
        sift_down(t, i, timer);
    }
}

bool qg__timer_set(qg_timers *t, qg_timer *timer, uint64_t deadline_ns) {
    timer->deadline_ns = deadline_ns;
    if (qg__timer_armed(timer)) {
        place(t, timer->place - 1, timer);
        return true;
    }
    if (t->count == t->capacity) {
        uint32_t capacity = t->capacity > 0 ? 2 * t->capacity : 64;
        qg_timer **heap = realloc(t->heap, capacity * sizeof *heap);
        if (heap == NULL) {
            return false;
        }
        t->heap = heap;
        t->capacity = capacity;
    }
    sift_up(t, t->count++, timer);
    return true;
}

void qg__timer_clear(qg_timers *t, qg_timer *timer) {
    if (!qg__timer_armed(timer)) {
        return;
    }
    uint32_t i = timer->place - 1;
    timer->place = 0;
    qg_timer *last = t->heap[--t->count];
    if (last != timer) {
        place(t, i, last);
    }
}

void qg__timers_free(qg_timers *t) {
    free(t->heap);
    *t = (qg_timers){0};
}
