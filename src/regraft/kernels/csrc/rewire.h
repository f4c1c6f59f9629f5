#ifndef REGRAFT_REWIRE_H
#define REGRAFT_REWIRE_H

#include <stdint.h>

/* Places (ascending) of the k values closest to zero: of all (sign 0), of the negative ones (-1) or of the
 * others (1); of equal ones the first. Returns how many there were, -1 when memory ran out. */
int64_t rewire_smallest(const void *values, int wide, int64_t n, int sign, int64_t k, int64_t *out);

/* k distinct positions in [0, size) that are not in `index`, uniform, ascending. Returns 0, or -1 when memory
 * ran out. The caller sees to k <= size - nnz. */
int rewire_random(const int64_t *index, int64_t nnz, int64_t size, int64_t k, uint64_t seed, int64_t *out);

/* The positions without the entries at the places `dropped`, with the positions `grown` (all ascending).
 * Survivor i moved from kept_old[i] to kept_new[i]. Returns the number of survivors, -1 when a place is out of
 * order or a grown position is still active. */
int64_t rewire_merge(const int64_t *index, int64_t nnz, const int64_t *dropped, int64_t n_dropped,
                     const int64_t *grown, int64_t n_grown, int64_t *merged, int64_t *kept_old,
                     int64_t *kept_new);

#endif
