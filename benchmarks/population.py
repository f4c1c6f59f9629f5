"""Many networks trained at once against one trained alone by the ordinary loop: how many times as long?

    python benchmarks/population.py [--rounds 7] [--sizes 1,10,50,200] [--batch-sizes 32,100,128]

Sine networks (1-100-1, thesis 2) on 10,000 points, one epoch with SGD and momentum; then 50 networks of other
kinds in batches of 50. The population's time has all of ``train.population.train`` in it, the
copies of the networks too.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from _common import numbers, options, set_threads, write_figures
from interleaved import Timing, timings
from regraft import losses, models, sparsify
from regraft.probe import Loss
from regraft.train import population, seeds

LR, MOMENTUM = 0.01, 0.9


def alone(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, batch_size: int) -> None:
    """One epoch as anyone would write it."""
    sgd = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    for index in torch.split(torch.randperm(len(x)), batch_size):
        sgd.zero_grad()
        loss(model(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
        sgd.step()


def compare(
    make: Callable[[int], nn.Module],
    x: Tensor,
    y: Tensor,
    loss: Loss,
    batch_size: int,
    sizes: list[int],
    rounds: int,
) -> dict[int, Timing]:
    """Timings of one epoch of populations of these sizes; ``speedup`` is one network's time over theirs."""
    members = [make(seed) for seed in range(max(sizes))]
    jobs: dict[str, Callable[[], object]] = {"alone": lambda: alone(members[0], x, y, loss, batch_size)}
    for size in sizes:
        jobs[str(size)] = (
            lambda size=size: population.train(  # type: ignore[misc]
                members[:size], x, y, epochs=1, lr=LR, momentum=MOMENTUM, batch_size=batch_size, loss=loss
            )
        )
    taken = timings(jobs, "alone", rounds=rounds, seconds=0.05)
    return {size: taken[str(size)] for size in sizes} | {0: taken["alone"]}


def sine(seed: int) -> nn.Module:
    return models.build("mlp:1-100-1", init="torch", generator=seeds.stream(seed, "init"))


def mlp(seed: int) -> nn.Module:
    return models.build("mlp:64-64-64-10", generator=seeds.stream(seed, "init"))


def sparse(seed: int) -> nn.Module:
    return sparsify(mlp(seed), density=0.1, allocate="uniform", generator=seeds.stream(seed, "topology"))


def normalised(seed: int) -> nn.Module:
    first, *rest = mlp(seed).children()
    return nn.Sequential(first, rest[0], nn.BatchNorm1d(64), *rest[1:])


def lenet(seed: int) -> nn.Module:
    return models.build("lenet-5", generator=seeds.stream(seed, "init"))


OTHERS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "MLP 64-64-64-10": (mlp, (1000, 64)),
    "the same with batch normalisation": (normalised, (1000, 64)),
    "the same, sparse, density .1": (sparse, (1000, 64)),
    "LeNet-5": (lenet, (100, 1, 28, 28)),
}
"""Networks, and the shape of the samples that they train on."""


def shown(name: str, found: dict[int, Timing]) -> list[dict[str, object]]:
    """Print a line per size, and give the figures."""
    rows: list[dict[str, object]] = []
    for size, timing in found.items():
        if size:
            times, low, high = (1 / v for v in (timing.speedup, timing.speedup_high, timing.speedup_low))
            print(
                f"{name:34} {size:4} networks: {1e3 * timing.median:8.1f} ms, {times:6.2f} ({low:.2f} to "
                f"{high:.2f}) times one alone ({1e3 * found[0].median:.1f} ms)",
                flush=True,
            )
            rows.append({"name": name, "networks": size, "times": times, "low": low, "high": high})
    return rows


def main() -> None:
    parser = options(__doc__, rounds=7)
    parser.add_argument("--sizes", default="1,10,50,200")
    parser.add_argument("--batch-sizes", default="32,100,128")
    parser.add_argument("--no-others", action="store_true", help="the sine networks alone")
    args = parser.parse_args()
    set_threads(args.threads)
    g = torch.Generator().manual_seed(0)
    x = torch.rand(10_000, 1, generator=g)
    y = torch.sin(10 * math.pi * x) + 0.2 * torch.randn(10_000, 1, generator=g)
    rows = []
    for size in numbers(args.batch_sizes, int):
        found = compare(sine, x, y, losses.mse, size, numbers(args.sizes, int), args.rounds)
        rows += shown(f"sine 1-100-1, batch {size}", found)
    for name, (make, shape) in () if args.no_others else OTHERS.items():
        x, y = torch.randn(shape, generator=g), torch.randint(10, shape[:1], generator=g)
        found = compare(make, x, y, losses.by_name("cross-entropy"), 50, [50], args.rounds)
        rows += shown(name, found)
    write_figures(args.json, rows)


if __name__ == "__main__":
    main()
