"""One optimizer step as a function object, chosen in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.kernels import fused
from regraft.layers import SparseLayer
from regraft.losses import CrossEntropy, mse
from regraft.probe import Loss
from regraft.weight import SparseWeight

MOST_DENSITY = 0.5
"""Density up to which the compiled step was measured to be faster than the ordinary one."""

Step = Callable[[Tensor, Tensor], Tensor]
"""``(x, y) -> loss``: forward, backward and update on one batch; the loss is a detached scalar."""


def make_step(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Step:
    """The step for this model, loss and optimizer.

    A plain sparse MLP that SGD trains on the CPU takes the compiled step, which does all in one call: the
    same numbers up to rounding, other dropout masks, and no gradients left behind.
    ``kernels.use("materialised")`` turns it off.
    """
    compiled = _compiled(model, loss, optimizer)
    if compiled is not None:
        return compiled
    if isinstance(optimizer, torch.optim.LBFGS):
        return _with_closure(model, loss, optimizer)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    return step


def _compiled(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Step | None:
    """The compiled step where it can be taken and was measured to be faster, else None."""
    same = _torch_loss(loss)
    if same is None or not _sparse_enough(model) or fused.why_not(model, same, optimizer) is not None:
        return None
    compiled = fused.FusedMLP(model, same, optimizer)
    layers = [m for m in model.modules() if isinstance(m, SparseLayer | nn.Linear)]
    outputs = cast(Tensor, layers[-1].weight).shape[0]

    def step(x: Tensor, y: Tensor) -> Tensor:
        value = compiled.step(x, F.one_hot(y, outputs).to(x) if loss is mse else y)
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


def _sparse_enough(model: nn.Module) -> bool:
    weights = [m for m in model.modules() if isinstance(m, SparseWeight)]
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    nnz, size = sum(w.nnz for w in weights), sum(w.size for w in weights)
    single = all(p.dtype == torch.float32 for p in model.parameters())
    return bool(weights) and single and nnz + dense <= MOST_DENSITY * (size + dense)


def _with_closure(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Step:
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
