"""``traced``: a model's computation as a torch.fx graph whose nodes know their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLayer
from regraft.signals.substitute import evaluation


class _Tracer(fx.Tracer):
    """Sees a sparse layer as one operation, as it sees torch's own layers."""

    def __init__(self, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self._leaves: tuple[type[nn.Module], ...] = (SparseLayer, *leaves)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name):
            return True
        # a class of one's own that computes what torch's does
        torchs = type(m).forward.__module__.startswith("torch.nn.modules.")
        return torchs and not isinstance(m, nn.Sequential)


class _Shapes(fx.Interpreter):
    """Runs the traced graph once and writes each tensor's shape down."""

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if isinstance(made, Tensor):
            n.meta["shape"] = tuple(made.shape)
        elif isinstance(made, tuple | list) and made and all(isinstance(m, Tensor) for m in made):
            n.meta["shapes"] = [tuple(m.shape) for m in made]
        return made


@torch.no_grad()
def traced(
    model: nn.Module, input_shape: Sequence[int], *, leaves: tuple[type[nn.Module], ...] = (), purpose: str
) -> fx.GraphModule:
    """The computation of ``model`` in evaluation mode on two samples.

    ``node.meta["shape"]`` is the shape of the tensor that a node makes, ``node.meta["shapes"]`` those of a
    tuple of tensors. A model that is itself a single layer becomes the submodule ``"0"``.

    Args:
        input_shape: of one sample, without the batch.
        leaves: modules that are one operation, besides torch's own and sparse layers.
        purpose: for errors: ``"be exported"``, ``"be followed"``.

    Raises:
        InputError: the computation depends on the values of its input, or takes more than one.
        MismatchError: the model does not take samples of ``input_shape``.
    """
    with evaluation(model):
        tracer = _Tracer(leaves)
        # a bare layer would be traced into its own forward
        root = nn.Sequential(model) if tracer.is_leaf_module(model, "") else model
        try:
            graph = tracer.trace(root)
        except (fx.proxy.TraceError, TypeError, NotImplementedError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"the {type(model).__name__} cannot {purpose}, because what it computes depends on the "
                f"values of its input ({first}): take a module whose forward has no such branches"
            ) from error
        if sum(node.op == "placeholder" for node in graph.nodes) != 1:
            raise InputError(
                f"the {type(model).__name__} cannot {purpose}: it takes more than one input, where one was "
                "expected"
            )
        module = fx.GraphModule(tracer.root, graph)
        like = next(model.parameters(), torch.zeros(()))
        try:  # two samples, so that the batch dimension can be told from the others
            _Shapes(module).run(like.new_zeros((2, *input_shape)))
        except (RuntimeError, ValueError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise MismatchError(
                f"the {type(model).__name__} does not take samples of shape {tuple(input_shape)} ({first}): "
                "pass the shape of one sample, without the batch"
            ) from error
    return module


def sample_shape(model: nn.Module, input_shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """``input_shape``, or the shape of one sample that the model's ``spec`` or its first Linear layer says.

    >>> sample_shape(nn.Sequential(nn.Linear(3, 2)))
    (3,)

    Raises:
        InputError: the shape is not known.
    """
    if input_shape is not None:
        return tuple(input_shape)
    spec = getattr(model, "spec", None)
    if isinstance(spec, dict) and "input" in spec:
        return tuple(spec["input"])
    if isinstance(spec, dict) and "sizes" in spec:
        return (spec["sizes"][0],)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            break
        if isinstance(module, nn.Linear):
            return (module.in_features,)
        if isinstance(module, SparseLayer):
            if len(module.weight.shape) != 2:
                break
            return (module.weight.shape[1],)
    raise InputError(
        f"the input shape of the {type(model).__name__} is not known: pass the shape of one sample, as in "
        "input_shape=(1, 28, 28) or --input-shape 1,28,28"
    )
