#include "pool.h"

#include <stdlib.h>

/* A block and a free object both begin with a pointer to the next one. */
typedef struct link {
    struct link *next;
} link_t;

void qg__pool_init(qg_pool *pool, size_t size, size_t per_block) {
    /* 16: what malloc guarantees, so that any member is aligned. */
    *pool = (qg_pool){.size = (size + 15) & ~(size_t)15, .per_block = per_block};
}

static bool grow(qg_pool *pool) {
    /* One object's room in front holds the block's link and keeps the others aligned. */
    char *block = malloc(pool->size * (pool->per_block + 1));
    if (block == NULL) {
        return false;
    }
    ((link_t *)(void *)block)->next = pool->blocks;
    pool->blocks = block;
    for (size_t i = pool->per_block; i > 0; i--) {
        link_t *object = (link_t *)(void *)(block + i * pool->size);
        object->next = pool->free_list;
        pool->free_list = object;
    }
    return true;
}

void *qg__pool_get(qg_pool *pool) {
    if (QG_SANITIZED) {
        void *object = calloc(1, pool->size);
        pool->used += object != NULL;
        return object;
    }
    if (pool->free_list == NULL && !grow(pool)) {
        return NULL;
    }
    link_t *object = pool->free_list;
    pool->free_list = object->next;
    pool->used++;
    memset(object, 0, pool->size);
    return object;
}

void qg__pool_put(qg_pool *pool, void *object) {
    pool->used--;
    if (QG_SANITIZED) {
        free(object);
        return;
    }
    ((link_t *)object)->next = pool->free_list;
    pool->free_list = object;
}

void qg__pool_destroy(qg_pool *pool) {
    link_t *block = pool->blocks;
    while (block != NULL) {
        link_t *next = block->next;
        free(block);
        block = next;
    }
    pool->blocks = pool->free_list = NULL;
}
