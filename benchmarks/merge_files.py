"""Merging many sparse networks from files: memory and time.

    python benchmarks/merge_files.py                  # 100 networks of 784-4000-1000-4000-10 at epsilon 20
    python benchmarks/merge_files.py --networks 10 --json -

Peak memory is measured in a fresh process each, as the peak of the resident set (VmHWM) above the resident
set after the imports; "warm" means that a merge of two tiny networks has run before, so that the code of the
operations is in memory as well. Times are medians of interleaved repeats with warm file caches, by the clock
and of the processor: the ratio of the latter holds on a busy machine too. Reading a network checks its
positions and values; loading a model builds it as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from regraft import load, positions
from regraft.allocate import ErdosRenyi
from regraft.files import Header, read_network, write_network
from regraft.merging import merge_files

STATUS = Path("/proc/self/status")


def make_network(path: Path, sizes: Sequence[int], epsilon: float, seed: int) -> None:
    """A random sparse MLP; nothing dense is ever made."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"fc{i + 1}.weight": (n, m) for i, (m, n) in enumerate(itertools.pairwise(sizes))}
    counts = ErdosRenyi(epsilon)(list(shapes.values()))
    tensors = {}
    for (name, shape), nnz in zip(shapes.items(), counts, strict=True):
        tensors[f"{name}.index"] = positions.sample(positions.numel(shape), nnz, generator)
        tensors[f"{name}.values"] = torch.randn(nnz, generator=generator)
        tensors[name.replace("weight", "bias")] = torch.randn(shape[0], generator=generator)
    spec = {"name": "mlp", "sizes": list(sizes), "activation": "relu", "dropout": 0.0}
    write_network(path, tensors, Header(shapes=shapes, model=spec))


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"{STATUS} has no {field}: the memory benchmark needs Linux")


def reset_peak() -> bool:
    """Let VmHWM start again from here, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def measure_memory(folder: Path, warm: bool, options: dict[str, str | None]) -> None:
    """In the fresh process: print the peak above the imports, in bytes."""
    torch.set_num_threads(1)
    paths = sorted(folder.glob("n*.safetensors"))
    if warm:
        merge_files([folder / "tiny0", folder / "tiny1"], folder / "tiny-out", **options)  # type: ignore[arg-type]
    reset = reset_peak()
    before = resident("VmRSS") if reset else resident("VmHWM")
    merge_files(paths, folder / "out", **options)  # type: ignore[arg-type]
    print(json.dumps({"peak": resident("VmHWM") - before, "reset": reset}))


def memory(folder: Path, warm: bool, options: dict[str, str | None], repeats: int) -> int:
    """Median peak above imports, bytes, each in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder), "--options", json.dumps(options)]
    peaks = []
    for _ in range(repeats):
        done = subprocess.run(
            command + (["--warm"] if warm else []), check=True, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        peaks.append(json.loads(done.stdout)["peak"])
    return int(statistics.median(peaks))


def read_bytes(paths: Sequence[Path]) -> None:
    for path in paths:
        path.read_bytes()


def read_networks(paths: Sequence[Path]) -> None:
    for path in paths:
        read_network(path)


def load_models(paths: Sequence[Path]) -> None:
    for path in paths:
        load(path)


def median_times(jobs: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Seconds of each job by the clock and of the processor: medians of repeats in turn."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.perf_counter(), time.process_time()
            job()
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {
        name: (statistics.median(w for w, _ in t), statistics.median(c for _, c in t))
        for name, t in taken.items()
    }


def run(arguments: argparse.Namespace) -> dict[str, object]:
    torch.set_num_threads(1)
    sizes = [int(n) for n in arguments.sizes.split("-")]
    options: dict[str, str | None] = {"weights": arguments.weights, "scope": arguments.scope}
    if arguments.density == "none":
        options["density"] = None
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        paths = [folder / f"n{i:05d}.safetensors" for i in range(arguments.networks)]
        for seed, path in enumerate(paths):
            make_network(path, sizes, arguments.epsilon, seed)
        for i in (0, 1):
            make_network(folder / f"tiny{i}", [s // 50 + 10 for s in sizes], 1.0, i)
        tensors, _ = read_network(paths[0])
        one = sum(t.numel() * t.element_size() for t in tensors.values())
        del tensors
        jobs: dict[str, Callable[[], object]] = {
            "read_bytes": lambda: read_bytes(paths),
            "read_networks": lambda: read_networks(paths),
            "load_models": lambda: load_models(paths),
            "merge": lambda: merge_files(paths, folder / "out", **options),  # type: ignore[arg-type]
        }
        times = median_times(jobs, arguments.repeats)
        cold, warm = (memory(folder, w, options, arguments.repeats) for w in (False, True))
        figures: dict[str, object] = {
            "networks": arguments.networks,
            "sizes": arguments.sizes,
            "epsilon": arguments.epsilon,
            "options": options,
            "file_bytes": paths[0].stat().st_size,
            "one_network_bytes": one,
            "peak_bytes": cold,
            "peak_over_one_network": cold / one,
            "peak_warm_bytes": warm,
            "peak_warm_over_one_network": warm / one,
            "read_bytes_s": times["read_bytes"][0],
            "read_networks_s": times["read_networks"][0],
            "load_models_s": times["load_models"][0],
            "merge_s": times["merge"][0],
            "merge_over_read_networks": times["merge"][0] / times["read_networks"][0],
            "merge_over_load_models": times["merge"][0] / times["load_models"][0],
            "merge_over_read_bytes": times["merge"][0] / times["read_bytes"][0],
            "merge_cpu_s": times["merge"][1],
            "merge_cpu_over_read_networks_cpu": times["merge"][1] / times["read_networks"][1],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=int, default=100, help="how many networks (default 100)")
    parser.add_argument("--sizes", default="784-4000-1000-4000-10", help="units of each layer")
    parser.add_argument("--epsilon", type=float, default=20.0, help="Erdos-Renyi's epsilon (default 20)")
    parser.add_argument("--weights", default="magnitude", help="weight rule (default magnitude)")
    parser.add_argument("--scope", default="layer", choices=["layer", "global"])
    parser.add_argument("--density", default="keep", choices=["keep", "none"])
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement (default 5)")
    parser.add_argument("--folder", default=None, help="where the files are made (default: temporary)")
    parser.add_argument(
        "--json", default=None, metavar="FILE", help="write the figures; '-': standard output"
    )
    parser.add_argument("--measure", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--options", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure_memory(Path(arguments.measure), arguments.warm, json.loads(arguments.options))
        return
    figures = run(arguments)
    if arguments.json == "-":
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:28s}{value:.4g}" if isinstance(value, float) else f"{name:28s}{value}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
