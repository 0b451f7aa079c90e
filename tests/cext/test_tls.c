#include "harness.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NAMES "a.test,b.test,127.0.0.1"

typedef struct files {
    char cert[4096], key[1024];
    char folder[64], cert_file[100], both_file[100], key_file[100];
} files;

static void write_file(const char *path, const char *a, const char *b) {
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    fputs(a, f);
    fputs(b, f);
    fclose(f);
}

static void make_files(files *f) {
    strcpy(f->folder, "/tmp/quicgreen-tls-XXXXXX");
    CHECK(mkdtemp(f->folder) != NULL);
    CHECK_EQ(qg_tls_self_signed(NAMES, 1, f->cert, sizeof f->cert, f->key, sizeof f->key), QG_OK);
    snprintf(f->cert_file, sizeof f->cert_file, "%s/cert.pem", f->folder);
    snprintf(f->both_file, sizeof f->both_file, "%s/both.pem", f->folder);
    snprintf(f->key_file, sizeof f->key_file, "%s/key.pem", f->folder);
    write_file(f->cert_file, f->cert, "");
    write_file(f->key_file, f->key, "");
    write_file(f->both_file, f->cert, f->key);
}

static void remove_files(const files *f) {
    unlink(f->cert_file);
    unlink(f->both_file);
    unlink(f->key_file);
    CHECK_EQ(rmdir(f->folder), 0);
}

static qg_tls_options server_options(const files *f) {
    return (qg_tls_options){.abi = QG_ABI,
                            .is_server = 1,
                            .cert_pem = f->cert,
                            .key_pem = f->key,
                            .alpn = (const uint8_t *)ALPN_H3,
                            .alpn_len = 3};
}

/* Does it fail, with this in its text? `said` NULL: it works. */
static void check_new(const qg_tls_options *o, const char *said) {
    char error[256] = "";
    qg_tls *tls = qg_tls_new(o, error, sizeof error);
    check_note("\"%s\"", error);
    CHECK_EQ(tls != NULL, said == NULL);
    CHECK(said == NULL ? error[0] == '\0' : strstr(error, said) != NULL);
    qg_tls_free(tls);
}

TEST(sources_of_certificate_and_key) {
    files f;
    make_files(&f);
    qg_tls_options o = server_options(&f);
    check_new(&o, NULL);
    o.cert_pem = o.key_pem = NULL;
    check_new(&o, "needs a certificate");
    o.cert_file = f.both_file; /* the key stands in it, too */
    check_new(&o, NULL);
    o.cert_file = f.cert_file;
    check_new(&o, "private key");
    o.key_file = f.key_file;
    check_new(&o, NULL);
    o.key_file = "/nonexistent/key";
    check_new(&o, "/nonexistent/key");
    o.cert_file = "/nonexistent/cert";
    check_new(&o, "/nonexistent/cert");
    o = server_options(&f);
    o.cert_pem = "no PEM";
    check_new(&o, "certificate");
    o.cert_pem = f.key;
    check_new(&o, "certificate");
    remove_files(&f);
}

TEST(a_key_of_another_certificate_is_refused) {
    files f, g;
    make_files(&f);
    make_files(&g);
    qg_tls_options o = server_options(&f);
    o.key_pem = g.key;
    check_new(&o, "private key");
    remove_files(&f);
    remove_files(&g);
}

TEST(other_options_that_are_wrong) {
    files f;
    make_files(&f);
    uint8_t alpn[65] = {64};
    qg_tls_options o = server_options(&f);
    o.abi = QG_ABI + 1;
    check_new(&o, "version");
    o = server_options(&f);
    o.alpn_len = 0;
    check_new(&o, "protocols");
    o.alpn = alpn;
    o.alpn_len = sizeof alpn;
    check_new(&o, "protocols");
    o = server_options(&f);
    o.groups = "no-such-group";
    check_new(&o, "group");
    o.groups = "X25519:P-256";
    check_new(&o, NULL);
    o = server_options(&f);
    o.ca_file = "/nonexistent/ca";
    check_new(&o, "/nonexistent/ca");
    o = server_options(&f);
    o.keylog_file = "/nonexistent/log";
    check_new(&o, "/nonexistent/log");
    remove_files(&f);
}

TEST(a_client_needs_no_certificate) {
    qg_tls_options o = {.abi = QG_ABI, .alpn = (const uint8_t *)ALPN_H3, .alpn_len = 3};
    check_new(&o, NULL);
}

TEST(names_that_a_client_may_expect) {
    char long_name[400], error[100];
    qg_handshake none = {0};
    qg_tls_options o = {
        .abi = QG_ABI, .verify_peer = 1, .alpn = (const uint8_t *)ALPN_H3, .alpn_len = 3};
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    for (uint32_t verify = 0; verify < 2; verify++) {
        o.verify_peer = verify;
        qg_tls *tls = qg_tls_new(&o, error, sizeof error);
        static const char *const good[] = {"a.test", "127.0.0.1", "::1", "2001:db8::1"};
        for (size_t i = 0; i < 4; i++) {
            SSL *ssl = qg__tls_connect(tls, good[i], &none);
            CHECK(ssl != NULL);
            SSL_free(ssl);
        }
        CHECK(qg__tls_connect(tls, "", &none) == NULL);
        CHECK(qg__tls_connect(tls, long_name, &none) == NULL);
        SSL *ssl = qg__tls_connect(tls, NULL, &none);
        CHECK_EQ(ssl != NULL, !verify); /* nobody to check against */
        SSL_free(ssl);
        qg_tls_free(tls);
    }
}

TEST(a_context_lives_as_long_as_it_is_held) {
    files f;
    make_files(&f);
    char error[100];
    qg_tls_options o = server_options(&f);
    o.keys = qg_keys_new(NULL, 100, 2, qg__wall_s());
    qg_tls *tls = qg_tls_new(&o, error, sizeof error);
    CHECK_EQ(o.keys->references, 2);
    CHECK(qg__tls_reference(tls) == tls);
    qg_tls_free(tls);
    CHECK_EQ(tls->references, 1);
    qg_tls_free(tls);
    CHECK_EQ(o.keys->references, 1);
    qg_keys_free(o.keys);
    qg_tls_free(NULL);
    remove_files(&f);
}

/* ---------------------------------------------------------------- sessions, over TLS alone */

static SSL_SESSION *last_session;

static int keep_session(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    SSL_SESSION_free(last_session);
    last_session = session;
    return 1;
}

typedef struct contexts {
    files f;
    qg_keys *keys;
    qg_tls *server, *client;
} contexts;

static void open_contexts(contexts *c, uint32_t window) {
    char error[100];
    make_files(&c->f);
    c->keys = qg_keys_new(NULL, 1000, window, qg__wall_s());
    qg_tls_options o = server_options(&c->f);
    o.keys = c->keys;
    c->server = qg_tls_new(&o, error, sizeof error);
    qg_tls_options client = {.abi = QG_ABI, .alpn = o.alpn, .alpn_len = o.alpn_len};
    c->client = qg_tls_new(&client, error, sizeof error);
    CHECK(c->server != NULL && c->client != NULL);
    SSL_CTX_set_session_cache_mode(c->client->ctx, SSL_SESS_CACHE_CLIENT);
    SSL_CTX_sess_set_new_cb(c->client->ctx, keep_session);
}

static void close_contexts(contexts *c) {
    SSL_SESSION_free(last_session);
    last_session = NULL;
    qg_tls_free(c->client);
    qg_tls_free(c->server);
    qg_keys_free(c->keys);
    remove_files(&c->f);
}

/* A handshake in memory; the session that the client got is in last_session. Resumed? */
static bool shake(contexts *c, const char *name, SSL_SESSION *session) {
    qg_handshake ours = {0}, theirs = {0};
    SSL *client = qg__tls_connect(c->client, name, &ours);
    SSL *server = qg__tls_accept(c->server, &theirs);
    BIO *a, *b;
    CHECK(client != NULL && server != NULL);
    CHECK_EQ(BIO_new_bio_pair(&a, 1 << 16, &b, 1 << 16), 1);
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    CHECK(session == NULL || SSL_set_session(client, session) == 1);
    uint8_t byte;
    for (int i = 0; i < 10; i++) {
        SSL_do_handshake(client);
        SSL_do_handshake(server);
    }
    CHECK(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    CHECK_EQ(SSL_write(server, "x", 1), 1); /* tickets leave with it */
    CHECK_EQ(SSL_read(client, &byte, 1), 1);
    bool resumed = SSL_session_reused(server) == 1;
    CHECK_EQ(SSL_session_reused(client), resumed);
    SSL_shutdown(client);
    SSL_free(client);
    SSL_free(server);
    return resumed;
}

/* A session that stays the test's own. */
static SSL_SESSION *session_for(contexts *c, const char *name) {
    CHECK(!shake(c, name, NULL));
    CHECK(last_session != NULL);
    SSL_SESSION_up_ref(last_session);
    return last_session;
}

TEST(a_ticket_resumes_inside_the_window) {
    contexts c;
    open_contexts(&c, 3);
    SSL_SESSION *session = session_for(&c, "a.test");
    CHECK(shake(&c, "a.test", session));
    qg_keys_rotate(c.keys, qg__wall_s() + 1000);
    CHECK(shake(&c, "a.test", session));
    qg_keys_rotate(c.keys, qg__wall_s() + 2000);
    CHECK(shake(&c, "a.test", session));
    qg_keys_rotate(c.keys, qg__wall_s() + 3000);
    CHECK(!shake(&c, "a.test", session));
    CHECK(shake(&c, "a.test", last_session)); /* the new one does */
    SSL_SESSION_free(session);
    close_contexts(&c);
}

TEST(a_ticket_is_offered_for_no_longer_than_it_opens) {
    contexts c;
    open_contexts(&c, 3);
    SSL_SESSION *session = session_for(&c, "a.test");
    CHECK_EQ(SSL_SESSION_get_timeout(session), 2000);
    SSL_SESSION_free(session);
    close_contexts(&c);
}

/* Else a ticket of one virtual host would pass another's demand for a certificate. */
TEST(a_ticket_counts_under_its_name_only) {
    contexts c;
    open_contexts(&c, 3);
    SSL_SESSION *session = session_for(&c, "a.test");
    CHECK(!shake(&c, "b.test", session));
    CHECK(!shake(&c, NULL, session));
    CHECK(shake(&c, "a.test", session));
    SSL_SESSION_free(session);
    close_contexts(&c);
}

TEST(a_ticket_counts_under_its_trust_only) {
    contexts c;
    char error[100];
    open_contexts(&c, 3);
    SSL_SESSION *session = session_for(&c, "a.test");
    qg_tls_options o = server_options(&c.f);
    o.keys = c.keys;
    o.verify_peer = 1; /* asks for a certificate, which may be missing */
    o.ca_file = c.f.cert_file;
    qg_tls *stricter = qg_tls_new(&o, error, sizeof error), *usual = c.server;
    CHECK(stricter != NULL);
    c.server = stricter;
    CHECK(!shake(&c, "a.test", session));
    CHECK(shake(&c, "a.test", last_session));
    c.server = usual;
    qg_tls_free(stricter);
    SSL_SESSION_free(session);
    close_contexts(&c);
}

/* The other server, of the same keys, that demands this. */
static bool resumes_at(contexts *c, SSL_SESSION *session, const char *ca_file) {
    char error[100];
    qg_tls_options o = server_options(&c->f);
    o.keys = c->keys;
    o.verify_peer = 1;
    o.ca_file = ca_file;
    qg_tls *other = qg_tls_new(&o, error, sizeof error), *usual = c->server;
    CHECK(other != NULL);
    c->server = other;
    bool resumed = shake(c, "a.test", session);
    c->server = usual;
    qg_tls_free(other);
    return resumed;
}

/* Who asks for a certificate and trusts nobody yet is stricter than who does not ask. */
TEST(to_trust_nobody_is_not_to_ask_nobody) {
    contexts c;
    open_contexts(&c, 3);
    SSL_SESSION *session = session_for(&c, "a.test");
    CHECK(!resumes_at(&c, session, NULL));
    CHECK(resumes_at(&c, last_session, NULL));
    SSL_SESSION_free(session);
    close_contexts(&c);
}

/* What the file of certificates says, and not only what it is called. */
TEST(trust_is_in_the_contents) {
    contexts c;
    files others;
    open_contexts(&c, 3);
    make_files(&others);
    resumes_at(&c, NULL, c.f.cert_file);
    SSL_SESSION *session = last_session;
    SSL_SESSION_up_ref(session);
    CHECK(resumes_at(&c, session, c.f.cert_file));
    write_file(c.f.cert_file, others.cert, "");
    CHECK(!resumes_at(&c, session, c.f.cert_file));
    write_file(c.f.cert_file, c.f.cert, others.cert); /* one more */
    CHECK(!resumes_at(&c, session, c.f.cert_file));
    write_file(c.f.cert_file, c.f.cert, "");
    CHECK(resumes_at(&c, session, c.f.cert_file));
    SSL_SESSION_free(session);
    remove_files(&others);
    close_contexts(&c);
}

TEST(a_server_without_keys_gives_no_tickets) {
    contexts c;
    char error[100];
    open_contexts(&c, 3);
    qg_tls_free(c.server);
    qg_tls_options o = server_options(&c.f);
    c.server = qg_tls_new(&o, error, sizeof error);
    CHECK(!shake(&c, "a.test", NULL));
    CHECK(last_session == NULL);
    close_contexts(&c);
}

/* ---------------------------------------------------------------- over QUIC */

TEST(the_key_log_has_the_lines_that_decoders_read) {
    files f;
    contexts c;
    char error[100], text[4096] = "", log[120];
    make_files(&f);
    open_contexts(&c, 2);
    snprintf(log, sizeof log, "%s/keys.log", f.folder);
    for (int i = 0; i < 2; i++) { /* the second time it is appended to */
        qg_tls_free(c.client);
        qg_tls_options o = {
            .abi = QG_ABI, .alpn = (const uint8_t *)ALPN_H3, .alpn_len = 3, .keylog_file = log};
        c.client = qg_tls_new(&o, error, sizeof error);
        CHECK(c.client != NULL);
        shake(&c, "a.test", NULL);
    }
    FILE *in = fopen(log, "r");
    CHECK(in != NULL);
    size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    const char *first = strstr(text, "CLIENT_HANDSHAKE_TRAFFIC_SECRET ");
    CHECK(first != NULL);
    CHECK(strstr(first + 1, "CLIENT_HANDSHAKE_TRAFFIC_SECRET ") != NULL);
    CHECK(strstr(text, "SERVER_TRAFFIC_SECRET_0 ") != NULL);
    CHECK_EQ(text[n - 1], '\n');
    unlink(log);
    close_contexts(&c);
    remove_files(&f);
}

/* A handshake that fails: what each side is told. */
static void check_refused(const rig_options *o, const char *clients_text, uint16_t clients_flags) {
    rig r;
    rig_open(&r, o);
    r.conn = rig_dial(&r);
    const seen *e = await_event(&r, &r.client, QG_EVENT_CLOSED);
    check_note("\"%.*s\", flags %d", (int)e->event.head_len, (const char *)head_of(e),
               e->event.flags);
    CHECK(strstr((const char *)head_of(e), clients_text) != NULL);
    CHECK_EQ(e->event.flags, clients_flags);
    CHECK(e->event.code >= 0x100 && e->event.code < 0x200);
    CHECK(take_event(&r.client, QG_EVENT_CONNECTED) == NULL);
    CHECK_EQ(r.client.counters.handshakes_failed, 1);
    pass_ms(&r, 1);
    rig_close(&r);
}

TEST(verification) {
    rig_options o;
    rig_defaults(&o);
    o.verify = true;
    static const char *const good[] = {"a.test", "localhost", "127.0.0.1", "::1"};
    for (size_t i = 0; i < 4; i++) {
        rig r;
        o.server_name = good[i];
        rig_start(&r, &o);
        exchange(&r, 1);
        rig_close(&r);
    }
    static const char *const bad[] = {"b.test", "x.a.test", "127.0.0.2", "::2"};
    for (size_t i = 0; i < 4; i++) {
        o.server_name = bad[i];
        check_refused(&o, "invalid certificate", QG_TLS_ALERT);
    }
    o.server_name = "a.test";
    o.distrust = true;
    check_refused(&o, "invalid certificate", QG_TLS_ALERT);
}

TEST(no_common_protocol) {
    rig_options o;
    rig_defaults(&o);
    o.client_alpn = "\x05other";
    check_refused(&o, "alert 120", QG_TLS_ALERT | QG_REMOTE);
}

TEST(the_servers_preference_decides_the_protocol) {
    rig_options o;
    rig r;
    qg_conn_info info;
    rig_defaults(&o);
    o.client_alpn = "\x05h3-29\x02h3";
    o.server_alpn = "\x02h3\x05h3-29";
    rig_start(&r, &o);
    CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &info), QG_OK);
    CHECK_TEXT(info.alpn, info.alpn_len, "h3");
    rig_close(&r);
}

TEST(client_certificates) {
    rig_options o;
    rig r;
    uint8_t der[4096];
    rig_defaults(&o);
    o.ask_client = o.client_cert = true;
    rig_start(&r, &o);
    int n = qg_conn_peer_cert(r.server.engine, r.server_conn, der, sizeof der);
    CHECK(n > 100);
    CHECK_EQ(qg_conn_peer_cert(r.server.engine, r.server_conn, der, (size_t)n - 1), QG_TOO_LARGE);
    CHECK_EQ(qg_conn_peer_cert(r.client.engine, r.conn, der, sizeof der), n); /* the same one */
    rig_close(&r);
    o.client_cert = false; /* asked for, and may be missing */
    rig_start(&r, &o);
    CHECK_EQ(qg_conn_peer_cert(r.server.engine, r.server_conn, der, sizeof der), 0);
    exchange(&r, 1);
    rig_close(&r);
}

/* The client's own handshake is complete before the server can refuse it (RFC 8446, section 2). */
TEST(a_client_certificate_that_is_needed_and_missing) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.ask_client = o.need_client = true;
    rig_open(&r, &o);
    r.conn = rig_dial(&r);
    const seen *e = await_event(&r, &r.client, QG_EVENT_CLOSED);
    CHECK_EQ(e->event.flags & (QG_TLS_ALERT | QG_REMOTE), QG_TLS_ALERT | QG_REMOTE);
    CHECK_EQ(e->event.code, 0x100 + 116); /* certificate_required */
    CHECK(take_event(&r.server, QG_EVENT_ACCEPTED) == NULL);
    rig_close(&r);
}
