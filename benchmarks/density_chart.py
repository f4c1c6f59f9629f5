"""Time of one layer against its density, and where compressed and dense cost the same.

    python benchmarks/density_chart.py --layer 1000x1000 --json runs/density-1000.json
    python benchmarks/density_chart.py --layer 4000x4000 --json runs/density-4000.json
    python benchmarks/density_chart.py --draw runs/density-1000.json runs/density-4000.json

Forward, backward (gradients of input, values and bias) and update (SGD with momentum) of one linear layer, on
one thread, in three ways: the dense layer, the compressed kernels, and the sparse layer materialised for the
call. Activations lie feature-major, as between the sparse layers of a model (--layout batch for the other).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _common import (
    IMAGES,
    numbers,
    options,
    ratio,
    read_figures,
    save_pictures,
    set_threads,
    style,
    write_figures,
)
from interleaved import timings
from kernels_crossover import WAYS, jobs, shape_of

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def measure(arguments: Any) -> list[dict[str, Any]]:
    """A row for each density."""
    rows, layer = [], shape_of(arguments.layer)
    print(f"{arguments.layer}, batch {arguments.batch}: times faster than dense, with quartiles")
    print(f"{'density':>8}{'dense, ms':>11}{'compressed':>22}{'materialised':>22}")
    for density in numbers(arguments.densities, float):
        made = jobs(layer, arguments.batch, density, layout=arguments.layout, update=True)
        found = timings(made, "dense", rounds=arguments.rounds, seconds=arguments.seconds)
        row = {"layer": arguments.layer, "batch": arguments.batch, "density": density}
        rows.append(row | {way: t._asdict() for way, t in found.items()})
        cells = "".join(f"{ratio(rows[-1][way]):>22}" for way in WAYS[1:])
        print(f"{density:>8}{found['dense'].median * 1e3:>11.2f}{cells}", flush=True)
    return rows


def crossover(rows: list[dict[str, Any]], other: str) -> float | None:
    """Density from which on compressed is slower than ``other``, interpolated; None if it never is."""
    before: tuple[float, float] | None = None
    for row in sorted(rows, key=lambda r: r["density"]):
        gain = math.log(row[other]["median"] / row["compressed"]["median"])
        if gain < 0:
            if before is None:
                return float(row["density"])
            share = before[1] / (before[1] - gain)
            return math.exp(math.log(before[0]) + share * (math.log(row["density"]) - math.log(before[0])))
        before = (row["density"], gain)
    return None


def draw(layers: Mapping[str, list[dict[str, Any]]], theme: Mapping[str, Any]) -> Any:
    """A panel for each layer."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(4.6 * len(layers), 3.9), layout="constrained")
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for ax, (layer, rows) in zip(panels, layers.items(), strict=True):
        x = [row["density"] for row in rows]
        title = f"{layer.replace('x', ' x ')} weights, batch {rows[0]['batch']}"
        style(ax, theme, title, "density", "ms for forward, backward, update")
        ax.set_xscale("log")
        ax.set_yscale("log")
        times = {way: [row[way]["median"] * 1e3 for row in rows] for way in WAYS}
        # a dense layer knows no density: one level for all its measurements
        level = sorted(times["dense"])[len(x) // 2]
        words = {"compressed": "compressed", "materialised": "materialised"}
        for i, way in enumerate(words):
            colour = theme["lines"][i]
            ax.plot(x, times[way], marker="o", markersize=3.5, linewidth=1.8, color=colour)
        ax.axhline(level, color=theme["ink"], linewidth=1.2, linestyle=(0, (5, 3)))
        ax.text(x[0], level * 0.93, "dense", color=theme["ink"], fontsize=9.5, va="top")
        ax.text(x[0], max(times["materialised"][0], level) * 1.1, "materialised",
                color=theme["lines"][1], fontsize=9.5, va="bottom")  # fmt: skip
        middle = len(x) // 3
        ax.annotate("compressed", (x[middle], times["compressed"][middle]), xytext=(8, -8),
                    textcoords="offset points", color=theme["lines"][0], fontsize=9.5, va="top")  # fmt: skip
        at = crossover(rows, "dense")
        if at is not None:
            ax.plot([at], [level], marker="o", markersize=9, markerfacecolor="none",
                    markeredgecolor=theme["ink"], linewidth=0)  # fmt: skip
            ax.annotate(f"even at {at:.2f}", (at, level), xytext=(8, -14), textcoords="offset points",
                        color=theme["ink"], fontsize=9.5, ha="left")  # fmt: skip
        lowest = min(times["compressed"])
        ax.set_ylim(lowest * 0.6, max(max(t) for t in times.values()) * 2.2)
        plain = FuncFormatter(lambda v, _: f"{v:g}")
        ax.xaxis.set_major_formatter(plain)
        ax.yaxis.set_major_formatter(plain)
    return figure


def main() -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--layer", default="1000x1000", help="outputs x inputs (default 1000x1000)")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--densities", default=",".join(map(str, DENSITIES)), help="joined by ','")
    parser.add_argument("--layout", choices=("features", "batch"), default="features", help="of the inputs")
    parser.add_argument("--seconds", type=float, default=0.03, help="of one measurement (default 0.03)")
    parser.add_argument("--draw", type=Path, nargs="+", help="files with figures to draw, without measuring")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the pictures")
    arguments = parser.parse_args()
    if arguments.draw:
        layers: dict[str, list[dict[str, Any]]] = {}
        for row in read_figures(arguments.draw):
            layers.setdefault(row["layer"], []).append(row)
        return save_pictures("density", lambda theme: draw(layers, theme), arguments.images)
    set_threads(arguments.threads)
    rows = measure(arguments)
    for other in ("dense", "materialised"):
        at = crossover(rows, other)
        print(f"compressed and {other} cost the same at density {'-' if at is None else f'{at:.2f}'}")
    write_figures(arguments.json, rows)
    return None


if __name__ == "__main__":
    main()
