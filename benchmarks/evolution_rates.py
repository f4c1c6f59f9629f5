"""Dense, SET, LDV, OSV and EXD on Fashion-MNIST: thesis 3's first experiment, shortened.

Each run is one `regraft train` command, printed as it starts, so that a line of the table can be had alone:

    python benchmarks/evolution_rates.py --data-dir DIR [--epochs 20] [--seeds 3] [--json FILE]

Runs that are in the folder already (--out) are not repeated.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

METHODS = {
    "dense": ["--dense"],
    "SET": ["--epsilon", "20", "--evolve", "set", "--rate", "constant"],
    "LDV": ["--epsilon", "20", "--evolve", "set", "--rate", "ldv"],
    "OSV": ["--epsilon", "20", "--evolve", "set", "--rate", "osv"],
    "EXD": ["--epsilon", "20", "--evolve", "set", "--rate", "exd"],
}
MODEL = "mlp:784-1000-1000-1000-10"


def command(method: str, seed: int, args: argparse.Namespace) -> list[str]:
    """The `regraft train` command of one run."""
    stem = args.out / f"{method.lower()}-{seed}"
    return [
        "regraft", "train", "--data", args.data, "--model", MODEL, *METHODS[method], "--dropout", "0.3",
        "--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9", "--batch-size", "100",
        "--epochs", str(args.epochs), "--seed", str(seed), "--threads", str(args.threads),
        "--out", f"{stem}.safetensors", "--json", f"{stem}.json",
        *(["--data-dir", str(args.data_dir)] if args.data_dir else []),
    ]  # fmt: skip


def figures(method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run, trained if they are not in the folder yet."""
    path = args.out / f"{method.lower()}-{seed}.json"
    if not path.exists():
        words = command(method, seed, args)
        print(shlex.join(words), flush=True)
        run = subprocess.run([sys.executable, "-m", "regraft", *words[1:]], check=False)
        if run.returncode:
            sys.exit(run.returncode)
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="data set")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/evolution-rates"))
    parser.add_argument("--json", type=Path, help="write the table here, too")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {method: [figures(method, seed, args) for seed in range(args.seeds)] for method in METHODS}
    table = {method: summary(runs) for method, runs in rows.items()}
    print(f"\n{MODEL} on {args.data}, {args.epochs} epochs, {args.seeds} seeds; accuracy in % (last epoch)")
    print(
        f"{'method':8} {'parameters':>10} {'compression':>11} {'accuracy':>9} {'+-':>6} "
        f"{'to dense':>9} {'best':>7}"
    )
    for method, row in table.items():
        gain = row["accuracy"] - table["dense"]["accuracy"]
        print(
            f"{method:8} {row['parameters']:10,} {row['compression']:11.1f} {row['accuracy']:9.2f} "
            f"{row['spread']:6.2f} {gain:+9.2f} {row['best']:7.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread over seeds of the last epoch's test accuracy, in %."""
    last = [100 * run["history"][-1]["test_accuracy"] for run in runs]
    best = [100 * max(row["test_accuracy"] for row in run["history"]) for run in runs]
    return {
        "parameters": runs[0]["network"]["parameters"],
        "compression": runs[0]["network"]["compression"],
        "accuracy": statistics.fmean(last),
        "spread": statistics.stdev(last) if len(last) > 1 else 0.0,
        "best": statistics.fmean(best),
        "seconds_per_epoch": statistics.median(row["seconds"] for run in runs for row in run["history"]),
    }


if __name__ == "__main__":
    main()
