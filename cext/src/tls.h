/* tls.h: the TLS side of a connection. The SSL_CTX is ours, not quiche's: quiche's C API has one
 * ticket key per configuration, cannot check a certificate against an IP address, and hides the
 * SSL.
 *
 * Call order: qg_tls_new once; for each connection qg__tls_accept or qg__tls_connect, then at once
 * quiche_conn_new_with_tls, which owns the SSL from then on, also when it fails: never SSL_free it.
 * The SSL pointer may be read for as long as the quiche connection lives. */
#ifndef QG_TLS_H
#define QG_TLS_H

#include <openssl/ssl.h>

#include "base.h"
#include "session.h"

struct qg_tls {
    SSL_CTX *ctx;
    _Atomic uint32_t references; /* engines of several threads may share it */
    bool is_server;
    bool verify_peer;
    int keylog_fd;
    uint8_t alpn[64]; /* wire format */
    size_t alpn_len;
    uint8_t trust[32]; /* digest of what decides whom we believe: part of the session's context */
    qg_keys *keys;
    qg_replay *replay; /* NULL: no early data */
};

qg_tls *qg__tls_reference(qg_tls *tls);

/* A server's SSL, or NULL without memory. `handshake` is written to for as long as the SSL lives. */
SSL *qg__tls_accept(qg_tls *tls, qg_handshake *handshake);

/* A client's SSL that expects `server_name`: a DNS name or an IP address as text. NULL: out of
 * memory or a name that cannot be one. */
SSL *qg__tls_connect(qg_tls *tls, const char *server_name, qg_handshake *handshake);

/* Early data is only for a server with the same settings (quiche's own context is a constant). To
 * be called after quiche took the SSL. */
void qg__tls_bind_early_data(SSL *ssl, const uint8_t digest[32]);

/* Why the handshake failed with this alert (RFC 8446, section 6), in words. */
void qg__tls_failure(const SSL *ssl, uint64_t alert, bool remote, char *out, size_t capacity);

#endif
