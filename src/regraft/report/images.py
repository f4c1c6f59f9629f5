"""The first layer's connectivity as images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.chart import Chart, short
from regraft.report.schema import Pattern

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pattern(part: Pattern, name: str = "pattern") -> Chart:
    """How many connections leave each input unit, as images, beside the training images' mean."""
    height, width = part["shape"]
    images = [(p["name"], np.asarray(p["counts"], dtype=float)) for p in part["networks"]]
    panels = [(f"{short(name, 12)}: {x.min():g} to {x.max():g}", x) for name, x in images]
    if "mean_image" in part:
        panels.insert(0, ("mean training image", np.asarray(part["mean_image"], dtype=float)))
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    label = (
        f"Images of {height} by {width} inputs: the number of first-layer connections of "
        f"{len(images)} networks, black where it is lowest, white where it is highest."
    )

    def paint(figure: Figure) -> None:
        for i, (title, image) in enumerate(panels):
            ax = figure.add_subplot(lines, columns, i + 1)
            # interpolation "none" keeps one pixel for each input and lets the browser enlarge it
            ax.imshow(image.reshape(height, width), cmap="gray", interpolation="none")
            ax.set_title(title)
            ax.set_xticks([0, width - 1], labels=["1", str(width)])
            ax.set_yticks([0, height - 1], labels=["1", str(height)])
            ax.grid(False)

    rows = [[title, *_pattern_figures(image)] for title, image in images]
    return Chart(
        "What the networks look at",
        "First-layer connections of each input, from the fewest (black) to the most (white).",
        svg.draw(name, paint, 1.75 * lines, label),
        {
            "title": "First-layer connections per input",
            "columns": ["Network", "Fewest", "Median", "Most", "Inputs without any"],
            "rows": rows,
        },
    )


def _pattern_figures(counts: Any) -> list[Any]:
    return [f"{counts.min():g}", f"{np.median(counts):g}", f"{counts.max():g}", int((counts == 0).sum())]
