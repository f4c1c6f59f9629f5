"""``Shrink``: a network that becomes sparse while it trains, by dropping without growing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from torch import nn

from regraft import select
from regraft.errors import InputError, MismatchError, check_density, unknown
from regraft.evolve.named import Patterns, as_patterns, sparse_weights
from regraft.evolve.optimizer_state import Optimizers, check_held, optimizers, remap_state
from regraft.evolve.settings import HISTORY, at_least_one
from regraft.kernels.rewiring import complement, swap
from regraft.schedules import Cubic, Progress, Schedule
from regraft.weight import SparseWeight

Scope = Literal["global", "layer"]
SCOPES = ("global", "layer")


@dataclass(frozen=True)
class ShrinkStep:
    """What one update did.

    Attributes:
        step: optimizer steps done when it happened.
        density: connections / positions of all shrinking weights together, afterwards.
        dropped: connections dropped, by weight name.
    """

    step: int
    density: float
    dropped: dict[str, int]

    def figures(self) -> dict[str, float]:
        """``density``, and ``dropped`` over all weights."""
        return {"density": self.density, "dropped": sum(self.dropped.values())}


class Shrink:
    """Gradual magnitude pruning around a training loop of your own (Zhu and Gupta 2017, arXiv:1710.01878).

    Every ``every`` steps from ``start`` on, until step ``total``, the weights closest to zero are dropped, so
    that the density falls from what it is to ``density``: d(t) = d_f + (d_i - d_f) (1 - t)^3, t from 0 to 1.
    Survivors keep values and optimizer state bit for bit. Begin with a full or dense enough network:
    ``sparsify(model, density=1.0)``.

    Args:
        density: connections / positions at the end, in (0, 1].
        every: optimizer steps between updates, >= 1.
        total: the step at which the last update happens; leave some training after it.
        start: optimizer steps before the first update, 0 or more.
        scope: ``"global"`` compares all weights with each other, ``"layer"`` gives each the same density.
        floor: connections that each weight keeps at least, where ``scope`` is ``"global"``.
        shape: how far the way is, from 1 at the start to 0 at the end; the default is the paper's cubic.
        generator: decides among equal magnitudes; default as in ``Evolve``.
        include, exclude: shell patterns on the names of weights or layers.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=1.0)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> shrink = Shrink(0.1, every=2, total=8).attach(model, optimizer)
    >>> for _ in range(10):
    ...     loss = model(torch.randn(4, 20)).square().mean()
    ...     optimizer.zero_grad(); loss.backward(); optimizer.step()
    ...     _ = shrink.step()
    >>> [(done.step, done.density) for done in shrink.history]
    [(2, 0.48), (4, 0.21), (6, 0.115), (8, 0.1)]

    Raises:
        InputError: a density outside (0, 1], steps below 1, an unknown scope, a start after the end.
    """

    def __init__(
        self,
        density: float,
        *,
        every: int = 1,
        total: int,
        start: int = 0,
        scope: Scope = "global",
        floor: int = 1,
        shape: Schedule | None = None,
        generator: torch.Generator | None = None,
        include: Patterns = ("*",),
        exclude: Patterns = (),
    ) -> None:
        self.density = check_density(density)
        self.every, self.total = at_least_one("every", every), at_least_one("total", total)
        if not 0 <= start < self.total:
            raise InputError(f"start is {start!r}, but must be 0 or more steps, before total ({self.total})")
        if scope not in SCOPES:
            raise unknown("scope", scope, SCOPES)
        self.start, self.scope, self.floor = int(start), scope, floor
        self.shape = Cubic(1.0, 0.0) if shape is None else shape
        self.generator = (
            torch.Generator().manual_seed(torch.initial_seed()) if generator is None else generator
        )
        self.include, self.exclude = as_patterns(include), as_patterns(exclude)
        self.steps = 0
        self.first: dict[str, int] = {}
        self.history: deque[ShrinkStep] = deque(maxlen=HISTORY)
        self.seconds: dict[str, float] = {}
        self._model: nn.Module | None = None
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Shrink(density={self.density}, every={self.every}, total={self.total}, start={self.start}, "
            f"scope={self.scope!r})"
        )

    def attach(self, model: nn.Module, optimizer: Optimizers = None) -> Self:
        """Say what to shrink, and the optimizers whose state follows. Returns self.

        Raises:
            InputError: no sparse weight, a pattern without a match, an optimizer that holds none of them, or
                a network that is sparser than ``density`` already.
        """
        weights = sparse_weights(model, self.include, self.exclude)
        self._optimizers = optimizers(optimizer)
        check_held(self._optimizers, weights)
        there = sum(w.nnz for w in weights.values()) / sum(w.size for w in weights.values())
        if there < self.density:
            raise InputError(
                f"the network has density {there:.4g}, but should shrink to {self.density:g}: begin with "
                "sparsify(model, density=1.0)"
            )
        self._model, self.first = model, {n: w.nnz for n, w in weights.items()}
        return self

    @property
    def watching(self) -> bool:
        """False: magnitudes need no gradients."""
        return False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Nothing: magnitudes need no gradients."""
        yield

    def show(self, seen: object) -> None:
        """Nothing: magnitudes need no gradients."""

    @property
    def due(self) -> bool:
        """Whether the step just counted is one after which connections are dropped."""
        regular = (self.steps - self.start) % self.every == 0
        return self.start < self.steps <= self.total and (regular or self.steps == self.total)

    def step(self) -> ShrinkStep | None:
        """Count one optimizer step, and drop if it is time to: call it after every ``optimizer.step()``.

        Returns:
            what was done, or None where nothing was due.

        Raises:
            InputError: not attached; weights that are NaN.
        """
        if self._model is None:
            raise InputError("this Shrink is not attached yet: call .attach(model, optimizer) first")
        self.steps += 1
        return self._shrink() if self.due else None

    @torch.no_grad()
    def _shrink(self) -> ShrinkStep:
        assert self._model is not None
        weights = sparse_weights(self._model, self.include, self.exclude)
        kept, dropped = self._kept(weights), {}
        for name, weight in weights.items():
            old, entries = weight.nnz, complement(kept[name], weight.nnz)
            dropped[name] = entries.numel()
            if dropped[name]:
                moved = swap(weight, entries, entries[:0], weight.values[:0])
                for optimizer in self._optimizers:
                    remap_state(optimizer, weight.values, moved, old)
        size = sum(w.size for w in weights.values())
        done = ShrinkStep(self.steps, sum(w.nnz for w in weights.values()) / max(size, 1), dropped)
        self.history.append(done)
        return done

    def _kept(self, weights: Mapping[str, SparseWeight]) -> dict[str, torch.Tensor]:
        left = self.shape(Progress(self.steps - self.start, self.total - self.start))

        def count(first: int, size: int) -> int:
            end = self.density * size
            return round(end + max(first - end, 0.0) * left)

        magnitudes = {n: w.values.abs() for n, w in weights.items()}
        if self.scope == "layer":
            counts = {n: min(count(self.first[n], w.size), w.nnz) for n, w in weights.items()}
            return select.per_layer(magnitudes, counts, generator=self.generator)
        k = count(sum(self.first[n] for n in weights), sum(w.size for w in weights.values()))
        k = min(k, sum(w.nnz for w in weights.values()))
        return select.globally(magnitudes, k, floor=self.floor, generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Counters, where it began, generator and history."""
        return {
            "steps": self.steps,
            "first": dict(self.first),
            "generator": self.generator.get_state(),
            "history": [asdict(done) for done in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises:
            MismatchError: not such a state.
        """
        wanted = {"steps", "first", "generator", "history"}
        if set(state) != wanted:
            raise MismatchError(
                f"this is not the state of a Shrink: it has {sorted(state)}, but {sorted(wanted)} are needed"
            )
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.first = int(state["steps"]), dict(state["first"])
        self.history = deque((ShrinkStep(**done) for done in state["history"]), maxlen=HISTORY)
