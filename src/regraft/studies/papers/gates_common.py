"""What the studies of thesis 2 share: its table 4.1, claims about it, and how strategies are shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from regraft.report import Table
from regraft.report.figures import Boxes, box
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.study import Rows

STRATEGIES = ("student", "best of three", "one model")
STATISTICS = ("min", "max", "median", "mean", "std")

Samples = Callable[[Rows], Mapping[str, Sequence[float]]]
"""One value a model for each strategy, from a study's rows."""


@dataclass(frozen=True)
class Task:
    """One task of table 4.1.

    Attributes:
        name: as in claims.
        models: of each strategy.
        published: minimum, maximum, median, mean and standard deviation of each strategy, in display units.
        unit: of them.
        lower: whether lower is better.
        shared: whether models of one number share their training samples across all strategies; else only the
            best of three shares its first two networks with the student.
        digits: after the decimal point.
    """

    name: str
    models: int
    published: Mapping[str, tuple[float, float, float, float, float]]
    unit: str = "%"
    lower: bool = False
    shared: bool = True
    digits: int = 1


SINE = Task(
    "sine problem", 50,
    {"student": (0.049, 0.116, 0.078, 0.077, 0.015), "best of three": (0.105, 0.373, 0.253, 0.240, 0.076),
     "one model": (0.053, 0.363, 0.281, 0.249, 0.097)},
    unit="", lower=True, shared=False, digits=3,
)  # fmt: skip
LENET = Task(
    "LeNet on Imagewoof", 10,
    {"student": (38.0, 41.1, 39.9, 39.9, 0.8), "best of three": (36.9, 39.4, 38.7, 38.5, 0.7),
     "one model": (36.5, 39.7, 37.7, 37.8, 1.0)},
)  # fmt: skip
RESNET_18 = Task(
    "ResNet-18 on Imagewoof", 5,
    {"student": (82.4, 82.8, 82.5, 82.6, 0.2), "best of three": (80.1, 80.9, 80.7, 80.6, 0.3),
     "one model": (81.0, 81.8, 81.3, 81.3, 0.3)},
)  # fmt: skip
RESNET_20 = Task(
    "ResNet-20 on CIFAR-100", 5,
    {"student": (68.8, 69.1, 68.8, 68.9, 0.2), "best of three": (67.0, 67.2, 67.0, 67.0, 0.1),
     "one model": (67.0, 67.9, 67.5, 67.5, 0.4)},
)  # fmt: skip


def statistic(name: str, values: Sequence[float]) -> float:
    """One of ``STATISTICS`` of some values; the standard deviation is a sample's.

    >>> [statistic(name, [1.0, 2.0, 6.0]) for name in STATISTICS[:4]]
    [1.0, 6.0, 2.0, 3.0]
    """
    if name == "std":
        return float(statistics.stdev(values)) if len(values) > 1 else math.nan
    found = {"min": min(values), "max": max(values), "median": statistics.median(values)}
    return float(found[name] if name in found else statistics.fmean(values))


def tolerance(name: str, task: Task, strategy: str) -> float:
    """How far a statistic may lie from the published one.

    Twice the standard error of a difference of two sets of as many models: sqrt(2 / n) standard deviations
    for the mean, 1.25 times that for the median, sqrt(1 / n) for the standard deviation. The ends of the
    range have no such error; they get one standard deviation. Half of the last printed digit is added.
    """
    std, n = task.published[strategy][STATISTICS.index("std")], task.models
    error = {"mean": 2 * math.sqrt(2 / n), "median": 2.5 * math.sqrt(2 / n), "std": 2 * math.sqrt(1 / n)}
    return error.get(name, 1.0) * std + 0.5 * 10.0**-task.digits


def claims(task: Task, samples: Samples, orders: bool = True) -> list[Claim]:
    """Every number of a task's lines in table 4.1, and that the student is better than both others.

    Args:
        samples: empty where the study has none for this task.
        orders: whether to add the orderings.
    """

    def measure(strategy: str, name: str) -> Callable[[Rows], Sequence[float]]:
        def values(rows: Rows) -> Sequence[float]:
            found = samples(rows).get(strategy, ())
            return [statistic(name, found)] if len(found) > 1 else []

        return values

    def better(strategy: str) -> Callable[[Rows], Sequence[float]]:
        sign = -1.0 if task.lower else 1.0
        return lambda rows: [sign * v for v in samples(rows).get(strategy, ())]

    found: list[Claim] = [
        Number(
            f"{task.name}: {name} of {strategy}", "thesis 2, table 4.1",
            published[STATISTICS.index(name)], tolerance(name, task, strategy), measure(strategy, name),
            unit=task.unit,
        )
        for strategy, published in task.published.items()
        for name in STATISTICS
    ]  # fmt: skip
    median = {s: p[STATISTICS.index("median")] for s, p in task.published.items()}
    if orders:
        found += [
            Order(
                f"{task.name}: the student is better than {other}", "thesis 2, section 4 and table 4.1",
                better("student"), better(other),
                paired=task.shared or other == "best of three",
                published=abs(median["student"] - median[other]), unit=task.unit,
            )
            for other in STRATEGIES[1:]
        ]  # fmt: skip
    return found


def none_here(rows: Rows) -> Mapping[str, Sequence[float]]:
    """Samples of a task that no cell of the study does."""
    return {}


def strategy_table(title: str, found: Mapping[str, Sequence[float]], task: Task, note: str = "") -> Table:
    """Table 4.1's lines as measured, with the published median and mean beside them."""
    rows: list[list[object]] = []
    for name, values in found.items():
        if values:
            published = task.published.get(name)
            beside = [published[2], published[3]] if published else ["", ""]
            rows.append([name, len(values), *(round(statistic(s, values), 4) for s in STATISTICS[:4]),
                         round(statistic("std", values), 4) if len(values) > 1 else "", *beside])  # fmt: skip
    columns = ["strategy", "models", *STATISTICS, "median in the thesis", "mean in the thesis"]
    return {"title": title, "columns": columns, "rows": rows, **({"note": note} if note else {})}  # type: ignore[typeddict-item]


def strategy_boxes(title: str, caption: str, y: str, found: Mapping[str, Sequence[float]]) -> Boxes:
    """One box a strategy that has values."""
    boxes = [box(name, list(values)) for name, values in found.items() if values]
    return {"kind": "boxes", "title": title, "caption": caption, "y": y, "boxes": boxes}
