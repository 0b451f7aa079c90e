/* group_replay.c: the replay register of a group: replay.h's contract, over processes.
 *
 * A ClientHello has WINDOW places of the table that begin where its fingerprint says. Who asks
 *    1. looks at all of them: is it there?
 *    2. enters it into a free one by compare-and-swap; a swap that fails is looked at again
 *    3. looks at all of them once more: is it there a second time?
 * A place may be free for one process and taken for another, whose clock was read in the period before,
 * so two may enter one ClientHello in two places. Each enters before it looks again, so at least one of
 * them sees the other, and is refused; it does not matter if both are.
 * What somebody entered who then died stays: nobody was let through, and nobody will be. */
#include <stdlib.h>

#include "group.h"
#include "hash.h"

/* Places of one ClientHello: eight cache lines. With the table half full, all of them are taken by
 * others for less than one in 10^9. */
#define WINDOW 64

/* Whoever stands still for longer between looking at the clock and the answer is refused: what it
 * entered may be forgotten too early. A ClientHello is fresh for 120 s, and the period is 121. */
#define STALL_NS QG_NS_PER_S

#define PERIOD_NS   (QG_REPLAY_PERIOD_S * QG_NS_PER_S)
#define FINGERPRINT ((UINT64_C(1) << 48) - 1)

/* In a word of `replay_walls`. */
#define WALL_BITS 40
#define WALL      ((UINT64_C(1) << WALL_BITS) - 1)
#define PERIODS   (UINT64_C(1) << (64 - WALL_BITS))

typedef struct group_replay {
    qg_replay base;
    qg_group *group;
} group_replay;

enum { FIRST, REPEATED, FULL, QUIET };

static bool answer(group_secrets *s, int what) {
    atomic_fetch_add(&s->replay_counts[what], 1);
    return what == FIRST;
}

/* ---------------------------------------------------------------- the wall clock */

static void raise_to(_Atomic uint64_t *value, uint64_t to) {
    uint64_t now = *value;
    while (now < to && !atomic_compare_exchange_weak(value, &now, to)) {
    }
}

/* Note that ClientHellos of this period were seen at this time. What another period left in its place
 * is forgotten then, but not when it was. */
static void note_wall(group_secrets *s, uint64_t period, uint64_t wall_s) {
    _Atomic uint64_t *place = &s->replay_walls[period % 4];
    uint64_t word = *place, mine = period % PERIODS << WALL_BITS | (wall_s & WALL);
    for (;;) {
        bool same = word >> WALL_BITS == period % PERIODS;
        if (same && word >= mine) {
            return;
        }
        if (!same) {
            raise_to(&s->forgotten_wall_s, word & WALL);
            qg__group_stepped();
        }
        if (atomic_compare_exchange_strong(place, &word, mine)) {
            qg__group_stepped();
            return;
        }
    }
}

/* Could one that was forgotten look fresh? See in_doubt in replay.c. */
static bool in_doubt(const group_secrets *s, uint64_t period, uint64_t wall_s) {
    uint64_t forgotten_s = s->forgotten_wall_s;
    for (int i = 0; i < 4; i++) {
        uint64_t word = s->replay_walls[i], age = (period - (word >> WALL_BITS)) % PERIODS;
        bool is_past = age >= 2 && age < PERIODS / 2; /* else of now, or of who is ahead of us */
        if (is_past && (word & WALL) > forgotten_s) {
            forgotten_s = word & WALL;
        }
    }
    return wall_s < forgotten_s + QG_REPLAY_PERIOD_S;
}

/* ---------------------------------------------------------------- the table */

typedef struct hello {
    _Atomic uint64_t *table;
    uint64_t mask;
    uint64_t at; /* its first place */
    uint64_t fingerprint;
    uint64_t period;
} hello;

static uint64_t word_of(const hello *h) {
    return h->period << 48 | h->fingerprint;
}

/* Does this word count? One of the next period is of a process whose clock was read later. */
static bool counts(uint64_t word, uint64_t period) {
    return word != 0 && (uint16_t)(period + 1 - (word >> 48)) <= 2;
}

static bool is_it(const hello *h, uint64_t word) {
    return (word & FINGERPRINT) == h->fingerprint && counts(word, h->period);
}

/* Is it in any place but `except`? */
static bool is_there(const hello *h, uint64_t except) {
    for (uint64_t i = 0; i < WINDOW; i++) {
        if (i != except && is_it(h, h->table[(h->at + i) & h->mask])) {
            return true;
        }
    }
    return false;
}

/* Enter it, and say which place it has: WINDOW when all are taken, or -1 when it was there. */
static int64_t enter(const hello *h) {
    for (uint64_t i = 0; i < WINDOW; i++) {
        _Atomic uint64_t *place = &h->table[(h->at + i) & h->mask];
        uint64_t word = *place;
        while (!counts(word, h->period)) {
            if (atomic_compare_exchange_weak(place, &word, word_of(h))) {
                return (int64_t)i;
            }
        }
        if (is_it(h, word)) {
            return -1;
        }
    }
    return WINDOW;
}

static bool group_first(qg_replay *replay, const uint8_t random[32], uint64_t now_ns,
                        uint64_t wall_s) {
    const qg_group *g = ((group_replay *)replay)->group;
    group_secrets *s = g->secrets;
    uint64_t began_ns = qg__now_ns();
    hello h = {.table = g->replay,
               .mask = g->header->replay_entries - 1,
               .at = qg__siphash(s->replay_secret, random, 32),
               .fingerprint = (qg__siphash(s->replay_secret + 16, random, 32) & FINGERPRINT) | 1,
               .period = now_ns / PERIOD_NS};
    if (is_there(&h, WINDOW)) {
        return answer(s, REPEATED);
    }
    if (now_ns < g->header->quiet_until_ns || in_doubt(s, h.period, wall_s)) {
        return answer(s, QUIET);
    }
    qg__group_stepped();
    note_wall(s, h.period, wall_s);
    int64_t place = enter(&h);
    qg__group_stepped();
    if (place == WINDOW) {
        return answer(s, FULL);
    }
    if (place < 0 || is_there(&h, (uint64_t)place)) {
        return answer(s, REPEATED);
    }
    qg__group_stepped();
    return answer(s, qg__now_ns() - began_ns > STALL_NS ? QUIET : FIRST);
}

/* ---------------------------------------------------------------- as a register */

static void group_counts(qg_replay *replay, qg_replay_counts *out) {
    const group_secrets *s = ((group_replay *)replay)->group->secrets;
    *out = (qg_replay_counts){.first = s->replay_counts[FIRST],
                              .repeated = s->replay_counts[REPEATED],
                              .full = s->replay_counts[FULL],
                              .quiet = s->replay_counts[QUIET]};
}

static void group_destroy(qg_replay *replay) {
    qg_group_free(((group_replay *)replay)->group);
    free(replay);
}

static const qg_replay_ops group_ops = {group_first, group_counts, group_destroy};

qg_replay *qg_group_replay(qg_group *group) {
    group_replay *r = calloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    r->base.ops = &group_ops;
    r->base.references = 1;
    r->group = qg__group_reference(group);
    return &r->base;
}
