"""One training step of sparse MLPs, regraft's ways beside the others'.

    python benchmarks/step.py                                     # A, B and C, all ways that are installed
    python benchmarks/step.py --networks C --no-memory
    python benchmarks/step.py --networks SL                       # sparseprop's and rigl-torch's setting

ReLU MLPs with a dense output layer, SGD with momentum, float32. A, B and C: hidden layers Erdos-Renyi with
epsilon 20, batch 100. S and L: two hidden layers of 1000 units at density 0.04, of 4000 at 0.01, batch 128.
All ways run in turn within one process; each number is a median over rounds, each ratio is taken round by
round. Memory is the peak above the imports of a process that takes five steps in one way. How to install the
other projects' ways is said in `step_peers.py`; what is missing is left out, with the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import machine
from _common import (
    in_own_process,
    megabytes,
    numbers,
    options,
    ratio,
    reset_peak,
    set_threads,
    write_figures,
)
from interleaved import measured, summary
from regraft import kernels
from regraft.kernels.plan import PANEL_ROWS
from step_peers import NETWORKS, TINY, WAYS, Network, make_step, why_not

FUSED, ORDINARY = "regraft fused", "regraft ordinary"


def roofline(net: Network, seconds: float, sgemm: float) -> dict[str, float | None]:
    """What keeps a step from being faster, for one thread: ``of_sgemm``, its share of the machine's rate of a
    dense product; ``gathered_gb_s``, the rate at which it reads rows of activations; ``of_reading``, the time
    that reading these rows takes when nothing else is done, divided by the step's.

    Each connection reads a row of the input forward and a row of the output's gradient backward; the walk
    backward reads panels of rows one after the other, so that they stay in a nearer cache.
    """
    nnz, pairs = net.connections(), list(itertools.pairwise(net.sizes))
    passes = [2] + [3] * (len(nnz) - 1)  # no gradient of the input of the network
    flops = sum(2 * net.batch * n * p for n, p in zip(nnz, passes, strict=True))
    row = 4 * net.batch
    least = 0.0
    for n, (inputs, outputs) in zip(nnz, pairs, strict=True):
        for rows in (inputs, min(outputs, PANEL_ROWS)):
            rate = machine.reading(rows, net.batch)
            least += n * row / (rate * 1e9) if rate else float("nan")
    return {
        "of_sgemm": flops / seconds / 1e9 / sgemm,
        "gathered_gb_s": 2 * sum(nnz) * row / seconds / 1e9,
        "of_reading": least / seconds if least == least else None,
    }


def memory_of(network: str, way: str) -> float:
    """Peak MB of five steps above what is there before the model; to be called in a process of its own."""
    make_step(way, TINY)()  # what is imported or started at the first step
    before = megabytes()
    step = make_step(way, NETWORKS[network])
    reset_peak()  # training, not building
    for _ in range(5):
        step()
    return megabytes("VmHWM") - before


def measure(
    network: str, ways: Sequence[str], rounds: int, threads: int, sgemm: float | None, memory: bool
) -> dict[str, Any]:
    """All figures of one network."""
    net = NETWORKS[network]
    taken = measured({way: make_step(way, net) for way in ways}, rounds=rounds, seconds=0.1)
    timed = summary(taken, ways[0])
    result: dict[str, Any] = {"network": net._asdict(), "connections": sum(net.connections()), "ways": {}}
    others = [way for way in ways[1:] if way not in (ORDINARY, FUSED)]
    result["against"] = {  # how many times faster than each
        mine: {way: summary({way: taken[way], mine: taken[mine]}, way)[mine]._asdict() for way in others}
        for mine in (ORDINARY, FUSED)
        if mine in ways
    }
    for way, t in timed.items():
        arguments = ("--memory-of", way, "--networks", network, "--threads", str(threads))
        peak = in_own_process(__file__, *arguments) if memory else None
        result["ways"][way] = {**t._asdict(), "memory_mb": peak}
    if sgemm is not None and FUSED in timed:
        result["roofline"] = roofline(net, timed[FUSED].median, sgemm)
    return result


def show(network: str, result: dict[str, Any], sgemm: float | None) -> None:
    ways, net = result["ways"], NETWORKS[network]
    base = next(iter(ways))
    title = f"{network}: {'-'.join(map(str, net.sizes))}, {result['connections']} connections"
    print(f"\n{title}, batch {net.batch}")
    print(f"{'':20}{'ms':>9}{'quartiles':>19}{'faster than ' + base:>26}{'MB':>8}")
    for way, t in ways.items():
        spread = f"{t['low'] * 1e3:.2f} - {t['high'] * 1e3:.2f}"
        memory = f"{t['memory_mb']:8.0f}" if t["memory_mb"] is not None else ""
        print(f"{way:20}{t['median'] * 1e3:9.2f}{spread:>19}{ratio(t):>26}{memory}")
    for mine, others in result["against"].items():
        for other, t in others.items():
            print(f"  {mine} is {ratio(t)} times faster than {other}")
    if "roofline" in result:
        line = result["roofline"]
        reading = f"{line['of_reading']:.0%}" if line["of_reading"] else "an unknown share"
        print(
            f"  fused: {line['of_sgemm']:.0%} of the rate of a dense product ({sgemm:.0f} Gflop/s); gathers "
            f"{line['gathered_gb_s']:.0f} GB/s; reading the rows alone takes {reading} of its time"
        )


def main() -> None:
    parser = options(__doc__, rounds=15)
    parser.add_argument("--networks", default="ABC", help="which of A, B, C, S, L (default ABC)")
    parser.add_argument("--ways", default=",".join(WAYS), help="which, joined by ',' (default all)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--memory-of", help="print the peak memory of one way and network only")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    if arguments.memory_of:
        return print(memory_of(arguments.networks, arguments.memory_of))
    ways = numbers(arguments.ways, str)
    if unknown := [way for way in ways if way not in WAYS]:
        parser.error(f"--ways has {', '.join(unknown)}, but there are {', '.join(WAYS)}")
    missing = {way: reason for way in ways if (reason := why_not(way)) is not None}
    ways = [way for way in ways if way not in missing]
    sgemm = machine.sgemm() if arguments.threads == 1 else None
    results = {}
    for network in arguments.networks:
        memory = not arguments.no_memory
        results[network] = measure(network, ways, arguments.rounds, arguments.threads, sgemm, memory)
        if arguments.json != "-":
            show(network, results[network], sgemm)
    if arguments.json != "-":
        for way, reason in missing.items():
            print(f"not measured: {way} ({reason})")
    write_figures(
        arguments.json, {"isa": kernels.isa(), "sgemm": sgemm, "missing": missing, "networks": results}
    )
    return None


if __name__ == "__main__":
    main()
