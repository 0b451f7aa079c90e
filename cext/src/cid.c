#include "cid.h"

#include <openssl/rand.h>
#include <stdlib.h>

void qg__cid_init(qg_cid_table *table, qg_cid_origin origin) {
    *table = (qg_cid_table){.origin = origin, .free_head = QG_CID_NO_INDEX};
}

void qg__cid_free(qg_cid_table *table) {
    free(table->entries);
    table->entries = NULL;
}

void qg__cid_write(qg_cid_origin origin, uint32_t index, uint8_t out[QG_CID_LEN]) {
    out[0] = QG_CID_FIRST;
    qg__put16(out + 1, origin.host_id);
    out[3] = origin.slot;
    out[4] = origin.generation;
    qg__put24(out + 5, index);
    RAND_bytes(out + 8, 4);
}

bool qg__cid_read(const uint8_t *cid, size_t len, qg_cid_origin *origin, uint32_t *index) {
    if (len != QG_CID_LEN || cid[0] != QG_CID_FIRST) {
        return false;
    }
    *origin = (qg_cid_origin){qg__get16(cid + 1), cid[3], cid[4]};
    *index = qg__get24(cid + 5);
    return true;
}

static bool grow(qg_cid_table *t) {
    uint32_t capacity = t->capacity > 0 ? 2 * t->capacity : 64;
    if (capacity > QG_CID_NO_INDEX) {
        capacity = QG_CID_NO_INDEX;
    }
    qg_cid_entry *entries = realloc(t->entries, capacity * sizeof *entries);
    if (entries == NULL) {
        return false;
    }
    t->entries = entries;
    /* The lowest index first, so that few connections stay close together. */
    for (uint32_t i = capacity; i > t->capacity; i--) {
        entries[i - 1] = (qg_cid_entry){.next_free = t->free_head};
        t->free_head = i - 1;
    }
    t->capacity = capacity;
    return true;
}

int qg__cid_issue(qg_cid_table *t, uint64_t conn, uint8_t out[QG_CID_LEN]) {
    if (t->free_head == QG_CID_NO_INDEX) {
        if (t->capacity == QG_CID_NO_INDEX) {
            return QG_LIMIT;
        }
        if (!grow(t)) {
            return QG_NOMEM;
        }
    }
    uint32_t index = t->free_head;
    qg_cid_entry *e = &t->entries[index];
    t->free_head = e->next_free;
    t->count++;
    qg__cid_write(t->origin, index, e->cid);
    e->conn = conn;
    memcpy(out, e->cid, QG_CID_LEN);
    return QG_OK;
}

static qg_cid_entry *entry_of(const qg_cid_table *t, const uint8_t *cid, size_t len) {
    if (len != QG_CID_LEN) {
        return NULL;
    }
    uint32_t index = qg__get24(cid + 5);
    if (index >= t->capacity || t->entries[index].conn == 0 ||
        memcmp(t->entries[index].cid, cid, QG_CID_LEN) != 0) {
        return NULL;
    }
    return &t->entries[index];
}

uint64_t qg__cid_find(const qg_cid_table *t, const uint8_t *cid, size_t len) {
    const qg_cid_entry *e = entry_of(t, cid, len);
    return e != NULL ? e->conn : 0;
}

void qg__cid_retire(qg_cid_table *t, const uint8_t *cid, size_t len) {
    qg_cid_entry *e = entry_of(t, cid, len);
    if (e == NULL) {
        return;
    }
    *e = (qg_cid_entry){.next_free = t->free_head};
    t->free_head = (uint32_t)(e - t->entries);
    t->count--;
}
