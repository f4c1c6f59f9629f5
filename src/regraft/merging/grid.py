"""Networks merged by every weight rule with every bias rule, and evaluated, with the shared work done once.

For given networks the union of their positions, and the places of each network's entries in it, are found
once for all rules. A weight rule is merged, pruned and compared with the parents once for all bias rules, and
its networks are evaluated together: the first layer's products are the same for all of them, and their
activations pass the other layers side by side. A perceptron without weights (the rule "nothing") gives all
samples one output, which is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.data.split import Split
from regraft.errors import InputError, unknown
from regraft.kernels import backends, plan
from regraft.kernels.layout import ELEMENTWISE
from regraft.layers import SparseLinear
from regraft.merging import combine, keys
from regraft.merging.blocks import merged_pieces
from regraft.merging.combine import RULES, Combine
from regraft.merging.keep import budgets
from regraft.merging.networks import ModelNetwork, layers_of, opened
from regraft.merging.shared import Union

Then = tuple[str, ...]
"""What is done to a merged network, in this order: ``"prune"`` to the mean count of its parents' connections
in each layer, the strongest stay; ``"normalise"`` each unit's incoming weights to length 1."""

STEPS = ("prune", "normalise")
NAMES = tuple(RULES)

# A product with a sparse weight is faster than with the dense one up to this density (a forward pass alone,
# one thread, benchmarks/merging_rate.py --products); training's crossovers are in kernels.dispatch.
CROSSOVER = {"native": 0.5, "numba": 0.2, "csr": 0.15}
SAMPLES = 1000  # at a time, as measure.evaluate


@dataclass(frozen=True)
class Evaluated:
    """One merged network and what it does.

    Attributes:
        weights, biases: the rules.
        then: what was done after merging.
        accuracy: in [0, 1].
        loss: mean cross-entropy, nats.
        density: connections over positions of the sparse weights.
        nnstd: NNSTD to each parent.
    """

    weights: str
    biases: str
    then: Then
    accuracy: float
    loss: float
    density: float
    nnstd: tuple[float, ...]


def merge_grid(
    networks: Sequence[nn.Module],
    test: Split,
    *,
    weights: Sequence[str] = NAMES,
    biases: Sequence[str] = NAMES,
    then: Sequence[Then] = (("prune",),),
    generator: torch.Generator | None = None,
) -> list[Evaluated]:
    """Merge perceptrons by each weight rule with each bias rule and evaluate all that come out.

    Each is, to the rounding of sums, what ``merge(networks, weights, biases, density)`` and
    ``measure.evaluate`` give, with ``density="keep"`` for ``("prune",)`` and None for ``()``.

    Args:
        networks: perceptrons of one architecture as ``models.build("mlp:...")`` makes them, or any
            ``nn.Sequential`` of linear layers and elementwise activations; sparse in some layer.
        test: samples to evaluate on.
        weights, biases: names of rules.
        then: each way to go on after merging gives networks of its own.
        generator: as for ``merge``.

    Returns:
        one for each of ``then``, weight rule and bias rule, in this order.

    >>> from regraft import models, sparsify
    >>> a, b = (sparsify(models.build("mlp:8-6-3"), density=0.5) for _ in range(2))
    >>> test = Split(torch.rand(20, 8), torch.arange(20) % 3)
    >>> found = merge_grid([a, b], test)
    >>> len(found), found[0].weights, found[0].biases, found[0].density
    (25, 'magnitude', 'magnitude', 0.5)

    Raises:
        InputError: a model of another kind, an unknown rule or step, NaN or infinite weights.
        MismatchError: the networks differ in architecture.
    """
    for step in (s for way in then for s in way):
        if step not in STEPS:
            raise unknown("step after merging", step, STEPS)
    chain = _Chain.of(networks[0]) if networks else _Chain()
    seed = keys.draw_seed(generator)
    with opened(networks) as parents:
        models = cast(list[ModelNetwork], parents)
        layers = {layer.name: layer for layer in layers_of(models)}
        counts = budgets(list(layers.values()), "keep") or {}
        if not counts:
            raise InputError(
                "merge_grid compares topologies, but no weight of the networks is sparse: sparsify them, at "
                "density 1 if need be"
            )
        rules = [_rule(name, "weight rule") for name in weights]
        unions = {n: Union.of(layer, models) for n, layer in layers.items() if layer.kind == "weight"}
        merged = {name: union.merged(rules, seed) for name, union in unions.items()}
        offsets = _biases(models, [x for x in chain if isinstance(x, _Linear)], biases, seed)
    test = test.to("cpu")
    inputs = [test.x[i : i + SAMPLES].flatten(1).t().contiguous() for i in range(0, len(test), SAMPLES)]
    found = []
    for way in then:
        for number, rule in enumerate(rules):
            made = {
                name: _Weight.of(union, merged[name][number], way, counts.get(name), seed)
                for name, union in unions.items()
            }
            figures = _evaluate(chain, made, offsets, inputs, test.y)
            sparse = [made[name] for name in counts]
            density = sum(w.index.numel() for w in sparse) / sum(layers[n].size for n in counts)
            nnstd = _nnstd([w.shared for w in sparse])
            found += [
                Evaluated(rule.name, bias, way, accuracy, loss, density, nnstd)
                for bias, (accuracy, loss) in zip(biases, figures, strict=True)
            ]
    return found


def _rule(name: str, kind: str) -> Combine:
    return cast(Combine, combine.by_name(name, kind))


@dataclass(frozen=True)
class _Linear:
    """Names of a linear layer's weight and bias."""

    weight: str
    bias: str | None


class _Chain(list["_Linear | nn.Module"]):
    """The layers of a perceptron in the order in which samples pass them."""

    @classmethod
    def of(cls, model: nn.Module) -> _Chain:
        steps = cls()
        if not isinstance(model, nn.Sequential):
            raise InputError(
                f"merge_grid takes perceptrons (nn.Sequential of linear layers and activations), not a "
                f"{type(model).__name__}: use merge and measure.evaluate for others"
            )
        for name, module in model.named_children():
            if isinstance(module, nn.Linear | SparseLinear):
                steps.append(_Linear(f"{name}.weight", None if module.bias is None else f"{name}.bias"))
            elif type(module) in ELEMENTWISE:
                if not isinstance(module, nn.Dropout | nn.Identity):
                    steps.append(module)
            elif not (isinstance(module, nn.Flatten) and not steps):
                raise InputError(
                    f"merge_grid takes perceptrons, but '{name}' is a {type(module).__name__}: use merge and "
                    "measure.evaluate"
                )
        if not steps or not isinstance(steps[0], _Linear):
            raise InputError("merge_grid takes perceptrons that begin with a linear layer")
        return steps


def _biases(
    networks: Sequence[ModelNetwork], linear: Sequence[_Linear], rules: Sequence[str], seed: int
) -> dict[str, Tensor]:
    """The merged biases of each layer, [out, rules]."""
    layers = {layer.name: layer for layer in layers_of(networks)}
    found = {}
    for name in (x.bias for x in linear if x.bias is not None):
        layer = layers[name]
        pieces = [
            torch.cat([v for _, v in merged_pieces(layer, networks, _rule(rule, "bias rule"), seed=seed)])
            for rule in rules
        ]
        found[name] = torch.stack(pieces, 1)
    return found


@dataclass(frozen=True, eq=False)
class _Weight:
    """One merged weight: positions and values, and what it shares with each parent's."""

    shape: tuple[int, int]
    index: Tensor
    values: Tensor
    shared: list[tuple[int, int]]

    @classmethod
    def of(cls, union: Union, values: Tensor, then: Then, count: int | None, seed: int) -> _Weight:
        index, kept = union.index, None
        rows, cols = union.layer.shape
        for step in then:
            if step == "normalise":
                values = _normalised(index, values, rows, cols)
            elif count is not None and kept is None:
                kept = union.strongest(values, count, seed)
                if kept is not None:
                    index, values = index.index_select(0, kept), values.index_select(0, kept)
        return cls((rows, cols), index, values, union.shared(kept))

    def times(self, x: Tensor) -> Tensor | None:
        """W x: x [in, n] -> [out, n]; None where all values are 0."""
        if not bool(self.values.any()):
            return None
        backend = backends.current()
        if backend is not None and self.values.numel() < CROSSOVER[backend] * self.shape[0] * self.shape[1]:
            walk = plan.build(self.index, *self.shape)
            y = backends.BACKENDS[backend].forward(x.t(), self.values, None, walk, True)
            return cast(Tensor, y).t()
        dense = self.values.new_zeros(self.shape[0] * self.shape[1])
        return dense.scatter_(0, self.index, self.values).view(self.shape) @ x


def _normalised(index: Tensor, values: Tensor, rows: int, cols: int) -> Tensor:
    """Each unit's incoming weights at length 1; units without any, or with zeros alone, as they are."""
    row = torch.div(index, cols, rounding_mode="floor")
    squares = torch.zeros(rows, dtype=torch.float64).index_add_(0, row, values.double().square())
    norms = squares.sqrt_()
    norms[norms == 0] = 1.0
    return (values / norms.index_select(0, row)).to(values.dtype)


def _nnstd(shared: Sequence[list[tuple[int, int]]]) -> tuple[float, ...]:
    """NNSTD to each parent, with the counts summed over the weights."""
    found = []
    for parts in zip(*shared, strict=True):
        both, either = (sum(counts) for counts in zip(*parts, strict=True))
        found.append(1.0 - (both / either if either else 1.0))
    return tuple(found)


@torch.no_grad()
def _evaluate(
    chain: _Chain,
    weights: dict[str, _Weight],
    biases: dict[str, Tensor],
    inputs: Sequence[Tensor],
    labels: Tensor,
) -> list[tuple[float, float]]:
    """Accuracy and mean loss of a weight rule's network with each bias rule's biases."""
    rules = next(iter(biases.values())).shape[1] if biases else 1
    correct = torch.zeros(rules, dtype=torch.int64)
    total = torch.zeros(rules, dtype=torch.float64)
    start = 0
    for x in inputs:
        y = labels[start : start + x.shape[1]].expand(rules, -1)
        outputs = _outputs(chain, weights, biases, x, rules).expand(-1, rules, x.shape[1])
        by_rule = outputs.permute(1, 0, 2)
        correct += (by_rule.argmax(1) == y).sum(1)
        total += F.cross_entropy(by_rule, y, reduction="none").double().sum(1)
        start += x.shape[1]
    n = len(labels)
    return [(c / n, t / n) for c, t in zip(correct.tolist(), total.tolist(), strict=True)]


def _outputs(
    chain: _Chain, weights: dict[str, _Weight], biases: dict[str, Tensor], x: Tensor, rules: int
) -> Tensor:
    """Outputs [classes, rules, n] of samples x [in, n]; an axis is 1 long where nothing differs along it."""
    h = x.unsqueeze(1)  # [units, rules, samples]
    fresh = False  # whether h may be written to
    for step in chain:
        if not isinstance(step, _Linear):
            h = _in_place(step)(h) if fresh else step(h)
            fresh = True
            continue
        w = weights[step.weight]
        z = w.times(h.reshape(h.shape[0], -1))
        h = h.new_zeros(w.shape[0], 1, 1) if z is None else z.view(-1, *h.shape[1:])
        fresh = True
        if step.bias is not None:
            b = biases[step.bias].unsqueeze(2)
            h = h.add_(b) if h.shape[1] == rules else h + b
    return h


def _in_place(step: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same activation, written over its input where torch can."""
    if isinstance(step, nn.Sigmoid):
        return torch.sigmoid_
    return torch.relu_ if isinstance(step, nn.ReLU) else step
