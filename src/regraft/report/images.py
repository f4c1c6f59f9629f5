"""The first layer's connectivity as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.report import svg
from regraft.report.chart import Chart, short
from regraft.report.figures import Pictures
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
    label = (
        f"Images of {height} by {width} inputs: the number of first-layer connections of "
        f"{len(images)} networks, black where it is lowest, white where it is highest."
    )

    rows = [[title, *_pattern_figures(image)] for title, image in images]
    return Chart(
        "What the networks look at",
        "First-layer connections of each input, from the fewest (black) to the most (white).",
        _draw(name, panels, (height, width), label),
        {
            "title": "First-layer connections per input",
            "columns": ["Network", "Fewest", "Median", "Most", "Inputs without any"],
            "rows": rows,
        },
    )


def pictures(part: Pictures, name: str) -> Chart:
    """Images side by side, black at the lowest value of all of them and white at the highest."""
    height, width = part["shape"]
    images = [(p["name"], np.asarray(p["values"], dtype=float)) for p in part["pictures"]]
    limits = min(x.min() for _, x in images), max(x.max() for _, x in images)
    label = (
        f"{len(images)} images of {height} by {width}, black at {limits[0]:g}, white at {limits[1]:g}: "
        f"{', '.join(title for title, _ in images)}."
    )
    rows = [[title, *_pattern_figures(image)] for title, image in images]
    return Chart(
        part["title"],
        f"{part['caption']} Black is {limits[0]:.4g}, white is {limits[1]:.4g}.",
        _draw(name, [(short(title, 15), x) for title, x in images], (height, width), label, limits),
        {
            "title": part["title"],
            "columns": ["Picture", "Lowest", "Median", "Highest", "Pixels at zero"],
            "rows": rows,
        },
    )


def _draw(
    name: str,
    panels: Sequence[tuple[str, Any]],
    shape: tuple[int, int],
    label: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """Images in rows of three; ``limits`` are the values of black and white, else each image has its own."""
    height, width = shape
    columns = min(3, len(panels))
    lines = math.ceil(len(panels) / columns)
    low, high = limits or (None, None)

    def paint(figure: Figure) -> None:
        for i, (title, image) in enumerate(panels):
            ax = figure.add_subplot(lines, columns, i + 1)
            # interpolation "none" keeps one pixel for each input and lets the browser enlarge it
            ax.imshow(image.reshape(height, width), cmap="gray", interpolation="none", vmin=low, vmax=high)
            ax.set_title(title)
            ax.set_xticks([0, width - 1], labels=["1", str(width)])
            ax.set_yticks([0, height - 1], labels=["1", str(height)])
            ax.grid(False)

    return svg.draw(name, paint, 1.75 * lines, label)


def _pattern_figures(counts: Any) -> list[Any]:
    return [
        f"{counts.min():.4g}",
        f"{np.median(counts):.4g}",
        f"{counts.max():.4g}",
        int((counts == 0).sum()),
    ]
