#include "check.h"
#include "ticket_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE 16384

static char folder[64], path[96], problem[256];
static int result;

static void begin(void) {
    strcpy(folder, "/dev/shm/quicgreen-test-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/tickets", folder);
}

static void end(void) {
    char command[128];
    unlink(path);
    snprintf(command, sizeof command, "ls -A %s | grep -q .", folder);
    CHECK(system(command) != 0); /* no file of a half-made segment was left */
    CHECK_EQ(rmdir(folder), 0);
}

static qg_ticket_shm *open_it(uint64_t size) {
    problem[0] = '\0';
    return qg_ticket_shm_open(path, size, &result, problem, sizeof problem);
}

static void put_file(const void *bytes, size_t len, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    CHECK(fd >= 0);
    CHECK_EQ(write(fd, bytes, len), (ssize_t)len);
    CHECK_EQ(fchmod(fd, mode), 0);
    close(fd);
}

/* A segment as it would be, to be spoiled. */
static ticket_header good_header(void) {
    ticket_header header = {0};
    qg_ticket_shm *shm = open_it(SIZE);
    CHECK(shm != NULL);
    int fd = open(path, O_RDONLY);
    CHECK_EQ(pread(fd, &header, sizeof header, 0), (ssize_t)sizeof header);
    close(fd);
    qg_ticket_shm_close(shm);
    return header;
}

static void check_refused(int expected, const char *text) {
    qg_ticket_shm *shm = open_it(SIZE);
    check_note("refused with %d, %s", result, problem);
    CHECK(shm == NULL);
    CHECK_EQ(result, expected);
    CHECK(strstr(problem, text) != NULL);
    CHECK(strstr(problem, path) != NULL);
    check_note(NULL);
}

TEST(who_comes_first_makes_it_for_its_user_alone) {
    struct stat st;
    begin();
    mode_t mask = umask(0);
    qg_ticket_shm *shm = open_it(SIZE);
    umask(mask);
    CHECK(shm != NULL);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_mode, S_IFREG | 0600);
    CHECK_EQ(st.st_size, SIZE);
    CHECK(st.st_blocks * 512 >= SIZE); /* allocated: no SIGBUS when the file system is full later */
    qg_ticket_shm_close(shm);
    end();
}

TEST(who_comes_later_takes_it_as_it_is) {
    qg_ticket_shm_info info;
    begin();
    qg_ticket_shm *first = open_it(SIZE), *second = open_it(4 * SIZE);
    CHECK(first != NULL && second != NULL);
    CHECK_EQ(qg_ticket_shm_info_of(second, &info), QG_OK);
    CHECK_EQ(info.size, SIZE);
    CHECK_EQ(info.slots, (SIZE - 128) / 1120);
    CHECK_EQ(info.slot_room, 1056);
    CHECK_EQ(info.max_ticket, info.slots / 2 * 1056);
    qg_ticket_shm_close(first);
    qg_ticket_shm_close(second);
    end();
}

static void *open_and_put(void *arg) {
    pthread_barrier_t *barrier = arg;
    uint8_t key[16] = {1};
    char text[256];
    int rc;
    pthread_barrier_wait(barrier);
    qg_ticket_shm *shm = qg_ticket_shm_open(path, SIZE, &rc, text, sizeof text);
    if (shm != NULL && qg_ticket_shm_put(shm, key, key, 16, 0, 100, 1) != QG_OK) {
        qg_ticket_shm_close(shm);
        shm = NULL;
    }
    return shm;
}

/* A second segment under the same name would swallow the tickets of some. */
TEST(eight_that_come_at_once_get_the_same) {
    for (int round = 0; round < 20; round++) {
        pthread_t threads[8];
        pthread_barrier_t barrier;
        qg_ticket_shm_info info;
        begin();
        pthread_barrier_init(&barrier, NULL, 8);
        for (int i = 0; i < 8; i++) {
            pthread_create(&threads[i], NULL, open_and_put, &barrier);
        }
        void *shm[8];
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], &shm[i]);
            CHECK(shm[i] != NULL);
        }
        for (int i = 0; i < 8; i++) {
            CHECK_EQ(qg_ticket_shm_info_of(shm[i], &info), QG_OK);
            CHECK(info.tickets >= 8); /* trimmed by all at once, or one more each */
            qg_ticket_shm_close(shm[i]);
        }
        pthread_barrier_destroy(&barrier);
        end();
    }
}

TEST(sizes_out_of_range) {
    begin();
    CHECK(open_it(QG_TICKET_SHM_MIN - 1) == NULL && result == QG_INVALID);
    CHECK(open_it(QG_TICKET_SHM_MAX + 1) == NULL && result == QG_INVALID);
    CHECK(open_it(0) == NULL && result == QG_INVALID);
    CHECK(strstr(problem, "16384 to 8388608") != NULL);
    CHECK(access(path, F_OK) != 0);
    qg_ticket_shm *largest = open_it(QG_TICKET_SHM_MAX);
    CHECK(largest != NULL);
    qg_ticket_shm_close(largest);
    qg_ticket_shm_close(NULL);
    end();
}

TEST(foreign_files_are_refused) {
    begin();
    put_file("", 0, 0600);
    check_refused(QG_STATE, "not a segment");
    put_file("short", 5, 0600);
    check_refused(QG_STATE, "not a segment");
    char *text = calloc(1, SIZE);
    memset(text, 'x', SIZE);
    put_file(text, SIZE, 0600);
    free(text);
    check_refused(QG_STATE, "not a segment");
    unlink(path);
    CHECK_EQ(mkfifo(path, 0600), 0);
    check_refused(QG_STATE, "not a file");
    unlink(path);
    CHECK_EQ(symlink("/dev/null", path), 0);
    check_refused(QG_SYSTEM, strerror(ELOOP));
    unlink(path);
    CHECK_EQ(mkdir(path, 0700), 0);
    check_refused(QG_SYSTEM, strerror(EISDIR));
    CHECK_EQ(rmdir(path), 0);
    end();
}

TEST(truncated_older_newer_and_damaged_segments_are_refused) {
    begin();
    ticket_header header = good_header();
    CHECK_EQ(truncate(path, SIZE - 1), 0);
    check_refused(QG_STATE, "truncated");
    CHECK_EQ(truncate(path, 64), 0);
    check_refused(QG_STATE, "truncated");
    struct {
        uint32_t version, header_bytes, slot_bytes, slots, size;
        const char *text;
    } rows[] = {
        {0, 128, 1120, header.slots, SIZE, "older version"},
        {2, 128, 1120, header.slots, SIZE, "newer version"},
        {1, 64, 1120, header.slots, SIZE, "newer version"},
        {1, 128, 1088, header.slots, SIZE, "newer version"},
        {1, 128, 1120, header.slots + 1, SIZE, "damaged"},
        {1, 128, 1120, header.slots, SIZE - 1, "damaged"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        header.version = rows[i].version;
        header.header_bytes = rows[i].header_bytes;
        header.slot_bytes = rows[i].slot_bytes;
        header.slots = rows[i].slots;
        header.size = rows[i].size;
        put_file(&header, sizeof header, 0600);
        CHECK_EQ(truncate(path, SIZE), 0);
        check_refused(QG_STATE, rows[i].text);
    }
    end();
}

TEST(what_others_may_open_is_refused) {
    begin();
    good_header();
    CHECK_EQ(chmod(path, 0640), 0);
    check_refused(QG_STATE, "open to other users");
    CHECK_EQ(chmod(path, 0602), 0);
    check_refused(QG_STATE, "open to other users");
    CHECK_EQ(chmod(path, 0600), 0);
    if (geteuid() == 0) {
        CHECK_EQ(chown(path, 65534, 65534), 0);
        check_refused(QG_STATE, "belongs to another user");
    } else {
        CHECK_EQ(chmod(path, 0), 0);
        check_refused(QG_SYSTEM, strerror(EACCES));
    }
    end();
}

TEST(a_folder_that_is_not_there) {
    char text[256];
    int rc;
    CHECK(qg_ticket_shm_open("/dev/shm/no such folder/x", SIZE, &rc, text, sizeof text) == NULL);
    CHECK_EQ(rc, QG_SYSTEM);
    CHECK_EQ(errno, ENOENT);
    char *longer = calloc(1, 6000);
    memset(longer, 'x', 5000);
    CHECK(qg_ticket_shm_open(longer, SIZE, &rc, text, sizeof text) == NULL);
    CHECK_EQ(rc, QG_INVALID);
    free(longer);
}

/* As when the file system is full. */
TEST(no_room_for_the_file) {
    begin();
    struct rlimit before, little = {SIZE / 2, SIZE / 2};
    getrlimit(RLIMIT_FSIZE, &before);
    little.rlim_max = before.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &little), 0);
    qg_ticket_shm *shm = open_it(SIZE);
    int number = errno;
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(shm == NULL);
    CHECK_EQ(result, QG_SYSTEM);
    CHECK_EQ(number, EFBIG);
    CHECK(access(path, F_OK) != 0);
    end();
}

TEST(a_file_that_was_removed_or_cut_says_so) {
    uint8_t key[16] = {1}, out[64];
    qg_ticket_shm_info info;
    begin();
    qg_ticket_shm *shm = open_it(SIZE);
    CHECK_EQ(qg_ticket_shm_put(shm, key, key, 16, 0, 100, 1), QG_OK);
    CHECK_EQ(truncate(path, 4096), 0);
    CHECK_EQ(qg_ticket_shm_put(shm, key, key, 16, 0, 100, 1), QG_STATE);
    CHECK_EQ(qg_ticket_shm_get(shm, key, 1, out, sizeof out), QG_STATE);
    CHECK_EQ(truncate(path, SIZE), 0);
    CHECK_EQ(qg_ticket_shm_put(shm, key, key, 16, 0, 100, 1), QG_OK);
    unlink(path);
    CHECK_EQ(qg_ticket_shm_put(shm, key, key, 16, 0, 100, 1), QG_GONE);
    CHECK_EQ(qg_ticket_shm_get(shm, key, 1, out, sizeof out), QG_GONE);
    CHECK_EQ(qg_ticket_shm_take(shm, key, 1, out, sizeof out), QG_GONE);
    CHECK_EQ(qg_ticket_shm_delete(shm, key), QG_GONE);
    CHECK_EQ(qg_ticket_shm_clear(shm), QG_GONE);
    CHECK_EQ(qg_ticket_shm_at(shm, 0, 1, key, out, sizeof out), QG_GONE);
    CHECK_EQ(qg_ticket_shm_info_of(shm, &info), QG_GONE);
    qg_ticket_shm_close(shm);
    end();
}
