"""``pruning-scores-as-weights``: train and prune from scores as initial values (section 5.4)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from regraft.report import Results, Table
from regraft.report.figures import Figure
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers.pruning import methods as m
from regraft.studies.papers.pruning import published, told, views
from regraft.studies.papers.pruning.methods import (
    GRASP,
    INITS,
    MAGNITUDE,
    NAMES,
    SCORES,
    SNIP,
    SYNFLOW,
    Method,
)
from regraft.studies.papers.pruning.network import STANDARD
from regraft.studies.papers.pruning.presets import DIFFERS, PAPER, SMALL, SMOKE
from regraft.studies.study import Cell, Preset, Rows, Study

SCHEDULE = {MAGNITUDE: "USS", SNIP: "UMS", GRASP: "USS", SYNFLOW: "UMS"}
STARTS = [STANDARD, *INITS]
METHODS = [Method(score, SCHEDULE[score], init) for score in SCORES for init in STARTS]
SOURCE = "thesis 5, section 5.4"


def on(score: str, init: str = STANDARD) -> Method:
    """A score alone, from these initial values."""
    return Method(score, SCHEDULE[score], init)


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """Whole networks and tickets from all initial values."""
    return [
        *m.cells(settings, METHODS),
        *(m.dense(settings, seed, init) for seed in settings["dense"] for init in STARTS),
    ]


def _whole(init: str, column: str = "accuracy", scale: float = 100.0) -> told.Samples:
    return told.samples(column, scale, kind="dense", init=init)


def _claims() -> list[Claim]:
    found: list[Claim] = []
    for init, (accuracy, iterations) in published.UNPRUNED.items():
        name = INITS.get(init, "standard")
        # GraSP's values train badly in the thesis, so that its mean of three runs says little
        near = 10.0 if init == "scores:grasp" else 0.6
        found += [
            Number(f"whole network on {name}", "thesis 5, table 5.4", accuracy, near, _whole(init)),
            Number(
                f"training iterations of the whole network on {name}", "thesis 5, table 5.4", iterations,
                0.25 * iterations, _whole(init, "iterations", 1.0), "steps", comparable=("paper",),
            ),
        ]  # fmt: skip
    ranked = sorted(published.UNPRUNED, key=lambda init: -published.UNPRUNED[init][0])
    for above, below in itertools.pairwise(ranked):
        text = f"whole network: {INITS.get(above, 'standard')} above {INITS.get(below, 'standard')}"
        gain = published.UNPRUNED[above][0] - published.UNPRUNED[below][0]
        found.append(
            Order(text, "thesis 5, table 5.4", _whole(above), _whole(below), published=round(gain, 2))
        )
    lines = {line.method: line for line in published.INITIAL}
    found += told.numbers(published.INITIAL, "thesis 5, figure 5.13")
    found += told.marks(
        published.INITIAL, lambda line: lines[on(line.method.score)], "thesis 5, figure 5.13, marked"
    )
    return [
        *found,
        told.better(SOURCE, on(GRASP, "scores:synflow"), on(GRASP), published=10.98),
        told.better(SOURCE, on(MAGNITUDE, "scores:snip"), on(MAGNITUDE), published=6.39),
    ]


def report(rows: Rows) -> Results:
    """Table 5.4, figures 5.12 and 5.13."""
    density = views.lowest(rows)
    if density is None:
        return {"summary": "No network has been pruned yet."}
    figures: list[Figure] = [
        views.density_lines(
            rows,
            [on(score, init) for init in INITS],
            f"{NAMES[score]} from other initial values (figure 5.12)",
            "Difference to the same score on standard ones, seed by seed.",
            relative_to=on(score),
        )
        for score in SCORES
    ]
    figures.append(
        views.boxes(rows, METHODS, density, f"All at {views.percent(density)} (figure 5.13)", "Best first.")
    )
    found = views.best(rows, [on(SYNFLOW, "scores:snip")], density)
    before = views.best(rows, [on(SYNFLOW)], density)
    snip = views.best(rows, [on(SNIP)], density)
    summary = ""
    if found and before and snip:
        summary = (
            f"At {views.percent(density)} SynFlow reaches {found[1]:.1f} % from SNIP's scores as initial "
            f"values and {before[1]:.1f} % from standard ones; SNIP alone has {snip[1]:.1f} %."
        )
    return {
        "title": STUDY.title,
        "summary": summary,
        "figures": figures,
        "tables": [
            _unpruned(rows),
            views.accuracy_table(
                rows, published.INITIAL, "Accuracy (%), here and in the thesis (figure 5.13)",
                {method: on(method.score) for method in METHODS},
                "* differs from the same score on standard initial values of the same seeds, paired test, "
                "p < 0.05.",
            ),
        ],
    }  # fmt: skip


def _unpruned(rows: Rows) -> Table:
    cells = []
    for init, (accuracy, iterations) in published.UNPRUNED.items():
        values = [*_whole(init)(rows).values()]
        if values:
            mean, spread = views.mean_and_spread(values)
            steps = [*_whole(init, "iterations", 1.0)(rows).values()]
            cells.append(
                [
                    INITS.get(init, "standard"),
                    mean,
                    spread,
                    accuracy,
                    views.mean_and_spread(steps)[0],
                    iterations,
                ]
            )
    return {
        "title": "Whole networks by their initial values (table 5.4)",
        "columns": ["initial values", "accuracy, %", "spread", "thesis", "iterations", "thesis, iterations"],
        "rows": cells,
    }


STUDY = Study(
    name="pruning-scores-as-weights",
    title="Pruning scores as initial values",
    reproduces="thesis 5, table 5.4, figures 5.12, 5.13",
    about="A score, with the weight's sign and scaled to [-1, 1], replaces the initial weights; the network "
    "is trained whole, or pruned by each score and trained. Values drawn from two bumps are the control.",
    cells=cells,
    presets={
        "smoke": Preset({**SMOKE, "dense": [0, 1], "grid": [[0.1, [0, 1]]]}, "4 s"),
        "small": Preset({**SMALL, "dense": [0]}, "6 min", data=("mnist",), comparable=True),
        "paper": Preset({**PAPER, "dense": [0, 1, 2]}, "a day", data=("mnist",), comparable=True),
    },
    claims=_claims(),
    report=report,
    differs=(
        *DIFFERS,
        "The thesis does not give the distribution of its bi-modal values; here two bumps with the mean "
        "square of He's initialisation.",
    ),
)
STUDIES = [STUDY]
