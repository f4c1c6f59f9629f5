"""``merge``: several trained networks into one of their size, by learning which of their units it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from regraft import checkpoint, losses, measure
from regraft.data import Data, Loader
from regraft.errors import InputError
from regraft.gates.compress import best_units, compress
from regraft.gates.gated import Gated, gate_sizes
from regraft.gates.hard_concrete import HardConcrete
from regraft.gates.module import Gates
from regraft.gates.penalty import GroupGates, Rising, decided, warn_unless_constrained
from regraft.gates.stages import Evolution, Plan, finetune, set_evolution, train_gates
from regraft.gates.training import Batches, OnEpoch, check_batches
from regraft.graph import Graph, concatenate, trace
from regraft.merging.keep import Scope, budgets, check_scope
from regraft.merging.networks import Source, layers_of, opened
from regraft.probe import Loss
from regraft.train import History
from regraft.train.loop import check_epochs, own_random_numbers
from regraft.train.seeds import derived, stream

GATE_TRAVEL = 7.5
"""The usual learning rate of the gates times the number of steps."""


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


def merge(
    networks: Sequence[Source],
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
    count: Literal["connections", "units"] = "connections",
    scope: Scope = "global",
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

        loss + lambda_t mean over groups l of (1/N - mean over gates g of l of P[g > 0])^2

    with lambda rising from epoch to epoch, so that it learns to connect the networks and to do with 1/N of
    the units of each group. Then the units whose gates are most likely open are kept, and the student is
    fine-tuned without gates. The networks are not changed.

    Args:
        networks: two or more trained networks of one architecture, dense or sparse: models, or paths of
            network files.
        train_loader: batches (x, y), any iterable that can be gone through again and again, or a data set;
            they are moved to the device of the networks, where the student is trained.
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
        count: what 1/N of a sparse group is: as many ``"connections"``, or ``"units"``, of which most may be
            dead; see ``Gated.count_connections``. In dense networks these are the same.
        scope: whether the sparse student has the parents' connections ``"global"``, in all layers together,
            or in each ``"layer"``, where a last layer of a few connections may lose a class.
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
    teachers, counts = _opened(networks)
    check_scope(scope)
    _check_numbers(merge_epochs, finetune_epochs, gate_lr, count)
    share = 1 / len(teachers)
    loss_function = losses.by_name(loss) if isinstance(loss, str) else loss
    device = next(teachers[0].parameters()).device
    if isinstance(train_loader, Data):
        test = train_loader.test
        train_loader = Loader(train_loader.train, batch_size, generator=stream(seed, "order"), device=device)
        evaluate = evaluate or (lambda model: measure.evaluate(model, test, loss=loss_function))
    x, _ = check_batches(train_loader)
    small = trace(teachers[0], tuple(x.shape[1:])) if graph is None else graph
    plan = Plan(
        train_loader, loss_function, lr, momentum, weight_decay, seed, evolve, on_epoch,
        by_connections=count == "connections",
    )  # fmt: skip
    if gate_lr is None:
        gate_lr = min(0.1, GATE_TRAVEL / (plan.steps * merge_epochs))
    if lambda_rate is None:
        rising = Rising.within(merge_epochs, lambda_start)
    else:
        rising = Rising(lambda_start, lambda_rate)
    figures: dict[str, Mapping[str, float]] = {}
    big, groups = concatenate(teachers, small)
    sizes = gate_sizes(groups)
    gates = Gates(sizes, distribution=distribution, train_beta=train_beta, seed=derived(seed, "gates"))
    gated = Gated(big, groups, gates).to(device)
    note(figures, "concatenated", evaluate, big)
    with own_random_numbers(device, derived(seed, "dropout")):
        merging = train_gates(gated, plan, rising, gate_lr, merge_epochs, share)
        note(figures, "gated", evaluate, gated)
        warn_unless_constrained(gates, share)
        kept = {name: small[name].units for name in sizes}
        student = compress(
            gated, kept, counts, scope=scope, fold=fold, generator=stream(seed, "compress"),
            spec=getattr(teachers[0], "spec", None),
        )  # fmt: skip
        note(figures, "compressed", evaluate, student)
        finetuning = finetune(student, plan, finetune_epochs, finetune_schedule)
    if finetune_epochs:
        note(figures, "student", evaluate, student)
    student.train(teachers[0].training)
    return Student(student, merging, finetuning, tuple(decided(gates)), best_units(gates, kept), figures)


def _opened(networks: Sequence[Source]) -> tuple[list[nn.Module], dict[str, int]]:
    """The networks as models, and the connections that each sparse weight of a network of theirs has."""
    if len(networks) < 2:
        raise InputError(f"merging needs two networks or more, but got {len(networks)}")
    with opened(networks) as parents:
        counts = budgets(layers_of(parents), "keep")
    models = [source if isinstance(source, nn.Module) else checkpoint.load(source) for source in networks]
    return models, counts or {}


def _check_numbers(merge_epochs: int, finetune_epochs: int, gate_lr: float | None, count: str) -> None:
    check_epochs(merge_epochs)
    if finetune_epochs != 0:
        check_epochs(finetune_epochs)
    if gate_lr is not None and not 0.0 < gate_lr < float("inf"):
        raise InputError(f"gate_lr is {gate_lr!r}, but must be a positive number; 0.01 is usual")
    if count not in ("connections", "units"):
        raise InputError(f"count is {count!r}, but must be 'connections' or 'units'")


def note(
    figures: dict[str, Mapping[str, float]],
    stage: str,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
    model: nn.Module,
) -> None:
    """Put what ``evaluate`` says of a network, in evaluation mode, under the name of a stage."""
    if evaluate is None:
        return
    with measure.evaluating(model), torch.no_grad():
        figures[stage] = dict(evaluate(model))
