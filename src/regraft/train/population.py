"""Many small networks trained at once: one step of a population costs little more than one network's.

A step of a small network is mostly the time that torch takes to begin its operations. Stacked along a first
axis, many networks of one architecture begin each operation once. Nothing passes between the members: each
becomes what it would have become alone.
"""

from __future__ import annotations

import fnmatch
import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regraft import losses, measure
from regraft.errors import InputError, MismatchError
from regraft.probe import Loss
from regraft.train import seeds as streams
from regraft.train.loop import check_epochs, own_random_numbers
from regraft.train.optimizers import check_optimizer, optimizer_by_name, schedule_by_name
from regraft.train.run import History
from regraft.train.stack import Draw, M, Penalty, Stack, Together


class DivergedWarning(UserWarning):
    """Members of a population whose numbers are no longer finite; the others are not touched by it."""


def train(
    models: Iterable[M],
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    lr: float,
    optimizer: str = "sgd",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    lr_schedule: str = "constant",
    rates: Mapping[str, float] | None = None,
    batch_size: int = 100,
    loss: str | Loss = "cross-entropy",
    penalty: Penalty | None = None,
    draw: Draw | None = None,
    forward: Together | None = None,
    seeds: Sequence[int] | None = None,
    same_order: bool = False,
) -> tuple[list[M], list[History]]:
    """Train copies of networks of one architecture, each by itself but all at once.

    A member ends as ``train.fit`` alone would end with its seed, this optimizer and this schedule, up to the
    rounding of floating-point sums; with dropout, up to other draws. Batch normalisation has each member's
    own statistics. Sparse layers train through their dense weights, on the topology they have, and members
    then need equally many connections in each layer.

    Args:
        x: samples ``[n, ...]``, which all members see.
        y: targets ``[n, ...]``: labels, or numbers for ``loss="mse"``.
        epochs: passes over the samples, 1 or more.
        lr: learning rate, positive.
        optimizer, momentum, weight_decay: see ``optimizer_by_name``.
        lr_schedule: stepped once an epoch, as ``"MultiStepLR:milestones=[250]"``; see ``schedule_by_name``.
        rates: learning rates of their own for the parameters whose names match a shell pattern; the first
            pattern that matches counts.
        batch_size: samples per step and member, the number of samples or more for full batches.
        loss: a name, or a function ``(output, target) -> scalar`` that ``torch.func.vmap`` can map.
        penalty: ``(member, epoch) -> scalar`` of the member's parameters, added to its loss; epochs count
            from 0. The history has it in a column of its own.
        draw: ``member -> {name: tensor}``: further arguments of the member's forward pass, drawn anew for
            each step, for modules whose random numbers come from a generator of their own.
        forward: all members' forward pass at once, ``(parameters, x, drawn) -> outputs``, each with the
            members first, where batched products by hand are faster than ``vmap`` (see ``layerwise``).
        seeds: one for each member, of its order of samples; default 0, 1, 2, ...
        same_order: all members see the samples in the order of the first seed.

    Returns:
        the trained copies, and each one's history, whose lines have ``epoch``, ``train_loss``, ``penalty``,
        ``lr`` and ``seconds`` (those of the whole population). A member whose loss is no longer finite has
        ``stopped`` say since when; the others go on.

    >>> x = torch.linspace(-1, 1, 40).unsqueeze(1)
    >>> models = [nn.Sequential(nn.Linear(1, 10), nn.Tanh(), nn.Linear(10, 1)) for _ in range(5)]
    >>> trained, histories = train(models, x, x.square(), epochs=60, lr=0.1, batch_size=5, loss="mse")
    >>> max(h.final["train_loss"] for h in histories) < 0.02
    True

    Raises:
        InputError: a value out of range, a pattern without a match, NaN in the samples, or all members
            diverged.
        MismatchError: architectures that differ, or samples and targets that do not fit them.
    """
    stack = Stack(models, forward)
    check_epochs(epochs)
    size = _check_data(stack, x, y, batch_size)
    chosen = _check_seeds(seeds, len(stack))
    check_optimizer(optimizer, lr=lr, momentum=momentum, weight_decay=weight_decay)
    first, *others = _groups(stack, lr, rates or {})
    made = optimizer_by_name(
        optimizer, first["params"], lr=first["lr"], momentum=momentum, weight_decay=weight_decay
    )
    for group in others:
        made.add_param_group(group)
    schedule = schedule_by_name(lr_schedule, made, epochs)
    task = _Task(stack, x, y, losses.by_name(loss) if isinstance(loss, str) else loss, penalty, draw, made)
    orders = [streams.stream(seed, "order") for seed in (chosen[:1] if same_order else chosen)]
    histories = [History() for _ in chosen]
    # glibc gives the space of large arrays back at once and then gets it anew page by page, which can take as
    # long as the step itself, unless it has seen an array of almost 32 MiB come and go
    torch.empty(2**23 - 2**16)
    with own_random_numbers(x.device, streams.derived(chosen[0], "dropout")):
        for epoch in range(epochs):
            started = time.perf_counter()
            order = torch.stack([torch.randperm(len(x), generator=g) for g in orders])
            row = {"epoch": epoch + 1, "lr": float(made.param_groups[0]["lr"])}
            figures = task.epoch(epoch, order.expand(len(stack), -1).to(x.device), size)
            _note(histories, row | {"seconds": time.perf_counter() - started}, figures)
            schedule.step()
    _name_diverged(histories)
    return stack.models(), histories


@torch.no_grad()
def evaluate(
    models: Iterable[nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    loss: str | Loss = "cross-entropy",
    batch_size: int = 500,
) -> Tensor:
    """Each member's mean loss ``[members]`` over samples that all see, in evaluation mode.

    >>> models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    >>> for factor, model in enumerate(models):
    ...     _ = nn.init.constant_(model.weight, factor)
    >>> evaluate(models, torch.tensor([[3.0]]), torch.tensor([[3.0]]), loss="mse").tolist()
    [9.0, 0.0]

    Raises:
        InputError: as ``train``.
        MismatchError: as ``train``.
    """
    stack = Stack(models)
    stack.train(False)
    size = _check_data(stack, x, y, batch_size)
    measure_loss = losses.by_name(loss) if isinstance(loss, str) else loss
    total = torch.zeros(len(stack), dtype=torch.float64, device=x.device)
    for start in range(0, len(x), size):
        piece, target = x[start : start + size], y[start : start + size]
        everyone = (len(stack), *(-1,) * piece.ndim), (len(stack), *(-1,) * target.ndim)
        values = stack.losses(piece.expand(everyone[0]), target.expand(everyone[1]), measure_loss)
        total += values.double() * len(piece)
    return total / len(x)


@dataclass(frozen=True, eq=False)
class _Task:
    """What the members train on, and by what."""

    stack: Stack[Any]
    x: Tensor
    y: Tensor
    loss: Loss
    penalty: Penalty | None
    draw: Draw | None
    optimizer: Optimizer

    def epoch(self, epoch: int, order: Tensor, size: int) -> dict[str, Tensor]:
        """One pass over the samples, each member's in its own order ``[members, n]``; mean figures
        ``[members]``."""
        sums: dict[str, Tensor] = {}
        for index in torch.split(order, size, dim=1):
            for name, values in self._step(epoch, index).items():
                sums[name] = sums.get(name, 0.0) + values.double() * (index.shape[1] / order.shape[1])
        return sums

    def _step(self, epoch: int, index: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        x, y = self.x[index], self.y[index]
        figures = {"train_loss": self.stack.losses(x, y, self.loss, self.draw)}
        if self.penalty is not None:
            figures["penalty"] = self.stack.penalties(self.penalty, epoch)
        # the derivative of the sum by one member's parameters is that of its own summand alone
        torch.stack(list(figures.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {name: values.detach() for name, values in figures.items()}


def _note(histories: Sequence[History], row: Mapping[str, float], figures: Mapping[str, Tensor]) -> None:
    """A line for each member that has not diverged before."""
    for member, history in enumerate(histories):
        own = {name: values[member].item() for name, values in figures.items()}
        if history.stopped is None:
            history.epochs.append({**row, **own})
            if not all(math.isfinite(value) for value in own.values()):
                history.stopped = f"the loss became {own['train_loss']} in epoch {row['epoch']}"


def _name_diverged(histories: Sequence[History]) -> None:
    gone = [f"member {i} (epoch {len(h.epochs)})" for i, h in enumerate(histories, 1) if h.stopped]
    advice = "lower the learning rate, or take larger batches or normalised data"
    if len(gone) == len(histories):
        raise InputError(f"training diverged in all {len(gone)} members: {advice}")
    if gone:
        warnings.warn(f"training diverged in {', '.join(gone)}: {advice}", DivergedWarning, stacklevel=3)


def _check_data(stack: Stack[Any], x: Tensor, y: Tensor, batch_size: int) -> int:
    """The size of a step's batches."""
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y) or len(x) == 0:
        raise MismatchError(
            f"samples of shape {tuple(x.shape)} and targets of shape {tuple(y.shape)} do not belong "
            "together: expected [n, ...] and [n, ...] of one sample or more"
        )
    for name, tensor in (("samples", x), ("targets", y)):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"the {name} have NaN or infinite values: clean or leave them out")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}, but must be a whole number of 1 or more")
    one = stack.member(0)  # a copy, whose random numbers may be spent
    highest = y.new_zeros(1, dtype=torch.int64)
    if not y.is_floating_point():
        highest = torch.full_like(y[:1], int(y.max()))
    with measure.evaluating(one), torch.no_grad():
        measure.forward_checked(one, x[:1], highest)
    return min(batch_size, len(x))


def _check_seeds(seeds: Sequence[int] | None, members: int) -> list[int]:
    chosen = list(range(members)) if seeds is None else list(seeds)
    if len(chosen) != members:
        raise InputError(f"there are {len(chosen)} seeds for {members} members: pass one for each")
    return chosen


def _groups(stack: Stack[Any], lr: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameters by learning rate, as torch's optimizers take them."""
    names = [name for name, p in stack.parameters.items() if p.requires_grad]
    for pattern, rate in rates.items():
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"the pattern {pattern!r} of rates matches no parameter that trains; they are: "
                + ", ".join(map(repr, names))
            )
        check_optimizer("sgd", lr=rate)
    groups: dict[str | None, list[Tensor]] = {None: [], **{pattern: [] for pattern in rates}}
    for name in names:
        own = next((pattern for pattern in rates if fnmatch.fnmatchcase(name, pattern)), None)
        groups[own].append(stack.parameters[name])
    found = [{"params": p, "lr": lr if key is None else rates[key]} for key, p in groups.items() if p]
    return found or [{"params": [], "lr": lr}]
