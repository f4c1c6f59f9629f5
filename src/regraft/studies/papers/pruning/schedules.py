"""``pruning-schedules``: every score under every schedule, so that the two are told apart (section 5.1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.report import Results, Table
from regraft.report.figures import Bars, Figure
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers.pruning import methods as m
from regraft.studies.papers.pruning import told, views
from regraft.studies.papers.pruning.methods import MAGNITUDE, NAMES, SCORES, SNIP, SYNFLOW, Method
from regraft.studies.papers.pruning.presets import DIFFERS, PAPER, SMALL, SMOKE
from regraft.studies.study import Cell, Preset, Rows, Study

SCHEDULES = {
    "USS": "before training, one shot",
    "UMS": "before training, many shots",
    "ISS": "in rounds of training, one shot each",
    "IMS": "in rounds of training, many shots each",
}
METHODS = [Method(score, schedule) for score in SCORES for schedule in SCHEDULES]
ORIGINAL = {"magnitude": "ISS", "snip": "USS", "grasp": "USS", "synflow": "UMS"}
"""The schedule that each score was published with."""
IMP = Method(MAGNITUDE, "ISS")
SOURCE = "thesis 5, section 5.1.1"


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """All scores under all schedules, and comparisons at the lowest density."""
    lowest = min(density for density, _ in settings["grid"])
    return [
        *m.cells(settings, METHODS),
        *(m.compared(settings, METHODS, lowest, seed) for seed in settings["compared"]),
    ]


def _claims() -> list[Claim]:
    found: list[Claim] = [
        told.better(SOURCE, Method(SNIP, "UMS"), Method(SNIP, "USS")),
        told.better(SOURCE, Method(SYNFLOW, "UMS"), Method(SYNFLOW, "USS")),
        told.better(SOURCE, Method(SNIP, "UMS"), Method(SYNFLOW, "UMS"), published=0.94),
        Number(
            "magnitude: many shots before training change nothing, density 0.5 %", SOURCE, 0.0, 0.01,
            told.difference(
                told.accuracy(Method(MAGNITUDE, "UMS"), 0.005), told.accuracy(Method(MAGNITUDE, "USS"), 0.005)
            ),
            "points",
        ),
        Number(
            "SynFlow in rounds - IMP, density 0.5 %", "thesis 5, section 6.1", 2.45, 1.5,
            told.difference(
                told.accuracy(Method(SYNFLOW, "IMS"), 0.005), told.accuracy(IMP, 0.005)
            ),
            "points",
        ),
    ]  # fmt: skip
    for score in SCORES:
        for upfront, rounds in (("USS", "ISS"), ("UMS", "IMS")):
            found.append(told.better(SOURCE, Method(score, rounds), Method(score, upfront)))
    for score, schedule in ((SYNFLOW, "IMS"), (SYNFLOW, "ISS"), (SNIP, "IMS"), (SNIP, "ISS")):
        found.append(told.better("thesis 5, figure 5.5", Method(score, schedule), IMP))
    others = [
        each for each in METHODS if each.schedule[0] == "I" and each not in (Method(SYNFLOW, "IMS"), IMP)
    ]
    found += [told.better("thesis 5, section 5.2.1", Method(SYNFLOW, "IMS"), other) for other in others]
    return found + [claim for score in SCORES for claim in _distinct(score)]


def _distinct(score: str) -> list[Claim]:
    """Figure 5.6: networks of one score under two schedules have little in common."""

    def shared(a: str, b: str) -> told.Samples:
        return told.samples("jaccard", kind="pair", density=0.005, a=f"{score} {a}", b=f"{score} {b}")

    once, many = shared("USS", "ISS"), shared("USS", "UMS")
    found: list[Claim] = [
        Number(
            f"{NAMES[score]}: Jaccard index of before training and in rounds, density 0.5 %",
            "thesis 5, figure 5.6a",
            0.0,
            0.1,
            once,
            "",
        ),
    ]
    if score != MAGNITUDE:  # of magnitudes many shots are one
        found.append(
            Order(
                f"{NAMES[score]}: one shot and many share less than half of their connections, density 0.5 %",
                "thesis 5, figure 5.6b",
                told.constant(0.5, many),
                many,
                unit="",
            )
        )
    return found


def report(rows: Rows) -> Results:
    """Figures 5.4 to 5.6."""
    density = views.lowest(rows)
    if density is None:
        return {"summary": "No network has been pruned yet."}
    figures: list[Figure] = [_matrix_bars(rows, density)]
    for score in SCORES:
        own = Method(score, ORIGINAL[score])
        figures.append(
            views.density_lines(
                rows,
                [each for each in METHODS if each.score == score],
                f"{NAMES[score]} under each schedule (figure 5.4)",
                f"Difference to the schedule that it was published with, {own.schedule}, seed by seed.",
                relative_to=own,
            )
        )
    for title, group, reference in (
        ("Every score in rounds, beside IMP (figure 5.5a)", "IM", IMP),
        ("Every score before training, beside SynFlow (figure 5.5b)", "UM", Method(SYNFLOW, "UMS")),
    ):
        chosen = [e for e in METHODS if e.schedule[0] == group[0]]
        figures.append(
            views.density_lines(rows, chosen, title, "Differences, seed by seed.", relative_to=reference)
        )
    figures += [_distances(rows, density), views.times(rows, METHODS, density)]
    best = views.best(rows, METHODS, density)
    worst = views.best(rows, [IMP], density)
    summary = ""
    if best and worst:
        summary = (
            f"At {views.percent(density)} the best of four scores under four schedules is {best[0]} with "
            f"{best[1]:.1f} %; magnitudes in rounds of training (IMP) reach {worst[1]:.1f} %."
        )
    return {
        "title": STUDY.title, "summary": summary, "figures": figures, "tables": [_table(rows, density)]
    }  # fmt: skip


def _matrix_bars(rows: Rows, density: float) -> Bars:
    return views.bars(
        f"Four scores under four schedules at {views.percent(density)}",
        "; ".join(f"{name}: {text}" for name, text in SCHEDULES.items()),
        "accuracy, %",
        {
            NAMES[score]: {
                schedule: views.of_seeds(rows, Method(score, schedule), density) for schedule in SCHEDULES
            }
            for score in SCORES
        },
    )


def _distances(rows: Rows, density: float) -> Bars:
    """Figure 5.6: how much two schedules of one score share."""
    changes = {
        "before training / in rounds": ("USS", "ISS"),
        "the same, many shots": ("UMS", "IMS"),
        "one shot / many, before": ("USS", "UMS"),
        "one shot / many, in rounds": ("ISS", "IMS"),
    }
    pairs = rows.where(kind="pair", density=density)
    return views.bars(
        f"Connections that two schedules of one score share, at {views.percent(density)} (figure 5.6)",
        "Jaccard index of the tickets of one seed.",
        "Jaccard index",
        {
            NAMES[score]: {
                name: pairs.where(a=f"{score} {a}", b=f"{score} {b}").column("jaccard")
                for name, (a, b) in changes.items()
            }
            for score in SCORES
        },
    )


def _table(rows: Rows, density: float) -> Table:
    cells = []
    for method in METHODS:
        values = views.of_seeds(rows, method, density)
        if values:
            mean, spread = views.mean_and_spread(values)
            found = rows.where(density=density, **method.wanted)
            cells.append(
                [method.name, mean, spread, len(values), found.mean("effective"), found.mean("unreachable")]
            )
    return {
        "title": f"Accuracy (%) at {views.percent(density)}",
        "columns": ["method", "mean", "spread", "seeds", "connections on a path", "classes cut off"],
        "rows": cells,
    }


STUDY = Study(
    name="pruning-schedules",
    title="Four scores under four schedules",
    reproduces="thesis 5, figures 5.4-5.6",
    about="An ablation: is it the score or the schedule, before training or in rounds of it, in one shot or "
    "many, that makes a sparse network accurate? Do two schedules of one score find the same connections?",
    cells=cells,
    presets={
        "smoke": Preset({**SMOKE, "compared": [0], "grid": [[0.1, [0]], [0.5, [0]]]}, "4 s"),
        "small": Preset(
            {**SMALL, "compared": [0, 1], "grid": [[0.005, [0, 1]]]},
            "8 min",
            data=("mnist",),
            comparable=True,
        ),
        "paper": Preset({**PAPER, "compared": [0, 1, 2]}, "two days", data=("mnist",), comparable=True),
    },
    claims=_claims(),
    report=report,
    differs=DIFFERS,
)
STUDIES = [STUDY]
