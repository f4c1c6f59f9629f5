"""Beyond thesis 1: phase 2's merges after the units of both networks have been numbered alike, REPAIR, neuron
selection, and a short training of what was merged.

Two kinds of parents: those of phase 2 (sigmoid, full batches), and ones with ReLU that were trained as
networks are today (minibatches, momentum, weight decay; ``docs/results/merging-same-data.md``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean
from typing import Any

from torch import nn

from regraft import measure
from regraft.data import Data
from regraft.merging import ActivationMatching, Ensemble, WeightMatching, merge, repair, select_neurons
from regraft.merging.align import Align
from regraft.merging.grid import merge_grid
from regraft.probe import Probe
from regraft.report import Results, Table
from regraft.report.figures import Bars, BarSet
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import merging_phase2 as phase2
from regraft.studies.papers import merging_shown as shown
from regraft.studies.papers.merging_measures import ALL, KEEPING, Key, means, samples, sparsities
from regraft.studies.papers.merging_steps import (
    data_of,
    merged,
    merged_rows,
    network_of,
    options_of,
    pair_row,
    parent,
    recipe_of,
)
from regraft.studies.study import Cell, Outcome, Preset, Row, Rows, Study, Work, step
from regraft.train import Recipe, seeds, train_recipe

MATCHINGS: dict[str, Align] = {"weights": WeightMatching(), "activations": ActivationMatching()}
FAMILIES = ("phase 2", "relu")

# what networks of this size are trained with today; as in docs/results/merging-same-data.md
RELU = Recipe(
    model="mlp:in-392-196-classes", density=0.05, allocate="uniform", evolve="set", rate="cosine", zeta=0.5,
    lr=0.1, momentum=0.9, weight_decay=1e-3, lr_schedule="cosine", batch_size=100, epochs=30,
)  # fmt: skip


@step
def aligned(work: Work) -> Outcome:
    """Two networks aligned and merged by all rules. Configuration: as ``merged``, and ``align``."""
    config = work.config
    data = data_of(work, {**work.inputs[0].config, "labels": None})
    turned = _turned(work, data, config["align"])
    found = merge_grid(
        turned, data.test, weights=tuple(config["rules"]), biases=tuple(config["rules"]),
        then=[tuple(way) for way in config["then"]], generator=seeds.stream(config["seed"], "merge"),
    )  # fmt: skip
    return Outcome([{**pair_row(turned), "kind": "aligned"}, *merged_rows(found, "all")])


def _turned(work: Work, data: Data, align: str) -> list[nn.Module]:
    return MATCHINGS[align](
        [network_of(r) for r in work.inputs],
        probe=Probe(batches=[(data.train.x, data.train.y)]),
        generator=seeds.stream(work.config["seed"], "align"),
    )


@step
def improved(work: Work) -> Outcome:
    """What else can be made of two networks, and all of it trained on. Configuration: ``seed``, ``recipe``
    (what differs from the parents' when training on) and ``sparsity``."""
    config, first = work.config, work.inputs[0].config
    data = data_of(work, {**first, "labels": None})
    parents = [network_of(r) for r in work.inputs]
    recipe = recipe_of({**first, "recipe": {**first["recipe"], **config["recipe"]}, "seed": config["seed"]})
    rows: list[Row] = []
    for name, model in ways(work, data, parents).items():
        rows.append(_row(name, model, data))
        if name not in ("ensemble", "average", "average, repaired"):
            made = train_recipe(recipe, data, model=copy.deepcopy(model)).model
            rows.append(_row(f"{name}, trained on", made, data))
    return Outcome(rows)


def ways(work: Work, data: Data, parents: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """The better parent and what is merged without training, by name; all at the parents' sparsity, but the
    ensemble."""
    batches = [(data.train.x, data.train.y)]
    turned = _turned(work, data, "activations")
    naive, matched = merge(parents, "average"), merge(turned, "average")
    return {
        "best parent": max(parents, key=lambda p: measure.evaluate(p, data.test)["accuracy"]),
        "ensemble": Ensemble(list(parents)),
        "average": naive,
        "average, repaired": repair(naive, parents, batches),
        "average, aligned": matched,
        "average, aligned, repaired": repair(matched, turned, batches),
        "selection": select_neurons(
            parents, Probe(batches=batches), generator=seeds.stream(work.config["seed"], "select")
        ),
    }


def _row(name: str, model: nn.Module, data: Data) -> Row:
    figures = measure.evaluate(model, data.test)
    return {"kind": "network", "way": name, "accuracy": figures["accuracy"], "loss": figures["loss"]}


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """Pairs of different networks of both kinds: as they are, aligned, and improved."""
    found: list[Cell] = []
    for family in FAMILIES:
        for sparsity in settings["sparsities"]:
            own = _parents(settings, family, sparsity)
            base = {"sparsity": sparsity, "seed": 0, "rules": list(ALL), "then": [["prune"], []]}
            label = {} if family == "phase 2" else {"family": family}
            for number, (a, b) in enumerate(combinations(range(len(own)), 2)):
                pair, config = (own[a], own[b]), {**base, "a": a, "b": b, **label}
                found.append(Cell(merged, config, pair))
                found += [Cell(aligned, {**config, "align": how}, pair) for how in MATCHINGS]
                if number < settings["improved"]:
                    again = {
                        "sparsity": sparsity, "a": a, "b": b, "seed": 1000 + number, **label,
                        "recipe": settings["again"][family],
                    }  # fmt: skip
                    found.append(Cell(improved, again, pair))
    return found


def _parents(settings: Mapping[str, Any], family: str, sparsity: float) -> list[Cell]:
    if family == "phase 2":
        return phase2.parents_of(settings["phase2"], sparsity)[: settings["networks"]]
    config = {
        "family": family,
        "data": settings["relu_data"],
        "recipe": settings["relu"],
        "sparsity": sparsity,
    }
    return [Cell(parent, {**config, "seed": seed}) for seed in range(settings["networks"])]


def of_family(rows: Rows, family: str) -> Rows:
    """The rows of one kind of parents."""
    wanted = None if family == "phase 2" else family
    results = [r for r in rows.results if r.config.get("family") == wanted]
    return Rows([r for r in rows.rows if r.get("family") == wanted], results, rows.preset, rows.missing)


# --- claims

EARLIER = "regraft, docs/results/merging-same-data.md"


def way(
    name: str, family: str = "relu", at: Sequence[float] | None = None
) -> Callable[[Rows], dict[Any, float]]:
    """Accuracies in percent of one way to go on, one for each sparsity and pair."""

    def measure_way(rows: Rows) -> dict[Any, float]:
        chosen = of_family(rows, family).where(kind="network", way=name).rows
        return {
            (r["sparsity"], r["a"], r["b"]): 100 * r["accuracy"]
            for r in chosen
            if at is None or r["sparsity"] in at
        }

    return measure_way


def rule(
    weights: str | Sequence[str],
    align: str,
    family: str,
    biases: str | Sequence[str] = ALL,
    then: str = "prune",
) -> Callable[[Rows], dict[Key, float]]:
    """Accuracies in percent of merges by these rules, one for each network."""
    return lambda rows: samples(of_family(rows, family), weights, biases, align=align, then=then)


def _measured(name: str, sparsity: float) -> Callable[[Rows], list[float]]:
    return lambda rows: list(way(name, at=(sparsity,))(rows).values())


# mean accuracies of five seeds (docs/results/merging-same-data.md), and their standard deviation over seeds
PUBLISHED: dict[float, dict[str, tuple[float, float]]] = {
    0.9: {"best parent": (88.76, 0.24), "ensemble": (88.85, 0.18), "average, aligned": (87.69, 0.90),
          "average, aligned, repaired": (88.00, 0.45), "selection": (88.68, 0.20)},
    0.95: {"best parent": (88.39, 0.26), "ensemble": (88.75, 0.19), "average, aligned": (86.56, 0.45),
           "average, aligned, repaired": (86.72, 0.93), "selection": (88.63, 0.32)},
    0.99: {"best parent": (85.90, 0.44), "ensemble": (86.80, 0.59), "average": (44.30, 9.21),
           "average, repaired": (73.14, 5.32), "average, aligned": (69.90, 9.61),
           "average, aligned, repaired": (80.47, 4.13), "selection": (86.74, 0.57)},
}  # fmt: skip


def _numbers() -> list[Claim]:
    return [
        Number(
            f"ReLU, sparsity {shown.text(s)}: {name}", EARLIER, value,
            # twice the deviation over its seeds, and half a point for other training images
            2 * deviation + 0.5, _measured(name, s), comparable=("small", "paper"),
        )
        for s, lines in PUBLISHED.items() for name, (value, deviation) in lines.items()
    ]  # fmt: skip


def _orders() -> list[Claim]:
    found: list[Claim] = []
    for family in FAMILIES:
        for align in MATCHINGS:
            found += [
                Order(f"{family}: {w}, aligned by {align}, is better than not aligned", "ours; thesis 1, "
                      "section 10.5 expects it", rule(w, align, family), rule(w, "none", family))
                for w in ("average", "magnitude", "addition")
            ]  # fmt: skip
        found += [
            Order(f"{family}: repair helps averages that are not aligned", EARLIER,
                  way("average, repaired", family), way("average", family)),
            Order(f"{family}: repair helps averages that are aligned", EARLIER,
                  way("average, aligned, repaired", family), way("average, aligned", family)),
            Order(f"{family}: selection is better than the aligned, repaired average", EARLIER,
                  way("selection", family), way("average, aligned, repaired", family)),
            Order(f"{family}: selection is at most half a point below the better parent", EARLIER,
                  way("selection", family), way("best parent", family), least=-0.5),
            Order(f"{family}: training on makes the aligned, repaired average better", "ours; thesis 1, "
                  "section 10.2 asks", way("average, aligned, repaired, trained on", family),
                  way("average, aligned, repaired", family)),
            Order(f"{family}: trained on, the merge is no more than half a point below the trained-on parent",
                  EARLIER, way("selection, trained on", family), way("best parent, trained on", family),
                  least=-0.5),
        ]  # fmt: skip
    return found


# --- report


def report(rows: Rows) -> Results:
    """Accuracy by rule and alignment, and of everything else that was made of the pairs."""
    if not sparsities(rows):
        return {"summary": "No pair has been merged yet."}
    figures: list[Any] = []
    tables: list[Table] = []
    for family in FAMILIES:
        own = of_family(rows, family)
        if not sparsities(own):
            continue
        figures.append(_bars(own, family))
        figures += [
            shown.heatmap(own, "accuracy", f"{family}: {text}", "Pruned; mean over sparsities, pairs of "
                          "different networks.", align=align)
            for align, text in (("none", "not aligned"), ("weights", "aligned by weights"),
                                ("activations", "aligned by activations"))
        ]  # fmt: skip
        figures.append(_overlap(own, family))
        tables.append(_ways(own, family))
    return {
        "title": "Merging sparse networks whose units are aligned", "summary": _summary(rows),
        "tables": tables, "figures": figures,
    }  # fmt: skip


def _bars(rows: Rows, family: str) -> Bars:
    """Each weight rule with biases averaged, before and after alignment, at each sparsity."""
    chosen = sparsities(rows)
    sets: list[BarSet] = []
    for align in ("none", *MATCHINGS):
        values = [samples(rows, w, "average", (s,), align=align) for s in chosen for w in KEEPING]
        name = "not aligned" if align == "none" else f"aligned by {align}"
        sets.append({"name": name, "values": [fmean(v.values()) if v else None for v in values]})
    return {
        "kind": "bars", "title": f"{family}: merged pairs before and after alignment",
        "caption": "Pruned to the parents' sparsity, biases averaged, pairs of different networks.",
        "y": "accuracy (%)", "groups": [f"{shown.text(s)} {w}" for s in chosen for w in KEEPING],
        "sets": sets,
    }  # fmt: skip


def _overlap(rows: Rows, family: str) -> Bars:
    """Jaccard index of the two topologies before and after alignment."""
    chosen = sparsities(rows)

    def index(kind: str, s: float, align: str | None) -> float | None:
        found = rows.where(kind=kind, sparsity=s, **({} if align is None else {"align": align})).rows
        return 1 - fmean(r["nnstd"] for r in found) if found else None

    sets: list[BarSet] = [
        {"name": "chance", "values": [1 - 2 * s / (1 + s) for s in chosen]},
        {"name": "not aligned", "values": [index("parents", s, None) for s in chosen]},
    ]
    sets += [
        {"name": f"aligned by {how}", "values": [index("aligned", s, how) for s in chosen]}
        for how in MATCHINGS
    ]
    return {
        "kind": "bars", "title": f"{family}: overlap of the parents' topologies",
        "caption": "Jaccard index: shared connections over all connections of both.", "y": "Jaccard index",
        "groups": [shown.text(s) for s in chosen], "sets": sets,
    }  # fmt: skip


def _ways(rows: Rows, family: str) -> Table:
    chosen = sparsities(rows)
    found = rows.where(kind="network").by("way")
    lines = [
        [
            name,
            *(
                (lambda v: None if v is None else 100 * v)(part.where(sparsity=s).mean("accuracy"))
                for s in chosen
            ),
        ]
        for (name,), part in found.items()
    ]
    return {
        "title": f"{family}: what becomes of two parents (test accuracy, %)",
        "columns": ["What", *(f"sparsity {shown.text(s)}" for s in chosen)], "rows": lines,
        "note": "Mean over pairs. The ensemble has twice the connections; everything else has the parents'.",
    }  # fmt: skip


def _summary(rows: Rows) -> str:
    parts = []
    for family in FAMILIES:
        own = of_family(rows, family)
        naive, turned = (means(samples(own, "average", align=a)) for a in ("none", "activations"))
        best, chosen = (list(way(n, family)(rows).values()) for n in ("best parent", "selection"))
        if naive and turned and best and chosen:
            parts.append(
                f"{family[0].upper()}{family[1:]} parents: averages have {fmean(naive):.1f} %, after "
                f"alignment by activations {fmean(turned):.1f} %, selected neurons {fmean(chosen):.1f} %, "
                f"the better parent {fmean(best):.1f} %."
            )
    return " ".join(parts) or "Pairs have been merged, and nothing else has been made of them yet."


_RELU_DATA = {"name": "fashion-mnist", "classes": [0, 1, 2, 3, 4], "per_class": 1000, "seed": 0}
# phase 2's networks train on for 100 epochs from a third of the first rate, with a tenth of the evolution
_AGAIN = {
    "phase 2": {
        "epochs": 100,
        "stop_accuracy": None,
        "lr": 0.3,
        "rate": "exponential:start=0.05,steepness=2",
    },
    "relu": {"epochs": 30},
}
SMALL = {
    "sparsities": [0.9, 0.95, 0.99], "networks": 4, "improved": 3, "phase2": phase2.SMALL,
    "relu": options_of(RELU), "relu_data": _RELU_DATA, "again": _AGAIN,
}  # fmt: skip
PAPER = {
    **SMALL, "sparsities": list(phase2.SPARSITIES), "networks": 20, "improved": 10, "phase2": phase2.PAPER,
}  # fmt: skip
SMOKE = {
    **SMALL, "sparsities": [0.5, 0.9], "networks": 2, "improved": 1, "phase2": phase2.SMOKE,
    "relu": options_of(replace(RELU, model="mlp:in-24-16-classes", epochs=4, batch_size=20)),
    "relu_data": phase2.SMALL_DATA,
    "again": {"phase 2": {"epochs": 3, "stop_accuracy": None}, "relu": {"epochs": 2}},
}  # fmt: skip

STUDIES = [
    Study(
        "merging-aligned",
        "Pairs of sparse networks merged after alignment, repaired, selected, trained on",
        "beyond thesis 1 (its sections 10.2 and 10.5)",
        "Two networks that number their units differently cannot be averaged well. What do the merges of "
        "phase 2 gain by alignment, REPAIR, neuron selection and a short training, and do they reach the "
        "better parent?",
        cells,
        {
            "smoke": Preset(SMOKE, "5 s", ("digits",)),
            "small": Preset(SMALL, "8 min after merging-phase-2", ("fashion-mnist",), comparable=True),
            "paper": Preset(PAPER, "10 h after merging-phase-2, "
                                   "estimated", ("fashion-mnist",), comparable=True),
        },
        [*_numbers(), *_orders()],
        report,
        ("The thesis proposes alignment and training on, but measures neither: what is compared with is an "
         "earlier measurement of regraft's own.",),
    )
]  # fmt: skip
