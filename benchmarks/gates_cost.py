"""What gates cost: a training step of the big student with them, beside one without.

    OMP_NUM_THREADS=1 python benchmarks/gates_cost.py

Two networks are put side by side, as merging does. Steps are those of merging by gates: forward, loss with
the L0 term, backward, SGD with momentum over weights and gates. Beside regraft's way, in which a number for
each unit and step multiplies what reads the unit, stands that of thesis 2: a gate layer that draws a number
for each unit and sample and multiplies the activations. All ways run in turn within one process; each number
is a median over rounds, each ratio is taken round by round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from _common import options, set_threads, write_figures
from interleaved import measured, summary
from regraft import gates, graph, models, sparsify
from regraft.losses import CrossEntropy
from regraft.train.step import make_step

WITHOUT, WITH, PER_SAMPLE = "without gates", "with gates", "a number for each sample"


class Network(NamedTuple):
    """A network, its samples, and how it is made sparse."""

    name: str
    shape: tuple[int, ...]
    batch: int
    density: float | None = None


NETWORKS = {
    "MLP 784-1000-1000-1000-10": Network("mlp:784-1000-1000-1000-10", (784,), 100),
    "MLP 784-300-100-10": Network("mlp:784-300-100-10", (784,), 100),
    "MLP, density 0.05": Network("mlp:784-1000-1000-1000-10", (784,), 100, 0.05),
    "LeNet-5": Network("lenet-5", (1, 28, 28), 100),
    "ResNet-20": Network("resnet-20", (3, 32, 32), 32),
}


def big_student(net: Network) -> tuple[nn.Module, graph.Graph]:
    """Two networks side by side."""
    made = []
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        model = models.build(net.name, generator=generator)
        if net.density is not None:
            sparsify(model, density=net.density, init="rescale", generator=generator)
        made.append(model)
    return graph.concatenate(made, graph.trace(made[0], net.shape))


class PerSample(nn.Module):
    """The network with gate layers of which each draws a number for each unit and sample."""

    def __init__(self, model: nn.Module, groups: graph.Graph) -> None:
        super().__init__()
        self.model = model
        self.gates = gates.Gates(gates.gate_sizes(groups))
        start = 0
        for name, units in self.gates.sizes.items():
            for slot in groups[name].of_kind("read"):
                layer = model.get_submodule(slot.module)
                layer.register_forward_pre_hook(self._layer(start, units, slot.offset, slot.repeat))
            start += units

    def _layer(self, start: int, units: int, offset: int, repeat: int) -> Callable[..., Any]:
        def multiplied(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            x = inputs[0]
            uniform = torch.rand(len(x), units)
            drawn = self.gates.distribution.sample(self.gates.log_alpha[start : start + units], uniform)
            factor = drawn.repeat_interleave(repeat, dim=1)
            stop = offset + factor.shape[1]
            if stop - offset < x.shape[1]:
                ones = [factor.new_ones(len(x), n) for n in (offset, x.shape[1] - stop)]
                factor = torch.cat([ones[0], factor, ones[1]], dim=1)
            return (x * factor.view(*factor.shape, *(1,) * (x.ndim - 2)), *inputs[1:])

        return multiplied

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, with the L0 term where there are gates; as a loss of its own it takes no fused step."""

    gates: gates.Gates | None

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        value = CrossEntropy()(output, y)
        return value if self.gates is None else value + 0.1 * gates.l0_loss(self.gates, 0.5)


def steps(net: Network) -> dict[str, Callable[[], object]]:
    """A step of each way, each with a network of its own."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(net.batch, *net.shape, generator=generator), torch.arange(net.batch) % 10
    jobs: dict[str, Callable[[], object]] = {}
    for way in (WITHOUT, WITH, PER_SAMPLE):
        model, groups = big_student(net)
        wrapped: nn.Module = model
        own: gates.Gates | None = None
        if way != WITHOUT:
            wrapped = gates.Gated(model, groups) if way == WITH else PerSample(model, groups)
            own = wrapped.gates
        wrapped.train()
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=1e-3, momentum=0.9)
        step = make_step(wrapped, Loss(own), optimizer)
        jobs[way] = partial(step, x, y)
    return jobs


def main() -> None:
    """Print a table: milliseconds of a step without gates, and times as long with them."""
    parser = options(__doc__, rounds=31)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="names, joined by commas")
    args = parser.parse_args()
    set_threads(args.threads)
    rows = []
    for name in [n for n in NETWORKS if n in args.networks]:
        taken = measured(steps(NETWORKS[name]), rounds=args.rounds, seconds=5e-2)
        found = summary(taken, WITHOUT)
        rows.append({"network": name, "batch": NETWORKS[name].batch, "ms": 1e3 * found[WITHOUT].median})
        line = f"{name:24} {rows[-1]['ms']:8.2f} ms"
        for way in (WITH, PER_SAMPLE):
            times = [1 / v for v in (found[way].speedup, found[way].speedup_high, found[way].speedup_low)]
            rows[-1] |= dict(zip((way, f"{way}, low", f"{way}, high"), times, strict=True))
            line += f"   {way} {times[0]:.3f} ({times[1]:.3f}-{times[2]:.3f})"
        print(line, flush=True)
    write_figures(args.json, rows)


if __name__ == "__main__":
    main()
