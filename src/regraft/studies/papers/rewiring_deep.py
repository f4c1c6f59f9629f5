"""Thesis 3's network of four layers of 4000 units, and what happens in its first 100 epochs.

There the thesis sees accuracy stuck at chance: for about 30 epochs with SET and LDV, for about 10 with EXD
and OSV, which it explains by rates of evolution that fall sooner. The trainings called ``first epochs`` have
the rates of the first epochs of 500, exactly; two controls, a rate that falls twelve times faster and a
topology that never changes, show what lower rates do there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Figure, Lines, box
from regraft.schedules import Progress
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers.rewiring_common import FAST, FIXED, SPARSE
from regraft.studies.study import Cell, Preset, Row, Rows, Study
from regraft.train.optimizers import rate_by_name

FIRST, WHOLE = "first epochs", "whole training"
ALL = (*SPARSE, FAST, FIXED)
STUCK = {"SET": 30, "LDV": 30, "EXD": 10, "OSV": 10}
"""Epochs at an accuracy of chance (section 5.3.4)."""


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """The cells of a preset: a whole training for each method and seed, and the first epochs of more."""
    yield Cell(common.counting, {"sizes": settings["sizes"], "epsilon": settings["epsilon"]})
    yield from common.trainings({**settings, **settings["whole"]}, SPARSE)
    if settings["first"]:
        yield from common.trainings({**settings, **settings["first"]}, ALL)


def part(rows: Rows, which: str) -> Rows:
    """The rows of the first epochs, or of whole trainings; where there are no first epochs of their own, a
    whole training's."""
    own = [r for r in rows.rows if r.get("stop") is not None]
    rest = [r for r in rows.rows if r.get("stop") is None]
    chosen = own if which == FIRST and own else rest
    return Rows(chosen, rows.results, rows.preset, rows.missing)


def stuck(method: str) -> Callable[[Rows], list[float]]:
    """Epochs before a network's accuracy first is twice that of guessing, a sample a seed; all of its epochs
    where that never is."""

    def values(rows: Rows) -> list[float]:
        chosen = part(rows, FIRST).where(kind="training", method=method).rows
        lines = {r.key: r.epochs for r in rows.results}
        found = []
        for row in sorted(chosen, key=lambda r: int(r["seed"])):
            above = [e["test_accuracy"] >= 2 * row["chance"] for e in lines[row["cell"]]]
            found.append(float(above.index(True) if True in above else len(above)))
        return found

    return values


def rate_at(method: str, epoch: int, interest: float = 0.01, epochs: int = 500) -> float:
    """The share of the connections that a method replaces after so many of its epochs.

    >>> [round(rate_at(m, 10), 3) for m in SPARSE]
    [0.3, 0.294, 0.293, 0.271]
    """
    return rate_by_name(common.rate_of(method, interest))(Progress(epoch, epochs))


def _claims() -> list[Claim]:
    source = "thesis 3, section 5.3.4"
    long, deep = "thesis 3, section 5.3.4 and figure 5.18", ("small", "paper")

    def size(column: str, factor: float = 1.0) -> Callable[[Rows], list[float]]:
        return lambda rows: [factor * v for v in rows.where(kind="size").column(column)]

    def fewer(better: str, worse: str) -> Order:
        return Order(
            f"{better} is stuck at chance for fewer epochs than {worse}", long,
            stuck(worse), stuck(better), published=float(STUCK.get(worse, 0) - STUCK.get(better, 0)) or None,
            unit="epochs",
        )  # fmt: skip

    def accuracy(method: str) -> Callable[[Rows], list[float]]:
        return lambda rows: common.of("accuracy", method)(part(rows, WHOLE))

    def time(method: str) -> Callable[[Rows], list[float]]:
        return lambda rows: common.share("epoch_ms", method, "SET")(part(rows, WHOLE))

    return [
        Number("millions of parameters of the dense network", source, 51.2, 0.05,
               size("dense_parameters", 1e-6), unit="", comparable=deep),
        # the thesis rounds, and may count the biases or the full output layer otherwise
        Number("thousands of parameters of a sparse network", source, 650, 32.5, size("parameters", 1e-3),
               unit="", comparable=deep),
        Number("compression", source, 78.7, 3.9, size("compression"), unit="x", comparable=deep),
        # epochs of 600 steps, read from a curve: half of the number itself
        *(Number(f"epochs that {m} is stuck at chance", long, n, 0.5 * n, stuck(m), unit="epochs")
          for m, n in STUCK.items()),
        *(fewer(a, b) for a in ("EXD", "OSV") for b in ("SET", "LDV")),
        *(Order(f"EXD is more accurate than {m}", f"{source} and figure 5.17", accuracy("EXD"), accuracy(m))
          for m in SPARSE[:3]),
        *(Order(f"{m} trains faster than SET", f"{source} and figure 5.16", common.whole(time(m)), time(m))
          for m in SPARSE[1:]),
    ]  # fmt: skip


def report(rows: Rows) -> Results:
    """Accuracy over epochs, the first epochs apart, rates, time and size (figures 5.16 to 5.18)."""
    if not rows.where(kind="training"):
        return {"summary": "No network is trained yet."}
    whole, first = part(rows, WHOLE), part(rows, FIRST)
    waits = {m: values for m in ALL if (values := stuck(m)(rows))}
    accuracy = {m: v for m in SPARSE if (v := whole.where(method=m).mean("accuracy")) is not None}
    caption = "Means and spread over seeds"
    figures: list[Figure] = [
        common.accuracy_lines(first, "Accuracy in the first epochs", f"{caption} (figure 5.18)."),
        {"kind": "boxes", "title": "Epochs stuck at chance", "y": "epochs",
         "caption": "Before the test accuracy first is twice that of guessing; one value a seed.",
         "boxes": [box(m, values) for m, values in waits.items()]},
        _rates(rows),
        common.accuracy_lines(whole, "Accuracy of whole trainings", f"{caption} (figure 5.17)."),
        common.accuracy_boxes(whole, "Accuracy at the end", "Over seeds."),
        common.time_bars("Training", "Medians of processor time (figure 5.16).", {"an epoch": whole},
                         "epoch_ms", "ms an epoch", SPARSE),
        *common.pattern_pictures(whole, "Connectivity of the first layer"),
    ]  # fmt: skip
    return {
        "summary": _summary(waits, accuracy),
        "facts": [{"label": f"{m}: stuck", "value": f"{statistics.fmean(v):.1f} epochs",
                   "note": f"{STUCK[m]} in the thesis" if m in STUCK else "control"}
                  for m, v in waits.items()],
        "tables": [_table(rows, waits)],
        "figures": figures,
    }  # fmt: skip


def _summary(waits: Mapping[str, list[float]], accuracy: Mapping[str, float]) -> str:
    words = ", ".join(f"{m} {statistics.fmean(v):.1f}" for m, v in waits.items())
    text = f"Mean epochs stuck at chance: {words}."
    if accuracy:
        best = max(accuracy, key=lambda m: accuracy[m])
        text += f" After a whole training {best} is the most accurate with {accuracy[best]:.1f} %."
    return text


def _rates(rows: Rows) -> Lines:
    """The rates that the first epochs have had."""
    cells = {r["cell"]: r["method"] for r in part(rows, FIRST).where(kind="training").rows if r["seed"] == 0}
    return {
        "kind": "lines", "title": "Rates in the first epochs", "x": "epoch", "y": "connections replaced, %",
        "caption": "The rates of the thesis's methods hardly differ where it sees them part.",
        "series": [
            {"name": cells[r.key], "x": [e["epoch"] for e in r.epochs if "rate" in e],
             "y": [100 * e["rate"] for e in r.epochs if "rate" in e]}
            for r in rows.results if r.key in cells and any("rate" in e for e in r.epochs)
        ],
    }  # fmt: skip


def _table(rows: Rows, waits: Mapping[str, list[float]]) -> Any:
    whole, first = part(rows, WHOLE), part(rows, FIRST)
    lines = []
    for m in ALL:
        ends = common.of("accuracy", m)(whole)
        early = common.of("accuracy", m)(first)
        stuck_for = waits.get(m, [])
        lines.append([
            m, rate_at(m, 10) if m != FIXED else 0.0, STUCK.get(m, ""), len(stuck_for),
            *(round(f(stuck_for), 2) if len(stuck_for) > 1 else ""
              for f in (statistics.fmean, statistics.stdev)),
            *(round(statistics.fmean(v), 2) if v else "" for v in (early, ends)),
            statistics.median(t) if (t := common.of("epoch_ms", m)(whole)) else "",
        ])  # fmt: skip
    return {
        "title": "Methods of four layers of 4000 units",
        "columns": ["method", "rate at epoch 10 of 500", "stuck epochs in the thesis", "seeds",
                    "stuck epochs", "spread", "accuracy after the first epochs, %",
                    "accuracy in the end, %", "epoch, ms"],
        "rows": lines,
    }  # fmt: skip


BASE: Row = {"sizes": [784, *[4000] * 4, 10], "hidden": [4000] * 4, "epsilon": 20, "dropout": 0.3,
             "lr": 0.01, "interest": 0.01, "batch_size": 100}  # fmt: skip
PIXELS = {"name": "fashion-mnist", "standardise": "pixel"}
SMALL: Row = {
    **BASE,
    "whole": {
        "data": {"name": "fashion-mnist", "per_class": 100, "test_per_class": 100}, "batch_size": 25,
        "epochs": 25, "interest": round(1 - 0.99 ** (500 / 25), 4), "seeds": 3,
    },
    "first": {"data": {**PIXELS, "per_class": 50, "test_per_class": 50}, "epochs": 500, "stop": 30,
              "seeds": 5},
}  # fmt: skip
SMOKE: Row = {
    **BASE, "sizes": [64, *[60] * 4, 10], "hidden": [60] * 4, "epsilon": 4, "batch_size": 20,
    "whole": {"data": {"name": "digits", "per_class": 20, "test_per_class": 20}, "epochs": 3, "seeds": 2},
    "first": {"data": {"name": "digits", "per_class": 20, "test_per_class": 20, "standardise": "pixel"},
              "epochs": 500, "stop": 4, "seeds": 2},
}  # fmt: skip

STUDIES = [
    Study(
        "rewiring-deep",
        "Four layers of 4000 units and their first 100 epochs",
        "thesis 3, section 5.3.4, figures 5.16-5.18",
        "784-4000-4000-4000-4000-10 with 1.3 % of its connections: which rate of evolution is the most "
        "accurate and the fastest, and do rates that fall sooner leave the plateau of the first epochs "
        "sooner?",
        cells,
        {
            "smoke": Preset(SMOKE, "4 s"),
            "small": Preset(SMALL, "5 min", ("fashion-mnist",)),
            "paper": Preset(
                {**BASE, "whole": {"data": PIXELS, "epochs": 500, "seeds": 3}, "first": {}},
                "eight days (estimated)", ("fashion-mnist",), comparable=True,
            ),
        },
        _claims(),
        report,
        (
            "Preset small's whole trainings take 25 epochs of 1000 images in batches of 25, with EXD's "
            "interest raised so that its rate falls as far as in 500 epochs.",
            "Preset small's first epochs have the rates of the first 30 of 500, but epochs of 5 steps "
            "instead of 600: the plateau lasts about 80 steps here, and changes of topology shall fall into "
            "it.",
            "Images are divided by their largest value there: standardised ones leave a shorter plateau.",
            "The data, the dropout and the learning rate are the thesis's; initial values are as wide as in "
            "SET's published code.",
        ),
    )
]  # fmt: skip
