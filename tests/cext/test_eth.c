#include "eth.h"

#include <stdlib.h>

#include "check.h"
#include "frames.h"
#include "random.h"

static const uint8_t ours[QG_MAC_LEN] = {0x0a, 0, 0, 0, 0, 1};
static const uint8_t theirs[QG_MAC_LEN] = {0x0a, 0, 0, 0, 0, 2};

static qg_addr at(const char *ip, uint16_t port) {
    qg_addr addr;
    CHECK_EQ(qg_addr_parse(&addr, ip, port), QG_OK);
    return addr;
}

/* In memory of exactly this size, so that the sanitizer sees a step too far. */
static bool parse(const uint8_t *bytes, size_t len, qg_eth_frame *out) {
    uint8_t *copy = malloc(len + (len == 0));
    qg__copy(copy, bytes, len);
    bool taken = qg__eth_parse(copy, len, false, 7, out);
    if (taken) {
        CHECK(out->payload >= copy && out->payload + out->len <= copy + len);
    }
    free(copy);
    return taken;
}

static bool parses(const uint8_t *bytes, size_t len) {
    qg_eth_frame f;
    return parse(bytes, len, &f);
}

static void check_address(const qg_addr *a, const char *ip, uint16_t port) {
    qg_addr expected = at(ip, port);
    CHECK(qg__addr_equal(a, &expected));
}

TEST(frames_of_both_families_are_taken_apart) {
    qg_eth_frame f;
    uint8_t frame[100];
    memcpy(frame, frame_v4, sizeof frame_v4);
    CHECK(qg__eth_parse(frame, sizeof frame_v4, false, 7, &f));
    CHECK_TEXT(f.payload, f.len, "hello");
    CHECK_BYTES(f.mac, sizeof f.mac, theirs, sizeof theirs);
    check_address(&f.from, "192.0.2.1", 40000);
    check_address(&f.to, "198.51.100.2", 4433);
    CHECK(qg__eth_parse(frame, sizeof frame_v4, true, 7, &f));
    check_address(&f.from, "::ffff:192.0.2.1", 40000);
    check_address(&f.to, "::ffff:198.51.100.2", 4433);
    memcpy(frame, frame_v6, sizeof frame_v6);
    CHECK(qg__eth_parse(frame, sizeof frame_v6, true, 7, &f));
    CHECK_TEXT(f.payload, f.len, "hello");
    check_address(&f.from, "2001:db8::1", 40000);
    check_address(&f.to, "2001:db8::2", 4433);
}

/* Byte for byte as the other program made them. */
TEST(frames_of_both_families_are_put_together) {
    uint8_t out[100];
    qg_addr from = at("192.0.2.1", 40000), to = at("198.51.100.2", 4433);
    size_t len =
        qg__eth_write(out, sizeof out, ours, theirs, &from, &to, (const uint8_t *)"hello", 5);
    CHECK_BYTES(out, len, frame_v4, sizeof frame_v4);
    from = at("::ffff:192.0.2.1", 40000), to = at("::ffff:198.51.100.2", 4433);
    len = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, (const uint8_t *)"hello", 5);
    CHECK_BYTES(out, len, frame_v4, sizeof frame_v4);
    CHECK_EQ(qg__eth_packet_size(&to, 5), sizeof frame_v4 - 14);
    from = at("2001:db8::1", 40000), to = at("2001:db8::2", 4433);
    len = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, (const uint8_t *)"hello", 5);
    CHECK_BYTES(out, len, frame_v6, sizeof frame_v6);
    CHECK_EQ(qg__eth_packet_size(&to, 5), sizeof frame_v6 - 14);
}

/* RFC 768: a sum of zero is sent as all ones, since zero says that there is none. */
TEST(a_checksum_that_would_be_zero) {
    uint8_t out[100];
    qg_addr from = at("192.0.2.1", 40000), to = at("198.51.100.2", 4433);
    const uint8_t v4[2] = {0x66, 0x11}, v6[2] = {0xf6, 0xd3};
    size_t len = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, v4, 2);
    CHECK_EQ(qg__get16(out + 40), 0xffff);
    CHECK(parses(out, len));
    from = at("2001:db8::1", 40000), to = at("2001:db8::2", 4433);
    len = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, v6, 2);
    CHECK_EQ(qg__get16(out + 60), 0xffff);
    CHECK(parses(out, len));
}

TEST(what_is_written_is_read_again) {
    static const char *const pairs[][2] = {{"10.0.0.1", "10.0.0.2"},
                                           {"fe80::1%lo", "fe80::2%lo"},
                                           {"2001:db8::7", "2001:db8:ffff::8"}};
    uint64_t state = 5;
    uint8_t payload[1500], out[1500 + QG_ETH_HEADERS_MAX];
    random_bytes(&state, payload, sizeof payload);
    for (size_t len = 0; len <= sizeof payload; len += len < 70 ? 1 : 71) {
        for (int i = 0; i < 3; i++) {
            qg_addr from = at(pairs[i][0], 1), to = at(pairs[i][1], 65535);
            qg_eth_frame f;
            size_t n = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, payload, len);
            CHECK(n > len);
            CHECK(qg__eth_parse(out, n, false, 1, &f)); /* lo's index */
            CHECK_BYTES(f.payload, f.len, payload, len);
            CHECK(qg__addr_equal(&f.from, &from));
            CHECK(qg__addr_equal(&f.to, &to));
        }
    }
}

TEST(what_does_not_fit_is_not_written) {
    uint8_t out[100];
    static uint8_t payload[70000];
    qg_addr v4 = at("192.0.2.1", 1), v6 = at("2001:db8::1", 1);
    CHECK_EQ(qg__eth_write(out, 46, ours, theirs, &v4, &v4, payload, 5), 0);
    CHECK_EQ(qg__eth_write(out, 47, ours, theirs, &v4, &v4, payload, 5), 47);
    CHECK_EQ(qg__eth_write(out, 66, ours, theirs, &v6, &v6, payload, 5), 0);
    CHECK_EQ(qg__eth_write(out, sizeof out, ours, theirs, &v4, &v6, payload, 5), 0);
    CHECK_EQ(qg__eth_write(out, sizeof out, ours, theirs, &v6, &v4, payload, 5), 0);
    CHECK_EQ(qg__eth_write(payload, sizeof payload, ours, theirs, &v4, &v4, out, 0), 42);
    uint8_t *large = malloc(70000);
    CHECK_EQ(qg__eth_write(large, 70000, ours, theirs, &v4, &v4, payload, 65507), 65549);
    CHECK_EQ(qg__eth_write(large, 70000, ours, theirs, &v4, &v4, payload, 65508), 0);
    free(large);
}

/* Padding to the shortest frame is not payload; less than a whole packet is none. */
TEST(lengths) {
    uint8_t frame[200] = {0};
    qg_eth_frame f;
    memcpy(frame, frame_v4, sizeof frame_v4);
    CHECK(parse(frame, 60, &f));
    CHECK_EQ(f.len, 5);
    for (size_t len = 0; len < sizeof frame_v4; len++) {
        CHECK(!parses(frame_v4, len));
    }
    for (size_t len = 0; len < sizeof frame_v6; len++) {
        CHECK(!parses(frame_v6, len));
    }
}

/* Whatever is changed of a packet (its MAC addresses, hop limit and flow label aside, for which IPv6 has no
 * checksum) makes it none of ours. */
TEST(a_changed_bit_is_seen) {
    uint8_t frame[100];
    for (size_t i = 12; i < sizeof frame_v4; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(frame, frame_v4, sizeof frame_v4);
            frame[i] ^= (uint8_t)(1 << bit);
            check_note("byte %zu, bit %d", i, bit);
            CHECK(!parses(frame, sizeof frame_v4));
        }
    }
    for (size_t i = 12; i < sizeof frame_v6; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(frame, frame_v6, sizeof frame_v6);
            frame[i] ^= (uint8_t)(1 << bit);
            bool unsummed = (i == 14 && bit < 4) || (i > 14 && i < 18) || i == 21;
            check_note("IPv6: byte %zu, bit %d", i, bit);
            CHECK_EQ(parses(frame, sizeof frame_v6), unsummed);
        }
    }
}

/* A packet of another namespace of this host, which no card has completed, bears the sum over the pseudo header
 * only. */
TEST(checksums_that_a_card_would_complete) {
    uint8_t v4[sizeof frame_v4], v6[sizeof frame_v6];
    memcpy(v4, frame_v4, sizeof v4);
    memcpy(v6, frame_v6, sizeof v6);
    uint32_t sum = 0; /* the long way */
    for (size_t i = 26; i < 34; i += 2) {
        sum += qg__get16(v4 + i);
    }
    sum += 17 + 13;
    sum = (sum & 0xffff) + (sum >> 16);
    qg__put16(v4 + 40, (uint16_t)sum);
    CHECK(parses(v4, sizeof v4));
    qg__put16(v4 + 40, (uint16_t)(sum ^ 1));
    CHECK(!parses(v4, sizeof v4));
    sum = 17 + 13;
    for (size_t i = 22; i < 54; i += 2) {
        sum += qg__get16(v6 + i);
    }
    sum = (sum & 0xffff) + (sum >> 16);
    qg__put16(v6 + 60, (uint16_t)sum);
    CHECK(parses(v6, sizeof v6));
    qg__put16(v6 + 60, 0); /* RFC 8200, section 8.1: there must be one */
    CHECK(!parses(v6, sizeof v6));
    qg__put16(v4 + 40, 0);
    CHECK(parses(v4, sizeof v4));
}

/* With right checksums, so that nothing else refuses them. */
TEST(senders_that_no_host_is) {
    static const char *const bad[] = {
        "0.0.0.0", "127.0.0.1",        "224.0.0.1", "255.255.255.255",  "::",       "::1",
        "ff02::1", "::ffff:127.0.0.1", "0.1.2.3",   "::ffff:224.1.1.1", "240.0.0.1"};
    uint8_t out[100];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qg_addr from = at(bad[i], 9);
        bool v4 = strchr(bad[i], '.') != NULL;
        qg_addr to = at(v4 ? "192.0.2.1" : "2001:db8::1", 4433);
        size_t n =
            qg__eth_write(out, sizeof out, ours, theirs, &from, &to, (const uint8_t *)"x", 1);
        check_note("%s", bad[i]);
        CHECK(n > 0);
        CHECK(!parses(out, n));
    }
    qg_addr nobody = at("192.0.2.1", 0), to = at("192.0.2.2", 4433); /* nobody to answer */
    size_t n = qg__eth_write(out, sizeof out, ours, theirs, &nobody, &to, (const uint8_t *)"x", 1);
    CHECK(!parses(out, n));
}

/* Found by fuzzing. */
TEST(a_mapped_target_is_none) {
    uint8_t out[100];
    qg_addr from = at("2001:db8::1", 9), to = at("2001:db8::2", 4433);
    size_t n = qg__eth_write(out, sizeof out, ours, theirs, &from, &to, (const uint8_t *)"x", 1);
    uint8_t mapped[16], plain[16];
    to = at("192.0.2.1", 4433);
    qg__eth_ip(&to, mapped);
    memcpy(plain, out + 38, sizeof plain);
    memcpy(out + 38, mapped, sizeof mapped);
    uint32_t sum = (uint16_t)~qg__get16(out + 60);
    for (size_t i = 0; i < sizeof plain; i += 2) {
        sum += (uint16_t)~qg__get16(plain + i) + (uint32_t)qg__get16(mapped + i);
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    qg__put16(out + 60, (uint16_t)~sum); /* a right checksum (RFC 1624) */
    CHECK(!parses(out, n));
    memcpy(out + 38, plain, sizeof plain);
    CHECK(!parses(out, n)); /* it was right for the other one */
}

TEST(addresses_of_no_one_host) {
    static const char *const any[] = {"0.0.0.0", "::", "::ffff:0.0.0.0"};
    static const char *const one[] = {"0.0.0.1", "::1", "::ffff:0.0.0.1", "1::"};
    uint8_t a[16], b[16];
    for (size_t i = 0; i < 3; i++) {
        qg_addr addr = at(any[i], 4433);
        CHECK(qg__eth_any(&addr));
    }
    for (size_t i = 0; i < 4; i++) {
        qg_addr addr = at(one[i], 4433);
        CHECK(!qg__eth_any(&addr));
    }
    qg_addr plain = at("192.0.2.1", 1), mapped = at("::ffff:192.0.2.1", 2);
    qg__eth_ip(&plain, a);
    qg__eth_ip(&mapped, b);
    CHECK_BYTES(a, sizeof a, b, sizeof b);
}

TEST(a_million_bad_frames) {
    uint64_t state = 11;
    uint8_t frame[200];
    uint32_t taken = 0;
    for (int i = 0; i < 1000000; i++) {
        bool v4 = random_below(&state, 2) == 0;
        size_t len = v4 ? sizeof frame_v4 : sizeof frame_v6;
        qg_eth_frame f;
        memcpy(frame, v4 ? frame_v4 : frame_v6, len);
        for (uint64_t n = random_below(&state, 4) + 1; n > 0; n--) {
            frame[random_below(&state, len)] = (uint8_t)random_next(&state);
        }
        len = random_below(&state, 8) == 0 ? random_below(&state, sizeof frame) : len;
        if (qg__eth_parse(frame, len, false, 0, &f)) {
            CHECK(f.payload >= frame && f.payload + f.len <= frame + len);
            taken++;
        }
    }
    CHECK(taken > 0 && taken < 500000); /* those whose MAC address was changed, and their like */
}
