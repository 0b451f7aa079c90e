#include "check.h"
#include "head.h"
#include "qpack.h"

#include <stdlib.h>

#define SECTION_MAX 8192

static const qg_head_limits usual = {4096, 20, false};
static const qg_head_limits extended = {4096, 20, true};

/* The bytes of one side of a line; "$0", "$r", "$n", "$t", "$x" and "$d" stand for NUL, CR, LF, TAB,
 * a byte above 127 and DEL. */
static size_t plain(const char *text, size_t len, uint8_t *out) {
    static const char marks[] = "0rntxd";
    static const uint8_t bytes[] = {0, '\r', '\n', '\t', 0xe9, 0x7f};
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        const char *mark = text[i] == '$' && i + 1 < len ? strchr(marks, text[i + 1]) : NULL;
        out[n++] = mark != NULL ? bytes[mark - marks] : (uint8_t)text[i];
        i += mark != NULL;
    }
    return n;
}

/* A section of lines "name: value\n". Nothing is checked on the way, as by a peer that means ill. */
static size_t encode(const char *lines, uint8_t *out) {
    size_t len = QG_QPACK_PREFIX_LEN;
    memcpy(out, QG_QPACK_PREFIX, QG_QPACK_PREFIX_LEN);
    while (*lines != '\0') {
        uint8_t name[4096], value[4096];
        size_t line = strcspn(lines, "\n");
        const char *colon = memmem(lines + 1, line - 1, ": ", 2);
        if (colon == NULL) {
            colon = lines; /* an empty name */
        }
        size_t name_len = plain(lines, (size_t)(colon - lines), name);
        size_t value_len = plain(colon + 2, (size_t)(lines + line - colon - 2), value);
        int n = qg__qpack_encode(name, name_len, value, value_len, out + len, SECTION_MAX - len);
        CHECK(n > 0);
        len += (size_t)n;
        lines += line + 1;
    }
    return len;
}

typedef struct decoded {
    int rc;
    qg_head head;
    uint8_t text[8192];
} decoded;

/* Decode with buffers as small as the contract allows. */
static decoded *decode(qg_head_kind kind, const char *lines, const qg_head_limits *limits) {
    static decoded result;
    uint8_t section[SECTION_MAX];
    size_t len = encode(lines, section), room = (size_t)limits->size + QG_HEAD_SLACK;
    uint8_t *exact = malloc(len), *text = malloc(room), *scratch = malloc(2 * room);
    memcpy(exact, section, len);
    result = (decoded){.rc = 0};
    result.rc = qg__head_decode(kind, exact, len, limits, scratch, text, &result.head);
    if (result.rc == QG_OK) {
        memcpy(result.text, text, result.head.text_len);
    }
    free(exact);
    free(text);
    free(scratch);
    return &result;
}

#define ORIGIN ":scheme: https\n:authority: a.test\n"
#define GET    ":method: GET\n" ORIGIN ":path: /\n"
#define POST   ":method: POST\n" ORIGIN ":path: /\n"

/* RFC 9114, sections 4.2, 4.3.1 and 4.4. */
static const char *const good_requests[] = {
    GET,
    POST,
    ":path: /\n:authority: a.test\n:scheme: https\n:method: GET\n",
    GET "accept: */*\nuser-agent: x\n",
    GET "x-empty: \n",
    GET "x-tab: a$tb\n",
    GET "x-inner-space: a b\n",
    GET "x-obs-text: $x\n",
    GET "!#$%&'*+-.^_`|~09az: every sign of a token\n",
    GET "cookie: a=1\ncookie: b=2\n",
    GET "te: trailers\n",
    GET "content-length: 0\n",
    POST "content-length: 999999999999999999\n",
    POST "content-length: 007\n",
    GET "host: a.test\n",
    GET "host: A.TEST\n",
    ":method: GET\n:scheme: https\n:path: /\nhost: a.test\n",
    ":method: GET\n:scheme: https\n:authority: a.test:8443\n:path: /\nhost: a.test:8443\n",
    ":method: GET\n:scheme: https\n:authority: [2001:db8::1]:443\n:path: /\n",
    ":method: GET\n:scheme: http\n:authority: a.test\n:path: /\n",
    ":method: GET\n" ORIGIN ":path: /a/b?c=d&e=%20;f=[1]\n",
    ":method: GET\n" ORIGIN ":path: //double\n",
    ":method: OPTIONS\n" ORIGIN ":path: *\n",
    ":method: OPTIONS\n" ORIGIN ":path: /\n",
    ":method: PURGE\n" ORIGIN ":path: /\n",
    ":method: get\n" ORIGIN ":path: /\n", /* a method of its own: RFC 9110, section 9.1 */
    ":method: CONNECT\n:authority: a.test:443\n",
    ":method: CONNECT\n:authority: a.test:443\nx-field: 1\n",
    GET "priority: u=1, i\n",
    GET "keepalive: almost a connection field\n",
};

static const char *const bad_requests[] = {
    "",
    /* One is missing. */
    ":scheme: https\n:authority: a.test\n:path: /\n",
    ":method: GET\n:authority: a.test\n:path: /\n",
    ":method: GET\n:scheme: https\n:path: /\n",
    ":method: GET\n:scheme: https\n:path: /\naccept: */*\n",
    ":method: GET\n:scheme: https\n:authority: a.test\n",
    /* One is there twice, unknown, a response's, or late. */
    GET ":method: GET\n",
    GET ":scheme: https\n",
    GET ":authority: a.test\n",
    GET ":path: /\n",
    GET ":status: 200\n",
    GET ":unknown: 1\n",
    GET ":: 1\n",
    GET ":: \n",
    ":METHOD: GET\n" ORIGIN ":path: /\n",
    ":method: GET\n" ORIGIN "accept: */*\n:path: /\n",
    GET "accept: */*\n:path: /\n",
    /* One has a wrong value. */
    ":method: \n" ORIGIN ":path: /\n",
    ":method: GET X\n" ORIGIN ":path: /\n",
    ":method: GE$0T\n" ORIGIN ":path: /\n",
    ":method: GET\n:scheme: \n:authority: a.test\n:path: /\n",
    ":method: GET\n:scheme: ht tp\n:authority: a.test\n:path: /\n",
    ":method: GET\n:scheme: https:\n:authority: a.test\n:path: /\n",
    ":method: GET\n" ORIGIN ":path: \n",
    ":method: GET\n" ORIGIN ":path: no-slash\n",
    ":method: GET\n" ORIGIN ":path: https://a.test/\n",
    ":method: GET\n" ORIGIN ":path: *\n",
    ":method: OPTIONS\n" ORIGIN ":path: **\n",
    ":method: GET\n" ORIGIN ":path: /a#b\n",
    ":method: GET\n" ORIGIN ":path: /a b\n",
    ":method: GET\n" ORIGIN ":path: / HTTP/1.1$r$nx: y\n",
    ":method: GET\n" ORIGIN ":path: /$x\n",
    ":method: GET\n" ORIGIN ":path: /$d\n",
    ":method: GET\n:scheme: https\n:authority: \n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: \n:path: /\nhost: a.test\n",
    ":method: GET\n:scheme: https\n:authority: user@a.test\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a.test/x\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a b\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a.test$r$n\n:path: /\n",
    ":method: GET\n:scheme: https\n:authority: a,b\\c\n:path: /\n",
    /* CONNECT, plain and extended. */
    ":method: CONNECT\n",
    ":method: CONNECT\n:authority: \n",
    ":method: CONNECT\n:authority: a.test:443\n:scheme: https\n",
    ":method: CONNECT\n:authority: a.test:443\n:path: /\n",
    ":method: CONNECT\nhost: a.test:443\n",
    ":method: CONNECT\n" ORIGIN ":path: /\n:protocol: websocket\n",
    GET ":protocol: websocket\n",
    /* Host beside :authority. */
    GET "host: b.test\n",
    GET "host: a.test:443\n",
    GET "host: \n",
    GET "host: a.test\nhost: a.test\n",
    ":method: GET\n:scheme: https\n:path: /\nhost: \n",
    ":method: GET\n:scheme: https\n:path: /\nhost: user@a.test\n",
    ":method: GET\n:scheme: https\n:path: /\nhost: a.test\nhost: b.test\n",
    /* Fields of HTTP/1.1's connection. */
    GET "connection: close\n",
    GET "keep-alive: timeout=5\n",
    GET "proxy-connection: keep-alive\n",
    GET "transfer-encoding: chunked\n",
    GET "transfer-encoding: \n",
    GET "upgrade: websocket\n",
    GET "te: gzip\n",
    GET "te: trailers, gzip\n",
    GET "te: \n",
    GET "te: Trailers,\n",
    /* Content lengths that two readers would read in two ways. */
    POST "content-length: 5\ncontent-length: 5\n",
    POST "content-length: 5\ncontent-length: 6\n",
    POST "content-length: 5, 5\n",
    POST "content-length: \n",
    POST "content-length: +5\n",
    POST "content-length: -5\n",
    POST "content-length: 5 \n",
    POST "content-length: 0x5\n",
    POST "content-length: 5.0\n",
    POST "content-length: 5$0\n",
    POST "content-length: 1000000000000000000\n",
    /* Names. */
    GET ": no name\n",
    GET "X-Upper: 1\n",
    GET "x-uPper: 1\n",
    GET "x y: 1\n",
    GET "x:y: 1\n",
    GET "x$0: 1\n",
    GET "x$r$ny: 1\n",
    GET "x$t: 1\n",
    GET "x$d: 1\n",
    GET "$x: 1\n",
    GET "x(y): 1\n",
    GET "x\"y: 1\n",
    /* Values. */
    GET "x: a$r$nb: c\n",
    GET "x: a$n\n",
    GET "x: a$rb\n",
    GET "x: $0\n",
    GET "x: a$0b\n",
    GET "x: $d\n",
    GET "x:  leading\n",
    GET "x: trailing \n",
    GET "x: $tleading\n",
    GET "x: trailing$t\n",
    GET "x:  \n",
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

TEST(good_requests_pass) {
    for (size_t i = 0; i < COUNT(good_requests); i++) {
        check_note("%s", good_requests[i]);
        CHECK_EQ(decode(QG_HEAD_REQUEST, good_requests[i], &usual)->rc, QG_OK);
    }
}

TEST(malformed_requests_do_not) {
    for (size_t i = 0; i < COUNT(bad_requests); i++) {
        check_note("%s", bad_requests[i]);
        CHECK_EQ(decode(QG_HEAD_REQUEST, bad_requests[i], &usual)->rc, QG_INVALID);
    }
}

/* RFC 9220, section 3; RFC 8441, section 4. */
TEST(extended_connect_where_it_was_announced) {
    static const char whole[] = ":method: CONNECT\n" ORIGIN ":path: /chat\n:protocol: websocket\n";
    static const char *const bad[] = {
        GET ":protocol: websocket\n",
        ":method: CONNECT\n" ORIGIN ":protocol: websocket\n",
        ":method: CONNECT\n:scheme: https\n:path: /\n:protocol: websocket\n",
        ":method: CONNECT\n:authority: a.test\n:path: /\n:protocol: websocket\n",
        ":method: CONNECT\n" ORIGIN ":path: /\n:protocol: \n",
        ":method: CONNECT\n" ORIGIN ":path: /\n:protocol: a b\n",
        ":method: CONNECT\n" ORIGIN ":path: /\n:protocol: a\n:protocol: a\n",
    };
    const decoded *d = decode(QG_HEAD_REQUEST, whole, &extended);
    CHECK_EQ(d->rc, QG_OK);
    CHECK_EQ(d->head.method, QG_METHOD_CONNECT);
    CHECK(memmem(d->text, d->head.text_len, "\n:protocol\0websocket\n", 21) != NULL);
    for (size_t i = 0; i < COUNT(bad); i++) {
        check_note("%s", bad[i]);
        CHECK_EQ(decode(QG_HEAD_REQUEST, bad[i], &extended)->rc, QG_INVALID);
    }
    CHECK_EQ(decode(QG_HEAD_REQUEST, ":method: CONNECT\n:authority: a.test:1\n", &extended)->rc,
             QG_OK);
}

/* RFC 9114, section 4.3.2. */
TEST(responses) {
    static const char *const good[] = {
        ":status: 200\n",
        ":status: 204\n",
        ":status: 103\nlink: </a>\n",
        ":status: 100\n",
        ":status: 999\n",
        ":status: 200\ncontent-length: 5\ncontent-length: 5\n",
        ":status: 200\nte: x\n",
        ":status: 200\nhost: odd but harmless\n",
    };
    static const char *const bad[] = {
        "",
        "content-type: text/plain\n",
        ":status: \n",
        ":status: 20\n",
        ":status: 2000\n",
        ":status: 099\n",
        ":status: 101\n", /* section 4.5 */
        ":status: +20\n",
        ":status: 2x0\n",
        ":status: 200\n:status: 200\n",
        "x: y\n:status: 200\n",
        ":status: 200\n:path: /\n",
        ":status: 200\n:unknown: /\n",
        ":status: 200\ncontent-length: 5\ncontent-length: 6\n",
        ":status: 200\ncontent-length: x\n",
        ":status: 200\nX-Upper: 1\n",
        ":status: 200\nx: a$nb\n",
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        check_note("%s", good[i]);
        CHECK_EQ(decode(QG_HEAD_RESPONSE, good[i], &usual)->rc, QG_OK);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        check_note("%s", bad[i]);
        CHECK_EQ(decode(QG_HEAD_RESPONSE, bad[i], &usual)->rc, QG_INVALID);
    }
}

TEST(connection_fields_of_a_response_are_left_out) {
    const decoded *d = decode(QG_HEAD_RESPONSE,
                              ":status: 200\nconnection: close\nkeep-alive: 1\na: b\n"
                              "transfer-encoding: chunked\nupgrade: h2c\nproxy-connection: x\n",
                              &usual);
    CHECK_EQ(d->rc, QG_OK);
    CHECK_BYTES(d->text, d->head.text_len, "\na\0b\n", 5);
}

/* RFC 9114, section 4.3: no pseudo-fields; RFC 9110, section 6.5.1: no content-length. */
TEST(trailers) {
    static const char *const bad[] = {
        ":status: 200\n",  ":path: /\n", ":unknown: 1\n",       "a: b\n:status: 200\n",
        "connection: x\n", "Upper: 1\n", "content-length: 0\n", "transfer-encoding: x\n",
    };
    const decoded *d = decode(QG_HEAD_TRAILERS, "checksum: 5\nx: \n", &usual);
    CHECK_EQ(d->rc, QG_OK);
    CHECK_BYTES(d->text, d->head.text_len, "\nchecksum\0005\nx\0\n", 15);
    CHECK_EQ(decode(QG_HEAD_TRAILERS, "", &usual)->rc, QG_OK);
    for (size_t i = 0; i < COUNT(bad); i++) {
        check_note("%s", bad[i]);
        CHECK_EQ(decode(QG_HEAD_TRAILERS, bad[i], &usual)->rc, QG_INVALID);
    }
}

TEST(the_text_of_a_request) {
    static const char expected[] = "/p?q\n:authority\0a.test\n:scheme\0https\naccept\0*/*\n"
                                   "content-length\0005\nx\0\n";
    const decoded *d = decode(QG_HEAD_REQUEST,
                              ":method: POST\n" ORIGIN
                              ":path: /p?q\naccept: */*\nhost: a.test\ncontent-length: 5\nx: \n",
                              &usual);
    CHECK_EQ(d->rc, QG_OK);
    CHECK_EQ(d->head.method, QG_METHOD_POST);
    CHECK_EQ(d->head.path_len, 4);
    CHECK_EQ(d->head.content_length, 5);
    CHECK_BYTES(d->text, d->head.text_len, expected, sizeof expected - 1);
}

TEST(the_text_of_other_heads) {
    const decoded *d = decode(QG_HEAD_REQUEST, ":method: PURGE\n" ORIGIN ":path: /\n", &usual);
    static const char purge[] = "/\n:authority\0a.test\n:scheme\0https\n:method\0PURGE\n";
    CHECK_EQ(d->head.method, QG_METHOD_OTHER);
    CHECK_EQ(d->head.content_length, QG_UNKNOWN_LENGTH);
    CHECK_BYTES(d->text, d->head.text_len, purge, sizeof purge - 1);
    d = decode(QG_HEAD_REQUEST, ":method: CONNECT\n:authority: a.test:1\n", &usual);
    static const char connect[] = "\n:authority\0a.test:1\n";
    CHECK_EQ(d->head.path_len, 0);
    CHECK_BYTES(d->text, d->head.text_len, connect, sizeof connect - 1);
    d = decode(QG_HEAD_RESPONSE, ":status: 404\nserver: x\n", &usual);
    CHECK_EQ(d->head.status, 404);
    CHECK_BYTES(d->text, d->head.text_len, "\nserver\0x\n", 10);
    d = decode(QG_HEAD_REQUEST, ":method: GET\n:scheme: https\n:path: /\nhost: h.test\n", &usual);
    static const char host[] = "/\n:scheme\0https\n:authority\0h.test\n";
    CHECK_BYTES(d->text, d->head.text_len, host, sizeof host - 1);
}

TEST(every_method_has_its_number) {
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
    for (uint32_t i = 0; i < COUNT(names); i++) {
        char lines[100];
        strcpy(stpcpy(stpcpy(lines, ":method: "), names[i]), "\n" ORIGIN ":path: /\n");
        CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &usual)->head.method, i + 1);
    }
}

/* RFC 9114, section 4.2.2: names, values and 32 for each. */
TEST(limits_of_size_and_count) {
    /* 42 (:method GET) + 44 (:scheme https) + 48 (:authority a.test) + 38 (:path /) + 34 (x: y) */
    static const char lines[] = GET "x: y\n";
    qg_head_limits limits = {206, 5, false};
    CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, QG_OK);
    limits.size = 205;
    CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, QG_TOO_LARGE);
    limits = (qg_head_limits){206, 4, false};
    CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, QG_TOO_LARGE);
    limits = (qg_head_limits){1, 5, false};
    CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, QG_TOO_LARGE);
    limits = (qg_head_limits){1024, 3, false};
    CHECK_EQ(decode(QG_HEAD_TRAILERS, "a: 1\nb: 2\nc: 3\n", &limits)->rc, QG_OK);
    CHECK_EQ(decode(QG_HEAD_TRAILERS, "a: 1\nb: 2\nc: 3\nd: 4\n", &limits)->rc, QG_TOO_LARGE);
}

/* A head whose last line makes it as large as the limit, or one byte larger. */
static void check_at_limit(const char *begin, const char *end, size_t counted) {
    qg_head_limits limits = {1024, 100, false};
    for (size_t over = 0; over < 2; over++) {
        char lines[4096], *at = stpcpy(lines, begin);
        size_t fill = limits.size - counted + over;
        memset(at, 'm', fill);
        strcpy(at + fill, end);
        check_note("%s, %zu over", begin, over);
        CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, over ? QG_TOO_LARGE : QG_OK);
    }
}

/* With the value that is written twice, first kept and then put, at its largest. */
TEST(the_largest_heads_fit_their_buffers) {
    check_at_limit(":method: ", "\n" ORIGIN ":path: /\n", 39 + 44 + 48 + 38);
    check_at_limit(":method: GET\n" ORIGIN ":path: /", "\n", 42 + 44 + 48 + 38);
    check_at_limit(":method: GET\n:scheme: https\n:path: /\nhost: ", "\n", 42 + 44 + 38 + 36);
    check_at_limit(GET "x", ": \n", 42 + 44 + 48 + 38 + 33);
    char lines[4096] = GET, *at = lines + strlen(lines);
    for (int i = 0; i < 25; i++) {
        at = stpcpy(at, "x: \n"); /* the shortest line: the most text for its size */
    }
    qg_head_limits limits = {1024, 100, false};
    CHECK_EQ(decode(QG_HEAD_REQUEST, lines, &limits)->rc, QG_OK);
}

TEST(what_is_not_qpack_is_a_protocol_error) {
    static const uint8_t sections[][4] = {
        {1, 0, 0xd1}, {0, 0, 0x80}, {0, 0, 0xff, 0xff}, {0, 0, 0x51, 9}};
    uint8_t text[1024 + QG_HEAD_SLACK], scratch[2 * sizeof text];
    qg_head_limits limits = {1024, 10, false};
    qg_head head;
    for (size_t i = 0; i < COUNT(sections); i++) {
        for (int kind = QG_HEAD_REQUEST; kind <= (int)QG_HEAD_TRAILERS; kind++) {
            CHECK_EQ(
                qg__head_decode((qg_head_kind)kind, sections[i], 4, &limits, scratch, text, &head),
                QG_PROTOCOL);
        }
    }
}

static void check_priority(const char *value, uint8_t urgency, bool incremental) {
    uint8_t got_urgency;
    bool got_incremental;
    check_note("%s", value);
    qg__priority_parse((const uint8_t *)value, strlen(value), &got_urgency, &got_incremental);
    CHECK_EQ(got_urgency, urgency);
    CHECK_EQ(got_incremental, incremental);
}

/* RFC 9218, section 4; structured fields of RFC 8941. */
TEST(priorities) {
    check_priority("", 3, false);
    check_priority("u=0", 0, false);
    check_priority("u=7", 7, false);
    check_priority("i", 3, true);
    check_priority("u=5, i", 5, true);
    check_priority("u=5,i", 5, true);
    check_priority("i, u=1", 1, true);
    check_priority("i=?1", 3, true);
    check_priority("i=?0", 3, false);
    check_priority("i;x=1, u=2", 2, true);
    check_priority("u=1, u=2", 2, false);
    check_priority("u=8", 3, false);
    check_priority("u=10", 3, false);
    check_priority("u=", 3, false);
    check_priority("u", 3, false);
    check_priority("u=-1", 3, false);
    check_priority("uu=1, ii", 3, false);
    check_priority("x=\"u=1\"", 3, false);
    check_priority("\xff\xff,,,;;;", 3, false);
}

TEST(the_priority_field_is_read) {
    const decoded *d = decode(QG_HEAD_REQUEST, GET "priority: u=6, i\n", &usual);
    CHECK(d->head.has_priority && d->head.incremental);
    CHECK_EQ(d->head.urgency, 6);
    CHECK(!decode(QG_HEAD_REQUEST, GET, &usual)->head.has_priority);
}

static int sendable(const char *name, const char *value) {
    return qg__field_sendable((const uint8_t *)name, strlen(name), (const uint8_t *)value,
                              strlen(value));
}

TEST(what_may_be_sent) {
    CHECK_EQ(sendable("accept", "*/*"), 1);
    CHECK_EQ(sendable(":path", "/"), 1);
    CHECK_EQ(sendable("x", ""), 1);
    CHECK_EQ(sendable("connection", "close"), 0);
    CHECK_EQ(sendable("keep-alive", "5"), 0);
    CHECK_EQ(sendable("proxy-connection", "x"), 0);
    CHECK_EQ(sendable("transfer-encoding", "chunked"), 0);
    CHECK_EQ(sendable("upgrade", "h2c"), 0);
    CHECK_EQ(sendable("", ""), QG_INVALID);
    CHECK_EQ(sendable(":", ""), QG_INVALID);
    CHECK_EQ(sendable("::", ""), QG_INVALID);
    CHECK_EQ(sendable("Upper", ""), QG_INVALID);
    CHECK_EQ(sendable("a b", ""), QG_INVALID);
    CHECK_EQ(sendable("a\r\nb", ""), QG_INVALID);
    CHECK_EQ(sendable("x", "a\r\nb: c"), QG_INVALID);
    CHECK_EQ(sendable("x", " a"), QG_INVALID);
    CHECK_EQ(sendable("x", "a\t"), QG_INVALID);
    CHECK_EQ(sendable("connection", "a\nb"), QG_INVALID);
    CHECK_EQ(qg__field_sendable((const uint8_t *)"x", 1, (const uint8_t *)"a\0b", 3), QG_INVALID);
}
