"""``pruning-stacked``: one score computed on another, all pairs of four (section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Figure
from regraft.studies.claims import Claim, Number
from regraft.studies.papers.pruning import methods as m
from regraft.studies.papers.pruning import published, told, views
from regraft.studies.papers.pruning.methods import (
    GRASP,
    MAGNITUDE,
    NAMES,
    SCORES,
    SNIP,
    SYNFLOW,
    Method,
    stack,
)
from regraft.studies.papers.pruning.presets import DIFFERS, PAPER, SMALL, SMOKE
from regraft.studies.study import Cell, Preset, Rows, Study

STACKS = [Method(stack(a, b)) for a in SCORES for b in SCORES]
ALONE = [Method(SNIP), Method(SYNFLOW), Method(GRASP, "USS"), Method(MAGNITUDE, "USS")]
SOURCE = "thesis 5, section 5.3"


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Tickets of all stacks and of the scores alone, and the whole network."""
    return [
        *(m.dense(settings, seed) for seed in settings["dense"]),
        *m.cells(settings, [*STACKS, *ALONE]),
    ]


def _equal(text: str, a: Method, b: Method) -> Number:
    """That two methods do not differ: the thesis finds no significant difference in three runs."""
    return Number(
        f"{text}, density 0.5 %", SOURCE, 0.0, 1.0,
        told.difference(told.accuracy(a, 0.005), told.accuracy(b, 0.005)), "points",
    )  # fmt: skip


def _claims() -> list[Claim]:
    return [
        *told.numbers(published.STACKS, "thesis 5, figure 5.11"),
        told.better(SOURCE, Method(stack(GRASP, MAGNITUDE)), Method(GRASP, "USS"), published=14.44),
        Number(
            "GraSP/Mag - SNIP, density 0.5 %: no significant difference", SOURCE, 0.68, 2.0,
            told.difference(
                told.accuracy(Method(stack(GRASP, MAGNITUDE)), 0.005), told.accuracy(Method(SNIP), 0.005)
            ),
            "points",
        ),
        Number(
            "SNIP/SNIP - SNIP, density 0.5 %: no significant difference", SOURCE, 0.37, 2.0,
            told.difference(
                told.accuracy(Method(stack(SNIP, SNIP)), 0.005), told.accuracy(Method(SNIP), 0.005)
            ),
            "points",
        ),
        _equal("magnitude on SynFlow changes nothing", Method(stack(SYNFLOW, MAGNITUDE)), Method(SYNFLOW)),
        _equal("magnitude on SNIP changes nothing", Method(stack(SNIP, MAGNITUDE)), Method(SNIP)),
        *(
            told.better(
                SOURCE, Method(stack(a, b)), Method(SYNFLOW),
                text=f"{NAMES[a]}/{NAMES[b]} above SynFlow on average (not significant), density 0.5 %",
            )
            for a, b in ((SNIP, SYNFLOW), (MAGNITUDE, SNIP))
        ),
    ]  # fmt: skip


def report(rows: Rows) -> Results:
    """Figures 5.10 and 5.11."""
    density = views.lowest(rows)
    if density is None:
        return {"summary": "No network has been pruned yet."}
    figures: list[Figure] = [
        views.density_lines(
            rows,
            [*(Method(stack(first, b)) for b in SCORES), *(a for a in ALONE if a.score == first)],
            f"Stacks that begin with {NAMES[first]} (figure 5.10)",
            "The second score is computed with the first one's scores in place of the weights.",
        )
        for first in SCORES
    ]
    figures += [
        views.boxes(
            rows, [*STACKS, *ALONE], density, f"All stacks at {views.percent(density)} (figure 5.11)",
            "Best first.",
        ),
        views.layer_densities(rows, STACKS, density),
    ]  # fmt: skip
    best, snip = views.best(rows, STACKS, density), views.best(rows, [Method(SNIP)], density)
    summary = ""
    if best and snip:
        summary = (
            f"At {views.percent(density)} the best stack is {best[0]} with {best[1]:.1f} %; multi-shot SNIP "
            f"alone has {snip[1]:.1f} %."
        )
    methods = [line.method for line in published.STACKS]
    return {
        "title": STUDY.title,
        "summary": summary,
        "figures": figures,
        "tables": [
            views.accuracy_table(
                rows, published.STACKS, "Accuracy (%), here and in the thesis (figure 5.11)",
                dict.fromkeys(methods, Method(SNIP)),
                "* differs from multi-shot SNIP of the same seeds, paired test, p < 0.05.",
            )
        ],
    }  # fmt: skip


STUDY = Study(
    name="pruning-stacked",
    title="Pruning scores stacked on each other",
    reproduces="thesis 5, figures 5.10, 5.11",
    about="Stacked scoring computes a second score with the first one's scores in place of the weights. All "
    "sixteen pairs of SNIP, SynFlow, GraSP and magnitude, beside each of them alone.",
    cells=cells,
    presets={
        "smoke": Preset({**SMOKE, "dense": [0], "grid": [[0.1, [0, 1]]]}, "4 s"),
        "small": Preset({**SMALL, "dense": [0, 1, 2]}, "8 min", data=("mnist",), comparable=True),
        "paper": Preset({**PAPER, "dense": [0, 1, 2]}, "a day", data=("mnist",), comparable=True),
    },
    claims=_claims(),
    report=report,
    differs=DIFFERS,
)
STUDIES = [STUDY]
