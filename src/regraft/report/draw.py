"""From a study's figure to a chart, by its kind."""

from __future__ import annotations

from regraft.report.bars import bars, boxes
from regraft.report.chart import Chart
from regraft.report.clouds import ellipses
from regraft.report.figures import Figure
from regraft.report.heatmap import matrix
from regraft.report.images import pictures
from regraft.report.lines import lines
from regraft.report.parallel import parallel


def draw(figure: Figure, name: str) -> Chart:
    """The chart of a checked figure that has something to show.

    Args:
        name: unique within the page.
    """
    match figure["kind"]:
        case "lines":
            return lines(figure, name)
        case "boxes":
            return boxes(figure, name)
        case "bars":
            return bars(figure, name)
        case "parallel":
            return parallel(figure, name)
        case "ellipses":
            return ellipses(figure, name)
        case "heatmap":
            return matrix(figure, name)
        case "pictures":
            return pictures(figure, name)
