/* bpf.h: the program that an interface runs for each frame it receives, made and loaded by bpf(2) alone. What
 * it sends to an AF_XDP socket never reaches the system; so it takes what is surely ours, and leaves
 * everything else where it was going. */
#ifndef QG_BPF_H
#define QG_BPF_H

#include "base.h"
#include "eth.h"

/* Addresses of a family that the program compares with. An interface with more has them served by the UDP
 * socket. */
#define QG_BPF_ADDRESSES_MAX 16

/* What a frame must be: for `mac`, of less than `frame_end` bytes, UDP to `port` at one of the addresses,
 * without IP options, extension headers or fragments. */
typedef struct qg_bpf_match {
    uint8_t mac[QG_MAC_LEN];
    uint16_t port;
    bool summed; /* and its checksum is not for a card to complete: see qg__bpf_attach */
    uint32_t frame_end;
    uint32_t v4_count, v6_count;
    uint8_t v4[QG_BPF_ADDRESSES_MAX][4];
    uint8_t v6[QG_BPF_ADDRESSES_MAX][16];
} qg_bpf_match;

/* All return a descriptor, which the caller closes, or -1 with errno. */

/* A map from receive queues 0..count-1 to AF_XDP sockets. A queue without one leaves its frames alone. */
int qg__bpf_sockets(uint32_t count);

/* 0, or -1. The socket leaves the map when it is closed. */
int qg__bpf_set_socket(int sockets, uint32_t queue, int fd);

/* The program. It holds the map by itself. */
int qg__bpf_program(int sockets, const qg_bpf_match *match);

/* Run it on an interface: in its driver when `native`, else after the driver has made a packet of a frame. Such
 * a packet may be several, joined by the card or never parted by a sender on this host, and nothing in it says
 * so; but then its checksum is left to be completed. So a program for that must have `summed`.
 * When the descriptor returned is closed everywhere, and so when its process dies, it runs no more. EBUSY:
 * somebody else's program runs there. */
int qg__bpf_attach(int program, uint32_t interface, bool native);

#endif
