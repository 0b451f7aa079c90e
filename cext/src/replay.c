#include "replay.h"

#include <openssl/rand.h>
#include <stdlib.h>

#include "hash.h"
#include "lock.h"

/* Two tables, of this period and the one before: what is in neither is older than a period. All of it
 * under the lock. */
typedef struct memory_replay {
    qg_replay base;
    uint32_t capacity; /* of a table */
    uint64_t quiet_until_ns;
    uint64_t period_began_ns;
    qg_hash now, before;
    /* The wall clock at the latest ClientHello in each table, and of those that were forgotten. */
    uint64_t now_wall_s, before_wall_s, forgotten_wall_s;
    qg_replay_counts counts;
} memory_replay;

static bool empty(qg_hash *table) {
    uint8_t secret[16];
    qg__hash_free(table);
    bool ok = RAND_bytes(secret, sizeof secret) == 1;
    qg__hash_init(table, secret);
    return ok;
}

static void forget_before(memory_replay *m) {
    empty(&m->before);
    m->forgotten_wall_s =
        m->before_wall_s > m->forgotten_wall_s ? m->before_wall_s : m->forgotten_wall_s;
}

static void turn(memory_replay *m, uint64_t now_ns) {
    const uint64_t period_ns = QG_REPLAY_PERIOD_S * QG_NS_PER_S;
    uint64_t passed_ns = now_ns - m->period_began_ns;
    if (passed_ns < period_ns) {
        return;
    }
    forget_before(m);
    qg_hash emptied = m->before;
    m->before = m->now;
    m->before_wall_s = m->now_wall_s;
    m->now = emptied;
    m->now_wall_s = 0;
    if (passed_ns >= 2 * period_ns) {
        forget_before(m);
    }
    m->period_began_ns = now_ns;
}

/* Could one that was forgotten look fresh? Tables go by the clock that nobody sets, but a ticket's age
 * by the wall clock. Set back, that makes old ClientHellos young, some of them hours later, when it
 * comes by the time at which they were made. */
static bool in_doubt(const memory_replay *m, uint64_t now_ns, uint64_t wall_s) {
    return now_ns < m->quiet_until_ns || wall_s < m->forgotten_wall_s + QG_REPLAY_PERIOD_S;
}

static bool enter(memory_replay *m, const uint8_t random[32], uint64_t now_ns, uint64_t wall_s) {
    /* Of 32 random bytes 20 are enough to tell them apart. */
    const size_t len = QG_HASH_KEY_MAX;
    uint64_t ignored;
    turn(m, now_ns);
    if (qg__hash_get(&m->now, random, len, &ignored) ||
        qg__hash_get(&m->before, random, len, &ignored)) {
        m->counts.repeated++;
        return false;
    }
    if (in_doubt(m, now_ns, wall_s)) {
        m->counts.quiet++;
        return false;
    }
    if (m->now.count >= m->capacity || !qg__hash_put(&m->now, random, len, 1)) {
        m->counts.full++;
        return false;
    }
    m->now_wall_s = wall_s > m->now_wall_s ? wall_s : m->now_wall_s;
    m->counts.first++;
    return true;
}

static bool memory_first(qg_replay *replay, const uint8_t random[32], uint64_t now_ns,
                         uint64_t wall_s) {
    memory_replay *m = (memory_replay *)replay;
    qg__lock();
    bool first = enter(m, random, now_ns, wall_s);
    qg__unlock();
    return first;
}

static void memory_counts(qg_replay *replay, qg_replay_counts *out) {
    memory_replay *m = (memory_replay *)replay;
    qg__lock();
    *out = m->counts;
    qg__unlock();
}

static void memory_destroy(qg_replay *replay) {
    memory_replay *m = (memory_replay *)replay;
    qg__hash_free(&m->now);
    qg__hash_free(&m->before);
    free(m);
}

static const qg_replay_ops memory_ops = {memory_first, memory_counts, memory_destroy};

qg_replay *qg_replay_new(uint32_t capacity, uint32_t quiet_s) {
    memory_replay *m = calloc(1, sizeof *m);
    if (m == NULL || !empty(&m->now) || !empty(&m->before)) {
        free(m);
        return NULL;
    }
    m->base.ops = &memory_ops;
    m->base.references = 1;
    m->capacity = capacity;
    m->period_began_ns = qg__now_ns();
    m->quiet_until_ns = quiet_s > 0 ? qg__later(m->period_began_ns, quiet_s, QG_NS_PER_S) : 0;
    return &m->base;
}

qg_replay *qg__replay_reference(qg_replay *replay) {
    replay->references++;
    return replay;
}

void qg_replay_free(qg_replay *replay) {
    if (replay != NULL && --replay->references == 0) {
        replay->ops->destroy(replay);
    }
}

bool qg__replay_first(qg_replay *replay, const uint8_t random[32]) {
    /* Its own look at the clocks: it belongs to no engine, and is asked from inside quiche. */
    return replay->ops->first(replay, random, qg__now_ns(), qg__wall_s());
}

void qg_replay_counts_of(qg_replay *replay, qg_replay_counts *out) {
    replay->ops->counts(replay, out);
}
