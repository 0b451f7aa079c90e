#include "engine_calls.h"

#include <stdlib.h>
#include <string.h>

#include "python.h"

/* One engine, and the caller's side of its submission ring. */
typedef struct caller {
    qg_engine *engine;
    qg_submission *ring;
    uint8_t *arena;
    uint32_t capacity, size; /* records of the ring, bytes of the arena */
    uint32_t next, used;     /* the next record, and bytes of the arena */
} caller;

/* The record and its bytes; `op` is complete but for them. */
static PyObject *put(caller *c, qg_submission *op, PyObject *head, PyObject *body) {
    char *first, *second;
    Py_ssize_t n, m;
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(head, &first, &n) < 0 ||
        PyBytes_AsStringAndSize(body, &second, &m) < 0) {
        return NULL;
    }
    if ((size_t)n > c->size || (size_t)m > c->size - (size_t)n) {
        Py_RETURN_FALSE;
    }
    uint32_t total = (uint32_t)(n + m);
    /* The engine empties a record when it takes it, and it takes all or none. */
    uint32_t last = (c->next > 0 ? c->next : c->capacity) - 1;
    if (c->ring[last].op == 0) {
        c->used = 0;
    } else if (total > c->size - c->used || c->ring[c->next].op != 0) {
        qg_engine_submit(c->engine);
        c->used = 0;
    }
    op->offset = c->used;
    op->head_len = (uint32_t)n;
    op->body_len = (uint32_t)m;
    memcpy(c->arena + c->used, first, (size_t)n);
    memcpy(c->arena + c->used + n, second, (size_t)m);
    c->used += total;
    c->ring[c->next] = *op;
    c->next = c->next + 1 < c->capacity ? c->next + 1 : 0;
    Py_RETURN_TRUE;
}

static PyObject *submit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 9) {
        return qg_wrong_count("submit");
    }
    qg_submission op = {
        .op = (uint16_t)PyLong_AsUnsignedLong(args[0]),
        .flags = (uint16_t)PyLong_AsUnsignedLong(args[1]),
        .conn = PyLong_AsUnsignedLongLong(args[2]),
        .stream = PyLong_AsUnsignedLongLong(args[3]),
        .token = PyLong_AsUnsignedLongLong(args[4]),
        .timeout_us = PyLong_AsUnsignedLongLong(args[5]),
        .code = PyLong_AsUnsignedLongLong(args[6]),
    };
    return put(qg_self(self), &op, args[7], args[8]);
}

static PyObject *respond(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) {
        return qg_wrong_count("respond");
    }
    qg_submission op = {
        .op = QG_OP_RESPOND,
        .flags = (uint16_t)PyLong_AsUnsignedLong(args[0]),
        .conn = PyLong_AsUnsignedLongLong(args[1]),
        .stream = PyLong_AsUnsignedLongLong(args[2]),
    };
    return put(qg_self(self), &op, args[3], args[4]);
}

/* (n, flags, code), or without `flags` (n, code). */
static PyObject *answer(int64_t n, const uint32_t *flags, uint64_t code) {
    PyObject *items[3];
    Py_ssize_t count = 0;
    items[count++] = PyLong_FromLongLong(n);
    if (flags != NULL) {
        items[count++] = PyLong_FromUnsignedLong(*flags);
    }
    items[count++] = PyLong_FromUnsignedLongLong(code);
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (tuple == NULL || items[i] == NULL) {
            Py_XDECREF(items[i]);
        } else {
            PyTuple_SetItem(tuple, i, items[i]);
        }
    }
    if (tuple != NULL && PyErr_Occurred()) {
        Py_DECREF(tuple);
        return NULL;
    }
    return tuple;
}

typedef int64_t reader(qg_engine *, uint64_t, uint64_t, uint8_t *, size_t, uint64_t, uint64_t,
                       uint32_t *, uint64_t *);

static PyObject *read_by(reader *call, PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) {
        return qg_wrong_count("stream_read");
    }
    caller *c = qg_self(self);
    uint64_t conn = PyLong_AsUnsignedLongLong(args[0]);
    uint64_t stream = PyLong_AsUnsignedLongLong(args[1]);
    uint64_t token = PyLong_AsUnsignedLongLong(args[3]);
    uint64_t timeout_us = PyLong_AsUnsignedLongLong(args[4]);
    qg_buffer out;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[2], &out, QG_BUFFER_WRITABLE) < 0) {
        return NULL;
    }
    uint32_t flags = 0;
    uint64_t code = 0;
    int64_t n =
        call(c->engine, conn, stream, out.buf, (size_t)out.len, token, timeout_us, &flags, &code);
    PyBuffer_Release(&out);
    return answer(n, &flags, code);
}

static PyObject *stream_read(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    return read_by(qg_stream_read, self, args, count);
}

static PyObject *stream_read_on(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    return read_by(qg_stream_read_on, self, args, count);
}

static PyObject *stream_write(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 6) {
        return qg_wrong_count("stream_write");
    }
    caller *c = qg_self(self);
    uint64_t conn = PyLong_AsUnsignedLongLong(args[0]);
    uint64_t stream = PyLong_AsUnsignedLongLong(args[1]);
    uint32_t flags = (uint32_t)PyLong_AsUnsignedLong(args[3]);
    uint64_t token = PyLong_AsUnsignedLongLong(args[4]);
    uint64_t timeout_us = PyLong_AsUnsignedLongLong(args[5]);
    qg_buffer data;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[2], &data, QG_BUFFER_SIMPLE) < 0) {
        return NULL;
    }
    uint64_t code = 0;
    int64_t n = qg_stream_write(c->engine, conn, stream, data.buf, (size_t)data.len, flags, token,
                                timeout_us, &code);
    PyBuffer_Release(&data);
    return answer(n, NULL, code);
}

static PyMethodDef functions[] = {
    QG_METHOD(submit),         QG_METHOD(respond),      QG_METHOD(stream_read),
    QG_METHOD(stream_read_on), QG_METHOD(stream_write),
};

int qg_engine_calls(qg_engine *engine, const qg_engine_options *options, uintptr_t namespace) {
    caller *c = malloc(sizeof *c);
    if (c == NULL) {
        return -1;
    }
    qg_engine_memory memory;
    qg_engine_memory_of(engine, &memory);
    *c = (caller){
        .engine = engine,
        .ring = memory.submissions,
        .arena = memory.submission_arena,
        .capacity = options->submissions,
        .size = options->submission_bytes,
    };
    return qg_bind(namespace, functions, sizeof functions / sizeof *functions, c);
}
