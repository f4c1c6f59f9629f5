#ifndef REGRAFT_REWIRE_H
#define REGRAFT_REWIRE_H

#include <stdint.h>

/* Places (ascending) of the k <= n values closest to zero; of equal ones the first. Returns how many that are equal
 * to the largest of them were left, -1 when memory ran out. */
int64_t rewire_smallest(const void *values, int wide, int64_t n, int64_t k, int64_t *out);

/* The positions at the places (ascending) in `gone`, all others in `kept`. Returns -1 when a place is out of order
 * or range. */
int rewire_part(const int64_t *index, int64_t n, const int64_t *places, int64_t n_places, int64_t *kept,
                int64_t *gone);

/* to[kept_new[i]] = from[kept_old[i]] for numbers of 32 bits, or of 64 if `wide`. Returns -1, and moves nothing, when
 * a place is out of range. */
int rewire_move(const void *from, int64_t n_from, const int64_t *kept_old, const int64_t *kept_new, int64_t kept,
                int wide, void *to, int64_t n_to);

/* k distinct positions in [0, size) that are not in `index`, uniform, ascending. Returns 0, or -1 when memory
 * ran out. The caller sees to k <= size - nnz. */
int rewire_random(const int64_t *index, int64_t nnz, int64_t size, int64_t k, uint64_t seed, int64_t *out);

/* The positions without the entries at the places `dropped`, with the positions `grown` (all ascending).
 * Survivor i moved from kept_old[i] to kept_new[i]. Returns the number of survivors, -1 when a place is out of
 * order, or a grown position out of order, not below `size` or still active. */
int64_t rewire_merge(const int64_t *index, int64_t nnz, const int64_t *dropped, int64_t n_dropped,
                     const int64_t *grown, int64_t n_grown, int64_t size, int64_t *merged, int64_t *kept_old,
                     int64_t *kept_new);

#endif
