#include "xsk.h"

#include <errno.h>

#include "bpf.h"
#include "wire.h"

#define PORT 4433

typedef struct scene {
    qg_xsk xsk;
    int link, far;
    qg_counters counters;
} scene;

/* A socket on the only queue, and a program that sends all to PORT there. */
static bool set(scene *s) {
    const char *step;
    qg_bpf_match match = {.port = PORT, .frame_end = QG_XSK_RECEIVE_MAX + 1, .v4_count = 1};
    *s = (scene){0};
    if (!wire_open(&s->far)) {
        return false;
    }
    memcpy(match.mac, wire_mac, QG_MAC_LEN);
    CHECK_EQ(inet_pton(AF_INET, WIRE_IP, match.v4[0]), 1);
    uint32_t wire = if_nametoindex("wire");
    CHECK_EQ(qg__xsk_open(&s->xsk, wire, 0, &step), 0);
    int sockets = qg__bpf_sockets(1), program = qg__bpf_program(sockets, &match);
    CHECK(program >= 0);
    CHECK_EQ(qg__bpf_set_socket(sockets, 0, s->xsk.fd), 0);
    s->link = qg__bpf_attach(program, wire, true);
    CHECK(s->link >= 0);
    close(program);
    close(sockets);
    return true;
}

static void end(scene *s) {
    qg__xsk_close(&s->xsk);
    close(s->link);
    close(s->far);
}

static void wait_for(const scene *s, uint32_t count) {
    for (int tries = 0; qg__xsk_available(&s->xsk) < count; tries++) {
        struct pollfd p = {.fd = s->xsk.fd, .events = POLLIN};
        CHECK_EQ(poll(&p, 1, 5000), 1);
        CHECK(tries < 100000);
    }
}

/* Three times around the rings. */
TEST(frames_come_in_order) {
    scene s;
    if (!set(&s)) {
        return;
    }
    uint32_t sent = 0, seen = 0;
    while (seen < 3 * QG_XSK_FRAMES) {
        for (int i = 0; i < 100; i++, sent++) {
            wire_send(s.far, FAR_IP, WIRE_IP, PORT, &sent, sizeof sent);
        }
        wait_for(&s, 100);
        uint32_t n = qg__xsk_available(&s.xsk);
        CHECK_EQ(n, 100);
        for (uint32_t i = 0; i < n; i++, seen++) {
            uint32_t len;
            uint8_t *frame = qg__xsk_look(&s.xsk, i, &len);
            CHECK(frame != NULL);
            CHECK_EQ(len, 42 + sizeof seen);
            CHECK_BYTES(frame + 42, 4, &seen, 4);
        }
        qg__xsk_release(&s.xsk, n);
    }
    CHECK_EQ(qg__xsk_available(&s.xsk), 0);
    CHECK_EQ(qg__xsk_counts(&s.xsk).dropped, 0);
    end(&s);
}

TEST(more_than_there_is_room_for_is_dropped_and_counted) {
    scene s;
    if (!set(&s)) {
        return;
    }
    for (uint32_t i = 0; i < QG_XSK_FRAMES + 100; i++) {
        wire_send(s.far, FAR_IP, WIRE_IP, PORT, &i, sizeof i);
    }
    wait_for(&s, QG_XSK_FRAMES);
    for (int tries = 0; qg__xsk_counts(&s.xsk).dropped < 100; tries++) {
        CHECK(tries < 5000);
        usleep(1000);
    }
    qg__xsk_release(&s.xsk, QG_XSK_FRAMES);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    wait_for(&s, 1);
    end(&s);
}

TEST(frames_go) {
    scene s;
    uint8_t bytes[3000];
    if (!set(&s)) {
        return;
    }
    for (uint32_t i = 0; i < 3 * QG_XSK_FRAMES; i++) {
        uint8_t *room = qg__xsk_room(&s.xsk);
        CHECK(room != NULL);
        CHECK(qg__xsk_room(&s.xsk) == room);
        qg_addr from, to;
        qg_addr_parse(&from, WIRE_IP, PORT);
        qg_addr_parse(&to, FAR_IP, 40000);
        size_t n = qg__eth_write(room, QG_XSK_FRAME, far_mac, wire_mac, &from, &to,
                                 (const uint8_t *)&i, sizeof i);
        qg__xsk_send(&s.xsk, (uint32_t)n);
        if (i % 50 == 49) {
            CHECK_EQ(qg__xsk_flush(&s.xsk, &s.counters), QG_OK);
            for (uint32_t k = i - 49; k <= i; k++) {
                qg_eth_frame f;
                CHECK(wire_receive(s.far, bytes, sizeof bytes, &f, 2000));
                CHECK_BYTES(f.payload, f.len, &k, sizeof k);
            }
        }
    }
    CHECK_EQ(qg__xsk_flush(&s.xsk, &s.counters), QG_OK);
    CHECK_EQ(qg__xsk_counts(&s.xsk).invalid, 0);
    end(&s);
}

TEST(all_rooms_under_way) {
    scene s;
    if (!set(&s)) {
        return;
    }
    for (uint32_t i = 0; i < QG_XSK_FRAMES; i++) {
        uint8_t *room = qg__xsk_room(&s.xsk);
        CHECK(room != NULL);
        memset(room, 0xff, 60);
        qg__xsk_send(&s.xsk, 60);
    }
    CHECK(qg__xsk_room(&s.xsk) == NULL);
    CHECK_EQ(qg__xsk_flush(&s.xsk, &s.counters), QG_OK);
    CHECK(qg__xsk_room(&s.xsk) != NULL);
    CHECK_EQ(s.xsk.free_count, QG_XSK_FRAMES);
    end(&s);
}

TEST(an_interface_that_is_down_keeps_them) {
    scene s;
    uint8_t bytes[3000];
    qg_eth_frame f;
    if (!set(&s)) {
        return;
    }
    wire_run("ip link set wire down");
    size_t n = wire_frame(qg__xsk_room(&s.xsk), QG_XSK_FRAME, FAR_IP, 1, WIRE_IP, 2, "late", 4);
    qg__xsk_send(&s.xsk, (uint32_t)n);
    CHECK_EQ(qg__xsk_flush(&s.xsk, &s.counters), QG_SYSTEM);
    CHECK(s.xsk.down);
    CHECK_EQ(s.xsk.free_count, QG_XSK_FRAMES - 1);
    wire_run("ip link set wire up");
    CHECK_EQ(qg__xsk_flush(&s.xsk, &s.counters), QG_OK);
    CHECK(!s.xsk.down);
    CHECK(wire_receive(s.far, bytes, sizeof bytes, &f, 2000));
    CHECK_TEXT(f.payload, f.len, "late");
    end(&s);
}

TEST(queues_that_cannot_be_had) {
    scene s;
    qg_xsk other;
    const char *step;
    if (!set(&s)) {
        return;
    }
    CHECK_EQ(qg__xsk_open(&other, if_nametoindex("wire"), 0, &step), -1);
    CHECK_EQ(errno, EBUSY);
    CHECK_EQ(qg__xsk_open(&other, if_nametoindex("wire"), 9, &step), -1);
    CHECK_EQ(errno, EINVAL);
    CHECK_TEXT(step, strlen(step), "binding it to a queue");
    CHECK_EQ(qg__xsk_open(&other, 99999, 0, &step), -1);
    CHECK_EQ(errno, ENODEV);
    end(&s);
}
