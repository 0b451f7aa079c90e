#include "steer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "check.h"
#include "random.h"
#include "victims.h"

#define SOCKETS 12
#define PACKETS 300

static qg_group *make(uint32_t slots) {
    qg_group_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&o);
    o.slots = slots;
    o.connections = 1;
    qg_group *g = qg_group_new(&o, &rc, problem, sizeof problem);
    CHECK(g != NULL);
    return g;
}

static void set(qg_group *g, uint32_t slot, uint32_t state) {
    g->slots[slot].life = UINT64_C(1) << 32 | UINT64_C(9) << 8 | state;
}

/* ---------------------------------------------------------------- real sockets */

typedef struct sockets {
    int fds[SOCKETS];
    int from;
    struct sockaddr_storage to;
    socklen_t to_len;
} sockets;

static void bind_all(sockets *s, int family) {
    qg_addr any;
    CHECK_EQ(qg_addr_parse(&any, family == AF_INET ? "127.0.0.1" : "::1", 0), QG_OK);
    memcpy(&s->to, any.bytes, any.len);
    s->to_len = any.len;
    for (int i = 0; i < SOCKETS; i++) {
        int one = 1;
        s->fds[i] = socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        CHECK(s->fds[i] >= 0);
        CHECK_EQ(setsockopt(s->fds[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
        CHECK_EQ(bind(s->fds[i], (struct sockaddr *)&s->to, s->to_len), 0);
        CHECK_EQ(getsockname(s->fds[i], (struct sockaddr *)&s->to, &s->to_len), 0);
    }
    s->from = socket(family, SOCK_DGRAM, 0);
    CHECK_EQ(connect(s->from, (struct sockaddr *)&s->to, s->to_len), 0);
}

static void close_all(sockets *s) {
    for (int i = 0; i < SOCKETS; i++) {
        close(s->fds[i]);
    }
    close(s->from);
}

/* Send a packet; which socket did it come to? */
static int goes_to(sockets *s, const uint8_t *packet, size_t len) {
    struct pollfd all[SOCKETS];
    uint8_t got[1500];
    CHECK_EQ(send(s->from, packet, len, 0), len);
    for (int i = 0; i < SOCKETS; i++) {
        all[i] = (struct pollfd){s->fds[i], POLLIN, 0};
    }
    CHECK_EQ(poll(all, SOCKETS, 5000), 1);
    for (int i = 0; i < SOCKETS; i++) {
        if (all[i].revents != 0) {
            CHECK_EQ(recv(s->fds[i], got, sizeof got, 0), len);
            return i;
        }
    }
    return -1;
}

/* A packet, short or long, with an id of this slot. */
static size_t own_packet(const qg_group *g, uint8_t slot, bool is_long, uint8_t *out) {
    uint64_t state = slot * 7u + 1;
    size_t len = is_long ? 1200 : 21;
    random_bytes(&state, out, len);
    out[0] = (uint8_t)(is_long ? out[0] | 0xc0 : (out[0] & 0x7f) | 0x40);
    if (is_long) {
        out[5] = QG_CID_LEN;
    }
    qg__cid_write((qg_cid_origin){(uint16_t)g->header->host_id, slot, 9}, slot,
                  out + (is_long ? 6 : 1));
    return len;
}

static void check_300(int family) {
    sockets s;
    uint8_t packet[1200];
    qg_group *g = make(SOCKETS);
    uint64_t state = 3;
    unsigned own = 0, strangers[SOCKETS] = {0};
    bind_all(&s, family);
    for (uint32_t i = 0; i < SOCKETS; i++) {
        set(g, i, i % QG_WORKER_DEAD); /* free, starting, accepting, draining */
    }
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    for (unsigned i = 0; i < PACKETS; i++) {
        uint8_t slot = (uint8_t)random_below(&state, SOCKETS);
        size_t len = own_packet(g, slot, i % 2, packet);
        bool is_own = i % 3 != 0;
        if (!is_own) {
            random_bytes(&state, packet + 1, len - 1); /* a stranger's */
            packet[5] = (uint8_t)(8 + i % 13);
        }
        check_note("family %d, packet %u, slot %u", family, i, slot);
        int to = goes_to(&s, packet, len);
        CHECK_EQ(to, qg_group_steers_to(g, packet, len));
        if (is_own && slot % 4 >= QG_WORKER_ACCEPTING) {
            CHECK_EQ(to, slot);
            own++;
        } else {
            CHECK_EQ(to % 4, QG_WORKER_ACCEPTING);
            strangers[to]++;
        }
    }
    CHECK(own > 80);
    for (uint32_t i = QG_WORKER_ACCEPTING; i < SOCKETS; i += 4) {
        CHECK(strangers[i] > 20); /* of some 200 over three */
    }
    qg_group_free(g);
    close_all(&s);
}

TEST(three_hundred_of_three_hundred_come_to_their_socket) {
    check_300(AF_INET);
    check_300(AF_INET6);
}

static int without_privileges(void *arg) {
    (void)arg;
    if (geteuid() == 0 && setuid(65534) != 0) {
        return 2;
    }
    check_300(AF_INET);
    return 0;
}

TEST(no_privilege_is_needed) {
    CHECK_EQ(wait_for(start_victim(without_privileges, NULL, 0, 0), 0), 0);
}

/* While a worker leaves, its packets still come to it, and nobody else's. */
TEST(what_changes_with_the_states) {
    sockets s;
    uint8_t own[1200], other[1200];
    qg_group *g = make(SOCKETS);
    size_t len = own_packet(g, 4, false, own), other_len = own_packet(g, 0, true, other);
    bind_all(&s, AF_INET);
    other[5] = 8;
    set(g, 1, QG_WORKER_STARTING);
    set(g, 4, QG_WORKER_STARTING);
    CHECK_EQ(qg_group_steer(g, s.fds[3]), QG_OK); /* any member will do */
    int to = goes_to(&s, other, other_len);       /* nobody accepts yet: it waits for who will */
    CHECK(to == 1 || to == 4);
    set(g, 4, QG_WORKER_ACCEPTING);
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    CHECK_EQ(goes_to(&s, other, other_len), 4);
    CHECK_EQ(goes_to(&s, own, len), 4);
    set(g, 1, QG_WORKER_ACCEPTING);
    set(g, 4, QG_WORKER_DRAINING);
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    CHECK_EQ(goes_to(&s, other, other_len), 1);
    CHECK_EQ(goes_to(&s, own, len), 4);
    set(g, 4, QG_WORKER_DEAD);
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    CHECK_EQ(goes_to(&s, own, len), 1); /* who answers it with a reset */
    set(g, 1, QG_WORKER_DEAD);
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    CHECK_EQ(qg_group_steers_to(g, own, len), -1);
    CHECK(goes_to(&s, own, len) >= 0); /* the kernel decides */
    qg_group_free(g);
    close_all(&s);
}

/* Whatever is sent, it comes to an accepting slot: a program that reads too far says 0, which none is. */
TEST(packets_of_any_length_and_content) {
    sockets s;
    uint8_t packet[1300];
    uint64_t state = 8;
    qg_group *g = make(SOCKETS);
    bind_all(&s, AF_INET);
    set(g, 5, QG_WORKER_ACCEPTING);
    set(g, 6, QG_WORKER_ACCEPTING);
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    for (size_t len = 0; len < sizeof packet; len += len < 60 ? 1 : 97) {
        for (int i = 0; i < 4; i++) {
            random_bytes(&state, packet, sizeof packet);
            packet[0] = (uint8_t)(packet[0] << 1 | (i & 1)) ^ (uint8_t)((i & 2) << 6);
            check_note("length %zu", len);
            int to = goes_to(&s, packet, len);
            CHECK(to == 5 || to == 6);
            CHECK_EQ(to, qg_group_steers_to(g, packet, len));
        }
    }
    qg_group_free(g);
    close_all(&s);
}

/* Ids of another host, of another form, of no slot. */
TEST(forged_ids_are_a_stranger_s) {
    uint8_t packet[1200], forged[1200];
    qg_group *g = make(4);
    set(g, 1, QG_WORKER_ACCEPTING);
    set(g, 3, QG_WORKER_DRAINING);
    size_t len = own_packet(g, 3, false, packet);
    CHECK_EQ(qg_group_steers_to(g, packet, len), 3);
    CHECK_EQ(qg_group_steers_to(g, packet, len - 1), 1);
    for (size_t at = 1; at < 4; at++) {
        memcpy(forged, packet, len);
        forged[at] ^= 0x40;
        CHECK_EQ(qg_group_steers_to(g, forged, len), 1);
    }
    for (unsigned slot = 0; slot < 256; slot++) {
        packet[1 + QG_CID_SLOT_AT] = (uint8_t)slot;
        CHECK_EQ(qg_group_steers_to(g, packet, len), slot == 3 ? 3 : 1);
    }
    qg_group_free(g);
}

TEST(the_largest_program_can_be_attached) {
    sockets s;
    qg_group *g = make(QG_GROUP_SLOTS_MAX);
    bind_all(&s, AF_INET);
    for (uint32_t i = 0; i < QG_GROUP_SLOTS_MAX; i++) {
        set(g, i, QG_WORKER_ACCEPTING);
    }
    CHECK_EQ(qg_group_steer(g, s.fds[0]), QG_OK);
    qg_group_free(g);
    close_all(&s);
}

TEST(a_socket_that_shares_no_port_is_refused) {
    qg_group *g = make(4);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(qg_group_steer(g, -1), QG_SYSTEM);
    CHECK_EQ(errno, EBADF);
    CHECK_EQ(qg_group_steer(g, fd), QG_SYSTEM);
    close(fd);
    qg_group_free(g);
}
