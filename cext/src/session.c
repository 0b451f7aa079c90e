#include "session.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/sha2.h>
#include <stdlib.h>

#define MAGIC            "QGS1"
#define EXTENDED_CONNECT 1

/* Where the check of a ticket stands. */
#define CHECK_AT  16
#define CHECK_LEN (QG_TICKET_HEADER - CHECK_AT)

/* Fields of a session's ASN.1 structure that hold the peer's certificates (BoringSSL's
 * ssl_asn1.cc). */
#define PEER_CERTIFICATE (CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC | 3)
#define PEER_CHAIN       (CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC | 19)

/* The session's bytes without certificates. */
static bool add_session(CBB *out, const uint8_t *der, size_t len) {
    CBS all, fields, field;
    CBB kept;
    CBS_ASN1_TAG tag;
    CBS_init(&all, der, len);
    if (!CBS_get_asn1(&all, &fields, CBS_ASN1_SEQUENCE) ||
        !CBB_add_asn1(out, &kept, CBS_ASN1_SEQUENCE)) {
        return false;
    }
    while (CBS_len(&fields) > 0) {
        if (!CBS_get_any_asn1_element(&fields, &field, &tag, NULL)) {
            return false;
        }
        if (tag != PEER_CERTIFICATE && tag != PEER_CHAIN &&
            !CBB_add_bytes(&kept, CBS_data(&field), CBS_len(&field))) {
            return false;
        }
    }
    return CBB_flush(out);
}

/* Room for the header, then quiche's form. */
static bool add_ticket(CBB *out, const SSL *ssl, const SSL_SESSION *session) {
    uint8_t *der = NULL, *header;
    size_t der_len = 0, params_len;
    const uint8_t *params;
    CBB stripped;
    uint8_t *bytes = NULL;
    size_t len = 0;
    CBB_zero(&stripped);
    SSL_get_peer_quic_transport_params(ssl, &params, &params_len);
    bool ok = SSL_SESSION_to_bytes(session, &der, &der_len) && CBB_init(&stripped, der_len) &&
              add_session(&stripped, der, der_len) && CBB_finish(&stripped, &bytes, &len) &&
              CBB_add_space(out, &header, QG_TICKET_HEADER) && CBB_add_u64(out, len) &&
              CBB_add_bytes(out, bytes, len) && CBB_add_u64(out, params_len) &&
              CBB_add_bytes(out, params, params_len) && CBB_flush(out);
    CBB_cleanup(&stripped);
    OPENSSL_free(bytes);
    OPENSSL_free(der);
    return ok;
}

void qg__session_keep(qg_handshake *handshake, const SSL *ssl, SSL_SESSION *session) {
    CBB out;
    if (handshake->ticket_count >= QG_TICKETS_KEPT || !CBB_init(&out, 1024)) {
        return;
    }
    qg_ticket *ticket = NULL;
    if (add_ticket(&out, ssl, session) && CBB_len(&out) <= QG_TICKET_MAX) {
        ticket = malloc(sizeof *ticket + CBB_len(&out));
    }
    if (ticket != NULL) {
        ticket->next = NULL;
        ticket->lifetime_s = SSL_SESSION_get_timeout(session);
        ticket->early = SSL_SESSION_early_data_capable(session) == 1;
        ticket->len = (uint32_t)CBB_len(&out);
        memcpy(ticket->bytes, CBB_data(&out), CBB_len(&out));
        qg_ticket **last = &handshake->tickets;
        while (*last != NULL) {
            last = &(*last)->next;
        }
        *last = ticket;
        handshake->ticket_count++;
    }
    CBB_cleanup(&out);
}

void qg__session_drop_first(qg_handshake *handshake) {
    qg_ticket *ticket = handshake->tickets;
    handshake->tickets = ticket->next;
    handshake->ticket_count--;
    OPENSSL_cleanse(ticket->bytes, ticket->len);
    free(ticket);
}

void qg__session_forget(qg_handshake *handshake) {
    while (handshake->tickets != NULL) {
        qg__session_drop_first(handshake);
    }
}

/* What stands at CHECK_AT. */
static void checksum(const uint8_t *ticket, size_t len, uint8_t out[SHA256_DIGEST_LENGTH]) {
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, ticket, CHECK_AT);
    SHA256_Update(&sha, ticket + QG_TICKET_HEADER, len - QG_TICKET_HEADER);
    SHA256_Final(out, &sha);
}

void qg__ticket_seal(qg_ticket *ticket, const qg_remembered *remembered) {
    uint8_t sum[SHA256_DIGEST_LENGTH];
    memcpy(ticket->bytes, MAGIC, 4);
    qg__put32(ticket->bytes + 4, remembered->extended_connect ? EXTENDED_CONNECT : 0);
    qg__put64(ticket->bytes + 8, remembered->max_field_section_size);
    checksum(ticket->bytes, ticket->len, sum);
    memcpy(ticket->bytes + CHECK_AT, sum, CHECK_LEN);
}

const uint8_t *qg__ticket_open(const uint8_t *ticket, size_t len, qg_remembered *remembered,
                               size_t *session_len) {
    uint8_t sum[SHA256_DIGEST_LENGTH];
    if (len <= QG_TICKET_HEADER || len > QG_TICKET_MAX || memcmp(ticket, MAGIC, 4) != 0) {
        return NULL;
    }
    checksum(ticket, len, sum);
    if (memcmp(ticket + CHECK_AT, sum, CHECK_LEN) != 0) {
        return NULL;
    }
    remembered->extended_connect = (qg__get32(ticket + 4) & EXTENDED_CONNECT) != 0;
    remembered->max_field_section_size = qg__get64(ticket + 8);
    *session_len = len - QG_TICKET_HEADER;
    return ticket + QG_TICKET_HEADER;
}

bool qg__session_take_up(SSL *ssl, const uint8_t *session, size_t len) {
    uint64_t tls_len;
    CBS all, tls;
    CBS_init(&all, session, len);
    if (!CBS_get_u64(&all, &tls_len) || !CBS_get_bytes(&all, &tls, tls_len)) {
        return false;
    }
    SSL_SESSION *taken =
        SSL_SESSION_from_bytes(CBS_data(&tls), CBS_len(&tls), SSL_get_SSL_CTX(ssl));
    bool ok = taken != NULL && SSL_set_session(ssl, taken) == 1;
    SSL_SESSION_free(taken);
    ERR_clear_error();
    return ok;
}
