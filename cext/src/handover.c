#include "handover.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE 65536
#define RECORD  (4 + 2 * sizeof(qg_addr))

/* Of a slot's `local_socket`: the name is five hexadecimal digits. */
#define OPEN      (UINT64_C(1) << 63)
#define NAME_BITS 20

static uint64_t word_of(uint32_t number, uint32_t generation) {
    return OPEN | (uint64_t)generation << NAME_BITS | number;
}

/* ---------------------------------------------------------------- life */

/* Have the kernel choose a name. Its number, or -1. */
static int64_t bind_anywhere(int fd) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    socklen_t len = sizeof at.sun_family;
    if (bind(fd, (struct sockaddr *)&at, len) != 0) {
        return -1;
    }
    len = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
        return -1;
    }
    char digits[8] = {0};
    memcpy(digits, at.sun_path + 1, 5);
    return strtol(digits, NULL, 16);
}

int qg__handover_open(qg_handover *h, qg_group *group, uint32_t slot, uint8_t generation,
                      qg_counters *counters) {
    int one = 1;
    *h = (qg_handover){.group = group,
                       .counters = counters,
                       .slot = slot,
                       .generation = generation,
                       .fd = -1,
                       .out = malloc(MESSAGE),
                       .in = malloc(MESSAGE)};
    if (h->out == NULL || h->in == NULL) {
        qg__handover_close(h, true);
        return QG_NOMEM;
    }
    h->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int64_t name = -1;
    if (h->fd >= 0 && setsockopt(h->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) == 0) {
        name = bind_anywhere(h->fd);
    }
    if (name < 0) {
        int number = errno;
        qg__handover_close(h, true);
        errno = number;
        return QG_SYSTEM;
    }
    group->slots[slot].local_socket = word_of((uint32_t)name, generation);
    return QG_OK;
}

void qg__handover_close(qg_handover *h, bool forked) {
    if (h->fd >= 0) {
        if (!forked && qg__life_generation(h->group->slots[h->slot].life) == h->generation) {
            h->group->slots[h->slot].local_socket = 0;
        }
        close(h->fd);
        h->fd = -1;
    }
    free(h->out);
    free(h->in);
    h->out = h->in = NULL;
}

/* ---------------------------------------------------------------- sending */

static void forget(qg_handover *h) {
    h->counters->handed_over_lost += h->out_count;
    h->out_count = 0;
    h->out_len = 0;
}

void qg__handover_add(qg_handover *h, uint32_t slot, const uint8_t *packet, size_t len,
                      const qg_addr *from, const qg_addr *to) {
    if (RECORD + len > MESSAGE) {
        h->counters->handed_over_lost++;
        return;
    }
    if (h->out_count > 0 && (h->to != slot || h->out_len + RECORD + len > MESSAGE)) {
        qg__handover_flush(h);
        forget(h); /* what is left of it found no room there */
    }
    uint8_t *at = h->out + h->out_len;
    qg__put32(at, (uint32_t)len);
    memcpy(at + 4, from, sizeof *from);
    memcpy(at + 4 + sizeof *from, to, sizeof *to);
    memcpy(at + RECORD, packet, len);
    h->out_len += RECORD + len;
    h->out_count++;
    h->to = slot;
    h->to_life = h->group->slots[slot].life;
}

/* Nobody has the socket that this worker wrote into its slot: it is gone. True when nobody had noticed. */
static bool mark_dead(const qg_handover *h) {
    uint64_t life = h->to_life;
    return qg__life_state(life) != QG_WORKER_DEAD && qg__life_state(life) != QG_WORKER_FREE &&
           atomic_compare_exchange_strong(&h->group->slots[h->to].life, &life,
                                          (life & ~UINT64_C(0xff)) | QG_WORKER_DEAD);
}

/* The socket's name, if it is of the life that the packets are for. */
static bool find_socket(const qg_handover *h, struct sockaddr_un *to) {
    uint64_t word = h->group->slots[h->to].local_socket;
    uint32_t number = word & ((1u << NAME_BITS) - 1);
    *to = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(to->sun_path + 1, 6, "%05x", number);
    return word == word_of(number, qg__life_generation(h->to_life));
}

int qg__handover_flush(qg_handover *h) {
    struct sockaddr_un to;
    if (h->out_count == 0) {
        return -1;
    }
    bool open = find_socket(h, &to);
    ssize_t n = open ? sendto(h->fd, h->out, h->out_len, MSG_DONTWAIT, (struct sockaddr *)&to,
                              offsetof(struct sockaddr_un, sun_path) + 6)
                     : -1;
    if (open && n < 0 && errno == EAGAIN) {
        return -1; /* kept: it grows, and leaves when there is room */
    }
    bool refused = open && n < 0 && errno == ECONNREFUSED;
    if (n == (ssize_t)h->out_len) {
        h->counters->handed_over += h->out_count;
        h->out_count = 0;
        h->out_len = 0;
    }
    forget(h);
    return refused && mark_dead(h) ? (int)h->to : -1;
}

/* ---------------------------------------------------------------- receiving */

/* Is it from a process of our user? */
static bool is_trusted(struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            return who.uid == 0 || who.uid == getuid();
        }
    }
    return false;
}

bool qg__handover_receive(qg_handover *h) {
    for (;;) {
        _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct ucred)) + 64];
        struct iovec iov = {h->in, MESSAGE};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof control};
        ssize_t n = recvmsg(h->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0 && is_trusted(&m)) {
            h->in_len = (size_t)n;
            h->in_at = 0;
            return true;
        }
    }
}

/* quiche ends the process when it is given an address of another form. */
static bool is_address(const qg_addr *a) {
    sa_family_t family;
    memcpy(&family, a->bytes, sizeof family);
    return (family == AF_INET && a->len == sizeof(struct sockaddr_in)) ||
           (family == AF_INET6 && a->len == sizeof(struct sockaddr_in6));
}

bool qg__handover_next(qg_handover *h, qg_dgram *out) {
    if (h->in_len - h->in_at < RECORD) {
        return false;
    }
    uint8_t *at = h->in + h->in_at;
    uint32_t len = qg__get32(at);
    *out = (qg_dgram){.data = at + RECORD, .len = len, .segment = len};
    memcpy(&out->from, at + 4, sizeof out->from);
    memcpy(&out->to, at + 4 + sizeof out->from, sizeof out->to);
    if (len == 0 || len > h->in_len - h->in_at - RECORD || !is_address(&out->from) ||
        !is_address(&out->to)) {
        return false;
    }
    h->in_at += RECORD + len;
    h->counters->handed_in++;
    return true;
}
