"""``pruning-baselines``: the known scores as they were published, and how alike their networks are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Figure
from regraft.report.schema import Histogram, Panel
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers.pruning import methods as m
from regraft.studies.papers.pruning import published, told, views
from regraft.studies.papers.pruning.methods import Method
from regraft.studies.papers.pruning.presets import DIFFERS, PAPER, SMALL, SMOKE
from regraft.studies.study import Cell, Preset, Rows, Study

RANDOM = Method("random", "USS")
IMP = Method("magnitude", "ISS")
MAGNITUDE = Method("magnitude", "USS")
SNIP_ONCE, SNIP = Method("snip", "USS"), Method("snip", "UMS")
GRASP = Method("grasp", "USS")
SYNFLOW = Method("synflow", "UMS")
METHODS = [IMP, SNIP, SYNFLOW, SNIP_ONCE, GRASP, MAGNITUDE, RANDOM]
PUBLISHED_SO = [IMP, SNIP_ONCE, GRASP, SYNFLOW]
"""Each score under the schedule that it was published with; these are compared in figures 5.2 and 5.3."""


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Tickets of all methods, whole networks, and comparisons at the lowest density."""
    seeds = settings["compared"]
    lowest = min(density for density, _ in settings["grid"])
    return [
        *(m.dense(settings, seed) for seed in seeds),
        *m.cells(settings, METHODS),
        *(m.compared(settings, PUBLISHED_SO, lowest, seed) for seed in seeds),
    ]


def _claims() -> list[Claim]:
    known = {MAGNITUDE, SNIP, GRASP, SYNFLOW}
    lines = [line for line in published.STACKS if line.method in known]
    lines += [line for line in published.COMBINED if line.method == IMP]
    found: list[Claim] = [
        Number(
            "the whole network", "thesis 5, section 5.1", 98.24, 0.4,
            told.samples("accuracy", 100.0, kind="dense", init="standard"),
        ),
        *told.numbers(lines, "thesis 5, figures 5.11, 5.13 and 5.14"),
        told.better("thesis 5, section 5.1", SNIP_ONCE, GRASP),
        *(told.better("thesis 5, figure 5.1", each, RANDOM) for each in METHODS if each != RANDOM),
        Order(
            "random pruning holds until 2 % and drops significantly below: 2 % above 1 %",
            "thesis 5, section 5.1",
            told.accuracy(RANDOM, 0.02),
            told.accuracy(RANDOM, 0.01),
            least=10.0,
        ),
        Order(
            "tickets of different scores share more than chance would give, density 0.5 %",
            "thesis 5, figure 5.3",
            told.samples("jaccard", kind="pair", density=0.005),
            told.samples("expected", kind="pair", density=0.005),
            unit="",
        ),
    ]  # fmt: skip
    for line in published.COMBINED:
        if line.method == IMP:
            found += [
                told.better("thesis 5, figure 5.14", IMP, SNIP, d, published=round(line.at(d) - 89.83, 2))
                for d in (0.005,)
            ]
    found += [_larger(method) for method in PUBLISHED_SO]
    return found


def _larger(method: Method) -> Order:
    """Figure 5.2: kept weights come from two bumps away from 0, which larger magnitudes stand for."""
    size = told.samples("relative_magnitude", kind="weights", a=f"{method.score} {method.schedule}")
    return Order(
        f"{method.name} keeps weights whose initial magnitude is above the mean",
        "thesis 5, figure 5.2",
        size,
        told.constant(1.0, size),
        unit="",
    )


def report(rows: Rows) -> Results:
    """Figures 5.1 to 5.3, and what else tells the tickets apart."""
    density = views.lowest(rows)
    if density is None:
        return {"summary": "No network has been pruned yet."}
    figures: list[Figure] = [
        views.density_lines(
            rows, METHODS, "Accuracy of sparse networks (figure 5.1)", "Mean and spread over seeds."
        ),
        views.boxes(
            rows, METHODS, density, f"At density {views.percent(density)}", "One value for each seed."
        ),
        *views.overlap(rows, density),
        views.layer_densities(rows, METHODS, density),
        *views.patterns(rows, METHODS, density),
        views.learning_curves(rows, METHODS, density),
        views.times(rows, METHODS, density),
    ]
    best = views.best(rows, [each for each in METHODS if each != IMP], density)
    imp = views.best(rows, [IMP], density)
    known = {MAGNITUDE, SNIP, GRASP, SYNFLOW}
    summary = ""
    if best and imp:
        summary = (
            f"With {views.percent(density)} of the weights left, the best of the known scores before "
            f"training is {best[0]} with {best[1]:.1f} %; pruning in rounds of training (IMP) "
            f"reaches {imp[1]:.1f} %."
        )
    return {
        "title": STUDY.title,
        "summary": summary,
        "figures": figures,
        "histogram": values(rows, density),
        "tables": [
            views.accuracy_table(
                rows,
                [line for line in published.STACKS if line.method in known],
                "Accuracy (%), here and in the thesis",
                dict.fromkeys(known, SNIP),
                "* differs from multi-shot SNIP of the same seeds, paired test, p < 0.05. Figure 5.11 has no "
                "marks.",
            )
        ],
    }


def values(rows: Rows, density: float) -> Histogram:
    """Figure 5.2: the initial and final values of the weights that each method keeps."""
    panels: list[Panel] = []
    bins = rows.where(kind="bin", density=density, seed=min(rows.where(kind="bin").column("seed"), default=0))
    for (name,), each in bins.by("a").items():
        sets = [views.value_set(when, found) for (when,), found in each.by("when").items()]
        panels.append({"name": name, "sets": sets})
    return {
        "title": f"Weights kept at density {views.percent(density)} (figure 5.2)",
        "caption": "Initial and trained values of the kept weights, one seed.",
        "unit": "weight",
        "panels": panels,
    }


STUDY = Study(
    name="pruning-baselines",
    title="Known pruning scores on LeNet-300-100",
    reproduces="thesis 5, figures 5.1-5.3",
    about="How accurate are sparse networks that SNIP, GraSP, SynFlow, magnitudes and iterative magnitude "
    "pruning find on MNIST, down to half a percent of the weights, and do they find the same connections?",
    cells=cells,
    presets={
        "smoke": Preset({**SMOKE, "compared": [0, 1]}, "3 s"),
        "small": Preset(
            {
                **SMALL,
                "compared": [0, 1, 2],
                "grid": [[0.005, [0, 1, 2]], [0.01, [0]], [0.02, [0]], [0.1, [0]]],
            },
            "10 min",
            data=("mnist",),
            comparable=True,
        ),
        "paper": Preset(
            {
                **PAPER,
                "compared": [0, 1, 2],
                "grid": [
                    [d, [0, 1, 2]] for d in (0.004, *published.DENSITIES[:4], 0.02, 0.05, 0.1, 0.2, 0.5)
                ],
            },
            "a day",
            data=("mnist",),
            comparable=True,
        ),
    },
    claims=_claims(),
    report=report,
    differs=DIFFERS,
)
STUDIES = [STUDY]
