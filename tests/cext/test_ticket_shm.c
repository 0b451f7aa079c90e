#include "check.h"
#include "random.h"
#include "ticket_shm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOW     1000u
#define LATER   (NOW + 100)
#define KEYS    6
#define WRITERS 8
#define EACH    125000

/* Those with many processes take a second or two when the machine does nothing else. */
#define PATIENCE_S 120

static char path[64], problem[256];
static uint8_t buffer[QG_TICKET_MAX];
static uint8_t key_a[16] = "key a", key_b[16] = "key b";

static qg_ticket_shm *open_it(uint64_t size) {
    int rc;
    qg_ticket_shm *shm = qg_ticket_shm_open(path, size, &rc, problem, sizeof problem);
    CHECK(shm != NULL);
    return shm;
}

static qg_ticket_shm *begin(uint64_t size) {
    snprintf(path, sizeof path, "/dev/shm/quicgreen-test-%d", getpid());
    unlink(path);
    return open_it(size);
}

static void end(qg_ticket_shm *shm) {
    qg_ticket_shm_close(shm);
    CHECK_EQ(unlink(path), 0);
}

static uint32_t live(qg_ticket_shm *shm) {
    qg_ticket_shm_info info;
    CHECK_EQ(qg_ticket_shm_info_of(shm, &info), QG_OK);
    return info.tickets;
}

static uint32_t slots(qg_ticket_shm *shm) {
    qg_ticket_shm_info info;
    CHECK_EQ(qg_ticket_shm_info_of(shm, &info), QG_OK);
    return info.slots;
}

static int put(qg_ticket_shm *shm, const uint8_t *key, const char *ticket) {
    return qg_ticket_shm_put(shm, key, (const uint8_t *)ticket, strlen(ticket), NOW, LATER, NOW);
}

static int get(qg_ticket_shm *shm, const uint8_t *key) {
    return qg_ticket_shm_get(shm, key, NOW, buffer, sizeof buffer);
}

static int take(qg_ticket_shm *shm, const uint8_t *key) {
    return qg_ticket_shm_take(shm, key, NOW, buffer, sizeof buffer);
}

/* ---------------------------------------------------------------- tickets whose content is known */

/* Everything about ticket `id` follows from it: key, length, bytes. */
static void key_of(uint64_t id, uint8_t key[16]) {
    memset(key, 0, 16);
    key[0] = (uint8_t)(id % KEYS);
}

/* Mostly of one slot, some of two or three. */
static size_t length_of(uint64_t id) {
    uint64_t state = id * 2 + 1;
    random_next(&state);
    return random_below(&state, 8) == 0 ? 900 + random_below(&state, 1800)
                                        : 16 + random_below(&state, 300);
}

static size_t make(uint64_t id, uint8_t *out) {
    size_t len = length_of(id);
    uint64_t word = id;
    for (size_t at = 0; at < len; at += 8, word = word * UINT64_C(6364136223846793005) + id) {
        memcpy(out + at, &word, qg__min(8, len - at));
    }
    return len;
}

/* The id of a ticket that was got for `key`; ends the process when it is torn or another key's. */
static uint64_t check_ticket(const uint8_t *key, const uint8_t *ticket, int len) {
    static uint8_t expected[QG_TICKET_MAX];
    uint8_t its_key[16];
    uint64_t id = 0;
    memcpy(&id, ticket, 8);
    key_of(id, its_key);
    size_t n = make(id, expected);
    if (n != (size_t)len || memcmp(ticket, expected, n) != 0 || memcmp(key, its_key, 16) != 0) {
        fprintf(stderr, "    a torn ticket: id %llu, %d bytes, should have %zu\n",
                (unsigned long long)id, len, n);
        _exit(3);
    }
    return id;
}

static int put_id(qg_ticket_shm *shm, uint64_t id) {
    static uint8_t ticket[QG_TICKET_MAX];
    uint8_t key[16];
    key_of(id, key);
    size_t len = make(id, ticket);
    return qg_ticket_shm_put(shm, key, ticket, len, NOW, LATER, NOW);
}

/* ---------------------------------------------------------------- dying on the way */

static uint64_t step_at; /* 0: go through */
static int step_signal;

void qg__ticket_shm_step(void) {
    if (step_at > 0 && --step_at == 0) {
        kill(getpid(), step_signal);
    }
}

static void check_exit(pid_t pid, int status_expected) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, status_expected);
}

/* A process that gets tickets, checks each, and counts in shared memory how many. */
static pid_t start_reader(qg_ticket_shm *shm, _Atomic uint64_t *reads) {
    pid_t pid = fork();
    if (pid == 0) {
        for (uint64_t n = 0;; n++) {
            uint8_t key[16];
            key_of(n, key);
            int len = get(shm, key);
            if (len < 0) {
                _exit(4);
            }
            if (len > 0) {
                check_ticket(key, buffer, len);
            }
            if (++*reads % 64 == 0) {
                usleep(100); /* the writers need a processor too */
            }
        }
    }
    CHECK(pid > 0);
    return pid;
}

/* The reader is not held up: it reads all tickets, several times, from now on. */
static void check_goes_on(_Atomic uint64_t *reads) {
    for (uint64_t from = *reads; *reads < from + 3 * KEYS;) {
        usleep(50);
    }
}

static void *shared_memory(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

/* ---------------------------------------------------------------- one process */

TEST(a_ticket_is_got_as_often_as_wanted_and_taken_once) {
    qg_ticket_shm *shm = begin(16384);
    CHECK_EQ(get(shm, key_a), 0);
    CHECK_EQ(take(shm, key_a), 0);
    CHECK_EQ(put(shm, key_a, "ticket"), QG_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_TEXT(buffer, (size_t)get(shm, key_a), "ticket");
    }
    CHECK_EQ(get(shm, key_b), 0);
    CHECK_EQ(take(shm, key_b), 0);
    CHECK_TEXT(buffer, (size_t)take(shm, key_a), "ticket");
    CHECK_EQ(take(shm, key_a), 0);
    CHECK_EQ(get(shm, key_a), 0);
    CHECK_EQ(live(shm), 0);
    end(shm);
}

TEST(the_newest_comes_first_and_eight_are_kept) {
    qg_ticket_shm *shm = begin(65536);
    CHECK_EQ(put(shm, key_b, "other"), QG_OK);
    for (int i = 0; i < 12; i++) {
        char text[16];
        snprintf(text, sizeof text, "no %d", i);
        CHECK_EQ(put(shm, key_a, text), QG_OK);
        CHECK_TEXT(buffer, (size_t)get(shm, key_a), text);
    }
    CHECK_EQ(live(shm), 1 + QG_TICKET_KEEP);
    for (int i = 11; i >= 12 - QG_TICKET_KEEP; i--) {
        char text[16];
        snprintf(text, sizeof text, "no %d", i);
        CHECK_TEXT(buffer, (size_t)take(shm, key_a), text);
    }
    CHECK_EQ(take(shm, key_a), 0);
    CHECK_TEXT(buffer, (size_t)take(shm, key_b), "other");
    end(shm);
}

TEST(tickets_of_any_length_up_to_the_limit) {
    static uint8_t ticket[QG_TICKET_MAX + 1];
    static const size_t lengths[] = {1, 1055, 1056, 1057, 2112, 2113, 5000, QG_TICKET_MAX};
    uint64_t state = 7;
    qg_ticket_shm *shm = begin(65536);
    random_bytes(&state, ticket, sizeof ticket);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        CHECK_EQ(qg_ticket_shm_put(shm, key_a, ticket, n, NOW, LATER, NOW), QG_OK);
        CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW, buffer, n - 1), QG_TOO_LARGE);
        CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW, buffer, n), n);
        CHECK_BYTES(buffer, n, ticket, n);
    }
    CHECK_EQ(qg_ticket_shm_put(shm, key_a, ticket, sizeof ticket, NOW, LATER, NOW), QG_TOO_LARGE);
    CHECK_EQ(qg_ticket_shm_put(shm, key_a, ticket, 0, NOW, LATER, NOW), QG_INVALID);
    CHECK_EQ(live(shm), sizeof lengths / sizeof *lengths); /* a refusal costs nothing */
    end(shm);
    shm = begin(16384); /* 14 slots */
    CHECK_EQ(qg_ticket_shm_put(shm, key_a, ticket, 7 * 1056, NOW, LATER, NOW), QG_OK);
    CHECK_EQ(qg_ticket_shm_put(shm, key_a, ticket, 7 * 1056 + 1, NOW, LATER, NOW), QG_TOO_LARGE);
    end(shm);
}

static void fill(qg_ticket_shm *shm, uint32_t from, uint32_t to) {
    static uint8_t ticket[1050];
    for (uint32_t i = from; i < to; i++) {
        uint8_t key[16] = {0};
        memcpy(key, &i, sizeof i);
        memcpy(ticket, &i, sizeof i);
        CHECK_EQ(qg_ticket_shm_put(shm, key, ticket, sizeof ticket, NOW, LATER, NOW), QG_OK);
    }
}

static bool has(qg_ticket_shm *shm, uint32_t i) {
    uint8_t key[16] = {0};
    memcpy(key, &i, sizeof i);
    int n = get(shm, key);
    CHECK(n == 0 || (n == 1050 && memcmp(buffer, &i, sizeof i) == 0));
    return n > 0;
}

TEST(as_many_tickets_as_promised_go_in_and_the_oldest_leaves_first) {
    qg_ticket_shm *shm = begin(131072);
    uint32_t n = slots(shm);
    CHECK(n >= 115);
    fill(shm, 0, n);
    CHECK_EQ(live(shm), n);
    for (uint32_t i = n; i < n + 30; i++) {
        fill(shm, i, i + 1);
        check_note("after ticket %u", i);
        CHECK_EQ(live(shm), n);
    }
    for (uint32_t i = 0; i < n + 30; i++) {
        check_note("ticket %u", i);
        CHECK_EQ(has(shm, i), i >= 30);
    }
    end(shm);
    shm = begin(65536);
    CHECK_EQ(slots(shm), 58);
    end(shm);
}

TEST(what_was_used_stays_longer) {
    qg_ticket_shm *shm = begin(65536);
    uint32_t n = slots(shm);
    fill(shm, 0, n);
    CHECK(has(shm, 0) && has(shm, 5));
    fill(shm, n, n + 10);
    for (uint32_t i = 0; i < 15; i++) {
        check_note("ticket %u", i);
        CHECK_EQ(has(shm, i), i == 0 || i == 5 || i >= 12);
    }
    end(shm);
}

TEST(long_tickets_leave_whole) {
    static uint8_t ticket[4000];
    qg_ticket_shm *shm = begin(65536); /* 58 slots: 14 tickets of 4 */
    for (uint32_t i = 0; i < 20; i++) {
        uint8_t key[16] = {(uint8_t)i};
        CHECK_EQ(qg_ticket_shm_put(shm, key, ticket, sizeof ticket, NOW, LATER, NOW), QG_OK);
    }
    CHECK_EQ(live(shm), 14);
    fill(shm, 1000, 1000 + slots(shm)); /* and nothing of them is left over */
    CHECK_EQ(live(shm), slots(shm));
    end(shm);
}

TEST(dead_tickets_make_room_first) {
    qg_ticket_shm *shm = begin(16384);
    uint32_t n = slots(shm);
    fill(shm, 0, n - 1);
    CHECK_EQ(qg_ticket_shm_put(shm, key_a, key_a, 16, NOW, NOW + 5, NOW), QG_OK);
    CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW + 4, buffer, 16), 16);
    CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW + 5, buffer, 16), 0);
    CHECK_EQ(qg_ticket_shm_take(shm, key_a, NOW + 5, buffer, 16), 0);
    CHECK_EQ(qg_ticket_shm_put(shm, key_b, key_b, 16, NOW, LATER, NOW + 5), QG_OK);
    for (uint32_t i = 0; i < n - 1; i++) {
        CHECK(has(shm, i));
    }
    end(shm);
}

/* Its age cannot be told, and it would live for ever if the clock stayed there. */
TEST(a_clock_set_back_hides_tickets_until_it_is_right_again) {
    qg_ticket_shm *shm = begin(16384);
    CHECK_EQ(put(shm, key_a, "ticket"), QG_OK);
    CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW - 1, buffer, 16), 6);
    CHECK_EQ(qg_ticket_shm_get(shm, key_a, NOW - 2, buffer, 16), 0);
    CHECK_EQ(qg_ticket_shm_take(shm, key_a, 0, buffer, 16), 0);
    CHECK_EQ(get(shm, key_a), 6);
    CHECK_EQ(qg_ticket_shm_put(shm, key_b, key_b, 1, UINT64_MAX, UINT64_MAX, NOW), QG_OK);
    CHECK_EQ(get(shm, key_b), 0); /* no time wraps round */
    end(shm);
}

TEST(delete_takes_all_of_one_key) {
    qg_ticket_shm *shm = begin(16384);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(put(shm, key_a, "a"), QG_OK);
        CHECK_EQ(put(shm, key_b, "b"), QG_OK);
    }
    CHECK_EQ(qg_ticket_shm_delete(shm, key_a), 3);
    CHECK_EQ(qg_ticket_shm_delete(shm, key_a), 0);
    CHECK_EQ(get(shm, key_a), 0);
    CHECK_EQ(live(shm), 3);
    end(shm);
}

TEST(clear_leaves_no_ticket_and_none_of_its_bytes) {
    static const char secret[] = "a secret that was resumed with";
    qg_ticket_shm *shm = begin(16384);
    const uint8_t *memory = (const uint8_t *)shm->header;
    put(shm, key_a, secret);
    put(shm, key_b, secret);
    CHECK_EQ(take(shm, key_b), sizeof secret - 1);
    CHECK(memmem(memory, 16384, secret, sizeof secret - 1) != NULL);
    CHECK_EQ(qg_ticket_shm_clear(shm), QG_OK);
    CHECK(memmem(memory, 16384, secret, sizeof secret - 1) == NULL);
    CHECK_EQ(live(shm), 0);
    fill(shm, 0, slots(shm));
    CHECK_EQ(live(shm), slots(shm)); /* every slot is free again */
    end(shm);
}

TEST(all_tickets_can_be_listed) {
    qg_ticket_shm *shm = begin(16384);
    uint8_t key[16];
    uint64_t seen = 0;
    for (uint64_t id = 0; id < 5; id++) {
        CHECK_EQ(put_id(shm, id), QG_OK);
    }
    for (uint32_t i = 0; i < slots(shm); i++) {
        int n = qg_ticket_shm_at(shm, i, NOW, key, buffer, sizeof buffer);
        if (n > 0) {
            seen |= 1u << check_ticket(key, buffer, n);
        }
        CHECK_EQ(qg_ticket_shm_at(shm, i, LATER, key, buffer, sizeof buffer), 0);
    }
    CHECK_EQ(seen, 31);
    CHECK_EQ(qg_ticket_shm_at(shm, slots(shm), NOW, key, buffer, sizeof buffer), QG_INVALID);
    end(shm);
}

/* Rule 5: whatever a slot is overwritten with, its own old content included, it is a miss. */
TEST(a_damaged_slot_is_a_miss) {
    static ticket_slot old;
    qg_ticket_shm *shm = begin(16384);
    size_t offsets[] = {16, 20, 24, 40, 56, 64, 69};
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        CHECK_EQ(put(shm, key_a, "ticket"), QG_OK);
        memcpy(&old, shm->slots, sizeof old);
        ((uint8_t *)shm->slots)[offsets[i]] ^= 1;
        check_note("byte %zu", offsets[i]);
        CHECK_EQ(take(shm, key_a), 0);
        CHECK_EQ(get(shm, key_a), 0);
        memset(shm->slots, 0, sizeof *shm->slots);
    }
    CHECK_EQ(put(shm, key_a, "other"), QG_OK);
    memcpy((uint8_t *)shm->slots + 16, (uint8_t *)&old + 16, sizeof old - 16);
    CHECK_EQ(take(shm, key_a), 0); /* a late writer's ticket, whole, but in a slot of another seq */
    CHECK_EQ(live(shm), 0);
    CHECK_EQ(put(shm, key_a, "next"), QG_OK);
    shm->slots[1].state = ~UINT64_C(0); /* a PART whose head cannot be */
    fill(shm, 0, slots(shm));
    CHECK_EQ(live(shm), slots(shm));
    end(shm);
}

/* ---------------------------------------------------------------- many processes */

/* A put of `id`, or a take, by a process that gets `signal` at step `at`. */
static pid_t start_victim(qg_ticket_shm *shm, uint64_t id, bool takes, uint64_t at, int signal) {
    pid_t pid = fork();
    if (pid == 0) {
        uint8_t key[16];
        key_of(id, key);
        step_at = at;
        step_signal = signal;
        int rc = takes ? take(shm, key) : put_id(shm, id);
        _exit(rc < 0 ? 5 : 0);
    }
    CHECK(pid > 0);
    return pid;
}

/* An id whose ticket takes `parts` slots. */
static uint64_t id_of_parts(uint64_t from, size_t parts) {
    while ((length_of(from) + 1055) / 1056 != parts) {
        from++;
    }
    return from;
}

/* Kill a writer (or a taker) at each of its steps in turn. Returns how many there are. */
static uint64_t kill_at_each_step(qg_ticket_shm *shm, _Atomic uint64_t *reads, size_t parts,
                                  bool takes) {
    uint64_t steps = 0, id = 1000;
    for (int status = SIGKILL; status == SIGKILL;) {
        for (uint64_t i = 0; i < 2 * KEYS; i++) {
            CHECK_EQ(put_id(shm, ++id), QG_OK);
        }
        id = id_of_parts(id + 1, parts);
        pid_t pid = start_victim(shm, id, takes, ++steps, SIGKILL);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        check_note("%zu parts, step %u, status %d", parts, (unsigned)steps, status);
        CHECK(status == SIGKILL || status == 0);
        check_goes_on(reads);
        /* Its ticket is there whole or not at all, and can be taken once. */
        uint8_t key[16];
        key_of(id, key);
        int n = take(shm, key);
        CHECK(n > 0 || takes);
        uint64_t got = n > 0 ? check_ticket(key, buffer, n) : 0;
        CHECK(status == SIGKILL || takes || got == id);
        n = take(shm, key);
        CHECK(n == 0 || check_ticket(key, buffer, n) != got);
    }
    return steps - 1;
}

/* Whatever died, the room comes back when the LRU has come round. */
static void check_nothing_lost(qg_ticket_shm *shm) {
    fill(shm, 100000, 100000 + 2 * slots(shm));
    CHECK_EQ(live(shm), slots(shm));
}

TEST(a_writer_killed_at_each_store_harms_nobody) {
    alarm(PATIENCE_S);
    qg_ticket_shm *shm = begin(32768);
    _Atomic uint64_t *reads = shared_memory(4096);
    pid_t reader = start_reader(shm, reads);
    uint64_t one = kill_at_each_step(shm, reads, 1, false);
    uint64_t three = kill_at_each_step(shm, reads, 3, false);
    uint64_t taking = kill_at_each_step(shm, reads, 1, true);
    CHECK(one >= 9 && three >= one + 10 && taking == 2);
    kill(reader, SIGKILL);
    check_exit(reader, SIGKILL);
    check_nothing_lost(shm);
    munmap(reads, 4096);
    end(shm);
}

TEST(a_writer_killed_a_thousand_times_at_random_harms_nobody) {
    alarm(PATIENCE_S);
    qg_ticket_shm *shm = begin(32768);
    _Atomic uint64_t *shared = shared_memory(4096), *reads = shared, *puts = shared + 8;
    pid_t reader = start_reader(shm, reads);
    uint64_t state = 42, writing = 0;
    for (uint64_t round = 0; round < 1000; round++) {
        uint64_t before = *puts;
        pid_t pid = fork();
        if (pid == 0) {
            for (uint64_t id = round * 1000000;; id++) {
                put_id(shm, id);
                ++*puts;
            }
        }
        CHECK(pid > 0);
        while (*puts == before && round % 4 != 0) {
            usleep(20); /* on a busy machine it would otherwise be killed before it began */
        }
        usleep((useconds_t)random_below(&state, 200));
        kill(pid, SIGKILL);
        check_exit(pid, SIGKILL);
        writing += *puts > before;
        check_note("round %u", (unsigned)round);
        CHECK_EQ(put_id(shm, round), QG_OK);
        uint8_t key[16];
        key_of(round, key);
        int n = take(shm, key);
        CHECK(n > 0);
        CHECK_EQ(check_ticket(key, buffer, n), round);
        if (round % 50 == 0) {
            check_goes_on(reads);
        }
    }
    CHECK(writing >= 750);
    kill(reader, SIGKILL);
    check_exit(reader, SIGKILL);
    check_nothing_lost(shm);
    munmap(shared, 4096);
    end(shm);
}

/* Stop a writer at each of its steps in turn, while the others go several times round the slots. */
static uint64_t stop_at_each_step(qg_ticket_shm *shm, size_t parts) {
    uint64_t id = 1000, steps = 0;
    for (int stopped = 1; stopped;) {
        int status;
        uint64_t its = id_of_parts(id + 1, parts);
        pid_t pid = start_victim(shm, its, false, ++steps, SIGSTOP);
        CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
        stopped = WIFSTOPPED(status);
        uint8_t key[16];
        key_of(its, key);
        int len = get(shm, key);
        bool published = len > 0 && check_ticket(key, buffer, len) == its;
        id = its;
        for (uint64_t i = 0; i < 4 * slots(shm); i++) {
            CHECK_EQ(put_id(shm, ++id), QG_OK);
        }
        if (stopped) {
            kill(pid, SIGCONT);
            check_exit(pid, 0);
        }
        check_note("%zu parts, step %u", parts, (unsigned)steps);
        unsigned times = 0;
        for (int n; (n = take(shm, key)) > 0;) {
            times += check_ticket(key, buffer, n) == its;
        }
        /* It was there and was evicted, or it was put anew: what put said was true. */
        CHECK_EQ(times, published ? 0 : 1);
    }
    return steps - 1;
}

/* The writer that is only slow: it wakes up in a slot that is another's. */
TEST(a_writer_that_stood_still_does_not_write_over_others) {
    alarm(PATIENCE_S);
    qg_ticket_shm *shm = begin(16384);
    uint64_t one = stop_at_each_step(shm, 1), three = stop_at_each_step(shm, 3);
    CHECK(one >= 9 && three >= one + 10);
    check_nothing_lost(shm);
    end(shm);
}

/* ---------------------------------------------------------------- a million operations */

typedef struct score {
    _Atomic uint64_t puts, refused, gets, takes, twice;
    _Atomic uint8_t taken[WRITERS * EACH];
} score;

static void count_take(score *all, uint64_t id) {
    all->takes++;
    if (id >= WRITERS * EACH || all->taken[id]++ != 0) {
        all->twice++;
    }
}

static void operate(qg_ticket_shm *shm, score *all, uint64_t writer) {
    uint64_t state = writer + 1;
    for (uint64_t n = 0; n < EACH; n++) {
        uint8_t key[16];
        key_of(random_next(&state) >> 20, key);
        uint64_t what = random_below(&state, 100);
        if (what < 45) {
            int rc = put_id(shm, writer * EACH + n);
            all->puts++;
            all->refused += rc == QG_AGAIN;
            if (rc != QG_OK && rc != QG_AGAIN) {
                _exit(6);
            }
        } else if (what < 98) {
            bool takes = what >= 70;
            int len = takes ? take(shm, key) : get(shm, key);
            if (len < 0) {
                _exit(7);
            }
            if (len > 0) {
                uint64_t id = check_ticket(key, buffer, len);
                takes ? count_take(all, id) : (void)all->gets++;
            }
        } else if (what == 98) {
            uint32_t at = (uint32_t)random_below(&state, shm->count);
            int len = qg_ticket_shm_at(shm, at, NOW, key, buffer, sizeof buffer);
            if (len > 0) {
                check_ticket(key, buffer, len);
            }
        } else {
            qg_ticket_shm_delete(shm, key);
        }
    }
    _exit(0);
}

TEST(eight_processes_and_a_million_operations) {
    alarm(PATIENCE_S);
    qg_ticket_shm_close(begin(32768));
    score *all = shared_memory(sizeof *all);
    pid_t pids[WRITERS];
    for (uint64_t i = 0; i < WRITERS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            operate(open_it(32768), all, i); /* each maps it for itself */
        }
        CHECK(pids[i] > 0);
    }
    for (uint64_t i = 0; i < WRITERS; i++) {
        check_exit(pids[i], 0);
    }
    CHECK_EQ(all->twice, 0);
    CHECK(all->puts > 400000 && all->gets > 50000 && all->takes > 50000);
    CHECK(all->refused < all->puts / 1000);
    munmap(all, sizeof *all);
    qg_ticket_shm *shm = open_it(32768);
    check_nothing_lost(shm);
    end(shm);
}
