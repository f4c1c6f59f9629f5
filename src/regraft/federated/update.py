"""``Update``: what a client and a server send each other, a network as positions and values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import MismatchError
from regraft.topology import Topology
from regraft.weight import SparseWeight


@dataclass(frozen=True, eq=False)
class Entries:
    """The connections of one sparse weight: int64 positions [nnz], increasing, and their values [nnz]."""

    index: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class Update:
    """A network on its way, and who sends it.

    Attributes:
        round: the round it belongs to, counted from 0.
        client: name of the sender; ``"server"`` on the way to the clients.
        examples: number of samples it was trained on.
        layers: the sparse weights by name, as in ``Topology.of``.
        dense: every other entry of the model's state dict: biases, dense weights, buffers.
        statistics: what a merge wants to know besides, by group of units: one number a unit, see
            ``merging.neurons``.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(20, 10)), density=0.2)
    >>> update = Update.of(model, round=3, client="a", examples=100)
    >>> update.nnz, list(update.dense)
    (40, ['0.bias'])
    """

    round: int
    client: str
    examples: int
    layers: Mapping[str, Entries]
    dense: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        round: int,
        client: str,
        examples: int,
        statistics: Mapping[str, Tensor] | None = None,
    ) -> Update:
        """Copies of what the model holds now, on the CPU."""
        layers, dense = parts_of(model)
        copies = {
            n: Entries(e.index.cpu().clone(), e.values.detach().cpu().clone()) for n, e in layers.items()
        }
        rest = {n: t.detach().cpu().clone() for n, t in dense.items()}
        told = {n: t.detach().cpu() for n, t in (statistics or {}).items()}
        return cls(round, client, examples, copies, rest, told)

    @property
    def nnz(self) -> int:
        """Connections in all sparse weights."""
        return sum(entries.index.numel() for entries in self.layers.values())

    def topology(self, plan: Plan) -> Topology:
        """The positions alone."""
        return Topology({n: (plan.sparse[n].shape, e.index) for n, e in self.layers.items()})

    @torch.no_grad()
    def put(self, model: nn.Module) -> nn.Module:
        """Fill a model of the same architecture, in place; its Parameters stay the same objects. Returns it.

        Raises:
            MismatchError: the model has other tensors, or other shapes.
            InputError: positions unsorted, duplicated or out of range.
        """
        Plan.of(model).check(self)
        layers, dense = parts_of(model)
        modules = dict(model.named_modules())
        for name in layers:
            weight = modules[name]
            assert isinstance(weight, SparseWeight)
            weight.replace(self.layers[name].index, self.layers[name].values)
        for name, tensor in dense.items():
            tensor.copy_(self.dense[name])
        return model


class Place(NamedTuple):
    """Shape and type of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Number of positions."""
        return positions.numel(self.shape)


@dataclass(frozen=True)
class Plan:
    """What an architecture consists of: what updates are read by, and measured against.

    Attributes:
        sparse: the sparse weights, by name.
        dense: every other entry of the state dict.
        spec: what the model is built from, where that is known.
    """

    sparse: Mapping[str, Place]
    dense: Mapping[str, Place]
    spec: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Plan:
        """The plan of a model, whatever its topology."""
        layers, dense = parts_of(model)
        weights = dict(model.named_modules())
        spec = getattr(model, "spec", None)
        return cls(
            {n: Place(tuple(weights[n].shape), e.values.dtype) for n, e in layers.items()},
            {n: Place(tuple(t.shape), t.dtype) for n, t in dense.items()},
            spec if isinstance(spec, Mapping) else None,
        )

    @property
    def fingerprint(self) -> bytes:
        """8 bytes that two architectures share only if they are the same: names, shapes, types and spec."""
        told = [
            [[n, list(p.shape), str(p.dtype)] for n, p in part.items()] for part in (self.sparse, self.dense)
        ]
        text = json.dumps([told, self.spec], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    def check(self, update: Update) -> None:
        """Raise MismatchError unless the update has exactly these tensors, in these shapes."""
        for kind, mine, theirs in (
            ("sparse weight", self.sparse, update.layers), ("tensor", self.dense, update.dense),
        ):  # fmt: skip
            for name in sorted({*mine, *theirs}):
                if name not in mine or name not in theirs:
                    has, lacks = ("update", "model") if name in theirs else ("model", "update")
                    raise MismatchError(
                        f"the {has} has the {kind} '{name}', but the {lacks} has not: both must share one "
                        "architecture"
                    )
        for name, entries in update.layers.items():
            if entries.values.shape != entries.index.shape or entries.index.ndim != 1:
                raise MismatchError(
                    f"'{name}' comes with {tuple(entries.index.shape)} positions and "
                    f"{tuple(entries.values.shape)} values: one value is needed for each position"
                )
        for name, tensor in update.dense.items():
            place = self.dense[name]
            if tuple(tensor.shape) != place.shape:
                raise MismatchError(
                    f"'{name}' has shape {tuple(tensor.shape)} in the update, but {place.shape} in the model"
                )
            if tensor.is_floating_point() != place.dtype.is_floating_point:
                raise MismatchError(
                    f"'{name}' is {tensor.dtype} in the update, but {place.dtype} in the model"
                )


def parts_of(model: nn.Module) -> tuple[dict[str, Entries], dict[str, Tensor]]:
    """The model's sparse weights and every other tensor of its state, as they are: no copies."""
    weights = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    inside = {f"{n}.{part}" for n in weights for part in ("index", "values")}
    layers = {n: Entries(w.index, w.values) for n, w in weights.items()}
    rest = model.state_dict(keep_vars=True)
    return layers, {n: t for n, t in rest.items() if n not in inside and isinstance(t, Tensor)}


def topology_of(model: nn.Module) -> Topology:
    """The topology of a model, which has no weight where the model is dense."""
    weights = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    return Topology({n: (tuple(w.shape), w.index) for n, w in weights.items()})
