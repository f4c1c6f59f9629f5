/* The kernels for one element type and one instruction set.
 *
 * The including file defines T (element), INT (integer as wide), F32 (whether T is float), VB (bytes of a vector), ISA (0 baseline,
 * 1 AVX2, 2 AVX-512) and NAME(x) (x with a suffix).
 *
 * Activations are packed into tiles: the batch is cut into `tiles` runs of whole vectors, tile t holding the
 * vectors [nvec * t / tiles, nvec * (t + 1) / tiles) of every feature, features one after the other, zeros
 * behind the last element. A gathered row is then one aligned run, and the tile as a whole can fit a cache.
 */

#define L ((int64_t)(VB / sizeof(T)))
#define INLINE static inline __attribute__((always_inline))

typedef T NAME(vec) __attribute__((vector_size(VB), aligned(VB), may_alias));
typedef INT NAME(ivec) __attribute__((vector_size(VB), aligned(VB), may_alias));
typedef T NAME(uvec) __attribute__((vector_size(VB), aligned(sizeof(T)), may_alias));
typedef T NAME(quad) __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
#define vec NAME(vec)
#define ivec NAME(ivec)
#define uvec NAME(uvec)
#define quad NAME(quad)

/* Four lanes out of the eight of two quads; older compilers spell it differently. */
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef INT NAME(lanes) __attribute__((vector_size(4 * sizeof(T))));
#define SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (NAME(lanes)){i, j, k, l})
#endif

/* One load for two uses: the compiler would otherwise read memory twice. */
#if ISA == 2
#define IN_REGISTER(e) __asm__("" : "+v"(e))
#else
#define IN_REGISTER(e) ((void)0)
#endif

#include "pack.h"

/* ---- forward: y[r] = b[r] + sum over the row's columns of w[r, c] x[c] --------------------------------- */

/* Part of the entries of some rows, and what it is added to. */
typedef struct {
    const int64_t *from, *to; /* where the part of each row starts and ends */
    const T *bias;            /* may be NULL */
    int first;                /* whether y starts from the bias, or is there already */
} NAME(rows_t);

INLINE void NAME(forward_rows)(const int nv, const int32_t *col, const T *values, NAME(rows_t) of, const T *x,
                               int64_t w, T *y, int64_t y_stride, int64_t n, int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
        vec acc[WIDEST], odd[WIDEST];
        if (of.first) {
            T start = of.bias ? of.bias[r] : 0;
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) acc[i] = (vec){0} + start;
        } else {
            NAME(load)(acc, y + r * y_stride, nv, n);
        }
#pragma GCC unroll 8
        for (int i = 0; i < nv; i++) odd[i] = (vec){0};
        int64_t j = of.from[r], end = of.to[r];
        /* few vectors: two chains hide the latency of the additions */
        if (nv < 4) {
            for (; j + 2 <= end; j += 2) {
                const vec *a = (const vec *)(x + col[j] * w), *b = (const vec *)(x + col[j + 1] * w);
#pragma GCC unroll 8
                for (int i = 0; i < nv; i++) {
                    acc[i] += values[j] * a[i];
                    odd[i] += values[j + 1] * b[i];
                }
            }
        }
        for (; j < end; j++) {
            const vec *a = (const vec *)(x + col[j] * w);
            T v = values[j];
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) acc[i] += v * a[i];
        }
        if (nv < 4) {
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) acc[i] += odd[i];
        }
        NAME(store)(y + r * y_stride, acc, nv, n);
    }
}

static void NAME(forward_part)(int nv, const int32_t *col, const T *values, NAME(rows_t) of, const T *x,
                               int64_t w, T *y, int64_t y_stride, int64_t n, int64_t r0, int64_t r1) {
    switch (nv) {
#define CASE(k)                                                                                               \
    case k:                                                                                                   \
        NAME(forward_rows)(k, col, values, of, x, w, y, y_stride, n, r0, r1);                                 \
        return;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
}

/* nv vectors of each row of x, which lie w elements apart. Where rows of the matrix are dense enough, a few of
 * them meet a panel of x while it is in the first cache, and then the next panel. */
static void NAME(forward_tile)(int nv, const plan_t *p, const T *values, const T *bias, const T *x, int64_t w,
                               T *y, int64_t y_stride, int64_t n, int64_t r0, int64_t r1) {
    const int64_t panels = near_panels(p, nv * VB);
    NAME(rows_t) of = {p->rowptr, p->rowptr + 1, bias, 1};
    if (panels < 2) {
        NAME(forward_part)(nv, p->col, values, of, x, w, y, y_stride, n, r0, r1);
        return;
    }
    for (int64_t r = r0; r < r1; r += TOGETHER) {
        int64_t end = r + TOGETHER < r1 ? r + TOGETHER : r1, from[TOGETHER], to[TOGETHER];
        for (int64_t i = r; i < end; i++) to[i - r] = p->rowptr[i];
        of.from = from - r;
        of.to = to - r;
        for (int64_t panel = 0; panel < panels; panel++) {
            next_panel(from, to, end - r, p->col, p->rowptr + r + 1, part(p->cols, panel, panels),
                       part(p->cols, panel + 1, panels));
            of.first = panel == 0;
            NAME(forward_part)(nv, p->col, values, of, x, w, y, y_stride, n, r, end);
        }
    }
}

/* The same for a batch-major y: a few rows at a time, transposed while they are in the first cache. */
static void NAME(forward_transposed)(const linear_t *job, int64_t v0, int64_t v1, const T *x, int64_t n,
                                     int64_t r0, int64_t r1) {
    T rows[TOGETHER * WIDEST * VB / sizeof(T)] __attribute__((aligned(VB)));
    const int64_t w = (v1 - v0) * L, step = job->y.batch_stride;
    T *y = (T *)job->y.data + v0 * L * step;
    for (int64_t r = r0; r < r1; r += TOGETHER) {
        int64_t end = r + TOGETHER < r1 ? r + TOGETHER : r1;
        NAME(forward_tile)(v1 - v0, &job->plan, job->values, job->bias, x, w, rows - r * w, w, w, r, end);
        NAME(transpose)(rows, w, y + r, step, end - r, n);
    }
}

static void NAME(forward)(void *arg, int tid, int team, barrier_t *meet) {
    const linear_t *job = arg;
    const plan_t *p = &job->plan;
    int64_t nvec = vectors(job->batch, L);
    const T *x = job->x.data;
    if (!NAME(is_packed)(job->x, job->batch, job->tiles)) {
        NAME(pack)(job->x, p->cols, job->batch, job->tiles, job->scratch_a, part(p->cols, tid, team),
                   part(p->cols, tid + 1, team));
        x = job->scratch_a;
        pool_meet(meet);
    }
    int64_t r0 = split(p->rowptr, p->rows, 1, tid, team), r1 = split(p->rowptr, p->rows, 1, tid + 1, team);
    for (int t = 0; t < job->tiles; t++) {
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        int64_t left = job->batch - v0 * L, n = left < w ? left : w;
        const T *tile = x + NAME(place)(p->cols, 0, v0, v1);
        if (job->y.batch_stride == 1)
            NAME(forward_tile)(v1 - v0, p, job->values, job->bias, tile, w, (T *)job->y.data + v0 * L,
                               job->y.feature_stride, n, r0, r1);
        else
            NAME(forward_transposed)(job, v0, v1, tile, n, r0, r1);
    }
}

/* ---- backward over columns: dx[c] += w[r, c] dy[r] and dw[r, c] = <dy[r], x[c]>, each dy[r] read once --- */

typedef struct {
    const int64_t *colptr; /* of one panel */
    const int32_t *row, *perm;
    const T *values, *x, *dy;
    T *dx, *dvalues;
    int64_t x_stride, dx_stride, n, dx_n, entries; /* entries: 0 when values are near */
    int first_tile, first_panel; /* whether dvalues, dx are written or added to */
    const struct NAME(fused) * fused; /* NULL: leave dx as it is */
} NAME(columns_t);

#define AHEAD 32   /* entries between asking for a value and using it */
#define FAR 100000 /* values that no longer fit the second cache beside the activations */

/* Add to the gradient of a value, or start it. */
INLINE void NAME(keep)(T *to, T value, int first) { *to = first ? value : *to + value; }

#include "fused.h"

INLINE void NAME(backward_columns)(const int nv, const int want_dx, const int want_dv, const int fused,
                                   const NAME(columns_t) * a, int64_t c0, int64_t c1) {
    const int64_t w = nv * L;
    const int32_t *row = a->row, *perm = a->perm;
    const T *values = a->values;
    T *dvalues = a->dvalues;
    const int first_tile = a->first_tile;
    for (int64_t c = c0; c < c1; c++) {
        vec x[WIDEST], dx[WIDEST];
        if (want_dv) NAME(load)(x, a->x + c * a->x_stride, nv, a->n);
        if (want_dx && !a->first_panel)
            NAME(load)(dx, a->dx + c * a->dx_stride, nv, a->dx_n);
        else
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) dx[i] = (vec){0};
        int64_t k = a->colptr[c], end = a->colptr[c + 1];
        for (; k + 4 <= end; k += 4) {
            /* the values lie in another order: ask for them well before they are needed */
            if (k + AHEAD + 4 <= a->entries)
#pragma GCC unroll 4
                for (int u = 0; u < 4; u++) {
                    __builtin_prefetch(values + perm[k + AHEAD + u]);
                    }
            const vec *dy[4];
            quad v;
            vec d[4];
#pragma GCC unroll 4
            for (int u = 0; u < 4; u++) {
                dy[u] = (const vec *)(a->dy + row[k + u] * w);
                v[u] = values[perm[k + u]];
                d[u] = (vec){0};
            }
#pragma GCC unroll 4
            for (int u = 0; u < 4; u++) {
                vec e[WIDEST];
#pragma GCC unroll 8
                for (int i = 0; i < nv; i++) {
                    e[i] = dy[u][i];
                    IN_REGISTER(e[i]);
                    if (want_dv) d[u] += e[i] * x[i];
                    if (want_dx) dx[i] += v[u] * e[i];
                }
            }
            if (want_dv) {
                quad s = NAME(dots)(d[0], d[1], d[2], d[3]);
#pragma GCC unroll 4
                for (int u = 0; u < 4; u++) NAME(keep)(dvalues + perm[k + u], s[u], first_tile);
            }
        }
        for (; k < end; k++) {
            const vec *dy = (const vec *)(a->dy + row[k] * w);
            T v = values[perm[k]];
            vec d = {0};
#pragma GCC unroll 8
            for (int i = 0; i < nv; i++) {
                vec e = dy[i];
                if (want_dv) d += e * x[i];
                if (want_dx) dx[i] += v * e;
            }
            if (want_dv) NAME(keep)(dvalues + perm[k], NAME(total)(d), first_tile);
        }
        if (fused && a->fused->last_panel) NAME(derive)(nv, dx, x, c, a->fused);
        if (want_dx) NAME(store)(a->dx + c * a->dx_stride, dx, nv, a->dx_n);
    }
}

static void NAME(backward_tile)(int nv, const NAME(columns_t) * a, int64_t c0, int64_t c1) {
    int kind = a->fused ? 0 : (a->dx ? 1 : 0) + (a->dvalues ? 2 : 0);
    switch (nv * 4 + kind) {
#define KIND(nv, kind, dx, dv, fused)                                                                         \
    case nv * 4 + kind:                                                                                       \
        NAME(backward_columns)(nv, dx, dv, fused, a, c0, c1);                                                 \
        return;
#define CASE(nv)                                                                                              \
    KIND(nv, 0, 1, 1, 1) KIND(nv, 1, 1, 0, 0) KIND(nv, 2, 0, 1, 0) KIND(nv, 3, 1, 1, 0)
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
#undef KIND
    }
}

static void NAME(backward)(void *arg, int tid, int team, barrier_t *meet) {
    const linear_t *job = arg;
    const plan_t *p = &job->plan;
    int64_t nvec = vectors(job->batch, L), batch = job->batch;
    int64_t r0 = part(p->rows, tid, team), r1 = part(p->rows, tid + 1, team);
    const T *dy = job->dy.data, *x = job->x.data;
    int64_t x_row = job->x.feature_stride;
    int repack = job->dvalues && job->x.batch_stride != 1, unpack = job->dx.batch_stride != 1;
    T *packed_dx = job->scratch_c;
    if (!NAME(is_packed)(job->dy, batch, job->tiles)) {
        NAME(pack)(job->dy, p->rows, batch, job->tiles, job->scratch_a, r0, r1);
        dy = job->scratch_a;
    }
    for (int64_t r = r0; job->dbias && r < r1; r++)
        ((T *)job->dbias)[r] = NAME(row_sum)(dy, p->rows, nvec, job->tiles, r);
    if (repack) {
        NAME(pack)(job->x, p->cols, batch, job->tiles, job->scratch_b, part(p->cols, tid, team),
                   part(p->cols, tid + 1, team));
        x = job->scratch_b;
    }
    if (!job->dx.data && !job->dvalues) return;
    pool_meet(meet);
    int64_t c0 = split(p->colptr, p->cols, p->panels, tid, team);
    int64_t c1 = split(p->colptr, p->cols, p->panels, tid + 1, team);
    for (int64_t step = 0; step < p->panels * job->tiles; step++) {
        int64_t panel = step / job->tiles, t = step % job->tiles;
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        int64_t left = batch - v0 * L;
        NAME(columns_t) a = {
            .colptr = p->colptr + panel * p->cols,
            .row = p->row,
            .entries = p->nnz > FAR ? p->nnz : 0,
            .perm = p->perm,
            .values = job->values,
            .x = x ? (repack ? x + NAME(place)(p->cols, 0, v0, v1) : x + v0 * L) : NULL,
            .x_stride = repack ? w : x_row,
            .dy = dy + NAME(place)(p->rows, 0, v0, v1),
            .dx = !job->dx.data ? NULL : unpack ? packed_dx + NAME(place)(p->cols, 0, v0, v1)
                                                : (T *)job->dx.data + v0 * L,
            .dx_stride = unpack ? w : job->dx.feature_stride,
            .dvalues = job->dvalues,
            .n = left < w ? left : w,
            .dx_n = unpack || left > w ? w : left,
            .first_tile = t == 0,
            .first_panel = panel == 0,
        };
        NAME(backward_tile)(v1 - v0, &a, c0, c1);
    }
    if (!job->dx.data || !unpack) return;
    for (int t = 0; t < job->tiles; t++) {
        int64_t v0 = part(nvec, t, job->tiles), v1 = part(nvec, t + 1, job->tiles), w = (v1 - v0) * L;
        int64_t left = batch - v0 * L;
        NAME(transpose)(packed_dx + NAME(place)(p->cols, c0, v0, v1), w,
                        (T *)job->dx.data + v0 * L * job->dx.batch_stride + c0, job->dx.batch_stride, c1 - c0,
                        left < w ? left : w);
    }
}

#include "mlp.h"

#undef vec
#undef ivec
#undef uvec
#undef quad
#undef SHUFFLE4
#undef IN_REGISTER
#undef AHEAD
#undef FAR
#undef L
#undef INLINE
