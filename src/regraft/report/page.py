"""The page: which sections there are, in which order, and the words that no figure says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from regraft.errors import MissingDependency
from regraft.report import heatmap, histograms, images, plots
from regraft.report.chart import NOTHING, SHAPES, Chart, percent
from regraft.report.schema import Grid, Number, Results, Table


@dataclass(frozen=True)
class Section:
    """A heading with charts and tables under it."""

    heading: str
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def render(results: Results) -> str:
    """The HTML page of checked ``results``."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependency("jinja2", "report", "a report") from error
    folder = resources.files("regraft.report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = cell
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    page = template.render(
        title=results.get("title", "Sparse networks"),
        summary=results.get("summary") or summary(results),
        facts=results.get("facts", []),
        sections=sections(results),
        generated=results.get("generated", ""),
        shapes=SHAPES,
        css=folder.joinpath("report.css").read_text(encoding="utf-8"),
    )
    return "\n".join(line.rstrip() for line in page.splitlines() if line.strip()) + "\n"


def sections(results: Results) -> list[Section]:
    """The sections that have something to show, in reading order."""
    found = [Section("Results", tables=results.get("tables", []))]
    found.append(Section("Training", list(_training_charts(results))))
    if results.get("grids"):
        found.append(
            Section("Merging: every weight rule with every bias rule", list(_grids(results["grids"])))
        )
    found.append(Section("Topologies", list(_topology_charts(results))))
    found.append(Section("How it was made", tables=list(_made_by(results))))
    return [s for s in found if s.charts or s.tables]


def summary(results: Results) -> str:
    """One plain sentence for each figure that stands out.

    >>> summary({"curves": [{"name": "a", "epochs": [1], "accuracy": [0.9]}]})
    'After training, the network reaches 90.0 % test accuracy.'
    """
    said = []
    ends = [c["accuracy"][-1] for c in results.get("curves", ()) if c["accuracy"]]
    reached = [e for e in ends if e is not None]
    if len(reached) == 1:
        said.append(f"After training, the network reaches {percent(reached[0])} % test accuracy.")
    elif reached:
        said.append(
            f"After training, {len(reached)} networks reach between {percent(min(reached))} and "
            f"{percent(max(reached))} % test accuracy."
        )
    for grid in results.get("grids", ()):
        best = _best(grid)
        if best is not None:
            value, weights, biases = best
            said.append(
                f"Merged ({grid['name']}), the best rules are {weights} for weights and {biases} for biases: "
                f"{percent(value)} %."
            )
    return " ".join(said) or "The figures of one run of regraft."


def cell(value: Any) -> str:
    """A table cell: four significant digits for floats, an en dash for nothing, text as it is.

    >>> cell(0.123456), cell(12345), cell([1, 2]), cell("a")
    ('0.1235', '12,345', '1, 2', 'a')
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value)
    return str(value)


def _best(grid: Grid) -> tuple[float, str, str] | None:
    cells = [
        (v, w, b)
        for row, w in zip(grid["accuracy"], grid["weights"], strict=True)
        for v, b in zip(row, grid["biases"], strict=True)
        if v is not None
    ]
    return max(cells, key=lambda c: c[0], default=None)


def _grids(grids: list[Grid]) -> Iterator[Chart]:
    """Accuracies first, then losses; each metric has one colour scale, so that grids can be compared."""
    for metric in ("accuracy", "loss"):
        having = [g for g in grids if metric in g]
        values: list[Number] = [v for g in having for row in g[metric] for v in row]
        numbers = [v for v in values if v is not None]
        if not numbers:
            continue
        for g in having:
            name = f"{metric}-{grids.index(g)}"
            yield heatmap.grid(g, metric, (min(numbers), max(numbers)), name)


def _training_charts(results: Results) -> Iterator[Chart]:
    if results.get("curves"):
        yield plots.curves(results["curves"])
    if "pattern" in results:
        yield images.pattern(results["pattern"])


def _topology_charts(results: Results) -> Iterator[Chart]:
    if results.get("points"):
        yield plots.scatter(results["points"], results.get("reference"))
    if "distances" in results:
        yield heatmap.distances(results["distances"])
    if "densities" in results:
        yield plots.densities(results["densities"])
    if "histogram" in results and results["histogram"]["panels"]:
        yield histograms.histogram(results["histogram"])


def _made_by(results: Results) -> Iterator[Table]:
    for title, part in (
        ("Configuration", results.get("configuration")),
        ("Versions", results.get("versions")),
    ):
        if part:
            rows = [[name, value] for name, value in part.items()]
            yield {
                "title": title,
                "columns": ["Setting" if title == "Configuration" else "Package", "Value"],
                "rows": rows,
            }
