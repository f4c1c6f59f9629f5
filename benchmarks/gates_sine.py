"""Thesis 2's sine problem: a student of two teachers, the best of three networks, one network; 900 epochs.

    python benchmarks/gates_sine.py                       # trains what is missing
    python benchmarks/gates_sine.py --table [--draw]      # of the cells that are there

10,000 points y = sin(10 pi x) + N(0, 0.2^2), x uniform in [0, 1], as many for the test; one hidden layer of
100 ReLU units, SGD with momentum 0.9, 50 models a strategy. Each of three networks trains 300 epochs and the
best by test loss is taken; one network trains 900; the student's teachers are the first two of the three, and
it has 150 epochs with gates and 150 of fine-tuning. A cell is 25 networks trained at once
(``train.population``); each is a line of a file (--out), and the networks are kept beside it, so that an
interrupted study goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from _common import add_cell, read_cells, save_pictures, style
from regraft import checkpoint, gates, graph, models
from regraft.train import History, population, seeds
from regraft.train.layerwise import layerwise

PARTS = ("teacher 1", "teacher 2", "teacher 3", "one model", "student")
CHUNK = 25
NOISE = 0.2
M = TypeVar("M", bound=nn.Module)


def points(split: str) -> tuple[Tensor, Tensor]:
    """x and y, each [10000, 1]."""
    g = seeds.stream(0, f"sine, {split}")
    x = torch.rand(10_000, 1, generator=g)
    return x, torch.sin(10 * math.pi * x) + NOISE * torch.randn(10_000, 1, generator=g)


def schedule(drop: int) -> str:
    """A tenth of the learning rate from this epoch on."""
    return f"MultiStepLR:milestones=[{drop}],gamma=0.1"


def numbers(part: str, chunk: int) -> list[int]:
    """Seeds of the networks of a cell."""
    return [1000 * PARTS.index(part) + CHUNK * chunk + i for i in range(CHUNK)]


def plain(part: str, chunk: int, args: argparse.Namespace) -> tuple[list[nn.Module], dict[str, Any]]:
    """Networks trained in the ordinary way, and their figures."""
    chosen = numbers(part, chunk)
    new = [models.build("mlp:1-100-1", init="torch", generator=seeds.stream(s, "init")) for s in chosen]
    epochs = 900 if part == "one model" else 300
    drop = 800 if part == "one model" else 250
    made, histories = train(new, args, epochs=epochs, lr_schedule=schedule(drop), seeds=chosen)
    return made, {"train_loss": [h.final["train_loss"] for h in histories]}


def train(networks: list[M], args: argparse.Namespace, **options: Any) -> tuple[list[M], list[History]]:
    """What all trainings share."""
    x, y = points("train")
    return population.train(
        networks, x, y, lr=0.01, momentum=0.9, batch_size=args.batch_size, loss="mse", **options
    )


def students(part: str, chunk: int, args: argparse.Namespace) -> tuple[list[nn.Module], dict[str, Any]]:
    """Merged networks, and their figures."""
    chosen = numbers(part, chunk)
    teachers = [[checkpoint.load(path_of(args, p, chunk, i)) for p in PARTS[:2]] for i in range(CHUNK)]
    big = []
    for pair, seed in zip(teachers, chosen, strict=True):
        network, groups = graph.concatenate(pair, graph.trace(pair[0], (1,)))
        own = gates.Gates(gates.gate_sizes(groups), seed=seed)
        big.append(gates.Gated(network, groups, own))
    rising = gates.Rising(0.01, 0.05)
    gated, histories = train(
        big, args, epochs=150, seeds=chosen, rates={"gates.*": args.gate_lr},
        penalty=lambda member, epoch: rising(epoch) * away_from_half(member),
        draw=lambda member: {"uniform": member.gates.noise()}, forward=forward_of(big[0]),
    )  # fmt: skip
    states = [gates.decided(g.gates)[0] for g in gated]
    cut = [gates.compress(g, dict.fromkeys(g.gates.sizes, 100)) for g in gated]
    made, after = train(cut, args, epochs=150, lr_schedule=schedule(100), seeds=chosen)
    return made, {
        "train_loss": [h.final["train_loss"] for h in after],
        "gated": losses(gated), "compressed": losses(cut),
        "open": [s.open for s in states], "undecided": [s.undecided for s in states],
        "gated_train_loss": [h.final["train_loss"] for h in histories],
    }  # fmt: skip


def forward_of(gated: gates.Gated) -> Callable[..., Tensor]:
    """The forward pass of a stack of networks like this one, of one hidden layer: gates multiply the columns
    of the weight that reads the hidden units, which is the same as multiplying the units."""
    inside = layerwise(gated.model)
    assert inside is not None

    def forward(parameters: Mapping[str, Tensor], x: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        values = gated.gates.distribution.sample(parameters["gates.log_alpha"], drawn["uniform"])
        own = {n.removeprefix("model."): p for n, p in parameters.items() if n.startswith("model.")}
        return inside(own | {"fc2.weight": own["fc2.weight"] * values.unsqueeze(1)}, x)

    return forward


def away_from_half(member: Any) -> Tensor:
    """The L0 loss of a network with one group of gates."""
    away: Tensor = 0.5 - member.gates.open_probability().mean()
    return away.square()


def losses(networks: Sequence[nn.Module]) -> list[float]:
    """Mean squared error of each network on the test points."""
    with torch.no_grad():
        x, y = points("test")
        return [nn.functional.mse_loss(n.eval()(x), y).item() for n in networks]


def cell(part: str, chunk: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train 25 networks, keep them, and give their figures."""
    started = time.process_time()
    networks, figures = (students if part == "student" else plain)(part, chunk, args)
    for i, network in enumerate(networks):
        path = path_of(args, part, chunk, i)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(network, path)
    return {
        "part": part, "chunk": chunk, "batch_size": args.batch_size, "test_loss": losses(networks),
        "seconds": time.process_time() - started, **figures,
    }  # fmt: skip


def path_of(args: argparse.Namespace, part: str, chunk: int, number: int) -> Path:
    """Where a network is kept."""
    folder = Path(args.out.with_suffix("")) / f"{args.batch_size}"
    return folder / f"{part.replace(' ', '-')}-{CHUNK * chunk + number}.safetensors"


def by_strategy(cells: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Test loss of each model of each strategy, for the chunks that are there."""
    found = {(c["part"], c["chunk"]): c["test_loss"] for c in cells}
    chunks = sorted({chunk for _, chunk in found})
    values = {p: [v for c in chunks for v in found.get((p, c), [])] for p in PARTS}
    three = list(zip(*(values[p] for p in PARTS[:3]), strict=False))
    return {
        "student": values["student"],
        "best of three": [min(t) for t in three],
        "one model": values["one model"],
        "teachers": [loss for t in three for loss in t[:2]],
    }


def table(cells: list[dict[str, Any]]) -> None:
    """The thesis' table 4.1, and whether the student differs."""
    found = by_strategy(cells)
    print(f"{'strategy':14} {'models':>6} {'min':>7} {'max':>7} {'median':>7} {'mean':>7} {'std':>7}")
    for strategy, values in found.items():
        if len(values) > 1:
            shown = (min(values), max(values), statistics.median(values), statistics.fmean(values))
            text = " ".join(f"{v:7.4f}" for v in (*shown, statistics.stdev(values)))
            if found["student"] and strategy in ("best of three", "one model"):
                text += f"  Mann-Whitney p = {mannwhitneyu(found['student'], values).pvalue:.1g}"
            print(f"{strategy:14} {len(values):6} {text}")
    merged = [c for c in cells if c["part"] == "student"]
    for figure in ("gated", "compressed", "open", "undecided"):
        values = [v for c in merged for v in c[figure]]
        if values:
            middle = statistics.median(values)
            print(f"students, {figure}: median {middle:.4f}, {min(values):.4f} to {max(values):.4f}")


def best_curves(args: argparse.Namespace, cells: list[dict[str, Any]]) -> dict[str, Tensor]:
    """What each model of each strategy has learned, [models, 200], on a grid."""
    grid = torch.linspace(0, 1, 200).unsqueeze(1)
    found = {(c["part"], c["chunk"]): c["test_loss"] for c in cells}
    curves: dict[str, list[Tensor]] = {"student": [], "best of three": [], "one model": []}
    for chunk in sorted({c["chunk"] for c in cells}):
        for i in range(CHUNK):
            best = min(PARTS[:3], key=lambda part: found[part, chunk][i])
            for strategy, part in (
                ("student", "student"),
                ("best of three", best),
                ("one model", "one model"),
            ):
                with torch.no_grad():
                    network = models.build("mlp:1-100-1")
                    checkpoint.load(path_of(args, part, chunk, i), into=network)
                    curves[strategy].append(network(grid).squeeze(1))
    return {strategy: torch.stack(rows) for strategy, rows in curves.items()}


def draw(theme: Mapping[str, Any], cells: list[dict[str, Any]], curves: Mapping[str, Tensor]) -> Any:
    """Box plots of the test loss, and what the models have learned."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 4.6), layout="constrained")
    boxes, *panels = figure.subplots(1, 4, width_ratios=(1.15, 1, 1, 1))
    losses_of = by_strategy(cells)
    for i, (strategy, rows) in enumerate(curves.items()):
        color = theme["lines"][i]
        look = {"color": color, "linewidth": 1.4}
        boxes.boxplot(
            [losses_of[strategy]], positions=[i], widths=0.55,
            boxprops=look, whiskerprops=look, capprops=look,
            medianprops={**look, "linewidth": 2.4}, flierprops={"markeredgecolor": color, "markersize": 3},
        )  # fmt: skip
        x = torch.linspace(0, 1, rows.shape[1])
        panels[i].plot(x, rows.T, color=color, linewidth=0.5, alpha=0.45)
        panels[i].plot(x, torch.sin(10 * math.pi * x), color=theme["ink"], linewidth=1, linestyle=(0, (4, 2)))
        style(panels[i], theme, f"{strategy}, {len(rows)} models", "x", "y" if i == 0 else "")
        panels[i].set_ylim(-1.45, 1.45)
    style(boxes, theme, "Test loss", "", "")
    boxes.axhline(NOISE**2, color=theme["muted"], linewidth=1, linestyle=(0, (4, 2)))
    boxes.annotate("noise", (-0.45, NOISE**2), color=theme["muted"], fontsize=9, va="top", ha="left")
    boxes.set_xticks(range(3), ["student", "best\nof three", "one\nmodel"])
    boxes.set_ylim(0)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--models", type=int, default=50, help=f"a strategy, a multiple of {CHUNK} (default 50)"
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--gate-lr", type=float, default=0.1)
    parser.add_argument("--out", type=Path, default=Path("runs/gates-sine.jsonl"))
    parser.add_argument("--most", type=int, default=10**9, help="cells to train in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    parser.add_argument("--draw", action="store_true", help="write docs/images/gates-sine-*.svg")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = [c for c in read_cells(args.out) if c["batch_size"] == args.batch_size]
    done = {(c["part"], c["chunk"]) for c in cells}
    wanted = [
        (p, chunk) for p in args.parts for chunk in range(args.models // CHUNK) if (p, chunk) not in done
    ]
    for part, chunk in [] if args.table or args.draw else wanted[: args.most]:
        made = cell(part, chunk, args)
        cells.append(made)
        add_cell(args.out, made)
        median = statistics.median(made["test_loss"])
        print(f"{part}, chunk {chunk}: median {median:.4f} in {made['seconds']:.0f} s", flush=True)
    table(cells)
    if args.draw:
        curves = best_curves(args, cells)
        save_pictures("gates-sine", lambda theme: draw(theme, cells, curves))


if __name__ == "__main__":
    main()
