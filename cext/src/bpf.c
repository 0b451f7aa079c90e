/* bpf.c: eBPF without a compiler and a library.
 *
 *            r6 = the context; r2, r3 = begin and end of the frame
 *            fewer bytes than an IPv4 header with UDP's, or as many as frame_end   -> pass
 *            not to our MAC                                                       -> pass
 *            IPv6?                                                                -> v6
 *            not IPv4, options, a fragment, not UDP, another port                  -> pass
 *            behind the driver: a checksum that is to be completed                -> pass
 *            its address is one of ours                                           -> take
 *            pass
 *     v6     fewer bytes than an IPv6 header with UDP's, not UDP, another port     -> pass
 *            behind the driver: a checksum that is to be completed                -> pass
 *            its address is one of ours                                           -> take
 *     pass   return XDP_PASS
 *     take   return bpf_redirect_map(sockets, receive queue, XDP_PASS)
 *
 * The verifier accepts a load only behind a comparison with the end of the frame; a frame's length itself
 * it lets nobody compute who may not see addresses, so lengths are compared as places.
 *
 * Numbers of the system are here and not included: its headers may be older than itself. */
#include "bpf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAP_CREATE  0
#define MAP_UPDATE  2
#define PROG_LOAD   5
#define LINK_CREATE 28

#define MAP_TYPE_XSKMAP  17
#define PROG_TYPE_XDP    6
#define ATTACH_XDP       37
#define HELPER_REDIRECT  51
#define PSEUDO_MAP_FD    1
#define ACTION_PASS      2
#define MODE_GENERIC     2 /* XDP_FLAGS_SKB_MODE */
#define MODE_NATIVE      4 /* XDP_FLAGS_DRV_MODE */
#define CONTEXT_DATA     0 /* places in struct xdp_md */
#define CONTEXT_DATA_END 4
#define CONTEXT_RX_QUEUE 16
#define JMP32            0x06
#define IPV4_UDP_END     (14 + 20 + 8)
#define IPV6_UDP_END     (14 + 40 + 8)

/* Fixed part, two sums, an instruction for an IPv4 address, eight for an IPv6 one. */
#define PROGRAM_MAX (64 + 80 + 10 * QG_BPF_ADDRESSES_MAX)

/* Where a jump goes that is not written yet. */
enum { TO_PASS, TO_TAKE, TO_V6, TARGETS };

/* struct bpf_insn, whose registers are bit fields: the first one's in the lower half. */
typedef struct instruction {
    uint8_t code, registers;
    int16_t offset;
    int32_t value;
} instruction;

typedef struct program {
    instruction code[PROGRAM_MAX];
    uint8_t target[PROGRAM_MAX]; /* 1 + one of the above, of a jump to be aimed */
    int count;
} program;

/* ------------------------------------------------------------- instructions */

static void add(program *p, uint8_t code, uint8_t to, uint8_t from, int16_t offset, int32_t value) {
    p->code[p->count++] = (instruction){code, (uint8_t)(to | from << 4), offset, value};
}

/* r5 = what stands in the frame at `offset`; `size` is BPF_B, BPF_H or BPF_W. */
static void load(program *p, uint8_t size, int16_t offset) {
    add(p, BPF_LDX | size | BPF_MEM, BPF_REG_5, BPF_REG_2, offset, 0);
}

/* When the lower half of r5 compares so with `value`. */
static void jump(program *p, uint8_t comparison, uint32_t value, int target) {
    p->target[p->count] = (uint8_t)(1 + target);
    add(p, JMP32 | comparison | BPF_K, BPF_REG_5, 0, 0, (int32_t)value);
}

/* When the frame's end compares so with its byte `offset`; r4 is used. */
static void jump_end(program *p, uint8_t comparison, int32_t offset, int target) {
    add(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_4, BPF_REG_2, 0, 0);
    add(p, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_4, 0, 0, offset);
    p->target[p->count] = (uint8_t)(1 + target);
    add(p, BPF_JMP | comparison | BPF_X, BPF_REG_4, BPF_REG_3, 0, 0);
}

static void always(program *p, int target) {
    p->target[p->count] = (uint8_t)(1 + target);
    add(p, BPF_JMP | BPF_JA, 0, 0, 0, 0);
}

/* Numbers as a load from the frame gives them: in the machine's order, of bytes as they came. */
static uint32_t half(const uint8_t *bytes) {
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint32_t word(const uint8_t *bytes) {
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* r7 += a word or a half of the frame. */
static void sum(program *p, uint8_t size, int16_t offset) {
    load(p, size, offset);
    add(p, BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_7, BPF_REG_5, 0, 0);
}

/* r7 = its lower sixteen bits, and what is above them. */
static void fold(program *p) {
    add(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_8, BPF_REG_7, 0, 0);
    add(p, BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_8, 0, 0, 16);
    add(p, BPF_ALU64 | BPF_LSH | BPF_K, BPF_REG_7, 0, 0, 48);
    add(p, BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_7, 0, 0, 48);
    add(p, BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_7, BPF_REG_8, 0, 0);
}

/* To `pass` when UDP's checksum, at `udp` + 6, is the pseudo header's sum: addresses from `from` on, protocol,
 * length. A right one is that by chance, one time in 65536; then the packet goes the other way. */
static void check_summed(program *p, int16_t from, int16_t udp) {
    add(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_7, 0, 0, htons(IPPROTO_UDP));
    for (int16_t at = from; at < udp; at += 4) {
        sum(p, BPF_W, at);
    }
    sum(p, BPF_H, (int16_t)(udp + 4));
    fold(p); /* of 36 bits at most */
    fold(p);
    fold(p);
    load(p, BPF_H, (int16_t)(udp + 6));
    p->target[p->count] = 1 + TO_PASS;
    add(p, BPF_JMP | BPF_JEQ | BPF_X, BPF_REG_7, BPF_REG_5, 0, 0);
}

/* ------------------------------------------------------------- the program */

static void check_frame(program *p, const qg_bpf_match *m) {
    add(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0);
    add(p, BPF_LDX | BPF_W | BPF_MEM, BPF_REG_2, BPF_REG_1, CONTEXT_DATA, 0);
    add(p, BPF_LDX | BPF_W | BPF_MEM, BPF_REG_3, BPF_REG_1, CONTEXT_DATA_END, 0);
    jump_end(p, BPF_JGT, IPV4_UDP_END, TO_PASS);
    jump_end(p, BPF_JLE, (int32_t)m->frame_end, TO_PASS);
    load(p, BPF_W, 0);
    jump(p, BPF_JNE, word(m->mac), TO_PASS);
    load(p, BPF_H, 4);
    jump(p, BPF_JNE, half(m->mac + 4), TO_PASS);
}

static void check_v4(program *p, const qg_bpf_match *m) {
    load(p, BPF_B, 14); /* version, and a header of five words */
    jump(p, BPF_JNE, 0x45, TO_PASS);
    load(p, BPF_H, 20); /* more fragments, or not the first one */
    jump(p, BPF_JSET, htons(0x3fff), TO_PASS);
    load(p, BPF_B, 23);
    jump(p, BPF_JNE, IPPROTO_UDP, TO_PASS);
    load(p, BPF_H, 36);
    jump(p, BPF_JNE, htons(m->port), TO_PASS);
    if (m->summed) {
        check_summed(p, 26, 34);
    }
    load(p, BPF_W, 30);
    for (uint32_t i = 0; i < m->v4_count; i++) {
        jump(p, BPF_JEQ, word(m->v4[i]), TO_TAKE);
    }
    always(p, TO_PASS);
}

static void check_v6(program *p, const qg_bpf_match *m) {
    jump_end(p, BPF_JGT, IPV6_UDP_END, TO_PASS);
    load(p, BPF_B, 20); /* what follows: UDP, and no extension header */
    jump(p, BPF_JNE, IPPROTO_UDP, TO_PASS);
    load(p, BPF_H, 56);
    jump(p, BPF_JNE, htons(m->port), TO_PASS);
    if (m->summed) {
        check_summed(p, 22, 54);
    }
    for (uint32_t i = 0; i < m->v6_count; i++) {
        for (int part = 0; part < 4; part++) {
            load(p, BPF_W, (int16_t)(38 + 4 * part));
            if (part <
                3) { /* on to the next address: over this comparison and what is left of it */
                add(p, JMP32 | BPF_JNE | BPF_K, BPF_REG_5, 0, (int16_t)(2 * (3 - part)),
                    (int32_t)word(m->v6[i] + 4 * part));
            } else {
                jump(p, BPF_JEQ, word(m->v6[i] + 12), TO_TAKE);
            }
        }
    }
    always(p, TO_PASS);
}

static void aim(program *p, const int places[TARGETS]) {
    for (int i = 0; i < p->count; i++) {
        if (p->target[i] != 0) {
            p->code[i].offset = (int16_t)(places[p->target[i] - 1] - i - 1);
        }
    }
}

static void write_program(program *p, int sockets, const qg_bpf_match *m) {
    int places[TARGETS];
    *p = (program){0};
    check_frame(p, m);
    load(p, BPF_H, 12);
    jump(p, BPF_JEQ, htons(0x86dd), TO_V6);
    jump(p, BPF_JNE, htons(0x0800), TO_PASS);
    check_v4(p, m);
    places[TO_V6] = p->count;
    check_v6(p, m);
    places[TO_PASS] = p->count;
    add(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, ACTION_PASS);
    add(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    places[TO_TAKE] = p->count;
    add(p, BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, PSEUDO_MAP_FD, 0, sockets);
    add(p, 0, 0, 0, 0, 0); /* the upper half of that number */
    add(p, BPF_LDX | BPF_W | BPF_MEM, BPF_REG_2, BPF_REG_6, CONTEXT_RX_QUEUE, 0);
    add(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_3, 0, 0, ACTION_PASS);
    add(p, BPF_JMP | BPF_CALL, 0, 0, 0, HELPER_REDIRECT);
    add(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    aim(p, places);
}

/* ------------------------------------------------------------- bpf(2) */

/* The kernel takes what is not there of its record as zeros. */
static int call(int command, void *attributes, size_t size) {
    return (int)syscall(SYS_bpf, command, attributes, (unsigned)size);
}

int qg__bpf_sockets(uint32_t count) {
    struct {
        uint32_t type, key_size, value_size, max_entries;
    } a = {MAP_TYPE_XSKMAP, sizeof(uint32_t), sizeof(int), count};
    return call(MAP_CREATE, &a, sizeof a);
}

int qg__bpf_set_socket(int sockets, uint32_t queue, int fd) {
    struct {
        uint32_t map, pad;
        uint64_t key, value, flags;
    } a = {(uint32_t)sockets, 0, (uintptr_t)&queue, (uintptr_t)&fd, 0};
    return call(MAP_UPDATE, &a, sizeof a);
}

int qg__bpf_program(int sockets, const qg_bpf_match *match) {
    program p;
    write_program(&p, sockets, match);
    /* No helper that it calls asks for a licence; the field must be there. */
    static const char licence[] = "BSD-2-Clause";
    struct {
        uint32_t type, count;
        uint64_t code, licence;
    } a = {PROG_TYPE_XDP, (uint32_t)p.count, (uintptr_t)p.code, (uintptr_t)licence};
    return call(PROG_LOAD, &a, sizeof a);
}

int qg__bpf_attach(int program, uint32_t interface, bool native) {
    struct {
        uint32_t program, interface, type, flags;
    } a = {(uint32_t)program, interface, ATTACH_XDP, native ? MODE_NATIVE : MODE_GENERIC};
    return call(LINK_CREATE, &a, sizeof a);
}
