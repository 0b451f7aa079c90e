#include "token.h"

#include <openssl/aead.h>
#include <openssl/digest.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#define NAME  16
#define NONCE 12
#define PLAIN (8 + 1 + QG_CID_MAX)

/* A stateless reset of this length looks like the packets we send (RFC 9000, section 10.3). */
#define RESET_LENGTH 43
#define RESET_MIN    21

/* The address without its padding and flow label, then the connection id. */
static size_t associated_data(const qg_addr *peer, const uint8_t *cid, size_t cid_len,
                              uint8_t out[64]) {
    size_t n = 0;
    bool v4 = peer->len == 16;
    memcpy(out, peer->bytes, 4); /* family and port */
    n += 4;
    memcpy(out + n, peer->bytes + (v4 ? 4 : 8), v4 ? 4 : 16);
    n += v4 ? 4 : 16;
    memcpy(out + n, cid, cid_len);
    return n + cid_len;
}

static bool open_context(EVP_AEAD_CTX *ctx, const qg_key *key) {
    EVP_AEAD_CTX_zero(ctx);
    return EVP_AEAD_CTX_init(ctx, EVP_aead_aes_256_gcm(), key->secret, 32,
                             EVP_AEAD_DEFAULT_TAG_LENGTH, NULL) == 1;
}

int qg__token_seal(qg_keys *keys, uint64_t now_s, const qg_addr *peer, const uint8_t *new_scid,
                   size_t new_scid_len, const uint8_t *odcid, size_t odcid_len, uint8_t *out) {
    qg_key key;
    EVP_AEAD_CTX ctx;
    uint8_t ad[64], plain[PLAIN];
    if (odcid_len > QG_CID_MAX || new_scid_len > QG_CID_MAX ||
        qg_keys_current(keys, QG_KEY_RETRY, &key) != QG_OK || !open_context(&ctx, &key)) {
        return QG_INVALID;
    }
    qg__put64(plain, now_s + QG_TOKEN_VALID_S);
    plain[8] = (uint8_t)odcid_len;
    memcpy(plain + 9, odcid, odcid_len);
    memcpy(out, key.name, NAME);
    RAND_bytes(out + NAME, NONCE);
    size_t sealed = 0;
    int ok = EVP_AEAD_CTX_seal(&ctx, out + NAME + NONCE, &sealed, QG_TOKEN_MAX - NAME - NONCE,
                               out + NAME, NONCE, plain, 9 + odcid_len, ad,
                               associated_data(peer, new_scid, new_scid_len, ad));
    EVP_AEAD_CTX_cleanup(&ctx);
    return ok == 1 ? (int)(NAME + NONCE + sealed) : QG_TLS;
}

int qg__token_open(qg_keys *keys, uint64_t now_s, const qg_addr *peer, const uint8_t *scid,
                   size_t scid_len, const uint8_t *token, size_t token_len, uint8_t *odcid) {
    qg_key key;
    EVP_AEAD_CTX ctx;
    uint8_t ad[64], plain[QG_TOKEN_MAX];
    if (token_len < NAME + NONCE || token_len > QG_TOKEN_MAX || scid_len > QG_CID_MAX ||
        qg_keys_find(keys, QG_KEY_RETRY, token, &key) < 0 || !open_context(&ctx, &key)) {
        return QG_INVALID;
    }
    size_t len = 0;
    int ok = EVP_AEAD_CTX_open(&ctx, plain, &len, sizeof plain, token + NAME, NONCE,
                               token + NAME + NONCE, token_len - NAME - NONCE, ad,
                               associated_data(peer, scid, scid_len, ad));
    EVP_AEAD_CTX_cleanup(&ctx);
    if (ok != 1 || len < 9 || len != 9u + plain[8] || plain[8] > QG_CID_MAX ||
        qg__get64(plain) < now_s || qg__get64(plain) > now_s + QG_TOKEN_VALID_S) {
        return QG_INVALID;
    }
    memcpy(odcid, plain + 9, plain[8]);
    return plain[8];
}

void qg__reset_token(qg_keys *keys, const uint8_t *cid, size_t cid_len,
                     uint8_t out[QG_RESET_TOKEN]) {
    qg_key key;
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len;
    qg_keys_current(keys, QG_KEY_RESET, &key);
    HMAC(EVP_sha256(), key.secret, 32, cid, cid_len, digest, &len);
    memcpy(out, digest, QG_RESET_TOKEN);
}

size_t qg__reset_packet(qg_keys *keys, const uint8_t *cid, size_t cid_len, size_t received,
                        uint8_t *out, size_t capacity) {
    if (received <= RESET_MIN || capacity < RESET_LENGTH) {
        return 0;
    }
    size_t len = received - 1 < RESET_LENGTH ? received - 1 : RESET_LENGTH;
    RAND_bytes(out, len - QG_RESET_TOKEN);
    out[0] = (uint8_t)((out[0] & 0x3f) | 0x40); /* a short header */
    qg__reset_token(keys, cid, cid_len, out + len - QG_RESET_TOKEN);
    return len;
}
