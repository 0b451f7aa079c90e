/* event.h: the event ring and its arena.
 *
 * Rules
 * 1. Filled from the start by each drain, read by the caller, never overwritten before the next
 *    drain: the caller calls that only when it has read everything.
 * 2. Nothing is ever dropped for want of room. Who has something to say asks first
 *    (qg__events_room), and says it at a later drain when the answer is no: the packets stay in the
 *    socket, the stream stays readable in quiche, the connection stays in the engine's work ring.
 * 3. Arena bytes belong to the event that names them and die at the next drain. */
#ifndef QG_EVENT_H
#define QG_EVENT_H

#include "base.h"

typedef struct qg_events {
    qg_event *ring;
    uint32_t count;
    uint32_t capacity;
    uint8_t *arena;
    uint32_t used;
    uint32_t bytes;
} qg_events;

/* False when there is no memory. */
bool qg__events_init(qg_events *events, uint32_t capacity, uint32_t bytes);
void qg__events_free(qg_events *events);

static inline void qg__events_clear(qg_events *events) {
    events->count = 0;
    events->used = 0;
}

/* Is there room for one more event with `bytes` bytes in the arena? */
static inline bool qg__events_room(const qg_events *events, size_t bytes) {
    return events->count < events->capacity && events->bytes - events->used >= bytes;
}

/* Where the next event's bytes begin. */
static inline uint8_t *qg__events_at(const qg_events *events) {
    return events->arena + events->used;
}

/* The next event, zeroed but for its type and offset. The caller asked for room before, and adds
 * the bytes it wrote with qg__events_took. */
static inline qg_event *qg__events_add(qg_events *events, uint16_t type) {
    qg_event *event = &events->ring[events->count++];
    *event = (qg_event){.type = type, .offset = events->used};
    return event;
}

static inline void qg__events_took(qg_events *events, size_t bytes) {
    events->used += (uint32_t)bytes;
}

#endif
