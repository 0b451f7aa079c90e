#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct opened {
    qg_datapath *dp;
    qg_counters counters;
} opened;

static void open_at(opened *o, const char *ip, uint16_t port, uint32_t flags) {
    qg_addr addr;
    int result = -1;
    *o = (opened){0};
    qg_addr_parse(&addr, ip, port);
    o->dp = qg__udp_open(&addr, flags, -1, &o->counters, &result);
    CHECK_EQ(result, QG_OK);
    CHECK(o->dp != NULL);
}

static void shut(opened *o) {
    o->dp->ops->close(o->dp);
}

static void commit(opened *o, const void *data, size_t len, size_t segment, const qg_addr *from,
                   const qg_addr *to) {
    uint8_t *room = o->dp->ops->begin(o->dp);
    CHECK(room != NULL);
    memcpy(room, data, len);
    o->dp->ops->commit(o->dp, len, segment, from, to);
}

/* Wait until there is something; receive it. */
static int receive(opened *o, qg_dgram *out, int max) {
    struct pollfd p = {.fd = o->dp->fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 2000), 1);
    return o->dp->ops->receive(o->dp, out, max);
}

/* Another program's socket. */
static int plain_socket(const char *ip, qg_addr *addr) {
    qg_addr_parse(addr, ip, 0);
    struct sockaddr *sa = (struct sockaddr *)(void *)addr->bytes;
    int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof addr->bytes;
    CHECK(fd >= 0);
    CHECK_EQ(bind(fd, sa, addr->len), 0);
    CHECK_EQ(getsockname(fd, sa, &len), 0);
    return fd;
}

static void plain_send(int fd, const void *data, size_t len, const qg_addr *to) {
    CHECK_EQ(sendto(fd, data, len, 0, (const struct sockaddr *)(const void *)to->bytes, to->len),
             len);
}

static bool has_v6(void) {
    qg_addr addr;
    qg_addr_parse(&addr, "::1", 0);
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)(void *)addr.bytes, addr.len) == 0;
    close(fd);
    return ok;
}

static uint16_t port_of(const qg_datapath *dp) {
    char ip[64];
    return (uint16_t)qg_addr_format(&dp->local, ip, sizeof ip);
}

static void check_from(const qg_dgram *d, const qg_datapath *sender) {
    CHECK(qg__addr_equal(&d->from, &sender->local));
}

TEST(datagrams_with_their_addresses) {
    opened a, b;
    qg_dgram got[8];
    open_at(&a, "127.0.0.1", 0, 0);
    open_at(&b, "127.0.0.1", 0, 0);
    CHECK(port_of(a.dp) != 0);
    commit(&a, "one", 3, 3, &a.dp->local, &b.dp->local);
    commit(&a, "three", 5, 5, &a.dp->local, &b.dp->local);
    CHECK_EQ(b.dp->ops->receive(b.dp, got, 8), 0); /* not before the flush */
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    CHECK_EQ(receive(&b, got, 8), 2);
    CHECK_TEXT(got[0].data, got[0].len, "one");
    CHECK_TEXT(got[1].data, got[1].len, "three");
    check_from(&got[0], a.dp);
    CHECK(qg__addr_equal(&got[0].to, &b.dp->local));
    CHECK_EQ(a.counters.datagrams_sent, 2);
    CHECK_EQ(a.counters.bytes_sent, 8);
    CHECK_EQ(b.counters.bytes_received, 8);
    CHECK_EQ(a.counters.send_calls, 1);
    shut(&a);
    shut(&b);
}

TEST(a_run_arrives_as_datagrams_at_any_program) {
    opened a;
    qg_addr to;
    uint8_t run[30 * 1000 + 7], got[2000];
    int fd = plain_socket("127.0.0.1", &to);
    open_at(&a, "127.0.0.1", 0, 0);
    fill_pattern(run, sizeof run, 0);
    commit(&a, run, sizeof run, 1000, &a.dp->local, &to);
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    for (size_t at = 0; at < sizeof run; at += 1000) {
        size_t expected = qg__min(1000, sizeof run - at);
        CHECK_EQ(recv(fd, got, sizeof got, 0), expected);
        CHECK_BYTES(got, expected, run + at, expected);
    }
    CHECK_EQ(recv(fd, got, sizeof got, 0), -1);
    CHECK_EQ(a.counters.datagrams_sent, 31);
    CHECK_EQ(a.counters.send_segmented, 31);
    close(fd);
    shut(&a);
}

/* With UDP_GRO it may come in one buffer, with `segment` telling its pieces. */
TEST(a_run_arrives_whole_at_another_datapath) {
    opened a, b;
    qg_dgram got[8];
    uint8_t run[10 * 1200 + 5];
    open_at(&a, "127.0.0.1", 0, 0);
    open_at(&b, "127.0.0.1", 0, 0);
    fill_pattern(run, sizeof run, 0);
    commit(&a, run, sizeof run, 1200, &a.dp->local, &b.dp->local);
    a.dp->ops->flush(a.dp);
    size_t at = 0;
    while (at < sizeof run) {
        int n = receive(&b, got, 8);
        for (int i = 0; i < n; i++) {
            CHECK(got[i].segment == 1200 || got[i].segment == got[i].len);
            CHECK_BYTES(got[i].data, got[i].len, run + at, got[i].len);
            at += got[i].len;
        }
    }
    shut(&a);
    shut(&b);
}

/* 70 pieces are more than the system cuts at a time. */
TEST(a_run_that_the_system_refuses_goes_piece_by_piece) {
    opened a;
    qg_addr to;
    uint8_t run[70 * 100], got[200];
    int fd = plain_socket("127.0.0.1", &to);
    open_at(&a, "127.0.0.1", 0, 0);
    uint32_t gso = a.dp->capabilities & QG_CAP_GSO;
    fill_pattern(run, sizeof run, 0);
    for (int i = 0; i < 70; i++) {
        run[i * 100] = (uint8_t)i;
    }
    commit(&a, run, sizeof run, 100, &a.dp->local, &to);
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    int count = 0;
    while (recv(fd, got, sizeof got, 0) == 100) {
        CHECK_EQ(got[0], count++);
    }
    /* Newer systems cut up to 128. */
    CHECK(count == 70);
    CHECK(a.dp->capabilities == (a.dp->capabilities & ~gso) || a.counters.send_calls == 1);
    close(fd);
    shut(&a);
}

TEST(a_datagram_that_is_too_large_is_lost_alone) {
    opened a;
    qg_addr to;
    static uint8_t large[65508];
    uint8_t got[10];
    qg_unreachable errors[4];
    int fd = plain_socket("127.0.0.1", &to);
    open_at(&a, "127.0.0.1", 0, 0);
    commit(&a, "before", 6, 6, &a.dp->local, &to);
    commit(&a, large, sizeof large, sizeof large, &a.dp->local, &to);
    commit(&a, "after", 5, 5, &a.dp->local, &to);
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    CHECK_EQ(recv(fd, got, sizeof got, 0), 6);
    CHECK_EQ(recv(fd, got, sizeof got, 0), 5);
    CHECK_EQ(a.counters.send_errors, 1);
    CHECK_EQ(a.dp->ops->errors(a.dp, errors, 4), 0); /* path MTU discovery's everyday answer */
    close(fd);
    shut(&a);
}

/* The largest run there is: it must pass in both directions. */
TEST(the_largest_datagram) {
    opened a, b;
    qg_dgram got[8];
    static uint8_t large[QG_RUN_MAX];
    open_at(&a, "127.0.0.1", 0, 0);
    open_at(&b, "127.0.0.1", 0, 0);
    fill_pattern(large, sizeof large, 0);
    commit(&a, large, sizeof large, sizeof large, &a.dp->local, &b.dp->local);
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    CHECK_EQ(receive(&b, got, 8), 1);
    CHECK_BYTES(got[0].data, got[0].len, large, sizeof large);
    shut(&a);
    shut(&b);
}

TEST(more_runs_than_one_call_takes) {
    opened a, b;
    qg_dgram got[8];
    open_at(&a, "127.0.0.1", 0, 0);
    open_at(&b, "127.0.0.1", 0, 0);
    for (uint32_t i = 0; i < 1000; i++) {
        commit(&a, &i, sizeof i, sizeof i, &a.dp->local, &b.dp->local);
    }
    a.dp->ops->flush(a.dp);
    for (uint32_t i = 0; i < 1000;) {
        int n = receive(&b, got, 8);
        for (int k = 0; k < n; k++) {
            for (uint32_t at = 0; at < got[k].len; at += sizeof i, i++) { /* perhaps coalesced */
                CHECK_BYTES(got[k].data + at, sizeof i, &i, sizeof i);
            }
        }
    }
    CHECK(a.counters.send_calls <= 8);
    shut(&a);
    shut(&b);
}

/* A pair of local sockets is full after some datagrams, unlike UDP on the loopback device. */
static void open_pair(opened *o, int *other) {
    int fds[2], small = 10000;
    open_at(o, "127.0.0.1", 0, 0);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    CHECK_EQ(dup2(fds[0], o->dp->fd), o->dp->fd);
    close(fds[0]);
    *other = fds[1];
}

TEST(a_full_buffer_keeps_what_was_committed) {
    opened a;
    int other, got, blocked = 0;
    qg_addr nobody = {0}; /* the pair's other end */
    open_pair(&a, &other);
    for (int i = 0; i < 200; i++) {
        commit(&a, &i, sizeof i, sizeof i, &a.dp->local, &nobody);
    }
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_AGAIN);
    CHECK(a.dp->ops->begin(a.dp) == NULL);
    CHECK(a.counters.send_blocked > 0);
    int expected = 0, rc = QG_AGAIN;
    while (rc == QG_AGAIN || expected < 200) {
        while (recv(other, &got, sizeof got, 0) == sizeof got) {
            CHECK_EQ(got, expected++);
        }
        rc = a.dp->ops->flush(a.dp);
        CHECK(rc == QG_OK || a.dp->ops->begin(a.dp) == NULL);
        blocked++;
        CHECK(blocked < 1000);
    }
    CHECK_EQ(expected, 200);
    CHECK_EQ(a.counters.send_errors, 0);
    CHECK(a.dp->ops->begin(a.dp) != NULL);
    close(other);
    shut(&a);
}

TEST(a_full_buffer_stops_begin_before_the_array_overflows) {
    opened a;
    int other, i = 0;
    qg_addr nobody = {0};
    uint8_t *room;
    open_pair(&a, &other);
    while ((room = a.dp->ops->begin(a.dp)) != NULL) {
        memcpy(room, &i, sizeof i);
        a.dp->ops->commit(a.dp, sizeof i, sizeof i, &a.dp->local, &nobody);
        CHECK(++i < 2000);
    }
    CHECK(i >= 255); /* a room may take two runs */
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_AGAIN);
    close(other); /* then everything is refused, and lost */
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    CHECK(a.counters.send_errors > 0);
    shut(&a);
}

/* ---------------------------------------------------------------- errors */

static void check_refused(const char *ip) {
    opened a;
    qg_addr closed;
    qg_dgram got[8];
    qg_unreachable errors[4];
    int fd = plain_socket(ip, &closed), count = 0;
    close(fd);
    open_at(&a, ip, 0, 0);
    commit(&a, "x", 1, 1, &a.dp->local, &closed);
    a.dp->ops->flush(a.dp);
    struct pollfd p = {.fd = a.dp->fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 2000), 1);
    CHECK_EQ(a.dp->ops->receive(a.dp, got, 8), 0);
    CHECK(a.dp->errors_pending);
    count = a.dp->ops->errors(a.dp, errors, 4);
    CHECK_EQ(count, 1);
    CHECK_EQ(errors[0].error, ECONNREFUSED);
    CHECK(qg__addr_equal(&errors[0].to, &closed));
    CHECK_EQ(a.counters.icmp_errors, 1);
    CHECK(!a.dp->errors_pending);
    CHECK_EQ(a.dp->ops->errors(a.dp, errors, 4), 0);
    CHECK_EQ(poll(&p, 1, 0), 0);
    shut(&a);
}

/* A run and what did not fit it are two, and may be the last two. */
TEST(two_runs_of_one_room) {
    qg_counters counters = {0};
    int result = 0;
    qg_addr any, to;
    qg_addr_parse(&any, "127.0.0.1", 0);
    qg_addr_parse(&to, "127.0.0.1", 9);
    qg_datapath *dp = qg__udp_open(&any, 0, -1, &counters, &result);
    CHECK(dp != NULL);
    for (unsigned i = 0; i < 255; i++) { /* an odd number */
        CHECK(dp->ops->begin(dp) != NULL);
        dp->ops->commit(dp, 1, 1, &any, &to);
    }
    for (unsigned i = 0; i < 300; i++) {
        CHECK(dp->ops->begin(dp) != NULL);
        dp->ops->commit(dp, 1, 1, &any, &to);
        dp->ops->commit(dp, 2, 2, &any, &to);
    }
    CHECK_EQ(counters.datagrams_sent, 255 + 600);
    dp->ops->close(dp);
}

TEST(a_closed_port_is_reported) {
    check_refused("127.0.0.1");
    if (has_v6()) {
        check_refused("::1");
    }
}

TEST(an_error_does_not_stop_others_datagrams) {
    opened a;
    qg_addr closed, open;
    char got[4];
    int fd = plain_socket("127.0.0.1", &closed), other = plain_socket("127.0.0.1", &open);
    close(fd);
    open_at(&a, "127.0.0.1", 0, 0);
    for (int i = 0; i < 20; i++) {
        commit(&a, "x", 1, 1, &a.dp->local, i % 2 == 0 ? &closed : &open);
        CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    }
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(recv(other, got, sizeof got, 0), 1);
    }
    close(other);
    shut(&a);
}

/* A broadcast without leave is refused by the system itself: EACCES. */
TEST(what_the_system_refuses_is_reported) {
    opened a;
    qg_addr to;
    qg_unreachable errors[4];
    open_at(&a, "0.0.0.0", 0, 0);
    qg_addr_parse(&to, "255.255.255.255", 9);
    qg_addr from;
    qg_addr_parse(&from, "127.0.0.1", 0);
    commit(&a, "x", 1, 1, &from, &to);
    CHECK_EQ(a.dp->ops->flush(a.dp), QG_OK);
    CHECK(a.dp->errors_pending);
    CHECK_EQ(a.dp->ops->errors(a.dp, errors, 4), 1);
    CHECK_EQ(errors[0].error, EACCES);
    CHECK(qg__addr_equal(&errors[0].to, &to));
    CHECK_EQ(a.counters.send_errors, 1);
    shut(&a);
}

TEST(drops_of_the_system_are_counted) {
    opened a;
    qg_addr from;
    qg_dgram got[8];
    static uint8_t data[8000];
    int fd = plain_socket("127.0.0.1", &from), received = 0, n;
    open_at(&a, "127.0.0.1", 0, 0);
    for (int i = 0; i < 5000; i++) {
        sendto(fd, data, sizeof data, 0, (struct sockaddr *)(void *)a.dp->local.bytes,
               a.dp->local.len);
    }
    while ((n = a.dp->ops->receive(a.dp, got, 8)) > 0) {
        received += n;
    }
    plain_send(fd, "x", 1, &a.dp->local); /* the count comes with the next datagram */
    CHECK_EQ(receive(&a, got, 8), 1);
    CHECK(received < 5000);
    CHECK_EQ(a.counters.receive_overflows, 5000 - received);
    close(fd);
    shut(&a);
}

/* ---------------------------------------------------------------- addresses */

/* What comes to one of the host's addresses is answered from there. */
static void check_answer(opened *a, const char *bound, const char *target, const char *shown) {
    qg_addr client, to, from;
    qg_dgram got[8];
    char text[64];
    int fd = plain_socket(bound, &client);
    socklen_t len = sizeof from.bytes;
    qg_addr_parse(&to, target, port_of(a->dp));
    plain_send(fd, "ping", 4, &to);
    CHECK_EQ(receive(a, got, 8), 1);
    CHECK_EQ(qg_addr_format(&got[0].to, text, sizeof text), port_of(a->dp));
    CHECK_TEXT(text, strlen(text), shown);
    commit(a, "pong", 4, 4, &got[0].to, &got[0].from);
    CHECK_EQ(a->dp->ops->flush(a->dp), QG_OK);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 2000), 1);
    CHECK_EQ(recvfrom(fd, text, 4, 0, (struct sockaddr *)(void *)from.bytes, &len), 4);
    from.len = len;
    CHECK(qg__addr_equal(&from, &to));
    close(fd);
}

TEST(a_wildcard_socket_answers_from_the_address_that_was_asked) {
    opened a;
    open_at(&a, "0.0.0.0", 0, 0);
    CHECK(a.dp->wildcard);
    check_answer(&a, "127.0.0.1", "127.0.0.2", "127.0.0.2");
    check_answer(&a, "127.0.0.1", "127.0.0.1", "127.0.0.1");
    shut(&a);
}

TEST(the_same_over_ipv6_and_mapped_ipv4) {
    opened a;
    if (!has_v6()) {
        return;
    }
    open_at(&a, "::", 0, 0);
    CHECK(a.dp->wildcard);
    check_answer(&a, "::1", "::1", "::1");
    check_answer(&a, "127.0.0.1", "127.0.0.2", "::ffff:127.0.0.2");
    shut(&a);
}

TEST(v6only_leaves_the_port_of_ipv4_free) {
    opened a, b;
    if (!has_v6()) {
        return;
    }
    open_at(&a, "::", 0, QG_ENDPOINT_V6ONLY);
    open_at(&b, "0.0.0.0", port_of(a.dp), 0);
    shut(&a);
    shut(&b);
}

/* ---------------------------------------------------------------- opening */

TEST(what_cannot_be_bound) {
    opened a;
    qg_addr addr;
    int result = 0;
    open_at(&a, "127.0.0.1", 0, 0);
    CHECK(qg__udp_open(&a.dp->local, 0, -1, &a.counters, &result) == NULL);
    CHECK_EQ(result, QG_SYSTEM);
    CHECK_EQ(errno, EADDRINUSE);
    qg_addr_parse(&addr, "203.0.113.1", 0);
    CHECK(qg__udp_open(&addr, 0, -1, &a.counters, &result) == NULL);
    CHECK_EQ(errno, EADDRNOTAVAIL);
    addr = (qg_addr){0};
    CHECK(qg__udp_open(&addr, 0, -1, &a.counters, &result) == NULL);
    shut(&a);
}

TEST(a_bound_socket_is_taken_over) {
    qg_counters counters = {0};
    qg_addr addr;
    int result, fd = plain_socket("127.0.0.1", &addr);
    qg_datapath *dp = qg__udp_open(NULL, 0, fd, &counters, &result);
    CHECK(dp != NULL);
    CHECK_EQ(dp->fd, fd);
    CHECK(qg__addr_equal(&dp->local, &addr));
    CHECK(!dp->wildcard);
    dp->ops->close(dp);
    CHECK_EQ(fcntl(fd, F_GETFD), -1); /* it was the datapath's */
}

static void check_not_taken(int fd) {
    qg_counters counters = {0};
    int result = 0;
    CHECK(fd >= 0);
    CHECK(qg__udp_open(NULL, 0, fd, &counters, &result) == NULL);
    CHECK_EQ(result, QG_INVALID);
    CHECK_EQ(fcntl(fd, F_GETFD), -1); /* closed: it was given away */
}

TEST(what_is_no_bound_udp_socket_is_refused) {
    check_not_taken(eventfd(0, EFD_CLOEXEC));
    check_not_taken(socket(AF_INET, SOCK_STREAM, 0));
    check_not_taken(socket(AF_INET, SOCK_DGRAM, 0));
    check_not_taken(socket(AF_UNIX, SOCK_DGRAM, 0));
}

TEST(requests_over_real_sockets) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.udp = true;
    rig_start(&r, &o);
    exchange(&r, 1);
    uint64_t stream = open_request(&r, "POST", "/up", 0);
    const seen *e = await_event(&r, &r.server, QG_EVENT_REQUEST);
    flow up = {.from = &r.client,
               .to = &r.server,
               .from_conn = r.conn,
               .to_conn = r.server_conn,
               .stream = stream,
               .size = 3 << 20,
               .piece = 100000,
               .token = 50};
    flow_all(&r, &up);
    respond(&r.server, e, "200", NULL, 0, QG_FIN);
    CHECK_EQ(qg_stream_await_response(r.client.engine, r.conn, stream, 60, 0), QG_AGAIN);
    CHECK_EQ(await_token(&r, &r.client, 60)->event.status, 200);
    CHECK(r.client.counters.send_segmented > 0);
    rig_close(&r);
}
