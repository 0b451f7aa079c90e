#include "engine.h"

#include <errno.h>
#include <net/if.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "member.h"
#include "qlog.h"
#include "qpack.h"

/* A turn takes this many buffers from a socket, each up to 64 KiB of one flow, and then lets the
 * application run. Fewer starve acknowledgements of a fast sender; more make greenlets wait. */
#define ROUNDS      4
#define PER_ROUND   8
#define ERRORS_MAX  16
#define EPOLL_BATCH 32

/* Messages of other workers that a turn takes, each up to 64 KiB. */
#define HANDED_OVER_MAX 8

/* How soon to try again when another worker's socket is full: nobody tells when it is not. */
#define HAND_OVER_AGAIN_NS (1 * QG_NS_PER_MS)

/* Packets a turn sends. What is left goes in the next one, after acknowledgements were read: a
 * large window sent at once overruns the receiver's socket buffer. */
#define FLUSH_PACKETS 2048

/* Packets one connection sends before the next one's turn. */
#define FLUSH_SHARE 128

/* The largest head and its inline body, and what was read with it. */
#define ROOM_BYTES(config) ((config)->limits.size + QG_HEAD_SLACK + QG_INLINE_BODY + QG_HEAD_CHUNK)

/* Records a step of one connection may fill. */
#define ROOM_PER_STEP 4

#define FIELD_SECTION_MAX (256u << 10) /* what config.c allows */

/* ------------------------------------------------------------- life */

void qg_engine_defaults(qg_engine_options *o) {
    *o = (qg_engine_options){
        .abi = QG_ABI,
        .events = 4096,          /* a quarter of a megabyte; a drain that fills it goes on later */
        .event_bytes = 2u << 20, /* room for several heads of the largest size */
        .submissions = 1024,
        .submission_bytes = 1u << 20,
        .max_connections = 1u << 20,
        .trace_fd = -1,
    };
}

static bool init_memory(qg_engine *e, const qg_engine_options *o) {
    e->submissions = calloc(o->submissions, sizeof *e->submissions);
    e->submission_arena = malloc(o->submission_bytes);
    e->scratch = malloc(2 * (FIELD_SECTION_MAX + QG_HEAD_SLACK));
    e->io = malloc(QG_IO_BYTES);
    e->submission_capacity = o->submissions;
    e->submission_bytes = o->submission_bytes;
    return qg__events_init(&e->events, o->events, o->event_bytes) && e->submissions != NULL &&
           e->submission_arena != NULL && e->scratch != NULL && e->io != NULL;
}

static int init_descriptors(qg_engine *e) {
    e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    e->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    if (e->epoll_fd < 0 || e->timer_fd < 0 ||
        epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->timer_fd, &ev) != 0) {
        return QG_SYSTEM;
    }
    if (e->group == NULL) {
        return QG_OK;
    }
    qg_cid_origin self = e->cids.origin;
    int rc = qg__handover_open(&e->handover, e->group, self.slot, self.generation, e->counters);
    ev.data.ptr = &e->handover;
    if (rc == QG_OK && epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, e->handover.fd, &ev) != 0) {
        rc = QG_SYSTEM;
    }
    return rc;
}

static bool options_valid(const qg_engine_options *o) {
    return o->abi == QG_ABI && o->events >= 64 && o->event_bytes >= 2 * FIELD_SECTION_MAX &&
           o->submissions >= 16 && o->submission_bytes >= 2 * QG_BODY_INLINE_MAX &&
           o->max_connections > 0;
}

qg_engine *qg_engine_new(const qg_engine_options *o, int *error) {
    qg_engine *e = options_valid(o) ? calloc(1, sizeof *e) : NULL;
    if (e == NULL || !qg__member_join(e, o)) {
        *error = options_valid(o) && e == NULL ? QG_NOMEM : QG_INVALID;
        free(e);
        return NULL;
    }
    uint8_t secret[16];
    RAND_bytes(secret, sizeof secret);
    qg__hash_init(&e->initial_cids, secret);
    qg__pool_init(&e->conn_pool, sizeof(qg_conn), 16);
    qg__pool_init(&e->stream_pool, sizeof(qg_stream), 64);
    qg__pool_init(&e->pending_pool, sizeof(qg_pending), 32);
    qg__link_init(&e->work);
    qg__link_init(&e->dirty);
    qg__link_init(&e->failed);
    e->epoll_fd = e->timer_fd = e->handover.fd = -1;
    qg__link_init(&e->qlogs);
    e->trace_fd = o->trace_fd;
    e->slot_free = UINT32_MAX;
    e->max_connections = o->max_connections;
    e->armed_ns = QG_NEVER;
    memset(e->client_endpoints, 0xff, sizeof e->client_endpoints);
    e->client_xdp = -1;
    e->keys = qg__member_keys(o);
    int rc = e->keys != NULL && init_memory(e, o) ? init_descriptors(e) : QG_NOMEM;
    if (rc < 0) {
        int saved = errno;
        qg_engine_free(e);
        errno = saved;
        *error = rc;
        return NULL;
    }
    e->now_ns = qg__now_ns();
    *error = QG_OK;
    return e;
}

static void drop_failed(qg_engine *e, qg_pending *p) {
    qg__link_remove(&p->link);
    free(p->bytes);
    qg__pool_put(&e->pending_pool, p);
}

void qg_engine_free(qg_engine *e) {
    if (e == NULL) {
        return;
    }
    for (uint32_t i = 0; i < e->slot_capacity; i++) {
        if (e->slots[i].conn != NULL) {
            qg__conn_free(e->slots[i].conn);
        }
    }
    qg__qlogs_free(e);
    for (int i = 0; i < e->endpoint_count; i++) {
        if (e->endpoints[i] != NULL) {
            qg__endpoint_free(e->endpoints[i]);
        }
    }
    while (!qg__link_alone(&e->failed)) {
        drop_failed(e, QG_CONTAINER(e->failed.next, qg_pending, link));
    }
    if (e->epoll_fd >= 0) {
        close(e->epoll_fd);
    }
    if (e->timer_fd >= 0) {
        close(e->timer_fd);
    }
    qg__handover_close(&e->handover, e->abandoned);
    qg__timers_free(&e->timers);
    qg__cid_free(&e->cids);
    qg__hash_free(&e->initial_cids);
    qg__events_free(&e->events);
    qg__pool_destroy(&e->conn_pool);
    qg__pool_destroy(&e->stream_pool);
    qg__pool_destroy(&e->pending_pool);
    qg_keys_free(e->keys);
    qg_group_free(e->group);
    free(e->submissions);
    free(e->submission_arena);
    free(e->scratch);
    free(e->io);
    free(e->slots);
    free(e->endpoints);
    free(e);
}

void qg_engine_abandon(qg_engine *e) {
    if (e->abandoned) {
        return;
    }
    e->abandoned = true;
    qg__qlogs_abandon(e);
    close(e->epoll_fd);
    close(e->timer_fd);
    qg__handover_close(&e->handover, true);
    for (int i = 0; i < e->endpoint_count; i++) {
        if (e->endpoints[i] != NULL) {
            e->endpoints[i]->dp->ops->abandon(e->endpoints[i]->dp);
        }
    }
    e->epoll_fd = e->timer_fd = -1;
}

void qg_engine_memory_of(qg_engine *e, qg_engine_memory *out) {
    *out = (qg_engine_memory){e->events.ring, e->events.arena, e->submissions, e->submission_arena,
                              e->counters};
}

int qg_engine_fd(const qg_engine *e) {
    return e->epoll_fd;
}

void qg_engine_set_spin(qg_engine *e, uint32_t spin_us) {
    e->spin_us = spin_us;
}

/* ------------------------------------------------------------- small services */

qg_conn *qg__engine_conn(const qg_engine *e, uint64_t id) {
    uint32_t slot = qg__conn_slot(id);
    qg_conn *conn = slot < e->slot_capacity ? e->slots[slot].conn : NULL;
    return conn != NULL && conn->id == id ? conn : NULL;
}

bool qg__engine_room(const qg_engine *e, const qg_config *config) {
    return e->events.count + ROOM_PER_STEP <= e->events.capacity &&
           qg__events_room(&e->events, (size_t)ROOM_BYTES(config));
}

int qg__engine_watch(qg_engine *e, qg_endpoint *ep, bool output, bool add) {
    struct epoll_event ev = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = ep};
    ep->wants_output = output;
    return epoll_ctl(e->epoll_fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, ep->dp->fd, &ev) == 0
               ? QG_OK
               : QG_SYSTEM;
}

void qg__engine_unwatch(qg_engine *e, qg_endpoint *ep) {
    /* A forked child's descriptor is closed, and the epoll instance is the parent's. */
    if (!e->abandoned) {
        epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, ep->dp->fd, NULL);
    }
}

uint32_t qg__interface_index(const char *name) {
    return if_nametoindex(name);
}

qg_keys *qg__engine_keys(const qg_engine *e, const qg_config *config) {
    qg_keys *own = config->tls->keys;
    if (own == NULL) {
        return e->keys;
    }
    qg_keys_rotate(own, qg__wall_s());
    return own;
}

bool qg__bucket_take(qg_bucket *b, uint64_t now_ns, double burst, double per_s) {
    double gained = (double)(now_ns - b->last_ns) * per_s / (double)QG_NS_PER_S;
    b->tokens = b->last_ns == 0 || b->tokens + gained > burst ? burst : b->tokens + gained;
    b->last_ns = now_ns;
    if (b->tokens < 1) {
        return false;
    }
    b->tokens -= 1;
    return true;
}

/* Encode the date field (RFC 9110, section 6.6.1). */
static void refresh_date(qg_engine *e) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t t = (time_t)e->wall_s;
    struct tm tm;
    char text[40];
    gmtime_r(&t, &tm);
    int len = snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
                       days + 3 * tm.tm_wday, tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900,
                       tm.tm_hour, tm.tm_min, tm.tm_sec);
    int n = qg__qpack_encode((const uint8_t *)"date", 4, (const uint8_t *)text, (size_t)len,
                             e->date, sizeof e->date);
    e->date_len = n > 0 ? (uint32_t)n : 0;
}

/* ------------------------------------------------------------- one turn */

static bool say_failed(qg_engine *e) {
    while (!qg__link_alone(&e->failed)) {
        if (!qg__events_room(&e->events, 0)) {
            return false;
        }
        qg_pending *p = QG_CONTAINER(e->failed.next, qg_pending, link);
        qg_event *event = qg__events_add(&e->events, QG_EVENT_STREAM_ERROR);
        event->token = p->token;
        event->conn = p->conn_id;
        event->status = (uint32_t)-p->result;
        event->code = p->code;
        event->flags = QG_MORE; /* nothing of it was sent */
        drop_failed(e, p);
    }
    return true;
}

static bool say_idle(qg_engine *e) {
    for (int i = 0; i < e->endpoint_count; i++) {
        qg_endpoint *ep = e->endpoints[i];
        if (ep == NULL || !ep->idle_due) {
            continue;
        }
        if (!qg__events_room(&e->events, 0)) {
            return false;
        }
        ep->idle_due = false;
        qg__events_add(&e->events, QG_EVENT_IDLE)->token = ep->listen.token;
    }
    return true;
}

/* Look at every connection in the work ring. False when the event ring is full. */
static bool work(qg_engine *e) {
    bool room = say_failed(e);
    while (room && !qg__link_alone(&e->work)) {
        qg_conn *conn = QG_CONTAINER(e->work.next, qg_conn, work);
        qg__link_remove(&conn->work);
        if (!qg__conn_process(conn)) {
            qg__conn_touch(conn);
            room = false;
        }
    }
    room = room && say_failed(e) && say_idle(e);
    e->counters->ring_full += !room;
    return room;
}

/* The network said that somebody is not to be reached: connections that never heard from there give
 * up. Established ones do not: anybody can forge such a message. */
static void take_errors(qg_endpoint *ep) {
    qg_unreachable errors[ERRORS_MAX];
    int n = ep->dp->ops->errors(ep->dp, errors, ERRORS_MAX);
    for (int i = 0; i < n; i++) {
        for (qg_link *l = ep->conns.next, *next; l != &ep->conns; l = next) {
            qg_conn *conn = QG_CONTAINER(l, qg_conn, of_endpoint);
            next = l->next;
            if (conn->state != QG_CONN_HANDSHAKE || conn->is_server ||
                !qg__addr_equal(&conn->peer, &errors[i].to)) {
                continue;
            }
            quiche_stats stats;
            quiche_conn_stats(conn->quiche, &stats);
            if (stats.recv == 0) {
                char text[64];
                snprintf(text, sizeof text, "%s", strerror(errors[i].error));
                qg__conn_lost(conn, QG_ICMP, (uint64_t)errors[i].error, text);
            }
        }
    }
}

/* Take what one endpoint has. Returns the buffers taken; *room is false when the ring is full. */
static int receive(qg_endpoint *ep, int rounds, bool *room) {
    qg_dgram dgrams[PER_ROUND];
    int total = 0;
    while (rounds-- > 0 && *room) {
        int n = ep->dp->ops->receive(ep->dp, dgrams, PER_ROUND);
        for (int i = 0; i < n; i++) {
            qg__endpoint_receive(ep, &dgrams[i]);
        }
        total += n;
        *room = work(ep->engine);
        if (n < PER_ROUND) {
            break;
        }
    }
    if (ep->dp->errors_pending) {
        take_errors(ep);
        *room = *room && work(ep->engine);
    }
    return total;
}

static int receive_all(qg_engine *e, bool *room) {
    int total = 0;
    if (e->endpoint_count == 1 && e->endpoints[0] != NULL && e->group == NULL) {
        return receive(e->endpoints[0], ROUNDS, room); /* asking costs as much as trying */
    }
    struct epoll_event ready[EPOLL_BATCH];
    int n = epoll_wait(e->epoll_fd, ready, EPOLL_BATCH, 0);
    for (int i = 0; i < n && *room; i++) {
        qg_endpoint *ep = ready[i].data.ptr;
        if (ready[i].data.ptr == &e->handover) {
            for (int left = HANDED_OVER_MAX; left > 0 && *room && qg__member_take(e); left--) {
                *room = work(e);
            }
        } else if (ep != NULL && (ready[i].events & ~(uint32_t)EPOLLOUT)) {
            total += receive(ep, ROUNDS, room);
        }
    }
    if (e->group != NULL) {
        qg__member_send(e);
    }
    return total;
}

static void fire(qg_engine *e, qg_timer *timer) {
    qg_stream *s;
    qg_pending *p;
    switch (timer->kind) {
    case QG_TIMER_QUIC:
        qg__conn_on_timer(QG_CONTAINER(timer, qg_conn, quic), timer);
        break;
    case QG_TIMER_PHASE:
        qg__conn_on_timer(QG_CONTAINER(timer, qg_conn, phase), timer);
        break;
    case QG_TIMER_ALIVE:
        qg__conn_on_timer(QG_CONTAINER(timer, qg_conn, alive), timer);
        break;
    case QG_TIMER_READ:
        s = QG_CONTAINER(timer, qg_stream, read.timer);
        e->counters->deadlines_passed++;
        qg__wait_wake(s, &s->read, QG_EVENT_DEADLINE, 0, 0);
        break;
    case QG_TIMER_WRITE:
        s = QG_CONTAINER(timer, qg_stream, write.timer);
        e->counters->deadlines_passed++;
        if (s->write.token != 0) {
            qg__wait_wake(s, &s->write, QG_EVENT_DEADLINE, 0, 0);
        } else {
            qg__stream_fail(s, H3_REQUEST_CANCELLED, QG_STATE); /* the peer takes nothing */
            qg__stream_settle(s);
        }
        break;
    case QG_TIMER_ENDPOINT:
        qg__endpoint_check_idle(QG_CONTAINER(timer, qg_endpoint, patience));
        break;
    default: /* QG_TIMER_PENDING */
        p = QG_CONTAINER(timer, qg_pending, timer);
        e->counters->deadlines_passed++;
        qg__events_add(&e->events, QG_EVENT_DEADLINE)->token = p->token;
        qg__pending_free(p);
        break;
    }
}

static void run_timers(qg_engine *e, bool *room) {
    qg_timer *timer;
    while (*room && (timer = qg__timers_first(&e->timers)) != NULL &&
           timer->deadline_ns <= e->now_ns) {
        if (e->events.count + ROOM_PER_STEP > e->events.capacity) {
            *room = false;
            break;
        }
        qg__timer_clear(&e->timers, timer);
        fire(e, timer);
    }
    *room = *room && work(e);
}

/* Set the timer descriptor when it would fire too late, or has fired. One that fires too early
 * costs a drain that finds nothing, which is cheaper than setting it at every turn. */
static void arm(qg_engine *e, bool soon) {
    const qg_timer *first = qg__timers_first(&e->timers);
    uint64_t due = soon ? e->now_ns : first != NULL ? first->deadline_ns : QG_NEVER;
    if (e->handover.out_count > 0) {
        due = qg__min64(due, e->now_ns + HAND_OVER_AGAIN_NS);
    }
    if (due >= e->armed_ns && e->armed_ns > e->now_ns) {
        return;
    }
    if (due == QG_NEVER && e->armed_ns == QG_NEVER) {
        return;
    }
    uint64_t at = due == QG_NEVER ? 0 : due > 0 ? due : 1;
    struct itimerspec spec = {
        .it_value = {.tv_sec = (time_t)(at / QG_NS_PER_S), .tv_nsec = (long)(at % QG_NS_PER_S)}};
    timerfd_settime(e->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    e->armed_ns = due;
}

uint64_t qg_engine_next_timeout(const qg_engine *e) {
    const qg_timer *first = qg__timers_first(&e->timers);
    return first != NULL ? first->deadline_ns : QG_NEVER;
}

static void begin_turn(qg_engine *e) {
    e->now_ns = qg__now_ns();
    uint64_t wall_s = qg__wall_s();
    if (wall_s != e->wall_s) {
        e->wall_s = wall_s;
        refresh_date(e);
        qg_keys_rotate(e->keys, wall_s);
    }
    qg__engine_take(e);
}

int64_t qg_engine_drain(qg_engine *e) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    qg__events_clear(&e->events);
    begin_turn(e);
    bool room = work(e);
    if (room) {
        receive_all(e, &room);
    }
    run_timers(e, &room);
    e->counters->drains++;
    e->counters->events += e->events.count;
    /* With a full ring the caller comes back by itself; its watcher need not be woken. */
    arm(e, false);
    return e->events.count | (room ? 0 : QG_DRAIN_MORE);
}

/* Every dirty connection in turn, a share at a time, until all is out, or the budget is. */
static void flush_dirty(qg_engine *e) {
    unsigned budget = FLUSH_PACKETS;
    qg_link blocked;
    qg__link_init(&blocked);
    while (budget > 0 && !qg__link_alone(&e->dirty)) {
        qg_conn *conn = QG_CONTAINER(e->dirty.next, qg_conn, dirty);
        unsigned share = budget < FLUSH_SHARE ? budget : FLUSH_SHARE;
        unsigned left = share;
        qg__link_remove(&conn->dirty);
        bool done = qg__conn_flush(conn, &left);
        budget -= share - left;
        if (!done) {
            qg__link_append(conn->endpoint->dp->blocked ? &blocked : &e->dirty, &conn->dirty);
        }
    }
    while (!qg__link_alone(&blocked)) {
        qg_link *l = blocked.next;
        qg__link_remove(l);
        qg__link_append(&e->dirty, l);
    }
}

/* Hand everything to the system. True when some of it was refused for now. */
static bool flush_datapaths(qg_engine *e) {
    bool blocked = false;
    for (int i = 0; i < e->endpoint_count; i++) {
        qg_endpoint *ep = e->endpoints[i];
        if (ep == NULL) {
            continue;
        }
        bool full = ep->dp->ops->flush(ep->dp) == QG_AGAIN;
        if (full != ep->wants_output) {
            qg__engine_watch(e, ep, full, false);
        }
        if (ep->dp->errors_pending) {
            take_errors(ep);
        }
        blocked |= full;
    }
    return blocked;
}

/* Watch the network for a while instead of going to sleep, until there is something to tell: more than
 * the `told` events that the caller has had already. */
static void spin(qg_engine *e, uint32_t told) {
    uint64_t end = e->now_ns + e->spin_us * QG_NS_PER_US;
    bool room = true;
    e->counters->spins++;
    do {
        int n = 0;
        for (int i = 0; i < e->endpoint_count; i++) {
            n += e->endpoints[i] != NULL ? receive(e->endpoints[i], 1, &room) : 0;
        }
        e->now_ns = qg__now_ns();
        if (n > 0) {
            e->counters->spin_hits++;
            flush_dirty(e); /* acknowledgements */
            flush_datapaths(e);
        }
    } while (e->now_ns < end && e->events.count == told && room);
}

int64_t qg_engine_flush(qg_engine *e) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    uint32_t before = e->events.count;
    begin_turn(e);
    work(e);
    flush_dirty(e);
    bool blocked = flush_datapaths(e);
    bool room = work(e); /* what ended with its last packet */
    room = qg__qlogs_write(e) && room;
    e->counters->flushes++;
    if (e->spin_us > 0 && e->events.count == before) {
        spin(e, before);
        room = work(e);
    }
    /* What found no room in the ring, or in the budget, is for the next turn. */
    arm(e, !room || (!blocked && !qg__link_alone(&e->dirty)));
    e->counters->events += e->events.count - before;
    return e->events.count;
}

int64_t qg_engine_submit(qg_engine *e) {
    if (e->abandoned) {
        return QG_FORKED;
    }
    begin_turn(e);
    return e->events.count;
}
