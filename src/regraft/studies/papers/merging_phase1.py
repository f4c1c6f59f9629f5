"""Thesis 1, phase 1: networks trained on disjoint classes, merged and tested on all of them; SET or static.

784-392-196-10 with sigmoid between the layers and epsilon (n_in + n_out) connections in each layer; classes 0
to 4 (data set 1), 5 to 9 (data set 2) or all (data set 3) of Fashion-MNIST, 5000 training and 1000 test
images each; the learning rate decays exponentially from 30 to 1; SET every 25 steps at a rate from 50 % to 10
%; 1500 epochs at epsilon 0.1, 150 at 0.5. (Sections 6.2 to 6.6.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from regraft.report import Results, Table
from regraft.report.figures import Heatmap, Lines, Series
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers.merging_shown import POINTS
from regraft.studies.papers.merging_steps import merged, options_of, parent
from regraft.studies.study import Cell, Preset, Row, Rows, Study
from regraft.train import Recipe

SETS: dict[str, list[int]] = {"1": [0, 1, 2, 3, 4], "2": [5, 6, 7, 8, 9], "3": list(range(10))}
"""Data sets 1, 2 and 3, by their labels."""
RULES = ("magnitude", "average", "addition", "random")
EPSILONS = (0.1, 0.5)
TABLES = {0.1: ("thesis 1, table 7", "thesis 1, table 9"), 0.5: ("thesis 1, table 8", "thesis 1, table 10")}

# both decays keep a constant factor from their first value to their last
RECIPE = Recipe(
    model="mlp:in-392-196-classes",
    epsilon=1.0,
    activation="sigmoid",
    evolve="set-magnitude",
    rate=f"exponential:start=0.5,end=0.1,steepness={math.log(5):.6f}",
    evolve_every="25",
    lr=30.0,
    momentum=0.0,
    lr_schedule=f"exponential:end={1 / 30:.8f},steepness={math.log(30):.6f}",
    batch_size=None,
)

# accuracy and loss of networks trained on data set 1, 2 and 3 (rows), tested on data set 1, 2 and 3
PARENTS: dict[float, dict[str, tuple[tuple[float, float], ...]]] = {
    0.1: {"1": ((74, 0.70), (0, 12.98), (37, 6.84)), "2": ((0, 11.52), (43, 1.16), (22, 6.34)),
          "3": ((28, 1.71), (58, 1.25), (43, 1.48))},
    0.5: {"1": ((81, 0.51), (0, 11.78), (40, 6.15)), "2": ((0, 12.21), (89, 0.31), (45, 6.26)),
          "3": ((77, 0.67), (80, 0.54), (78, 0.60))},
}  # fmt: skip
# accuracy and loss on data set 3 of the merged networks: weight rules by bias rules in the order of RULES
MERGED: dict[float, dict[str, tuple[tuple[float, float], ...]]] = {
    0.1: {"magnitude": ((21, 7.91), (30, 2.52), (18, 3.53), (24, 6.78)),
          "average": ((10, 8.52), (20, 2.39), (14, 3.32), (10, 11.01)),
          "addition": ((21, 7.97), (28, 2.52), (18, 3.59), (10, 17.14)),
          "random": ((21, 7.91), (30, 2.52), (18, 3.73), (10, 13.33))},
    0.5: {"magnitude": ((26, 3.79), (31, 2.18), (35, 2.59), (27, 4.25)),
          "average": ((19, 6.03), (35, 1.92), (16, 4.61), (18, 3.73)),
          "addition": ((25, 3.74), (31, 2.28), (35, 2.58), (12, 5.09)),
          "random": ((26, 3.77), (33, 2.14), (34, 2.70), (25, 4.46))},
}  # fmt: skip


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """Twelve networks for each seed, and the merges of networks 1 and 3, and of 7 and 9."""
    found: list[Cell] = []
    for epsilon in EPSILONS:
        for seed in range(settings["seeds"][str(epsilon)]):
            own: dict[tuple[str, str], Cell] = {}
            for name, labels in settings["sets"].items():
                for topology in ("SET", "static")[: 2 if seed < settings["static"][str(epsilon)] else 1]:
                    still = {} if topology == "SET" else {"evolve": "static", "rate": None}
                    recipe = {**settings["recipe"], **still, "epochs": settings["epochs"][str(epsilon)]}
                    config = {
                        "data": settings["data"], "labels": labels, "trained_on": name, "epsilon": epsilon,
                        "topology": topology, "seed": seed, "test_on": settings["sets"],
                        "watch": settings["watch"],
                        "recipe": {k: v for k, v in recipe.items() if v is not None},
                    }  # fmt: skip
                    own[name, topology] = Cell(parent, config)
            found += own.values()
            config = {
                "epsilon": epsilon, "network": seed, "seed": seed, "rules": list(RULES), "then": [[]],
                "test_on": settings["sets"],
            }  # fmt: skip
            found.append(Cell(merged, config, (own["1", "SET"], own["2", "SET"])))
    return found


# --- claims


def trained(
    rows: Rows, epsilon: float, on: str, tested: str, figure: str = "accuracy", topology: str = "SET"
) -> list[float]:
    """A figure of the networks trained on one data set and tested on another, one for each seed; accuracies
    in percent."""
    scale = 100.0 if figure == "accuracy" else 1.0
    chosen = rows.where(kind="tested", epsilon=epsilon, trained_on=on, on=tested, topology=topology)
    return [scale * r[figure] for r in sorted(chosen.rows, key=_seed)]


def merges(
    rows: Rows, epsilon: float, weights: str, biases: str, figure: str = "accuracy", on: str = "3"
) -> list[float]:
    """The same of the merged networks."""
    scale = 100.0 if figure == "accuracy" else 1.0
    chosen = rows.where(kind="merged", epsilon=epsilon, weights=weights, biases=biases, on=on)
    return [scale * r[figure] for r in sorted(chosen.rows, key=_seed)]


def _seed(row: Row) -> int:
    return int(row["seed"])


def tolerance(epsilon: float, figure: str, published: float) -> float:
    """How far a single network's figure may be from another's.

    The thesis has one network of each kind. At epsilon 0.1, a network of 198 connections depends on which it
    gets: accuracies of different seeds lie some 10 points apart; at 0.5 half of that. Losses are compared to
    a third, since those of networks that have never seen half of the classes grow with every epoch.
    """
    return (10.0 if epsilon == 0.1 else 5.0) if figure == "accuracy" else published / 3


def _numbers() -> list[Claim]:
    found: list[Claim] = []
    for epsilon, (single, together) in TABLES.items():
        for on, lines in PARENTS[epsilon].items():
            for tested, values in zip(SETS, lines, strict=True):
                for figure, unit, value in zip(("accuracy", "loss"), ("%", "nats"), values, strict=True):
                    found.append(Number(
                        f"epsilon {epsilon}, trained on data set {on}, tested on {tested}: {figure}", single,
                        value, tolerance(epsilon, figure, value),
                        lambda rows, e=epsilon, o=on, t=tested, f=figure: trained(rows, e, o, t, f),  # type: ignore[misc]
                        unit=unit,
                    ))  # fmt: skip
        for weights, lines in MERGED[epsilon].items():
            for biases, values in zip(RULES, lines, strict=True):
                for figure, unit, value in zip(("accuracy", "loss"), ("%", "nats"), values, strict=True):
                    found.append(Number(
                        f"epsilon {epsilon}, weights {weights}, biases {biases}: {figure}", together, value,
                        tolerance(epsilon, figure, value),
                        lambda rows, e=epsilon, w=weights, b=biases, f=figure: merges(rows, e, w, b, f),  # type: ignore[misc]
                        unit=unit,
                    ))  # fmt: skip
    return found


Measure = Callable[[Rows], Sequence[float]]


def _own(epsilon: float, topology: str) -> Callable[[Rows], dict[tuple[str, int], float]]:
    """The accuracy of each network on the data set that it was trained on, by data set and seed."""
    return lambda rows: {
        (s, seed): v for s in SETS for seed, v in enumerate(trained(rows, epsilon, s, s, topology=topology))
    }


def _gain(epsilon: float) -> Measure:
    """What SET adds, for each data set and seed."""

    def measure(rows: Rows) -> list[float]:
        evolved, static = _own(epsilon, "SET")(rows), _own(epsilon, "static")(rows)
        return [evolved[key] - v for key, v in static.items()]

    return measure


def _rule(epsilon: float, weights: Sequence[str], biases: Sequence[str]) -> Measure:
    """The mean over these rules, one for each seed."""

    def measure(rows: Rows) -> list[float]:
        table = [merges(rows, epsilon, w, b) for w in weights for b in biases]
        return [fmean(values) for values in zip(*table, strict=True)]

    return measure


def _best(epsilon: float) -> Measure:
    """The best of the 16 merged networks, one for each seed."""
    return lambda rows: [
        max(v) for v in zip(*(merges(rows, epsilon, w, b) for w in RULES for b in RULES), strict=True)
    ]


def _spread(epsilon: float, part: str) -> Measure:
    """How far the rules of one kind are apart on average over those of the other kind."""

    def measure(rows: Rows) -> list[float]:
        table = {(w, b): merges(rows, epsilon, w, b) for w in RULES for b in RULES}
        found = []
        for i in range(len(table[RULES[0], RULES[0]])):
            spans = []
            for other in RULES:
                line = [table[(r, other) if part == "weights" else (other, r)][i] for r in RULES]
                spans.append(max(line) - min(line))
            found.append(fmean(spans))
        return found

    return measure


def _orders() -> list[Claim]:
    found: list[Claim] = [
        Order(f"epsilon {e}: SET is more accurate than a static topology", f"thesis 1, section 6.5.{i}",
              _own(e, "SET"), _own(e, "static"))
        for i, e in enumerate(EPSILONS, 1)
    ]  # fmt: skip
    few, more = (_gain(e) for e in EPSILONS)
    found.append(Order(
        "epsilon 0.1: SET gains more over a static topology than at 0.5", "thesis 1, section 6.5", few, more,
    ))  # fmt: skip
    for i, e in enumerate(EPSILONS, 1):
        text = f"thesis 1, section 6.6.{i}"
        others = ("magnitude", "addition", "random") if e == 0.1 else ("magnitude", "random")
        good = ("average",) if e == 0.1 else ("average", "addition")
        found += [
            *(Order(f"epsilon {e}: biases by {' or '.join(good)} better than by {other}", text,
                    _rule(e, RULES, good), _rule(e, RULES, (other,))) for other in others),
            Order(f"epsilon {e}: the bias rule matters more than the weight rule", "thesis 1, section 6.7",
                  _spread(e, "biases"), _spread(e, "weights")),
            *(Order(f"epsilon {e}: weights by {rule} and by magnitude within 2 points", text,
                    _rule(e, (rule,), ("magnitude", "average", "addition")),
                    _rule(e, ("magnitude",), ("magnitude", "average", "addition")), least=-2.0)
              for rule in ("addition", "random")),
            Order(f"epsilon {e}: one network of all classes is better than the best merge", text,
                  lambda rows, e=e: trained(rows, e, "3", "3"), _best(e)),  # type: ignore[misc]
        ]  # fmt: skip
    found.append(Order(
        "epsilon 0.5: both parents are better on all classes than the best merge", "thesis 1, section 6.6.2",
        lambda rows: [min(v) for v in zip(*(trained(rows, 0.5, s, "3") for s in "12"), strict=True)],
        _best(0.5),
    ))  # fmt: skip
    for e in EPSILONS:
        found.append(Order(
            f"epsilon {e}: the merge of averages has a lower loss on all classes than both parents",
            "thesis 1, section 6.6",
            lambda rows, e=e: [-v for v in merges(rows, e, "average", "average", "loss")],  # type: ignore[misc]
            lambda rows, e=e: [  # type: ignore[misc]
                -min(v) for v in zip(*(trained(rows, e, s, "3", "loss") for s in "12"), strict=True)
            ], unit="nats",
        ))  # fmt: skip
    return found


# --- report


def report(rows: Rows) -> Results:
    """Tables 7 to 10 and the curves of the appendix as measured."""
    if not rows.where(kind="tested").rows:
        return {"summary": "No network has been trained yet."}
    return {
        "title": "Merging networks of disjoint classes: thesis 1, phase 1",
        "summary": _summary(rows),
        "tables": [_table(rows, e) for e in EPSILONS],
        "figures": [
            *(_heatmap(rows, e, figure) for e in EPSILONS for figure in ("accuracy", "loss")),
            *(_curves(rows, e, column) for e in EPSILONS for column in ("test_accuracy", "train_loss")),
        ],
    }  # fmt: skip


def _summary(rows: Rows) -> str:
    parts = []
    for e in EPSILONS:
        own = {t: fmean(_own(e, t)(rows).values()) for t in ("SET", "static")}
        one, best = (fmean(found) if found else 0.0 for found in (trained(rows, e, "3", "3"), _best(e)(rows)))
        parts.append(
            f"With epsilon {e}, networks reach {own['SET']:.0f} % of their own classes by SET and "
            f"{own['static']:.0f} % with the topology they were drawn with. Two of disjoint classes merge to "
            f"{best:.0f} % of all classes at best, where one network of all classes has {one:.0f} %."
        )
    return " ".join(parts)


def _table(rows: Rows, epsilon: float) -> Table:
    lines: list[list[Any]] = []
    for on in SETS:
        for topology in ("SET", "static"):
            line: list[Any] = [f"{on}, {topology}"]
            for tested in SETS:
                for figure in ("accuracy", "loss"):
                    found = trained(rows, epsilon, on, tested, figure, topology)
                    line.append(fmean(found) if found else None)
            lines.append(line)
    columns = ["Trained on", *(f"{f} on {s}" for s in SETS for f in ("accuracy (%)", "loss"))]
    return {
        "title": f"Networks with epsilon {epsilon}", "columns": columns, "rows": lines,
        "note": f"Mean over seeds; {TABLES[epsilon][0]}.",
    }  # fmt: skip


def _heatmap(rows: Rows, epsilon: float, figure: str) -> Heatmap:
    def value(w: str, b: str) -> float | None:
        found = merges(rows, epsilon, w, b, figure)
        return fmean(found) if found else None

    return {
        "kind": "heatmap", "title": f"Merged on all classes, epsilon {epsilon}: {figure}",
        "caption": f"Not pruned; mean over seeds; {TABLES[epsilon][1]}.", "rows": list(RULES),
        "columns": list(RULES), "values": [[value(w, b) for b in RULES] for w in RULES], "row": "weights",
        "column": "biases", "unit": "%" if figure == "accuracy" else "nats",
    }  # fmt: skip


def _curves(rows: Rows, epsilon: float, column: str) -> Lines:
    """Figures 31 to 39: the mean over seeds of each network."""
    scale, y = (100.0, "accuracy (%)") if column == "test_accuracy" else (1.0, "loss (nats)")
    lines: dict[str, list[list[float]]] = {}
    epochs: list[float] = []
    for r in rows.results:
        if r.epochs and r.config.get("epsilon") == epsilon:
            name = f"data set {r.config['trained_on']}, {r.config['topology']}"
            lines.setdefault(name, []).append([scale * e[column] for e in r.epochs])
            epochs = [float(e["epoch"]) for e in r.epochs]
    step = max(1, len(epochs) // POINTS)
    means = {name: [fmean(v) for v in zip(*found, strict=True)][::step] for name, found in lines.items()}
    series: list[Series] = [
        {"name": name, "x": epochs[::step], "y": [*values]} for name, values in means.items()
    ]
    of_all = "test accuracy on all classes" if column == "test_accuracy" else "training loss"
    return {
        "kind": "lines", "title": f"Training with epsilon {epsilon}: {of_all}",
        "caption": "Mean over seeds; figures 31 to 39.", "x": "epoch", "y": y, "series": series,
    }  # fmt: skip


_DATA = {"name": "fashion-mnist", "per_class": 5000, "seed": 0}
PAPER = {
    "seeds": {"0.1": 1, "0.5": 1}, "sets": SETS, "data": _DATA, "recipe": options_of(RECIPE), "watch": 1000,
    "static": {"0.1": 1, "0.5": 1},
    "epochs": {"0.1": 1500, "0.5": 150},
}  # fmt: skip
SMALL = {
    **PAPER,
    "seeds": {"0.1": 5, "0.5": 6},
    "static": {"0.1": 2, "0.5": 6},
    "data": {**_DATA, "per_class": 500},
    "watch": 50,
}
SMOKE = {
    **PAPER, "data": {"name": "digits", "per_class": 20, "test_per_class": 20, "seed": 0},
    "recipe": {**options_of(RECIPE), "model": "mlp:in-16-12-classes", "evolve_every": "4"}, "watch": 5,
    "epochs": {"0.1": 12, "0.5": 8},
}  # fmt: skip

STUDIES = [
    Study(
        "merging-phase-1",
        "Networks of disjoint classes, merged",
        "thesis 1, tables 3 and 7-10, figures 31-39",
        "Very sparse networks are trained on one half of the classes, on the other, or on all, with SET or a "
        "static topology. Can two that know different classes be merged into one that knows all of them?",
        cells,
        {
            "smoke": Preset(SMOKE, "3 s", ("digits",)),
            "small": Preset(SMALL, "10 min", ("fashion-mnist",), comparable=True),
            "paper": Preset(PAPER, "1 h, estimated", ("fashion-mnist",), comparable=True),
        },
        [*_numbers(), *_orders()],
        report,
        (
            "500 instead of 5000 training images of each class at preset small, and five seeds at epsilon "
            "0.1 (static networks: two) and six at 0.5 instead of one; the epochs and the 10,000 test images "
            "are the thesis's.",
            "The thesis does not say how large its batches are: full ones, as in its phase 2.",
        ),
    )
]
