/* The hits of a search: the k-th best, the k best, and their order. */
#include "search.h"

#include <float.h>
#include <string.h>

#define DIGIT 11
#define DIGITS (1 << DIGIT)

/* A float's rank as an unsigned number. */
static inline uint32_t rank(float key) {
    uint32_t bits;
    key += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &key, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static inline float unrank(uint32_t rank) {
    uint32_t bits = rank >> 31 ? rank & 0x7fffffffu : ~rank;
    float key;
    memcpy(&key, &bits, sizeof key);
    return key;
}

static inline uint32_t rank_of(const search_t *w, const search_hit_t *hit) {
    return rank(w->metric == SEARCH_ABS ? __builtin_fabsf(hit->value) : hit->value);
}

static inline uint64_t position_of(const search_t *w, const search_hit_t *hit) {
    return (uint64_t)hit->row * (uint64_t)w->columns.n + hit->column;
}

typedef struct {
    uint32_t rank;     /* of the k-th best */
    int64_t ties;      /* hits of this rank that belong to the k best */
    uint64_t position; /* up to which those lie */
} cut_t;

/* One digit of a selection by counting: the digit that holds the `*k`-th, from the highest digit down or from
 * the lowest up; `*k` counts from its start on. -1 where there are fewer. */
static int narrow(const int64_t *count, int64_t *k, int falling) {
    for (int d = 0; d < DIGITS; d++) {
        int digit = falling ? DIGITS - 1 - d : d;
        if (*k <= count[digit]) return digit;
        *k -= count[digit];
    }
    return -1;
}

/* Bits behind the leading digit of numbers up to `span`. */
static int bits_behind(uint32_t span) {
    int bits = span ? 32 - __builtin_clz(span) : 0;
    return bits > DIGIT ? bits - DIGIT : 0;
}

/* The k-th best rank over buffers first ... last - 1, or the limit's where fewer than k reach the limit. Ranks
 * lie between the limit's and the top, mostly close together: digits of their distance spread them. */
static cut_t kth(const search_t *w, int first, int last, int64_t k) {
    uint32_t base = rank(atomic_load(&w->limit)), span = w->top > base ? w->top - base : 0;
    int64_t count[DIGITS];
    for (int shift = bits_behind(span);; shift = bits_behind(span)) {
        memset(count, 0, sizeof count);
        for (int b = first; b < last; b++) {
            const search_buffer_t *buffer = &w->buffers[b];
            for (int64_t h = 0; h < buffer->count; h++) {
                uint32_t above = rank_of(w, &buffer->hits[h]) - base;
                if (above <= span) count[above >> shift]++;
            }
        }
        int digit = narrow(count, &k, 1);
        if (digit < 0) return (cut_t){base, 0, UINT64_MAX};
        base += (uint32_t)digit << shift;
        if (shift == 0) return (cut_t){base, k, UINT64_MAX};
        span = (1u << shift) - 1;
    }
}

/* Up to which position the hits at the cut are kept. */
static void cut_ties(const search_t *w, int first, int last, cut_t *cut) {
    uint64_t prefix = 0, fixed = 0;
    int64_t k = cut->ties, count[DIGITS];
    for (int shift = 55; shift >= 0; shift -= DIGIT) {
        memset(count, 0, sizeof count);
        for (int b = first; b < last; b++) {
            const search_buffer_t *buffer = &w->buffers[b];
            for (int64_t h = 0; h < buffer->count; h++) {
                if (rank_of(w, &buffer->hits[h]) != cut->rank) continue;
                uint64_t p = position_of(w, &buffer->hits[h]);
                if ((p & fixed) == prefix) count[(p & ~fixed) >> shift]++;
            }
        }
        prefix |= (uint64_t)narrow(count, &k, 0) << shift;
        fixed = ~((1ull << shift) - 1);
    }
    cut->position = prefix;
}

static int64_t at_cut(const search_t *w, int first, int last, uint32_t r) {
    int64_t n = 0;
    for (int b = first; b < last; b++)
        for (int64_t h = 0; h < w->buffers[b].count; h++) n += rank_of(w, &w->buffers[b].hits[h]) == r;
    return n;
}

static inline int is_kept(const search_t *w, const search_hit_t *hit, const cut_t *cut) {
    uint32_t r = rank_of(w, hit);
    return r > cut->rank || (r == cut->rank && position_of(w, hit) <= cut->position);
}

/* ---- the start ---------------------------------------------------------------------------------------- */

/* The order of n values, falling or rising, equal ones as they came; the values in that order. */
static void sort(float *values, int64_t *order, int64_t n, uint64_t *pairs, int falling) {
    uint64_t *from = pairs, *to = pairs + n;
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = rank(values[i]);
        from[i] = (uint64_t)(falling ? ~key : key) << 32 | (uint32_t)i;
    }
    int64_t start[DIGITS];
    for (int shift = 32; shift < 64; shift += DIGIT) {
        memset(start, 0, sizeof start);
        for (int64_t i = 0; i < n; i++) start[from[i] >> shift & (DIGITS - 1)]++;
        for (int64_t d = 0, sum = 0; d < DIGITS; d++) {
            int64_t count = start[d];
            start[d] = sum;
            sum += count;
        }
        for (int64_t i = 0; i < n; i++) to[start[from[i] >> shift & (DIGITS - 1)]++] = from[i];
        uint64_t *other = from;
        from = to, to = other;
    }
    for (int64_t i = 0; i < n; i++) {
        uint32_t key = (uint32_t)(from[i] >> 32);
        order[i] = (uint32_t)from[i];
        values[i] = unrank(falling ? ~key : key);
    }
}

void search_start(search_t *w) {
    int falling = w->metric != SEARCH_L2;
    sort(w->rows.norms, w->rows.order, w->rows.n, w->pairs, falling);
    sort(w->columns.norms, w->columns.order, w->columns.n, w->pairs, falling);
    sort(w->energy, w->order, w->samples, w->pairs, 1);
    double row = w->rows.norms[falling ? 0 : w->rows.n - 1];
    double column = w->columns.norms[falling ? 0 : w->columns.n - 1], most = row > column ? row : column;
    w->refused = !(most * most <= 1e37) || !(row <= FLT_MAX && column <= FLT_MAX);
    w->finished = w->refused;
    w->ratio = 0.8;
    w->level = falling ? row * column * (1 + w->slack) + 1e-35 : DBL_MAX;
    w->limit = w->above_zero ? FLT_TRUE_MIN : -FLT_MAX;
    w->top = rank(falling ? (float)(w->level * 1.000001) : 0);
}

/* ---- the limit ---------------------------------------------------------------------------------------- */

static void raise_to(search_t *w, float key) {
    float limit = atomic_load(&w->limit);
    while (key > limit && !atomic_compare_exchange_weak(&w->limit, &limit, key)) {
    }
}

void search_raise(search_t *w, int team) {
    int64_t hits = 0;
    for (int b = 0; b < team; b++) hits += w->buffers[b].count;
    if (hits < w->k || (hits >= w->seen && hits - w->seen < w->k / 8)) return; /* little is new */
    w->seen = hits;
    raise_to(w, unrank(kth(w, 0, team, w->k).rank));
}

void search_raise_one(search_t *w, search_buffer_t *buffer) {
    int b = (int)(buffer - w->buffers);
    if (buffer->count >= w->k) raise_to(w, unrank(kth(w, b, b + 1, w->k).rank));
    buffer->raise_at = (buffer->count > w->k ? buffer->count : w->k) + w->k / 2 + 64;
}

void search_compact(search_t *w, search_buffer_t *buffer) {
    int b = (int)(buffer - w->buffers);
    uint32_t least = rank(atomic_load(&w->limit));
    int64_t n = 0;
    for (int64_t h = 0; h < buffer->count; h++) {
        search_hit_t hit = buffer->hits[h];
        buffer->hits[n] = hit;
        n += rank_of(w, &hit) >= least;
    }
    buffer->count = n;
    buffer->raise_at = w->k + w->k / 2 + 64;
    if (n <= w->k) return;
    cut_t cut = kth(w, b, b + 1, w->k);
    if (at_cut(w, b, b + 1, cut.rank) > cut.ties) cut_ties(w, b, b + 1, &cut);
    n = 0;
    for (int64_t h = 0; h < buffer->count; h++) {
        search_hit_t hit = buffer->hits[h];
        buffer->hits[n] = hit;
        n += is_kept(w, &hit, &cut);
    }
    buffer->count = n;
    raise_to(w, unrank(cut.rank));
}

/* Sort `n` pairs by position; the other pair of arrays is scratch. Returns which pair holds the result. */
static int sort_by_position(int64_t *index[2], float *values[2], int64_t n, uint64_t largest) {
    int from = 0;
    int64_t start[DIGITS];
    for (int shift = 0; shift < 64 && largest >> shift; shift += DIGIT) {
        memset(start, 0, sizeof start);
        for (int64_t h = 0; h < n; h++) start[(uint64_t)index[from][h] >> shift & (DIGITS - 1)]++;
        for (int64_t d = 0, sum = 0; d < DIGITS; d++) {
            int64_t count = start[d];
            start[d] = sum;
            sum += count;
        }
        for (int64_t h = 0; h < n; h++) {
            int64_t to = start[(uint64_t)index[from][h] >> shift & (DIGITS - 1)]++;
            index[!from][to] = index[from][h];
            values[!from][to] = values[from][h];
        }
        from = !from;
    }
    return from;
}

int64_t search_finish(search_t *w, int team, int64_t *index, float *values) {
    int64_t hits = 0, n = 0;
    for (int b = 0; b < team; b++) hits += w->buffers[b].count;
    cut_t cut = {0, 0, UINT64_MAX};
    if (hits > w->k) {
        cut = kth(w, 0, team, w->k);
        if (at_cut(w, 0, team, cut.rank) > cut.ties) cut_ties(w, 0, team, &cut);
    }
    for (int b = 0; b < team; b++)
        for (int64_t h = 0; h < w->buffers[b].count; h++) {
            const search_hit_t *hit = &w->buffers[b].hits[h];
            if (!is_kept(w, hit, &cut)) continue;
            index[n] = (int64_t)position_of(w, hit);
            values[n++] = hit->value;
        }
    /* the first buffer holds 12 bytes for each of 2 k hits: room for k positions and k values */
    int64_t *scratch = (int64_t *)w->buffers[0].hits;
    int64_t *indices[2] = {index, scratch};
    float *both[2] = {values, (float *)(scratch + n)};
    if (sort_by_position(indices, both, n, (uint64_t)w->rows.n * (uint64_t)w->columns.n)) {
        memcpy(index, indices[1], n * sizeof *index);
        memcpy(values, both[1], n * sizeof *values);
    }
    return n;
}
