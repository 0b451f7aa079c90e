#include "head.h"

#include "qpack.h"

/* What a byte may be part of. */
enum { TOKEN = 1, UPPER = 2, VALUE = 4, PATH = 8, AUTHORITY = 16, SCHEME = 32 };

static uint8_t class_of(uint8_t c) {
    bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    bool digit = c >= '0' && c <= '9';
    uint8_t k = 0;
    if (alpha || digit || (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL)) {
        k |= TOKEN; /* RFC 9110, section 5.6.2 */
    }
    if (c >= 'A' && c <= 'Z') {
        k |= UPPER;
    }
    if (c == '\t' || (c >= 0x20 && c != 0x7f)) {
        k |= VALUE; /* RFC 9110, section 5.5, obs-text included */
    }
    if (c > 0x20 && c < 0x7f && c != '#') {
        k |= PATH; /* a fragment is never sent (RFC 9110, section 7.1) */
    }
    if (alpha || digit || (c != 0 && strchr("-._~!$&'()*+,;=:[]%", c) != NULL)) {
        k |= AUTHORITY; /* RFC 3986, section 3.2, without "@": userinfo is forbidden */
    }
    if (alpha || digit || c == '+' || c == '-' || c == '.') {
        k |= SCHEME;
    }
    return k;
}

/* Filled at load time: this file's only state, and constant from then on. */
static uint8_t classes[256];

__attribute__((constructor)) static void fill_classes(void) {
    for (int c = 0; c < 256; c++) {
        classes[c] = class_of((uint8_t)c);
    }
}

static bool all(const uint8_t *s, size_t len, uint8_t class) {
    for (size_t i = 0; i < len; i++) {
        if (!(classes[s[i]] & class)) {
            return false;
        }
    }
    return true;
}

static bool is_name(const uint8_t *s, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((classes[s[i]] & (TOKEN | UPPER)) != TOKEN) {
            return false;
        }
    }
    return len > 0;
}

static bool is_blank(uint8_t c) {
    return c == ' ' || c == '\t';
}

static bool is_value(const uint8_t *s, size_t len) {
    return all(s, len, VALUE) && (len == 0 || (!is_blank(s[0]) && !is_blank(s[len - 1])));
}

static bool equals(const uint8_t *s, size_t len, const char *text) {
    return len == strlen(text) && memcmp(s, text, len) == 0;
}

static bool equals_fold(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len) {
    if (a_len != b_len) {
        return false;
    }
    for (size_t i = 0; i < a_len; i++) {
        uint8_t x = a[i], y = b[i];
        x |= classes[x] & UPPER ? 0x20 : 0;
        y |= classes[y] & UPPER ? 0x20 : 0;
        if (x != y) {
            return false;
        }
    }
    return true;
}

/* Fields that mean something to this layer. */
typedef enum special { NONE, CONNECTION, TE, HOST, CONTENT_LENGTH, PRIORITY } special;

static special special_of(const uint8_t *name, size_t len) {
    switch (len) {
    case 2:
        return equals(name, len, "te") ? TE : NONE;
    case 4:
        return equals(name, len, "host") ? HOST : NONE;
    case 7:
        return equals(name, len, "upgrade") ? CONNECTION : NONE;
    case 8:
        return equals(name, len, "priority") ? PRIORITY : NONE;
    case 10:
        return equals(name, len, "connection") || equals(name, len, "keep-alive") ? CONNECTION
                                                                                  : NONE;
    case 14:
        return equals(name, len, "content-length") ? CONTENT_LENGTH : NONE;
    case 16:
        return equals(name, len, "proxy-connection") ? CONNECTION : NONE;
    case 17:
        return equals(name, len, "transfer-encoding") ? CONNECTION : NONE;
    default:
        return NONE;
    }
}

typedef enum pseudo { METHOD, SCHEME_, AUTHORITY_, PATH_, PROTOCOL, STATUS, PSEUDOS } pseudo;

static const char *const pseudo_names[PSEUDOS] = {":method", ":scheme",   ":authority",
                                                  ":path",   ":protocol", ":status"};

/* One decoding. */
typedef struct decoder {
    qg_head_kind kind;
    const qg_head_limits *limits;
    qg_head *out;
    uint64_t size, fields;
    uint8_t *text; /* where the next byte goes */
    uint8_t *keep; /* copies of the pseudo-fields' values, until all are there */
    struct {
        const uint8_t *at;
        uint32_t len;
        bool given;
    } pseudo[PSEUDOS];
    bool regular; /* a regular field was met: pseudo-fields must not follow */
    bool host_given;
} decoder;

static void put(decoder *d, const void *bytes, size_t len) {
    memcpy(d->text, bytes, len);
    d->text += len;
}

static void put_line(decoder *d, const void *name, size_t name_len, const void *value,
                     size_t value_len) {
    put(d, name, name_len);
    *d->text++ = '\0';
    put(d, value, value_len);
    *d->text++ = '\n';
}

static int take_pseudo(decoder *d, const qg_field *f) {
    int p = 0;
    while (p < PSEUDOS && !equals(f->name, f->name_len, pseudo_names[p])) {
        p++;
    }
    bool known = d->kind == QG_HEAD_REQUEST    ? p < STATUS
                 : d->kind == QG_HEAD_RESPONSE ? p == STATUS
                                               : false;
    if (!known || d->regular || d->pseudo[p].given) {
        return QG_INVALID;
    }
    memcpy(d->keep, f->value, f->value_len);
    d->pseudo[p].at = d->keep;
    d->pseudo[p].len = f->value_len;
    d->pseudo[p].given = true;
    d->keep += f->value_len;
    return QG_OK;
}

static uint32_t method_of(const uint8_t *s, size_t len) {
    static const char *const names[] = {"GET",    "HEAD",    "POST",  "PUT",
                                        "DELETE", "OPTIONS", "PATCH", "CONNECT"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (equals(s, len, names[i])) {
            return i + 1;
        }
    }
    return QG_METHOD_OTHER;
}

static bool given(const decoder *d, pseudo p, uint8_t class) {
    return d->pseudo[p].given && d->pseudo[p].len > 0 &&
           all(d->pseudo[p].at, d->pseudo[p].len, class);
}

/* RFC 9114, sections 4.3.1 and 4.4; RFC 9220, section 3. The authority is checked at the end, since
 * a Host field may stand for it. */
static bool request_valid(decoder *d) {
    if (!given(d, METHOD, TOKEN)) {
        return false;
    }
    uint32_t method = method_of(d->pseudo[METHOD].at, d->pseudo[METHOD].len);
    d->out->method = method;
    bool tunnel = method == QG_METHOD_CONNECT && !d->pseudo[PROTOCOL].given;
    if (tunnel) {
        return !d->pseudo[SCHEME_].given && !d->pseudo[PATH_].given &&
               given(d, AUTHORITY_, AUTHORITY);
    }
    if (d->pseudo[PROTOCOL].given && (method != QG_METHOD_CONNECT || !d->limits->extended_connect ||
                                      !given(d, PROTOCOL, TOKEN))) {
        return false;
    }
    if (!given(d, SCHEME_, SCHEME) || !given(d, PATH_, PATH)) {
        return false;
    }
    if (d->pseudo[AUTHORITY_].given && !given(d, AUTHORITY_, AUTHORITY)) {
        return false;
    }
    const uint8_t *path = d->pseudo[PATH_].at;
    return path[0] == '/' ||
           (d->pseudo[PATH_].len == 1 && path[0] == '*' && method == QG_METHOD_OPTIONS);
}

static bool response_valid(decoder *d) {
    const uint8_t *s = d->pseudo[STATUS].at;
    if (!d->pseudo[STATUS].given || d->pseudo[STATUS].len != 3) {
        return false;
    }
    uint32_t status = 0;
    for (int i = 0; i < 3; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
        status = status * 10 + (s[i] - '0');
    }
    d->out->status = status;
    /* 101 belongs to HTTP/1.1 (RFC 9114, section 4.5). */
    return status >= 100 && status != 101;
}

static void put_pseudo(decoder *d, pseudo p) {
    if (d->pseudo[p].given) {
        put_line(d, pseudo_names[p], strlen(pseudo_names[p]), d->pseudo[p].at, d->pseudo[p].len);
    }
}

/* All pseudo-fields are there: check them and begin the text. */
static int end_pseudo(decoder *d) {
    d->regular = true;
    if (d->kind == QG_HEAD_REQUEST) {
        if (!request_valid(d)) {
            return QG_INVALID;
        }
        if (d->pseudo[PATH_].given) {
            put(d, d->pseudo[PATH_].at, d->pseudo[PATH_].len);
            d->out->path_len = d->pseudo[PATH_].len;
        }
    } else if (d->kind == QG_HEAD_RESPONSE && !response_valid(d)) {
        return QG_INVALID;
    }
    *d->text++ = '\n';
    if (d->kind == QG_HEAD_REQUEST) {
        put_pseudo(d, AUTHORITY_);
        put_pseudo(d, SCHEME_);
        put_pseudo(d, PROTOCOL);
        if (d->out->method == QG_METHOD_OTHER) {
            put_pseudo(d, METHOD);
        }
    }
    return QG_OK;
}

static int take_content_length(decoder *d, const qg_field *f) {
    uint64_t v = 0;
    /* 18 digits stay below 2^62, the most a stream can carry. */
    if (f->value_len == 0 || f->value_len > 18) {
        return QG_INVALID;
    }
    for (uint32_t i = 0; i < f->value_len; i++) {
        if (f->value[i] < '0' || f->value[i] > '9') {
            return QG_INVALID;
        }
        v = v * 10 + (uint64_t)(f->value[i] - '0');
    }
    if (d->out->content_length != QG_UNKNOWN_LENGTH &&
        (d->kind == QG_HEAD_REQUEST || d->out->content_length != v)) {
        return QG_INVALID;
    }
    d->out->content_length = v;
    return QG_OK;
}

void qg__priority_parse(const uint8_t *value, size_t len, uint8_t *urgency, bool *incremental) {
    *urgency = 3;
    *incremental = false;
    for (size_t i = 0, end; i < len; i = end + 1) {
        const uint8_t *item = value + i;
        for (end = i; end < len && value[end] != ',' && value[end] != ';' && value[end] != ' ';) {
            end++;
        }
        size_t item_len = end - i;
        if (item_len == 3 && item[0] == 'u' && item[1] == '=' && item[2] >= '0' && item[2] <= '7') {
            *urgency = (uint8_t)(item[2] - '0');
        } else if (equals(item, item_len, "i") || equals(item, item_len, "i=?1")) {
            *incremental = true;
        } else if (equals(item, item_len, "i=?0")) {
            *incremental = false;
        }
    }
}

/* A Host field beside :authority must say the same; alone it stands for it. */
static int take_host(decoder *d, const qg_field *f) {
    if (d->kind != QG_HEAD_REQUEST) {
        return 1;
    }
    if (d->host_given || f->value_len == 0 || !all(f->value, f->value_len, AUTHORITY)) {
        return QG_INVALID;
    }
    d->host_given = true;
    if (d->pseudo[AUTHORITY_].given) {
        return equals_fold(f->value, f->value_len, d->pseudo[AUTHORITY_].at,
                           d->pseudo[AUTHORITY_].len)
                   ? 0
                   : QG_INVALID;
    }
    put_line(d, ":authority", 10, f->value, f->value_len);
    return 0;
}

/* Returns 1 to write the field down, 0 to leave it out, QG_INVALID. */
static int take_special(decoder *d, const qg_field *f) {
    special s = f->static_name == QG_STATIC_CONTENT_LENGTH ? CONTENT_LENGTH
                : f->static_name >= 0                      ? NONE
                                                           : special_of(f->name, f->name_len);
    switch (s) {
    case CONNECTION:
        /* A request with one may be an attempt at smuggling: malformed, as the RFC says. Servers
         * that run HTTP/1.1 applications let them slip into responses, where they harm nobody. */
        return d->kind == QG_HEAD_RESPONSE ? 0 : QG_INVALID;
    case TE:
        return d->kind != QG_HEAD_REQUEST || equals(f->value, f->value_len, "trailers")
                   ? 1
                   : QG_INVALID;
    case HOST:
        return take_host(d, f);
    case CONTENT_LENGTH:
        return d->kind == QG_HEAD_TRAILERS || take_content_length(d, f) < 0 ? QG_INVALID : 1;
    case PRIORITY:
        d->out->has_priority = true;
        qg__priority_parse(f->value, f->value_len, &d->out->urgency, &d->out->incremental);
        return 1;
    default:
        return 1;
    }
}

static int take_field(decoder *d, const qg_field *f) {
    d->size += f->name_len + f->value_len + 32;
    if (d->size > d->limits->size || ++d->fields > d->limits->fields) {
        return QG_TOO_LARGE;
    }
    if (!is_value(f->value, f->value_len)) {
        return QG_INVALID;
    }
    if (f->name_len > 0 && f->name[0] == ':') {
        return take_pseudo(d, f);
    }
    if (f->static_name < 0 && !is_name(f->name, f->name_len)) {
        return QG_INVALID;
    }
    int rc = d->regular ? QG_OK : end_pseudo(d);
    if (rc == QG_OK) {
        rc = take_special(d, f);
    }
    if (rc > 0) {
        put_line(d, f->name, f->name_len, f->value, f->value_len);
    }
    return rc < 0 ? rc : QG_OK;
}

int qg__head_decode(qg_head_kind kind, const uint8_t *section, size_t len,
                    const qg_head_limits *limits, uint8_t *scratch, uint8_t *text, qg_head *out) {
    size_t half = (size_t)limits->size + QG_HEAD_SLACK;
    *out = (qg_head){.content_length = QG_UNKNOWN_LENGTH};
    decoder d = {.kind = kind, .limits = limits, .out = out, .text = text, .keep = scratch + half};
    qg_qpack_reader reader;
    qg_field field;
    int rc = qg__qpack_begin(&reader, section, len, scratch, half);
    if (rc < 0) {
        return rc;
    }
    while ((rc = qg__qpack_next(&reader, &field)) > 0) {
        rc = take_field(&d, &field);
        if (rc < 0) {
            return rc;
        }
    }
    if (rc == 0 && !d.regular) {
        rc = end_pseudo(&d);
    }
    if (rc == 0 && kind == QG_HEAD_REQUEST && !d.pseudo[AUTHORITY_].given && !d.host_given) {
        rc = QG_INVALID;
    }
    out->text_len = (uint32_t)(d.text - text);
    return rc;
}

int qg__field_sendable(const uint8_t *name, size_t name_len, const uint8_t *value,
                       size_t value_len) {
    bool pseudo_name = name_len > 1 && name[0] == ':';
    if (!is_name(name + pseudo_name, name_len - pseudo_name) || !is_value(value, value_len)) {
        return QG_INVALID;
    }
    return special_of(name, name_len) == CONNECTION ? 0 : 1;
}
