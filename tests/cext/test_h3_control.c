#include "h3_peer.h"

/* Settings of our own (RFC 9114, section 7.2.4.1; RFC 9220, section 3). */
#define MAX_FIELD_SECTION_SIZE  0x6
#define ENABLE_CONNECT_PROTOCOL 0x8

/* Stream types (RFC 9114, section 6.2; RFC 9204, section 4.2). */
enum { CONTROL = 0, PUSH = 1, ENCODER = 2, DECODER = 3 };

/* The peer opens a unidirectional stream with these bytes, its type first. */
static uint64_t open_uni(rig *r, uint64_t type, const char *bytes, size_t len) {
    wire w = {0};
    put_number(&w, type);
    put_bytes(&w, bytes, len);
    return peer_open(r, false, &w, false);
}

static void send_text(rig *r, uint64_t stream, const char *bytes, size_t len) {
    wire w = {0};
    put_bytes(&w, bytes, len);
    peer_send(r, stream, &w, false);
    turn(r);
}

static void send_number_frame(rig *r, uint64_t stream, uint64_t type, uint64_t number) {
    wire w = {0};
    uint8_t payload[8];
    put_frame(&w, type, payload, qg__varint_put(payload, number));
    peer_send(r, stream, &w, false);
    turn(r);
}

/* ---------------------------------------------------------------- ours */

static void check_settings(side *s, uint64_t conn, uint64_t stream, const char *expected,
                           size_t len) {
    uint8_t got[64];
    bool fin;
    size_t n = raw_read(s, conn, stream, got, sizeof got, &fin);
    CHECK_BYTES(got, n, expected, len);
    CHECK(!fin);
}

TEST(what_a_server_says_first) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.server.max_field_section_size = 16384;
    for (uint32_t extended = 0; extended < 2; extended++) {
        o.server.extended_connect = extended;
        silent_client(&r, &o);
        CHECK_EQ(count_events(&r.client, QG_EVENT_STREAM_OPENED), 1); /* no QPACK streams */
        CHECK_EQ(take_event(&r.client, QG_EVENT_STREAM_OPENED)->event.stream, 3);
        if (extended) {
            check_settings(&r.client, r.conn, 3, BYTES("\x00\x04\x07\x06\x80\x00\x40\x00\x08\x01"));
        } else {
            check_settings(&r.client, r.conn, 3, BYTES("\x00\x04\x05\x06\x80\x00\x40\x00"));
        }
        rig_close(&r);
    }
}

TEST(what_a_client_says_first) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.max_field_section_size = 1024;
    o.client.extended_connect = 1; /* is a server's to say */
    silent_server(&r, &o);
    CHECK_EQ(take_event(&r.server, QG_EVENT_STREAM_OPENED)->event.stream, 2);
    CHECK_EQ(count_events(&r.server, QG_EVENT_STREAM_OPENED), 0);
    check_settings(&r.server, r.server_conn, 2, BYTES("\x00\x04\x03\x06\x44\x00"));
    rig_close(&r);
}

/* Section 6.2: a peer "MUST allow". */
TEST(a_peer_that_allows_no_control_stream) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.client.raw = 1;
    o.client.initial_max_streams_uni = 0;
    rig_start(&r, &o);
    ends_with(&r, H3_STREAM_CREATION_ERROR);
}

/* ---------------------------------------------------------------- the peer's settings */

/* The stream's type and the frame's, both longer than they need be, unknown settings and frames. */
static const char long_settings[] = "\x40\x00"
                                    "\x40\x04\x40\x10"
                                    "\x06\x44\x00"                   /* 1024 */
                                    "\x08\x01"                       /* extended CONNECT */
                                    "\x21\x00"                       /* grease */
                                    "\xc0\0\0\0\x12\x34\x56\x78\x05" /* unknown */
                                    "\x21\x03xyz"                    /* a frame of grease */
                                    "\x80\x00\x40\x21\x00"           /* and an empty one */
                                    "\x80\x0f\x07\x02\x02??";        /* one nobody knows */

TEST(settings_split_at_every_byte) {
    size_t len = sizeof long_settings - 1;
    for (size_t cut = 0; cut <= len; cut++) {
        rig r;
        qg_conn_info info;
        check_note("split at %zu", cut);
        silent_server(&r, NULL);
        uint64_t stream = raw_send(&r.server, r.server_conn, false, long_settings, cut, false);
        turn(&r);
        raw_write(&r.server, r.server_conn, stream, long_settings + cut, len - cut, false);
        turn(&r);
        CHECK_EQ(qg_conn_info_of(r.client.engine, r.conn, &info), QG_OK);
        CHECK(info.extended_connect);
        CHECK_EQ(info.unknown_frame, 0x4021); /* the first of two that are not grease */
        CHECK_EQ(r.client.counters.frames_unknown, 2);
        CHECK_EQ(conn_at(&r.client, r.conn)->h3.peer_max_field_section_size, 1024);
        still_serves(&r);
        rig_close(&r);
    }
}

/* RFC 9220, section 3: no extended CONNECT before the SETTINGS that allow it. */
TEST(an_extended_connect_waits_for_the_settings) {
    static const char *const all[] = {"\x00\x04\x02\x08\x01", "\x00\x04\x02\x08\x00"};
    for (int allowed = 0; allowed < 2; allowed++) {
        rig r;
        uint64_t stream;
        const uint8_t head[] = {0xcf}; /* :method CONNECT; it is never looked at here */
        silent_server(&r, NULL);
        CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, 0, 7, 0, &stream), QG_OK);
        CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, QG_EXTENDED, 8, 0, &stream),
                 QG_AGAIN);
        turn(&r);
        CHECK(take_token(&r.client, 8) == NULL);
        raw_send(&r.server, r.server_conn, false, all[!allowed], 5, false);
        CHECK_EQ(await_token(&r, &r.client, 8)->event.type, QG_EVENT_OPENED);
        CHECK_EQ(qg_stream_request(r.client.engine, r.conn, head, 1, QG_EXTENDED, 9, 0, &stream),
                 allowed ? QG_OK : QG_UNABLE);
        rig_close(&r);
    }
}

/* Without waiting for the other's (section 7.2.4.2). */
TEST(a_peer_that_says_nothing_is_served) {
    rig r;
    silent_client(&r, NULL);
    still_serves(&r);
    rig_close(&r);
    silent_server(&r, NULL);
    still_serves(&r);
    rig_close(&r);
}

/* ---------------------------------------------------------------- breaches */

typedef struct breach {
    const char *what;
    const char *bytes; /* after the stream's type */
    size_t len;
    uint64_t code;
} breach;

#define SAID "\x04\x00" /* SETTINGS */

/* RFC 9114, sections 6.2.1, 7.2 and 11.2.1; RFC 9218, section 7.2. */
static const breach everybodys[] = {
    {"MAX_PUSH_ID first", BYTES("\x0d\x01\x00"), H3_MISSING_SETTINGS},
    {"GOAWAY first", BYTES("\x07\x01\x00"), H3_MISSING_SETTINGS},
    {"grease first", BYTES("\x21\x00"), H3_MISSING_SETTINGS},
    {"DATA first", BYTES("\x00\x00"), H3_MISSING_SETTINGS},
    {"a second SETTINGS", BYTES(SAID "\x04\x00"), H3_FRAME_UNEXPECTED},
    {"DATA", BYTES(SAID "\x00\x00"), H3_FRAME_UNEXPECTED},
    {"HEADERS", BYTES(SAID "\x01\x03\0\0\xd1"), H3_FRAME_UNEXPECTED},
    {"PUSH_PROMISE", BYTES(SAID "\x05\x03\x00\0\0"), H3_FRAME_UNEXPECTED},
    {"reserved 0x2", BYTES(SAID "\x02\x00"), H3_FRAME_UNEXPECTED},
    {"reserved 0x6", BYTES(SAID "\x06\x00"), H3_FRAME_UNEXPECTED},
    {"reserved 0x8", BYTES(SAID "\x08\x00"), H3_FRAME_UNEXPECTED},
    {"reserved 0x9", BYTES(SAID "\x09\x00"), H3_FRAME_UNEXPECTED},
    {"HTTP/2's ENABLE_PUSH", BYTES("\x04\x02\x02\x00"), H3_SETTINGS_ERROR},
    {"HTTP/2's MAX_CONCURRENT_STREAMS", BYTES("\x04\x02\x03\x10"), H3_SETTINGS_ERROR},
    {"HTTP/2's INITIAL_WINDOW_SIZE", BYTES("\x04\x02\x04\x10"), H3_SETTINGS_ERROR},
    {"HTTP/2's MAX_FRAME_SIZE", BYTES("\x04\x02\x05\x10"), H3_SETTINGS_ERROR},
    {"a setting twice", BYTES("\x04\x04\x06\x01\x06\x01"), H3_SETTINGS_ERROR},
    {"an unknown setting twice", BYTES("\x04\x06\x21\x01\x06\x01\x21\x02"), H3_SETTINGS_ERROR},
    {"ENABLE_CONNECT_PROTOCOL 2", BYTES("\x04\x02\x08\x02"), H3_SETTINGS_ERROR},
    {"a setting without value", BYTES("\x04\x03\x06\x01\x21"), H3_FRAME_ERROR},
    {"a setting cut", BYTES("\x04\x02\x06\x40"), H3_FRAME_ERROR},
    {"an empty GOAWAY", BYTES(SAID "\x07\x00"), H3_FRAME_ERROR},
    {"a long GOAWAY", BYTES(SAID "\x07\x02\x00\x00"), H3_FRAME_ERROR},
    {"a cut GOAWAY", BYTES(SAID "\x07\x01\x40"), H3_FRAME_ERROR},
    {"an empty CANCEL_PUSH", BYTES(SAID "\x03\x00"), H3_FRAME_ERROR},
    {"CANCEL_PUSH of what was not promised", BYTES(SAID "\x03\x01\x00"), H3_ID_ERROR},
    {"GOAWAY that grows", BYTES(SAID "\x07\x01\x04\x07\x01\x00\x07\x01\x04"), H3_ID_ERROR},
};

static const breach clients[] = {
    {"an empty MAX_PUSH_ID", BYTES(SAID "\x0d\x00"), H3_FRAME_ERROR},
    {"MAX_PUSH_ID with a tail", BYTES(SAID "\x0d\x02\x00\x00"), H3_FRAME_ERROR},
    {"MAX_PUSH_ID that falls", BYTES(SAID "\x0d\x01\x05\x0d\x01\x04"), H3_ID_ERROR},
    {"PRIORITY_UPDATE without id", BYTES(SAID "\x80\x0f\x07\x00\x00"), H3_FRAME_ERROR},
    {"PRIORITY_UPDATE of no request", BYTES(SAID "\x80\x0f\x07\x00\x01\x02"), H3_ID_ERROR},
    {"PRIORITY_UPDATE of a push", BYTES(SAID "\x80\x0f\x07\x01\x01\x00"), H3_ID_ERROR},
};

static const breach servers[] = {
    {"MAX_PUSH_ID", BYTES(SAID "\x0d\x01\x00"), H3_FRAME_UNEXPECTED},
    {"GOAWAY of a push", BYTES(SAID "\x07\x01\x01"), H3_ID_ERROR},
    {"GOAWAY of a server's stream", BYTES(SAID "\x07\x01\x02"), H3_ID_ERROR},
    {"PRIORITY_UPDATE", BYTES(SAID "\x80\x0f\x07\x00\x01\x00"), H3_FRAME_UNEXPECTED},
    {"PRIORITY_UPDATE of a push", BYTES(SAID "\x80\x0f\x07\x01\x01\x00"), H3_FRAME_UNEXPECTED},
};

static void check_breaches(const breach *rows, size_t count, bool client) {
    for (size_t i = 0; i < count; i++) {
        rig r;
        (client ? silent_client : silent_server)(&r, NULL);
        open_uni(&r, CONTROL, rows[i].bytes, rows[i].len);
        check_note("%s", rows[i].what);
        UNTIL(&r, count_events(peer_of(&r), QG_EVENT_CLOSED) == 1);
        ends_with(&r, rows[i].code);
    }
}

TEST(breaches_of_a_client) {
    check_breaches(everybodys, COUNT(everybodys), true);
    check_breaches(clients, COUNT(clients), true);
}

TEST(breaches_of_a_server) {
    check_breaches(everybodys, COUNT(everybodys), false);
    check_breaches(servers, COUNT(servers), false);
}

/* What means something is kept until it is whole; what does not is not. */
TEST(long_frames) {
    static wire w;
    static uint8_t bytes[20000];
    for (int meaningful = 0; meaningful < 2; meaningful++) {
        rig r;
        peer_client(&r, NULL);
        w.len = 0;
        put_frame(&w, meaningful ? GOAWAY : GREASE, bytes, sizeof bytes);
        w.len -= meaningful ? sizeof bytes : 0; /* the length is enough */
        peer_send(&r, 2, &w, false);
        if (meaningful) {
            ends_with(&r, H3_EXCESSIVE_LOAD);
        } else {
            still_serves(&r);
            rig_close(&r);
        }
    }
}

TEST(too_many_settings) {
    rig r;
    wire settings = {0}, w = {0};
    for (unsigned i = 0; i < 100; i++) {
        put_number(&settings, 0x100 + i);
        put_number(&settings, i);
    }
    silent_client(&r, NULL);
    put_number(&w, CONTROL);
    put_frame(&w, SETTINGS, settings.data, settings.len);
    peer_open(&r, false, &w, false);
    ends_with(&r, H3_EXCESSIVE_LOAD);
}

TEST(what_a_client_may_say) {
    rig r;
    peer_client(&r, NULL);
    send_text(&r, 2, BYTES("\x0d\x01\x05\x0d\x01\x05\x0d\x01\x06")); /* MAX_PUSH_ID */
    send_text(&r, 2, BYTES("\x07\x01\x07\x07\x01\x07\x07\x01\x02")); /* GOAWAY: pushes */
    send_text(&r, 2, BYTES("\x80\x0f\x07\x00\x04\x40\x40u=")); /* PRIORITY_UPDATE: not yet open */
    still_serves(&r);
    rig_close(&r);
}

/* ---------------------------------------------------------------- kinds of streams */

TEST(streams_of_which_there_is_one) {
    static const uint64_t types[] = {CONTROL, ENCODER, DECODER};
    for (size_t i = 0; i < COUNT(types); i++) {
        for (int server = 0; server < 2; server++) {
            rig r;
            (server ? peer_server : peer_client)(&r, NULL);
            check_note("type %d of a %s", (int)types[i], server ? "server" : "client");
            if (types[i] != CONTROL) {
                open_uni(&r, types[i], NULL, 0);
                still_serves(&r);
            }
            open_uni(&r, types[i], NULL, 0);
            ends_with(&r, H3_STREAM_CREATION_ERROR);
        }
    }
}

/* Section 6.2.2; no MAX_PUSH_ID was sent (section 4.6). */
TEST(push_streams) {
    rig r;
    peer_client(&r, NULL);
    open_uni(&r, PUSH, BYTES("\x00"));
    ends_with(&r, H3_STREAM_CREATION_ERROR);
    peer_server(&r, NULL);
    open_uni(&r, PUSH, BYTES("\x00"));
    ends_with(&r, H3_ID_ERROR);
}

/* Section 6.2.1; RFC 9204, section 4.2. */
TEST(streams_that_must_stay_open) {
    static const uint64_t types[] = {CONTROL, ENCODER, DECODER};
    for (size_t i = 0; i < COUNT(types); i++) {
        for (int way = 0; way < 4; way++) {
            rig r;
            wire w = {0};
            check_note("type %d, way %d", (int)types[i], way);
            (way & 1 ? silent_server : silent_client)(&r, NULL);
            put_number(&w, types[i]);
            put_bytes(&w, SAID, types[i] == CONTROL ? 2 : 0);
            if (way & 2) { /* with the first bytes, or later */
                peer_open(&r, false, &w, true);
            } else {
                uint64_t stream = peer_open(&r, false, &w, false);
                turn(&r);
                CHECK_EQ(qg_stream_shutdown(peer_of(&r)->engine, peer_conn(&r), stream,
                                            QG_SIDE_WRITE, 0),
                         QG_OK);
            }
            ends_with(&r, H3_CLOSED_CRITICAL_STREAM);
        }
    }
}

/* Section 6.2: read and dropped, whatever they are and however they end. More of them than may be
 * open at a time: their places come back. */
TEST(unknown_streams_are_dropped) {
    static wire w;
    static uint8_t bytes[5000];
    rig r;
    peer_client(&r, NULL);
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t stream;
        w.len = 0;
        if (i % 4 != 0) {
            put_number(&w, i % 4 == 1 ? GREASE + 0x1f * i : (1 << 20) + i);
            put_bytes(&w, bytes, sizeof bytes);
        }
        UNTIL(&r, qg_stream_open(r.client.engine, r.conn, 0, 0, 0, &stream) == QG_OK);
        if (w.len > 0) {
            raw_write(&r.client, r.conn, stream, w.data, w.len, i % 4 == 1);
        }
        turn(&r);
        if (i % 4 != 1) {
            CHECK_EQ(qg_stream_shutdown(r.client.engine, r.conn, stream, QG_SIDE_WRITE, 5), QG_OK);
            CHECK_EQ(qg_stream_release(r.client.engine, r.conn, stream), QG_OK);
        }
        turn(&r);
        CHECK_EQ(r.server.counters.streams, 2);
    }
    still_serves(&r);
    rig_close(&r);
}

/* ---------------------------------------------------------------- QPACK's streams */

static void check_qpack(uint64_t type, const char *bytes, size_t len, uint64_t code) {
    for (size_t cut = 0; cut < len; cut++) {
        rig r;
        check_note("type %d, %zu bytes of %02x, cut at %zu", (int)type, len, (uint8_t)bytes[0],
                   cut);
        peer_client(&r, NULL);
        uint64_t stream = open_uni(&r, type, bytes, cut);
        turn(&r);
        wire w = {0};
        put_bytes(&w, bytes + cut, len - cut);
        if (count_events(&r.client, QG_EVENT_CLOSED) == 0) {
            peer_send(&r, stream, &w, false);
        }
        if (code == 0) {
            still_serves(&r);
            rig_close(&r);
        } else {
            ends_with(&r, code);
        }
    }
}

/* RFC 9204, section 4.3: the table that we allow has no room for anything. */
TEST(the_encoders_stream) {
    const uint64_t code = QPACK_ENCODER_STREAM_ERROR;
    check_qpack(ENCODER, BYTES("\x20"), 0); /* capacity 0 */
    check_qpack(ENCODER, BYTES("\x20\x20\x20"), 0);
    check_qpack(ENCODER, BYTES("\x21"), code);                     /* capacity 1 */
    check_qpack(ENCODER, BYTES("\x3f\xe1\xc7\xaf\xa0\x25"), code); /* 10^10 */
    check_qpack(ENCODER, BYTES("\x41\x61\x01\x62"), code);         /* insert a: b */
    check_qpack(ENCODER, BYTES("\xc1\x01\x62"), code);             /* with a static name */
    check_qpack(ENCODER, BYTES("\x00"), code);                     /* duplicate */
}

/* Section 4.4: nothing was inserted, so only streams can be cancelled. */
TEST(the_decoders_stream) {
    const uint64_t code = QPACK_DECODER_STREAM_ERROR;
    check_qpack(DECODER, BYTES("\x40"), 0);
    check_qpack(DECODER, BYTES("\x44\x48\x7e"), 0);
    check_qpack(DECODER, BYTES("\x7f\x00"), 0);
    check_qpack(DECODER, BYTES("\x7f\x81\x80\x01\x44"), 0);
    check_qpack(DECODER, BYTES("\x00"), code); /* increment by 0 */
    check_qpack(DECODER, BYTES("\x01"), code);
    check_qpack(DECODER, BYTES("\x80"), code); /* a section was acknowledged */
    check_qpack(DECODER, BYTES("\x44\x84"), code);
    check_qpack(DECODER, BYTES("\x7f\x81\x01\x02"), code);
}

/* ---------------------------------------------------------------- GOAWAY */

/* RFC 9114, section 5.2: what was not processed may be sent again. */
TEST(goaway_to_a_client) {
    rig r;
    wire w = {0};
    peer_server(&r, NULL);
    for (uint64_t token = 1; token <= 3; token++) {
        await_request(&r, token);
    }
    send_number_frame(&r, 3, GOAWAY, 4);
    const seen *e = await_event(&r, &r.client, QG_EVENT_GOAWAY);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK_EQ(e->event.stream, 4);
    for (uint64_t token = 2; token <= 3; token++) {
        e = await_token(&r, &r.client, token);
        CHECK_EQ(e->event.type, QG_EVENT_STREAM_ERROR);
        CHECK_EQ(e->event.status, -QG_REFUSED);
        await_peer_stopped(&r, 4 * (token - 1), H3_REQUEST_CANCELLED);
    }
    put_head(&w, ":status: 204\n");
    peer_send(&r, 0, &w, true);
    CHECK_EQ(await_token(&r, &r.client, 1)->event.status, 204);
    request(&r, 4, "GET", "/", NULL, 0, QG_FIN);
    CHECK_EQ(await_token(&r, &r.client, 4)->event.status, -QG_REFUSED);
    rig_close(&r);
}

TEST(goaway_that_falls) {
    rig r;
    peer_server(&r, NULL);
    for (uint64_t token = 1; token <= 3; token++) {
        await_request(&r, token);
    }
    for (uint64_t id = 8; id <= 8; id -= 4) { /* 8, 4, 0 */
        send_number_frame(&r, 3, GOAWAY, id);
        CHECK_EQ(await_event(&r, &r.client, QG_EVENT_GOAWAY)->event.stream, id);
        CHECK_EQ(await_token(&r, &r.client, 1 + id / 4)->event.status, -QG_REFUSED);
    }
    send_number_frame(&r, 3, GOAWAY, 0);
    CHECK_EQ(await_event(&r, &r.client, QG_EVENT_GOAWAY)->event.stream, 0);
    send_number_frame(&r, 3, GOAWAY, 4);
    ends_with(&r, H3_ID_ERROR);
}

TEST(a_response_under_way_survives_goaway) {
    rig r;
    wire w = {0};
    uint8_t body[16];
    uint32_t flags;
    peer_server(&r, NULL);
    uint64_t stream = await_request(&r, 1);
    put_head(&w, ":status: 200\n");
    put_frame(&w, DATA, BYTES("be"));
    peer_send(&r, stream, &w, false);
    const seen *e = await_token(&r, &r.client, 1);
    send_number_frame(&r, 3, GOAWAY, 0);
    w.len = 0;
    put_frame(&w, DATA, BYTES("gun"));
    peer_send(&r, stream, &w, true);
    size_t len = read_body(&r, &r.client, e, body, sizeof body, 10, &flags);
    CHECK_TEXT(body, len, "begun");
    rig_close(&r);
}

/* ---------------------------------------------------------------- PRIORITY_UPDATE */

static void say_priority(rig *r, uint64_t id, const char *value) {
    wire payload = {0}, w = {0};
    put_number(&payload, id);
    put_bytes(&payload, value, strlen(value));
    put_frame(&w, PRIORITY_UPDATE, payload.data, payload.len);
    peer_send(r, 2, &w, false);
    turn(r);
}

/* RFC 9218, section 7.1: it overrides what the field said. */
TEST(a_priority_that_changes) {
    for (unsigned first = 0; first < 2; first++) {
        rig r;
        peer_client(&r, NULL);
        for (unsigned i = 0; i < 2; i++) {
            wire w = {0};
            put_head(&w, i == first ? GET_LINES "priority: u=6\n" : GET_LINES "priority: u=1\n");
            peer_open(&r, true, &w, true);
        }
        turn(&r);
        say_priority(&r, 4 * first, "u=0");
        CHECK_EQ(race(&r), first);
        rig_close(&r);
    }
}
