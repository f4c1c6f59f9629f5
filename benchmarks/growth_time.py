"""What growing at each minibatch costs: steps of training with and without it, fused and ordinary ones.

    python benchmarks/growth_time.py --data-dir DIR [--networks "1k at 1 %;4k"] [--rounds 15]

Sparse MLPs on Fashion-MNIST, batches of 100, SGD with momentum; each step drops the 1 % of the connections
with the smallest magnitude and grows as many where the exact search finds the largest inner products. Times
are of the processor, medians over interleaved rounds of --steps steps. "Growth" is the share of a step with
growth that one without it does not take, so what gradients cost to keep and new plans of the topology is in
it; "search" and "rewiring" are what ``Evolve`` measures itself, of the same time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from _common import options, set_threads, write_figures
from regraft import Evolve, data, models, sparsify
from regraft.data import Split
from regraft.evolve import InnerProduct
from regraft.losses import CrossEntropy
from regraft.train.step import make_step

NETWORKS = {
    "1k at 1 %": ("mlp:784-1000-1000-1000-10", 0.01),
    "1k at 4 %": ("mlp:784-1000-1000-1000-10", 0.04),
    "4k": ("mlp:784-4000-4000-10", 0.01),
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fused": CrossEntropy(),
    "ordinary": lambda logits, labels: F.cross_entropy(logits, labels),  # the fused step does not know it
}


@dataclass
class Training:
    """One network in training, with or without growth."""

    network: str
    loss: str
    grows: bool
    split: Split
    times: list[float] = field(default_factory=list)
    parts: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        name, density = NETWORKS[self.network]
        g = torch.Generator().manual_seed(0)
        model = sparsify(models.build(name, generator=g), density=density, generator=g)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.evolver = (
            Evolve("magnitude", InnerProduct(), 0.01, generator=g).attach(model, optimizer)
            if self.grows
            else None
        )
        self.step = make_step(model, LOSSES[self.loss], optimizer, self.evolver)
        assert (str(self.step) == "fused") == (self.loss == "fused"), self.step
        self.done = 0

    def run(self, steps: int) -> None:
        """Train ``steps`` steps, and note the time of one."""
        before = dict(self.evolver.seconds) if self.evolver else {}
        wall, started = time.perf_counter(), time.process_time()
        for _ in range(steps):
            at = self.done * 100 % len(self.split)
            self.step(self.split.x[at : at + 100], self.split.y[at : at + 100])
            if self.evolver is not None:
                self.evolver.step()
            self.done += 1
        self.times.append((time.process_time() - started) / steps)
        wall = time.perf_counter() - wall
        if self.evolver is not None:
            spent = [(self.evolver.seconds[part] - before[part]) / wall for part in ("search", "rewire")]
            self.parts.append((spent[0], spent[1]))


def measure(network: str, split: Split, rounds: int, steps: int) -> list[dict[str, Any]]:
    """Steps with growth against steps without, for both kinds."""
    kinds = [(loss, grows) for loss in LOSSES for grows in (False, True)]
    runs = {(loss, grows): Training(network, loss, grows, split) for loss, grows in kinds}
    for run in runs.values():
        run.run(100)  # the first steps have other gradients and build plans
        run.times.clear()
        run.parts.clear()
    for _ in range(rounds):
        for run in runs.values():
            run.run(steps)
    rows: list[dict[str, Any]] = []
    for loss in LOSSES:
        still, grown = runs[loss, False], runs[loss, True]
        shares = [1 - a / b for a, b in zip(still.times, grown.times, strict=True)]
        search, rewire = (statistics.median(part) for part in zip(*grown.parts, strict=True))
        rows.append(
            {
                "network": network, "step": loss, "without_ms": 1e3 * statistics.median(still.times),
                "with_ms": 1e3 * statistics.median(grown.times), "growth": statistics.median(shares),
                "search": search, "rewiring": rewire,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--networks", default=";".join(NETWORKS), help="joined by ';'")
    parser.add_argument("--steps", type=int, default=20, help="of a round (default 20)")
    args = parser.parse_args()
    set_threads(args.threads)
    split = data.load("fashion-mnist", data_dir=args.data_dir, per_class=1000, flatten=True).train
    rows = [row for name in args.networks.split(";") for row in measure(name, split, args.rounds, args.steps)]
    print(f"{'network':12} {'step':9}   without      with  times  growth  search rewiring")
    for row in rows:
        print(
            f"{row['network']:12} {row['step']:9} {row['without_ms']:6.2f} ms {row['with_ms']:6.2f} ms "
            f"{row['with_ms'] / row['without_ms']:6.1f} {row['growth']:7.0%} {row['search']:7.0%} "
            f"{row['rewiring']:8.0%}"
        )
    write_figures(args.json, rows)


if __name__ == "__main__":
    main()
