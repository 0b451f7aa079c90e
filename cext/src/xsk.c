/* xsk.c: an AF_XDP socket (Documentation/networking/af_xdp.rst).
 *
 *       fill        ours ->  frames that may be written to      -> system
 *       rx        system ->  frames that came                    -> ours
 *       tx          ours ->  frames to be sent                   -> system
 *       completion system -> frames that were sent               -> ours
 *
 * A ring has one writer and one reader, each with an index that the other one reads: written after what it
 * speaks of (release), read before it (acquire). There are as many entries as frames, so no ring is ever full.
 *
 * The system's records are here and not included, since headers may be older than the system. */
#include "xsk.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

#define MMAP_OFFSETS     1
#define RX_RING          2
#define TX_RING          3
#define UMEM_REG         4
#define UMEM_FILL        5
#define UMEM_COMPLETION  6
#define STATISTICS       7
#define MAX_TX_BUDGET    9 /* Linux 6.18 */
#define BIND_COPY        2
#define BIND_NEED_WAKEUP 8
#define NEED_WAKEUP      1
#define PLACE_RX         0
#define PLACE_TX         0x80000000
#define PLACE_FILL       0x100000000
#define PLACE_COMPLETION 0x180000000

/* Calls of a flush in a row that bring nothing forward, before it waits. */
#define IDLE_CALLS 3

/* As udp.c asks for. In copy mode a frame on its way is a buffer of the system's. */
#define SOCKET_BUFFER (4 << 20)

#define AREA (2 * (size_t)QG_XSK_FRAMES * QG_XSK_FRAME)

typedef struct entry {
    uint64_t address;
    uint32_t len, options;
} entry;

typedef struct offsets {
    uint64_t producer, consumer, entries, flags;
} offsets;

typedef struct all_offsets {
    offsets rx, tx, fill, completion;
} all_offsets;

/* ------------------------------------------------------------- rings */

static uint32_t load(const uint32_t *index) {
    return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

static void show(uint32_t *index, uint32_t value) {
    __atomic_store_n(index, value, __ATOMIC_RELEASE);
}

static uint64_t *address_at(const qg_ring *r, uint32_t i) {
    return (uint64_t *)r->entries + (i & (QG_XSK_FRAMES - 1));
}

static entry *entry_at(const qg_ring *r, uint32_t i) {
    return (entry *)r->entries + (i & (QG_XSK_FRAMES - 1));
}

static bool map_ring(qg_ring *r, int fd, off_t place, const offsets *o, size_t entry_size) {
    r->map_len = o->entries + QG_XSK_FRAMES * entry_size;
    r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, place);
    if (r->map == MAP_FAILED) {
        r->map = NULL;
        return false;
    }
    uint8_t *base = r->map;
    r->producer = (uint32_t *)(void *)(base + o->producer);
    r->consumer = (uint32_t *)(void *)(base + o->consumer);
    r->flags = (uint32_t *)(void *)(base + o->flags);
    r->entries = base + o->entries;
    return true;
}

static void unmap_ring(qg_ring *r) {
    if (r->map != NULL) {
        munmap(r->map, r->map_len);
        r->map = NULL;
    }
}

/* ------------------------------------------------------------- opening */

static bool register_frames(qg_xsk *x) {
    /* Shared: the system writes to these very pages, also after a fork. */
    void *area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) {
        return false;
    }
    x->frames = area;
    struct {
        uint64_t address, len;
        uint32_t frame, headroom, flags, pad;
    } area_of = {(uintptr_t)area, AREA, QG_XSK_FRAME, 0, 0, 0};
    return setsockopt(x->fd, SOL_XDP, UMEM_REG, &area_of, sizeof area_of) == 0;
}

static bool make_rings(qg_xsk *x) {
    static const int rings[] = {UMEM_FILL, UMEM_COMPLETION, RX_RING, TX_RING};
    int size = QG_XSK_FRAMES;
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        if (setsockopt(x->fd, SOL_XDP, rings[i], &size, sizeof size) != 0) {
            return false;
        }
    }
    all_offsets o;
    socklen_t len = sizeof o;
    if (getsockopt(x->fd, SOL_XDP, MMAP_OFFSETS, &o, &len) != 0) {
        return false;
    }
    if (len != sizeof o) { /* before Linux 5.4, which has no need-wakeup flag */
        errno = EOPNOTSUPP;
        return false;
    }
    return map_ring(&x->rx, x->fd, PLACE_RX, &o.rx, sizeof(entry)) &&
           map_ring(&x->tx, x->fd, PLACE_TX, &o.tx, sizeof(entry)) &&
           map_ring(&x->fill, x->fd, PLACE_FILL, &o.fill, sizeof(uint64_t)) &&
           map_ring(&x->completion, x->fd, PLACE_COMPLETION, &o.completion, sizeof(uint64_t));
}

static bool bind_queue(qg_xsk *x, uint32_t interface, uint32_t queue) {
    struct {
        uint16_t family, flags;
        uint32_t interface, queue, shared_fd;
    } at = {AF_XDP, BIND_COPY | BIND_NEED_WAKEUP, interface, queue, 0};
    return bind(x->fd, (const struct sockaddr *)(const void *)&at, sizeof at) == 0;
}

static void configure(const qg_xsk *x) {
    int size = SOCKET_BUFFER, budget = QG_XSK_FRAMES;
    if (setsockopt(x->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) != 0) {
        setsockopt(x->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    }
    /* Frames that one call takes: 32 where this cannot be said. */
    setsockopt(x->fd, SOL_XDP, MAX_TX_BUDGET, &budget, sizeof budget);
}

static void fill_all(qg_xsk *x) {
    for (uint32_t i = 0; i < QG_XSK_FRAMES; i++) {
        *address_at(&x->fill, i) = (uint64_t)i * QG_XSK_FRAME;
        x->free[i] = QG_XSK_FRAMES + i;
    }
    x->free_count = QG_XSK_FRAMES;
    x->fill.own = QG_XSK_FRAMES;
    show(x->fill.producer, x->fill.own);
}

int qg__xsk_open(qg_xsk *x, uint32_t interface, uint32_t queue, const char **step) {
    memset(x, 0, sizeof *x);
    *step = "making an AF_XDP socket";
    x->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (x->fd < 0) {
        return -1;
    }
    *step = "giving it memory";
    bool done = register_frames(x);
    if (done) {
        *step = "making its rings";
        done = make_rings(x);
    }
    if (done) {
        configure(x);
        fill_all(x);
        *step = "binding it to a queue";
        done = bind_queue(x, interface, queue);
    }
    if (!done) {
        int saved = errno;
        qg__xsk_close(x);
        errno = saved;
        return -1;
    }
    return 0;
}

void qg__xsk_close(qg_xsk *x) {
    /* A ring's mapping holds the socket as its descriptor does. */
    unmap_ring(&x->rx);
    unmap_ring(&x->tx);
    unmap_ring(&x->fill);
    unmap_ring(&x->completion);
    if (x->fd >= 0) {
        close(x->fd);
        x->fd = -1;
    }
    if (x->frames != NULL) {
        munmap(x->frames, AREA);
        x->frames = NULL;
    }
}

/* ------------------------------------------------------------- receiving */

uint32_t qg__xsk_available(const qg_xsk *x) {
    return load(x->rx.producer) - x->rx.own;
}

uint8_t *qg__xsk_look(const qg_xsk *x, uint32_t i, uint32_t *len) {
    const entry *e = entry_at(&x->rx, x->rx.own + i);
    uint64_t in_frame = e->address % QG_XSK_FRAME;
    if (e->address / QG_XSK_FRAME >= QG_XSK_FRAMES || e->len > QG_XSK_FRAME - in_frame) {
        return NULL;
    }
    *len = e->len;
    return x->frames + e->address;
}

void qg__xsk_release(qg_xsk *x, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint64_t frame = entry_at(&x->rx, x->rx.own + i)->address / QG_XSK_FRAME;
        *address_at(&x->fill, x->fill.own + i) = frame * QG_XSK_FRAME;
    }
    x->rx.own += count;
    x->fill.own += count;
    show(x->rx.consumer, x->rx.own);
    show(x->fill.producer, x->fill.own);
}

/* ------------------------------------------------------------- sending */

static void take_back(qg_xsk *x) {
    uint32_t end = load(x->completion.producer);
    while (x->completion.own != end) {
        uint64_t frame = *address_at(&x->completion, x->completion.own++) / QG_XSK_FRAME;
        if (frame - QG_XSK_FRAMES < QG_XSK_FRAMES && x->free_count < QG_XSK_FRAMES) {
            x->free[x->free_count++] = (uint32_t)frame;
        }
    }
    show(x->completion.consumer, end);
}

uint8_t *qg__xsk_room(qg_xsk *x) {
    if (x->free_count == 0) {
        take_back(x);
    }
    return x->free_count > 0 ? x->frames + (size_t)x->free[x->free_count - 1] * QG_XSK_FRAME : NULL;
}

void qg__xsk_send(qg_xsk *x, uint32_t len) {
    uint32_t frame = x->free[--x->free_count];
    *entry_at(&x->tx, x->tx.own++) = (entry){(uint64_t)frame * QG_XSK_FRAME, len, 0};
}

static bool is_down(int error) {
    return error == ENETDOWN || error == ENXIO || error == ENODEV;
}

int qg__xsk_flush(qg_xsk *x, qg_counters *counters) {
    show(x->tx.producer, x->tx.own);
    uint32_t taken = load(x->tx.consumer);
    for (int idle = 0; taken != x->tx.own;) {
        int rc = (int)sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);
        int error = errno;
        uint32_t now = load(x->tx.consumer);
        counters->send_calls++;
        take_back(x);
        if (rc < 0 && is_down(error)) {
            x->down = true;
            return QG_SYSTEM;
        }
        idle = now == taken ? idle + 1 : 0;
        taken = now;
        if (idle == IDLE_CALLS) {
            counters->send_blocked++;
            return QG_AGAIN;
        }
    }
    x->down = false;
    take_back(x);
    return QG_OK;
}

qg_xsk_counts qg__xsk_counts(const qg_xsk *x) {
    struct {
        uint64_t dropped, rx_invalid, tx_invalid, ring_full, fill_empty, tx_empty;
    } s = {0};
    socklen_t len = sizeof s; /* the first three are there since the beginning */
    getsockopt(x->fd, SOL_XDP, STATISTICS, &s, &len);
    return (qg_xsk_counts){s.dropped + s.ring_full, s.rx_invalid + s.tx_invalid};
}
