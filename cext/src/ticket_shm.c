#include "ticket_shm.h"

#include <openssl/mem.h>
#include <openssl/sha2.h>
#include <sys/stat.h>

#define ROOM QG__TICKET_ROOM

/* Kinds of a state. FREE is 0, so that a new file is full of free slots. */
#define FREE 0u
#define BUSY 1u
#define LIVE 2u
#define PART 3u

#define OWNER_BITS QG__TICKET_OWNER_BITS
#define SEQ_BITS   48 /* 8 years of a million operations each second */

/* Tries of a put before it gives up, and of a claim in each. Each lost swap is a put or a take of
 * somebody else that succeeded: eight busy processes lose a few in a row. */
#define PUT_TRIES   16
#define CLAIM_TRIES 256

/* Bytes between two calls of the step function while a ticket is written. */
#define STRIDE 256

static void step(void) {
    if (qg__ticket_shm_step != NULL) {
        qg__ticket_shm_step();
    }
}

/* ---------------------------------------------------------------- states */

static uint64_t state_of(uint32_t kind, uint32_t owner, uint64_t seq) {
    return seq << (64 - SEQ_BITS) | (uint64_t)owner << 2 | kind;
}

static uint32_t kind_of(uint64_t state) {
    return state & 3;
}

static uint32_t owner_of(uint64_t state) {
    return (uint32_t)(state >> 2) & ((1u << OWNER_BITS) - 1);
}

static uint64_t seq_of(uint64_t state) {
    return state >> (64 - SEQ_BITS);
}

static uint64_t load(const qg_ticket_shm *shm, uint32_t index) {
    return atomic_load_explicit(&shm->slots[index].state, memory_order_acquire);
}

static bool swap(qg_ticket_shm *shm, uint32_t index, uint64_t from, uint64_t to) {
    return atomic_compare_exchange_strong(&shm->slots[index].state, &from, to);
}

static uint64_t tick(qg_ticket_shm *shm) {
    return atomic_fetch_add(&shm->header->clock, 1) + 1;
}

/* A second back is no reason: TLS counts whole ones. */
static bool dead(uint32_t issued_s, uint32_t expires_s, uint64_t now_s) {
    return now_s >= expires_s || now_s + 1 < issued_s;
}

/* Does the put that this PART was claimed for still exist (rule 4)? */
static bool has_head(const qg_ticket_shm *shm, uint64_t part) {
    uint32_t owner = owner_of(part);
    if (owner >= shm->count) {
        return false; /* damaged */
    }
    uint64_t head = load(shm, owner);
    return seq_of(head) == seq_of(part) && (kind_of(head) == BUSY || kind_of(head) == LIVE);
}

/* ---------------------------------------------------------------- claiming */

/* How good a slot is to be claimed: the least is the best. UINT64_MAX: not at all. */
static uint64_t rank(const qg_ticket_shm *shm, uint32_t index, uint64_t state, uint64_t now_s) {
    const ticket_slot *slot = &shm->slots[index];
    switch (kind_of(state)) {
    case FREE:
        return 0;
    case PART:
        return has_head(shm, state) ? UINT64_MAX : 0;
    case BUSY:
        return 2 + seq_of(state);
    default:
        return dead(slot->issued_s, slot->expires_s, now_s) ? 1 : 2 + slot->used;
    }
}

/* Make a slot BUSY, or a PART of `head`, for the put `seq`. Returns its index, or -1. */
static int claim(qg_ticket_shm *shm, uint32_t kind, uint32_t head, uint64_t seq, uint64_t now_s) {
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        uint64_t best = UINT64_MAX, found = 0;
        uint32_t at = 0;
        for (uint32_t i = 0; i < shm->count && best > 0; i++) {
            uint64_t state = load(shm, i);
            uint64_t r = seq_of(state) == seq ? UINT64_MAX : rank(shm, i, state, now_s);
            if (r < best) {
                best = r;
                at = i;
                found = state;
            }
        }
        if (best < UINT64_MAX &&
            swap(shm, at, found, state_of(kind, kind == PART ? head : at, seq))) {
            return (int)at;
        }
    }
    return -1;
}

/* ---------------------------------------------------------------- checking */

/* What the checksum covers besides the ticket. */
typedef struct sealed {
    uint64_t state;
    uint32_t issued_s;
    uint32_t expires_s;
    uint8_t key[QG_TICKET_KEY];
    uint32_t length;
    uint32_t zero;
} sealed;

static void checksum(const sealed *head, const uint8_t *ticket, uint8_t out[16]) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, head, sizeof *head);
    SHA256_Update(&sha, ticket, head->length);
    SHA256_Final(digest, &sha);
    memcpy(out, digest, 16);
}

/* The file's owner may have removed it, or cut it, which would be a SIGBUS soon. */
static int usable(const qg_ticket_shm *shm) {
    struct stat st;
    if (fstat(shm->fd, &st) != 0) {
        return QG_SYSTEM;
    }
    return st.st_nlink == 0 ? QG_GONE : (uint64_t)st.st_size < shm->size ? QG_STATE : QG_OK;
}

/* ---------------------------------------------------------------- writing */

static void write_part(ticket_slot *slot, const uint8_t *from, size_t len) {
    for (size_t done = 0; done < len; done += STRIDE) {
        memcpy(slot->ticket + done, from + done, qg__min(STRIDE, len - done));
        step();
    }
}

/* Write the ticket into the head and as many parts as it needs. False: a slot was lost. */
static bool write_parts(qg_ticket_shm *shm, uint32_t head, uint64_t seq, const uint8_t *ticket,
                        size_t len, uint64_t now_s) {
    ticket_slot *slot = &shm->slots[head];
    for (size_t done = 0;;) {
        size_t n = qg__min(ROOM, len - done);
        if (load(shm, head) != state_of(BUSY, head, seq)) {
            return false; /* nothing more into a slot that is another's */
        }
        write_part(slot, ticket + done, n);
        done += n;
        if (done == len) {
            return true;
        }
        int part = claim(shm, PART, head, seq, now_s);
        if (part < 0) {
            return false;
        }
        step();
        slot->next = (uint16_t)part;
        step();
        slot = &shm->slots[part];
    }
}

static void write_head(ticket_slot *slot, const sealed *head, const uint8_t *ticket, uint64_t seq) {
    uint8_t check[16];
    checksum(head, ticket, check);
    slot->issued_s = head->issued_s;
    step();
    slot->expires_s = head->expires_s;
    step();
    memcpy(slot->key, head->key, QG_TICKET_KEY);
    step();
    slot->length = head->length;
    step();
    memcpy(slot->check, check, sizeof check);
    step();
    slot->used = seq;
    step();
}

/* One try of a put. False: somebody took a slot of ours; nothing is kept. */
static bool write_ticket(qg_ticket_shm *shm, const sealed *given, const uint8_t *ticket,
                         uint64_t now_s) {
    sealed head = *given;
    uint64_t seq = tick(shm);
    step();
    int index = claim(shm, BUSY, 0, seq, now_s);
    if (index < 0) {
        return false;
    }
    step();
    uint32_t at = (uint32_t)index;
    uint64_t busy = state_of(BUSY, at, seq);
    head.state = state_of(LIVE, at, seq);
    if (!write_parts(shm, at, seq, ticket, head.length, now_s)) {
        swap(shm, at, busy, FREE);
        return false;
    }
    write_head(&shm->slots[at], &head, ticket, seq);
    bool published = swap(shm, at, busy, head.state);
    step();
    return published;
}

/* Leave room for one more ticket of `key` in its allowance. */
static void trim(qg_ticket_shm *shm, const uint8_t *key) {
    for (uint32_t removed = 0; removed < shm->count; removed++) {
        uint32_t tickets = 0, at = 0;
        uint64_t oldest = UINT64_MAX;
        for (uint32_t i = 0; i < shm->count; i++) {
            uint64_t state = load(shm, i);
            if (kind_of(state) == LIVE && memcmp(shm->slots[i].key, key, QG_TICKET_KEY) == 0) {
                tickets++;
                if (state < oldest) { /* the seq stands in the highest bits */
                    oldest = state;
                    at = i;
                }
            }
        }
        if (tickets < QG_TICKET_KEEP) {
            return;
        }
        swap(shm, at, oldest, FREE);
        step();
    }
}

static uint32_t longest(const qg_ticket_shm *shm) {
    return (uint32_t)qg__min(QG_TICKET_MAX, shm->count / 2 * ROOM);
}

static uint32_t seconds(uint64_t s) {
    return (uint32_t)qg__min64(s, UINT32_MAX);
}

int qg_ticket_shm_put(qg_ticket_shm *shm, const uint8_t *key, const uint8_t *ticket, size_t len,
                      uint64_t issued_s, uint64_t expires_s, uint64_t now_s) {
    int rc = usable(shm);
    if (rc != QG_OK) {
        return rc;
    }
    if (len == 0) {
        return QG_INVALID;
    }
    if (len > longest(shm)) {
        return QG_TOO_LARGE;
    }
    sealed head = {
        .issued_s = seconds(issued_s), .expires_s = seconds(expires_s), .length = (uint32_t)len};
    memcpy(head.key, key, QG_TICKET_KEY);
    trim(shm, key);
    for (int tries = 0; tries < PUT_TRIES; tries++) {
        if (write_ticket(shm, &head, ticket, now_s)) {
            return QG_OK;
        }
    }
    return QG_AGAIN;
}

/* ---------------------------------------------------------------- reading */

/* Copy the ticket whose head was seen as `state`. Returns its length, QG_TOO_LARGE, or QG_GONE when
 * what is there is not it. */
static int read_ticket(const qg_ticket_shm *shm, uint32_t index, uint64_t state, sealed *head,
                       uint8_t *out, size_t capacity) {
    const ticket_slot *slot = &shm->slots[index];
    uint8_t check[16], expected[16];
    memcpy(check, slot->check, sizeof check);
    *head = (sealed){.state = state,
                     .issued_s = slot->issued_s,
                     .expires_s = slot->expires_s,
                     .length = slot->length};
    memcpy(head->key, slot->key, QG_TICKET_KEY);
    if (head->length == 0 || head->length > longest(shm)) {
        return QG_GONE;
    }
    if (head->length > capacity) {
        return QG_TOO_LARGE;
    }
    for (size_t done = 0;;) {
        size_t n = qg__min(ROOM, head->length - done);
        memcpy(out + done, slot->ticket, n);
        done += n;
        if (done == head->length) {
            break;
        }
        uint16_t next = slot->next;
        if (next >= shm->count) {
            return QG_GONE;
        }
        slot = &shm->slots[next];
    }
    checksum(head, out, expected);
    return memcmp(check, expected, sizeof check) == 0 ? (int)head->length : QG_GONE;
}

/* The live ticket of `key` with the highest seq below `below`. Its index and *state, or -1. */
static int newest(const qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, uint64_t below,
                  uint64_t *state) {
    int found = -1;
    *state = 0;
    for (uint32_t i = 0; i < shm->count; i++) {
        const ticket_slot *slot = &shm->slots[i];
        uint64_t s = load(shm, i);
        if (kind_of(s) == LIVE && seq_of(s) < below && s > *state &&
            memcmp(slot->key, key, QG_TICKET_KEY) == 0 &&
            !dead(slot->issued_s, slot->expires_s, now_s)) {
            *state = s;
            found = (int)i;
        }
    }
    return found;
}

static int find(qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, bool take, uint8_t *out,
                size_t capacity) {
    int rc = usable(shm), index;
    uint64_t below = UINT64_MAX, state;
    if (rc != QG_OK) {
        return rc;
    }
    while ((index = newest(shm, key, now_s, below, &state)) >= 0) {
        sealed head;
        uint32_t at = (uint32_t)index;
        below = seq_of(state);
        int n = read_ticket(shm, at, state, &head, out, capacity);
        if (n == QG_TOO_LARGE) {
            return n;
        }
        if (n == QG_GONE) {
            /* It went while it was read, and this does nothing; or a late writer damaged it. */
            swap(shm, at, state, FREE);
            continue;
        }
        if (memcmp(head.key, key, QG_TICKET_KEY) != 0) {
            continue; /* another's came into the slot between two looks */
        }
        step();
        if (!take) {
            shm->slots[at].used = tick(shm);
            return n;
        }
        if (swap(shm, at, state, FREE)) {
            step();
            return n;
        }
    }
    return 0;
}

int qg_ticket_shm_get(qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, uint8_t *out,
                      size_t capacity) {
    return find(shm, key, now_s, false, out, capacity);
}

int qg_ticket_shm_take(qg_ticket_shm *shm, const uint8_t *key, uint64_t now_s, uint8_t *out,
                       size_t capacity) {
    return find(shm, key, now_s, true, out, capacity);
}

int qg_ticket_shm_at(qg_ticket_shm *shm, uint32_t index, uint64_t now_s, uint8_t *key, uint8_t *out,
                     size_t capacity) {
    int rc = usable(shm);
    if (rc != QG_OK || index >= shm->count) {
        return rc != QG_OK ? rc : QG_INVALID;
    }
    sealed head;
    uint64_t state = load(shm, index);
    if (kind_of(state) != LIVE) {
        return 0;
    }
    int n = read_ticket(shm, index, state, &head, out, capacity);
    if (n < 0) {
        return n == QG_TOO_LARGE ? n : 0;
    }
    memcpy(key, head.key, QG_TICKET_KEY);
    return dead(head.issued_s, head.expires_s, now_s) ? 0 : n;
}

/* ---------------------------------------------------------------- taking out */

int qg_ticket_shm_delete(qg_ticket_shm *shm, const uint8_t *key) {
    int rc = usable(shm), count = 0;
    for (uint32_t i = 0; rc == QG_OK && i < shm->count; i++) {
        uint64_t state = load(shm, i);
        if (kind_of(state) == LIVE && memcmp(shm->slots[i].key, key, QG_TICKET_KEY) == 0) {
            count += swap(shm, i, state, FREE);
        }
    }
    return rc == QG_OK ? count : rc;
}

int qg_ticket_shm_clear(qg_ticket_shm *shm) {
    int rc = usable(shm);
    uint64_t seq = tick(shm);
    for (uint32_t i = 0; rc == QG_OK && i < shm->count; i++) {
        uint64_t busy = state_of(BUSY, i, seq);
        /* A lost swap: somebody begins to write there just now, over what was to be wiped. */
        if (swap(shm, i, load(shm, i), busy)) {
            OPENSSL_cleanse(shm->slots[i].ticket, ROOM);
            swap(shm, i, busy, FREE);
        }
    }
    return rc;
}

int qg_ticket_shm_info_of(const qg_ticket_shm *shm, qg_ticket_shm_info *out) {
    int rc = usable(shm);
    *out = (qg_ticket_shm_info){
        .size = shm->size, .slots = shm->count, .slot_room = ROOM, .max_ticket = longest(shm)};
    for (uint32_t i = 0; rc == QG_OK && i < shm->count; i++) {
        out->tickets += kind_of(load(shm, i)) == LIVE;
    }
    return rc;
}
