"""The demonstration: several sparse networks that evolve, merged into one, and a report of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from regraft import checkpoint, files
from regraft.data import Data
from regraft.merging import merge
from regraft.report import Fact, Results, Table
from regraft.studies import show
from regraft.studies.merging import (
    BIAS_RULES,
    WEIGHT_RULES,
    Merged,
    best,
    mean_grid,
    merge_by_all_rules,
    nnstd_matrix,
    pairs,
)
from regraft.studies.networks import Network
from regraft.topology import Topology
from regraft.train import Recipe, seeds

RULE_PAIRS = len(WEIGHT_RULES) * len(BIAS_RULES)

RECIPE = Recipe(
    model="mlp:in-256-256-classes",
    density=0.1,
    # networks with sigmoid units and small steps survive merging without alignment; ReLU ones hardly do
    activation="sigmoid",
    evolve="set",
    rate="cosine",
    lr=0.1,
    momentum=0.9,
    epochs=30,
    batch_size=50,
)


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demonstration made.

    Attributes:
        networks: the parents.
        together: all parents merged at once, by each weight and bias rule, before and after resparsifying.
        in_pairs: the same for each pair of parents; empty where there are only two.
    """

    recipe: Recipe
    data: Data
    networks: list[Network]
    together: list[Merged]
    in_pairs: list[Merged]

    @property
    def best(self) -> Merged:
        """The best of all parents' merges that has the parents' density."""
        return best(m for m in self.together if m.resparsified)

    def merged_model(self, resparsified: bool = True) -> nn.Module:
        """The network that ``best`` describes; with ``resparsified`` False, before it was made sparse."""
        return merge(
            [n.model for n in self.networks],
            self.best.weights,
            self.best.biases,
            "keep" if resparsified else None,
            generator=seeds.stream(self.recipe.seed, "merge"),
        )


def merge_networks(
    recipe: Recipe, data: Data, networks: Sequence[Network], advance: Callable[..., object] = lambda: None
) -> Demo:
    """Merge all networks, and all pairs of them, by all rules.

    Args:
        advance: called after each of the ``merges(len(networks))`` merged networks.
    """
    together = merge_by_all_rules(networks, data.test, seed=recipe.seed, advance=advance)
    in_pairs = []
    for pair in pairs(networks) if len(networks) > 2 else []:
        in_pairs += merge_by_all_rules(pair, data.test, seed=recipe.seed, advance=advance)
    return Demo(recipe, data, list(networks), together, in_pairs)


def merges(networks: int) -> int:
    """Number of merged networks that ``merge_networks`` evaluates.

    >>> merges(2), merges(4)
    (50, 350)
    """
    groups = 1 + (networks * (networks - 1) // 2 if networks > 2 else 0)
    return groups * RULE_PAIRS * 2


def figures(demo: Demo) -> dict[str, Any]:
    """Everything as plain numbers, for ``results.json``."""
    return {
        "command": "demo",
        "options": demo.recipe.resolved(),
        "data": demo.data.describe(),
        "parents": [n.figures() for n in demo.networks],
        "parents_mean_accuracy": fmean(n.accuracy for n in demo.networks),
        "parents_best_accuracy": max(n.accuracy for n in demo.networks),
        "nnstd": nnstd_matrix(demo.networks),
        "expected_nnstd": show.distances(demo.networks).get("expected"),
        "weight_rules": list(WEIGHT_RULES),
        "bias_rules": list(BIAS_RULES),
        "accuracy": {name: mean_grid(found, "accuracy") for name, found in _kinds(demo).items()},
        "loss": {name: mean_grid(found, "loss") for name, found in _kinds(demo).items()},
        "best": demo.best.plain(),
        "merged": [m.plain() for m in (*demo.together, *demo.in_pairs)],
        "versions": files.versions(),
    }


def results(demo: Demo) -> Results:
    """The report."""
    merged = demo.merged_model()
    with_models = [(n.name, n.model) for n in demo.networks]
    # networks merged from two and from four parents lie too far apart for one cloud
    cloud = [m for m in demo.in_pairs or demo.together if m.resparsified]
    report: Results = {
        "title": f"{_count(len(demo.networks))} sparse networks, merged into one",
        "summary": summary(demo),
        "facts": _facts(demo),
        "tables": [_networks_table(demo, merged)],
        "curves": show.curves(demo.networks),
        "grids": [show.grid(name, found) for name, found in _kinds(demo).items()],
        "points": show.points(cloud),
        "reference": {"name": "parents, mean", "accuracy": fmean(n.accuracy for n in demo.networks)},
        "distances": show.distances(demo.networks),
        "densities": show.densities(
            [
                (demo.networks[0].name, demo.networks[0].model),
                ("merged, before resparsifying", demo.merged_model(resparsified=False)),
                ("merged, after", merged),
            ]
        ),
        "configuration": {"data": demo.data.name, **_told(demo.recipe), "seeds": _seeds(demo)},
        "versions": files.versions(),
    }
    pattern = show.pattern([*with_models, ("merged", merged)], demo.data)
    if pattern is not None:
        report["pattern"] = pattern
    return report


def summary(demo: Demo) -> str:
    """What came out, in plain sentences."""
    n, found = len(demo.networks), demo.best
    mean = fmean(p.accuracy for p in demo.networks)
    return (
        f"{_count(n)} networks were trained on {demo.data.name} from different seeds, each with "
        f"{100 * demo.networks[0].topology.density:.3g} % of the possible connections; on average they reach "
        f"{100 * mean:.1f} % test accuracy. Merged into one network that is just as sparse, with no further "
        f"training, they reach {100 * found.accuracy:.1f} % by the best of {RULE_PAIRS} pairs of rules "
        f"({found.weights} for weights, {found.biases} for biases)."
    )


def write(demo: Demo, out: Path) -> dict[str, Path]:
    """Write the parents and the best merged network to ``out``; the paths by name.

    Raises:
        FileError: a file cannot be written.
    """
    paths: dict[str, Path] = {}
    for n in demo.networks:
        path = out / f"{n.name.replace(' ', '-')}.safetensors"
        provenance = {
            "made_by": "regraft demo",
            "options": n.recipe.resolved(),
            "data": {"name": demo.data.name, "class_names": list(demo.data.class_names)},
            "final": {k: v for k, v in n.history.final.items() if not k.endswith("seconds")},
        }
        checkpoint.save(n.model, path, provenance=provenance)
        paths[n.name] = path
    merged = out / "merged.safetensors"
    # file names without their folder, so that equal runs give equal files wherever they are written
    parents = [{"file": path.name, "sha256": files.sha256(path)} for path in paths.values()]
    rules = {"weights": demo.best.weights, "biases": demo.best.biases, "density": "keep"}
    origin = {"made_by": "regraft demo", "merge": rules, "parents": parents}
    checkpoint.save(demo.merged_model(), merged, provenance=origin)
    return {**paths, "merged": merged}


def _kinds(demo: Demo) -> dict[str, list[Merged]]:
    """The groups of merges that are shown, by what they are called."""
    kinds = {"all, before resparsifying": demo.together, "all, resparsified": demo.together}
    if demo.in_pairs:
        kinds |= {"pairs, before resparsifying": demo.in_pairs, "pairs, resparsified": demo.in_pairs}
    return {
        name: [m for m in found if m.resparsified == name.endswith(", resparsified")]
        for name, found in kinds.items()
    }


def _facts(demo: Demo) -> list[Fact]:
    strongest = max(demo.networks, key=lambda n: n.accuracy)
    topology = demo.networks[0].topology
    found: list[Fact] = [
        {
            "label": "Parents, mean",
            "value": f"{100 * fmean(n.accuracy for n in demo.networks):.1f} %",
            "note": f"test accuracy of {len(demo.networks)} networks",
        },
        {"label": "Best parent", "value": f"{100 * strongest.accuracy:.1f} %", "note": strongest.name},
        {
            "label": f"All {len(demo.networks)} merged",
            "value": f"{100 * demo.best.accuracy:.1f} %",
            "note": f"best of {RULE_PAIRS} pairs of rules on the test samples: "
            f"{demo.best.weights}, {demo.best.biases}",
        },
    ]
    if demo.in_pairs:
        pair = best(m for m in demo.in_pairs if m.resparsified)
        note = f"{' + '.join(pair.parents)}: {pair.weights}, {pair.biases}"
        found.append({"label": "Best merged pair", "value": f"{100 * pair.accuracy:.1f} %", "note": note})
    found.append({
        "label": "Density",
        "value": f"{100 * topology.density:.3g} %",
        "note": f"{topology.nnz:,} of {topology.size:,} connections, merged too",
    })  # fmt: skip
    return found


def _networks_table(demo: Demo, merged: nn.Module) -> Table:
    rows = [
        [n.name, 100 * n.accuracy, n.loss, n.topology.nnz, 100 * n.topology.density] for n in demo.networks
    ]
    topology = Topology.of(merged)
    rows.append(["merged", 100 * demo.best.accuracy, demo.best.loss, topology.nnz, 100 * topology.density])
    return {
        "title": "Networks",
        "columns": ["Network", "Test accuracy (%)", "Test loss", "Connections", "Density (%)"],
        "rows": rows,
        "note": f"{len(demo.data.test):,} test samples, {demo.data.classes} classes.",
    }


def _told(recipe: Recipe) -> dict[str, Any]:
    """The choices that say something here."""
    told = (
        "model", "activation", "density", "allocate", "evolve", "rate", "epochs", "batch_size", "optimizer",
        "lr", "momentum", "lr_schedule", "loss",
    )  # fmt: skip
    return {name: value for name, value in recipe.resolved().items() if name in told}


def _seeds(demo: Demo) -> list[int]:
    return [n.recipe.seed for n in demo.networks]


def _count(n: int) -> str:
    words = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[n] if n < len(words) else str(n)
