"""Knowledge distillation: the logits of teachers enter the loss beside the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft import container, losses, measure
from regraft.data import Split
from regraft.errors import InputError, MismatchError
from regraft.probe import Loss

AT_ONCE = 1000  # samples of one pass through a teacher


@dataclass(frozen=True, eq=False)
class Teachers:
    """Trained networks that a training learns from, by the mean of their logits (the average that a network
    concatenated of them would give out).

    With labels y, the student's logits z, the teachers' mean logits t, a weight v and a temperature T, a step
    minimises, in the mean over its samples,

        (1 - v) loss(z, y) + v T^2 KL(softmax(t / T) || softmax(z / T))

    (Hinton et al. 2015, arXiv:1503.02531, section 2, whose cross-entropy with the soft targets differs from
    the divergence by a constant; T^2 keeps the gradient's size. Thesis 2, section 2.2, writes the two parts
    as p(s, y) + lambda p(s, t): lambda is v / (1 - v).) The teachers see each sample once, before the
    training: data is not augmented, so their logits stay the same.

    Args:
        models: one or more, with as many outputs as the student; left as they were.
        weight: of the teachers, in [0, 1]; the labels have the rest.
        temperature: above 0; the higher, the more the small logits count.

    >>> student = torch.tensor([[2.0, 1.0]])
    >>> split = Split(torch.tensor([[2.0, 1.0]]), torch.tensor([0]))
    >>> teachers = Teachers([nn.Identity()], weight=1.0)
    >>> teachers.objective(split, losses.by_name("cross-entropy"))(student, torch.tensor([0])).item()
    0.0

    Raises:
        InputError: no teacher, something that is none, or a number out of range.
    """

    models: Sequence[nn.Module]
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.models, nn.Module) or not self.models:
            raise InputError("Teachers needs a list of one or more networks: Teachers([a, b])")
        if not 0.0 <= self.weight <= 1.0:
            raise InputError(f"the teachers' weight is {self.weight!r}, but must be in [0, 1]; 0.5 is usual")
        if not 0.0 < self.temperature < float("inf"):
            raise InputError(f"the temperature is {self.temperature!r}, but must be above 0; 2 is usual")

    def objective(self, split: Split, loss: Loss) -> Distilled:
        """What a step minimises, of the samples of a split by their numbers.

        Raises:
            InputError: a loss that does not take logits, or logits that are NaN or infinite.
            MismatchError: a teacher that does not take the samples, or teachers that differ in outputs.
        """
        if loss in (losses.mse, losses.bce):
            raise InputError(
                "teachers' logits are compared through a softmax, which goes with the loss cross-entropy: "
                "train with that, or without teachers"
            )
        return Distilled(loss, split.y, self._logits(split), self.weight, self.temperature)

    @torch.no_grad()
    def _logits(self, split: Split) -> Tensor:
        """Mean logits of all samples, float32 [n, classes], where the split is."""
        total: Tensor | None = None
        for number, model in enumerate(self.models, 1):
            device = next((p.device for p in model.parameters()), split.device)
            with measure.evaluating(model):
                measure.forward_checked(model, split.x[:1].to(device), split.highest)
                found = torch.cat([model(x.to(device)).double() for x in torch.split(split.x, AT_ONCE)])
            if not bool(found.isfinite().all()):
                raise InputError(f"teacher {number} gives NaN or infinite logits: leave it out")
            if total is not None and total.shape != found.shape:
                raise MismatchError(
                    f"teacher {number} has {found.shape[1]} outputs, but those before it {total.shape[1]}: "
                    "take teachers of the same classes"
                )
            found = found.to(split.device)
            total = found if total is None else total + found
        assert total is not None
        return (total / len(self.models)).float()

    def plain(self) -> dict[str, Any]:
        """What must be equal for a training to be resumed: the numbers, and a digest of the teachers."""
        digest = hashlib.sha256()
        for model in self.models:
            for name, tensor in model.state_dict().items():
                digest.update(name.encode())
                digest.update(container.tensor_bytes(tensor))
        return {
            "weight": self.weight, "temperature": self.temperature, "models": len(self.models),
            "sha256": digest.hexdigest(),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Distilled:
    """A loss of samples by their numbers: ``(logits [b, classes], numbers [b]) -> scalar``.

    Attributes:
        loss: of the labels.
        labels: of all samples, [n].
        logits: the teachers', of all samples, [n, classes].
        weight, temperature: see ``Teachers``.
    """

    loss: Loss
    labels: Tensor
    logits: Tensor
    weight: float
    temperature: float

    def __call__(self, output: Tensor, numbers: Tensor) -> Tensor:
        t = F.log_softmax(self.logits[numbers].to(output) / self.temperature, dim=1)
        z = F.log_softmax(output / self.temperature, dim=1)
        positions = output[:, 0].numel()  # those of a text, else samples
        apart = F.kl_div(z, t, reduction="sum", log_target=True) / positions * self.temperature**2
        return (1.0 - self.weight) * self.loss(output, self.labels[numbers]) + self.weight * apart

    def check(self, output: Tensor) -> None:
        """Raise MismatchError unless the student has as many outputs as the teachers."""
        if output.shape[1] != self.logits.shape[1]:
            raise MismatchError(
                f"the student has {output.shape[1]} outputs, but its teachers have {self.logits.shape[1]}: "
                "take teachers of the same classes"
            )


def numbered(split: Split) -> Split:
    """The samples of a split with their numbers for labels.

    >>> numbered(Split(torch.zeros(3, 2), torch.tensor([0, 0, 1]))).y.tolist()
    [0, 1, 2]
    """
    return Split(split.x, torch.arange(len(split), device=split.device))
