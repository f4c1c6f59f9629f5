"""``Evolve``: every so many steps, drop some connections and grow as many."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError, MismatchError
from regraft.evolve import drop as drops
from regraft.evolve import grow as growing
from regraft.evolve import grow_rules, together
from regraft.evolve.capture import differentiate, recording
from regraft.evolve.context import Context, Drop, Grow, Growth, Watching
from regraft.evolve.evolution_step import EvolutionStep
from regraft.evolve.named import Patterns, as_patterns, sparse_weights, unwrapped
from regraft.evolve.optimizer_state import Optimizers, check_held, holds, optimizers, remap_state
from regraft.evolve.settings import HISTORY, as_schedule, at_least_one, check_rate
from regraft.kernels.rewiring import exchange, parted, swap
from regraft.layers import SparseLayer
from regraft.probe import Probe
from regraft.schedules import Progress, Schedule
from regraft.weight import SparseWeight

if TYPE_CHECKING:  # torch may be built without torch.distributed
    from torch.distributed import ProcessGroup


class Evolve:
    """Sparse evolutionary training around a training loop of your own.

    Every ``every`` steps it drops a fraction ``rate`` of each sparse weight's connections and grows as many
    elsewhere in the same weight, so that counts never change. Survivors keep their values and their optimizer
    state bit for bit; new connections start fresh, also where one was dropped a moment ago. Weights that do
    not train (``requires_grad`` is False, or not in the optimizer) and full ones, where nothing can grow, are
    left alone.

    The defaults are SET (Mocanu et al. 2018, algorithm 1; thesis 3, algorithm 1).

    Args:
        drop: rule ``(weight, fraction, context) -> entries``, or its name: ``"signed-magnitude"`` (SET) or
            ``"magnitude"``.
        grow: rule ``(weight, survivors, k, context) -> Growth``, or its name: ``"random"``, ``"gradient"``
            (RigL) or ``"inner-product"``. The latter two look at gradients: see ``watch``.
        rate: fraction of connections dropped per update, in [0, 1]: a number, a schedule, or the name of one.
            A schedule sees ``Progress(done, total)``: ``done`` updates so far, which is the epoch, counted
            from 0, where ``every`` is the steps of one epoch; ``total`` is total / every, then the number of
            epochs.
        every: optimizer steps between updates, >= 1; ``len(loader)`` for once per epoch.
        total: steps over which the topology evolves, or None if unknown. No update happens at step ``total``
            or later, so with ``total = epochs * len(loader)`` none follows the last epoch, as in SET, and no
            connection ends untrained. With a smaller ``every``, ``total = (epochs - 1) * len(loader) + 1``
            keeps the whole last epoch quiet; for RigL it is T_end.
        generator: source of every random choice, a CPU one for any device. Default: a new one seeded with
            ``torch.initial_seed()``, hence by ``torch.manual_seed``. In distributed training rank 0's counts.
        include, exclude: shell patterns on the names of weights or layers that evolve.
        explore: remember every position that was ever active, for ``explored``: 8 bytes for each.

    >>> from regraft import sparsify
    >>> g = torch.Generator().manual_seed(0)
    >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.2, generator=g)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> evolver = Evolve(rate=0.3, every=2, total=6, generator=g).attach(model, optimizer)
    >>> for _ in range(6):
    ...     loss = model(torch.randn(4, 20)).square().mean()
    ...     optimizer.zero_grad(); loss.backward(); optimizer.step()
    ...     _ = evolver.step()
    >>> [(e.step, e.total) for e in evolver.history], model[0].weight.nnz
    ([(2, 12), (4, 12)], 40)

    Raises:
        InputError: unknown names; ``every`` or ``total`` below 1; a fixed rate outside [0, 1].
    """

    def __init__(
        self,
        drop: str | Drop = "signed-magnitude",
        grow: str | Grow = "random",
        rate: float | str | Schedule = 0.3,
        *,
        every: int = 1,
        total: int | None = None,
        generator: torch.Generator | None = None,
        include: Patterns = ("*",),
        exclude: Patterns = (),
        explore: bool = False,
    ) -> None:
        self.drop = drops.by_name(drop) if isinstance(drop, str) else drop
        self.grow = grow_rules.by_name(grow) if isinstance(grow, str) else grow
        self.rate = as_schedule(rate)
        self.every = at_least_one("every", every)
        self.total = None if total is None else at_least_one("total", total)
        self.generator = (
            torch.Generator().manual_seed(torch.initial_seed()) if generator is None else generator
        )
        self.include, self.exclude = as_patterns(include), as_patterns(exclude)
        self.steps = 0
        self.updates = 0
        self.history: deque[EvolutionStep] = deque(maxlen=HISTORY)
        self.seconds = {"search": 0.0, "rewire": 0.0}
        self._ever: dict[str, Tensor] | None = {} if explore else None
        self._captured: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._watching = self.grow if isinstance(self.grow, Watching) else None
        self._model: nn.Module | None = None
        self._group: ProcessGroup | None = None
        self._optimizers: tuple[torch.optim.Optimizer, ...] = ()
        self._weights: dict[str, SparseWeight] = {}
        self._layers: dict[str, SparseLayer] = {}

    def __repr__(self) -> str:
        drop = getattr(self.drop, "__name__", self.drop)
        return (
            f"Evolve(drop={drop}, grow={self.grow}, rate={self.rate}, every={self.every}, total={self.total})"
        )

    def attach(
        self, model: nn.Module, optimizer: Optimizers = None, *, group: ProcessGroup | None = None
    ) -> Self:
        """Say what to evolve: a model (compiled or wrapped in DDP too) and the optimizers that train it,
        whose state then follows. Returns self.

        Args:
            group: processes that train this model together; default those of its DDP wrapper. All of them
                take the first one's choices, and rules that look at gradients see those of all.

        Raises:
            InputError: no sparse weight, a pattern without a match, or an optimizer that holds none of the
                sparse weights, which happens when it is built before ``sparsify``.
        """
        weights = sparse_weights(model, self.include, self.exclude)
        given = optimizers(optimizer)
        check_held(given, weights)
        self._model, self._optimizers, self._weights = model, given, weights
        self._group = together.group_of(model, group)
        layers = {id(m.weight): m for m in unwrapped(model).modules() if isinstance(m, SparseLayer)}
        self._layers = {n: layers[id(w)] for n, w in weights.items() if id(w) in layers}
        return self

    def step(self, probe: Probe | None = None) -> EvolutionStep | None:
        """Count one optimizer step, and evolve if it is time to: call it after every ``optimizer.step()``.

        Args:
            probe: batches and loss, for rules that look at gradients; SET's do not. Rules that saw the
                gradients of training itself (``watch``) need none; for the others an extra forward and
                backward pass runs where an update is due, and leaves no trace.

        Returns:
            what was done, or None where nothing was due.

        Raises:
            InputError: not attached; weights that are NaN; a rate outside [0, 1].
        """
        self._attached()
        self.steps += 1
        return self.evolve(probe) if self.due else None

    @property
    def due(self) -> bool:
        """Whether the step just counted is one after which the topology changes."""
        in_time = self.total is None or self.steps < self.total
        return self.steps > 0 and self.steps % self.every == 0 and in_time

    @property
    def progress(self) -> Progress:
        """Updates so far, and the number of periods of ``every`` steps in all, if known."""
        return Progress(self.updates, None if self.total is None else math.ceil(self.total / self.every))

    @property
    def watching(self) -> bool:
        """Whether the grow rule wants to see the gradients of the coming step."""
        if self._watching is None:
            return False
        due = (self.steps // self.every + 1) * self.every
        return (self.total is None or due < self.total) and due - self.steps <= self._watching.batches

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Run the forward and backward pass of each step within it, for rules that look at gradients.

        On the steps that such a rule asks for, it keeps the layers' inputs and output gradients; on all
        others it does nothing.

        >>> from regraft import sparsify
        >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> evolver = Evolve("magnitude", "gradient", every=2).attach(model, optimizer)
        >>> for _ in range(4):
        ...     with evolver.watch():
        ...         model(torch.randn(4, 20)).square().mean().backward()
        ...     optimizer.step(); optimizer.zero_grad()
        ...     _ = evolver.step()
        >>> len(evolver.history)
        2

        Raises:
            InputError: not attached; several processes, and a model that is not wrapped in DDP.
        """
        if not self.watching:
            yield
            return
        self._check_alone()
        with recording(self._watched(), self._keep):
            yield

    def show(self, seen: Mapping[nn.Module, tuple[Tensor, Tensor]]) -> None:
        """In place of ``watch``, for a training step that computes gradients by itself: what it saw.

        Args:
            seen: for each layer its input and the gradient of its output. Layers whose weight does not evolve
                are passed over. The tensors are kept as the rule keeps them, which may be without a copy.

        Raises:
            InputError: as ``watch``.
        """
        self._check_alone()
        for name, layer in self._watched().items():
            if layer in seen:
                self._keep(name, layer, *seen[layer])

    def _check_alone(self) -> None:
        if self._group is None and together.processes() > 1:
            raise InputError(
                "evolver.watch() sees the gradients of one of several processes: attach the model wrapped in "
                "DistributedDataParallel, or name the processes that train it, .attach(..., group=...)"
            )

    def _keep(self, name: str, layer: SparseLayer, x: Tensor, dz: Tensor) -> None:
        assert self._watching is not None
        with torch.no_grad():
            self._captured.setdefault(name, []).append(self._watching.keep(layer, x, dz, self.generator))

    def _watched(self) -> dict[str, SparseLayer]:
        """The sparse layers that evolve, by the names of their weights."""
        return {name: self._layers[name] for name in self._evolving() if name in self._layers}

    def _evolving(self) -> dict[str, SparseWeight]:
        self._attached()
        return {n: w for n, w in self._weights.items() if self._trains(w) and w.nnz < w.size}

    @torch.no_grad()
    def evolve(self, probe: Probe | None = None) -> EvolutionStep:
        """Update the topology now, whatever the step count says.

        Raises:
            InputError: not attached; weights that are NaN; a rate outside [0, 1]; a rule that looks at
                gradients and has seen none.
        """
        model = self._attached()
        progress = self.progress
        rate = check_rate(self.rate(progress), self.rate)
        if probe is not None and self._watching is not None and not self._captured:
            with self._timed("search"), recording(self._watched(), self._keep):
                differentiate(unwrapped(model), probe, "Evolve")
        evolving = self._evolving()
        with self._timed("search"):
            captured = {
                n: _on(w.values.device, self._captured[n]) for n, w in evolving.items() if n in self._captured
            }
            captured, self._captured = together.gathered(captured, evolving, self._group), {}
        dropped, regrown = {}, {}
        for name, weight in evolving.items():
            seen = captured.pop(name, ())
            context = Context(name, self.generator, progress, model, probe, self._layers.get(name), seen)
            dropped[name], regrown[name] = self._update(weight, rate, context)
        done = EvolutionStep(self.steps, self.updates, rate, dropped, regrown, self._explored())
        self.updates += 1
        self.history.append(done)
        return done

    def _update(self, weight: SparseWeight, rate: float, context: Context) -> tuple[int, int]:
        with self._timed("rewire"):
            entries = together.decided(self.drop(weight, rate, context), self._group)
            survivors, gone = parted(weight.index, entries, f"entries dropped from '{context.name}'")
            if self._ever is not None and context.name not in self._ever:
                self._ever[context.name] = weight.index.clone()
            k = gone.numel()
            if k == 0:
                return 0, 0
        with self._timed("search"):
            growth = self.grow(weight, survivors, k, context)
        with self._timed("rewire"):
            growth = growing.check_growth(growth, weight, k, context)
            growth = Growth(*(together.decided(part, self._group) for part in (growth.index, growth.values)))
            back = positions.contains(gone, growth.index)
            regrown = int(back.sum())
            if regrown and getattr(self.grow, "keep_regrown", False):
                entries = entries[~positions.contains(growth.index, gone)]
                growth = Growth(growth.index[~back], growth.values[~back])
            self._swap(weight, entries, growth, context.name)
        return k, regrown

    def _swap(self, weight: SparseWeight, entries: Tensor, growth: Growth, name: str) -> None:
        old_nnz = weight.nnz
        rewiring = swap(weight, entries, growth.index, growth.values, name=f"'{name}'")
        for optimizer in self._optimizers:
            remap_state(optimizer, weight.values, rewiring, old_nnz)
        if self._ever is not None:
            ever = self._ever[name].to(weight.index.device)
            new = positions.difference(growth.index, ever)
            none = new[:0]
            self._ever[name] = exchange(ever, none, new)[0]

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start

    def _explored(self) -> float | None:
        if self._ever is None:
            return None
        weights = self._evolving()
        size = sum(w.size for w in weights.values())
        return sum(self._ever[n].numel() for n in weights) / max(size, 1)

    @property
    def explored(self) -> dict[str, float]:
        """Share of each weight's positions that were active at any time, in [0, 1]: the over-parameterisation
        in time of Liu et al. (2021, arXiv:2102.02887), who find that a sparse network is the better the more
        it has tried.

        Raises:
            InputError: this ``Evolve`` was made without ``explore=True``.
        """
        if self._ever is None:
            raise InputError("what was explored is not remembered: make it with Evolve(..., explore=True)")
        self._attached()
        return {n: self._ever.get(n, w.index).numel() / max(w.size, 1) for n, w in self._weights.items()}

    def _trains(self, weight: SparseWeight) -> bool:
        held = not self._optimizers or any(holds(o, weight.values) for o in self._optimizers)
        return held and weight.values.requires_grad

    def _attached(self) -> nn.Module:
        if self._model is None:
            raise InputError("this Evolve is not attached yet: call .attach(model, optimizer) first")
        return self._model

    def state_dict(self) -> dict[str, Any]:
        """Counters, generator and history, and what was captured for the next update or explored: plain data
        and tensors. The topology is in the model's state and the optimizer's state in the optimizer's, so
        with the three a run resumes bit for bit."""
        state = {
            "steps": self.steps,
            "updates": self.updates,
            "generator": self.generator.get_state(),
            "history": [asdict(e) for e in self.history],
        }
        if self._captured:
            state["captured"] = {n: [list(pair) for pair in kept] for n, kept in self._captured.items()}
        if self._ever is not None:
            state["ever"] = dict(self._ever)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave.

        Raises:
            MismatchError: not such a state.
        """
        wanted = {"steps", "updates", "generator", "history"}
        if set(state) - {"captured", "ever"} != wanted or not isinstance(state["generator"], Tensor):
            raise MismatchError(
                f"this is not the state of an Evolve: it has {sorted(state)}, but {sorted(wanted)} are needed"
            )
        self.generator.set_state(state["generator"].cpu())
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self.history = deque((EvolutionStep(**e) for e in state["history"]), maxlen=HISTORY)
        self._captured = {n: [(a, b) for a, b in kept] for n, kept in state.get("captured", {}).items()}
        if self._ever is not None:
            self._ever = dict(state.get("ever", {}))


def _on(device: torch.device, pairs: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """What was captured, on the device: a state may have been loaded on another."""
    return [(a.to(device), b.to(device)) for a, b in pairs]
