"""The signatures of the two families of evolution, and what their members may look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from regraft.layers import SparseLayer
from regraft.probe import Probe
from regraft.schedules import Progress
from regraft.weight import SparseWeight

NOW = Progress(0)


@dataclass(frozen=True, eq=False)
class Context:
    """What a drop or grow rule may look at besides the weight.

    Attributes:
        name: name of the weight, for example ``"0.weight"``.
        generator: the evolver's own; every random choice comes from it.
        progress: how many updates of how many were done.
        model: the whole model.
        probe: loss and batches, where the caller passed them to ``step``.
        layer: the layer that the weight belongs to; None for a weight outside the sparse layers.
        captured: what a ``Watching`` rule kept of each backward pass through the layer, oldest first.
    """

    name: str
    generator: torch.Generator
    progress: Progress = NOW
    model: nn.Module | None = None
    probe: Probe | None = None
    layer: SparseLayer | None = None
    captured: Sequence[tuple[Tensor, Tensor]] = ()


class Drop(Protocol):
    """``(weight, fraction, context) -> entries`` to drop: increasing int64 indices into ``weight.values``."""

    def __call__(self, weight: SparseWeight, fraction: float, context: Context) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Growth:
    """New connections: increasing int64 positions ``index`` [k] and their initial ``values`` [k]."""

    index: Tensor
    values: Tensor


class Grow(Protocol):
    """``(weight, survivors, k, context) -> Growth`` of k connections at positions outside ``survivors``.

    ``survivors`` [m] are the sorted positions that stay after dropping; ``weight`` is as it was before, so a
    rule can see what was dropped. A just-dropped position may be grown again and then starts fresh, unless
    the rule has an attribute ``keep_regrown`` that is true: then the connection stays as it was. Rules are
    called without recording gradients: one that needs them opens ``torch.enable_grad()``, or is a
    ``Watching`` one.
    """

    def __call__(self, weight: SparseWeight, survivors: Tensor, k: int, context: Context) -> Growth: ...


@runtime_checkable
class Watching(Protocol):
    """A grow rule that looks at what training computes anyway: inputs and output gradients of the layers.

    Attributes:
        batches: of how many steps before an update.
    """

    @property
    def batches(self) -> int: ...

    def keep(
        self, layer: SparseLayer, x: Tensor, dz: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What to remember of one backward pass, given the layer's input and the gradient of its output."""
        ...
