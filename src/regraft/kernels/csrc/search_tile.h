/* The norm-ordered walk for one instruction set.
 *
 * The including file defines VB (bytes of a vector), TM (rows of a tile), MASK(v, least), whose bit l is set
 * where lane l of v reaches that of least, and NAME(x). A tile has TM rows and two vectors of columns. With PAIRS two
 * samples are packed together as bfloat16.
 *
 * Rows and columns are ordered by norm, so the norms at a tile's corners bound its products by Cauchy and
 * Schwarz. Samples are ordered by the rows' energy in them, falling, and a tile is left at the first stop behind
 * which the norms of what is left cannot lift any of its products to the limit. Bands of tiles are walked from the
 * largest bound on. Between two bands the limit is raised to the k-th best key over all threads, within a band by a
 * thread whose buffer is full. The samples of a product are summed one after the other, so its value depends
 * neither on tiles nor on threads.
 */

#define L ((int64_t)(VB / sizeof(float)))
#define TN (2 * L)
#define BLOCK 16 /* column tiles that stay in the cache while row tiles pass */
#define INLINE static inline __attribute__((always_inline))
typedef float NAME(fvec) __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int32_t NAME(ivec) __attribute__((vector_size(VB), aligned(4), may_alias));
#define fvec NAME(fvec)
#define ivec NAME(ivec)

#include "search_pack.h"

/* ---- one tile ----------------------------------------------------------------------------------------- */

INLINE int NAME(is_excluded)(const search_t *w, int64_t row, int64_t position) {
    const int64_t *low = w->exclude + w->exclude_ptr[row];
    int64_t n = w->exclude_ptr[row + 1] - w->exclude_ptr[row];
    if (n == 0) return 0;
    while (n > 1) {
        int64_t half = n / 2;
        low += half & -(int64_t)(low[half - 1] < position); /* no branch: it could not be foreseen */
        n -= half;
    }
    return *low == position;
}

static __attribute__((noinline)) void NAME(record)(const search_t *w, search_buffer_t *out,
                                                   const float *values, const uint32_t *masks, int64_t i,
                                                   int64_t j) {
    for (int r = 0; r < TM; r++) {
        if (masks[r] == 0 || i * TM + r >= w->rows.n) continue;
        int64_t row = w->rows.order[i * TM + r];
        for (uint32_t mask = masks[r]; mask; mask &= mask - 1) {
            int64_t c = __builtin_ctz(mask);
            if (j * TN + c >= w->columns.n) break;
            int64_t column = w->columns.order[j * TN + c];
            if (NAME(is_excluded)(w, row, row * w->columns.n + column)) continue;
            out->hits[out->count++] = (search_hit_t){values[r * TN + c], (uint32_t)row, (uint32_t)column};
        }
    }
}

/* Minus the squared distances, from the products of row r of tile i with half h of tile j. */
INLINE fvec NAME(nearness)(const search_t *w, fvec products, int64_t r, int64_t c) {
    float squares[VB / sizeof(float)], row = r < w->rows.n ? w->rows.norms[r] : 0;
    for (int64_t l = 0; l < L; l++) {
        float column = c + l < w->columns.n ? w->columns.norms[c + l] : 0;
        squares[l] = row * row + column * column;
    }
    fvec v = 2 * products - *(const fvec *)squares;
    return (fvec)((ivec)v & (v < 0));
}

/* Whether a product of the tile may still reach the limit behind stop k. */
INLINE int NAME(may_reach)(const search_t *w, fvec sum[TM][2], int64_t i, int64_t j, int k, fvec least, int metric) {
    const float *a = w->rows.behind + (i * w->stops + k) * TM, *b = w->columns.behind + (j * w->stops + k) * TN;
    fvec left = *(const fvec *)b, right = *(const fvec *)(b + L);
    uint32_t any = 0;
#pragma GCC unroll 16
    for (int r = 0; r < TM; r++) {
        fvec u = sum[r][0], v = sum[r][1];
        if (metric == SEARCH_ABS) u = (fvec)((ivec)u & 0x7fffffff), v = (fvec)((ivec)v & 0x7fffffff);
        u += a[r] * left, v += a[r] * right;
        any |= (uint32_t)MASK(u, least) | (uint32_t)MASK(v, least);
    }
    return any != 0;
}

INLINE void NAME(tile)(const search_t *w, search_buffer_t *out, int64_t i, int64_t j, float limit, int metric) {
    int64_t steps = STEPS(w->samples);
    const float *a = w->rows.packed + i * steps * TM;
    const float *b = w->columns.packed + j * steps * TN;
    fvec sum[TM][2], least = limit - (fvec){0};
#pragma GCC unroll 16
    for (int r = 0; r < TM; r++) sum[r][0] = sum[r][1] = (fvec){0};
    int64_t s = 0;
    for (int k = 0;; k++) {
        int64_t until = k < w->stops ? STEPS((int64_t)SEARCH_STOP << k) : steps;
        for (; s < until; s++, a += TM, b += TN) {
            fvec left = *(const fvec *)b, right = *(const fvec *)(b + L);
#pragma GCC unroll 16
            for (int r = 0; r < TM; r++) {
                ADD(sum[r][0], a[r], left);
                ADD(sum[r][1], a[r], right);
            }
        }
        if (s == steps) break;
        if (!NAME(may_reach)(w, sum, i, j, k, least, metric)) return;
    }
    uint32_t masks[TM], any = 0;
#pragma GCC unroll 16
    for (int r = 0; r < TM; r++) {
        masks[r] = 0;
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            fvec v = sum[r][h];
            if (metric == SEARCH_ABS) v = (fvec)((ivec)v & 0x7fffffff);
            if (metric == SEARCH_L2) v = sum[r][h] = NAME(nearness)(w, v, i * TM + r, j * TN + h * L);
            masks[r] |= (uint32_t)MASK(v, least) << (h * L);
        }
        any |= masks[r];
    }
    if (any == 0) return;
    float values[TM * TN];
#pragma GCC unroll 16
    for (int r = 0; r < TM; r++) {
        *(fvec *)(values + r * TN) = sum[r][0];
        *(fvec *)(values + r * TN + L) = sum[r][1];
    }
    NAME(record)(w, out, values, masks, i, j);
}

/* ---- bands -------------------------------------------------------------------------------------------- */

INLINE double NAME(last_norm)(const search_side_t *side, int64_t tile, int64_t height) {
    int64_t end = (tile + 1) * height;
    return side->norms[(end < side->n ? end : side->n) - 1];
}

/* What rounding may add to minus a squared distance. */
INLINE double NAME(l2_slack)(const search_t *w) {
    double wide = (double)w->rows.norms[w->rows.n - 1] + w->columns.norms[w->columns.n - 1];
    return 4 * w->slack * wide * wide + 1e-35;
}

/* The best key that tile (i, j) can hold. */
INLINE double NAME(bound)(const search_t *w, int64_t i, int64_t j) {
    double row = w->rows.norms[i * TM], column = w->columns.norms[j * TN];
    if (w->metric != SEARCH_L2) return row * column > 0 ? row * column * (1 + w->slack) + 1e-35 : 0;
    double below = row - NAME(last_norm)(&w->columns, j, TN), above = column - NAME(last_norm)(&w->rows, i, TM);
    double gap = below > above ? below : above;
    return NAME(l2_slack)(w) - (gap > 0 ? gap * gap : 0);
}

/* The column tiles whose bound reaches `level` with row tile i: they are neighbours. */
static void NAME(interval)(const search_t *w, int64_t i, double level, int64_t *from, int64_t *until) {
    int64_t low = 0, high = w->columns.tiles;
    if (w->metric == SEARCH_L2) { /* norms rise */
        double reach = __builtin_sqrt(NAME(l2_slack)(w) - level);
        double least = w->rows.norms[i * TM] - reach, most = NAME(last_norm)(&w->rows, i, TM) + reach;
        while (low < high) {
            int64_t mid = (low + high) / 2;
            if (NAME(last_norm)(&w->columns, mid, TN) < least)
                low = mid + 1;
            else
                high = mid;
        }
        *from = low;
        high = w->columns.tiles;
        while (low < high) {
            int64_t mid = (low + high) / 2;
            if (w->columns.norms[mid * TN] <= most)
                low = mid + 1;
            else
                high = mid;
        }
        *until = low;
        return;
    }
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (NAME(bound)(w, i, mid) >= level)
            low = mid + 1;
        else
            high = mid;
    }
    *from = 0, *until = low;
}

/* The level of the next band; the steps grow, so that even the lowest products are reached soon. */
static double NAME(next_level)(search_t *w, float limit) {
    double level;
    if (w->metric == SEARCH_L2) {
        double reach = w->rows.norms[w->rows.n - 1] + w->columns.norms[w->columns.n - 1];
        double least = -reach * reach / 4096;
        level = w->level > least ? least : 4 * w->level;
        if (level <= -4 * reach * reach) level = -1e300;
    } else {
        level = w->level * w->ratio;
        w->ratio *= 0.8;
        if (level < 1e-36) level = limit < 0 ? -1e300 : 0;
    }
    return level > limit ? level : limit;
}

/* The next band: tiles that reach its level and did not reach the one before. */
static void NAME(plan)(search_t *w) {
    float limit = atomic_load(&w->limit);
    if (w->level <= limit || w->level <= -1e300) {
        w->finished = 1;
        return;
    }
    w->rows.packed_tiles = w->rows.wanted_tiles;
    w->columns.packed_tiles = w->columns.wanted_tiles;
    w->level = NAME(next_level)(w, limit);
    w->last = 0;
    for (int64_t i = 0; i < w->rows.tiles; i++) {
        w->low_done[i] = w->low[i], w->high_done[i] = w->high[i];
        NAME(interval)(w, i, w->level, &w->low[i], &w->high[i]);
        if (w->high[i] <= w->low[i]) {
            if (w->metric == SEARCH_L2) continue;
            break;
        }
        w->last = i + 1;
        if (w->high[i] > w->columns.wanted_tiles) w->columns.wanted_tiles = w->high[i];
    }
    if (w->last > w->rows.wanted_tiles) w->rows.wanted_tiles = w->last;
    atomic_store(&w->next, 0);
}

INLINE void NAME(piece)(search_t *w, search_buffer_t *out, int64_t i, int64_t block, int metric) {
    int64_t from = block * BLOCK > w->low[i] ? block * BLOCK : w->low[i];
    int64_t until = (block + 1) * BLOCK < w->high[i] ? (block + 1) * BLOCK : w->high[i];
    for (int64_t j = from; j < until; j++) {
        if (j >= w->low_done[i] && j < w->high_done[i]) {
            j = w->high_done[i] - 1;
            continue;
        }
        float limit = atomic_load_explicit(&w->limit, memory_order_relaxed);
        if (NAME(bound)(w, i, j) < limit) {
            if (metric == SEARCH_L2) continue;
            return;
        }
        if (out->count >= out->raise_at || out->count + TM * TN > w->capacity) {
            if (out->count + TM * TN > w->capacity)
                search_compact(w, out);
            else
                search_raise_one(w, out);
            limit = atomic_load_explicit(&w->limit, memory_order_relaxed);
        }
        NAME(tile)(w, out, i, j, limit, metric);
    }
}

static void NAME(walk)(void *arg, int tid, int team, barrier_t *meet) {
    search_t *w = arg;
    search_buffer_t *out = &w->buffers[tid];
    NAME(norms_of)(&w->rows, w->samples, tid, team);
    NAME(norms_of)(&w->columns, w->samples, tid, team);
    NAME(energy_of)(w, w->samples * tid / team, w->samples * (tid + 1) / team);
    pool_meet(meet);
    if (tid == 0) search_start(w);
    for (;;) {
        if (tid == 0 && !w->finished) {
            search_raise(w, team);
            NAME(plan)(w);
        }
        pool_meet(meet);
        if (w->finished) return;
        NAME(pack_rows)(w, out->near, tid, team);
        NAME(pack_columns)(w, out->near, tid, team);
        pool_meet(meet);
        int64_t blocks = (w->columns.wanted_tiles + BLOCK - 1) / BLOCK;
        for (int64_t n; (n = atomic_fetch_add(&w->next, 1)) < blocks * w->last;) {
            if (w->metric == SEARCH_ABS)
                NAME(piece)(w, out, n % w->last, n / w->last, SEARCH_ABS);
            else if (w->metric == SEARCH_IP)
                NAME(piece)(w, out, n % w->last, n / w->last, SEARCH_IP);
            else
                NAME(piece)(w, out, n % w->last, n / w->last, SEARCH_L2);
        }
        pool_meet(meet);
    }
}

#ifndef PAIRS
/* ---- products at positions ---------------------------------------------------------------------------- */

static void NAME(products)(void *arg, int tid, int team, barrier_t *meet) {
    const search_products_t *p = arg;
    (void)meet;
    for (int64_t h = p->n * tid / team, end = p->n * (tid + 1) / team; h < end; h++) {
        const float *a = p->rows + p->index[h] / p->width * p->samples;
        const float *b = p->columns + p->index[h] % p->width * p->samples;
        fvec sum[4] = {{0}, {0}, {0}, {0}};
        int64_t s = 0;
        for (; s + 4 * L <= p->samples; s += 4 * L)
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++) sum[q] += *(const fvec *)(a + s + q * L) * *(const fvec *)(b + s + q * L);
        for (; s + L <= p->samples; s += L) sum[0] += *(const fvec *)(a + s) * *(const fvec *)(b + s);
        fvec lanes = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        float total = 0;
        for (int64_t l = 0; l < L; l++) total += lanes[l];
        for (; s < p->samples; s++) total += a[s] * b[s];
        p->products[h] = total;
    }
}
#endif

#undef L
#undef TN
#undef BLOCK
#undef INLINE
#undef fvec
#undef ivec
