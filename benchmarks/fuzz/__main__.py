"""Fuzz every reader of regraft: a million hostile inputs, each a function of seed, target and number.

python -m benchmarks.fuzz                                  a million inputs, runs/fuzz.json; again: goes on
python -m benchmarks.fuzz --total 50000 --targets idx,grid
python -m benchmarks.fuzz --again matlab 1234              one input, with its traceback
python -m benchmarks.fuzz --again matlab 1234 --smaller --write bad.mat
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .attempt import Outcome, Peak, alarmed, attempt, limit_memory
from .results import Results, places, table
from .smaller import smaller
from .target import Target, source
from .targets import TARGETS
from .workers import BATCH, MEMORY, quiet, run

SEED = 9


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--total", type=int, default=1_000_000, help="inputs of all targets (default 1000000)"
    )
    parser.add_argument("--targets", default=None, metavar="A,B", help=f"default: all ({', '.join(TARGETS)})")
    parser.add_argument("--seed", type=int, default=SEED, help=f"default {SEED}")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time of an input (default 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fuzz.json"), help="results; a run goes on from them"
    )
    parser.add_argument("--redo", action="store_true", help="forget what is known of these targets")
    parser.add_argument("--show", action="store_true", help="only show what is in the file of results")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "NUMBER"), help="try one input, here")
    parser.add_argument("--smaller", action="store_true", help="with --again: cut away what is not needed")
    parser.add_argument("--write", type=Path, default=None, help="with --again: a file for the input")
    return parser.parse_args()


def _chosen(names: str | None) -> list[Target]:
    wanted = list(TARGETS) if names is None else names.split(",")
    unknown = [name for name in wanted if name not in TARGETS]
    if unknown:
        raise SystemExit(f"unknown target {unknown[0]!r}: take some of {', '.join(TARGETS)}")
    return [TARGETS[name] for name in wanted]


def split(total: int, targets: list[Target]) -> dict[str, int]:
    """Inputs of each target: whole batches, by their shares; together at least ``total``."""
    whole = sum(t.share for t in targets)
    return {t.name: math.ceil(total * t.share / whole / BATCH) * BATCH for t in targets}


def again(target: Target, number: int, options: argparse.Namespace) -> int:
    """Try one input in this process. Returns 1 where it is a finding."""
    quiet()
    limit_memory(MEMORY)
    case: Any = target.make(source(options.seed, target.name, number))
    with tempfile.TemporaryDirectory() as folder, alarmed():

        def outcome_of(case: Any) -> Outcome:
            return attempt(target, case, Path(folder), Peak(), options.seconds)

        outcome = outcome_of(case)
        if options.smaller and not outcome.good:
            case = smaller(case, lambda case: outcome_of(case), outcome)
            outcome = outcome_of(case)
    print(
        f"{outcome.status} {outcome.where} ({outcome.seconds:.3f} s, {outcome.memory >> 20} MiB)"
        f"\n{outcome.detail}"
    )
    print(repr(case)[:2000])
    if options.write is not None:
        part = next((p for p in case if isinstance(p, bytes)), b"") if isinstance(case, tuple) else case
        options.write.write_bytes(part.encode() if isinstance(part, str) else part)
    return 0 if outcome.good else 1


def fuzz(options: argparse.Namespace) -> int:
    """Run all batches that are left. Returns 1 where there are findings."""
    targets = _chosen(options.targets)
    results = Results(options.out, options.seed, targets, [t.name for t in targets] if options.redo else ())
    if not options.show:
        quiet()
        for target in targets:  # seeds are made once, before the workers are
            target.make(source(options.seed, target.name, 0))
        _run(results, split(options.total, targets), options)
    print(table(results))
    if results.findings:
        print(f"\n{results.findings:,} findings\n{places(results)}")
    return 1 if results.findings else 0


def _run(results: Results, wanted: dict[str, int], options: argparse.Namespace) -> None:
    batches = results.left(wanted)
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    written = told = start = time.monotonic()
    done = 0
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task("inputs", total=len(batches) * BATCH, note="")
        reports = run(batches, TARGETS, seed=options.seed, jobs=options.jobs, seconds=options.seconds)
        for report in reports:
            results.add(report)
            done += sum(report.counts.values())
            bar.update(task, completed=done, note=f"{results.findings} findings")
            now = time.monotonic()
            if now - written > 10:
                results.write()
                written = now
            if not screen.is_terminal and now - told > 60:
                print(f"{done:,} of {len(batches) * BATCH:,}, {done / (now - start):,.0f} / s, "
                      f"{results.findings} findings", file=sys.stderr, flush=True)  # fmt: skip
                told = now
    results.write()


def main() -> int:
    """The command."""
    options = _options()
    if options.again:
        return again(_chosen(options.again[0])[0], int(options.again[1]), options)
    return fuzz(options)


if __name__ == "__main__":
    sys.exit(main())
