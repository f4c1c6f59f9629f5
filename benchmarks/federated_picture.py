"""Pictures of what benchmarks/federated.py found: accuracy against bytes, and against how unlike clients are.

python benchmarks/federated_picture.py runs/federated.jsonl
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from _common import IMAGES, label_line, read_cells, save_pictures, style

METHODS = {
    "dense-fedavg": "dense FedAvg",
    "sparse": "evolving",
    "fixed-mask": "fixed mask",
    "feddst": "FedDST-style",
}
PARTITIONS = {
    "iid": "IID",
    "dirichlet:0.3": "Dirichlet .3",
    "dirichlet:0.1": "Dirichlet .1",
    "classes:2": "2 classes",
}
Cells = Sequence[Mapping[str, Any]]


def mean_over_rounds(cells: Cells, figure: str) -> list[float]:
    """A curve's mean over seeds."""
    return [statistics.fmean(values) for values in zip(*(cell[figure] for cell in cells), strict=True)]


def draw(cells: Cells, theme: Mapping[str, Any]) -> Any:
    """Two panels; one where clients were never more or less unlike."""
    from matplotlib.figure import Figure

    main_part = [c for c in cells if c["part"] == "main" and c["lr_schedule"] == "cosine"]
    largest = max(c["per_class"] for c in main_part)
    unlike = [c for c in cells if c["part"] == "unlike"]
    # the partition that all have in common is in the main part, where that was run at the same scale
    unlike += [c for c in main_part if unlike and c["per_class"] == unlike[0]["per_class"]]
    figure = Figure(figsize=(9.2 if unlike else 6.2, 3.9), layout="constrained")
    axes = figure.subplots(1, 2 if unlike else 1, squeeze=False, width_ratios=(1.25, 1) if unlike else None)[
        0
    ]
    against_bytes(axes[0], [c for c in main_part if c["per_class"] == largest], theme)
    if unlike:
        against_partitions(axes[1], unlike, theme)
    return figure


def against_bytes(ax: Any, cells: Cells, theme: Mapping[str, Any]) -> None:
    """Accuracy after each round, over what all had sent by then."""
    style(
        ax,
        theme,
        "20 clients, Dirichlet .3, 30 rounds",
        "MB sent, both ways, all clients",
        "test accuracy, %",
    )
    ax.set_xscale("log")
    offsets = {"dense-fedavg": (6, 0), "sparse": (6, 7), "fixed-mask": (6, -1), "feddst": (6, -10)}
    for i, (method, words) in enumerate(METHODS.items()):
        own = [c for c in cells if c["method"] == method]
        if not own:
            continue
        sent = [x / 1e6 for x in accumulate(mean_over_rounds(own, "traffic"))]
        shown = [100 * x for x in mean_over_rounds(own, "curve")]
        color = theme["ink"] if method == "dense-fedavg" else theme["lines"][i - 1]
        label_line(ax, sent, shown, words, color=color, offset=offsets[method])
    ax.set_ylim(bottom=70)
    ax.set_xlim(right=ax.get_xlim()[1] * 4)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def against_partitions(ax: Any, cells: Cells, theme: Mapping[str, Any]) -> None:
    """Accuracy in the end, for clients more and more unlike."""
    style(ax, theme, "The more unlike the clients", "who has which samples", "test accuracy, %")
    there = [name for name in PARTITIONS if any(c["partition"] == name for c in cells)]
    for i, (method, words) in enumerate(METHODS.items()):
        shown = [
            [100 * c["accuracy"] for c in cells if (c["method"], c["partition"]) == (method, name)]
            for name in there
        ]
        if not all(shown) or not shown:
            continue
        color = theme["ink"] if method == "dense-fedavg" else theme["lines"][i - 1]
        label_line(ax, range(len(there)), [statistics.fmean(x) for x in shown], words, color=color)
    ax.set_xticks(range(len(there)), [PARTITIONS[name] for name in there])
    ax.set_xlim(-0.2, len(there) + 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cells", type=Path, help="file of finished cells")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the pictures")
    options = parser.parse_args()
    cells = read_cells(options.cells)
    save_pictures("federated", lambda theme: draw(cells, theme), options.images)


if __name__ == "__main__":
    main()
