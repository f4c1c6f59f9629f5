"""The one place that decides how a sparse layer computes.

``"compressed"`` walks the active connections (by compiled C, else numba's loops, else torch's CSR: see
:mod:`regraft.kernels.backends`), ``"materialised"`` scatters them into the dense weight for one call.
``"auto"`` takes the compressed way where it was measured to be faster and falls back to the materialised one
wherever only that is right: other types, autocast, ``torch.func``, ``torch.compile`` and tracing,
forward-mode differentiation. On a GPU it takes the materialised one, too, as long as nobody has measured
below which density the other is faster there (``benchmarks/gpu.py`` does); ``"compressed"`` takes torch's CSR
products. Devices of other kinds are always materialised.

A connection that does not exist passes nothing on, not even NaN or infinity; a materialised or dense layer
multiplies them by zero, which is NaN.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from regraft.errors import unknown
from regraft.kernels import backends, compressed, layout, materialised, native, plan
from regraft.weight import SparseWeight

MODES = ("auto", "compressed", "materialised")

_is_functorch = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: True)


def _checked(mode: str) -> str:
    if mode not in MODES:
        raise unknown("way to compute", mode, MODES)
    return mode


_mode = _checked(os.environ.get("REGRAFT_KERNEL") or "auto")


class use:  # noqa: N801 - a function that can also be used in a with statement
    """Choose how sparse layers compute, for the whole process or within a ``with`` statement.

    Args:
        mode: ``"auto"`` (default), ``"compressed"`` wherever that is possible, or ``"materialised"``. The
            environment variable ``REGRAFT_KERNEL`` sets the mode at start.
        backend: what computes the products of the compressed way in linear layers: ``"native"`` (compiled
            C), ``"numba"`` or ``"csr"`` (torch's own CSR tensors), of which a GPU has the last. The default
            leaves it as it is: at first the environment variable ``REGRAFT_BACKEND``, else the first of
            these that is installed. On devices that the backend does not serve the choice says nothing.

    >>> with use("materialised"):
    ...     current()
    'materialised'
    >>> current()
    'auto'

    Raises:
        InputError: an unknown mode, or a backend that is unknown or not installed.
    """

    def __init__(self, mode: str, *, backend: str | None = None) -> None:
        global _mode
        mode = _checked(mode)
        self._before, self._backend = _mode, None if backend is None else [backends.force(backend)]
        _mode = mode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _mode
        _mode = self._before
        if self._backend is not None:
            backends.force(self._backend[0])


def current() -> str:
    """The mode in force: ``"auto"``, ``"compressed"`` or ``"materialised"``."""
    return _mode


def backend(device: torch.device | str = "cpu") -> str | None:
    """What computes sparse linear layers on a device, where they are not materialised: ``"native"``,
    ``"numba"`` or ``"csr"``; None where none of them is installed and every layer is materialised.

    >>> backend("meta") is None
    True
    """
    return backends.current(torch.device(device).type)


# The compressed way beats the materialised one below these densities, the second at batches of one or two,
# with as many threads for both. Measured on one thread. Compiled kernels: forward, backward and update of
# layers from 100x100 to 4000x4000 at batches of 1 to 512 (benchmarks/kernels_crossover.py --update). The
# others: a layer of 1000x1000 at a batch of 100 (benchmarks/backends.py), lowered at small batches.
CROSSOVER = {"native": (0.8, 0.6), "numba": (0.35, 0.23), "csr": (0.25, 0.17)}
# The same on a GPU. Not measured yet: 0 is never. `python benchmarks/gpu.py` prints what belongs here.
GPU_CROSSOVER = {"csr": 0.0}
# What the materialised way spends on moving values and gradients instead of dense products, as measured.
MOVING = (0.15, 0.6)


def faster_compressed(weight: SparseWeight, batch: int) -> bool:
    """Whether the compressed way is the faster one for a linear layer, by the measured crossovers.

    Where torch has more threads than the kernels (``regraft.set_threads``, at first 1), the crossover is
    lower, by as much as they shorten the dense products.
    """
    device = weight.index.device.type
    name = backends.current(device)
    if name is None:
        return False
    if device != "cpu":
        return weight.nnz < GPU_CROSSOVER[name] * weight.size
    few = 1 if batch <= 2 else 0
    # torch's CSR products have torch's threads, numba's loops one
    mine = {"native": native.get_threads(), "numba": 1}.get(name, torch.get_num_threads())
    products = (1 - MOVING[few]) * min(1.0, mine / torch.get_num_threads())
    return weight.nnz < CROSSOVER[name][few] * (MOVING[few] + products) * weight.size


def linear(x: Tensor, weight: SparseWeight, bias: Tensor | None) -> Tensor:
    """x [..., in] -> x W^T + b [..., out], by the faster computation that is right here.

    >>> w = SparseWeight((2, 3), torch.tensor([1, 5]), torch.tensor([3.0, -1.0]))
    >>> linear(torch.tensor([[1.0, 2.0, 4.0]]), w, torch.tensor([0.5, 0.0])).tolist()
    [[6.5, -4.0]]
    """
    values = weight.values
    if torch.compiler.is_compiling() or not _fits(x, values, weight, bias):
        return materialised.linear(x, weight, bias)
    # on a GPU a feature-major input is no reason for a computation that was not measured to be faster
    handed_on = x.ndim == 2 and compressed.is_feature_major(x) and x.device.type == "cpu"
    if weight.nnz == weight.size and _mode == "auto" and not handed_on:
        return compressed.full(x, weight, bias)
    if _mode == "compressed" or handed_on or faster_compressed(weight, x.numel() // weight.shape[1]):
        return compressed.linear(x, values, bias, plan.of(weight), layout.of(weight))
    return materialised.linear(x, weight, bias)


def _fits(x: Tensor, values: Tensor, weight: SparseWeight, bias: Tensor | None) -> bool:
    """Whether the compressed kernels may see these very tensors."""
    rows, cols = weight.shape
    device = values.device
    return (
        backends.current(device.type) is not None
        and ordinary(x, values, weight, bias, device)
        and x.ndim >= 1
        and x.shape[-1] == cols
        and rows > 0
        and max(rows, cols, values.numel()) <= plan.INT32_MAX
    )


_CPU = torch.device("cpu")


def ordinary(
    x: Tensor, values: Tensor, weight: SparseWeight, bias: Tensor | None, device: torch.device = _CPU
) -> bool:
    """Whether kernels for a device may compute at all: they are wanted, the tensors are ordinary ones there,
    of one type, that fit each other, and nothing else watches or changes torch's operations here."""
    if _mode == "materialised" or not _plain(values, values.dtype, device):
        return False
    if not _plain(x, values.dtype, device) or not (bias is None or _plain(bias, values.dtype, device)):
        return False
    return (
        x.numel() > 0
        and values.shape == weight.index.shape
        and (bias is None or bias.shape == weight.shape[:1])
        and _plain(weight.index, torch.int64, device)
        and not torch.is_autocast_enabled(device.type)
        and torch._C._get_tracing_state() is None
        and _get_current_dispatch_mode() is None
        and forward_ad._current_level < 0
    )


def _plain(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> bool:
    """An ordinary tensor in the device's memory, whose address says all about it."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == dtype
        and tensor.dtype in (torch.float32, torch.float64, torch.int64)
        and tensor.device == device
        and tensor.layout == torch.strided
        and not tensor.is_neg()
        and not tensor._is_zerotensor()
        and not _is_functorch(tensor)
    )
