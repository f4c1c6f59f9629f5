"""``gossip``: rounds of training and merging between neighbours."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from regraft import measure
from regraft.data import Split
from regraft.errors import InputError
from regraft.federated import wire
from regraft.federated.client import Local, local_round
from regraft.federated.gossip.links import Links, by_name
from regraft.federated.gossip.merging import mean_of, merge_arrivals
from regraft.federated.gossip.post import Letter, Post, check_probabilities
from regraft.federated.trust import Rejected, Trust
from regraft.federated.update import Plan, Update
from regraft.merging.align import Align
from regraft.merging.align.named import by_name as align_by_name
from regraft.merging.keep import Density
from regraft.topology import Topology
from regraft.train import seeds


@dataclass(frozen=True)
class Gossip:
    """How nodes without a server find together.

    Attributes:
        links: who speaks with whom: ``"ring"``, ``"random"`` (a ring, drawn anew each round),
            ``"full"``, or a function ``(nodes, generator) -> neighbours``.
        lost: probability that a letter never arrives.
        late: probability that a letter stays another exchange on its way.
        oldest: exchanges after which a letter is too old to be merged; one that is older than what was merged
            of its sender before is too old in any case.
        exchanges: how often a round's nodes write to each other and merge: first what they have trained, then
            what they have merged. More of them bring far nodes' networks near, for so many times the bytes.
        away: rounds in which a node is not there: ``{3: range(0, 5)}`` joins in round 5.
        density, align: of merging, see ``merge``.
        dtype: type of the values on the way, see ``encode``.
        trust: which networks are believed.
        seed: of training, links, post and alignment.

    >>> Gossip("ring", lost=0.2).oldest
    2

    Raises:
        InputError: an unknown name, or a value out of range.
    """

    links: str | Links = "ring"
    lost: float = 0.0
    late: float = 0.0
    oldest: int = 2
    exchanges: int = 1
    away: Mapping[int, range] = field(default_factory=dict)
    density: Density = "keep"
    align: str | Align | None = None
    dtype: str = "float32"
    trust: Trust = field(default_factory=Trust)
    seed: int = 0

    def __post_init__(self) -> None:
        by_name(self.links)
        check_probabilities(self.lost, self.late)
        wire.check_type(self.dtype)
        if self.align is not None:
            align_by_name(self.align)
        if isinstance(self.oldest, bool) or not isinstance(self.oldest, int) or self.oldest < 0:
            raise InputError(f"oldest is {self.oldest!r}, but must be a whole number of 0 or more")
        _check_count("exchanges", self.exchanges)

    def present(self, nodes: int, round: int) -> list[int]:
        """Nodes that are there in a round, ascending."""
        return [node for node in range(nodes) if round not in self.away.get(node, ())]


@dataclass(frozen=True)
class GossipRound:
    """What happened in a round.

    Attributes:
        round: its number, from 0.
        present: nodes that were there.
        failed: nodes whose training failed, and why.
        accuracy: of each present node's network after merging, on the test samples; empty where the round was
            not evaluated.
        consensus: accuracy of the mean of their networks, cut to the density; None where not evaluated.
        nnstd: mean distance of their topologies from that mean's.
        sent, lost, stale: letters.
        rejected: letters turned away, by reason.
        bytes: sent in this round.
    """

    round: int
    present: int
    failed: Mapping[int, str]
    accuracy: tuple[float, ...]
    consensus: float | None
    nnstd: float | None
    sent: int
    lost: int
    stale: int
    rejected: Mapping[str, int]
    bytes: int


@dataclass(frozen=True)
class Gossiped:
    """What ``gossip`` gives back.

    Attributes:
        models: the network of each node.
        mean: of the nodes that were there in the last round, all equally, cut to the density.
        rounds: what happened.
    """

    models: list[nn.Module]
    mean: nn.Module
    rounds: list[GossipRound]


def gossip(
    model: nn.Module,
    parts: Sequence[Split],
    local: Local,
    rounds: int,
    settings: Gossip | None = None,
    *,
    test: Split | None = None,
    evaluate_every: int = 1,
    on_round: Callable[[GossipRound], None] | None = None,
) -> Gossiped:
    """Train one network in many places, without a server (gossip, Boyd et al. 2006; sparse, after DisPFL, Dai
    et al. 2022, arXiv:2206.00187).

    In each round every node that is there trains and evolves its network on its own samples, sends it to its
    neighbours, and merges what has arrived with its own (``merge_arrivals``), as often as the settings say. A
    node that was away comes back with nothing to say: in its first round it takes the mean of what it hears,
    and trains from the next round on. A node whose training fails keeps its network and is silent in the
    round's first exchange. The result depends on the seed, not on the order in which nodes are computed.

    Args:
        model: what all nodes begin with; it is not changed.
        parts: the samples of each node.
        local: what a node does in a round.
        rounds: 1 or more.
        settings: links, losses, merging; default ``Gossip()``.
        test: samples to evaluate on. None: nothing is evaluated.
        evaluate_every: rounds between evaluations; the last round is always evaluated.
        on_round: called after each round.

    >>> from regraft import data, models, sparsify
    >>> digits = data.load("digits", per_class=40, flatten=True)
    >>> parts = [Split(*digits.train[i::4]) for i in range(4)]
    >>> model = sparsify(models.build("mlp:64-32-10"), density=0.3)
    >>> done = gossip(model, parts, Local(lr=0.1, batch_size=10), 4, test=digits.test, evaluate_every=4)
    >>> len(done.models), done.rounds[-1].consensus > 0.6
    (4, True)

    Raises:
        InputError: fewer than two nodes, a value out of range, or training failed on all nodes.
        MismatchError: the samples do not fit the model.
    """
    settings = settings or Gossip()
    _check(parts, rounds, evaluate_every, settings)
    if local.drop == "server":
        raise InputError("drop is 'server', but gossip has none: let the nodes drop, drop='client'")
    swarm = _Swarm(model, parts, local, settings)
    history = []
    for round in range(rounds):
        last = round == rounds - 1
        evaluated = test if last or (round + 1) % evaluate_every == 0 else None
        history.append(swarm.round(round, evaluated))
        if on_round is not None:
            on_round(history[-1])
    present = settings.present(len(parts), rounds - 1)
    mean = mean_of((swarm.models[node] for node in present), settings.density)
    return Gossiped(swarm.models, mean, history)


def _check(parts: Sequence[Split], rounds: int, evaluate_every: int, settings: Gossip) -> None:
    if len(parts) < 2:
        raise InputError(f"gossip is between 2 nodes or more, but there are the samples of {len(parts)}")
    _check_count("rounds", rounds)
    _check_count("evaluate_every", evaluate_every)
    for node in settings.away:
        if not 0 <= node < len(parts):
            raise InputError(f"node {node} is away, but the nodes are 0 to {len(parts) - 1}")
    for round in range(rounds):
        if not settings.present(len(parts), round):
            raise InputError(f"all nodes are away in round {round}: let at least one be there")


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of 1 or more")


@dataclass
class _Counts:
    """Letters of a round that were not merged."""

    stale: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


class _Swarm:
    """All nodes: their networks, what they last heard of whom, and the post between them."""

    def __init__(self, model: nn.Module, parts: Sequence[Split], local: Local, settings: Gossip) -> None:
        self.models = [copy.deepcopy(model) for _ in parts]
        self._plan = Plan.of(model)
        self._parts, self._local, self._settings = parts, local, settings
        self._post = Post(settings.lost, settings.late, settings.seed)
        self._heard: list[dict[int, int]] = [
            {} for _ in parts
        ]  # of each sender, the exchange that was merged
        self._in_touch: set[int] = set()  # nodes whose networks are worth telling

    def round(self, round: int, test: Split | None) -> GossipRound:
        settings, post = self._settings, self._post
        present = settings.present(len(self.models), round)
        # where all are newcomers somebody has to begin
        self._in_touch = self._in_touch & set(present) or set(present)
        sent, lost, size, counts = post.sent, post.lost, 0, _Counts()
        trained, failed = self._train(round, sorted(self._in_touch))
        for time in range(round * settings.exchanges, (round + 1) * settings.exchanges):
            if time % settings.exchanges:
                told = {node: self._update(node, time) for node in sorted(self._in_touch)}
            else:
                told = {node: replace(update, round=time) for node, update in trained.items()}
            size += self._exchange(time, present, told, counts)
        accuracy, consensus, nnstd = self._evaluated(present, test)
        return GossipRound(
            round, len(present), failed, accuracy, consensus, nnstd, post.sent - sent, post.lost - lost,
            counts.stale, counts.rejected, size,
        )  # fmt: skip

    def _exchange(self, time: int, present: list[int], told: Mapping[int, Update], counts: _Counts) -> int:
        """Nodes write what they have, and merge what arrives. Returns the bytes sent.

        Args:
            time: the exchange's number, counted over all rounds.
            told: what each node has to say; the others only listen.
        """
        size, post, settings = 0, self._post, self._settings
        links = by_name(settings.links)(present, seeds.stream(settings.seed, f"links of round {time}"))
        for node, update in told.items():
            message = wire.encode(update, self._plan, settings.dtype)
            for other in links[node]:
                post.send(Letter(node, time, len(links[node]), message), other)
                size += len(message)
        letters = post.deliver(time, present)
        for node in present:
            arrived = self._opened(node, letters.get(node, ()), time, counts)
            self._merge(node, told.get(node), arrived, len(links[node]), time)
        return size

    def _update(self, node: int, time: int) -> Update:
        """A node's network as it is now."""
        return Update.of(self.models[node], round=time, client=str(node), examples=len(self._parts[node]))

    def _train(self, round: int, nodes: Sequence[int]) -> tuple[dict[int, Update], dict[int, str]]:
        trained, failed = {}, {}
        for node in nodes:
            try:
                trained[node] = local_round(
                    self.models[node], self._parts[node], self._local, round=round, client=str(node),
                    seed=self._settings.seed,
                )  # fmt: skip
            except InputError as error:
                failed[node] = str(error)
        if not trained:
            first = next(iter(failed.values()))
            raise InputError(f"training failed on all {len(nodes)} nodes in round {round}: {first}")
        return trained, failed

    def _opened(
        self, node: int, letters: Sequence[Letter], time: int, counts: _Counts
    ) -> dict[int, tuple[int, Update]]:
        """What a node believes of its letters: the newest of each sender, with the sender's neighbours."""
        found: dict[int, tuple[int, Update]] = {}
        heard = self._heard[node]
        for letter in letters:
            if letter.round < time - self._settings.oldest or letter.round <= heard.get(letter.sender, -1):
                counts.stale += 1
                continue
            examples = {str(letter.sender): len(self._parts[letter.sender])}
            try:
                update = wire.decode(letter.message, self._plan)
                self._settings.trust.check(update, self._plan, round=letter.round, examples=examples)
            except Rejected as error:
                counts.rejected[error.reason] = counts.rejected.get(error.reason, 0) + 1
                continue
            counts.stale += letter.sender in found
            heard[letter.sender] = letter.round
            found[letter.sender] = letter.degree, update
        return found

    def _merge(
        self,
        node: int,
        own: Update | None,
        arrived: Mapping[int, tuple[int, Update]],
        degree: int,
        time: int,
    ) -> None:
        settings, model = self._settings, self.models[node]
        if node in self._in_touch:
            trained = model if own is None else own.put(copy.deepcopy(model))
            seed = seeds.derived(settings.seed, f"node {node} in round {time}")
            self.models[node] = merge_arrivals(
                trained, arrived, degree, density=settings.density, align=settings.align, seed=seed
            )
        elif arrived:
            heard = (arrived[sender][1].put(copy.deepcopy(model)) for sender in sorted(arrived))
            self.models[node] = mean_of(heard, settings.density)
            self._in_touch.add(node)

    def _evaluated(
        self, present: Sequence[int], test: Split | None
    ) -> tuple[tuple[float, ...], float | None, float | None]:
        if test is None:
            return (), None, None
        models = [self.models[node] for node in present]
        mean = mean_of(models, self._settings.density)
        accuracy = tuple(measure.evaluate(model, test)["accuracy"] for model in models)
        topology = Topology.of(mean)
        apart = [Topology.of(model).nnstd(topology) for model in models]
        return accuracy, measure.evaluate(mean, test)["accuracy"], sum(apart) / len(apart)
