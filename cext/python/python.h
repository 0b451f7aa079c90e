/* python.h: CPython's interface, as far as this folder needs it, in the limited form that all
 * versions from 3.10 on keep to.
 *
 * A call through cffi drops the GIL and takes it again, and its arguments are converted by a
 * general machine: some 150 ns. Functions of CPython's own kind (METH_FASTCALL) cost 30. What is
 * called for each request or message is one of these. */
#ifndef QG_PYTHON_H
#define QG_PYTHON_H

#define Py_LIMITED_API 0x030A0000
#include <Python.h>

/* The buffer protocol is in the limited interface since 3.11 only; 3.10 has it with the same layout
 * (bpo-45459). */
typedef struct qg_buffer {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} qg_buffer;

#define QG_BUFFER_SIMPLE   0
#define QG_BUFFER_WRITABLE 1

extern int PyObject_GetBuffer(PyObject *object, qg_buffer *view, int flags);
extern void PyBuffer_Release(qg_buffer *view);

#define QG_METHOD(name) {#name, (PyCFunction)(void (*)(void))(name), METH_FASTCALL, NULL}

/* Put `count` functions into the dict whose address `namespace` is (in CPython: its `id`). Their
 * `self` is a capsule around `object` (NULL: none), which is freed with the last of them, and at
 * once on failure. To be called without the GIL, which is how cffi calls. 0, or -1 with Python's memory at
 * its end. */
int qg_bind(uintptr_t namespace, PyMethodDef *functions, size_t count, void *object);

/* What a capsule is around. */
static inline void *qg_self(PyObject *capsule) {
    return PyCapsule_GetPointer(capsule, NULL);
}

/* NULL, with an exception, unless there are as many arguments as there must be. */
static inline PyObject *qg_wrong_count(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s: wrong number of arguments", name);
    return NULL;
}

#endif
