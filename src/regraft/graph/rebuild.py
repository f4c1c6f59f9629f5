"""Putting tensors of other sizes into a copy of a model, so that its layers know their new sizes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.layers import SparseLayer
from regraft.models.resnet import Subsample
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Sparse:
    """A sparse weight's shape, positions and values."""

    shape: tuple[int, ...]
    index: Tensor
    values: Tensor


def tensors_of(model: nn.Module) -> dict[str, Tensor | Sparse]:
    """Every parameter and buffer by name, each once; sparse weights by the name of their module."""
    sparse = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    owned = {f"{n}.{part}" for n in sparse for part in ("index", "values")}
    found: dict[str, Tensor | Sparse] = {
        n: Sparse(tuple(m.shape), m.index, m.values.detach()) for n, m in sparse.items()
    }
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name not in owned:
            found[name] = tensor.detach()
    return found


@torch.no_grad()
def rebuilt(model: M, tensors: Mapping[str, Tensor | Sparse], zeros: Mapping[str, int]) -> M:
    """A deep copy of the model with these tensors instead of its own.

    Args:
        tensors: by name, of any sizes that fit each other.
        zeros: maps of zeros that each ``Subsample`` adds, by its name and ``.more``.
    """
    made = copy.deepcopy(model)
    before = {n: _rows(m) for n, m in made.named_modules()}
    for name, tensor in tensors.items():
        if isinstance(tensor, Sparse):
            _put_sparse(made.get_submodule(name), tensor)
        else:
            _put_dense(made, name, tensor)
    for name, module in made.named_modules():
        _resize(module, before[name])
        if isinstance(module, Subsample):
            module.more = zeros.get(f"{name}.more", module.more)
    return made


def _put_sparse(module: Any, tensor: Sparse) -> None:
    module.shape = torch.Size(tensor.shape)
    module.replace(tensor.index, tensor.values)


def _put_dense(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    old = getattr(model.get_submodule(owner), attribute)
    if old.shape == tensor.shape:
        old.copy_(tensor)
        return
    new: Tensor = tensor.clone()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for module in model.modules():  # a shared tensor has several owners
        for store in (module._parameters, module._buffers):
            for key, value in store.items():
                if value is old:
                    store[key] = new  # type: ignore[assignment]


def _rows(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor | SparseWeight) and len(weight.shape) else 0


def _resize(module: Any, rows: int) -> None:
    """Let the layer's attributes say what its tensors' shapes are."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups > 1:
            module.groups = module.groups * weight.shape[0] // rows
        module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
    elif isinstance(module, SparseLayer):
        if getattr(module, "groups", 1) > 1:
            module.groups = module.groups * weight.shape[0] // rows
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = module.num_groups * weight.shape[0] // rows
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.LayerNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.MultiheadAttention):
        _check_multihead(module)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        known = weight if weight is not None else module.running_mean
        if known is not None:
            module.num_features = known.shape[0]


def _check_multihead(module: nn.MultiheadAttention) -> None:
    if module.out_proj.weight.shape != (module.embed_dim, module.embed_dim):
        raise InputError(
            f"nn.MultiheadAttention has as many units in its heads as in its stream, {module.embed_dim}, so "
            "that none can be cut: leave those groups whole"
        )


def with_spec(model: M, spec: Mapping[str, Any] | None) -> M:
    """Let the model say what it is built from, or that this is not known."""
    if spec is not None:
        model.spec = copy.deepcopy(dict(spec))  # type: ignore[assignment]
    elif hasattr(model, "spec"):
        del model.spec
    return model


def strides(shape: tuple[int, ...]) -> list[int]:
    """Entries of a row-major tensor between neighbours along each axis."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
