"""A whole step of training of a plain sparse MLP in one call of the compiled kernels.

Forward, loss, backward and SGD with momentum; gradients of two layers at most are in memory at a time. It
works on the very values, biases and momentum buffers of the model and its ``torch.optim.SGD``, so that one
may change between this and the ordinary way from one step to the next.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.kernels import dispatch, native, plan
from regraft.kernels.plan import Plan
from regraft.weight import SparseWeight

ACTIVATIONS: dict[type[nn.Module], int] = {nn.Identity: 0, nn.ReLU: 1, nn.Sigmoid: 2, nn.Tanh: 3}
WIDEST = 8  # vectors in a tile, as in common.h
LOSSES: dict[type[nn.Module], int] = {nn.CrossEntropyLoss: 0, nn.MSELoss: 1}


@dataclass
class _Layer:
    """One linear layer and what follows it."""

    module: nn.Module
    activation: int = 0
    dropout: nn.Dropout | None = None
    full: Plan | None = field(default=None, repr=False)

    @property
    def sparse(self) -> SparseWeight | None:
        weight = self.module.weight
        return weight if isinstance(weight, SparseWeight) else None

    @property
    def values(self) -> nn.Parameter:
        weight = self.sparse
        return cast(nn.Parameter, self.module.weight if weight is None else weight.values)

    @property
    def bias(self) -> nn.Parameter | None:
        return cast(nn.Parameter | None, self.module.bias)

    @property
    def shape(self) -> tuple[int, int]:
        weight = self.sparse
        out, features = self.values.shape if weight is None else weight.shape
        return out, features

    def plan(self) -> Plan:
        weight = self.sparse
        if weight is not None:
            return plan.of(weight)
        if self.full is None:  # a dense layer: every position
            rows, cols = self.shape
            self.full = plan.build(torch.arange(rows * cols), rows, cols)
        return self.full


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return type(module) is nn.Linear or (isinstance(weight, SparseWeight) and len(weight.shape) == 2)


def _layers(model: nn.Module) -> list[_Layer] | str:
    """The layers of a plain MLP, or why the model is none."""
    if type(model) is not nn.Sequential:
        return f"the model is a {type(model).__name__}, not a plain nn.Sequential"
    layers: list[_Layer] = []
    for name, module in model.named_children():
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in module.modules()):
            return f"module '{name}' has hooks"
        if _is_linear(module):
            layers.append(_Layer(module))
        elif type(module) is nn.Flatten and not layers:
            continue
        elif not layers:
            return f"module '{name}' ({type(module).__name__}) comes before the first linear layer"
        elif type(module) in ACTIVATIONS and layers[-1].dropout is None and not layers[-1].activation:
            layers[-1].activation = ACTIVATIONS[type(module)]
        elif type(module) is nn.Dropout and layers[-1].dropout is None:
            layers[-1].dropout = module
        else:
            return f"module '{name}' ({type(module).__name__}) is not a part of a plain MLP"
    if not layers:
        return "the model has no linear layer"
    if layers[-1].activation or layers[-1].dropout is not None:
        return "something follows the last linear layer"
    if any(a.shape[0] != b.shape[1] for a, b in itertools.pairwise(layers)):
        return "the layers' sizes do not fit"
    if len({id(layer.values) for layer in layers}) != len(layers):
        return "layers share a weight"
    return layers


def _why_not_parameters(layers: list[_Layer]) -> str | None:
    dtype = layers[0].values.dtype
    if dtype not in (torch.float32, torch.float64):
        return f"the parameters are of type {dtype}"
    for layer in layers:
        for p in (layer.values, layer.bias):
            if p is None:
                continue
            if p.device.type != "cpu" or p.dtype != dtype or not p.is_contiguous():
                return "the parameters are not of one type in the machine's memory"
            if not p.requires_grad:
                return "a parameter is frozen"
            if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
                return "a parameter has hooks"
    return None


def _why_not_optimizer(layers: list[_Layer], optimizer: torch.optim.Optimizer) -> str | None:
    if type(optimizer) is not torch.optim.SGD:
        return f"the optimizer is {type(optimizer).__name__}, not torch.optim.SGD"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "the optimizer has hooks"
    managed = {id(p) for group in optimizer.param_groups for p in group["params"]}
    owned = {id(p) for layer in layers for p in (layer.values, layer.bias) if p is not None}
    if managed != owned:
        return "the optimizer manages other parameters than the model's"
    for group in optimizer.param_groups:
        if group["dampening"] or group["maximize"] or group["differentiable"]:
            return "the optimizer uses dampening, maximize or differentiable"
    return None


def why_not(model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> str | None:
    """Why this training cannot take the fused path; None when it can.

    It can when the model is an ``nn.Sequential`` of sparse or dense linear layers, each followed by at most
    one of ReLU, Sigmoid and Tanh and one Dropout, on the CPU in float32 or float64; the loss is a plain
    ``nn.CrossEntropyLoss()`` or ``nn.MSELoss()``; and the optimizer is ``torch.optim.SGD`` without dampening.

    >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> reason = why_not(model, nn.CrossEntropyLoss(), optimizer)
    """
    if not native.available():
        return "the compiled kernels are not installed"
    if dispatch.current() == "materialised":
        return "the materialised computation was asked for"
    layers = _layers(model)
    if isinstance(layers, str):
        return layers
    return _why_not_parameters(layers) or _why_not_optimizer(layers, optimizer) or _why_not_loss(loss)


def _why_not_loss(loss: nn.Module) -> str | None:
    if type(loss) not in LOSSES:
        return f"the loss is {type(loss).__name__}, not nn.CrossEntropyLoss or nn.MSELoss"
    if cast(Any, loss).reduction != "mean":
        return "the loss is not averaged"
    if isinstance(loss, nn.CrossEntropyLoss) and (loss.weight is not None or loss.label_smoothing):
        return "the loss has class weights or label smoothing"
    return None


class _Buffers:
    """Memory in which a step leaves its activations and their gradients, as ``lay_out`` of module.c puts
    them: the input, the outputs, the gradients of all but the last layer, which takes its outputs' place.

    Units come one after the other, each with its samples in tiles of whole vectors (tile.h).
    """

    def __init__(self, layers: list[_Layer], x: Tensor) -> None:
        self.layers, self.batch = layers, x.shape[0]
        self.lanes = int(native.module().lanes(native.is_float64(x.dtype)))
        self.vectors = -(-self.batch // self.lanes)
        outputs = [layer.shape[0] for layer in layers]
        self.units = [layers[0].shape[1], *outputs, *outputs[:-1]]
        self.memory = x.new_empty(sum(self.units) * self.vectors * self.lanes)

    def views(self) -> dict[nn.Module, tuple[Tensor, Tensor]]:
        """Of each layer its input [batch, in] and the gradient of its output [batch, out]."""
        blocks = torch.split(self.memory, [n * self.vectors * self.lanes for n in self.units])
        found = [self._units(block, n).t() for block, n in zip(blocks, self.units, strict=True)]
        depth = len(self.layers)
        gradients = [*found[depth + 1 :], found[depth]]
        return {m.module: (x, dz) for m, x, dz in zip(self.layers, found, gradients, strict=False)}

    def _units(self, block: Tensor, n: int) -> Tensor:
        """A block as [units, batch]; a view where the batch is one tile."""
        tiles = -(-self.vectors // WIDEST)
        ends = [self.vectors * (t + 1) // tiles * self.lanes for t in range(tiles)]
        parts = torch.split(block, [n * (b - a) for a, b in itertools.pairwise([0, *ends])])
        units = [part.view(n, -1) for part in parts]
        return (units[0] if tiles == 1 else torch.cat(units, 1))[:, : self.batch]


class FusedMLP:
    """A model, its loss and its optimizer, trained in one call for each step.

    Each step computes what ``zero_grad(); loss(model(x), target).backward(); optimizer.step()`` computes, up
    to rounding. Learning rates and the other options are read from the optimizer anew at each step, dropout
    only acts in training mode and draws its own masks (another stream than ``nn.Dropout``'s).

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)), density=0.5)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> if why_not(model, nn.CrossEntropyLoss(), optimizer) is None:
    ...     fused = FusedMLP(model, nn.CrossEntropyLoss(), optimizer)
    ...     loss = fused.step(torch.randn(5, 8), torch.tensor([0, 1, 2, 0, 1]))

    Raises:
        InputError: where :func:`why_not` gives a reason.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        reason = why_not(model, loss, optimizer)
        if reason is not None:
            raise InputError(f"this training cannot take the fused path: {reason}; train the ordinary way")
        self.model, self.optimizer = model, optimizer
        self._layers = cast("list[_Layer]", _layers(model))
        self._loss = LOSSES[type(loss)]

    def step(
        self,
        x: Tensor,
        target: Tensor,
        generator: torch.Generator | None = None,
        *,
        seen: dict[nn.Module, tuple[Tensor, Tensor]] | None = None,
    ) -> float:
        """Train on one batch; gradients of the parameters are dropped.

        Args:
            x: inputs [batch, in], or [batch, ...] when the model begins with Flatten.
            target: classes [batch] (int64) for cross-entropy, numbers [batch, out] for MSE.
            generator: for dropout; default: torch's own.
            seen: gets of each layer its input [batch, in] and the gradient of its output [batch, out], which
                are views of the buffers in which the step computed.

        Returns:
            the mean loss of the batch, before the update.

        Raises:
            InputError: shapes or types that do not fit, or a class out of range; nothing is changed then.
        """
        x, target = self._checked(x, target)
        integers, reals = self._describe(generator)
        buffers = None if seen is None else _Buffers(self._layers, x)
        result = native.module().step(
            native.is_float64(x.dtype), x.shape[0], self._loss, len(self._layers),
            integers.data_ptr(), reals.data_ptr(), x.data_ptr(), *x.stride(),
            target.data_ptr(), target.stride(0), target.stride(1) if target.ndim == 2 else 0,
            0 if buffers is None else buffers.memory.data_ptr(),
        )  # fmt: skip
        if result is None:
            raise InputError(
                f"target has classes from {int(target.min())} to {int(target.max())}, but the model has "
                f"{self._layers[-1].shape[0]} outputs"
            )
        changed = [p for layer in self._layers for p in (layer.values, layer.bias) if p is not None]
        torch.autograd.graph.increment_version(changed)
        if seen is not None and buffers is not None:
            seen.update(buffers.views())
        return float(result)

    def _checked(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        (outputs, _), (_, inputs) = self._layers[-1].shape, self._layers[0].shape
        dtype = self._layers[0].values.dtype
        if x.ndim != 2 and type(cast(nn.Sequential, self.model)[0]) is nn.Flatten:
            x = x.flatten(1)
        if x.shape[1:] != (inputs,) or x.dtype != dtype or x.device.type != "cpu" or not x.shape[0]:
            raise InputError(
                f"x has shape {tuple(x.shape)} and type {x.dtype} on {x.device}, but must be "
                f"[batch, {inputs}] of type {dtype} in the machine's memory, with at least one sample"
            )
        wanted = ((x.shape[0],), torch.int64) if self._loss == 0 else ((x.shape[0], outputs), dtype)
        if (tuple(target.shape), target.dtype) != wanted or target.device.type != "cpu":
            raise InputError(
                f"target has shape {tuple(target.shape)} and type {target.dtype} on {target.device}, but "
                f"must be {list(wanted[0])} of type {wanted[1]} in the machine's memory"
            )
        return x.detach().resolve_neg(), target.detach().resolve_neg()

    def _describe(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """What the compiled step reads of each layer: addresses and counts; rates and probabilities."""
        groups = {id(p): g for g in self.optimizer.param_groups for p in g["params"]}
        integers: list[int] = []
        reals: list[float] = []
        for layer in self._layers:
            p = layer.plan()
            drop = layer.dropout.p if layer.dropout is not None and layer.dropout.training else 0.0
            seed = int(torch.randint(2**62, (1,), generator=generator)) if drop else 0
            integers += [p.rows, p.cols, p.nnz, p.panels, *p.at]
            for parameter in (layer.values, layer.bias):
                some, rates = self._sgd(parameter, groups)
                integers += some
                reals += rates
            integers += [layer.activation, seed]
            reals.append(drop)
        return torch.tensor(integers, dtype=torch.int64), torch.tensor(reals, dtype=torch.float64)

    def _sgd(
        self, p: nn.Parameter | None, groups: dict[int, dict[str, Any]]
    ) -> tuple[list[int], list[float]]:
        if p is None:
            return [0, 0, 0], [0.0, 0.0, 0.0]
        group = groups[id(p)]
        p.grad = None
        buffer = 0
        if group["momentum"]:
            state = self.optimizer.state[p]
            if not isinstance(state.get("momentum_buffer"), Tensor):
                state["momentum_buffer"] = torch.zeros_like(p)
            momentum = state["momentum_buffer"]
            if momentum.shape != p.shape or momentum.dtype != p.dtype or not momentum.is_contiguous():
                raise InputError(
                    f"a momentum buffer has shape {tuple(momentum.shape)}, but its parameter "
                    f"{tuple(p.shape)}: remap the optimizer's state after a change of topology"
                )
            buffer = momentum.data_ptr()
        rates = [float(group["lr"]), float(group["momentum"]), float(group["weight_decay"])]
        return [p.data_ptr(), buffer, int(group["nesterov"])], rates
