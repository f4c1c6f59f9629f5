"""Pruning LeNet-300-100 on MNIST: thesis 5's comparison, its controls, and what goes beyond it.

    python benchmarks/pruning_lenet.py --data-dir DIR [--methods snip-100 fields ...]
        [--densities 0.005 0.01 0.1] [--seeds 5] [--out runs/pruning-lenet.jsonl]

266,200 weights, He-normal initial values, SGD 0.1 without momentum, batches of 64, 20 epochs (`-long`: 100),
global scope, biases kept, test accuracy after the last epoch. Cells that are in the file already are not run
again; `--table` prints what is there and runs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_ind
from torch import nn

from _common import add_cell, read_cells
from regraft import Topology, data, models, prune, scores
from regraft.data import Data, balanced_batch
from regraft.diagnose import connectivity
from regraft.probe import Probe
from regraft.train import fit

EPOCHS, LONG, RATE, BATCH = 20, 100, 0.1, 64


@dataclass(frozen=True)
class Cell:
    """One network to prune: what a method may look at."""

    seed: int
    density: float
    data: Data

    def model(self) -> nn.Module:
        g = torch.Generator().manual_seed(self.seed)
        built = models.build("lenet-300-100", input_shape=self.data.input_shape, classes=10, generator=g)
        return prune.initialise(built, "he-normal", generator=g)

    def probe(self, samples: int = 100, balanced: bool = True) -> Probe:
        g = torch.Generator().manual_seed(self.seed)
        if balanced:
            batch = balanced_batch(self.data.train, samples // 10, g)
        else:
            batch = self.data.train[torch.randperm(len(self.data.train), generator=g)[:samples]]
        return Probe(nn.functional.cross_entropy, [batch], torch.Generator().manual_seed(self.seed))

    def train(self, model: nn.Module, epochs: int, seed: int | None = None) -> float:
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        seed = self.seed if seed is None else seed
        history = fit(model, self.data, epochs=epochs, optimizer=optimizer, batch_size=BATCH, seed=seed)
        return 100 * history.final["test_accuracy"]


Method = Callable[[Cell], nn.Module]
"""Gives a sparse network that is trained for the last time."""


def upfront(
    score: str | scores.Score, shots: int = 1, init: str | None = None, balanced: bool = True, **options: Any
) -> Method:
    def method(cell: Cell) -> nn.Module:
        model = cell.model()
        if init is not None:
            prune.initialise(model, init, cell.probe())
        samples = 1000 if score == "variance-flow" else 100
        topology = prune.upfront(
            model, cell.probe(samples, balanced), score=score, density=cell.density, shots=shots,
            generator=torch.Generator().manual_seed(cell.seed), **options,
        )  # fmt: skip
        return prune.apply(model, topology)

    return method


def fields(cell: Cell) -> nn.Module:
    model = cell.model()
    return prune.apply(model, prune.receptive_fields(model, cell.probe(1000), density=cell.density))


def control(name: str, method: Method) -> Method:
    """The ticket's topology or values replaced as a control says."""

    def controlled(cell: Cell) -> nn.Module:
        topology = Topology.of(method(cell))
        g = torch.Generator().manual_seed(cell.seed + 1000)
        return prune.control_by_name(name)(cell.model(), topology, g)

    return controlled


def imp(rounds: int, rewind_to: int | None = 0) -> Method:
    def method(cell: Cell) -> nn.Module:
        def train(model: nn.Module, start: int, stop: int | None) -> float:
            return cell.train(model, EPOCHS if stop is None else stop - start)

        ticket = prune.iterative(
            cell.model, train, score="magnitude", density=cell.density, rounds=rounds, rewind_to=rewind_to
        )
        return ticket.model

    return method


def gradual(first: float, rounds: int = EPOCHS) -> Method:
    """Variance flow to ``first``, then an epoch and a magnitude pruning in turn, the weights kept."""

    def method(cell: Cell) -> nn.Module:
        def make() -> nn.Module:
            if cell.density >= first:
                return cell.model()
            return upfront("variance-flow", 100)(replace(cell, density=first))

        def train(model: nn.Module, start: int, stop: int | None) -> float:
            return cell.train(model, (stop or EPOCHS) - start, seed=1000 * (cell.seed + 1) + start)

        ticket = prune.iterative(
            make, train, score="magnitude", density=cell.density, rounds=rounds, rewind_to=None, epochs=1
        )
        return ticket.model

    return method


@cache
def example(seed: int, density: float, loaded: Data) -> scores.Example:
    """What thesis 5 learns from: a network's scores, and its ticket of SynFlow in 5 rounds of 10 shots."""
    cell = Cell(seed, density, loaded)

    def train(model: nn.Module, start: int, stop: int | None) -> float:
        return cell.train(model, EPOCHS if stop is None else stop - start)

    probe = cell.probe()
    found = prune.iterative(
        cell.model, train, probe, score="synflow", density=density, rounds=5, shots=10, rewind_to=0
    )
    cell.train(found.model, EPOCHS)
    candidates, _ = prune.candidates(cell.model())
    rows = scores.features(candidates, probe)
    return scores.Example(rows, scores.targets(candidates, found.model, probe))


def learned(regressor: str) -> Method:
    def method(cell: Cell) -> nn.Module:
        seen = example(cell.seed + 100, cell.density, cell.data)
        score = scores.fit([seen], regressor, generator=torch.Generator().manual_seed(cell.seed))
        return upfront(score)(cell)

    return method


VARIANCE_FLOW = upfront("variance-flow", 100)
SYNFLOW = upfront("synflow", 100)
SNIP_REVIVED = upfront("snip", 100, revive=True)

METHODS: dict[str, Method] = {
    "random": upfront("random"),
    "magnitude": upfront("magnitude"),
    "snip-1": upfront("snip"),
    "snip-100": upfront("snip", 100),
    "snip-100-revived": SNIP_REVIVED,
    "grasp-1": upfront("grasp"),
    "grasp-1-drawn": upfront("grasp", balanced=False),
    "grasp-1-t1": upfront("grasp:temperature=1"),
    "grasp-100-t1": upfront("grasp:temperature=1", 100),
    "grasp-magnitude-100-t1": upfront("grasp:temperature=1:magnitude=yes", 100),
    "grasp-magnitude-100-t1-drawn": upfront("grasp:temperature=1:magnitude=yes", 100, balanced=False),
    "synflow-1": upfront("synflow"),
    "synflow-100": SYNFLOW,
    "synflow-100-long": SYNFLOW,
    "snip-on-snip": upfront("stacked(snip, snip)", 100),
    "snip-on-snip-revived": upfront("stacked(snip, snip)", 100, revive=True),
    "grasp-then-magnitude": upfront("stacked(grasp:temperature=1, magnitude)", 100),
    "synflow-from-snip": upfront("synflow", 100, "scores:snip"),
    "magnitude-synflow-from-snip": upfront("stacked(magnitude, synflow)", 100, "scores:snip"),
    "synflow-magnitude-from-snip": upfront("stacked(synflow, magnitude)", 100, "scores:snip"),
    "synflow-from-bimodal": upfront("synflow", 100, "bimodal"),
    "variance-flow": VARIANCE_FLOW,
    "variance-flow-long": VARIANCE_FLOW,
    **{f"learned-{name}": learned(name) for name in ("linear", "sgd", "tree", "mlp")},
    "fields": fields,
    "fields-long": fields,
    "fields-shuffled": control("shuffled", fields),
    "fields-reinitialised": control("reinitialised", fields),
    "snip-revived-shuffled": control("shuffled", SNIP_REVIVED),
    "snip-revived-reinitialised": control("reinitialised", SNIP_REVIVED),
    "snip-inverted": upfront("inverted(snip)"),
    "gradual": gradual(0.1),
    "imp-1": imp(1),
    "imp-2": imp(2),
    "imp-3": imp(3),
    "imp-10": imp(10),
}

# accuracy in % at 0.5, 1 and 10 % (thesis 5, figures 5.11, 5.13 and 5.14)
PUBLISHED = {
    "magnitude": (64.17, 90.9, 97.3),
    "snip-100-revived": (89.83, 93.84, 97.56),
    "synflow-100": (88.89, 93.99, 97.33),
    "grasp-1-drawn": (76.07, 77.3, 88.9),
    "grasp-magnitude-100-t1-drawn": (90.51, 93.7, None),
    "snip-on-snip-revived": (90.2, 94.0, 96.0),
    "synflow-from-snip": (90.8, None, None),
    "magnitude-synflow-from-snip": (91.86, 94.02, 96.86),
    "synflow-magnitude-from-snip": (91.2, None, None),
    "imp-10": (90.91, 95.79, 97.99),
}
DENSITIES = (0.005, 0.01, 0.1)


def run(method: str, cell: Cell) -> dict[str, Any]:
    """One line of the file."""
    started = time.perf_counter()
    model = METHODS[method](cell)
    found = time.perf_counter() - started
    topology = Topology.of(model)
    paths = connectivity(model, cell.data.input_shape)
    accuracy = cell.train(model, LONG if method.endswith("-long") else EPOCHS)
    return {
        "method": method, "density": cell.density, "seed": cell.seed, "accuracy": accuracy,
        "kept": {n: c.nnz for n, c in topology.items()},
        "effective": paths.topology.nnz, "unreachable": len(paths.unreachable),
        "seconds_to_prune": found, "seconds": time.perf_counter() - started,
    }  # fmt: skip


def table(cells: list[dict[str, Any]]) -> None:
    """Mean, spread and number of seeds beside the published figure, and Welch's tests."""
    groups: dict[tuple[str, float], list[float]] = {}
    for method, density, _, accuracy in sorted(
        {(c["method"], c["density"], c["seed"], c["accuracy"]) for c in cells}
    ):
        groups.setdefault((method, density), []).append(accuracy)
    print("| method |" + "".join(f" {100 * d:g} % | thesis |" for d in DENSITIES))
    print("|---|" + "---|" * 2 * len(DENSITIES))
    for method in METHODS:
        row = f"| {method} |"
        for at, density in enumerate(DENSITIES):
            found = groups.get((method, density), [])
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            published = PUBLISHED.get(method, (None,) * 3)[at]
            row += f" {statistics.mean(found):.1f}{spread} [{len(found)}] |" if found else " |"
            row += f" {published} |" if published is not None else " |"
        if any((method, d) in groups for d in DENSITIES):
            print(row)
    print()
    for mine in ("fields", "variance-flow", "gradual"):
        for other in METHODS:
            a, b = groups.get((mine, 0.005), []), groups.get((other, 0.005), [])
            if other != mine and len(a) > 1 and len(b) > 1:
                p = ttest_ind(a, b, equal_var=False).pvalue
                print(
                    f"{mine} - {other} at 0.5 %: {statistics.mean(a) - statistics.mean(b):+.2f}, p = {p:.2g}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="mnist", help="data set")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="NAME")
    parser.add_argument("--densities", nargs="+", type=float, default=DENSITIES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/pruning-lenet.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is there, run nothing")
    args = parser.parse_args()
    cells = read_cells(args.out)
    if not args.table:
        torch.set_num_threads(1)
        loaded = data.load(args.data, data_dir=args.data_dir)
        done = {(c["method"], c["density"], c["seed"]) for c in cells}
        for seed in range(args.seeds):
            for density in args.densities:
                for method in args.methods:
                    if (method, density, seed) in done:
                        continue
                    line = run(method, Cell(seed, density, loaded))
                    add_cell(args.out, line)
                    print(f"{method} {density:g} seed {seed}: {line['accuracy']:.2f}", flush=True)
                    cells.append(line)
    table(cells)


if __name__ == "__main__":
    main()
