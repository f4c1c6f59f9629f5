"""``merge_greedily``: thesis 2's first strategy (section 3.1): it names the important units layer by layer,
then has a student mimic them layer by layer. As in the thesis there is no gain in it, unless lambda rises and
the student starts from the teachers' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from regraft import losses, measure
from regraft.data import Data, Loader
from regraft.errors import InputError
from regraft.gates.api import GATE_TRAVEL, note
from regraft.gates.chain import Link, chain, reader_alone, seen
from regraft.gates.compress import best_units
from regraft.gates.gated import Gated
from regraft.gates.module import Gates
from regraft.gates.penalty import GroupGates, Rising, decided
from regraft.gates.stages import Plan, finetune, train_gates
from regraft.gates.training import Batches, check_batches, train
from regraft.graph import Graph, concatenate, take, trace
from regraft.probe import Loss
from regraft.train import History, optimizer_by_name
from regraft.train.loop import check_epochs, own_random_numbers
from regraft.train.seeds import derived, stream

Batch = tuple[Tensor, Tensor]

_DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class GreedyStudent:
    """What ``merge_greedily`` gives.

    Attributes:
        model: the network, of the teachers' size.
        units: the important units of each group; of N networks with C units each, network i's are those from
            i C on.
        groups: how far the gates of each group had decided, in the order of identification.
        identification: each epoch of each layer, from the output on, by group.
        mimicry: each epoch of each layer, from the input on, by module.
        finetuning: each epoch of the third step.
        evaluation: what ``evaluate`` said of the networks on the way: ``"concatenated"`` (the ensemble),
            ``"taken"`` (the important units as they are in the teachers), ``"mimicked"`` and ``"student"``.
    """

    model: nn.Module
    units: dict[str, Tensor]
    groups: tuple[GroupGates, ...]
    identification: dict[str, History]
    mimicry: dict[str, History]
    finetuning: History
    evaluation: dict[str, Mapping[str, float]] = field(default_factory=dict)


def merge_greedily(
    networks: Sequence[nn.Module],
    train_loader: Batches | Data,
    loss: str | Loss = "cross-entropy",
    *,
    identify_epochs: int = 10,
    mimic_epochs: int = 10,
    finetune_epochs: int = 50,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    gate_lr: float | None = None,
    lambda_start: float = 0.05,
    lambda_rate: float | None = 0.0,
    start: Literal["fresh", "teachers"] = "fresh",
    finetune_schedule: str | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    graph: Graph | None = None,
    batch_size: int = 100,
    seed: int = 0,
) -> GreedyStudent:
    """Merge N trained networks into one of their size, layer by layer (thesis 2, section 3.1).

    *Identification*, from the output to the input: gates on the units that one layer reads learn, with the
    layer itself and all before it frozen, which 1/N of them it needs to compute the important units of the
    next group (squared error relative to their variance; of the output, the loss itself), by the L0 loss of
    this one layer. These are then the important units of their group. *Mimicry*, from the input to the
    output: each layer of the student is trained to compute the important units, with the layers before it
    frozen; the output layer, to minimise the loss. Then the student is fine-tuned as a whole.

    The thesis's version has a constant lambda and a new student, and no gain; the defaults follow it. With
    ``lambda_rate=None``, which the thesis suggests, lambda rises. The gates are behind the activation.

    Args:
        networks: two or more trained networks of one architecture whose layers form a chain.
        train_loader: batches (x, y), or a data set; what goes into each layer is computed once for all
            batches and kept.
        loss: a name, or a function ``(output, y) -> scalar``.
        identify_epochs, mimic_epochs: of each layer.
        finetune_epochs: of the whole student; 0 for none.
        lambda_start, lambda_rate: of ``Rising``; 0 is constant, None ``Rising.within(identify_epochs)``.
        start: weights from which the student's layers are trained: ``"fresh"``, or ``"teachers"``, those of
            the important units.

    The other arguments are those of ``gates.merge``.

    >>> import torch
    >>> from regraft import data, models
    >>> digits = data.load("digits", per_class=20)
    >>> networks = [
    ...     models.build("mlp:64-16-10", generator=torch.Generator().manual_seed(s)) for s in range(2)
    ... ]
    >>> student = merge_greedily(networks, digits, identify_epochs=2, mimic_epochs=2, finetune_epochs=1)
    >>> student.model.fc1.out_features, list(student.mimicry), list(student.evaluation)
    (16, ['fc1', 'fc2'], ['concatenated', 'taken', 'mimicked', 'student'])

    Raises:
        InputError: networks whose layers form no chain, a value out of range, gates that close a whole group,
            or training that diverged.
        MismatchError: networks of different architectures.
    """
    for epochs in (identify_epochs, mimic_epochs, *([finetune_epochs] if finetune_epochs else [])):
        check_epochs(epochs)
    if start not in ("fresh", "teachers"):
        raise InputError(f"start is {start!r}, but must be 'fresh' or 'teachers'")
    loss_function = losses.by_name(loss) if isinstance(loss, str) else loss
    device = next(networks[0].parameters()).device
    if isinstance(train_loader, Data):
        test = train_loader.test
        train_loader = Loader(train_loader.train, batch_size, generator=stream(seed, "order"), device=device)
        evaluate = evaluate or (lambda model: measure.evaluate(model, test, loss=loss_function))
    x, _ = check_batches(train_loader)
    small = trace(networks[0], tuple(x.shape[1:])) if graph is None else graph
    plan = Plan(train_loader, loss_function, lr, momentum, weight_decay, seed, None, None, False)
    rising = (
        Rising.within(identify_epochs, lambda_start)
        if lambda_rate is None
        else Rising(lambda_start, lambda_rate)
    )
    figures: dict[str, Mapping[str, float]] = {}
    first, links = chain(small)
    big, groups = concatenate(networks, small)
    batches = list(train_loader)
    note(figures, "concatenated", evaluate, big)
    with own_random_numbers(device, derived(seed, "dropout")):
        found = _Identified(big, groups, plan, rising, identify_epochs, len(networks))
        found.run(chain(groups)[1], batches, gate_lr)
        student = take(big, groups, found.units, spec=getattr(networks[0], "spec", None))
        note(figures, "taken", evaluate, student)
        layers = [first, *(link.layer for link in links)]
        if start == "fresh":
            _draw_anew(student, layers)
        mimicry = _mimic(student, big, first, links, found.units, batches, plan, mimic_epochs)
        note(figures, "mimicked", evaluate, student)
        finetuning = finetune(student, plan, finetune_epochs, finetune_schedule)
    if finetune_epochs:
        note(figures, "student", evaluate, student)
    student.train(networks[0].training)
    return GreedyStudent(
        student, found.units, tuple(found.groups), found.histories, mimicry, finetuning, figures
    )


class _Identified:
    """The first stage: the important units of each group, from the output to the input."""

    def __init__(
        self, big: nn.Module, groups: Graph, plan: Plan, rising: Rising, epochs: int, networks: int
    ) -> None:
        self._big, self._graph, self._plan, self._rising = big, groups, plan, rising
        self._epochs, self._networks = epochs, networks
        self.units: dict[str, Tensor] = {}
        self.groups: list[GroupGates] = []
        self.histories: dict[str, History] = {}

    def run(self, links: Sequence[Link], batches: Sequence[Batch], gate_lr: float | None) -> None:
        """Go through the layers."""
        rate = min(0.1, GATE_TRAVEL / (len(batches) * self._epochs)) if gate_lr is None else gate_lr
        for link in reversed(links):
            self._identify(link, batches, rate)

    def _identify(self, link: Link, batches: Sequence[Batch], gate_lr: float) -> None:
        targets = self.units.get(link.makes)
        inside = seen(self._big, link.layer, batches)
        if targets is None:
            plan = replace(self._plan, batches=[(x, y) for x, _, y in inside])
        else:
            wanted = [(x, output.index_select(1, targets)) for x, output, _ in inside]
            plan = replace(self._plan, batches=wanted, loss=_Relative.to(wanted))
        name, units = link.reads.name, link.reads.units
        gates = Gates({name: units}, seed=derived(self._plan.seed, f"gates of {name}"))
        alone = reader_alone(self._big, self._graph, link, targets)
        gated = Gated(*alone, gates).to(next(self._big.parameters()).device)
        share = 1 / self._networks
        self.histories[name] = train_gates(gated, plan, self._rising, gate_lr, self._epochs, share)
        self.units[name] = best_units(gates, {name: units // self._networks})[name]
        self.groups += decided(gates)


@dataclass(frozen=True)
class _Relative:
    """Mean squared error over the targets' variance, so that lambda means the same for every layer."""

    variance: float

    @classmethod
    def to(cls, pairs: Sequence[Batch]) -> _Relative:
        return cls(max(torch.cat([y.flatten() for _, y in pairs]).var().item(), 1e-12))

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        return nn.functional.mse_loss(output, y) / self.variance


def _draw_anew(student: nn.Module, layers: Sequence[str]) -> None:
    """Initial values as torch draws them, from the random numbers of the moment."""
    for name in layers:
        layer = student.get_submodule(name)
        if not isinstance(layer, _DENSE):
            raise InputError(
                f"start 'fresh' draws dense layers anew, but '{name}' is a {type(layer).__name__}: take "
                "start='teachers'"
            )
        layer.reset_parameters()


def _mimic(
    student: nn.Module, big: nn.Module, first: str, links: Sequence[Link], units: Mapping[str, Tensor],
    batches: Sequence[Batch], plan: Plan, epochs: int,
) -> dict[str, History]:  # fmt: skip
    """The second stage: train each layer of the student by itself, from the input on, in place."""
    histories = {}
    for name, group in [(first, links[0].reads.name), *((link.layer, link.makes) for link in links)]:
        layer = student.get_submodule(name)
        inside = seen(student, name, batches)
        loss = plan.loss
        pairs = [(x, y) for x, _, y in inside]
        if group in units:
            wanted = [output.index_select(1, units[group]) for _, output, _ in seen(big, name, batches)]
            pairs = [(x, target) for (x, _), target in zip(pairs, wanted, strict=True)]
            loss = nn.functional.mse_loss
        optimizer = optimizer_by_name("sgd", layer.parameters(), lr=plan.lr, momentum=plan.momentum)
        histories[name] = train(layer, pairs, loss, optimizer, epochs, phase=f"mimicry of '{name}'")
    return histories
