/* Sparse convolution: what one call knows. conv_tile.h says how it is computed. */
#ifndef REGRAFT_CONV_H
#define REGRAFT_CONV_H

#include <stddef.h>
#include <stdint.h>

#include "pool.h"

#define CONV_WIDEST 8 /* vectors in a tile */

/* Geometry and connections, as regraft/kernels/conv_plan.py makes them; every number counts elements. */
typedef struct {
    int64_t channels, height, width;     /* of the input */
    int64_t out, out_height, out_width;  /* of the output */
    int64_t stride_y, stride_x, top, left;
    int64_t planes;                      /* rows of the packed input: channels times phases */
    int64_t phases;
    const int64_t *phase;                /* [phases][2]: offset within a stride, vertical and horizontal */
    int64_t lines, columns;              /* of a phase, as far as outputs read them */
    int64_t grid_width, grid_height;     /* distance of lines, in elements, and of samples, in lines */
    int64_t group;                       /* samples that are packed together */
    int64_t lead;                        /* zeros in front of each packed row of the output's gradient */
    int64_t row;                         /* elements of a packed row */
    int64_t nnz;
    const int64_t *rowptr;               /* [out + 1] */
    const int32_t *place;                /* [nnz]: where in the packed input a connection reads */
    const int64_t *colptr;               /* [planes + 1] */
    const int32_t *back;                 /* [nnz]: where in the packed gradient, in order of planes */
    const int32_t *perm;                 /* [nnz]: its place among the values */
} conv_plan_t;

/* What is NULL is not wanted. Images are contiguous [batch, channels, height, width]. */
typedef struct {
    conv_plan_t plan;
    int64_t batch;
    const void *values, *bias, *x, *dy;
    void *y, *dx, *dvalues, *dbias;
    void *packed_x, *packed_y; /* scratch: [planes][row] and [out][lead + row], both and a vector more */
} conv_t;

/* The kernels of one instruction set; [0] is float32, [1] float64. */
typedef struct {
    region_fn forward[2], backward[2];
} conv_isa_t;

extern const conv_isa_t conv_baseline;
#if defined(__x86_64__)
extern const conv_isa_t conv_avx2, conv_avx512;
#endif

static inline int64_t conv_part(int64_t n, int64_t i, int64_t parts) { return n * i / parts; }

/* First row of thread i, when rows are split so that each gets as many nonzeros (and some rows). */
static inline int64_t conv_split(const int64_t *ptr, int64_t n, int i, int team) {
    if (i <= 0) return 0;
    if (i >= team) return n;
    int64_t target = (ptr[n] + 4 * n) / team * i, low = 0, high = n;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (ptr[mid] + 4 * mid < target)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

#endif
