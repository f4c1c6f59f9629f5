"""One timing cell of thesis 3's comparison: dense, masked and truly sparse networks in turn.

Round by round each takes its steps and predictions, in processor time of one thread, so that a disturbance
hits all of them alike; the rows are compared as ratios only.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft import evolve, layers, losses, measure, models
from regraft.kernels import plan
from regraft.schedules import Constant, Progress
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers.rewiring_common import SPARSE
from regraft.studies.study import Outcome, Row, Work, step
from regraft.train import seeds
from regraft.train.optimizers import rate_by_name
from regraft.train.step import make_step
from regraft.weight import SparseWeight

WAYS = ("dense", "masked", "sparse")
POINTS = 5  # of a schedule at which a change of topology is timed


class Masked(nn.Linear):
    """A dense layer whose weight is multiplied by a mask in each pass, as Keras had to do it."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def networks(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The three networks: the same connections masked and sparse, all of them dense."""
    made: dict[str, nn.Module] = {}
    for way in WAYS:
        model = models.build(
            f"mlp:{'-'.join(str(n) for n in config['sizes'])}", dropout=config["dropout"], init="torch",
            generator=seeds.stream(0, "init"),
        )  # fmt: skip
        if way != "dense":
            model = layers.sparsify(model, epsilon=config["epsilon"], generator=seeds.stream(0, "topology"))
        made[way] = masked(model) if way == "masked" else model
    return made


def masked(model: nn.Module) -> nn.Module:
    """The same network with dense weights and masks."""
    made = []
    for module in model.children():
        weight = getattr(module, "weight", None)
        if isinstance(weight, SparseWeight):
            layer = Masked(weight.shape[1], weight.shape[0])
            with torch.no_grad():
                layer.weight.copy_(weight.dense())
                layer.bias.copy_(module.bias)  # type: ignore[arg-type]
            present = torch.zeros(weight.size)
            present[weight.index] = 1.0
            layer.register_buffer("mask", present.reshape(weight.shape))
            module = layer
        made.append(module)
    return nn.Sequential(*made)


@step
def timing(work: Work) -> Outcome:
    """Training steps, inference and memory of the three networks; changes of the sparse one's topology."""
    config = work.config
    g = seeds.stream(config["repeat"], "batch")
    x = torch.randn(config["batch_size"], config["sizes"][0], generator=g)
    y = torch.randint(config["sizes"][-1], (len(x),), generator=g)
    found = networks(config)
    optimizers = {way: torch.optim.SGD(m.parameters(), lr=1e-3, momentum=0.9) for way, m in found.items()}
    loss = losses.by_name("cross-entropy")
    steps = {way: make_step(m, loss, optimizers[way]) for way, m in found.items()}
    jobs: dict[str, dict[str, Callable[[], object]]] = {
        way: {
            "train_ms": lambda way=way: steps[way](x, y),  # type: ignore[misc]
            "one_ms": lambda way=way: found[way](x[:1]),  # type: ignore[misc]
            "hundred_ms": lambda way=way: found[way](x),  # type: ignore[misc]
        }
        for way in WAYS
    }
    for way in WAYS:  # first calls fill caches
        steps[way](x, y)
    rows: list[Row] = []
    for number in range(config["rounds"]):
        for way in WAYS:
            row: Row = {"kind": "time", "way": way, "round": number}
            row["train_ms"] = milliseconds(jobs[way]["train_ms"])
            with torch.no_grad(), measure.evaluating(found[way]):
                row |= {name: milliseconds(jobs[way][name]) for name in ("one_ms", "hundred_ms")}
            rows.append(row)
    for way in WAYS:
        parameters = common.size_of(found[way])
        rows.append({"kind": "memory", "way": way, **parameters, **footprint(found[way], optimizers[way])})
    return Outcome([*rows, *_changes(config, found["sparse"], optimizers["sparse"])])


def milliseconds(job: Callable[[], object], least: float = 5.0) -> float:
    """Processor time of one call, of as many as take ``least`` milliseconds."""
    calls, start = 0, time.process_time()
    while True:
        job()
        calls += 1
        taken = 1000 * (time.process_time() - start)
        if taken >= least:
            return taken / calls


def footprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> Row:
    """Bytes of all tensors that the network needs, and of those that its training needs besides: gradients
    and momentum. Activations are left out."""
    own: list[Tensor] = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        if isinstance(module, SparseWeight):
            own += plan.of(module).parts
    extra = [p.grad for p in model.parameters() if p.grad is not None]
    for state in optimizer.state.values():
        extra += [t for t in state.values() if isinstance(t, Tensor)]

    def size(tensors: Sequence[Tensor]) -> int:
        seen = {t.data_ptr(): t.numel() * t.element_size() for t in tensors}
        return sum(seen.values())

    return {"bytes": size(own), "training_bytes": size([*own, *extra])}


def _changes(config: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Row]:
    """The mean time of a change of topology over each method's whole schedule."""
    evolver = evolve.method(
        "set", rate=0.3, init="fan_in", generator=seeds.stream(config["repeat"], "evolve")
    ).attach(model, optimizer)  # fmt: skip
    weights = [m for m in model.modules() if isinstance(m, SparseWeight)]
    rows: list[Row] = []
    for number in range(config["changes"]):
        for method in SPARSE:
            schedule = rate_by_name(common.rate_of(method, config["interest"]))
            total, taken, rates = config["epochs"], [], []
            for i in range(POINTS):
                rates.append(schedule(Progress(round((i + 0.5) * total / POINTS), total)))
                evolver.rate = Constant(rates[-1])
                start = time.process_time()
                evolver.evolve()
                for weight in weights:
                    plan.of(weight)
                taken.append(1000 * (time.process_time() - start))
            rows.append({
                "kind": "change", "method": method, "round": number, "change_ms": statistics.fmean(taken),
                "mean_rate": statistics.fmean(rates),
            })  # fmt: skip
    return rows
