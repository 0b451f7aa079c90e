#include "check.h"
#include "quicgreen.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

typedef struct made {
    char cert[4096], key[1024];
    X509 *x509;
} made;

static made make(const char *names, uint32_t days) {
    made m = {0};
    CHECK_EQ(qg_tls_self_signed(names, days, m.cert, sizeof m.cert, m.key, sizeof m.key), QG_OK);
    BIO *bio = BIO_new_mem_buf(m.cert, -1);
    m.x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    CHECK(m.x509 != NULL);
    return m;
}

static bool is_for(const made *m, const char *name) {
    return X509_check_host(m->x509, name, strlen(name), 0, NULL) == 1;
}

TEST(it_is_for_the_names_given_and_no_other) {
    made m = make("localhost,a.test,*.b.test,127.0.0.1,::1", 1);
    CHECK(is_for(&m, "localhost"));
    CHECK(is_for(&m, "a.test"));
    CHECK(is_for(&m, "x.b.test"));
    CHECK(!is_for(&m, "b.test"));
    CHECK(!is_for(&m, "c.test"));
    CHECK(!is_for(&m, "127.0.0.1")); /* an address, not a name */
    CHECK_EQ(X509_check_ip_asc(m.x509, "127.0.0.1", 0), 1);
    CHECK_EQ(X509_check_ip_asc(m.x509, "::1", 0), 1);
    CHECK_EQ(X509_check_ip_asc(m.x509, "127.0.0.2", 0), 0);
    X509_free(m.x509);
}

TEST(the_key_is_the_certificates_and_signed_it) {
    made m = make("a.test", 1);
    BIO *bio = BIO_new_mem_buf(m.key, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    CHECK(key != NULL);
    CHECK_EQ(X509_check_private_key(m.x509, key), 1);
    CHECK_EQ(X509_verify(m.x509, key), 1);
    CHECK_EQ(EVP_PKEY_id(key), EVP_PKEY_EC);
    EVP_PKEY_free(key);
    X509_free(m.x509);
}

TEST(it_is_valid_from_an_hour_ago_for_its_days) {
    made m = make("a.test", 3);
    time_t now = time(NULL), soon = now - 3700, first = now - 3500, last = now + 3 * 86400 - 60,
           late = now + 3 * 86400 + 60;
    CHECK(X509_cmp_time(X509_get0_notBefore(m.x509), &soon) > 0);
    CHECK(X509_cmp_time(X509_get0_notBefore(m.x509), &first) < 0);
    CHECK(X509_cmp_time(X509_get0_notAfter(m.x509), &last) > 0);
    CHECK(X509_cmp_time(X509_get0_notAfter(m.x509), &late) < 0);
    X509_free(m.x509);
}

TEST(every_one_is_new) {
    made a = make("a.test", 1), b = make("a.test", 1);
    CHECK(strcmp(a.cert, b.cert) != 0);
    CHECK(strcmp(a.key, b.key) != 0);
    CHECK(ASN1_INTEGER_cmp(X509_get_serialNumber(a.x509), X509_get_serialNumber(b.x509)) != 0);
    X509_free(a.x509);
    X509_free(b.x509);
}

TEST(names_that_cannot_be) {
    char cert[4096], key[1024], long_name[400];
    static const char *const bad[] = {"",     ",",    "a.test,,b.test", "a test",        "a;b",
                                      "a\"b", "a\nb", "a\\b",           "a.test, b.test"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_note("\"%s\"", bad[i]);
        CHECK_EQ(qg_tls_self_signed(bad[i], 1, cert, sizeof cert, key, sizeof key), QG_INVALID);
    }
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    CHECK_EQ(qg_tls_self_signed(long_name, 1, cert, sizeof cert, key, sizeof key), QG_INVALID);
    /* A name must not be able to add another kind of subject. */
    int rc = qg_tls_self_signed("a.test:IP:127.0.0.1", 1, cert, sizeof cert, key, sizeof key);
    if (rc == QG_OK) {
        made m = make("a.test:IP:127.0.0.1", 1);
        CHECK_EQ(X509_check_ip_asc(m.x509, "127.0.0.1", 0), 0);
        X509_free(m.x509);
    }
}

TEST(more_names_than_fit) {
    char names[3000], cert[8192], key[1024], *at = names;
    for (int i = 0; i < 200; i++) {
        at = stpcpy(at, "name.test,");
    }
    CHECK_EQ(qg_tls_self_signed(names, 1, cert, sizeof cert, key, sizeof key), QG_INVALID);
}

TEST(buffers_that_are_too_small) {
    made m = make("a.test", 1);
    char cert[4096], key[1024];
    size_t cert_len = strlen(m.cert), key_len = strlen(m.key);
    X509_free(m.x509);
    CHECK_EQ(qg_tls_self_signed("a.test", 1, cert, 0, key, sizeof key), QG_TOO_LARGE);
    CHECK_EQ(qg_tls_self_signed("a.test", 1, cert, cert_len / 2, key, sizeof key), QG_TOO_LARGE);
    CHECK_EQ(qg_tls_self_signed("a.test", 1, cert, sizeof cert, key, key_len), QG_TOO_LARGE);
    CHECK_EQ(qg_tls_self_signed("a.test", 1, cert, sizeof cert, key, key_len + 1), QG_OK);
}
