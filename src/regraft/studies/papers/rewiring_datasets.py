"""Thesis 3's first experiments: an MLP of three times 1000 units on five data sets."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Figure
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers.rewiring_common import GENTLE, METHODS, SHOWN, SPARSE, of, share, whole
from regraft.studies.study import Cell, Preset, Row, Rows, Study

SIZES = {"lung": (3312, 5), "orl": (1024, 40), "prostate-ge": (5966, 2), "glioma": (4434, 4),
         "fashion-mnist": (784, 10)}  # fmt: skip
"""Features and classes of the thesis's sets, as its table of appendix B has them."""

TITLES = {"lung": "LUNG", "orl": "ORL", "prostate-ge": "Prostate_GE", "glioma": "GLIOMA",
          "fashion-mnist": "Fashion-MNIST", "digits": "digits"}  # fmt: skip
COMPRESSION = {"lung": 30.9, "orl": 22.22, "prostate-ge": 35.9, "glioma": 33.3, "fashion-mnist": 21.5}
SPARSE_COUNT = {"lung": 172, "orl": 138, "prostate-ge": 222, "glioma": 193, "fashion-mnist": 130}
DENSE_COUNT = {"lung": 5_320_005, "orl": 3_067_040, "prostate-ge": 7_971_002, "glioma": 6_441_004,
               "fashion-mnist": 2_797_010}  # fmt: skip
TRAINING = {"lung": 60, "orl": 62, "prostate-ge": 20, "glioma": 20, "fashion-mnist": 54}
"""Time that the slowest sparse method saves of the dense network's training, in percent (section 5.3.1)."""
INFERENCE = {"lung": 70, "orl": 50, "prostate-ge": 80}
HAND = ("small", "paper")
DROPOUT = {"lung": 0.0, "orl": 0.0, "prostate-ge": 0.0, "glioma": 0.0}
"""Where it is not the thesis's 0.3: at its batches of 2, sparse networks diverge with dropout, too, and SET's
published Python code has none."""


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """The cells of a preset: a training for each set, method and seed, and the sizes of the networks."""
    for name, sizes in SIZES.items() if settings["count"] else ():
        hidden = settings["hidden"]
        yield Cell(
            common.counting,
            {"set": name, "sizes": [sizes[0], *hidden, sizes[1]], "epsilon": settings["epsilon"]},
        )
    for of_set in settings["sets"]:
        methods = ("dense", common.GENTLE, *SPARSE) if of_set.get("gentle") else METHODS
        yield from common.trainings({**settings, **of_set}, methods)


def _size_claims() -> list[Claim]:
    found: list[Claim] = []
    source = "thesis 3, appendix B.1"
    for name, title in TITLES.items():
        if name in DENSE_COUNT:

            def size(column: str, factor: float = 1.0, name: str = name) -> Any:
                return lambda rows: [factor * v for v in rows.where(kind="size", set=name).column(column)]

            # SET's code draws positions with replacement, so that some coincide: 4.6 % of ORL's, at most
            found += [
                Number(f"{title}: parameters of the dense network", source, DENSE_COUNT[name], 0,
                       size("dense_parameters"), unit="", comparable=HAND),
                Number(f"{title}: thousands of parameters of a sparse network", source, SPARSE_COUNT[name],
                       0.05 * SPARSE_COUNT[name], size("parameters", 1e-3), unit="", comparable=HAND),
                Number(f"{title}: compression", source, COMPRESSION[name], 0.05 * COMPRESSION[name],
                       size("compression"), unit="x", comparable=HAND),
            ]  # fmt: skip
    return found


def _time_claims() -> list[Claim]:
    source = "thesis 3, section 5.3.1"

    def saves(text: str, column: str, method: str, other: str, name: str, least: float = 0.0) -> Order:
        time = share(column, method, other, **_of(name))
        return Order(
            f"{TITLES[name]}: {text}", source, whole(time), time, published=least or None, least=least
        )

    found: list[Claim] = []
    for name in SIZES:
        for word, column, of_set in (("training", "epoch_ms", TRAINING), ("inference", "one_ms", INFERENCE)):
            if name in of_set:
                text = f"{word} takes at least {of_set[name]} % less time sparse (SET) than dense"
                found.append(saves(text, column, "SET", "dense", name, of_set[name]))
        found.append(saves("EXD trains faster than SET", "epoch_ms", "EXD", "SET", name))
    return found


def _of(name: str) -> dict[str, Any]:
    """The trainings of a set that are held against the thesis."""
    return {"data.name": name, "dropout": DROPOUT.get(name, 0.3)}


def _accuracy_claims() -> list[Claim]:
    def order(name: str, better: str, worse: str, text: str, scale: tuple[str, ...] | None = None) -> Order:
        return Order(
            f"{TITLES[name]}: {text}", "thesis 3, section 5.3.1",
            of("accuracy", better, **_of(name)), of("accuracy", worse, **_of(name)),
            scale=scale,
        )  # fmt: skip

    found: list[Claim] = [
        order("lung", "dense", "LDV", "the dense network is best"),
        order("lung", "LDV", "SET", "LDV is slightly better than SET"),
        order("prostate-ge", "dense", "EXD", "the dense network is best"),
        order("prostate-ge", GENTLE, "EXD", "the dense network is best, at a tenth of the learning rate"),
        order("prostate-ge", "EXD", "SET", "EXD is slightly better than SET"),
        order("orl", "EXD", "SET", "EXD is slightly better than SET"),
        *(order("orl", m, "LDV", f"LDV is the poorest of the sparse methods, behind {m}")
          for m in ("SET", "OSV", "EXD")),
        *(order("orl", m, "dense", f"the dense network fails to train, {m} does not") for m in SPARSE),
        order("glioma", "EXD", "SET", "EXD is slightly better than SET"),
        # with few epochs sparse networks are under-trained at this rate: 2 points behind after 20 of 60,000
        *(order("fashion-mnist", m, "dense", f"{m} is slightly better than the dense network", ("paper",))
          for m in SPARSE),
    ]  # fmt: skip
    # the thesis: "consistently at 0.7" of 17 test samples or so, of which one is 6 points
    glioma = Number("GLIOMA: accuracy of the dense network", "thesis 3, section 5.3.1", 70.0, 6.0,
                    of("accuracy", "dense", **_of("glioma")))  # fmt: skip
    return [*found, glioma]


def report(rows: Rows) -> Results:
    """Accuracy, time and memory of the five methods on each set (figures 5.1 to 5.10)."""
    groups = rows.where(kind="training").by("data.name", "dropout")
    if not groups:
        return {"summary": "No network is trained yet."}
    titled: dict[str, Rows] = {}
    figures: list[Figure] = []
    for (name, dropout), part in groups.items():
        title, place = TITLES.get(name, name), {"data.name": name, "dropout": dropout}
        if place != _of(name):
            title += f", dropout {dropout}"
        titled[title] = part
        figures += [
            common.accuracy_lines(rows, f"{title}: accuracy", "Means and spread over seeds.", **place),
            common.accuracy_boxes(rows, f"{title}: accuracy at the end", "Over seeds.", **place),
        ]
        figures += common.pattern_pictures(rows, f"{title}: connectivity of the first layer", **place)
    cpu = "Medians of processor time over seeds."
    figures += [
        common.time_bars("Training", cpu, titled, "epoch_ms", "ms an epoch"),
        common.time_bars("Inference of one sample", cpu, titled, "one_ms", "ms"),
        common.time_bars("Memory", "Trainable parameters.", titled, "parameters", "parameters"),
    ]
    return {
        "summary": _summary(titled),
        "facts": [
            {"label": f"{title}: SET", "value": f"{v:.1f} %", "note": "mean accuracy"}
            for title, part in titled.items() if (v := part.where(method="SET").mean("accuracy")) is not None
        ],
        "tables": [{
            "title": "Accuracy, time and size",
            "columns": ["data", "method", "seeds", "accuracy, %", "spread", "best epoch, %", "epoch, ms",
                        "one sample, ms", "100 samples, ms", "parameters", "compression"],
            "rows": [_line(t, m, p) for t, p in titled.items() for m in SHOWN if p.where(method=m)],
        }],
        "figures": figures,
    }  # fmt: skip


def _line(title: str, method: str, part: Rows) -> list[Any]:
    rows = part.where(method=method)
    accuracy = rows.column("accuracy")
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    times = [statistics.median(rows.column(n)) for n in ("epoch_ms", "one_ms", "hundred_ms")]
    return [title, method, len(accuracy), round(statistics.fmean(accuracy), 2), round(spread, 2),
            round(statistics.fmean(rows.column("best")), 2), *times, *(rows.column(n)[0] for n in (
                "parameters", "compression"))]  # fmt: skip


def _summary(titled: Mapping[str, Rows]) -> str:
    words = []
    for title, part in titled.items():
        means = {m: v for m in SHOWN if (v := part.where(method=m).mean("accuracy")) is not None}
        best = max(means, key=lambda m: means[m])
        behind = f", dense {means['dense']:.1f} %" if best != "dense" and "dense" in means else ""
        saved = [v for m in SPARSE for v in share("epoch_ms", m, "dense")(part)]
        time = f"; sparse epochs take {statistics.median(saved):.0f} % of the dense time" if saved else ""
        words.append(f"{title}: {best} is best with {means[best]:.1f} %{behind}{time}")
    return ". ".join(words) + "."


BASE: Row = {"hidden": [1000, 1000, 1000], "epsilon": 20, "dropout": 0.3, "lr": 0.01, "interest": 0.01,
             "epochs": 500, "seeds": 3, "count": True}  # fmt: skip


def _table(name: str, **settings: Any) -> Row:
    return {"data": {"name": name}, "batch_size": 2, "dropout": DROPOUT[name], **settings}


def _interest(epochs: int) -> float:
    """What lets EXD's rate fall in so many epochs as far as 0.01 does in the thesis's 500."""
    return round(1 - math.pow(0.99, 500 / epochs), 4)


SMALL = BASE | {
    "epochs": 16, "interest": _interest(16),
    "sets": [
        _table("orl"), _table("prostate-ge", gentle=True), _table("glioma"),
        {"data": {"name": "fashion-mnist", "per_class": 100, "test_per_class": 100}, "batch_size": 20},
        _table("orl", dropout=0.3, epochs=40, interest=_interest(40)),
    ],
}  # fmt: skip
PAPER = BASE | {
    "sets": [
        *(_table(name) for name in DROPOUT),
        {"data": {"name": "fashion-mnist"}, "batch_size": 100},
        _table("orl", dropout=0.3),
    ]
}
SMOKE = BASE | {
    "hidden": [60, 60, 60], "epochs": 3, "seeds": 2, "count": False,
    "sets": [{"data": {"name": "digits", "per_class": 20, "test_per_class": 20}, "batch_size": 10}],
}  # fmt: skip

STUDIES = [
    Study(
        "rewiring-datasets",
        "Evolution rates on five data sets",
        "thesis 3, section 5.3.1, figures 5.1-5.10, appendix B.1",
        "An MLP with three hidden layers of 1000 units, dense or with about 4 % of its connections, of which "
        "30 % are replaced after each epoch (SET), or fewer and fewer (LDV, EXD), or a share that swings "
        "(OSV). How accurate is each, how fast, and how large?",
        cells,
        {
            "smoke": Preset(SMOKE, "3 s"),
            "small": Preset(SMALL, "5 min", ("orl", "prostate-ge", "glioma", "fashion-mnist")),
            "paper": Preset(PAPER, "two days (estimated)", tuple(SIZES), comparable=True),
        },
        [*_size_claims(), *_accuracy_claims(), *_time_claims()],
        report,
        (
            "The LUNG set cannot be had here: preset small leaves it out, and its accuracy and time are out "
            "of scale; its parameters are counted all the same.",
            "The thesis gives accuracies in figures alone; what its text says of them is held against the "
            "rows.",
            "Preset small trains 16 epochs instead of 500, with EXD's interest raised from 0.01 to 0.27 so "
            "that its rate falls as far, and takes 1000 images of Fashion-MNIST in batches of 20.",
            "The small sets are trained without the dropout of 0.3 that the thesis's appendix lists: in its "
            "batches of 2 sparse networks diverge with it, as the lines 'ORL, dropout 0.3' show, and SET's "
            "published Python code has none.",
            "The split is not given: a third of the samples are the test set, which ones by the seed.",
            "The thesis calls ORL's images 92x112, but its parameters are those of the 32x32 version, which "
            "is used here.",
            "Times are processor time of one thread in the cell that trains; the thesis measured SciPy.",
        ),
    )
]
