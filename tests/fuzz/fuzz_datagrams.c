/* Datagrams from anywhere into a server and into a client: raw bytes, long headers of the form that
 * is looked at, Initials that decrypt, packets for known connection ids, and the real ones of a
 * handshake with changes.
 *
 * The input: a byte of how, then operations. */
#include "fuzz.h"

#include <openssl/aead.h>
#include <openssl/aes.h>
#include <openssl/digest.h>
#include <openssl/hkdf.h>
#include <stdlib.h>

#include "harness.h"

#define OPS_MAX     60
#define INITIAL_LEN 1200

/* ---------------------------------------------------------------- Initials (RFC 9001, section 5.2)
 */

static void expand(const uint8_t *secret, const char *label, uint8_t *out, size_t len) {
    uint8_t info[40];
    size_t n = strlen(label);
    info[0] = 0;
    info[1] = (uint8_t)len;
    info[2] = (uint8_t)(6 + n);
    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, n);
    info[9 + n] = 0;
    CHECK(HKDF_expand(out, len, EVP_sha256(), secret, 32, info, 10 + n) == 1);
}

/* A client's Initial with these frames, padded to INITIAL_LEN. */
static void seal_initial(const uint8_t *dcid, size_t dcid_len, const uint8_t *token,
                         size_t token_len, const uint8_t *frames, size_t len, uint8_t *out) {
    static const uint8_t salt[20] = {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
                                     0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a};
    uint8_t initial[32], client[32], key[16], iv[12], hp[16], mask[16];
    uint8_t plain[INITIAL_LEN] = {0}, header[128];
    size_t at = 0, secret_len, sealed = 0;
    CHECK(HKDF_extract(initial, &secret_len, EVP_sha256(), dcid, dcid_len, salt, sizeof salt) == 1);
    expand(initial, "client in", client, sizeof client);
    expand(client, "quic key", key, sizeof key);
    expand(client, "quic iv", iv, sizeof iv);
    expand(client, "quic hp", hp, sizeof hp);

    header[at++] = 0xc3; /* Initial, four bytes of packet number */
    qg__put32(header + at, 1);
    at += 4;
    header[at++] = (uint8_t)dcid_len;
    memcpy(header + at, dcid, dcid_len);
    at += dcid_len;
    header[at++] = 4;
    memcpy(header + at, "scid", 4);
    at += 4;
    at += qg__varint_put(header + at, token_len);
    memcpy(header + at, token, token_len);
    at += token_len;
    size_t payload = INITIAL_LEN - at - 2 - 4 - 16;
    qg__put16(header + at, (uint16_t)(0x4000 | (4 + payload + 16)));
    at += 2;
    qg__put32(header + at, 0); /* packet number 0: the nonce is the IV */
    at += 4;

    memcpy(plain, frames, len < payload ? len : payload);
    EVP_AEAD_CTX ctx;
    CHECK(EVP_AEAD_CTX_init(&ctx, EVP_aead_aes_128_gcm(), key, 16, 16, NULL) == 1);
    CHECK(EVP_AEAD_CTX_seal(&ctx, out + at, &sealed, INITIAL_LEN - at, iv, 12, plain, payload,
                            header, at) == 1);
    EVP_AEAD_CTX_cleanup(&ctx);
    CHECK_EQ(at + sealed, INITIAL_LEN);

    AES_KEY aes;
    AES_set_encrypt_key(hp, 128, &aes);
    AES_encrypt(out + at, mask, &aes); /* the sample begins four bytes after the number does */
    header[0] ^= mask[0] & 0x0f;
    for (size_t i = 0; i < 4; i++) {
        header[at - 4 + i] ^= mask[1 + i];
    }
    memcpy(out, header, at);
}

/* ---------------------------------------------------------------- packets on their way */

/* What befalls the next packets of one direction. */
typedef struct fate {
    uint8_t what[8]; /* 0 pass, odd: drop, even: change a byte */
    uint8_t at[8], by[8];
    unsigned begin, end;
} fate;

static bool befall(void *arg, uint8_t *data, size_t len) {
    fate *f = arg;
    if (f->begin == f->end) {
        return true;
    }
    unsigned i = f->begin++ % 8;
    if (f->what[i] & 1) {
        return false;
    }
    data[f->what[i] & 2 ? f->at[i] % len : f->at[i] * len / 256] ^= f->by[i];
    return true;
}

static void plan(fate *f, fuzz_input *in) {
    if (f->end - f->begin < 8) {
        unsigned i = f->end++ % 8;
        f->what[i] = fuzz_byte(in);
        f->at[i] = fuzz_byte(in);
        f->by[i] = fuzz_byte(in);
    }
}

typedef struct scene {
    rig rig;
    fate to_server, to_client;
    uint64_t server_conn;
} scene;

static void inject(scene *s, bool to_server, const uint8_t *bytes, size_t len, uint8_t from) {
    side *into = to_server ? &s->rig.server : &s->rig.client;
    qg_addr source = to_server ? s->rig.client_addr : s->rig.server_addr;
    source.bytes[3] ^= from & 3; /* now and then from another port */
    uint8_t *copy = fuzz_copy(bytes, len);
    CHECK_EQ(qg_engine_inject(into->engine, into->endpoint, copy, len, &source,
                              to_server ? &s->rig.server_addr : &s->rig.client_addr),
             QG_OK);
    free(copy);
}

/* Bytes as they are, at the front of as many as a stranger must send to be heard. */
static void inject_padded(scene *s, const uint8_t *bytes, size_t len, uint8_t from) {
    uint8_t packet[INITIAL_LEN] = {0};
    memcpy(packet, bytes, len);
    inject(s, true, packet, sizeof packet, from);
}

static void inject_long(scene *s, fuzz_input *in, uint8_t how, uint8_t from) {
    uint8_t packet[INITIAL_LEN] = {(uint8_t)(0xc0 | how), 0, 0, 0, 1};
    size_t len, at = 5;
    for (int i = 0; i < 3; i++) { /* two connection ids, a token */
        const uint8_t *bytes = fuzz_bytes(in, &len);
        packet[at++] = (uint8_t)(i < 2 ? len : len & 0x3f);
        memcpy(packet + at, bytes, len);
        at += len;
    }
    inject(s, (how & 0x40) == 0, packet, sizeof packet, from);
}

static void inject_initial(scene *s, fuzz_input *in, uint8_t from) {
    uint8_t packet[INITIAL_LEN];
    size_t id_len, token_len, len;
    const uint8_t *id = fuzz_bytes(in, &id_len), *token = fuzz_bytes(in, &token_len);
    const uint8_t *frames = fuzz_bytes(in, &len);
    seal_initial(id, id_len < 20 ? id_len : 20, token, token_len < 60 ? token_len : 60, frames, len,
                 packet);
    inject(s, true, packet, sizeof packet, from);
}

/* A short header with the id of a connection that is there, or nearly. */
static void inject_short(scene *s, fuzz_input *in, bool to_server, uint8_t from) {
    uint8_t packet[1 + QG_CID_LEN + 256] = {0x40};
    side *into = to_server ? &s->rig.server : &s->rig.client;
    qg_conn *conn = qg__engine_conn(into->engine, to_server ? s->server_conn : s->rig.conn);
    size_t len;
    const uint8_t *bytes = fuzz_bytes(in, &len);
    if (conn != NULL) {
        memcpy(packet + 1, conn->cids[0], QG_CID_LEN);
        packet[1 + from % QG_CID_LEN] ^= from >> 4 & 1;
    }
    packet[0] |= from & 0x3f;
    memcpy(packet + 1 + QG_CID_LEN, bytes, len);
    inject(s, to_server, packet, 1 + QG_CID_LEN + len, from & 3);
}

static void step(scene *s, fuzz_input *in) {
    uint8_t op = fuzz_byte(in), from = fuzz_byte(in);
    size_t len;
    const uint8_t *bytes;
    const seen *e;
    switch (op % 9) {
    case 0:
        bytes = fuzz_bytes(in, &len);
        inject(s, (op & 0x80) == 0, bytes, len, from);
        break;
    case 1:
        bytes = fuzz_bytes(in, &len);
        inject_padded(s, bytes, len, from);
        break;
    case 2:
        inject_long(s, in, fuzz_byte(in), from);
        break;
    case 3:
        inject_initial(s, in, from);
        break;
    case 4:
        inject_short(s, in, (op & 0x80) == 0, from);
        break;
    case 5:
        plan(&s->to_server, in);
        break;
    case 6:
        plan(&s->to_client, in);
        break;
    case 7:
        if (s->rig.conn != 0) {
            request(&s->rig, 77, "GET", "/", NULL, 0, QG_FIN);
        }
        break;
    default:
        side_turn(&s->rig.client);
        side_turn(&s->rig.server);
        if ((e = take_event(&s->rig.server, QG_EVENT_ACCEPTED)) != NULL) {
            s->server_conn = e->event.conn;
        }
        answer_all(&s->rig.server);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, data + size};
    scene s = {0};
    rig_options o;
    uint8_t how = fuzz_byte(&in);
    rig_defaults(&o);
    o.listen.retry = how & 1 ? QG_RETRY_ALWAYS : QG_RETRY_NEVER;
    o.listen.max_connections = how & 2 ? 2 : 1000;
    rig_open(&s.rig, &o);
    qg__pair_set_filter(datapath_of(&s.rig.client), befall, &s.to_server);
    qg__pair_set_filter(datapath_of(&s.rig.server), befall, &s.to_client);
    s.rig.conn = rig_dial(&s.rig);
    for (unsigned ops = 0; in.at < in.end && ops < OPS_MAX; ops++) {
        step(&s, &in);
    }
    turn(&s.rig);
    if (how & 4) {
        qg_listen_close(s.rig.server.engine, s.rig.server.endpoint, 0x100);
        turn(&s.rig);
    }
    rig_close(&s.rig);
    return 0;
}
