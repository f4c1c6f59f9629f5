"""Networks on disk: ``save`` a module, ``load`` it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast, overload

from torch import Tensor, nn

from regraft import models
from regraft.container import read_table
from regraft.errors import FileError, MismatchError, RegraftError
from regraft.files import Header, NetworkFile, PathLike, read_network, write_network
from regraft.layers import SPARSE_TYPE, sparsify
from regraft.topology import Topology
from regraft.weight import SparseWeight

M = TypeVar("M", bound=nn.Module)

TRAINING = "regraft-training"
"""Metadata key of a training checkpoint, which is another kind of file (see ``regraft.train``)."""


def save(model: nn.Module, path: PathLike, *, provenance: Mapping[str, Any] | None = None) -> None:
    """Write a network to a safetensors file, whole or not at all.

    It holds the positions and values of the sparse weights, everything else in the model's ``state_dict``
    (dense layers, biases, buffers) bit for bit, the model's ``spec`` if it has one, and the versions that
    wrote it.
    Compiled and distributed wrappers are left off.

    Args:
        provenance: where the network came from, as plain JSON values. ``regraft train`` writes its options,
            the data, and the accuracy reached.

    >>> import tempfile
    >>> model = sparsify(models.build("mlp:8-6-2"), density=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/n.safetensors", provenance={"seed": 0})
    ...     back = load(f"{folder}/n.safetensors")
    >>> Topology.of(back) == Topology.of(model)
    True

    Raises:
        InputError: weights that are NaN or infinite, or a provenance that is not plain data.
        FileError: the file cannot be written.
    """
    model = _unwrapped(model)
    tensors = dict(model.state_dict())
    weights = _sparse_weights(model)
    spec = getattr(model, "spec", None)
    inside = {f"{name}.{part}" for name in weights for part in ("index", "values")}
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)} - inside
    header = Header(
        shapes={name: tuple(w.shape) for name, w in weights.items()},
        model=spec if isinstance(spec, dict) else None,
        provenance=dict(provenance or {}),
        buffers=tuple(name for name in tensors if name in buffers),
    )
    write_network(path, tensors, header)


@overload
def load(path: PathLike, into: None = None) -> nn.Module: ...
@overload
def load(path: PathLike, into: M) -> M: ...
def load(path: PathLike, into: nn.Module | None = None) -> nn.Module:
    """A network from a file that ``save`` wrote.

    Without ``into`` the model is built from the file's spec, without ever making a dense weight; values and
    types come back bit for bit, and it is in evaluation mode. Models of your own are loaded ``into`` a module
    of the same architecture, dense or sparse: its layers take the file's topology and values, in the module's
    own type and on its own device, and its mode stays.

    >>> import tempfile
    >>> def architecture():
    ...     return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> model = sparsify(architecture(), density=0.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/n.safetensors")
    ...     back = load(f"{folder}/n.safetensors", into=architecture())
    >>> Topology.of(back) == Topology.of(model)
    True

    Raises:
        FileError: missing, not a network of regraft, truncated, corrupt, of a newer format, or without a spec
            where ``into`` is not given.
        MismatchError: the file does not fit ``into``, which is then unchanged.
    """
    _refuse_training(path)
    tensors, header = read_network(path)
    if into is not None:
        _load_into(_unwrapped(into), tensors, header, path)
        return into
    if header.model is None:
        raise FileError(
            f"'{path}' holds a model of its author's own, which regraft cannot build: pass a module of the "
            "same architecture, regraft.load(path, into=model)"
        )
    try:
        model = models.build(header.model, device="meta")
        _fill(model, tensors, header)
    except (RegraftError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise FileError(
            f"'{path}' is corrupt: its tensors do not fit its model {dict(header.model)} ({error}); copy it "
            "again, or write it anew"
        ) from error
    return model.eval()


def read_header(path: PathLike) -> Header:
    """What a network file says about itself (spec, shapes, provenance, versions); no tensor is read.

    Raises:
        FileError: missing, not a network of regraft, truncated, or of a newer format.
    """
    _refuse_training(path)
    with NetworkFile(path) as file:
        return file.header


def _refuse_training(path: PathLike) -> None:
    """Raise FileError for a training checkpoint; other faults are left to the reader of networks."""
    try:
        with open(path, "rb", buffering=0) as file:
            _, metadata = read_table(file, path)
    except OSError:
        return
    if TRAINING in metadata:
        raise FileError(
            f"'{path}' is the checkpoint of an unfinished training, not a network: finish it with `regraft "
            "train ... --resume`, or train.fit(..., resume=...)"
        )


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile`` or DistributedDataParallel, whose names have no prefix."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _sparse_weights(model: nn.Module) -> dict[str, SparseWeight]:
    found = model.named_modules(remove_duplicate=False)
    return {name: m for name, m in found if isinstance(m, SparseWeight)}


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Give a model on the meta device the file's tensors, without ever making a dense weight."""
    rest = dict(tensors)
    for name, shape in header.shapes.items():
        layer_name = name.removesuffix(".weight")
        layer = model.get_submodule(layer_name)
        if layer_name == name or tuple(cast(Tensor, layer.weight).shape) != shape:
            raise MismatchError(f"'{name}' of shape {shape} is not in the model")
        weight = SparseWeight(shape, rest.pop(f"{name}.index"), rest.pop(f"{name}.values"))
        bias = None if layer.bias is None else rest.pop(f"{layer_name}.bias")
        parent, _, key = layer_name.rpartition(".")
        sparse = SPARSE_TYPE[type(layer)].like(cast(Any, layer), weight, bias)
        setattr(model.get_submodule(parent), key, sparse)
    missing, unexpected = model.load_state_dict(rest, strict=False, assign=True)
    if unexpected or any(t.is_meta for t in model.state_dict().values()):
        raise MismatchError(f"missing {missing}, unexpected {unexpected}")


def _load_into(model: nn.Module, tensors: Mapping[str, Tensor], header: Header, path: PathLike) -> None:
    sparse = _sparse_weights(model)
    dense = [name.removesuffix(".weight") for name in header.shapes if name not in sparse]
    _check_fit(model, tensors, header, path)
    if dense:
        topology = {
            f"{n}.weight": (header.shapes[f"{n}.weight"], tensors[f"{n}.weight.index"]) for n in dense
        }
        sparsify(model, topology=Topology(topology))
    model.load_state_dict(tensors)


def _check_fit(model: nn.Module, tensors: Mapping[str, Tensor], header: Header, path: PathLike) -> None:
    """Raise MismatchError unless the model has exactly the file's tensors, in the file's shapes."""
    weights = _sparse_weights(model)
    state = model.state_dict()
    inside = {f"{name}.{part}" for name in weights for part in ("index", "values")}
    here = {name: tuple(t.shape) for name, t in state.items() if name not in inside}
    here |= {name: tuple(w.shape) for name, w in weights.items()}
    parts = {f"{name}.{part}" for name in header.shapes for part in ("index", "values")}
    there = {name: tuple(t.shape) for name, t in tensors.items() if name not in parts} | dict(header.shapes)
    kind = type(model).__name__
    for name, shape in there.items():
        if name not in here:
            raise MismatchError(
                f"'{path}' has '{name}' of shape {shape}, but the {kind} has no such weight; it has "
                f"{_listed(here)}: pass a module of the same architecture"
            )
        if here[name] != shape:
            raise MismatchError(
                f"'{name}' has shape {shape} in '{path}', but {here[name]} in the {kind}: pass a module of "
                "the same architecture"
            )
    for name in here:
        if name not in there:
            raise MismatchError(
                f"the {kind} has '{name}', but '{path}' does not: pass a module of the same architecture"
            )
        if name in weights and name not in header.shapes:
            raise MismatchError(
                f"'{name}' is sparse in the {kind}, but dense in '{path}': pass a module in which it is "
                "dense (regraft.densify)"
            )
    for name in header.shapes:
        if name not in weights and type(model.get_submodule(name.rpartition(".")[0])) not in SPARSE_TYPE:
            raise MismatchError(
                f"'{name}' is sparse in '{path}', but in the {kind} it belongs to a layer that cannot be "
                "made sparse"
            )


def _listed(names: Iterable[str], most: int = 8) -> str:
    found = list(names)
    more = f", ... ({len(found)} in all)" if len(found) > most else ""
    return ", ".join(repr(n) for n in found[:most]) + more
