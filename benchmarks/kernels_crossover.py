"""Where the compressed computation stops paying.

    python benchmarks/kernels_crossover.py                                         # the whole table, minutes
    python benchmarks/kernels_crossover.py --shapes 1000x1000 --batches 100 --densities 0.4,0.6,0.8
    python benchmarks/kernels_crossover.py --shapes 1000x1000 --batches 1,2,8,100,512 --update

Forward and backward of one linear layer on one thread (--threads), with SGD's update where asked for
(--update); each cell says how many times faster the compressed way is than the dense layer, and in brackets
than the materialised way. `regraft.kernels.dispatch` holds the rule that was read off this table. Inputs lie
batch-major, as data does; between sparse layers of a model they lie feature-major (--layout), which needs no
copy.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from _common import numbers, options, set_threads, write_figures
from interleaved import timings
from regraft import kernels, positions
from regraft.weight import SparseWeight

SHAPES = ((100, 100), (300, 784), (1000, 1000), (4000, 4000))
BATCHES = (1, 4, 16, 100, 512)
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
WAYS = ("dense", "compressed", "materialised")


def shape_of(word: str) -> tuple[int, int]:
    """``1000x784``: outputs and inputs."""
    rows, cols = word.split("x")
    return int(rows), int(cols)


def trained(
    parameters: list[Tensor], x: Tensor, forward: Callable[[], Tensor], dy: Tensor, update: bool
) -> Callable[[], None]:
    """A call that computes the layer and the gradients of input and parameters, and may update these."""
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9)

    def job() -> None:
        optimizer.zero_grad()
        x.grad = None
        forward().backward(dy)  # type: ignore[no-untyped-call]
        if update:
            optimizer.step()

    return job


def jobs(
    shape: tuple[int, int], batch: int, density: float, *, layout: str = "batch", update: bool = False
) -> dict[str, Callable[[], None]]:
    """The three ways to compute one layer."""
    rows, cols = shape
    g = torch.Generator().manual_seed(0)
    index = positions.sample(rows * cols, max(1, round(density * rows * cols)), g)
    x, dy = torch.randn(batch, cols, generator=g), torch.randn(batch, rows, generator=g)
    if layout == "features":
        x, dy = x.t().contiguous().t(), dy.t().contiguous().t()
    inputs = {way: x.clone().requires_grad_() for way in WAYS}
    dense = nn.Linear(cols, rows)
    made: dict[str, Callable[[], None]] = {
        "dense": trained(
            list(dense.parameters()), inputs["dense"], lambda: dense(inputs["dense"]), dy, update
        )
    }
    for way in WAYS[1:]:
        weight = SparseWeight(shape, index, torch.randn(index.numel(), generator=g))
        bias = nn.Parameter(torch.zeros(rows))

        def forward(way: str = way, weight: SparseWeight = weight, bias: Tensor = bias) -> Tensor:
            with kernels.use(way):
                return kernels.linear(inputs[way], weight, bias)

        made[way] = trained([weight.values, bias], inputs[way], forward, dy, update)
    return made


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--shapes", default=None, help="outputs x inputs, joined by ',': 1000x784,100x100")
    parser.add_argument("--batches", default=None, help="joined by ','")
    parser.add_argument("--densities", default=None, help="joined by ','")
    parser.add_argument("--layout", choices=("batch", "features"), default="batch", help="of the inputs")
    parser.add_argument("--update", action="store_true", help="with SGD's update of the parameters")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    shapes = SHAPES if arguments.shapes is None else numbers(arguments.shapes, shape_of)
    batches = BATCHES if arguments.batches is None else numbers(arguments.batches, int)
    densities = DENSITIES if arguments.densities is None else numbers(arguments.densities, float)
    if arguments.json != "-":
        print(f"{'layer':>12}{'batch':>6}" + "".join(f"{d:>16}" for d in densities))
    figures = []
    for shape in shapes:
        for batch in batches:
            cells = []
            for density in densities:
                made = jobs(shape, batch, density, layout=arguments.layout, update=arguments.update)
                t = timings(made, "compressed", rounds=arguments.rounds)
                cells.append(f"{1 / t['dense'].speedup:.2f} ({1 / t['materialised'].speedup:.2f})")
                figures.append(
                    {"shape": shape, "batch": batch, "density": density}
                    | {way: timing._asdict() for way, timing in t.items()}
                )
            if arguments.json != "-":
                name = f"{shape[0]}x{shape[1]}".rjust(12)
                print(f"{name}{batch:>6}" + "".join(f"{c:>16}" for c in cells), flush=True)
    write_figures(arguments.json, figures)


if __name__ == "__main__":
    main()
