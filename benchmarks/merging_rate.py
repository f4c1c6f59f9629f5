"""How many merged networks a second: thesis 1's 25 pairs of rules, all at once and one by one.

    OMP_NUM_THREADS=1 python benchmarks/merging_rate.py
    OMP_NUM_THREADS=1 python benchmarks/merging_rate.py --all           # the 63,000 of phase 2, two processes
    OMP_NUM_THREADS=1 python benchmarks/merging_rate.py --products      # where sparse products are faster

Two networks of 784-392-196-10 with sigmoid, uniform sparsity of each layer, random weights; 500 test samples.
A merge is pruned to the parents' sparsity and evaluated. "All at once" is
``regraft.merging.grid.merge_grid``, "one by one" ``merge`` and ``measure.evaluate``. Times are processor
times, medians of interleaved rounds; see docs/results/merging-rate.md.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from itertools import combinations_with_replacement
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from _common import numbers, options, set_threads, write_figures
from interleaved import timings
from regraft import measure, models, positions, sparsify
from regraft.data import Split
from regraft.kernels import backends, plan
from regraft.merging import merge
from regraft.merging.grid import merge_grid
from regraft.train import seeds

SIZES = "784-392-196-10"
SAMPLES = 500
RULES = 25
PAIRS = 30  # of each of two processes
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def networks(sparsity: float, count: int = 2) -> list[nn.Module]:
    """Of one architecture, with topologies and values of their own."""
    made = []
    for seed in range(count):
        g = torch.Generator().manual_seed(seed)
        dense = models.build(f"mlp:{SIZES}", activation="sigmoid", generator=g)
        model = sparsify(dense, 1 - sparsity, allocate="uniform", generator=g)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.randn(p.shape, generator=g) * (0.3 if name.endswith("bias") else 1.0))
        made.append(model)
    return made


def samples() -> Split:
    """Random ones: what they are does not change the time."""
    x = torch.randn(SAMPLES, 784, generator=torch.Generator().manual_seed(2))
    return Split(x, torch.arange(SAMPLES) % 5)


def at_once(parents: list[nn.Module], test: Split) -> None:
    """All 25."""
    merge_grid(parents, test, generator=seeds.stream(0, "merge"))


def one_by_one(parents: list[nn.Module], test: Split) -> None:
    """One of the 25, weights by magnitude and biases by average, as any other."""
    made = merge(parents, "magnitude", "average", generator=seeds.stream(0, "merge"))
    measure.evaluate(made, test)


def rates(sparsity: float, rounds: int) -> dict[str, Any]:
    """Merged networks a second of one core."""
    parents, test = networks(sparsity), samples()
    jobs: dict[str, Callable[[], object]] = {
        "one by one": lambda: one_by_one(parents, test),
        "all at once": lambda: at_once(parents, test),
    }
    found = timings(jobs, "one by one", rounds=rounds)
    plain, grid = found["one by one"], found["all at once"]
    return {
        "sparsity": sparsity, "one by one": 1 / plain.median, "all at once": RULES / grid.median,
        "low": RULES / grid.high, "high": RULES / grid.low, "times": RULES * plain.median / grid.median,
        "milliseconds a pair": 1e3 * grid.median,
    }  # fmt: skip


def worker(sparsity: float, pipe: Connection) -> None:
    """One of two processes that merge at the same time: seconds on the wall and of the processor."""
    set_threads(1)
    parents, test = networks(sparsity), samples()
    at_once(parents, test)
    pipe.send("ready")
    pipe.recv()
    wall, own = time.perf_counter(), time.process_time()
    for _ in range(PAIRS):
        at_once(parents, test)
    pipe.send((time.perf_counter() - wall, time.process_time() - own))


def together(sparsity: float) -> dict[str, float]:
    """Merged networks a second of two processes: on the wall, and by processor time (what two free cores
    would do)."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(2)]
    processes = [context.Process(target=worker, args=(sparsity, end)) for _, end in ends]
    for process in processes:
        process.start()
    for end, _ in ends:
        end.recv()
    for end, _ in ends:
        end.send("go")
    taken = [end.recv() for end, _ in ends]
    for process in processes:
        process.join()
    merged = 2 * PAIRS * RULES
    return {"wall": merged / max(w for w, _ in taken), "processor": merged / max(p for _, p in taken)}


def phase_2(number: int, pipe: Connection) -> None:
    """Every second pair of 20 networks at each sparsity, each network with itself too: seconds on the wall
    and of the processor, without making the networks."""
    set_threads(1)
    test, wall, own = samples(), 0.0, 0.0
    for sparsity in SPARSITIES:
        made = networks(sparsity, 20)
        chosen = list(combinations_with_replacement(made, 2))[number::2]
        started, used = time.perf_counter(), time.process_time()
        for pair in chosen:
            at_once(list(pair), test)
        wall, own = wall + time.perf_counter() - started, own + time.process_time() - used
    pipe.send((wall, own))


def all_of_phase_2() -> list[tuple[float, float]]:
    """The 63,000 merges in two processes: seconds of each."""
    context = multiprocessing.get_context("spawn")
    ends = [context.Pipe() for _ in range(2)]
    processes = [context.Process(target=phase_2, args=(i, end)) for i, (_, end) in enumerate(ends)]
    for process in processes:
        process.start()
    taken = [end.recv() for end, _ in ends]
    for process in processes:
        process.join()
    for i, (wall, own) in enumerate(taken):
        print(
            f"process {i}: {63_000 // 2:,} merged networks, {wall:.0f} s on the wall, {own:.0f} s of a core"
        )
    return taken


def products(rounds: int) -> list[dict[str, Any]]:
    """One forward product at each density, dense and sparse; the plan of the sparse one is part of it."""
    found: list[dict[str, Any]] = []
    backend = backends.current()
    assert backend is not None
    for rows, cols, batch in ((392, 784, SAMPLES), (196, 392, 5 * SAMPLES)):
        x = torch.randn(cols, batch)
        for density in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0):
            index = positions.sample(rows * cols, round(density * rows * cols))
            values = torch.randn(index.numel())

            def dense(index: torch.Tensor = index, values: torch.Tensor = values) -> object:
                return torch.zeros(rows * cols).scatter_(0, index, values).view(rows, cols) @ x  # noqa: B023

            def sparse(index: torch.Tensor = index, values: torch.Tensor = values) -> object:
                walk = plan.build(index, rows, cols)  # noqa: B023
                return backends.BACKENDS[backend].forward(x.t(), values, None, walk, True)  # noqa: B023

            taken = timings({"dense": dense, "sparse": sparse}, "dense", rounds=rounds)
            found.append({"shape": [rows, cols], "batch": batch, "density": density,
                          **{name: t._asdict() for name, t in taken.items()}})  # fmt: skip
            speedup = taken["sparse"].speedup
            print(f"{rows} x {cols}, {batch} samples, density {density:.2f}: sparse {speedup:.2f} times")
    return found


def main() -> None:
    parser = options(__doc__, rounds=20, threads=False)
    parser.add_argument("--sparsities", default="0,0.5,0.9,0.95,0.99")
    parser.add_argument("--products", action="store_true", help="compare single products instead")
    parser.add_argument("--all", action="store_true", help="all merges of phase 2 instead")
    chosen = parser.parse_args()
    set_threads(1)
    if chosen.all:
        write_figures(chosen.json, all_of_phase_2())
        return
    if chosen.products:
        write_figures(chosen.json, products(chosen.rounds))
        return
    figures = []
    print(
        f"{'sparsity':>8} {'one by one':>11} {'all at once':>12} {'times':>6} {'2 processes: wall':>18} "
        f"processor"
    )
    for sparsity in numbers(chosen.sparsities, float):
        row = rates(sparsity, chosen.rounds) | {"2 processes": together(sparsity)}
        both = row["2 processes"]
        print(
            f"{sparsity:8.2f} {row['one by one']:11.0f} {row['all at once']:12.0f} {row['times']:6.1f} "
            f"{both['wall']:18.0f} {both['processor']:9.0f}"
        )
        figures.append(row)
    write_figures(chosen.json, figures)


if __name__ == "__main__":
    main()
