#include "qlog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine.h"

/* What a connection gathers in a turn: a full budget of packets (engine.c) makes some 900 kB of records. */
#define CAPACITY (2u << 20)

#define RECORD 0x1e /* begins each record (RFC 7464); JSON escapes it inside of one */

#define PATH_CAPACITY 4096

struct qg_qlog {
    qg_link link; /* in engine->qlogs */
    qg_engine *engine;
    qg_conn *conn;  /* NULL: gone */
    uint64_t token; /* once it is gone: whom to tell */
    int fd;         /* -1: not opened, or failed */
    int error;      /* errno that ended it; 0: none */
    bool exclusive; /* the file must be a new one */
    bool skipping;  /* the record that is being given found no room */
    uint32_t len;
    uint32_t record; /* where the last record begins */
    uint64_t lost;   /* records */
    uint8_t *bytes;  /* NULL while there is nothing to write */
    char path[PATH_CAPACITY];
};

/* ------------------------------------------------------------- gathering */

/* Connections that rest have no memory, and one is kept for the next turn. False: there is none. */
static bool take_memory(qg_qlog *q) {
    qg_engine *e = q->engine;
    if (q->bytes == NULL) {
        q->bytes = e->qlog_spare != NULL ? e->qlog_spare : malloc(CAPACITY);
        e->qlog_spare = NULL;
    }
    return q->bytes != NULL;
}

static void give_memory_back(qg_qlog *q) {
    qg_engine *e = q->engine;
    if (e->qlog_spare == NULL) {
        e->qlog_spare = q->bytes;
    } else {
        free(q->bytes);
    }
    q->bytes = NULL;
}

/* quiche's next piece. A record begins with a piece of its own. */
static void gather(void *context, const uint8_t *bytes, size_t len) {
    qg_qlog *q = context;
    if (len > 0 && bytes[0] == RECORD) {
        q->record = q->len;
        q->skipping = false;
    }
    if (q->skipping) {
        return;
    }
    if (q->error != 0 || len > CAPACITY - q->len || !take_memory(q)) {
        q->len = q->record;
        q->skipping = true;
        q->lost++;
        q->engine->counters->qlog_records_lost++;
        return;
    }
    memcpy(q->bytes + q->len, bytes, len);
    q->len += (uint32_t)len;
    if (qg__link_alone(&q->link)) {
        qg__link_append(&q->engine->qlogs, &q->link);
    }
}

/* ------------------------------------------------------------- life */

static void close_file(qg_qlog *q) {
    if (q->fd >= 0) {
        close(q->fd);
        q->fd = -1;
    }
}

static void discard(qg_qlog *q) {
    qg__link_remove(&q->link);
    close_file(q);
    give_memory_back(q);
    free(q);
}

static uint64_t owner(const qg_conn *conn) {
    return conn->token != 0 ? conn->token : conn->endpoint->listen.token;
}

/* quiche gives it no more. It stays until it is written. */
static void let_go(qg_qlog *q) {
    q->token = owner(q->conn);
    q->conn = NULL;
    if (qg__link_alone(&q->link)) {
        discard(q);
    }
}

static bool open_file(qg_qlog *q) {
    /* Not blocking is for pipes; a regular file does not know it. Nobody else's to read: a qlog has the
     * tokens of stateless resets. */
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    q->fd = open(q->path, flags | (q->exclusive ? O_EXCL : O_TRUNC), 0600);
    return q->fd >= 0;
}

/* `folder`/ID_SIDE.sqlog, where ID is our id as the connection began. False when that is too long. */
static bool name_file(qg_qlog *q, const qg_conn *conn, const char *folder) {
    const uint8_t *id;
    size_t len;
    quiche_conn_trace_id(conn->quiche, &id, &len);
    int n = snprintf(q->path, sizeof q->path, "%s/%.*s_%s.sqlog", folder, (int)len,
                     (const char *)id, conn->is_server ? "server" : "client");
    q->exclusive = true; /* ids are random in part: no file is to take another one's place */
    return n > 0 && (size_t)n < sizeof q->path;
}

static void describe(const qg_conn *conn, char *out, size_t capacity) {
    char local[64] = "", peer[64] = "";
    int local_port = qg_addr_format(&conn->local, local, sizeof local);
    int peer_port = qg_addr_format(&conn->peer, peer, sizeof peer);
    snprintf(out, capacity, "%s, %s port %d to %s port %d", conn->is_server ? "server" : "client",
             local, local_port, peer, peer_port);
}

int qg__qlog_begin(qg_conn *conn, const char *path, bool folder, bool now) {
    qg_qlog *q = calloc(1, sizeof *q);
    if (q == NULL) {
        return QG_NOMEM;
    }
    qg__link_init(&q->link);
    q->engine = conn->engine;
    q->conn = conn;
    q->fd = -1;
    bool fits = folder ? name_file(q, conn, path)
                       : (size_t)snprintf(q->path, sizeof q->path, "%s", path) < sizeof q->path;
    if (!fits || (now && !open_file(q))) {
        int saved = errno;
        discard(q);
        errno = saved;
        return fits ? QG_SYSTEM : QG_TOO_LARGE;
    }
    char text[256];
    describe(conn, text, sizeof text);
    qgq_conn_set_qlog(conn->quiche, "quicgreen", text, gather, q);
    if (conn->qlog != NULL) {
        let_go(conn->qlog);
    }
    conn->qlog = q;
    return QG_OK;
}

void qg__qlog_forget(qg_conn *conn) {
    if (conn->qlog != NULL) {
        qgq_conn_end_qlog(conn->quiche);
        discard(conn->qlog);
        conn->qlog = NULL;
    }
}

void qg__qlog_conn_gone(qg_conn *conn) {
    if (conn->qlog != NULL) {
        let_go(conn->qlog);
        conn->qlog = NULL;
    }
}

/* ------------------------------------------------------------- writing */

static void fail(qg_qlog *q, int error) {
    q->error = error;
    q->len = 0;
    give_memory_back(q);
    close_file(q);
    if (q->conn != NULL) {
        qgq_conn_end_qlog(q->conn->quiche);
    }
}

/* The connection is gone, and a pipe's reader too slow for what is left. */
static void lose_rest(qg_qlog *q) {
    for (uint32_t i = 0; i < q->len; i++) {
        q->engine->counters->qlog_records_lost += q->bytes[i] == RECORD;
    }
    q->len = 0;
}

static void write_out(qg_qlog *q) {
    if (q->fd < 0 && !open_file(q)) {
        fail(q, errno);
        return;
    }
    uint32_t at = 0;
    while (at < q->len) {
        ssize_t n = write(q->fd, q->bytes + at, q->len - at);
        if (n < 0 && errno == EAGAIN) {
            break; /* a pipe that is full */
        }
        if (n < 0 && errno != EINTR) {
            fail(q, errno);
            return;
        }
        at += n > 0 ? (uint32_t)n : 0;
    }
    q->len -= at;
    memmove(q->bytes, q->bytes + at, q->len);
    if (q->conn == NULL) {
        lose_rest(q);
    }
    if (q->len == 0) {
        give_memory_back(q);
    }
}

/* Tell whose connection it is that the file failed. False when there is no room in the event ring. */
static bool tell(const qg_qlog *q) {
    qg_events *events = &q->engine->events;
    size_t len = strlen(q->path);
    uint64_t token = q->conn != NULL ? owner(q->conn) : q->token;
    if (token == 0) {
        return true;
    }
    if (!qg__events_room(events, len)) {
        return false;
    }
    memcpy(qg__events_at(events), q->path, len);
    qg_event *event = qg__events_add(events, QG_EVENT_QLOG);
    event->token = token;
    event->conn = q->conn != NULL ? q->conn->id : 0;
    event->code = (uint64_t)q->error;
    event->value = q->lost;
    event->head_len = (uint32_t)len;
    qg__events_took(events, len);
    return true;
}

bool qg__qlogs_write(qg_engine *e) {
    qg_link kept;
    bool room = true;
    qg__link_init(&kept);
    while (!qg__link_alone(&e->qlogs)) {
        qg_qlog *q = QG_CONTAINER(e->qlogs.next, qg_qlog, link);
        qg__link_remove(&q->link);
        if (q->error == 0) {
            write_out(q);
        }
        bool told = q->error == 0 || tell(q);
        room = room && told;
        if (!told || q->len > 0) {
            qg__link_append(&kept, &q->link);
        } else if (q->conn == NULL) {
            discard(q);
        }
    }
    while (!qg__link_alone(&kept)) {
        qg_link *l = kept.next;
        qg__link_remove(l);
        qg__link_append(&e->qlogs, l);
    }
    return room;
}

/* ------------------------------------------------------------- the engine's end */

void qg__qlogs_free(qg_engine *e) {
    while (!qg__link_alone(&e->qlogs)) {
        qg_qlog *q = QG_CONTAINER(e->qlogs.next, qg_qlog, link);
        if (!e->abandoned && q->error == 0) {
            write_out(q);
        }
        discard(q);
    }
    free(e->qlog_spare);
}

void qg__qlogs_abandon(qg_engine *e) {
    for (uint32_t i = 0; i < e->slot_capacity; i++) {
        if (e->slots[i].conn != NULL && e->slots[i].conn->qlog != NULL) {
            close_file(e->slots[i].conn->qlog);
        }
    }
    for (qg_link *l = e->qlogs.next; l != &e->qlogs; l = l->next) {
        close_file(QG_CONTAINER(l, qg_qlog, link));
    }
}
