/* Opening the file of ticket_shm.h, and making it. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm_file.h"
#include "ticket_shm.h"

static uint32_t slots_in(uint64_t size) {
    return (uint32_t)((size - sizeof(ticket_header)) / sizeof(ticket_slot));
}

/* The rest is zeros: free slots. */
static void init(void *map, uint64_t size, const void *arg) {
    ticket_header *header = map;
    (void)arg;
    header->version = QG__TICKET_VERSION;
    header->header_bytes = sizeof *header;
    header->size = size;
    header->slots = slots_in(size);
    header->slot_bytes = sizeof(ticket_slot);
    memcpy(header->magic, QG__TICKET_MAGIC, sizeof header->magic);
}

static const char *check(const void *header, uint64_t size) {
    const ticket_header *h = header;
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

static const qg_shm_kind kind = {"a segment of session tickets", QG__TICKET_MAGIC,
                                 sizeof(ticket_header), init, check};

static qg_ticket_shm *map_file(int fd, uint64_t size) {
    qg_ticket_shm *shm = calloc(1, sizeof *shm);
    void *map = shm != NULL ? qg__shm_map(fd, size) : NULL;
    if (map == NULL) {
        free(shm);
        return NULL;
    }
    shm->fd = fd;
    shm->size = size;
    shm->count = slots_in(size);
    shm->header = map;
    shm->slots = (ticket_slot *)(void *)((uint8_t *)map + sizeof(ticket_header));
    return shm;
}

qg_ticket_shm *qg_ticket_shm_open(const char *path, uint64_t size, int *result, char *error,
                                  size_t error_capacity) {
    qg_failure f = {result, error, error_capacity};
    *result = QG_OK;
    if (size < QG_TICKET_SHM_MIN || size > QG_TICKET_SHM_MAX) {
        qg__shm_fail(&f, QG_INVALID, path, "a segment has 16384 to 8388608 bytes");
        return NULL;
    }
    int fd = qg__shm_open(path, &kind, &size, NULL, &f);
    if (fd < 0) {
        return NULL;
    }
    qg_ticket_shm *shm = map_file(fd, size);
    if (shm == NULL) {
        int number = errno;
        qg__shm_fail(&f, QG_SYSTEM, path, NULL);
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
