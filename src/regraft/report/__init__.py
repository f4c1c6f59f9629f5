"""One self-contained HTML report of a training or merging run: charts in light and dark, data as tables."""

from regraft.report.schema import (
    Curve,
    Densities,
    Distances,
    Fact,
    Grid,
    Histogram,
    Pattern,
    Point,
    Reference,
    Results,
    Table,
)
from regraft.report.write import check_available, render, write

__all__ = [
    "Curve",
    "Densities",
    "Distances",
    "Fact",
    "Grid",
    "Histogram",
    "Pattern",
    "Point",
    "Reference",
    "Results",
    "Table",
    "check_available",
    "render",
    "write",
]
