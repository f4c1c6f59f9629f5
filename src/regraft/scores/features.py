"""What a learned score knows about one connection: other scores, and its place in the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regraft.errors import InputError, unknown
from regraft.layers import SparseLinear
from regraft.layers.modules import SparseLayer, input_units, sparse_layers
from regraft.probe import Probe
from regraft.scores.named import SCORES
from regraft.scores.protocol import Vectors, weights_of
from regraft.signals import substitute
from regraft.signals.protocol import active_of, values_of

FOUR = ("magnitude", "snip", "grasp", "synflow")
"""The scores that thesis 5 learns from (section 5.2)."""

UNITS = ("input-max", "output-max", "input-mean", "output-mean")
PLACE = ("weight", "layer-norm", *UNITS)

TEN = (*FOUR, *PLACE)
"""Those of thesis 5, appendix B: also the weight, the Frobenius norm of its layer, and the largest and the
mean activation of its input and output unit."""


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple.

    Raises:
        InputError: none, an unknown one, or one twice.
    """
    known = (*(n for n in SCORES if n != "random"), *PLACE)
    for name in names:
        if name not in known:
            raise unknown("feature", name, known)
    if not names or len(set(names)) < len(names):
        raise InputError(f"features are {list(names)}, but must be one or more different names")
    return tuple(names)


def features(
    model: nn.Module,
    probe: Probe | None = None,
    names: Sequence[str] = FOUR,
    *,
    values: Vectors | None = None,
    active: Vectors | None = None,
) -> dict[str, Tensor]:
    """One row of features per connection: {weight name: [nnz, len(names)]}, float64, each feature scaled to
    [0, 1] over the whole network (all 0 where it is the same everywhere).

    An output unit's activation is what its layer puts out, before any nonlinearity; a unit of a convolution
    is a channel, over all places of the image.

    >>> from regraft import SparseLinear, SparseWeight
    >>> model = SparseLinear(SparseWeight((1, 3), torch.arange(3), torch.tensor([1.0, -3.0, 2.0])), None)
    >>> features(model, names=["magnitude", "weight"])["weight"].tolist()
    [[0.0, 0.8], [1.0, 0.0], [0.5, 1.0]]

    Raises:
        InputError: an unknown feature; what a score needs and the probe lacks; a sparse weight that belongs
            to no layer of regraft, for the features of units.
    """
    names = check_names(names)
    weights = weights_of(model)
    own = values_of(weights, values)
    units = _units(model, probe or Probe(), values, active) if set(UNITS) & set(names) else {}
    columns: dict[str, Vectors] = {}
    for name in names:
        if name == "weight":
            columns[name] = own
        elif name == "layer-norm":
            columns[name] = {n: v.double().norm().expand(v.shape) for n, v in own.items()}
        elif name in UNITS:
            columns[name] = {n: units[n][name] for n in weights}
        else:
            columns[name] = SCORES[name](model, probe, values=values, active=active)
    scaled = [unit_range(columns[name]) for name in names]
    return {n: torch.stack([column[n] for column in scaled], 1) for n in weights}


def unit_range(vectors: Vectors) -> dict[str, Tensor]:
    """Numbers moved and scaled to [0, 1] over all vectors together, float64; 0 where all are equal.

    Raises:
        InputError: NaN or infinite numbers.
    """
    wide = {n: v.detach().double() for n, v in vectors.items()}
    there = [v for v in wide.values() if v.numel()]
    low = min((float(v.min()) for v in there), default=0.0)
    high = max((float(v.max()) for v in there), default=0.0)
    if not all(bool(v.isfinite().all()) for v in there):
        raise InputError(
            "features or targets are NaN or infinite: look for a loss or input that is not finite"
        )
    return {n: (v - low) / (high - low) if high > low else torch.zeros_like(v) for n, v in wide.items()}


@dataclass
class _Seen:
    """Largest and mean activation of each unit, batch after batch."""

    largest: Tensor | None = None
    total: Tensor | float = 0.0
    count: int = 0

    def add(self, x_NU: Tensor) -> None:
        top = x_NU.amax(0)
        self.largest = top if self.largest is None else torch.maximum(self.largest, top)
        self.total = self.total + x_NU.sum(0)
        self.count += len(x_NU)


def _units(
    model: nn.Module, probe: Probe, values: Vectors | None, active: Vectors | None
) -> dict[str, dict[str, Tensor]]:
    """The features of units, per connection: {weight name: {feature: [nnz]}}."""
    weights = weights_of(model)
    layers = {f"{n}.weight" if n else "weight": layer for n, layer in sparse_layers(model).items()}
    for name in weights:
        if name not in layers:
            raise InputError(
                f"'{name}' belongs to no layer of regraft, so its units' activations are not known"
            )
    masks = active_of(weights, active)
    stand = values_of(weights, values)
    if masks is not None:
        stand = {n: v * masks[n] for n, v in stand.items()}
    _, buffers = substitute.others(model)
    tensors = {n: b.clone() for n, b in buffers.items()}
    tensors |= {f"{n}.values": v.to(weights[n].values.dtype) for n, v in stand.items()}
    seen = {n: (_Seen(), _Seen()) for n in weights}
    with torch.no_grad(), substitute.evaluation(model), _watched(layers, seen):
        for x, _ in probe.require_batches("the activation of units"):
            like = next(iter(stand.values()))
            substitute.run(model, tensors, x.to(like.device, weights[next(iter(weights))].values.dtype))
    found = {}
    for name, layer in layers.items():
        before, after = seen[name]
        if before.largest is None or after.largest is None:
            raise InputError(
                f"the layer of '{name}' is not used by the model, so its units have no activation"
            )
        inputs, outputs = input_units(layer), layer.weight.rows()
        found[name] = {
            "input-max": before.largest[inputs], "output-max": after.largest[outputs],
            "input-mean": (before.total / before.count)[inputs],  # type: ignore[index]
            "output-mean": (after.total / after.count)[outputs],  # type: ignore[index]
        }  # fmt: skip
    return found


@contextmanager
def _watched(layers: dict[str, SparseLayer], seen: dict[str, tuple[_Seen, _Seen]]) -> Iterator[None]:
    """Every pass through a layer adds to what was seen of its units."""

    def watch(name: str, layer: SparseLayer) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name][0].add(_flat(inputs[0], layer))
            seen[name][1].add(_flat(output, layer))

        return layer.register_forward_hook(hook)

    handles = []
    try:
        handles += [watch(name, layer) for name, layer in layers.items()]
        yield
    finally:
        for handle in handles:
            handle.remove()


def _flat(x: Tensor, layer: SparseLayer) -> Tensor:
    """Activations as [places, units], float64."""
    if isinstance(layer, SparseLinear):
        return x.detach().double().reshape(-1, x.shape[-1])
    channel = x.ndim - (len(layer.weight.shape) - 1)
    return x.detach().double().movedim(channel, -1).reshape(-1, x.shape[channel])
