#include "check.h"
#include "group.h"
#include "random.h"
#include "victims.h"

#include <errno.h>
#include <stdio.h>

uint64_t victim_step;
int victim_signal;

void qg__group_step(void) {
    if (victim_step > 0 && --victim_step == 0) {
        kill(getpid(), victim_signal);
    }
}

static char problem[256];

static qg_group *make(const qg_group_options *o) {
    int rc;
    qg_group *g = qg_group_new(o, &rc, problem, sizeof problem);
    CHECK(g != NULL);
    CHECK_EQ(rc, QG_OK);
    return g;
}

static qg_group *small(void) {
    qg_group_options o;
    qg_group_defaults(&o);
    o.slots = 4;
    o.connections = 8;
    o.early_data_capacity = 16;
    return make(&o);
}

static qg_worker_info worker(const qg_group *g, uint32_t slot) {
    qg_worker_info info;
    CHECK_EQ(qg_group_worker(g, slot, &info), QG_OK);
    return info;
}

TEST(options_out_of_range_are_named) {
    qg_group_options o;
    int rc;
#define REFUSED(field, value, word)                                                                \
    qg_group_defaults(&o);                                                                         \
    o.field = (value);                                                                             \
    CHECK(qg_group_new(&o, &rc, problem, sizeof problem) == NULL);                                 \
    CHECK_EQ(rc, QG_INVALID);                                                                      \
    CHECK(strstr(problem, word) != NULL)
    REFUSED(abi, QG_ABI + 1, "version");
    REFUSED(slots, 0, "slots");
    REFUSED(slots, 256, "slots");
    REFUSED(connections, 0, "connections");
    REFUSED(connections, (1 << 20) + 1, "connections");
    REFUSED(early_data_capacity, 0, "register");
    REFUSED(early_data_capacity, (1 << 24) + 1, "register");
    REFUSED(key_period_s, 0, "period");
    REFUSED(key_window, 0, "window");
    REFUSED(key_window, 65, "window");
    REFUSED(host_id, 65536, "host");
}

TEST(the_largest_group_costs_nothing_until_it_is_used) {
    qg_group_options o;
    qg_group_info info;
    qg_group_defaults(&o);
    o.slots = QG_GROUP_SLOTS_MAX;
    o.connections = 1 << 20;
    o.host_id = 7;
    qg_group *g = make(&o);
    qg_group_info_of(g, &info);
    CHECK(info.size > UINT64_C(255) * 128 << 20);
    CHECK_EQ(info.slots, 255);
    CHECK_EQ(info.connections, 1 << 20);
    CHECK_EQ(info.host_id, 7);
    CHECK_EQ(info.key_period_s, 3600);
    CHECK_EQ(info.key_window, 25);
    qg_group_free(g);
    qg_group_free(NULL);
}

TEST(two_groups_have_other_hosts_and_secrets) {
    qg_group *a = small(), *b = small();
    qg_group_info of_a, of_b;
    qg_group_info_of(a, &of_a);
    for (int tries = 0; tries < 4; tries++) { /* of 65536 two may be the same */
        qg_group_info_of(b, &of_b);
        if (of_a.host_id != of_b.host_id) {
            break;
        }
        qg_group_free(b);
        b = small();
    }
    CHECK(of_a.host_id != of_b.host_id);
    CHECK(memcmp(a->secrets->replay_secret, b->secrets->replay_secret, 32) != 0);
    CHECK(memcmp(&a->secrets->reset, &b->secrets->reset, sizeof(qg_key)) != 0);
    qg_group_free(a);
    qg_group_free(b);
}

TEST(a_slot_is_claimed_by_one_and_has_a_life_at_a_time) {
    qg_group *g = small();
    uint32_t me = (uint32_t)getpid(), generation, seen = 0;
    for (int i = 0; i < 4; i++) {
        int slot = qg_group_claim(g, -1, me, &generation);
        CHECK_EQ(slot, i);
        CHECK_EQ(generation, 1);
        CHECK_EQ(worker(g, (uint32_t)slot).state, QG_WORKER_STARTING);
        CHECK_EQ(worker(g, (uint32_t)slot).pid, me);
        seen |= 1u << slot;
    }
    CHECK_EQ(seen, 15);
    CHECK_EQ(qg_group_claim(g, -1, me, &generation), QG_LIMIT);
    CHECK_EQ(qg_group_claim(g, 2, me, &generation), QG_STATE);
    CHECK_EQ(qg_group_claim(g, 4, me, &generation), QG_INVALID);
    CHECK_EQ(qg_group_claim(g, -2, me, &generation), QG_INVALID);
    CHECK_EQ(qg_group_claim(g, 2, 0, &generation), QG_INVALID);
    CHECK_EQ(qg_group_claim(g, 2, UINT32_MAX, &generation), QG_INVALID); /* kill(-1, ...) */
    CHECK_EQ(qg_group_set_state(g, 2, 1, QG_WORKER_ACCEPTING), QG_OK);
    CHECK_EQ(worker(g, 2).state, QG_WORKER_ACCEPTING);
    CHECK_EQ(qg_group_set_state(g, 2, 1, QG_WORKER_FREE), QG_OK);
    CHECK_EQ(qg_group_claim(g, -1, me, &generation), 2);
    CHECK_EQ(generation, 2);
    /* What is left of the earlier life has no say. */
    CHECK_EQ(qg_group_set_state(g, 2, 1, QG_WORKER_FREE), QG_GONE);
    CHECK_EQ(qg_group_beat(g, 2, 1), QG_GONE);
    CHECK_EQ(qg_group_beat(g, 2, 2), QG_OK);
    CHECK_EQ(qg_group_set_state(g, 4, 1, QG_WORKER_FREE), QG_INVALID);
    CHECK_EQ(qg_group_set_state(g, 2, 2, QG_WORKER_DEAD + 1), QG_INVALID);
    CHECK_EQ(qg_group_beat(g, 4, 1), QG_INVALID);
    qg_worker_info info;
    CHECK_EQ(qg_group_worker(g, 4, &info), QG_INVALID);
    CHECK(qg_group_counters(g, 4) == NULL);
    qg_group_free(g);
}

TEST(generations_begin_anew_after_256_lives) {
    qg_group *g = small();
    uint32_t generation = 0;
    for (int i = 1; i <= 600; i++) {
        CHECK_EQ(qg_group_claim(g, 0, 1, &generation), 0);
        CHECK_EQ(generation, i % 256);
        CHECK_EQ(qg_group_set_state(g, 0, generation, QG_WORKER_DEAD), QG_OK);
    }
    qg_group_free(g);
}

static int claim_all(void *g) {
    uint32_t generation;
    for (int i = 0; i < 4; i++) {
        qg_group_claim(g, -1, (uint32_t)getpid(), &generation);
    }
    return 0;
}

TEST(the_slot_of_a_process_that_is_gone_can_be_claimed) {
    qg_group *g = small();
    uint32_t generation;
    pid_t pid = start_victim(claim_all, g, 0, 0);
    CHECK_EQ(wait_for(pid, 0), 0);
    CHECK_EQ(worker(g, 3).pid, pid);
    CHECK_EQ(qg_group_claim(g, 1, (uint32_t)getpid(), &generation), QG_STATE);
    CHECK_EQ(qg_group_set_state(g, 1, 1, QG_WORKER_FREE), QG_OK);
    CHECK_EQ(qg_group_claim(g, 1, (uint32_t)getpid(), &generation), 1);
    uint8_t dead[QG_GROUP_SLOTS_MAX];
    CHECK_EQ(qg_group_bury(g, dead), 3);
    CHECK_BYTES(dead, 3, "\0\2\3", 3);
    CHECK_EQ(worker(g, 0).state, QG_WORKER_DEAD);
    CHECK_EQ(worker(g, 1).state, QG_WORKER_STARTING); /* a live one's */
    CHECK_EQ(qg_group_bury(g, dead), 3);
    for (uint32_t slot = 0; slot < 4; slot++) {
        qg_group_set_state(g, slot, worker(g, slot).generation, QG_WORKER_DRAINING);
    }
    CHECK_EQ(qg_group_claim(g, -1, (uint32_t)getpid(), &generation), 0); /* of those in doubt */
    CHECK_EQ(generation, 2);
    qg_group_set_state(g, 2, 1, QG_WORKER_DEAD);
    CHECK_EQ(qg_group_claim(g, -1, (uint32_t)getpid(), &generation), 2); /* before those in doubt */
    qg_group_set_state(g, 3, 1, QG_WORKER_FREE);
    CHECK_EQ(qg_group_claim(g, -1, (uint32_t)getpid(), &generation), 3);
    qg_group_free(g);
}

TEST(also_of_one_that_nobody_has_waited_for) {
    qg_group *g = small();
    uint32_t generation;
    uint8_t dead[QG_GROUP_SLOTS_MAX];
    siginfo_t info;
    pid_t pid = start_victim(claim_all, g, 0, 0);
    CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    CHECK_EQ(qg_group_bury(g, dead), 4);
    CHECK_EQ(qg_group_claim(g, -1, (uint32_t)getpid(), &generation), 0);
    CHECK_EQ(qg_group_bury(g, dead), 3);
    CHECK_BYTES(dead, 3, "\1\2\3", 3);
    CHECK_EQ(wait_for(pid, 0), 0);
    qg_group_free(g);
}

TEST(heartbeats) {
    qg_group *g = small();
    uint32_t generation;
    uint64_t before = qg__now_ns();
    CHECK_EQ(qg_group_claim(g, 0, 1, &generation), 0);
    qg_worker_info first = worker(g, 0);
    CHECK(first.claimed_ns >= before && first.heartbeat_ns == first.claimed_ns);
    usleep(1000);
    CHECK_EQ(qg_group_beat(g, 0, generation), QG_OK);
    CHECK(worker(g, 0).heartbeat_ns > first.heartbeat_ns);
    CHECK_EQ(worker(g, 0).claimed_ns, first.claimed_ns);
    qg_group_free(g);
}

static int claim_and_leave(void *arg) {
    qg_group *g = arg;
    uint32_t generation;
    int slot = qg_group_claim(g, 0, (uint32_t)getpid(), &generation);
    if (slot != 0 || qg_group_set_state(g, 0, generation, QG_WORKER_ACCEPTING) != QG_OK ||
        qg_group_set_state(g, 0, generation, QG_WORKER_FREE) != QG_OK) {
        return 1;
    }
    return 0;
}

/* Whatever it died of, the next life begins with nothing of the last one. */
TEST(a_worker_killed_at_each_store_of_its_claim) {
    alarm(PATIENCE_S);
    qg_group *g = small();
    uint64_t steps = 0;
    for (int status = SIGKILL; status == SIGKILL;) {
        g->slots[0].counters.drains = 7;
        status = wait_for(start_victim(claim_and_leave, g, ++steps, SIGKILL), 0);
        check_note("step %u", (unsigned)steps);
        CHECK(status == SIGKILL || status == 0);
        uint32_t generation, dead = worker(g, 0).generation;
        if (status == SIGKILL && worker(g, 0).state != QG_WORKER_FREE) {
            CHECK_EQ(qg_group_set_state(g, 0, dead, QG_WORKER_DEAD), QG_OK);
        }
        CHECK_EQ(qg_group_claim(g, 0, (uint32_t)getpid(), &generation), 0);
        CHECK_EQ(generation, (dead + 1) & 0xff);
        CHECK_EQ(qg_group_counters(g, 0)->drains, 0);
        CHECK_EQ(qg_group_set_state(g, 0, generation, QG_WORKER_FREE), QG_OK);
    }
    CHECK(steps >= 5);
    qg_group_free(g);
}

#define PROCESSES 8

typedef struct contest {
    qg_group *group;
    _Atomic uint32_t *owner; /* of each slot */
} contest;

/* Have a slot, for a moment, again and again: nobody else has it meanwhile. */
static int claim_for_ever(void *arg) {
    contest *c = arg;
    uint32_t me = (uint32_t)getpid(), generation;
    for (;;) {
        int slot = qg_group_claim(c->group, -1, me, &generation);
        if (slot == QG_LIMIT) {
            usleep(50);
            continue;
        }
        uint32_t before = atomic_exchange(&c->owner[slot], me);
        if (before != 0 && before != me && kill((pid_t)before, 0) == 0) {
            return 3;
        }
        qg_group_set_state(c->group, (uint32_t)slot, generation, QG_WORKER_ACCEPTING);
        usleep(20);
        if (!atomic_compare_exchange_strong(&c->owner[slot], &me, 0)) {
            return 4;
        }
        if (qg_group_set_state(c->group, (uint32_t)slot, generation, QG_WORKER_FREE) != QG_OK) {
            return 5;
        }
    }
    return 0;
}

TEST(eight_processes_and_a_thousand_kills_leave_a_slot_to_one_at_a_time) {
    alarm(PATIENCE_S);
    contest c = {small(), shared_memory(4096)};
    pid_t pids[PROCESSES];
    uint64_t state = 23;
    for (int i = 0; i < 1000 + PROCESSES; i++) {
        size_t at = i < PROCESSES ? (size_t)i : random_below(&state, PROCESSES);
        if (i >= PROCESSES) {
            kill(pids[at], SIGKILL);
            CHECK_EQ(wait_for(pids[at], 0), SIGKILL);
        }
        pids[at] = start_victim(claim_for_ever, &c, 0, 0);
        usleep((useconds_t)random_below(&state, 300));
    }
    for (int i = 0; i < PROCESSES; i++) {
        kill(pids[i], SIGKILL);
        CHECK_EQ(wait_for(pids[i], 0), SIGKILL);
    }
    uint32_t generation;
    uint8_t dead[QG_GROUP_SLOTS_MAX];
    qg_group_bury(c.group, dead);
    for (int i = 0; i < 4; i++) { /* none is lost */
        CHECK(qg_group_claim(c.group, -1, (uint32_t)getpid(), &generation) >= 0);
    }
    munmap(c.owner, 4096);
    qg_group_free(c.group);
}

/* ---------------------------------------------------------------- in a file */

static char path[96];

static qg_group *open_file(uint32_t slots, int *rc) {
    qg_group_options o;
    qg_group_defaults(&o);
    o.slots = slots;
    o.connections = 8;
    o.early_data_capacity = 16;
    problem[0] = '\0';
    return qg_group_open(path, &o, rc, problem, sizeof problem);
}

static int claim_in_file(void *arg) {
    int rc;
    uint32_t generation;
    qg_group *g = open_file(*(uint32_t *)arg, &rc);
    return g != NULL ? 1 + qg_group_claim(g, -1, (uint32_t)getpid(), &generation) : 99;
}

TEST(processes_that_do_not_know_each_other_share_a_file) {
    int rc;
    qg_group_info info;
    snprintf(path, sizeof path, "/dev/shm/quicgreen-test-%d", getpid());
    unlink(path);
    qg_group *a = open_file(4, &rc), *b = open_file(7, &rc);
    CHECK(a != NULL && b != NULL && a->header != b->header);
    qg_group_info_of(b, &info);
    CHECK_EQ(info.slots, 4);           /* as who came first made it */
    for (uint32_t i = 0; i < 5; i++) { /* a free slot, and then one whose process is gone */
        pid_t pid = start_victim(claim_in_file, &(uint32_t){i + 1}, 0, 0);
        CHECK_EQ(WEXITSTATUS(wait_for(pid, 0)), 1 + i % 4);
    }
    CHECK_EQ(worker(a, 0).generation, 2);
    qg_keys *ours = qg_group_keys(a), *theirs = qg_group_keys(b);
    qg_key key, found;
    qg_keys_rotate(ours, qg__wall_s() + 100 * 3600);
    qg_keys_current(ours, QG_KEY_TICKET, &key);
    CHECK_EQ(qg_keys_find(theirs, QG_KEY_TICKET, key.name, &found), 0);
    CHECK_BYTES(key.secret, sizeof key.secret, found.secret, sizeof found.secret);
    qg_replay *one = qg_group_replay(a), *two = qg_group_replay(b);
    uint8_t random[32] = {1};
    CHECK(qg__replay_first(one, random));
    CHECK(!qg__replay_first(two, random));
    qg_replay_free(one);
    qg_replay_free(two);
    qg_keys_free(ours);
    qg_keys_free(theirs);
    qg_group_free(a);
    qg_group_free(b);
    CHECK_EQ(unlink(path), 0);
}

TEST(files_that_are_not_of_a_group_are_refused) {
    static const struct {
        size_t at;
        const char *text;
    } spoiled[] = {{0, "not a segment of a group"},
                   {offsetof(group_header, version), "another version"},
                   {offsetof(group_header, connection_bytes), "another version"},
                   {offsetof(group_header, secrets_bytes), "another version"},
                   {offsetof(group_header, slots), "damaged"},
                   {offsetof(group_header, connections), "damaged"},
                   {offsetof(group_header, replay_entries), "damaged"},
                   {offsetof(group_header, key_window), "damaged"},
                   {offsetof(group_header, size) + 6, "truncated"},
                   {offsetof(group_header, boot), "before the system was last started"}};
    int rc;
    snprintf(path, sizeof path, "/dev/shm/quicgreen-test-%d", getpid());
    for (size_t i = 0; i < sizeof spoiled / sizeof *spoiled; i++) {
        unlink(path);
        qg_group *g = open_file(4, &rc);
        CHECK(g != NULL);
        ((uint8_t *)g->header)[spoiled[i].at] ^= 0x41;
        qg_group_free(g);
        check_note("byte %zu", spoiled[i].at);
        CHECK(open_file(4, &rc) == NULL);
        CHECK_EQ(rc, QG_STATE);
        check_note("byte %zu: %s", spoiled[i].at, problem);
        CHECK(strstr(problem, spoiled[i].text) != NULL);
    }
    CHECK_EQ(unlink(path), 0);
    CHECK(open_file(0, &rc) == NULL);
    CHECK_EQ(rc, QG_INVALID);
    snprintf(path, sizeof path, "/dev/shm/no-such-folder/group");
    CHECK(open_file(4, &rc) == NULL);
    CHECK_EQ(rc, QG_SYSTEM);
    CHECK_EQ(errno, ENOENT);
}
