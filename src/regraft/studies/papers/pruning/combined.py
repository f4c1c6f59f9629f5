"""``pruning-combined``: stacks on scores as initial values, beside pruning in rounds (section 5.4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Figure
from regraft.studies.claims import Claim, Number
from regraft.studies.papers.pruning import methods as m
from regraft.studies.papers.pruning import published, told, views
from regraft.studies.papers.pruning.methods import MAGNITUDE, SNIP, SYNFLOW, Method, stack
from regraft.studies.papers.pruning.presets import DIFFERS, PAPER, SMALL, SMOKE
from regraft.studies.study import Cell, Preset, Rows, Study

METHODS = [line.method for line in published.COMBINED]
BEST = Method(stack(MAGNITUDE, SYNFLOW), init="scores:snip")
SECOND = Method(stack(SYNFLOW, MAGNITUDE), init="scores:snip")
ON_SNIP = Method(SYNFLOW, init="scores:snip")
BASELINE = Method(SNIP)
IMP = Method(MAGNITUDE, "ISS")
BEYOND = Method("variance-flow")
"""Not in the thesis: SynFlow on squared weights with the inputs' variances, the best upfront score here."""
SOURCE = "thesis 5, section 5.4.1"


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """The twenty methods of figure 5.14 and one more; IMP on a grid of its own, since it costs most."""
    upfront = [*(each for each in METHODS if each != IMP), BEYOND]
    lowest = min(density for density, _ in settings["grid"])
    return [
        *(m.dense(settings, seed) for seed in settings["dense"]),
        *m.cells(settings, upfront),
        *m.cells({**settings, "grid": settings["imp_grid"]}, [IMP]),
        *(
            m.compared(settings, [BEST, SECOND, ON_SNIP, BASELINE, BEYOND], lowest, seed)
            for seed in settings["dense"]
        ),
    ]


def _claims() -> list[Claim]:
    lines = {line.method: line for line in published.COMBINED}
    source = "thesis 5, figure 5.14"
    found: list[Claim] = [
        *told.numbers(published.COMBINED, source),
        *told.marks(published.COMBINED, lambda line: lines[BASELINE], f"{source}, marked"),
        Number(
            "Mag/SynFlow on SNIP - SNIP, density 0.5 %", "thesis 5, abstract", 2.03, 1.5,
            told.difference(told.accuracy(BEST, 0.005), told.accuracy(BASELINE, 0.005)), "points",
        ),
        Number(
            "Mag/SynFlow on SNIP - IMP, density 0.5 %: equal", SOURCE, 0.95, 1.5,
            told.difference(told.accuracy(BEST, 0.005), told.accuracy(IMP, 0.005)), "points",
        ),
    ]  # fmt: skip
    for density in published.DENSITIES[1:]:
        gain = lines[IMP].at(density) - lines[BEST].at(density)
        found.append(told.better(SOURCE, IMP, BEST, density, published=round(gain, 2)))
    return found


def report(rows: Rows) -> Results:
    """Figure 5.14."""
    density = views.lowest(rows)
    if density is None:
        return {"summary": "No network has been pruned yet."}
    chosen = [BEST, SECOND, ON_SNIP, BASELINE, Method(SYNFLOW), IMP, BEYOND]
    figures: list[Figure] = [
        views.density_lines(
            rows, chosen, "The best of the composites, and what they are held against", "Mean and spread."
        ),
        views.density_lines(
            rows, [each for each in chosen if each != BASELINE], "Difference to multi-shot SNIP",
            "Seed by seed.", relative_to=BASELINE,
        ),
        views.boxes(
            rows, [*METHODS, BEYOND], density, f"All at {views.percent(density)} (figure 5.14)", "Best first."
        ),
        *views.overlap(rows, density),
        *views.patterns(rows, chosen, density),
        views.times(rows, chosen, density),
    ]  # fmt: skip
    parts = []
    for method in (BEST, BASELINE, IMP, BEYOND):
        found = views.best(rows, [method], density)
        if found:
            parts.append(f"{found[0]} {found[1]:.1f} %")
    return {
        "title": STUDY.title,
        "summary": f"With {views.percent(density)} of the weights left: {', '.join(parts)}.",
        "figures": figures,
        "tables": [
            views.accuracy_table(
                rows, published.COMBINED, "Accuracy (%), here and in the thesis (figure 5.14)",
                dict.fromkeys(METHODS, BASELINE),
                "* differs from multi-shot SNIP on standard initial values of the same seeds, paired test, "
                "p < 0.05.",
            )
        ],
    }  # fmt: skip


STUDY = Study(
    name="pruning-combined",
    title="Stacked scores on scores as initial values",
    reproduces="thesis 5, figure 5.14",
    about="The thesis's last experiment puts its ideas together: stacked scores prune networks that start "
    "from scores as weights. Does the best composite before training equal pruning in rounds of training?",
    cells=cells,
    presets={
        "smoke": Preset({**SMOKE, "dense": [0], "grid": [[0.1, [0, 1]]], "imp_grid": [[0.1, [0]]]}, "4 s"),
        "small": Preset(
            {
                **SMALL,
                "dense": [0, 1, 2],
                "grid": [[0.005, [0, 1, 2]]],
                "imp_grid": [[0.005, [0, 1, 2]], [0.01, [0]]],
            },
            "12 min",
            data=("mnist",),
            comparable=True,
        ),
        "paper": Preset(
            {**PAPER, "dense": [0, 1, 2], "imp_grid": PAPER["grid"]},
            "a day",
            data=("mnist",),
            comparable=True,
        ),
    },
    claims=_claims(),
    report=report,
    differs=(
        *DIFFERS,
        "The thesis also runs its learned scores on every kind of initial values; none is among the twenty "
        "that it prints, and none is run here.",
        "Variance flow is not in the thesis: it stands beside the composites as a measure of what a score "
        "before training can reach.",
    ),
)
STUDIES = [STUDY]
