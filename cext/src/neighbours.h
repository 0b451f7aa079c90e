/* neighbours.h: where frames to a peer go: to the MAC address from which its own last ones came, and out of
 * the queue where they came in. Nobody is asked; who has not been heard of lately is not known. */
#ifndef QG_NEIGHBOURS_H
#define QG_NEIGHBOURS_H

#include "base.h"
#include "eth.h"

typedef struct qg_neighbour {
    uint8_t ip[16]; /* as qg__eth_ip gives it; all zeros: free */
    uint8_t mac[QG_MAC_LEN];
    uint16_t queue;
    qg_addr local; /* ours, which it writes to */
    uint64_t seen_ns;
} qg_neighbour;

typedef struct qg_neighbours qg_neighbours;

/* NULL: no memory. */
qg_neighbours *qg__neighbours_new(void);
void qg__neighbours_free(qg_neighbours *all);

/* A frame came from `from`. A full table forgets who was silent longest of those in the same place. */
void qg__neighbours_learn(qg_neighbours *all, const qg_eth_frame *frame, uint16_t queue,
                          uint64_t now_ns);

/* NULL: not known, or silent for too long. Good until the next `learn`. */
const qg_neighbour *qg__neighbours_find(const qg_neighbours *all, const qg_addr *peer,
                                        uint64_t now_ns);

#endif
