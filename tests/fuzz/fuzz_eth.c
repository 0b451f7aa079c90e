/* Frames as a stranger sends them past the program of bpf.c: whole ones of any bytes, and packets with right
 * checksums and one wrong thing. What is taken for a datagram lies in the frame, comes from somebody to whom
 * an answer can go, and written again and read again is the same.
 *
 * The input: a byte of flags (1: mapped; 2: mend the checksums; 4: cut), a byte of length to cut, the frame. */
#include "fuzz.h"

#include <stdlib.h>

#include "check.h"
#include "eth.h"

#define FRAME_MAX 2048

static void add(uint32_t *sum, const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++) {
        *sum += (uint32_t)p[i] << (i % 2 == 0 ? 8 : 0);
    }
    *sum = (*sum & 0xffff) + (*sum >> 16);
    *sum = (*sum & 0xffff) + (*sum >> 16);
}

/* Make checksums right, the long way, so that what lies behind them is reached. */
static void mend(uint8_t *frame, size_t len) {
    uint32_t sum = 0;
    if (len < 14 + 20 + 8) {
        return;
    }
    uint8_t *ip = frame + 14;
    bool v4 = frame[12] == 8;
    if (v4) {
        qg__put16(ip + 10, 0);
        add(&sum, ip, 20);
        qg__put16(ip + 10, (uint16_t)~sum);
    } else if (len < 14 + 40 + 8) {
        return;
    }
    uint8_t *udp = ip + (v4 ? 20 : 40);
    size_t udp_len = qg__get16(udp + 4), room = len - (size_t)(udp - frame);
    qg__put16(udp + 6, 0);
    sum = 17 + (uint32_t)udp_len;
    add(&sum, v4 ? ip + 12 : ip + 8, v4 ? 8 : 32);
    add(&sum, udp, udp_len < room ? udp_len : room);
    qg__put16(udp + 6, (uint16_t)~sum);
}

static void again(const qg_eth_frame *f) {
    uint8_t out[FRAME_MAX];
    qg_eth_frame second;
    size_t n = qg__eth_write(out, sizeof out, f->mac, f->mac, &f->to, &f->from, f->payload, f->len);
    if (n == 0) {
        CHECK(f->len + QG_ETH_HEADERS_MAX > sizeof out);
        return;
    }
    CHECK_EQ(qg__eth_packet_size(&f->from, f->len), n - 14);
    /* Our own address may be one that nobody sends from. */
    n = qg__eth_write(out, sizeof out, f->mac, f->mac, &f->from, &f->from, f->payload, f->len);
    CHECK(qg__eth_parse(out, n, f->from.bytes[0] == 10 && f->from.len == 28, 7, &second));
    CHECK_BYTES(second.payload, second.len, f->payload, f->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > FRAME_MAX) {
        return 0;
    }
    size_t len = size - 2;
    uint8_t *frame = fuzz_copy(data + 2, len);
    if (data[0] & 2) {
        mend(frame, len);
    }
    if ((data[0] & 4) && len > data[1]) {
        uint8_t *cut = fuzz_copy(frame, len - data[1]);
        free(frame);
        frame = cut;
        len -= data[1];
    }
    qg_eth_frame f;
    if (qg__eth_parse(frame, len, data[0] & 1, 7, &f)) {
        CHECK(f.payload >= frame && f.payload + f.len <= frame + len);
        CHECK(!qg__eth_any(&f.from));
        CHECK(qg__get16(f.from.bytes + 2) != 0);
        again(&f);
    }
    free(frame);
    return 0;
}
