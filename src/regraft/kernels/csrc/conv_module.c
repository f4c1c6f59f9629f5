/* The Python face of the sparse convolution. It takes addresses as integers, so that building needs neither
 * torch nor numpy; regraft/kernels/convolution.py checks everything before an address is taken. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "conv.h"

#define AT(x) ((void *)(uintptr_t)(x))
typedef unsigned long long addr;

/* Instruction sets by the level that Python passes; what the machine has was looked up there. */
static const conv_isa_t *at_level(int level) {
#if defined(__x86_64__)
    if (level == 2) return &conv_avx512;
    if (level == 1) return &conv_avx2;
#endif
    (void)level;
    return &conv_baseline;
}

/* A geometry as conv_plan.py writes it: numbers, then the addresses of the plan's tensors. */
static conv_plan_t read_plan(const int64_t *g) {
    conv_plan_t p = {
        .channels = g[0], .height = g[1], .width = g[2], .out = g[3], .out_height = g[4], .out_width = g[5],
        .stride_y = g[6], .stride_x = g[7], .top = g[8], .left = g[9], .planes = g[10], .phases = g[11],
        .lines = g[12], .columns = g[13], .grid_width = g[14], .grid_height = g[15], .group = g[16],
        .lead = g[17], .row = g[18], .nnz = g[19], .phase = AT(g[20]), .rowptr = AT(g[21]),
        .place = AT(g[22]), .colptr = AT(g[23]), .back = AT(g[24]), .perm = AT(g[25]),
    };
    return p;
}

/* forward(level, double, team, geometry, batch, values, bias, x, y, packed_x, packed_y) */
static PyObject *py_forward(PyObject *self, PyObject *args) {
    (void)self;
    int level, dtype, team;
    long long batch;
    addr geometry, values, bias, x, y, packed_x, packed_y;
    if (!PyArg_ParseTuple(args, "ipiKLKKKKKK", &level, &dtype, &team, &geometry, &batch, &values, &bias, &x, &y,
                          &packed_x, &packed_y))
        return NULL;
    conv_t job = {
        .plan = read_plan(AT(geometry)), .batch = batch, .values = AT(values), .bias = AT(bias), .x = AT(x),
        .y = AT(y), .packed_x = AT(packed_x), .packed_y = AT(packed_y),
    };
    Py_BEGIN_ALLOW_THREADS
    pool_run(at_level(level)->forward[dtype], &job, team);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* backward(level, double, team, geometry, batch, values, x, dy, dx, dvalues, dbias, packed_x, packed_y); dvalues
 * and dbias are added to */
static PyObject *py_backward(PyObject *self, PyObject *args) {
    (void)self;
    int level, dtype, team;
    long long batch;
    addr geometry, values, x, dy, dx, dvalues, dbias, packed_x, packed_y;
    if (!PyArg_ParseTuple(args, "ipiKLKKKKKKKK", &level, &dtype, &team, &geometry, &batch, &values, &x, &dy, &dx,
                          &dvalues, &dbias, &packed_x, &packed_y))
        return NULL;
    conv_t job = {
        .plan = read_plan(AT(geometry)), .batch = batch, .values = AT(values), .x = AT(x), .dy = AT(dy),
        .dx = AT(dx), .dvalues = AT(dvalues), .dbias = AT(dbias), .packed_x = AT(packed_x),
        .packed_y = AT(packed_y),
    };
    Py_BEGIN_ALLOW_THREADS
    pool_run(at_level(level)->backward[dtype], &job, team);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"forward", py_forward, METH_VARARGS, "One sparse convolution forward."},
    {"backward", py_backward, METH_VARARGS, "One sparse convolution backward."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_conv", "Compiled sparse convolution.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__conv(void) { return PyModule_Create(&module); }
