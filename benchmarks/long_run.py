"""Ten thousand updates of a topology by each drop rule with each grow rule, every one of them checked (a
thousand for each other choice that a grow rule has); then ten thousand merges and a thousand saves and loads.
Memory, open files and threads must not grow.

    python benchmarks/long_run.py [--updates 10000] [--only gradient] [--trace] [--json FILE]

After each update of each weight: positions are increasing and in range; their number is what it was; what
stayed has its value and its optimizer's state bit for bit; as many are new as were dropped; all is
finite. The first line that does not hold ends the program. Memory is the resident set of the process after a
tenth of the updates and at the end; with --trace also what Python allocated (tracemalloc), which takes three
times as long.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import regraft
from _common import megabytes, options, set_threads, write_figures
from regraft import Evolve, Merger, SparseWeight, Topology
from regraft.evolve import DROPS, GROWS, INITS
from regraft.evolve.context import Grow
from regraft.search import SEARCHES

SHAPES, DENSITY, SAMPLES, RATE = (24, 16, 10), 0.2, 8, 0.3
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
}
MAIN = ("random, zeros", "gradient", "inner-product")  # their other choices get a tenth of the updates
INSTALLED = {"faiss": "faiss", "hnswlib": "hnswlib", "nmslib": "nmslib"}


def growths() -> dict[str, Grow]:
    """Every grow rule with every choice that it has."""
    found: dict[str, Grow] = {f"random, {init}": GROWS["random"](init=init) for init in INITS}
    for name, kind in GROWS.items():
        if name != "random":
            found[f"{name}"] = kind()
            found[f"{name}, 2 batches"] = kind(batches=2)
            found[f"{name}, starting anew"] = kind(keep_regrown=False)
    found |= {f"inner-product, {s}": GROWS["inner-product"](s) for s in SEARCHES if _has(s) and s != "exact"}
    return found


def _has(search: str) -> bool:
    import importlib.util

    return search not in INSTALLED or importlib.util.find_spec(INSTALLED[search]) is not None


def make_net(seed: int) -> nn.Sequential:
    """A small sparse network."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    a, b, c = SHAPES
    net = nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))
    return regraft.sparsify(net, density=DENSITY, generator=g)


Kept = dict[str, tuple[Tensor, Tensor, dict[str, Tensor]]]


def look(weights: Mapping[str, SparseWeight], optimizer: torch.optim.Optimizer) -> Kept:
    """Positions, values and the optimizer's state of each weight."""
    found = {}
    for name, w in weights.items():
        state = optimizer.state.get(w.values, {})
        vectors = {
            k: v.clone() for k, v in state.items() if isinstance(v, Tensor) and v.shape == w.values.shape
        }
        found[name] = (w.index.clone(), w.values.detach().clone(), vectors)
    return found


def check(before: Kept, after: Kept, weights: Mapping[str, SparseWeight], done: Any) -> None:
    """Raise AssertionError where an update broke what it promises."""
    for name, (old, values, state) in before.items():
        index, now, moved = after[name]
        size = weights[name].size
        assert index.dtype == torch.int64
        assert bool((index[1:] > index[:-1]).all()), f"{name}: positions out of order or twice"
        assert int(index[0]) >= 0, f"{name}: a position out of range"
        assert int(index[-1]) < size, f"{name}: a position out of range"
        assert index.numel() == old.numel() == now.numel() == values.numel(), f"{name}: the count changed"
        assert bool(torch.isfinite(now).all()), f"{name}: a value is not finite"
        assert moved.keys() == state.keys(), f"{name}: the optimizer's state lost a part"
        assert all(bool(torch.isfinite(v).all()) for v in moved.values()), f"{name}: state not finite"
        in_new, in_old = _mask(index, size)[old], _mask(old, size)[index]
        same = now[in_old] == values[in_new]
        for part, vector in moved.items():
            same &= vector[in_old] == state[part][in_new]
            assert not bool(vector[~in_old].any()), f"{name}: what is new has a past in '{part}'"
        back = done.regrown[name]
        assert int((~same).sum()) <= back, f"{name}: a survivor changed"
        assert int((~in_new).sum()) == done.dropped[name] - back, f"{name}: dropped and regrown do not add up"


def _mask(index: Tensor, size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[index] = True
    return mask


def evolve(drop: str, grow: Grow, optimizer: str, updates: int, at: Callable[[int], None]) -> int:
    """The checks over so many updates; the positions that were ever active, in all weights."""
    net, g = make_net(0), torch.Generator().manual_seed(1)
    made = OPTIMIZERS[optimizer](net.parameters())
    evolver = Evolve(drop, grow, RATE, generator=g).attach(net, made)
    weights = {n: m for n, m in net.named_modules() if isinstance(m, SparseWeight)}
    ever = {n: torch.zeros(w.size, dtype=torch.bool) for n, w in weights.items()}
    for update in range(1, updates + 1):
        x, y = torch.randn(SAMPLES, SHAPES[0], generator=g), torch.randn(SAMPLES, SHAPES[-1], generator=g)
        with evolver.watch():
            loss = (net(x) - y).square().mean()
            made.zero_grad()
            loss.backward()
        made.step()
        before = look(weights, made)
        done = evolver.step()
        assert done is not None
        check(before, look(weights, made), weights, done)
        evolver.history.clear()  # it holds the last 10,000 on purpose
        for name, w in weights.items():
            ever[name][w.index] = True
        at(update)
    return sum(int(e.sum()) for e in ever.values())


def merges(count: int, at: Callable[[int], None]) -> None:
    """Streaming and at once, each time with the result of the first time."""
    nets = [make_net(seed) for seed in range(3)]
    first: list[str] = []
    merger = Merger()
    for number in range(1, count + 1):
        merged = regraft.merge(nets, "average", "average", density=DENSITY)
        digest = hashlib.sha256(
            b"".join(t.numpy().tobytes() for t in merged.state_dict().values())
        ).hexdigest()
        first = first or [digest]
        assert digest == first[0], "the same merge gave another result"
        merger.add(nets[number % 3])
        at(number)
    union = Topology.of(nets[0]) | Topology.of(nets[1]) | Topology.of(nets[2])
    assert Topology.of(merger.result(density=None)) == union, "the stream's union is not that of its networks"


def files(count: int, at: Callable[[int], None]) -> None:
    """Save and load, each time the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path, net = Path(folder) / "n.safetensors", make_net(0)
        regraft.save(net, path)
        first = path.read_bytes()
        for number in range(1, count + 1):
            regraft.save(regraft.load(path, into=net), path)
            at(number)
        assert path.read_bytes() == first
        assert os.listdir(folder) == [path.name]


class Watch:
    """What the process holds after a tenth of the work, and at the end."""

    def __init__(self, total: int) -> None:
        self.total, self.seen = total, []  # type: tuple[int, list[dict[str, float]]]

    def __call__(self, number: int) -> None:
        if number in (max(self.total // 10, 1), self.total):
            gc.collect()
            traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
            self.seen.append({
                "rss_mb": megabytes(), "python_kb": traced / 1e3,
                "files": float(len(os.listdir("/proc/self/fd"))), "threads": float(threading.active_count()),
                "tasks": float(len(os.listdir("/proc/self/task"))),
            })  # fmt: skip

    def check(self, name: str) -> dict[str, float]:
        """Raise AssertionError where something grew."""
        first, last = self.seen[0], self.seen[-1]
        for part, most in (("files", 0), ("threads", 0), ("tasks", 0), ("rss_mb", 8), ("python_kb", 4000)):
            assert last[part] - first[part] <= most, f"{name}: {part} grew from {first[part]} to {last[part]}"
        return {
            f"{part}_{when}": row[part] for when, row in (("tenth", first), ("end", last)) for part in row
        }


Job = tuple[str, int, Callable[[Callable[[int], None]], object]]


def jobs(updates: int) -> Iterator[Job]:
    """(name, how often, what is done)."""
    for i, (drop, (label, grow)) in enumerate(itertools.product(DROPS, growths().items())):
        optimizer = list(OPTIMIZERS)[i % 2]  # each grow rule meets both where their number is odd
        times = updates if label in MAIN else max(updates // 10, 1)
        yield f"{drop} / {label} / {optimizer}", times, partial(evolve, drop, grow, optimizer, times)
    yield "merges", updates, partial(merges, updates)
    yield "saves and loads", max(updates // 10, 1), partial(files, max(updates // 10, 1))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    parser.add_argument("--trace", action="store_true")
    chosen = parser.parse_args()
    set_threads(chosen.threads)
    if chosen.trace:
        tracemalloc.start()
    print(f"{'what':56} {'times':>6} {'s':>6}  {'RSS MB':>13} {'Python kB':>13}  files  threads")
    rows = []
    for name, count, work in jobs(chosen.updates):
        if chosen.only not in name:
            continue
        watch, started = Watch(count), time.perf_counter()
        result = work(watch)
        row = {"name": name, "times": count, "seconds": time.perf_counter() - started, **watch.check(name)}
        rows.append(row | {"positions": result})
        print(
            f"{name:56} {count:6} {row['seconds']:6.1f}  {row['rss_mb_tenth']:6.1f} {row['rss_mb_end']:6.1f} "
            f"{row['python_kb_tenth']:6.0f} {row['python_kb_end']:6.0f}  {row['files_end']:5.0f}  "
            f"{row['tasks_end']:7.0f}",
            flush=True,
        )
    write_figures(chosen.json, rows)


if __name__ == "__main__":
    main()
