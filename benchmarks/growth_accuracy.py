"""Where growth matters: static, SET, RigL and the search for inner products on Fashion-MNIST at 1 % density.

A cell is one training; each is a line of a file (--out), so that an interrupted study goes on:

    python benchmarks/growth_accuracy.py --data-dir DIR [--methods static set ...] [--seeds 5] [--epochs 10]
    python benchmarks/growth_accuracy.py --table          # of the cells that are there

All networks of a seed begin with the same connections and values, and train with the same optimizer. No
topology changes in the last epoch.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from _common import add_cell, read_cells
from regraft import data
from regraft.train import Recipe, train_recipe

MODEL, DENSITY = "mlp:784-1000-1000-1000-10", 0.01
METHODS: dict[str, dict[str, Any]] = {
    "static": {"evolve": "static"},
    "set": {"evolve": "set"},
    "set, every 100 steps": {"evolve": "set", "zeta": 0.05, "evolve_every": "100"},
    "set, cosine": {"evolve": "set-magnitude", "rate": "cosine", "evolve_every": "100"},
    "set, every step": {"evolve": "set", "zeta": 0.01, "evolve_every": "1"},
    "rigl": {"evolve": "rigl"},
    "search, every epoch": {"evolve": "search", "zeta": 0.3, "grow_batches": 8},
    "search, every 100 steps": {"evolve": "search", "zeta": 0.05, "evolve_every": "100", "grow_batches": 8},
    "search, cosine": {"evolve": "search", "rate": "cosine", "evolve_every": "100", "grow_batches": 8},
    "search, every step": {"evolve": "search", "zeta": 0.01, "evolve_every": "1"},
}


def cell(method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one training."""
    made = data.load("fashion-mnist", data_dir=args.data_dir)
    recipe = Recipe(
        MODEL, density=DENSITY, epochs=args.epochs, batch_size=100, lr=args.lr, seed=seed,
        explore=METHODS[method]["evolve"] != "static", **METHODS[method],
    )  # fmt: skip
    history = train_recipe(recipe, made).history
    total = {
        part: sum(row.get(part, 0.0) for row in history.epochs)
        for part in ("seconds", "search_seconds", "rewire_seconds", "dropped", "regrown")
    }
    ever = [row["explored"] for row in history.epochs if "explored" in row]
    return {
        "method": method, "seed": seed, "epochs": args.epochs, "lr": args.lr,
        "accuracy": 100 * history.final["test_accuracy"], "train_loss": history.final["train_loss"],
        "explored": ever[-1] if ever else DENSITY, **total,
    }  # fmt: skip


def table(cells: list[dict[str, Any]]) -> None:
    """Mean and spread over seeds, and where the time went."""
    heads = (
        "seeds",
        "accuracy",
        "+-",
        "loss",
        "replaced",
        "grown back",
        "ever active",
        "s",
        "search",
        "rewire",
    )
    print(f"{'method':24} " + " ".join(f"{head:>11}" for head in heads))
    for method in METHODS:
        rows = [c for c in cells if c["method"] == method]
        if not rows:
            continue
        accuracy = [c["accuracy"] for c in rows]
        mean = {k: statistics.fmean(c[k] for c in rows) for k in rows[0] if k not in ("method", "accuracy")}
        shown = (
            f"{len(rows)}",
            f"{statistics.fmean(accuracy):.2f}",
            f"{statistics.stdev(accuracy) if len(rows) > 1 else 0.0:.2f}",
            f"{mean['train_loss']:.3f}",
            f"{mean['dropped']:,.0f}",
            f"{mean['regrown'] / max(mean['dropped'], 1):.1%}",
            f"{mean['explored']:.1%}",
            f"{mean['seconds']:.0f}",
            f"{mean['search_seconds'] / mean['seconds']:.1%}",
            f"{mean['rewire_seconds'] / mean['seconds']:.1%}",
        )
        print(f"{method:24} " + " ".join(f"{text:>11}" for text in shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--out", type=Path, default=Path("runs/growth-accuracy.jsonl"))
    parser.add_argument("--most", type=int, default=10**9, help="cells to train in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = read_cells(args.out)
    done = {(c["method"], c["seed"], c["epochs"], c["lr"]) for c in cells}
    missing = [
        (method, seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for method in args.methods
        if (method, seed, args.epochs, args.lr) not in done
    ]
    for method, seed in [] if args.table else missing[: args.most]:
        made = cell(method, seed, args)
        cells.append(made)
        add_cell(args.out, made)
        print(f"{method}, seed {seed}: {made['accuracy']:.2f} % in {made['seconds']:.0f} s", flush=True)
    table([c for c in cells if (c["epochs"], c["lr"]) == (args.epochs, args.lr)])


if __name__ == "__main__":
    main()
