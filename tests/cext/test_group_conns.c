#include <errno.h>
#include <sys/socket.h>

#include "harness.h"
#include "victims.h"

#define SLOT 2

static qg_group *make(uint32_t connections) {
    qg_group_options o;
    char problem[256];
    int rc;
    qg_group_defaults(&o);
    o.slots = 4;
    o.connections = connections;
    qg_group *g = qg_group_new(&o, &rc, problem, sizeof problem);
    CHECK(g != NULL);
    return g;
}

static uint32_t listed(const qg_group *g) {
    qg_worker_info info;
    CHECK_EQ(qg_group_worker(g, SLOT, &info), QG_OK);
    return info.connections;
}

/* ---------------------------------------------------------------- a worker and its client */

/* A server that is worker SLOT of a group, over sockets. */
static qg_group *open_worker(rig *r, rig_options *o, uint32_t connections) {
    qg_group *g = make(connections);
    uint32_t generation;
    CHECK_EQ(qg_group_claim(g, SLOT, (uint32_t)getpid(), &generation), SLOT);
    o->udp = true;
    o->server_engine.group = g;
    o->server_engine.slot = SLOT;
    o->server_engine.generation = (uint8_t)generation;
    rig_open(r, o);
    CHECK_EQ(qg_group_set_state(g, SLOT, generation, QG_WORKER_ACCEPTING), QG_OK);
    return g;
}

/* The socket of the port that clients know, as whoever forked the worker has it. */
static int socket_of(const rig *r) {
    qg_endpoint_info info;
    CHECK_EQ(qg_endpoint_info_of(r->server.engine, r->server.endpoint, &info), QG_OK);
    return info.fd;
}

/* The worker is gone: it takes no more turns. Its peer is told, with nothing sent by itself. */
static void die_and_tell(rig *r, qg_group *g, int resets) {
    int fd = socket_of(r);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), 0); /* it lives */
    CHECK(listed(g) > 0);
    CHECK_EQ(qg_group_set_state(g, SLOT, 1, QG_WORKER_DEAD), QG_OK);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), resets);
    CHECK_EQ(listed(g), 0);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), 0);
    uint64_t until_ns = qg__now_ns() + PATIENCE_NS;
    const seen *e;
    while ((e = take_event(&r->client, QG_EVENT_CLOSED)) == NULL) {
        CHECK(qg__now_ns() < until_ns);
        wakes_within(r->client.engine, 10);
        side_turn(&r->client);
    }
    CHECK_EQ(e->event.conn, r->conn);
    CHECK_EQ(e->event.flags & QG_LOST, QG_LOST);
}

TEST(a_peer_that_is_idle_is_told_of_the_death) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    qg_group *g = open_worker(&r, &o, 100);
    CHECK_EQ(listed(g), 0);
    rig_connect(&r);
    UNTIL(&r, conn_at(&r.server, r.server_conn)->cid_count == 2);
    CHECK_EQ(listed(g), 1);
    die_and_tell(&r, g, 2); /* one for each id */
    rig_close(&r);
    qg_group_free(g);
}

TEST(the_id_of_a_retry_is_listed) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.listen.retry = QG_RETRY_ALWAYS;
    qg_group *g = open_worker(&r, &o, 100);
    rig_connect(&r);
    qg_conn *conn = conn_at(&r.server, r.server_conn);
    const group_conn *entry = &g->conns[SLOT * 100 + qg__conn_slot(r.server_conn)];
    UNTIL(&r, conn->cid_count > 0);
    CHECK_EQ(entry->cid_count, 1u + conn->cid_count);
    CHECK_BYTES(entry->cids[0], QG_CID_LEN, conn->initial_cid, conn->initial_cid_len);
    CHECK_BYTES(entry->cids[1], QG_CID_LEN, conn->cids[0], QG_CID_LEN);
    die_and_tell(&r, g, (int)entry->cid_count);
    rig_close(&r);
    qg_group_free(g);
}

TEST(who_closes_is_listed_no_more) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    qg_group *g = open_worker(&r, &o, 100);
    for (int i = 0; i < 5; i++) {
        rig_connect(&r);
        CHECK_EQ(listed(g), 1);
        qg_conn_close(i % 2 ? r.client.engine : r.server.engine, i % 2 ? r.conn : r.server_conn, 1,
                      H3_NO_ERROR, NULL, 0);
        await_event(&r, &r.client, QG_EVENT_CLOSED);
        UNTIL(&r, listed(g) == 0);
    }
    rig_connect(&r);
    CHECK_EQ(listed(g), 1);
    rig_close(&r); /* the engine's end is theirs */
    CHECK_EQ(listed(g), 0);
    qg_group_free(g);
}

TEST(more_than_the_list_takes_are_counted) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    qg_group *g = open_worker(&r, &o, 2);
    for (int i = 0; i < 5; i++) {
        rig_connect(&r);
    }
    CHECK_EQ(listed(g), 2);
    CHECK_EQ(r.server.counters.connections_unlisted, 3);
    rig_close(&r);
    qg_group_free(g);
}

/* ---------------------------------------------------------------- many, and by whom else */

/* Everything about connection `id` follows from it. */
static void address_of(uint32_t id, qg_addr *peer, qg_addr *local) {
    CHECK_EQ(qg_addr_parse(peer, "127.0.0.1", (uint16_t)(10000 + id % 50000)), QG_OK);
    CHECK_EQ(qg_addr_parse(local, "127.0.0.1", (uint16_t)(5000 + id % 5000)), QG_OK);
}

static uint32_t cids_of(uint32_t id, uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN]) {
    for (uint32_t i = 0; i < QG_LISTED_CIDS; i++) {
        memset(cids[i], (int)(id + i), QG_CID_LEN);
        qg__put32(cids[i], id);
    }
    return 1 + id % QG_LISTED_CIDS;
}

static void list(qg_group *g, uint32_t place, uint32_t id) {
    qg_addr peer, local;
    uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN];
    address_of(id, &peer, &local);
    uint32_t count = cids_of(id, cids);
    CHECK(qg__group_list(g, SLOT, place, &peer, &local, (const uint8_t(*)[QG_CID_LEN])cids, count));
}

static void check_entry(const qg_group *g, uint32_t place) {
    const group_conn *c = &g->conns[(size_t)SLOT * g->header->connections + place];
    qg_addr peer, local;
    uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN];
    if (c->listed == 0) {
        return;
    }
    uint32_t id = qg__get32(c->cids[0]);
    address_of(id, &peer, &local);
    CHECK(qg__addr_equal(&c->peer, &peer) && qg__addr_equal(&c->local, &local));
    CHECK_EQ(c->cid_count, cids_of(id, cids));
    CHECK_BYTES(c->cids, c->cid_count * QG_CID_LEN, cids, c->cid_count * QG_CID_LEN);
    CHECK(g->slots[SLOT].top > place);
}

static int bound_socket(qg_addr *at) {
    qg_addr_parse(at, "127.0.0.1", 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)(void *)at->bytes, at->len), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)(void *)at->bytes, &at->len), 0);
    return fd;
}

TEST(a_long_list_is_told_piece_by_piece) {
    qg_group *g = make(4000);
    qg_addr peer, from;
    int here = bound_socket(&peer), fd = bound_socket(&from);
    uint8_t cids[QG_LISTED_CIDS][QG_CID_LEN], token[QG_RESET_TOKEN], got[100];
    qg_keys *keys = qg_group_keys(g);
    int total = 0, received = 0;
    for (uint32_t place = 0; place < 2000; place++) {
        memset(cids[0], 0, QG_CID_LEN);
        qg__put32(cids[0], place);
        CHECK(qg__group_list(g, SLOT, place, &peer, &from, (const uint8_t(*)[QG_CID_LEN])cids, 1));
    }
    qg__group_unlist(g, SLOT, 1500);
    g->slots[SLOT].life = QG_WORKER_DEAD;
    uint32_t place = 2000;
    for (int n; (n = qg_group_reset(g, SLOT, fd)) != 0;) {
        CHECK(n == QG_AGAIN || (n > 0 && n <= 1024 + 64));
        total += n > 0 ? n : 0;
        for (ssize_t len; (len = recv(here, got, sizeof got, 0)) > 0; received++) {
            do { /* from the end on; some find no room in the buffer of `here` */
                CHECK(place > 0);
                qg__put32(cids[0], --place);
                qg__reset_token(keys, cids[0], QG_CID_LEN, token);
            } while (memcmp(got + len - QG_RESET_TOKEN, token, sizeof token) != 0);
            CHECK(place != 1500);
            CHECK_EQ(got[0] & 0xc0, 0x40);
        }
    }
    CHECK_EQ(total, 1999);
    CHECK(received > 300);
    CHECK_EQ(listed(g), 0);
    CHECK_EQ(qg_group_reset(g, 4, fd), QG_INVALID);
    g->slots[SLOT].top = 1;
    CHECK_EQ(qg_group_reset(g, SLOT, -1), QG_SYSTEM);
    CHECK_EQ(errno, EBADF);
    qg_keys_free(keys);
    close(here);
    close(fd);
    qg_group_free(g);
}

/* Whoever claims the slot of one that died finds its list, and his own connections are not in it. */
TEST(the_next_life_tells_the_peers_of_the_last) {
    qg_group *g = make(100);
    qg_addr peer, from;
    int here = bound_socket(&peer), fd = bound_socket(&from);
    uint8_t cids[10][QG_CID_LEN], got[100];
    uint32_t generation;
    for (uint32_t place = 0; place < 10; place++) {
        if (place == 0 || place == 5) {
            CHECK_EQ(qg_group_claim(g, SLOT, 1, &generation), SLOT);
        }
        qg__cid_write((qg_cid_origin){(uint16_t)g->header->host_id, SLOT, (uint8_t)generation},
                      place, cids[place]);
        CHECK(qg__group_list(g, SLOT, place, &peer, &from,
                             (const uint8_t(*)[QG_CID_LEN])cids[place], 1));
        if (place == 4) {
            CHECK_EQ(qg_group_set_state(g, SLOT, generation, QG_WORKER_DEAD), QG_OK);
        }
    }
    CHECK_EQ(listed(g), 10);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), 5);
    CHECK_EQ(listed(g), 5);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), 0);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(recv(here, got, sizeof got, 0), 43);
    }
    CHECK(recv(here, got, sizeof got, 0) < 0);
    CHECK_EQ(qg_group_set_state(g, SLOT, generation, QG_WORKER_DEAD), QG_OK);
    CHECK_EQ(qg_group_reset(g, SLOT, fd), 5);
    close(here);
    close(fd);
    qg_group_free(g);
}

/* Whoever reads a dead slot's socket. */
TEST(packets_for_the_dead_are_answered) {
    qg_group *g = make(1);
    qg_keys *keys = qg_group_keys(g);
    uint8_t packet[1200] = {0x40}, out[64], token[QG_RESET_TOKEN];
    qg_cid_origin origin = {(uint16_t)g->header->host_id, SLOT, 1};
    uint32_t generation;
    qg__cid_write(origin, 7, packet + 1);
    qg__reset_token(keys, packet + 1, QG_CID_LEN, token);
    CHECK_EQ(qg_group_answer(g, packet, 100, out), 43); /* no such life */
    CHECK_BYTES(out + 43 - QG_RESET_TOKEN, QG_RESET_TOKEN, token, sizeof token);
    CHECK_EQ(qg_group_answer(g, packet, 22, out), 21);
    CHECK_EQ(qg_group_answer(g, packet, 21, out), 0);
    CHECK_EQ(qg_group_answer(g, packet, 0, out), 0);
    CHECK_EQ(qg_group_claim(g, SLOT, 1, &generation), SLOT);
    for (uint32_t state = QG_WORKER_STARTING; state <= QG_WORKER_DRAINING; state++) {
        qg_group_set_state(g, SLOT, generation, state);
        CHECK_EQ(qg_group_answer(g, packet, 100, out), 0); /* a live one is not ended by others */
    }
    qg_group_set_state(g, SLOT, generation, QG_WORKER_DEAD);
    CHECK_EQ(qg_group_answer(g, packet, 100, out), 43);
    CHECK_EQ(qg_group_claim(g, SLOT, 1, &generation), SLOT);
    CHECK_EQ(qg_group_answer(g, packet, 100, out), 43); /* of the life before */
    packet[2] ^= 1;
    CHECK_EQ(qg_group_answer(g, packet, 100, out), 0); /* another host's */
    packet[2] ^= 1;
    packet[0] = 0xe0; /* a long header, with the id elsewhere */
    CHECK_EQ(qg_group_answer(g, packet, 100, out), 0);
    packet[5] = QG_CID_LEN;
    qg__cid_write(origin, 7, packet + 6);
    CHECK_EQ(qg_group_answer(g, packet, 1200, out), 43);
    qg_keys_free(keys);
    qg_group_free(g);
}

/* ---------------------------------------------------------------- dying on the way */

static int list_once(void *g) {
    list(g, 5, 105);
    qg__group_unlist(g, SLOT, 5);
    list(g, 9, 109);
    list(g, 5, 205);
    return 0;
}

TEST(what_was_half_written_is_not_listed) {
    alarm(PATIENCE_S);
    uint64_t steps = 0;
    for (int status = SIGKILL; status == SIGKILL;) {
        qg_group *g = make(10);
        list(g, 5, 5);
        status = wait_for(start_victim(list_once, g, ++steps, SIGKILL), 0);
        check_note("step %u", (unsigned)steps);
        CHECK(status == SIGKILL || status == 0);
        for (uint32_t place = 0; place < 10; place++) {
            check_entry(g, place);
        }
        CHECK(listed(g) <= 2);
        CHECK(listed(g) == 2 || status == SIGKILL);
        qg_group_free(g);
    }
    CHECK(steps > 20);
}

static int list_for_ever(void *g) {
    uint64_t state = (uint64_t)getpid() + 1;
    for (uint32_t n = 1;; n = (n + 1) % 4096) {
        uint32_t place = (uint32_t)random_below(&state, 64);
        if (random_below(&state, 3) == 0) {
            qg__group_unlist(g, SLOT, place);
        } else {
            list(g, place, (uint32_t)random_next(&state));
        }
        if (n == 0) {
            usleep(20);
        }
    }
    return 0;
}

TEST(a_worker_killed_a_thousand_times_at_random) {
    alarm(PATIENCE_S);
    qg_group *g = make(64);
    uint64_t state = 17;
    uint32_t most = 0;
    for (unsigned round = 0; round < 1000; round++) {
        pid_t pid = start_victim(list_for_ever, g, 0, 0);
        usleep((useconds_t)random_below(&state, 1500));
        kill(pid, SIGKILL);
        CHECK_EQ(wait_for(pid, 0), SIGKILL);
        check_note("round %u", round);
        for (uint32_t place = 0; place < 64; place++) {
            check_entry(g, place);
        }
        most = listed(g) > most ? listed(g) : most;
    }
    CHECK(most > 30);
    qg_group_free(g);
}
