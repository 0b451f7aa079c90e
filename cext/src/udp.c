/* udp.c: the datapath over a UDP socket: recvmmsg with UDP_GRO in, sendmmsg with UDP_SEGMENT out.
 *
 * Every feature of the system is asked for once and done without where it is not to be had: an old
 * kernel, a container or a network card may lack any of them. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "datapath.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* With UDP_GRO one buffer takes up to 64 KiB of one flow, so eight are half a megabyte: they stay
 * in the second-level cache, and a turn is never longer than that. */
#define RX_SLOTS  8
#define SLOT_SIZE 65536

/* Runs that wait for one sendmmsg. Half the arena would mean twice the calls when many connections
 * send at once; double would gain nothing, since the call's own cost is spread over 256 messages.
 */
#define TX_RUNS  256
#define TX_BYTES (8 * SLOT_SIZE)

/* What to ask of the system: four megabytes hold 3 ms of a 10 Gbit/s burst. */
#define SOCKET_BUFFER (4 << 20)

#define RX_CONTROL 128
#define TX_CONTROL 64

typedef struct udp {
    qg_datapath base;
    int family;
    uint32_t overflows; /* SO_RXQ_OVFL's last value */
    uint8_t *rx;
    struct mmsghdr rx_msg[RX_SLOTS];
    struct iovec rx_iov[RX_SLOTS];
    qg_addr rx_from[RX_SLOTS];
    uint8_t rx_control[RX_SLOTS][RX_CONTROL];

    uint8_t *tx;
    size_t tx_used;
    unsigned runs, next_run; /* committed; the first one not yet sent */
    struct mmsghdr tx_msg[TX_RUNS];
    struct iovec tx_iov[TX_RUNS];
    qg_addr tx_to[TX_RUNS];
    uint16_t tx_segment[TX_RUNS];
    uint8_t tx_control[TX_RUNS][TX_CONTROL];

    /* A destination the system itself refused (no route and its like). */
    qg_unreachable refused;
} udp;

/* ------------------------------------------------------------- receiving */

/* What recvmsg says beside the bytes. */
static void read_control(udp *u, struct msghdr *msg, qg_dgram *d) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            d->segment = (uint32_t)segment;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            ((struct sockaddr_in *)(void *)d->to.bytes)->sin_addr = info.ipi_addr;
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            struct sockaddr_in6 *to = (struct sockaddr_in6 *)(void *)d->to.bytes;
            to->sin6_addr = info.ipi6_addr;
            to->sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
            uint32_t total;
            memcpy(&total, CMSG_DATA(c), sizeof total);
            u->base.counters->receive_overflows += total - u->overflows;
            u->overflows = total;
        }
    }
}

static int udp_receive(qg_datapath *dp, qg_dgram *out, int max) {
    udp *u = (udp *)dp;
    if (max > RX_SLOTS) {
        max = RX_SLOTS;
    }
    for (int i = 0; i < max; i++) {
        struct msghdr *m = &u->rx_msg[i].msg_hdr;
        m->msg_namelen = sizeof u->rx_from[i].bytes;
        m->msg_controllen = RX_CONTROL;
    }
    int n;
    do {
        n = recvmmsg(dp->fd, u->rx_msg, (unsigned)max, MSG_DONTWAIT, NULL);
        /* An ICMP error of an earlier send is reported once, here or at the next send. */
        dp->errors_pending |= n < 0 && errno != EAGAIN && errno != EINTR;
    } while (n < 0 && (errno == EINTR || errno == ECONNREFUSED || errno == EHOSTUNREACH ||
                       errno == ENETUNREACH || errno == EMSGSIZE));
    dp->counters->receive_calls++;
    if (n <= 0) {
        return 0;
    }
    for (int i = 0; i < n; i++) {
        struct msghdr *m = &u->rx_msg[i].msg_hdr;
        qg_dgram *d = &out[i];
        d->data = u->rx_iov[i].iov_base;
        d->len = d->segment = u->rx_msg[i].msg_len;
        d->from = u->rx_from[i];
        d->from.len = m->msg_namelen;
        d->to = dp->local;
        read_control(u, m, d);
        dp->counters->bytes_received += d->len;
        dp->counters->datagrams_cut += (m->msg_flags & MSG_TRUNC) != 0;
    }
    return n;
}

/* ------------------------------------------------------------- sending */

static uint8_t *udp_begin(qg_datapath *dp) {
    udp *u = (udp *)dp;
    /* Two runs may be committed to one room. */
    if (!dp->blocked && (u->runs + 2 > TX_RUNS || TX_BYTES - u->tx_used < QG_RUN_MAX)) {
        dp->ops->flush(dp);
    }
    return dp->blocked ? NULL : u->tx + u->tx_used;
}

static void *add_control(struct msghdr *m, int level, int type, size_t len) {
    struct cmsghdr *c = (struct cmsghdr *)(void *)((uint8_t *)m->msg_control + m->msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    m->msg_controllen += CMSG_SPACE(len);
    memset(CMSG_DATA(c), 0, len);
    return CMSG_DATA(c);
}

/* On a wildcard socket, leave from the address that the peer wrote to. */
static void set_source(struct msghdr *m, const qg_addr *from) {
    const struct sockaddr *sa = (const struct sockaddr *)(const void *)from->bytes;
    if (sa->sa_family == AF_INET) {
        struct in_pktinfo *info = add_control(m, IPPROTO_IP, IP_PKTINFO, sizeof *info);
        info->ipi_spec_dst = ((const struct sockaddr_in *)(const void *)sa)->sin_addr;
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)sa;
        struct in6_pktinfo *info = add_control(m, IPPROTO_IPV6, IPV6_PKTINFO, sizeof *info);
        info->ipi6_addr = in6->sin6_addr;
        info->ipi6_ifindex = in6->sin6_scope_id;
    }
}

static void udp_commit(qg_datapath *dp, size_t len, size_t segment, const qg_addr *from,
                       const qg_addr *to) {
    udp *u = (udp *)dp;
    unsigned i = u->runs++;
    struct msghdr *m = &u->tx_msg[i].msg_hdr;
    u->tx_iov[i] = (struct iovec){u->tx + u->tx_used, len};
    u->tx_to[i] = *to;
    u->tx_segment[i] = (uint16_t)segment;
    *m = (struct msghdr){.msg_name = u->tx_to[i].bytes,
                         .msg_namelen = to->len,
                         .msg_iov = &u->tx_iov[i],
                         .msg_iovlen = 1,
                         .msg_control = u->tx_control[i]};
    if (dp->wildcard) {
        set_source(m, from);
    }
    if (len > segment) {
        uint16_t *size = add_control(m, SOL_UDP, UDP_SEGMENT, sizeof *size);
        *size = (uint16_t)segment;
    }
    if (m->msg_controllen == 0) {
        m->msg_control = NULL;
    }
    u->tx_used += len;
    uint64_t datagrams = (len + segment - 1) / segment;
    dp->counters->datagrams_sent += datagrams;
    dp->counters->bytes_sent += len;
    if (datagrams > 1) {
        dp->counters->send_segmented += datagrams;
    }
}

/* The system cannot cut this run after all: send its datagrams one by one. */
static void send_pieces(udp *u, unsigned i) {
    struct msghdr m = u->tx_msg[i].msg_hdr;
    m.msg_control = NULL;
    m.msg_controllen = 0;
    struct iovec whole = u->tx_iov[i];
    struct iovec piece = {whole.iov_base, 0};
    m.msg_iov = &piece;
    size_t segment = u->tx_segment[i];
    for (size_t at = 0; at < whole.iov_len; at += segment) {
        piece.iov_base = (uint8_t *)whole.iov_base + at;
        piece.iov_len = qg__min(segment, whole.iov_len - at);
        u->base.counters->send_calls++;
        if (sendmsg(u->base.fd, &m, MSG_DONTWAIT) < 0) {
            u->base.counters->send_errors++; /* as if lost on the way */
        }
    }
}

/* The first run not sent failed with `error`. Returns false when sending must pause. */
static bool send_failed(udp *u, int error, bool *retried) {
    unsigned i = u->next_run;
    bool segmented = u->tx_iov[i].iov_len > u->tx_segment[i];
    if (error == EAGAIN || error == ENOBUFS) {
        u->base.counters->send_blocked++;
        return false;
    }
    if (error == EINTR) {
        return true;
    }
    if (segmented && (error == EIO || error == EINVAL || error == EOPNOTSUPP)) {
        /* EIO: the card cannot checksum segments. Not asked for again on this socket. */
        u->base.capabilities &= ~(uint32_t)QG_CAP_GSO;
        send_pieces(u, i);
        u->next_run++;
        return true;
    }
    if ((error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH) && !*retried) {
        *retried = true; /* perhaps the report of an earlier send: see errors() */
        u->base.errors_pending = true;
        return true;
    }
    *retried = false;
    u->base.counters->send_errors++;
    if (error != EMSGSIZE) { /* which is path MTU discovery's everyday answer */
        u->refused = (qg_unreachable){u->tx_to[i], error};
        u->base.errors_pending = true;
    }
    u->next_run++; /* lost, like any datagram may be */
    return true;
}

static int udp_flush(qg_datapath *dp) {
    udp *u = (udp *)dp;
    bool retried = false;
    dp->blocked = false;
    while (u->next_run < u->runs) {
        int n = sendmmsg(dp->fd, u->tx_msg + u->next_run, u->runs - u->next_run, MSG_DONTWAIT);
        dp->counters->send_calls++;
        if (n > 0) {
            u->next_run += (unsigned)n;
            retried = false;
        } else if (n < 0 && !send_failed(u, errno, &retried)) {
            dp->blocked = true;
            return QG_AGAIN;
        }
    }
    u->runs = u->next_run = 0;
    u->tx_used = 0;
    return QG_OK;
}

/* ------------------------------------------------------------- errors */

static int udp_errors(qg_datapath *dp, qg_unreachable *out, int max) {
    udp *u = (udp *)dp;
    int count = 0;
    dp->errors_pending = false;
    if (u->refused.error != 0 && count < max) {
        out[count++] = u->refused;
        u->refused.error = 0;
    }
    while (count < max) {
        uint8_t control[256];
        uint8_t byte;
        struct iovec iov = {&byte, sizeof byte};
        qg_addr to = {0};
        struct msghdr m = {.msg_name = to.bytes,
                           .msg_namelen = sizeof to.bytes,
                           .msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof control};
        if (recvmsg(dp->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            break;
        }
        to.len = m.msg_namelen;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c != NULL; c = CMSG_NXTHDR(&m, c)) {
            bool ours = (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR) ||
                        (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR);
            if (!ours) {
                continue;
            }
            struct sock_extended_err e;
            memcpy(&e, CMSG_DATA(c), sizeof e);
            bool icmp = e.ee_origin == SO_EE_ORIGIN_ICMP || e.ee_origin == SO_EE_ORIGIN_ICMP6;
            dp->counters->icmp_errors += icmp;
            if (icmp && e.ee_errno != EMSGSIZE) {
                out[count++] = (qg_unreachable){to, (int)e.ee_errno};
            }
            break;
        }
    }
    dp->errors_pending = count == max;
    return count;
}

/* ------------------------------------------------------------- opening */

static void on(int fd, int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value); /* done without where refused */
}

static uint32_t ask_buffer(int fd, int force, int polite, int option) {
    int size = SOCKET_BUFFER;
    if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof size) != 0) {
        setsockopt(fd, SOL_SOCKET, polite, &size, sizeof size);
    }
    int got = 0;
    socklen_t len = sizeof got;
    getsockopt(fd, SOL_SOCKET, option, &got, &len);
    return (uint32_t)got;
}

static void configure(udp *u) {
    int fd = u->base.fd;
    bool v6 = u->family == AF_INET6;
    int one = 1, zero = 0;
    socklen_t len = sizeof zero;
    uint32_t caps = 0;
    if (setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one) == 0) {
        caps |= QG_CAP_GRO;
    }
    if (getsockopt(fd, SOL_UDP, UDP_SEGMENT, &zero, &len) == 0) {
        caps |= QG_CAP_GSO;
    }
    /* An IPv6 socket may carry IPv4 too, so it gets both families' options. */
    bool recverr = setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof one) == 0;
    if (v6) {
        recverr = setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof one) == 0;
    }
    caps |= recverr ? QG_CAP_RECVERR : 0;
    int probe = IP_PMTUDISC_PROBE, probe6 = IPV6_PMTUDISC_PROBE;
    bool pmtud = setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe) == 0;
    if (v6) {
        pmtud = setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &probe6, sizeof probe6) == 0;
    }
    caps |= pmtud ? QG_CAP_PMTUD : 0;
    on(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
    if (u->base.wildcard) {
        on(fd, IPPROTO_IP, IP_PKTINFO, 1);
        if (v6) {
            on(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
        }
    }
    u->base.receive_buffer = ask_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, SO_RCVBUF);
    u->base.send_buffer = ask_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SO_SNDBUF);
    if (u->base.receive_buffer >= SOCKET_BUFFER && u->base.send_buffer >= SOCKET_BUFFER) {
        caps |= QG_CAP_BUFFERS;
    }
    u->base.capabilities = caps;
}

static bool is_wildcard(const qg_addr *a) {
    static const uint8_t none[16];
    const struct sockaddr *sa = (const struct sockaddr *)(const void *)a->bytes;
    return sa->sa_family == AF_INET6 ? memcmp(a->bytes + 8, none, 16) == 0
                                     : memcmp(a->bytes + 4, none, 4) == 0;
}

static int bound_socket(const qg_addr *bind_to, uint32_t flags) {
    const struct sockaddr *sa = (const struct sockaddr *)(const void *)bind_to->bytes;
    int fd = socket(sa->sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (sa->sa_family == AF_INET6) {
        on(fd, IPPROTO_IPV6, IPV6_V6ONLY, (flags & QG_ENDPOINT_V6ONLY) != 0);
    }
    if ((flags & QG_ENDPOINT_SHARED) != 0) {
        on(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (bind(fd, sa, bind_to->len) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static void udp_close(qg_datapath *dp) {
    udp *u = (udp *)dp;
    if (dp->fd >= 0) {
        close(dp->fd);
    }
    free(u->rx);
    free(u->tx);
    free(u);
}

static void udp_abandon(qg_datapath *dp) {
    close(dp->fd);
    dp->fd = -1;
}

static const qg_datapath_ops udp_ops = {"udp",     udp_receive, udp_begin, udp_commit,
                                        udp_flush, udp_errors,  udp_close, udp_abandon};

/* Is the descriptor that was given a UDP socket with a port? */
static bool is_bound_udp(int fd) {
    struct sockaddr_storage local = {0};
    socklen_t len = sizeof local;
    int type = 0, protocol = 0;
    socklen_t type_len = sizeof type, protocol_len = sizeof protocol;
    return getsockname(fd, (struct sockaddr *)&local, &len) == 0 &&
           (local.ss_family == AF_INET || local.ss_family == AF_INET6) &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 && type == SOCK_DGRAM &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &protocol_len) == 0 &&
           protocol == IPPROTO_UDP && ((struct sockaddr_in *)&local)->sin_port != 0;
}

static void give_up(udp *u, int fd, int result, int *out) {
    int saved = errno;
    if (fd >= 0) {
        close(fd);
    }
    if (u != NULL) {
        free(u->rx);
        free(u->tx);
    }
    free(u);
    errno = saved;
    *out = result;
}

qg_datapath *qg__udp_open(const qg_addr *bind_to, uint32_t flags, int fd, qg_counters *counters,
                          int *result) {
    udp *u = calloc(1, sizeof *u);
    if (u == NULL || (u->rx = malloc(RX_SLOTS * SLOT_SIZE)) == NULL ||
        (u->tx = malloc(TX_BYTES)) == NULL) {
        give_up(u, fd, QG_NOMEM, result);
        return NULL;
    }
    if (fd >= 0 && !is_bound_udp(fd)) {
        give_up(u, fd, QG_INVALID, result);
        return NULL;
    }
    u->base = (qg_datapath){.ops = &udp_ops, .counters = counters, .fd = fd};
    if (fd < 0) {
        u->base.fd = bound_socket(bind_to, flags);
    }
    socklen_t len = sizeof u->base.local.bytes;
    if (u->base.fd < 0 ||
        getsockname(u->base.fd, (struct sockaddr *)(void *)u->base.local.bytes, &len) != 0) {
        give_up(u, u->base.fd, QG_SYSTEM, result);
        return NULL;
    }
    u->base.local.len = len;
    u->family = ((const struct sockaddr *)(const void *)u->base.local.bytes)->sa_family;
    u->base.wildcard = is_wildcard(&u->base.local);
    configure(u);
    for (int i = 0; i < RX_SLOTS; i++) {
        u->rx_iov[i] = (struct iovec){u->rx + i * SLOT_SIZE, SLOT_SIZE};
        u->rx_msg[i].msg_hdr = (struct msghdr){.msg_name = u->rx_from[i].bytes,
                                               .msg_iov = &u->rx_iov[i],
                                               .msg_iovlen = 1,
                                               .msg_control = u->rx_control[i]};
    }
    *result = QG_OK;
    return &u->base;
}
