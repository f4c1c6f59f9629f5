/* Search for the largest inner products: what one call knows. search_tile.h says how it is computed. */
#ifndef REGRAFT_SEARCH_H
#define REGRAFT_SEARCH_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "pool.h"

enum { SEARCH_ABS, SEARCH_IP, SEARCH_L2 };

/* A matrix [n][samples] whose entry (i, s) lies at i * stride + s * step. */
typedef struct {
    const float *data;
    int64_t n, stride, step;
    int64_t *order; /* [n]: by norm, falling (rising for SEARCH_L2) */
    float *norms;   /* [n], in that order once they are ordered */
    int64_t tiles, packed_tiles, wanted_tiles;
    float *packed; /* [tiles][samples][height of a tile]; the first packed_tiles are there */
    float *behind; /* [tiles][stops][height of a tile]: norms of the samples behind each stop, with rounding */
} search_side_t;

/* A tile may be left after 32, 64, 128, ... samples. */
#define SEARCH_STOP 32
#define SEARCH_STOPS 12
#define SEARCH_APART 16

/* One product that reached the limit. */
typedef struct {
    float value; /* the product; for SEARCH_L2 minus the squared distance */
    uint32_t row, column;
} search_hit_t;

typedef struct {
    search_hit_t *hits;
    int64_t count;
    int64_t raise_at; /* hits at which the limit is raised next */
    float *near; /* [width of a tile][samples + SEARCH_APART]: rows to be packed */
    char apart[32]; /* threads count in different cache lines */
} search_buffer_t;

typedef struct {
    search_side_t rows, columns;
    int64_t samples, k, capacity; /* hits that a buffer holds */
    int metric;
    uint32_t top;               /* no key ranks higher */
    double slack;               /* rounding, relative to the product of the norms */
    const int64_t *exclude;     /* increasing positions */
    const int64_t *exclude_ptr; /* [rows + 1]: where the positions of a row start */
    search_buffer_t buffers[POOL_MAX];
    _Atomic float limit;        /* the k-th best key so far, or the floor */
    _Atomic int64_t next;       /* the next piece of the band */
    int64_t *low, *high;        /* [row tiles]: column tiles that reach the level of the band */
    int64_t *low_done, *high_done; /* and that of the band before */
    double level, ratio;        /* bounds in the band reach the level; the next one's is so much lower */
    int64_t last;               /* row tiles in the band */
    int64_t seen;               /* hits when the limit was last raised */
    uint64_t *pairs;            /* scratch for ordering, twice as long as the longest of sides and samples */
    float *energy;              /* [samples]: squares of the rows' numbers */
    int64_t *order;             /* [samples]: the order in which they are summed, by energy */
    int stops;                  /* below the number of samples; none for SEARCH_L2 */
    int above_zero;             /* whether only keys above zero count */
    int finished, refused;
} search_t;

/* Order both sides by their norms and the samples by their energy, once those are there, and say where the walk
 * begins. Refuses norms that are not finite, or whose products may not be. */
void search_start(search_t *w);
/* Raise the limit to the k-th best key over all buffers. */
void search_raise(search_t *w, int team);
/* Raise it to that of one buffer. */
void search_raise_one(search_t *w, search_buffer_t *buffer);
/* Keep the k best of one buffer; of equal keys the lowest positions. */
void search_compact(search_t *w, search_buffer_t *buffer);
/* The k best of all buffers in order of positions; their number. Overwrites the buffers. */
int64_t search_finish(search_t *w, int team, int64_t *index, float *values);

/* Inner products of rows with columns at positions row * width + column; both matrices are contiguous. */
typedef struct {
    const float *rows, *columns;
    int64_t width, samples, n;
    const int64_t *index; /* [n] */
    float *products;      /* [n] */
} search_products_t;

/* The walk of one instruction set, and the height and width of its tiles. */
typedef struct {
    region_fn walk;
    region_fn products; /* of search_products_t */
    int64_t height, width;
} search_isa_t;

extern const search_isa_t search_baseline;
#if defined(__x86_64__)
extern const search_isa_t search_avx2, search_avx512, search_bf16; /* the last one rounds its input */
#endif

#endif
