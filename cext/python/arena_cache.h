/* arena_cache.h: cheap births for greenlets.
 *
 * Since Python 3.11 every greenlet gets a 16 KiB chunk for its frames from CPython's arena
 * allocator, which maps and unmaps memory for each: two system calls and a page fault per greenlet,
 * some 4 us. This puts a bounded list of free chunks in front of the allocator, for that one size;
 * everything else passes through. It serves every greenlet of the process, not only ours.
 *
 * Below the marker line is cffi's text. */
#ifndef QG_ARENA_CACHE_H
#define QG_ARENA_CACHE_H
#include <stdint.h>
/* ---- cdef ---- */

/* Put the cache in place, once per process; later calls change the bound only. It keeps at most
 * `max_chunks` free chunks of 16 KiB. 0, or -1 when this Python has no such allocator. */
int qg_arena_cache_install(uint32_t max_chunks);

/* Chunks that are free now, and how often one was used again. */
uint32_t qg_arena_cache_free_chunks(void);
uint64_t qg_arena_cache_hits(void);

/* ---- end of cdef ---- */
#endif
