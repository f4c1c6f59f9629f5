"""The picture of the sine problem, from the networks that the study gates-sine has kept.

regraft study run gates-sine --preset small --folder runs/studies
python benchmarks/gates_sine.py --folder runs/studies
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _common import save_pictures, style
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.papers.gates_common import STRATEGIES
from regraft.studies.papers.gates_sine import NOISE, learned, samples
from regraft.studies.tables import table


def draw(
    theme: Mapping[str, Any], losses: Mapping[str, Sequence[float]], curves: Mapping[str, Tensor]
) -> Any:
    """Box plots of the test loss, and what the models [models, points] have learned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 4.6), layout="constrained")
    boxes, *panels = figure.subplots(1, 4, width_ratios=(1.15, 1, 1, 1))
    for i, strategy in enumerate(STRATEGIES):
        color, rows = theme["lines"][i], curves[strategy]
        look = {"color": color, "linewidth": 1.4}
        boxes.boxplot(
            [losses[strategy]], positions=[i], widths=0.55,
            boxprops=look, whiskerprops=look, capprops=look,
            medianprops={**look, "linewidth": 2.4}, flierprops={"markeredgecolor": color, "markersize": 3},
        )  # fmt: skip
        x = torch.linspace(0, 1, rows.shape[1])
        panels[i].plot(x, rows.T, color=color, linewidth=0.5, alpha=0.45)
        panels[i].plot(x, torch.sin(10 * math.pi * x), color=theme["ink"], linewidth=1, linestyle=(0, (4, 2)))
        style(panels[i], theme, f"{strategy}, {len(rows)} models", "x", "y" if i == 0 else "")
        panels[i].set_ylim(-1.45, 1.45)
    style(boxes, theme, "Test loss", "", "")
    boxes.axhline(NOISE**2, color=theme["muted"], linewidth=1, linestyle=(0, (4, 2)))
    boxes.annotate("noise", (-0.45, NOISE**2), color=theme["muted"], fontsize=9, va="top", ha="left")
    boxes.set_xticks(range(3), ["student", "best\nof three", "one\nmodel"])
    boxes.set_ylim(0)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/studies"), help="of the study's results")
    parser.add_argument("--preset", default="small")
    args = parser.parse_args()
    rows = table(named("gates-sine"), args.preset, Folder(args.folder))
    curves = learned(rows.results, torch.linspace(0, 1, 200).unsqueeze(1))
    losses = samples("test_loss")(rows)
    save_pictures("gates-sine", lambda theme: draw(theme, losses, curves))


if __name__ == "__main__":
    main()
