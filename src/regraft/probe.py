"""``Probe``: what a score or a rule may look at at run time, next to the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Probe:
    """A loss, some batches and a source of randomness.

    Attributes:
        loss: ``(output, target) -> scalar``, for scores that differentiate; None where none is needed.
        batches: pairs ``(input, target)``, each ``[n, ...]`` and ``[n]``; a sequence, since a score may pass
            over them more than once.
        generator: for scores and rules that draw numbers.
        input_shape: shape of one sample, for scores that see no data; None takes it from the first batch.

    >>> Probe(batches=[(torch.zeros(2, 3), torch.zeros(2))]).require_batches("snip")[0][0].shape
    torch.Size([2, 3])
    """

    loss: Loss | None = None
    batches: Sequence[tuple[Tensor, Tensor]] = ()
    generator: torch.Generator | None = None
    input_shape: tuple[int, ...] | None = None

    def require_loss(self, user: str) -> Loss:
        """The loss, or an InputError that says that ``user`` needs one."""
        if self.loss is None:
            raise InputError(f"{user} needs a loss: pass Probe(loss=..., batches=...)")
        return self.loss

    def require_batches(self, user: str) -> Sequence[tuple[Tensor, Tensor]]:
        """The batches, or an InputError that says that ``user`` needs at least one."""
        if len(self.batches) == 0:
            raise InputError(f"{user} needs at least one batch: pass Probe(loss=..., batches=...)")
        return self.batches

    def require_generator(self, user: str) -> torch.Generator:
        """The generator, or an InputError that says that ``user`` needs one."""
        if self.generator is None:
            raise InputError(
                f"{user} draws random numbers: pass Probe(generator=torch.Generator().manual_seed(0))"
            )
        return self.generator

    def require_input_shape(self, user: str) -> tuple[int, ...]:
        """The shape of one sample, or an InputError that says that ``user`` needs it."""
        if self.input_shape is not None:
            return tuple(self.input_shape)
        if len(self.batches) == 0:
            raise InputError(f"{user} needs the shape of a sample: pass Probe(input_shape=...) or batches")
        return tuple(self.batches[0][0].shape[1:])
