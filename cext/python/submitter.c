#include "submitter.h"

#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What is written where: the caller's side of one engine's ring. */
typedef struct submitter {
    qg_engine *engine;
    qg_submission *ring;
    uint8_t *arena;
    uint32_t capacity, size; /* records of the ring, bytes of the arena */
    uint32_t next, used;     /* the next record, and bytes of the arena */
} submitter;

static void destroy(PyObject *capsule) {
    free(PyCapsule_GetPointer(capsule, NULL));
}

/* The record and its bytes; `op` is complete but for them. */
static PyObject *put(submitter *s, qg_submission *op, PyObject *head, PyObject *body) {
    char *first, *second;
    Py_ssize_t n, m;
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(head, &first, &n) < 0 ||
        PyBytes_AsStringAndSize(body, &second, &m) < 0) {
        return NULL;
    }
    if ((size_t)n > s->size || (size_t)m > s->size - (size_t)n) {
        Py_RETURN_FALSE;
    }
    uint32_t total = (uint32_t)(n + m);
    /* The engine empties a record when it takes it, and it takes all or none. */
    uint32_t last = (s->next > 0 ? s->next : s->capacity) - 1;
    if (s->ring[last].op == 0) {
        s->used = 0;
    } else if (total > s->size - s->used || s->ring[s->next].op != 0) {
        qg_engine_submit(s->engine);
        s->used = 0;
    }
    op->offset = s->used;
    op->head_len = (uint32_t)n;
    op->body_len = (uint32_t)m;
    memcpy(s->arena + s->used, first, (size_t)n);
    memcpy(s->arena + s->used + n, second, (size_t)m);
    s->used += total;
    s->ring[s->next] = *op;
    s->next = s->next + 1 < s->capacity ? s->next + 1 : 0;
    Py_RETURN_TRUE;
}

static PyObject *wrong_count(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s: wrong number of arguments", name);
    return NULL;
}

static PyObject *submit(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 9) {
        return wrong_count("submit");
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
    return put(PyCapsule_GetPointer(self, NULL), &op, args[7], args[8]);
}

static PyObject *respond(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) {
        return wrong_count("respond");
    }
    qg_submission op = {
        .op = QG_OP_RESPOND,
        .flags = (uint16_t)PyLong_AsUnsignedLong(args[0]),
        .conn = PyLong_AsUnsignedLongLong(args[1]),
        .stream = PyLong_AsUnsignedLongLong(args[2]),
    };
    return put(PyCapsule_GetPointer(self, NULL), &op, args[3], args[4]);
}

static PyMethodDef functions[] = {
    {"submit", (PyCFunction)(void (*)(void))submit, METH_FASTCALL, NULL},
    {"respond", (PyCFunction)(void (*)(void))respond, METH_FASTCALL, NULL},
};

static int add(PyObject *namespace, PyObject *capsule) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        PyObject *function = PyCFunction_NewEx(&functions[i], capsule, NULL);
        if (function == NULL) {
            return -1;
        }
        int rc = PyDict_SetItemString(namespace, functions[i].ml_name, function);
        Py_DECREF(function);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

int qg_submitter_bind(qg_engine *engine, const qg_engine_options *options, uintptr_t namespace) {
    submitter *s = malloc(sizeof *s);
    if (s == NULL) {
        return -1;
    }
    qg_engine_memory memory;
    qg_engine_memory_of(engine, &memory);
    *s = (submitter){
        .engine = engine,
        .ring = memory.submissions,
        .arena = memory.submission_arena,
        .capacity = options->submissions,
        .size = options->submission_bytes,
    };
    PyGILState_STATE gil = PyGILState_Ensure(); /* cffi dropped it */
    PyObject *capsule = PyCapsule_New(s, NULL, destroy);
    int rc = -1;
    if (capsule == NULL) {
        free(s);
    } else {
        rc = add((PyObject *)namespace, capsule);
        Py_DECREF(capsule);
    }
    if (rc < 0) {
        PyErr_Clear();
    }
    PyGILState_Release(gil);
    return rc;
}
