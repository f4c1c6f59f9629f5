"""Thesis 2's greedy strategy beside its loss-driven one and beside a new network, at equal budget.

    python benchmarks/gates_greedy.py --out runs/gates-greedy.jsonl [--seeds 0:10]

scikit-learn's digits, 64-32-32-10 (tanh, as LeNet in the thesis), two teachers of 40 epochs each. A student
has 20 epochs of merging (greedy: 8 of identification for each of 2 groups, 4 of mimicry for each of 3 layers,
each of one layer only) and 20 of fine-tuning; a new network has 20 epochs, or all 40. Finished cells are kept
in the file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn

from _common import add_cell, options, read_cells, set_threads
from regraft import data as datasets
from regraft import gates, measure
from regraft.data import Data
from regraft.train import Recipe, train_recipe

RECIPE = Recipe(
    model="mlp:in-32-32-classes", activation="tanh", dense=True, lr=0.05, momentum=0.9, batch_size=50,
    lr_schedule="MultiStepLR:milestones=[20, 30]", epochs=40,
)  # fmt: skip
COMMON: dict[str, Any] = {"lr": 0.05, "batch_size": 50, "finetune_epochs": 20}


def network(seed: int, data: Data, epochs: int = 40) -> nn.Module:
    """A network of a seed, whose learning rate falls after half and three quarters of its epochs."""
    drops = f"MultiStepLR:milestones=[{epochs // 2}, {3 * epochs // 4}]"
    fields = {**vars(RECIPE), "seed": seed, "epochs": epochs, "lr_schedule": drops}
    return train_recipe(Recipe(**fields), data).model


def percent(model: nn.Module, data: Data) -> float:
    """Test accuracy."""
    return 100 * measure.evaluate(model, data.test)["accuracy"]


def greedy(teachers: list[nn.Module], data: Data, seed: int, **choices: Any) -> dict[str, Any]:
    """A student of the greedy strategy."""
    student = gates.merge_greedily(
        teachers, data, identify_epochs=8, mimic_epochs=4, seed=seed, **COMMON, **choices
    )
    return {
        "stages": {stage: 100 * figures["accuracy"] for stage, figures in student.evaluation.items()},
        "open": {group.name: group.open for group in student.groups},
    }


def loss_driven(teachers: list[nn.Module], data: Data, seed: int) -> dict[str, Any]:
    """A student of the loss-driven strategy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gates.GatesWarning)
        student = gates.merge(teachers, data, merge_epochs=20, seed=seed, **COMMON)
    return {
        "stages": {stage: 100 * figures["accuracy"] for stage, figures in student.evaluation.items()},
        "open": {group.name: group.open for group in student.groups},
    }


def new(epochs: int) -> Callable[[list[nn.Module], Data, int], dict[str, Any]]:
    """A network that has never seen a teacher."""
    return lambda teachers, data, seed: {
        "stages": {"student": percent(network(1000 + seed, data, epochs), data)}
    }


Strategy = Callable[[list[nn.Module], Data, int], dict[str, Any]]

STRATEGIES: Mapping[str, Strategy] = {
    "best teacher": lambda teachers, data, seed: {
        "stages": {"student": max(percent(teacher, data) for teacher in teachers)}
    },
    "new network, 20 epochs": new(20),
    "new network, 40 epochs": new(40),
    "greedy": greedy,
    "greedy, lambda rises": lambda *given: greedy(*given, lambda_rate=None),
    "greedy, lambda rises, from teachers": lambda *given: greedy(*given, lambda_rate=None, start="teachers"),
    "loss-driven": loss_driven,
}  # fmt: skip


def main() -> None:
    """Train what is missing, print a table."""
    parser = options(__doc__)
    parser.add_argument("--seeds", default="0:10", help="FIRST:STOP")
    parser.add_argument("--out", type=Path, default=Path("runs/gates-greedy.jsonl"))
    args = parser.parse_args()
    set_threads(args.threads)
    for seed in range(*map(int, args.seeds.split(":"))):
        done = {cell["strategy"] for cell in read_cells(args.out) if cell["seed"] == seed}
        missing = [name for name in STRATEGIES if name not in done]
        data = datasets.load("digits", per_class=60, seed=seed)
        teachers = [network(2 * seed + i, data) for i in range(2)] if missing else []
        for name in missing:
            add_cell(args.out, {"seed": seed, "strategy": name, **STRATEGIES[name](teachers, data, seed)})
    show(read_cells(args.out))


def show(cells: list[dict[str, Any]]) -> None:
    """Mean accuracy of each stage, and the students' difference to a new network of 20 epochs, paired."""
    from scipy import stats

    of = {name: {c["seed"]: c for c in cells if c["strategy"] == name} for name in STRATEGIES}
    seeds = sorted(set.intersection(*(set(found) for found in of.values())))
    control = [of["new network, 20 epochs"][s]["stages"]["student"] for s in seeds]
    for name in STRATEGIES:
        stages = {k: [of[name][s]["stages"][k] for s in seeds] for k in of[name][seeds[0]]["stages"]}
        apart = [a - b for a, b in zip(stages["student"], control, strict=True)]
        p = stats.ttest_rel(stages["student"], control).pvalue if any(apart) else 1.0
        line = ", ".join(f"{stage} {fmean(v):.2f}" for stage, v in stages.items())
        print(f"{name:36} {line} (std {stdev(stages['student']):.2f}); {fmean(apart):+.2f}, p {p:.2g}")


if __name__ == "__main__":
    main()
