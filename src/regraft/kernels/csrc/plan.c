#include "common.h"

/* Entries of the rows [r0, r1) in column order, from where ptr[0] says; sets ptr[1 .. cols] to the ends. */
static void by_column(const int64_t *rowptr, const int32_t *col, int64_t cols, int64_t r0, int64_t r1,
                      int64_t *ptr, int32_t *row, int32_t *perm) {
    for (int64_t c = 1; c <= cols; c++) ptr[c] = 0;
    for (int64_t j = rowptr[r0]; j < rowptr[r1]; j++) ptr[col[j] + 1]++;
    for (int64_t c = 0; c < cols; c++) ptr[c + 1] += ptr[c];
    for (int64_t r = r0; r < r1; r++) {
        for (int64_t j = rowptr[r]; j < rowptr[r + 1]; j++) {
            int64_t k = ptr[col[j]]++;
            row[k] = (int32_t)r;
            perm[k] = (int32_t)j;
        }
    }
    /* ptr served as the cursor and now holds each column's end: shift it back to the starts */
    for (int64_t c = cols; c > 0; c--) ptr[c] = ptr[c - 1];
    ptr[0] = rowptr[r0];
}

/* Both traversals from sorted flat positions, in O(nnz + rows + panels * cols). Returns 0, or -1 when the
 * positions are not strictly increasing within [0, rows * cols): nothing else may reach a kernel. */
int plan_build(const int64_t *index, int64_t nnz, int64_t rows, int64_t cols, int64_t panels, int64_t *rowptr,
               int32_t *col, int64_t *colptr, int32_t *row, int32_t *perm) {
    int64_t r = 0, start = 0, before = -1;
    rowptr[0] = 0;
    for (int64_t j = 0; j < nnz; j++) {
        int64_t at = index[j];
        if (at <= before || at >= rows * cols) return -1;
        before = at;
        if (at - start >= cols) {
            int64_t next = at / cols;
            while (r < next) rowptr[++r] = j;
            start = r * cols;
        }
        col[j] = (int32_t)(at - start);
    }
    while (r < rows) rowptr[++r] = nnz;
    colptr[0] = 0;
    for (int64_t p = 0; p < panels; p++)
        by_column(rowptr, col, cols, part(rows, p, panels), part(rows, p + 1, panels), colptr + p * cols, row,
                  perm);
    return 0;
}
