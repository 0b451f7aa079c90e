#include "harness.h"

/* A client's context: enough for settings. */
static qg_tls *client_tls(void) {
    qg_tls_options o = {.abi = QG_ABI, .alpn = (const uint8_t *)ALPN_H3, .alpn_len = 3};
    char error[200];
    qg_tls *tls = qg_tls_new(&o, error, sizeof error);
    CHECK(tls != NULL);
    return tls;
}

static bool accepted(const qg_config_options *o) {
    char error[200] = "";
    qg_tls *tls = client_tls();
    qg_config *config = qg_config_new(o, tls, error, sizeof error);
    bool ok = config != NULL;
    CHECK_EQ(error[0] == '\0', ok);
    qg_config_free(config);
    CHECK_EQ(tls->references, 1);
    qg_tls_free(tls);
    return ok;
}

static qg_config_options defaults(void) {
    qg_config_options o;
    qg_config_defaults(&o, 0);
    return o;
}

#define TRY(member, value, expected)                                                               \
    do {                                                                                           \
        qg_config_options options = defaults();                                                    \
        options.member = (value);                                                                  \
        check_note(#member " = " #value);                                                          \
        CHECK_EQ(accepted(&options), expected);                                                    \
    } while (0)

TEST(defaults_are_accepted) {
    qg_config_options o = defaults();
    CHECK(accepted(&o));
    CHECK_EQ(o.abi, QG_ABI);
    CHECK_EQ(o.is_server, 0);
    qg_config_defaults(&o, 1);
    CHECK_EQ(o.is_server, 1);
}

TEST(limits_of_sizes_and_counts) {
    TRY(abi, QG_ABI + 1, false);
    TRY(is_server, 1, false); /* the context is a client's */
    TRY(max_udp_payload_size, 1199, false);
    TRY(max_udp_payload_size, 1200, true);
    TRY(max_udp_payload_size, 65527, true);
    TRY(max_udp_payload_size, 65528, false);
    TRY(max_field_section_size, 1023, false);
    TRY(max_field_section_size, 1024, true);
    TRY(max_field_section_size, 262144, true);
    TRY(max_field_section_size, 262145, false);
    TRY(active_connection_id_limit, 1, false);
    TRY(active_connection_id_limit, 2, true);
    TRY(initial_max_streams_uni, 2, false);
    TRY(initial_max_streams_uni, 3, true);
    TRY(initial_max_streams_uni, UINT64_C(1) << 60, false);
    TRY(initial_max_streams_bidi, UINT64_C(1) << 60, false);
    TRY(initial_max_streams_bidi, (UINT64_C(1) << 60) - 1, true);
    TRY(initial_max_streams_bidi, 0, true);
}

TEST(limits_of_windows) {
    uint64_t limit = UINT64_C(1) << 30;
    TRY(initial_max_data, limit, false);
    TRY(initial_max_data, limit - 1, true);
    TRY(max_connection_window, limit, false);
    TRY(max_stream_window, limit, false);
    TRY(initial_max_stream_data_bidi_local, limit, false);
    TRY(initial_max_stream_data_bidi_remote, limit, false);
    TRY(initial_max_stream_data_uni, limit, false);
    TRY(initial_max_stream_data_uni, 0, true);
}

TEST(limits_of_the_rest) {
    TRY(send_capacity_factor, 0.99, false);
    TRY(send_capacity_factor, 1.0, true);
    TRY(send_capacity_factor, 16.0, true);
    TRY(send_capacity_factor, 16.1, false);
    TRY(send_capacity_factor, __builtin_nan(""), false);
    TRY(cc_algorithm, "reno", true);
    TRY(cc_algorithm, "bbr2_gcongestion", true);
    TRY(cc_algorithm, "none such", false);
    TRY(cc_algorithm, "", false);
    TRY(max_idle_ms, 0, true);
}

TEST(raw_streams_need_no_room_for_http_3) {
    qg_config_options o = defaults();
    o.raw = 1;
    o.initial_max_streams_uni = 0;
    CHECK(accepted(&o));
}

TEST(a_configuration_holds_its_tls_context) {
    char error[200];
    qg_config_options o = defaults();
    qg_tls *tls = client_tls();
    qg_config *config = qg_config_new(&o, tls, error, sizeof error);
    CHECK_EQ(tls->references, 2);
    qg_tls_free(tls);
    CHECK(qg__config_reference(config) == config);
    qg_config_free(config);
    CHECK_EQ(config->tls->references, 1);
    CHECK(config->options.cc_algorithm == NULL); /* the caller's memory is not kept */
    qg_config_free(config);
    qg_config_free(NULL);
}

static void digest_of(const qg_config_options *o, uint8_t out[32]) {
    char error[200];
    qg_tls *tls = client_tls();
    qg_config *config = qg_config_new(o, tls, error, sizeof error);
    CHECK(config != NULL);
    memcpy(out, config->digest, 32);
    qg_config_free(config);
    qg_tls_free(tls);
}

/* What a client remembers with a ticket (RFC 9000, section 7.4.1; RFC 9114, section 7.2.4.2). */
TEST(the_digest_covers_what_early_data_depends_on) {
    uint8_t usual[32], other[32];
    qg_config_options o = defaults();
    digest_of(&o, usual);
    digest_of(&o, other);
    CHECK_BYTES(usual, 32, other, 32);
    uint64_t *members[] = {&o.initial_max_data,
                           &o.initial_max_stream_data_bidi_local,
                           &o.initial_max_stream_data_bidi_remote,
                           &o.initial_max_stream_data_uni,
                           &o.initial_max_streams_bidi,
                           &o.initial_max_streams_uni,
                           &o.max_field_section_size};
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        *members[i] += 1;
        digest_of(&o, other);
        CHECK(memcmp(usual, other, 32) != 0);
        *members[i] -= 1;
    }
    o.extended_connect = 1;
    digest_of(&o, other);
    CHECK(memcmp(usual, other, 32) != 0);
    o = defaults();
    o.max_idle_ms += 1; /* which is not remembered */
    digest_of(&o, other);
    CHECK_BYTES(usual, 32, other, 32);
}

/* The largest payload that may be asked for is more than one datagram over IPv4 carries. */
TEST(the_largest_payload_size_works) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.max_udp_payload_size = o.server.max_udp_payload_size = 65527;
    rig_start(&r, &o);
    exchange(&r, 1);
    rig_close(&r);
}

TEST(the_largest_windows_work_with_retry) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    uint64_t most = (UINT64_C(1) << 30) - 1;
    o.server.initial_max_data = o.server.initial_max_stream_data_bidi_local =
        o.server.initial_max_stream_data_bidi_remote = o.server.initial_max_stream_data_uni =
            o.server.max_connection_window = o.server.max_stream_window = most;
    o.server.initial_max_streams_bidi = o.server.initial_max_streams_uni = most;
    o.listen.retry = QG_RETRY_ALWAYS;
    rig_start(&r, &o);
    CHECK(r.server.counters.retries_sent > 0);
    exchange(&r, 1);
    rig_close(&r);
}
