"""``merge``: several trained networks into one of their size, by learning which of their units it needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regraft import losses, measure
from regraft.data import Data, Loader
from regraft.errors import InputError
from regraft.evolve import Evolve
from regraft.gates.compress import best_units, compress, mean_counts
from regraft.gates.gated import Gated, gate_sizes
from regraft.gates.hard_concrete import HardConcrete
from regraft.gates.module import Gates
from regraft.gates.penalty import GroupGates, Rising, decided, l0_loss
from regraft.gates.training import Batches, OnEpoch, Row, check_batches, train
from regraft.graph import Graph, concatenate, trace
from regraft.probe import Loss
from regraft.schedules import LinearDecreasing
from regraft.train import History, optimizer_by_name, schedule_by_name
from regraft.train.loop import check_epochs, own_random_numbers
from regraft.train.seeds import derived, stream
from regraft.weight import SparseWeight

Evolution = Callable[[int, int, torch.Generator], Evolve]
"""``(steps per epoch, epochs, generator) -> Evolve``, not yet attached: how a sparse topology changes."""

TOLERANCE = 0.2  # of 1/N: how far the mean probability of a group may end from it without a warning

GATE_TRAVEL = 7.5  # usual learning rate of the gates times steps


class GatesWarning(UserWarning):
    """The gates did not do what they were trained for; what they chose is close to chance."""


@dataclass(frozen=True)
class Student:
    """What ``merge`` gives.

    Attributes:
        model: the network, of the teachers' size, without gates.
        merging: each epoch with gates: ``epoch``, ``train_loss`` (with the L0 term), ``lr``, ``seconds``,
            ``l0``, ``lambda``, and means over the groups of ``open`` (the probability of an open gate) and
            ``undecided`` (the share of gates with a probability between .1 and .9).
        finetuning: each epoch after compression: ``epoch``, ``train_loss``, ``lr``, ``seconds``.
        groups: how far the gates of each group had decided at the end.
        units: the units of the big student that were kept, by group; of N networks with C units each,
            network i's are those from i C on.
        evaluation: what ``evaluate`` said of the networks on the way: ``"concatenated"`` (the ensemble),
            ``"gated"``, ``"compressed"`` and ``"student"``; empty where nothing evaluates.
    """

    model: nn.Module
    merging: History
    finetuning: History
    groups: tuple[GroupGates, ...]
    units: dict[str, Tensor]
    evaluation: dict[str, Mapping[str, float]] = field(default_factory=dict)


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
class _Plan:
    """Everything that the stages of a merge share."""

    batches: Batches
    steps: int
    loss: Loss
    lr: float
    momentum: float
    weight_decay: float
    seed: int
    evolve: Evolution | None
    on_epoch: OnEpoch | None


def merge(
    networks: Sequence[nn.Module],
    train_loader: Batches | Data,
    loss: str | Loss = "cross-entropy",
    *,
    merge_epochs: int = 50,
    finetune_epochs: int = 50,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    gate_lr: float | None = None,
    lambda_start: float = 0.05,
    lambda_rate: float | None = None,
    finetune_schedule: str | None = None,
    distribution: HardConcrete | None = None,
    train_beta: bool = False,
    fold: bool = False,
    evolve: Evolution | None = set_evolution,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    on_epoch: OnEpoch | None = None,
    graph: Graph | None = None,
    batch_size: int = 100,
    seed: int = 0,
) -> Student:
    """Merge N trained networks into one student of the same size, by loss-driven gates (thesis 2, 3.2).

    The networks are put side by side, their outputs averaged; a gate is put on each hidden unit; and the big
    student is trained on

    .. math:: loss + \\lambda_t \\frac{1}{|L|} \\sum_{l \\in L}
        \\left( \\frac{1}{N} - \\frac{1}{|G_l|} \\sum_{g \\in G_l} P[g > 0] \\right)^2

    with lambda rising from epoch to epoch, so that it learns to connect the networks and to do with 1/N of
    the units of each group. Then the units whose gates are most likely open are kept, and the student is
    fine-tuned without gates. The networks are not changed.

    Args:
        networks: two or more trained networks of one architecture, dense or sparse.
        train_loader: batches (x, y), any iterable that can be gone through again and again, or a data set.
        loss: a name, or a function ``(output, y) -> scalar``, the mean over the batch.
        merge_epochs: epochs with gates.
        finetune_epochs: epochs of the compressed student; 0 for none.
        lr: of SGD, constant while merging, and where fine-tuning starts.
        momentum: of SGD.
        weight_decay: of the networks' parameters; gates have none.
        gate_lr: learning rate of the gates, for the gradient of the mean over a group's gates: a gate's own
            gradient is multiplied by the number of gates in its group and by that of groups, so that one rate
            does for narrow and wide layers. Default: 7.5 / steps, at most 0.1, so that however many steps
            there are, the gates have time to come to their share.
        lambda_start, lambda_rate: of ``Rising``. Default rate: ``Rising.within(merge_epochs)``.
        finetune_schedule: a learning rate schedule as in ``train.schedule_by_name``. Default: a tenth of the
            rate after half of the epochs, and a tenth of that after three quarters.
        distribution: of the gates.
        train_beta: whether the gates' temperatures train too.
        fold: whether the student's weights take over the values of gates that are not wholly open.
        evolve: how the topology of sparse networks changes in both trainings; None leaves it as it is, and
            then no connection can grow between the networks. Dense networks have none.
        evaluate: figures of a network on data of your own, taken four times on the way. With a data set:
            accuracy and loss on its test samples.
        on_epoch: called with ``"merging"`` or ``"fine-tuning"`` and the figures of the epoch.
        graph: the networks' groups, where they cannot be traced.
        batch_size: where ``train_loader`` is a data set.
        seed: of gates, growth, dropout, and the order of a data set's samples. The same seed gives the same
            student, where the batches come in the same order; the global generators are left as they are.

    >>> from regraft import data, models
    >>> digits = data.load("digits", per_class=20)
    >>> networks = [
    ...     models.build("mlp:64-16-10", generator=torch.Generator().manual_seed(s)) for s in range(2)
    ... ]
    >>> student = merge(networks, digits, merge_epochs=20, finetune_epochs=1)
    >>> student.model.fc1.out_features, len(student.merging.epochs), list(student.evaluation)
    (16, 20, ['concatenated', 'gated', 'compressed', 'student'])

    Raises:
        InputError: fewer than two networks, one that cannot be traced, a value out of range, gates that
            close a whole group, or training that diverged.
        MismatchError: networks of different architectures.

    Warns:
        GatesWarning: the gates of a group ended away from a share of 1/N.
    """
    teachers = _checked(networks)
    _check_numbers(merge_epochs, finetune_epochs, gate_lr)
    rising = (
        Rising.within(merge_epochs, lambda_start)
        if lambda_rate is None
        else Rising(lambda_start, lambda_rate)
    )
    loss_function = losses.by_name(loss) if isinstance(loss, str) else loss
    if isinstance(train_loader, Data):
        data = train_loader
        train_loader = Loader(data.train, batch_size, generator=stream(seed, "order"))
        evaluate = evaluate or (lambda model: measure.evaluate(model, data.test, loss=loss_function))
    x, _ = check_batches(train_loader)
    small = trace(teachers[0], tuple(x.shape[1:])) if graph is None else graph
    device = next(teachers[0].parameters()).device
    steps = len(train_loader) if isinstance(train_loader, Sized) else sum(1 for _ in train_loader)
    plan = _Plan(train_loader, steps, loss_function, lr, momentum, weight_decay, seed, evolve, on_epoch)
    figures: dict[str, Mapping[str, float]] = {}
    big, big_graph = concatenate(teachers, small)
    gates = Gates(
        gate_sizes(big_graph), distribution=distribution, train_beta=train_beta, seed=derived(seed, "gates")
    )
    gated = Gated(big, big_graph, gates).to(device)
    _note(figures, "concatenated", evaluate, big)
    with own_random_numbers(device, derived(seed, "dropout")):
        rate = min(0.1, GATE_TRAVEL / (steps * merge_epochs)) if gate_lr is None else gate_lr
        merging = _merge(gated, plan, rising, rate, merge_epochs, 1 / len(teachers))
        gated.count_connections()
        _note(figures, "gated", evaluate, gated)
        warn_unless_constrained(gates, 1 / len(teachers))
        kept = {name: small[name].units for name in gates.sizes}
        units = best_units(gates, kept)
        student = compress(
            gated, kept, mean_counts(teachers), fold=fold, generator=stream(seed, "compress"),
            spec=getattr(teachers[0], "spec", None),
        )  # fmt: skip
        _note(figures, "compressed", evaluate, student)
        finetuning = _finetune(student, plan, finetune_epochs, finetune_schedule)
    if finetune_epochs:
        _note(figures, "student", evaluate, student)
    student.train(teachers[0].training)
    return Student(student, merging, finetuning, tuple(decided(gates)), units, figures)


def _merge(gated: Gated, plan: _Plan, rising: Rising, gate_lr: float, epochs: int, share: float) -> History:
    """Train the big student and its gates."""
    gates = gated.gates
    penalised = _Penalised(plan.loss, gates, share)
    optimizer = _optimizer(gated.model, plan)
    optimizer.add_param_group({"params": list(gates.parameters()), "lr": gate_lr, "weight_decay": 0.0})
    scale = torch.tensor(list(gates.sizes.values()))[gates.group_of] * float(len(gates.sizes))
    for parameter in gates.parameters():
        parameter.register_hook(lambda gradient: gradient * scale.to(gradient))  # type: ignore[no-untyped-call]

    def before(epoch: int) -> None:
        penalised.weight = rising(epoch)
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

    return train(
        gated, plan.batches, penalised, optimizer, epochs, phase="merging", on_epoch=plan.on_epoch,
        evolver=_evolver(gated, optimizer, plan, epochs), before_epoch=before, figures=figures,
    )  # fmt: skip


def _finetune(student: nn.Module, plan: _Plan, epochs: int, schedule: str | None) -> History:
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
        evolver=_evolver(student, optimizer, plan, epochs), on_epoch=plan.on_epoch,
    )  # fmt: skip


def _optimizer(model: nn.Module, plan: _Plan) -> torch.optim.Optimizer:
    return optimizer_by_name(
        "sgd", model.parameters(), lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay
    )


def _evolver(model: nn.Module, optimizer: torch.optim.Optimizer, plan: _Plan, epochs: int) -> Evolve | None:
    if plan.evolve is None or not any(isinstance(m, SparseWeight) for m in model.modules()):
        return None
    generator = stream(plan.seed, f"evolve for {epochs} epochs")
    return plan.evolve(plan.steps, epochs, generator).attach(model, optimizer)


def warn_unless_constrained(gates: Gates, share: float) -> None:
    """Warn where the mean probability of an open gate of some group is far from ``share``: the units that are
    cut then matter to the network, or units are kept that are closed."""
    far = [group for group in decided(gates) if abs(group.open - share) > TOLERANCE * share]
    if far:
        worst = max(far, key=lambda group: abs(group.open - share))
        direction = "higher" if worst.open > share else "lower"
        warnings.warn(
            f"the gates of {len(far)} of {len(gates.sizes)} groups did not come to the share {share:.3g} of "
            f"open ones (group '{worst.name}' ended at {worst.open:.3g}), so cutting the others changes the "
            f"network: take more merge_epochs, or a {direction} lambda_rate or gate_lr",
            GatesWarning,
            stacklevel=3,
        )


def _checked(networks: Sequence[nn.Module]) -> list[nn.Module]:
    teachers = list(networks)
    if len(teachers) < 2:
        raise InputError(f"merging needs two networks or more, but got {len(teachers)}")
    for teacher in teachers:
        if not isinstance(teacher, nn.Module):
            raise InputError(
                f"merging by gates takes models, not a {type(teacher).__name__}: load files with regraft.load"
            )
    return teachers


def _check_numbers(merge_epochs: int, finetune_epochs: int, gate_lr: float | None) -> None:
    check_epochs(merge_epochs)
    if finetune_epochs != 0:
        check_epochs(finetune_epochs)
    if gate_lr is not None and not 0.0 < gate_lr < float("inf"):
        raise InputError(f"gate_lr is {gate_lr!r}, but must be a positive number; 0.01 is usual")


def _note(
    figures: dict[str, Mapping[str, float]],
    stage: str,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    model: nn.Module,
) -> None:
    if evaluate is None:
        return
    with measure.evaluating(model), torch.no_grad():
        figures[stage] = dict(evaluate(model))
