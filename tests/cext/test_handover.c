#include "handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "harness.h"
#include "victims.h"

/* Two workers of a group behind one address. Packets of `right`'s client come to `wrong`. */
#define RIGHT 2
#define WRONG 1

static qg_group *group;
static rig right, wrong;
static unsigned misled; /* packets */

static void open_rig(rig *r, uint8_t slot, const rig_options *options) {
    rig_options o = *options;
    uint32_t generation;
    CHECK_EQ(qg_group_claim(group, slot, (uint32_t)getpid(), &generation), slot);
    o.server_engine.group = group;
    o.server_engine.slot = slot;
    o.server_engine.generation = (uint8_t)generation;
    rig_open(r, &o);
    CHECK_EQ(qg_group_set_state(group, slot, generation, QG_WORKER_ACCEPTING), QG_OK);
}

static void open_workers(const rig_options *options) {
    qg_group_options go;
    rig_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&go);
    go.slots = 4;
    go.connections = 16;
    group = qg_group_new(&go, &rc, problem, sizeof problem);
    CHECK(group != NULL);
    rig_defaults(&o);
    o = options != NULL ? *options : o;
    open_rig(&right, RIGHT, &o);
    open_rig(&wrong, WRONG, &o);
    misled = 0;
}

static void close_workers(void) {
    rig_close(&right);
    rig_close(&wrong);
    qg_group_free(group);
}

static void inject(const void *data, size_t len) {
    uint8_t *copy = malloc(len); /* exact, for the sanitizer */
    memcpy(copy, data, len);
    CHECK_EQ(qg_engine_inject(wrong.server.engine, wrong.server.endpoint, copy, len,
                              &right.client_addr, &right.server_addr),
             QG_OK);
    free(copy);
}

static bool mislead(void *arg, uint8_t *data, size_t len) {
    (void)arg;
    misled++;
    inject(data, len);
    side_turn(&wrong.server);
    return false;
}

static void mislead_client(void) {
    qg__pair_set_filter(datapath_of(&right.client), mislead, NULL);
}

/* What `wrong` sends, counted. */
static unsigned said;
static uint8_t last_said[1500];

static bool count_said(void *arg, uint8_t *data, size_t len) {
    (void)arg;
    said++;
    memcpy(last_said, data, qg__min(len, sizeof last_said));
    return false;
}

static void listen_to_wrong(void) {
    said = 0;
    qg__pair_set_filter(datapath_of(&wrong.server), count_said, NULL);
}

/* A short packet for a connection of this life of a slot. */
static size_t short_packet(uint8_t *out, uint8_t slot, uint8_t generation) {
    memset(out, 0x77, 60);
    out[0] = 0x40;
    qg__cid_write((qg_cid_origin){(uint16_t)group->header->host_id, slot, generation}, 5, out + 1);
    return 60;
}

/* ---------------------------------------------------------------- the right worker gets them */

TEST(a_connection_goes_on_by_way_of_the_wrong_worker) {
    open_workers(NULL);
    rig_connect(&right);
    pass_ms(&right, 5);
    mislead_client();
    for (uint64_t token = 1; token <= 20; token++) {
        exchange(&right, token);
    }
    CHECK(misled >= 20);
    CHECK_EQ(wrong.server.counters.handed_over, misled);
    CHECK_EQ(right.server.counters.handed_in, misled);
    CHECK_EQ(wrong.server.counters.handed_over_lost, 0);
    CHECK_EQ(wrong.server.counters.resets_sent, 0);
    CHECK_EQ(right.server.counters.unknown_connection_ids, 0);
    close_workers();
}

/* From its first answer on: the client's later Initials and its Handshake packets have long headers. */
static bool mislead_later(void *arg, uint8_t *data, size_t len) {
    return right.server.counters.connections_accepted == 0 || mislead(arg, data, len);
}

static void check_handshake(uint32_t retry) {
    rig_options o;
    rig_defaults(&o);
    o.listen.retry = retry;
    open_workers(&o);
    qg__pair_set_filter(datapath_of(&right.client), mislead_later, NULL);
    rig_connect(&right);
    exchange(&right, 1);
    CHECK(misled > 2);
    CHECK_EQ(right.server.counters.handed_in, misled);
    CHECK_EQ(wrong.server.counters.connections_accepted, 0);
    close_workers();
}

TEST(a_handshake_is_completed_that_way) {
    check_handshake(QG_RETRY_NEVER);
    check_handshake(QG_RETRY_ALWAYS); /* whose id has no place in the table */
}

/* More messages than wait in a socket: what finds no room waits here, and is woken for. */
TEST(a_worker_that_is_busy_gets_them_later) {
    uint8_t packet[60];
    open_workers(NULL);
    for (unsigned i = 0; i < 400; i++) {
        inject(packet, short_packet(packet, RIGHT, 1));
        side_turn(&wrong.server);
    }
    uint64_t sent = wrong.server.counters.handed_over;
    CHECK(sent < 400);
    CHECK_EQ(wrong.server.engine->handover.out_count, 400 - sent);
    side_turn(&right.server);
    CHECK(wakes_within(wrong.server.engine, 1000));
    side_turn(&wrong.server);
    CHECK_EQ(wrong.server.counters.handed_over, 400);
    while (right.server.counters.handed_in < 400) {
        side_turn(&right.server);
    }
    for (unsigned i = 0; i < 2000; i++) { /* and no more than one message's worth waits */
        inject(packet, short_packet(packet, RIGHT, 1));
        side_turn(&wrong.server);
    }
    CHECK(wrong.server.counters.handed_over_lost > 0);
    close_workers();
}

TEST(a_large_body_is_handed_over) {
    static uint8_t body[300000];
    open_workers(NULL);
    rig_connect(&right);
    mislead_client();
    uint64_t stream = open_request(&right, "POST", "/large", 0), code;
    size_t sent = 0, received = 0;
    const seen *e = await_event(&right, &right.server, QG_EVENT_REQUEST);
    uint64_t conn = e->event.conn, id = e->event.stream;
    received += e->event.body_len;
    uint64_t until_ns = qg__now_ns() + 4 * PATIENCE_NS;
    for (uint32_t flags = 0; (flags & QG_FIN) == 0;) {
        CHECK(qg__now_ns() < until_ns);
        if (sent < sizeof body) {
            int64_t n = qg_stream_write(right.client.engine, right.conn, stream, body + sent,
                                        sizeof body - sent, QG_FIN, 0, 0, &code);
            CHECK(n >= 0 || n == QG_AGAIN);
            sent += n > 0 ? (size_t)n : 0;
        }
        breathe(&right);
        uint8_t got[20000];
        int64_t n =
            qg_stream_read(right.server.engine, conn, id, got, sizeof got, 0, 0, &flags, &code);
        CHECK(n >= 0 || n == QG_AGAIN);
        received += n > 0 ? (size_t)n : 0;
    }
    CHECK_EQ(received, sizeof body);
    UNTIL(&right, (side_turn(&wrong.server), wrong.server.counters.handed_over == misled));
    CHECK_EQ(wrong.server.counters.handed_over_lost, 0);
    CHECK(misled > 200);
    close_workers();
}

/* ---------------------------------------------------------------- what is forged does no harm */

TEST(only_those_who_live_are_sent_anything) {
    uint8_t packet[60];
    open_workers(NULL);
    listen_to_wrong();
    for (unsigned slot = 0; slot < 256; slot++) {
        for (uint8_t generation = 0; generation < 3; generation++) {
            if (slot != RIGHT || generation != 1) {
                inject(packet, short_packet(packet, (uint8_t)slot, generation));
            }
        }
    }
    side_turn(&wrong.server);
    CHECK_EQ(wrong.server.counters.handed_over + wrong.server.counters.handed_over_lost, 0);
    CHECK_EQ(wrong.server.counters.resets_sent, said); /* rationed, as for any stranger */
    CHECK(said >= 100 && said <= 120);
    CHECK_EQ(right.server.counters.handed_in, 0);
    close_workers();
}

TEST(a_live_worker_s_connection_is_not_reset_by_another) {
    uint8_t packet[60];
    open_workers(NULL);
    listen_to_wrong();
    for (unsigned i = 0; i < 100; i++) {
        inject(packet, short_packet(packet, RIGHT, 1));
    }
    side_turn(&wrong.server);
    CHECK_EQ(said, 0);
    CHECK_EQ(wrong.server.counters.handed_over, 100);
    side_turn(&right.server); /* it has no such connections, and says so by itself */
    CHECK_EQ(right.server.counters.handed_in, 100);
    CHECK_EQ(right.server.counters.resets_sent, 100);
    CHECK_EQ(right.server.counters.handed_over, 0);
    close_workers();
}

TEST(packets_are_rationed) {
    uint8_t packet[60];
    open_workers(NULL);
    uint64_t begin = qg__now_ns();
    for (unsigned i = 0; i < 30000; i++) {
        inject(packet, short_packet(packet, RIGHT, 1));
    }
    side_turn(&wrong.server);
    uint64_t allowed = 10000 + (qg__now_ns() - begin) / 10000 + 1;
    const qg_counters *c = &wrong.server.counters;
    CHECK_EQ(c->handed_over + c->handed_over_lost + wrong.server.engine->handover.out_count, 30000);
    CHECK(c->handed_over < allowed);
    CHECK(c->handed_over > 100);
    while (right.server.counters.handed_in < c->handed_over) {
        side_turn(&right.server);
    }
    close_workers();
}

/* What was handed over once stays there: here two who take each other for the right one. */
TEST(nothing_is_handed_on) {
    uint8_t packet[60];
    open_workers(NULL);
    size_t len = short_packet(packet, RIGHT, 1);
    right.server.engine->cids.origin.slot = 0; /* which it is not */
    inject(packet, len);
    side_turn(&wrong.server);
    side_turn(&right.server);
    side_turn(&wrong.server);
    CHECK_EQ(wrong.server.counters.handed_over, 1);
    CHECK_EQ(right.server.counters.handed_in, 1);
    CHECK_EQ(right.server.counters.handed_over, 0);
    CHECK_EQ(right.server.counters.handed_over_lost, 1);
    CHECK_EQ(right.server.counters.resets_sent, 0);
    close_workers();
}

/* ---------------------------------------------------------------- from whom, and what */

static int send_to(uint32_t slot, const void *data, size_t len) {
    uint64_t name = group->slots[slot].local_socket & 0xfffff;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path + 1, 6, "%05x", (unsigned)name);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    ssize_t n = sendto(fd, data, len, 0, (struct sockaddr *)&to,
                       offsetof(struct sockaddr_un, sun_path) + 6);
    close(fd);
    return n == (ssize_t)len ? 0 : errno;
}

/* A message of one record that is well formed. */
static size_t message(uint8_t *out) {
    qg__put32(out, 60);
    memcpy(out + 4, &right.client_addr, sizeof(qg_addr));
    memcpy(out + 4 + sizeof(qg_addr), &right.server_addr, sizeof(qg_addr));
    return 4 + 2 * sizeof(qg_addr) + short_packet(out + 4 + 2 * sizeof(qg_addr), RIGHT, 1);
}

static int send_as_nobody(void *arg) {
    uint8_t data[200];
    (void)arg;
    if (setuid(65534) != 0) {
        return 9;
    }
    return send_to(RIGHT, data, message(data));
}

TEST(another_user_s_messages_are_not_read) {
    uint8_t data[200];
    open_workers(NULL);
    if (geteuid() == 0) { /* else there is no other user to be had */
        CHECK_EQ(wait_for(start_victim(send_as_nobody, NULL, 0, 0), 0), 0);
        side_turn(&right.server);
        CHECK_EQ(right.server.counters.handed_in, 0);
    }
    CHECK_EQ(send_to(RIGHT, data, message(data)), 0);
    CHECK(wakes_within(right.server.engine, 1000));
    side_turn(&right.server);
    CHECK_EQ(right.server.counters.handed_in, 1);
    CHECK_EQ(right.server.counters.unknown_connection_ids, 1);
    close_workers();
}

TEST(messages_of_any_content) {
    uint8_t data[3000];
    uint64_t state = 77;
    open_workers(NULL);
    for (unsigned i = 0; i < 3000; i++) {
        size_t len = 1 + random_below(&state, sizeof data - 1);
        random_bytes(&state, data, sizeof data);
        size_t whole = message(data);
        if (i % 3 == 0) { /* one field is wrong */
            data[random_below(&state, 4 + 2 * sizeof(qg_addr))] ^= (uint8_t)(1u << i % 8);
        } else if (i % 3 == 1) {
            memmove(data + whole, data, whole); /* a good one, and something after it */
        } else {
            random_bytes(&state, data, len);
        }
        CHECK_EQ(send_to(RIGHT, data, len), 0);
        side_turn(&right.server);
    }
    uint64_t before = right.server.counters.handed_in;
    CHECK_EQ(send_to(RIGHT, data, message(data)), 0);
    side_turn(&right.server);
    CHECK_EQ(right.server.counters.handed_in, before + 1);
    CHECK_EQ(right.server.counters.connections, 0);
    close_workers();
}

/* ---------------------------------------------------------------- the dead */

/* Its process is gone, and nobody has noticed: whoever has a packet for it does, and tells all its peers. */
TEST(who_finds_a_worker_dead_tells_its_peers) {
    open_workers(NULL);
    for (int i = 0; i < 3; i++) {
        rig_connect(&right);
    }
    pass_ms(&right, 5);
    qg_worker_info info;
    qg_group_worker(group, RIGHT, &info);
    CHECK_EQ(info.connections, 3);
    close(right.server.engine->handover.fd); /* as the system does at its end */
    right.server.engine->handover.fd = -1;
    listen_to_wrong();
    uint8_t packet[60];
    inject(packet, short_packet(packet, RIGHT, 1));
    side_turn(&wrong.server);
    qg_group_worker(group, RIGHT, &info);
    CHECK_EQ(info.state, QG_WORKER_DEAD);
    CHECK_EQ(info.connections, 0);
    CHECK_EQ(said, 6); /* two ids each */
    CHECK_EQ(wrong.server.counters.handed_over_lost, 1);
    inject(packet, short_packet(packet, RIGHT, 1)); /* and from now on an answer */
    side_turn(&wrong.server);
    CHECK_EQ(said, 7);
    CHECK_EQ(wrong.server.counters.resets_sent, 1);
    close_workers();
}

/* The end of a client's handshake, which its worker did not get to see. */
TEST(a_handshake_with_the_dead_is_ended) {
    uint8_t packet[100] = {0xe0, 0, 0, 0, 1, QG_CID_LEN};
    open_workers(NULL);
    listen_to_wrong();
    qg_cid_origin origin = {(uint16_t)group->header->host_id, RIGHT, 1};
    qg__cid_write(origin, 5, packet + 6);
    inject(packet, sizeof packet);
    side_turn(&wrong.server);
    CHECK_EQ(said, 0); /* it lives */
    CHECK_EQ(wrong.server.counters.handed_over, 1);
    qg_group_set_state(group, RIGHT, 1, QG_WORKER_DEAD);
    inject(packet, sizeof packet);
    side_turn(&wrong.server);
    uint8_t token[QG_RESET_TOKEN];
    qg__reset_token(wrong.server.engine->keys, packet + 6, QG_CID_LEN, token);
    CHECK_EQ(said, 1);
    CHECK_BYTES(last_said + 43 - QG_RESET_TOKEN, QG_RESET_TOKEN, token, sizeof token);
    close_workers();
}

/* ---------------------------------------------------------------- who leaves */

TEST(a_worker_that_leaves_passes_newcomers_on) {
    open_workers(NULL);
    qg_group_set_state(group, WRONG, 1, QG_WORKER_DRAINING);
    CHECK_EQ(qg_listen_stop(wrong.server.engine, wrong.server.endpoint, 0), QG_OK);
    mislead_client();
    rig_connect(&right); /* whose first packet comes to one that has stopped */
    exchange(&right, 1);
    CHECK_EQ(wrong.server.counters.connections_accepted, 0);
    CHECK_EQ(right.server.counters.connections_accepted, 1);
    CHECK_EQ(right.server.counters.handed_in, misled);
    close_workers();
}

TEST(without_anybody_who_accepts_newcomers_are_refused) {
    open_workers(NULL);
    qg_group_set_state(group, WRONG, 1, QG_WORKER_DRAINING);
    qg_group_set_state(group, RIGHT, 1, QG_WORKER_DRAINING);
    qg_listen_stop(wrong.server.engine, wrong.server.endpoint, 0);
    mislead_client();
    rig_dial(&right);
    pass_ms(&right, 20);
    CHECK_EQ(wrong.server.counters.connections_refused, misled);
    CHECK_EQ(wrong.server.counters.handed_over, 0);
    close_workers();
}

/* Its packets come to who sent the Retry, and to nobody else. */
TEST(who_was_sent_a_retry_is_let_in_by_a_worker_that_leaves) {
    rig_options o;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    open_workers(&o);
    rig_dial(&right);
    side_turn(&right.client);
    side_turn(&right.server);
    CHECK(right.server.counters.retries_sent > 0);
    qg_group_set_state(group, RIGHT, 1, QG_WORKER_DRAINING);
    CHECK_EQ(qg_listen_stop(right.server.engine, right.server.endpoint, 0), QG_OK);
    side_turn(&right.server);
    CHECK_EQ(count_events(&right.server, QG_EVENT_IDLE), 0); /* it waits for them */
    await_event(&right, &right.client, QG_EVENT_CONNECTED);
    await_event(&right, &right.client, QG_EVENT_GOAWAY);
    CHECK_EQ(right.server.counters.connections_accepted, 1);
    right.server.engine->endpoints[right.server.endpoint]->stopped_ns -= 11 * QG_NS_PER_S;
    rig_dial(&right); /* later than any token is good for: another one would do */
    pass_ms(&right, 20);
    CHECK_EQ(right.server.counters.connections_accepted, 1);
    close_workers();
}

/* But not for long, and not when it is told to close. */
TEST(who_does_not_come_back_after_a_retry_is_not_waited_for) {
    rig_options o;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    for (int closed = 0; closed < 2; closed++) {
        open_workers(&o);
        rig_dial(&right);
        side_turn(&right.client);
        side_turn(&right.server);
        uint64_t retries = right.server.counters.retries_sent;
        CHECK(retries > 0);
        uint64_t begin = qg__now_ns();
        CHECK_EQ(qg_listen_stop(right.server.engine, right.server.endpoint, 0), QG_OK);
        if (closed) {
            CHECK_EQ(qg_listen_close(right.server.engine, right.server.endpoint, H3_NO_ERROR),
                     QG_OK);
        }
        for (side_turn(&right.server); take_event(&right.server, QG_EVENT_IDLE) == NULL;) {
            CHECK(wakes_within(right.server.engine, 5000) || closed);
            side_turn(&right.server);
        }
        CHECK_EQ(qg__now_ns() - begin > QG_NS_PER_S / 2, !closed);
        CHECK_EQ(right.server.counters.retries_sent, retries);
        close_workers();
    }
}

TEST(a_forked_child_leaves_the_socket_to_its_parent) {
    open_workers(NULL);
    uint64_t name = group->slots[RIGHT].local_socket;
    CHECK(name != 0);
    pid_t pid = fork();
    if (pid == 0) {
        qg_engine_abandon(right.server.engine);
        qg_engine_free(right.server.engine);
        _exit(0);
    }
    CHECK_EQ(wait_for(pid, 0), 0);
    CHECK_EQ(group->slots[RIGHT].local_socket, name);
    uint8_t data[200];
    CHECK_EQ(send_to(RIGHT, data, message(data)), 0);
    side_turn(&right.server);
    CHECK_EQ(right.server.counters.handed_in, 1);
    close_workers();
}
