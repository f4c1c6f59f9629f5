"""``upfront``: which connections a network should keep, before it is trained or at any point of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from regraft import scores
from regraft.errors import InputError, MismatchError, check_density, unknown
from regraft.evolve.named import Patterns, sparse_weights
from regraft.probe import Probe
from regraft.prune import paths
from regraft.prune.budget import Scope, Selections, check_count
from regraft.prune.candidates import candidates, sizes_of
from regraft.prune.collapse import warn_of_dead
from regraft.schedules import Progress
from regraft.scores import Score
from regraft.select import Selection
from regraft.topology import Topology
from regraft.weight import SparseWeight

Ties = Literal["random", "magnitude"]


class Shot(NamedTuple):
    """What one shot kept.

    Attributes:
        number, shots: the how manieth of how many, from 1.
        density: that this shot aimed at.
        kept: sorted positions of each weight.
        shapes: dense shape of each weight.
    """

    number: int
    shots: int
    density: float
    kept: Mapping[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def topology(self) -> Topology:
        """The connections kept, as a topology."""
        return Topology({name: (self.shapes[name], index) for name, index in self.kept.items()})


def upfront(
    model: nn.Module,
    probe: Probe | None = None,
    *,
    score: str | Score,
    density: float,
    shots: int = 1,
    path: str | paths.Path = "exponential",
    scope: Scope = "global",
    floor: int = 0,
    revive: bool = False,
    ties: Ties = "random",
    include: Patterns = ("*",),
    exclude: Patterns = (),
    generator: torch.Generator | None = None,
    on_shot: Callable[[Shot], object] | None = None,
) -> Topology:
    """The connections that ``score`` keeps of a model, in one shot or in many. The model is not modified;
    ``apply`` gives it the topology.

    Each shot scores the connections that are left and keeps the best of them, as many as ``path`` says;
    counts are exact. A dense model has a candidate at each position of its Linear and Conv weights, a sparse
    one at its connections. Biases are kept.

    Args:
        probe: loss, batches and generator, for scores that need them.
        score: text that ``regraft.scores.parse`` reads, such as ``"snip"`` or ``"stacked(magnitude,
            synflow)"``, or a function ``(model, probe) -> {weight name: vector}``; the higher is kept.
        density: share of the *positions* of all pruned weights together that stays, in (0, 1].
        shots: 1 or more.
        path: density over the shots, from the candidates' own to ``density``: ``"exponential"``,
            ``"linear"``, ``"cubic"``, or a function ``(start, end, progress) -> density``.
        scope: ``"global"`` compares all layers; ``"layer"`` gives each the same density; or a function
            ``(density, floor) -> Selection``, such as the classes of ``regraft.select``.
        floor: connections that each layer keeps at least (all of them if it has fewer).
        revive: every shot scores all candidates, those cut before computing as 0, so that they may come back
            (thesis 5's multi-shot SNIP needs it). Otherwise what is cut stays cut.
        ties: who decides among equal scores: the generator, or first the larger ``|w|``. Never the position.
        include, exclude: shell patterns on layer names; other layers stay as they are and do not count.
        generator: decides ties, and serves scores that draw numbers where the probe has none. Default: seed
            0, for ties only.
        on_shot: called with a ``Shot`` after each shot.

    >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> topology = upfront(model, score="magnitude", density=0.1, shots=3, scope="layer")
    >>> {name: c.nnz for name, c in topology.items()}
    {'0.weight': 60, '2.weight': 30}

    Warns:
        LayerCollapseWarning: a layer has no connection left; the message says what helps.

    Raises:
        InputError: density, shots or floor out of range; a model without prunable weights; fewer candidates
            than the density asks for, or fewer connections than layers; scores that are NaN or all equal;
            an unknown name.
        MismatchError: the score's vectors do not line up with the weights.
    """
    check_density(density)
    check_count(shots, "shots")
    if ties not in ("random", "magnitude"):
        raise unknown("tie rule", ties, ("random", "magnitude"))
    work, weights = candidates(model, include, exclude)
    selections = Selections(weights, density, path, scope, floor)
    pruner = _Pruner(work, weights, scores.parse(score) if isinstance(score, str) else score, revive)
    generator_here = torch.Generator().manual_seed(0) if generator is None else generator
    probe = with_generator(probe, generator)
    for number in range(1, shots + 1):
        progress = Progress(number, shots)
        pruner.shoot(selections(progress), number, probe, generator_here, ties)
        if on_shot is not None:
            on_shot(Shot(number, shots, selections.density_at(progress), pruner.kept(), pruner.shapes))
    kept = pruner.kept()
    warn_of_dead([n for n in kept if pruner.alive[n] and not kept[n].numel()], density, pruner.tied_since)
    return Topology({name: (pruner.shapes[name], index) for name, index in kept.items()})


def with_generator(probe: Probe | None, generator: torch.Generator | None) -> Probe | None:
    """The probe, with ``generator`` for the scores that draw where it has none of its own."""
    if generator is None or (probe is not None and probe.generator is not None):
        return probe
    return dataclasses.replace(probe or Probe(), generator=generator)


def name_of(score: Score) -> str:
    """What errors call a score."""
    return repr(scores.text_of(score))


class _Pruner:
    """The shots' common state: the working copy, and which of its entries are kept."""

    def __init__(self, work: nn.Module, weights: dict[str, SparseWeight], score: Score, revive: bool) -> None:
        self.work, self.weights, self.score, self.revive = work, weights, score, revive
        self.shapes = {name: tuple(w.shape) for name, w in weights.items()}
        self.sizes = sizes_of(weights)
        self.alive = {name: w.nnz > 0 for name, w in weights.items()}
        self.tied_since: int | None = None
        # a score is told about every weight of the model, also about those that are not pruned
        every = sparse_weights(work)
        self.active = (
            {n: torch.ones_like(w.index, dtype=torch.bool) for n, w in every.items()} if revive else None
        )

    def shoot(
        self,
        selection: Selection,
        number: int,
        probe: Probe | None,
        generator: torch.Generator,
        ties: Ties,
    ) -> None:
        """One shot: score, select, cut."""
        active = self.active if number > 1 else None
        scored = self._check(self.score(self.work, probe, active=active))
        second = None
        if ties == "magnitude":
            second = {name: w.values.detach().abs() for name, w in self.weights.items()}
        chosen = selection(scored, self.sizes, generator=generator, ties=second)
        if all_equal(scored) and any(chosen[n].numel() < v.numel() for n, v in scored.items()):
            self._note_tie(scored, number)
        for name, entries in chosen.items():
            weight = self.weights[name]
            if self.active is not None:
                self.active[name] = torch.zeros_like(self.active[name])
                self.active[name][entries] = True
            elif entries.numel() < weight.nnz:
                weight.replace(weight.index[entries], weight.values.detach()[entries])

    def kept(self) -> dict[str, Tensor]:
        """Sorted positions of each weight that are kept so far."""
        if self.active is None:
            return {name: w.index for name, w in self.weights.items()}
        return {name: w.index[self.active[name]] for name, w in self.weights.items()}

    def _check(self, scored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for name, weight in self.weights.items():
            if name not in scored or scored[name].shape != (weight.nnz,):
                got = f"shape {tuple(scored[name].shape)}" if name in scored else "nothing"
                raise MismatchError(
                    f"the score {name_of(self.score)} gave {got} for '{name}', but it has {weight.nnz} "
                    "candidates: return one number for each"
                )
        return {name: scored[name].detach() for name in self.weights}

    def _note_tie(self, scored: Mapping[str, Tensor], number: int) -> None:
        """Equal scores in the first shot are a mistake; later they are what a cut network gives."""
        if number == 1:
            value = next(float(v[0]) for v in scored.values() if v.numel())
            raise InputError(
                f"the score {name_of(self.score)} is {value:g} for every connection, so none can be "
                "ranked: look for a network that is not connected, a loss that ignores the weights, "
                "or initial values that are all equal"
            )
        if self.tied_since is None:
            self.tied_since = number


def all_equal(scored: Mapping[str, Tensor]) -> bool:
    """Whether one number is the score of every connection."""
    ends = [torch.aminmax(v) for v in scored.values() if v.numel()]
    return all(bool(e.min == e.max) and float(e.min) == float(ends[0].min) for e in ends)
