#include "shm_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_LENGTH_MAX 4000

int qg__shm_fail(const qg_failure *f, int result, const char *path, const char *what) {
    int number = errno;
    *f->result = result;
    snprintf(f->text, f->capacity, "%s: %s", path, result == QG_SYSTEM ? strerror(number) : what);
    errno = number;
    return -1;
}

void *qg__shm_map(int fd, uint64_t size) {
    void *map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return map != MAP_FAILED ? map : NULL;
}

static bool fill(int fd, const qg_shm_kind *kind, uint64_t size, const void *arg) {
    errno = posix_fallocate(fd, 0, (off_t)size);
    void *map = errno == 0 ? qg__shm_map(fd, size) : NULL;
    if (map == NULL) {
        return false;
    }
    kind->init(map, size, arg);
    munmap(map, (size_t)size);
    return true;
}

/* Make the file whole under another name, then give it this one, unless somebody has. */
static bool create(const char *path, const qg_shm_kind *kind, uint64_t size, const void *arg) {
    char other[PATH_LENGTH_MAX + 8];
    snprintf(other, sizeof other, "%s.XXXXXX", path);
    int fd = mkostemp(other, O_CLOEXEC); /* 0600 */
    if (fd < 0) {
        return false;
    }
    bool made = fill(fd, kind, size, arg) && (link(other, path) == 0 || errno == EEXIST);
    int number = errno;
    unlink(other);
    close(fd);
    errno = number;
    return made;
}

/* A descriptor of the file, made if there is none; or -1. */
static int open_or_create(const char *path, const qg_shm_kind *kind, uint64_t size,
                          const void *arg) {
    /* Again, when somebody removes the file between our making and our opening it. */
    for (int tries = 0; tries < 16; tries++) {
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 || errno != ENOENT) {
            return fd;
        }
        if (!create(path, kind, size, arg)) {
            break;
        }
    }
    return -1;
}

/* Why it is not a file of ours, or NULL. `text` is for the answer. */
static const char *check(int fd, const qg_shm_kind *kind, const struct stat *st, char text[128]) {
    _Alignas(8) uint8_t header[QG_SHM_HEADER_MAX];
    snprintf(text, 128, "this is not %s", kind->name);
    if (!S_ISREG(st->st_mode)) {
        return "this is not a file";
    }
    if (st->st_uid != geteuid()) {
        return "the segment belongs to another user";
    }
    if ((st->st_mode & 077) != 0) {
        return "the segment is open to other users";
    }
    ssize_t n = pread(fd, header, kind->header_bytes, 0);
    if (n < 0) {
        return "the segment cannot be read";
    }
    if (n < 8 || memcmp(header, kind->magic, 8) != 0) {
        return text;
    }
    return n < (ssize_t)kind->header_bytes ? "the segment is truncated"
                                           : kind->check(header, (uint64_t)st->st_size);
}

int qg__shm_open(const char *path, const qg_shm_kind *kind, uint64_t *size, const void *arg,
                 const qg_failure *f) {
    struct stat st;
    char text[128];
    if (strlen(path) > PATH_LENGTH_MAX) {
        return qg__shm_fail(f, QG_INVALID, "the path", "is too long");
    }
    int fd = open_or_create(path, kind, *size, arg);
    if (fd < 0 || fstat(fd, &st) != 0) {
        qg__shm_fail(f, QG_SYSTEM, path, NULL);
    } else {
        const char *problem = check(fd, kind, &st, text);
        *size = (uint64_t)st.st_size;
        if (problem == NULL) {
            return fd;
        }
        qg__shm_fail(f, QG_STATE, path, problem);
    }
    int number = errno;
    if (fd >= 0) {
        close(fd);
    }
    errno = number;
    return -1;
}
