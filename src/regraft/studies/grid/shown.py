"""What a grid found: a table with marks, accuracy by epoch, accuracy against each option that is a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regraft.report import Results, Table
from regraft.report.figures import Figure, Lines, Series
from regraft.studies.grid.plan import Plan, Point, config_of
from regraft.studies.statistics import by_seed, summary, table_of
from regraft.studies.study import Rows

MOST_LINES = 12
ACCURACY = "Test accuracy (%)"


def report(
    rows: Rows, *, title: str, plans: Mapping[str, Plan], reference: Mapping[str, Any] | None
) -> Results:
    """Tables, figures and a summary of a grid."""
    plan = plans[rows.preset]
    groups = _groups(rows, plan)
    found: Results = {
        "title": title,
        "summary": _summary(plan, groups, rows),
        "tables": [_table(plan, groups, reference_of(plan, reference))],
        "figures": [*_by_epoch(rows, plan, groups), *_against(plan, groups)],
    }
    return found


def reference_of(plan: Plan, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The values that a point's reference has; see ``build``."""
    if given:
        return {name: value for name, value in given.items() if name in plan.grid}
    methods = [name for name, values in plan.grid.items() if all(isinstance(v, str) for v in values)]
    chosen = methods[:1] or list(plan.grid)
    return {name: plan.grid[name][0] for name in chosen}


def called(point: Point) -> str:
    """A point's name in figures: ``density 0.1, evolve set``."""
    return ", ".join(f"{name} {shown(value)}" for name, value in point) or "all"


def shown(value: Any) -> str:
    """A value as the file has it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def _groups(rows: Rows, plan: Plan) -> dict[Point, Rows]:
    """The rows of each point, found by its cells' configurations."""
    by_cell: dict[tuple[str, ...], Rows] = {}
    names = list(plan.grid)
    if not rows.rows:
        return dict.fromkeys(plan.points(), rows)
    for values, part in rows.by(*names).items():
        by_cell[tuple(shown(v) for v in values)] = part
    empty = Rows([], rows.results, rows.preset, rows.missing)
    found = {}
    for point in plan.points():
        config = config_of({**plan.base, **dict(point)}, 0)
        found[point] = by_cell.get(tuple(shown(config[n]) for n in names), empty)
    return found


def _table(plan: Plan, groups: Mapping[Point, Rows], reference: Mapping[str, Any]) -> Table:
    def other(point: Point) -> Point:
        return tuple((name, reference.get(name, value)) for name, value in point)

    cells = {
        point: {ACCURACY: by_seed(rows.rows, "test_accuracy", scale=100)} for point, rows in groups.items()
    }
    made = table_of("Test accuracy after the last epoch", cells, reference=other if plan.grid else None)
    more = (("Test loss", "test_loss"), ("Density (%)", "final_density"), ("Epochs", "trained_epochs"))
    made["columns"] = [*plan.grid, ACCURACY, *(title for title, _ in more), "Seeds"]
    lines = []
    for (point, rows), line in zip(groups.items(), made["rows"], strict=True):
        figures = [rows.mean(column) for _, column in more]
        if figures[1] is not None:
            figures[1] *= 100
        lines.append([*(shown(v) for _, v in point), line[1], *figures, len(rows)])
    made["rows"] = lines
    if plan.grid:
        values = ", ".join(f"{name} {shown(value)}" for name, value in reference.items())
        made["note"] = made.get("note", "").replace("its reference", f"{values}, all else equal")
    return made


def _by_epoch(rows: Rows, plan: Plan, groups: Mapping[Point, Rows]) -> list[Figure]:
    """Mean accuracy over the seeds at each epoch, as far as all of them trained."""
    epochs = {r.key: r.epochs for r in rows.results}
    series: list[Series] = []
    for point, part in list(groups.items())[:MOST_LINES]:
        curves = [
            [100 * float(e["test_accuracy"]) for e in epochs[row["cell"]]]
            for row in part.rows if row["cell"] in epochs
        ]  # fmt: skip
        length = min((len(c) for c in curves), default=0)
        if not length:
            continue
        found = [summary([c[i] for c in curves]) for i in range(length)]
        line: Series = {
            "name": called(point), "x": [float(i + 1) for i in range(length)], "y": [s.mean for s in found]
        }  # fmt: skip
        if len(curves) > 1:
            line["spread"] = [s.half for s in found]
        series.append(line)
    if not series:
        return []
    cut = f" The first {MOST_LINES} of {len(groups)} settings." if len(groups) > MOST_LINES else ""
    made: Lines = {
        "kind": "lines", "title": "Test accuracy by epoch",
        "caption": f"Mean over the seeds; the band is its 95 % interval.{cut}", "x": "Epoch", "y": ACCURACY,
        "series": series,
    }  # fmt: skip
    return [made]


def _against(plan: Plan, groups: Mapping[Point, Rows]) -> list[Figure]:
    """Accuracy against each option whose values are numbers, a line for each choice of the others."""
    figures: list[Figure] = []
    for name, values in plan.grid.items():
        if len(values) < 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            continue
        lines: dict[Point, list[tuple[float, Rows]]] = {}
        for point, rows in groups.items():
            rest = tuple((n, v) for n, v in point if n != name)
            lines.setdefault(rest, []).append((float(dict(point)[name]), rows))
        series = [
            s for rest, part in list(lines.items())[:MOST_LINES] if (s := _line(called(rest), part))["x"]
        ]
        if not series:
            continue
        made: Lines = {
            "kind": "lines", "title": f"Test accuracy against {name}",
            "caption": "Mean over the seeds; the band is its 95 % interval.", "x": name, "y": ACCURACY,
            "series": series, "log_x": min(values) > 0 and max(values) >= 10 * min(values),
        }  # fmt: skip
        figures.append(made)
    return figures


def _line(name: str, part: Sequence[tuple[float, Rows]]) -> Series:
    found = [
        (x, summary(by_seed(rows.rows, "test_accuracy", scale=100)))
        for x, rows in sorted(part, key=lambda p: p[0])
    ]
    found = [(x, s) for x, s in found if s.n]
    line: Series = {"name": name, "x": [x for x, _ in found], "y": [s.mean for _, s in found]}
    if found and all(s.n > 1 for _, s in found):
        line["spread"] = [s.half for _, s in found]
    return line


def _summary(plan: Plan, groups: Mapping[Point, Rows], rows: Rows) -> str:
    found = {point: summary(by_seed(part.rows, "test_accuracy", scale=100)) for point, part in groups.items()}
    done = {point: s for point, s in found.items() if s.n}
    if not done:
        return "No training is done yet."
    data = ", ".join(sorted(plan.data()))
    best = max(done, key=lambda point: done[point].mean)
    text = f"{len(rows)} networks were trained on {data}"
    if len(done) == 1:
        return f"{text}; they reach {done[best].text()} % of the test samples."
    worst = min(done, key=lambda point: done[point].mean)
    return (
        f"{text}, with {len(done)} settings. The best reaches {done[best].text()} % of the test samples "
        f"({called(best)}), the worst {done[worst].text()} % ({called(worst)})."
    )
