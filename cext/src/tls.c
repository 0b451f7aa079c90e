#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "keys.h"
#include "replay.h"

/* Where a context keeps the qg_tls it belongs to, and an SSL its qg_handshake. */
static int tls_index, handshake_index;
static pthread_once_t index_once = PTHREAD_ONCE_INIT;

static void make_indexes(void) {
    tls_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    handshake_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

static qg_tls *tls_of(const SSL *ssl) {
    return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), tls_index);
}

/* ------------------------------------------------------------- callbacks (inside quiche_conn_recv)
 */

static int select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in,
                       unsigned in_len, void *arg) {
    (void)arg;
    const qg_tls *tls = tls_of(ssl);
    uint8_t *chosen;
    /* The server's preference decides. */
    if (SSL_select_next_proto(&chosen, out_len, tls->alpn, (unsigned)tls->alpn_len, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* A session counts only under the name and the trust it was made with: else a ticket of a.test
 * would resume under b.test, past b.test's demand for a client certificate. */
static enum ssl_select_cert_result_t select_certificate(const SSL_CLIENT_HELLO *hello) {
    const qg_tls *tls = tls_of(hello->ssl);
    const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, tls->trust, sizeof tls->trust);
    if (name != NULL) {
        SHA256_Update(&sha, name, strlen(name));
    }
    SHA256_Final(digest, &sha);
    SSL_set_session_id_context(hello->ssl, digest, sizeof digest);
    const uint8_t *extension;
    size_t len;
    qg_handshake *handshake = SSL_get_ex_data(hello->ssl, handshake_index);
    handshake->early_offered =
        SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_early_data, &extension, &len) == 1;
    return ssl_select_cert_success;
}

/* Early data is taken once for each ClientHello. A second one resumes all the same: what is refused is
 * what could be replayed. */
static void register_early_data(SSL *ssl) {
    const qg_tls *tls = tls_of(ssl);
    qg_handshake *handshake = SSL_get_ex_data(ssl, handshake_index);
    uint8_t random[SSL3_RANDOM_SIZE];
    if (tls->replay == NULL || !handshake->early_offered || handshake->early_entered) {
        return;
    }
    handshake->early_entered = true; /* this may be called for each ticket that a client offers */
    SSL_get_client_random(ssl, random, sizeof random);
    if (!qg__replay_first(tls->replay, random)) {
        SSL_set_early_data_enabled(ssl, 0);
    }
}

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    qg__session_keep(SSL_get_ex_data(ssl, handshake_index), ssl, session);
    return 0; /* it stays BoringSSL's */
}

static int seal_ticket(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac,
                       int encrypt) {
    qg_keys *keys = tls_of(ssl)->keys;
    qg_key key;
    int found;
    qg_keys_rotate(keys, qg__wall_s());
    if (encrypt) {
        if (qg_keys_current(keys, QG_KEY_TICKET, &key) != QG_OK || !RAND_bytes(iv, 16)) {
            return -1;
        }
        memcpy(name, key.name, sizeof key.name);
        found = 0;
    } else {
        found = qg_keys_find(keys, QG_KEY_TICKET, name, &key);
        if (found < 0) {
            return 0; /* not ours, or too old: a full handshake */
        }
        register_early_data(ssl);
    }
    int (*init)(EVP_CIPHER_CTX *, const EVP_CIPHER *, ENGINE *, const uint8_t *, const uint8_t *) =
        encrypt ? EVP_EncryptInit_ex : EVP_DecryptInit_ex;
    if (!init(cipher, EVP_aes_256_cbc(), NULL, key.secret, iv) ||
        !HMAC_Init_ex(hmac, key.secret + 32, 32, EVP_sha256(), NULL)) {
        return -1;
    }
    return found == 0 ? 1 : 2;
}

static void write_keylog(const SSL *ssl, const char *line) {
    const qg_tls *tls = tls_of(ssl);
    char text[512];
    int n = snprintf(text, sizeof text, "%s\n", line);
    if (n > 0 && (size_t)n < sizeof text) {
        /* One write, so that lines of several processes stay whole; a failure costs a debugging
         * aid. */
        ssize_t ignored = write(tls->keylog_fd, text, (size_t)n);
        (void)ignored;
    }
}

/* ------------------------------------------------------------- contexts */

/* BoringSSL's reasons are the names of its constants; those that files of users give are words here. */
static const char *reason_of(uint32_t code) {
    int lib = ERR_GET_LIB(code), reason = ERR_GET_REASON(code);
    if ((lib == ERR_LIB_PEM && reason == PEM_R_NO_START_LINE) ||
        (lib == ERR_LIB_X509 && reason == X509_R_NO_CERTIFICATE_OR_CRL_FOUND)) {
        return "there is none in it, in PEM";
    }
    if (lib == ERR_LIB_X509 && reason == X509_R_KEY_VALUES_MISMATCH) {
        return "it belongs to another certificate";
    }
    return code != 0 ? ERR_reason_error_string(code) : NULL;
}

static bool fail(char *error, size_t capacity, const char *what, const char *which) {
    const char *reason = reason_of(ERR_get_error());
    snprintf(error, capacity, "%s%s%s%s%s", what, which != NULL ? " " : "",
             which != NULL ? which : "", reason != NULL ? ": " : "", reason != NULL ? reason : "");
    ERR_clear_error();
    return false;
}

/* The chain, leaf first, from the PEM blocks of `bio`. */
static bool use_chain(SSL_CTX *ctx, BIO *bio) {
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    bool ok = leaf != NULL && SSL_CTX_use_certificate(ctx, leaf) == 1;
    X509_free(leaf);
    X509 *next;
    while (ok && (next = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        ok = SSL_CTX_add1_chain_cert(ctx, next) == 1;
        X509_free(next);
    }
    if (ok) {
        ERR_clear_error(); /* "no more blocks" */
    }
    return ok;
}

static bool use_key(SSL_CTX *ctx, BIO *bio) {
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1;
    EVP_PKEY_free(key);
    return ok;
}

static BIO *source(const char *file, const char *pem) {
    return file != NULL  ? BIO_new_file(file, "rb")
           : pem != NULL ? BIO_new_mem_buf(pem, (ossl_ssize_t)strlen(pem))
                         : NULL;
}

static bool load_certificate(SSL_CTX *ctx, const qg_tls_options *o, char *error, size_t capacity) {
    if (o->cert_file == NULL && o->cert_pem == NULL) {
        return !o->is_server || fail(error, capacity, "a server needs a certificate", NULL);
    }
    BIO *bio = source(o->cert_file, o->cert_pem);
    bool ok = bio != NULL && use_chain(ctx, bio);
    BIO_free(bio);
    if (!ok) {
        return fail(error, capacity, "cannot use the certificate", o->cert_file);
    }
    bool own_key = o->key_file != NULL || o->key_pem != NULL;
    bio = own_key ? source(o->key_file, o->key_pem) : source(o->cert_file, o->cert_pem);
    ok = bio != NULL && use_key(ctx, bio);
    BIO_free(bio);
    if (!ok) {
        return fail(error, capacity, "cannot use the private key",
                    o->key_file != NULL ? o->key_file : o->cert_file);
    }
    return true;
}

/* What a file of certificates says, and not only what it is called. (A folder's are read as they are
 * needed.) */
static void hash_trusted(SHA256_CTX *sha, X509_STORE *store) {
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get1_objects(store);
    for (size_t i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        uint8_t digest[SHA256_DIGEST_LENGTH];
        unsigned len;
        if (certificate != NULL && X509_digest(certificate, EVP_sha256(), digest, &len)) {
            SHA256_Update(sha, digest, len);
        }
    }
    sk_X509_OBJECT_pop_free(objects, X509_OBJECT_free);
}

/* Everything that decides whom we believe, also that we believe anybody. */
static void hash_trust(qg_tls *tls, const qg_tls_options *o) {
    SHA256_CTX sha;
    SHA256_Init(&sha);
    uint8_t flags = (uint8_t)((o->verify_peer != 0) | (o->require_peer != 0) << 1);
    SHA256_Update(&sha, &flags, 1);
    const char *names[] = {o->ca_file, o->ca_dir};
    for (int i = 0; i < 2; i++) {
        if (names[i] != NULL) {
            SHA256_Update(&sha, names[i], strlen(names[i]) + 1);
        }
    }
    hash_trusted(&sha, SSL_CTX_get_cert_store(tls->ctx));
    SHA256_Final(tls->trust, &sha);
}

static bool load_trust(qg_tls *tls, const qg_tls_options *o, char *error, size_t capacity) {
    if ((o->ca_file != NULL || o->ca_dir != NULL) &&
        SSL_CTX_load_verify_locations(tls->ctx, o->ca_file, o->ca_dir) != 1) {
        return fail(error, capacity, "cannot read the trusted certificates",
                    o->ca_file != NULL ? o->ca_file : o->ca_dir);
    }
    hash_trust(tls, o);
    return true;
}

static void set_server_callbacks(qg_tls *tls, const qg_tls_options *o) {
    SSL_CTX_set_alpn_select_cb(tls->ctx, select_alpn, NULL);
    SSL_CTX_set_select_certificate_cb(tls->ctx, select_certificate);
    if (o->keys != NULL) {
        tls->keys = qg__keys_reference(o->keys);
        SSL_CTX_set_tlsext_ticket_key_cb(tls->ctx, seal_ticket);
        /* No client is ever offered a ticket that would be refused for its age. */
        SSL_CTX_set_session_psk_dhe_timeout(tls->ctx, qg__keys_lifetime_s(o->keys));
    } else {
        SSL_CTX_set_options(tls->ctx, SSL_OP_NO_TICKET);
    }
    if (o->replay != NULL) {
        tls->replay = qg__replay_reference(o->replay);
        SSL_CTX_set_early_data_enabled(tls->ctx, 1);
    }
    int mode = !o->verify_peer ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;
    if (o->verify_peer && o->require_peer) {
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    SSL_CTX_set_verify(tls->ctx, mode, NULL);
}

static bool open_keylog(qg_tls *tls, const char *file, char *error, size_t capacity) {
    if (file == NULL) {
        return true;
    }
    tls->keylog_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (tls->keylog_fd < 0) {
        snprintf(error, capacity, "cannot open the key log %s: %s", file, strerror(errno));
        return false;
    }
    SSL_CTX_set_keylog_callback(tls->ctx, write_keylog);
    return true;
}

static bool configure(qg_tls *tls, const qg_tls_options *o, char *error, size_t capacity) {
    if (o->alpn_len == 0 || o->alpn_len > sizeof tls->alpn) {
        return fail(error, capacity, "the list of application protocols is empty or too long",
                    NULL);
    }
    memcpy(tls->alpn, o->alpn, o->alpn_len);
    tls->alpn_len = o->alpn_len;
    if (!load_certificate(tls->ctx, o, error, capacity) || !load_trust(tls, o, error, capacity) ||
        !open_keylog(tls, o->keylog_file, error, capacity)) {
        return false;
    }
    if (o->groups != NULL && SSL_CTX_set1_groups_list(tls->ctx, o->groups) != 1) {
        return fail(error, capacity, "unknown key exchange group in", o->groups);
    }
    if (tls->is_server) {
        set_server_callbacks(tls, o);
    } else if (o->tickets) {
        SSL_CTX_set_session_cache_mode(tls->ctx,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(tls->ctx, keep_session);
    }
    return true;
}

qg_tls *qg_tls_new(const qg_tls_options *o, char *error, size_t capacity) {
    pthread_once(&index_once, make_indexes);
    qg_tls *tls = calloc(1, sizeof *tls);
    if (o->abi != QG_ABI || tls == NULL) {
        snprintf(error, capacity, "%s",
                 tls == NULL ? "out of memory" : "other version of the engine");
        free(tls);
        return NULL;
    }
    tls->references = 1;
    tls->is_server = o->is_server != 0;
    tls->verify_peer = o->verify_peer != 0;
    tls->keylog_fd = -1;
    tls->ctx = SSL_CTX_new(TLS_method());
    if (tls->ctx == NULL || !SSL_CTX_set_ex_data(tls->ctx, tls_index, tls)) {
        snprintf(error, capacity, "out of memory");
        qg_tls_free(tls);
        return NULL;
    }
    if (!configure(tls, o, error, capacity)) {
        qg_tls_free(tls);
        return NULL;
    }
    return tls;
}

qg_tls *qg__tls_reference(qg_tls *tls) {
    tls->references++;
    return tls;
}

void qg_tls_free(qg_tls *tls) {
    if (tls == NULL || --tls->references > 0) {
        return;
    }
    SSL_CTX_free(tls->ctx);
    qg_keys_free(tls->keys);
    qg_replay_free(tls->replay);
    if (tls->keylog_fd >= 0) {
        close(tls->keylog_fd);
    }
    free(tls);
}

/* ------------------------------------------------------------- connections */

static SSL *new_ssl(qg_tls *tls, qg_handshake *handshake) {
    SSL *ssl = SSL_new(tls->ctx);
    if (ssl != NULL && !SSL_set_ex_data(ssl, handshake_index, handshake)) {
        SSL_free(ssl); /* quiche has not seen it yet */
        return NULL;
    }
    return ssl;
}

SSL *qg__tls_accept(qg_tls *tls, qg_handshake *handshake) {
    return new_ssl(tls, handshake);
}

static bool is_ip(const char *name) {
    uint8_t bytes[16];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static bool expect_name(SSL *ssl, const char *name) {
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (is_ip(name)) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1; /* no SNI: RFC 6066, section 3 */
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 &&
           X509_VERIFY_PARAM_set1_host(param, name, strlen(name)) == 1;
}

SSL *qg__tls_connect(qg_tls *tls, const char *server_name, qg_handshake *handshake) {
    SSL *ssl = new_ssl(tls, handshake);
    if (ssl == NULL) {
        return NULL;
    }
    SSL_set_verify(ssl, tls->verify_peer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    /* Here 0 means success. */
    bool ok = SSL_set_alpn_protos(ssl, tls->alpn, (unsigned)tls->alpn_len) == 0;
    ok = ok && (server_name == NULL ? !tls->verify_peer : expect_name(ssl, server_name));
    if (!ok) {
        ERR_clear_error();
        SSL_free(ssl);
        return NULL;
    }
    return ssl;
}

void qg__tls_bind_early_data(SSL *ssl, const uint8_t digest[32]) {
    SSL_set_quic_early_data_context(ssl, digest, 32);
}

void qg__tls_failure(const SSL *ssl, uint64_t alert, bool remote, char *out, size_t capacity) {
    long verify = SSL_get_verify_result(ssl);
    if (!remote && verify != X509_V_OK) {
        snprintf(out, capacity, "invalid certificate: %s", X509_verify_cert_error_string(verify));
    } else {
        snprintf(out, capacity, "%s alert %u: %s", remote ? "peer's" : "our", (unsigned)alert,
                 SSL_alert_desc_string_long((int)alert));
    }
}
