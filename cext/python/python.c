#include "python.h"

#include <stdlib.h>

static void destroy(PyObject *capsule) {
    free(qg_self(capsule));
}

static int add(PyObject *namespace, PyMethodDef *functions, size_t count, PyObject *capsule) {
    for (size_t i = 0; i < count; i++) {
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

int qg_bind(uintptr_t namespace, PyMethodDef *functions, size_t count, void *object) {
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *capsule = object != NULL ? PyCapsule_New(object, NULL, destroy) : NULL;
    int rc = -1;
    if (capsule != NULL || object == NULL) {
        rc = add((PyObject *)namespace, functions, count, capsule);
    } else {
        free(object);
    }
    Py_XDECREF(capsule);
    if (rc < 0) {
        PyErr_Clear();
    }
    PyGILState_Release(gil);
    return rc;
}
