"""What scoring costs: 100 evaluations of each score over all candidates, on one thread.

    python benchmarks/scores.py [lenet-300-100 | resnet-20] ...

The ratio is to what autograd alone takes: forward and backward of the dense torch model on the same batch of
100 samples, in float32, taken in turn with the score.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from interleaved import timings
from regraft import models, scores, sparsify
from regraft.probe import Probe
from regraft.scores import SCORES, Score, Stacked, weights_of


class Block(nn.Module):
    """Two 3x3 convolutions next to a residual stream (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.way = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return torch.relu(y + self.way(x))


def resnet_20() -> nn.Module:
    """ResNet-20 for images of 3x32x32 pixels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for stage, n_out in enumerate((16, 32, 64)):
        for i in range(3):
            layers.append(Block(width, n_out, 2 if stage and not i else 1))
            width = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": (lambda: models.build("lenet-300-100"), (784,)),
    "resnet-20": (resnet_20, (3, 32, 32)),
}


def dense_pass(model: nn.Module, x: Tensor, y: Tensor) -> object:
    """Forward and backward of a dense model."""
    loss = nn.functional.cross_entropy(model(x), y)
    return torch.autograd.grad(loss, tuple(model.parameters()))


def main() -> None:
    torch.set_num_threads(1)
    timed: dict[str, Score] = {n: s for n, s in SCORES.items() if n != "grasp-magnitude"}
    timed["stacked(magnitude, synflow)"] = Stacked(scores.magnitude, scores.synflow)
    for name in sys.argv[1:] or NETWORKS:
        make, shape = NETWORKS[name]
        torch.manual_seed(0)
        dense, model = make(), sparsify(make(), density=1.0)
        g = torch.Generator().manual_seed(0)
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
