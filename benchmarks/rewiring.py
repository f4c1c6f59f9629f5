"""One whole change of topology beside the epoch that it ends: `python benchmarks/rewiring.py`.

A change is all that SET does between two steps: 30 % of each sparse weight's connections dropped by sign, as
many grown at random, values and momentum moved along, and both traversals that the kernels walk made anew. An
epoch is 600 steps on batches of 100, in the compiled step and in ordinary modules with torch.optim.SGD. The
same change in NumPy, without loops, stands beside it. All run in turn, on one thread; medians.
"""

from __future__ import annotations

import argparse
import itertools
import json
from typing import Any

import numpy as np
import torch
from torch import nn

import regraft
from interleaved import timings
from regraft.kernels import fused, plan

NETWORKS = {
    "A": (784, 1000, 1000, 1000, 10),
    "B": (784, 4000, 1000, 4000, 10),
    "C": (784, 4000, 4000, 4000, 4000, 10),
}
Array = np.ndarray[Any, Any]
EPSILON, BATCH, STEPS, RATE = 20, 100, 600, 0.3


def network(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """A sparse ReLU MLP; the last layer is as dense as Erdos-Renyi makes it."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return regraft.sparsify(nn.Sequential(*layers[:-1]), epsilon=EPSILON, generator=generator)


class InNumpy:
    """The same change of the same topology, with arrays."""

    def __init__(self, weights: list[regraft.SparseWeight]) -> None:
        self.rng = np.random.default_rng(0)
        self.layers: list[list[Any]] = [
            [w.shape, w.index.numpy().copy(), w.values.detach().numpy().copy(), np.zeros(w.nnz, np.float32)]
            for w in weights
        ]

    def change(self) -> None:
        """Drop, grow, merge, and sort for the walk by columns, in every layer."""
        for layer in self.layers:
            shape, index, values, momentum = layer
            if len(index) < shape[0] * shape[1]:
                layer[1:] = self.rewired(shape, index, values, momentum)
            rows, columns = np.divmod(layer[1], shape[1])
            order = np.argsort(columns, kind="stable")
            np.searchsorted(rows, np.arange(shape[0] + 1))
            np.searchsorted(columns[order], np.arange(shape[1] + 1))
            rows[order].astype(np.int32)

    def rewired(self, shape: tuple[int, int], index: Array, values: Array, momentum: Array) -> list[Array]:
        keep = np.ones(len(index), bool)
        for side in (np.flatnonzero(values < 0), np.flatnonzero(values >= 0)):
            k = round(RATE * len(side))
            keep[side[np.argpartition(np.abs(values[side]), k)[:k]]] = False
        index, values, momentum = index[keep], values[keep], momentum[keep]
        missing, grown = len(keep) - len(index), np.empty(0, np.int64)
        while len(grown) < missing:
            drawn = self.rng.integers(shape[0] * shape[1], size=2 * missing)
            grown = np.unique(np.concatenate([grown, drawn[~np.isin(drawn, index)]]))
        index = np.concatenate([index, self.rng.permutation(grown)[:missing]])
        order = np.argsort(index, kind="stable")
        zeros = np.zeros(missing, np.float32)
        # values that are not zero, as after an epoch of training
        fresh = self.rng.standard_normal(missing, np.float32) * np.float32(0.01)
        return [
            index[order], np.concatenate([values, fresh])[order], np.concatenate([momentum, zeros])[order]
        ]  # fmt: skip


def measure(name: str, rounds: int) -> dict[str, float]:
    """Seconds of a change, of a step in both ways, and what follows from them."""
    generator = torch.Generator().manual_seed(0)
    model, twin = network(NETWORKS[name], generator), network(NETWORKS[name], generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    evolver = regraft.Evolve(
        grow=regraft.RandomGrowth("fan_in"), rate=RATE, generator=generator
    ).attach(model, optimizer)  # fmt: skip
    loss = nn.CrossEntropyLoss()
    x = torch.randn(BATCH, NETWORKS[name][0], generator=generator)
    y = torch.randint(10, (BATCH,), generator=generator)
    compiled = fused.FusedMLP(model, loss, optimizer)
    compiled.step(x, y)
    weights = [m for m in model.modules() if isinstance(m, regraft.SparseWeight)]
    other = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)

    def change() -> None:
        evolver.evolve()
        for weight in weights:
            plan.of(weight)

    def ordinary() -> None:
        other.zero_grad()
        loss(twin(x), y).backward()
        other.step()

    arrays = InNumpy(weights)
    jobs = {"change": change, "numpy": arrays.change, "fused": lambda: compiled.step(x, y), "step": ordinary}
    found = timings(jobs, "change", rounds=rounds)
    change_s, fused_s, step_s = (found[k].median for k in ("change", "fused", "step"))
    return {
        "connections": sum(w.nnz for w in weights),
        "change_ms": 1e3 * change_s,
        "numpy": 1 / found["numpy"].speedup,
        "share_fused": 100 * change_s / (STEPS * fused_s + change_s),
        "share_ordinary": 100 * change_s / (STEPS * step_s + change_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="write the figures here, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = {name: measure(name, args.rounds) for name in args.networks}
    print("network  connections  a change, ms  NumPy / ours  share of an epoch: compiled step  ordinary step")
    for name, row in made.items():
        print(
            f"{name:7}  {row['connections']:11,}  {row['change_ms']:12.1f}  {row['numpy']:11.1f}x  "
            f"{row['share_fused']:31.2f} %  {row['share_ordinary']:11.2f} %"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(made, file, indent=2)


if __name__ == "__main__":
    main()
