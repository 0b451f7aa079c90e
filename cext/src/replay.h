/* replay.h: the replay register.
 *
 * Contract
 * 1. A ClientHello whose random was let through is not let through again while its ticket's age would
 *    still pass (RFC 8446, section 8.3): QG_REPLAY_PERIOD_S at least.
 * 2. When in doubt the answer is no: the register is full, it began after the keys did, or the wall
 *    clock went back to where ClientHellos that were forgotten are young again. The connection then
 *    resumes without early data, so a no costs a round trip and nothing else.
 * 3. It may be used by engines of several threads at once.
 *
 * Backends fill `qg_replay_ops`: replay.c in this process's memory, group_replay.c in what the workers of
 * a group share. */
#ifndef QG_REPLAY_H
#define QG_REPLAY_H

#include "base.h"
#include "quicgreen_sessions.h"

typedef struct qg_replay_ops {
    bool (*first)(qg_replay *replay, const uint8_t random[32], uint64_t now_ns, uint64_t wall_s);
    void (*counts)(qg_replay *replay, qg_replay_counts *out);
    void (*destroy)(qg_replay *replay);
} qg_replay_ops;

struct qg_replay {
    const qg_replay_ops *ops;
    _Atomic uint32_t references;
};

qg_replay *qg__replay_reference(qg_replay *replay);

/* May the early data behind this ClientHello be taken? Enters it. */
bool qg__replay_first(qg_replay *replay, const uint8_t random[32]);

#endif
