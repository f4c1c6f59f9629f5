"""How values are distributed: one line of steps for each set, a panel for each layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from regraft.report import svg
from regraft.report.chart import Chart, Key, colour, dash_style, dashes, number, short
from regraft.report.schema import Histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 2


def histogram(part: Histogram, name: str = "histogram") -> Chart:
    """Share of the values in each bin, so that sets of different size can be compared."""
    panels = part["panels"]
    names = list(dict.fromkeys(s["name"] for p in panels for s in p["sets"]))
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    label = f"Histograms: {part['unit'].lower()} of {', '.join(names)} in {len(panels)} panels."

    def paint(figure: Figure) -> None:
        for i, panel in enumerate(panels):
            ax = figure.add_subplot(lines, columns, i + 1)
            for one in panel["sets"]:
                at = names.index(one["name"])
                total = max(sum(one["counts"]), 1)
                ax.stairs(
                    [100 * c / total for c in one["counts"]], one["edges"], color=colour(at), linewidth=1.4,
                    linestyle=dash_style(dashes(at)),
                )  # fmt: skip
            ax.set_title(short(panel["name"]))
            ax.locator_params(axis="x", nbins=5)
            ax.set_ylim(bottom=0)
            if i >= len(panels) - columns:
                ax.set_xlabel(part["unit"])
            if i % columns == 0:
                ax.set_ylabel("Share (%)")

    rows = [
        [p["name"], s["name"], sum(s["counts"]), number(s["mean"]), number(s["std"])]
        for p in panels
        for s in p["sets"]
    ]
    return Chart(
        part["title"],
        part["caption"],
        svg.draw(name, paint, 0.5 + 1.7 * lines, label),
        {"title": part["title"], "columns": ["Layer", "Set", "Values", "Mean", "Std"], "rows": rows},
        [Key(n, i % 8 + 1, dashes(i)) for i, n in enumerate(names)],
    )
