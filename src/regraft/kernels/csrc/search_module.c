/* The Python face of the search. It takes addresses as integers, so that building needs neither torch nor
 * numpy; regraft/search/compiled.py checks everything before an address is taken. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

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

static search_side_t side_of(unsigned long long data, long long n, long long stride, long long step,
                             int64_t height) {
    return (search_side_t){.data = AT(data), .n = n, .stride = stride, .step = step,
                           .tiles = (n + height - 1) / height};
}

/* Room for what the search keeps of a side; 0 without memory. */
static int make_room(search_side_t *side, int64_t samples, int stops, int64_t height) {
    void *at = NULL;
    side->behind = malloc((side->tiles * stops * height + 1) * sizeof *side->behind);
    side->order = malloc(side->n * sizeof *side->order);
    side->norms = malloc(side->n * sizeof *side->norms);
    if (posix_memalign(&at, 64, side->tiles * height * samples * sizeof(float)) == 0) side->packed = at;
    return side->behind && side->order && side->norms && side->packed;
}

static void leave(search_side_t *side) {
    free(side->order);
    free(side->norms);
    free(side->packed);
    free(side->behind);
}

/* Where the excluded positions of each row start; 0 where they do not increase within the matrix. */
static int point(int64_t *ptr, const int64_t *exclude, int64_t excluded, int64_t rows, int64_t columns) {
    int64_t at = 0;
    int wrong = excluded > 0 && (exclude[0] < 0 || exclude[excluded - 1] >= rows * columns);
    for (int64_t i = 1; i < excluded; i++) wrong |= exclude[i] <= exclude[i - 1];
    if (wrong) return 0;
    for (int64_t row = 0; row <= rows; row++) {
        while (at < excluded && exclude[at] < row * columns) at++;
        ptr[row] = at;
    }
    return 1;
}

#define NO_MEMORY (-1)
#define REFUSED (-2)

static int64_t search(search_t *w, const search_isa_t *isa, int team, int64_t excluded, int64_t *index,
                      float *values) {
    int64_t tiles = w->rows.tiles, longest = w->rows.n > w->columns.n ? w->rows.n : w->columns.n, found = NO_MEMORY;
    if (w->samples > longest) longest = w->samples;
    int64_t *ptr = malloc((w->rows.n + 1) * sizeof *ptr), *ends = calloc(4 * tiles, sizeof *ends);
    w->pairs = malloc(2 * longest * sizeof *w->pairs);
    w->energy = malloc(w->samples * sizeof *w->energy);
    w->order = malloc(w->samples * sizeof *w->order);
    w->capacity = 2 * w->k + 8192;
    int whole = make_room(&w->rows, w->samples, w->stops, isa->height);
    whole = make_room(&w->columns, w->samples, w->stops, isa->width) && whole;
    whole = whole && ptr && ends && w->pairs && w->energy && w->order;
    for (int t = 0; t < team; t++) {
        w->buffers[t].hits = malloc(w->capacity * sizeof(search_hit_t));
        w->buffers[t].near = malloc(isa->width * (w->samples + SEARCH_APART) * sizeof(float));
        w->buffers[t].raise_at = w->k;
        whole = whole && w->buffers[t].hits && w->buffers[t].near;
    }
    if (whole && !point(ptr, w->exclude, excluded, w->rows.n, w->columns.n)) {
        found = REFUSED;
    } else if (whole) {
        w->exclude_ptr = ptr;
        w->low = ends, w->high = ends + tiles, w->low_done = ends + 2 * tiles, w->high_done = ends + 3 * tiles;
        pool_run(isa->walk, w, team);
        found = w->refused ? REFUSED : search_finish(w, team, index, values);
    }
    for (int t = 0; t < team; t++) {
        free(w->buffers[t].hits);
        free(w->buffers[t].near);
    }
    leave(&w->rows);
    leave(&w->columns);
    free(w->pairs);
    free(w->energy);
    free(w->order);
    free(ends);
    free(ptr);
    return found;
}

/* search(level, team, metric, above_zero, slack, samples, rows, n_rows, stride, step, columns, n_columns, stride, step,
 * exclude, excluded, k, index, values) -> how many were found; -1 without memory; -2 where the numbers are not
 * finite or too large, or the excluded positions do not increase. With `above_zero` keys above zero count,
 * otherwise all. */
static PyObject *py_search(PyObject *self, PyObject *args) {
    (void)self;
    int level, team, metric, above_zero;
    double slack;
    long long samples, m, m_stride, m_step, n, n_stride, n_step, excluded, k, found;
    unsigned long long rows, columns, exclude, index, values;
    if (!PyArg_ParseTuple(args, "iiipdLKLLLKLLLKLLKK", &level, &team, &metric, &above_zero, &slack, &samples, &rows, &m,
                          &m_stride, &m_step, &columns, &n, &n_stride, &n_step, &exclude, &excluded, &k, &index,
                          &values))
        return NULL;
    const search_isa_t *isa = at_level(level);
    search_t *w = calloc(1, sizeof *w);
    if (w == NULL) return PyErr_NoMemory();
    w->rows = side_of(rows, m, m_stride, m_step, isa->height);
    w->columns = side_of(columns, n, n_stride, n_step, isa->width);
    w->samples = samples, w->k = k, w->metric = metric, w->slack = slack, w->exclude = AT(exclude);
    w->above_zero = above_zero;
    while (metric != SEARCH_L2 && w->stops < SEARCH_STOPS && SEARCH_STOP << w->stops < samples) w->stops++;
    team = team < 1 ? 1 : team > POOL_MAX ? POOL_MAX : team;
    Py_BEGIN_ALLOW_THREADS
    found = search(w, isa, team, excluded, AT(index), AT(values));
    Py_END_ALLOW_THREADS
    free(w);
    if (found == NO_MEMORY) return PyErr_NoMemory();
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
