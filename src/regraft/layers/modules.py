"""The sparse layers: what takes the place of ``nn.Linear`` and ``nn.Conv1d/2d/3d``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from regraft import kernels, positions
from regraft.errors import InputError, MismatchError, check_density
from regraft.weight import SparseWeight


class SparseLayer(nn.Module):
    """What the sparse layers share: a ``SparseWeight`` and an optional bias."""

    weight: SparseWeight
    bias: nn.Parameter | None

    def __init__(self, weight: SparseWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = weight
        if bias is not None and bias.shape != (weight.shape[0],):
            raise MismatchError(
                f"bias has shape {tuple(bias.shape)}, but the weight has {weight.shape[0]} output units"
            )
        if bias is not None and not bias.is_floating_point():
            raise InputError(f"bias is of type {bias.dtype}, but must be floating point")
        self.bias = None if bias is None else nn.Parameter(bias)


class SparseLinear(SparseLayer):
    """y = x W^T + b with a sparse W; takes the place of ``torch.nn.Linear``.

    Input ``[..., in]``, output ``[..., out]``.

    >>> layer = SparseLinear.from_dense(nn.Linear(8, 4), torch.arange(0, 32, 4))
    >>> layer(torch.zeros(5, 8)).shape, layer.weight.density
    (torch.Size([5, 4]), 0.25)
    """

    @property
    def in_features(self) -> int:
        """Number of input units."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Number of output units."""
        return self.weight.shape[0]

    @classmethod
    def from_dense(cls, layer: nn.Linear, index: Tensor) -> Self:
        """The connections of ``layer`` at ``index`` (flat row-major positions), with its bias."""
        bias = None if layer.bias is None else layer.bias.detach().clone()
        return cls.like(layer, SparseWeight.from_dense(layer.weight, index), bias)

    @classmethod
    def like(cls, layer: nn.Linear, weight: SparseWeight, bias: Tensor | None) -> Self:
        """A layer with this weight and bias that takes the place of ``layer``."""
        return cls(weight, bias)

    @classmethod
    def random(
        cls,
        in_features: int,
        out_features: int,
        *,
        density: float | None = None,
        fan_in: int | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> Self:
        """A new layer with random connections. No dense weight is made on the way: memory is O(nnz).

        Values and biases are uniform in +-1 / sqrt(connections per output unit), which is how torch draws an
        ``nn.Linear`` with so many inputs.

        Args:
            density: share of connections, in (0, 1], uniform over all positions together.
            fan_in: instead of a density, the number of connections of each output unit, in
                [1, in_features], its inputs uniform.
            bias: whether the layer has one.
            generator: source of positions and values; the same seed gives the same layer.

        >>> layer = SparseLinear.random(500_000, 500_000, fan_in=2)  # dense: a terabyte
        >>> layer.weight.nnz, layer.weight.rows()[:6].tolist()
        (1000000, [0, 0, 1, 1, 2, 2])

        Raises:
            InputError: not exactly one of density and fan_in, or one out of range; a size below 1; no
                connection at all.
        """
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"{name} is {size!r}, but must be a whole number of 1 or more")
        if (density is None) == (fan_in is None):
            raise InputError("SparseLinear.random needs exactly one of density= and fan_in=")
        if fan_in is not None:
            index = positions.sample_rows(out_features, in_features, fan_in, generator)
        else:
            size = in_features * out_features
            index = positions.sample(size, round(check_density(cast(float, density)) * size), generator)
        if not index.numel():
            raise InputError(
                f"density {density} leaves a layer of shape {(out_features, in_features)} without "
                "any connection: raise it"
            )
        bound = math.sqrt(out_features / index.numel())
        values = uniform(index.numel(), bound, generator)
        weight = SparseWeight((out_features, in_features), index, values)
        return cls(weight, uniform(out_features, bound, generator) if bias else None)

    def to_dense(self) -> nn.Linear:
        """The equal ``nn.Linear``, zeros where no connection is."""
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None,
            device=self.weight.values.device, dtype=self.weight.values.dtype,
        )  # fmt: skip
        fill(dense, self)
        return dense

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight, self.bias)


class SparseConv(SparseLayer):
    """A convolution of any number of spatial dimensions with a sparse kernel."""

    dense_type: type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]

    def __init__(
        self,
        weight: SparseWeight,
        bias: Tensor | None,
        *,
        stride: Sequence[int],
        padding: Sequence[int] | str,
        dilation: Sequence[int],
        groups: int = 1,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(weight, bias)
        self.stride, self.dilation, self.groups = tuple(stride), tuple(dilation), groups
        self.padding = padding if isinstance(padding, str) else tuple(padding)
        self.padding_mode = padding_mode
        # the dense class already knows how a padding of any mode and of "same" unrolls
        self._pad: list[int] = self._shell(device="meta")._reversed_padding_repeated_twice

    def _shell(self, **where: Any) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        shape = self.weight.shape
        options: dict[str, Any] = {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups, "padding_mode": self.padding_mode, "bias": self.bias is not None,
        }  # fmt: skip
        make = cast(Any, self.dense_type)
        shell: nn.Conv1d | nn.Conv2d | nn.Conv3d = make(
            shape[1] * self.groups, shape[0], tuple(shape[2:]), **options, **where
        )
        return shell

    @classmethod
    def from_dense(cls, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, index: Tensor) -> Self:
        """The connections of ``layer`` at ``index`` (flat row-major positions), with its bias."""
        bias = None if layer.bias is None else layer.bias.detach().clone()
        return cls.like(layer, SparseWeight.from_dense(layer.weight, index), bias)

    @classmethod
    def like(
        cls, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, weight: SparseWeight, bias: Tensor | None
    ) -> Self:
        """A layer with this weight and bias, and the options of ``layer``."""
        return cls(
            weight,
            bias,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            padding_mode=layer.padding_mode,
        )

    def to_dense(self) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
        """The equal dense convolution, zeros where no connection is."""
        dense = self._shell(device=self.weight.values.device, dtype=self.weight.values.dtype)
        fill(dense, self)
        return dense

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x = nn.functional.pad(x, self._pad, mode=self.padding_mode)
            padding = (0,) * len(self.stride)
        return kernels.conv(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}, groups={self.groups}"


class SparseConv1d(SparseConv):
    """Takes the place of ``torch.nn.Conv1d``: input [N, C, L] or [C, L].

    >>> layer = SparseConv1d.from_dense(nn.Conv1d(4, 8, 3), torch.arange(0, 96, 4))
    >>> layer(torch.zeros(2, 4, 10)).shape, layer.weight.density
    (torch.Size([2, 8, 8]), 0.25)
    """

    dense_type = nn.Conv1d


class SparseConv2d(SparseConv):
    """Takes the place of ``torch.nn.Conv2d``: input [N, C, H, W] or [C, H, W].

    >>> layer = SparseConv2d.from_dense(nn.Conv2d(4, 8, 3, padding="same"), torch.arange(0, 288, 4))
    >>> layer(torch.zeros(2, 4, 10, 10)).shape, layer.weight.density
    (torch.Size([2, 8, 10, 10]), 0.25)
    """

    dense_type = nn.Conv2d


class SparseConv3d(SparseConv):
    """Takes the place of ``torch.nn.Conv3d``: input [N, C, D, H, W] or [C, D, H, W].

    >>> layer = SparseConv3d.from_dense(nn.Conv3d(2, 4, 2, stride=2), torch.arange(0, 64, 4))
    >>> layer(torch.zeros(2, 2, 4, 4, 4)).shape, layer.weight.density
    (torch.Size([2, 4, 2, 2, 2]), 0.25)
    """

    dense_type = nn.Conv3d


SPARSE_TYPE: dict[type[nn.Module], type[SparseLinear] | type[SparseConv]] = {
    nn.Linear: SparseLinear,
    nn.Conv1d: SparseConv1d,
    nn.Conv2d: SparseConv2d,
    nn.Conv3d: SparseConv3d,
}


def sparse_layers(model: nn.Module) -> dict[str, SparseLayer]:
    """The model's sparse layers by module name, in order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, SparseLayer)}


def input_units(layer: SparseLayer) -> Tensor:
    """Input unit (channel) of each connection among all units of the layer's input, int64 [nnz]: the channels
    of a grouped convolution are counted over all groups."""
    units = layer.weight.input_units()
    if isinstance(layer, SparseConv) and layer.groups > 1:
        per_group = layer.weight.shape[0] // layer.groups
        group = torch.div(layer.weight.rows(), per_group, rounding_mode="floor")
        units = units + group * layer.weight.shape[1]
    return units


def fill(dense: nn.Module, sparse: SparseLayer) -> None:
    """Put weight and bias of a sparse layer into a dense one of its kind."""
    with torch.no_grad():
        cast(Tensor, dense.weight).copy_(sparse.weight.dense())
        if sparse.bias is not None:
            cast(Tensor, dense.bias).copy_(sparse.bias)


def uniform(
    n: int, bound: float, generator: torch.Generator | None, dtype: torch.dtype | None = None
) -> Tensor:
    """``n`` numbers uniform in [-bound, bound), on the generator's device."""
    device = "cpu" if generator is None else generator.device
    return torch.empty(n, dtype=dtype, device=device).uniform_(-bound, bound, generator=generator)
