/* session.h: what a handshake leaves behind, and what the next one takes up.
 *
 * A ticket, as the caller keeps it
 *
 *    0        4        8                    16      24
 *    | "QGS1" | flags  | max field section  | check | quiche's form of a session
 *
 * The flags say what else HTTP/3 must remember for early data (RFC 9114, section 7.2.4.2). The check is
 * SHA-256 of all the rest, cut: a server that is offered a session whose secret was damaged fails the
 * handshake (RFC 8446, section 4.2.11), so such a ticket must not be offered. quiche's form is the TLS
 * session and the peer's transport parameters, each with its length, 8 bytes, before it. The peer's
 * certificates are left out of the session: they are no part of a resumption, and would be most of its
 * bytes. All numbers are big-endian. */
#ifndef QG_SESSION_H
#define QG_SESSION_H

#include <openssl/ssl.h>

#include "base.h"
#include "quicgreen_sessions.h"

#define QG_TICKET_HEADER 24

/* Tickets that a connection keeps until they are told. Servers send one to four. */
#define QG_TICKETS_KEPT 8

/* What HTTP/3 remembers. */
typedef struct qg_remembered {
    uint64_t max_field_section_size; /* QG_NEVER: no limit was given */
    bool extended_connect;
} qg_remembered;

/* A session that the server offered. */
typedef struct qg_ticket {
    struct qg_ticket *next;
    uint64_t lifetime_s;
    bool early; /* it may carry early data */
    uint32_t len;
    uint8_t bytes[]; /* room for the header, then quiche's form */
} qg_ticket;

/* What TLS's callbacks write down for the connection that they belong to. */
typedef struct qg_handshake {
    bool early_offered; /* server: the ClientHello says that early data follows */
    bool early_entered; /* and the register was asked */
    qg_ticket *tickets; /* client: not told yet, oldest first */
    unsigned ticket_count;
} qg_handshake;

/* Keep a session. Silently nothing when it is too long or there is no memory: a ticket is a chance,
 * no promise. */
void qg__session_keep(qg_handshake *handshake, const SSL *ssl, SSL_SESSION *session);

/* Drop the oldest; all. */
void qg__session_drop_first(qg_handshake *handshake);
void qg__session_forget(qg_handshake *handshake);

/* Write the header of a ticket. */
void qg__ticket_seal(qg_ticket *ticket, const qg_remembered *remembered);

/* Take a ticket apart: quiche's form, or NULL when it is none of this version, or damaged. */
const uint8_t *qg__ticket_open(const uint8_t *ticket, size_t len, qg_remembered *remembered,
                               size_t *session_len);

/* Take up the TLS session of what `qg__ticket_open` gave, and leave the rest. */
bool qg__session_take_up(SSL *ssl, const uint8_t *session, size_t len);

#endif
