"""One optimizer step as a function object, chosen in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.kernels import backends, fused
from regraft.layers import SparseLayer
from regraft.losses import CrossEntropy, mse
from regraft.probe import Loss
from regraft.train.distill import Distilled
from regraft.weight import SparseWeight

MOST_DENSITY = 0.5
"""Density up to which the compiled step was measured to be faster than the ordinary one."""

Call = Callable[[Tensor, Tensor], Tensor]
Seen = dict[nn.Module, tuple[Tensor, Tensor]]


class Watcher(Protocol):
    """Something that wants to see the gradients of some steps, such as ``Evolve``: within ``watch``, or shown
    by a step that computes them itself."""

    @property
    def watching(self) -> bool: ...

    def watch(self) -> AbstractContextManager[None]: ...

    def show(self, seen: Mapping[nn.Module, tuple[Tensor, Tensor]]) -> None: ...


@dataclass(frozen=True)
class Step:
    """``(x, y) -> loss``: forward, backward and update on one batch; the loss is a detached scalar.

    Attributes:
        call: what does it.
        why_ordinary: why it is not the fused step; None where it is.

    >>> str(Step(lambda x, y: y, "no layer is sparse"))
    'ordinary: no layer is sparse'
    """

    call: Call
    why_ordinary: str | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call(x, y)

    def __str__(self) -> str:
        return "fused" if self.why_ordinary is None else f"ordinary: {self.why_ordinary}"


def make_step(
    model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, evolver: Watcher | None = None
) -> Step:
    """The step for this model, loss and optimizer.

    A plain sparse MLP that SGD trains on the CPU takes the fused step, which does all in one call of compiled
    code: the same numbers up to rounding, other dropout masks, and no gradients left behind. The text of any
    other step says why it is another one. ``kernels.use("materialised")`` turns the fused one off.

    Args:
        evolver: what wants to see the gradients of some steps.
    """
    reason = why_ordinary(model, loss, optimizer)
    if reason is None:
        return Step(_fused(model, loss, optimizer, evolver))
    closes = isinstance(optimizer, torch.optim.LBFGS)
    call = (_with_closure if closes else _ordinary)(model, loss, optimizer)
    return Step(call if evolver is None else _watched(call, evolver), reason)


def _watched(call: Call, evolver: Watcher) -> Call:
    def step(x: Tensor, y: Tensor) -> Tensor:
        with evolver.watch():
            return call(x, y)

    return step


def why_ordinary(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> str | None:
    """Why the fused step cannot be taken or was measured to be slower; None where it is taken."""
    if isinstance(loss, Distilled):
        return "the fused step knows labels only, and teachers' logits enter the loss"
    same = _torch_loss(loss)
    if same is None:
        return "the fused step knows plain cross-entropy and mean squared error only"
    backend = backends.current()
    return _too_dense(model) or (
        f"linear layers compute through {backend}"
        if backend not in ("native", None)
        else fused.why_not(model, same, optimizer)
    )


def _ordinary(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Call:
    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    return step


def _fused(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, evolver: Watcher | None) -> Call:
    compiled = fused.FusedMLP(model, cast(nn.Module, _torch_loss(loss)), optimizer)
    layers = [m for m in model.modules() if isinstance(m, SparseLayer | nn.Linear)]
    outputs = cast(Tensor, layers[-1].weight).shape[0]

    def step(x: Tensor, y: Tensor) -> Tensor:
        labels = loss is mse and not y.is_floating_point()
        seen: Seen | None = {} if evolver is not None and evolver.watching else None
        value = compiled.step(x, F.one_hot(y, outputs).to(x) if labels else y, seen=seen)
        if evolver is not None and seen is not None:
            evolver.show(seen)
        # torch's schedules look here for whether the optimizer's step came before theirs
        optimizer._opt_called = True  # type: ignore[attr-defined]
        return torch.tensor(value, dtype=torch.float64)

    return step


def _torch_loss(loss: Loss) -> nn.Module | None:
    """The loss as the module of torch that is equal to it."""
    if loss is mse:
        return nn.MSELoss()
    if loss == CrossEntropy():
        return nn.CrossEntropyLoss()
    return loss if isinstance(loss, nn.CrossEntropyLoss) else None


def _too_dense(model: nn.Module) -> str | None:
    """Why the fused step would not be faster, if so."""
    weights = [m for m in model.modules() if isinstance(m, SparseWeight)]
    if not weights:
        return "no layer is sparse"
    if any(p.dtype != torch.float32 for p in model.parameters()):
        return "the parameters are not all float32"
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    density = (sum(w.nnz for w in weights) + dense) / max(1, sum(w.size for w in weights) + dense)
    return f"the density {density:.2f} is above {MOST_DENSITY:g}" if density > MOST_DENSITY else None


def _with_closure(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Call:
    """For optimizers that evaluate the loss several times in a step."""

    def step(x: Tensor, y: Tensor) -> Tensor:
        def closure() -> float:
            optimizer.zero_grad(set_to_none=True)
            value = loss(model(x), y)
            value.backward()  # type: ignore[no-untyped-call]
            return value.item()

        first = optimizer.step(closure)
        return torch.as_tensor(first, device=x.device)

    return step
