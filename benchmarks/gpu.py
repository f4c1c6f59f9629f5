"""How a sparse linear layer computes fastest on a GPU: `python benchmarks/gpu.py`, on a machine with one.

Forward and backward (gradients of input, values and bias) of one layer, by size, batch and density: how many
times faster than materialising the weight each backend is (quartiles in brackets), and a dense layer of the
same size. Then the density below which each backend is faster at every size and batch that was measured: it
belongs into `regraft.kernels.dispatch.GPU_CROSSOVER`.

    python benchmarks/gpu.py --json runs/gpu.json
    python benchmarks/gpu.py --tf32             # dense products may round to TF32, as many people let them
    python benchmarks/gpu.py --device cpu --sizes 64x64 --batches 8 --rounds 3      # that the script runs
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from _common import options
from interleaved import Timing, timings
from regraft import kernels
from regraft.kernels import backends
from regraft.weight import SparseWeight

SIZES = "1000x1000,4000x4000,4096x1024,1024x4096"
BATCHES = "1,32,128,1024"
DENSITIES = "0.001,0.005,0.01,0.02,0.05,0.1,0.2"
MATERIALISED, DENSE = "materialised", "dense"


def layer(size: tuple[int, int], density: float, device: torch.device) -> SparseWeight:
    rows, cols = size
    g = torch.Generator().manual_seed(0)
    count = max(1, round(density * rows * cols))
    index = torch.randperm(rows * cols, generator=g)[:count].sort().values
    return SparseWeight(size, index, torch.randn(count, generator=g)).to(device)


def job(weight: SparseWeight, batch: int, way: str) -> Callable[[], None]:
    """One forward and backward pass; it returns when the device is done."""
    device = weight.values.device
    rows, cols = weight.shape
    x = torch.randn(batch, cols, device=device, requires_grad=True)
    bias, dy = torch.zeros(rows, device=device, requires_grad=True), torch.randn(batch, rows, device=device)
    full = weight.dense().detach().requires_grad_() if way == DENSE else None

    def once() -> None:
        if full is not None:
            torch.autograd.grad(F.linear(x, full, bias), [x, full, bias], dy)
        else:
            compressed = way != MATERIALISED
            mode = "compressed" if compressed else "materialised"
            with kernels.use(mode, backend=way if compressed else None):
                torch.autograd.grad(kernels.linear(x, weight, bias), [x, weight.values, bias], dy)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return once


def measure(
    size: tuple[int, int], batch: int, density: float, device: torch.device, rounds: int
) -> dict[str, Timing]:
    """Timings of each way to compute; ratios are to the materialised one."""
    weight = layer(size, density, device)
    names = [MATERIALISED, *backends.installed(device.type), DENSE]
    return timings({name: job(weight, batch, name) for name in names}, MATERIALISED, rounds=rounds)


def crossover(faster: Sequence[Mapping[float, float]]) -> float:
    """The largest density such that at it and below the ratio is above 1 in each case; 0 if there is none."""
    best = 0.0
    for density in sorted({d for case in faster for d in case}):
        if not all(case[density] > 1.0 for case in faster if density in case):
            break
        best = density
    return best


def described(device: torch.device) -> str:
    """The device and torch in words."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "a CPU"
    return f"{name}, torch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = options(__doc__, rounds=15, threads=False)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--sizes", default=SIZES, help="OUTxIN, several with commas")
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--densities", default=DENSITIES)
    parser.add_argument("--tf32", action="store_true", help="let dense products round to TF32")
    given = parser.parse_args(argv)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here: run this on a machine with a GPU, or pass --device cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = given.tf32
        torch.set_num_threads(max(2, torch.get_num_threads()))  # so that the wall's clock is looked at
    sizes = [(int(a), int(b)) for a, _, b in (size.partition("x") for size in given.sizes.split(","))]
    batches = [int(batch) for batch in given.batches.split(",")]
    densities = [float(density) for density in given.densities.split(",")]
    print(f"{described(device)}; times faster than materialising", file=sys.stderr)
    rows, cases = [], []
    for size in sizes:
        for batch in batches:
            case: dict[str, dict[float, float]] = {}
            for density in densities:
                found = measure(size, batch, density, device, given.rounds)
                rows.append(row(size, batch, density, found))
                print(line(rows[-1]), flush=True)
                for name, timing in found.items():
                    case.setdefault(name, {})[density] = timing.speedup_low
            cases.append(case)
    names = backends.installed(device.type)
    made = {name: crossover([case[name] for case in cases]) for name in names}
    print(f"faster at every size and batch up to density: {made}")
    if given.json:
        report = {"device": described(device), "tf32": given.tf32, "rows": rows, "crossover": made}
        text = json.dumps(report, indent=1)
        if given.json == "-":
            print(text)
        else:
            with open(given.json, "w", encoding="utf-8") as file:
                file.write(text + "\n")
    return made


def row(size: tuple[int, int], batch: int, density: float, found: Mapping[str, Timing]) -> dict[str, Any]:
    """Figures of one case, plain."""
    ways = {name: timing._asdict() for name, timing in found.items()}
    return {"size": list(size), "batch": batch, "density": density, "ways": ways}


def line(figures: Mapping[str, Any]) -> str:
    """One line of the table."""
    ways = dict(figures["ways"])
    base = ways.pop(MATERIALISED)
    cells = (
        f"{name} {w['speedup']:.2f} ({w['speedup_low']:.2f}-{w['speedup_high']:.2f})"
        for name, w in ways.items()
    )
    rows, cols = figures["size"]
    return (
        f"{rows}x{cols} batch {figures['batch']:5} density {figures['density']:6.3f}  "
        f"{base['median'] * 1e3:8.3f} ms  " + ", ".join(cells)
    )


if __name__ == "__main__":
    main()
