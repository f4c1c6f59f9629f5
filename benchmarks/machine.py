"""What this machine can do on one thread: `python benchmarks/machine.py`.

The rate of a dense product in Gflop/s, and the rate in GB/s at which rows of activations can be read, one
after the other and in random order, out of working sets that lie in one cache or another. A sparse product
must read one row, 4 bytes for each sample of the batch, for each connection; so these rates are its limit,
whatever its code. The reading loop is C, compiled for this machine when it is asked for: it only adds rows up
in registers.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from _common import options, set_threads, write_figures

COMPILER = shutil.which("gcc") or shutil.which("cc")
SOURCE = """
#include <stddef.h>
#include <string.h>
typedef float vec __attribute__((vector_size(64)));
static vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
/* the sum of n rows, the last vector of a row overlapping the one before it */
float read_rows(const float *rows, const int *order, size_t n) {
  enum { FULL = WIDTH / 16, REST = WIDTH % 16 != 0 };
  vec sum[FULL + 1];
  memset(sum, 0, sizeof sum);
  for (size_t i = 0; i < n; i++) {
    const float *row = rows + (size_t)order[i] * WIDTH;
#pragma GCC unroll 16
    for (int j = 0; j < FULL; j++) sum[j] += load(row + 16 * j);
    if (REST) sum[FULL] += load(row + WIDTH - 16);
  }
  float total = 0;
  for (int j = 0; j <= FULL; j++) for (int k = 0; k < 16; k++) total += sum[j][k];
  return total;
}
"""
ROWS = (10, 100, 784, 1000, 1400, 4000, 16_000, 500_000)


def best(job: Callable[[], object], repeats: int = 30) -> float:
    """Seconds of the quickest of ``repeats`` calls: what the machine can do."""
    job()
    quickest = float("inf")
    for _ in range(repeats):
        start = time.process_time()  # one thread: what others take is left out
        job()
        quickest = min(quickest, time.process_time() - start)
    return quickest


def sgemm() -> float:
    """Gflop/s of a dense product of 1024x1024 matrices in float32."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / best(lambda: a @ a) / 1e9


@cache
def _library(width: int) -> ctypes.CDLL | None:
    if COMPILER is None or width < 16:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "rows.c"), Path(folder, "rows.so")
        source.write_text(SOURCE)
        # a compiler older than the processor may take it for one with narrower vectors
        capable = torch.backends.cpu.get_cpu_capability() == "AVX512"
        wide = ["-mavx512f", "-mprefer-vector-width=512"] if capable else []
        flags = ["-O3", "-march=native", *wide, "-ffp-contract=fast", f"-DWIDTH={width}", "-shared", "-fPIC"]
        done = subprocess.run([COMPILER, *flags, str(source), "-o", str(library)], check=False)
        if done.returncode:
            return None
        found = ctypes.CDLL(str(library))
    found.read_rows.restype = ctypes.c_float
    found.read_rows.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return found


@cache
def reading(rows: int, batch: int, shuffled: bool = True) -> float | None:
    """GB/s at which rows of ``batch`` floats are read out of ``rows`` of them; None without a compiler or
    for a batch below 16."""
    library = _library(batch)
    if library is None:
        return None
    data = np.ones((rows, batch), np.float32)
    n = max(20_000, rows)
    order = np.arange(n, dtype=np.int32) % rows
    if shuffled:
        np.random.default_rng(0).shuffle(order)
    seconds = best(lambda: library.read_rows(data.ctypes.data, order.ctypes.data, n))
    return n * batch * 4 / seconds / 1e9


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, default=100, help="samples: a row has 4 bytes for each")
    arguments = parser.parse_args()
    set_threads(1)
    figures: dict[str, object] = {"sgemm": sgemm(), "batch": arguments.batch, "rows": {}}
    print(f"dense product: {figures['sgemm']:.0f} Gflop/s")
    print(f"{'rows':>9}{'working set':>14}{'in order, GB/s':>16}{'random, GB/s':>14}")
    for rows in ROWS:
        rates = [reading(rows, arguments.batch, shuffled) for shuffled in (False, True)]
        if rates[0] is None or rates[1] is None:
            raise SystemExit("reading needs a C compiler and a batch of 16 or more")
        print(f"{rows:>9,}{rows * arguments.batch * 4 / 1024:>11,.0f} KB{rates[0]:>16.0f}{rates[1]:>14.0f}")
        figures["rows"][rows] = rates  # type: ignore[index]
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
