/* self_signed.c: a certificate for a development server on this machine. */
#include <arpa/inet.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <stdio.h>

#include "base.h"

#define NAMES_MAX 1024

static EVP_PKEY *new_key(void) {
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    bool ok = ec != NULL && key != NULL && EC_KEY_generate_key(ec) == 1 &&
              EVP_PKEY_set1_EC_KEY(key, ec) == 1;
    EC_KEY_free(ec);
    if (!ok) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

static bool add_extension(X509 *cert, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    bool ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok;
}

/* "a.test,127.0.0.1" -> "DNS:a.test,IP:127.0.0.1". False when it does not fit or a name has a
 * character that the extension's syntax would take for its own. */
static bool subject_names(const char *names, char *out, size_t capacity) {
    size_t at = 0;
    while (*names != '\0') {
        size_t len = strcspn(names, ",");
        char name[256];
        uint8_t bytes[16];
        if (len == 0 || len >= sizeof name || strcspn(names, "\n\r\\\"; ") < len) {
            return false;
        }
        memcpy(name, names, len);
        name[len] = '\0';
        bool ip = inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
        int n = snprintf(out + at, capacity - at, "%s%s:%s", at > 0 ? "," : "", ip ? "IP" : "DNS",
                         name);
        if (n < 0 || (size_t)n >= capacity - at) {
            return false;
        }
        at += (size_t)n;
        names += len + (names[len] == ',');
    }
    return at > 0;
}

static X509 *new_certificate(EVP_PKEY *key, const char *san, uint32_t days) {
    X509 *cert = X509_new();
    uint64_t serial = 0;
    RAND_bytes((uint8_t *)&serial, sizeof serial);
    bool ok = cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 &&
              ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1) == 1 &&
              /* An hour back, for clocks that differ. */
              X509_gmtime_adj(X509_getm_notBefore(cert), -3600) != NULL &&
              X509_gmtime_adj(X509_getm_notAfter(cert), (long)days * 86400) != NULL &&
              X509_set_pubkey(cert, key) == 1;
    X509_NAME *name = ok ? X509_get_subject_name(cert) : NULL;
    ok = ok &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                    (const uint8_t *)"quicgreen development", -1, -1, 0) == 1 &&
         X509_set_issuer_name(cert, name) == 1 && add_extension(cert, NID_subject_alt_name, san) &&
         add_extension(cert, NID_basic_constraints, "critical,CA:TRUE") &&
         add_extension(cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
         /* All have one subject: the key ids tell them apart where several are trusted. */
         add_extension(cert, NID_subject_key_identifier, "hash") &&
         add_extension(cert, NID_authority_key_identifier, "keyid:always") &&
         X509_sign(cert, key, EVP_sha256()) > 0;
    if (!ok) {
        X509_free(cert);
        return NULL;
    }
    return cert;
}

static int copy_out(BIO *bio, char *out, size_t capacity) {
    const uint8_t *data;
    size_t len;
    if (!BIO_mem_contents(bio, &data, &len)) {
        return QG_TLS;
    }
    if (len + 1 > capacity) {
        return QG_TOO_LARGE;
    }
    memcpy(out, data, len);
    out[len] = '\0';
    return QG_OK;
}

int qg_tls_self_signed(const char *names, uint32_t days, char *cert_pem, size_t cert_capacity,
                       char *key_pem, size_t key_capacity) {
    char san[NAMES_MAX];
    if (!subject_names(names, san, sizeof san)) {
        return QG_INVALID;
    }
    int rc = QG_TLS;
    EVP_PKEY *key = new_key();
    X509 *cert = key != NULL ? new_certificate(key, san, days) : NULL;
    BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());
    if (cert != NULL && cert_bio != NULL && key_bio != NULL &&
        PEM_write_bio_X509(cert_bio, cert) == 1 &&
        PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1) {
        rc = copy_out(cert_bio, cert_pem, cert_capacity);
        if (rc == QG_OK) {
            rc = copy_out(key_bio, key_pem, key_capacity);
        }
    }
    BIO_free(cert_bio);
    BIO_free(key_bio);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rc;
}
