/* ticket_shm.h: session tickets of clients, in a file that unrelated processes map: an LRU without
 * locks.
 *
 * File, version 1 (numbers in the machine's byte order: a file does not leave its machine)
 *
 *   0        128        1248       2368           128 + 1120 * slots     size
 *   +--------+----------+----------+--  ...  --+----------+-------------+
 *   | header | slot 0   | slot 1   |           | slot n-1 | (no use)    |
 *   +--------+----------+----------+--  ...  --+----------+-------------+
 *
 * Header
 *    0 magic "qgticket"        8 version (4)       12 header's bytes, 128 (4)
 *   16 size of the file (8)   24 slots (4)         28 a slot's bytes, 1120 (4)
 *   64 clock (8): one more with each operation; orders puts and uses. The rest is 0.
 *
 * Slot
 *    0 state (8)    kind (2 bits), owner (14 bits), sequence (48 bits)
 *    8 used (8)     the clock at the last put or get
 *   16 issued (4)  20 expires (4)     wall-clock seconds
 *   24 key (16)
 *   40 check (16)   SHA-256, cut, of { state when live, issued, expires, key, length, ticket }
 *   56 length (4)  60 next slot (2)  62 zero (2)
 *   64 ticket (1056), the first or a further part of it
 *
 * 1120 bytes, because 128 KiB then have 116 slots, and a ticket of 1,000 bytes with its name and
 * times fits into one. A longer one takes several slots: the first one (the head) has the fields
 * above, the others are PARTs.
 *
 * States
 *
 *             claim                     publish                take, delete, evict
 *   anything -------> BUSY(self, seq) ----------> LIVE(self, seq) -------> FREE or BUSY of another
 *
 *             claim
 *   anything -------> PART(head, seq)     in use while its head is BUSY or LIVE with that seq
 *
 * Rules
 * 1. A state changes by compare-and-swap only. `seq` is drawn from the clock for each try of a put,
 *    and is never used again: a swap succeeds only while the slot is what it was when looked at.
 * 2. Nobody waits. Who loses a swap looks for another slot; the winner went on in the meantime.
 * 3. Nobody holds anything. A BUSY slot stands in the LRU order like a LIVE one, by its seq, and
 *    may be claimed by whoever needs room: a slot whose writer died comes up when it is the oldest,
 *    one whose writer lives is among the newest. If it happens all the same, that writer's publish
 *    fails and it tries anew.
 * 4. A PART without its head is free: nobody has to give it back.
 * 5. Who reads copies first and believes only a copy whose checksum fits, and the state (so the
 *    place and the seq) is in the sum: what a late writer scribbles into a slot that is no longer
 *    its own is a miss, never another ticket and never the same one twice.
 * 6. A ticket is taken by the swap of its head from LIVE, after the copy was checked: one swap
 *    succeeds.
 * 7. The room is allocated when the file is made: a full file system is an error then, not a SIGBUS
 *    later. The file is made under another name and linked: it is there whole or not at all. */
#ifndef QG_TICKET_SHM_H
#define QG_TICKET_SHM_H

#include <stdatomic.h>

#include "base.h"
#include "quicgreen_sessions.h"

#define QG__TICKET_MAGIC      "qgticket"
#define QG__TICKET_VERSION    1
#define QG__TICKET_ROOM       1056
#define QG__TICKET_OWNER_BITS 14

typedef struct ticket_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t size;
    uint32_t slots;
    uint32_t slot_bytes;
    uint8_t zero[32];
    _Atomic uint64_t clock; /* a cache line of its own */
    uint8_t zero_too[56];
} ticket_header;

typedef struct ticket_slot {
    _Atomic uint64_t state;
    _Atomic uint64_t used;
    uint32_t issued_s;
    uint32_t expires_s;
    uint8_t key[QG_TICKET_KEY];
    uint8_t check[16];
    uint32_t length;
    uint16_t next;
    uint16_t zero;
    uint8_t ticket[QG__TICKET_ROOM];
} ticket_slot;

_Static_assert(sizeof(ticket_header) == 128, "the drawing in ticket_shm.h");
_Static_assert(offsetof(ticket_header, clock) == 64, "the drawing in ticket_shm.h");
_Static_assert(sizeof(ticket_slot) == 1120, "the drawing in ticket_shm.h");
_Static_assert(offsetof(ticket_slot, ticket) == 64, "the drawing in ticket_shm.h");
_Static_assert(QG_TICKET_SHM_MAX / sizeof(ticket_slot) < (1u << QG__TICKET_OWNER_BITS),
               "owner's bits");

struct qg_ticket_shm {
    int fd;
    uint32_t count;
    uint64_t size;
    ticket_header *header;
    ticket_slot *slots;
};

/* Called between any two stores of a put and of a take, when the program has such a function: the
 * tests have, and die or stop in it. Hidden, so that in the module it is NULL for sure. */
__attribute__((weak, visibility("hidden"))) void qg__ticket_shm_step(void);

#endif
