/* The cases of the Autobahn test suite that are about frames, sections 1 to 7, 9 and 10, as a table:
 * what a peer sends, and what has to be made of it. Each is run for both directions, and with the
 * bytes cut in several ways, for which the suite has cases of their own here and there. */
#include "check.h"
#include "random.h"
#include "ws_frame.h"

#include <stdio.h>
#include <stdlib.h>

#define T(text) text, sizeof text - 1
#define TEXT    0x81
#define BIN     0x82
#define CLOSE   0x88
#define PING    0x89
#define PONG    0x8a

/* Longer payloads are stars. */
#define STARS(len) NULL, len
#define SAID_MAX   64

typedef struct frame {
    uint8_t first; /* FIN, reserved bits, opcode */
    const char *payload;
    uint32_t len;
} frame;

typedef struct row {
    const char *id;
    const char *expect; /* messages, "opcode:payload " each, and in the end "!code" of an error */
    frame frames[11];
} row;

/* ---------------------------------------------------------------- what is sent */

typedef struct bytes {
    uint8_t *at;
    size_t len, room;
} bytes;

static void put(bytes *b, const void *from, size_t len) {
    if (b->len + len > b->room) {
        b->room = 2 * (b->len + len);
        b->at = realloc(b->at, b->room);
    }
    qg__copy(b->at + b->len, from, len);
    b->len += len;
}

/* By hand, since most of this could not be built otherwise. */
static void put_frame(bytes *b, const frame *f, bool masked) {
    static uint64_t random = 7;
    uint8_t head[14] = {f->first}, key[4];
    size_t at = 2, start;
    uint8_t mask = masked ? 0x80 : 0;
    if (f->len < 126) {
        head[1] = (uint8_t)(mask | f->len);
    } else if (f->len < 65536) {
        head[1] = mask | 126;
        qg__put16(head + 2, (uint16_t)f->len);
        at = 4;
    } else {
        head[1] = mask | 127;
        qg__put64(head + 2, f->len);
        at = 10;
    }
    random_bytes(&random, key, 4);
    put(b, head, at);
    if (masked) {
        put(b, key, 4);
    }
    start = b->len;
    if (f->payload != NULL) {
        put(b, f->payload, f->len);
    } else {
        uint8_t stars[256];
        memset(stars, '*', sizeof stars);
        for (uint32_t left = f->len; left > 0; left -= (uint32_t)qg__min(left, sizeof stars)) {
            put(b, stars, qg__min(left, sizeof stars));
        }
    }
    for (size_t i = start; masked && i < b->len; i++) {
        b->at[i] ^= key[(i - start) & 3];
    }
}

/* ---------------------------------------------------------------- what is made of it */

typedef struct hearer {
    qg_ws_reader reader;
    bytes message, said;
    bool in_message;
} hearer;

static void say(bytes *said, uint32_t opcode, const uint8_t *payload, size_t len) {
    char text[40];
    bool is_long = len > SAID_MAX;
    int n = snprintf(text, sizeof text, is_long ? "%u#%zu " : "%u:", opcode, len);
    put(said, text, (size_t)n);
    if (!is_long) {
        put(said, payload, len);
        put(said, " ", 1);
        return;
    }
    CHECK(payload[0] == '*' && memcmp(payload, payload + 1, len - 1) == 0); /* all stars */
}

static void hear_piece(hearer *h, const uint8_t *fed, const qg_ws_piece *p) {
    const uint8_t *payload = (p->flags & QG_WS_KEPT ? h->reader.control : fed) + p->offset;
    if (p->opcode >= QG_WS_CLOSE) {
        CHECK_EQ(p->flags & ~(uint32_t)QG_WS_KEPT,
                 QG_WS_MESSAGE_START | QG_WS_FRAME_END | QG_WS_MESSAGE_END);
        say(&h->said, p->opcode, payload, p->len);
        return;
    }
    CHECK_EQ((p->flags & QG_WS_MESSAGE_START) != 0, !h->in_message);
    CHECK((p->flags & QG_WS_FRAME_END) != 0 || p->len > 0);
    put(&h->message, payload, p->len);
    h->in_message = (p->flags & QG_WS_MESSAGE_END) == 0;
    if (!h->in_message) {
        CHECK(p->flags & QG_WS_FRAME_END);
        say(&h->said, p->opcode, h->message.at, h->message.len);
        h->message.len = 0;
    }
}

static void hear(hearer *h, const uint8_t *from, size_t len) {
    uint8_t *fed = malloc(len); /* exact, for the sanitizer */
    memcpy(fed, from, len);
    do {
        uint32_t begin = h->reader.used;
        qg_ws_feed(&h->reader, fed, begin, (uint32_t)len);
        for (uint32_t i = 0; i < h->reader.count; i++) {
            hear_piece(h, fed, &h->reader.pieces[i]);
        }
    } while (h->reader.used < len);
    h->reader.used = 0;
    free(fed);
}

static void begin_hearing(hearer *h, bool is_server) {
    memset(h, 0, sizeof *h);
    qg_ws_reader_init(&h->reader, is_server ? QG_WS_SERVER : 0);
}

static void end_hearing(hearer *h, const char *expect) {
    char error[12];
    if (h->reader.error != 0) {
        CHECK(h->reader.problem != NULL);
        put(&h->said, error, (size_t)snprintf(error, sizeof error, "!%u", h->reader.error));
    }
    CHECK_TEXT(h->said.at, h->said.len, expect);
    free(h->said.at);
    free(h->message.at);
}

static const size_t cuts[] = {SIZE_MAX, 1, 2, 3, 5, 13, 64, 997};

static void check_row(const char *id, const frame *frames, size_t count, const char *expect) {
    for (int is_server = 0; is_server < 2; is_server++) {
        bytes wire = {0};
        for (size_t i = 0; i < count; i++) {
            put_frame(&wire, &frames[i], is_server);
        }
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            if (wire.len / cuts[c] > 10000) {
                continue;
            }
            check_note("case %s, %s, cut at %zu", id, is_server ? "server" : "client", cuts[c]);
            hearer h;
            begin_hearing(&h, is_server);
            for (size_t at = 0; at < wire.len; at += qg__min(cuts[c], wire.len - at)) {
                hear(&h, wire.at + at, qg__min(cuts[c], wire.len - at));
            }
            end_hearing(&h, expect);
        }
        free(wire.at);
    }
}

static void check_rows(const row *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        size_t frames = 0;
        while (rows[i].frames[frames].first != 0 || rows[i].frames[frames].payload != NULL) {
            frames++;
        }
        check_row(rows[i].id, rows[i].frames, frames, rows[i].expect);
    }
}

#define CHECK_ROWS(rows) check_rows(rows, sizeof rows / sizeof *rows)

/* ---------------------------------------------------------------- 1: framing */

TEST(framing) {
    static const uint32_t sizes[] = {0, 125, 126, 127, 128, 65535, 65536};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (uint8_t opcode = QG_WS_TEXT; opcode <= QG_WS_BINARY; opcode++) {
            frame f = {(uint8_t)(0x80 | opcode), STARS(sizes[i])};
            char expect[40];
            snprintf(expect, sizeof expect, sizes[i] > 0 ? "%u#%u " : "%u: ", opcode, sizes[i]);
            check_row("1", &f, 1, expect);
        }
    }
}

/* ---------------------------------------------------------------- 2: pings and pongs */

#define A_PING {PING, T("payload")}

TEST(pings_and_pongs) {
    static const row rows[] = {
        {"2.1", "9: ", {{PING, T("")}}},
        {"2.2", "9:Hello, world! ", {{PING, T("Hello, world!")}}},
        {"2.3",
         "9:\x01\xff\xfe\xfd\xfc\xfb\x01\xff ",
         {{PING, T("\x01\xff\xfe\xfd\xfc\xfb\x01\xff")}}},
        {"2.4", "9#125 ", {{PING, STARS(125)}}},
        {"2.5", "!1002", {{PING, STARS(126)}}},
        {"2.7", "10: ", {{PONG, T("")}}},
        {"2.8", "10:unsolicited ", {{PONG, T("unsolicited")}}},
        {"2.9", "10:unsolicited 9:ping ", {{PONG, T("unsolicited")}, {PING, T("ping")}}},
        {"2.10",
         "9:payload 9:payload 9:payload 9:payload 9:payload 9:payload 9:payload 9:payload "
         "9:payload 9:payload ",
         {A_PING, A_PING, A_PING, A_PING, A_PING, A_PING, A_PING, A_PING, A_PING, A_PING}},
    };
    CHECK_ROWS(rows);
}

/* ---------------------------------------------------------------- 3: reserved bits */

TEST(reserved_bits) {
    static const row rows[] = {
        {"3.1", "!1002", {{TEXT | 0x40, T("Hello")}}},
        {"3.2", "1:Hello !1002", {{TEXT, T("Hello")}, {TEXT | 0x20, T("Hello")}, A_PING}},
        {"3.3", "1:Hello !1002", {{TEXT, T("Hello")}, {TEXT | 0x30, T("Hello")}, A_PING}},
        {"3.4", "1:Hello !1002", {{TEXT, T("Hello")}, {TEXT | 0x10, T("Hello")}, A_PING}},
        {"3.5", "!1002", {{BIN | 0x50, T("\x01\xff\xfe\xfd")}}},
        {"3.6", "!1002", {{PING | 0x60, T("Hello")}}},
        {"3.7", "!1002", {{CLOSE | 0x70, T("\x03\xe8")}}},
    };
    CHECK_ROWS(rows);
}

/* ---------------------------------------------------------------- 4: reserved opcodes */

TEST(reserved_opcodes) {
    static const row rows[] = {
        {"4.1.1", "!1002", {{0x83, T("")}}},
        {"4.1.2", "!1002", {{0x84, T("reserved")}}},
        {"4.1.3", "1:Hello !1002", {{TEXT, T("Hello")}, {0x85, T("")}, A_PING}},
        {"4.1.4", "1:Hello !1002", {{TEXT, T("Hello")}, {0x86, T("reserved")}, A_PING}},
        {"4.1.5", "1:Hello !1002", {{TEXT, T("Hello")}, {0x87, T("reserved")}, A_PING}},
        {"4.2.1", "!1002", {{0x8b, T("")}}},
        {"4.2.2", "!1002", {{0x8c, T("reserved")}}},
        {"4.2.3", "1:Hello !1002", {{TEXT, T("Hello")}, {0x8d, T("")}, A_PING}},
        {"4.2.4", "1:Hello !1002", {{TEXT, T("Hello")}, {0x8e, T("reserved")}, A_PING}},
        {"4.2.5", "1:Hello !1002", {{TEXT, T("Hello")}, {0x8f, T("reserved")}, A_PING}},
    };
    CHECK_ROWS(rows);
}

/* ---------------------------------------------------------------- 5: fragmentation */

#define FIRST  {0x01, T("one,")}
#define MIDDLE {0x00, T("mid,")}
#define LAST   {0x80, T("last")}
#define HELLO  {TEXT, T("Hello")}

TEST(fragmentation) {
    static const row rows[] = {
        {"5.1", "!1002", {{0x09, T("one,")}, LAST}},
        {"5.2", "!1002", {{0x0a, T("one,")}, LAST}},
        {"5.3", "1:one,last ", {FIRST, LAST}},
        {"5.6", "9:payload 1:one,last ", {FIRST, A_PING, LAST}},
        {"5.9", "!1002", {LAST, HELLO}},
        {"5.12", "!1002", {MIDDLE, HELLO}},
        {"5.15", "1:one,last !1002", {FIRST, LAST, MIDDLE, HELLO}},
        {"5.16", "!1002", {MIDDLE, HELLO, MIDDLE, HELLO}},
        {"5.17", "!1002", {LAST, HELLO, LAST, HELLO}},
        {"5.18", "!1002", {FIRST, {TEXT, T("last")}}},
        {"5.18 binary", "!1002", {FIRST, {BIN, T("last")}}},
        {"5.19",
         "9:payload 9:payload 1:one,mid,mid,mid,last ",
         {FIRST, MIDDLE, A_PING, MIDDLE, MIDDLE, A_PING, LAST}},
        {"5 empty frames",
         "2: 2:mid, ",
         {{0x02, T("")}, {0, T("")}, {0x80, T("")}, {0x02, T("")}, MIDDLE, {0x80, T("")}}},
    };
    CHECK_ROWS(rows);
}

/* ---------------------------------------------------------------- 6: UTF-8 */

#define LATIN "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"
#define KOSME "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

typedef struct text {
    const char *id;
    const char *bytes;
    size_t len;
    bool is_utf8;
} text;

static const text texts[] = {
    {"6.2", T(LATIN), true},
    {"6.3",
     T(KOSME "\xed\xa0\x80"
             "edited"),
     false},
    {"6.4",
     T(KOSME "\xf4\x90\x80\x80"
             "edited"),
     false},
    {"6.5", T(KOSME), true},
    {"6.6.1", T("\xce"), false},
    {"6.6.2", T("\xce\xba"), true},
    {"6.6.3", T("\xce\xba\xe1"), false},
    {"6.6.4", T("\xce\xba\xe1\xbd"), false},
    {"6.6.5", T("\xce\xba\xe1\xbd\xb9"), true},
    {"6.6.6", T("\xce\xba\xe1\xbd\xb9\xcf"), false},
    {"6.6.7", T("\xce\xba\xe1\xbd\xb9\xcf\x83"), true},
    {"6.6.8", T("\xce\xba\xe1\xbd\xb9\xcf\x83\xce"), false},
    {"6.6.10", T("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce"), false},
    {"6.7.2", T("\xc2\x80"), true},
    {"6.7.3", T("\xe0\xa0\x80"), true},
    {"6.7.4", T("\xf0\x90\x80\x80"), true},
    {"6.8.1", T("\xf8\x88\x80\x80\x80"), false},
    {"6.8.2", T("\xfc\x84\x80\x80\x80\x80"), false},
    {"6.9.1", T("\x7f"), true},
    {"6.9.2", T("\xdf\xbf"), true},
    {"6.9.3", T("\xef\xbf\xbf"), true},
    {"6.9.4", T("\xf4\x8f\xbf\xbf"), true},
    {"6.10.1", T("\xf7\xbf\xbf\xbf"), false},
    {"6.10.2", T("\xfb\xbf\xbf\xbf\xbf"), false},
    {"6.10.3", T("\xfd\xbf\xbf\xbf\xbf\xbf"), false},
    {"6.11.1", T("\xed\x9f\xbf"), true},
    {"6.11.2", T("\xee\x80\x80"), true},
    {"6.11.3", T("\xef\xbf\xbd"), true},
    {"6.11.4", T("\xf4\x8f\xbf\xbf"), true},
    {"6.11.5", T("\xf4\x90\x80\x80"), false},
    {"6.12.1", T("\x80"), false},
    {"6.12.2", T("\xbf"), false},
    {"6.12.3", T("\x80\xbf"), false},
    {"6.12.8", T("\x80\xbf\x80\xbf\x80\xbf\xbe"), false},
    {"6.13.1", T("\xc0 \xc1 \xc2 \xc3 "), false},
    {"6.13.2", T("\xe0 \xe1 \xe2 "), false},
    {"6.13.3", T("\xf0 \xf1 \xf2 "), false},
    {"6.13.4", T("\xf8 \xf9 "), false},
    {"6.13.5", T("\xfc "), false},
    {"6.14.1", T("\xc0"), false},
    {"6.14.2", T("\xe0\x80"), false},
    {"6.14.3", T("\xf0\x80\x80"), false},
    {"6.14.4", T("\xf8\x80\x80\x80"), false},
    {"6.14.5", T("\xfc\x80\x80\x80\x80"), false},
    {"6.14.6", T("\xdf"), false},
    {"6.14.7", T("\xef\xbf"), false},
    {"6.14.8", T("\xf7\xbf\xbf"), false},
    {"6.14.9", T("\xfb\xbf\xbf\xbf"), false},
    {"6.14.10", T("\xfd\xbf\xbf\xbf\xbf"), false},
    {"6.15", T("\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80\xdf\xef\xbf\xf7\xbf\xbf"), false},
    {"6.16.1", T("\xfe"), false},
    {"6.16.2", T("\xff"), false},
    {"6.16.3", T("\xfe\xfe\xff\xff"), false},
    {"6.17.1", T("\xc0\xaf"), false},
    {"6.17.2", T("\xe0\x80\xaf"), false},
    {"6.17.3", T("\xf0\x80\x80\xaf"), false},
    {"6.17.4", T("\xf8\x80\x80\x80\xaf"), false},
    {"6.17.5", T("\xfc\x80\x80\x80\x80\xaf"), false},
    {"6.18.1", T("\xc1\xbf"), false},
    {"6.18.2", T("\xe0\x9f\xbf"), false},
    {"6.18.3", T("\xf0\x8f\xbf\xbf"), false},
    {"6.18.4", T("\xf8\x87\xbf\xbf\xbf"), false},
    {"6.18.5", T("\xfc\x83\xbf\xbf\xbf\xbf"), false},
    {"6.19.1", T("\xc0\x80"), false},
    {"6.19.2", T("\xe0\x80\x80"), false},
    {"6.19.3", T("\xf0\x80\x80\x80"), false},
    {"6.20.1", T("\xed\xa0\x80"), false},
    {"6.20.2", T("\xed\xad\xbf"), false},
    {"6.20.3", T("\xed\xae\x80"), false},
    {"6.20.4", T("\xed\xaf\xbf"), false},
    {"6.20.5", T("\xed\xb0\x80"), false},
    {"6.20.6", T("\xed\xbe\x80"), false},
    {"6.20.7", T("\xed\xbf\xbf"), false},
    {"6.21.1", T("\xed\xa0\x80\xed\xb0\x80"), false},
    {"6.21.8", T("\xed\xaf\xbf\xed\xbf\xbf"), false},
    {"6.22.1", T("\xef\xbf\xbe"), true},
    {"6.22.3", T("\xf0\x9f\xbf\xbe"), true},
    {"6.22.34", T("\xf4\x8f\xbf\xbf"), true},
    {"6.23.1", T("\xef\xbf\xb9"), true},
    {"6.23.5", T("\xef\xbf\xbd"), true},
};

/* Whole, in as many frames as there are bytes, and in two at every place. */
static void check_frames_of(const text *t, const char *all, uint32_t len) {
    char expect[80] = "!1007";
    frame whole = {TEXT, all, len};
    frame bytewise[64] = {{0x01, all, 0}};
    if (t->is_utf8) {
        snprintf(expect, sizeof expect, "1:%.*s ", (int)len, all);
    }
    check_row(t->id, &whole, 1, expect);
    for (uint32_t i = 0; i < len; i++) {
        bytewise[i + 1] = (frame){0, all + i, 1};
    }
    bytewise[len].first = 0x80;
    check_row(t->id, bytewise, len + 1, expect);
    for (uint32_t i = 0; i <= len; i++) {
        frame two[] = {{0x01, all, i}, {0x80, all + i, len - i}};
        check_row(t->id, two, 2, expect);
    }
}

/* Alone, and where the words in which text is checked begin and end elsewhere. */
static void check_text(const text *t) {
    static const char around[] = "of other words, ";
    for (uint32_t before = 0; before < 16; before += 5) {
        for (uint32_t after = 0; after < 16; after += 7) {
            char all[64];
            uint32_t len = before + (uint32_t)t->len + after;
            memcpy(all, around, before);
            memcpy(all + before, t->bytes, t->len);
            memcpy(all + before + t->len, around, after);
            check_frames_of(t, all, len);
        }
    }
}

TEST(text_is_utf8) {
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check_text(&texts[i]);
    }
    static const row rows[] = {
        {"6.1.1", "1: ", {{TEXT, T("")}}},
        {"6.1.2", "1: ", {{0x01, T("")}, {0x00, T("")}, {0x80, T("")}}},
        {"6.1.3",
         "1:middle frame payload ",
         {{0x01, T("")}, {0x00, T("middle frame payload")}, {0x80, T("")}}},
        {"6 binary", "2:\xff\xfe ", {{BIN, T("\xff\xfe")}}},
        {"6 anew", "1:\xc3\x9f 1:Hello ", {{TEXT, T("\xc3\x9f")}, HELLO}},
    };
    CHECK_ROWS(rows);
    qg_ws_utf8 nul = {0}; /* 6.7.1 */
    CHECK(qg_ws_utf8_feed(&nul, (const uint8_t *)"\0", 1, 1));
}

/* 6.4: with the byte that is wrong, not at the end. */
TEST(text_fails_fast) {
    static const uint8_t wire[] = "\x01\x15" KOSME "\xf4\x90\x80\x80";
    hearer h;
    begin_hearing(&h, false);
    for (size_t i = 0; i < 2 + 11 + 1; i++) {
        hear(&h, wire + i, 1);
        CHECK_EQ(h.reader.error, 0);
    }
    hear(&h, wire + 14, 1);
    end_hearing(&h, "!1007");
}

/* ---------------------------------------------------------------- 7: closing */

#define BYE {CLOSE, T("\x03\xe8")}

TEST(closing) {
    static const row rows[] = {
        {"7.1.1", "1:Hello 8:\x03\xe8 ", {HELLO, BYE}},
        {"7.1.2", "8:\x03\xe8 ", {BYE, BYE}},
        {"7.1.3", "8:\x03\xe8 ", {BYE, A_PING}},
        {"7.1.4", "8:\x03\xe8 ", {BYE, HELLO}},
        {"7.1.5", "8:\x03\xe8 ", {FIRST, BYE, LAST}},
        {"7.1.6", "1#262144 8:\x03\xe8 ", {{TEXT, STARS(262144)}, BYE, A_PING}},
        {"7.1 bad after", "8:\x03\xe8 ", {BYE, {0xff, T("\xff")}}},
        {"7.3.1", "8: ", {{CLOSE, T("")}}},
        {"7.3.2", "!1002", {{CLOSE, T("\x03")}}},
        {"7.3.3", "8:\x03\xe8 ", {BYE}},
        {"7.3.4", "8:\x03\xe8Hello World! ", {{CLOSE, T("\x03\xe8Hello World!")}}},
        {"7.3.6", "!1002", {{CLOSE, STARS(126)}}},
        {"7.5.1",
         "!1007",
         {{CLOSE, T("\x03\xe8" KOSME "\xed\xa0\x80"
                    "edited")}}},
        {"7.5 cut",
         "!1007",
         {{CLOSE, T("\x03\xe8"
                    "\xce")}}},
    };
    CHECK_ROWS(rows);
    char longest[125] = "\x03\xe8"; /* 7.3.5 */
    memset(longest + 2, '*', 123);
    frame f = {CLOSE, longest, 125};
    bytes wire = {0};
    hearer h;
    put_frame(&wire, &f, true);
    begin_hearing(&h, true);
    uint8_t copy[131];
    CHECK_EQ(wire.len, sizeof copy);
    memcpy(copy, wire.at, wire.len);
    CHECK_EQ(qg_ws_feed(&h.reader, copy, 0, sizeof copy), 1);
    CHECK_BYTES(copy + h.reader.pieces[0].offset, h.reader.pieces[0].len, longest, 125);
    free(wire.at);
}

TEST(close_codes) {
    for (uint32_t code = 0; code < 65536; code++) {
        /* 7.7 and 7.9, and IANA's registry: 1012 to 1014 came later. */
        bool allowed = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                       (code >= 3000 && code <= 4999);
        uint8_t wire[4] = {CLOSE, 2};
        qg__put16(wire + 2, (uint16_t)code);
        qg_ws_reader r;
        qg_ws_reader_init(&r, 0);
        check_note("code %u", code);
        CHECK_EQ(qg_ws_feed(&r, wire, 0, 4), allowed);
        CHECK_EQ(r.error, allowed ? 0 : 1002);
        CHECK_EQ(r.closed, allowed);
    }
}

/* ---------------------------------------------------------------- 9, 10: size */

static void check_size(const char *id, uint8_t opcode, uint32_t size, uint32_t fragment) {
    size_t count = size / fragment + (size % fragment != 0);
    frame *frames = calloc(count, sizeof *frames);
    char expect[40];
    for (size_t i = 0; i < count; i++) {
        uint32_t left = size - (uint32_t)i * fragment;
        frames[i] =
            (frame){(uint8_t)(i == 0 ? opcode : 0), STARS(left < fragment ? left : fragment)};
    }
    frames[count - 1].first |= 0x80;
    snprintf(expect, sizeof expect, "%u#%u ", opcode, size);
    check_row(id, frames, count, expect);
    free(frames);
}

TEST(large_messages) {
    check_size("9.1.6", QG_WS_TEXT, 16 << 20, 16 << 20);
    check_size("9.2.6", QG_WS_BINARY, 16 << 20, 16 << 20);
    for (uint32_t fragment = 64; fragment <= 4 << 20; fragment *= 4) {
        check_size("9.3", QG_WS_TEXT, 4 << 20, fragment);
        check_size("9.4", QG_WS_BINARY, 1 << 20, fragment < 1 << 20 ? fragment : 1 << 20);
    }
    check_size("10.1.1", QG_WS_TEXT, 65536, 1300);
}

/* 9.7 and 9.8: many small ones, in fewer runs of bytes than there are messages. */
TEST(many_messages) {
    static const uint32_t sizes[] = {0, 16, 64, 125, 126, 1024};
    uint8_t stars[1024];
    memset(stars, '*', sizeof stars);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        bytes wire = {0}, expect = {0};
        hearer h;
        for (uint32_t i = 0; i < 1000; i++) {
            frame f = {(uint8_t)(TEXT + (i & 1)), STARS(sizes[s])};
            put_frame(&wire, &f, true);
            say(&expect, 1 + (i & 1), stars, sizes[s]);
        }
        begin_hearing(&h, true);
        for (size_t at = 0; at < wire.len; at += qg__min(4096, wire.len - at)) {
            hear(&h, wire.at + at, qg__min(4096, wire.len - at));
        }
        put(&expect, "", 1);
        end_hearing(&h, (char *)expect.at);
        free(wire.at);
        free(expect.at);
    }
}
