"""One cell of thesis 1's phase 2: which weight rule merges best at which sparsity?

    REGRAFT_DATA=... OMP_NUM_THREADS=1 python benchmarks/merging_phase2_cell.py --out runs/phase2

Needs Fashion-MNIST. Prints the 5x5 mean accuracies of each sparsity and the ranking of weight rules; writes
results.json and report.html. See docs/results/merging-phase-2-cell.md for what came out.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from regraft.cli.common import console, data_dir_option, json_option, table, write_json
from regraft.files import versions
from regraft.report import write
from regraft.studies import cell
from regraft.studies.merging import BIAS_RULES, WEIGHT_RULES


@click.command(context_settings={"show_default": True})
@click.option("--sparsity", "sparsities", type=float, multiple=True, default=(0.5, 0.9, 0.95, 0.99))
@click.option("--networks", type=click.IntRange(min=2), default=5, help="Networks trained for each sparsity.")
@click.option("--epochs", type=click.IntRange(min=1), default=1500, help="Epochs at most.")
@click.option("--seed", type=int, default=0, help="Seed of the first network; the others have the next ones.")
@click.option(
    "--rate", default=cell.PHASE_2.rate, help="Schedule of the evolution rate, which starts at 0.5."
)
@click.option("--lr-schedule", default=cell.PHASE_2.lr_schedule, help="Schedule of the learning rate.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/phase2"), help="Folder to write.")
@data_dir_option
@json_option
def main(
    sparsities: tuple[float, ...],
    networks: int,
    epochs: int,
    seed: int,
    rate: str,
    lr_schedule: str,
    out: Path,
    data_dir: Path | None,
    json_path: str | None,
) -> None:
    """Train, merge all pairs by all 25 rules, compare."""
    started = time.perf_counter()
    screen = console(json_path)
    recipe = replace(cell.PHASE_2, epochs=epochs, rate=rate, lr_schedule=lr_schedule)
    data = cell.load(data_dir)
    cells = []
    for sparsity in sparsities:
        cells.append(cell.run(data, sparsity, networks=networks, recipe=recipe, seed=seed, say=screen.print))
        show(screen, cells[-1].figures())
    figures = {
        "cells": [c.figures() for c in cells],
        "recipe": {**recipe.resolved(), "density": None},
        "seconds": time.perf_counter() - started,
        "versions": versions(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(str(out / "results.json"), figures)
    write(out / "report.html", {**cell.results(cells, recipe, data), "versions": versions()})
    write_json(json_path, figures)


def show(screen: Any, figures: dict[str, Any]) -> None:
    """Print the 5x5 grids and rankings of one sparsity."""
    for kind, found in figures["merged"].items():
        title = (
            f"sparsity {figures['sparsity']:g}, {kind}: mean accuracy (%) of {found['networks'] // 25} pairs"
        )
        grid = table("weights \\ biases", *BIAS_RULES, title=title)
        for rule, row in zip(WEIGHT_RULES, found["accuracy"], strict=True):
            grid.add_row(rule, *(f"{100 * v:.1f}" for v in row))
        screen.print(grid)
        ranked = ", ".join(f"{rule} {100 * mean:.1f}" for rule, mean in found["ranking"])
        screen.print(f"ranking: {ranked}\n")


if __name__ == "__main__":
    main()
