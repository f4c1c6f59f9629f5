"""A device that is not there: tensors that say "standin", kept in the machine's memory, as strict as CUDA's.

Torch's key for devices of others, PrivateUse1, is given one fallback for all operators: it refuses what
CUDA refuses, then computes on the CPU over the same memory. Tensors are plain ``torch.Tensor`` objects with
their own storage, so views, ``.data``, Parameters, optimizers, autograd (in a thread of its own, as for
CUDA) and ``type(x)`` are the true ones. What it refuses:

- tensors of two devices in one operator; a CPU scalar of no dimensions may join elementwise ones, CPU
  positions may index, and copies are copies;
- a CPU generator that fills a tensor of the device;
- addresses of its tensors (``data_ptr``), which code for the CPU would follow;
- ``numpy()``, by torch itself;
- products of integers and histograms, which CUDA does not have.

One kind of memory is named another by torch's own DLPack exchange, whose header says where a tensor lies.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

NAME = "standin"
_HERE, _THERE = 1, 12  # DLPack's numbers: the CPU, and a device of others

CPU_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_unsafe_index_put", "_index_put_impl_")
"""Operators that take positions on the CPU, too."""
SCALARS = (*INDEXING, "masked_fill", "masked_fill_", "index_fill", "index_fill_", "fill_", "fill")
"""Operators that take a value on the CPU, too, beside the elementwise ones."""
GEOMETRY = (
    "as_strided", "view", "_reshape_alias", "unfold", "set_", "set_.source_Tensor", "set_.source_Storage",
    "set_.source_Storage_storage_offset", "is_set_to", "view_as_real", "view_as_complex",
)  # fmt: skip
"""Operators that touch no element: the CPU's serve any device."""
CSR_PARTS = ("crow_indices", "col_indices", "values")
CSR_PRODUCTS = ("mm", "sparse_sampled_addmm")
"""What CUDA's CSR tensors can do, and regraft asks of them."""
CPU_ONLY = (
    "histogram",
    "_histogramdd_bin_edges",
    "_histogramdd_from_bin_cts",
    "_histogramdd_from_bin_tensors",
)
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot", "linear", "convolution")

_data_ptr = Tensor.data_ptr
_clone = torch.UntypedStorage.clone


class _Header(ctypes.Structure):
    """The beginning of DLPack's tensor."""

    _fields_ = (("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


def _named(tensor: Tensor, kind: int) -> Tensor:
    """The same memory as a tensor of another device."""
    capsule = torch._C._to_dlpack(tensor)
    header = _Header.from_address(_pointer(capsule, b"dltensor"))
    header.device_type, header.device_id = kind, 0
    made: Tensor = torch._C._from_dlpack(capsule)
    return made


def is_here(x: Any) -> bool:
    """Whether ``x`` is a tensor of the stand-in."""
    return isinstance(x, Tensor) and x.device.type == NAME


def _refuse(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = op._schema.name.removeprefix("aten::")
    flat = tree_flatten((args, kwargs))[0]
    for value in flat:
        if isinstance(value, torch.Generator):
            raise RuntimeError(f"Expected a '{NAME}' device type for generator but found '{value.device}'")
    if name in CPU_ONLY:
        raise NotImplementedError(f"Could not run '{op}' with arguments from the '{NAME}' backend")
    tensors = [value for value in flat if isinstance(value, Tensor)]
    if name in PRODUCTS and tensors and not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        raise RuntimeError(f"\"{name}_{NAME}\" not implemented for '{tensors[0].dtype}'")
    elementwise = torch.Tag.pointwise in op.tags or name in SCALARS
    indices = {id(t) for t in tree_flatten(args[1])[0]} if name in INDEXING else set()
    for tensor in tensors:
        scalar = elementwise and tensor.ndim == 0
        if not (is_here(tensor) or scalar or id(tensor) in indices):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{NAME}:0 and {tensor.device}, in {op}"
            )


def _written(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What each output is that the operator writes into, None for a new one."""
    given = {a.name: value for a, value in zip(op._schema.arguments, args, strict=False)} | kwargs
    found = []
    for out in op._schema.returns:
        alias = out.alias_info
        if alias is None:
            found.append(None)
            continue
        same = [
            a.name for a in op._schema.arguments
            if a.alias_info is not None and a.alias_info.before_set == alias.before_set
        ]  # fmt: skip
        if not alias.is_write:
            raise NotImplementedError(f"the stand-in has no view {op}")
        found.append(given[same[0]])
    return found


def _wrapped(op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python's numbers, which torch hands over where it had made tensors of them, as tensors again."""
    wide = any(isinstance(a, Tensor) and a.dtype == torch.float64 for a in args)
    made = []
    for value, argument in zip(args, op._schema.arguments, strict=False):
        if isinstance(value, int | float) and isinstance(argument.type, torch.TensorType):
            dtype = torch.float64 if wide and isinstance(value, float) else None
            value = torch.tensor(value, dtype=dtype)
        made.append(value)
    return tuple(made)


class _Call:
    """One operator's way to the CPU and back."""

    def __init__(self) -> None:
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def lend(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu") if value.type == NAME else value
        return _named(value, _HERE) if is_here(value) else value

    def lend_output(self, value: Any) -> Any:
        """Memory of its own for an output: operators resize it, which lent memory cannot be."""
        if not is_here(value):
            return self.lend(value)
        self.outputs.append((value, torch.empty(0, dtype=value.dtype)))
        return self.outputs[-1][1]

    def settle(self) -> None:
        """The outputs' numbers, and their shapes where the operator gave them another."""
        for value, made in self.outputs:
            if made.shape != value.shape:
                value.set_(_named(made, _THERE))
            elif made.numel():
                _named(value, _HERE).copy_(made)


def _fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse(op, args, kwargs)
    written = _written(op, args, kwargs)
    call = _Call()
    out = {a.name for a in op._schema.arguments if a.kwarg_only and a.alias_info is not None}
    named = {n: tree_map(call.lend_output if n in out else call.lend, v) for n, v in kwargs.items()}
    result = op(*tree_map(call.lend, _wrapped(op, args)), **named)
    call.settle()
    several = len(written) > 1
    results = list(result) if several else [result]
    made = [
        out if into is None else into
        for into, out in zip(written, (tree_map(_returned, r) for r in results), strict=False)
    ]
    return tuple(made) if several else (made[0] if made else None)


def _returned(value: Any) -> Any:
    return _named(value, _THERE) if isinstance(value, Tensor) and value.device.type == "cpu" else value


def _resized(self: Tensor, size: Any, *, memory_format: Any = None) -> Tensor:
    room = torch.empty(size, dtype=self.dtype, device=NAME)
    if self.numel():
        kept = min(self.numel(), room.numel())
        room.view(-1)[:kept] = self.reshape(-1)[:kept]
    return self.set_(room)


def _copied(source: Tensor, into: Tensor, non_blocking: bool = False) -> Tensor:
    """From any device to any: what torch asks of a device of others."""
    a, b = (_named(t, _HERE) if is_here(t) else t for t in (source, into))
    if into.numel():
        b.copy_(a)
    return into


def _copied_resized(source: Tensor, into: Tensor) -> Tensor:
    return _copied(source, into if into.shape == source.shape else into.resize_(source.shape))


def _convolution(*args: Any) -> Tensor:
    made: Tensor = _fallback(torch.ops.aten.convolution.default, *args)
    return made


def _convolution_backward(*args: Any) -> tuple[Tensor | None, ...]:
    *given, mask = args
    sizes = [given[2].shape[0]]
    made: tuple[Tensor | None, ...] = _fallback(
        torch.ops.aten.convolution_backward.default, *given[:3], sizes, *given[3:], mask
    )
    return made


def _csr_part(name: str) -> Callable[[Tensor], Tensor]:
    op = getattr(torch.ops.aten, name).default
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.SparseCsrCPU)
    return lambda sparse: op.redispatch(keys, sparse)


def _csr_here(sparse: Tensor) -> Tensor:
    """A CSR tensor of the CPU with the same memory."""
    parts = (_named(getattr(sparse, name)(), _HERE) for name in CSR_PARTS)
    return torch.sparse_csr_tensor(*parts, sparse.shape, check_invariants=False)


def _csr_product(op: Any) -> Callable[..., Tensor]:
    """A product of a CSR tensor and dense ones, where all are on the device."""

    def product(*args: Any, **kwargs: Any) -> Tensor:
        call = _Call()
        for value in args:
            if isinstance(value, Tensor) and not is_here(value):
                raise RuntimeError(f"Expected all tensors to be on the same device, in {op}")
        lent = [_csr_here(v) if is_here(v) and v.layout == torch.sparse_csr else call.lend(v) for v in args]
        made = op(*lent, **kwargs)
        if made.layout != torch.sparse_csr:
            return _named(made, _THERE)
        parts = [_named(getattr(made, name)(), _THERE) for name in CSR_PARTS]
        return torch.sparse_csr_tensor(*parts, made.shape, check_invariants=False)

    return product


def _on_the_cpu(op: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: op.redispatch(CPU_KEYS, *args, **kwargs)


class _Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return bool(_state["active"])

    def has_primary_context(self, index: int) -> bool:
        return True

    def is_built(self) -> bool:
        return True


class _Module:
    """What torch looks for as ``torch.standin``."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return bool(_state["active"])

    def device_count(self) -> int:
        return int(_state["active"])

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Numbers without a generator come from the CPU's global one, which torch seeds itself."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)


_state: dict[str, Any] = {"active": False, "kept": []}


def register() -> None:
    """Make the device known to torch, once; before the first backward pass of the process, which starts a
    thread for each device that is known by then. Until :func:`active` nothing can be put on it."""
    if _state["kept"]:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, _Module(), _Hooks())
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_fallback, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for name in GEOMETRY:
        base, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, base), overload or "default")
        aten.impl(name, _on_the_cpu(op), "PrivateUse1")
    for name, function in (
        ("resize_", _resized), ("_copy_from", _copied), ("_copy_from_and_resize", _copied_resized),
        ("convolution_overrideable", _convolution),
        ("convolution_backward_overrideable", _convolution_backward),
    ):  # fmt: skip
        aten.impl(name, function, "PrivateUse1")
    for name in CSR_PARTS:
        aten.impl(name, _csr_part(name), "SparseCsrPrivateUse1")
    for name in CSR_PRODUCTS:
        op = getattr(torch.ops.aten, name).default
        aten.impl(name, _csr_product(op), "SparseCsrPrivateUse1")
    _state["kept"] = [everything, aten]


def _guarded_data_ptr(self: Tensor) -> int:
    if is_here(self):
        raise RuntimeError(f"the address of a tensor on {self.device} went to code that runs on the CPU")
    return _data_ptr(self)


def _cloned_storage(self: torch.UntypedStorage) -> torch.UntypedStorage:
    if self.device.type != NAME:
        return _clone(self)
    # torch would ask the device's allocator, which only C++ can give it
    return torch.empty(0, dtype=torch.uint8, device=NAME).set_(self).clone().untyped_storage()


@contextmanager
def active() -> Iterator[torch.device]:
    """The device, for as long as the statement runs."""
    register()
    _state["active"] = True
    Tensor.data_ptr = _guarded_data_ptr  # type: ignore[method-assign]
    torch.UntypedStorage.clone = _cloned_storage  # type: ignore[method-assign]
    try:
        yield torch.device(NAME, 0)
    finally:
        Tensor.data_ptr = _data_ptr  # type: ignore[method-assign]
        torch.UntypedStorage.clone = _clone  # type: ignore[method-assign]
        _state["active"] = False
