"""Thesis 2 on images at equal epochs: a student of two teachers, the best of three networks, one network.

    python benchmarks/gates_images.py --data-dir DIR [--problems lenet-fashion ...] [--parts student ...]
    python benchmarks/gates_images.py --table        # of the cells that are there

Of E epochs in all, each of three networks trains E/3 and the best of them by test accuracy is taken; one
network trains E; the student's teachers are the first two of the three, and it has E/6 epochs with gates and
E/6 of fine-tuning. Every training but that with gates takes a tenth of its learning rate after half of its
epochs, and a tenth of that after three quarters, as in the thesis. A cell is one network; each is a line of
a file (--out), and the networks are kept beside it, so that an interrupted study goes on.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import ttest_rel
from torch import Tensor, nn

from _common import add_cell, read_cells
from regraft import checkpoint, data, measure
from regraft.data import Data, Split
from regraft.train import Recipe, train_recipe

PARTS = ("teacher 1", "teacher 2", "teacher 3", "one model", "student")
STRATEGIES = ("student", "best of three", "one model")


@dataclass(frozen=True)
class Problem:
    """Data, and how a network is trained on it.

    Attributes:
        load: ``(seed, folder with data sets) -> data``.
        recipe: its epochs are those of the whole budget.
        merge: options of ``gates.merge``.
    """

    load: Callable[[int, Path | None], Data]
    recipe: Recipe
    merge: Mapping[str, Any] = field(default_factory=dict)


def resized(images: Data, change: Callable[[Tensor], Tensor]) -> Data:
    """The same data with every image changed."""
    train, test = (Split(change(part.x), part.y) for part in (images.train, images.test))
    return replace(images, scaling=None, train=train, test=test)


def digits(seed: int, folder: Path | None) -> Data:
    """450 training and 1347 test images, enlarged to 32x32."""
    return resized(
        data.load("digits", test_fraction=0.75, seed=seed),
        lambda x: F.interpolate(x, scale_factor=4, mode="nearest"),
    )


def fashion(seed: int, folder: Path | None) -> Data:
    """1000 training images, which ones by the seed, and all 10000 test images."""
    return data.load("fashion-mnist", data_dir=folder, per_class=100, seed=seed)


def cifar(seed: int, folder: Path | None) -> Data:
    """20 superclasses: 2000 training images, which ones by the seed, and 5000 test images."""
    return data.load("cifar100-subset", data_dir=folder, coarse=True, per_class=100, seed=seed)


def small_cifar(seed: int, folder: Path | None) -> Data:
    """The same with images of 16x16, the means of 2x2 pixels."""
    return resized(cifar(seed, folder), lambda x: F.avg_pool2d(x, 2))


LENET = Recipe("lenet-5", dense=True, activation="tanh", lr=0.01, momentum=0.9, batch_size=50, epochs=300)
RESNET = replace(LENET, model="resnet-20", activation="relu", lr=0.1, epochs=36)
# lambda ends at 54 in 50 epochs and at 23 in 6; tried on digits with another seed
PROBLEMS = {
    "lenet-digits": Problem(digits, LENET, {"lambda_rate": 0.3}),
    "lenet-fashion": Problem(fashion, LENET, {"lambda_rate": 0.3}),
    "lenet-cifar": Problem(cifar, replace(LENET, epochs=150), {"lambda_rate": 0.6}),
    "resnet-cifar": Problem(small_cifar, RESNET, {"lambda_rate": 2.6}),
}


def recipe_of(problem: Problem, seed: int, number: int, epochs: int) -> Recipe:
    """The recipe of network ``number`` of a seed: its initial values and order are its own."""
    drops = f"MultiStepLR:milestones=[{epochs // 2},{epochs * 3 // 4}],gamma=0.1"
    return replace(problem.recipe, epochs=epochs, lr_schedule=drops, seed=10 * seed + number)


def trained(
    problem: Problem, images: Data, seed: int, number: int, epochs: int
) -> tuple[nn.Module, dict[str, Any]]:
    """A network, and its figures."""
    # the test samples are looked at in the end alone, which saves a third of the time
    glimpse = replace(images, test=images.test.select(torch.arange(100)))
    made = train_recipe(recipe_of(problem, seed, number, epochs), glimpse)
    return made.model, {"train_loss": made.history.final["train_loss"], "epochs": epochs}


def student(
    problem: Problem, images: Data, seed: int, teachers: list[nn.Module]
) -> tuple[nn.Module, dict[str, Any]]:
    """The merged network, and its figures."""
    from regraft import gates

    epochs, recipe = problem.recipe.epochs // 6, problem.recipe
    options: dict[str, Any] = {
        "lr": recipe.lr, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay,
        "batch_size": recipe.batch_size, **problem.merge,
    }  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", gates.GatesWarning)
        made = gates.merge(
            teachers, images, merge_epochs=epochs, finetune_epochs=epochs, seed=seed, **options
        )
    last = made.merging.final
    return made.model, {
        "train_loss": made.finetuning.final["train_loss"], "epochs": 2 * epochs,
        "stages": {stage: 100 * figures["accuracy"] for stage, figures in made.evaluation.items()},
        "open": last["open"], "undecided": last["undecided"], "lambda": last["lambda"],
        "open by group": {g.name: round(g.open, 3) for g in made.groups},
        "warned": [str(w.message) for w in caught],
    }  # fmt: skip


def cell(name: str, part: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train one network, keep it, and give its figures."""
    problem = PROBLEMS[name]
    images = problem.load(seed, args.data_dir)
    started = time.process_time()
    if part == "student":
        teachers = [checkpoint.load(path_of(args, name, seed, f"teacher {i}")) for i in (1, 2)]
        model, figures = student(problem, images, seed, teachers)
    else:
        number = PARTS.index(part)
        share = 1 if part == "one model" else 3
        model, figures = trained(problem, images, seed, number, problem.recipe.epochs // share)
    seconds = time.process_time() - started
    path = path_of(args, name, seed, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(model, path)
    found = measure.evaluate(model, images.test)
    return {
        "problem": name, "part": part, "seed": seed, "accuracy": 100 * found["accuracy"],
        "loss": found["loss"], "seconds": seconds, **figures,
    }  # fmt: skip


def path_of(args: argparse.Namespace, name: str, seed: int, part: str) -> Path:
    """Where a network is kept."""
    return Path(args.out.with_suffix("")) / f"{name}-{seed}-{part.replace(' ', '-')}.safetensors"


def by_strategy(cells: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Test accuracy of each strategy and of what it is made of, for the seeds that have all parts."""
    found = {(c["seed"], c["part"]): c for c in cells}
    seeds = sorted({s for s, _ in found if all((s, p) in found for p in PARTS)})
    parts = {p: [found[s, p]["accuracy"] for s in seeds] for p in PARTS}
    three = list(zip(*(parts[p] for p in PARTS[:3]), strict=True))
    stages = [found[s, "student"]["stages"] for s in seeds]
    return {
        "student": parts["student"],
        "best of three": [max(t) for t in three],
        "one model": parts["one model"],
        "teachers (mean)": [statistics.fmean(t[:2]) for t in three],
        **{f"student, {s}": [stage[s] for stage in stages] for s in (stages[0] if stages else ())},
    }  # fmt: skip


def table(cells: list[dict[str, Any]]) -> None:
    """Each strategy over seeds, and the student's paired gain over the others."""
    for name in PROBLEMS:
        found = by_strategy([c for c in cells if c["problem"] == name])
        if not found["student"]:
            continue
        print(f"\n{name}, {len(found['student'])} seeds")
        for strategy, values in found.items():
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            text = f"{strategy:24} {statistics.fmean(values):6.2f} +- {spread:.2f}, median "
            text += f"{statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}"
            if strategy in STRATEGIES[1:] and len(values) > 1:
                gains = [a - b for a, b in zip(found["student"], values, strict=True)]
                test = ttest_rel(found["student"], values)
                above = sum(g > 0 for g in gains)
                text += f"  student {statistics.fmean(gains):+.2f}, p = {test.pvalue:.2g}, above in {above}"
            print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gates-images.jsonl"))
    parser.add_argument("--most", type=int, default=10**9, help="cells to train in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = read_cells(args.out)
    done = {(c["problem"], c["part"], c["seed"]) for c in cells}
    wanted = [
        (name, part, seed)
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for name in args.problems
        for part in args.parts
        if (name, part, seed) not in done
    ]
    for name, part, seed in [] if args.table else wanted[: args.most]:
        made = cell(name, part, seed, args)
        cells.append(made)
        add_cell(args.out, made)
        print(f"{name}, {part}, seed {seed}: {made['accuracy']:.2f} % in {made['seconds']:.0f} s", flush=True)
    table(cells)


if __name__ == "__main__":
    main()
