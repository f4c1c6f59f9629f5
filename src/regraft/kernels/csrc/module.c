/* The Python face of the kernels. It takes addresses as integers, so that building needs neither torch nor
 * numpy; regraft/kernels/native.py checks everything before an address is taken. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "common.h"
#include "rewire.h"

static const isa_t *isa = &isa_baseline;

/* ---- scratch: grows, is kept, and is lent to one caller at a time --------------------------------------- */

typedef struct {
    void *at;
    size_t size;
} block_t;

#define BLOCKS 4 /* three for a layer, one for a fused step */

static block_t kept[BLOCKS];
static pthread_mutex_t kept_owner = PTHREAD_MUTEX_INITIALIZER;

#define HUGE ((size_t)1 << 21)
#define HUGE_FROM ((size_t)1 << 17)

/* Gathering rows from all over a block misses the table of small pages: ask for huge ones. */
static void *block_new(size_t size) {
    void *at = NULL;
    size_t align = size >= HUGE_FROM ? HUGE : 64;
    size = (size + align - 1) / align * align;
    if (posix_memalign(&at, align, size) != 0) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (align == HUGE) madvise(at, size, MADV_HUGEPAGE);
#endif
    return at;
}

/* Blocks of the wanted sizes in `to`; returns 1 when they are the kept ones, 0 when they are to be freed,
 * -1 when memory ran out. */
static int scratch_take(void *to[BLOCKS], const size_t want[BLOCKS]) {
    int mine = pthread_mutex_trylock(&kept_owner) == 0, failed = 0;

    for (int i = 0; i < BLOCKS; i++) {
        to[i] = NULL;
        if (!want[i]) continue;
        if (!mine) {
            to[i] = block_new(want[i]);
        } else {
            if (kept[i].size < want[i]) {
                free(kept[i].at);
                kept[i].at = block_new(want[i]);
                kept[i].size = kept[i].at ? want[i] : 0;
            }
            to[i] = kept[i].at;
        }
        failed |= to[i] == NULL;
    }
    if (!failed) return mine;
    if (mine)
        pthread_mutex_unlock(&kept_owner);
    else
        for (int i = 0; i < BLOCKS; i++) free(to[i]);
    return -1;
}

static void scratch_give(void *from[BLOCKS], int mine) {
    if (mine)
        pthread_mutex_unlock(&kept_owner);
    else
        for (int i = 0; i < BLOCKS; i++) free(from[i]);
}

/* ---- arguments ----------------------------------------------------------------------------------------- */

#define AT(x) ((void *)(uintptr_t)(x))
typedef unsigned long long addr;

#define L2_BUDGET (1100 * 1024)

/* As few tiles as the registers allow; more when a gathered tile then fits the second cache. */
static int choose_tiles(int asked, int64_t batch, int lanes, int64_t features, size_t element) {
    int64_t nvec = vectors(batch, lanes);
    int64_t tiles = (nvec + WIDEST - 1) / WIDEST;
    int64_t vector_bytes = features * lanes * (int64_t)element;
    int64_t fit = L2_BUDGET / (vector_bytes > 0 ? vector_bytes : 1);
    if (fit < 3) fit = 3;
    if (asked) fit = WIDEST;
    int64_t wanted = (nvec + fit - 1) / fit;
    if (wanted < asked) wanted = asked;
    if (wanted > nvec) wanted = nvec;
    return (int)(wanted > tiles ? wanted : tiles);
}

static int team_for(int64_t nnz, int64_t nvec) {
    int threads = pool_get_threads();
    int64_t useful = nnz * nvec / 40000 + 1;
    return useful < threads ? (int)useful : threads;
}

static PyObject *run(linear_t *job, int dtype, region_fn fn, const int64_t packs[BLOCKS]) {
    size_t element = dtype ? sizeof(double) : sizeof(float);
    int lanes = isa->lanes[dtype];
    int64_t nvec = vectors(job->batch, lanes);
    void *scratch[BLOCKS];
    size_t want[BLOCKS];
    int mine;
    Py_BEGIN_ALLOW_THREADS
    job->tiles = choose_tiles(job->tiles, job->batch, lanes, packs[0] / job->plan.panels, element);
    for (int i = 0; i < BLOCKS; i++) want[i] = (size_t)packed_size(packs[i], job->batch, lanes) * element;
    mine = scratch_take(scratch, want);
    if (mine >= 0) {
        job->scratch_a = scratch[0];
        job->scratch_b = scratch[1];
        job->scratch_c = scratch[2];
        pool_run(fn, job, team_for(job->plan.nnz, nvec));
        scratch_give(scratch, mine);
    }
    Py_END_ALLOW_THREADS
    if (mine < 0) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* forward(double, rows, cols, nnz, rowptr, col, batch, tiles, values, bias, x, x_sb, x_sf, y, y_sb, y_sf) */
static PyObject *py_forward(PyObject *self, PyObject *args) {
    (void)self;
    int dtype, tiles;
    long long rows, cols, nnz, batch, x_sb, x_sf, y_sb, y_sf;
    addr rowptr, col, values, bias, x, y;
    if (!PyArg_ParseTuple(args, "pLLLKKLiKKKLLKLL", &dtype, &rows, &cols, &nnz, &rowptr, &col, &batch, &tiles,
                          &values, &bias, &x, &x_sb, &x_sf, &y, &y_sb, &y_sf))
        return NULL;
    linear_t job = {
        .plan = {.rows = rows, .cols = cols, .nnz = nnz, .panels = 1, .rowptr = AT(rowptr), .col = AT(col)},
        .batch = batch,
        .tiles = tiles,
        .values = AT(values),
        .bias = AT(bias),
        .x = {AT(x), x_sb, x_sf},
        .y = {AT(y), y_sb, y_sf},
    };
    return run(&job, dtype, isa->forward[dtype], (int64_t[BLOCKS]){cols});
}

/* backward(double, rows, cols, nnz, panels, colptr, row, perm, batch, tiles, values, x, x_sb, x_sf, dy, dy_sb, dy_sf,
 *          dx, dx_sb, dx_sf, dvalues, dbias) */
static PyObject *py_backward(PyObject *self, PyObject *args) {
    (void)self;
    int dtype, tiles;
    long long rows, cols, nnz, panels, batch, x_sb, x_sf, dy_sb, dy_sf, dx_sb, dx_sf;
    addr colptr, row, perm, values, x, dy, dx, dvalues, dbias;
    if (!PyArg_ParseTuple(args, "pLLLLKKKLiKKLLKLLKLLKK", &dtype, &rows, &cols, &nnz, &panels, &colptr, &row, &perm,
                          &batch, &tiles, &values, &x, &x_sb, &x_sf, &dy, &dy_sb, &dy_sf, &dx, &dx_sb, &dx_sf,
                          &dvalues, &dbias))
        return NULL;
    linear_t job = {
        .plan = {.rows = rows, .cols = cols, .nnz = nnz, .panels = panels, .colptr = AT(colptr), .row = AT(row), .perm = AT(perm)},
        .batch = batch,
        .tiles = tiles,
        .values = AT(values),
        .x = {AT(x), x_sb, x_sf},
        .dy = {AT(dy), dy_sb, dy_sf},
        .dx = {AT(dx), dx_sb, dx_sf},
        .dvalues = AT(dvalues),
        .dbias = AT(dbias),
    };
    return run(&job, dtype, isa->backward[dtype],
               (int64_t[BLOCKS]){rows, dvalues && x_sb != 1 ? cols : 0, dx && dx_sb != 1 ? cols : 0, 0});
}

/* ---- a fused step --------------------------------------------------------------------------------------- */

#define MLP_INTS 17
#define MLP_REALS 7

static void read_layer(mlp_layer_t *layer, const int64_t *n, const double *d) {
    *layer = (mlp_layer_t){
        .plan = {n[0], n[1], n[2], n[3], AT(n[4]), AT(n[5]), AT(n[6]), AT(n[7]), AT(n[8])},
        .weight = {AT(n[9]), AT(n[10]), d[0], d[1], d[2], (int)n[11]},
        .bias = {AT(n[12]), AT(n[13]), d[3], d[4], d[5], (int)n[14]},
        .act = (int)n[15],
        .drop = d[6],
        .seed = (uint64_t)n[16],
    };
}

/* Places of the activations and their gradients in one block of memory; with `base` NULL only its size. Where a
 * layer is walked in one panel, the gradient of the activations below takes their place; with `kept`, a block of the
 * caller's, all of them lie there, each in a place of its own: the input, the outputs, the gradients of all but the
 * last layer, which takes its outputs' place. */
static size_t lay_out(mlp_t *job, char *base, char *kept, int lanes, size_t element) {
    size_t used = 0, row = (size_t)(vectors(job->batch, lanes) * lanes) * element, widest = 0, most = 0;
    char *to = kept ? kept : base;
    mlp_layer_t *layers = job->layers;
    job->input = to;
    used += row * layers[0].plan.cols;
    for (int l = 0; l < job->depth; l++) {
        layers[l].out = layers[l].dout = to + used;
        used += row * layers[l].plan.rows;
        if (l && layers[l].plan.panels > 1 && (size_t)layers[l].plan.cols > widest) widest = layers[l].plan.cols;
        if ((size_t)layers[l].plan.nnz > most) most = layers[l].plan.nnz;
    }
    size_t at = kept ? 0 : used;
    for (int l = 0; kept && l < job->depth - 1; l++) {
        layers[l].dout = kept + used;
        used += row * layers[l].plan.rows;
    }
    for (int l = 1; !kept && l < job->depth; l++)
        if (layers[l].plan.panels > 1) layers[l - 1].dout = base + at + (l % 2) * row * widest;
    at += kept ? 0 : 2 * row * widest;
    job->losses = (double *)(base + at);
    at += (size_t)(vectors(job->batch, lanes) * lanes) * sizeof(double);
    most = (most * element + 63) / 64 * 64;
    for (int i = 0; i < 2; i++, at += most) job->gradients[i] = base + at;
    return at;
}

static int classes_fit(const mlp_t *job) {
    const int64_t *at = job->target.data, rows = job->layers[job->depth - 1].plan.rows;
    for (int64_t b = 0; b < job->batch; b++)
        if (at[b * job->target.batch_stride] < 0 || at[b * job->target.batch_stride] >= rows) return 0;
    return 1;
}

/* step(double, batch, loss, depth, integers, reals, x, x_sb, x_sf, target, t_sb, t_sf, kept) -> loss, or None when a
 * class is out of range (nothing has been changed then) */
static PyObject *py_step(PyObject *self, PyObject *args) {
    (void)self;
    int dtype, loss, depth;
    long long batch, x_sb, x_sf, t_sb, t_sf;
    addr integers, reals, x, target, seen;
    if (!PyArg_ParseTuple(args, "pLiiKKKLLKLLK", &dtype, &batch, &loss, &depth, &integers, &reals, &x, &x_sb,
                          &x_sf, &target, &t_sb, &t_sf, &seen))
        return NULL;
    size_t element = dtype ? sizeof(double) : sizeof(float);
    int lanes = isa->lanes[dtype];
    int64_t nvec = vectors(batch, lanes), nnz = 0;
    mlp_layer_t *layers = calloc((size_t)depth, sizeof *layers);
    if (!layers) return PyErr_NoMemory();
    for (int l = 0; l < depth; l++) {
        read_layer(&layers[l], (int64_t *)AT(integers) + l * MLP_INTS, (double *)AT(reals) + l * MLP_REALS);
        nnz += layers[l].plan.nnz;
    }
    mlp_t job = {
        .batch = batch,
        .depth = depth,
        .tiles = (int)((nvec + WIDEST - 1) / WIDEST),
        .loss = loss,
        .layers = layers,
        .x = {AT(x), x_sb, x_sf},
        .target = {AT(target), t_sb, t_sf},
    };
    void *scratch[BLOCKS];
    int mine = 0, fits = loss != LOSS_CROSS_ENTROPY || classes_fit(&job);
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        mine = scratch_take(scratch, (size_t[BLOCKS]){0, 0, 0, lay_out(&job, NULL, AT(seen), lanes, element)});
        if (mine >= 0) {
            lay_out(&job, scratch[3], AT(seen), lanes, element);
            pool_run(isa->step[dtype], &job, team_for(nnz, nvec));
            scratch_give(scratch, mine);
        }
        Py_END_ALLOW_THREADS
    }
    free(layers);
    if (mine < 0) return PyErr_NoMemory();
    if (!fits) Py_RETURN_NONE;
    return PyFloat_FromDouble(job.result);
}

/* plan(index, nnz, rows, cols, panels, rowptr, col, colptr, row, perm) -> bool */
static PyObject *py_plan(PyObject *self, PyObject *args) {
    (void)self;
    long long nnz, rows, cols, panels;
    addr index, rowptr, col, colptr, row, perm;
    if (!PyArg_ParseTuple(args, "KLLLLKKKKK", &index, &nnz, &rows, &cols, &panels, &rowptr, &col, &colptr,
                          &row, &perm))
        return NULL;
    int bad;
    Py_BEGIN_ALLOW_THREADS
    bad = plan_build(AT(index), nnz, rows, cols, panels, AT(rowptr), AT(col), AT(colptr), AT(row), AT(perm));
    Py_END_ALLOW_THREADS
    return PyBool_FromLong(bad == 0);
}

/* ---- rewiring ------------------------------------------------------------------------------------------ */

/* smallest(double, values, n, k, out) -> equal ones left */
static PyObject *py_smallest(PyObject *self, PyObject *args) {
    (void)self;
    int dtype;
    long long n, k;
    addr values, out;
    if (!PyArg_ParseTuple(args, "pKLLK", &dtype, &values, &n, &k, &out)) return NULL;
    int64_t left;
    Py_BEGIN_ALLOW_THREADS
    left = rewire_smallest(AT(values), dtype, n, k, AT(out));
    Py_END_ALLOW_THREADS
    return left < 0 ? PyErr_NoMemory() : PyLong_FromLongLong(left);
}

/* part(index, n, places, n_places, kept, gone) -> bool */
static PyObject *py_part(PyObject *self, PyObject *args) {
    (void)self;
    long long n, n_places;
    addr index, places, kept_at, gone;
    if (!PyArg_ParseTuple(args, "KLKLKK", &index, &n, &places, &n_places, &kept_at, &gone)) return NULL;
    return PyBool_FromLong(rewire_part(AT(index), n, AT(places), n_places, AT(kept_at), AT(gone)) == 0);
}

/* move(wide, from, n_from, kept_old, kept_new, kept, to, n_to) -> bool */
static PyObject *py_move(PyObject *self, PyObject *args) {
    (void)self;
    int wide;
    long long n_from, n, n_to;
    addr from, kept_old, kept_new, to;
    if (!PyArg_ParseTuple(args, "pKLKKLKL", &wide, &from, &n_from, &kept_old, &kept_new, &n, &to, &n_to)) return NULL;
    return PyBool_FromLong(rewire_move(AT(from), n_from, AT(kept_old), AT(kept_new), n, wide, AT(to), n_to) == 0);
}

/* random_inactive(index, nnz, size, k, seed, out) */
static PyObject *py_random_inactive(PyObject *self, PyObject *args) {
    (void)self;
    long long nnz, size, k;
    addr index, seed, out;
    if (!PyArg_ParseTuple(args, "KLLLKK", &index, &nnz, &size, &k, &seed, &out)) return NULL;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = rewire_random(AT(index), nnz, size, k, seed, AT(out));
    Py_END_ALLOW_THREADS
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* merge(index, nnz, dropped, n_dropped, grown, n_grown, size, merged, kept_old, kept_new) -> survivors, or -1 */
static PyObject *py_merge(PyObject *self, PyObject *args) {
    (void)self;
    long long nnz, n_dropped, n_grown, size;
    addr index, dropped, grown, merged, kept_old, kept_new;
    if (!PyArg_ParseTuple(args, "KLKLKLLKKK", &index, &nnz, &dropped, &n_dropped, &grown, &n_grown, &size, &merged,
                          &kept_old, &kept_new))
        return NULL;
    int64_t kept;
    Py_BEGIN_ALLOW_THREADS
    kept = rewire_merge(AT(index), nnz, AT(dropped), n_dropped, AT(grown), n_grown, size, AT(merged),
                        AT(kept_old), AT(kept_new));
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(kept);
}

/* ---- settings ------------------------------------------------------------------------------------------ */

static const isa_t *best_isa(const char *most) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    int has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (has_avx512 && (!most || strcmp(most, "avx512") == 0)) return &isa_avx512;
    if (has_avx2 && (!most || strcmp(most, "baseline") != 0)) return &isa_avx2;
#endif
    (void)most;
    return &isa_baseline;
}

/* use_isa(name or None) -> name: the best instruction set of the machine, at most `name` */
static PyObject *py_use_isa(PyObject *self, PyObject *args) {
    (void)self;
    const char *most;
    if (!PyArg_ParseTuple(args, "z", &most)) return NULL;
    isa = best_isa(most);
    return PyUnicode_FromString(isa->name);
}

static PyObject *py_lanes(PyObject *self, PyObject *args) {
    (void)self;
    int dtype;
    if (!PyArg_ParseTuple(args, "p", &dtype)) return NULL;
    return PyLong_FromLong(isa->lanes[dtype]);
}

static PyObject *py_get_threads(PyObject *self, PyObject *args) {
    (void)self;
    (void)args;
    return PyLong_FromLong(pool_get_threads());
}

static PyObject *py_set_threads(PyObject *self, PyObject *args) {
    (void)self;
    int n;
    if (!PyArg_ParseTuple(args, "i", &n)) return NULL;
    pool_set_threads(n);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"forward", py_forward, METH_VARARGS, "One linear layer forward."},
    {"backward", py_backward, METH_VARARGS, "One linear layer backward."},
    {"step", py_step, METH_VARARGS, "One fused step of training."},
    {"plan", py_plan, METH_VARARGS, "Both traversals from sorted positions."},
    {"smallest", py_smallest, METH_VARARGS, "Places of the values closest to zero."},
    {"part", py_part, METH_VARARGS, "Positions at places, and all others."},
    {"move", py_move, METH_VARARGS, "Values from old places to new ones."},
    {"random_inactive", py_random_inactive, METH_VARARGS, "Distinct inactive positions."},
    {"merge", py_merge, METH_VARARGS, "Drop places and grow positions."},
    {"use_isa", py_use_isa, METH_VARARGS, "Choose the instruction set."},
    {"lanes", py_lanes, METH_VARARGS, "Elements in a vector."},
    {"get_threads", py_get_threads, METH_NOARGS, "Threads of the kernels."},
    {"set_threads", py_set_threads, METH_VARARGS, "Set the threads of the kernels."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Compiled sparse kernels.", -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) {
    isa = best_isa(NULL);
    return PyModule_Create(&module);
}
