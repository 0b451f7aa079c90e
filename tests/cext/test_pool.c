#include "check.h"
#include "pool.h"

/* The pool as it is without the address sanitizer: in blocks, with a free list. */
#undef QG_SANITIZED
#define QG_SANITIZED     0
#define qg__pool_init    blocks_init
#define qg__pool_get     blocks_get
#define qg__pool_put     blocks_put
#define qg__pool_destroy blocks_destroy
#include "pool.c"
#undef qg__pool_init
#undef qg__pool_get
#undef qg__pool_put
#undef qg__pool_destroy

#define MANY 1000

static bool is_zero(const void *object, size_t size) {
    const uint8_t *bytes = object;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

static void fill_and_empty(qg_pool *pool, size_t size, void *(*get)(qg_pool *),
                           void (*put)(qg_pool *, void *)) {
    void *objects[MANY];
    for (size_t i = 0; i < MANY; i++) {
        objects[i] = get(pool);
        CHECK(objects[i] != NULL);
        CHECK_EQ((uintptr_t)objects[i] % 16, 0);
        CHECK(is_zero(objects[i], size));
        memset(objects[i], (int)(i & 0xff) | 1, size);
    }
    CHECK_EQ(pool->used, MANY);
    for (size_t i = 0; i < MANY; i++) { /* nobody wrote over a neighbour */
        CHECK_EQ(*(uint8_t *)objects[i], (i & 0xff) | 1);
        CHECK_EQ(((uint8_t *)objects[i])[size - 1], (i & 0xff) | 1);
        put(pool, objects[i]);
    }
    CHECK_EQ(pool->used, 0);
}

TEST(objects_are_zeroed_aligned_and_apart) {
    size_t sizes[] = {1, 8, 16, 17, 100, 4096};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        qg_pool pool;
        qg__pool_init(&pool, sizes[i], 7);
        fill_and_empty(&pool, sizes[i], qg__pool_get, qg__pool_put);
        qg__pool_destroy(&pool);
        blocks_init(&pool, sizes[i], 7);
        fill_and_empty(&pool, sizes[i], blocks_get, blocks_put);
        fill_and_empty(&pool, sizes[i], blocks_get, blocks_put); /* out of the same blocks */
        blocks_destroy(&pool);
    }
}

TEST(what_was_put_back_is_used_again) {
    qg_pool pool;
    blocks_init(&pool, 40, 4);
    void *a = blocks_get(&pool);
    memset(a, 0xff, 40);
    blocks_put(&pool, a);
    void *b = blocks_get(&pool);
    CHECK(a == b);
    CHECK(is_zero(b, 40));
    blocks_destroy(&pool); /* with one object still out: it goes with its block */
}

TEST(an_unused_pool_holds_nothing) {
    qg_pool pool;
    blocks_init(&pool, 40, 4);
    CHECK(pool.blocks == NULL);
    blocks_destroy(&pool);
    qg__pool_init(&pool, 40, 4);
    qg__pool_destroy(&pool);
}
