#include "arena_cache.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Exported by CPython, and not part of its limited API (Doc: "Memory Management", since 3.4). */
typedef struct {
    void *ctx;
    void *(*alloc)(void *ctx, size_t size);
    void (*free)(void *ctx, void *ptr, size_t size);
} arena_allocator;

extern void PyObject_GetArenaAllocator(arena_allocator *allocator) __attribute__((weak));
extern void PyObject_SetArenaAllocator(arena_allocator *allocator) __attribute__((weak));

/* DATA_STACK_CHUNK_SIZE of CPython 3.11 and later. */
#define CHUNK 16384

/* A free chunk holds the link to the next one. */
typedef struct chunk {
    struct chunk *next;
} chunk;

static arena_allocator below;
static bool installed;
static chunk *free_list;
static uint32_t count, limit;
static uint64_t hits;

/* The GIL serialises callers today; interpreters with a GIL of their own (3.12) would not. Nobody
 * holds this for more than a few instructions, so who finds it taken asks the system instead of
 * waiting. */
static atomic_flag busy = ATOMIC_FLAG_INIT;

static void *take(void *ctx, size_t size) {
    (void)ctx;
    if (size == CHUNK && !atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
        chunk *c = free_list;
        if (c != NULL) {
            free_list = c->next;
            count--;
            hits++;
        }
        atomic_flag_clear_explicit(&busy, memory_order_release);
        if (c != NULL) {
            c->next = NULL; /* CPython expects the zeroed header of fresh memory */
            return c;
        }
    }
    return below.alloc(below.ctx, size);
}

static void give(void *ctx, void *ptr, size_t size) {
    (void)ctx;
    if (size == CHUNK && !atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
        bool kept = count < limit;
        if (kept) {
            chunk *c = ptr;
            c->next = free_list;
            free_list = c;
            count++;
        }
        atomic_flag_clear_explicit(&busy, memory_order_release);
        if (kept) {
            return;
        }
    }
    below.free(below.ctx, ptr, size);
}

int qg_arena_cache_install(uint32_t max_chunks) {
    if (PyObject_GetArenaAllocator == NULL || PyObject_SetArenaAllocator == NULL) {
        return -1;
    }
    limit = max_chunks;
    if (!installed) {
        installed = true;
        PyObject_GetArenaAllocator(&below);
        arena_allocator ours = {NULL, take, give};
        PyObject_SetArenaAllocator(&ours);
    }
    return 0;
}

uint32_t qg_arena_cache_free_chunks(void) {
    return count;
}

uint64_t qg_arena_cache_hits(void) {
    return hits;
}
