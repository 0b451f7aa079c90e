/* steer.h: which worker a packet is for, told by its first bytes and the states of the slots. */
#ifndef QG_STEER_H
#define QG_STEER_H

#include "group.h"

/* Less is no QUIC packet: one byte, an id, and what header protection and the AEAD need. */
#define QG_PACKET_MIN 21

/* The connection id of a packet of at least QG_PACKET_MIN bytes, if it has our ids' length; or NULL. */
static inline const uint8_t *qg__packet_cid(const uint8_t *packet) {
    return (packet[0] & 0x80) == 0 ? packet + 1 : packet[5] == QG_CID_LEN ? packet + 6 : NULL;
}

/* Among the accepting slots, the one that a stranger's packet goes to; -1: there is none. */
int qg__steer_stranger(const qg_group *group, const uint8_t *packet, size_t len);

#endif
