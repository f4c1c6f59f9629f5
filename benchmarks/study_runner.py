"""What the runner of studies costs a cell: cells that do nothing, from 100 to 100,000.

    python benchmarks/study_runner.py [--most 100000] [--executors inline pool]

Seconds of wall time over cells, in milliseconds: of a first run (each cell is done, kept and copied into the
database), and of a second run that finds all of them there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from regraft.studies import Cell, Outcome, Preset, Study, Work, step
from regraft.studies.run import run


@step
def nothing(work: Work) -> Outcome:
    return Outcome(rows=[{"n": work.config["n"], "value": 0.5}])


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    return [Cell(nothing, {"n": n}) for n in range(settings["cells"])]


SIZES = (100, 1_000, 10_000, 100_000)
STUDY = Study(
    "nothing", "Cells that do nothing", "nothing", "What the runner costs.", cells,
    {f"n{size}": Preset({"cells": size}, "-") for size in SIZES},
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--executors", nargs="+", default=["inline", "pool"])
    options = parser.parse_args()
    table = Table("executor", "cells", "first run, ms a cell", "second run, ms a cell")
    for executor in options.executors:
        for size in (s for s in SIZES if s <= options.most):
            with tempfile.TemporaryDirectory() as folder:
                each = []
                for _ in range(2):
                    started = time.perf_counter()
                    ran = run(STUDY, f"n{size}", folder, executor=executor)
                    assert ran.complete
                    each.append(1000 * (time.perf_counter() - started) / size)
            table.add_row(executor, f"{size:,}", f"{each[0]:.2f}", f"{each[1]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
