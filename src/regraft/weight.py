"""``SparseWeight``: a sorted list of positions and a list of values, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from regraft import positions
from regraft.errors import InputError, MismatchError


class Rewiring(NamedTuple):
    """How entries moved in a change of topology: entry ``kept_old[i]`` of the old vector is now entry
    ``kept_new[i]``; every other entry of the new vector is new. Both are int64 vectors, increasing.
    """

    kept_old: Tensor
    kept_new: Tensor


class SparseWeight(nn.Module):
    """A weight of which only the active connections exist.

    Attributes:
        shape: the dense shape, ``(out, in)`` or ``(out, in // groups, *kernel)``.
        index: int64 buffer ``[nnz]``, flat row-major positions, strictly increasing.
        values: Parameter ``[nnz]``, lined up with ``index``. It stays the same object for life, so that an
            optimizer keeps hold of it when the topology changes.
        cache: derived structures that kernels keep beside the topology; emptied when the topology changes.

    >>> w = SparseWeight((2, 3), torch.tensor([1, 5]), torch.tensor([3.0, -1.0]))
    >>> w.dense().tolist()
    [[0.0, 3.0, 0.0], [0.0, 0.0, -1.0]]
    >>> w.nnz, round(w.density, 3)
    (2, 0.333)
    """

    index: Tensor
    values: nn.Parameter

    def __init__(self, shape: Sequence[int], index: Tensor, values: Tensor) -> None:
        """Take positions and values after checking them. Like ``nn.Parameter``, it takes the tensors over
        without a copy.

        Raises:
            InputError: positions unsorted, duplicated or out of range; values not floating point.
            MismatchError: positions and values differ in length.
        """
        super().__init__()
        self.shape = torch.Size(shape)
        self.register_buffer("index", positions.check(index, self.size))
        _check_values(values, self.index)
        self.values = nn.Parameter(values)
        self.cache: dict[str, Any] = {}

    @classmethod
    def from_dense(cls, dense: Tensor, index: Tensor | None = None) -> Self:
        """The entries of ``dense`` at ``index`` (default: where it is not zero). Values are copied.

        >>> SparseWeight.from_dense(torch.eye(3)).index.tolist()
        [0, 4, 8]
        """
        flat = dense.detach().reshape(-1)
        if index is None:
            index = flat.nonzero().squeeze(1)
        index = positions.check(index, flat.numel()).to(flat.device)
        return cls(dense.shape, index, flat[index].clone())

    @property
    def size(self) -> int:
        """Number of positions, active or not."""
        return math.prod(self.shape)

    @property
    def nnz(self) -> int:
        """Number of active connections."""
        return self.index.numel()

    @property
    def density(self) -> float:
        """nnz / size; 0 for a weight without positions."""
        return self.nnz / self.size if self.size else 0.0

    @property
    def fan_in_size(self) -> int:
        """Number of positions of one output unit, which is ``in`` or ``in // groups * prod(kernel)``."""
        return math.prod(self.shape[1:])

    def rows(self) -> Tensor:
        """Output unit of each active connection, int64 [nnz]."""
        return torch.div(self.index, max(self.fan_in_size, 1), rounding_mode="floor")

    def columns(self) -> Tensor:
        """Position within its output unit of each active connection, int64 [nnz]; the input unit where the
        weight has two dimensions."""
        return self.index % max(self.fan_in_size, 1)

    def input_units(self) -> Tensor:
        """Input unit (channel) of each active connection, int64 [nnz]."""
        return torch.div(self.columns(), max(math.prod(self.shape[2:]), 1), rounding_mode="floor")

    def dense(self, values: Tensor | None = None) -> Tensor:
        """The dense weight, shape ``shape``: a differentiable scatter of ``values`` (default: the Parameter).

        It works on any device, under ``torch.func``, ``torch.compile`` and twice differentiated.
        """
        values = self.values if values is None else values
        return values.new_zeros(self.size).scatter(0, self.index, values).view(self.shape)

    def forward(self) -> Tensor:
        """The dense weight, so that the module can serve as a parametrisation."""
        return self.dense()

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """A torch function that is handed the weight itself works on the dense weight: torch's transformer
        layers read ``linear1.weight``, and models with tied weights call ``F.linear(x, layer.weight)``.
        """
        args, kwargs = tree_map_only(SparseWeight, SparseWeight.dense, (args, dict(kwargs or {})))
        return func(*args, **kwargs)

    @torch.no_grad()
    def rewire(self, index: Tensor, new_values: Tensor) -> Rewiring:
        """Replace the topology by ``index``; survivors keep their values.

        Args:
            index: positions ``[m]`` of the new topology, strictly increasing.
            new_values: values ``[number of new positions]`` for the positions that were not active, in the
                order of ``index``.

        Returns:
            where the survivors' entries moved, for the optimizer's state.

        Raises:
            InputError: positions unsorted, duplicated or out of range.
            MismatchError: not exactly one value for each new position.
        """
        index = positions.check(index, self.size).to(self.index.device)
        survived = positions.contains(self.index, index)
        kept_new = survived.nonzero().squeeze(1)
        kept_old = torch.searchsorted(self.index, index[kept_new])
        fresh = index.numel() - kept_new.numel()
        if new_values.shape != (fresh,):
            raise MismatchError(
                f"new_values has shape {tuple(new_values.shape)}, but the new topology has {fresh} new "
                "positions: pass one value for each"
            )
        values = self.values.new_empty(index.numel())
        values[kept_new] = self.values[kept_old]
        values[~survived] = new_values.to(values)
        self.adopt(index.clone(), values)
        return Rewiring(kept_old, kept_new)

    @torch.no_grad()
    def replace(self, index: Tensor, values: Tensor) -> None:
        """Put copies of new positions and values in place, checked; the Parameter stays the same object, its
        gradient is dropped.

        Raises:
            InputError: positions unsorted, duplicated or out of range.
            MismatchError: positions and values differ in length.
        """
        index = positions.check(index, self.size).to(self.index.device)
        _check_values(values, index)
        self.adopt(index.clone(), values.to(self.values, copy=True))

    def adopt(self, index: Tensor, values: Tensor) -> None:
        """Take over new positions and values without a copy or a check; else as ``replace``. For callers that
        made both themselves: sorted int64 positions, and values of the Parameter's type on its device."""
        self._buffers["index"] = index
        self.values.grad = None
        if values.shape != self.values.shape:
            _forget_length(self.values)
        self.values.data = values
        self.cache.clear()

    def extra_repr(self) -> str:
        return f"shape={tuple(self.shape)}, nnz={self.nnz}, density={self.density:.4g}"

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.cache.clear()
        index = self.index
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.index.dtype != torch.int64:  # Module.type casts every buffer, and would round positions
            self.index = index.to(self.index.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "cache": {}}

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Accept a state of any nnz: the topology comes from the state, through the same door."""
        index, values = state_dict.get(prefix + "index"), state_dict.get(prefix + "values")
        if isinstance(index, Tensor) and isinstance(values, Tensor):
            try:
                checked = positions.check(index, self.size, name=prefix + "index")
            except InputError as error:
                raise InputError(f"{error}; the weight here has shape {tuple(self.shape)}") from None
            state_dict[prefix + "index"] = checked  # int64, also where torch assigns instead of copying
            here = checked.to(self.index.device)
            if here.is_meta or here.shape != self.index.shape or not torch.equal(here, self.index):
                self.replace(checked, values)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _forget_length(values: nn.Parameter) -> None:
    """Make autograd forget the length of a Parameter.

    A loss that a caller still holds keeps the Parameter's gradient accumulator alive, which remembers the old
    length and would refuse the next gradient. Torch drops the accumulator when the type changes.
    """
    kept = values.dtype
    values.data = values.data[:0].to(torch.float64 if kept != torch.float64 else torch.float32)
    values.data = values.data.to(kept)


def _check_values(values: Tensor, index: Tensor) -> None:
    if not isinstance(values, Tensor):  # users bring lists and arrays
        raise InputError(f"values are a {type(values).__name__}, but must be a floating point tensor")
    if not values.is_floating_point():
        raise InputError(f"values are of type {values.dtype}, but must be floating point")
    if values.shape != index.shape:
        raise MismatchError(
            f"values has shape {tuple(values.shape)}, but there are {index.numel()} positions: "
            "one value is needed for each"
        )
