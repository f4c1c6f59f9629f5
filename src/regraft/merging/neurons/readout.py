"""The last layer in closed form, from sums that each owner of data computes at home."""

from __future__ import annotations

import copy
import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regraft import positions
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, trace
from regraft.kernels.rewiring import random_inactive
from regraft.layers import SparseLinear
from regraft.measure import evaluating
from regraft.merging.neurons.pursuit import pursued
from regraft.merging.neurons.sums import ReadoutSums

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def readout_sums(
    network: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], teacher: nn.Module | None = None
) -> ReadoutSums:
    """The sums of one owner's data: what the network's last layer reads there, and what it should put out.

    Nothing of a sample is left in them but its share of (units + 1)(units + 1 + outputs) sums.

    Args:
        network: ends with a linear layer, dense or sparse.
        batches: pairs of inputs and labels.
        teacher: its outputs are what the network should put out, for example those of ``Ensemble(parents)``;
            None: 1 for the label and 0 for the others.

    Raises:
        InputError: no batch, a network that does not end with a linear layer or cannot be traced, values that
            are NaN or infinite.
    """
    if not batches:
        raise InputError("refitting the last layer needs at least one batch: pass pairs (inputs, labels)")
    shape = tuple(batches[0][0].shape[1:])
    name = last_layer(network, trace(network, shape))
    layer = network.get_submodule(name)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    total: ReadoutSums | None = None
    try:
        with evaluating(network), evaluating(teacher if teacher is not None else nn.Identity()):
            for x, y in batches:
                seen.clear()
                output = network(x)
                if not torch.allclose(output, layer(seen[0]), equal_nan=True):
                    raise InputError(
                        f"the {type(network).__name__} does more to its output after '{name}', its last "
                        "layer: end it there, as cross-entropy on logits wants it"
                    )
                wanted = nn.functional.one_hot(y, output.shape[1]) if teacher is None else teacher(x)
                one = _sums(name, seen[0].double(), wanted.double())
                total = one if total is None else total + one
    finally:
        handle.remove()
    assert total is not None
    if not bool(total.gram.isfinite().all() and total.cross.isfinite().all()):
        raise InputError("activations or outputs are NaN or infinite: a network has diverged")
    return total


def _sums(name: str, read: Tensor, wanted: Tensor) -> ReadoutSums:
    h = torch.cat([read, read.new_ones(len(read), 1)], 1)
    return ReadoutSums(name, len(h), h.T @ h, h.T @ wanted)


def last_layer(network: nn.Module, graph: Graph) -> str:
    """Name of the linear layer that makes the network's outputs.

    Raises:
        InputError: there is none, or several.
    """
    slots = [slot for group in graph if group.fixed is not None for slot in group.of_kind("make")]
    names = list(dict.fromkeys(slot.module for slot in slots))
    if len(names) != 1 or not isinstance(network.get_submodule(names[0]), nn.Linear | SparseLinear):
        raise InputError(
            f"the {type(network).__name__} does not end with one linear layer, so its readout has no closed "
            "form: train it instead"
        )
    return names[0]


@torch.no_grad()
def refit_readout(
    network: M,
    sums: Sequence[ReadoutSums],
    *,
    choose: bool = False,
    ridge: float = 1e-3,
    generator: torch.Generator | None = None,
) -> M:
    """A copy of the network whose last layer's values are those of least squares.

    For each output the weights w and bias on its connections, together v, minimise

        sum ||v^T h - t||^2 + ridge sum_i G_ii (v_i - v_i before)^2,    G = sum h h^T

    so that what the units of a merged network can say together of what their parents said is said, although
    some were cut.

    Args:
        sums: of ``readout_sums``, one or several, which are added up: no owner's samples are seen.
        choose: whether a sparse last layer's connections are chosen anew, as many as there are: one after the
            other the one that lowers the squared error most, after the values so far have been fitted
            (orthogonal matching pursuit, Pati et al. 1993).
        ridge: how strongly values stay where they were, relative to each input's size; positive.
        generator: for the positions of connections that nothing can be said with, which get the value 0.

    >>> a, b = (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double() for _ in range(2))
    >>> b[0].load_state_dict(a[0].state_dict())
    <All keys matched successfully>
    >>> x = torch.randn(50, 4, dtype=torch.float64)
    >>> batches = [(x, torch.zeros(50))]
    >>> like_b = refit_readout(a, [readout_sums(a, batches, teacher=b)], ridge=1e-12)
    >>> torch.allclose(like_b(x), b(x))
    True

    Raises:
        InputError: no sums, a ridge that is not positive, a network that does not end with a linear layer.
        MismatchError: the sums are of another network.
    """
    if not sums:
        raise InputError("refit_readout needs at least one ReadoutSums: see readout_sums")
    if not ridge > 0:
        raise InputError(f"ridge is {ridge!r}, but must be positive; 0.001 is usual")
    total = functools.reduce(operator.add, sums)
    made = copy.deepcopy(network)
    layer: Any = dict(made.named_modules()).get(total.layer)
    shape = tuple(layer.weight.shape) if isinstance(layer, nn.Linear | SparseLinear) else ()
    units, outputs = total.gram.shape[0] - 1, total.cross.shape[1]
    if shape != (outputs, units):
        raise MismatchError(
            f"the sums are of a last layer '{total.layer}' from {units} units to {outputs} outputs, which "
            f"the {type(network).__name__} does not have: take the sums of this network"
        )
    if layer.bias is None:
        total = replace(total, gram=total.gram[:-1, :-1], cross=total.cross[:-1])
    if choose and isinstance(layer, SparseLinear):
        _choose(layer, total, ridge, generator)
    _solve(layer, total, ridge)
    return made


def _choose(layer: SparseLinear, sums: ReadoutSums, ridge: float, generator: torch.Generator | None) -> None:
    """As many connections as there are, the best of all; old ones keep their values, new ones are 0."""
    weight = layer.weight
    chosen = pursued(sums, weight.nnz, layer.bias is not None, ridge)
    seeded = torch.Generator().manual_seed(0) if generator is None else generator
    spare = random_inactive(chosen, weight.size, weight.nnz - chosen.numel(), seeded)
    index = positions.union(chosen, spare).to(weight.index.device)
    fresh = int((~positions.contains(weight.index, index)).sum())
    weight.rewire(index, weight.values.new_zeros(fresh))


def _solve(layer: Any, sums: ReadoutSums, ridge: float) -> None:
    """Put the least squares values into the layer: all rows at once, or each on its own connections."""
    outputs, units = layer.weight.shape
    rows = torch.arange(outputs, device=sums.gram.device)
    if isinstance(layer, nn.Linear):
        _put(layer, layer.weight, rows, torch.arange(units, device=rows.device), sums, ridge)
        return
    columns, counts = layer.weight.columns(), torch.bincount(layer.weight.rows(), minlength=outputs)
    ends = counts.cumsum(0).tolist()
    for row, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
        own = layer.weight.values[start:stop].view(1, -1)
        _put(layer, own, rows[row : row + 1], columns[start:stop], sums, ridge)


def _put(layer: Any, values: Tensor, rows: Tensor, on: Tensor, sums: ReadoutSums, ridge: float) -> None:
    """New values [rows, inputs] for some rows that have their connections ``on`` the same inputs."""
    old = values.double().T
    if layer.bias is not None:
        on = torch.cat([on, on.new_tensor([layer.weight.shape[1]])])
        old = torch.cat([old, layer.bias[rows].double().view(1, -1)])
    new = _least_squares(sums.gram[on][:, on], sums.cross[on][:, rows], old, ridge)
    values.copy_(new[: values.shape[1]].T)
    if layer.bias is not None:
        layer.bias[rows] = new[-1].to(layer.bias)


def _least_squares(gram: Tensor, cross: Tensor, old: Tensor, ridge: float) -> Tensor:
    size = gram.diagonal()
    if not bool((size > 0).any()):
        return old
    hold = (ridge * size.clamp(min=1e-6 * float(size.max()))).diag()  # what is always 0 stays where it was
    solved: Tensor = torch.linalg.solve(gram + hold, cross + hold @ old)
    return solved
