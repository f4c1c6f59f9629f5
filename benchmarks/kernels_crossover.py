"""Where the compressed computation stops paying: `python benchmarks/kernels_crossover.py`.

Forward and backward of one linear layer on one thread; each cell says how many times faster the compressed
way is than the dense layer, and in brackets than the materialised way. `regraft.kernels.dispatch` holds the
rule that was read off this table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from interleaved import timings
from regraft import kernels
from regraft.weight import SparseWeight

SHAPES = ((100, 100), (300, 784), (1000, 1000), (4000, 4000))
BATCHES = (1, 4, 16, 100, 512)
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


def run(parameters: list[Tensor], forward: Callable[[], Tensor], dy: Tensor) -> None:
    for p in parameters:
        p.grad = None
    forward().backward(dy)  # type: ignore[no-untyped-call]


def jobs(shape: tuple[int, int], batch: int, density: float) -> dict[str, Callable[[], None]]:
    rows, cols = shape
    index = torch.randperm(rows * cols)[: round(density * rows * cols)].sort().values
    weight, bias = SparseWeight(shape, index, torch.randn(index.numel())), nn.Parameter(torch.randn(rows))
    dense = nn.Linear(cols, rows)
    x, dy = torch.randn(batch, cols, requires_grad=True), torch.randn(batch, rows)

    def way(mode: str) -> None:
        with kernels.use(mode):
            run([x, weight.values, bias], lambda: kernels.linear(x, weight, bias), dy)

    return {
        "dense": lambda: run([x, *dense.parameters()], lambda: dense(x), dy),
        "compressed": lambda: way("compressed"),
        "materialised": lambda: way("materialised"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    kernels.set_threads(1)
    print(f"{'layer':>12}{'batch':>6}" + "".join(f"{d:>16}" for d in DENSITIES))
    for shape in SHAPES:
        for batch in BATCHES:
            cells = []
            for density in DENSITIES:
                t = timings(jobs(shape, batch, density), "compressed", rounds=rounds)
                cells.append(f"{1 / t['dense'].speedup:.2f} ({1 / t['materialised'].speedup:.2f})")
            print(
                f"{shape[0]}x{shape[1]}".rjust(12) + f"{batch:>6}" + "".join(f"{c:>16}" for c in cells),
                flush=True,
            )


if __name__ == "__main__":
    main()
