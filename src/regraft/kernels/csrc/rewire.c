/* Changing a topology: pick entries to drop, draw inactive positions, merge. All in linear time. */
#include "rewire.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 2048

/* The k-th smallest (from 0) of `left` magnitudes of `bits` bits: eleven at a time, from the top. */
static uint64_t nth(uint64_t *m, int64_t left, int64_t k, int bits) {
    for (int shift = bits - 11; shift > -11 && left > 1; shift -= 11) {
        int64_t count[BUCKETS] = {0}, bucket = 0, kept = 0;
        int down = shift > 0 ? shift : 0;
        for (int64_t i = 0; i < left; i++) count[(m[i] >> down) & (BUCKETS - 1)]++;
        while (k >= count[bucket]) k -= count[bucket++];
        for (int64_t i = 0; i < left; i++)
            if ((int64_t)((m[i] >> down) & (BUCKETS - 1)) == bucket) m[kept++] = m[i];
        left = kept;
    }
    return m[k < left ? k : 0];
}

/* Magnitudes as integers of the same order, NaN above everything; T is one that is as wide as a value. The first
 * digits are counted while the values are read, so that few of them are copied. */
#define SMALLEST(T, BITS)                                                                                       \
    static int64_t smallest##BITS(const T *values, int64_t n, int64_t k, int64_t *out) {                        \
        const T mask = (T)-1 >> 1;                                                                              \
        int64_t count[BUCKETS] = {0}, bucket = 0, before = 0, kept = 0, below = 0, equal = 0, taken = 0;        \
        for (int64_t i = 0; i < n; i++) count[(values[i] & mask) >> (BITS - 12)]++;                             \
        while (before + count[bucket] < k) before += count[bucket++];                                           \
        uint64_t *m = malloc((size_t)count[bucket] * sizeof *m);                                                \
        if (!m) return -1;                                                                                      \
        for (int64_t i = 0; i < n; i++)                                                                         \
            if ((int64_t)((values[i] & mask) >> (BITS - 12)) == bucket) m[kept++] = values[i] & mask;           \
        T limit = (T)nth(m, kept, k - 1 - before, BITS - 12);                                                   \
        free(m);                                                                                                \
        for (int64_t i = 0; i < n; i++) {                                                                       \
            below += (values[i] & mask) < limit;                                                                \
            equal += (values[i] & mask) == limit;                                                               \
        }                                                                                                       \
        int64_t ties = k - below, left = equal - ties; /* of the equal ones the first */                        \
        for (int64_t i = 0; taken < k; i++) {                                                                   \
            T size = values[i] & mask;                                                                          \
            if (size <= limit && (size < limit || ties-- > 0)) out[taken++] = i;                                \
        }                                                                                                       \
        return left;                                                                                            \
    }

SMALLEST(uint32_t, 32)
SMALLEST(uint64_t, 64)

int64_t rewire_smallest(const void *values, int wide, int64_t n, int64_t k, int64_t *out) {
    if (k <= 0) return 0;
    return wide ? smallest64(values, n, k, out) : smallest32(values, n, k, out);
}

int rewire_part(const int64_t *index, int64_t n, const int64_t *places, int64_t n_places, int64_t *kept,
                int64_t *gone) {
    /* before anything is written: of places out of order more may lie between than there is room for */
    for (int64_t i = 0; i < n_places; i++)
        if (places[i] <= (i ? places[i - 1] : -1) || places[i] >= n) return -1;
    int64_t from = 0;
    for (int64_t i = 0; i < n_places; i++) {
        int64_t place = places[i];
        memcpy(kept + from - i, index + from, (size_t)(place - from) * sizeof *kept);
        gone[i] = index[place];
        from = place + 1;
    }
    memcpy(kept + from - n_places, index + from, (size_t)(n - from) * sizeof *kept);
    return 0;
}

int rewire_move(const void *from, int64_t n_from, const int64_t *kept_old, const int64_t *kept_new, int64_t kept,
                int wide, void *to, int64_t n_to) {
    int wrong = 0;
    for (int64_t i = 0; i < kept; i++)
        wrong |= (uint64_t)kept_old[i] >= (uint64_t)n_from || (uint64_t)kept_new[i] >= (uint64_t)n_to;
    if (wrong) return -1;
    if (wide)
        for (int64_t i = 0; i < kept; i++) ((uint64_t *)to)[kept_new[i]] = ((const uint64_t *)from)[kept_old[i]];
    else
        for (int64_t i = 0; i < kept; i++) ((uint32_t *)to)[kept_new[i]] = ((const uint32_t *)from)[kept_old[i]];
    return 0;
}

/* splitmix64 */
static uint64_t draw(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, n), without bias. */
static uint64_t below(uint64_t *state, uint64_t n) {
    uint64_t limit = -n % n, x;
    do x = draw(state);
    while (x < limit);
    return x % n;
}

static void sort(uint64_t *a, uint64_t *b, int64_t n, uint64_t top) {
    for (int shift = 0; shift < 64 && (top >> shift); shift += 11) {
        int64_t start[BUCKETS + 1] = {0};
        for (int64_t i = 0; i < n; i++) start[((a[i] >> shift) & (BUCKETS - 1)) + 1]++;
        for (int i = 0; i < BUCKETS; i++) start[i + 1] += start[i];
        for (int64_t i = 0; i < n; i++) b[start[(a[i] >> shift) & (BUCKETS - 1)]++] = a[i];
        memcpy(a, b, (size_t)n * sizeof *a);
    }
}

/* k distinct numbers below n, in `ranks` (unsorted): Floyd's method with a table of what was drawn. */
static int distinct(uint64_t *ranks, int64_t k, uint64_t n, uint64_t seed) {
    size_t slots = 16;
    while (slots < (size_t)k * 2) slots *= 2;
    uint64_t *table = calloc(slots, sizeof *table);
    if (!table) return -1;
    for (int64_t i = 0; i < k; i++) {
        uint64_t last = n - (uint64_t)k + (uint64_t)i, x = below(&seed, last + 1);
        for (int again = 0; again < 2; again++, x = last) {
            size_t at = (size_t)((x * 0x9e3779b97f4a7c15u) >> 20) & (slots - 1);
            while (table[at] && table[at] != x + 1) at = (at + 1) & (slots - 1);
            if (table[at]) continue; /* drawn before: take `last`, which cannot have been */
            table[at] = x + 1;
            ranks[i] = x;
            break;
        }
    }
    free(table);
    return 0;
}

int rewire_random(const int64_t *index, int64_t nnz, int64_t size, int64_t k, uint64_t seed, int64_t *out) {
    if (k <= 0) return 0;
    uint64_t *ranks = malloc((size_t)k * 2 * sizeof *ranks), absent = (uint64_t)(size - nnz);
    if (!ranks || distinct(ranks, k, absent, seed) != 0) {
        free(ranks);
        return -1;
    }
    sort(ranks, ranks + k, k, absent);
    /* the position of the r-th absent one is r plus the number of active ones before it */
    int64_t j = 0;
    for (int64_t i = 0; i < k; i++) {
        while (j < nnz && index[j] - j <= (int64_t)ranks[i]) j++;
        out[i] = (int64_t)ranks[i] + j;
    }
    free(ranks);
    return 0;
}

/* Entries [from, to) stay: in one piece, behind the `at` entries that are there. */
static void stay(const int64_t *index, int64_t from, int64_t to, int64_t at, int64_t kept, int64_t *merged,
                 int64_t *kept_old, int64_t *kept_new) {
    memcpy(merged + at, index + from, (size_t)(to - from) * sizeof *merged);
    for (int64_t i = 0; i < to - from; i++) {
        kept_old[kept + i] = from + i;
        kept_new[kept + i] = at + i;
    }
}

/* The first entry from `low` on that is not below `position`, near `low` in most cases. */
static int64_t seek(const int64_t *index, int64_t low, int64_t n, int64_t position) {
    int64_t step = 1, high = low;
    while (high < n && index[high] < position) low = high + 1, high += step, step *= 2;
    if (high > n) high = n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (index[mid] < position)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

int64_t rewire_merge(const int64_t *index, int64_t nnz, const int64_t *dropped, int64_t n_dropped,
                     const int64_t *grown, int64_t n_grown, int64_t size, int64_t *merged, int64_t *kept_old,
                     int64_t *kept_new) {
    for (int64_t i = 0; i < n_dropped; i++)
        if (dropped[i] <= (i ? dropped[i - 1] : -1) || dropped[i] >= nnz) return -1;
    for (int64_t i = 0; i < n_grown; i++)
        if (grown[i] <= (i ? grown[i - 1] : -1) || grown[i] >= size) return -1;
    int64_t from = 0, kept = 0, at = 0, d = 0;
    for (int64_t g = 0; g <= n_grown; g++) {
        int64_t until = g < n_grown ? seek(index, from, nnz, grown[g]) : nnz;
        for (; d < n_dropped && dropped[d] < until; d++) {
            int64_t n = dropped[d] - from;
            stay(index, from, dropped[d], at, kept, merged, kept_old, kept_new);
            at += n, kept += n, from = dropped[d] + 1;
        }
        stay(index, from, until, at, kept, merged, kept_old, kept_new);
        at += until - from, kept += until - from, from = until;
        if (g == n_grown) break;
        int active = until < nnz && index[until] == grown[g];
        if (active && !(d < n_dropped && dropped[d] == until)) return -1;
        merged[at++] = grown[g];
    }
    return kept;
}
