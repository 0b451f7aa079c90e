#include <errno.h>
#include <sys/wait.h>

#include "datapath.h"
#include "random.h"
#include "wire.h"

#define PORT 4433

typedef struct scene {
    qg_datapath *dp;
    qg_counters counters;
    int far;
    char reason[256];
    int result;
} scene;

static qg_datapath *udp_at(scene *s, const char *ip, uint16_t port, uint32_t flags) {
    qg_addr addr;
    int result;
    CHECK_EQ(qg_addr_parse(&addr, ip, port), QG_OK);
    qg_datapath *udp = qg__udp_open(&addr, flags, -1, &s->counters, &result);
    CHECK(udp != NULL);
    return udp;
}

static bool set(scene *s, const char *ip) {
    *s = (scene){0};
    if (!wire_open(&s->far)) {
        return false;
    }
    qg_datapath *udp = udp_at(s, ip, PORT, 0);
    s->dp = qg__xdp_open(udp, "wire", s->reason, sizeof s->reason, &s->result);
    check_note("%s", s->reason);
    CHECK(s->dp != NULL);
    CHECK(s->dp->capabilities & QG_CAP_XDP);
    CHECK(s->dp->capabilities & QG_CAP_XDP_NATIVE);
    return true;
}

static void end(scene *s) {
    CHECK_EQ(s->counters.xdp_invalid, 0);
    s->dp->ops->close(s->dp);
    close(s->far);
}

/* Wait until there is something; receive it. */
static int receive(scene *s, qg_dgram *out, int max) {
    struct pollfd p = {.fd = s->dp->fd, .events = POLLIN};
    int n = 0;
    for (int tries = 0; n == 0; tries++) {
        CHECK(tries < 1000);
        CHECK_EQ(poll(&p, 1, 5000), 1);
        n = s->dp->ops->receive(s->dp, out, max);
    }
    return n;
}

static void commit(scene *s, const void *data, size_t len, size_t segment, const qg_addr *from,
                   const qg_addr *to) {
    uint8_t *room = s->dp->ops->begin(s->dp);
    CHECK(room != NULL);
    memcpy(room, data, len);
    s->dp->ops->commit(s->dp, len, segment, from, to);
}

static void check_far(scene *s, const void *data, size_t len) {
    uint8_t bytes[3000];
    qg_eth_frame f;
    CHECK(wire_receive(s->far, bytes, sizeof bytes, &f, 5000));
    CHECK_BYTES(f.payload, f.len, data, len);
    CHECK_BYTES(bytes, QG_MAC_LEN, far_mac, QG_MAC_LEN);
    CHECK_BYTES(f.mac, QG_MAC_LEN, wire_mac, QG_MAC_LEN);
}

/* A datagram, and an answer to it; neither passes the UDP socket. */
static void check_exchange(const char *bound, const char *from, const char *to,
                           const char *shown_from, const char *shown_to) {
    scene s;
    qg_dgram d[8];
    qg_addr a, b;
    if (!set(&s, bound)) {
        return;
    }
    wire_send(s.far, from, to, PORT, "ping", 4);
    CHECK_EQ(receive(&s, d, 8), 1);
    CHECK_TEXT(d[0].data, d[0].len, "ping");
    qg_addr_parse(&a, shown_from, 40000);
    qg_addr_parse(&b, shown_to, PORT);
    CHECK(qg__addr_equal(&d[0].from, &a));
    CHECK(qg__addr_equal(&d[0].to, &b));
    commit(&s, "pong", 4, 4, &d[0].to, &d[0].from);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    check_far(&s, "pong", 4);
    CHECK_EQ(s.counters.xdp_received, 1);
    CHECK_EQ(s.counters.xdp_sent, 1);
    CHECK_EQ(s.counters.datagrams_sent, 1);
    CHECK_EQ(s.counters.bytes_received, 4);
    CHECK_EQ(s.counters.receive_calls, 0); /* recvmmsg */
    end(&s);
}

TEST(a_datagram_and_its_answer) {
    check_exchange("0.0.0.0", FAR_IP, WIRE_IP, FAR_IP, WIRE_IP);
    check_exchange(WIRE_IP, FAR_IP, WIRE_IP, FAR_IP, WIRE_IP);
    check_exchange("::", FAR_IP, WIRE_IP, "::ffff:" FAR_IP, "::ffff:" WIRE_IP);
    check_exchange("::", FAR_IP6, WIRE_IP6, FAR_IP6, WIRE_IP6);
    check_exchange(WIRE_IP6, FAR_IP6, WIRE_IP6, FAR_IP6, WIRE_IP6);
}

/* As UDP_GRO gives them: equal ones, and a shorter one at the end. */
TEST(frames_of_one_sender_come_together) {
    scene s;
    qg_dgram d[8];
    uint8_t data[5000];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + i / 251);
    }
    for (int i = 0; i < 3; i++) {
        wire_send(s.far, FAR_IP, WIRE_IP, PORT, data + i * 1000, 1000);
    }
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, data + 3000, 400);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, data + 3400,
              1000); /* behind a shorter one: another run */
    wire_send(s.far, "10.96.0.3", WIRE_IP, PORT, data, 1000);
    usleep(50000);
    CHECK_EQ(receive(&s, d, 8), 3);
    CHECK_EQ(d[0].segment, 1000);
    CHECK_BYTES(d[0].data, d[0].len, data, 3400);
    CHECK_EQ(d[1].segment, 1000);
    CHECK_BYTES(d[1].data, d[1].len, data + 3400, 1000);
    CHECK_BYTES(d[2].data, d[2].len, data, 1000);
    CHECK(!qg__addr_equal(&d[2].from, &d[1].from));
    for (int i = 0; i < 20; i++) { /* more senders than records: the rest waits */
        char ip[20];
        snprintf(ip, sizeof ip, "10.96.0.%d", 10 + i);
        wire_send(s.far, ip, WIRE_IP, PORT, &i, sizeof i);
    }
    usleep(50000);
    int seen = 0;
    while (seen < 20) {
        int n = receive(&s, d, 5);
        CHECK(n <= 5);
        for (int i = 0; i < n; i++, seen++) {
            CHECK_BYTES(d[i].data, d[i].len, &seen, sizeof seen);
        }
    }
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "", 0); /* nothing at all is a datagram too */
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "", 0);
    usleep(50000);
    CHECK_EQ(receive(&s, d, 8), 2);
    CHECK_EQ(d[0].len + d[1].len, 0);
    end(&s);
}

/* Two runs of one room, and a datagram that is larger than the interface carries: the UDP socket has that one, and
 * says what it says. */
TEST(runs_are_cut_into_frames) {
    scene s;
    qg_dgram d[8];
    uint8_t data[QG_RUN_MAX];
    uint64_t state = 3;
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    random_bytes(&state, data, sizeof data);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    qg_addr from = d[0].to, to = d[0].from;
    uint8_t *room = s.dp->ops->begin(s.dp);
    memcpy(room, data, 30000);
    s.dp->ops->commit(s.dp, 20 * 1200 + 7, 1200, &from, &to);
    s.dp->ops->commit(s.dp, 1300, 1300, &from, &to);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    for (int i = 0; i < 20; i++) {
        check_far(&s, data + i * 1200, 1200);
    }
    check_far(&s, data + 24000, 7);
    check_far(&s, data + 24007, 1300);
    CHECK_EQ(s.counters.xdp_sent, 22);
    commit(&s, data, 1473, 1473, &from, &to);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    CHECK_EQ(s.counters.xdp_sent, 22);
    CHECK_EQ(s.counters.send_errors, 1); /* EMSGSIZE */
    commit(&s, data, 1472, 1472, &from, &to);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    check_far(&s, data, 1472);
    end(&s);
}

/* In one room: by frames, by the socket, by frames. Each gets its own bytes. */
TEST(whoever_is_not_known_is_sent_to_by_the_socket) {
    scene s;
    qg_dgram d[8];
    qg_addr stranger;
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    wire_run("ip neighbour add 10.96.0.3 lladdr 02:00:00:00:00:02 dev wire nud permanent");
    qg_addr_parse(&stranger, "10.96.0.3", 40000);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    qg_addr from = d[0].to, to = d[0].from;
    uint8_t *room = s.dp->ops->begin(s.dp);
    memcpy(room, "onetwothree", 11);
    s.dp->ops->commit(s.dp, 3, 3, &from, &to);
    s.dp->ops->commit(s.dp, 3, 3, &from, &stranger);
    s.dp->ops->commit(s.dp, 5, 5, &from, &to);
    commit(&s, "four", 4, 4, &from, &stranger);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    CHECK_EQ(s.counters.xdp_sent, 2);
    CHECK_EQ(s.counters.datagrams_sent, 4);
    check_far(&s, "one", 3); /* frames are flushed first */
    check_far(&s, "three", 5);
    check_far(&s, "two", 3);
    check_far(&s, "four", 4);
    end(&s);
}

TEST(more_than_the_rings_take_is_sent) {
    scene s;
    qg_dgram d[8];
    static uint8_t run[64 * 1000];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    qg_addr from = d[0].to, to = d[0].from;
    for (int i = 0; i < 200; i++) {
        commit(&s, run, sizeof run, 1000, &from, &to);
    }
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    CHECK_EQ(s.counters.xdp_sent, 200 * 64);
    CHECK_EQ(s.counters.send_errors, 0);
    end(&s);
}

/* What is not a whole datagram of ours: nothing of it comes, and what is ours still does. */
TEST(bad_frames_do_no_harm) {
    scene s;
    qg_dgram d[8];
    uint8_t good[60], bad[2000];
    uint64_t state = 77;
    if (!set(&s, "::")) {
        return;
    }
    size_t n = wire_frame(good, sizeof good, FAR_IP, 40000, WIRE_IP, PORT, "hello", 5);
    int said = 0;
    for (int i = 0; i < 20000; i++) {
        size_t len = random_below(&state, 20) == 0 ? 14 + random_below(&state, 1500) : n;
        random_bytes(&state, bad, sizeof bad);
        memcpy(bad, good, random_below(&state, 10) == 0 ? 38 : n);
        bad[38 + random_below(&state, 9)] ^= 1; /* UDP's length, its checksum, or the payload */
        CHECK_EQ(send(s.far, bad, len, 0), len);
        said += s.dp->ops->receive(s.dp, d, 8);
    }
    wire_send(s.far, FAR_IP6, WIRE_IP6, PORT, "after", 5);
    do {
        said += receive(&s, d, 8);
    } while (d[0].len != 5);
    CHECK_TEXT(d[0].data, d[0].len, "after");
    CHECK_EQ(said, 1);
    CHECK_EQ(s.counters.xdp_received, 1);
    CHECK(s.counters.xdp_bad_frames > 15000);
    end(&s);
}

/* Nobody on the wire has it: whoever on this host uses it would be answered there. */
TEST(frames_from_our_own_address) {
    scene s;
    qg_dgram d[8];
    if (!set(&s, "::")) {
        return;
    }
    wire_send(s.far, WIRE_IP, WIRE_IP, PORT, "forged", 6);
    wire_send(s.far, WIRE_IP6, WIRE_IP6, PORT, "forged", 6);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "good", 4);
    int n = receive(&s, d, 8);
    CHECK_TEXT(d[n - 1].data, d[n - 1].len, "good");
    CHECK_EQ(n, 1);
    CHECK_EQ(s.counters.xdp_bad_frames, 2);
    end(&s);
}

/* By loopback: through the socket. */
TEST(what_comes_another_way_comes) {
    scene s;
    qg_dgram d[8];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    CHECK_EQ(inet_pton(AF_INET, "127.0.0.1", &to.sin_addr), 1);
    CHECK_EQ(sendto(fd, "inside", 6, 0, (struct sockaddr *)&to, sizeof to), 6);
    CHECK_EQ(receive(&s, d, 8), 1);
    CHECK_TEXT(d[0].data, d[0].len, "inside");
    CHECK_EQ(s.counters.xdp_received, 0);
    commit(&s, "back", 4, 4, &d[0].to, &d[0].from);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    char got[10];
    CHECK_EQ(recv(fd, got, sizeof got, 0), 4);
    CHECK_EQ(s.counters.xdp_sent, 0);
    for (int i = 0; i < 20;
         i++) { /* and it is not kept waiting by as many as a receive can tell of */
        char ip[20];
        snprintf(ip, sizeof ip, "10.96.0.%d", 10 + i);
        wire_send(s.far, ip, WIRE_IP, PORT, &i, sizeof i);
    }
    CHECK_EQ(sendto(fd, "inside", 6, 0, (struct sockaddr *)&to, sizeof to), 6);
    usleep(50000);
    CHECK_EQ(receive(&s, d, 8), 8);
    CHECK_TEXT(d[7].data, d[7].len, "inside");
    int seen = 7;
    while (seen < 20) {
        int n = receive(&s, d, 8);
        CHECK_BYTES(d[0].data, d[0].len, &seen, sizeof seen);
        seen += n;
    }
    close(fd);
    end(&s);
}

TEST(an_interface_that_goes_down_and_comes_again) {
    scene s;
    qg_dgram d[8];
    qg_unreachable errors[4];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    qg_addr from = d[0].to, to = d[0].from;
    wire_run("ip link set wire down");
    for (int i = 0; i < 10000; i++) { /* more than rings take */
        uint8_t *room = s.dp->ops->begin(s.dp);
        CHECK(room != NULL);
        memcpy(room, "lost", 4);
        s.dp->ops->commit(s.dp, 4, 4, &from, &to);
        CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    }
    CHECK(s.counters.xdp_sent < 10);
    CHECK(s.counters.send_errors > 9000); /* no route */
    CHECK(s.dp->ops->errors(s.dp, errors, 4) > 0);
    wire_run("ip link set wire up");
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "y", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    uint64_t before = s.counters.xdp_sent;
    commit(&s, "again", 5, 5, &from, &to);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    commit(&s, "again", 5, 5, &from, &to);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    CHECK(s.counters.xdp_sent > before);
    end(&s);
}

TEST(an_interface_that_is_removed) {
    scene s;
    qg_dgram d[8];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "x", 1);
    CHECK_EQ(receive(&s, d, 8), 1);
    wire_run("ip link delete wire");
    struct pollfd p = {.fd = s.dp->fd, .events = POLLIN};
    for (int i = 0; i < 3; i++) { /* it is told once, and then there is rest */
        poll(&p, 1, 100);
        s.dp->ops->receive(s.dp, d, 8);
        usleep(1000);
    }
    CHECK_EQ(poll(&p, 1, 100), 0);
    commit(&s, "y", 1, 1, &d[0].to, &d[0].from);
    s.dp->ops->flush(s.dp);
    CHECK(!s.dp->blocked);
    end(&s);
}

/* A bridge has no XDP of its own. A datagram whose checksum is to be completed, which may be several, comes by
 * the socket there. */
TEST(behind_the_driver) {
    scene s = {0};
    qg_dgram d[8];
    uint8_t frame[100];
    if (!wire_open(&s.far)) {
        return;
    }
    wire_run("ip link add bridge address 02:00:00:00:00:01 type bridge");
    wire_run("ip address flush dev wire && ip link set wire master bridge");
    wire_run("ip address add " WIRE_IP "/24 dev bridge && ip link set bridge up");
    qg_datapath *udp = udp_at(&s, "0.0.0.0", PORT, 0);
    s.dp = qg__xdp_open(udp, "bridge", s.reason, sizeof s.reason, &s.result);
    check_note("%s", s.reason);
    CHECK(s.dp != NULL);
    CHECK(s.dp->capabilities & QG_CAP_XDP);
    CHECK(!(s.dp->capabilities & QG_CAP_XDP_NATIVE));
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "ping", 4);
    CHECK_EQ(receive(&s, d, 8), 1);
    CHECK_TEXT(d[0].data, d[0].len, "ping");
    CHECK_EQ(s.counters.xdp_received, 1);
    commit(&s, "pong", 4, 4, &d[0].to, &d[0].from);
    CHECK_EQ(s.dp->ops->flush(s.dp), QG_OK);
    check_far(&s, "pong", 4);
    CHECK_EQ(s.counters.xdp_sent, 1);
    size_t n = wire_frame(frame, sizeof frame, FAR_IP, 40000, WIRE_IP, PORT, "late", 4);
    uint32_t sum = 17 + qg__get16(frame + 38);
    for (size_t at = 26; at < 34; at += 2) {
        sum += qg__get16(frame + at);
    }
    qg__put16(frame + 40, (uint16_t)((sum & 0xffff) + (sum >> 16)));
    CHECK_EQ(send(s.far, frame, n, 0), n);
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "more", 4);
    CHECK_EQ(receive(&s, d, 8), 1); /* the system refuses this one: nobody has completed it */
    CHECK_TEXT(d[0].data, d[0].len, "more");
    CHECK_EQ(s.counters.xdp_received, 2);
    end(&s);
}

TEST(the_socket_is_given_back) {
    scene s;
    qg_dgram d[8];
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    s.dp = qg__xdp_give_back(s.dp);
    CHECK(!(s.dp->capabilities & QG_CAP_XDP));
    wire_send(s.far, FAR_IP, WIRE_IP, PORT, "by UDP", 6);
    CHECK_EQ(receive(&s, d, 8), 1);
    CHECK_TEXT(d[0].data, d[0].len, "by UDP");
    CHECK_EQ(s.counters.xdp_received, 0);
    end(&s);
}

/* ---------------------------------------------------------------- what cannot be had */

static void check_reason(scene *s, const char *ip, const char *interface, int result,
                         const char *reason) {
    qg_datapath *udp = udp_at(s, ip, 0, 0);
    qg_datapath *dp = qg__xdp_open(udp, interface, s->reason, sizeof s->reason, &s->result);
    CHECK(dp == NULL);
    check_note("%s: %s", interface, s->reason);
    CHECK_EQ(s->result, result);
    CHECK(strstr(s->reason, reason) != NULL);
    udp->ops->close(udp); /* which it left alone */
}

TEST(reasons_for_anybody) {
    scene s = {0};
    check_reason(&s, "0.0.0.0", "nowhere0", QG_INVALID, "there is no such interface");
    check_reason(&s, "0.0.0.0", "", QG_INVALID, "there is no such interface");
    check_reason(&s, "0.0.0.0", "a-name-that-is-longer-than-any", QG_INVALID, "no such interface");
    check_reason(&s, "127.0.0.1", "lo", QG_INVALID, "loopback");
}

static int as_nobody(void) {
    scene s = {0};
    if (setgid(65534) != 0 || setuid(65534) != 0) {
        return 2;
    }
    qg_datapath *udp = udp_at(&s, "0.0.0.0", 0, 0);
    qg_datapath *dp = qg__xdp_open(udp, "wire", s.reason, sizeof s.reason, &s.result);
    fprintf(stderr, "%s\n", s.reason);
    bool good = dp == NULL && s.result == QG_SYSTEM &&
                strstr(s.reason, "not permitted: it needs CAP_NET_RAW") != NULL;
    udp->ops->close(udp);
    return good ? 0 : 1;
}

TEST(reasons_of_the_system) {
    scene s;
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    check_reason(&s, "0.0.0.0", "wire", QG_AGAIN, "somebody else has it");
    check_reason(&s, "127.0.0.1", "wire", QG_INVALID, "no address that is served here");
    wire_run("ip link add tunnel type ipip local 10.96.0.1 remote 10.96.0.2 2>/dev/null || "
             "ip tuntap add tunnel mode tun");
    wire_run("ip address add 10.95.0.1/24 dev tunnel");
    check_reason(&s, "0.0.0.0", "tunnel", QG_INVALID, "not Ethernet's");
    end(&s);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(as_nobody());
    }
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

/* A child has it all too, until it says that it does not want it: then it ends with us. */
TEST(a_forked_child_holds_nothing) {
    scene s;
    if (!set(&s, "0.0.0.0")) {
        return;
    }
    int gate[2];
    CHECK_EQ(pipe(gate), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char byte;
        close(gate[1]);
        s.dp->ops->abandon(s.dp);
        s.dp->ops->close(s.dp);
        _exit(read(gate[0], &byte, 1) == 0 ? 0 : 1); /* lives until the parent is done */
    }
    close(gate[0]);
    usleep(100000);
    end(&s);
    qg_datapath *udp = udp_at(&s, "0.0.0.0", PORT, 0), *dp = NULL;
    for (int tries = 0; dp == NULL; tries++) { /* the system takes a moment */
        dp = qg__xdp_open(udp, "wire", s.reason, sizeof s.reason, &s.result);
        check_note("%s", s.reason);
        CHECK(dp != NULL || (s.result == QG_AGAIN && tries < 500));
        usleep(10000);
    }
    dp->ops->close(dp);
    close(gate[1]);
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(WEXITSTATUS(status), 0);
}
