"""Every score on a residual network: does a layer die, what is effective, and what does it cost?

    python benchmarks/pruning_resnet.py layers --data-dir DIR [--model resnet-20]
    python benchmarks/pruning_resnet.py cost

``layers``: each score at 10, 5 and 2 % on CIFAR-100 images, without a floor and with one. ``cost``: 100 shots
of SynFlow.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft import data, diagnose, models, prune
from regraft.probe import Probe
from regraft.train import seeds

DENSITIES = (0.1, 0.05, 0.02)
SCORES: dict[str, dict[str, Any]] = {
    "random": {},
    "magnitude": {},
    "snip": {},
    "snip, 100 shots, revival": {"score": "snip", "shots": 100, "revive": True},
    "grasp": {},
    "grasp-magnitude": {},
    "synflow": {"shots": 100},
    "variance-flow": {"shots": 100},
    "stacked(magnitude, synflow)": {"shots": 100},
    "stacked(magnitude, synflow):scale=weights": {"shots": 100},
    "inverted(magnitude)": {},
}


def setting(name: str, samples: int, data_dir: Path | None) -> tuple[nn.Module, Probe]:
    """CIFAR-100's training images, a network, and a probe of ``samples`` images as they come."""
    images = data.load("cifar100-subset", data_dir=data_dir)
    model = models.build(
        name, input_shape=images.input_shape, classes=images.classes, generator=seeds.stream(0, "init")
    )
    order = torch.randperm(len(images.train), generator=seeds.stream(0, "samples"))[:samples]
    x, y = images.train[order]
    return model, Probe(nn.functional.cross_entropy, [(x, y)], seeds.stream(0, "random"))


def ticket_of(name: str, model: nn.Module, probe: Probe, density: float, floor: int) -> Any:
    """The topology that a line of ``SCORES`` gives."""
    options = {"score": name, **SCORES[name]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", prune.LayerCollapseWarning)
        return prune.upfront(
            model, probe, density=density, floor=floor, generator=seeds.stream(0, "prune"), **options
        )


def layers(name: str, data_dir: Path | None) -> None:
    """A line per score and density."""
    model, probe = setting(name, 100, data_dir)
    print(f"{'score':41} density floor   dead  cut  effective  outputs  seconds", flush=True)
    for score in SCORES:
        for density in DENSITIES:
            for floor in (0, 16):
                started = time.perf_counter()
                topology = ticket_of(score, model, probe, density, floor)
                seconds = time.perf_counter() - started
                found = diagnose.connectivity(prune.apply(copy.deepcopy(model), topology))
                print(
                    f"{score:41} {100 * density:5.0f} % {floor:5} {len(found.empty):6} {len(found.cut):4} "
                    f"{100 * found.topology.nnz / topology.nnz:8.1f} % "
                    f"{found.outputs - len(found.unreachable):5}/{found.outputs} {seconds:8.1f}",
                    flush=True,
                )


def cost(name: str) -> None:
    """100 shots of SynFlow, three times."""
    torch.set_num_threads(1)
    model = models.build(name, generator=seeds.stream(0, "init"))
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        prune.upfront(model, Probe(input_shape=(3, 32, 32)), score="synflow", density=0.02, shots=100)
        taken.append(time.perf_counter() - started)
    print(f"{name}: 100 shots of SynFlow, {sorted(taken)[1]:.1f} s ({min(taken):.1f} to {max(taken):.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("layers", "cost"))
    parser.add_argument("--model", default="resnet-20")
    parser.add_argument("--data-dir", type=Path, help="folder with data sets; default: REGRAFT_DATA")
    args = parser.parse_args()
    if args.what == "cost":
        cost(args.model)
    else:
        layers(args.model, args.data_dir)


if __name__ == "__main__":
    main()
