"""REPAIR: the activations of a merged network are spread as its parents' are (Jordan et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.graph import Graph, trace
from regraft.layers import SPARSE_TYPE, SparseLayer
from regraft.merging.moments import Batches, Moments, feeding, inputs_of, pooled
from regraft.merging.networks import ModelNetwork, check_same
from regraft.merging.norms import batch_norms, set_statistics

M = TypeVar("M", bound=nn.Module)

LEAST = 1e-6
"""A spread below this share of a unit's size is taken for rounding: such a unit is constant."""


@torch.no_grad()
def repair(merged: M, parents: Sequence[nn.Module], batches: Batches, *, graph: Graph | None = None) -> M:
    """A copy of a merged network in which each hidden unit's pre-activation has the mean and the standard
    deviation that it has in the parents on average (REPAIR, Jordan et al. 2022, arXiv:2211.08403).

    Averaging weights that do not agree shrinks the variance of the activations, and the more so the deeper
    the layer; with five parents or sparse ones little is left. For each unit u of a layer of free units:

        w_u <- s_u w_u,    b_u <- s_u (b_u - E[z_u]) + mean_i E[z_u of parent i]
        s_u = mean_i std(z_u of parent i) / std(z_u)

    so the network stays a plain one of its architecture, and sparse weights keep their topology. Layers are
    taken in the order in which the model calls them, each after those before it have been repaired. A layer
    that feeds a batch normalisation directly is left alone, since that undoes any scale and shift; the batch
    normalisation's running statistics are measured anew instead, as ``reestimate_norms`` does. A unit that is
    constant, such as one without connections, is only shifted.

    Args:
        merged: the network to repair, dense or sparse; left as it was.
        parents: the networks that it was merged from, in the order of units in which they were merged (the
            aligned ones, if they were aligned); left as they were.
        batches: inputs ``[n, ...]``, or pairs of inputs and labels, as a loader gives them.
        graph: the groups of units; default: ``graph.trace(merged)``.

    >>> from regraft import merge
    >>> parents = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(5)]
    >>> x = torch.randn(100, 4)
    >>> merged = merge(parents, "average")
    >>> repaired = repair(merged, parents, [x])
    >>> def spread(model):
    ...     return model[0](x).std(0).mean().item()
    >>> wanted = sum(map(spread, parents)) / 5
    >>> spread(merged) < 0.8 * wanted, round(spread(repaired) / wanted, 3)
    (True, 1.0)

    Raises:
        InputError: no parent, no batch, nothing to repair, a layer without a bias, a model that cannot be
            traced, or samples or activations that are NaN or infinite.
        MismatchError: networks of different architectures, or batches that they do not take.
    """
    inputs = inputs_of(batches, "repairing a network")
    _check_parents(merged, parents)
    network = copy.deepcopy(merged)
    graph = trace(network, tuple(inputs[0].shape[1:])) if graph is None else graph
    norms = batch_norms(network)
    layers = _hidden_layers(network, graph)
    for name in feeding(network, layers, inputs[0][:2]):
        del layers[name]
    _check_layers(network, layers, norms)
    spread = [pooled(parent, layers, inputs) for parent in parents]
    for name in pooled(network, {**layers, **norms}, inputs[:1]):
        now = pooled(network, [name], inputs)[name]
        if name in norms:
            set_statistics(name, norms[name], now, len(inputs))
        else:
            _match(layers[name], now, [each[name] for each in spread])
    return network


def _check_parents(merged: nn.Module, parents: Sequence[nn.Module]) -> None:
    if isinstance(parents, nn.Module) or not parents:
        raise InputError("repair needs a list of the networks that were merged: repair(merged, [a, b], ...)")
    first = ModelNetwork(merged, f"the merged network ({type(merged).__name__})")
    for number, parent in enumerate(parents, 1):
        check_same(first, ModelNetwork(parent, f"parent {number} ({type(parent).__name__})"))


def _hidden_layers(network: nn.Module, graph: Graph) -> dict[str, nn.Module]:
    """The linear and convolutional layers that make units of free groups, by module name."""
    slots = [slot for group in graph.free for slot in group.of_kind("make", "through")]
    found = {slot.module: network.get_submodule(slot.module) for slot in slots if slot.axis == 0}
    return {n: m for n, m in found.items() if type(m) in SPARSE_TYPE or isinstance(m, SparseLayer)}


def _check_layers(network: nn.Module, layers: Mapping[str, nn.Module], norms: Collection[str]) -> None:
    if not layers and not norms:
        raise InputError(f"the {type(network).__name__} has no hidden layer, so there is nothing to repair")
    for name, layer in layers.items():
        if layer.bias is None:
            raise InputError(
                f"'{name}' has no bias, but repair must shift its units: build the networks with biases, or "
                "with batch normalisation right after the layer"
            )


def _match(layer: nn.Module, now: Moments, parents: Sequence[Moments]) -> None:
    """Scale and shift a layer's units from their own moments to the parents' mean ones."""
    wanted = torch.stack([p.variance().sqrt() for p in parents]).mean(0)
    centre = torch.stack([p.mean for p in parents]).mean(0)
    spread = now.variance().sqrt()
    varies = spread > LEAST * (now.mean.abs() + wanted)
    scale = torch.where(varies, wanted / spread, 1.0)
    bias, weight = layer.bias, layer.weight
    assert isinstance(bias, Tensor)
    # written so that a unit which is spread as it should be keeps its bias bit for bit
    bias.copy_(scale * bias.double() + (centre - scale * now.mean))
    if isinstance(layer, SparseLayer):
        layer.weight.values.mul_(scale[layer.weight.rows()])
    else:
        assert isinstance(weight, Tensor)
        weight.mul_(scale.view(-1, *[1] * (weight.ndim - 1)))
