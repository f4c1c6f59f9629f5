"""The loops of :mod:`regraft.kernels.numba_linear`; importing them imports numba.

Activations are feature-major [features, batch] and contiguous, so that the inner loop runs over the batch and
becomes vector instructions. Several nonzeros are taken at a time, so that a row of the result is loaded and
stored once for all of them. One thread; the interpreter's lock is released.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

TILE = 512  # samples that one pass goes over: the rows in use stay in the first-level cache

# sums may be reordered; NaN and infinity stay what they are
FAST = {"contract", "reassoc", "nsz", "arcp"}

Array = NDArray[Any]


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` in machine code, kept on disk where a folder can be written to."""
    options: dict[str, Any] = {"nogil": True, "fastmath": FAST, "boundscheck": False, "error_model": "numpy"}
    try:
        made: Callable[..., None] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        made = numba.njit(**options)(function)
    return made


@_compiled
def forward(rowptr: Array, col: Array, values: Array, x: Array, bias: Array, y: Array) -> None:
    """y [out, batch] = W x + b of a matrix given by rows."""
    batch = x.shape[1]
    for start in range(0, batch, TILE):
        stop = min(start + TILE, batch)
        for r in range(rowptr.shape[0] - 1):
            out = y[r, start:stop]
            out[:] = bias[r]
            j, end = rowptr[r], rowptr[r + 1]
            while j + 8 <= end:
                v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
                v4, v5, v6, v7 = values[j + 4], values[j + 5], values[j + 6], values[j + 7]
                x0, x1 = x[col[j], start:stop], x[col[j + 1], start:stop]
                x2, x3 = x[col[j + 2], start:stop], x[col[j + 3], start:stop]
                x4, x5 = x[col[j + 4], start:stop], x[col[j + 5], start:stop]
                x6, x7 = x[col[j + 6], start:stop], x[col[j + 7], start:stop]
                for b in range(stop - start):
                    out[b] += ((v0 * x0[b] + v1 * x1[b]) + (v2 * x2[b] + v3 * x3[b])) + (
                        (v4 * x4[b] + v5 * x5[b]) + (v6 * x6[b] + v7 * x7[b])
                    )
                j += 8
            while j < end:
                v, one = values[j], x[col[j], start:stop]
                for b in range(stop - start):
                    out[b] += v * one[b]
                j += 1


@_compiled
def backward(
    panels: int, cols: int, want_x: bool, want_values: bool,
    colptr: Array, row: Array, perm: Array, values: Array, x: Array, dy: Array, dx: Array, dvalues: Array,
) -> None:  # fmt: skip
    """Add to dx [in, batch] and dvalues [nnz], where wanted, in one pass over the columns of each panel."""
    batch = x.shape[1]
    # flat arrays and unsigned places: no slice to count references of, no negative place to look for
    seen, grown, back, wide = x.ravel(), dx.ravel(), dy.ravel(), np.uint64(batch)
    for start in range(0, batch, TILE):
        first, count = np.uint64(start), np.uint64(min(TILE, batch - start))
        for place in range(panels * cols):
            at = np.uint64(place % cols) * wide + first
            to = at if want_x else np.uint64(0)
            j, end = colptr[place], colptr[place + 1]
            while j + 4 <= end:
                p0, p1, p2, p3 = perm[j], perm[j + 1], perm[j + 2], perm[j + 3]
                r0, r1 = np.uint64(row[j]) * wide + first, np.uint64(row[j + 1]) * wide + first
                r2, r3 = np.uint64(row[j + 2]) * wide + first, np.uint64(row[j + 3]) * wide + first
                v0, v1, v2, v3 = values[p0], values[p1], values[p2], values[p3]
                g0 = g1 = g2 = g3 = values.dtype.type(0)
                if want_x and want_values:
                    for b in range(count):
                        d0, d1, d2, d3 = back[r0 + b], back[r1 + b], back[r2 + b], back[r3 + b]
                        s = seen[at + b]
                        g0 += s * d0
                        g1 += s * d1
                        g2 += s * d2
                        g3 += s * d3
                        grown[to + b] += (v0 * d0 + v1 * d1) + (v2 * d2 + v3 * d3)
                elif want_values:
                    for b in range(count):
                        s = seen[at + b]
                        g0 += s * back[r0 + b]
                        g1 += s * back[r1 + b]
                        g2 += s * back[r2 + b]
                        g3 += s * back[r3 + b]
                else:
                    for b in range(count):
                        d0, d1, d2, d3 = back[r0 + b], back[r1 + b], back[r2 + b], back[r3 + b]
                        grown[to + b] += (v0 * d0 + v1 * d1) + (v2 * d2 + v3 * d3)
                if want_values:
                    dvalues[p0] += g0
                    dvalues[p1] += g1
                    dvalues[p2] += g2
                    dvalues[p3] += g3
                j += 4
            while j < end:
                p, r = perm[j], np.uint64(row[j]) * wide + first
                if want_values:
                    g = values.dtype.type(0)
                    for b in range(count):
                        g += seen[at + b] * back[r + b]
                    dvalues[p] += g
                if want_x:
                    v = values[p]
                    for b in range(count):
                        grown[to + b] += v * back[r + b]
                j += 1
