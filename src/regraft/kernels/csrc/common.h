/* Shared shapes of the compiled kernels. A matrix of activations is [batch, features] with free strides. */
#ifndef REGRAFT_COMMON_H
#define REGRAFT_COMMON_H

#include <stddef.h>
#include <stdint.h>

#include "pool.h"

/* Both traversals of a sparse matrix [rows, cols] over one order of values, the row-major one. The walk by
 * columns goes panel by panel of rows, so that what it gathers and the values it touches stay in cache. */
typedef struct {
    int64_t rows, cols, nnz, panels;
    const int64_t *rowptr; /* [rows + 1] */
    const int32_t *col;    /* [nnz], column of each value */
    const int64_t *colptr; /* [panels * cols + 1]: column by column within each panel of rows */
    const int32_t *row;    /* [nnz], row of each entry in column order */
    const int32_t *perm;   /* [nnz], its place among the values */
} plan_t;

typedef struct {
    void *data;
    int64_t batch_stride, feature_stride; /* in elements */
} matrix_t;

/* One call of a linear layer; what is NULL is not wanted. y and dx have a stride of 1
 * along the batch or along the features. */
typedef struct {
    plan_t plan;
    int64_t batch;
    int tiles; /* 0: choose */
    const void *values, *bias;
    matrix_t x, y;              /* forward */
    matrix_t dy, dx;            /* backward */
    void *dvalues, *dbias;      /* backward */
    void *scratch_a, *scratch_b, *scratch_c; /* packed activations */
} linear_t;

enum { ACT_NONE, ACT_RELU, ACT_SIGMOID, ACT_TANH };
enum { LOSS_CROSS_ENTROPY, LOSS_MSE };

/* SGD for one parameter: g += decay w; m = momentum m + g; w -= rate (nesterov ? g + momentum m : m). */
typedef struct {
    void *value, *momentum; /* NULL: none */
    double rate, beta, decay;
    int nesterov;
} sgd_t;

/* One layer of a fused step: a = dropout(act(W x + b)). */
typedef struct {
    plan_t plan;
    sgd_t weight, bias;
    int act;
    double drop;
    uint64_t seed; /* of this layer's dropout in this step */
    void *out;     /* packed a */
    void *dout;    /* packed gradient before act; may be `out` itself */
} mlp_layer_t;

/* A whole step of training: forward, loss, backward and update. */
typedef struct {
    int64_t batch;
    int depth, tiles, loss;
    mlp_layer_t *layers;
    matrix_t x, target; /* target: int64 classes, or numbers [batch, out] */
    void *input;        /* packed x */
    void *gradients[2]; /* of the values of one layer and of the next */
    double *losses;     /* one for each lane of the batch */
    double result;
} mlp_t;

/* The kernels of one instruction set; [0] is float32, [1] float64. */
typedef struct {
    const char *name;
    int lanes[2];
    region_fn forward[2], backward[2], step[2];
} isa_t;

extern const isa_t isa_baseline;
#if defined(__x86_64__)
extern const isa_t isa_avx2, isa_avx512;
#endif

#define WIDEST 8 /* vectors in a tile */

/* Elements of scratch that `features` rows of `batch` take, whatever the tiles. */
static inline int64_t packed_size(int64_t features, int64_t batch, int lanes) {
    return features * ((batch + lanes - 1) / lanes) * lanes;
}

static inline int64_t vectors(int64_t batch, int lanes) { return (batch + lanes - 1) / lanes; }

static inline int64_t part(int64_t n, int64_t i, int64_t parts) { return n * i / parts; }

/* First row of thread i when rows are split so that each gets as many nonzeros (and some rows). `ptr` holds
 * the starts of n rows for each of `panels`. */
static inline int64_t split(const int64_t *ptr, int64_t n, int64_t panels, int i, int team) {
    if (i <= 0) return 0;
    if (i >= team) return n;
    int64_t target = (ptr[panels * n] + 4 * n) / team * i, low = 0, high = n;
    while (low < high) {
        int64_t mid = (low + high) / 2, before = 4 * mid;
        for (int64_t p = 0; p < panels; p++) before += ptr[p * n + mid] - ptr[p * n];
        if (before < target)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

#define SECOND_CACHE (1000 * 1024)
#define TOGETHER 16            /* rows that meet one near panel */
#define NEAR_BYTES (28 * 1024) /* of activations that stay in the first cache beside these rows' sums */
#define PER_PANEL 20           /* entries of a row in a panel that make up for reading its sum once more */

/* Panels of the gathered activations, `bytes` for each column, that each stay in the first cache; 1 where rows
 * hold too few entries. */
static inline int64_t near_panels(const plan_t *p, int64_t bytes) {
    int64_t panels = (p->cols * bytes + NEAR_BYTES - 1) / NEAR_BYTES;
    return p->nnz >= PER_PANEL * panels * p->rows ? panels : 1;
}

/* The next part of each of n rows: from where the last one ended, `to`, to the entries in columns below `high`;
 * no entry left is below column `low`, and a row ends at `end`. */
static inline void next_panel(int64_t *from, int64_t *to, int64_t n, const int32_t *col, const int64_t *end,
                              int64_t low, int64_t high) {
    for (int64_t i = 0; i < n; i++) {
        int64_t most = end[i] - to[i] < high - low ? end[i] - to[i] : high - low;
        const int32_t *at = col + to[i];
        int32_t below = 0, bound = (int32_t)high;
        for (int64_t j = 0; j < most; j++) below += at[j] < bound;
        from[i] = to[i];
        to[i] += below;
    }
}

int plan_build(const int64_t *index, int64_t nnz, int64_t rows, int64_t cols, int64_t panels, int64_t *rowptr, int32_t *col,
               int64_t *colptr, int32_t *row, int32_t *perm);

#endif
