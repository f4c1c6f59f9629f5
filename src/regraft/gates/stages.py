"""The two trainings of a merge: of the big student with its gates, and of the student."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from regraft.evolve import Evolve
from regraft.gates.gated import Gated
from regraft.gates.module import Gates
from regraft.gates.penalty import Rising, decided, l0_loss
from regraft.gates.training import Batches, OnEpoch, Row, train
from regraft.probe import Loss
from regraft.schedules import LinearDecreasing
from regraft.train import History, optimizer_by_name, schedule_by_name
from regraft.train.seeds import stream
from regraft.weight import SparseWeight

Evolution = Callable[[int, int, torch.Generator], Evolve]
"""``(steps per epoch, epochs, generator) -> Evolve``, not yet attached: how a sparse topology changes."""


def set_evolution(every: int, epochs: int, generator: torch.Generator) -> Evolve:
    """SET once an epoch (Mocanu et al. 2018), with the rate falling to 0 and the last epoch quiet: the usual
    evolution of sparse networks while they are merged, which lets connections grow across the networks."""
    total = max(1, (epochs - 1) * every + 1)
    return Evolve(rate=LinearDecreasing(0.3, 0.0), every=every, total=total, generator=generator)


@dataclass
class _Penalised:
    """loss(output, y) + weight L0, with a weight that changes from epoch to epoch."""

    loss: Loss
    gates: Gates
    share: float
    weight: float = 0.0

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return self.loss(output, y) + self.weight * l0_loss(self.gates, self.share)


@dataclass(frozen=True)
class Plan:
    """Everything that the stages of a merge share."""

    batches: Batches
    loss: Loss
    lr: float
    momentum: float
    weight_decay: float
    seed: int
    evolve: Evolution | None
    on_epoch: OnEpoch | None
    by_connections: bool

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        batches = self.batches
        return len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)


def train_gates(
    gated: Gated, plan: Plan, rising: Rising, gate_lr: float, epochs: int, share: float
) -> History:
    """Train the big student and its gates."""
    gates = gated.gates
    penalised = _Penalised(plan.loss, gates, share)
    optimizer = _optimizer(gated.model, plan)
    optimizer.add_param_group({"params": list(gates.parameters()), "lr": gate_lr, "weight_decay": 0.0})

    def before(epoch: int) -> None:
        penalised.weight = rising(epoch)
        if plan.by_connections:
            gated.count_connections()

    def figures() -> Row:
        with torch.no_grad():
            state = decided(gates)
            return {
                "lambda": penalised.weight,
                "l0": l0_loss(gates, share).item(),
                "open": sum(group.open for group in state) / len(state),
                "undecided": sum(group.undecided for group in state) / len(state),
            }

    with scaled_gradients(gates):
        history = train(
            gated, plan.batches, penalised, optimizer, epochs, phase="merging", on_epoch=plan.on_epoch,
            evolver=_evolver(gated, optimizer, plan, epochs, "merging"), before_epoch=before, figures=figures,
        )  # fmt: skip
    if plan.by_connections:
        gated.count_connections()
    return history


@contextmanager
def scaled_gradients(gates: Gates) -> Iterator[None]:
    """Within the block each gate's gradient is multiplied by the number of gates of its group and by that of
    groups, by which the L0 loss divides it."""
    scale = torch.tensor(list(gates.sizes.values()))[gates.group_of.cpu()] * float(len(gates.sizes))

    def scaled(gradient: Tensor) -> Tensor:
        return gradient * scale.to(gradient)

    hooks: list[Any] = [cast(Any, parameter).register_hook(scaled) for parameter in gates.parameters()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def finetune(student: nn.Module, plan: Plan, epochs: int, schedule: str | None) -> History:
    """Train the student as any network."""
    if epochs == 0:
        return History()
    optimizer = _optimizer(student, plan)
    drops = [round(epochs * share) for share in (0.5, 0.75)]
    scheduler = (
        torch.optim.lr_scheduler.MultiStepLR(optimizer, drops)
        if schedule is None
        else schedule_by_name(schedule, optimizer, epochs)
    )
    return train(
        student, plan.batches, plan.loss, optimizer, epochs, phase="fine-tuning", scheduler=scheduler,
        evolver=_evolver(student, optimizer, plan, epochs, "fine-tuning"), on_epoch=plan.on_epoch,
    )  # fmt: skip


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    return optimizer_by_name(
        "sgd", model.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
    )


def _evolver(
    model: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, epochs: int, phase: str
) -> Evolve | None:
    if plan.evolve is None or not any(isinstance(m, SparseWeight) for m in model.modules()):
        return None
    generator = stream(plan.seed, f"evolve while {phase}")
    return plan.evolve(plan.steps, epochs, generator).attach(model, optimizer)
