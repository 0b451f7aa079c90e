/* steer.c: the program that spreads datagrams over the sockets of a SO_REUSEPORT group. It is classic
 * BPF, which needs no privilege.
 *
 *          ld len; too short for QUIC -> the first accepting slot
 *          our length, first byte and host in the connection id, and is its slot served? -> its socket
 *   spread ld 4 bytes of the connection id, which a client chose at random (RFC 9000, section 7.2), so
 *          that a first flight of several packets, sent again as a whole or not, stays together
 *          multiply, shift, modulo the number of accepting slots; a comparison for each -> its socket
 *
 * A load beyond the end of a packet would end the program with socket 0: lengths are checked first. */
#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include "steer.h"

#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define WORDS ((QG_GROUP_SLOTS_MAX + 31) / 32)

/* Fixed part, a word of served slots each, two for each accepting slot. */
#define PROGRAM_MAX (64 + 3 * WORDS + 2 * QG_GROUP_SLOTS_MAX)

/* Knuth's multiplicative hash: ids that differ anywhere in these four bytes differ in the upper half. */
#define MULTIPLIER UINT32_C(0x9e3779b1)
#define SHIFT      16

/* No socket: the kernel then goes by addresses. */
#define NO_SOCKET UINT32_MAX

/* The states of one moment. */
typedef struct states {
    uint32_t served[WORDS]; /* a bit for each slot with connections of its own */
    uint8_t targets[QG_GROUP_SLOTS_MAX];
    uint32_t target_count; /* slots for strangers */
} states;

static void add_targets(states *s, const qg_group *g, uint32_t state) {
    for (uint32_t i = 0; i < g->header->slots; i++) {
        if (qg__life_state(g->slots[i].life) == state) {
            s->targets[s->target_count++] = (uint8_t)i;
        }
    }
}

static states states_of(const qg_group *g) {
    states s = {0};
    for (uint32_t i = 0; i < g->header->slots; i++) {
        uint8_t state = qg__life_state(g->slots[i].life);
        if (state == QG_WORKER_ACCEPTING || state == QG_WORKER_DRAINING) {
            s.served[i / 32] |= UINT32_C(1) << i % 32;
        }
    }
    add_targets(&s, g, QG_WORKER_ACCEPTING);
    if (s.target_count == 0) {
        add_targets(&s, g, QG_WORKER_STARTING);
    }
    return s;
}

/* ---------------------------------------------------------------- the program */

typedef struct program {
    struct sock_filter code[PROGRAM_MAX];
    uint16_t length;
} program;

static void add(program *p, uint16_t code, uint32_t k) {
    p->code[p->length++] = (struct sock_filter)BPF_STMT(code, k);
}

/* Go on when the comparison with `k` holds, else skip `n`; or the other way round. */
static void skip_unless(program *p, uint16_t comparison, uint32_t k, uint8_t n) {
    p->code[p->length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | comparison | BPF_K, k, 0, n);
}

static void skip_if(program *p, uint16_t comparison, uint32_t k, uint8_t n) {
    p->code[p->length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | comparison | BPF_K, k, n, 0);
}

#define LOAD_BYTE   (BPF_LD | BPF_B | BPF_ABS)
#define LOAD_WORD   (BPF_LD | BPF_W | BPF_ABS)
#define LOAD_BYTE_X (BPF_LD | BPF_B | BPF_IND)
#define LOAD_HALF_X (BPF_LD | BPF_H | BPF_IND)
#define LOAD_NUMBER (BPF_LD | BPF_IMM)
#define RETURN      (BPF_RET | BPF_K)

/* X = where the id begins. Returns the place of the jump to be aimed at what follows all of this. */
static uint16_t find_id(program *p) {
    add(p, LOAD_BYTE, 0);
    skip_if(p, BPF_JSET, 0x80, 2);
    add(p, BPF_LDX | BPF_IMM, 1);
    add(p, BPF_JMP | BPF_JA, 3); /* over the long header's */
    add(p, LOAD_BYTE, 5);
    uint16_t other_length = p->length;
    skip_unless(p, BPF_JEQ, QG_CID_LEN, 0);
    add(p, BPF_LDX | BPF_IMM, 6);
    return other_length;
}

/* Return the slot of our own id, if it is served. Else go on behind. */
static void own_ids(program *p, const qg_group *g, const states *s) {
    uint16_t jumps[6], count = 0;
    jumps[count++] = find_id(p);
    add(p, LOAD_BYTE_X, 0);
    jumps[count++] = p->length;
    skip_unless(p, BPF_JEQ, QG_CID_FIRST, 0);
    add(p, LOAD_HALF_X, 1);
    jumps[count++] = p->length;
    skip_unless(p, BPF_JEQ, g->header->host_id, 0);
    add(p, LOAD_BYTE_X, QG_CID_SLOT_AT);
    add(p, BPF_ST, 0);
    add(p, BPF_ALU | BPF_AND | BPF_K, 31);
    add(p, BPF_MISC | BPF_TAX, 0);
    add(p, BPF_LD | BPF_MEM, 0);
    add(p, BPF_ALU | BPF_RSH | BPF_K, 5);
    for (uint32_t word = 0; word < WORDS; word++) {
        skip_unless(p, BPF_JEQ, word, 2);
        add(p, LOAD_NUMBER, s->served[word]);
        add(p, BPF_JMP | BPF_JA, 3 * (WORDS - 1 - word));
    }
    add(p, BPF_ALU | BPF_RSH | BPF_X, 0);
    jumps[count++] = p->length;
    skip_unless(p, BPF_JSET, 1, 0);
    add(p, BPF_LD | BPF_MEM, 0);
    add(p, BPF_RET | BPF_A, 0);
    for (uint16_t i = 0; i < count; i++) {
        p->code[jumps[i]].jf = (uint8_t)(p->length - jumps[i] - 1);
    }
}

static void spread(program *p, const states *s) {
    add(p, LOAD_BYTE, 0);
    skip_if(p, BPF_JSET, 0x80, 2);
    add(p, LOAD_WORD, 1);
    add(p, BPF_JMP | BPF_JA, 1);
    add(p, LOAD_WORD, 6);
    add(p, BPF_ALU | BPF_MUL | BPF_K, MULTIPLIER);
    add(p, BPF_ALU | BPF_RSH | BPF_K, SHIFT);
    add(p, BPF_ALU | BPF_MOD | BPF_K, s->target_count);
    for (uint32_t i = 0; i < s->target_count; i++) {
        skip_unless(p, BPF_JEQ, i, 1);
        add(p, RETURN, s->targets[i]);
    }
}

static void write_program(program *p, const qg_group *g) {
    states s = states_of(g);
    p->length = 0;
    add(p, BPF_LD | BPF_W | BPF_LEN, 0);
    skip_if(p, BPF_JGE, QG_PACKET_MIN, 1);
    add(p, RETURN, s.target_count > 0 ? s.targets[0] : NO_SOCKET);
    own_ids(p, g, &s);
    if (s.target_count > 0) {
        spread(p, &s);
    }
    add(p, RETURN, NO_SOCKET);
}

int qg_group_steer(const qg_group *g, int fd) {
    program p;
    write_program(&p, g);
    struct sock_fprog attached = {p.length, p.code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &attached, sizeof attached) == 0
               ? QG_OK
               : QG_SYSTEM;
}

/* ---------------------------------------------------------------- the same in C */

static int stranger(const states *s, const uint8_t *packet, size_t len) {
    if (s->target_count == 0) {
        return -1;
    }
    if (len < QG_PACKET_MIN) {
        return s->targets[0];
    }
    uint32_t word = qg__get32(packet + ((packet[0] & 0x80) != 0 ? 6 : 1));
    return s->targets[(word * MULTIPLIER >> SHIFT) % s->target_count];
}

int qg__steer_stranger(const qg_group *g, const uint8_t *packet, size_t len) {
    states s = states_of(g);
    return stranger(&s, packet, len);
}

int qg_group_steers_to(const qg_group *g, const uint8_t *packet, size_t len) {
    states s = states_of(g);
    qg_cid_origin origin;
    uint32_t index;
    const uint8_t *cid = len >= QG_PACKET_MIN ? qg__packet_cid(packet) : NULL;
    if (cid != NULL && qg__cid_read(cid, QG_CID_LEN, &origin, &index) &&
        origin.host_id == g->header->host_id &&
        (s.served[origin.slot / 32] >> origin.slot % 32 & 1) != 0) {
        return origin.slot;
    }
    return stranger(&s, packet, len);
}
