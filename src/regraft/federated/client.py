"""``local_round``: what a client does with the network it was sent, on samples of its own."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from regraft import graph, losses, measure, positions
from regraft.data import Loader, Split
from regraft.errors import InputError, unknown
from regraft.evolve import METHODS, RandomGrowth, method
from regraft.evolve.settings import as_schedule, check_rate
from regraft.federated.update import Update, parts_of
from regraft.merging.neurons.scores import by_name as unit_score
from regraft.probe import Loss, Probe
from regraft.schedules import Progress, Schedule
from regraft.train import optimizers, seeds
from regraft.train.loop import check_epochs, own_random_numbers
from regraft.train.step import make_step
from regraft.weight import SparseWeight

Drop = Literal["client", "server"]
"""Where connections are dropped."""


@dataclass(frozen=True)
class Local:
    """What each client does in a round.

    The topology changes once a round, before the first step, so that what grows trains before the server
    judges it. All clients drop the same connections of the network they were sent, and each grows others.
    With ``drop="server"`` they drop none: what grew competes with all the others in the merged network, and
    stays only if the clients together have made it stronger than the weakest of these.

    Attributes:
        epochs: passes over the client's samples.
        batch_size: samples per step; None for all at once.
        optimizer, lr, momentum, weight_decay: see ``train.optimizer_by_name``; the optimizer starts anew in
            each round.
        lr_schedule: what the learning rate is multiplied by over the rounds: a name of
            ``train.optimizers.FACTORS``; all but ``"constant"`` need ``rounds``.
        loss, label_smoothing: see ``losses.by_name``.
        evolve: a name of ``evolve.METHODS``, or ``"none"``.
        rate: share of the connections replaced in a round: a number, a schedule over the rounds, or its name.
        rounds: rounds in all, which schedules need; None where the end is not known.
        until: share of the rounds in which topologies change; the rest trains what was found.
        every: rounds between changes.
        grow_init: initial values of grown connections.
        grow_batches: minibatches that rules see which grow by gradients.
        drop: where connections are dropped: on the ``"client"``, before training, or on the ``"server"``, by
            cutting the merged network down; updates are then larger by ``rate``.
        together: grow the same connections on every client, where the rule is random.
        unit_score: statistics of each unit to send with the network, for ``SelectNeurons``: a name of
            ``merging.neurons.UNIT_SCORES``, or None.

    >>> Local(epochs=2, evolve="none").lr
    0.05

    Raises:
        InputError: a value out of range, or an unknown name.
    """

    epochs: int = 1
    batch_size: int | None = 50
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float | None = None
    weight_decay: float = 0.0
    lr_schedule: str = "constant"
    loss: str = "cross-entropy"
    label_smoothing: float = 0.0
    evolve: str = "set-magnitude"
    rate: float | str | Schedule = 0.2
    rounds: int | None = None
    until: float = 0.75
    every: int = 1
    grow_init: str = "zeros"
    grow_batches: int = 1
    drop: Drop = "client"
    together: bool = False
    unit_score: str | None = None

    def __post_init__(self) -> None:
        check_epochs(self.epochs)
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size!r}, but must be 1 or more")
        if self.evolve not in (*METHODS, "none"):
            raise unknown("evolution method", self.evolve, (*METHODS, "none"))
        if not 0 <= self.until <= 1 or self.every < 1 or self.grow_batches < 1:
            raise InputError(
                f"until is {self.until!r}, every {self.every!r} and grow_batches {self.grow_batches!r}, but "
                "must be in [0, 1], 1 or more and 1 or more"
            )
        if self.drop not in ("client", "server"):
            raise unknown("place to drop connections", self.drop, ("client", "server"))
        RandomGrowth(self.grow_init)
        optimizers.check_optimizer(
            self.optimizer, lr=self.lr, momentum=self.momentum or 0.0, weight_decay=self.weight_decay
        )
        optimizers.lr_factor(self.lr_schedule)(Progress(0, self.rounds))
        losses.by_name(self.loss, self.label_smoothing)
        check_rate(as_schedule(self.rate)(Progress(0, self.rounds)), as_schedule(self.rate))
        if self.unit_score is not None:
            unit_score(self.unit_score)

    def lr_in(self, round: int) -> float:
        """Learning rate in a round.

        >>> [round(Local(lr=0.1, lr_schedule="linear", rounds=4).lr_in(r), 3) for r in range(4)]
        [0.1, 0.075, 0.05, 0.025]
        """
        return self.lr * optimizers.lr_factor(self.lr_schedule)(Progress(round, self.rounds))

    def rate_in(self, round: int) -> float:
        """Share of the connections that is replaced in a round; 0 in rounds without evolution.

        >>> [Local(rate=0.3, rounds=4, every=2).rate_in(r) for r in range(4)]
        [0.3, 0.0, 0.3, 0.0]
        """
        over = self.rounds is not None and round >= math.ceil(self.until * self.rounds)
        if self.evolve in ("none", "static") or over or round % self.every:
            return 0.0
        schedule = as_schedule(self.rate)
        return check_rate(schedule(Progress(round, self.rounds)), schedule)


def local_round(
    model: nn.Module, data: Split, local: Local, *, round: int, client: str, seed: int = 0
) -> Update:
    """Evolve and train a copy of the model on the client's samples. The model itself is left as it is.

    Two calls with the same model, data, settings, seed, round and client give the same update, bit for bit,
    whatever calls them: a loop, a simulation or a process of its own.

    >>> from regraft import data, models, sparsify
    >>> digits = data.load("digits", per_class=10)
    >>> model = sparsify(models.build("mlp:64-32-10"), density=0.2)
    >>> update = local_round(model, digits.train, Local(batch_size=20), round=0, client="a")
    >>> update.examples, update.nnz
    (100, 474)

    Raises:
        InputError: training diverged, a model without sparse weights that shall evolve.
        MismatchError: the samples do not fit the model.
    """
    device = next(model.parameters()).device
    trained, data = copy.deepcopy(model).train(), data.to(device)
    loss = losses.by_name(local.loss, local.label_smoothing)
    own = seeds.derived(seed, f"round {round} of client {client}")
    momentum = (0.9 if local.optimizer == "sgd" else 0.0) if local.momentum is None else local.momentum
    optimizer = optimizers.optimizer_by_name(
        local.optimizer, trained.parameters(), lr=local.lr_in(round), momentum=momentum,
        weight_decay=local.weight_decay,
    )  # fmt: skip
    batch_size = min(local.batch_size or len(data), len(data))
    loader = Loader(data, batch_size, generator=seeds.stream(own, "order"))
    with own_random_numbers(device, seeds.derived(own, "dropout")):
        with measure.evaluating(trained), torch.no_grad():
            measure.forward_checked(trained, data.x[:1], data.highest)
        _evolve(trained, data, loss, optimizer, local, round, seed, own)
        step = make_step(trained, loss, optimizer)
        for _ in range(local.epochs):
            for number, (x, y) in enumerate(loader, 1):
                if not math.isfinite(step(x, y).item()):
                    raise InputError(
                        f"training of client '{client}' diverged in round {round}, step {number} of "
                        f"{len(loader)}: lower the learning rate (now {local.lr_in(round):g})"
                    )
    statistics = None
    if local.unit_score is not None:
        probe = Probe(batches=[data[: min(len(data), 1000)]], generator=seeds.stream(own, "score"))
        statistics = unit_score(local.unit_score)(
            trained, graph.trace(trained, tuple(data.x.shape[1:])), probe
        )
    return Update.of(trained, round=round, client=client, examples=len(data), statistics=statistics)


def _evolve(
    model: nn.Module,
    data: Split,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    local: Local,
    round: int,
    seed: int,
    own: int,
) -> None:
    """One update of the topology, if this round has one."""
    rate = local.rate_in(round)
    if rate == 0.0:
        return
    stream = seeds.stream(seed, f"growth of round {round}") if local.together else seeds.stream(own, "evolve")
    batch = min(local.batch_size or len(data), len(data))
    loader = Loader(data, batch, generator=seeds.stream(own, "grow"))
    batches = list(itertools.islice(loader, local.grow_batches))
    evolver = method(local.evolve, rate=rate, init=local.grow_init, generator=stream)
    before, _ = parts_of(model)
    kept = {name: (e.index.clone(), e.values.detach().clone()) for name, e in before.items()}
    evolver.attach(model, optimizer).evolve(Probe(loss=loss, batches=batches))
    if local.drop == "server":
        for name, weight in model.named_modules():
            if isinstance(weight, SparseWeight):
                _take_back(weight, *kept[name])


@torch.no_grad()
def _take_back(weight: SparseWeight, index: Tensor, values: Tensor) -> None:
    """Put connections that were dropped back in, with the values they had."""
    union = positions.union(index, weight.index)
    together = weight.values.new_empty(union.numel())
    together[torch.searchsorted(union, weight.index)] = weight.values
    together[torch.searchsorted(union, index)] = values
    weight.replace(union, together)
