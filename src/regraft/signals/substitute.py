"""Running a model with other tensors in place of its own, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from regraft.errors import InputError, MismatchError, RegraftError
from regraft.weight import SparseWeight


@contextmanager
def evaluation(model: nn.Module, *, keep: tuple[type[nn.Module], ...] = ()) -> Iterator[None]:
    """Every module in evaluation mode, but for the types in ``keep``; the flags come back in any case.

    Dropout draws from torch's global generator, so no score may run with it.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            if not isinstance(module, keep):
                module.training = False
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def others(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers that belong to no sparse weight, by name; detached, not copied."""
    sparse = {f"{n}." for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    own = [
        {n: t.detach() for n, t in found if n[: n.rfind(".") + 1] not in sparse}
        for found in (model.named_parameters(), model.named_buffers())
    ]
    return own[0], own[1]


def run(model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The model's output for ``x`` with ``tensors`` in place of its own of these names.

    Raises:
        MismatchError: the model cannot take such an input.
        InputError: its output is no tensor.
    """
    try:
        output = torch.func.functional_call(model, dict(tensors), (x,))
    except RegraftError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MismatchError(
            f"the {type(model).__name__} cannot take a batch of shape {tuple(x.shape)} and type {x.dtype} "
            f"({reason}): pass batches as it is trained with"
        ) from error
    if not isinstance(output, Tensor):
        raise InputError(
            f"the {type(model).__name__} returns a {type(output).__name__}, but a score needs one tensor: "
            "wrap the model in one that returns its logits"
        )
    return output
