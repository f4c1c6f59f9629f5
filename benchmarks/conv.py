"""Sparse convolution on a CPU: the direct kernels against dense torch and unfold + sparse product.

    python benchmarks/conv.py                                  # all shapes, batches and densities
    python benchmarks/conv.py --shapes 64,64,3,8 --batches 32 --densities 0.05 --json -
    python benchmarks/conv.py --network                        # one training step of a whole ResNet-20

A shape is channels in, channels out, kernel, height and width; the padding keeps the size. "dense" is torch's
convolution with a dense weight. "materialised" scatters the values into a dense weight for each call, as
every layer can; "unfold" gathers windows into columns and multiplies by the compiled sparse linear kernel;
"direct" is the kernel of this package. Figures are ratios to dense, above 1 faster: medians of interleaved
rounds of processor time, with quartiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import regraft
from _common import numbers, options, ratio, set_threads, write_figures
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
    dense = weight.dense().detach().requires_grad_(train)
    x = torch.randn((batch, channels, size, size), generator=generator, requires_grad=train)
    bias = torch.zeros(out, requires_grad=train)
    options: tuple[Any, ...] = ((1, 1), (kernel // 2, kernel // 2), (1, 1), 1)

    def direct() -> Tensor:
        with dispatch.use("compressed"):
            return convolution.conv(x, weight, bias, *options)

    jobs = {
        "dense": job(lambda: F.conv2d(x, dense, bias, *options), train),
        "materialised": job(lambda: materialised.conv(x, weight, bias, *options), train),
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
    ratios = [ratio(row[way]) for way in ("materialised", "unfold", "direct")]
    line = f"{name:<18}{row['batch']:>6}{row['density']:>8}{what:>9}{row['dense']['median'] * 1e3:>10.3f}"
    print(line + "".join(f"{words:>22}" for words in ratios), flush=True)


class Block(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016, arXiv:1512.03385, figure 2; shortcut by 1x1)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet_20() -> nn.Module:
    """For images of 3x32x32: three stages of three blocks, 16, 32 and 64 channels."""
    blocks, channels = [], 16
    for stage, out in enumerate((16, 32, 64)):
        for i in range(3):
            blocks.append(Block(channels, out, 2 if stage and i == 0 else 1))
            channels = out
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def measure_network(batch: int, density: float, rounds: int) -> dict[str, Any]:
    """A training step (forward, backward, SGD with momentum): dense model, materialised, and automatic."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)

    def stepper(mode: str) -> Callable[[], object]:
        model = resnet_20()
        if mode != "dense":
            regraft.sparsify(model, density=density, allocate="erdos-renyi-kernel", generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def step() -> object:
            with dispatch.use("auto" if mode == "dense" else mode):
                loss = F.cross_entropy(model(x), labels)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return loss

        return step

    times = timings({m: stepper(m) for m in ("dense", "materialised", "auto")}, "dense", rounds=rounds)
    return {"batch": batch, "density": density, **{m: t._asdict() for m, t in times.items()}}


def show_network(row: dict[str, Any]) -> None:
    ratios = [ratio(row[m]) for m in ("materialised", "auto")]
    line = f"ResNet-20 {row['batch']:>6}{row['density']:>8}{row['dense']['median'] * 1e3:>10.1f} ms"
    print(line + "".join(f"{words:>22}" for words in ratios), flush=True)


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--shapes", default=None, help="in,out,kernel,size; several joined by ':'")
    parser.add_argument("--batches", default=None, help="batch sizes joined by ','")
    parser.add_argument("--densities", default=None, help="densities joined by ','")
    parser.add_argument("--network", action="store_true", help="a whole ResNet-20 instead of single layers")
    arguments = parser.parse_args()
    if not convolution.available():
        raise SystemExit("the compiled kernels are not installed: run `regraft doctor`")
    set_threads(arguments.threads)
    shapes = SHAPES if arguments.shapes is None else [
        tuple(numbers(s, int)) for s in arguments.shapes.split(":")
    ]  # fmt: skip
    batches = BATCHES if arguments.batches is None else numbers(arguments.batches, int)
    densities = DENSITIES if arguments.densities is None else numbers(arguments.densities, float)
    if arguments.json != "-" and arguments.network:
        print(f"{'network':<10}{'batch':>6}{'density':>8}{'dense':>13}{'materialised':>22}{'automatic':>22}")
    elif arguments.json != "-":
        ways = "".join(f"{way:>22}" for way in ("materialised", "unfold", "direct"))
        print(f"{'layer':<18}{'batch':>6}{'density':>8}{'':>9}{'dense ms':>10}{ways}")
    rows = []
    if arguments.network:
        shapes = []
        for batch in [32] if arguments.batches is None else batches:
            for density in densities[1:] if arguments.densities is None else densities:
                rows.append(measure_network(batch, density, arguments.rounds))
                if arguments.json != "-":
                    show_network(rows[-1])
    for train in (False, True):
        for shape in shapes:
            for batch in batches:
                for density in densities:
                    rows.append(measure(shape, batch, density, train, arguments.rounds))
                    if arguments.json != "-":
                        show(rows[-1])
    write_figures(arguments.json, rows)


if __name__ == "__main__":
    main()
