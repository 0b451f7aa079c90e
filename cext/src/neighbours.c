/* neighbours.c: a table of fixed size, four places for each hash. Whoever can send from many addresses can push
 * others out of it: then the first packet to those goes by the UDP socket, as to anybody unknown. */
#include "neighbours.h"

#include <openssl/rand.h>
#include <stdlib.h>

#define SETS 1024
#define WAYS 4

/* A neighbour that moved to another card, or a router that another one takes the place of, is noticed by its next
 * frame; a peer who is silent for so long is asked for by the system again. */
#define LIFETIME_NS (5 * QG_NS_PER_S)

struct qg_neighbours {
    uint64_t secret; /* so that nobody knows who shares a set with whom */
    qg_neighbour sets[SETS][WAYS];
};

qg_neighbours *qg__neighbours_new(void) {
    qg_neighbours *all = calloc(1, sizeof *all);
    if (all != NULL) {
        RAND_bytes((uint8_t *)&all->secret, sizeof all->secret);
    }
    return all;
}

void qg__neighbours_free(qg_neighbours *all) {
    free(all);
}

/* Multiply and shift, with an odd number by chance. */
static unsigned set_of(const qg_neighbours *all, const uint8_t ip[16]) {
    uint64_t a, b;
    memcpy(&a, ip, 8);
    memcpy(&b, ip + 8, 8);
    uint64_t mixed = (a ^ (b << 32 | b >> 32)) * (all->secret | 1);
    return (unsigned)((mixed ^ mixed >> 29) * (all->secret | 1) >> 54);
}

void qg__neighbours_learn(qg_neighbours *all, const qg_eth_frame *frame, uint16_t queue,
                          uint64_t now_ns) {
    uint8_t ip[16];
    qg__eth_ip(&frame->from, ip);
    qg_neighbour *set = all->sets[set_of(all, ip)], *place = &set[0];
    for (int i = 0; i < WAYS; i++) {
        if (memcmp(set[i].ip, ip, sizeof ip) == 0) {
            place = &set[i];
            break;
        }
        if (set[i].seen_ns < place->seen_ns) {
            place = &set[i];
        }
    }
    memcpy(place->ip, ip, sizeof ip);
    memcpy(place->mac, frame->mac, QG_MAC_LEN);
    place->queue = queue;
    place->local = frame->to;
    place->seen_ns = now_ns;
}

const qg_neighbour *qg__neighbours_find(const qg_neighbours *all, const qg_addr *peer,
                                        uint64_t now_ns) {
    uint8_t ip[16];
    qg__eth_ip(peer, ip);
    const qg_neighbour *set = all->sets[set_of(all, ip)];
    for (int i = 0; i < WAYS; i++) {
        if (memcmp(set[i].ip, ip, sizeof ip) == 0) {
            return now_ns - set[i].seen_ns < LIFETIME_NS ? &set[i] : NULL;
        }
    }
    return NULL;
}
