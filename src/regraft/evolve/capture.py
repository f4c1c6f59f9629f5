"""Seeing what a step of training computes anyway: the inputs of sparse layers and the gradients of their
outputs, of which the gradient of any weight, active or not, is a sum of products."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError
from regraft.layers import SparseLayer
from regraft.layers.modules import SparseConv
from regraft.probe import Probe

Keep = Callable[[str, SparseLayer, Tensor, Tensor], None]
"""``(name of the weight, layer, input, gradient of the output)``, called once per layer and backward pass."""


@contextmanager
def recording(layers: Mapping[str, SparseLayer], keep: Keep) -> Iterator[None]:
    """Within the block, each backward pass through one of the layers calls ``keep``.

    Hooks are there within the block only. They copy nothing and change nothing. What ``torch.compile`` made
    runs uncompiled meanwhile, since a compiled graph does not call hooks that came after it.
    """

    def record(name: str, layer: SparseLayer, given: tuple[Any, ...], output: Tensor) -> None:
        # a layer frozen for this pass, as a discriminator is in the generator's, has no gradient to see
        if output.requires_grad and layer.weight.values.requires_grad:
            x = given[0].detach()
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda dz: keep(name, layer, x, dz.detach())
            )

    handles = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    compiles = "torch._dynamo" in sys.modules  # else nothing is compiled, and the import takes a second
    try:
        with torch.compiler.set_stance("force_eager") if compiles else nullcontext():
            yield
    finally:
        for handle in handles:
            handle.remove()


def differentiate(model: nn.Module, probe: Probe, user: str) -> None:
    """One forward and backward pass over each batch of the probe, for the sake of the hooks.

    Nothing is left behind: no ``.grad``, no running statistics, no random numbers drawn.

    Raises:
        InputError: the probe has no loss or no samples; the loss is not finite.
    """
    loss = probe.require_loss(user)
    batches = probe.require_batches(user)
    parameters = [p for p in model.parameters() if p.requires_grad]
    buffers = {b: b.clone() for b in model.buffers()}
    try:
        # without their names torch would save the state of every GPU, and warn where there are several
        devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            for x, y in batches:
                if len(x) == 0:
                    raise InputError(f"{user} got batches without samples: pass at least one sample")
                value = loss(model(x), y)
                if not math.isfinite(value.item()):
                    raise InputError(f"{user}: the loss is {value.item()} on a batch of the probe")
                torch.autograd.grad(value, parameters, allow_unused=True)
    finally:
        with torch.no_grad():
            for buffer, before in buffers.items():
                if not torch.equal(buffer, before):
                    buffer.copy_(before)


def columns(
    layer: SparseLayer,
    x: Tensor,
    dz: Tensor,
    most: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Output gradients [out, B] and inputs [in, B] such that their product over B is the weight's gradient.

    For a linear layer B are the samples. For a convolution B are samples times positions of the output, and
    an input is a whole patch: [channels * kernel, B], channels of all groups.

    Args:
        x, dz: input and gradient of the output of ``layer``, as the layer saw them.
        most: take so many of the B at random where there are more, scaled to the same expectation.
        generator: for that choice.

    >>> from regraft import SparseLinear
    >>> layer = SparseLinear.from_dense(nn.Linear(3, 2), torch.arange(6))
    >>> rows, cols = columns(layer, torch.ones(5, 3), torch.ones(5, 2))
    >>> rows.shape, cols.shape, (rows @ cols.t()).tolist()
    (torch.Size([2, 5]), torch.Size([3, 5]), [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]])
    """
    if isinstance(layer, SparseConv):
        return _columns_of_convolution(layer, x, dz, most, generator)
    rows, cols = dz.reshape(-1, dz.shape[-1]), x.reshape(-1, x.shape[-1])
    chosen = _some(rows.shape[0], most, generator, rows.device)
    if chosen is not None:
        scale = rows.shape[0] / chosen.numel()
        rows, cols = rows[chosen] * scale, cols[chosen]
    return rows.t(), cols.t()


def _some(
    there: int, most: int | None, generator: torch.Generator | None, device: torch.device
) -> Tensor | None:
    """``most`` of [0, there) at random, or None for all."""
    if most is None or there <= most:
        return None
    return positions.sample_ranks(there, most, generator).to(device)


def _columns_of_convolution(
    layer: SparseConv, x: Tensor, dz: Tensor, most: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    x, dz = padded(layer, x, dz)
    kernel, inside, outside = layer.weight.shape[2:], x.shape[2:], dz.shape[2:]
    there = dz.shape[0] * math.prod(outside)
    chosen = _some(there, most, generator, x.device)
    at = torch.arange(there, device=x.device) if chosen is None else chosen
    sample, place = at // math.prod(outside), at % math.prod(outside)
    corner, offset = torch.zeros_like(place), torch.zeros(1, dtype=torch.int64, device=x.device)
    for d, size in enumerate(inside):  # places and offsets as flat indices into the padded input
        along = place // math.prod(outside[d + 1 :]) % outside[d]
        corner = corner * size + along * layer.stride[d]
        steps = torch.arange(kernel[d], device=x.device) * layer.dilation[d]
        offset = (offset[:, None] * size + steps).reshape(-1)
    patches = x.flatten(2)[sample[:, None], :, corner[:, None] + offset]  # [B, kernel, channels]
    rows = dz.flatten(2)[sample, :, place].t()
    if chosen is not None:
        rows = rows * (there / chosen.numel())
    return rows, patches.permute(2, 1, 0).reshape(-1, at.numel())


def padded(layer: SparseConv, x: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution's input, padded as the layer does, and output gradient, both with a batch dimension."""
    if x.ndim == len(layer.weight.shape) - 1:
        x, dz = x[None], dz[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, layer._pad, mode=mode), dz


def dense_gradient(layer: SparseLayer, x: Tensor, dz: Tensor) -> Tensor:
    """The gradient [shape] of a layer's whole dense weight: what the rules without it are compared with.

    >>> from regraft import SparseLinear
    >>> layer = SparseLinear.from_dense(nn.Linear(3, 2), torch.arange(6))
    >>> dense_gradient(layer, torch.ones(5, 3), torch.ones(5, 2)).tolist()
    [[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]]
    """
    kind = torch.promote_types(x.dtype, dz.dtype)  # under autocast an input may be finer than a gradient
    x, dz = x.to(kind), dz.to(kind)
    if not isinstance(layer, SparseConv):
        rows, cols = columns(layer, x, dz)
        return rows @ cols.t()
    x, dz = padded(layer, x, dz)
    weight = x.new_empty(layer.weight.shape)
    none = (0,) * len(layer.stride)
    gradient: Tensor = torch.ops.aten.convolution_backward(
        dz, x, weight, None, layer.stride, none, layer.dilation, False, none, layer.groups,
        (False, True, False),
    )[1]  # fmt: skip
    return gradient
