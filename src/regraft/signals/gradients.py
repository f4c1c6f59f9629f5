"""Signals that see the data: the gradient of the loss, and the Hessian times the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase

from regraft import kernels
from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.signals import substitute
from regraft.signals.protocol import Vectors, active_of, values_of, weights_of


def gradient(
    model: nn.Module,
    probe: Probe | None = None,
    *,
    values: Vectors | None = None,
    active: Vectors | None = None,
) -> dict[str, Tensor]:
    """dL/dw, L the mean of the loss over the probe's samples: a batch counts by its number of samples.

    Batch normalisation uses the batch's statistics where the model is in training mode and its running ones
    otherwise; dropout is off.

    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 2), torch.tensor([0, 1]), torch.tensor([1.0, 3.0])), None)
    >>> batch = torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0]])
    >>> probe = Probe(lambda y, t: (y - t).square().mean(), [batch])
    >>> gradient(model, probe)["weight"].tolist()
    [4.0, 8.0]

    Raises:
        InputError: no loss, no batch, a loss that is not one number or does not depend on the weights, a
            model without sparse weights.
        MismatchError: a batch that does not fit the model; values or active that do not fit the weights.
    """
    return _Pass(model, probe, values, active, "the gradient").gradient()


@dataclass(frozen=True)
class HessianGradient:
    """Hg: the Hessian of the loss times its gradient g, both over the sparse weights and all batches; half
    the gradient of g^T g (Wang et al. 2020, arXiv:2002.07376, eq. 5).

    Connections that are not active have no part in g: it is the norm of the pruned network's gradient that
    changes. Modes and batches are as for ``gradient``; the loss sees output / temperature.

    Attributes:
        temperature: positive; the paper uses 200, its text 1, and half of the mask depends on it.

    Raises:
        InputError: a temperature that is not positive; when called, as ``gradient``.
    """

    temperature: float = 200.0

    def __post_init__(self) -> None:
        t = self.temperature
        if isinstance(t, bool) or not isinstance(t, int | float) or not (math.isfinite(t) and t > 0):
            raise InputError(f"temperature is {t!r}, but must be a positive number; 200 and 1 are usual")

    def __call__(
        self,
        model: nn.Module,
        probe: Probe | None = None,
        *,
        values: Vectors | None = None,
        active: Vectors | None = None,
    ) -> dict[str, Tensor]:
        """Hg of each connection."""
        run = _Pass(model, probe, values, active, "the Hessian-gradient product", self.temperature)
        # differentiated twice, which torch's other ways to attend do not allow
        with kernels.use("materialised"), sdpa_kernel(SDPBackend.MATH):
            return run.hessian_times(run.gradient())


hessian_gradient = HessianGradient()
"""Hg at the published temperature of 200."""


class _Pass:
    """The probe's batches through the model with leaves of our own in place of its values."""

    def __init__(
        self,
        model: nn.Module,
        probe: Probe | None,
        values: Vectors | None,
        active: Vectors | None,
        user: str,
        temperature: float = 1.0,
    ) -> None:
        weights = weights_of(model)
        probe = probe or Probe()
        self.model, self.temperature = model, temperature
        self.loss, self.batches = probe.require_loss(user), probe.require_batches(user)
        self.count = sum(len(x) for x, _ in self.batches)
        if self.count == 0:
            raise InputError(f"{user} got batches without samples: pass at least one sample")
        self.active = active_of(weights, active)
        self.types = {n: w.values for n, w in weights.items()}
        self.leaves = {}
        for name, vector in values_of(weights, values).items():
            leaf = vector.to(self.types[name].dtype, copy=True)
            self.leaves[name] = (leaf if self.active is None else leaf * self.active[name]).requires_grad_()
        parameters, buffers = substitute.others(model)
        # batch normalisation counts and averages in place: let it do so in copies
        self.tensors = {
            **parameters,
            **{n: b.clone() for n, b in buffers.items()},
            **{f"{n}.values": leaf for n, leaf in self.leaves.items()},
        }

    def gradient(self) -> dict[str, Tensor]:
        """dL/dw over all batches."""
        total = {n: torch.zeros_like(leaf) for n, leaf in self.leaves.items()}
        for loss in self._losses():
            for name, g in zip(total, self._differentiate(loss, False), strict=True):
                total[name] += g
        return {n: t.detach() for n, t in total.items()}

    def hessian_times(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        """H v over all batches, where v is zero on connections that are not active."""
        if self.active is not None:
            vectors = {n: v * self.active[n] for n, v in vectors.items()}
        total = {n: torch.zeros_like(leaf) for n, leaf in self.leaves.items()}
        for loss in self._losses():
            slopes = self._differentiate(loss, True)
            product = sum((s * v).sum() for s, v in zip(slopes, vectors.values(), strict=True))
            if isinstance(product, Tensor) and product.requires_grad:  # else the loss is linear: H = 0
                curvature = self._differentiate(product, False)
                for name, h in zip(total, curvature, strict=True):
                    total[name] += h
        return {n: t.detach() for n, t in total.items()}

    def _losses(self) -> Iterator[Tensor]:
        """Each batch's share of the mean loss."""
        for x, y in self.batches:
            like = next(iter(self.types.values()))
            x = x.to(like.device, like.dtype if x.is_floating_point() else None)
            with torch.enable_grad(), substitute.evaluation(self.model, keep=(_NormBase,)):
                output = substitute.run(self.model, self.tensors, x)
                yield self._loss(output / self.temperature, y.to(like.device)) * (len(x) / self.count)

    def _loss(self, output: Tensor, target: Tensor) -> Tensor:
        try:
            loss = self.loss(output, target)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise MismatchError(
                f"the loss cannot compare outputs of shape {tuple(output.shape)} with targets of shape "
                f"{tuple(target.shape)} ({reason}): the batches or the loss do not fit the model"
            ) from error
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise InputError(
                f"the loss returned {found}, but must be one number: take the mean over the batch"
            )
        if not loss.requires_grad:
            raise InputError(
                "the loss does not depend on the model's sparse weights: is the output detached?"
            )
        return loss.reshape(())

    def _differentiate(self, scalar: Tensor, create_graph: bool) -> tuple[Tensor, ...]:
        leaves = tuple(self.leaves.values())
        return torch.autograd.grad(scalar, leaves, create_graph=create_graph, materialize_grads=True)
