#include "shm_file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "victims.h"

#define SIZE 8192

static char path[96], text[256];
static int result;

static void init(void *map, uint64_t size, const void *arg) {
    memcpy(map, "testfile", 8);
    memcpy((uint8_t *)map + 8, &size, 8);
    memcpy((uint8_t *)map + 16, arg, 8);
}

static const char *check(const void *header, uint64_t size) {
    return memcmp((const uint8_t *)header + 8, &size, 8) == 0 ? NULL : "another size";
}

static const qg_shm_kind kind = {"a file of this test", "testfile", 24, init, check};

static int open_it(const char *content, uint64_t *size) {
    qg_failure f = {&result, text, sizeof text};
    snprintf(path, sizeof path, "/dev/shm/quicgreen-test-%d", getppid());
    return qg__shm_open(path, &kind, size, content, &f);
}

static int fill_and_read(void *arg) {
    uint64_t size = SIZE;
    char content[9];
    snprintf(content, sizeof content, "%08d", getpid());
    int fd = open_it(content, &size);
    uint8_t *map = fd >= 0 ? qg__shm_map(fd, size) : NULL;
    if (map == NULL || size != SIZE || memcmp(map, "testfile", 8) != 0) {
        return 1;
    }
    memcpy(arg, map + 16, 8); /* all must see the same one's */
    return 0;
}

TEST(of_many_that_come_at_once_one_makes_it) {
    char(*seen)[8] = shared_memory(4096);
    pid_t pids[8];
    snprintf(path, sizeof path, "/dev/shm/quicgreen-test-%d", getpid());
    for (int round = 0; round < 20; round++) {
        unlink(path);
        for (int i = 0; i < 8; i++) {
            pids[i] = start_victim(fill_and_read, seen[i], 0, 0);
        }
        for (int i = 0; i < 8; i++) {
            CHECK_EQ(wait_for(pids[i], 0), 0);
            CHECK_BYTES(seen[i], 8, seen[0], 8);
        }
        struct stat st;
        CHECK_EQ(stat(path, &st), 0);
        CHECK_EQ(st.st_mode & 0777, 0600);
        CHECK_EQ(st.st_nlink, 1);
    }
    CHECK_EQ(unlink(path), 0);
    munmap(seen, 4096);
}

TEST(failures_say_where) {
    qg_failure f = {&result, text, sizeof text};
    errno = ENOSPC;
    CHECK_EQ(qg__shm_fail(&f, QG_SYSTEM, "/a/b", NULL), -1);
    CHECK_EQ(result, QG_SYSTEM);
    CHECK_EQ(errno, ENOSPC);
    CHECK(strstr(text, "/a/b: No space left") == text);
    CHECK_EQ(qg__shm_fail(&f, QG_STATE, "/a/b", "is torn"), -1);
    CHECK_EQ(strcmp(text, "/a/b: is torn"), 0);
}
