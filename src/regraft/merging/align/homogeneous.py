"""Where a network lets its units be scaled: ``scalable`` reads it from the traced computation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from regraft.graph.tracing import traced
from regraft.layers import SparseLayer
from regraft.models.resnet import Subsample

_LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, SparseLayer)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOMOGENEOUS = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.ReLU, nn.LeakyReLU, nn.PReLU,
    nn.RReLU, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d, nn.ReplicationPad1d, nn.ReplicationPad2d,
    nn.ReplicationPad3d, nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d, nn.Upsample, nn.Flatten,
    nn.Unflatten, Subsample,
)  # fmt: skip
_HOMOGENEOUS_CALLS = {
    "relu", "relu_", "leaky_relu", "dropout", "dropout1d", "dropout2d", "dropout3d", "max_pool1d",
    "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "boolean_dispatch", "contiguous", "clone", "flatten", "view", "reshape",
    "squeeze", "unsqueeze", "unflatten", "permute", "transpose", "add", "iadd", "sub", "isub", "cat",
    "concat", "getitem", "chunk", "split",
}  # fmt: skip


@dataclass(eq=False)
class Scalable:
    """Activations whose units can be scaled by positive factors together, each unit by its own.

    Attributes:
        makers: modules that make them (linear layers, normalisation): their units are multiplied.
        readers: modules that read them: linear layers divide; a batch normalisation's statistics follow.
        blocked: what does not let them be scaled, or None.
    """

    makers: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)
    blocked: str | None = None


def scalable(model: nn.Module, input_shape: Sequence[int]) -> list[Scalable]:
    """The activations of a network, those together that can only be scaled together.

    Linear layers and batch normalisations end one and begin another. ReLU, leaky ReLU, pooling, changes of
    shape, additions and concatenations commute with a positive factor on each unit, and so does attention
    with factors on its values; whatever else works on an activation (tanh, sigmoid, GELU, layer norm, ...)
    blocks it, as the network's ends do.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    >>> for found in scalable(model, (3,)):
    ...     print(sorted(found.makers), sorted(found.readers), found.blocked)
    [] ['0'] the network's input
    ['0'] ['2'] None
    ['2'] [] Tanh
    [] ['4'] Tanh
    ['4'] [] the network's output

    Raises:
        InputError: the model cannot be traced.
        MismatchError: the model does not take samples of ``input_shape``.
    """
    module = traced(model, input_shape, leaves=(Subsample,), purpose="be scaled")
    walk = _Walk(dict(module.named_modules()))
    for node in module.graph.nodes:
        walk.visit(node)
    return walk.distinct()


class _Walk:
    """The activations met so far; ``find`` gives the one that a node's became part of."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self._modules = modules
        owners: dict[int, set[str]] = {}
        for name, module in modules.items():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), set()).add(name)
        self._tied = {name for names in owners.values() if len(names) > 1 for name in names}
        self._of: dict[fx.Node, Scalable] = {}
        self._became: dict[Scalable, Scalable] = {}
        self._read_by: dict[str, Scalable] = {}
        self._made_by: dict[str, Scalable] = {}
        self._all: list[Scalable] = []

    def visit(self, node: fx.Node) -> None:
        inputs = [self._find(self._of[n]) for n in node.all_input_nodes if n in self._of]
        if node.op == "output":
            self._block(inputs, "the network's output")
        elif "shape" not in node.meta and "shapes" not in node.meta:
            pass  # a size or another number
        elif node.op == "placeholder":
            self._of[node] = self._new(blocked="the network's input")
        elif node.op == "get_attr":
            self._of[node] = self._new(blocked="a parameter of its own")
        elif node.op == "call_module":
            self._of[node] = self._module(str(node.target), inputs)
        else:
            self._of[node] = self._call(node, inputs)

    def distinct(self) -> list[Scalable]:
        """Those that stand in the end."""
        return [s for s in self._all if s not in self._became]

    def _module(self, name: str, inputs: list[Scalable]) -> Scalable:
        module: Any = self._modules[name]
        if isinstance(module, _HOMOGENEOUS):
            return inputs[0]
        if name in self._tied:
            self._block(inputs, "a parameter that two layers share")
            return self._new(blocked="a parameter that two layers share")
        linear = isinstance(module, _LINEAR)
        kept = isinstance(module, _BATCH_NORM) and module.running_mean is not None and module.affine
        if not linear and not kept:
            self._block(inputs, type(module).__name__)
            made = isinstance(module, nn.LayerNorm | nn.GroupNorm) and module.weight is not None
            return self._end(name) if made else self._new(blocked=type(module).__name__)
        read = self._join([*inputs, self._read_by.get(name, inputs[0])])
        read.readers.add(name)
        self._read_by[name] = read
        return self._end(name)

    def _end(self, name: str) -> Scalable:
        """What a module makes; the same where it is used again."""
        made = self._find(self._made_by[name]) if name in self._made_by else self._new()
        made.makers.add(name)
        self._made_by[name] = made
        return made

    def _call(self, node: fx.Node, inputs: list[Scalable]) -> Scalable:
        target: Any = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        if name == "scaled_dot_product_attention":
            return self._attention(node)
        plain = name in _HOMOGENEOUS_CALLS
        if name in ("add", "iadd", "sub", "isub"):  # of a number: none of two activations
            plain = not any(isinstance(a, int | float) for a in (*node.args, *node.kwargs.values()))
        if name == "mean":
            given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            dims = given if isinstance(given, tuple | list) else (given,)
            rank = len(node.args[0].meta["shape"])  # type: ignore[union-attr]
            plain = all(isinstance(d, int) and d % rank > 1 for d in dims)
        if name == "pad":
            plain = not (node.args[3] if len(node.args) > 3 else node.kwargs.get("value"))
        if plain and inputs:
            return self._join(inputs)
        self._block(inputs, name)
        return self._new(blocked=name)

    def _attention(self, node: fx.Node) -> Scalable:
        """Values pass with their factors; queries and keys meet in a softmax."""
        names = ("query", "key", "value")
        given: list[Any] = [
            node.args[i] if len(node.args) > i else node.kwargs.get(n) for i, n in enumerate(names)
        ]
        met, value = [self._find(self._of[n]) for n in given[:2]], self._find(self._of[given[2]])
        self._block(met, "attention")
        return value

    def _new(self, blocked: str | None = None) -> Scalable:
        self._all.append(Scalable(blocked=blocked))
        return self._all[-1]

    def _find(self, one: Scalable) -> Scalable:
        while one in self._became:
            one = self._became[one]
        return one

    def _join(self, several: Iterable[Scalable]) -> Scalable:
        first, *others = dict.fromkeys(self._find(s) for s in several)
        for other in others:
            first.makers |= other.makers
            first.readers |= other.readers
            first.blocked = first.blocked or other.blocked
            self._became[other] = first
        return first

    def _block(self, several: Iterable[Scalable], why: str) -> None:
        for one in several:
            one.blocked = one.blocked or why
