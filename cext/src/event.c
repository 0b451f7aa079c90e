#include "event.h"

#include <stdlib.h>

bool qg__events_init(qg_events *events, uint32_t capacity, uint32_t bytes) {
    *events = (qg_events){.capacity = capacity, .bytes = bytes};
    events->ring = calloc(capacity, sizeof *events->ring);
    events->arena = malloc(bytes);
    if (events->ring == NULL || events->arena == NULL) {
        qg__events_free(events);
        return false;
    }
    return true;
}

void qg__events_free(qg_events *events) {
    free(events->ring);
    free(events->arena);
    *events = (qg_events){0};
}
