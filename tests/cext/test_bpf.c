#include "bpf.h"

#include <errno.h>
#include <sys/syscall.h>

#include "wire.h"
#include "xsk.h"

#define TEST_RUN 10 /* bpf(2): run a program on bytes that are given */
#define PASS     2
#define REDIRECT 4

#define PORT 4433

/* What the program says to a frame. */
static uint32_t verdict(int program, const uint8_t *frame, size_t len) {
    uint8_t out[4096];
    struct {
        uint32_t program, verdict, in_len, out_len;
        uint64_t in, out;
        uint32_t repeat, duration, context_in_len, context_out_len;
        uint64_t context_in, context_out;
    } a = {.program = (uint32_t)program,
           .in_len = (uint32_t)len,
           .out_len = sizeof out,
           .in = (uintptr_t)frame,
           .out = (uintptr_t)out,
           .repeat = 1};
    CHECK_EQ(syscall(SYS_bpf, TEST_RUN, &a, sizeof a), 0);
    return a.verdict;
}

typedef struct scene {
    int sockets, program, far;
    qg_xsk xsk;
    qg_bpf_match match;
} scene;

static bool set(scene *s) {
    const char *step;
    if (!wire_open(&s->far)) {
        return false;
    }
    s->match = (qg_bpf_match){.port = PORT, .frame_end = 1500, .v4_count = 2, .v6_count = 2};
    memcpy(s->match.mac, wire_mac, QG_MAC_LEN);
    static const char *const v4[] = {"10.96.0.1", "10.96.0.9"}, *const v6[] = {"fd96::1",
                                                                               "fd96::9:1"};
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(inet_pton(AF_INET, v4[i], s->match.v4[i]), 1);
        CHECK_EQ(inet_pton(AF_INET6, v6[i], s->match.v6[i]), 1);
    }
    s->sockets = qg__bpf_sockets(4);
    CHECK(s->sockets >= 0);
    s->program = qg__bpf_program(s->sockets, &s->match);
    CHECK(s->program >= 0);
    CHECK_EQ(qg__xsk_open(&s->xsk, if_nametoindex("wire"), 0, &step), 0);
    CHECK_EQ(qg__bpf_set_socket(s->sockets, 0, s->xsk.fd), 0);
    return true;
}

static void end(scene *s) {
    qg__xsk_close(&s->xsk);
    close(s->program);
    close(s->sockets);
    close(s->far);
}

static uint32_t said_of(const scene *s, const char *from, const char *to, uint16_t port,
                        size_t len) {
    static const uint8_t payload[3000];
    uint8_t frame[3100];
    size_t n = wire_frame(frame, sizeof frame, from, 40000, to, port, payload, len);
    return verdict(s->program, frame, n);
}

TEST(ours_is_taken_and_nothing_else) {
    scene s;
    if (!set(&s)) {
        return;
    }
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 100), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.9", PORT, 100), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 0), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.2", PORT, 100), PASS);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.255", PORT, 100), PASS);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT + 1, 100), PASS);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT << 8 & 0xffff, 100), PASS);
    CHECK_EQ(said_of(&s, FAR_IP6, "fd96::1", PORT, 100), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP6, "fd96::9:1", PORT, 100), REDIRECT);
    static const char *const near[] = {"fe96::1", "fd96:1::1", "fd96::1:0:0:1", "fd96::9:2",
                                       "fd96::8:1"};
    for (size_t i = 0; i < sizeof near / sizeof *near; i++) {
        check_note("%s", near[i]);
        CHECK_EQ(said_of(&s, FAR_IP6, near[i], PORT, 100), PASS);
    }
    CHECK_EQ(said_of(&s, FAR_IP6, "fd96::1", PORT + 1, 100), PASS);
    end(&s);
}

TEST(no_more_than_a_buffer_takes) {
    scene s;
    if (!set(&s)) {
        return;
    }
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 1499 - 42), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 1500 - 42), PASS);
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 2000), PASS);
    CHECK_EQ(said_of(&s, FAR_IP6, "fd96::1", PORT, 1499 - 62), REDIRECT);
    CHECK_EQ(said_of(&s, FAR_IP6, "fd96::1", PORT, 1500 - 62), PASS);
    end(&s);
}

/* Each byte that the program looks at, changed; and every shorter length. */
TEST(what_is_different_passes) {
    scene s;
    static const struct {
        uint8_t at, change;
    } v4[] = {{0, 1},     {3, 4},
              {5, 2},     {12, 1},
              {13, 0x86}, {14, 1},
              {14, 0x20}, {20, 0x20} /* more fragments */,
              {20, 1},    {21, 1} /* not the first */,
              {23, 0x17}, {30, 1},
              {33, 2},    {36, 1},
              {37, 1}},
      v6[] = {{0, 1},  {12, 1}, {20, 0x3d} /* fragment header */, {20, 1}, {38, 1}, {45, 1},
              {53, 2}, {56, 1}};
    if (!set(&s)) {
        return;
    }
    uint8_t frame[200];
    size_t n = wire_frame(frame, sizeof frame, FAR_IP, 40000, WIRE_IP, PORT, "hello", 5);
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++) {
        frame[v4[i].at] ^= v4[i].change;
        check_note("IPv4: %d", v4[i].at);
        CHECK_EQ(verdict(s.program, frame, n), PASS);
        frame[v4[i].at] ^= v4[i].change;
    }
    frame[20] ^= 0x40; /* may be fragmented, and is not */
    CHECK_EQ(verdict(s.program, frame, n), REDIRECT);
    for (size_t len = 14; len < 42; len++) {
        CHECK_EQ(verdict(s.program, frame, len), PASS);
    }
    n = wire_frame(frame, sizeof frame, FAR_IP6, 40000, WIRE_IP6, PORT, "hello", 5);
    for (size_t i = 0; i < sizeof v6 / sizeof *v6; i++) {
        frame[v6[i].at] ^= v6[i].change;
        check_note("IPv6: %d", v6[i].at);
        CHECK_EQ(verdict(s.program, frame, n), PASS);
        frame[v6[i].at] ^= v6[i].change;
    }
    CHECK_EQ(verdict(s.program, frame, n), REDIRECT);
    for (size_t len = 14; len < 62; len++) {
        CHECK_EQ(verdict(s.program, frame, len), PASS);
    }
    end(&s);
}

/* Packets that the system made may be several in one, which cannot be seen but by this. */
TEST(behind_the_driver_a_checksum_must_be_there) {
    static const char *const pairs[][2] = {{FAR_IP, WIRE_IP},
                                           {"10.96.255.254", WIRE_IP},
                                           {FAR_IP6, WIRE_IP6},
                                           {"fd96:ffff:ffff:ffff:ffff:ffff:ffff:ffff", WIRE_IP6}};
    scene s;
    uint8_t frame[1500];
    static const uint8_t payload[1000] = {1, 2, 3};
    if (!set(&s)) {
        return;
    }
    s.match.summed = true;
    int summed = qg__bpf_program(s.sockets, &s.match);
    CHECK(summed >= 0);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        for (size_t len = 0; len < 1000; len += 37) {
            size_t n = wire_frame(frame, sizeof frame, pairs[i][0], 40000, pairs[i][1], PORT,
                                  payload, len);
            size_t addresses = i < 2 ? 26 : 22, udp = i < 2 ? 34 : 54;
            check_note("%s, %zu bytes", pairs[i][0], len);
            CHECK_EQ(verdict(summed, frame, n), REDIRECT);
            uint32_t sum = 17 + qg__get16(frame + udp + 4); /* the long way */
            for (size_t at = addresses; at < udp; at += 2) {
                sum += qg__get16(frame + at);
            }
            while (sum > 0xffff) {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            qg__put16(frame + udp + 6, (uint16_t)sum);
            CHECK_EQ(verdict(summed, frame, n), PASS);
            CHECK_EQ(verdict(s.program, frame, n), REDIRECT);
        }
    }
    close(summed);
    end(&s);
}

TEST(a_queue_without_a_socket_passes_all) {
    scene s;
    if (!set(&s)) {
        return;
    }
    qg__xsk_close(&s.xsk); /* it leaves the map */
    CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.1", PORT, 100), PASS);
    close(s.program);
    close(s.sockets);
    close(s.far);
}

/* The most addresses that there may be, and none of a family. */
TEST(every_number_of_addresses) {
    scene s;
    if (!set(&s)) {
        return;
    }
    for (uint32_t v4 = 0; v4 <= QG_BPF_ADDRESSES_MAX; v4 += 8) {
        for (uint32_t v6 = 0; v6 <= QG_BPF_ADDRESSES_MAX; v6 += 8) {
            if (v4 + v6 == 0) {
                continue; /* then nothing is ours, and there is nothing to load */
            }
            s.match.v4_count = v4;
            s.match.v6_count = v6;
            for (uint32_t i = 0; i < QG_BPF_ADDRESSES_MAX; i++) {
                qg__put32(s.match.v4[i], 0x0a600001 + i);
                s.match.v6[i][15] = (uint8_t)(1 + i);
                memcpy(s.match.v6[i], "\xfd\x96\0\0\0\0\0\0\0\0\0\0\0\0\0", 15);
            }
            close(s.program);
            s.match.summed = v4 > v6;
            s.program = qg__bpf_program(s.sockets, &s.match);
            check_note("%u and %u", v4, v6);
            CHECK(s.program >= 0);
            CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.8", PORT, 9), v4 >= 8 ? REDIRECT : PASS);
            CHECK_EQ(said_of(&s, FAR_IP, "10.96.0.16", PORT, 9), v4 == 16 ? REDIRECT : PASS);
            CHECK_EQ(said_of(&s, FAR_IP6, "fd96::8", PORT, 9), v6 >= 8 ? REDIRECT : PASS);
            CHECK_EQ(said_of(&s, FAR_IP6, "fd96::10", PORT, 9), v6 == 16 ? REDIRECT : PASS);
        }
    }
    end(&s);
}

TEST(an_interface_has_one_program) {
    scene s;
    if (!set(&s)) {
        return;
    }
    uint32_t wire = if_nametoindex("wire");
    int link = qg__bpf_attach(s.program, wire, true);
    CHECK(link >= 0);
    CHECK_EQ(qg__bpf_attach(s.program, wire, true), -1);
    CHECK_EQ(errno, EBUSY);
    close(link);
    link = qg__bpf_attach(s.program, wire, false);
    CHECK(link >= 0);
    close(link);
    CHECK_EQ(qg__bpf_attach(s.program, 99999, true), -1);
    end(&s);
}
