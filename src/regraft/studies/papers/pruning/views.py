"""What the reports of the pruning studies show: the thesis's kinds of figure, from a study's rows."""

from __future__ import annotations

import itertools
import statistics as st
from collections.abc import Hashable, Iterable, Mapping, Sequence

from regraft.report import Table
from regraft.report.figures import Bars, BarSet, Boxes, Heatmap, Level, Lines, Picture, Pictures, Series, box
from regraft.report.schema import ValueSet
from regraft.studies.papers.pruning.methods import Method
from regraft.studies.papers.pruning.published import DENSITIES, Line
from regraft.studies.papers.pruning.told import accuracy, difference
from regraft.studies.statistics import paired
from regraft.studies.study import Rows
from regraft.topology import Topology


def densities(rows: Rows) -> list[float]:
    """Of the tickets, increasing."""
    return sorted(set(rows.where(kind="ticket").column("density")))


def lowest(rows: Rows) -> float | None:
    """The lowest density, where the methods differ most; None without tickets."""
    return min(densities(rows), default=None)


def of_seeds(rows: Rows, method: Method, density: float) -> list[float]:
    """Accuracies in percent, one for each seed."""
    return [*accuracy(method, density)(rows).values()]


def percent(density: float) -> str:
    """A density as the figures name it.

    >>> percent(0.005)
    '0.5 %'
    """
    return f"{100 * density:g} %"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and, of two or more, the standard deviation."""
    return st.fmean(values), st.stdev(values) if len(values) > 1 else None


def series(name: str, points: Mapping[float, Sequence[float]]) -> Series:
    """A line through means, with a band of one standard deviation."""
    found = {x: mean_and_spread(values) for x, values in sorted(points.items()) if values}
    return {
        "name": name, "x": list(found), "y": [m for m, _ in found.values()],
        "spread": [s for _, s in found.values()],
    }  # fmt: skip


def density_lines(
    rows: Rows, methods: Iterable[Method], title: str, caption: str, relative_to: Method | None = None
) -> Lines:
    """Accuracy against density on a logarithmic axis, with the whole network's accuracy as a level.

    Args:
        relative_to: draw differences to this method of the same seed instead.
    """
    drawn: list[Series] = []
    for method in methods:
        points: dict[float, list[float]] = {}
        for density in densities(rows):
            measure = accuracy(method, density)
            if relative_to is not None:
                measure = difference(measure, accuracy(relative_to, density))
            points[100 * density] = [*measure(rows).values()]
        if any(points.values()):
            drawn.append(series(method.name, points))
    figure: Lines = {
        "kind": "lines", "title": title, "caption": caption, "x": "weights left, %",
        "y": "accuracy, %" if relative_to is None else f"accuracy - {relative_to.name}, points",
        "series": drawn, "log_x": True,
    }  # fmt: skip
    level = unpruned(rows)
    if relative_to is None and level is not None:
        figure["levels"] = [{"name": "whole network", "value": level}]
    elif relative_to is not None:
        figure["levels"] = [{"name": relative_to.name, "value": 0.0}]
    return figure


def unpruned(rows: Rows) -> float | None:
    """Accuracy of the whole network in percent; None where none was trained."""
    mean = rows.where(kind="dense", init="standard").mean("accuracy")
    return None if mean is None else 100 * mean


def boxes(rows: Rows, methods: Iterable[Method], density: float, title: str, caption: str) -> Boxes:
    """Accuracies of the seeds at one density, best method first."""
    found = [(m.name, of_seeds(rows, m, density)) for m in methods]
    drawn = [box(name, values) for name, values in found if values]
    drawn.sort(key=lambda b: -b["mean"])
    level = unpruned(rows)
    levels: list[Level] = [] if level is None else [{"name": "whole network", "value": level}]
    return {
        "kind": "boxes", "title": title, "caption": caption, "y": "accuracy, %", "boxes": drawn,
        "levels": levels,
    }  # fmt: skip


def bars(
    title: str, caption: str, y: str, groups: Mapping[str, Mapping[str, Sequence[float]]], log_y: bool = False
) -> Bars:
    """Grouped bars of means: {group: {set: samples}}."""
    names = list(dict.fromkeys(name for sets in groups.values() for name in sets))
    made: list[BarSet] = []
    for name in names:
        each = [mean_and_spread(sets[name]) if sets.get(name) else (None, None) for sets in groups.values()]
        if log_y:  # 0 has no place on a logarithmic axis
            each = [(m, s) if m else (None, None) for m, s in each]
        made.append({"name": name, "values": [m for m, _ in each], "spread": [s for _, s in each]})
    figure: Bars = {
        "kind": "bars", "title": title, "caption": caption, "y": y, "groups": list(groups), "sets": made
    }  # fmt: skip
    if log_y:
        figure["log_y"] = True
    return figure


def layer_densities(rows: Rows, methods: Iterable[Method], density: float) -> Bars:
    """The share of each layer's weights that is left."""
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for method in methods:
        found = rows.where(density=density, **method.wanted)
        names = [c for c in (found.rows[0] if found.rows else {}) if c.startswith("density ")]
        if names:
            groups[method.name] = {
                f"layer {i + 1}": [100 * v for v in found.column(name)] for i, name in enumerate(names)
            }
    return bars(
        f"Density of each layer at {percent(density)}",
        "Logarithmic; an empty layer has no bar, and a method with an empty first layer cannot learn.",
        "weights left, %",
        groups,
        log_y=True,
    )


def times(rows: Rows, methods: Iterable[Method], density: float) -> Bars:
    """Seconds to find a network and to train it."""
    groups: dict[str, dict[str, Sequence[float]]] = {}
    for method in methods:
        found = rows.where(density=density, **method.wanted)
        if found.rows:
            groups[method.name] = {
                "to find": found.column("seconds_to_prune"), "to train": found.column("training_seconds"),
            }  # fmt: skip
    return bars(
        f"Time at density {percent(density)}",
        "Wall-clock time, also of whatever else ran on the machine. What rounds before the first pruning "
        "take is the whole network's training, counted once for all methods.",
        "seconds",
        groups,
        log_y=True,
    )


def learning_curves(rows: Rows, methods: Iterable[Method], density: float) -> Lines:
    """Test accuracy over the epochs of the ticket's training."""
    drawn: list[Series] = []
    for method in methods:
        keys = set(rows.where(density=density, **method.wanted).column("cell"))
        points: dict[float, list[float]] = {}
        for result in rows.results:
            if result.key in keys:
                for line in result.epochs:
                    points.setdefault(line["epoch"], []).append(100 * line["test_accuracy"])
        if points:
            drawn.append(series(method.name, points))
    return {
        "kind": "lines", "title": f"Learning curves at density {percent(density)}",
        "caption": "Means over the seeds; the bands are one standard deviation.", "x": "epoch",
        "y": "accuracy, %", "series": drawn,
    }  # fmt: skip


def overlap(rows: Rows, density: float) -> list[Heatmap | Bars]:
    """Jaccard index of every two tickets of a seed: a matrix, and bars beside what chance would give."""
    pairs = rows.where(kind="pair", density=density)
    names = list(dict.fromkeys(name for row in pairs.rows for name in (row["a"], row["b"])))
    if not names:
        return []
    index = pairs.by("a", "b")

    def at(a: str, b: str) -> float | None:
        if a == b:
            return 1.0
        return index[(a, b) if (a, b) in index else (b, a)].mean("jaccard")

    matrix: Heatmap = {
        "kind": "heatmap", "title": f"Jaccard index of tickets at density {percent(density)}",
        "caption": "Connections that two tickets of the same initial weights share, over those of either.",
        "rows": names, "columns": names, "values": [[at(a, b) for b in names] for a in names],
        "row": "ticket", "column": "ticket", "unit": "",
    }  # fmt: skip
    beside = bars(
        f"Overlap of tickets at density {percent(density)}, beside chance",
        "Two random choices of as many connections in each layer would share what the second bar shows.",
        "Jaccard index",
        {
            f"{a} and {b}": {"measured": v.column("jaccard"), "by chance": v.column("expected")}
            for (a, b), v in index.items()
        },
    )
    return [matrix, beside]


def patterns(rows: Rows, methods: Iterable[Method], density: float) -> list[Pictures]:
    """How many connections leave each input, as images; of the first seed."""
    drawn: list[Picture] = []
    side = 0
    for method in methods:
        keys = rows.where(density=density, **method.wanted).column("cell")[:1]
        for result in rows.results:
            if result.key in keys:
                pattern = Topology.of(result.model()).connectivity_pattern().flatten().tolist()
                side = round(len(pattern) ** 0.5)
                drawn.append({"name": method.name, "values": [float(v) for v in pattern]})
    if not drawn or side * side != len(drawn[0]["values"]):
        return []
    return [
        {
            "kind": "pictures", "title": f"Connections of each input at density {percent(density)}",
            "caption": "Weights of the first layer that start at each pixel; the first seed.",
            "shape": [side, side], "pictures": drawn,
        }
    ]  # fmt: skip


def accuracy_table(
    rows: Rows, lines: Sequence[Line], title: str, reference: Mapping[Method, Method], note: str
) -> Table:
    """Measured accuracy beside the published one, with marks of significance as the thesis sets them.

    Args:
        reference: what each method is tested against, seed by seed; marked by ``*`` where p < 0.05.
    """
    shown = [d for d in densities(rows) if d in DENSITIES]
    cells = []
    for line in lines:
        row: list[str | float | None] = [line.method.name]
        for density in shown:
            values = accuracy(line.method, density)(rows)
            other = reference.get(line.method)
            mark = _mark(values, accuracy(other, density)(rows)) if other and other != line.method else ""
            text = f"{st.fmean(values.values()):.2f}{mark}" if values else None
            row += [text, f"{line.at(density):.2f}{'*' * line.marked[DENSITIES.index(density)]}"]
        cells.append(row)
    heads = [h for d in shown for h in (f"{percent(d)}, here", f"{percent(d)}, thesis")]
    return {"title": title, "columns": ["method", *heads], "rows": cells, "note": note}


def _mark(values: Mapping[Hashable, float], others: Mapping[Hashable, float]) -> str:
    return "*" if paired(values, others).p < 0.05 else ""


def best(rows: Rows, methods: Iterable[Method], density: float) -> tuple[str, float] | None:
    """Name and mean accuracy of the method that is best at a density."""
    found = [(m.name, of_seeds(rows, m, density)) for m in methods]
    means = [(name, st.fmean(values)) for name, values in found if values]
    return max(means, key=lambda pair: pair[1], default=None)


def value_set(name: str, bins: Rows) -> ValueSet:
    """A histogram from rows with ``from``, ``to`` and ``count``; mean and spread are those of the bins."""
    edges = [*bins.column("from"), bins.rows[-1]["to"]]
    counts = bins.column("count")
    centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    n = max(sum(counts), 1)
    mean = sum(c * x for c, x in zip(counts, centres, strict=True)) / n
    square = sum(c * (x - mean) ** 2 for c, x in zip(counts, centres, strict=True)) / n
    return {"name": name, "edges": edges, "counts": counts, "mean": mean, "std": square**0.5}
