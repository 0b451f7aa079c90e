/* limit.h: the parts of the limit: limit.c (connections, timers, the loop), limit_h3.c (messages),
 * limit_udp.c (the socket). */
#ifndef LIMIT_H
#define LIMIT_H
#include <netinet/in.h>
#include <quiche.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every datagram, both ways: what passes on the Internet with a margin, as in all rows. */
#define DATAGRAM 1350
#define CID_LEN  16
#define NEVER    UINT64_MAX

/* A message whose head or body quiche has not taken whole. */
typedef struct transfer {
    uint64_t stream;
    size_t left;
    bool head_sent;
} transfer;

typedef struct conn {
    struct conn *next, *prev, *next_in_bucket;
    uint8_t cid[CID_LEN];
    quiche_conn *quic;
    quiche_h3_conn *h3; /* NULL until the handshake is done */
    uint64_t deadline_ns;
    bool dirty;              /* stands in the batch's list of those that received */
    long wanted, sent, done; /* client: requests */
    long in_flight;          /* client */
    uint64_t asked_ns;       /* client, -l */
    transfer *waiting;       /* unordered */
    size_t waiting_n, waiting_cap;
} conn;

typedef enum { SERVER, GET, POST, HANDSHAKE, IDLE } limit_mode;

typedef struct limit_options {
    limit_mode mode;
    long port, requests, streams, connections, bytes;
    long browser, latencies; /* flags */
    const char *cert, *key;
} limit_options;

typedef struct limit_totals {
    long requests, errors, connections; /* finished, failed, established */
    uint64_t body_received, body_sent;
    long datagrams_lost; /* not taken by the socket */
} limit_totals;

extern limit_options options;
extern limit_totals totals;
extern uint32_t *latencies_ns; /* of each finished request, with options.latencies */

uint64_t now_ns(void);
_Noreturn void die(const char *what);

/* The connection with this id, or NULL. */
conn *conn_find(const uint8_t cid[CID_LEN]);
/* A client's first packet came: its new connection. */
conn *conn_accept(const uint8_t cid[CID_LEN], const struct sockaddr_in *from);
/* Something happened to a connection: do everything that follows from it. */
void conn_serve(conn *c);

void h3_configure(void);
/* Read what came, answer or ask, go on with what waited. */
void h3_handle(conn *c);

extern int udp_fd;
extern struct sockaddr_in udp_local, udp_remote;
void udp_open(void);
/* Read one batch and serve who received. True when there may be more. */
bool udp_receive(void);
/* Send `len` bytes, which the kernel cuts into datagrams of `segment` bytes. */
void udp_send(uint8_t *data, size_t len, size_t segment, struct sockaddr_storage *to);

#endif
