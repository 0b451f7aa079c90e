/* group.c: making the mapping, and the workers' slots. */
#include "group.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm_file.h"

#define CONNECTIONS_MAX    (1u << 20)
#define EARLY_CAPACITY_MAX (1u << 24)
#define ENTRIES_MIN        64 /* the places of one ClientHello */

/* ---------------------------------------------------------------- layout */

void qg_group_defaults(qg_group_options *o) {
    *o = (qg_group_options){
        .abi = QG_ABI,
        .slots = 64,          /* a dozen workers, and four generations of them that drain */
        .connections = 16384, /* two megabytes a slot, once they are there */
        .early_data_capacity = 100000,
        .key_period_s = 3600,
        .key_window = 25,
        .host_id = QG_GROUP_ANY_HOST,
        .key_origin_s = qg__wall_s(),
    };
}

static const char *check_options(const qg_group_options *o) {
    if (o->abi != QG_ABI) {
        return "the options are of another version";
    }
    if (o->slots < 1 || o->slots > QG_GROUP_SLOTS_MAX) {
        return "a group has 1 to 255 slots";
    }
    if (o->connections < 1 || o->connections > CONNECTIONS_MAX) {
        return "1 to 1048576 connections of a worker are listed";
    }
    if (o->early_data_capacity < 1 || o->early_data_capacity > EARLY_CAPACITY_MAX) {
        return "the register holds 1 to 16777216 ClientHellos";
    }
    if (o->key_period_s == 0 || o->key_window == 0 || o->key_window > QG_KEYS_WINDOW_MAX) {
        return "the key period must be positive and the window 1 to 64";
    }
    if (o->host_id > UINT16_MAX && o->host_id != QG_GROUP_ANY_HOST) {
        return "a host id is 0 to 65535";
    }
    return NULL;
}

/* The words of two periods count, and the table is to be half empty. */
static uint32_t entries_for(uint32_t capacity) {
    uint32_t entries = ENTRIES_MIN;
    while (entries < 4 * capacity) {
        entries *= 2;
    }
    return entries;
}

static uint64_t whole_pages(uint64_t bytes) {
    return (bytes + QG__GROUP_PAGE - 1) / QG__GROUP_PAGE * QG__GROUP_PAGE;
}

static uint64_t replay_end(const group_header *h) {
    return 2 * QG__GROUP_PAGE + whole_pages(8 * (uint64_t)h->replay_entries);
}

static uint64_t slots_end(const group_header *h) {
    return replay_end(h) + whole_pages(h->slots * sizeof(group_slot));
}

static uint64_t size_of(const group_header *h) {
    return slots_end(h) + whole_pages((uint64_t)h->slots * h->connections * sizeof(group_conn));
}

/* Which start of the system this is; all zeros where it does not say. */
static void read_boot(char out[40]) {
    memset(out, 0, 40);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, out, 36) != 36) {
            memset(out, 0, 40);
        }
        close(fd);
    }
}

static group_header header_of(const qg_group_options *o) {
    uint16_t any;
    RAND_bytes((uint8_t *)&any, sizeof any);
    group_header h = {
        .version = QG__GROUP_VERSION,
        .header_bytes = QG__GROUP_PAGE,
        .slots = o->slots,
        .connections = o->connections,
        .replay_entries = entries_for(o->early_data_capacity),
        .slot_bytes = sizeof(group_slot),
        .connection_bytes = sizeof(group_conn),
        .secrets_bytes = sizeof(group_secrets),
        .host_id = o->host_id == QG_GROUP_ANY_HOST ? any : o->host_id,
        .key_period_s = o->key_period_s,
        .key_window = o->key_window,
        .key_origin_s = o->key_origin_s,
        .quiet_until_ns = o->quiet_s > 0 ? qg__later(qg__now_ns(), o->quiet_s, QG_NS_PER_S) : 0,
    };
    memcpy(h.magic, QG__GROUP_MAGIC, sizeof h.magic);
    read_boot(h.boot);
    h.size = size_of(&h);
    return h;
}

/* ---------------------------------------------------------------- making */

static void init_secrets(group_secrets *s, const uint8_t *secret) {
    uint8_t root[QG_KEYS_SECRET];
    pthread_mutexattr_t attr;
    if (secret != NULL) {
        memcpy(root, secret, sizeof root);
    } else {
        RAND_bytes(root, sizeof root);
    }
    for (size_t i = 0; i < sizeof root / 8; i++) {
        uint64_t word;
        memcpy(&word, root + 8 * i, 8);
        s->roots[0].words[i] = word;
    }
    s->roots[0].epoch = 1;
    qg__keys_derive(&s->reset, root, QG_KEY_RESET, 0);
    OPENSSL_cleanse(root, sizeof root);
    RAND_bytes(s->replay_secret, sizeof s->replay_secret);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&s->forgetting, &attr);
    pthread_mutexattr_destroy(&attr);
}

/* What a new group is made of. */
typedef struct making {
    group_header header;
    const uint8_t *secret;
} making;

static void init(void *map, uint64_t size, const void *arg) {
    const making *m = arg;
    (void)size;
    init_secrets((group_secrets *)(void *)((uint8_t *)map + QG__GROUP_PAGE), m->secret);
    memcpy(map, &m->header, sizeof m->header);
}

static const char *check(const void *header, uint64_t size) {
    const group_header *h = header;
    char boot[40];
    if (h->version != QG__GROUP_VERSION || h->header_bytes != QG__GROUP_PAGE ||
        h->slot_bytes != sizeof(group_slot) || h->connection_bytes != sizeof(group_conn) ||
        h->secrets_bytes != sizeof(group_secrets)) {
        return "made by another version of quicgreen, or on another kind of machine";
    }
    if (size < h->size) {
        return "the segment is truncated";
    }
    if (h->size != size || h->slots < 1 || h->slots > QG_GROUP_SLOTS_MAX || h->connections < 1 ||
        h->connections > CONNECTIONS_MAX || h->replay_entries < ENTRIES_MIN ||
        (h->replay_entries & (h->replay_entries - 1)) != 0 || h->key_period_s == 0 ||
        h->key_window == 0 || h->key_window > QG_KEYS_WINDOW_MAX || size_of(h) != size) {
        return "the segment's header is damaged";
    }
    read_boot(boot);
    if (memcmp(boot, h->boot, sizeof boot) != 0) {
        return "made before the system was last started: remove it, and keep it in a folder that "
               "does "
               "not outlive that";
    }
    return NULL;
}

static const qg_shm_kind kind = {"a segment of a group of workers", QG__GROUP_MAGIC,
                                 sizeof(group_header), init, check};

static void *map_memory(uint64_t size) {
    int fd = memfd_create("quicgreen", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return NULL;
    }
    void *map = NULL;
    if (ftruncate(fd, (off_t)size) == 0) {
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        map = qg__shm_map(fd, size);
    }
    int number = errno;
    close(fd); /* the mapping stays */
    errno = number;
    return map;
}

/* A view of a mapping whose header is there. NULL, and unmapped, without memory. */
static qg_group *view_of(void *map) {
    const group_header *h = map;
    uint8_t *at = map;
    qg_group *g = calloc(1, sizeof *g);
    if (g == NULL) {
        munmap(map, h->size);
        return NULL;
    }
    g->references = 1;
    g->size = h->size;
    g->header = map;
    g->secrets = (group_secrets *)(void *)(at + QG__GROUP_PAGE);
    g->replay = (_Atomic uint64_t *)(void *)(at + 2 * QG__GROUP_PAGE);
    g->slots = (group_slot *)(void *)(at + replay_end(h));
    g->conns = (group_conn *)(void *)(at + slots_end(h));
    /* Both as far as the system lets us. */
    madvise(map, h->size, MADV_DONTDUMP);
    mlock(g->secrets, QG__GROUP_PAGE);
    return g;
}

static bool options_valid(const qg_group_options *o, const qg_failure *f) {
    const char *problem = check_options(o);
    *f->result = QG_OK;
    if (problem != NULL) {
        *f->result = QG_INVALID;
        snprintf(f->text, f->capacity, "%s", problem);
    }
    return problem == NULL;
}

qg_group *qg_group_new(const qg_group_options *o, int *result, char *error, size_t error_capacity) {
    qg_failure f = {result, error, error_capacity};
    if (!options_valid(o, &f)) {
        return NULL;
    }
    making m = {header_of(o), o->secret};
    void *map = map_memory(m.header.size);
    if (map != NULL) {
        init(map, m.header.size, &m);
    }
    qg_group *g = map != NULL ? view_of(map) : NULL;
    if (g == NULL) {
        qg__shm_fail(&f, QG_SYSTEM, "memory for a group of workers", NULL);
    }
    return g;
}

qg_group *qg_group_open(const char *path, const qg_group_options *o, int *result, char *error,
                        size_t error_capacity) {
    qg_failure f = {result, error, error_capacity};
    if (!options_valid(o, &f)) {
        return NULL;
    }
    making m = {header_of(o), o->secret};
    uint64_t size = m.header.size;
    int fd = qg__shm_open(path, &kind, &size, &m, &f);
    if (fd < 0) {
        return NULL;
    }
    void *map = qg__shm_map(fd, size);
    qg_group *g = map != NULL ? view_of(map) : NULL;
    if (g == NULL) {
        qg__shm_fail(&f, QG_SYSTEM, path, NULL);
    }
    int number = errno;
    close(fd);
    errno = number;
    return g;
}

qg_group *qg__group_reference(qg_group *group) {
    group->references++;
    return group;
}

void qg_group_free(qg_group *g) {
    if (g != NULL && --g->references == 0) {
        munmap(g->header, g->size);
        free(g);
    }
}

void qg_group_info_of(const qg_group *g, qg_group_info *out) {
    const group_header *h = g->header;
    *out = (qg_group_info){
        .size = g->size,
        .slots = h->slots,
        .connections = h->connections,
        .host_id = h->host_id,
        .key_period_s = h->key_period_s,
        .key_window = h->key_window,
        .key_epoch = g->secrets->epoch,
        .key_origin_s = h->key_origin_s,
    };
}

/* ---------------------------------------------------------------- lives */

static uint64_t life_of(uint32_t pid, uint32_t generation, uint32_t state) {
    return (uint64_t)pid << 32 | (generation & 0xff) << 8 | state;
}

static group_slot *slot_at(const qg_group *g, uint32_t slot) {
    return slot < g->header->slots ? &g->slots[slot] : NULL;
}

/* Has its process gone without a word? */
static bool is_gone(uint64_t life) {
    return kill((pid_t)qg__life_pid(life), 0) != 0 && errno == ESRCH;
}

/* The same, also of one that nobody has waited for, which still has its number. */
static bool has_ended(uint64_t life) {
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)qg__life_pid(life), 0);
    if (fd < 0) {
        return is_gone(life);
    }
    struct pollfd end = {.fd = fd, .events = POLLIN};
    bool ended = poll(&end, 1, 0) == 1;
    close(fd);
    return ended;
}

/* How good a slot is to be claimed: 0 best, 3 not at all. */
static int rank_of(uint64_t life) {
    switch (qg__life_state(life)) {
    case QG_WORKER_FREE:
        return 0;
    case QG_WORKER_DEAD:
        return 1;
    default:
        return is_gone(life) ? 2 : 3;
    }
}

/* The list stays: it tells by its ids whose it is, and the last one's peers may not know yet. */
static void begin_life(group_slot *s) {
    memset(&s->counters, 0, sizeof s->counters);
    qg__group_stepped();
    s->claimed_ns = s->heartbeat_ns = qg__now_ns();
    qg__group_stepped();
}

static bool claim_one(qg_group *g, uint32_t slot, uint64_t life, uint32_t pid,
                      uint32_t *generation) {
    uint32_t next = (qg__life_generation(life) + 1u) & 0xff;
    if (!atomic_compare_exchange_strong(&g->slots[slot].life, &life,
                                        life_of(pid, next, QG_WORKER_STARTING))) {
        return false;
    }
    qg__group_stepped();
    begin_life(&g->slots[slot]);
    *generation = next;
    return true;
}

int qg_group_claim(qg_group *g, int slot, uint32_t pid, uint32_t *generation) {
    if (slot >= (int)g->header->slots || slot < -1 || pid == 0 || pid > INT32_MAX) {
        return QG_INVALID;
    }
    if (slot >= 0) {
        uint64_t life = g->slots[slot].life;
        bool taken = rank_of(life) > 1 || !claim_one(g, (uint32_t)slot, life, pid, generation);
        return taken ? QG_STATE : slot;
    }
    for (int rank = 0; rank < 3; rank++) {
        for (uint32_t i = 0; i < g->header->slots; i++) {
            uint64_t life = g->slots[i].life;
            if (rank_of(life) == rank && claim_one(g, i, life, pid, generation)) {
                return (int)i;
            }
        }
    }
    return QG_LIMIT;
}

int qg_group_bury(qg_group *g, uint8_t *dead) {
    int count = 0;
    for (uint32_t i = 0; i < g->header->slots; i++) {
        uint64_t life = g->slots[i].life;
        uint8_t state = qg__life_state(life);
        bool is_dead = state == QG_WORKER_DEAD;
        if (state != QG_WORKER_FREE && !is_dead && has_ended(life)) {
            is_dead = atomic_compare_exchange_strong(&g->slots[i].life, &life,
                                                     (life & ~UINT64_C(0xff)) | QG_WORKER_DEAD);
        }
        if (is_dead) {
            dead[count++] = (uint8_t)i;
        }
    }
    return count;
}

int qg_group_set_state(qg_group *g, uint32_t slot, uint32_t generation, uint32_t state) {
    group_slot *s = slot_at(g, slot);
    if (s == NULL || state > QG_WORKER_DEAD) {
        return QG_INVALID;
    }
    uint64_t life = s->life;
    do {
        if (qg__life_generation(life) != generation) {
            return QG_GONE;
        }
    } while (!atomic_compare_exchange_weak(
        &s->life, &life, (life & ~UINT64_C(0xff)) | state)); /* `life` is what it is now */
    qg__group_stepped();
    return QG_OK;
}

int qg_group_beat(qg_group *g, uint32_t slot, uint32_t generation) {
    group_slot *s = slot_at(g, slot);
    if (s == NULL) {
        return QG_INVALID;
    }
    if (qg__life_generation(s->life) != generation) {
        return QG_GONE;
    }
    s->heartbeat_ns = qg__now_ns();
    return QG_OK;
}

int qg_group_worker(const qg_group *g, uint32_t slot, qg_worker_info *out) {
    const group_slot *s = slot_at(g, slot);
    if (s == NULL) {
        return QG_INVALID;
    }
    uint64_t life = s->life;
    *out = (qg_worker_info){.state = qg__life_state(life),
                            .pid = qg__life_pid(life),
                            .generation = qg__life_generation(life),
                            .claimed_ns = s->claimed_ns,
                            .heartbeat_ns = s->heartbeat_ns};
    const group_conn *conns = &g->conns[(size_t)slot * g->header->connections];
    for (uint32_t i = 0, top = s->top; i < top; i++) {
        out->connections += conns[i].listed;
    }
    return QG_OK;
}

const qg_counters *qg_group_counters(const qg_group *g, uint32_t slot) {
    const group_slot *s = slot_at(g, slot);
    return s != NULL ? &s->counters : NULL;
}

qg_counters *qg__group_counters(qg_group *g, uint32_t slot, uint32_t generation) {
    group_slot *s = slot_at(g, slot);
    return s != NULL && qg__life_generation(s->life) == generation ? &s->counters : NULL;
}
