/* What the walk reads: norms, the energy of samples, packed tiles and what is behind their stops. Included by
 * search_tile.h, inside the same definitions. */

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
    float piece[2 * VB / sizeof(float)];
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

/* The energy of samples [from, to): sums over the rows, whose order does not depend on threads. */
static void NAME(energy_of)(search_t *w, int64_t from, int64_t to) {
    const search_side_t *side = &w->rows;
    for (int64_t s = from; s < to; s++) w->energy[s] = 0;
    for (int64_t i = 0; i < side->n; i++) {
        const float *x = side->data + i * side->stride;
        if (side->step == 1)
            for (int64_t s = from; s < to; s++) w->energy[s] += x[s] * x[s];
        else
            for (int64_t s = from; s < to; s++) w->energy[s] += x[s * side->step] * x[s * side->step];
    }
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

/* What products of this row may still gain behind each stop: sqrt(behind^2 + slack norm^2), so that two of them
 * multiply to at least the product of what is behind plus slack times the product of the norms. */
INLINE void NAME(behind)(const search_t *w, const float *row, float norm, float *to, int64_t height) {
    float sum = (float)w->slack * norm * norm;
    uint32_t any = 0;
    for (int64_t k = w->stops, end = w->samples; k > 0; k--) {
        int64_t start = (int64_t)SEARCH_STOP << (k - 1);
        sum += NAME(squares)(row + start, end - start, &any);
        to[(k - 1) * height] = __builtin_sqrtf(sum) * 1.000001f;
        end = start;
    }
}

/* Tile `tile` of `side`, sample after sample in their order; rows behind the last are zeros. Rows are copied to `near`
 * first: a power of two apart they would drive each other out of the cache. */
INLINE void NAME(pack)(const search_t *w, const search_side_t *side, float *near, int64_t tile, const int64_t height) {
    const int64_t samples = w->samples, steps = STEPS(samples), wide = samples + SEARCH_APART, *order = w->order;
    const int64_t first = tile * height, n = side->n - first < height ? side->n - first : height;
    float *to = side->packed + tile * steps * height, *behind = side->behind + tile * w->stops * height;
    for (int64_t i = 0; i < height; i++) {
        float *row = near + i * wide;
        if (i < n) {
            const float *x = side->data + side->order[first + i] * side->stride;
            if (side->step == 1)
                for (int64_t s = 0; s < samples; s++) row[s] = x[order[s]];
            else
                for (int64_t s = 0; s < samples; s++) row[s] = x[order[s] * side->step];
        } else {
            __builtin_memset(row, 0, samples * sizeof *row);
        }
        row[samples] = 0;
        NAME(behind)(w, row, i < n ? side->norms[first + i] : 0, behind + i, height);
    }
#ifdef PAIRS
    uint32_t *pairs = (uint32_t *)to;
    for (int64_t s = 0; s < samples; s += 2, pairs += height)
        for (int64_t i = 0; i < height; i++)
            pairs[i] = NAME(rounded)(near[i * wide + s]) | NAME(rounded)(near[i * wide + s + 1]) << 16;
#else
    for (int64_t s = 0; s < samples; s++, to += height)
        for (int64_t i = 0; i < height; i++) to[i] = near[i * wide + s];
#endif
}

static void NAME(pack_rows)(const search_t *w, float *near, int tid, int team) {
    for (int64_t t = w->rows.packed_tiles + tid; t < w->rows.wanted_tiles; t += team)
        NAME(pack)(w, &w->rows, near, t, TM);
}

static void NAME(pack_columns)(const search_t *w, float *near, int tid, int team) {
    for (int64_t t = w->columns.packed_tiles + tid; t < w->columns.wanted_tiles; t += team)
        NAME(pack)(w, &w->columns, near, t, TN);
}
