/* eth.c: frames with UDP in them (RFC 894, 2464; RFC 791, 8200; RFC 768).
 *
 *        0      6      12   14                34    42
 *   IPv4 | to   | from |0800| 45 .. tl .. 17 | UDP | payload | padding
 *        0      6      12   14                54    62
 *   IPv6 | to   | from |86dd| 6. .. pl 17 .. | UDP | payload | padding
 *
 * Options, extension headers, fragments and VLAN tags are not taken: the program in bpf.c leaves them to the
 * system. What is checked here is checked although that program looked at some of it already. */
#include "eth.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define ETH_LEN  14u
#define IPV4_LEN 20u
#define IPV6_LEN 40u
#define UDP_LEN  8u

#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define UDP       17

#define DONT_FRAGMENT 0x4000
#define FRAGMENT      0x3fff /* more to come, or not the first */

/* Hops that a packet may take: what Linux sends with. */
#define HOPS 64

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* ------------------------------------------------------------- checksums (RFC 1071) */

/* In the machine's own byte order, which comes to the same (section 2): 32 bits at a time, their carries in
 * the upper half. */
static uint64_t add_bytes(uint64_t sum, const uint8_t *p, size_t len) {
    uint32_t word;
    for (; len >= 4; len -= 4, p += 4) {
        memcpy(&word, p, 4);
        sum += word;
    }
    word = 0;
    memcpy(&word, p, len);
    return sum + word;
}

static uint16_t fold(uint64_t sum) {
    sum = (sum & UINT32_MAX) + (sum >> 32);
    while (sum > UINT16_MAX) {
        sum = (sum & UINT16_MAX) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* The sum over addresses, protocol and length that goes before UDP's own. */
static uint64_t pseudo_header(const uint8_t *addresses, size_t addresses_len, size_t udp_len) {
    uint8_t rest[4] = {0, UDP};
    qg__put16(rest + 2, (uint16_t)udp_len);
    return add_bytes(add_bytes(0, addresses, addresses_len), rest, sizeof rest);
}

/* Right, or for the card to complete: a packet from another namespace of this host bears the pseudo header's
 * sum only, since it never was on a wire. None at all is IPv4's choice (RFC 768), and not IPv6's (RFC 8200,
 * section 8.1). */
static bool udp_checksum_good(const uint8_t *udp, size_t len, uint64_t pseudo, bool v4) {
    uint16_t field;
    memcpy(&field, udp + 6, sizeof field);
    if (field == 0) {
        return v4;
    }
    return fold(add_bytes(pseudo, udp, len)) == UINT16_MAX || field == fold(pseudo);
}

/* ------------------------------------------------------------- addresses */

static bool carried_by_v4(const uint8_t ip[16]) {
    return memcmp(ip, mapped_prefix, sizeof mapped_prefix) == 0;
}

static bool is_v4(const qg_addr *a) {
    return ((const struct sockaddr *)(const void *)a->bytes)->sa_family == AF_INET;
}

void qg__eth_ip(const qg_addr *addr, uint8_t out[16]) {
    if (is_v4(addr)) {
        memcpy(out, mapped_prefix, sizeof mapped_prefix);
        memcpy(out + 12, addr->bytes + 4, 4);
    } else {
        memcpy(out, addr->bytes + 8, 16);
    }
}

bool qg__eth_v4(const qg_addr *addr) {
    uint8_t ip[16];
    qg__eth_ip(addr, ip);
    return carried_by_v4(ip);
}

bool qg__eth_any(const qg_addr *addr) {
    static const uint8_t none[16];
    uint8_t ip[16];
    qg__eth_ip(addr, ip);
    return memcmp(ip, none, sizeof none) == 0 ||
           (carried_by_v4(ip) && memcmp(ip + 12, none, 4) == 0);
}

static void set_v4(qg_addr *out, bool mapped, const uint8_t ip[4], uint16_t port) {
    *out = (qg_addr){0};
    if (!mapped) {
        struct sockaddr_in *in4 = (struct sockaddr_in *)(void *)out->bytes;
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        memcpy(&in4->sin_addr, ip, 4);
        out->len = sizeof *in4;
        return;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out->bytes;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, mapped_prefix, sizeof mapped_prefix);
    memcpy((uint8_t *)&in6->sin6_addr + 12, ip, 4);
    out->len = sizeof *in6;
}

static void set_v6(qg_addr *out, const uint8_t ip[16], uint16_t port, uint32_t scope) {
    *out = (qg_addr){0};
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)out->bytes;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    memcpy(&in6->sin6_addr, ip, 16);
    in6->sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) ? scope : 0;
    out->len = sizeof *in6;
}

/* Loopback's, multicast, and addresses of nobody come from no host (RFC 1122, section 3.2.1.3). */
static bool sender_v4(const uint8_t ip[4]) {
    return ip[0] != 0 && ip[0] != 127 && ip[0] < 224;
}

static bool sender_v6(const uint8_t ip[16]) {
    static const uint8_t zeros[15];
    bool nobody_or_loopback = memcmp(ip, zeros, 15) == 0 && ip[15] < 2;
    return ip[0] != 0xff && !nobody_or_loopback && !carried_by_v4(ip);
}

/* ------------------------------------------------------------- taking apart */

/* The UDP header at `udp`, with `room` bytes from there on that belong to the packet. */
static bool parse_udp(uint8_t *udp, size_t room, const uint8_t *addresses, bool v4,
                      qg_eth_frame *out) {
    size_t len = room >= UDP_LEN ? qg__get16(udp + 4) : 0;
    if (len < UDP_LEN || len > room || qg__get16(udp) == 0) {
        return false;
    }
    if (!udp_checksum_good(udp, len, pseudo_header(addresses, v4 ? 8 : 32, len), v4)) {
        return false;
    }
    out->payload = udp + UDP_LEN;
    out->len = (uint32_t)(len - UDP_LEN);
    return true;
}

static bool parse_v4(uint8_t *ip, size_t room, bool mapped, qg_eth_frame *out) {
    if (room < IPV4_LEN || ip[0] != 0x45 || ip[9] != UDP) {
        return false;
    }
    size_t total = qg__get16(ip + 2);
    if (total < IPV4_LEN || total > room || (qg__get16(ip + 6) & FRAGMENT) != 0 ||
        fold(add_bytes(0, ip, IPV4_LEN)) != UINT16_MAX || !sender_v4(ip + 12)) {
        return false;
    }
    uint8_t *udp = ip + IPV4_LEN;
    if (!parse_udp(udp, total - IPV4_LEN, ip + 12, true, out)) {
        return false;
    }
    set_v4(&out->from, mapped, ip + 12, qg__get16(udp));
    set_v4(&out->to, mapped, ip + 16, qg__get16(udp + 2));
    return true;
}

static bool parse_v6(uint8_t *ip, size_t room, uint32_t scope, qg_eth_frame *out) {
    if (room < IPV6_LEN || ip[0] >> 4 != 6 || ip[6] != UDP) {
        return false;
    }
    size_t payload = qg__get16(ip + 4);
    /* A mapped address is for sockets, and on no wire (RFC 4038, section 4.2): read as one it would be IPv4's. */
    if (payload > room - IPV6_LEN || !sender_v6(ip + 8) || carried_by_v4(ip + 24)) {
        return false;
    }
    uint8_t *udp = ip + IPV6_LEN;
    if (!parse_udp(udp, payload, ip + 8, false, out)) {
        return false;
    }
    set_v6(&out->from, ip + 8, qg__get16(udp), scope);
    set_v6(&out->to, ip + 24, qg__get16(udp + 2), scope);
    return true;
}

bool qg__eth_parse(uint8_t *bytes, size_t len, bool mapped, uint32_t scope, qg_eth_frame *out) {
    if (len < ETH_LEN) {
        return false;
    }
    memcpy(out->mac, bytes + QG_MAC_LEN, QG_MAC_LEN);
    switch (qg__get16(bytes + 12)) {
    case TYPE_IPV4:
        return parse_v4(bytes + ETH_LEN, len - ETH_LEN, mapped, out);
    case TYPE_IPV6:
        return parse_v6(bytes + ETH_LEN, len - ETH_LEN, scope, out);
    default:
        return false;
    }
}

/* ------------------------------------------------------------- putting together */

static void write_udp(uint8_t *udp, const qg_addr *from, const qg_addr *to, const uint8_t *payload,
                      size_t len, const uint8_t *addresses, size_t addresses_len) {
    memcpy(udp, from->bytes + 2, 2); /* ports stand at the same place in both families */
    memcpy(udp + 2, to->bytes + 2, 2);
    qg__put16(udp + 4, (uint16_t)(UDP_LEN + len));
    qg__put16(udp + 6, 0);
    memcpy(udp + UDP_LEN, payload, len);
    uint64_t pseudo = pseudo_header(addresses, addresses_len, UDP_LEN + len);
    uint16_t sum = (uint16_t)~fold(add_bytes(pseudo, udp, UDP_LEN + len));
    if (sum == 0) {
        sum = UINT16_MAX; /* 0 says that there is none */
    }
    memcpy(udp + 6, &sum, sizeof sum);
}

static void write_v4(uint8_t *ip, const uint8_t from[16], const uint8_t to[16], size_t udp_len) {
    memset(ip, 0, IPV4_LEN);
    ip[0] = 0x45;
    qg__put16(ip + 2, (uint16_t)(IPV4_LEN + udp_len));
    qg__put16(ip + 6, DONT_FRAGMENT); /* so the identification may be 0 (RFC 6864, section 4) */
    ip[8] = HOPS;
    ip[9] = UDP;
    memcpy(ip + 12, from + 12, 4);
    memcpy(ip + 16, to + 12, 4);
    uint16_t sum = (uint16_t)~fold(add_bytes(0, ip, IPV4_LEN));
    memcpy(ip + 10, &sum, sizeof sum);
}

static void write_v6(uint8_t *ip, const uint8_t from[16], const uint8_t to[16], size_t udp_len) {
    memset(ip, 0, IPV6_LEN);
    ip[0] = 0x60;
    qg__put16(ip + 4, (uint16_t)udp_len);
    ip[6] = UDP;
    ip[7] = HOPS;
    memcpy(ip + 8, from, 16);
    memcpy(ip + 24, to, 16);
}

size_t qg__eth_packet_size(const qg_addr *to, size_t len) {
    return (qg__eth_v4(to) ? IPV4_LEN : IPV6_LEN) + UDP_LEN + len;
}

size_t qg__eth_write(uint8_t *out, size_t capacity, const uint8_t mac_to[QG_MAC_LEN],
                     const uint8_t mac_from[QG_MAC_LEN], const qg_addr *from, const qg_addr *to,
                     const uint8_t *payload, size_t len) {
    uint8_t source[16], target[16];
    qg__eth_ip(from, source);
    qg__eth_ip(to, target);
    bool v4 = carried_by_v4(target);
    size_t packet = (v4 ? IPV4_LEN : IPV6_LEN) + UDP_LEN + len;
    if (v4 != carried_by_v4(source) || packet > UINT16_MAX || ETH_LEN + packet > capacity) {
        return 0;
    }
    memcpy(out, mac_to, QG_MAC_LEN);
    memcpy(out + QG_MAC_LEN, mac_from, QG_MAC_LEN);
    qg__put16(out + 12, v4 ? TYPE_IPV4 : TYPE_IPV6);
    uint8_t *ip = out + ETH_LEN;
    if (v4) {
        write_v4(ip, source, target, UDP_LEN + len);
        write_udp(ip + IPV4_LEN, from, to, payload, len, ip + 12, 8);
    } else {
        write_v6(ip, source, target, UDP_LEN + len);
        write_udp(ip + IPV6_LEN, from, to, payload, len, ip + 8, 32);
    }
    return ETH_LEN + packet;
}
