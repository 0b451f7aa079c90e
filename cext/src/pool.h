/* pool.h: objects of one size, made in blocks and used again. A connection, a stream and a request
 * that waits come from pools: malloc and free cost more than the rest of such an object's birth.
 * Under the address sanitizer every object is a malloc of its own, so that it can watch. */
#ifndef QG_POOL_H
#define QG_POOL_H

#include "base.h"

typedef struct qg_pool {
    size_t size;      /* of an object, rounded up */
    size_t per_block; /* objects made at a time */
    void *free_list;
    void *blocks;
    size_t used; /* objects handed out */
} qg_pool;

void qg__pool_init(qg_pool *pool, size_t size, size_t per_block);

/* A zeroed object, or NULL when there is no memory. */
void *qg__pool_get(qg_pool *pool);
void qg__pool_put(qg_pool *pool, void *object);

/* Free all blocks. Objects still handed out die with them. */
void qg__pool_destroy(qg_pool *pool);

#endif
