/* xdp.c: the datapath over AF_XDP sockets, with a UDP socket behind it.
 *
 *                 +-- our port, our address, whole --> AF_XDP socket of the queue --+
 *   interface ----|                                                                 |--> receive
 *                 +-- all else --> system --> UDP socket (what is ours of it) ------+
 *
 *   commit -------+-- its neighbour is known and it fits --> AF_XDP socket of the neighbour's queue
 *                 +-- else ------------------------------> UDP socket
 *
 * The UDP socket holds the port, takes what comes by another way (loopback, other interfaces, fragments, frames too
 * long for a buffer), and sends what has no frame's way out: to those who were not heard of yet, and what is
 * larger than the interface carries. */
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf.h"
#include "datapath.h"
#include "neighbours.h"
#include "xsk.h"

/* Queues that get a socket, 8 MiB each. Frames of further ones come by the UDP socket. */
#define QUEUES_MAX 16

/* Buffers that frames of one sender are put together in, as UDP_GRO does: so one receive gives as much. */
#define SLOTS     8
#define SLOT_SIZE 65536

/* Room for a run and what did not fit it, one frame each. */
#define FRAMES_PER_BEGIN (QG_RUN_SEGMENTS_MAX + 1)

/* How often the UDP socket is asked while nothing comes by AF_XDP: a system call, which a process that spins
 * would do nothing else than. */
#define LOOK_NS (20 * QG_NS_PER_US)

/* And when it gets a record of those that AF_XDP could fill. */
#define STARVED_NS (1 * QG_NS_PER_MS)

/* How often the sockets' counts are read. */
#define COUNT_NS (100 * QG_NS_PER_MS)

typedef struct xdp {
    qg_datapath base;
    qg_datapath *udp;
    uint32_t interface;
    uint32_t mtu;
    qg_bpf_match match;
    bool mapped;      /* the UDP socket has IPv4 addresses as IPv6's */
    uint32_t waiting; /* for room to send: a bit for each queue, QUEUES_MAX is the UDP socket's */
    int link;         /* the program on the interface */
    qg_xsk *queues[QUEUES_MAX];
    qg_xsk_counts counted[QUEUES_MAX];
    uint16_t count;
    qg_neighbours *neighbours;
    uint64_t now_ns, looked_ns, counted_ns;
    uint8_t *slots;
    uint8_t *room; /* the UDP socket's, since begin */
    size_t taken;  /* bytes of it that went another way */
} xdp;

/* ------------------------------------------------------------- receiving */

/* Does the frame go on where the last datagram in this buffer ended? */
static bool goes_on(const qg_dgram *d, const qg_eth_frame *f) {
    return d->segment > 0 && d->len % d->segment == 0 && f->len <= d->segment && f->len > 0 &&
           d->len + f->len <= SLOT_SIZE && qg__addr_equal(&d->from, &f->from);
}

/* Is it from an address of ours? Then it is forged, and its sender must not become our neighbour: those who are
 * on this host, and use that address, would be answered there. */
static bool from_us(const xdp *x, const qg_addr *from) {
    uint8_t ip[16];
    bool found = false;
    qg__eth_ip(from, ip);
    for (uint32_t i = 0; i < x->match.v4_count; i++) {
        found |= memcmp(ip + 12, x->match.v4[i], 4) == 0 && qg__eth_v4(from);
    }
    for (uint32_t i = 0; i < x->match.v6_count; i++) {
        found |= memcmp(ip, x->match.v6[i], 16) == 0;
    }
    return found;
}

/* Put what has come on one queue behind what is in `out` already. Returns how many records there are. */
static int take_queue(xdp *x, uint16_t queue, qg_dgram *out, int count, int max) {
    qg_xsk *s = x->queues[queue];
    qg_counters *counters = x->base.counters;
    uint32_t available = qg__xsk_available(s), i = 0;
    int begun = count; /* no frame joins one of another queue */
    for (; i < available; i++) {
        uint32_t len;
        uint8_t *bytes = qg__xsk_look(s, i, &len);
        qg_eth_frame f;
        if (bytes == NULL || !qg__eth_parse(bytes, len, x->mapped, x->interface, &f)) {
            counters->xdp_bad_frames++;
            continue;
        }
        qg_dgram *d = count > begun ? &out[count - 1] : NULL;
        if (d == NULL || !goes_on(d, &f) || (x->base.wildcard && !qg__addr_equal(&d->to, &f.to))) {
            if (from_us(x, &f.from)) {
                counters->xdp_bad_frames++;
                continue;
            }
            if (count == max) {
                break;
            }
            d = &out[count];
            *d = (qg_dgram){x->slots + (size_t)count * SLOT_SIZE, 0, f.len, f.from,
                            x->base.wildcard ? f.to : x->base.local};
            count++;
            qg__neighbours_learn(x->neighbours, &f, queue, x->now_ns);
        }
        memcpy(d->data + d->len, f.payload, f.len);
        d->len += f.len;
        counters->xdp_received++;
        counters->bytes_received += f.len;
    }
    qg__xsk_release(s, i);
    return count;
}

/* A queue that the system has taken from us: its interface is gone. */
static void close_queue(xdp *x, uint16_t queue) {
    epoll_ctl(x->base.fd, EPOLL_CTL_DEL, x->queues[queue]->fd, NULL);
    qg__xsk_close(x->queues[queue]);
    free(x->queues[queue]);
    x->queues[queue] = NULL;
}

/* Ask the system which descriptors are ready. Returns whether the UDP socket is. */
static bool look(xdp *x) {
    struct epoll_event ready[QUEUES_MAX + 1];
    x->looked_ns = x->now_ns;
    int n = epoll_wait(x->base.fd, ready, QUEUES_MAX + 1, 0);
    bool udp = false;
    for (int i = 0; i < n; i++) {
        uint32_t who = ready[i].data.u32;
        if (who == QUEUES_MAX) {
            udp = (ready[i].events & ~(uint32_t)EPOLLOUT) != 0;
        } else if ((ready[i].events & (EPOLLERR | EPOLLHUP)) != 0 && x->queues[who] != NULL) {
            close_queue(x, (uint16_t)who);
        }
    }
    return udp;
}

static int xdp_receive(qg_datapath *dp, qg_dgram *out, int max) {
    xdp *x = (xdp *)dp;
    int count = 0;
    max = max < SLOTS ? max : SLOTS;
    x->now_ns = qg__now_ns();
    int room = x->now_ns - x->looked_ns >= STARVED_NS ? max - 1 : max;
    for (uint16_t q = 0; q < x->count; q++) {
        if (x->queues[q] != NULL && qg__xsk_available(x->queues[q]) > 0) {
            count = take_queue(x, q, out, count, room);
        }
    }
    if (count < max && x->now_ns - x->looked_ns >= LOOK_NS && look(x)) {
        count += x->udp->ops->receive(x->udp, out + count, max - count);
        dp->errors_pending |= x->udp->errors_pending;
    }
    return count;
}

/* ------------------------------------------------------------- sending */

/* Has it too few free frames? One that is down does not count: nothing goes there. */
static bool scarce(const qg_xsk *s) {
    return !s->down && s->free_count < FRAMES_PER_BEGIN;
}

static bool any_scarce(const xdp *x) {
    for (uint16_t q = 0; q < x->count; q++) {
        if (x->queues[q] != NULL && scarce(x->queues[q])) {
            return true;
        }
    }
    return false;
}

static uint8_t *xdp_begin(qg_datapath *dp) {
    xdp *x = (xdp *)dp;
    x->now_ns = qg__now_ns();
    if (!dp->blocked && any_scarce(x)) {
        dp->ops->flush(dp);
    }
    x->room = dp->blocked ? NULL : x->udp->ops->begin(x->udp);
    x->taken = 0;
    dp->blocked = dp->blocked || x->udp->blocked;
    return x->room;
}

/* The neighbour to whom datagrams of this size go in frames. NULL: they go by the UDP socket, as all do while the
 * interface is down: the system knows whether there is another way. */
static const qg_neighbour *neighbour(const xdp *x, size_t segment, const qg_addr *to) {
    if (qg__eth_packet_size(to, segment) > x->mtu || segment + QG_ETH_HEADERS_MAX > QG_XSK_FRAME) {
        return NULL;
    }
    const qg_neighbour *n = qg__neighbours_find(x->neighbours, to, x->now_ns);
    const qg_xsk *s = n != NULL ? x->queues[n->queue] : NULL;
    return s != NULL && !s->down ? n : NULL;
}

/* The address that packets leave from: where none was chosen, the one that the neighbour writes to. */
static const qg_addr *source(const qg_neighbour *n, const qg_addr *from) {
    return qg__eth_any(from) ? &n->local : from;
}

static void send_frames(xdp *x, const qg_neighbour *n, size_t len, size_t segment,
                        const qg_addr *from, const qg_addr *to) {
    qg_xsk *s = x->queues[n->queue];
    for (size_t at = 0; at < len; at += segment) {
        size_t piece = qg__min(segment, len - at);
        uint8_t *frame = qg__xsk_room(s);
        size_t size = frame == NULL ? 0
                                    : qg__eth_write(frame, QG_XSK_FRAME, n->mac, x->match.mac, from,
                                                    to, x->room + x->taken + at, piece);
        if (size == 0) { /* begin saw to the room; a path of two families is none */
            x->base.counters->send_errors++;
            continue;
        }
        qg__xsk_send(s, (uint32_t)size);
        x->base.counters->xdp_sent++;
        x->base.counters->datagrams_sent++;
        x->base.counters->bytes_sent += piece;
    }
}

static void xdp_commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                       const qg_addr *to) {
    xdp *x = (xdp *)dp;
    const qg_neighbour *n = neighbour(x, segment, to);
    if (n != NULL) {
        send_frames(x, n, len, segment, source(n, from), to);
        x->taken += len;
        return;
    }
    if (x->taken > 0) {
        memmove(x->room, x->room + x->taken, len);
    }
    x->udp->ops->commit(x->udp, len, segment, from, to);
    x->room += len;
}

/* What the sockets counted since the last time. */
static void count(xdp *x) {
    x->counted_ns = x->now_ns;
    for (uint16_t q = 0; q < x->count; q++) {
        if (x->queues[q] != NULL) {
            qg_xsk_counts now = qg__xsk_counts(x->queues[q]);
            x->base.counters->xdp_dropped += now.dropped - x->counted[q].dropped;
            x->base.counters->xdp_invalid += now.invalid - x->counted[q].invalid;
            x->counted[q] = now;
        }
    }
}

/* Be woken when these have room to send, too. */
static void wait_for_room(xdp *x, uint32_t who) {
    uint32_t changed = x->waiting ^ who;
    x->waiting = who;
    for (uint32_t i = 0; i <= QUEUES_MAX && changed >> i != 0; i++) {
        int fd = i == QUEUES_MAX ? x->udp->fd : x->queues[i] != NULL ? x->queues[i]->fd : -1;
        if ((changed >> i & 1) != 0) {
            struct epoll_event ev = {.events = EPOLLIN | ((who >> i & 1) != 0 ? EPOLLOUT : 0),
                                     .data.u32 = i};
            epoll_ctl(x->base.fd, EPOLL_CTL_MOD, fd, &ev);
        }
    }
}

static int xdp_flush(qg_datapath *dp) {
    xdp *x = (xdp *)dp;
    uint32_t full = 0;
    for (uint16_t q = 0; q < x->count; q++) {
        qg_xsk *s = x->queues[q];
        int rc = s != NULL ? qg__xsk_flush(s, dp->counters) : QG_OK;
        if (rc == QG_AGAIN || (s != NULL && scarce(s))) {
            full |= UINT32_C(1) << q;
        }
    }
    if (x->udp->ops->flush(x->udp) == QG_AGAIN) {
        full |= UINT32_C(1) << QUEUES_MAX;
    }
    dp->errors_pending |= x->udp->errors_pending;
    if (x->now_ns - x->counted_ns >= COUNT_NS) {
        count(x);
    }
    wait_for_room(x, full);
    dp->blocked = full != 0;
    return dp->blocked ? QG_AGAIN : QG_OK;
}

static int xdp_errors(qg_datapath *dp, qg_unreachable *out, int max) {
    xdp *x = (xdp *)dp;
    int n = x->udp->ops->errors(x->udp, out, max);
    dp->errors_pending = x->udp->errors_pending;
    return n;
}

/* ------------------------------------------------------------- life */

/* All but the UDP socket. */
static void drop(xdp *x) {
    if (x->link >= 0) {
        close(x->link);
    }
    for (uint16_t q = 0; q < x->count; q++) {
        if (x->queues[q] != NULL) {
            qg__xsk_close(x->queues[q]);
            free(x->queues[q]);
        }
    }
    if (x->base.fd >= 0) {
        close(x->base.fd);
    }
    qg__neighbours_free(x->neighbours);
    free(x->slots);
    free(x);
}

qg_datapath *qg__xdp_give_back(qg_datapath *dp) {
    xdp *x = (xdp *)dp;
    qg_datapath *udp = x->udp;
    if (dp->fd >= 0) {
        count(x);
    }
    drop(x);
    return udp;
}

static void xdp_close(qg_datapath *dp) {
    qg_datapath *udp = qg__xdp_give_back(dp);
    udp->ops->close(udp);
}

/* The program, and the sockets, must not outlive our parent because we have them too. */
static void xdp_abandon(qg_datapath *dp) {
    xdp *x = (xdp *)dp;
    close(x->link);
    close(dp->fd);
    for (uint16_t q = 0; q < x->count; q++) {
        if (x->queues[q] != NULL) {
            qg__xsk_close(x->queues[q]);
        }
    }
    x->link = dp->fd = -1;
    x->udp->ops->abandon(x->udp);
}

static const qg_datapath_ops xdp_ops = {"xdp",     xdp_receive, xdp_begin, xdp_commit,
                                        xdp_flush, xdp_errors,  xdp_close, xdp_abandon};

/* ------------------------------------------------------------- opening */

typedef struct opening {
    xdp *x;
    const char *name; /* of the interface */
    char *reason;
    size_t reason_size;
    int result;
} opening;

/* It cannot be had. Returns false. */
__attribute__((format(printf, 3, 4))) static bool refuse(opening *o, int result, const char *format,
                                                         ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(o->reason, o->reason_size, format, arguments);
    va_end(arguments);
    o->result = result;
    return false;
}

/* A system call said why. */
static bool refused(opening *o, const char *step) {
    switch (errno) {
    case EPERM:
    case EACCES:
        return refuse(o, QG_SYSTEM,
                      "%s is not permitted: it needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF", step);
    case EAFNOSUPPORT:
    case ENOSYS:
    case EPROTONOSUPPORT:
        return refuse(o, QG_SYSTEM, "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)");
    case EBUSY:
        return refuse(o, QG_AGAIN, "somebody else has it: %s says that it is busy", step);
    case ENOBUFS:
        return refuse(o, QG_SYSTEM,
                      "%s takes 8 MiB for each queue that must stay in memory: raise "
                      "RLIMIT_MEMLOCK (ulimit -l), or give CAP_IPC_LOCK",
                      step);
    default:
        return refuse(o, QG_SYSTEM, "%s failed: %s", step, strerror(errno));
    }
}

static bool look_at_interface(opening *o) {
    xdp *x = o->x;
    struct ifreq request = {0};
    x->interface = if_nametoindex(o->name);
    if (x->interface == 0 || strlen(o->name) >= sizeof request.ifr_name) {
        return refuse(o, QG_INVALID, "there is no such interface");
    }
    memcpy(request.ifr_name, o->name, strlen(o->name));
    if (ioctl(x->udp->fd, SIOCGIFFLAGS, &request) != 0) {
        return refused(o, "asking what it is");
    }
    if ((request.ifr_flags & IFF_LOOPBACK) != 0) {
        return refuse(o, QG_INVALID, "a loopback interface has no other side to take frames from");
    }
    if (ioctl(x->udp->fd, SIOCGIFMTU, &request) != 0) {
        return refused(o, "asking for its MTU");
    }
    x->mtu = (uint32_t)request.ifr_mtu;
    if (ioctl(x->udp->fd, SIOCGIFHWADDR, &request) != 0) {
        return refused(o, "asking for its MAC address");
    }
    if (request.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
        return refuse(o, QG_INVALID, "its frames are not Ethernet's");
    }
    memcpy(x->match.mac, request.ifr_hwaddr.sa_data, QG_MAC_LEN);
    return true;
}

static void add_address(qg_bpf_match *m, const uint8_t ip[16], bool v4) {
    uint32_t *count = v4 ? &m->v4_count : &m->v6_count;
    if (*count < QG_BPF_ADDRESSES_MAX) {
        memcpy(v4 ? m->v4[*count] : m->v6[*count], v4 ? ip + 12 : ip, v4 ? 4 : 16);
        ++*count;
    }
}

/* The interface's addresses that the UDP socket serves. */
static bool find_addresses(opening *o) {
    const qg_datapath *udp = o->x->udp;
    const struct sockaddr_in *bound = (const struct sockaddr_in *)(const void *)udp->local.bytes;
    bool v6_socket = bound->sin_family == AF_INET6;
    int v6only = 0;
    socklen_t len = sizeof v6only;
    getsockopt(udp->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, &len);
    uint8_t own[16], ip[16];
    qg__eth_ip(&udp->local, own);
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0) {
        return refused(o, "asking for its addresses");
    }
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        int family = a->ifa_addr != NULL ? a->ifa_addr->sa_family : AF_UNSPEC;
        if (strcmp(a->ifa_name, o->name) != 0 || (family != AF_INET && family != AF_INET6) ||
            (family == AF_INET6 && !v6_socket) || (family == AF_INET && v6_socket && v6only)) {
            continue;
        }
        qg_addr address = {0};
        address.len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(address.bytes, a->ifa_addr, address.len);
        qg__eth_ip(&address, ip);
        if (qg__eth_any(&udp->local) || memcmp(ip, own, sizeof ip) == 0) {
            add_address(&o->x->match, ip, family == AF_INET);
        }
    }
    freeifaddrs(all);
    qg_bpf_match *match = &o->x->match;
    o->x->mapped = v6_socket;
    match->port = ntohs(bound->sin_port);
    match->frame_end = QG_XSK_RECEIVE_MAX + 1;
    return match->v4_count + match->v6_count > 0 ||
           refuse(o, QG_INVALID, "it has no address that is served here");
}

/* A socket for each queue, until there is none. */
static bool open_queues(opening *o, int sockets) {
    xdp *x = o->x;
    for (uint16_t q = 0; q < QUEUES_MAX; q++) {
        const char *step = "memory";
        qg_xsk *s = malloc(sizeof *s);
        if (s == NULL || qg__xsk_open(s, x->interface, q, &step) != 0) {
            free(s);
            return (q > 0 && errno == EINVAL) || refused(o, step);
        }
        x->queues[x->count++] = s;
        if (qg__bpf_set_socket(sockets, q, s->fd) != 0) {
            return refused(o, "entering a socket for its queue");
        }
    }
    return true;
}

static bool watch(const xdp *x) {
    struct epoll_event ev = {.events = EPOLLIN, .data.u32 = QUEUES_MAX};
    bool done = epoll_ctl(x->base.fd, EPOLL_CTL_ADD, x->udp->fd, &ev) == 0;
    for (uint16_t q = 0; q < x->count && done; q++) {
        ev.data.u32 = q;
        done = epoll_ctl(x->base.fd, EPOLL_CTL_ADD, x->queues[q]->fd, &ev) == 0;
    }
    return done;
}

static bool attach(opening *o, int sockets, bool native) {
    xdp *x = o->x;
    x->match.summed = !native;
    int program = qg__bpf_program(sockets, &x->match);
    if (program < 0) {
        return refused(o, "loading a program");
    }
    x->link = qg__bpf_attach(program, x->interface, native);
    int error = errno;
    close(program); /* the link holds it */
    errno = error;
    return x->link >= 0 || refused(o, "attaching a program");
}

static bool open_all(opening *o) {
    int sockets = qg__bpf_sockets(QUEUES_MAX);
    bool done = sockets >= 0 || refused(o, "making a map of sockets");
    done = done && open_queues(o, sockets) && (watch(o->x) || refused(o, "watching its sockets"));
    if (done) { /* last: from here on frames come */
        done = attach(o, sockets, true);
        if (done) {
            o->x->base.capabilities |= QG_CAP_XDP_NATIVE;
        } else if (errno != EBUSY && errno != EPERM) {
            done = attach(o, sockets, false);
        }
    }
    if (sockets >= 0) {
        close(sockets);
    }
    return done;
}

qg_datapath *qg__xdp_open(qg_datapath *udp, const char *interface, char *reason, size_t size,
                          int *result) {
    xdp *x = calloc(1, sizeof *x);
    *result = QG_NOMEM;
    snprintf(reason, size, "there is no memory for it");
    if (x == NULL) {
        return NULL;
    }
    x->base = *udp;
    x->base.ops = &xdp_ops;
    x->base.capabilities |= QG_CAP_XDP;
    x->base.fd = epoll_create1(EPOLL_CLOEXEC);
    x->udp = udp;
    x->link = -1;
    x->neighbours = qg__neighbours_new();
    x->slots = malloc((size_t)SLOTS * SLOT_SIZE);
    opening o = {.x = x, .name = interface, .reason = reason, .reason_size = size};
    if (x->base.fd < 0 || x->neighbours == NULL || x->slots == NULL || !look_at_interface(&o) ||
        !find_addresses(&o) || !open_all(&o)) {
        *result = o.result != 0 ? o.result : *result;
        drop(x);
        return NULL;
    }
    *result = QG_OK;
    return &x->base;
}
