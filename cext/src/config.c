#include "config.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* quiche writes transport parameters into 128 bytes; a window of 2^30 takes an 8-byte integer, and
 * with several of them a Retry no longer fits. */
#define WINDOW_LIMIT (UINT64_C(1) << 30)

void qg_config_defaults(qg_config_options *o, uint32_t is_server) {
    *o = (qg_config_options){
        .abi = QG_ABI,
        .is_server = is_server,
        /* The seed's `max_idle_ms`. Half would drop connections between a person's clicks; double
         * would keep the state of clients that vanished for a minute. */
        .max_idle_ms = 30000,
        /* Ten times a bad mobile round trip, with retransmissions. */
        .handshake_timeout_ms = 10000,
        .write_timeout_ms = 60000,
        /* What a peer may make us hold before anyone reads: the start of the windows. They grow to
         * the maxima below as the application keeps up (quiche doubles them per round trip). */
        .initial_max_data = 1 * MIB,
        .initial_max_stream_data_bidi_local = 512 * KIB,
        .initial_max_stream_data_bidi_remote = 512 * KIB,
        .initial_max_stream_data_uni = 128 * KIB,
        /* RFC 9114, section 6.1, asks for at least 100 requests at a time. */
        .initial_max_streams_bidi = 100,
        /* Three for HTTP/3 itself and room for greased ones. */
        .initial_max_streams_uni = 8,
        /* quiche's own maxima: 1 Gbit/s at 190 ms. */
        .max_connection_window = 24 * MIB,
        .max_stream_window = 16 * MIB,
        /* What nginx and Apache take by default, in total. */
        .max_field_section_size = 32 * KIB,
        .max_fields = 128,
        /* An Ethernet frame less IPv6 and UDP headers; path MTU discovery finds out what passes. */
        .max_udp_payload_size = 1452,
        .discover_pmtu = 1,
        .grease = 1,
        .disable_active_migration = 0,
        /* quiche does not pace CUBIC, and BBR's packets would each need a timer of their own: runs
         * are sent as they come, which is what batching lives on. */
        .pacing = 0,
        .hystart = 1,
        .initial_congestion_window_packets = 10, /* RFC 9002, section 7.2 */
        /* And paths: quiche keeps those of a client's last addresses (5 kB each), one of them for the case
         * that the newest is not valid, and goes through them with each packet that acknowledges. */
        .active_connection_id_limit = 8,
        .extended_connect = 0,
        .raw = 0,
        .send_capacity_factor = 1.0,
        .cc_algorithm = "cubic",
    };
}

static bool check(const qg_config_options *o, const qg_tls *tls, char *error, size_t capacity) {
    const char *wrong = NULL;
    if (o->abi != QG_ABI) {
        wrong = "the options are of another version of the engine";
    } else if ((o->is_server != 0) != tls->is_server) {
        wrong = "the TLS context is for the other side";
    } else if (o->max_udp_payload_size < 1200 || o->max_udp_payload_size > 65527) {
        wrong = "max_udp_payload_size must be 1200 to 65527 (RFC 9000, sections 14 and 18.2)";
    } else if (o->initial_max_data >= WINDOW_LIMIT || o->max_connection_window >= WINDOW_LIMIT ||
               o->initial_max_stream_data_bidi_local >= WINDOW_LIMIT ||
               o->initial_max_stream_data_bidi_remote >= WINDOW_LIMIT ||
               o->initial_max_stream_data_uni >= WINDOW_LIMIT ||
               o->max_stream_window >= WINDOW_LIMIT) {
        wrong = "windows must be below 2^30 bytes";
    } else if (o->max_field_section_size < 1 * KIB || o->max_field_section_size > 256 * KIB) {
        wrong = "max_field_section_size must be 1024 to 262144";
    } else if (o->active_connection_id_limit < 2) {
        wrong = "active_connection_id_limit must be at least 2 (RFC 9000, section 18.2)";
    } else if (o->initial_max_streams_bidi >= (UINT64_C(1) << 60) ||
               o->initial_max_streams_uni >= (UINT64_C(1) << 60)) {
        wrong = "stream limits must be below 2^60 (RFC 9000, section 4.6)";
    } else if (!o->raw && o->initial_max_streams_uni < 3) {
        wrong = "initial_max_streams_uni must be at least 3 for HTTP/3 (RFC 9114, section 6.2)";
    } else if (!(o->send_capacity_factor >= 1.0 && o->send_capacity_factor <= 16.0)) {
        wrong = "send_capacity_factor must be 1 to 16";
    }
    if (wrong != NULL) {
        snprintf(error, capacity, "%s", wrong);
    }
    return wrong == NULL;
}

static bool apply(quiche_config *q, const qg_config_options *o) {
    quiche_config_set_max_idle_timeout(q, o->max_idle_ms);
    quiche_config_set_max_recv_udp_payload_size(q, 65527); /* no limit: buffers are large enough */
    quiche_config_set_max_send_udp_payload_size(q, o->max_udp_payload_size);
    quiche_config_set_initial_max_data(q, o->initial_max_data);
    quiche_config_set_initial_max_stream_data_bidi_local(q, o->initial_max_stream_data_bidi_local);
    quiche_config_set_initial_max_stream_data_bidi_remote(q,
                                                          o->initial_max_stream_data_bidi_remote);
    quiche_config_set_initial_max_stream_data_uni(q, o->initial_max_stream_data_uni);
    quiche_config_set_initial_max_streams_bidi(q, o->initial_max_streams_bidi);
    quiche_config_set_initial_max_streams_uni(q, o->initial_max_streams_uni);
    quiche_config_set_max_connection_window(q, o->max_connection_window);
    quiche_config_set_max_stream_window(q, o->max_stream_window);
    quiche_config_set_active_connection_id_limit(q, o->active_connection_id_limit);
    quiche_config_set_disable_active_migration(q, o->disable_active_migration != 0);
    quiche_config_set_initial_congestion_window_packets(q, o->initial_congestion_window_packets);
    quiche_config_discover_pmtu(q, o->discover_pmtu != 0);
    quiche_config_grease(q, o->grease != 0);
    quiche_config_enable_pacing(q, o->pacing != 0);
    quiche_config_enable_hystart(q, o->hystart != 0);
    qgq_config_set_send_capacity_factor(q, o->send_capacity_factor);
    return quiche_config_set_cc_algorithm_name(q, o->cc_algorithm) == 0;
}

static void digest(qg_config *c) {
    const qg_config_options *o = &c->options;
    uint64_t remembered[] = {o->initial_max_data,
                             o->initial_max_stream_data_bidi_local,
                             o->initial_max_stream_data_bidi_remote,
                             o->initial_max_stream_data_uni,
                             o->initial_max_streams_bidi,
                             o->initial_max_streams_uni,
                             o->active_connection_id_limit,
                             o->max_field_section_size,
                             o->extended_connect};
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, remembered, sizeof remembered);
    SHA256_Update(&sha, c->tls->alpn, c->tls->alpn_len);
    SHA256_Final(c->digest, &sha);
}

qg_config *qg_config_new(const qg_config_options *o, qg_tls *tls, char *error, size_t capacity) {
    if (!check(o, tls, error, capacity)) {
        return NULL;
    }
    qg_config *c = calloc(1, sizeof *c);
    quiche_config *q = qgq_config_new();
    char *qlog_dir = o->qlog_dir != NULL ? strdup(o->qlog_dir) : NULL;
    bool memory = c != NULL && q != NULL && (o->qlog_dir == NULL || qlog_dir != NULL);
    if (!memory || !apply(q, o)) {
        snprintf(error, capacity, memory ? "unknown cc_algorithm: %s" : "out of memory",
                 o->cc_algorithm);
        free(c);
        free(qlog_dir);
        quiche_config_free(q);
        return NULL;
    }
    c->options = *o;
    c->options.cc_algorithm = c->options.qlog_dir = NULL; /* the caller's memory */
    c->qlog_dir = qlog_dir;
    c->quiche = q;
    c->tls = qg__tls_reference(tls);
    c->references = 1;
    c->limits =
        (qg_head_limits){o->max_field_section_size, o->max_fields, o->extended_connect != 0};
    digest(c);
    return c;
}

qg_config *qg__config_reference(qg_config *config) {
    config->references++;
    return config;
}

void qg_config_free(qg_config *c) {
    if (c == NULL || --c->references > 0) {
        return;
    }
    quiche_config_free(c->quiche);
    qg_tls_free(c->tls);
    free(c->qlog_dir);
    free(c);
}
