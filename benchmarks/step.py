"""One training step of sparse MLPs, regraft's ways beside the others': `python benchmarks/step.py`.

ReLU MLPs, hidden layers Erdos-Renyi with epsilon 20, batch 100, SGD with momentum, one thread, float32. All
ways run in turn within one process; each number is a median over rounds, each ratio is taken round by round.
Memory is the peak above the imports of a process that takes five steps in one way.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from interleaved import timings
from step_peers import WAYS, make_step

NETWORKS = {
    "A": (784, 1000, 1000, 1000, 10),
    "B": (784, 4000, 1000, 4000, 10),
    "C": (784, 4000, 4000, 4000, 4000, 10),
}
EPSILON, BATCH = 20, 100


def connections(sizes: tuple[int, ...]) -> list[int]:
    """Active weights of each layer."""
    return [min(a * b, EPSILON * (a + b)) for a, b in itertools.pairwise(sizes)]


def best(job: Callable[[], object], repeats: int = 30) -> float:
    """Seconds of the quickest of `repeats` calls: what the machine can do."""
    job()
    quickest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        quickest = min(quickest, time.perf_counter() - start)
    return quickest


def limits() -> dict[str, float]:
    """What this machine reaches on one thread: sgemm in Gflop/s, reading from caches in GB/s."""
    a = torch.randn(1024, 1024)
    half_l2, l3 = torch.randn(128 * 1024), torch.randn(2 * 1024 * 1024)
    return {
        "sgemm": 2 * 1024**3 / best(lambda: a @ a) / 1e9,
        "l2": half_l2.numel() * 4 / best(half_l2.sum, 300) / 1e9,
        "l3": l3.numel() * 4 / best(l3.sum, 100) / 1e9,
    }


def roofline(sizes: tuple[int, ...], seconds: float, machine: dict[str, float]) -> dict[str, float]:
    """Share of the machine's sgemm rate, and the rate at which rows of activations are gathered."""
    nnz = connections(sizes)
    passes = [2 if first else 3 for first in [True] + [False] * (len(nnz) - 1)]  # no gradient of the input
    flops = sum(2 * BATCH * n * p for n, p in zip(nnz, passes, strict=True))
    gathered = 2 * sum(nnz) * 4 * BATCH  # forward and backward read one row for each connection
    return {"of_sgemm": flops / seconds / 1e9 / machine["sgemm"], "gathered_gb_s": gathered / seconds / 1e9}


def peak_memory(network: str, way: str) -> float:
    """MB above the imports."""
    command = [sys.executable, __file__, "--memory-of", way, "--networks", network]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_memory(network: str, way: str) -> None:
    def status(field: str) -> int:
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(field))

    import regraft  # noqa: F401

    make_step(way, (8, 8, 8, 4), 1.0, 3)()  # what is imported or started at the first step
    before = status("VmRSS")
    step = make_step(way, NETWORKS[network], EPSILON, BATCH)
    gc.collect()
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")  # the peak counts from here: training, not building
    for _ in range(5):
        step()
    print((status("VmHWM") - before) / 1024)


def measure(network: str, rounds: int, machine: dict[str, float], memory: bool) -> dict[str, object]:
    sizes = NETWORKS[network]
    steps = {way: make_step(way, sizes, EPSILON, BATCH) for way in WAYS}
    timed = timings(steps, "dense", rounds=rounds, seconds=0.1)
    result: dict[str, object] = {"connections": sum(connections(sizes)), "ways": {}}
    for way, t in timed.items():
        entry = {**t._asdict(), "memory_mb": peak_memory(network, way) if memory else None}
        result["ways"][way] = entry  # type: ignore[index]
    result["roofline"] = roofline(sizes, timed["regraft fused"].median, machine)
    return result


def show(network: str, result: dict[str, object], machine: dict[str, float]) -> None:
    ways: dict[str, dict[str, float]] = result["ways"]  # type: ignore[assignment]
    print(f"\n{network}: {'-'.join(map(str, NETWORKS[network]))}, {result['connections']} connections")
    print(f"{'':26}{'ms':>9}{'quartiles':>17}{'x dense':>9}{'quartiles':>15}{'MB':>8}")
    for way, t in ways.items():
        spread = f"{t['low'] * 1e3:.2f} - {t['high'] * 1e3:.2f}"
        ratios = f"{t['speedup_low']:.1f} - {t['speedup_high']:.1f}"
        memory = f"{t['memory_mb']:8.0f}" if t["memory_mb"] is not None else ""
        print(f"{way:26}{t['median'] * 1e3:9.2f}{spread:>17}{t['speedup']:9.1f}{ratios:>15}{memory}")
    for other in ("masked dense", "torch CSR", "SciPy, as in SET"):
        print(f"  fused against {other}: {ways[other]['median'] / ways['regraft fused']['median']:.1f}x")
    line: dict[str, float] = result["roofline"]  # type: ignore[assignment]
    print(
        f"  fused: {line['of_sgemm']:.0%} of sgemm's rate; gathers {line['gathered_gb_s']:.0f} GB/s "
        f"(this machine reads {machine['l2']:.0f} from L2, {machine['l3']:.0f} from L3)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="ABC", help="which of A, B, C")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        return print_memory(options.networks, options.memory_of)
    from regraft import kernels

    kernels.set_threads(options.threads)
    machine = limits()
    results = {}
    for network in options.networks:
        results[network] = measure(network, options.rounds, machine, not options.no_memory)
        if not options.json:
            show(network, results[network], machine)
    if options.json:
        print(json.dumps({"isa": kernels.isa(), "machine": machine, "networks": results}))
    return None


if __name__ == "__main__":
    main()
