#include "trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES_BYTES 16384 /* written at a time: some hundred lines */
#define LINE_MAX    320

#define ID_MAX  20 /* RFC 9000, section 17.2 */
#define OUR_ID  12 /* what short headers that come in have (cid.h) */
#define SOME_ID 8  /* bytes of a peer's id that are shown: its length is not known there */

struct qg_trace {
    const qg_datapath_ops *ops; /* the datapath's own */
    const uint64_t *now_ns;
    int fd;
    size_t len;
    uint8_t *run; /* where the run begins that is being written */
    char lines[LINES_BYTES];
};

/* ------------------------------------------------------------- lines */

/* What is not taken is lost: whoever reads the trace is not waited for. */
static void write_lines(qg_trace *t) {
    if (t->len > 0) {
        ssize_t ignored = write(t->fd, t->lines, t->len);
        (void)ignored;
        t->len = 0;
    }
}

static void add(qg_trace *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(qg_trace *t, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(t->lines + t->len, LINES_BYTES - t->len, format, arguments);
    va_end(arguments);
    t->len += n > 0 ? qg__min((size_t)n, LINES_BYTES - t->len - 1) : 0;
}

static void add_id(qg_trace *t, const char *name, const uint8_t *id, size_t len) {
    add(t, " %s=", name);
    for (size_t i = 0; i < len; i++) {
        add(t, "%02x", id[i]);
    }
}

static void add_addr(qg_trace *t, const qg_addr *addr) {
    char ip[64];
    int port = qg_addr_format(addr, ip, sizeof ip);
    if (port < 0) {
        add(t, "?");
    } else {
        add(t, strchr(ip, ':') != NULL ? "[%s]:%d" : "%s:%d", ip, port);
    }
}

/* ------------------------------------------------------------- packets */

/* Bytes of the first packet, which has a long header (RFC 9000, section 17.2); 0: all, or what is left
 * cannot be told apart. */
static size_t long_packet(const uint8_t *p, size_t len, unsigned type) {
    size_t at = 6 + (size_t)p[5];
    uint64_t token, payload;
    if (type == 3 || at >= len || (at += 1 + (size_t)p[at]) >= len) {
        return 0;
    }
    if (type == 0) {
        size_t n = qg__varint_get(p + at, len - at, &token);
        if (n == 0 || token >= len - at - n) {
            return 0;
        }
        at += n + (size_t)token;
    }
    size_t n = qg__varint_get(p + at, len - at, &payload);
    return n > 0 && payload < len - at - n ? at + n + (size_t)payload : 0;
}

static void add_ids(qg_trace *t, bool came, const uint8_t *p, size_t len) {
    if ((p[0] & 0x80) == 0) {
        add_id(t, "dcid", p + 1, qg__min(len - 1, came ? OUR_ID : SOME_ID));
        add(t, "%s", came ? "" : "...");
        return;
    }
    size_t dcid = len > 5 ? p[5] : SIZE_MAX;
    if (dcid > ID_MAX || 7 + dcid > len) {
        return;
    }
    add_id(t, "dcid", p + 6, dcid);
    size_t scid = p[6 + dcid];
    if (scid <= ID_MAX && 7 + dcid + scid <= len) {
        add_id(t, "scid", p + 7 + dcid, scid);
    }
}

static void add_packets(qg_trace *t, bool came, const uint8_t *p, size_t len) {
    static const char *const types[] = {"initial", "0rtt", "handshake", "retry"};
    const uint8_t *first = p;
    size_t first_len = len;
    const char *plus = " ";
    while (len > 0 && p[0] != 0) { /* what follows a packet may be padding */
        size_t n = 0;
        if ((p[0] & 0x80) == 0) {
            add(t, "%s%s", plus, (p[0] & 0x40) != 0 ? "1rtt" : "not-quic");
        } else if (len < 7 || qg__get32(p + 1) == 0) {
            add(t, "%s%s", plus, len < 7 ? "not-quic" : "version-negotiation");
        } else {
            unsigned type = p[0] >> 4 & 3;
            add(t, "%s%s", plus, types[type]);
            n = long_packet(p, len, type);
        }
        plus = "+";
        p += n;
        len = n > 0 ? len - n : 0;
    }
    add_ids(t, came, first, first_len);
}

static void add_datagrams(qg_trace *t, bool came, const uint8_t *p, size_t len, size_t segment,
                          const qg_addr *from, const qg_addr *to) {
    for (size_t at = 0; at < len; at += segment) {
        size_t n = qg__min(segment, len - at);
        if (LINES_BYTES - t->len < LINE_MAX) {
            write_lines(t);
        }
        add(t, "%.6f %s %zu B ", (double)*t->now_ns / 1e9, came ? "recv" : "send", n);
        add_addr(t, from);
        add(t, " > ");
        add_addr(t, to);
        add_packets(t, came, p + at, n);
        add(t, "\n");
    }
}

/* ------------------------------------------------------------- a datapath's functions */

static int receive(qg_datapath *dp, qg_dgram *out, int max) {
    qg_trace *t = dp->trace;
    int count = t->ops->receive(dp, out, max);
    for (int i = 0; i < count; i++) {
        size_t segment = out[i].segment > 0 ? out[i].segment : out[i].len;
        add_datagrams(t, true, out[i].data, out[i].len, segment, &out[i].from, &out[i].to);
    }
    write_lines(t);
    return count;
}

static uint8_t *begin(qg_datapath *dp) {
    return dp->trace->run = dp->trace->ops->begin(dp);
}

static void commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                   const qg_addr *to) {
    qg_trace *t = dp->trace;
    add_datagrams(t, false, t->run, len, segment, from, to);
    t->run += len; /* a second commit is for what follows */
    t->ops->commit(dp, len, segment, from, to);
}

static int flush(qg_datapath *dp) {
    write_lines(dp->trace);
    return dp->trace->ops->flush(dp);
}

static int take_errors(qg_datapath *dp, qg_unreachable *out, int max) {
    qg_trace *t = dp->trace;
    int count = t->ops->errors(dp, out, max);
    for (int i = 0; i < count; i++) {
        if (LINES_BYTES - t->len < LINE_MAX) {
            write_lines(t);
        }
        add(t, "%.6f unreachable ", (double)*t->now_ns / 1e9);
        add_addr(t, &out[i].to);
        add(t, ": %s\n", strerror(out[i].error));
    }
    write_lines(t);
    return count;
}

static void close_traced(qg_datapath *dp) {
    const qg_datapath_ops *ops = dp->trace->ops;
    write_lines(dp->trace);
    free(dp->trace);
    ops->close(dp);
}

static void abandon(qg_datapath *dp) {
    dp->trace->ops->abandon(dp);
}

static const qg_datapath_ops traced = {
    .name = "traced",
    .receive = receive,
    .begin = begin,
    .commit = commit,
    .flush = flush,
    .errors = take_errors,
    .close = close_traced,
    .abandon = abandon,
};

void qg__trace(qg_datapath *dp, int fd, const uint64_t *now_ns) {
    qg_trace *t = calloc(1, sizeof *t);
    if (t != NULL) {
        t->ops = dp->ops;
        t->now_ns = now_ns;
        t->fd = fd;
        dp->trace = t;
        dp->ops = &traced;
    }
}

void qg__untrace(qg_datapath *dp) {
    if (dp->trace != NULL) {
        write_lines(dp->trace);
        dp->ops = dp->trace->ops;
        free(dp->trace);
        dp->trace = NULL;
    }
}
