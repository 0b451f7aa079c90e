/* early.h: what tests of resumption share: a server that takes early data, the tickets it gives, and
 * what of a connection is on the wire. */
#ifndef EARLY_H
#define EARLY_H

#include "harness.h"
#include "replay.h"
#include "resumption.h"

/* A server of requests (not sessions) that takes early data, and a client that takes tickets. `keys`
 * and `replay` are made when they are NULL, and freed with early_close. */
typedef struct early {
    rig r;
    qg_keys *keys;
    qg_replay *replay;
} early;

void early_options(rig_options *o);
void early_open(early *e, const rig_options *o);
void early_close(early *e);

/* The same rig with other options; keys and register stay. */
void early_again(early *e, const rig_options *o);

typedef struct ticket {
    uint8_t bytes[QG_TICKET_MAX];
    size_t len;
    uint16_t flags;
    uint64_t lifetime_s;
} ticket;

/* Connect, wait for the first ticket, and close. */
void earn_ticket(rig *r, ticket *t);

/* Begin a connection with a ticket, as r->conn; no packet has moved yet. */
void dial_with(rig *r, const ticket *t, bool early_data);

/* early_open, earn_ticket and dial_with. */
void start_early(early *e, const rig_options *o, ticket *t);

/* A GET with QG_EARLY. */
void get_early(rig *r, uint64_t token, const char *path);

/* The answer to the request is this path; the answer of answer_all. */
void check_answer(rig *r, uint64_t token, const char *path);

/* What happened to r->conn's early data. */
void check_session(rig *r, bool resumed, uint32_t early_data, const char *reason);

/* ---------------------------------------------------------------- the wire */

enum { TAP_INITIAL, TAP_ZERO_RTT, TAP_HANDSHAKE, TAP_RETRY, TAP_SHORT, TAP_KINDS };

#define TAP_KEPT 32

/* Packets that left one side, by their kind (RFC 9000, section 17), and the first datagrams. */
typedef struct tap {
    unsigned packets[TAP_KINDS];
    unsigned datagrams; /* all */
    bool cut;           /* nothing arrives */
    struct {
        uint8_t bytes[1500];
        size_t len;
    } kept[TAP_KEPT];
} tap;

void tap_side(side *s, tap *t);

#endif
