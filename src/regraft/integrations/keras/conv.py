"""``SparseConv1D``, ``2D`` and ``3D``: take the places of Keras's convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from regraft import layers
from regraft.errors import InputError, unknown
from regraft.integrations.keras.base import SparseLayer
from regraft.integrations.keras.required import keras
from regraft.integrations.keras.weight import VariableWeight

PADDINGS = ("valid", "same")


class SparseConv(SparseLayer):
    """A convolution of ``rank`` spatial dimensions with a sparse kernel; see ``SparseConv2D``."""

    rank: int
    core_type: type[layers.SparseConv1d] | type[layers.SparseConv2d] | type[layers.SparseConv3d]

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(activation=activation, use_bias=use_bias, **options)
        self.filters, self.groups = _whole("filters", filters), _whole("groups", groups)
        if filters % groups:
            raise InputError(f"{filters} filters cannot be split into {groups} groups of the same size")
        if padding not in PADDINGS:
            raise unknown("padding", padding, PADDINGS)
        self.padding = padding
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise unknown("data format", self.data_format, ("channels_last", "channels_first"))
        self.kernel_size = self._sizes("kernel_size", kernel_size)
        self.strides = self._sizes("strides", strides)
        self.dilation_rate = self._sizes("dilation_rate", dilation_rate)
        self.input_spec = keras.layers.InputSpec(min_ndim=self.rank + 2)

    def _sizes(self, name: str, given: int | Sequence[int]) -> tuple[int, ...]:
        sizes = (given,) * self.rank if isinstance(given, int) else tuple(given)
        if len(sizes) != self.rank:
            raise InputError(f"{name} is {given!r}, but must be a whole number or {self.rank} of them")
        return tuple(_whole(name, n) for n in sizes)

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    def weight_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int, ...]:
        channels = input_shape[self._channel_axis]
        if channels is None or channels % self.groups:
            raise InputError(
                f"the input of '{self.name}' has {channels} channels (shape {input_shape}, "
                f"{self.data_format}), but must have a known number that {self.groups} groups divide"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=self.rank + 2, axes={self._channel_axis: channels})
        return self.filters, channels // self.groups, *self.kernel_size

    def new_core(self, weight: VariableWeight) -> layers.SparseLayer:
        return self.core_type(
            weight, None, stride=self.strides, padding=(0,) * self.rank, dilation=self.dilation_rate,
            groups=self.groups,
        )  # fmt: skip

    def compute(self, inputs: Tensor, core: layers.SparseLayer) -> Tensor:
        return self._last(core(self._first(inputs)))

    def compute_dense(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return self._last(
            convolve(
                self._first(inputs), weight, bias, stride=self.strides, dilation=self.dilation_rate,
                groups=self.groups,
            )
        )  # fmt: skip

    def _first(self, inputs: Tensor) -> Tensor:
        """Channels first, as torch has them, and padded."""
        x = inputs.movedim(-1, 1) if self.data_format == "channels_last" else inputs
        if self.padding == "valid":
            return x
        around: list[int] = []
        for size, k, s, d in zip(
            x.shape[2:], self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            missing = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            around = [missing // 2, missing - missing // 2, *around]  # torch begins with the last dimension
        return F.pad(x, around)

    def _last(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1) if self.data_format == "channels_last" else x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        shape = tuple(input_shape)
        space = shape[1:-1] if self.data_format == "channels_last" else shape[2:]
        out: list[int | None] = []
        for size, k, s, d in zip(space, self.kernel_size, self.strides, self.dilation_rate, strict=True):
            if size is None:
                out.append(None)
                continue
            taken = 0 if self.padding == "same" else (k - 1) * d
            if size <= taken:
                raise InputError(
                    f"the kernel of '{self.name}' (size {self.kernel_size}, dilation {self.dilation_rate}) "
                    f"does not fit its input of shape {shape}: take a smaller one, or padding='same'"
                )
            out.append(-(-(size - taken) // s))
        if self.data_format == "channels_last":
            return shape[0], *out, self.filters
        return shape[0], self.filters, *out

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides,
            "padding": self.padding, "data_format": self.data_format, "dilation_rate": self.dilation_rate,
            "groups": self.groups,
        }  # fmt: skip


@keras.saving.register_keras_serializable(package="regraft")
class SparseConv1D(SparseConv):
    """Takes the place of ``keras.layers.Conv1D``; see ``SparseConv2D``."""

    rank, core_type = 1, layers.SparseConv1d


@keras.saving.register_keras_serializable(package="regraft")
class SparseConv2D(SparseConv):
    """Takes the place of ``keras.layers.Conv2D``, with a sparse kernel.

    Args:
        filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation, use_bias:
            as in Keras; padding ``"valid"`` or ``"same"``.
        options: ``density``, ``epsilon`` or ``connections``, ``seed`` and the others of ``SparseDense``.

    >>> model = keras.Sequential([keras.Input((28, 28, 1)), SparseConv2D(16, 3, padding="same", density=0.5)])
    >>> model.output_shape, model.layers[0].weight
    ((None, 28, 28, 16), VariableWeight(shape=(16, 1, 3, 3), nnz=72, density=0.5))

    Raises:
        InputError: as for ``SparseDense``; a size below 1; groups that do not divide filters and channels.
    """

    rank, core_type = 2, layers.SparseConv2d


@keras.saving.register_keras_serializable(package="regraft")
class SparseConv3D(SparseConv):
    """Takes the place of ``keras.layers.Conv3D``; see ``SparseConv2D``."""

    rank, core_type = 3, layers.SparseConv3d


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}, but must be a whole number of 1 or more")
    return value
