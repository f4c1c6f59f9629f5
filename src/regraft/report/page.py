"""The page: which sections there are, in which order, and the words that no figure says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from regraft.errors import MissingDependency
from regraft.report import bars, clouds, heatmap, histograms, images, lines, svg
from regraft.report.chart import NOTHING, SHAPES, Chart, percent
from regraft.report.draw import draw
from regraft.report.figure_checks import is_empty
from regraft.report.schema import Grid, Marked, Number, Results, Table

MADE = "How it was made"
"""The heading of the last section."""

MOST_KEYS = 12
"""Entries of a legend that are shown; more are folded away."""

MOST_ROWS = 40
"""Rows of a table that are shown; a longer one scrolls under its head."""

SOME, LONG = 12, 40
"""Characters of a text that may not be squeezed into a narrow, or into a less narrow column."""

NUMBER = re.compile(r"[<>]?\s*[-+\u2212]?[.\d]|" + NOTHING + "$")
"""How a cell starts that stands to the right, as numbers do."""


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a command, tables and charts under it."""

    heading: str
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    command: str = ""
    note: str = ""


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
    environment.filters["looks"] = looks
    environment.tests["marked"] = is_marked
    template = environment.from_string(folder.joinpath("report.html").read_text(encoding="utf-8"))
    script = ""
    if any(t.get("sortable") for t in results.get("tables", [])):
        script = _without_blank_lines(folder.joinpath("report.js").read_text(encoding="utf-8"))
    page = template.render(
        title=results.get("title", "Sparse networks"),
        summary=results.get("summary") or summary(results),
        facts=results.get("facts", []),
        sections=sections(results),
        shapes=SHAPES,
        tiles=svg.TILES,
        most_keys=MOST_KEYS,
        most_rows=MOST_ROWS,
        css=folder.joinpath("report.css").read_text(encoding="utf-8"),
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **{part: results.get(part, "") for part in ("up", "subtitle", "notice", "about", "generated")},
    )
    return _without_blank_lines(page) + "\n"


def _without_blank_lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def sections(results: Results) -> list[Section]:
    """The sections that have something to show, in reading order."""
    by_heading: dict[str, list[Table]] = {}
    for table in results.get("tables", []):
        by_heading.setdefault(table.get("heading", "Results"), []).append(table)
    made = [*by_heading.pop(MADE, []), *_made_by(results)]
    found = [Section(heading, tables=tables) for heading, tables in by_heading.items()]
    found.append(Section("Training", list(_training_charts(results))))
    if results.get("grids"):
        found.append(
            Section("Merging: every weight rule with every bias rule", list(_grids(results["grids"])))
        )
    found.append(Section("Topologies", list(_topology_charts(results))))
    found.append(_figures(results))
    found += [Section(r["title"], points=r["points"]) for r in results.get("remarks", ())]
    command = results.get("command", "")
    found.append(Section(MADE, tables=made, command=command))
    return [s for s in found if s.charts or s.tables or s.points or s.command or s.note]


def _figures(results: Results) -> Section:
    """A study's own figures; those that have nothing to show yet are named."""
    charts, empty = [], []
    for i, figure in enumerate(results.get("figures", ())):
        if is_empty(figure):
            empty.append(figure["title"])
        else:
            charts.append(draw(figure, f"figure-{i}"))
    return Section("Figures", charts, note=f"No results yet for: {', '.join(empty)}." if empty else "")


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


def is_marked(value: Any) -> bool:
    """Whether a table's cell is a ``Marked``, which the template shows in its own way.

    >>> is_marked({"text": "reproduced", "mark": "yes"}), is_marked({"text": "a", "b": 1})
    (True, False)
    """
    return isinstance(value, Mapping) and "text" in value and set(value) <= Marked.__annotations__.keys()


def looks(table: Table) -> list[str]:
    """The class of each column: ``text`` (``text some`` or ``text long`` where it needs room) or ``number``.

    >>> looks({"title": "t", "columns": ["a", "b"], "rows": [["x", "3.5 ± 0.1"], ["y", None]]})
    ['text', 'number']
    """
    found = []
    for column in zip(*table["rows"], strict=True):
        texts = [t for v in column if v is not None and (t := v["text"] if is_marked(v) else cell(v))]
        longest = max(map(len, texts), default=0)
        numbers = sum(bool(NUMBER.match(t)) for t in texts)
        # a word among numbers, such as "better", does not move them to the other side
        if longest <= LONG and numbers >= len(texts) / 2:
            found.append("number")
        else:
            found.append("text" + (" long" if longest > LONG else " some" if longest > SOME else ""))
    return found or [""] * len(table["columns"])


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
        yield lines.curves(results["curves"])
    if "pattern" in results:
        yield images.pattern(results["pattern"])


def _topology_charts(results: Results) -> Iterator[Chart]:
    if results.get("points"):
        yield clouds.scatter(results["points"], results.get("reference"))
    if "distances" in results:
        yield heatmap.distances(results["distances"])
    if "densities" in results:
        yield bars.densities(results["densities"])
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
