"""``receptive_fields``: a topology before training in which each unit reads inputs that belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from regraft import select
from regraft.errors import InputError, MismatchError, check_density
from regraft.evolve.named import Patterns
from regraft.probe import Probe
from regraft.prune.candidates import candidates
from regraft.signals.substitute import evaluation
from regraft.topology import Topology
from regraft.weight import SparseWeight

LAST_WIDTH, WIDTH_RATIO = 1.4, 2.0
"""Units of the last hidden layer per connection of a unit, and of each layer per unit of the next: what did
best on LeNet-300-100 at densities of 0.5 and 1 % (docs/results/pruning.md)."""


def receptive_fields(
    model: nn.Module,
    probe: Probe,
    *,
    density: float,
    locality: float = 4.0,
    include: Patterns = ("*",),
    exclude: Patterns = (),
    generator: torch.Generator | None = None,
) -> Topology:
    """Few units, each with the same fan-in, each of the first layer with a field of inputs that vary
    together. The model is not modified, no labels are seen, nothing is trained.

    A score that ranks single connections gives units of very uneven fan-in that read whatever varies most.
    Here the budget first decides how many units a layer keeps (as many connections into each, and widths
    that halve towards the output), then which:

    1. Unit i of the first layer is seeded at the input s(i) = argmax_j w_ij^2 var(x_j), and its connections
       are the fan-in largest of w_ij^2 var(x_j) ``|corr(x_j, x_s(i))|^locality``, over the probe's samples.
    2. Kept are the units whose activations, computed with these connections, vary most; a unit that is 0 for
       every sample goes first.
    3. The next layer does the same with what enters it from the units kept, without a seed. All outputs stay.

    Args:
        model: a chain of Linear layers, each as wide as the next one's input; what lies between them does
            not matter.
        probe: batches of inputs, the more the better the correlations; labels and loss are not used.
        density: share of the positions of all pruned weights that stays, in (0, 1]; the count is exact.
        locality: exponent >= 0 of the correlation; 0 ignores it.
        include, exclude: shell patterns on layer names, as in ``sparsify``.
        generator: decides ties. Default: seed 0.

    >>> from regraft import prune
    >>> g = torch.Generator().manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    >>> topology = prune.receptive_fields(model, Probe(batches=[(torch.randn(99, 64), None)]), density=0.05)
    >>> topology.nnz == round(0.05 * (64 * 50 + 50 * 10))
    True

    Raises:
        InputError: density or locality out of range; fewer connections than outputs; a model that is sparse
            already or no chain of Linear layers; no batches, a single sample, or inputs that are not finite.
        MismatchError: samples that the model cannot take.
    """
    check_density(density)
    if not (math.isfinite(locality) and locality >= 0):
        raise InputError(f"locality is {locality!r}, but must be a finite exponent of 0 or more")
    work, weights = candidates(model, include, exclude)
    _check_chain(weights)
    shapes = [(w.shape[0], w.shape[1]) for w in weights.values()]
    counts = plan(shapes, round(density * sum(w.size for w in weights.values())))
    batches = [x for x, _ in probe.require_batches("receptive_fields")]
    entering = _inputs(work, weights, batches)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    usable = torch.ones(shapes[0][1], dtype=torch.bool)
    following = [*list(weights)[1:], None]
    for (name, weight), fans, (width, _), after in zip(
        weights.items(), counts, shapes, following, strict=True
    ):
        dense = weight.dense().detach()
        share = _share(weight, entering, locality)
        share = share.masked_fill(~usable.to(share.device), -1.0)  # after all that are kept
        worth = share.sum(1)
        if after is not None:
            _cut(weight, dense, _best(share, [max(fans)] * width, generator, name))
            worth = _entering(work, after, batches).var(0, correction=0)
        units = select.top(worth, len(fans), generator, name=f"the units of '{name}'")
        units = units[worth[units].argsort(descending=True, stable=True)]  # the best get what is over
        of_unit = torch.zeros(width, dtype=torch.int64)
        of_unit[units.cpu()] = torch.tensor(fans)
        _cut(weight, dense, _best(share, of_unit.tolist(), generator, name))
        if after is not None:
            usable, locality, entering = of_unit > 0, 0.0, _entering(work, after, batches)
    return Topology({name: (tuple(w.shape), w.index) for name, w in weights.items()})


def plan(shapes: Sequence[tuple[int, int]], connections: int) -> list[list[int]]:
    """Fan-in of each unit that is kept, layer by layer: ``connections`` in all, as even as it goes.

    >>> [(len(fans), min(fans), max(fans)) for fans in plan([(300, 784), (100, 300), (10, 100)], 1331)]
    [(45, 17, 17), (22, 17, 18), (10, 18, 18)]

    Raises:
        InputError: fewer connections than the outputs and one unit of each hidden layer need.
    """
    least = len(shapes) - 1 + shapes[-1][0]
    if connections < least:
        raise InputError(
            f"{connections} connections cannot reach all {shapes[-1][0]} outputs of a network of "
            f"{len(shapes)} layers, which takes {least} at least: raise the density"
        )
    fan = 1
    while (
        fan < max(n for _, n in shapes) and _total(_widths(shapes, fan + 1), shapes, fan + 1) <= connections
    ):
        fan += 1
    widths = _widths(shapes, fan)
    if _total(widths, shapes, fan) > connections:  # less than one connection per unit of the smallest plan
        widths = [1] * (len(shapes) - 1) + [shapes[-1][0]]
    inputs = [shapes[0][1], *widths]
    fans = [[min(fan, n)] * width for width, n in zip(widths, inputs, strict=False)]
    spare = connections - sum(map(sum, fans))
    while spare:  # one more each, from the outputs inwards; then more units
        grown = 0
        for layer in reversed(range(len(fans))):
            for unit in range(len(fans[layer])):
                if grown < spare and fans[layer][unit] < inputs[layer]:
                    fans[layer][unit] += 1
                    grown += 1
        if not grown:
            grown = _another_unit(fans, shapes, inputs, spare)
        spare -= grown
    return fans


def _another_unit(
    fans: list[list[int]], shapes: Sequence[tuple[int, int]], inputs: list[int], spare: int
) -> int:
    """One more unit in the first hidden layer that has room for it; the number of its connections."""
    for layer, (width, _) in enumerate(shapes[:-1]):
        if len(fans[layer]) < width:
            fans[layer].append(min(spare, inputs[layer]))
            inputs[layer + 1] += 1
            return fans[layer][-1]
    raise AssertionError("a density of at most 1 leaves room")  # pragma: no cover


def _widths(shapes: Sequence[tuple[int, int]], fan: int) -> list[int]:
    """Units kept of each layer at this fan-in."""
    widths, wanted = [shapes[-1][0]], LAST_WIDTH * fan
    for width, _ in reversed(shapes[:-1]):
        widths.insert(0, max(1, min(width, round(wanted))))
        wanted *= WIDTH_RATIO
    return widths


def _total(widths: list[int], shapes: Sequence[tuple[int, int]], fan: int) -> int:
    inputs = [shapes[0][1], *widths]
    return sum(width * min(fan, n) for width, n in zip(widths, inputs, strict=False))


def _share(weight: SparseWeight, x: Tensor, locality: float) -> Tensor:
    """What each connection weighs, [out, in]: w^2 var(x), less where x is no companion of the unit's seed."""
    centred = x - x.mean(0)
    variance = (centred**2).mean(0)
    share = weight.dense().detach().double() ** 2 * variance
    if locality == 0:
        return share
    seeds, seed_of = share.argmax(1).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    spread = (variance * x.shape[0]).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
    correlation = (centred[:, seeds].T @ centred).abs() / spread[seeds, None] / spread
    return share * correlation[seed_of] ** locality


def _best(share: Tensor, fans: list[int], generator: torch.Generator, name: str) -> Tensor:
    """Positions of the largest entries of each unit, as many as it has in ``fans`` [out]."""
    chosen = [
        unit * share.shape[1] + select.top(row, fan, generator, name=f"the connections of '{name}'")
        for unit, (row, fan) in enumerate(zip(share, fans, strict=True))
        if fan
    ]
    return torch.cat(chosen)


def _cut(weight: SparseWeight, dense: Tensor, index: Tensor) -> None:
    weight.replace(index, dense.flatten()[index])


@torch.no_grad()
def _entering(model: nn.Module, name: str, batches: Sequence[Tensor]) -> Tensor:
    """What enters the layer of this weight, float64 [samples, in]."""
    seen: list[Tensor] = []
    layer = model.get_submodule(name.rpartition(".")[0])
    hook = layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].detach().double()))
    try:
        with evaluation(model):
            for batch in batches:
                model(batch)
    finally:
        hook.remove()
    return torch.cat(seen).flatten(0, -2)


def _check_chain(weights: Mapping[str, SparseWeight]) -> None:
    before = None
    for name, weight in weights.items():
        if weight.nnz < weight.size:
            raise InputError(
                f"'{name}' is sparse already: receptive_fields chooses among all positions of a dense model"
            )
        if len(weight.shape) != 2 or (before is not None and weight.shape[1] != before):
            raise InputError(
                f"'{name}' of shape {tuple(weight.shape)} does not continue a chain of Linear layers, which "
                "receptive_fields needs: exclude it, or use upfront with the score variance-flow"
            )
        before = weight.shape[0]


def _inputs(model: nn.Module, weights: Mapping[str, SparseWeight], batches: Sequence[Tensor]) -> Tensor:
    """What enters the first layer, if correlations can be had of it."""
    name, features = next((n, w.shape[1]) for n, w in weights.items())
    try:
        x = _entering(model, name, batches)
    except RuntimeError as error:
        raise MismatchError(
            f"the model cannot take samples of shape {tuple(batches[0].shape[1:])}; its first Linear layer "
            f"takes {features} values"
        ) from error
    if x.shape[0] < 2:
        raise InputError(f"correlations need two samples at least, but the probe has {x.shape[0]}")
    if not bool(x.isfinite().all()):
        raise InputError("the probe's inputs are not all finite: look for NaN or infinity in the data")
    return x
