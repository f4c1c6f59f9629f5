"""What scoring costs: 100 evaluations of each score over all candidates, on one thread.

    python benchmarks/scores.py [--models lenet-300-100 resnet-20]

The ratio is to what autograd alone takes: forward and backward of the dense torch model on the same batch of
100 samples, in float32, taken in turn with the score.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from interleaved import timings
from regraft import models, scores, sparsify
from regraft.probe import Probe
from regraft.scores import SCORES, Score, Stacked, weights_of

SHAPES = {"lenet-300-100": (784,), "resnet-20": (3, 32, 32)}


def dense_pass(model: nn.Module, x: Tensor, y: Tensor) -> object:
    """Forward and backward of a dense model."""
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.autograd.grad(loss, tuple(model.parameters()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="NAME")
    args = parser.parse_args()
    torch.set_num_threads(1)
    timed: dict[str, Score] = {n: s for n, s in SCORES.items() if n != "grasp-magnitude"}
    timed["stacked(magnitude, synflow)"] = Stacked(scores.magnitude, scores.synflow)
    for name in args.models:
        shape, g = SHAPES[name], torch.Generator().manual_seed(0)
        dense = models.build(name, input_shape=shape, classes=10, generator=g)
        model = sparsify(copy.deepcopy(dense), density=1.0)
        x, y = torch.randn(100, *shape, generator=g), torch.randint(10, (100,), generator=g)
        probe = Probe(nn.functional.cross_entropy, [(x, y)], g)
        active = {n: torch.rand(w.nnz, generator=g) < 0.1 for n, w in weights_of(model).items()}
        jobs: dict[str, Callable[[], object]] = {"dense torch": partial(dense_pass, dense, x, y)}
        jobs |= {n: partial(s, model, probe, active=active) for n, s in timed.items()}
        candidates = sum(w.nnz for w in weights_of(model).values())
        print(f"{name}: {candidates} candidates, a tenth of them active")
        rounds = 20 if name == "lenet-300-100" else 4
        for job, t in timings(jobs, "dense torch", rounds=rounds).items():
            print(f"  {job:28} {100 * t.median:8.3f} s for 100   {1 / t.speedup:6.2f} times a dense pass")


if __name__ == "__main__":
    main()
