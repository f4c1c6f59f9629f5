/* The Python face of the search. It takes addresses as integers, so that building needs neither torch nor
 * numpy; regraft/search/compiled.py checks everything before an address is taken. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <stdlib.h>

#include "search.h"

#define AT(x) ((void *)(uintptr_t)(x))

static const search_isa_t *at_level(int level) {
#if defined(__x86_64__)
    if (level == 3) return &search_bf16;
    if (level == 2) return &search_avx512;
    if (level == 1) return &search_avx2;
#endif
    (void)level;
    return &search_baseline;
}

/* A side from five numbers that compiled.py writes: data, n, stride, step, order; and the sorted norms. */
static search_side_t read_side(const int64_t *g, int64_t height) {
    return (search_side_t){.data = AT(g[0]), .n = g[1], .stride = g[2], .step = g[3], .order = AT(g[4]),
                           .norms = AT(g[5]), .tiles = (g[1] + height - 1) / height};
}

static float *panels(const search_side_t *side, int64_t samples, int64_t height) {
    void *at = NULL;
    return posix_memalign(&at, 64, side->tiles * height * samples * sizeof(float)) == 0 ? at : NULL;
}

/* Where the excluded positions of each row start. */
static void point(int64_t *ptr, const int64_t *exclude, int64_t excluded, int64_t rows, int64_t columns) {
    int64_t at = 0;
    for (int64_t row = 0; row <= rows; row++) {
        while (at < excluded && exclude[at] < row * columns) at++;
        ptr[row] = at;
    }
}

static int64_t search(search_t *w, const search_isa_t *isa, int team, int64_t excluded, int64_t *index,
                      float *values) {
    int64_t tiles = w->rows.tiles, found = -1;
    int64_t *ptr = malloc((w->rows.n + 1) * sizeof *ptr), *ends = calloc(4 * tiles, sizeof *ends);
    w->rows.packed = panels(&w->rows, w->samples, isa->height);
    w->columns.packed = panels(&w->columns, w->samples, isa->width);
    w->capacity = 2 * w->k + 8192;
    int whole = ptr && ends && w->rows.packed && w->columns.packed;
    for (int t = 0; t < team; t++) {
        w->buffers[t].hits = malloc(w->capacity * sizeof(search_hit_t));
        w->buffers[t].raise_at = w->k;
        whole = whole && w->buffers[t].hits;
    }
    if (whole) {
        point(ptr, w->exclude, excluded, w->rows.n, w->columns.n);
        w->exclude_ptr = ptr;
        w->low = ends, w->high = ends + tiles, w->low_done = ends + 2 * tiles, w->high_done = ends + 3 * tiles;
        pool_run(isa->walk, w, team);
        found = search_finish(w, team, index, values);
    }
    for (int t = 0; t < team; t++) free(w->buffers[t].hits);
    free(w->rows.packed);
    free(w->columns.packed);
    free(ends);
    free(ptr);
    return found;
}

/* search(level, team, metric, floor, slack, samples, rows, columns, exclude, excluded, k, index, values) -> how
 * many were found, -1 without memory. With `floor` keys above zero count, otherwise all. */
static PyObject *py_search(PyObject *self, PyObject *args) {
    (void)self;
    int level, team, metric, floor;
    double slack;
    long long samples, excluded, k, found;
    unsigned long long rows, columns, exclude, index, values;
    if (!PyArg_ParseTuple(args, "iiipdLKKKLLKK", &level, &team, &metric, &floor, &slack, &samples, &rows, &columns,
                          &exclude, &excluded, &k, &index, &values))
        return NULL;
    const search_isa_t *isa = at_level(level);
    search_t *w = calloc(1, sizeof *w);
    if (w == NULL) return PyErr_NoMemory();
    w->rows = read_side(AT(rows), isa->height);
    w->columns = read_side(AT(columns), isa->width);
    w->samples = samples, w->k = k, w->metric = metric, w->slack = slack, w->exclude = AT(exclude);
    w->ratio = 0.8;
    w->level = metric == SEARCH_L2 ? DBL_MAX : (double)w->rows.norms[0] * w->columns.norms[0] * (1 + slack) + 1e-35;
    search_start(w, floor ? FLT_TRUE_MIN : -FLT_MAX, metric == SEARCH_L2 ? 0 : (float)(w->level * 1.000001));
    team = team < 1 ? 1 : team > POOL_MAX ? POOL_MAX : team;
    Py_BEGIN_ALLOW_THREADS
    found = search(w, isa, team, excluded, AT(index), AT(values));
    Py_END_ALLOW_THREADS
    free(w);
    if (found < 0) return PyErr_NoMemory();
    return PyLong_FromLongLong(found);
}

/* products(level, team, rows, columns, width, samples, index, n, products) */
static PyObject *py_products(PyObject *self, PyObject *args) {
    (void)self;
    int level, team;
    long long width, samples, n;
    unsigned long long rows, columns, index, products;
    if (!PyArg_ParseTuple(args, "iiKKLLKLK", &level, &team, &rows, &columns, &width, &samples, &index, &n, &products))
        return NULL;
    search_products_t job = {.rows = AT(rows), .columns = AT(columns), .width = width, .samples = samples, .n = n,
                             .index = AT(index), .products = AT(products)};
    Py_BEGIN_ALLOW_THREADS
    pool_run(at_level(level)->products, &job, team);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* has_bfloat16() -> whether level 3 can run here */
static PyObject *py_has_bfloat16(PyObject *self, PyObject *args) {
    (void)self, (void)args;
#if defined(__x86_64__)
    return PyBool_FromLong(__builtin_cpu_supports("avx512bf16") != 0);
#else
    Py_RETURN_FALSE;
#endif
}

static PyMethodDef methods[] = {
    {"has_bfloat16", py_has_bfloat16, METH_NOARGS, "Whether products of bfloat16 are compiled in and can run."},
    {"products", py_products, METH_VARARGS, "Inner products at positions."},
    {"search", py_search, METH_VARARGS, "The k best positions."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_search", "Compiled search.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__search(void) { return PyModule_Create(&module); }
