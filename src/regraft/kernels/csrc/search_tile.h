/* The norm-ordered walk for one instruction set.
 *
 * The including file defines VB (bytes of a vector), TM (rows of a tile), MASK(v, least), whose bit l is set
 * where lane l of v reaches that of least, and NAME(x). A tile has TM rows and two vectors of columns. With PAIRS two
 * samples are packed together as bfloat16.
 *
 * Rows and columns are ordered by norm, so the norms at a tile's corners bound its products by Cauchy and
 * Schwarz. Bands of tiles are walked from the largest bound on. Between two bands the limit is raised to the
 * k-th best key over all threads, within a band by a thread whose buffer is full. The samples of a product
 * are summed one after the other, so its value depends neither on tiles nor on threads.
 */

#define L ((int64_t)(VB / sizeof(float)))
#define TN (2 * L)
#define BLOCK 16 /* column tiles that stay in the cache while row tiles pass */
#define PIECE 64 /* samples packed at a time */
#define INLINE static inline __attribute__((always_inline))
typedef float NAME(fvec) __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int32_t NAME(ivec) __attribute__((vector_size(VB), aligned(4), may_alias));
#define fvec NAME(fvec)
#define ivec NAME(ivec)

/* ---- norms -------------------------------------------------------------------------------------------- */

/* The norm of a row whose squares are lost in float. */
static __attribute__((noinline)) float NAME(small_norm)(const search_side_t *side, int64_t samples, int64_t i) {
    double sum = 0;
    for (int64_t s = 0; s < samples; s++) {
        double x = side->data[i * side->stride + s * side->step];
        sum += x * x;
    }
    return (float)__builtin_sqrt(sum);
}

/* The sum of squares, and in `any` the bits of all numbers, of a row that lies in one piece. */
INLINE float NAME(squares)(const float *x, int64_t samples, uint32_t *any) {
    fvec sum[4] = {{0}, {0}, {0}, {0}};
    ivec bits = {0};
    int64_t s = 0;
    for (; s + 4 * L <= samples; s += 4 * L)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            fvec v = *(const fvec *)(x + s + q * L);
            sum[q] += v * v;
            bits |= (ivec)v;
        }
    for (; s + L <= samples; s += L) {
        fvec v = *(const fvec *)(x + s);
        sum[0] += v * v;
        bits |= (ivec)v;
    }
    fvec lanes = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    float total = 0;
    for (int64_t l = 0; l < L; l++) total += lanes[l], *any |= (uint32_t)bits[l];
    for (; s < samples; s++) {
        uint32_t one;
        __builtin_memcpy(&one, x + s, sizeof one);
        total += x[s] * x[s], *any |= one;
    }
    return total;
}

/* Norms of rows [from, to), not yet in order. A thread's part begins at a multiple of the rows taken together. */
static void NAME(norms)(const search_side_t *side, int64_t samples, int64_t from, int64_t to) {
    float piece[PIECE];
    for (int64_t i = from; i < to; i += TN) {
        int64_t n = to - i < TN ? to - i : TN;
        float sums[2 * VB / sizeof(float)] = {0};
        uint32_t any[2 * VB / sizeof(float)] = {0};
        if (side->step == 1) {
            for (int64_t r = 0; r < n; r++)
                sums[r] = NAME(squares)(side->data + (i + r) * side->stride, samples, &any[r]);
        } else {
            for (int64_t s = 0; s < samples; s++) {
                const float *x = side->data + i * side->stride + s * side->step;
                if (n < TN || side->stride != 1) {
                    __builtin_memset(piece, 0, sizeof piece);
                    for (int64_t r = 0; r < n; r++) piece[r] = x[r * side->stride];
                    x = piece;
                }
                for (int64_t r = 0; r < TN; r++) {
                    uint32_t one;
                    __builtin_memcpy(&one, x + r, sizeof one);
                    sums[r] += x[r] * x[r], any[r] |= one;
                }
            }
        }
        for (int64_t r = 0; r < n; r++) {
            int lost = sums[r] < 1e-32f && any[r] << 1;
            side->norms[i + r] = lost ? NAME(small_norm)(side, samples, i + r) : __builtin_sqrtf(sums[r]);
        }
    }
}

static void NAME(norms_of)(const search_side_t *side, int64_t samples, int tid, int team) {
    int64_t pieces = (side->n + TN - 1) / TN, from = pieces * tid / team * TN, to = pieces * (tid + 1) / team * TN;
    NAME(norms)(side, samples, from, to < side->n ? to : side->n);
}

/* ---- packing ------------------------------------------------------------------------------------------ */

#ifdef PAIRS
#define STEPS(samples) (((samples) + 1) / 2)
/* The nearest bfloat16. */
INLINE uint32_t NAME(rounded)(float x) {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#define ADD(sum, a, b)                                                                                        \
    (sum) = (fvec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_ps(a), (__m512bh)(b))
#else
#define STEPS(samples) (samples)
#define ADD(sum, a, b) (sum) += (a) * (b)
#endif

/* Tile `tile` of `side`, sample after sample; rows behind the last are zeros. */
static void NAME(pack)(const search_side_t *side, int64_t samples, int64_t tile, int64_t height) {
    int64_t steps = STEPS(samples);
    float *to = side->packed + tile * steps * height;
    int64_t first = tile * height, n = side->n - first < height ? side->n - first : height;
    const float *from[2 * VB / sizeof(float)];
    for (int64_t i = 0; i < n; i++) from[i] = side->data + side->order[first + i] * side->stride;
    if (n < height) __builtin_memset(to, 0, steps * height * sizeof(float));
    /* a piece of each row is copied first: rows a power of two apart drive each other out of the cache */
    float near[2 * VB / sizeof(float)][PIECE + 4];
    for (int64_t s0 = 0; s0 < samples; s0 += PIECE) {
        int64_t some = samples - s0 < PIECE ? samples - s0 : PIECE;
        for (int64_t i = 0; i < n; i++) {
            for (int64_t s = 0; s < some; s++) near[i][s] = from[i][(s0 + s) * side->step];
            near[i][some] = 0;
        }
#ifdef PAIRS
        uint32_t *pairs = (uint32_t *)to + s0 / 2 * height;
        for (int64_t s = 0; s < some; s += 2)
            for (int64_t i = 0; i < n; i++)
                pairs[s / 2 * height + i] = NAME(rounded)(near[i][s]) | NAME(rounded)(near[i][s + 1]) << 16;
#else
        for (int64_t s = 0; s < some; s++)
            for (int64_t i = 0; i < n; i++) to[(s0 + s) * height + i] = near[i][s];
#endif
    }
}

static void NAME(pack_wanted)(const search_side_t *side, int64_t samples, int64_t height, int tid, int team) {
    for (int64_t tile = side->packed_tiles + tid; tile < side->wanted_tiles; tile += team)
        NAME(pack)(side, samples, tile, height);
}

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

INLINE void NAME(tile)(const search_t *w, search_buffer_t *out, int64_t i, int64_t j, float limit, int metric) {
    int64_t steps = STEPS(w->samples);
    const float *a = w->rows.packed + i * steps * TM;
    const float *b = w->columns.packed + j * steps * TN;
    fvec sum[TM][2], least = limit - (fvec){0};
#pragma GCC unroll 16
    for (int r = 0; r < TM; r++) sum[r][0] = sum[r][1] = (fvec){0};
    for (int64_t s = 0; s < steps; s++, a += TM, b += TN) {
        fvec left = *(const fvec *)b, right = *(const fvec *)(b + L);
#pragma GCC unroll 16
        for (int r = 0; r < TM; r++) {
            ADD(sum[r][0], a[r], left);
            ADD(sum[r][1], a[r], right);
        }
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
    pool_meet(meet);
    if (tid == 0) search_start(w);
    for (;;) {
        if (tid == 0 && !w->finished) {
            search_raise(w, team);
            NAME(plan)(w);
        }
        pool_meet(meet);
        if (w->finished) return;
        NAME(pack_wanted)(&w->rows, w->samples, TM, tid, team);
        NAME(pack_wanted)(&w->columns, w->samples, TN, tid, team);
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
#undef PIECE
#undef INLINE
#undef fvec
#undef ivec
