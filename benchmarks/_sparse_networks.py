"""Networks that the merging benchmarks start from: thesis 1's five classes, in shards or not, trained once.

Fashion-MNIST, 5 classes x 1000 training images, 784-392-196-5, ReLU, uniform sparsity of each layer, SET
after every epoch. A trained network is kept as a file, so that studies share it and go on where they were
interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from torch import nn

from _common import add_cell, read_cells
from regraft import checkpoint, measure
from regraft import data as datasets
from regraft.data import Data
from regraft.data.partition import generator_for
from regraft.train import Recipe, train_recipe

CLASSES = 5
RECIPE = Recipe(
    model="mlp:in-392-196-classes", density=0.05, allocate="uniform", evolve="set", rate="cosine", zeta=0.5,
    lr=0.1, momentum=0.9, weight_decay=1e-3, lr_schedule="cosine", batch_size=100, epochs=60,
)  # fmt: skip


def load(seed: int, data_dir: str | Path | None = None) -> Data:
    """1000 training images of each class, which ones by the seed, and all 1000 test images of each."""
    return datasets.load(
        "fashion-mnist", data_dir=data_dir, classes=range(CLASSES), per_class=1000, seed=seed, flatten=True
    )


def shards(data: Data, split: str, seed: int) -> list[Data]:
    """Disjoint parts of the training samples; the test samples stay whole.

    Args:
        split: ``"all"``; ``"iid-2"``, ``"iid-4"``: equal parts of every class; ``"class-2"``: three classes
            here and two there, which ones by the seed.
    """
    generator = generator_for(seed, "shards", split)
    y = data.train.y
    if split == "all":
        parts = [torch.arange(len(y))]
    elif split.startswith("iid-"):
        n = int(split[4:])
        shuffled = [
            (y == c).nonzero().squeeze(1)[torch.randperm(int((y == c).sum()), generator=generator)]
            for c in range(CLASSES)
        ]
        parts = [torch.cat([members[i::n] for members in shuffled]).sort().values for i in range(n)]
    elif split == "class-2":
        here = torch.randperm(CLASSES, generator=generator)[:3]
        mine = torch.isin(y, here)
        parts = [mine.nonzero().squeeze(1), (~mine).nonzero().squeeze(1)]
    else:
        raise SystemExit(f"unknown split {split!r}")
    return [replace(data, train=data.train.select(part)) for part in parts]


def trained(recipe: Recipe, data: Data, path: Path, model: nn.Module | None = None) -> nn.Module:
    """The network that ``recipe`` trains on ``data``; from ``path`` where it is there already."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(train_recipe(recipe, data, model=model).model, path)
    return checkpoint.load(path)


def recipe_for(sparsity: float, seed: int, number: int, epochs: int) -> Recipe:
    """The recipe of network ``number`` of a seed: initial values, topology and order are all its own."""
    return replace(RECIPE, density=round(1 - sparsity, 6), epochs=epochs, seed=1000 * seed + number)


def parents(
    data: Data, split: str, sparsity: float, seed: int, epochs: int, folder: Path, first: int = 0
) -> list[nn.Module]:
    """One network for each shard."""
    found = []
    for number, shard in enumerate(shards(data, split, seed), first):
        path = folder / f"{split}-{sparsity:g}-{epochs}-{seed}-{number}.safetensors"
        found.append(trained(recipe_for(sparsity, seed, number, epochs), shard, path))
    return found


def percent(model: nn.Module, data: Data) -> float:
    """Test accuracy."""
    return 100 * measure.evaluate(model, data.test)["accuracy"]


def table(rows: Mapping[str, Sequence[float]], against: Sequence[str]) -> None:
    """Mean and standard deviation over seeds; beside them the mean (median) difference to some rows, in how
    many seeds it is positive, and the p-value of a paired t-test."""
    from scipy import stats

    print(f"{'':34}{'mean':>7}{'std':>6}  " + "".join(f"{'- ' + name:>34}" for name in against))
    for name, values in rows.items():
        cells = []
        for other in against:
            apart = [a - b for a, b in zip(values, rows[other], strict=True)]
            if name == other or len(apart) < 2:
                cells.append("")
                continue
            p = stats.ttest_rel(values, rows[other]).pvalue
            positive = sum(d > 0 for d in apart)
            cells.append(f"{fmean(apart):+.2f} ({median(apart):+.2f}), {positive} of {len(apart)}, p {p:.1g}")
        spread = stdev(values) if len(values) > 1 else 0.0
        print(f"{name:34}{fmean(values):7.2f}{spread:6.2f}  " + "".join(f"{cell:>34}" for cell in cells))


def study_options(
    doc: str | None, kind: str, choices: Sequence[str], sparsity: str, out: str
) -> argparse.Namespace:
    """The command line of a study whose cells are one kind, one sparsity and one seed each.

    Args:
        kind: what a cell is of, besides; ``"split"`` makes the option ``--splits``.
        choices: its values.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of data sets; default: REGRAFT_DATA")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sparsity", default=sparsity, help=f"joined by ',' (default {sparsity})")
    parser.add_argument(f"--{kind}s", nargs="+", default=list(choices), choices=choices, dest="kinds")
    parser.add_argument("--networks", type=Path, default=Path("runs/merging/networks"))
    parser.add_argument("--out", type=Path, default=Path("runs/merging") / out)
    parser.add_argument("--most", type=int, default=10**9, help="cells in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    return parser.parse_args()


def run_study(
    args: argparse.Namespace,
    kind: str,
    cell: Callable[[str, float, int, argparse.Namespace], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Make the cells that are missing, each a line of ``--out``; all cells that are there."""
    torch.set_num_threads(1)
    cells = read_cells(args.out)
    done = {(c[kind], c["sparsity"], c["seed"]) for c in cells}
    wanted = [
        (value, float(text), seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for text in args.sparsity.split(",")
        for value in args.kinds
    ]
    missing = [] if args.table else [key for key in wanted if key not in done][: args.most]
    for key in missing:
        cells.append(made := cell(*key, args))
        add_cell(args.out, made)
        print(key, {name: round(value, 2) for name, value in made["accuracy"].items()}, flush=True)
    return cells
