/* limit_udp.c: one socket, in batches: recvmmsg with UDP_GRO, sendmsg with UDP_SEGMENT. */
#include "limit.h"

#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Buffers per recvmmsg. Each holds what one sendmsg of the peer carried. */
#define SLOTS     64
#define SLOT_SIZE 65536
/* What the kernel puts into one buffer, at most. */
#define SLOT_DATAGRAMS 64

typedef union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))]; /* the segment size, both ways */
} control;

int udp_fd;
struct sockaddr_in udp_local, udp_remote;

static struct mmsghdr messages[SLOTS];
static struct iovec slots[SLOTS];
static struct sockaddr_in senders[SLOTS];
static control controls[SLOTS];

void udp_open(void) {
    int size = 4 << 20, one = 1; /* bytes: a burst of a hundred connections */
    socklen_t len = sizeof udp_local;
    udp_local.sin_family = AF_INET;
    udp_local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    udp_remote = udp_local;
    struct sockaddr_in *server = options.mode == SERVER ? &udp_local : &udp_remote;
    server->sin_port = htons((uint16_t)options.port);
    udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    if (udp_fd < 0 || bind(udp_fd, (struct sockaddr *)&udp_local, len) != 0 ||
        getsockname(udp_fd, (struct sockaddr *)&udp_local, &len) != 0) {
        die("socket");
    }
    setsockopt(udp_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(udp_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (setsockopt(udp_fd, SOL_UDP, UDP_GRO, &one, sizeof one) != 0) {
        die("UDP_GRO");
    }
    for (int i = 0; i < SLOTS; i++) {
        slots[i] = (struct iovec){malloc(SLOT_SIZE), SLOT_SIZE};
        if (slots[i].iov_base == NULL) {
            die("receive buffer");
        }
        messages[i].msg_hdr = (struct msghdr){.msg_name = &senders[i],
                                              .msg_iov = &slots[i],
                                              .msg_iovlen = 1,
                                              .msg_control = &controls[i]};
    }
}

/* ------------------------------------------------------------- receiving */

/* The connection that a packet is for; a new one for a client's first packet. */
static conn *receiver(const uint8_t *packet, size_t len, const struct sockaddr_in *from) {
    if ((packet[0] & 0x80) == 0) {
        return len > CID_LEN ? conn_find(packet + 1) : NULL;
    }
    uint8_t type, scid[QUICHE_MAX_CONN_ID_LEN], dcid[QUICHE_MAX_CONN_ID_LEN], token[256];
    size_t scid_len = sizeof scid, dcid_len = sizeof dcid, token_len = sizeof token;
    uint32_t version;
    if (quiche_header_info(packet, len, CID_LEN, &version, &type, scid, &scid_len, dcid, &dcid_len,
                           token, &token_len) < 0) {
        return NULL;
    }
    /* A server's id is the one that the client made up for it, cut or filled to length: so a
     * repeated first packet finds its connection without a second table. */
    uint8_t cid[CID_LEN] = {0};
    memcpy(cid, dcid, dcid_len < CID_LEN ? dcid_len : CID_LEN);
    conn *c = conn_find(cid);
    bool initial = type == 1;
    return c == NULL && initial && options.mode == SERVER ? conn_accept(cid, from) : c;
}

/* Length of the datagrams that stand in this buffer. */
static size_t segment_of(struct msghdr *m, size_t len) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            return (size_t)size;
        }
    }
    return len;
}

bool udp_receive(void) {
    /* Quiche gets all of the batch before anyone is served: one acknowledgement and one run of
     * packets per connection and batch. */
    static conn *dirty[SLOTS * SLOT_DATAGRAMS];
    size_t dirty_n = 0;
    for (int i = 0; i < SLOTS; i++) {
        messages[i].msg_hdr.msg_namelen = sizeof senders[i];
        messages[i].msg_hdr.msg_controllen = sizeof controls[i];
    }
    int n = recvmmsg(udp_fd, messages, SLOTS, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        uint8_t *data = slots[i].iov_base;
        size_t len = messages[i].msg_len, segment = segment_of(&messages[i].msg_hdr, len);
        quiche_recv_info info = {(struct sockaddr *)&senders[i], sizeof senders[i],
                                 (struct sockaddr *)&udp_local, sizeof udp_local};
        for (size_t at = 0; at < len; at += segment) {
            size_t size = len - at < segment ? len - at : segment;
            conn *c = receiver(data + at, size, &senders[i]);
            if (c == NULL) {
                continue;
            }
            quiche_conn_recv(c->quic, data + at, size, &info);
            if (!c->dirty) {
                c->dirty = true;
                dirty[dirty_n++] = c;
            }
        }
    }
    for (size_t i = 0; i < dirty_n; i++) {
        dirty[i]->dirty = false;
        conn_serve(dirty[i]);
    }
    return n == SLOTS;
}

/* ------------------------------------------------------------- sending */

void udp_send(uint8_t *data, size_t len, size_t segment, struct sockaddr_storage *to) {
    struct iovec iov = {data, len};
    struct msghdr m = {.msg_name = to,
                       .msg_namelen = sizeof(struct sockaddr_in),
                       .msg_iov = &iov,
                       .msg_iovlen = 1};
    control segmented = {.header = {.cmsg_len = CMSG_LEN(sizeof(uint16_t)),
                                    .cmsg_level = SOL_UDP,
                                    .cmsg_type = UDP_SEGMENT}};
    if (len > segment) {
        uint16_t size = (uint16_t)segment;
        memcpy(CMSG_DATA(&segmented.header), &size, sizeof size);
        m.msg_control = &segmented;
        m.msg_controllen = CMSG_SPACE(sizeof size);
    }
    if (sendmsg(udp_fd, &m, 0) < 0) {
        totals.datagrams_lost += (long)((len + segment - 1) / segment);
    }
}
