"""Dynamic sparse training: each neuron learns a threshold below which it prunes (thesis 4, chapter 2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from regraft.errors import InputError
from regraft.evolve.named import Patterns, unwrapped
from regraft.evolve.settings import at_least_one
from regraft.layers import sparsify
from regraft.layers.surgery import sparsifiable
from regraft.topology import Topology

M = TypeVar("M", bound=nn.Module)


def long_tailed(q: Tensor) -> Tensor:
    """What stands in for the derivative of the step function at ``q``: 2 - 4|q| up to 0.4, 0.4 up to 1, then
    0 (Liu et al. 2020, arXiv:2005.06870, eq. 4).

    >>> long_tailed(torch.tensor([0.0, 0.25, -0.5, 1.5])).tolist()
    [2.0, 1.0, 0.4000000059604645, 0.0]
    """
    size = q.abs()
    tail = torch.where(size <= 1.0, torch.full_like(size, 0.4), torch.zeros_like(size))
    return torch.where(size <= 0.4, 2.0 - 4.0 * size, tail)


class _Masked(torch.autograd.Function):
    """w where ``|w|`` reaches its row's threshold, else 0; the step's derivative is the long-tailed one, and
    the penalty's gradient comes on top of the thresholds'."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, threshold: Tensor, alpha: float) -> Tensor:
        q = w.abs() - _by_row(threshold, w)
        ctx.save_for_backward(w, threshold, q)
        ctx.alpha = alpha
        return w * (q >= 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (g,) = grads
        w, threshold, q = ctx.saved_tensors
        slope = long_tailed(q)
        dw = g * ((q >= 0) + w.abs() * slope)
        dt = -(g * w * slope).flatten(1).sum(1) - ctx.alpha * torch.exp(-threshold)
        return dw, dt, None


def _by_row(threshold: Tensor, w: Tensor) -> Tensor:
    return threshold.view(-1, *(1,) * (w.ndim - 1))


class Threshold(nn.Module):
    """The parametrisation of a dense weight [out, ...]: entries below their row's threshold are 0.

    Attributes:
        threshold: Parameter [out], 0 at the start.
        alpha: weight of the penalty sum(exp(-threshold)), whose gradient the backward pass adds.
    """

    def __init__(self, weight: Tensor, alpha: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(weight.new_zeros(weight.shape[0]))
        self.alpha = alpha

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        masked: Tensor = _Masked.apply(weight, self.threshold, self.alpha)  # type: ignore[no-untyped-call]
        return masked

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A weight that is set is the one before masking."""
        return weight

    def mask(self, weight: Tensor) -> Tensor:
        """Which entries stay, booleans of the weight's shape."""
        return weight.abs() >= _by_row(self.threshold, weight)


@dataclass(frozen=True)
class ThresholdStep:
    """The density after a step, and the layers whose thresholds were set back to 0."""

    density: float
    reset: tuple[str, ...] = ()

    def figures(self) -> dict[str, float]:
        """``density``."""
        return {"density": self.density}


class LearnedThresholds:
    """DST: weights below a threshold that each neuron learns are 0 (Liu et al. 2020, arXiv:2005.06870; thesis
    4, chapter 2).

    With Q = ``|w|`` - t the masked weight is w * (Q >= 0). In the backward pass the step's derivative is the
    long-tailed estimator, so the loss teaches the thresholds and reaches masked weights, too: they may come
    back. A penalty alpha * sum(exp(-t)) raises the thresholds. Its gradient is added where the weight's is
    computed; the loss that a loop prints is without it.

    This is a baseline: the weights are dense tensors until ``finish`` makes the network sparse.

    Args:
        alpha: weight of the penalty, 0 or more: the larger, the sparser.
        guard: where a layer's density falls below this, its thresholds are set back to 0, as in the paper.
        every: steps between looks at the density.
        include, exclude: shell patterns on the names of the dense layers.

    >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> thresholds = LearnedThresholds(alpha=0.01)
    >>> optimizer = torch.optim.SGD(thresholds.prepare(model).parameters(), lr=0.1)
    >>> for _ in range(20):
    ...     loss = model(torch.ones(4, 20)).square().mean()
    ...     optimizer.zero_grad(); loss.backward(); optimizer.step()
    ...     _ = thresholds.step()
    >>> sparse = thresholds.finish(model)
    >>> type(sparse[0]).__name__, 0 < sparse[0].weight.density < 1
    ('SparseLinear', True)

    Raises:
        InputError: ``alpha`` negative, ``guard`` outside [0, 1), ``every`` below 1.
    """

    def __init__(
        self,
        alpha: float = 5e-4,
        *,
        guard: float = 0.01,
        every: int = 1,
        include: Patterns = ("*",),
        exclude: Patterns = (),
    ) -> None:
        if not 0.0 <= alpha < math.inf:
            raise InputError(f"alpha is {alpha!r}, but must be 0 or more: the larger, the sparser")
        if not 0.0 <= guard < 1.0:
            raise InputError(f"guard is {guard!r}, but must be a density in [0, 1)")
        self.alpha, self.guard, self.every = alpha, guard, at_least_one("every", every)
        self.include, self.exclude = include, exclude
        self.steps = 0
        self.seconds: dict[str, float] = {}
        self._model: nn.Module | None = None

    def __repr__(self) -> str:
        return f"LearnedThresholds(alpha={self.alpha}, guard={self.guard}, every={self.every})"

    def prepare(self, model: M) -> M:
        """Give the dense layers thresholds, in place, and return the model. Build the optimizer after it.

        Raises:
            InputError: no dense layer, or a pattern that matches none.
        """
        for layer in sparsifiable(model, self.include, self.exclude).values():
            parametrize.register_parametrization(
                layer, "weight", Threshold(cast(Tensor, layer.weight), self.alpha)
            )
        self.attach(model)
        return model

    def attach(self, model: nn.Module) -> Self:
        """Say which model, one that has thresholds already. Returns self.

        Raises:
            InputError: it has none.
        """
        _masked(model)
        self._model = model
        return self

    @property
    def watching(self) -> bool:
        """False: the thresholds learn in the backward pass of each step."""
        return False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Nothing: the thresholds learn in the backward pass of each step."""
        yield

    def show(self, seen: object) -> None:
        """Nothing: the thresholds learn in the backward pass of each step."""

    @torch.no_grad()
    def step(self) -> ThresholdStep | None:
        """Count one optimizer step; set back the thresholds of layers that have become too sparse.

        Returns:
            the density, or None where no look was due.

        Raises:
            InputError: no model with thresholds yet.
        """
        if self._model is None:
            raise InputError("these LearnedThresholds have no model yet: call .prepare(model) first")
        self.steps += 1
        if self.steps % self.every:
            return None
        reset, kept, size = [], 0, 0
        for name, (threshold, weight) in _masked(self._model).items():
            here = int(threshold.mask(weight).sum())
            if here < self.guard * weight.numel():
                threshold.threshold.zero_()
                reset.append(name)
                here = weight.numel()
            kept, size = kept + here, size + weight.numel()
        return ThresholdStep(kept / size, tuple(reset))

    @torch.no_grad()
    def finish(self, model: M) -> M:
        """The network with sparse weights in place of masked ones, in place; it computes the same.

        Raises:
            InputError: the model has no thresholds; a layer whose weights are all masked.
        """
        found = _masked(model)
        connections = {}
        for name, (threshold, weight) in found.items():
            index = threshold.mask(weight).reshape(-1).nonzero().squeeze(1)
            if not index.numel():
                raise InputError(f"all weights of '{name}' are masked: lower alpha, or raise guard")
            connections[f"{name}.weight"] = (tuple(weight.shape), index)
        for name in found:
            parametrize.remove_parametrizations(model.get_submodule(name), "weight")
        return sparsify(model, topology=Topology(connections), include=list(found))

    def state_dict(self) -> dict[str, Any]:
        """The steps so far; the thresholds are in the model's state."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave."""
        self.steps = int(state["steps"])


def _masked(model: nn.Module) -> dict[str, tuple[Threshold, Tensor]]:
    """{name of the layer: (its threshold, its weight before masking)}."""
    found = {}
    for name, module in unwrapped(model).named_modules():
        if parametrize.is_parametrized(module, "weight"):
            chain = cast(Any, module).parametrizations.weight
            if isinstance(chain[0], Threshold):
                found[name] = chain[0], chain.original
    if not found:
        raise InputError(
            f"the {type(model).__name__} has no thresholds: call LearnedThresholds(...).prepare(model) first"
        )
    return found
