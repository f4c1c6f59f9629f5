"""Merging sparse networks of the digits: aligned, repaired, fine-tuned, and thesis 1's future work.

    python benchmarks/merging_digits.py [--seeds 10] [--density 0.1] [--out runs/merging-digits.jsonl]

scikit-learn's digits, 64-256-256-10; weights and biases by average, resparsified to the parents' density. A
group is five networks of seeds of its own, of which the first two and all five are merged. Cells that are in
the file already are not run again; `--table` prints what is there and runs nothing.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import ttest_1samp
from torch import nn

from _common import add_cell, numbers, options, read_cells
from regraft import Topology, data, measure, merge
from regraft.data import Data
from regraft.merging import repair
from regraft.merging.align import ActivationMatching, WeightMatching
from regraft.merging.neurons import Ensemble
from regraft.probe import Probe
from regraft.train import Recipe, Teachers, train_recipe

NETWORKS, SAMPLES = 5, 500
BASE = Recipe("mlp:in-256-256-classes", allocate="uniform", lr=0.1, batch_size=32, epochs=20, evolve="none")
TUNING = replace(BASE, epochs=5, lr=0.05, lr_schedule="cosine")
SETTINGS: dict[str, Recipe] = {
    "adam": replace(BASE, optimizer="adam", lr=1e-3, epochs=30),
    "sgd": BASE,
    "set": replace(BASE, evolve="set", rate="exd"),
    "resnet": replace(BASE, model="resnet-8", lr_schedule="cosine", epochs=6, batch_size=64),
}
"""How the parents are trained."""

COMPARED = {
    "score by connectivity - magnitude": ("aligned, score connectivity", "aligned"),
    "score by strength - magnitude": ("aligned, score strength", "aligned"),
    "half of the biases - all": ("aligned, half of the biases", "aligned"),
    "a tenth of the biases - all": ("aligned, a tenth of the biases", "aligned"),
    "naive, half of the biases - all": ("naive, half of the biases", "naive"),
    "repaired - aligned": ("aligned, repaired", "aligned"),
    "to the mean - to the first": ("aligned to the mean", "aligned"),
    "taught - labels": ("aligned, 5 epochs, taught", "aligned, 5 epochs"),
    "evolving - fixed": ("aligned, 5 epochs of SET", "aligned, 5 epochs"),
    "aligned - naive, after 5 epochs": ("aligned, 5 epochs", "naive, 5 epochs"),
    "repaired - aligned, after 5 epochs": ("aligned, repaired, 5 epochs", "aligned, 5 epochs"),
    "aligned, 5 epochs - best parent, 5 epochs": ("aligned, 5 epochs", "best parent, 5 epochs"),
}
"""Pairs of the same groups of networks, of which the differences are tested."""


def parents_of(setting: str, density: float, group: int, digits: Data) -> list[nn.Module]:
    full = density == 1.0
    recipe = replace(SETTINGS[setting], dense=full, density=None if full else density)
    seeds = range(NETWORKS * group, NETWORKS * group + (2 if setting == "resnet" else NETWORKS))
    return [train_recipe(replace(recipe, seed=seed), digits).model for seed in seeds]


def overlap(models: Sequence[nn.Module]) -> float:
    """Intersection over union of the first two networks' topologies."""
    return Topology.of(models[0]).jaccard(Topology.of(models[1]))


def figures_of(parents: list[nn.Module], digits: Data, group: int) -> dict[str, float]:
    """Test accuracy in percent of each way of merging, by name."""
    generator = torch.Generator().manual_seed(group)
    x, y = digits.train[torch.randperm(len(digits.train), generator=generator)[:SAMPLES]]
    probe = Probe(batches=[(x, y)])

    def accuracy(model: nn.Module) -> float:
        return 100 * measure.evaluate(model, digits.test)["accuracy"]

    def tuned(model: nn.Module, evolve: str = "none", teachers: Teachers | None = None) -> float:
        recipe = replace(TUNING, seed=group, evolve=evolve)
        return accuracy(train_recipe(recipe, digits, model=copy.deepcopy(model), teachers=teachers).model)

    each = [accuracy(parent) for parent in parents]
    best = parents[each.index(max(each))]
    aligned = WeightMatching()(parents, probe=probe)
    unscaled = WeightMatching(normalise=False)(parents, probe=probe)
    to_mean = WeightMatching(to="mean")(parents, probe=probe) if len(parents) > 2 else aligned
    by_data = ActivationMatching()(parents, probe=probe)
    naive, merged = merge(parents, "average"), merge(aligned, "average")
    found = {
        "parents, mean": statistics.fmean(each),
        "best parent": max(each),
        "best parent, 5 epochs": tuned(best),
        "ensemble": accuracy(Ensemble(parents)),
        "naive": accuracy(naive),
        "naive, repaired": accuracy(repair(naive, parents, [x])),
        "naive, 5 epochs": tuned(naive),
        "naive, half of the biases": accuracy(merge(parents, "average", bias_density=0.5)),
        "aligned": accuracy(merged),
        "aligned, unscaled": accuracy(merge(unscaled, "average")),
        "aligned, magnitude": accuracy(merge(aligned, "magnitude")),
        "aligned, union": accuracy(merge(aligned, "average", density=None)),
        "aligned, repaired": accuracy(repair(merged, aligned, [x])),
        "aligned to the mean": accuracy(merge(to_mean, "average")),
        "aligned to the mean, repaired": accuracy(repair(merge(to_mean, "average"), to_mean, [x])),
        "aligned by activations": accuracy(merge(by_data, "average")),
        "aligned by activations, repaired": accuracy(repair(merge(by_data, "average"), by_data, [x])),
        "aligned, 5 epochs": tuned(merged),
        "aligned, repaired, 5 epochs": tuned(repair(merged, aligned, [x])),
        "aligned, 5 epochs of SET": tuned(merged, "set"),
        "aligned, 5 epochs, taught": tuned(merged, teachers=Teachers(parents)),
    }
    ranked = {"connectivity": "connectivity", "strength": "connectivity:importance=strength"}
    found |= {"overlap before": 100 * overlap(parents), "overlap after": 100 * overlap(aligned)}
    for name, score in ranked.items():
        found[f"aligned, score {name}"] = accuracy(merge(aligned, "average", score=score))
    for name, share in (("half", 0.5), ("a tenth", 0.1)):
        found[f"aligned, {name} of the biases"] = accuracy(merge(aligned, "average", bias_density=share))
    return found


def few_figures(parents: list[nn.Module], digits: Data, group: int) -> dict[str, float]:
    """Merged, repaired and fine-tuned only: of dense networks, and of those with batch normalisation, whose
    repair is to measure its statistics anew."""
    generator = torch.Generator().manual_seed(group)
    x, y = digits.train[torch.randperm(len(digits.train), generator=generator)[:SAMPLES]]

    def accuracy(model: nn.Module) -> float:
        return 100 * measure.evaluate(model, digits.test)["accuracy"]

    each = [accuracy(parent) for parent in parents]
    found = {"parents, mean": statistics.fmean(each), "best parent": max(each)}
    probe = Probe(batches=[(x, y)])
    networks = {
        "naive": parents,
        "aligned": WeightMatching()(parents, probe=probe),
        "aligned by activations": ActivationMatching()(parents, probe=probe),
    }
    for name, models in networks.items():
        merged = merge(models, "average")
        repaired = repair(merged, models, [x])
        found[name], found[f"{name}, repaired"] = accuracy(merged), accuracy(repaired)
        tuned = train_recipe(replace(TUNING, seed=group), digits, model=repaired).model
        found[f"{name}, repaired, 5 epochs"] = accuracy(tuned)
    return found


def run(path: Path, settings: Sequence[str], density: float, groups: int) -> None:
    digits = data.load("digits")
    done = {(c["setting"], c["density"], c["group"], c["networks"]) for c in read_cells(path)}
    for group in range(groups):
        for setting in settings:
            sizes = (2,) if setting == "resnet" else (2, NETWORKS)
            missing = [n for n in sizes if (setting, density, group, n) not in done]
            parents = parents_of(setting, density, group, digits) if missing else []
            for n in missing:
                look = few_figures if setting == "resnet" or density == 1.0 else figures_of
                row = look(parents[:n], digits, group)
                add_cell(
                    path,
                    {"setting": setting, "density": density, "group": group, "networks": n, "figures": row},
                )
                print(setting, density, group, n, f"naive {row['naive']:.1f} aligned {row['aligned']:.1f}")


def show(path: Path) -> None:
    cells = read_cells(path)
    keys = sorted({(c["setting"], c["density"], c["networks"]) for c in cells})
    for setting, density, n in keys:
        rows = [
            c["figures"]
            for c in cells
            if (c["setting"], c["density"], c["networks"]) == (setting, density, n)
        ]
        print(
            f"\n{setting}, density {density}, {n} networks, {len(rows)} groups: mean (standard deviation)\n"
        )
        for name in rows[0]:
            found = [row[name] for row in rows]
            print(f"| {name} | {statistics.fmean(found):.1f} ({spread(found):.1f}) |")
        print("\npaired differences, standard error, p\n")
        for what, (one, other) in COMPARED.items() if "ensemble" in rows[0] else ():
            apart = [row[one] - row[other] for row in rows]
            p = ttest_1samp(apart, 0.0).pvalue if spread(apart) else 1.0
            error = spread(apart) / len(apart) ** 0.5
            print(f"| {what} | {statistics.fmean(apart):+.2f} +- {error:.2f} | {p:.3f} |")


def spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = options(__doc__, threads=False)
    parser.add_argument("--seeds", type=int, default=10, help="groups of five networks (default 10)")
    parser.add_argument(
        "--settings", default=",".join(SETTINGS), help="how parents are trained (default all)"
    )
    parser.add_argument(
        "--density", type=float, default=0.1, help="of the parents, 1 for dense (default 0.1)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/merging-digits.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    chosen = parser.parse_args()
    if not chosen.table:
        torch.set_num_threads(1)
        run(chosen.out, numbers(chosen.settings, str), chosen.density, chosen.seeds)
    show(chosen.out)


if __name__ == "__main__":
    main()
