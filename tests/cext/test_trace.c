#include "harness.h"

#include <fcntl.h>
#include <unistd.h>

#include "trace.h"

typedef struct traced {
    rig r;
    int pipe[2];
    char text[1u << 16];
} traced;

static void start(traced *t, bool udp) {
    rig_options o;
    CHECK_EQ(pipe(t->pipe), 0);
    rig_defaults(&o);
    o.client_engine.trace_fd = t->pipe[1];
    o.udp = udp;
    rig_start(&t->r, &o);
}

/* What was written up to now. */
static const char *lines(traced *t) {
    ssize_t n = read(t->pipe[0], t->text, sizeof t->text - 1);
    CHECK(n > 0);
    t->text[n] = '\0';
    return t->text;
}

static void stop(traced *t) {
    rig_close(&t->r);
    close(t->pipe[0]);
    close(t->pipe[1]);
}

static unsigned count(const char *text, const char *what) {
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what)) {
        n++;
    }
    return n;
}

static traced t;

TEST(a_line_for_each_datagram) {
    start(&t, false);
    const char *text = lines(&t);
    CHECK_EQ(count(text, " send "), t.r.client.counters.datagrams_sent);
    CHECK_EQ(count(text, " recv "), t.r.client.counters.datagrams_received);
    CHECK_EQ(count(text, "\n"),
             t.r.client.counters.datagrams_sent + t.r.client.counters.datagrams_received);
    CHECK(strstr(text, " B 192.0.2.") != NULL);
    CHECK(strstr(text, " initial dcid=") != NULL);
    CHECK(strstr(text, " scid=") != NULL);
    CHECK(strstr(text, "+handshake") != NULL);
    CHECK(strstr(text, " 1rtt dcid=") != NULL);
    stop(&t);
}

TEST(sockets_are_traced_too) {
    start(&t, true);
    exchange(&t.r, 1);
    const char *text = lines(&t);
    CHECK(count(text, " send ") > 2 && count(text, " recv ") > 2);
    CHECK(strstr(text, " > 127.0.0.1:") != NULL);
    stop(&t);
}

TEST(runs_are_told_apart) {
    start(&t, false);
    lines(&t);
    static uint8_t body[60000];
    uint64_t before = t.r.client.counters.datagrams_sent;
    request(&t.r, 1, "POST", "/", body, sizeof body, QG_FIN);
    turn(&t.r);
    CHECK_EQ(count(lines(&t), " send "), t.r.client.counters.datagrams_sent - before);
    CHECK(t.r.client.counters.datagrams_sent - before > 10);
    stop(&t);
}

/* Each kind of datagram, cut anywhere: no byte beyond it is looked at (the sanitizers watch). */
TEST(what_strangers_send) {
    static const uint8_t kinds[][40] = {
        {0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 4, 9, 9, 9, 9, 1, 7, 0x10, 1, 2},
        {0xd0, 0, 0, 0, 1, 20, 1, 2, 3, 4,    5, 6, 7, 8, 4,
         9,    9, 9, 9, 1, 7,  2, 1, 2, 0xe0, 0, 0, 0, 1},
        {0xf0, 0, 0, 0, 1, 0, 0},
        {0x80, 0, 0, 0, 0, 3, 1, 2, 3, 1, 1, 0, 0, 0, 1},
        {0xc0, 0, 0, 0, 1, 255},
        {0x40, 1, 2, 3},
        {0x00, 1, 2},
        {0xe0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0x40, 1, 2, 3, 4, 5, 6, 7, 8},
    };
    start(&t, false);
    lines(&t);
    qg_datapath *from = datapath_of(&t.r.server);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t len = 1; len <= sizeof *kinds; len++) {
            uint8_t *room = from->ops->begin(from);
            memcpy(room, kinds[k], len);
            from->ops->commit(from, len, len, &t.r.server_addr, &t.r.client_addr);
        }
        from->ops->flush(from);
        turn(&t.r);
        turn(&t.r); /* a drain takes 32 */
        CHECK_EQ(count(lines(&t), " recv "), sizeof *kinds);
    }
    exchange(&t.r, 1);
    stop(&t);
}

TEST(a_reader_that_is_slow_is_not_waited_for) {
    start(&t, false);
    CHECK_EQ(fcntl(t.pipe[1], F_SETFL, O_NONBLOCK), 0);
    for (uint64_t i = 1; i < 1000; i++) {
        exchange(&t.r, i);
    }
    stop(&t);
}

TEST(off_there_is_no_trace) {
    rig r;
    rig_start(&r, NULL);
    CHECK(datapath_of(&r.client)->trace == NULL);
    CHECK(strcmp(datapath_of(&r.client)->ops->name, "pair") == 0);
    rig_close(&r);
}
