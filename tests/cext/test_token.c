#include "check.h"
#include "keys.h"
#include "token.h"

#include <netinet/in.h>

#define NOW UINT64_C(1700000000)

static const uint8_t odcid[QG_CID_MAX] = "original-destination";
static const uint8_t scid[12] = "source-cid-1";

typedef struct sealed {
    qg_keys *keys;
    qg_addr peer;
    uint8_t token[QG_TOKEN_MAX];
    size_t len;
} sealed;

static sealed seal(const char *ip, size_t odcid_len) {
    sealed s = {.keys = qg_keys_new(NULL, 10, 2, NOW)};
    CHECK_EQ(qg_addr_parse(&s.peer, ip, 4433), QG_OK);
    int n = qg__token_seal(s.keys, NOW, &s.peer, scid, sizeof scid, odcid, odcid_len, s.token);
    CHECK(n > 0 && n <= QG_TOKEN_MAX);
    s.len = (size_t)n;
    return s;
}

static int open_at(const sealed *s, uint64_t now_s, const qg_addr *peer, uint8_t *out) {
    return qg__token_open(s->keys, now_s, peer, scid, sizeof scid, s->token, s->len, out);
}

TEST(a_token_opens_for_every_length_of_id) {
    for (size_t len = 0; len <= QG_CID_MAX; len++) {
        uint8_t out[QG_CID_MAX];
        sealed s = seal(len % 2 == 0 ? "192.0.2.1" : "2001:db8::1", len);
        CHECK_EQ(open_at(&s, NOW, &s.peer, out), len);
        CHECK_BYTES(out, len, odcid, len);
        qg_keys_free(s.keys);
    }
}

TEST(ids_that_are_too_long_are_not_sealed) {
    sealed s = seal("192.0.2.1", 8);
    uint8_t long_id[QG_CID_MAX + 1] = {0}, out[QG_TOKEN_MAX];
    CHECK(qg__token_seal(s.keys, NOW, &s.peer, scid, sizeof scid, long_id, 21, out) < 0);
    CHECK(qg__token_seal(s.keys, NOW, &s.peer, long_id, 21, odcid, 8, out) < 0);
    CHECK_EQ(qg__token_open(s.keys, NOW, &s.peer, long_id, 21, s.token, s.len, out), QG_INVALID);
    qg_keys_free(s.keys);
}

TEST(any_altered_bit_is_noticed) {
    uint8_t out[QG_CID_MAX];
    sealed s = seal("192.0.2.1", QG_CID_MAX);
    for (size_t bit = 0; bit < 8 * s.len; bit++) {
        check_note("bit %zu", bit);
        s.token[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_EQ(open_at(&s, NOW, &s.peer, out), QG_INVALID);
        s.token[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_EQ(open_at(&s, NOW, &s.peer, out), QG_CID_MAX);
    qg_keys_free(s.keys);
}

TEST(any_other_length_is_refused) {
    uint8_t out[QG_CID_MAX], longer[200] = {0};
    sealed s = seal("192.0.2.1", 8);
    memcpy(longer, s.token, s.len);
    for (size_t len = 0; len < sizeof longer; len++) {
        int n = qg__token_open(s.keys, NOW, &s.peer, scid, sizeof scid, longer, len, out);
        CHECK_EQ(n, len == s.len ? 8 : QG_INVALID);
    }
    qg_keys_free(s.keys);
}

TEST(another_address_is_refused) {
    static const char *const others[] = {"192.0.2.2", "2001:db8::1", "::ffff:192.0.2.1"};
    uint8_t out[QG_CID_MAX];
    sealed s = seal("192.0.2.1", 8);
    qg_addr other;
    for (size_t i = 0; i < 3; i++) {
        qg_addr_parse(&other, others[i], 4433);
        CHECK_EQ(open_at(&s, NOW, &other, out), QG_INVALID);
    }
    qg_addr_parse(&other, "192.0.2.1", 4434);
    CHECK_EQ(open_at(&s, NOW, &other, out), QG_INVALID);
    qg_keys_free(s.keys);
    s = seal("2001:db8::1", 8);
    qg_addr_parse(&other, "2001:db8::2", 4433);
    CHECK_EQ(open_at(&s, NOW, &other, out), QG_INVALID);
    qg_keys_free(s.keys);
}

/* The system may fill these in differently from one datagram to the next. */
TEST(padding_and_flow_label_do_not_count) {
    uint8_t out[QG_CID_MAX];
    sealed s = seal("192.0.2.1", 8);
    memset(s.peer.bytes + 8, 0xaa, 8); /* sin_zero */
    CHECK_EQ(open_at(&s, NOW, &s.peer, out), 8);
    qg_keys_free(s.keys);
    s = seal("2001:db8::1", 8);
    ((struct sockaddr_in6 *)(void *)s.peer.bytes)->sin6_flowinfo = 77;
    CHECK_EQ(open_at(&s, NOW, &s.peer, out), 8);
    qg_keys_free(s.keys);
}

TEST(another_connection_id_is_refused) {
    uint8_t out[QG_CID_MAX], other[12];
    sealed s = seal("192.0.2.1", 8);
    memcpy(other, scid, sizeof other);
    other[11] ^= 1;
    CHECK_EQ(qg__token_open(s.keys, NOW, &s.peer, other, 12, s.token, s.len, out), QG_INVALID);
    CHECK_EQ(qg__token_open(s.keys, NOW, &s.peer, scid, 11, s.token, s.len, out), QG_INVALID);
    CHECK_EQ(qg__token_open(s.keys, NOW, &s.peer, scid, 0, s.token, s.len, out), QG_INVALID);
    qg_keys_free(s.keys);
}

TEST(a_token_is_good_for_its_time_only) {
    uint8_t out[QG_CID_MAX];
    sealed s = seal("192.0.2.1", 8);
    CHECK_EQ(open_at(&s, NOW + QG_TOKEN_VALID_S, &s.peer, out), 8);
    CHECK_EQ(open_at(&s, NOW + QG_TOKEN_VALID_S + 1, &s.peer, out), QG_INVALID);
    CHECK_EQ(open_at(&s, NOW - 1, &s.peer, out), QG_INVALID); /* sealed in the future */
    qg_keys_free(s.keys);
}

TEST(it_outlives_one_rotation_of_the_ring) {
    uint8_t out[QG_CID_MAX];
    sealed s = seal("192.0.2.1", 8);
    qg_keys_rotate(s.keys, NOW + 10);
    CHECK_EQ(open_at(&s, NOW + 10, &s.peer, out), 8);
    qg_keys_rotate(s.keys, NOW + 20);
    CHECK_EQ(open_at(&s, NOW + 10, &s.peer, out), QG_INVALID);
    qg_keys_free(s.keys);
}

TEST(another_ring_is_refused_and_no_two_tokens_are_equal) {
    uint8_t out[QG_CID_MAX];
    sealed a = seal("192.0.2.1", 8), b = seal("192.0.2.1", 8);
    CHECK_EQ(qg__token_open(b.keys, NOW, &a.peer, scid, sizeof scid, a.token, a.len, out),
             QG_INVALID);
    uint8_t again[QG_TOKEN_MAX];
    int n = qg__token_seal(a.keys, NOW, &a.peer, scid, sizeof scid, odcid, 8, again);
    CHECK_EQ(n, a.len);
    CHECK(memcmp(again, a.token, a.len) != 0);
    qg_keys_free(a.keys);
    qg_keys_free(b.keys);
}

TEST(reset_tokens_follow_from_ring_and_id) {
    static const uint8_t secret[32] = {1};
    qg_keys *keys = qg_keys_new(secret, 10, 2, 0), *twin = qg_keys_new(secret, 10, 2, 0);
    qg_keys *other = qg_keys_new(NULL, 10, 2, 0);
    uint8_t a[QG_RESET_TOKEN], b[QG_RESET_TOKEN];
    qg__reset_token(keys, scid, sizeof scid, a);
    qg_keys_rotate(twin, 1000);
    qg__reset_token(twin, scid, sizeof scid, b);
    CHECK_BYTES(a, sizeof a, b, sizeof b);
    qg__reset_token(other, scid, sizeof scid, b);
    CHECK(memcmp(a, b, sizeof a) != 0);
    qg__reset_token(keys, odcid, sizeof scid, b);
    CHECK(memcmp(a, b, sizeof a) != 0);
    qg_keys_free(keys);
    qg_keys_free(twin);
    qg_keys_free(other);
}

/* RFC 9000, sections 10.3 and 10.3.3: at least 21 bytes, and less than what it answers. */
TEST(reset_packets_have_the_right_length) {
    qg_keys *keys = qg_keys_new(NULL, 10, 2, 0);
    uint8_t out[64], token[QG_RESET_TOKEN];
    qg__reset_token(keys, scid, sizeof scid, token);
    for (size_t received = 0; received < 1500; received++) {
        memset(out, 0, sizeof out);
        size_t n = qg__reset_packet(keys, scid, sizeof scid, received, out, sizeof out);
        CHECK_EQ(n, received < 22 ? 0 : received < 44 ? received - 1 : 43);
        if (n > 0) {
            CHECK_EQ(out[0] & 0xc0, 0x40); /* as a short header */
            CHECK_BYTES(out + n - QG_RESET_TOKEN, QG_RESET_TOKEN, token, sizeof token);
        }
    }
    CHECK_EQ(qg__reset_packet(keys, scid, sizeof scid, 1200, out, 42), 0);
    CHECK_EQ(qg__reset_packet(keys, scid, sizeof scid, 1200, out, 43), 43);
    qg_keys_free(keys);
}

TEST(reset_packets_look_random) {
    qg_keys *keys = qg_keys_new(NULL, 10, 2, 0);
    uint8_t a[64], b[64];
    qg__reset_packet(keys, scid, sizeof scid, 1200, a, sizeof a);
    qg__reset_packet(keys, scid, sizeof scid, 1200, b, sizeof b);
    CHECK(memcmp(a, b, 43 - QG_RESET_TOKEN) != 0);
    qg_keys_free(keys);
}
