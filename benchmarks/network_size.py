"""Cost of a training step as the network grows at ten connections per neuron.

    python benchmarks/network_size.py --json runs/size.json                     # 1,000 to 100,000 neurons
    python benchmarks/network_size.py --neurons 300000,1000000 --no-dense --json runs/size-large.json
    python benchmarks/network_size.py --draw runs/size.json runs/size-large.json
    python benchmarks/network_size.py --train --data-dir DIR                    # a million neurons learn

Networks of two hidden layers of the same size between 784 inputs and 10 outputs, with 5 (inputs + outputs)
connections in each layer (epsilon 5, at most all), which makes ten per hidden neuron. Each row comes from a
process of its own: making the network, never through a dense weight; then steps of batch 100 with SGD and
momentum on one thread, in one compiled call (fused) and through autograd and torch's optimizer (ordinary).
Times are medians of processor time with the quickest and slowest; memory is the peak above the imports. The
dense network beside it stops where its steps take too long.
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _common import (
    IMAGES,
    in_own_process,
    label_line,
    megabytes,
    numbers,
    options,
    read_figures,
    reset_peak,
    save_pictures,
    set_threads,
    style,
    write_figures,
)

NEURONS = (1000, 3000, 10_000, 30_000, 100_000)
MOST_DENSE = 10_000  # neurons: 29 million weights
EPSILON, BATCH = 5, 100
WAYS = ("fused", "ordinary", "dense")


def spec(neurons: int) -> str:
    """The model's short name."""
    return f"mlp:784-{neurons // 2}-{neurons // 2}-10"


def make(neurons: int, dense: bool) -> nn.Module:
    """A fresh network; the sparse one gets its connections without a dense weight."""
    from regraft import models, sparsify

    g = torch.Generator().manual_seed(0)
    if dense:
        return models.build(spec(neurons), generator=g)
    model = sparsify(models.build(spec(neurons), device="meta"), epsilon=EPSILON, generator=g)
    models.initialise(model, sparse_init="rescale", generator=g)
    return model


def stepper(model: nn.Module, way: str) -> Callable[[], object]:
    """One training step on one batch."""
    from regraft.kernels.fused import FusedMLP

    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(BATCH, 784, generator=g), torch.randint(0, 10, (BATCH,), generator=g)
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    if way == "fused":
        fused = FusedMLP(model, loss, optimizer)
        return lambda: fused.step(x, y)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    return step


def measure(neurons: int, way: str, seconds: float) -> dict[str, Any]:
    """Making and training one network; to be called in a process of its own."""
    warm = stepper(make(40, way == "dense"), way)
    warm()  # what is imported or started at the first step
    before = megabytes()
    reset_peak()
    started = time.perf_counter()
    model = make(neurons, way == "dense")
    made = time.perf_counter() - started
    making, held = megabytes("VmHWM") - before, megabytes() - before
    reset_peak()
    step = stepper(model, way)
    step()
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 1000):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    weights = sum(p.numel() for n, p in model.named_parameters() if not n.endswith("bias"))
    return {
        "neurons": neurons, "way": way, "weights": weights,
        "step": statistics.median(times), "quickest": min(times), "slowest": max(times), "steps": len(times),
        "make_seconds": made, "make_mb": making, "network_mb": held, "train_mb": megabytes("VmHWM") - before,
    }  # fmt: skip


def milliseconds(seconds: float) -> str:
    """Three digits, or whole ones."""
    return f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def show(row: Mapping[str, Any]) -> None:
    spread = f"{milliseconds(row['quickest'])} - {milliseconds(row['slowest'])}"
    print(
        f"{row['neurons']:>9,}{row['way']:>10}{row['weights']:>13,}{milliseconds(row['step']):>11}{spread:>18}"
        f"{row['train_mb']:>10,.0f}{row['make_mb']:>11,.0f}{row['make_seconds']:>9.2f}",
        flush=True,
    )


def draw(rows: list[dict[str, Any]], theme: Mapping[str, Any]) -> Any:
    """Time and memory against neurons."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9.2, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    style(left, theme, "One training step, batch 100", "hidden neurons", "ms")
    style(right, theme, "Peak memory while training", "hidden neurons", "MB")
    for ax, figure_of, unit in ((left, "step", 1e3), (right, "train_mb", 1.0)):
        ax.set_xscale("log")
        ax.set_yscale("log")
        for i, way in enumerate(WAYS):
            mine = sorted((r for r in rows if r["way"] == way), key=lambda r: r["neurons"])
            if not mine:
                continue
            up = 9 if way == "ordinary" else -9 if way == "fused" else 0
            label_line(
                ax, [r["neurons"] for r in mine], [unit * r[figure_of] for r in mine], way,
                color=theme["ink"] if way == "dense" else theme["lines"][i], offset=(7, up),
            )  # fmt: skip
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
        ax.set_xlim(right=ax.get_xlim()[1] * 2)
    return figure


def train(arguments: argparse.Namespace) -> None:
    """`regraft train` with a million neurons: what it prints, the time of a step, and the peak memory."""
    words = [
        "regraft", "train", "--data", arguments.data, "--per-class", str(arguments.per_class),
        "--test-per-class", "100", "--model", spec(arguments.train_neurons), "--epsilon", str(EPSILON),
        "--evolve", "set", "--lr", str(arguments.lr), "--epochs", str(arguments.epochs),
        "--batch-size", str(BATCH), "--threads", str(arguments.threads), "--out", str(arguments.out),
        "--json", str(arguments.out.with_suffix(".json")),
        *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []),
    ]  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(shlex.join(words), flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "regraft", *words[1:]], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    found = json.loads(arguments.out.with_suffix(".json").read_text(encoding="utf-8"))
    steps = len(found["history"]) * -(-10 * arguments.per_class // BATCH)
    training = sum(row["seconds"] for row in found["history"])
    print(
        f"{steps / training:.2f} steps/s, peak {peak:,.0f} MB with imports and data, {seconds:.0f} s in all"
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--neurons", default=",".join(map(str, NEURONS)), help="hidden ones, joined by ','")
    parser.add_argument("--no-dense", action="store_true", help="leave out the dense networks")
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps for each row (default 2)")
    parser.add_argument("--one", nargs=2, metavar=("NEURONS", "WAY"), help="print one row as JSON only")
    parser.add_argument("--draw", type=Path, nargs="+", help="files with figures to draw, without measuring")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the pictures")
    parser.add_argument("--train", action="store_true", help="train a large network on real data")
    parser.add_argument("--train-neurons", type=int, default=1_000_000)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    parser.add_argument("--per-class", type=int, default=200, help="training samples per class (default 200)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.0001)
    parser.add_argument("--out", type=Path, default=Path("runs/million.safetensors"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    if arguments.one:
        neurons, way = arguments.one
        return print(json.dumps(measure(int(neurons), way, arguments.seconds)))
    if arguments.train:
        return train(arguments)
    if arguments.draw:
        rows = read_figures(arguments.draw)
        return save_pictures("network-size", lambda theme: draw(rows, theme), arguments.images)
    print(
        f"{'neurons':>9}{'way':>10}{'weights':>13}{'step, ms':>11}{'from - to':>18}{'peak, MB':>10}"
        f"{'making, MB':>11}{'s':>9}"
    )
    rows = []
    for neurons in numbers(arguments.neurons, int):
        for way in WAYS:
            if way == "dense" and (arguments.no_dense or neurons > MOST_DENSE):
                continue
            one = ("--one", str(neurons), way, "--seconds", str(arguments.seconds))
            rows.append(in_own_process(__file__, *one, "--threads", str(arguments.threads)))
            show(rows[-1])
    write_figures(arguments.json, rows)
    return None


if __name__ == "__main__":
    main()
