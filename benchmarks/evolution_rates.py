"""Dense, SET, LDV, OSV and EXD on Fashion-MNIST: thesis 3's first experiment, shortened.

Each run is one `regraft train` command, printed as it starts, so that a line of the table can be had alone:

    python benchmarks/evolution_rates.py --data-dir DIR [--epochs 20] [--seeds 1] [--lr 0.01 0.1]

Runs that are in the folder already (--out) are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# the same initial values as the dense network's, at the start and for grown connections
SPARSE = [
    "--epsilon",
    "20",
    "--evolve",
    "set",
    "--sparse-init",
    "keep",
    "--grow-init",
    "dense_fan_in",
    "--rate",
]
METHODS = {
    "dense": ["--dense"],
    "SET": [*SPARSE, "constant"],
    "LDV": [*SPARSE, "ldv"],
    "OSV": [*SPARSE, "osv"],
    "EXD": [*SPARSE, "exd"],
}
MODEL = "mlp:784-1000-1000-1000-10"


def stem_of(method: str, lr: float, seed: int, args: argparse.Namespace) -> Path:
    """Where the files of one run go, without their endings."""
    folder: Path = args.out
    return folder / f"{method.lower()}-lr{lr:g}-epochs{args.epochs}-seed{seed}"


def command(method: str, lr: float, seed: int, args: argparse.Namespace) -> list[str]:
    """The `regraft train` command of one run."""
    stem = stem_of(method, lr, seed, args)
    return [
        "regraft", "train", "--data", args.data, "--model", MODEL, *METHODS[method], "--dropout", "0.3",
        "--optimizer", "sgd", "--lr", f"{lr:g}", "--momentum", "0.9", "--batch-size", "100",
        "--epochs", str(args.epochs), "--seed", str(seed), "--threads", str(args.threads),
        "--out", f"{stem}.safetensors", "--json", f"{stem}.json",
        *(["--data-dir", str(args.data_dir)] if args.data_dir else []),
    ]  # fmt: skip


def figures(method: str, lr: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run, trained if they are not in the folder yet."""
    path = stem_of(method, lr, seed, args).with_suffix(".json")
    if not path.exists():
        words = command(method, lr, seed, args)
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
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--lr", type=float, nargs="+", default=[0.01, 0.1], help="learning rates to try")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/evolution-rates"))
    parser.add_argument("--json", type=Path, help="write the table here, too")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(f"{MODEL} on {args.data}, {args.epochs} epochs, {args.seeds} seeds; accuracy in % (last epoch)")
    table = []
    for lr, method in itertools.product(args.lr, METHODS):
        runs = [figures(method, lr, seed, args) for seed in range(args.seeds)]
        table.append({"method": method, "lr": lr, **summary(runs)})
    dense = max(row["accuracy"] for row in table if row["method"] == "dense")
    print(
        f"\n{'method':8} {'lr':>6} {'parameters':>10} {'compression':>11} {'accuracy':>9} {'+-':>6} "
        f"{'to dense':>9} {'best':>7} {'s/epoch':>8}"
    )
    for row in table:
        print(
            f"{row['method']:8} {row['lr']:6g} {row['parameters']:10,} {row['compression']:11.1f} "
            f"{row['accuracy']:9.2f} {row['spread']:6.2f} {row['accuracy'] - dense:+9.2f} {row['best']:7.2f} "
            f"{row['seconds_per_epoch']:8.1f}"
        )
    print("'to dense' compares with the better dense network; 'best' is the best epoch's")
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
