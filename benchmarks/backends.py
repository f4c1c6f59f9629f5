"""What a missing compiler costs: `python benchmarks/backends.py`.

First one training step (ordinary modules, torch.optim.SGD with momentum, batch 100, epsilon 20, float32, one
thread) with each backend of the sparse linear layers, as times slower than compiled C. Then forward and
backward of one 1000x1000 layer by density: how many times faster each backend is than materialising.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import nn

from interleaved import timings
from regraft import kernels, models, sparsify
from regraft.kernels import backends
from regraft.weight import SparseWeight

NETWORKS = {"A": "mlp:784-1000-1000-1000-10", "C": "mlp:784-4000-4000-4000-4000-10"}
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


def step(network: str, backend: str) -> Callable[[], None]:
    g = torch.Generator().manual_seed(0)
    model = sparsify(models.build(NETWORKS[network], generator=g), epsilon=20, generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.rand(100, 784, generator=g), torch.randint(10, (100,), generator=g)

    def once() -> None:
        with kernels.use("compressed", backend=backend):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return once


def layer(density: float, backend: str | None) -> Callable[[], None]:
    index = torch.randperm(10**6)[: round(density * 10**6)].sort().values
    weight = SparseWeight((1000, 1000), index, torch.randn(index.numel()))
    x, dy = torch.randn(100, 1000, requires_grad=True), torch.randn(100, 1000)

    def once() -> None:
        with kernels.use("materialised" if backend is None else "compressed", backend=backend):
            torch.autograd.grad(kernels.linear(x, weight, None), [x, weight.values], dy)

    return once


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    kernels.set_threads(1)
    names = backends.installed()
    for network in NETWORKS:
        t = timings({name: step(network, name) for name in names}, names[0], rounds=rounds)
        cells = (f"{name} {1 / t[name].speedup:.2f} ({t[name].median * 1e3:.2f} ms)" for name in names)
        print(f"{network}: " + ", ".join(cells), flush=True)
    for density in DENSITIES:
        jobs = {"materialised": layer(density, None)} | {name: layer(density, name) for name in names}
        t = timings(jobs, "materialised", rounds=rounds)
        print(f"{density:5.2f}  " + ", ".join(f"{name} {t[name].speedup:.2f}" for name in names), flush=True)


if __name__ == "__main__":
    main()
