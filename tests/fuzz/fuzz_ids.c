/* What strangers' packets carry that we once made: Retry tokens, connection ids, stateless resets;
 * and addresses as text. Nothing opens but what was sealed, for whom it was sealed. */
#include "fuzz.h"

#include <stdlib.h>

#include "check.h"
#include "cid.h"
#include "keys.h"
#include "token.h"

#define NOW 1000

static qg_keys *keys;
static qg_addr peer;

static void strange_token(fuzz_input *in) {
    uint8_t odcid[QG_CID_MAX];
    size_t cid_len, token_len;
    const uint8_t *cid = fuzz_bytes(in, &cid_len), *token = fuzz_bytes(in, &token_len);
    uint8_t *copy = fuzz_copy(token, token_len);
    CHECK_EQ(qg__token_open(keys, NOW, &peer, cid, cid_len, copy, token_len, odcid), QG_INVALID);
    free(copy);
}

static void altered_token(fuzz_input *in) {
    uint8_t token[QG_TOKEN_MAX], odcid[QG_CID_MAX];
    size_t scid_len, odcid_len;
    const uint8_t *scid = fuzz_bytes(in, &scid_len), *id = fuzz_bytes(in, &odcid_len);
    int len = qg__token_seal(keys, NOW, &peer, scid, scid_len, id, odcid_len, token);
    if (scid_len > QG_CID_MAX || odcid_len > QG_CID_MAX) {
        CHECK_EQ(len, QG_INVALID);
        return;
    }
    CHECK(len > 0 && len <= QG_TOKEN_MAX);
    uint8_t at = fuzz_byte(in), by = fuzz_byte(in), later = fuzz_byte(in);
    uint8_t *copy = fuzz_copy(token, (size_t)len);
    copy[at % len] ^= by;
    int rc = qg__token_open(keys, NOW + later, &peer, scid, scid_len, copy, (size_t)len, odcid);
    if (by == 0 && later <= QG_TOKEN_VALID_S) {
        CHECK_EQ(rc, odcid_len);
        CHECK_BYTES(odcid, odcid_len, id, odcid_len);
    } else {
        CHECK_EQ(rc, QG_INVALID);
    }
    free(copy);
}

static void ids(fuzz_input *in) {
    qg_cid_table table;
    qg_cid_origin origin;
    uint32_t index;
    uint8_t issued[40][QG_CID_LEN];
    size_t len, count = 1 + fuzz_byte(in) % 40;
    qg__cid_init(&table, (qg_cid_origin){7, 8, 9});
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(qg__cid_issue(&table, i + 1, issued[i]), QG_OK);
    }
    const uint8_t *strange = fuzz_bytes(in, &len);
    uint8_t *copy = fuzz_copy(strange, len);
    if (qg__cid_read(copy, len, &origin, &index)) {
        CHECK_EQ(len, QG_CID_LEN);
    }
    qg__cid_find(&table, copy, len);
    if (len == QG_CID_LEN) { /* the right place, and other bytes */
        memcpy(copy, issued[0], 8);
        CHECK(qg__cid_find(&table, copy, len) ==
              (memcmp(copy, issued[0], QG_CID_LEN) == 0 ? 1u : 0u));
    }
    qg__cid_retire(&table, copy, len);
    for (size_t i = 1; i < count; i++) {
        CHECK_EQ(qg__cid_find(&table, issued[i], QG_CID_LEN), i + 1);
        qg__cid_retire(&table, issued[i], QG_CID_LEN);
        CHECK_EQ(qg__cid_find(&table, issued[i], QG_CID_LEN), 0);
    }
    free(copy);
    qg__cid_free(&table);
}

static void resets(fuzz_input *in) {
    uint8_t cid[QG_CID_LEN] = {0}, token[QG_RESET_TOKEN], *out;
    size_t received = (size_t)fuzz_byte(in) << 4 | fuzz_byte(in), capacity = fuzz_byte(in);
    cid[0] = fuzz_byte(in);
    out = malloc(capacity + 1);
    size_t n = qg__reset_packet(keys, cid, sizeof cid, received, out, capacity);
    if (n > 0) {
        CHECK(n < received && n <= capacity);
        qg__reset_token(keys, cid, sizeof cid, token);
        CHECK_BYTES(out + n - QG_RESET_TOKEN, QG_RESET_TOKEN, token, QG_RESET_TOKEN);
        CHECK_EQ(out[0] & 0xc0, 0x40);
    }
    free(out);
}

static void addresses(fuzz_input *in) {
    char text[64];
    qg_addr address, again;
    size_t len;
    const uint8_t *bytes = fuzz_bytes(in, &len);
    char *name = malloc(len + 1);
    memcpy(name, bytes, len);
    name[len] = '\0';
    if (qg_addr_parse(&address, name, 443) == QG_OK) {
        CHECK_EQ(qg_addr_format(&address, text, sizeof text), 443);
        CHECK_EQ(qg_addr_parse(&again, text, 443), QG_OK);
        CHECK(strchr(name, '%') != NULL ||
              qg__addr_equal(&address, &again)); /* the text has no zone */
    }
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static void (*const parts[])(fuzz_input *) = {strange_token, altered_token, ids, resets,
                                                  addresses};
    fuzz_input in = {data, data + size};
    if (keys == NULL) { /* once: a constant secret, so that an input does the same in each run */
        keys = qg_keys_new((const uint8_t *)"0123456789abcdef0123456789abcdef", 10, 2, NOW);
        CHECK_EQ(qg_addr_parse(&peer, "192.0.2.1", 4433), QG_OK);
    }
    parts[fuzz_byte(&in) % (sizeof parts / sizeof *parts)](&in);
    return 0;
}
