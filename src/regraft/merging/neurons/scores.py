"""How much a unit matters: (model, graph, probe) -> {group name: one number a unit}, higher is kept."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from regraft.errors import unknown
from regraft.graph import Graph, Kind, Slot, activations
from regraft.graph.rebuild import Sparse, strides, tensors_of
from regraft.merging.moments import Moments
from regraft.probe import Probe


class UnitScore(Protocol):
    """``(model, graph, probe) -> {name of each free group: scores [units]}``. The model is left as it was."""

    def __call__(self, model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]: ...


def activity(model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]:
    """Standard deviation of the unit's activation times the norm of its outgoing weights.

    It is how much of what the next layers see changes with the unit; a constant unit has 0, however strong
    its weights. Scaling a ReLU unit by c and its outgoing weights by 1/c does not change it.

    Args:
        probe: batches of the network's own data; for maps, positions count as samples.

    >>> from regraft.graph import trace
    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> _ = model[2].weight.data.copy_(torch.tensor([[2.0, 2.0]]))
    >>> probe = Probe(batches=[(torch.tensor([[0.0], [1.0]]), torch.zeros(2))])
    >>> activity(model, trace(model), probe)["0"].tolist()  # the second unit is silent on positive inputs
    [1.0, 0.0]

    Raises:
        InputError: no batch, or activations that are NaN or infinite.
        MismatchError: the model does not take the batches.
    """
    batches = (Probe() if probe is None else probe).require_batches("the score 'activity'")
    moments: dict[str, Moments] = {}
    for x, _ in batches:
        for name, values in activations(model, graph, x.to(next(model.parameters()).device)).items():
            none = Moments.none(values.shape[1], values.device)
            moments.setdefault(name, none).add(values)
    norms = outgoing(model, graph)
    return {name: moments[name].variance().sqrt() * norm for name, norm in norms.items()}


def outgoing(model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]:
    """Norm of the unit's outgoing weights: what is left of ``activity`` where there is no data."""
    return _norms(model, graph, ("read",))


def magnitude(model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]:
    """Norm of the unit's incoming and outgoing weights together, as in Neuron Transplantation (Öz et al.
    2025, arXiv:2502.06849), which concatenates networks and prunes units by it."""
    return _norms(model, graph, ("make", "read"))


def random(model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]:
    """The control: uniform numbers.

    Raises:
        InputError: the probe has no generator.
    """
    generator = (Probe() if probe is None else probe).require_generator("the score 'random'")
    return {
        group.name: torch.rand(group.units, generator=generator, device=generator.device)
        for group in graph.free
    }


UNIT_SCORES: dict[str, UnitScore] = {
    "activity": activity, "outgoing": outgoing, "magnitude": magnitude, "random": random,
}  # fmt: skip


def by_name(name: str) -> UnitScore:
    """The unit score called ``name``, or an error with the nearest names."""
    if name not in UNIT_SCORES:
        raise unknown("unit score", name, UNIT_SCORES)
    return UNIT_SCORES[name]


@torch.no_grad()
def _norms(model: nn.Module, graph: Graph, kinds: tuple[Kind, ...]) -> dict[str, Tensor]:
    """Euclidean norm of each unit's weights in the slots of these kinds, float64."""
    tensors = tensors_of(model)
    return {
        group.name: torch.stack(
            [_squares(tensors[slot.tensor], slot, group.units) for slot in group.of_kind(*kinds)]
        )
        .sum(0)
        .sqrt()
        for group in graph.free
    }


def _squares(tensor: Tensor | Sparse, slot: Slot, units: int) -> Tensor:
    """Sum of the squared values of each unit in one slot, float64 [units]."""
    last = slot.offset + units * slot.repeat
    if isinstance(tensor, Tensor):
        own = tensor.movedim(slot.axis, 0)[slot.offset : last].reshape(units, -1)
        return own.double().square().sum(1)
    stride, size = strides(tensor.shape)[slot.axis], tensor.shape[slot.axis]
    at = torch.div(tensor.index, stride, rounding_mode="floor") % size
    inside = (at >= slot.offset) & (at < last)
    unit = torch.div(at[inside] - slot.offset, slot.repeat, rounding_mode="floor")
    total = torch.zeros(units, dtype=torch.float64, device=unit.device)
    return total.index_add_(0, unit, tensor.values[inside].double().square())
