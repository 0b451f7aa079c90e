/* Opening the file of ticket_shm.h, and making it. */
#include "ticket_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_LENGTH_MAX 4000

typedef struct failure {
    int *result;
    char *text;
    size_t capacity;
} failure;

static int fail(const failure *f, int result, const char *path, const char *what) {
    int number = errno;
    *f->result = result;
    snprintf(f->text, f->capacity, "%s: %s", path, result == QG_SYSTEM ? strerror(number) : what);
    errno = number;
    return -1;
}

static uint32_t slots_in(uint64_t size) {
    return (uint32_t)((size - sizeof(ticket_header)) / sizeof(ticket_slot));
}

static bool write_header(int fd, uint64_t size) {
    ticket_header header = {.version = QG__TICKET_VERSION,
                            .header_bytes = sizeof header,
                            .size = size,
                            .slots = slots_in(size),
                            .slot_bytes = sizeof(ticket_slot)};
    memcpy(header.magic, QG__TICKET_MAGIC, sizeof header.magic);
    errno = posix_fallocate(fd, 0, (off_t)size); /* the rest is zeros: free slots */
    if (errno != 0) {
        return false;
    }
    return pwrite(fd, &header, sizeof header, 0) == (ssize_t)sizeof header;
}

/* Make the file whole under another name, then give it this one, unless somebody has (rule 7). */
static bool create(const char *path, uint64_t size) {
    char other[PATH_LENGTH_MAX + 8];
    snprintf(other, sizeof other, "%s.XXXXXX", path);
    int fd = mkostemp(other, O_CLOEXEC); /* 0600 */
    if (fd < 0) {
        return false;
    }
    bool made = write_header(fd, size) && (link(other, path) == 0 || errno == EEXIST);
    int number = errno;
    unlink(other);
    close(fd);
    errno = number;
    return made;
}

/* Why the file is not a segment of ours, or NULL. */
static const char *check_header(const ticket_header *h, uint64_t size) {
    if (memcmp(h->magic, QG__TICKET_MAGIC, sizeof h->magic) != 0) {
        return "this is not a segment of session tickets";
    }
    if (h->version < QG__TICKET_VERSION) {
        return "made by an older version of quicgreen";
    }
    if (h->version != QG__TICKET_VERSION || h->header_bytes != sizeof *h ||
        h->slot_bytes != sizeof(ticket_slot)) {
        return "made by a newer version of quicgreen, or on another kind of machine";
    }
    if (size < h->size) {
        return "the segment is truncated";
    }
    if (h->size != size || size < QG_TICKET_SHM_MIN || size > QG_TICKET_SHM_MAX ||
        h->slots != slots_in(size)) {
        return "the segment's header is damaged";
    }
    return NULL;
}

static const char *check_file(int fd, const struct stat *st) {
    ticket_header header;
    if (!S_ISREG(st->st_mode)) {
        return "this is not a file";
    }
    if (st->st_uid != geteuid()) {
        return "the segment belongs to another user";
    }
    if ((st->st_mode & 077) != 0) {
        return "the segment is open to other users";
    }
    ssize_t n = pread(fd, &header, sizeof header, 0);
    if (n < 0) {
        return "the segment cannot be read";
    }
    if (n < (ssize_t)sizeof header) {
        return n >= 8 && memcmp(header.magic, QG__TICKET_MAGIC, 8) == 0
                   ? "the segment is truncated"
                   : "this is not a segment of session tickets";
    }
    return check_header(&header, (uint64_t)st->st_size);
}

/* A descriptor of the file, made if there is none; or -1. */
static int open_file(const char *path, uint64_t size, const failure *f) {
    /* Again, when somebody removes the file between our making and our opening it. */
    for (int tries = 0; tries < 16; tries++) {
        int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd >= 0 || errno != ENOENT) {
            return fd >= 0 ? fd : fail(f, QG_SYSTEM, path, NULL);
        }
        if (!create(path, size)) {
            break;
        }
    }
    return fail(f, QG_SYSTEM, path, NULL);
}

static qg_ticket_shm *map_file(int fd, const char *path, const failure *f) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        fail(f, QG_SYSTEM, path, NULL);
        return NULL;
    }
    const char *problem = check_file(fd, &st);
    if (problem != NULL) {
        fail(f, QG_STATE, path, problem);
        return NULL;
    }
    qg_ticket_shm *shm = calloc(1, sizeof *shm);
    void *map = shm == NULL
                    ? MAP_FAILED
                    : mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        fail(f, QG_SYSTEM, path, NULL);
        free(shm);
        return NULL;
    }
    shm->fd = fd;
    shm->size = (uint64_t)st.st_size;
    shm->count = slots_in(shm->size);
    shm->header = map;
    shm->slots = (ticket_slot *)(void *)((uint8_t *)map + sizeof(ticket_header));
    return shm;
}

qg_ticket_shm *qg_ticket_shm_open(const char *path, uint64_t size, int *result, char *error,
                                  size_t error_capacity) {
    failure f = {result, error, error_capacity};
    *result = QG_OK;
    if (size < QG_TICKET_SHM_MIN || size > QG_TICKET_SHM_MAX) {
        fail(&f, QG_INVALID, path, "a segment has 16384 to 8388608 bytes");
        return NULL;
    }
    if (strlen(path) > PATH_LENGTH_MAX) {
        fail(&f, QG_INVALID, "the path", "is too long");
        return NULL;
    }
    int fd = open_file(path, size, &f);
    if (fd < 0) {
        return NULL;
    }
    qg_ticket_shm *shm = map_file(fd, path, &f);
    if (shm == NULL) {
        int number = errno;
        close(fd);
        errno = number;
    }
    return shm;
}

void qg_ticket_shm_close(qg_ticket_shm *shm) {
    if (shm != NULL) {
        munmap(shm->header, (size_t)shm->size);
        close(shm->fd);
        free(shm);
    }
}
