"""The surgery that puts sparse layers into a model and takes them out: ``sparsify`` and ``densify``."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from regraft import allocate as allocation
from regraft import kernels, positions
from regraft.allocate import Allocation
from regraft.errors import InputError, MismatchError, check_density
from regraft.layers.modules import (
    SPARSE_TYPE,
    SparseConv,
    SparseLayer,
    SparseLinear,
    sparse_layers,
    uniform,
)
from regraft.topology import Topology
from regraft.weight import SparseWeight

Init = Literal["keep", "rescale"]
M = TypeVar("M", bound=nn.Module)


def sparsifiable(
    model: nn.Module, include: Iterable[str] | str = ("*",), exclude: Iterable[str] | str = ()
) -> dict[str, nn.Module]:
    """The dense layers that ``sparsify`` would replace: {module name: layer}.

    ``include`` and ``exclude`` are shell patterns on module names. Every pattern must match some module.

    >>> model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> list(sparsifiable(model, exclude=["2"]))
    ['0']

    Raises:
        InputError: a pattern that matches no module; no layer left.
    """
    include = [include] if isinstance(include, str) else list(include)
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    names = [n for n, _ in model.named_modules()]
    for pattern in (*include, *exclude):
        if not fnmatch.filter(names, pattern):
            raise InputError(
                f"the pattern {pattern!r} matches no module; the modules are: "
                + ", ".join(repr(n) for n in names if n)
            )
    found = {
        name: m
        for name, m in model.named_modules()
        if name
        and type(m) in SPARSE_TYPE
        and any(fnmatch.fnmatchcase(name, p) for p in include)
        and not any(fnmatch.fnmatchcase(name, p) for p in exclude)
    }
    if not found:
        raise InputError(
            f"no layer of the {type(model).__name__} can be made sparse: regraft replaces nn.Linear and "
            "nn.Conv1d/2d/3d modules inside a model, by module name (wrap a single layer in nn.Sequential)"
        )
    return found


def sparsify(
    model: M,
    density: float | None = None,
    *,
    epsilon: float | None = None,
    allocate: Allocation | str = allocation.erdos_renyi,
    include: Iterable[str] | str = ("*",),
    exclude: Iterable[str] | str = (),
    topology: Topology | None = None,
    init: Init = "keep",
    generator: torch.Generator | None = None,
) -> M:
    """Make the Linear and Conv layers of ``model`` sparse, in place. Returns the model.

    Call it before the optimizer is built: the sparse layers have new parameters.

    Args:
        density: share of connections kept over all chosen layers together, in (0, 1].
        epsilon: instead of a density, Erdos-Renyi's epsilon: a layer gets epsilon * (n_out + n_in)
            connections (thesis 3, eq. 3.1), and layers with fewer positions than that stay full.
        allocate: how the density is spread over layers: a name or a function ``(shapes, density) -> counts``.
        include, exclude: shell patterns on module names.
        topology: instead of a density, these connections, by weight name (``"0.weight"``).
        init: ``"keep"`` takes the dense values as they are (right for trained networks); ``"rescale"``
            multiplies each layer's by sqrt(dense fan-in / mean sparse fan-in), so that activations start with
            the variance they would have in the dense network (Evci et al. 2022, arXiv:2010.03533).
        generator: for the random positions; the same seed gives the same topology.

    A layer on the meta device has no values to keep: its sparse layer is made on the CPU (or the generator's
    device) with values uniform in +-1 / sqrt(dense fan-in), torch's own rule, drawn from ``generator`` after
    all positions. So a network whose dense weights would not fit into memory can be made.

    >>> model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    >>> _ = sparsify(model, density=0.1, generator=torch.Generator().manual_seed(0))
    >>> Topology.of(model).nnz == round(0.1 * (600 + 300))
    True

    Raises:
        InputError: density outside (0, 1], not exactly one of density, epsilon and topology, an unknown
            allocation, a pattern without a match, or a layer that would get no connection at all.
        MismatchError: ``topology`` does not fit the model.
    """
    if sum(option is not None for option in (density, epsilon, topology)) != 1:
        raise InputError("sparsify needs exactly one of density=, epsilon= and topology=")
    if init not in ("keep", "rescale"):
        raise InputError(f"init is {init!r}, but must be 'keep' or 'rescale'")
    layers = sparsifiable(model, include, exclude)
    _refuse_computed(layers)
    _refuse_shared(model, layers)
    if topology is not None:
        indices = _indices_of(topology, layers)
    else:
        counts = _counts(layers, density, epsilon, allocate)
        indices = {
            name: positions.sample(cast(Tensor, layers[name].weight).numel(), k, generator)
            for name, k in counts.items()
        }
    replaced: dict[int, nn.Module] = {}
    for name, index in indices.items():
        layer = layers[name]
        sparse = _made_of(layer, index, generator)
        if init == "rescale":
            _rescale(sparse)
        _take_over(sparse, layer)
        replaced[id(layer)] = sparse
    _swap(model, replaced)
    kernels.layout.chain(model)
    return model


def densify(model: M) -> M:
    """Replace the sparse layers of ``model`` by the equal dense ones, in place. Returns the model.

    >>> model = sparsify(nn.Sequential(nn.Linear(6, 5)), density=0.5)
    >>> x = torch.randn(3, 6)
    >>> y = model(x)
    >>> torch.allclose(densify(model)(x), y, atol=1e-6), type(model[0]).__name__
    (True, 'Linear')

    Raises:
        InputError: the model is itself a sparse layer.
    """
    if isinstance(model, SparseLayer):
        raise InputError("a bare sparse layer cannot be replaced in place: use layer.to_dense()")
    replaced: dict[int, nn.Module] = {}
    for layer in sparse_layers(model).values():
        dense = cast(SparseLinear | SparseConv, layer).to_dense()
        _take_over(dense, layer)
        replaced[id(layer)] = dense
    _swap(model, replaced)
    return model


def _counts(
    layers: dict[str, nn.Module], density: float | None, epsilon: float | None, allocate: Allocation | str
) -> dict[str, int]:
    shapes = [tuple(cast(Tensor, layer.weight).shape) for layer in layers.values()]
    if epsilon is not None:
        counts = allocation.ErdosRenyi(epsilon)(shapes)
    else:
        rule = allocation.by_name(allocate) if isinstance(allocate, str) else allocate
        counts = rule(shapes, check_density(cast(float, density)))
        if len(counts) != len(shapes):
            raise InputError(f"the allocation {rule!r} gave {len(counts)} counts for {len(shapes)} layers")
    for name, shape, k in zip(layers, shapes, counts, strict=True):
        if k < 1:
            asked = f"density {density}" if epsilon is None else f"epsilon {epsilon}"
            raise InputError(
                f"layer '{name}' of shape {shape} would get no connection at {asked}: "
                "raise it, choose another allocation, or exclude the layer"
            )
        if k > math.prod(shape):
            raise InputError(f"layer '{name}' has {math.prod(shape)} positions, too few for {k} connections")
    return dict(zip(layers, counts, strict=True))


def _indices_of(topology: Topology, layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    indices = {}
    for weight_name, connections in topology.items():
        name = weight_name.removesuffix(".weight")
        if name not in layers:
            raise MismatchError(
                f"the topology has the weight '{weight_name}', but the model has no such dense layer; "
                "its layers are: " + ", ".join(f"'{n}.weight'" for n in layers)
            )
        shape = tuple(cast(Tensor, layers[name].weight).shape)
        if shape != connections.shape:
            raise MismatchError(
                f"the topology's '{weight_name}' has shape {connections.shape}, but the model's has {shape}"
            )
        indices[name] = connections.index
    return indices


def _made_of(layer: nn.Module, index: Tensor, generator: torch.Generator | None) -> SparseLayer:
    """The sparse layer with the values of ``layer``, or with new ones where it has none."""
    kind, dense = SPARSE_TYPE[type(layer)], cast(nn.Linear, layer)
    if not dense.weight.is_meta:
        return kind.from_dense(cast(Any, layer), index)
    shape, dtype = dense.weight.shape, dense.weight.dtype
    bound = 1 / math.sqrt(max(math.prod(shape[1:]), 1))
    weight = SparseWeight(shape, index, uniform(index.numel(), bound, generator, dtype))
    bias = None if dense.bias is None else uniform(shape[0], bound, generator, dtype)
    return kind.like(cast(Any, layer), weight, bias)


def _rescale(layer: SparseLayer) -> None:
    w = layer.weight
    if w.nnz:
        with torch.no_grad():
            w.values.mul_(math.sqrt(w.size / w.nnz))


def _refuse_computed(layers: dict[str, nn.Module]) -> None:
    """A weight that a hook computes (weight_norm, prune) is no Parameter that connections could replace."""
    for name, layer in layers.items():
        if "weight" not in layer._parameters:
            raise InputError(
                f"layer '{name}' computes its weight (weight_norm, prune): undo that or exclude it"
            )


def _refuse_shared(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """A weight that two modules share cannot be sparse in one of them only."""
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            other = owners.setdefault(id(parameter), name)
            if other != name and (name in layers or other in layers):
                raise InputError(
                    f"modules '{other}' and '{name}' share one parameter: exclude both from sparsify"
                )


def _take_over(new: nn.Module, old: nn.Module) -> None:
    """Mode, trainability and hooks of the layer that is replaced."""
    new.train(old.training)
    trainable = {n.split(".")[0]: p.requires_grad for n, p in old.named_parameters()}
    for n, p in new.named_parameters():
        p.requires_grad_(trainable[n.split(".")[0]])
    for name in _HOOKS:  # the dictionaries themselves, so that the handles callers hold still remove hooks
        setattr(new, name, getattr(old, name))


_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
    "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def _swap(model: nn.Module, replaced: dict[int, nn.Module]) -> None:
    """Put each new module wherever the old one is registered (a module may be registered twice)."""
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child is not None and id(child) in replaced:
                parent._modules[key] = replaced[id(child)]
