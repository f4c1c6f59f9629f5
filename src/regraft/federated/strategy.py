"""What a server does with the updates of a round: ``SparseMerge``, ``SelectNeurons``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from regraft import graph
from regraft.errors import InputError
from regraft.federated import privacy, wire
from regraft.federated.door import Door
from regraft.federated.trust import Rejected, Trust
from regraft.federated.update import Plan, Update, topology_of
from regraft.merging import Merger, merge, resparsify, select_neurons
from regraft.merging.align import Align
from regraft.merging.align.named import by_name as align_by_name
from regraft.merging.combine import Combine, Rule, average, by_name, check_over
from regraft.merging.keep import Density, Scope, check_scope
from regraft.merging.neurons.select import Share
from regraft.topology import Topology
from regraft.train import seeds


class Round(Protocol):
    """A round under way: updates arrive one by one, in the end there is a model.

    Attributes:
        door: who has answered, who was turned away and why.
    """

    door: Door

    def add(self, update: Update) -> str | None:
        """Take an update; or the reason, by name, why it is turned away, as if it had never come."""
        ...

    def finish(self) -> nn.Module:
        """The model after the round, another object than the one before.

        Raises:
            InputError: too few usable updates.
        """
        ...


class Strategy(Protocol):
    """``begin(model, round) -> Round``: plain data, so that the same one serves all rounds."""

    def begin(
        self, model: nn.Module, round: int = 0, *, examples: Mapping[str, int] | None = None
    ) -> Round: ...


def receive(under_way: Round, message: bytes, client: str, base: Topology | None = None) -> str | None:
    """Take an update as bytes; or the reason, by name, why it is turned away.

    Args:
        client: who sent it, as the connection knows; the message must say the same.
        base: the topology that the round's clients were sent.
    """
    door = under_way.door
    try:
        update = wire.decode(message, door.plan, base)
        if update.client != client:
            raise Rejected("client", f"the update of '{client}' says that it is of '{update.client}'")
    except Rejected as error:
        return door.turn_away(client, error)
    return under_way.add(update)


@dataclass(frozen=True)
class SparseMerge:
    """Merge the clients' networks as they arrive, and cut the result down to the density.

    Averages fold one update after the other in, in memory O(the union of their connections), whatever the
    number of clients; a position that a client lacks counts as 0 with ``over="networks"``, so that the
    magnitude after merging says how many clients agree on a connection, and cutting by it is a vote.

    Attributes:
        weights, biases: rules as for ``merge``: names, ``Combine``, or functions of all values at once such
            as ``Median`` and ``TrimmedMean``, for which all updates are held.
        over: what the average divides by: ``"networks"`` or ``"present"``.
        density: what stays: ``"keep"`` as many connections in each layer as the model before the round, a
            number in (0, 1], or None for the whole union.
        scope: ``"layer"`` or ``"global"``.
        by_examples: weigh averages by the number of samples; else all clients count alike.
        align: bring each update to the numbering of the model's units first: an alignment or its name.
        min_fit: fewest updates that make a round.
        trust: which updates are believed.
        clip: bound of the norm of a client's change; see ``privacy.clipped``.
        noise: standard deviation of Gaussian noise on the merged network, as a multiple of clip divided by
            the number of clients; all then count alike.
        seed: of ties, random rules, alignment and noise.

    >>> from regraft import sparsify, Topology
    >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.2)
    >>> under_way = SparseMerge(min_fit=2).begin(model)
    >>> for client in "ab":
    ...     _ = under_way.add(Update.of(model, round=0, client=client, examples=5))
    >>> Topology.of(under_way.finish()) == Topology.of(model)
    True

    Raises:
        InputError: an unknown name, a value out of range, or rules that cannot be weighted by examples.
    """

    weights: str | Rule = "average"
    biases: str | Rule = "average"
    over: str = "networks"
    density: Density = "keep"
    scope: Scope = "layer"
    by_examples: bool = True
    align: str | Align | None = None
    min_fit: int = 1
    trust: Trust = field(default_factory=Trust)
    clip: float | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_over(self.over)
        check_scope(self.scope)
        check_min_fit(self.min_fit)
        privacy.check(self.clip, self.noise)
        if self.align is not None:
            align_by_name(self.align)
        rules = [by_name(self.weights, "weight rule"), by_name(self.biases, "bias rule")]
        if self.streams and self.by_examples and any(rule is not average for rule in rules):
            raise InputError(
                "only averages are weighted by examples: pass by_examples=False, or average rules"
            )
        if self.noise and self.by_examples:
            raise InputError("noise hides a client only where all count alike: pass by_examples=False")

    @property
    def streams(self) -> bool:
        """Whether updates are folded in one by one, rather than held until the end."""
        return all(isinstance(by_name(rule), Combine) for rule in (self.weights, self.biases))

    def begin(
        self, model: nn.Module, round: int = 0, *, examples: Mapping[str, int] | None = None
    ) -> MergeRound:
        """Start a round.

        Args:
            model: what the clients were sent; it is never changed.
            round: its number.
            examples: number of samples of each client that was asked; an update of another client, or with
                another number, is turned away. None: any.
        """
        return MergeRound(self, model, Door(Plan.of(model), round, self.trust, examples))


class MergeRound:
    """A round of ``SparseMerge``."""

    def __init__(self, strategy: SparseMerge, model: nn.Module, door: Door) -> None:
        self.door = door
        self._strategy, self._model = strategy, model
        self._scratch = copy.deepcopy(model)
        generator = seeds.stream(strategy.seed, f"merge of round {door.round}")
        self._generator = generator
        self._held: list[nn.Module] = []
        self._merger: Merger | None = None
        if strategy.streams:
            self._merger = Merger(strategy.weights, strategy.biases, over=strategy.over, generator=generator)

    def add(self, update: Update) -> str | None:
        """Take an update; or the reason, by name, why it is turned away."""
        reason = self.door.admit(update)
        if reason is not None:
            return reason
        strategy = self._strategy
        if strategy.clip is not None:
            update = privacy.clipped(update, self._model, strategy.clip)
        network = update.put(self._scratch)
        if strategy.align is not None:
            generator = seeds.stream(strategy.seed, f"alignment of round {update.round}")
            network = align_by_name(strategy.align)([self._model, network], generator=generator)[1]
        if self._merger is not None:
            self._merger.add(network, weight=update.examples if strategy.by_examples else 1)
        else:
            self._held.append(copy.deepcopy(network))
        return None

    def finish(self) -> nn.Module:
        """The merged model, another object than the one before the round.

        Raises:
            InputError: too few usable updates, or a merge that is not finite.
        """
        strategy, scope = self._strategy, self._strategy.scope
        density = None if strategy.density == "keep" else strategy.density
        self.door.require(strategy.min_fit)
        if self._merger is not None:
            merged = self._merger.result(density, scope=scope, into=copy.deepcopy(self._model))
        else:
            merged = merge(
                self._held, strategy.weights, strategy.biases, over=strategy.over, density=density,
                scope=scope, generator=self._generator, into=copy.deepcopy(self._model),
            )  # fmt: skip
        counts = {name: c.nnz for name, c in topology_of(self._model).items()}
        if strategy.density == "keep" and counts:
            resparsify(merged, counts=counts, scope=scope, generator=self._generator)
        if strategy.noise:
            assert strategy.clip is not None
            std = strategy.noise * strategy.clip / len(self.door.accepted)
            privacy.add_noise(merged, std, seeds.stream(strategy.seed, f"noise of round {self.door.round}"))
        return merged


@dataclass(frozen=True)
class SelectNeurons:
    """Keep the best units of the clients' networks whole: one-shot merging after local training.

    All updates of the round are held. Clients send one number a unit of their own data
    (``Local(unit_score="activity")``); without these the units' outgoing weights decide.

    Attributes:
        share, density, scope: as for ``merging.select_neurons``.
        min_fit, trust, seed: as for ``SparseMerge``.

    >>> SelectNeurons(min_fit=3).share
    'each'
    """

    share: Share = "each"
    density: Density = "keep"
    scope: Scope = "global"
    min_fit: int = 2
    trust: Trust = field(default_factory=Trust)
    seed: int = 0

    def __post_init__(self) -> None:
        check_scope(self.scope)
        check_min_fit(self.min_fit)

    def begin(
        self, model: nn.Module, round: int = 0, *, examples: Mapping[str, int] | None = None
    ) -> SelectRound:
        """Start a round; as for ``SparseMerge``."""
        return SelectRound(self, model, Door(Plan.of(model), round, self.trust, examples))


class SelectRound:
    """A round of ``SelectNeurons``."""

    def __init__(self, strategy: SelectNeurons, model: nn.Module, door: Door) -> None:
        self.door = door
        self._strategy, self._model = strategy, model
        self._units = {group.name: group.units for group in graph.trace(model).free}
        self._held: list[Update] = []

    def add(self, update: Update) -> str | None:
        """Take an update; or the reason, by name, why it is turned away."""
        sent = {name: tuple(numbers.shape) for name, numbers in update.statistics.items()}
        if sent and sent != {name: (units,) for name, units in self._units.items()}:
            error = Rejected("shape", f"the statistics of '{update.client}' are of other units: {sent}")
            return self.door.turn_away(update.client, error)
        reason = self.door.admit(update)
        if reason is None:
            self._held.append(update)
        return reason

    def finish(self) -> nn.Module:
        """The model of the best units.

        Raises:
            InputError: too few usable updates.
        """
        strategy = self._strategy
        self.door.require(max(2, strategy.min_fit))
        told = all(update.statistics for update in self._held)
        return select_neurons(
            [update.put(copy.deepcopy(self._model)) for update in self._held],
            score=[update.statistics for update in self._held] if told else "outgoing",
            share=strategy.share, density=strategy.density, scope=strategy.scope,
            generator=seeds.stream(strategy.seed, f"selection of round {self.door.round}"),
        )  # fmt: skip


def check_min_fit(min_fit: int) -> None:
    """Raise InputError unless ``min_fit`` is a whole number of 1 or more."""
    if isinstance(min_fit, bool) or not isinstance(min_fit, int) or min_fit < 1:
        raise InputError(f"min_fit is {min_fit!r}, but must be a whole number of 1 or more")
