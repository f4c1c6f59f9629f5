#include "common.h"

/* Both traversals from sorted flat positions, in O(nnz + rows + cols). Returns 0, or -1 when the positions
 * are not strictly increasing within [0, rows * cols): nothing else may reach a kernel. */
int plan_build(const int64_t *index, int64_t nnz, int64_t rows, int64_t cols, int64_t *rowptr, int32_t *col,
               int64_t *colptr, int32_t *row, int32_t *perm) {
    for (int64_t c = 0; c <= cols; c++) colptr[c] = 0;
    int64_t r = 0, start = 0, before = -1;
    rowptr[0] = 0;
    for (int64_t j = 0; j < nnz; j++) {
        int64_t at = index[j];
        if (at <= before) return -1;
        before = at;
        if (at >= rows * cols) return -1;
        if (at - start >= cols) {
            int64_t next = at / cols;
            while (r < next) rowptr[++r] = j;
            start = r * cols;
        }
        col[j] = (int32_t)(at - start);
        colptr[at - start + 1]++;
    }
    while (r < rows) rowptr[++r] = nnz;
    for (int64_t c = 0; c < cols; c++) colptr[c + 1] += colptr[c];
    for (r = 0; r < rows; r++) {
        for (int64_t j = rowptr[r]; j < rowptr[r + 1]; j++) {
            int64_t k = colptr[col[j]]++;
            row[k] = (int32_t)r;
            perm[k] = (int32_t)j;
        }
    }
    /* colptr was used as the cursor: it now holds each column's end */
    for (int64_t c = cols; c > 0; c--) colptr[c] = colptr[c - 1];
    if (cols >= 0) colptr[0] = 0;
    return 0;
}
