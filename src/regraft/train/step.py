"""One optimizer step as a function object, chosen in one place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regraft.probe import Loss

Step = Callable[[Tensor, Tensor], Tensor]
"""``(x, y) -> loss``: forward, backward and update on one batch; the loss is a detached scalar."""


def make_step(model: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer) -> Step:
    """The step for this model, loss and optimizer.

    A faster way for a special case belongs here and must give the same numbers. One that does not call
    ``optimizer.step`` sets ``optimizer._opt_called = True``, by which torch's learning rate schedulers know
    that the optimizer came first.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        return _with_closure(model, loss, optimizer)

    def step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(x), y)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return value.detach()

    return step


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
