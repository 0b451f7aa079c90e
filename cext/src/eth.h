/* eth.h: Ethernet frames that carry a UDP datagram over IPv4 or IPv6, taken apart and put together. Bytes and
 * addresses only; no system calls, no state. */
#ifndef QG_ETH_H
#define QG_ETH_H

#include "base.h"

#define QG_MAC_LEN 6

/* Ethernet, IPv6, UDP: what stands before a payload at most. */
#define QG_ETH_HEADERS_MAX 62

typedef struct qg_eth_frame {
    uint8_t *payload; /* in the frame */
    uint32_t len;
    uint8_t mac[QG_MAC_LEN]; /* of the neighbour who sent it: the peer, or a router */
    qg_addr from, to;
} qg_eth_frame;

/* Take a frame apart. With `mapped` IPv4 addresses are given as a socket for both families has them
 * (::ffff:1.2.3.4); `scope` is the interface, which link-local addresses bear. False, and nothing in *out to
 * be used: it is anything else than one whole datagram with right lengths and checksums, from an address that
 * a host can have. */
bool qg__eth_parse(uint8_t *bytes, size_t len, bool mapped, uint32_t scope, qg_eth_frame *out);

/* Write a whole frame with `len` bytes of payload at `out`, which has `capacity` bytes. Mapped addresses are
 * IPv4's. Returns its length; 0: it has no room, or the addresses are not of one family. */
size_t qg__eth_write(uint8_t *out, size_t capacity, const uint8_t mac_to[QG_MAC_LEN],
                     const uint8_t mac_from[QG_MAC_LEN], const qg_addr *from, const qg_addr *to,
                     const uint8_t *payload, size_t len);

/* The IP packet in a frame with that much payload to this address, in bytes: what an MTU bounds. */
size_t qg__eth_packet_size(const qg_addr *to, size_t len);

/* The address alone, 16 bytes, IPv4's mapped; the same for both forms that an address may have. */
void qg__eth_ip(const qg_addr *addr, uint8_t out[16]);

/* Is it IPv4's, mapped or not? */
bool qg__eth_v4(const qg_addr *addr);

/* Is it the address of no one host, in any of its forms? */
bool qg__eth_any(const qg_addr *addr);

#endif
