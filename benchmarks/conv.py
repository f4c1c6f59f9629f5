"""Sparse convolution on a CPU: the direct kernels against dense torch and unfold + sparse product.

    python benchmarks/conv.py                                  # all shapes, batches and densities
    python benchmarks/conv.py --shapes 64,64,3,8 --batches 32 --densities 0.05 --json -

A shape is channels in, channels out, kernel, height and width; the padding keeps the size. "dense" is the
materialising computation: scatter the values into the dense weight, then torch's convolution. "unfold"
gathers windows into columns (torch's unfold) and multiplies by the compiled sparse linear kernel. "direct" is
the kernel of this package. Figures are ratios to dense, above 1 faster: medians of interleaved rounds of
processor time, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interleaved import timings
from regraft import kernels, positions
from regraft.kernels import convolution, dispatch, materialised
from regraft.weight import SparseWeight

SHAPES = [
    (1, 6, 5, 28), (6, 16, 5, 14), (16, 16, 3, 32), (32, 32, 3, 16), (64, 64, 3, 8), (128, 128, 3, 8),
    (512, 512, 3, 4), (64, 128, 1, 16),
]  # fmt: skip
BATCHES = [1, 32, 128]
DENSITIES = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01]


def by_unfold(x: Tensor, weight: SparseWeight, flat: SparseWeight, bias: Tensor, padding: int) -> Tensor:
    """Convolution as a sparse product with the unfolded input, through the compiled linear kernels."""
    n, _, height, width = x.shape
    columns = F.unfold(x, weight.shape[2:], padding=padding)  # [n, channels * kernel, places]
    y = kernels.linear(columns.transpose(1, 2).reshape(-1, columns.shape[1]), flat, bias)
    return y.view(n, height, width, -1).permute(0, 3, 1, 2)


def job(call: Callable[[], Tensor], train: bool) -> Callable[[], object]:
    if not train:

        def forward() -> object:
            with torch.no_grad():
                return call()

        return forward

    def step() -> object:
        y = call()
        y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]
        return y

    return step


def measure(
    shape: tuple[int, int, int, int], batch: int, density: float, train: bool, rounds: int
) -> dict[str, Any]:
    """Ratios to dense for one setting."""
    channels, out, kernel, size = shape
    generator = torch.Generator().manual_seed(0)
    full = (out, channels, kernel, kernel)
    nnz = max(1, round(density * positions.numel(full)))
    index = positions.sample(positions.numel(full), nnz, generator)
    weight = SparseWeight(full, index, torch.randn(nnz, generator=generator))
    flat = SparseWeight((out, channels * kernel * kernel), index, weight.values.detach())
    x = torch.randn((batch, channels, size, size), generator=generator, requires_grad=train)
    bias = torch.zeros(out, requires_grad=train)
    options: tuple[Any, ...] = ((1, 1), (kernel // 2, kernel // 2), (1, 1), 1)

    def direct() -> Tensor:
        with dispatch.use("compressed"):
            return convolution.conv(x, weight, bias, *options)

    jobs = {
        "dense": job(lambda: materialised.conv(x, weight, bias, *options), train),
        "unfold": job(lambda: by_unfold(x, weight, flat, bias, kernel // 2), train),
        "direct": job(direct, train),
    }
    times = timings(jobs, "dense", rounds=rounds, seconds=1e-3)
    return {
        "shape": shape, "batch": batch, "density": density, "train": train,
        **{name: timing._asdict() for name, timing in times.items()},
    }  # fmt: skip


def show(row: dict[str, Any]) -> None:
    channels, out, kernel, size = row["shape"]
    name = f"{channels}x{out}x{kernel}x{kernel} @{size}"
    what = "step" if row["train"] else "forward"
    ratios = [
        f"{row[way]['speedup']:6.2f} ({row[way]['speedup_low']:.2f}-{row[way]['speedup_high']:.2f})"
        for way in ("unfold", "direct")
    ]
    line = f"{name:<18}{row['batch']:>6}{row['density']:>8}{what:>9}{row['dense']['median'] * 1e3:>10.3f}"
    print(line + "".join(f"{ratio:>22}" for ratio in ratios), flush=True)


def numbers(text: str, kind: Callable[[str], Any]) -> list[Any]:
    return [kind(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", default=None, help="in,out,kernel,size; several joined by ':'")
    parser.add_argument("--batches", default=None, help="batch sizes joined by ','")
    parser.add_argument("--densities", default=None, help="densities joined by ','")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of the kernels (default 1)")
    parser.add_argument("--json", default=None, help="file for the figures; - for standard output")
    arguments = parser.parse_args()
    if not convolution.available():
        raise SystemExit("the compiled kernels are not installed: run `regraft doctor`")
    torch.set_num_threads(arguments.threads)
    kernels.set_threads(arguments.threads)
    shapes = SHAPES if arguments.shapes is None else [
        tuple(numbers(s, int)) for s in arguments.shapes.split(":")
    ]  # fmt: skip
    batches = BATCHES if arguments.batches is None else numbers(arguments.batches, int)
    densities = DENSITIES if arguments.densities is None else numbers(arguments.densities, float)
    if arguments.json != "-":
        print(f"{'layer':<18}{'batch':>6}{'density':>8}{'':>9}{'dense ms':>10}{'unfold':>22}{'direct':>22}")
    rows = []
    for train in (False, True):
        for shape in shapes:
            for batch in batches:
                for density in densities:
                    rows.append(measure(shape, batch, density, train, arguments.rounds))
                    if arguments.json != "-":
                        show(rows[-1])
    if arguments.json == "-":
        json.dump(rows, sys.stdout, indent=2)
    elif arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
