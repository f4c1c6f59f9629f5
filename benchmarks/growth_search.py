"""Searching for the connections with the largest gradient, beside computing the dense gradient.

    python benchmarks/growth_search.py                            # 1k and 4k, all searches without extras
    python benchmarks/growth_search.py --networks 4k --batches 8  # gradients summed over 8 minibatches
    python benchmarks/growth_search.py --networks 4k --searches "exact;faiss;nmslib;lsh" --rounds 3
    python benchmarks/growth_search.py --networks 64k --searches exact    # no dense gradient: 17 GB

Sparse ReLU MLPs on Fashion-MNIST (scikit-learn's digits where it is missing), trained with SGD for a while:
1k is 784-1000-1000-1000-10 at density 0.04, 4k is 784-4000-4000-10 at 0.01, 64k is 784-65536-65536-10 with
10 connections for each unit of the second layer. The layer looked at is the first of hidden units on hidden
units ("hidden") or the one on pixels ("input"). The baseline is what RigL does: the dense gradient, then the
K largest of the inactive positions. Times are medians of interleaved rounds in one process; ratios to the
baseline are taken round by round. Memory is the peak of a process above its input. Recall is that of
``search.recall`` against the baseline, of products computed in float64.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _common import in_own_process, megabytes, numbers, options, reset_peak, set_threads, write_figures
from interleaved import timings
from regraft import data, models, search, sparsify
from regraft.errors import FileError
from regraft.evolve import capture
from regraft.layers import sparse_layers
from regraft.search import Found, Metric, Search, walk
from regraft.search.protocol import Query, door
from regraft.train import fit

NETWORKS = {"1k": ("1000-1000-1000", 0.04), "4k": ("4000-4000", 0.01), "64k": ("65536-65536", None)}
DENSE, BATCH = "dense", 128
Layer = dict[str, Tensor]
"""``rows`` [out, batches * 128], ``columns`` [in, batches * 128], ``active`` positions."""


def in_torch(
    rows: Tensor, columns: Tensor, k: int, exclude: Tensor | None = None, *, metric: Metric = "abs"
) -> Found:
    """The exact search as it is without a compiler."""
    query: Query = door(rows, columns, k, exclude, metric)
    return walk.walk(query)


SEARCHES: dict[str, Search] = {
    "exact": search.exact,
    "exact, torch": in_torch,
    "bfloat16": search.Bfloat16(),
    "svd": search.Svd(),
    "faiss": search.Faiss(k_similar=0.125),
    "faiss ivf": search.Faiss("ivf", k_similar=0.125),
    "faiss hnsw": search.Faiss("hnsw", k_similar=0.125),
    "hnswlib": search.Hnswlib(k_similar=0.125),
    "nmslib": search.Nmslib(k_similar=0.125),
    "lsh": search.Lsh(k_similar=0.125),
    "lsh weighted": search.Lsh(k_similar=0.125, weighted=True),
}


def layers_of(network: str, steps: int, batches: int) -> dict[str, Layer]:
    """A trained network's gradients at outputs and its inputs, of ``batches`` minibatches side by side."""
    hidden, density = NETWORKS[network]
    g = torch.Generator().manual_seed(0)
    try:
        samples = data.load("fashion-mnist", per_class=(steps * BATCH) // 10 + 1, flatten=True)
    except FileError:
        print("no Fashion-MNIST: digits instead", file=sys.stderr)
        samples = data.load("digits", flatten=True)
    inputs = samples.input_shape[0]
    model = models.build(f"mlp:{inputs}-{hidden}-10", device="meta")
    last = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    if density is None:
        sparsify(model, epsilon=5, exclude=last, generator=g)
    else:
        sparsify(model, density, allocate="uniform", exclude=last, generator=g)
    for module in model.modules():
        if any(p.is_meta for p in module.parameters(recurse=False)):
            module.to_empty(device="cpu", recurse=False)
    models.initialise(model, sparse_init="rescale", generator=g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    fit(model, samples, epochs=1, optimizer=optimizer, batch_size=BATCH)
    chosen = dict(zip(("input", "hidden"), sparse_layers(model).items(), strict=False))
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name, _ in chosen.values()}
    keep = lambda name, layer, x, dz: seen[name].append(capture.columns(layer, x, dz))
    with capture.recording(dict(chosen.values()), keep):
        for start in range(0, batches * BATCH, BATCH):
            at = slice(start, start + BATCH)
            torch.autograd.backward(
                nn.functional.cross_entropy(model(samples.train.x[at]), samples.train.y[at])
            )
    made = {}
    for kind, (name, layer) in chosen.items():
        rows, columns = (torch.cat([pair[side] for pair in seen[name]], 1) for side in (0, 1))
        made[kind] = {"rows": rows, "columns": columns, "active": layer.weight.index}
    return made


def dense(layer: Layer, k: int) -> Tensor:
    """RigL's way: positions of the k largest of the inactive gradients."""
    gradient = (layer["rows"] @ layer["columns"].T).abs_().view(-1)
    gradient[layer["active"]] = -1
    return gradient.topk(k, sorted=False).indices


def recall(found: Found, layer: Layer, truth: Tensor) -> float:
    """``search.recall`` with products in float64: rounding decides nothing."""
    r, c = layer["rows"].double(), layer["columns"].double()
    width = c.shape[0]

    def in_double(index: Tensor) -> Found:
        parts = [(r[at // width] * c[at % width]).sum(1) for at in torch.split(index, 1 << 14)]
        return Found(index, torch.cat(parts))

    return search.recall(in_double(found.index), in_double(truth.sort().values))


def memory_of(file: str, way: str, k: int) -> float:
    """Peak MB above the input; to be called in a process of its own."""
    layer: Layer = torch.load(file)
    tiny = {"rows": torch.ones(4, 4), "columns": torch.ones(4, 4), "active": torch.tensor([0])}
    job(way, tiny, 1)()  # what is imported or started at the first call
    for matrix in layer.values():
        matrix.sum()
    reset_peak()
    before = megabytes()
    job(way, layer, k)()
    return megabytes("VmHWM") - before


def job(way: str, layer: Layer, k: int) -> Callable[[], object]:
    if way == DENSE:
        return lambda: dense(layer, k)
    return lambda: SEARCHES[way](layer["rows"], layer["columns"], k, layer["active"])


def measure(layer: Layer, ways: list[str], k: int, rounds: int, threads: int) -> dict[str, Any]:
    """All figures of one layer and one k."""
    timed = timings({way: job(way, layer, k) for way in ways}, ways[0], rounds=rounds, seconds=1e-3)
    truth = dense(layer, k) if DENSE in ways else None
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "layer.pt")
        torch.save(layer, file)
        for way, t in timed.items():
            arguments = ("--memory-of", way, "--file", file, "--k", str(k), "--threads", str(threads))
            figures[way] = {
                "ms": t.median * 1e3,
                "ratio": 1 / t.speedup,
                "quartiles": [1 / t.speedup_high, 1 / t.speedup_low],
                "memory_mb": in_own_process(__file__, *arguments),
            }
            if way in SEARCHES and truth is not None:
                found = SEARCHES[way](layer["rows"], layer["columns"], k, layer["active"])
                figures[way]["recall"] = recall(found, layer, truth)
    return figures


def show(title: str, figures: dict[str, Any]) -> None:
    print(f"\n{title}\n{'':16}{'ms':>9}{'of dense':>10}{'quartiles':>16}{'recall':>9}{'MB':>8}")
    for way, f in figures.items():
        quartiles = f"{f['quartiles'][0]:.3f}-{f['quartiles'][1]:.3f}"
        found = f"{f['recall']:9.4f}" if "recall" in f else " " * 9
        print(
            f"{way:16}{f['ms']:9.2f}{f['ratio']:10.3f}{quartiles:>16}{found}{f['memory_mb']:8.0f}", flush=True
        )


def main() -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--networks", default="1k,4k", help="which of 1k, 4k, 64k (default 1k,4k)")
    parser.add_argument("--layers", default="hidden", help="hidden, input, or both joined by ','")
    parser.add_argument(
        "--searches", default="exact;exact, torch;bfloat16;svd", help="which, joined by ';' (or 'all')"
    )
    parser.add_argument("--fractions", default="0.01,0.05,0.3", help="K as shares of the active connections")
    parser.add_argument("--batches", type=int, default=1, help="minibatches that are summed (default 1)")
    parser.add_argument("--steps", type=int, default=400, help="of training before (default 400)")
    parser.add_argument("--memory-of", help="print the peak memory of one way only")
    parser.add_argument("--file", help="with the layer, for --memory-of")
    parser.add_argument("--k", type=int, help="for --memory-of")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    if arguments.memory_of:
        print(memory_of(arguments.file, arguments.memory_of, arguments.k))
        return
    wanted = list(SEARCHES) if arguments.searches == "all" else arguments.searches.split(";")
    rows = []
    for network in arguments.networks.split(","):
        start = time.perf_counter()
        layers = layers_of(network, arguments.steps, arguments.batches)
        print(f"{network}: trained in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        ways = wanted if network == "64k" else [DENSE, *wanted]
        for kind in arguments.layers.split(","):
            for fraction in numbers(arguments.fractions, float):
                k = round(fraction * layers[kind]["active"].numel())
                figures = measure(layers[kind], ways, k, arguments.rounds, arguments.threads)
                shape = f"{layers[kind]['rows'].shape[0]} x {layers[kind]['columns'].shape[0]}"
                show(
                    f"{network} {kind} ({shape}), K {fraction:.0%} = {k}, {arguments.batches} minibatches",
                    figures,
                )
                settings = {"network": network, "layer": kind, "fraction": fraction, "k": k}
                rows.append(
                    {**settings, "batches": arguments.batches, "threads": arguments.threads, "ways": figures}
                )
    write_figures(arguments.json, rows)


if __name__ == "__main__":
    main()
