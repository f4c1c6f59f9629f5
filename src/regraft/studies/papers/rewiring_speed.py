"""Thesis 3's comparison of masked, truly sparse and dense networks: 784-4000-1000-4000-10."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regraft.report import Results
from regraft.report.figures import Bars, Figure, Lines, Series
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers.rewiring_common import METHODS, PROPOSED, SPARSE
from regraft.studies.papers.rewiring_timing import WAYS, timing
from regraft.studies.study import Cell, Preset, Row, Rows, Study

TIMES = {"train_ms": "training step", "one_ms": "inference of one sample",
         "hundred_ms": "inference of a batch"}  # fmt: skip


def cells(settings: Mapping[str, Any]) -> Iterable[Cell]:
    """The cells of a preset: timings, and a training for each method and seed."""
    timed = {**{n: settings[n] for n in ("epsilon", "dropout")}, **settings["timing"]}
    timed["sizes"] = [settings["sizes"][0], *settings["hidden"], settings["sizes"][1]]
    for repeat in range(settings["repeats"]):
        yield Cell(timing, {**timed, "repeat": repeat})
    yield from common.trainings(settings)
    for epsilon in settings["epsilons"]:
        yield from common.trainings({**settings, "epsilon": epsilon}, [f"SET at epsilon {epsilon}"])


def way_share(column: str, way: str, other: str) -> Callable[[Rows], list[float]]:
    """A time of one way in percent of another's: a sample a timing cell, the median of its rounds."""

    def values(rows: Rows) -> list[float]:
        found = []
        for part in rows.where(kind="time").by("cell").values():
            pairs = zip(part.where(way=way).rows, part.where(way=other).rows, strict=True)
            found.append(statistics.median(100 * a[column] / b[column] for a, b in pairs))
        return found

    return values


def epoch_ms(rows: Rows, method: str, steps: int = 600) -> list[float]:
    """An epoch of a method, a sample a timing cell: so many steps of the sparse network and one change."""
    found = []
    for part in rows.by("cell").values():
        change, taken = part.where(kind="change", method=method), part.where(kind="time", way="sparse")
        if change and taken:
            ms = statistics.median(taken.column("train_ms"))
            found.append(steps * ms + statistics.median(change.column("change_ms")))
    return found


def _epoch_share(method: str) -> Callable[[Rows], list[float]]:
    return lambda rows: [
        100 * a / b for a, b in zip(epoch_ms(rows, method), epoch_ms(rows, "SET"), strict=True)
    ]


def _claims() -> list[Claim]:
    speed, size = "thesis 3, section 5.3.3", "thesis 3, section 5.3.2 and appendix B.2"

    def faster(text: str, source: str, time: Callable[[Rows], list[float]], least: float = 0.0) -> Order:
        return Order(text, source, common.whole(time), time, published=least or None, least=least)

    def count(column: str, factor: float = 1.0) -> Callable[[Rows], list[float]]:
        return lambda rows: [factor * v for v in rows.where(kind="memory", way="sparse").column(column)[:1]]

    def slower(text: str, column: str, published: float) -> Number:
        # measured with a Keras of 2021 that built the model anew after each epoch: nothing here does
        return Number(text, "thesis 3, section 5.3.2", published, 10.0,
                      way_share(column, "masked", "dense"), comparable=())  # fmt: skip

    hand, masks = ("small", "paper"), way_share("train_ms", "masked", "dense")
    return [
        Number("parameters of the dense network", size, 11_185_010, 0, count("dense_parameters"), unit="",
               comparable=hand),
        # "around 350,000"; what drawing positions with replacement may lose, as on the other networks
        Number("thousands of parameters of a sparse network", size, 350, 17.5, count("parameters", 1e-3),
               unit="", comparable=hand),
        Number("compression", size, 32.0, 1.6, count("compression"), unit="x", comparable=hand),
        slower("training of SET's own Keras code, of the dense network's time", "train_ms", 116.0),
        slower("inference of SET's own Keras code, of the dense network's time", "one_ms", 140.0),
        Order("masked networks train no faster than dense ones", "thesis 3, sections 4.7 and 5.3.2",
              masks, common.whole(masks)),
        faster("sparse operations take 50 % less time for training than masks", speed,
               way_share("train_ms", "sparse", "masked"), 50),
        faster("sparse operations take 30 % less time for inference than masks", speed,
               way_share("one_ms", "sparse", "masked"), 30),
        faster("sparse training is faster than dense training", speed,
               way_share("train_ms", "sparse", "dense")),
        *(faster(f"an epoch of {m} is faster than one of SET", "thesis 3, section 5.3.2", _epoch_share(m))
          for m in PROPOSED),
        # the thesis's networks converge in 500 epochs; few epochs leave sparse ones under-trained
        Number("accuracy of EXD", "thesis 3, section 5.3.2", 90.5, 0.5, common.of("accuracy", "EXD")),
        *(Order(f"EXD is more accurate than {m}", "thesis 3, section 5.3.2", common.of("accuracy", "EXD"),
                common.of("accuracy", m), scale=("paper",) if m == "dense" else None)
          for m in METHODS if m != "EXD"),
    ]  # fmt: skip


def report(rows: Rows) -> Results:
    """Times and memory of the three ways; epochs and accuracy of the five methods (figures 5.11 to 5.15)."""
    if not rows.where(kind="time"):
        return {"summary": "Nothing is timed yet."}
    middle = {
        n: {w: statistics.median(rows.where(kind="time", way=w).column(n)) for w in WAYS} for n in TIMES
    }
    memory = {w: rows.where(kind="memory", way=w).rows[0] for w in WAYS}
    epochs = {m: statistics.median(values) for m in SPARSE if (values := epoch_ms(rows, m))}
    figures: list[Figure] = [_bars("Time", "ms", middle, list(TIMES.values())), _memory(memory)]
    figures.append({
        "kind": "bars", "title": "An epoch of each sparse method", "y": "ms", "groups": list(epochs),
        "caption": "600 steps and the mean change of topology over the method's schedule.",
        "sets": [{"name": "epoch", "values": list(epochs.values())}],
    })  # fmt: skip
    accuracy = {m: v for m in METHODS if (v := rows.where(kind="training", method=m).mean("accuracy"))}
    if accuracy:
        figures += [
            common.accuracy_lines(rows, "Accuracy", "Means and spread over seeds (figure 5.14)."),
            common.accuracy_boxes(rows, "Accuracy at the end", "Over seeds."),
            _densities(rows),
            *common.pattern_pictures(rows.where(method=METHODS), "Connectivity of the first layer"),
        ]
    return {
        "summary": _summary(middle, memory, accuracy),
        "facts": [
            {"label": f"{text}: sparse", "value": f"{middle[n]['dense'] / middle[n]['sparse']:.1f} times",
             "note": "faster than dense"}
            for n, text in TIMES.items()
        ],
        "tables": [_ways_table(middle, memory), _methods_table(rows, epochs)],
        "figures": figures,
    }  # fmt: skip


def _densities(rows: Rows) -> Lines:
    """Accuracy against density: SET with several epsilons, and the dense network."""
    found: dict[float, list[float]] = {}
    for row in rows.where(kind="training").rows:
        if row["method"] == "dense" or row["method"].startswith("SET"):
            found.setdefault(row["parameters"] / row["dense_parameters"], []).append(row["accuracy"])
    x = sorted(found)
    series: Series = {
        "name": "SET, and dense at 1", "x": x, "y": [statistics.fmean(found[d]) for d in x],
        "spread": [statistics.stdev(found[d]) if len(found[d]) > 1 else 0.0 for d in x],
    }  # fmt: skip
    return {
        "kind": "lines", "title": "Accuracy against density", "x": "share of the parameters",
        "y": "test accuracy, %", "log_x": True, "series": [series],
        "caption": "Means and spread over seeds, equal epochs.",
    }  # fmt: skip


def _summary(
    middle: Mapping[str, Mapping[str, float]], memory: Mapping[str, Row], accuracy: Mapping[str, float]
) -> str:
    train, size = middle["train_ms"], memory["dense"]["training_bytes"] / memory["sparse"]["training_bytes"]
    text = (
        f"A training step takes {train['dense']:.1f} ms dense, {train['masked'] / train['dense']:.2f} "
        f"times as long with masks and {train['sparse'] / train['dense']:.2f} times as long truly sparse, "
        f"which takes {size:.1f} times less memory."
    )
    best = max(accuracy, key=lambda m: accuracy[m], default="")
    return text + (f" The most accurate method is {best} with {accuracy[best]:.1f} %." if best else "")


def _bars(title: str, y: str, values: Mapping[str, Mapping[str, float]], groups: list[str]) -> Bars:
    return {
        "kind": "bars", "title": title, "y": y, "groups": groups, "log_y": True,
        "caption": "Medians of processor time, one thread, the three networks in turn (figure 5.15).",
        "sets": [{"name": w, "values": [values[n][w] for n in values]} for w in WAYS],
    }  # fmt: skip


def _memory(memory: Mapping[str, Row]) -> Bars:
    names = {"bytes": "network", "training_bytes": "with gradients and momentum"}
    return {
        "kind": "bars", "title": "Memory", "y": "MB", "groups": list(names.values()), "log_y": True,
        "caption": "Bytes of all tensors: values, positions, masks, biases, and what training adds.",
        "sets": [{"name": w, "values": [row[n] / 1e6 for n in names]} for w, row in memory.items()],
    }  # fmt: skip


def _ways_table(middle: Mapping[str, Mapping[str, float]], memory: Mapping[str, Row]) -> Any:
    rows = [
        [w, *(middle[n][w] for n in TIMES), memory[w]["bytes"] / 1e6, memory[w]["training_bytes"] / 1e6]
        for w in WAYS
    ]
    columns = ["network", *(f"{text}, ms" for text in TIMES.values()), "MB", "MB while training"]
    return {"title": "Dense, masked and sparse", "columns": columns, "rows": rows}


def _methods_table(rows: Rows, epochs: Mapping[str, float]) -> Any:
    lines = []
    for m in METHODS:
        accuracy = common.of("accuracy", m)(rows)
        change = rows.where(kind="change", method=m)
        lines.append([
            m, len(accuracy), round(statistics.fmean(accuracy), 2) if accuracy else "",
            round(statistics.stdev(accuracy), 2) if len(accuracy) > 1 else "", change.mean("mean_rate") or "",
            statistics.median(change.column("change_ms")) if change else "", epochs.get(m, ""),
        ])  # fmt: skip
    columns = ["method", "seeds", "accuracy, %", "spread", "mean rate", "change of topology, ms", "epoch, ms"]
    return {"title": "The five methods", "columns": columns, "rows": lines}


BASE: Row = {"sizes": [784, 10], "hidden": [4000, 1000, 4000], "epsilon": 20, "dropout": 0.3, "lr": 0.01,
             "interest": 0.01, "epochs": 500, "batch_size": 100, "seeds": 3, "epsilons": [5, 80],
             "repeats": 5,
             "timing": {"batch_size": 100, "rounds": 9, "changes": 3, "epochs": 500,
                        "interest": 0.01}}  # fmt: skip
FASHION = {"data": {"name": "fashion-mnist"}}
SMALL: Row = {
    **BASE, "data": {"name": "fashion-mnist", "per_class": 100, "test_per_class": 100}, "batch_size": 25,
    "epochs": 15, "interest": round(1 - 0.99 ** (500 / 15), 4),
}  # fmt: skip
SMOKE: Row = {
    **BASE, "sizes": [64, 10], "hidden": [80, 20, 80], "epsilon": 4, "epsilons": [2], "epochs": 3,
    "data": {"name": "digits", "per_class": 20, "test_per_class": 20}, "batch_size": 20, "seeds": 2,
    "timing": {"batch_size": 20, "rounds": 2, "changes": 1, "epochs": 500, "interest": 0.01}, "repeats": 2,
}  # fmt: skip

STUDIES = [
    Study(
        "rewiring-speed",
        "Masked, truly sparse and dense networks",
        "thesis 3, sections 5.3.2 and 5.3.3, figures 5.11-5.15, appendix B.2",
        "The same connections of a 784-4000-1000-4000-10 network computed with dense weights under masks "
        "(as in Keras) and with the connections alone, beside the dense network: time, memory, and the "
        "accuracy of SET and its three changing rates.",
        cells,
        {
            "smoke": Preset(SMOKE, "3 s"),
            "small": Preset(SMALL, "4 min", ("fashion-mnist",)),
            "paper": Preset(
                {**BASE, **FASHION}, "one month (estimated)", ("fashion-mnist",), comparable=True
            ),
        },
        _claims(),
        report,
        (
            "Times are ratios within one process: torch with masks in place of Keras, compiled kernels in "
            "place of SciPy. Run with --workers 1 on a machine that does nothing else: other workers take "
            "cache and memory bandwidth.",
            "SET's original Keras code, which built the model anew after each epoch, is not rebuilt.",
            "No augmentation. Preset small trains 15 epochs on 1000 images in batches of 25 instead of 500 "
            "on 60,000 in batches of 100, with EXD's interest raised so that its rate falls as far.",
            "Whether sparse methods reach the dense network's accuracy is judged at preset paper alone: with "
            "few epochs they are under-trained at the thesis's learning rate.",
        ),
    )
]  # fmt: skip
