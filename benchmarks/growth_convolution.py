"""Growing connections of convolutions: thesis 4's tables 3.1 to 3.3 and the static row of 3.5, at any scale.

A cell is one training of a wide residual network on CIFAR-100; each is a line of a file (--out), so that an
interrupted study goes on:

    python benchmarks/growth_convolution.py --data-dir DIR [--methods dense static ...] [--densities 0.2,0.1]
    python benchmarks/growth_convolution.py --data-dir DIR --coarse --side 16 --densities 0.05 --per-class 500
    python benchmarks/growth_convolution.py --table ...   # of the cells that are there, with the same options

The thesis's scale, for a large machine, with the full CIFAR-100 in DIR:

    python benchmarks/growth_convolution.py --data-dir DIR --model wrn-28-5 --epochs 70 --batch-size 256 \\
        --per-class 500 --test-per-class 100 --lr 0.1 --every 1 --device cuda

All convolutions are sparse, each with the same density; the classifier stays dense. All sparse networks of a
seed and density begin with the same connections and values. No topology changes in the last epoch. "Epoch"
and "steps" (each --every of them) are the thesis's schedules; "cosine" replaces 30 % along a cosine each
--cosine-every steps, alike for every rule but RigL's, whose updates end after 75 % of the training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import ttest_rel

from _common import add_cell, read_cells
from regraft import data
from regraft.data import Data, Split
from regraft.train import Recipe, train_recipe

EVERY, COSINE_EVERY = "every", "cosine_every"  # stand for the options
COSINE = {"rate": "cosine", "zeta": 0.3, "evolve_every": COSINE_EVERY}
METHODS: dict[str, dict[str, Any]] = {
    "dense": {"dense": True},
    "static": {"evolve": "static"},
    "rigl, epoch": {"evolve": "rigl", "evolve_every": "epoch"},
    "abs(IP), epoch": {"evolve": "search", "zeta": 0.05, "evolve_every": "epoch"},
    "L2, epoch": {"evolve": "search", "metric": "l2", "zeta": 0.05, "evolve_every": "epoch"},
    "random, steps": {"evolve": "set-magnitude", "zeta": 0.01, "evolve_every": EVERY},
    "abs(IP), steps": {"evolve": "search", "zeta": 0.01, "evolve_every": EVERY},
    "L2, steps": {"evolve": "search", "metric": "l2", "zeta": 0.01, "evolve_every": EVERY},
    "random, cosine": {"evolve": "set-magnitude", **COSINE},
    "rigl, cosine": {"evolve": "rigl", **COSINE},
    "abs(IP), cosine": {"evolve": "search", **COSINE},
    "L2, cosine": {"evolve": "search", "metric": "l2", **COSINE},
}
PUBLISHED = {  # WRN-28-5, 50,000 images, 70 epochs, one run each; the best where k_similar differs
    ("dense", 1.0): "74.83",
    ("static", 0.2): "69.94",
    ("abs(IP), epoch", 0.2): "73.04",  # table 3.3, K 5 %; its caption says IP
    ("abs(IP), steps", 0.2): "73.65",  # table 3.1, every minibatch, K 1 %
    ("L2, steps", 0.2): "68.95",  # table 3.2, every minibatch, K 1 %
    ("static", 0.1): "65.92",  # table 3.5
}
SETTINGS = (
    "model", "coarse", "side", "per_class", "test_per_class", "epochs", "batch_size", "lr", "every",
    "cosine_every", "device",
)  # fmt: skip


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What cells of one table have in common."""
    return {name: getattr(args, name) for name in SETTINGS}


def cell(method: str, density: float, seed: int, made: Data, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one training."""
    named = {EVERY: args.every, COSINE_EVERY: args.cosine_every}
    options = {k: named.get(v, v) for k, v in METHODS[method].items()}
    if method != "dense":
        options |= {
            "density": density, "allocate": "uniform", "exclude": ("fc",), "explore": method != "static",
        }  # fmt: skip
    recipe = Recipe(
        args.model, epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, momentum=0.9,
        weight_decay=5e-4, lr_schedule="cosine", seed=seed, **options,
    )  # fmt: skip
    started = time.process_time()
    history = train_recipe(recipe, made, device=args.device).history
    parts = ("seconds", "search_seconds", "rewire_seconds", "dropped", "regrown")
    ever = [row["explored"] for row in history.epochs if "explored" in row]
    return {
        "method": method, "density": density, "seed": seed, **settings(args),
        "accuracy": 100 * history.final["test_accuracy"], "train_loss": history.final["train_loss"],
        "explored": ever[-1] if ever else density, "processor_seconds": time.process_time() - started,
        **{part: sum(row.get(part, 0.0) for row in history.epochs) for part in parts},
    }  # fmt: skip


def shrunk(split: Split, side: int) -> Split:
    """Images of side x side pixels, each the mean of a square of the 32 x 32."""
    return Split(F.avg_pool2d(split.x, split.x.shape[-1] // side), split.y)


def table(cells: list[dict[str, Any]]) -> None:
    """Mean and spread over seeds beside the thesis's figures, the gain on static, and where time went."""
    heads = (
        "density", "seeds", "accuracy", "+-", "- static", "+-", "p", "thesis", "loss", "replaced",
        "ever active", "s", "search", "rewire",
    )  # fmt: skip
    print(f"{'method':16} " + " ".join(f"{head:>11}" for head in heads))
    for density in sorted({c["density"] for c in cells}, reverse=True):
        static = {
            c["seed"]: c["accuracy"] for c in cells if (c["method"], c["density"]) == ("static", density)
        }
        for method in METHODS:
            rows = [c for c in cells if (c["method"], c["density"]) == (method, density)]
            if rows:
                print(f"{method:16} " + " ".join(f"{text:>11}" for text in line(rows, static)))


def line(rows: list[dict[str, Any]], static: dict[int, float]) -> tuple[str, ...]:
    """One method at one density; the gain on static is the mean and spread over seeds that both have, with
    the p of a paired t-test, two-sided."""
    accuracy = [c["accuracy"] for c in rows]
    gains = [c["accuracy"] - static[c["seed"]] for c in rows if c["seed"] in static]
    first = rows[0]
    compared = gains and first["method"] != "static"
    pairs = [(c["accuracy"], static[c["seed"]]) for c in rows if c["seed"] in static]
    p = ttest_rel(*zip(*pairs, strict=True)).pvalue if compared and len(gains) > 1 else 1.0

    def mean(name: str) -> float:
        return statistics.fmean(c[name] for c in rows)

    return (
        f"{first['density']:g}",
        f"{len(rows)}",
        f"{statistics.fmean(accuracy):.2f}",
        f"{statistics.stdev(accuracy):.2f}" if len(rows) > 1 else "",
        f"{statistics.fmean(gains):+.2f}" if compared else "",
        f"{statistics.stdev(gains):.2f}" if compared and len(gains) > 1 else "",
        f"{p:.3f}" if compared and len(gains) > 1 else "",
        PUBLISHED.get((first["method"], first["density"]), ""),
        f"{mean('train_loss'):.3f}",
        f"{mean('dropped'):,.0f}",
        f"{mean('explored'):.1%}",
        f"{mean('seconds'):.0f}",
        f"{mean('search_seconds') / mean('seconds'):.2%}",
        f"{mean('rewire_seconds') / mean('seconds'):.2%}",
    )


def wanted(args: argparse.Namespace) -> list[tuple[str, float, int]]:
    """Cells, seed by seed; the dense network is trained once for all densities."""
    densities = [float(text) for text in args.densities.split(",")]
    made: list[tuple[str, float, int]] = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        made += [("dense", 1.0, seed)] if "dense" in args.methods else []
        made += [(method, d, seed) for d in densities for method in args.methods if method != "dense"]
    return made


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, help="folder that holds cifar-100-python; default: REGRAFT_DATA"
    )
    parser.add_argument(
        "--model", default="wrn-10-1", help="wrn-10-1, wrn-16-2, wrn-28-5, ... (default wrn-10-1)"
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--densities", default="0.2,0.1", help="joined by ',' (default 0.2,0.1)")
    parser.add_argument(
        "--coarse", action="store_true", help="the 20 superclasses in place of the 100 classes"
    )
    parser.add_argument(
        "--per-class", type=int, default=100, help="training images of each class (default 100)"
    )
    parser.add_argument(
        "--test-per-class", type=int, default=50, help="test images of each class (default 50)"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--every", default="10", help="steps between updates of '..., steps' (default 10)")
    parser.add_argument(
        "--cosine-every", default="50", help="steps between updates of '..., cosine' (default 50)"
    )
    parser.add_argument("--side", type=int, default=32, help="of the images, 32, 16 or 8 (default 32)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/growth-convolution.jsonl"))
    parser.add_argument("--most", type=int, default=10**9, help="cells to train in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    return parser.parse_args()


def main() -> None:
    args = options()
    torch.set_num_threads(1)
    asked = settings(args)
    cells = [c for c in read_cells(args.out) if {name: c.get(name) for name in SETTINGS} == asked]
    done = {(c["method"], c["density"], c["seed"]) for c in cells}
    missing = [] if args.table else [key for key in wanted(args) if key not in done][: args.most]
    if missing:
        made = data.load(
            "cifar-100", data_dir=args.data_dir, coarse=args.coarse, per_class=args.per_class,
            test_per_class=args.test_per_class,
        )  # fmt: skip
        made = replace(made, train=shrunk(made.train, args.side), test=shrunk(made.test, args.side))
    for key in missing:
        cells.append(row := cell(*key, made, args))
        add_cell(args.out, row)
        method, density, seed = key
        print(
            f"{method}, density {density:g}, seed {seed}: {row['accuracy']:.2f} % in {row['seconds']:.0f} s",
            flush=True,
        )
    table(cells)


if __name__ == "__main__":
    main()
