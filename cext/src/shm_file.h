/* shm_file.h: files in memory that unrelated processes map: made whole or not at all, for their user alone,
 * and looked at before they are believed. */
#ifndef QG_SHM_FILE_H
#define QG_SHM_FILE_H

#include "base.h"

#define QG_SHM_HEADER_MAX 256

/* Where a failure is told: a result code, and "path: what". */
typedef struct qg_failure {
    int *result;
    char *text;
    size_t capacity;
} qg_failure;

/* What such a file holds. */
typedef struct qg_shm_kind {
    const char *name; /* "a segment of session tickets" */
    const char *magic;
    size_t header_bytes; /* at most QG_SHM_HEADER_MAX */

    /* Fill a new file, which is all zeros. */
    void (*init)(void *map, uint64_t size, const void *arg);

    /* Why the header is not one of ours, or NULL. */
    const char *(*check)(const void *header, uint64_t size);
} qg_shm_kind;

/* Tell. QG_SYSTEM: errno says what. Returns -1. */
int qg__shm_fail(const qg_failure *f, int result, const char *path, const char *what);

/* Open the file at `path`; who comes first makes it, of `size` bytes, all of them allocated: a full file
 * system is an error then, not a SIGBUS later. A descriptor and *size of what is there; or -1. */
int qg__shm_open(const char *path, const qg_shm_kind *kind, uint64_t *size, const void *arg,
                 const qg_failure *f);

/* NULL: errno says why. */
void *qg__shm_map(int fd, uint64_t size);

#endif
