/* A real connection in memory, and a peer that writes any bytes on any stream: control, QPACK,
 * requests or responses. So everything that a peer can say behind the encryption is reached.
 *
 * The input: a byte of how, then operations of the peer and of the application above our engine. */
#include "fuzz.h"

#include <stdlib.h>

#include "harness.h"

#define STREAMS_MAX 16
#define WAITS_MAX   32
#define OPS_MAX     80
#define FIRST_TOKEN 5000

typedef struct match {
    rig rig;
    bool ours_is_server;
    side *ours, *peer;
    uint64_t ours_conn, peer_conn;
    uint64_t streams[STREAMS_MAX]; /* the peer may write on these */
    unsigned stream_count;
    struct {
        uint64_t conn, id;
    } messages[STREAMS_MAX]; /* that our application knows */
    unsigned message_count;
    struct {
        bool armed;    /* for the event with FIRST_TOKEN + index */
        bool released; /* with its stream: the event may have stood in the ring already */
        uint64_t stream;
    } waiting[WAITS_MAX];
    unsigned waits;
    bool closed; /* our application was told so */
} match;

static void options_of(rig_options *o, bool ours_is_server, uint8_t how) {
    if (ours_is_server) {
        rig_raw_client(o);
    } else {
        rig_raw_server(o);
    }
    qg_engine_options *engine = ours_is_server ? &o->server_engine : &o->client_engine;
    engine->events = how & 2 ? 64 : 4096; /* few: the ring is full now and then */
    qg_config_options *config = ours_is_server ? &o->server : &o->client;
    config->max_field_section_size = 2048;
    config->max_fields = 20;
    config->extended_connect = (how & 4) != 0;
    config->initial_max_streams_bidi = 8;
    o->listen.credit = how & 8 ? 1 : 1000;
}

/* ---------------------------------------------------------------- our application */

static uint64_t new_wait(match *m, uint64_t stream) {
    if (m->waits == WAITS_MAX) {
        return 0;
    }
    m->waiting[m->waits].armed = true;
    m->waiting[m->waits].stream = stream;
    return FIRST_TOKEN + m->waits++;
}

/* The call with this token did not wait after all, or its wait was withdrawn. */
static void drop_wait(match *m, uint64_t token) {
    if (token != 0) {
        m->waiting[token - FIRST_TOKEN].armed = false;
    }
}

static void drop_waits_of(match *m, uint64_t stream) {
    for (unsigned i = 0; i < m->waits; i++) {
        if (m->waiting[i].armed && m->waiting[i].stream == stream) {
            m->waiting[i].armed = false;
            m->waiting[i].released = true;
        }
    }
}

static void know_message(match *m, const qg_event *e) {
    if (m->message_count < STREAMS_MAX) {
        m->messages[m->message_count].conn = e->conn;
        m->messages[m->message_count++].id = e->stream;
    }
}

static void hear(match *m, const seen *s) {
    const qg_event *e = &s->event;
    size_t index = (size_t)(e->token - FIRST_TOKEN);
    if (index < WAITS_MAX) {
        /* One event for a wait, and not after it was withdrawn. */
        CHECK(m->waiting[index].armed || m->waiting[index].released);
        m->waiting[index].armed = m->waiting[index].released = false;
    }
    if (e->type == QG_EVENT_REQUEST || e->type == QG_EVENT_RESPONSE) {
        for (uint32_t i = 0; i < e->path_len; i++) {
            CHECK(s->bytes[i] > ' ' && s->bytes[i] < 0x7f);
        }
        fuzz_check_head(head_of(s), e->head_len);
        know_message(m, e);
    } else if (e->type == QG_EVENT_CLOSED) {
        m->closed = true;
    }
}

static void listen_to(match *m) {
    side *s = m->ours;
    for (; s->untaken < s->count; s->untaken++) {
        if (!s->events[s->untaken]->taken) {
            s->events[s->untaken]->taken = true;
            hear(m, s->events[s->untaken]);
        }
    }
}

static void read_some(match *m, uint64_t conn, uint64_t id, size_t capacity) {
    uint8_t *out = malloc(capacity + 1), trailers[4096];
    uint64_t code, token = new_wait(m, id);
    uint32_t flags = 0;
    int64_t n = qg_stream_read(m->ours->engine, conn, id, out, capacity, token, 0, &flags, &code);
    CHECK(n <= (int64_t)capacity);
    if (n != QG_AGAIN) {
        drop_wait(m, token);
    }
    if (n >= 0 && (flags & QG_FIN)) {
        n = qg_stream_trailers(m->ours->engine, conn, id, trailers, sizeof trailers);
        if (n > 0) {
            fuzz_check_head(trailers, (size_t)n);
        }
    }
    free(out);
}

static void answer(match *m, uint64_t conn, uint64_t id, uint8_t how) {
    uint8_t head[64];
    size_t len = fields(head, sizeof head, ":status", how & 1 ? "200" : "103", NULL);
    uint16_t flags = how & 2 ? QG_FIN | QG_DATE : how & 1 ? 0 : QG_INTERIM;
    qg_submission op = {.op = QG_OP_RESPOND, .conn = conn, .stream = id, .flags = flags};
    submit(m->ours, op, head, len, "body", how & 4 ? 4 : 0);
}

static void act(match *m, fuzz_input *in) {
    static const uint8_t data[3000];
    uint8_t what = fuzz_byte(in), arg = fuzz_byte(in), head[64];
    qg_engine *e = m->ours->engine;
    uint64_t conn = m->ours_conn, id = 1 << 20, code,
             token; /* nothing, unless there is something */
    if (m->message_count > 0) {
        conn = m->messages[arg % m->message_count].conn;
        id = m->messages[arg % m->message_count].id;
    }
    switch (what % 12) {
    case 0:
    case 1:
        answer(m, conn, id, arg >> 4);
        break;
    case 2:
    case 3:
        read_some(m, conn, id, arg * 16u);
        break;
    case 4:
        token = new_wait(m, id);
        if (qg_stream_write(e, conn, id, data, arg * 8u, arg & 1 ? QG_FIN : 0, token, 0, &code) !=
            QG_AGAIN) {
            drop_wait(m, token);
        }
        break;
    case 5:
        qg_stream_send_trailers(e, conn, id, head, fields(head, sizeof head, "x-a", "b", NULL));
        break;
    case 6:
        qg_stream_shutdown(e, conn, id, 1 + arg % 3, arg);
        break;
    case 7:
        qg_stream_release(e, conn, id);
        drop_waits_of(m, id);
        break;
    case 8:
        submit(m->ours, (qg_submission){.op = QG_OP_RESET, .conn = conn, .stream = id}, NULL, 0,
               NULL, 0);
        break;
    case 9:
        if (m->ours_is_server) {
            submit(m->ours,
                   (qg_submission){
                       .op = QG_OP_CREDIT, .conn = (uint64_t)m->ours->endpoint, .code = arg},
                   NULL, 0, NULL, 0);
        } else if ((token = new_wait(m, QG_NEVER)) != 0) {
            request(&m->rig, token, arg & 1 ? "GET" : "HEAD", "/", NULL, 0,
                    arg & 1 ? QG_FIN : QG_FIN | QG_HEAD);
        }
        break;
    case 10:
        if (m->waits > 0) { /* whoever it is, and whether it waits or not */
            token = FIRST_TOKEN + arg % m->waits;
            if (qg_stream_unwait(e, conn, id, token) == QG_OK) {
                drop_wait(m, token);
            }
        }
        break;
    default:
        if (arg == 0xff) {
            qg_conn_finish(e, m->ours_conn, 1000);
        } else if (arg == 0xfe && m->ours_is_server) {
            qg_listen_stop(e, m->ours->endpoint, 0);
        }
    }
}

/* ---------------------------------------------------------------- the peer */

static void know_stream(match *m, uint64_t id) {
    if (m->stream_count < STREAMS_MAX) {
        m->streams[m->stream_count++] = id;
    }
}

static void speak(match *m, fuzz_input *in, uint8_t op) {
    uint64_t id = 0, code;
    size_t len;
    const uint8_t *bytes;
    qg_engine *e = m->peer->engine;
    switch (op % 8) {
    case 0: /* a new stream: the input says the first bytes, so its type too */
    case 1:
        if (qg_stream_open(e, m->peer_conn, op & 1, 0, 0, &id) == QG_OK) {
            know_stream(m, id);
        }
        /* fall through */
    case 2:
    case 3:
    case 4:
        id = op % 8 < 2 ? id : m->stream_count > 0 ? m->streams[(op >> 4) % m->stream_count] : 0;
        bytes = fuzz_bytes(in, &len);
        qg_stream_write(e, m->peer_conn, id, bytes, len, op & 8 ? QG_FIN : 0, 0, 0, &code);
        break;
    case 5:
        id = m->stream_count > 0 ? m->streams[(op >> 4) % m->stream_count] : 0;
        qg_stream_shutdown(e, m->peer_conn, id, op & 8 ? QG_SIDE_READ : QG_SIDE_WRITE,
                           fuzz_byte(in));
        break;
    case 6:
        turn(&m->rig);
        break;
    default:
        act(m, in);
    }
}

static void hear_peer(match *m) {
    const seen *e;
    while ((e = take_event(m->peer, QG_EVENT_STREAM_OPENED)) != NULL) {
        know_stream(m, e->event.stream);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, data + size};
    match m = {0};
    rig_options o;
    uint8_t how = fuzz_byte(&in);
    m.ours_is_server = how & 1;
    options_of(&o, m.ours_is_server, how);
    rig_start(&m.rig, &o);
    m.ours = m.ours_is_server ? &m.rig.server : &m.rig.client;
    m.peer = m.ours_is_server ? &m.rig.client : &m.rig.server;
    m.ours_conn = m.ours_is_server ? m.rig.server_conn : m.rig.conn;
    m.peer_conn = m.ours_is_server ? m.rig.conn : m.rig.server_conn;
    if (!m.ours_is_server) { /* something to answer */
        request(&m.rig, new_wait(&m, QG_NEVER), "GET", "/", NULL, 0, QG_FIN);
        request(&m.rig, new_wait(&m, QG_NEVER), "HEAD", "/", NULL, 0, QG_FIN | QG_HEAD);
        request(&m.rig, new_wait(&m, QG_NEVER), "POST", "/", "body", 4, 0);
    }
    turn(&m.rig);
    for (unsigned ops = 0; in.at < in.end && ops < OPS_MAX; ops++) {
        hear_peer(&m);
        speak(&m, &in, fuzz_byte(&in));
        listen_to(&m);
    }
    turn(&m.rig);
    qg_conn_close(m.ours->engine, m.ours_conn, 1, 0x100, NULL, 0);
    turn(&m.rig);
    listen_to(&m);
    for (unsigned i = 0; i < m.waits; i++) {
        check_note("wait %u of %u", i, m.waits);
        CHECK(!m.waiting[i].armed); /* who waits is told at the connection's end at the latest */
    }
    rig_close(&m.rig);
    return 0;
}
