/* cid.h: the connection ids we issue, 12 bytes all, and the table from them to connections.
 *
 *     0        1 2      3      4            5 6 7         8 9 10 11
 *   | first  | host  | slot | generation | table index | random      |
 *
 * first       QUIC-LB's form (draft-ietf-quic-load-balancers): 3 bits configuration (0), 5 bits of
 *             length less one, so a balancer on the way can tell where a short header's id ends
 * host        which host of a group
 * slot        which worker on it; its socket's place in the SO_REUSEPORT group
 * generation  which life of that slot, so that a packet for a dead worker is known as such
 * index       the entry in this engine's table; QG_CID_NO_INDEX for an id that was sent in a Retry,
 *             before there was an entry (such ids are found by hash)
 *
 * 12 bytes, because quiche writes its transport parameters into 128 bytes, and with longer ids a
 * Retry and a reset token together do not fit. The id is not encrypted: it tells an observer which
 * worker serves it, which it could learn from addresses and timing as well. */
#ifndef QG_CID_H
#define QG_CID_H

#include "base.h"

#define QG_CID_LEN      12
#define QG_CID_FIRST    (QG_CID_LEN - 1)
#define QG_CID_NO_INDEX 0xffffff

/* Where a steering program finds the slot, counted from the first byte of the id. */
#define QG_CID_SLOT_AT 3

typedef struct qg_cid_origin {
    uint16_t host_id;
    uint8_t slot;
    uint8_t generation;
} qg_cid_origin;

typedef struct qg_cid_entry {
    uint8_t cid[QG_CID_LEN];
    uint32_t next_free; /* of a free entry */
    uint64_t conn;      /* connection id, 0: free */
} qg_cid_entry;

typedef struct qg_cid_table {
    qg_cid_origin origin;
    qg_cid_entry *entries;
    uint32_t capacity;
    uint32_t free_head; /* QG_CID_NO_INDEX: none */
    uint32_t count;
} qg_cid_table;

void qg__cid_init(qg_cid_table *table, qg_cid_origin origin);
void qg__cid_free(qg_cid_table *table);

/* Write the fields of an id; the random bytes are new. */
void qg__cid_write(qg_cid_origin origin, uint32_t index, uint8_t out[QG_CID_LEN]);

/* Is this an id of this host's form? Then *origin and *index tell its fields. */
bool qg__cid_read(const uint8_t *cid, size_t len, qg_cid_origin *origin, uint32_t *index);

/* Issue an id for `conn`. QG_OK and *out, or QG_NOMEM, or QG_LIMIT (16 million are in use). */
int qg__cid_issue(qg_cid_table *table, uint64_t conn, uint8_t out[QG_CID_LEN]);

/* The connection that holds `cid`, or 0. */
uint64_t qg__cid_find(const qg_cid_table *table, const uint8_t *cid, size_t len);

/* Nothing happens when it is not in the table. */
void qg__cid_retire(qg_cid_table *table, const uint8_t *cid, size_t len);

#endif
