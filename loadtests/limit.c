/* limit.c: what any HTTP/3 layer on this machine can at best reach: quiche's C interface, batched
 * UDP, and nothing above it. The benchmark's yardstick, and the client that loads the servers it
 * measures. One thread, one socket, loopback only.
 *
 *    limit server -C CERT -K KEY [-p PORT] [-b BYTES] [-B]   answers with BYTES bytes
 *    limit get -p PORT -n REQUESTS [-s STREAMS] [-c CONNECTIONS] [-B] [-l]
 *    limit post -p PORT -n REQUESTS -b BYTES                 uploads, one after another
 *    limit handshake -p PORT -n CONNECTIONS -s AT_ONCE       one GET on each
 *    limit idle -p PORT -c CONNECTIONS                       held until stdin ends
 *
 *    -B  messages as a browser and a site exchange them: 12 fields there, 8 fields back
 *    -l  record each request's time: for one stream on one connection
 *
 * It speaks JSON, one object a line: server and idle say when they are ready, answer each line on
 * stdin with their totals, and end when stdin does; the others print their totals at the end.
 *
 * Left out on purpose: Retry, limits, migration, header validation, any answer to a hostile peer. A
 * datagram that the socket does not take is lost, and QUIC sends it again. */
#include "limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* recvmmsg calls per turn, so that timers get theirs under any load. */
#define ROUNDS 4
/* Packets per sendmsg: the kernel takes 64 segments and 65,507 bytes; 48 full ones fit. */
#define RUN_PACKETS 60
#define RUN_BYTES   65000
/* All timers are looked at, at most so often: quiche's are milliseconds away. */
#define SCAN_NS UINT64_C(2000000)
/* What a peer may send before anyone reads: more than is on its way at any time on loopback. */
#define CONNECTION_WINDOW (24 << 20)
#define STREAM_WINDOW     (16 << 20)
#define BUCKETS           65536
/* Handshakes under way in idle mode: their packets fit the server's socket buffer. */
#define IDLE_AT_ONCE 8
#define H3_NO_ERROR  0x100

limit_options options = {.streams = 1, .connections = 1};
limit_totals totals;
uint32_t *latencies_ns;

static const char *const mode_names[] = {"server", "get", "post", "handshake", "idle"};
static quiche_config *config;
static conn *all, *buckets[BUCKETS];
static long conns, dialled;
static uint64_t next_scan_ns = NEVER;
static uint64_t started_ns;
static double started_cpu_s;
static bool stopping;

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static double cpu_s(const struct rusage *usage) {
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

void die(const char *what) {
    perror(what);
    exit(1);
}

/* ------------------------------------------------------------- the table */

/* Connection ids are random: their first bytes are the hash. */
static conn **bucket_of(const uint8_t *cid) {
    return &buckets[cid[0] | cid[1] << 8];
}

conn *conn_find(const uint8_t cid[CID_LEN]) {
    conn *c = *bucket_of(cid);
    while (c != NULL && memcmp(c->cid, cid, CID_LEN) != 0) {
        c = c->next_in_bucket;
    }
    return c;
}

static conn *add(const uint8_t *cid, quiche_conn *quic) {
    conn *c = calloc(1, sizeof *c);
    if (c == NULL || quic == NULL) {
        die("connection");
    }
    memcpy(c->cid, cid, CID_LEN);
    c->quic = quic;
    c->deadline_ns = NEVER;
    conn **bucket = bucket_of(cid);
    c->next_in_bucket = *bucket;
    *bucket = c;
    c->next = all;
    if (all != NULL) {
        all->prev = c;
    }
    all = c;
    conns++;
    return c;
}

static void drop(conn *c) {
    totals.errors += options.mode == IDLE ? 1 : c->wanted - c->done;
    conn **at = bucket_of(c->cid);
    while (*at != c) {
        at = &(*at)->next_in_bucket;
    }
    *at = c->next_in_bucket;
    *(c->prev != NULL ? &c->prev->next : &all) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    conns--;
    if (c->h3 != NULL) {
        quiche_h3_conn_free(c->h3);
    }
    quiche_conn_free(c->quic);
    free(c->waiting);
    free(c);
}

/* ------------------------------------------------------------- connections */

static void set_deadline(conn *c) {
    uint64_t left = quiche_conn_timeout_as_nanos(c->quic);
    c->deadline_ns = left == NEVER ? NEVER : now_ns() + left;
    if (c->deadline_ns < next_scan_ns) {
        next_scan_ns = c->deadline_ns;
    }
}

/* Send what the connection has: runs of packets of one length, the last one possibly shorter. A
 * packet longer than its run's first one leaves by itself. */
static void flush(conn *c) {
    static uint8_t room[RUN_BYTES];
    quiche_send_info info;
    int count;
    do {
        size_t len = 0, segment = 0, longer = 0;
        count = 0;
        while (count < RUN_PACKETS && len + DATAGRAM <= sizeof room) {
            ssize_t n = quiche_conn_send(c->quic, room + len, DATAGRAM, &info);
            if (n < 0) {
                break;
            }
            if (count > 0 && (size_t)n > segment) {
                longer = (size_t)n;
                break;
            }
            segment = count++ == 0 ? (size_t)n : segment;
            len += (size_t)n;
            if ((size_t)n < segment) {
                break;
            }
        }
        if (len > 0) {
            udp_send(room, len, segment, &info.to);
        }
        if (longer > 0) {
            udp_send(room + len, longer, longer, &info.to);
        }
    } while (count > 0);
    set_deadline(c);
}

static void dial(void) {
    uint8_t cid[CID_LEN];
    if (getrandom(cid, sizeof cid, 0) != sizeof cid) {
        die("getrandom");
    }
    conn *c = add(cid, quiche_connect("localhost", cid, CID_LEN, (struct sockaddr *)&udp_local,
                                      sizeof udp_local, (struct sockaddr *)&udp_remote,
                                      sizeof udp_remote, config));
    if (options.mode == HANDSHAKE) {
        c->wanted = 1;
    } else if (options.mode != IDLE) {
        /* An even share; the first ones take what is left over. */
        c->wanted = options.requests / options.connections +
                    (dialled < options.requests % options.connections);
    }
    dialled++;
    flush(c);
}

conn *conn_accept(const uint8_t cid[CID_LEN], const struct sockaddr_in *from) {
    return add(cid,
               quiche_accept(cid, CID_LEN, NULL, 0, (struct sockaddr *)&udp_local, sizeof udp_local,
                             (const struct sockaddr *)from, sizeof *from, config));
}

void conn_serve(conn *c) {
    h3_handle(c);
    bool over = options.mode == HANDSHAKE && c->done == c->wanted;
    if (over) {
        quiche_conn_close(c->quic, true, H3_NO_ERROR, NULL, 0);
    }
    flush(c);
    if (over || quiche_conn_is_closed(c->quic)) {
        drop(c);
        if (options.mode == HANDSHAKE && dialled < options.requests) {
            dial();
        }
    }
}

static void run_timers(void) {
    uint64_t now = now_ns(), earliest = NEVER;
    if (now < next_scan_ns) {
        return;
    }
    next_scan_ns = NEVER; /* who is served below lowers it */
    for (conn *c = all, *next; c != NULL; c = next) {
        next = c->next;
        if (c->deadline_ns <= now) {
            quiche_conn_on_timeout(c->quic);
            conn_serve(c);
        } else if (c->deadline_ns < earliest) {
            earliest = c->deadline_ns;
        }
    }
    next_scan_ns = earliest < next_scan_ns ? earliest : next_scan_ns;
    if (next_scan_ns < now + SCAN_NS) {
        next_scan_ns = now + SCAN_NS;
    }
}

/* ------------------------------------------------------------- reports */

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(int percent) {
    long n = totals.requests;
    return n > 0 ? latencies_ns[(n - 1) * percent / 100] / 1e3 : 0;
}

static void report(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"mode\": \"%s\", \"requests\": %ld, \"errors\": %ld, \"connections\": %ld, "
           "\"body_received\": %llu, \"body_sent\": %llu, \"datagrams_lost\": %ld, "
           "\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"max_rss_kb\": %ld",
           mode_names[options.mode], totals.requests, totals.errors, totals.connections,
           (unsigned long long)totals.body_received, (unsigned long long)totals.body_sent,
           totals.datagrams_lost, (double)(now_ns() - started_ns) / 1e9,
           cpu_s(&usage) - started_cpu_s, usage.ru_maxrss);
    if (options.latencies) {
        qsort(latencies_ns, (size_t)totals.requests, sizeof *latencies_ns, by_value);
        printf(", \"p50_us\": %.1f, \"p99_us\": %.1f", percentile_us(50), percentile_us(99));
    }
    printf("}\n");
    fflush(stdout);
}

static void say_ready(void) {
    printf("{\"ready\": true, \"port\": %d, \"version\": \"quiche %s\"}\n",
           ntohs(udp_local.sin_port), quiche_version());
    fflush(stdout);
}

/* Each line asks for the totals; the end of stdin is ours too. */
static void read_stdin(void) {
    char text[256];
    ssize_t n = read(STDIN_FILENO, text, sizeof text);
    stopping = n <= 0;
    for (ssize_t i = 0; i < n; i++) {
        if (text[i] == '\n') {
            report();
        }
    }
}

/* ------------------------------------------------------------- the loop */

static bool is_over(void) {
    switch (options.mode) {
    case SERVER:
        return stopping;
    case IDLE:
        return stopping || totals.errors > 0;
    default:
        return totals.requests + totals.errors >= options.requests || conns == 0;
    }
}

/* Idle connections are opened a few at a time. */
static void dial_idle(void) {
    static bool said;
    while (dialled < options.connections && dialled - totals.connections < IDLE_AT_ONCE) {
        dial();
    }
    if (!said && totals.connections == options.connections) {
        said = true;
        say_ready();
    }
}

static void turn(int epoll_fd) {
    uint64_t now = now_ns();
    int wait_ms = -1;
    if (next_scan_ns != NEVER) {
        wait_ms = next_scan_ns <= now ? 0 : (int)((next_scan_ns - now + 999999) / 1000000);
    }
    struct epoll_event events[2];
    int n = epoll_wait(epoll_fd, events, 2, wait_ms);
    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == STDIN_FILENO) {
            read_stdin();
            continue;
        }
        for (int round = 0; round < ROUNDS && udp_receive(); round++) {
        }
    }
    run_timers();
}

static void loop(void) {
    int epoll_fd = epoll_create1(0);
    struct epoll_event udp = {.events = EPOLLIN, .data.fd = udp_fd};
    struct epoll_event commands = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, udp_fd, &udp) != 0) {
        die("epoll");
    }
    bool listens = options.mode == SERVER || options.mode == IDLE;
    if (listens && epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &commands) != 0) {
        die("stdin must be a pipe");
    }
    while (!is_over()) {
        if (options.mode == IDLE) {
            dial_idle();
        }
        turn(epoll_fd);
    }
}

static void say_goodbye(void) {
    for (conn *c = all; c != NULL; c = c->next) {
        quiche_conn_close(c->quic, true, H3_NO_ERROR, NULL, 0);
        flush(c);
    }
}

/* ------------------------------------------------------------- set-up */

static void configure(void) {
    const char *protocols = QUICHE_H3_APPLICATION_PROTOCOL;
    config = quiche_config_new(QUICHE_PROTOCOL_VERSION);
    quiche_config_set_application_protos(config, (const uint8_t *)protocols, strlen(protocols));
    quiche_config_verify_peer(config, false);
    quiche_config_set_max_idle_timeout(config, 30000);
    quiche_config_set_max_recv_udp_payload_size(config, DATAGRAM);
    quiche_config_set_max_send_udp_payload_size(config, DATAGRAM);
    quiche_config_set_initial_max_data(config, CONNECTION_WINDOW);
    quiche_config_set_initial_max_stream_data_bidi_local(config, STREAM_WINDOW);
    quiche_config_set_initial_max_stream_data_bidi_remote(config, STREAM_WINDOW);
    quiche_config_set_initial_max_stream_data_uni(config, 1 << 20);
    quiche_config_set_initial_max_streams_bidi(config, 1000);
    quiche_config_set_initial_max_streams_uni(config, 100);
    quiche_config_set_disable_active_migration(config, true);
    quiche_config_enable_pacing(config, false);
    if (options.mode == SERVER &&
        (quiche_config_load_cert_chain_from_pem_file(config, options.cert) != 0 ||
         quiche_config_load_priv_key_from_pem_file(config, options.key) != 0)) {
        fprintf(stderr, "limit: %s or %s cannot be used\n", options.cert, options.key);
        exit(1);
    }
}

static _Noreturn void usage(void) {
    fprintf(stderr, "usage: limit server|get|post|handshake|idle [-p port] [-n requests]\n"
                    "       [-s streams] [-c connections] [-b bytes] [-C cert -K key] [-B] [-l]\n");
    exit(2);
}

static const struct {
    char letter;
    long *number;
    const char **text;
} option_table[] = {
    {'p', &options.port, NULL},    {'n', &options.requests, NULL},    {'s', &options.streams, NULL},
    {'b', &options.bytes, NULL},   {'c', &options.connections, NULL}, {'C', NULL, &options.cert},
    {'B', &options.browser, NULL}, {'l', &options.latencies, NULL},   {'K', NULL, &options.key},
};

static void parse(int argc, char **argv) {
    int found = 0, letter;
    while (found <= IDLE && (argc < 2 || strcmp(argv[1], mode_names[found]) != 0)) {
        found++;
    }
    if (found > IDLE) {
        usage();
    }
    options.mode = (limit_mode)found;
    optind = 2;
    while ((letter = getopt(argc, argv, "p:n:s:c:b:C:K:Bl")) != -1) {
        size_t i = 0;
        while (option_table[i].letter != letter) {
            if (++i == sizeof option_table / sizeof *option_table) {
                usage();
            }
        }
        if (option_table[i].text != NULL) {
            *option_table[i].text = optarg;
        } else {
            *option_table[i].number = optarg != NULL ? atol(optarg) : 1;
        }
    }
    bool server = options.mode == SERVER;
    if ((server && (options.cert == NULL || options.key == NULL)) ||
        (!server && options.port == 0) || options.streams < 1 || options.connections < 1) {
        usage();
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    udp_open();
    configure();
    h3_configure();
    latencies_ns = calloc((size_t)options.requests + 1, sizeof *latencies_ns);
    if (latencies_ns == NULL) {
        die("latencies");
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    started_cpu_s = cpu_s(&usage); /* what follows is measured: not the set-up */
    started_ns = now_ns();
    long first = options.mode == HANDSHAKE ? options.streams : options.connections;
    if (options.mode == SERVER) {
        say_ready();
    } else if (options.mode != IDLE) {
        options.streams = options.mode == HANDSHAKE ? 1 : options.streams;
        while (dialled < first && dialled < options.requests) {
            dial();
        }
    }
    loop();
    report();
    say_goodbye();
    return totals.errors > 0;
}
