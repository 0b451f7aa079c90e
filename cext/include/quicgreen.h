/* quicgreen.h: the engine's public interface.
 *
 * Rules of this file
 * 1. It is the C header and, below the marker line, the text that cffi parses: declarations only,
 *    no preprocessor conditions, no inline code.
 * 2. The engine is one thread's: no function here may run at the same time as another one on the
 *    same engine. It keeps no global state but TLS's ex_data index.
 * 3. Nothing calls back. The engine fills an event ring and reads a submission ring.
 * 4. Time is CLOCK_MONOTONIC in nanoseconds; the engine reads the clock once per entry.
 * 5. Memory that a function returns is the engine's, unless its comment says otherwise.
 *
 * Order of calls
 *    qg_engine_new -> qg_tls_new -> qg_config_new
 *    server: qg_endpoint_udp -> qg_listen        client: qg_connect
 *    loop:   wait for qg_engine_fd -> qg_engine_drain -> read events, fill submissions or call
 *            the stream functions -> qg_engine_flush
 *    end:    qg_engine_free -> qg_config_free -> qg_tls_free -> qg_keys_free
 *
 * Ids
 *    connection  generation << 32 | slot      a slot is used again, a generation never
 *    stream      connection id and the QUIC stream id (RFC 9000, section 2.1)
 *    token       any number not 0 that the caller gave; it comes back in the event
 *    An id that names nothing alive is answered QG_GONE, always.
 *
 * Waiting
 *    A call that cannot go on answers QG_AGAIN. When it was given a token, a wait is armed: exactly
 *    one event with that token follows (what was waited for, or QG_EVENT_DEADLINE, or
 *    QG_EVENT_STREAM_ERROR), unless the wait is withdrawn with qg_stream_unwait.
 */
#ifndef QUICGREEN_H
#define QUICGREEN_H
#include <stddef.h>
#include <stdint.h>

#include "quicgreen_counters.h"
/* ---- cdef ---- */

/* Changes with every change to a record, an option struct or a function of this file. */
#define QG_ABI 6

/* ---------------------------------------------------------------- results */

#define QG_OK        0
#define QG_AGAIN     -1  /* not now */
#define QG_GONE      -2  /* the id names nothing alive */
#define QG_STATE     -3  /* not allowed in this state */
#define QG_INVALID   -4  /* an argument is wrong */
#define QG_NOMEM     -5  /* no memory */
#define QG_RESET     -6  /* the peer reset its side of the stream */
#define QG_STOPPED   -7  /* the peer asked that no more be sent */
#define QG_CLOSED    -8  /* the connection is closed */
#define QG_LIMIT     -9  /* a limit was reached */
#define QG_SYSTEM    -10 /* a system call failed: errno tells */
#define QG_TLS       -11 /* BoringSSL refused: the error text tells */
#define QG_PROTOCOL  -12 /* the peer broke the protocol */
#define QG_FORKED    -13 /* the engine was made in another process */
#define QG_TOO_LARGE -14 /* does not fit a fixed buffer or a peer's limit */
#define QG_REFUSED   -15 /* not processed by the peer: may be sent again */
#define QG_UNABLE    -16 /* the peer has not announced that it can do this */
#define QG_SHORT     -17 /* the body ended before its content-length */

/* Text for a result code. Static. */
const char *qg_error_text(int code);

/* ---------------------------------------------------------------- records */

/* What happened, 64 bytes. `offset` and the three lengths name one run of bytes in the event
 * arena: path, then head, then body. They live until the next qg_engine_drain. */
typedef struct qg_event {
    uint16_t type;     /* QG_EVENT_* */
    uint16_t flags;    /* QG_FIN ... */
    uint32_t status;   /* response status, or QG_METHOD_* of a request */
    uint64_t token;    /* of the wait, the connection or the listener */
    uint64_t conn;     /* connection id */
    uint64_t stream;   /* QUIC stream id */
    uint64_t code;     /* error code of the peer, or ours */
    uint32_t offset;   /* first byte in the event arena */
    uint32_t path_len; /* REQUEST: the path */
    uint32_t head_len; /* field lines, each "name NUL value LF", after one leading LF */
    uint32_t body_len; /* first bytes of the body, all of it with QG_FIN */
    uint64_t value;    /* REQUEST, RESPONSE: content length, or QG_UNKNOWN_LENGTH */
} qg_event;

#define QG_EVENT_CONNECTED     1  /* client: handshake complete; head = "alpn" */
#define QG_EVENT_ACCEPTED      2  /* server, QG_LISTEN_SESSIONS: a connection; head = "alpn" */
#define QG_EVENT_CLOSED        3  /* connection over; code, flags and text (head) tell why */
#define QG_EVENT_REQUEST       4  /* a request's field section is complete and valid */
#define QG_EVENT_RESPONSE      5  /* the same for a response */
#define QG_EVENT_READABLE      6  /* wait: read again */
#define QG_EVENT_WRITABLE      7  /* wait: write again */
#define QG_EVENT_STREAM_ERROR  8  /* wait: the stream failed; status = a result code, negated */
#define QG_EVENT_DEADLINE      9  /* wait: its time is over; nothing else changed */
#define QG_EVENT_STREAM_OPENED 10 /* RAW: the peer opened a stream */
#define QG_EVENT_GOAWAY        11 /* peer takes no new requests; stream = first id not processed */
#define QG_EVENT_OPENED        12 /* wait: a stream may be opened now */
#define QG_EVENT_IDLE          13 /* listener: stopped and its last connection is gone */
#define QG_EVENT_TICKET        14 /* client: head = ticket; value = seconds it lives; QG_EARLY */
#define QG_EVENT_QLOG          15 /* a qlog ended early: code = errno, value = records lost; head = file */

#define QG_FIN         1    /* the message ends here */
#define QG_EARLY       2    /* came, or may be sent, in early data (0-RTT) */
#define QG_MORE        4    /* there is more than fitted: read on */
#define QG_REMOTE      8    /* the peer's doing */
#define QG_APP         16   /* code is an application (HTTP/3) code, else a transport code */
#define QG_TLS_ALERT   32   /* code is 0x100 + a TLS alert (RFC 9001, section 4.8) */
#define QG_TIMED_OUT   64   /* idle timeout, or the handshake took too long */
#define QG_LOST        128  /* stateless reset: the peer no longer knows the connection */
#define QG_ICMP        256  /* the network said unreachable; code = errno */
#define QG_VERSION     512  /* no common QUIC version */
#define QG_HEAD        1024 /* submission: the request is a HEAD: its response has no body */
#define QG_DATE        2048 /* submission: the engine adds the date field */
#define QG_INTERIM     4096 /* submission: an informational (1xx) response; the final one follows */
#define QG_ESTABLISHED 8192 /* CLOSED: the handshake had been complete */
#define QG_EXTENDED    16384 /* qg_stream_request: a CONNECT with :protocol (RFC 9220) */

#define QG_UNKNOWN_LENGTH 0xffffffffffffffff

#define QG_METHOD_OTHER   0 /* the name stands in the head as ":method" */
#define QG_METHOD_GET     1
#define QG_METHOD_HEAD    2
#define QG_METHOD_POST    3
#define QG_METHOD_PUT     4
#define QG_METHOD_DELETE  5
#define QG_METHOD_OPTIONS 6
#define QG_METHOD_PATCH   7
#define QG_METHOD_CONNECT 8

/* What to do, 64 bytes. The caller writes `op` last and moves to the next record; the engine
 * takes records in order until it meets op 0, at every entry, and sets op back to 0. `offset`
 * and the two lengths name bytes in the submission arena (head, then body), which may be written
 * again after the next entry. Submissions never fail loudly: one for something that is gone is
 * dropped, one with a token is answered by an event. */
typedef struct qg_submission {
    uint16_t op;     /* QG_OP_* */
    uint16_t flags;  /* QG_FIN ... */
    uint32_t offset; /* first byte in the submission arena */
    uint64_t conn;
    uint64_t stream;
    uint64_t token;
    uint64_t timeout_us; /* REQUEST: until the response's head; 0: none */
    uint64_t code;
    uint32_t head_len; /* QPACK field lines, without the section prefix */
    uint32_t body_len;
    uint64_t spare;
} qg_submission;

#define QG_OP_RESPOND 1 /* head and first bytes of a response */
#define QG_OP_REQUEST 2 /* a request on a stream of its own; waits when none may be opened */
#define QG_OP_RESET   3 /* end both sides of the stream with `code` */
#define QG_OP_CANCEL  4 /* forget the request with `token`, wherever it is, with `code` */
#define QG_OP_CREDIT  5 /* listener `conn` (an endpoint) may announce `code` more requests */
#define QG_OP_ATTACH  6 /* requests of `conn` are announced with `token` from now on */
#define QG_OP_RELEASE 7 /* qg_stream_release */

#define QG_BODY_INLINE_MAX 65536 /* a submission's body is at most this long */

/* ---------------------------------------------------------------- addresses */

/* A sockaddr_in or sockaddr_in6 and its length. */
typedef struct qg_addr {
    uint8_t bytes[28];
    uint32_t len;
} qg_addr;

/* Fill `out` from a numeric IPv4 or IPv6 text ("fe80::1%eth0" works). QG_OK or QG_INVALID. */
int qg_addr_parse(qg_addr *out, const char *ip, uint16_t port);

/* Write the numeric host to `ip` (at least 64 bytes). Returns the port, or QG_INVALID. */
int qg_addr_format(const qg_addr *addr, char *ip, size_t capacity);

/* ---------------------------------------------------------------- keys */

/* The key ring: secrets for tickets, Retry tokens, stateless resets and the replay register, all
 * derived from one 32-byte secret. Epoch e+1's root is HKDF of epoch e's, so processes that share
 * the secret and the clock rotate alike with no leader, and an old root cannot be got back from a
 * new one. Contract and layout: keys.h. */
typedef struct qg_keys qg_keys;

#define QG_KEY_TICKET 0
#define QG_KEY_RETRY  1
#define QG_KEY_RESET  2 /* does not rotate: a token must outlive every connection */
#define QG_KEY_REPLAY 3

typedef struct qg_key {
    uint8_t name[16];
    uint8_t secret[64]; /* ticket: 32 AES-256, 32 HMAC; others use the first 32 */
    uint32_t epoch;
    uint32_t use;
} qg_key;

/* `secret`: 32 bytes, copied, or NULL for random ones. `period_s`: seconds per epoch (> 0).
 * `window`: how many epochs a key opens what it sealed (1 to 64). `origin_s`: the wall-clock second
 * at which epoch 0 began. Returns NULL when out of memory or an argument is out of range.
 * The caller owns one reference. */
qg_keys *qg_keys_new(const uint8_t *secret, uint32_t period_s, uint32_t window, uint64_t origin_s);
void qg_keys_free(qg_keys *keys);

/* Move to the epoch of wall-clock second `now_s`; an earlier one is ignored. Old secrets are wiped.
 * Returns the epoch. */
uint32_t qg_keys_rotate(qg_keys *keys, uint64_t now_s);

/* The key that seals now. QG_OK. */
int qg_keys_current(qg_keys *keys, uint32_t use, qg_key *out);

/* The key called `name`: 0 when it is current, 1 when older but inside the window, QG_GONE. */
int qg_keys_find(qg_keys *keys, uint32_t use, const uint8_t *name, qg_key *out);

/* ---------------------------------------------------------------- TLS */

typedef struct qg_tls qg_tls;
typedef struct qg_replay qg_replay; /* quicgreen_sessions.h */

typedef struct qg_tls_options {
    uint32_t abi; /* QG_ABI */
    uint32_t is_server;
    uint32_t verify_peer;  /* client: check chain and name; server: ask for a certificate */
    uint32_t require_peer; /* server: fail the handshake without one */
    const char *cert_file; /* PEM chain, leaf first; may also hold the key */
    const char *key_file;  /* PEM; NULL: look in cert_file */
    const char *cert_pem;  /* the same as text, instead of files */
    const char *key_pem;
    const char *ca_file; /* PEM bundle; NULL with ca_dir NULL: nothing is trusted */
    const char *ca_dir;  /* OpenSSL hashed folder */
    const uint8_t *alpn; /* wire format: length-prefixed names */
    size_t alpn_len;
    const char *keylog_file; /* NSS key log, appended; NULL: none */
    const char *groups;      /* BoringSSL's list; NULL: its default */
    qg_keys *keys;           /* server: seals session tickets; NULL: no tickets */
    qg_replay *replay;       /* server: early data is taken, once each; NULL: none is */
    uint32_t tickets;        /* client: tell of tickets */
} qg_tls_options;

/* NULL on error, with a text in `error`. The caller owns one reference. */
qg_tls *qg_tls_new(const qg_tls_options *options, char *error, size_t error_capacity);
void qg_tls_free(qg_tls *tls);

/* A fresh P-256 key and a certificate signed with it, valid `days` days from now, for the names
 * (DNS or IP) in `names`, separated by commas, as PEM. QG_OK, QG_TOO_LARGE, QG_INVALID, QG_TLS. */
int qg_tls_self_signed(const char *names, uint32_t days, char *cert_pem, size_t cert_capacity,
                       char *key_pem, size_t key_capacity);

/* ---------------------------------------------------------------- transport settings */

typedef struct qg_config qg_config;

typedef struct qg_config_options {
    uint32_t abi; /* QG_ABI */
    uint32_t is_server;
    uint64_t max_idle_ms;
    uint64_t handshake_timeout_ms;
    uint64_t write_timeout_ms; /* engine-held response bytes that the peer takes no part of */
    uint64_t initial_max_data;
    uint64_t initial_max_stream_data_bidi_local;
    uint64_t initial_max_stream_data_bidi_remote;
    uint64_t initial_max_stream_data_uni;
    uint64_t initial_max_streams_bidi;
    uint64_t initial_max_streams_uni;
    uint64_t max_connection_window;
    uint64_t max_stream_window;
    uint64_t max_field_section_size;
    uint64_t max_fields;
    uint32_t max_udp_payload_size;
    uint32_t discover_pmtu;
    uint32_t grease;
    uint32_t disable_active_migration;
    uint32_t pacing;
    uint32_t hystart;
    uint32_t initial_congestion_window_packets;
    uint32_t active_connection_id_limit;
    uint32_t extended_connect; /* server: announce RFC 9220 */
    uint32_t raw;              /* streams belong to the application, no HTTP/3 */
    double send_capacity_factor;
    const char *cc_algorithm; /* "cubic", "reno", "bbr2_gcongestion" */
    const char *qlog_dir; /* each connection's qlog goes there (quicgreen_seeing.h); NULL: none */
} qg_config_options;

/* Fill `options` with the defaults of quicgreen.h's implementation (config.c says why each). */
void qg_config_defaults(qg_config_options *options, uint32_t is_server);

/* Takes a reference on `tls`. NULL on error, with a text in `error`. */
qg_config *qg_config_new(const qg_config_options *options, qg_tls *tls, char *error,
                         size_t error_capacity);
void qg_config_free(qg_config *config);

/* ---------------------------------------------------------------- engine */

typedef struct qg_engine qg_engine;
typedef struct qg_group qg_group; /* quicgreen_group.h */

typedef struct qg_engine_options {
    uint32_t abi;         /* QG_ABI */
    uint32_t events;      /* records in the event ring */
    uint32_t event_bytes; /* event arena */
    uint32_t submissions; /* records in the submission ring */
    uint32_t submission_bytes;
    uint32_t max_connections;
    uint16_t host_id;   /* connection ids: which host */
    uint8_t slot;       /* which worker on it */
    uint8_t generation; /* which life of that worker */
    qg_counters
        *counters; /* the caller's, zeroed; NULL: the engine's own, or its slot's in `group` */
    qg_keys *keys; /* Retry and reset tokens where qg_tls has no ring; NULL: the engine's own */
    qg_group
        *group; /* the worker's group, of which it has `slot` in the life `generation`; NULL: none.
                      * `host_id` is the group's then. Takes a reference. */
    int trace_fd; /* every datagram is a line there; the caller's; -1: none (quicgreen_seeing.h) */
} qg_engine_options;

typedef struct qg_engine_memory {
    qg_event *events;
    uint8_t *event_arena;
    qg_submission *submissions;
    uint8_t *submission_arena;
    qg_counters *counters;
} qg_engine_memory;

void qg_engine_defaults(qg_engine_options *options);

/* NULL on error; then *error is a result code (QG_SYSTEM: errno tells). */
qg_engine *qg_engine_new(const qg_engine_options *options, int *error);

/* Close every descriptor and free everything. Connections are dropped silently: close them and
 * flush before, to tell their peers. */
void qg_engine_free(qg_engine *engine);

/* In a forked child: close this process's copies of the descriptors and nothing else (no epoll_ctl,
 * which would act on the parent's set; no packet). Every later call answers QG_FORKED. */
void qg_engine_abandon(qg_engine *engine);

void qg_engine_memory_of(qg_engine *engine, qg_engine_memory *out);

/* One descriptor that is readable whenever qg_engine_drain has something to do. */
int qg_engine_fd(const qg_engine *engine);

/* Take submissions, read what the network has (within a budget), run what is due, and fill the
 * event ring from its start. To be called only when every earlier event was read.
 * Returns the number of events, with QG_DRAIN_MORE set when there is more to do at once,
 * or a result code < 0. */
int64_t qg_engine_drain(qg_engine *engine);
#define QG_DRAIN_MORE 0x40000000

/* Take submissions and send everything that may leave. Returns the number of events in the ring,
 * those of the last drain included. With a spin set: when this adds none, the network is watched
 * for that long and what comes is handled as by a drain. */
int64_t qg_engine_flush(qg_engine *engine);

/* Take submissions only, to make room in the ring or the arena. Returns as qg_engine_flush. */
int64_t qg_engine_submit(qg_engine *engine);

/* How long a flush watches the network before it returns, in microseconds; 0: not at all. */
void qg_engine_set_spin(qg_engine *engine, uint32_t spin_us);

/* Nanoseconds of CLOCK_MONOTONIC at which the engine wants to be woken, UINT64_MAX: never. */
uint64_t qg_engine_next_timeout(const qg_engine *engine);

/* ---------------------------------------------------------------- endpoints */

/* An endpoint is where datagrams come and go. Functions that make one return its number >= 0. */

#define QG_ENDPOINT_V6ONLY 1
#define QG_ENDPOINT_SHARED 2 /* SO_REUSEPORT: others of this user may bind the same address */

#define QG_CAP_GSO        1  /* UDP_SEGMENT */
#define QG_CAP_GRO        2  /* UDP_GRO */
#define QG_CAP_RECVERR    4  /* ICMP errors are seen */
#define QG_CAP_BUFFERS    8  /* both socket buffers got the size asked for */
#define QG_CAP_PMTUD      16 /* datagrams leave with "don't fragment" */
#define QG_CAP_XDP        32 /* datagrams go past the system by AF_XDP where they can */
#define QG_CAP_XDP_NATIVE 64 /* by a program in the interface's driver */

typedef struct qg_endpoint_info {
    qg_addr local;
    uint32_t capabilities;   /* QG_CAP_* */
    uint32_t receive_buffer; /* bytes, as the system says */
    uint32_t send_buffer;
    uint32_t connections;
    int fd; /* -1: not a socket */
} qg_endpoint_info;

/* Bind a UDP socket to `bind`, or take over the bound UDP socket `fd` (>= 0; the engine owns it then,
 * and has closed it when this fails). QG_SYSTEM with errno, QG_INVALID, QG_NOMEM. */
int qg_endpoint_udp(qg_engine *engine, const qg_addr *bind, uint32_t flags, int fd);

/* Let datagrams of a UDP endpoint that nothing was sent on come and go by AF_XDP on the interface of that
 * name; the socket stays, for what does not. Where it cannot be had, nothing changes, and `reason`
 * (`capacity` bytes) says why in words: QG_INVALID, QG_SYSTEM, QG_NOMEM; QG_AGAIN when somebody has the
 * interface, perhaps one who has just ended; QG_STATE when it is too late. */
int qg_endpoint_xdp(qg_engine *engine, int endpoint, const char *interface, char *reason,
                    size_t capacity);

/* The engine's client socket for connections by AF_XDP, one for both families where the system has both:
 * its number, to be given to qg_connect, or as qg_endpoint_xdp. There is one at most: QG_STATE. */
int qg_endpoint_client_xdp(qg_engine *engine, const char *interface, char *reason, size_t capacity);

/* Join two engines (or one with itself) by a pair of endpoints in memory, with the addresses given.
 * Both must be driven by the same thread, or under a lock. out[0] is a's, out[1] is b's. */
int qg_endpoint_pair(qg_engine *a, const qg_addr *addr_a, qg_engine *b, const qg_addr *addr_b,
                     int *out);

/* QG_STATE while connections use it. */
int qg_endpoint_close(qg_engine *engine, int endpoint);
int qg_endpoint_info_of(qg_engine *engine, int endpoint, qg_endpoint_info *out);

/* Hand the engine a datagram as if it had come in on `endpoint` (`packet` may be written to). */
int qg_engine_inject(qg_engine *engine, int endpoint, uint8_t *packet, size_t len,
                     const qg_addr *from, const qg_addr *to);

/* ---------------------------------------------------------------- server */

#define QG_RETRY_NEVER  0
#define QG_RETRY_ALWAYS 1
#define QG_RETRY_AUTO   2 /* while many handshakes are under way */

#define QG_LISTEN_SESSIONS 1 /* announce connections (QG_EVENT_ACCEPTED), not only requests */

typedef struct qg_listen_options {
    uint32_t abi;   /* QG_ABI */
    uint32_t flags; /* QG_LISTEN_* */
    uint32_t retry; /* QG_RETRY_* */
    uint32_t max_connections;
    uint64_t token;  /* requests are announced with it */
    uint64_t credit; /* requests that may be announced before more credit comes */
} qg_listen_options;

/* Accept connections on `endpoint`. Takes a reference on `config`. */
int qg_listen(qg_engine *engine, int endpoint, const qg_listen_options *options, qg_config *config);

/* Take no new connection; send GOAWAY on the others (RFC 9114, section 5.2) and close each when its
 * last request is done. QG_EVENT_IDLE comes when none is left. The GOAWAYs go out within `spread_us`,
 * QG_GOAWAY_GAP_US apart at most: clients who all go elsewhere in one moment are a crowd of handshakes
 * there. Called again with less, the rest goes out sooner. */
#define QG_GOAWAY_GAP_US 10000
int qg_listen_stop(qg_engine *engine, int endpoint, uint64_t spread_us);

/* Close all connections of the endpoint at once. */
int qg_listen_close(qg_engine *engine, int endpoint, uint64_t code);

/* ---------------------------------------------------------------- connections */

#define QG_ENDPOINT_AUTO -1 /* one of the engine's own client sockets */

/* Begin a connection; from one of the engine's own sockets also when `endpoint` is not of the peer's family.
 * `server_name`: DNS name or IP text, checked against the certificate and, for
 * a name, sent as SNI; NULL only without verification. Events with `token`: CONNECTED or CLOSED,
 * later GOAWAY. `timeout_us`: for the handshake (0: the configuration's). QG_OK and *conn. */
int qg_connect(qg_engine *engine, int endpoint, const qg_addr *peer, qg_config *config,
               const char *server_name, uint64_t token, uint64_t timeout_us, uint64_t *conn);

typedef struct qg_conn_info {
    qg_addr local;
    qg_addr peer;
    uint8_t alpn[32];
    uint8_t server_name[256];
    uint32_t alpn_len;
    uint32_t server_name_len;
    uint32_t is_server;
    uint32_t is_established;
    uint32_t is_resumed;
    uint32_t is_raw;
    uint32_t endpoint;
    uint32_t extended_connect; /* the peer allows RFC 9220 */
    uint64_t max_datagram;     /* largest UDP payload now */
    uint64_t streams_left;     /* bidirectional streams that may be opened now */
    uint64_t unknown_frame;    /* type of the first frame in frames_unknown; 0: none */
} qg_conn_info;

int qg_conn_info_of(qg_engine *engine, uint64_t conn, qg_conn_info *out);

/* Close: CONNECTION_CLOSE with an application (HTTP/3) or transport code and a reason (cut to 127
 * bytes). Everything that waits on the connection is told QG_CLOSED. */
int qg_conn_close(qg_engine *engine, uint64_t conn, uint32_t app, uint64_t code,
                  const uint8_t *reason, size_t reason_len);

/* Close without an error once everything that was written has arrived, at the latest after
 * `timeout_us`
 * (> 0). No new request is taken. */
int qg_conn_finish(qg_engine *engine, uint64_t conn, uint64_t timeout_us);

/* Copy the peer's leaf certificate (DER). Returns its length, 0 when there is none. */
int qg_conn_peer_cert(qg_engine *engine, uint64_t conn, uint8_t *out, size_t capacity);

/* ---------------------------------------------------------------- streams */

/* Open a stream on a RAW connection. `bidi`: both ways. QG_AGAIN (see Waiting; the event is OPENED)
 * when the peer's limit is reached or the handshake is under way. */
int qg_stream_open(qg_engine *engine, uint64_t conn, uint32_t bidi, uint64_t token,
                   uint64_t timeout_us, uint64_t *stream);

/* Send a request's head (`head`: QPACK field lines) on a stream of its own, without ending it.
 * QG_AGAIN as qg_stream_open. QG_EXTENDED in `flags`: not before the peer's SETTINGS have come (QG_AGAIN
 * until then), and QG_UNABLE when they do not allow it. */
int qg_stream_request(qg_engine *engine, uint64_t conn, const uint8_t *head, size_t head_len,
                      uint32_t flags, uint64_t token, uint64_t timeout_us, uint64_t *stream);

/* Read body bytes (RAW: stream bytes). Returns how many, with QG_FIN in *flags when the message
 * ended after them; 0 only with QG_FIN or capacity 0. QG_AGAIN; QG_RESET with *code. What came
 * before the peer closed the connection, or was no longer heard, can be read up to 30 s later. */
int64_t qg_stream_read(qg_engine *engine, uint64_t conn, uint64_t stream, uint8_t *out,
                       size_t capacity, uint64_t token, uint64_t timeout_us, uint32_t *flags,
                       uint64_t *code);

/* qg_stream_read as often as there is something: when nothing is left the wait is armed too, and
 * QG_MORE stands in *flags. Without it, QG_FIN and an error, `capacity` was full. What went wrong after some
 * bytes is said at the next call. */
int64_t qg_stream_read_on(qg_engine *engine, uint64_t conn, uint64_t stream, uint8_t *out,
                          size_t capacity, uint64_t token, uint64_t timeout_us, uint32_t *flags,
                          uint64_t *code);

/* Offer body bytes (RAW: stream bytes). Returns how many were taken; QG_FIN in `flags` counts only
 * when all were. `data` is not kept. QG_AGAIN; QG_STOPPED with *code. */
int64_t qg_stream_write(qg_engine *engine, uint64_t conn, uint64_t stream, const uint8_t *data,
                        size_t len, uint32_t flags, uint64_t token, uint64_t timeout_us,
                        uint64_t *code);

/* Send a trailer section (`head`: QPACK field lines) and end the message. */
int qg_stream_send_trailers(qg_engine *engine, uint64_t conn, uint64_t stream, const uint8_t *head,
                            size_t head_len);

/* Copy the trailers that ended the message (field lines as in qg_event). Returns their length, 0:
 * none. QG_TOO_LARGE when `capacity` is less. */
int qg_stream_trailers(qg_engine *engine, uint64_t conn, uint64_t stream, uint8_t *out,
                       size_t capacity);

/* Wait for the response's head on a stream of qg_stream_request. Always QG_AGAIN or an error. With the
 * token of the wait that is armed, its time begins anew. */
int qg_stream_await_response(qg_engine *engine, uint64_t conn, uint64_t stream, uint64_t token,
                             uint64_t timeout_us);

/* Withdraw the wait with this token, if it is still armed: its event will not come. */
int qg_stream_unwait(qg_engine *engine, uint64_t conn, uint64_t stream, uint64_t token);

#define QG_SIDE_READ  1
#define QG_SIDE_WRITE 2

/* End the sides given: STOP_SENDING for read, RESET_STREAM for write (RFC 9000, section 3). What
 * the peer sent up to then is dropped. */
int qg_stream_shutdown(qg_engine *engine, uint64_t conn, uint64_t stream, uint32_t sides,
                       uint64_t code);

/* The last use of a stream by the caller: no event with a token of it comes after this. A body that
 * was not read is refused without an error (H3_NO_ERROR), a message not ended is reset. */
int qg_stream_release(qg_engine *engine, uint64_t conn, uint64_t stream);

/* ---------------------------------------------------------------- field lines */

/* Encode one field line for `head` above (RFC 9204, section 4.5, static table only). Names are made
 * lower case. Returns its length; 0 for a field that HTTP/3 does not carry (connection and its
 * like); QG_INVALID for a name or value that is not allowed; QG_TOO_LARGE. */
int qg_field_encode(const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len,
                    uint8_t *out, size_t capacity);

/* ---------------------------------------------------------------- build */

int qg_abi(void);
const char *qg_build(void); /* "quiche 0.30.0, BoringSSL ..." */

/* ---- end of cdef ---- */
#endif
