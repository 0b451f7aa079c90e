#include "frame_calls.h"

#include <stdlib.h>

#include "python.h"

static PyObject *piece_of(const qg_ws_reader *r, const qg_ws_piece *piece, const uint8_t *bytes) {
    const uint8_t *from = piece->flags & QG_WS_KEPT ? r->control : bytes + piece->offset;
    PyObject *opcode = PyLong_FromLong((long)piece->opcode);
    PyObject *flags = PyLong_FromLong((long)(piece->flags & ~(uint32_t)QG_WS_KEPT));
    PyObject *payload = PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)piece->len);
    PyObject *tuple = NULL;
    if (opcode != NULL && flags != NULL && payload != NULL) {
        tuple = PyTuple_Pack(3, opcode, flags, payload);
    }
    Py_XDECREF(opcode);
    Py_XDECREF(flags);
    Py_XDECREF(payload);
    return tuple;
}

/* 0, or -1 with an exception. */
static int add_pieces(PyObject *list, const qg_ws_reader *r, const uint8_t *bytes) {
    for (uint32_t i = 0; i < r->count; i++) {
        PyObject *piece = piece_of(r, &r->pieces[i], bytes);
        int rc = piece == NULL ? -1 : PyList_Append(list, piece);
        Py_XDECREF(piece);
        if (rc < 0) {
            return -1;
        }
    }
    return 0;
}

static PyObject *with_error(PyObject *pieces, const qg_ws_reader *r) {
    PyObject *code = PyLong_FromLong((long)r->error);
    PyObject *text = PyUnicode_FromString(r->problem);
    PyObject *tuple = NULL;
    if (code != NULL && text != NULL) {
        tuple = PyTuple_Pack(3, pieces, code, text);
    }
    Py_XDECREF(code);
    Py_XDECREF(text);
    return tuple;
}

static PyObject *feed_bytes(qg_ws_reader *r, uint8_t *bytes, uint32_t n) {
    PyObject *pieces = PyList_New(0);
    if (pieces == NULL) {
        return NULL;
    }
    uint32_t begin = 0;
    do {
        qg_ws_feed(r, bytes, begin, n);
        begin = r->used;
        if (add_pieces(pieces, r, bytes) < 0) {
            Py_DECREF(pieces);
            return NULL;
        }
    } while (begin < n && r->error == 0);
    if (r->error == 0) {
        return pieces;
    }
    PyObject *found = with_error(pieces, r);
    Py_DECREF(pieces);
    return found;
}

static PyObject *feed(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        return qg_wrong_count("feed");
    }
    Py_ssize_t n = PyLong_AsSsize_t(args[1]);
    qg_buffer buffer;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[0], &buffer, QG_BUFFER_WRITABLE) < 0) {
        return NULL;
    }
    PyObject *found = NULL;
    if (n < 0 || n > buffer.len || n > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd bytes of a buffer of %zd", n, buffer.len);
    } else {
        found = feed_bytes(qg_self(self), buffer.buf, (uint32_t)n);
    }
    PyBuffer_Release(&buffer);
    return found;
}

static PyObject *built(uint32_t opcode, uint32_t flags, const uint8_t *payload, Py_ssize_t len) {
    size_t size = qg_ws_frame_size((size_t)len, flags);
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (frame == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AsString(frame);
    if (qg_ws_build(opcode, flags, payload, (size_t)len, out) < 0) {
        Py_DECREF(frame);
        Py_RETURN_NONE;
    }
    return frame;
}

static PyObject *build(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    (void)self;
    if (count != 3) {
        return qg_wrong_count("build");
    }
    uint32_t opcode = (uint32_t)PyLong_AsUnsignedLong(args[0]);
    uint32_t flags = (uint32_t)PyLong_AsUnsignedLong(args[1]);
    qg_buffer payload;
    if (PyErr_Occurred() || PyObject_GetBuffer(args[2], &payload, QG_BUFFER_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *frame = built(opcode, flags, payload.buf, payload.len);
    PyBuffer_Release(&payload);
    return frame;
}

static PyMethodDef reading[] = {QG_METHOD(feed)};
static PyMethodDef building[] = {QG_METHOD(build)};

int qg_frame_reader(uint32_t flags, uintptr_t namespace) {
    qg_ws_reader *r = malloc(sizeof *r);
    if (r == NULL) {
        return -1;
    }
    qg_ws_reader_init(r, flags);
    return qg_bind(namespace, reading, 1, r);
}

int qg_frame_builder(uintptr_t namespace) {
    return qg_bind(namespace, building, 1, NULL);
}
