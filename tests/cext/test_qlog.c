#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD 0x1e

/* ---------------------------------------------------------------- files */

static void make_folder(char *out, size_t capacity) {
    snprintf(out, capacity, "/tmp/quicgreen-qlog-XXXXXX");
    CHECK(mkdtemp(out) != NULL);
}

/* Its bytes, with a NUL behind them; the caller frees them. */
static char *contents(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    CHECK(f != NULL);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(*len + 1);
    CHECK_EQ(fread(text, 1, *len, f), *len);
    text[*len] = '\0';
    fclose(f);
    return text;
}

/* Every record is whole: RS, JSON text, LF (RFC 7464). How many. */
static unsigned records(const char *text, size_t len) {
    unsigned n = 0;
    for (size_t at = 0; at < len; n++) {
        CHECK_EQ(text[at], RECORD);
        const char *end = memchr(text + at, '\n', len - at);
        CHECK(end != NULL);
        CHECK(text[at + 1] == '{' && end[-1] == '}');
        at = (size_t)(end - text) + 1;
    }
    return n;
}

/* How many files are in a folder; `name` is that of the last. */
static unsigned count_files(const char *folder, char *name, size_t capacity) {
    unsigned n = 0;
    DIR *d = opendir(folder);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] != '.') {
            n++;
            snprintf(name, capacity, "%s/%.200s", folder, e->d_name);
        }
    }
    closedir(d);
    return n;
}

static void remove_folder(const char *folder) {
    char file[512];
    while (count_files(folder, file, sizeof file) > 0) {
        CHECK_EQ(unlink(file), 0);
    }
    CHECK_EQ(rmdir(folder), 0);
}

/* ---------------------------------------------------------------- a connection's story */

TEST(from_now_on_to_its_end) {
    rig r;
    char folder[64], path[128];
    size_t len;
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a.sqlog", folder);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    exchange(&r, 1);
    char *text = contents(path, &len);
    CHECK(records(text, len) > 4); /* while it goes on */
    CHECK(strstr(text, "\"file_schema\":\"urn:ietf:params:qlog:file:sequential\"") != NULL);
    CHECK(strstr(text, "\"type\":\"client\"") != NULL);
    CHECK(strstr(text, "quic:packet_sent") != NULL);
    CHECK(strstr(text, "quic:packet_received") != NULL);
    CHECK(strstr(text, "quic:connection_closed") == NULL);
    free(text);
    qg_conn_close(r.client.engine, r.conn, 1, 0x100, NULL, 0);
    UNTIL(&r, r.client.engine->cids.count == 0);
    turn(&r);
    text = contents(path, &len);
    records(text, len);
    CHECK(strstr(text, "quic:connection_closed") != NULL);
    free(text);
    CHECK_EQ(r.client.counters.qlog_records_lost, 0);
    CHECK(qg__link_alone(&r.client.engine->qlogs));
    rig_close(&r);
    remove_folder(folder);
}

TEST(another_one_takes_its_place) {
    rig r;
    char folder[64], path[2][128];
    size_t len, before;
    make_folder(folder, sizeof folder);
    rig_start(&r, NULL);
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%d.sqlog", folder, i);
        CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path[i]), QG_OK);
        exchange(&r, (uint64_t)i + 1);
        free(contents(path[0], i == 0 ? &before : &len));
    }
    CHECK_EQ(len, before);
    char *text = contents(path[1], &len);
    CHECK(records(text, len) > 4);
    free(text);
    rig_close(&r);
    remove_folder(folder);
}

TEST(an_old_file_is_emptied) {
    rig r;
    char folder[64], path[128];
    size_t len;
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a.sqlog", folder);
    FILE *f = fopen(path, "w");
    fputs("something else\n", f);
    fclose(f);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    turn(&r);
    char *text = contents(path, &len);
    CHECK_EQ(text[0], RECORD);
    free(text);
    rig_close(&r);
    remove_folder(folder);
}

TEST(a_folder_gets_a_file_of_each_connection) {
    rig_options o;
    rig r;
    char folder[64], path[300];
    size_t len;
    make_folder(folder, sizeof folder);
    rig_defaults(&o);
    o.client.qlog_dir = o.server.qlog_dir = folder;
    rig_start(&r, &o);
    CHECK_EQ(count_files(folder, path, sizeof path), 2);
    exchange(&r, 1);
    rig_close(&r); /* with what was not written yet */
    CHECK_EQ(count_files(folder, path, sizeof path), 2);
    CHECK(strstr(path, "_client.sqlog") != NULL || strstr(path, "_server.sqlog") != NULL);
    char *text = contents(path, &len);
    CHECK(records(text, len) > 10);
    CHECK(strstr(text, "\"packet_type\":\"initial\"") != NULL);
    free(text);
    remove_folder(folder);
}

TEST(a_path_that_is_a_folder) {
    rig r;
    char folder[64], path[300];
    make_folder(folder, sizeof folder);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, folder), QG_OK);
    turn(&r);
    CHECK_EQ(count_files(folder, path, sizeof path), 1);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, folder),
             QG_SYSTEM); /* it has that name already */
    CHECK_EQ(errno, EEXIST);
    rig_close(&r);
    remove_folder(folder);
}

TEST(nothing_is_written_in_a_drain) {
    rig r;
    char folder[64], path[128];
    size_t before, drained, flushed;
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a.sqlog", folder);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    exchange(&r, 1);
    turn(&r);
    free(contents(path, &before));
    CHECK(qg__link_alone(&r.client.engine->qlogs));
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN);
    CHECK(qg_engine_flush(r.client.engine) >= 0);
    side_turn(&r.server); /* which acknowledges */
    free(contents(path, &flushed));
    CHECK(flushed > before);
    CHECK(qg_engine_drain(r.client.engine) >= 0);
    CHECK(!qg__link_alone(&r.client.engine->qlogs));
    free(contents(path, &drained));
    CHECK_EQ(drained, flushed);
    qg_engine_flush(r.client.engine);
    free(contents(path, &flushed));
    CHECK(flushed > drained);
    rig_close(&r);
    remove_folder(folder);
}

TEST(connections_that_rest_have_no_memory) {
    rig_options o;
    rig r;
    char folder[64], path[300];
    make_folder(folder, sizeof folder);
    rig_defaults(&o);
    o.client.qlog_dir = folder;
    rig_open(&r, &o);
    for (int i = 0; i < 20; i++) {
        rig_dial(&r);
    }
    UNTIL(&r, r.client.counters.handshakes_completed == 20);
    turn(&r);
    CHECK(r.client.engine->qlog_spare != NULL);
    CHECK_EQ(count_files(folder, path, sizeof path), 20);
    rig_close(&r); /* the sanitizer counts what is left */
    remove_folder(folder);
}

/* Strangers' packets make no files. */
TEST(what_does_not_decrypt_is_no_connection) {
    rig_options o;
    rig r;
    char folder[64], path[300];
    uint8_t data[1200] = {0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6,    7,
                          8,    8, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0x44, 0x90};
    make_folder(folder, sizeof folder);
    rig_defaults(&o);
    o.server.qlog_dir = folder;
    rig_open(&r, &o);
    CHECK_EQ(qg_engine_inject(r.server.engine, r.server.endpoint, data, sizeof data, &r.client_addr,
                              &r.server_addr),
             QG_OK);
    turn(&r);
    CHECK_EQ(r.server.counters.datagrams_junk, 1);
    CHECK_EQ(count_files(folder, path, sizeof path), 0);
    CHECK(qg__link_alone(&r.server.engine->qlogs));
    rig_close(&r);
    remove_folder(folder);
}

/* ---------------------------------------------------------------- files that fail */

TEST(a_file_that_cannot_be_made) {
    rig r;
    char name[5000];
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, "/nowhere/at/all"), QG_SYSTEM);
    CHECK_EQ(errno, ENOENT);
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, name), QG_TOO_LARGE);
    CHECK_EQ(qg_conn_qlog(r.client.engine, 12345, "/tmp/x"), QG_GONE);
    exchange(&r, 1);
    rig_close(&r);
}

TEST(a_full_disk_ends_the_qlog_and_nothing_else) {
    rig r;
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, "/dev/full"), QG_OK);
    exchange(&r, 1);
    const seen *e = await_event(&r, &r.client, QG_EVENT_QLOG);
    CHECK_EQ(e->event.code, ENOSPC);
    CHECK_EQ(e->event.token, CONN_TOKEN);
    CHECK_EQ(e->event.conn, r.conn);
    CHECK_TEXT(head_of(e), e->event.head_len, "/dev/full");
    exchange(&r, 2);
    turn(&r);
    CHECK_EQ(count_events(&r.client, QG_EVENT_QLOG), 0); /* told once */
    rig_close(&r);
}

TEST(a_folder_that_is_gone_is_told_to_the_listener) {
    rig_options o;
    rig r;
    rig_defaults(&o);
    o.server.qlog_dir = "/nowhere";
    o.listen.flags = 0; /* requests, so the connection has no token */
    rig_open(&r, &o);
    rig_dial(&r);
    const seen *e = await_event(&r, &r.server, QG_EVENT_QLOG);
    CHECK_EQ(e->event.code, ENOENT);
    CHECK_EQ(e->event.token, LISTEN_TOKEN);
    await_event(&r, &r.client, QG_EVENT_CONNECTED);
    rig_close(&r);
}

/* ---------------------------------------------------------------- readers that are slow */

TEST(a_pipe_that_nobody_reads_loses_whole_records) {
    rig r;
    char folder[64], path[128];
    static char text[4u << 20];
    size_t len = 0;
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/pipe", folder);
    CHECK_EQ(mkfifo(path, 0600), 0);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_SYSTEM); /* no reader */
    CHECK_EQ(errno, ENXIO);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    for (uint64_t i = 1; r.client.counters.qlog_records_lost < 10; i++) {
        exchange(&r, i);
        CHECK(i < 100000);
    }
    exchange(&r, 1000000); /* it goes on as before */
    for (int i = 0; i < 1000 && len < sizeof text; i++) {
        ssize_t n = read(reader, text + len, sizeof text - len);
        len += n > 0 ? (size_t)n : 0;
        turn(&r);
        if (n <= 0 && qg__link_alone(&r.client.engine->qlogs)) {
            break;
        }
        if (n <= 0) {
            exchange(&r, 2000000 + (uint64_t)i); /* a turn writes on */
        }
    }
    CHECK(records(text, len) > 1000);
    close(reader);
    rig_close(&r);
    remove_folder(folder);
}

TEST(a_reader_that_leaves_ends_the_qlog) {
    rig r;
    char folder[64], path[128];
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/pipe", folder);
    CHECK_EQ(mkfifo(path, 0600), 0);
    rig_start(&r, NULL);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    close(reader);
    signal(SIGPIPE, SIG_IGN);
    exchange(&r, 1);
    CHECK_EQ(await_event(&r, &r.client, QG_EVENT_QLOG)->event.code, EPIPE);
    exchange(&r, 2);
    rig_close(&r);
    remove_folder(folder);
}

/* ---------------------------------------------------------------- fork */

TEST(in_a_forked_child_its_file_is_left_alone) {
    rig r;
    char folder[64], path[128];
    size_t before, after;
    make_folder(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/a.sqlog", folder);
    rig_start(&r, NULL);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_OK);
    exchange(&r, 1);
    request(&r, 2, "GET", "/", NULL, 0, QG_FIN); /* not flushed */
    free(contents(path, &before));
    qg_engine_abandon(r.client.engine);
    CHECK_EQ(qg_conn_qlog(r.client.engine, r.conn, path), QG_FORKED);
    rig_close(&r);
    free(contents(path, &after));
    CHECK_EQ(after, before);
    remove_folder(folder);
}
