"""Gates on sparse parents: do they decide, and is the student better than what needs no gates?

    REGRAFT_DATA=... python benchmarks/gates_sparse.py --out runs/gates-sparse.jsonl [--seeds 0:5]

Thesis 1's five classes (Fashion-MNIST, 784-392-196-5), two parents of 30 epochs on the same data. The student
has 15 epochs with gates and 15 of fine-tuning. What it is compared with has as many: 30 epochs more of the
best parent, and of the network that neuron selection makes. The evolution rate falls from 0.3 to 0 by a
cosine in every training after the parents'. Finished cells are kept in the file, so that the study goes on.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import _sparse_networks as networks
from _common import add_cell, numbers, options, read_cells, set_threads
from regraft import Evolve, gates
from regraft.data import Data
from regraft.graph import concatenate, trace
from regraft.merging import select_neurons
from regraft.probe import Probe
from regraft.schedules import Cosine
from regraft.train import Recipe, train_recipe

EPOCHS = 15
PARENT_EPOCHS = 30
ZETA = 0.3


def evolution(every: int, epochs: int, generator: torch.Generator) -> Evolve:
    """SET as the recipe has it, for merging."""
    total = (epochs - 1) * every + 1
    return Evolve(rate=Cosine(ZETA), every=every, total=total, generator=generator)


def trained_on(model: nn.Module, data: Data, recipe: Recipe, epochs: int) -> float:
    """Accuracy after some epochs more, in percent."""
    more = replace(recipe, epochs=epochs, zeta=ZETA)
    return networks.percent(train_recipe(more, data, model=copy.deepcopy(model)).model, data)


def best(parents: list[nn.Module], data: Data) -> nn.Module:
    """The parent of the highest test accuracy."""
    return max(parents, key=lambda parent: networks.percent(parent, data))


def selected(parents: list[nn.Module], data: Data) -> nn.Module:
    """The merge by neuron selection, on 1000 samples."""
    return select_neurons(parents, Probe(batches=[(data.train.x[::5], data.train.y[::5])]))


def gated(parents: list[nn.Module], data: Data, recipe: Recipe, **options: Any) -> dict[str, Any]:
    """A merge by gates: accuracy on the way, and how far the gates of each group decided."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", gates.GatesWarning)
        student = gates.merge(
            parents, data, merge_epochs=EPOCHS, finetune_epochs=EPOCHS, lr=0.1, weight_decay=1e-3,
            finetune_schedule="cosine", evolve=evolution, seed=recipe.seed, **options,
        )  # fmt: skip
    return {
        "accuracy": 100 * student.evaluation["student"]["accuracy"],
        "stages": {stage: 100 * figures["accuracy"] for stage, figures in student.evaluation.items()},
        "open": {group.name: group.open for group in student.groups},
        "undecided": {group.name: group.undecided for group in student.groups},
        "warned": [str(w.message) for w in caught],
    }


def dead_share(parents: list[nn.Module]) -> dict[str, float]:
    """Share of units of the big student that have no connection that comes in or none that goes out."""
    big = gates.Gated(*concatenate(parents, trace(parents[0])))
    big.count_connections()
    counted = big.gates.split(big.gates.counted.double())
    return {name: 1.0 - alive.mean().item() for name, alive in counted.items()}


Strategy = Callable[[list[nn.Module], Data, Recipe], dict[str, Any]]

STRATEGIES: Mapping[str, Strategy] = {
    "parents": lambda parents, data, recipe: {
        "accuracy": networks.percent(best(parents, data), data), "dead": dead_share(parents),
    },
    "ensemble": lambda parents, data, recipe: {
        "accuracy": networks.percent(concatenate(parents, trace(parents[0]))[0], data)
    },
    "best parent + 30": lambda parents, data, recipe: {
        "accuracy": trained_on(best(parents, data), data, recipe, 2 * EPOCHS)
    },
    "neuron selection": lambda parents, data, recipe: {
        "accuracy": networks.percent(selected(parents, data), data)
    },
    "neuron selection + 30": lambda parents, data, recipe: {
        "accuracy": trained_on(selected(parents, data), data, recipe, 2 * EPOCHS)
    },
    "gates": gated,
    "gates, counts by layer": lambda parents, data, recipe: gated(parents, data, recipe, scope="layer"),
    "gates, units counted": lambda parents, data, recipe: gated(
        parents, data, recipe, scope="layer", count="units"
    ),
    "gates, thesis 2's rates": lambda parents, data, recipe: gated(
        parents, data, recipe, scope="layer", count="units", gate_lr=1e-4, lambda_rate=0.05
    ),
}  # fmt: skip
"""By name. The rate 1e-4 is about the thesis's 0.1 for two groups of 784 and 392 gates, without the factor by
which ``gates.merge`` multiplies the gates' gradients (the mean of 1 / 1568 and 1 / 784, times 0.1)."""


def main() -> None:
    """Train what is missing, print tables."""
    parser = options(__doc__)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--sparsity", default="0.9,0.95,0.99")
    parser.add_argument("--seeds", default="0:5", help="FIRST:STOP")
    parser.add_argument("--strategies", default=None, help="names, joined by semicolons")
    parser.add_argument("--out", type=Path, default=Path("runs/gates-sparse.jsonl"))
    parser.add_argument("--table", action="store_true", help="only print what there is")
    args = parser.parse_args()
    set_threads(args.threads)
    chosen = list(STRATEGIES) if args.strategies is None else args.strategies.split(";")
    sparsities = numbers(args.sparsity, float)
    for seed in [] if args.table else range(*map(int, args.seeds.split(":"))):
        data = networks.load(seed, args.data_dir)
        for sparsity in sparsities:
            done = {
                c["strategy"] for c in read_cells(args.out) if (c["seed"], c["sparsity"]) == (seed, sparsity)
            }
            pair = [
                networks.trained(
                    networks.recipe_for(sparsity, seed, i, PARENT_EPOCHS), data,
                    args.out.parent / "parents" / f"all-{sparsity:g}-{PARENT_EPOCHS}-{seed}-{i}.safetensors",
                )
                for i in range(2)
            ]  # fmt: skip
            recipe = networks.recipe_for(sparsity, seed, 2, EPOCHS)
            for name in [n for n in chosen if n not in done]:
                found = STRATEGIES[name](pair, data, recipe)
                add_cell(args.out, {"seed": seed, "sparsity": sparsity, "strategy": name, **found})
    show(read_cells(args.out), sparsities)


def show(cells: list[dict[str, Any]], sparsities: list[float]) -> None:
    """A table for each sparsity, over the seeds for which all strategies are there."""
    for sparsity in sparsities:
        mine = [c for c in cells if c["sparsity"] == sparsity]
        names = [n for n in STRATEGIES if any(c["strategy"] == n for c in mine)]
        by_seed = {n: {c["seed"]: c for c in mine if c["strategy"] == n} for n in names}
        seeds = sorted(set.intersection(*(set(of) for of in by_seed.values()))) if names else []
        if not seeds:
            continue
        rows = {n: [by_seed[n][s]["accuracy"] for s in seeds] for n in names}
        print(f"\nsparsity {sparsity:g}, {len(seeds)} seeds")
        networks.table(
            rows, [n for n in ("parents", "best parent + 30", "neuron selection + 30") if n in rows]
        )
        for name in [n for n in names if n.startswith("gates")]:
            of = [by_seed[name][s] for s in seeds]
            groups = of[0]["open"]
            stages = {k: sum(c["stages"][k] for c in of) / len(of) for k in of[0]["stages"]}
            print(f"  {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in stages.items()))
            for group in groups:
                means = [sum(c[k][group] for c in of) / len(of) for k in ("open", "undecided")]
                print(f"    {group}: open {means[0]:.3f}, undecided {means[1]:.3f}")
        if "parents" in names:
            dead = [by_seed["parents"][s]["dead"] for s in seeds]
            print(
                "  dead units: "
                + ", ".join(f"{g} {sum(d[g] for d in dead) / len(dead):.3f}" for g in dead[0])
            )


if __name__ == "__main__":
    main()
