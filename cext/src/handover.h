/* handover.h: packets that came to the wrong worker go to the right one, through local sockets.
 *
 * Each worker has one AF_UNIX datagram socket, under a name that the kernel gave (unix(7), autobind), which
 * stands in its slot: nothing is to be made before the fork, and nothing is left in a file system. Such
 * names have no owner, so who receives asks the kernel who sent, and believes only its own user (or root).
 *
 * Message: records, one after the other, each of them
 *     length (4)   from (32)   to (32)   the packet
 * as many as came in a row for one worker and fit: the kernel lets few messages wait in a socket
 * (net.unix.max_dgram_qlen, 10 at the least), however long they are.
 *
 * A packet that was handed over is not handed on. What does not fit is lost, as anywhere on its way. */
#ifndef QG_HANDOVER_H
#define QG_HANDOVER_H

#include "datapath.h"
#include "group.h"

typedef struct qg_handover {
    qg_group *group; /* the engine's reference */
    qg_counters *counters;
    uint32_t slot;
    uint8_t generation;
    int fd;
    uint8_t *out; /* records for worker `to` in the life `to_life` */
    size_t out_len;
    uint32_t out_count;
    uint32_t to;
    uint64_t to_life;
    uint8_t *in; /* the message that is being read */
    size_t in_len, in_at;
} qg_handover;

/* Open the socket and write its name into the slot. QG_OK, QG_NOMEM, QG_SYSTEM: nothing is kept. */
int qg__handover_open(qg_handover *h, qg_group *group, uint32_t slot, uint8_t generation,
                      qg_counters *counters);

/* `forked`: in a child, where only the descriptor is ours to close. */
void qg__handover_close(qg_handover *h, bool forked);

/* Let worker `slot` have a packet. It leaves with the next flush, or sooner. */
void qg__handover_add(qg_handover *h, uint32_t slot, const uint8_t *packet, size_t len,
                      const qg_addr *from, const qg_addr *to);

/* Send what was added; what finds no room there is kept (out_count) for a later call. Returns the slot of a
 * worker that was found dead just now, and is marked so; -1. */
int qg__handover_flush(qg_handover *h);

/* The next message. False: there is none now. */
bool qg__handover_receive(qg_handover *h);

/* The next packet of that message, which may be written to. False: there is no more. */
bool qg__handover_next(qg_handover *h, qg_dgram *out);

#endif
