/* token.h: what is sent to peers we hold no state for: Retry tokens and stateless-reset tokens.
 *
 * A Retry token (RFC 9000, section 8.1.2) proves that its bearer received a datagram at its
 * address: 16 key name, 12 nonce, AES-256-GCM of { 8 expiry in wall-clock seconds, 1 length,
 * original destination connection id }, 16 tag with the peer's address and port and our new source
 * connection id as associated data: it is worth nothing at another address, with another connection
 * id, or later.
 *
 * A stateless-reset token (section 10.3) is HMAC-SHA256(reset key, connection id), cut to 16 bytes,
 * so whoever holds the ring can end a connection it knows nothing else about. */
#ifndef QG_TOKEN_H
#define QG_TOKEN_H

#include "base.h"

#define QG_TOKEN_MAX 96
#define QG_TOKEN_VALID_S                                                                           \
    10 /* longer than any round trip and a retransmission; a replay is worth little */
#define QG_RESET_TOKEN 16
#define QG_RESET_ROOM  64 /* no reset that we send is longer */
#define QG_CID_MAX     20 /* RFC 9000, section 17.2 */

/* Seal a Retry token for `peer`. Returns its length (at most QG_TOKEN_MAX), or a result code. */
int qg__token_seal(qg_keys *keys, uint64_t now_s, const qg_addr *peer, const uint8_t *new_scid,
                   size_t new_scid_len, const uint8_t *odcid, size_t odcid_len, uint8_t *out);

/* Open one. Returns the length of the original connection id (*odcid, QG_CID_MAX bytes), or
 * QG_INVALID when it is not ours, altered, for another address or too old. */
int qg__token_open(qg_keys *keys, uint64_t now_s, const qg_addr *peer, const uint8_t *scid,
                   size_t scid_len, const uint8_t *token, size_t token_len, uint8_t *odcid);

void qg__reset_token(qg_keys *keys, const uint8_t *cid, size_t cid_len,
                     uint8_t out[QG_RESET_TOKEN]);

/* Write a stateless reset in answer to a packet of `received` bytes. Returns its length, or 0 when
 * the packet was too short to be answered (RFC 9000, section 10.3.3: an answer is always shorter).
 */
size_t qg__reset_packet(qg_keys *keys, const uint8_t *cid, size_t cid_len, size_t received,
                        uint8_t *out, size_t capacity);

#endif
