"""Which connections lie on a path from input to output, which layers died, which outputs are cut off."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from regraft import signals
from regraft.errors import InputError
from regraft.probe import Probe
from regraft.prune import candidates
from regraft.topology import Topology
from regraft.weight import SparseWeight

REMEDY = (
    "keep some connections in each layer with a floor, prune layer by layer or in more shots, or take a "
    "score that sees paths, such as synflow"
)


@dataclass(frozen=True)
class LayerPaths:
    """One weight: how many connections it has, and how many of them carry something.

    Attributes:
        name: of the weight.
        shape: its dense shape.
        kept: connections.
        effective: connections on a path from an input of the network to an output.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    effective: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    @property
    def density(self) -> float:
        """kept / size."""
        return self.kept / self.size if self.size else 0.0

    @property
    def effective_density(self) -> float:
        """effective / size."""
        return self.effective / self.size if self.size else 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name, "shape": list(self.shape), "size": self.size, "kept": self.kept,
            "density": self.density, "effective": self.effective,
            "effective_density": self.effective_density,
        }  # fmt: skip


@dataclass(frozen=True)
class Connectivity:
    """What ``connectivity`` finds.

    Attributes:
        layers: each sparse weight, in order.
        topology: the connections on a path from an input to an output.
        outputs: number of outputs.
        unreachable: outputs that no input reaches, increasing; of a classifier, classes that it predicts by
            their biases alone.
    """

    layers: tuple[LayerPaths, ...]
    topology: Topology
    outputs: int
    unreachable: tuple[int, ...]

    @property
    def kept(self) -> int:
        """Connections in all."""
        return sum(layer.kept for layer in self.layers)

    @property
    def size(self) -> int:
        """Positions in all."""
        return sum(layer.size for layer in self.layers)

    @property
    def density(self) -> float:
        """kept / size."""
        return self.kept / self.size if self.size else 0.0

    @property
    def effective_density(self) -> float:
        """Connections on a path, as a share of all positions."""
        return self.topology.density

    @property
    def empty(self) -> tuple[str, ...]:
        """Weights without any connection."""
        return tuple(layer.name for layer in self.layers if not layer.kept)

    @property
    def cut(self) -> tuple[str, ...]:
        """Weights that have connections, none of them on a path."""
        return tuple(layer.name for layer in self.layers if layer.kept and not layer.effective)

    def faults(self) -> tuple[str, ...]:
        """A sentence for each thing that died, with the remedy; empty where all is well."""
        said = []
        if self.empty:
            said.append(f"no connection is left in {_listed(self.empty)}")
        if self.cut:
            said.append(f"no connection of {_listed(self.cut)} lies on a path from an input to an output")
        if self.unreachable:
            said.append(
                f"no input reaches {len(self.unreachable)} of {self.outputs} outputs "
                f"({_numbers(self.unreachable)}): the network can predict them by their biases alone"
            )
        return tuple(f"{sentence}; {REMEDY}" for sentence in said)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "size": self.size, "kept": self.kept, "density": self.density,
            "effective": self.topology.nnz, "effective_density": self.effective_density,
            "empty_layers": list(self.empty), "cut_layers": list(self.cut), "outputs": self.outputs,
            "unreachable_outputs": list(self.unreachable), "layers": [x.plain() for x in self.layers],
        }  # fmt: skip


def connectivity(model: nn.Module, input_shape: Sequence[int] | None = None) -> Connectivity:
    """The effective density: connections that lie on a path from an input to an output.

    A connection is effective where the network, made linear and positive (see ``signals.Flow``), sends
    something through it: its topology decides, not its value. Convolutions, pooling, normalisation and
    residual connections are followed as they compute; what a layer adds by its bias is no path from an input.
    A batch normalisation whose scale is exactly 0, and a dense weight that is, block a path. (The notion is
    that of Vysogorets and Kempe 2021, arXiv:2107.02306.) Nothing of the model is changed.

    Args:
        input_shape: shape of one sample; default: what the model's ``spec`` or its first Linear layer says.

    >>> from regraft import sparsify
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> topology = Topology({"0.weight": ((2, 2), torch.tensor([0, 2])),
    ...                      "2.weight": ((2, 2), torch.tensor([1]))})
    >>> found = connectivity(sparsify(model, topology=topology))
    >>> [(layer.kept, layer.effective) for layer in found.layers], found.unreachable
    ([(2, 1), (1, 1)], (1,))

    Raises:
        InputError: no weight that is or could be sparse, or an input shape that is not known.
        MismatchError: the model cannot take such an input.
    """
    copied, weights = candidates(model)
    shape = input_shape_of(model) if input_shape is None else tuple(input_shape)
    reached: list[Tensor] = []
    hook = copied.register_forward_hook(lambda _module, _input, output: reached.append(output))
    try:
        with _PoolsAverage():
            flow = signals.flow(copied, Probe(input_shape=shape), values=_evened(weights))
    finally:
        hook.remove()
    index = {n: w.index[flow[n] > 0] for n, w in weights.items()}
    effective = Topology({n: (tuple(w.shape), index[n]) for n, w in weights.items()})
    layers = tuple(LayerPaths(n, tuple(w.shape), w.nnz, int(effective[n].nnz)) for n, w in weights.items())
    arrived = reached[0].detach().reshape(reached[0].shape[0], -1)[0]
    return Connectivity(
        layers, effective, arrived.numel(), tuple((arrived == 0).nonzero().squeeze(1).tolist())
    )


def input_shape_of(model: nn.Module) -> tuple[int, ...]:
    """Shape of one sample, from the model's ``spec`` or from its first layer.

    >>> input_shape_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    (12,)

    Raises:
        InputError: neither says.
    """
    spec = getattr(model, "spec", None)
    if isinstance(spec, dict) and "input" in spec:
        return tuple(spec["input"])
    if isinstance(spec, dict) and "sizes" in spec:
        return (spec["sizes"][0],)
    if isinstance(model, nn.Sequential):
        first = next((m for m in model if not isinstance(m, nn.Flatten | nn.Identity | nn.Dropout)), None)
        weight = getattr(first, "weight", None)
        if isinstance(weight, Tensor | SparseWeight) and len(weight.shape) == 2:
            return (weight.shape[1],)
    raise InputError(
        f"the shape of a sample is not known for this {type(model).__name__}: pass input_shape=, such as "
        "(3, 32, 32)"
    )


def _evened(weights: dict[str, SparseWeight]) -> dict[str, Tensor]:
    """Equal values for all connections of a layer, one over its mean fan-in, so that flows through deep
    networks neither vanish nor overflow: float64 then tells paths from none."""
    return {
        n: torch.full_like(w.values.detach(), w.shape[0] / max(w.nnz, 1), dtype=torch.float64)
        for n, w in weights.items()
    }


class _PoolsAverage(TorchFunctionMode):
    """Max pooling passes all that enters a window, not only the largest: any of them may be that."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _WINDOWS:
            return _window(_WINDOWS[func], *args, **kwargs)
        if func in _ADAPTIVE:
            return _ADAPTIVE[func](*args, **{k: v for k, v in kwargs.items() if k != "return_indices"})
        return func(*args, **kwargs)


def _window(
    average: Callable[..., Tensor],
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    spread = dilation if isinstance(dilation, int) else max(dilation)
    if spread != 1:
        raise InputError("paths through a dilated max pooling cannot be followed: dilation must be 1")
    return average(input, kernel_size, stride or kernel_size, padding, ceil_mode)


_WINDOWS: dict[Any, Callable[..., Tensor]] = {
    F.max_pool1d: F.avg_pool1d, torch.max_pool1d: F.avg_pool1d,
    F.max_pool2d: F.avg_pool2d, torch.max_pool2d: F.avg_pool2d,
    F.max_pool3d: F.avg_pool3d, torch.max_pool3d: F.avg_pool3d,
}  # fmt: skip
_ADAPTIVE: dict[Any, Callable[..., Tensor]] = {
    F.adaptive_max_pool1d: F.adaptive_avg_pool1d,
    F.adaptive_max_pool2d: F.adaptive_avg_pool2d,
    F.adaptive_max_pool3d: F.adaptive_avg_pool3d,
}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _numbers(found: Sequence[int], most: int = 10) -> str:
    more = ", ..." if len(found) > most else ""
    return ", ".join(map(str, found[:most])) + more
