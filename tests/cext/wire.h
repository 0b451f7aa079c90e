/* wire.h: an interface of our own, "wire", in a network namespace of its own, and the other end of its cable,
 * where frames are written and read as they are. Ends with the process.
 *
 * Needs root. Without, wire_open answers false and says so; tests/netns fails then, so that nobody believes that
 * this was tested. */
#ifndef WIRE_H
#define WIRE_H

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "eth.h"

#define WIRE_IP  "10.96.0.1"
#define WIRE_IP6 "fd96::1"
#define FAR_IP   "10.96.0.2"
#define FAR_IP6  "fd96::2"

static const uint8_t wire_mac[QG_MAC_LEN] = {2, 0, 0, 0, 0, 1},
                     far_mac[QG_MAC_LEN] = {2, 0, 0, 0, 0, 2};

static inline void wire_run(const char *command) {
    check_note("%s", command);
    CHECK_EQ(system(command), 0);
    check_note(NULL);
}

/* A packet socket on the far end in *far. */
static inline bool wire_open(int *far) {
    if (geteuid() != 0) {
        fprintf(stderr, "not run: AF_XDP needs root\n");
        return false;
    }
    CHECK_EQ(unshare(CLONE_NEWNET), 0);
    wire_run("ip link set lo up");
    wire_run("ip link add wire address 02:00:00:00:00:01 type veth peer name far address "
             "02:00:00:00:00:02");
    wire_run("ip address add " WIRE_IP "/24 dev wire");
    wire_run("ip address add " WIRE_IP6 "/64 dev wire nodad");
    wire_run("ip link set wire up && ip link set far up");
    *far = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex("far")};
    CHECK(*far >= 0);
    CHECK_EQ(bind(*far, (struct sockaddr *)&at, sizeof at), 0);
    return true;
}

/* A datagram from the far host, as a frame. Returns its length. */
static inline size_t wire_frame(uint8_t *out, size_t capacity, const char *from, uint16_t from_port,
                                const char *to, uint16_t port, const void *payload, size_t len) {
    qg_addr source, target;
    CHECK_EQ(qg_addr_parse(&source, from, from_port), QG_OK);
    CHECK_EQ(qg_addr_parse(&target, to, port), QG_OK);
    size_t n = qg__eth_write(out, capacity, wire_mac, far_mac, &source, &target, payload, len);
    CHECK(n > 0);
    return n;
}

static inline void wire_send(int far, const char *from, const char *to, uint16_t port,
                             const void *payload, size_t len) {
    uint8_t frame[3000];
    size_t n = wire_frame(frame, sizeof frame, from, 40000, to, port, payload, len);
    CHECK_EQ(send(far, frame, n, 0), n);
}

/* The next frame with UDP that comes to the far end; false: none within the time. */
static inline bool wire_receive(int far, uint8_t *bytes, size_t capacity, qg_eth_frame *f,
                                int timeout_ms) {
    struct pollfd p = {.fd = far, .events = POLLIN};
    while (poll(&p, 1, timeout_ms) == 1) {
        struct sockaddr_ll from;
        socklen_t from_len = sizeof from;
        ssize_t n = recvfrom(far, bytes, capacity, 0, (struct sockaddr *)&from, &from_len);
        if (n > 0 && from.sll_pkttype != PACKET_OUTGOING &&
            qg__eth_parse(bytes, (size_t)n, false, 0, f)) {
            return true;
        }
    }
    return false;
}

#endif
