"""What a network does and what it costs: accuracy and loss; layers, parameters, bytes and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from regraft import losses
from regraft.data.split import Split
from regraft.errors import InputError, MismatchError
from regraft.layers import SparseLayer, SparseLinear
from regraft.layers.modules import input_units
from regraft.probe import Loss
from regraft.weight import SparseWeight

MOST_ACTIVATIONS = 2**26  # of one linear layer in one batch of an evaluation

_LAYER = (SparseLayer, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def evaluate(
    model: nn.Module, split: Split, batch_size: int | None = None, loss: str | Loss = "cross-entropy"
) -> dict[str, float]:
    """Accuracy in [0, 1] and mean loss over a split: ``{"accuracy", "loss", "n"}``; without an accuracy where
    the targets are numbers. Of a text both are means over positions, and ``"bits"`` are the bits per
    character, the cross-entropy over ln 2.

    The model is put in evaluation mode and back; no random number is drawn. Samples go to the model's device.

    Args:
        batch_size: samples at a time; default 1000, fewer for a linear layer of more than 67,000 units, whose
            activations then take at most 256 MiB.

    >>> split = Split(torch.eye(3), torch.tensor([0, 1, 1]))
    >>> round(evaluate(nn.Identity(), split)["accuracy"], 3)
    0.667

    Raises:
        InputError: ``batch_size`` below 1, unknown loss.
        MismatchError: the samples or labels do not fit the model.
    """
    if batch_size is None:
        units = [m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Linear | SparseLinear)]
        batch_size = max(1, min(1000, MOST_ACTIVATIONS // max([1, *units])))
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}, but must be 1 or more")
    measure_loss = losses.by_name(loss) if isinstance(loss, str) else loss
    device = next((p.device for p in model.parameters()), split.device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    with evaluating(model):
        for start in range(0, len(split), batch_size):
            x = split.x[start : start + batch_size].to(device)
            y = split.y[start : start + batch_size].to(device)
            output = forward_checked(model, x, y) if start == 0 else model(x)
            if split.labelled:
                correct += (output.argmax(dim=1) == y).sum()
            total += measure_loss(output, y).double() * len(y)
    n = len(split)
    accuracy = {"accuracy": correct.item() / split.y.numel()} if split.labelled else {}
    bits = {"bits": total.item() / n / math.log(2)} if is_text(split) and loss == "cross-entropy" else {}
    return accuracy | {"loss": total.item() / n, **bits, "n": n}


def is_text(split: Split) -> bool:
    """Whether each position of a sample has a label of its own."""
    return split.labelled and split.y.ndim == 2


def by_class(split: Split, classes: int) -> list[Split | None]:
    """The samples of each class; None for a class without samples.

    >>> [len(part) for part in by_class(Split(torch.eye(3), torch.tensor([0, 1, 1])), 2) if part]
    [1, 2]

    Raises:
        InputError: samples with a label for each position.
    """
    split.check_one_label("accuracy by class counts samples of each class")
    found = [(split.y == c).nonzero().squeeze(1) for c in range(classes)]
    return [split.select(index) if len(index) else None for index in found]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module has the mode it had."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def forward_checked(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    """``model(x)``, whose output must suit the targets ``y`` where they are given, and one sentence instead
    of torch's traceback where samples or labels do not fit.

    Raises:
        MismatchError: the model refuses the samples' shape, or has too few outputs for the labels, or not as
            many as there are numbers.
    """
    output = _checked(model, x, lambda: model(x))
    if y is None:
        return output
    positions = () if y.is_floating_point() else tuple(y.shape[1:])
    fits = isinstance(output, Tensor) and len(output.shape) == 2 + len(positions)
    if not fits or len(output) != len(x) or tuple(output.shape[2:]) != positions:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        wanted = "one row of class scores per sample was expected"
        if positions:
            wanted = (
                f"scores of shape (samples, classes, {positions[0]}), for each of {positions[0]} positions, "
                "were expected: take gpt, the model for texts"
            )
        elif isinstance(output, Tensor) and output.ndim == 3:
            wanted += ": this one reads texts, take data such as text for it"
        raise MismatchError(f"the {type(model).__name__} gives {got} for {len(x)} samples, but {wanted}")
    if y.is_floating_point() and y.shape[1:] != output.shape[1:]:
        raise MismatchError(
            f"the {type(model).__name__} has {output.shape[1]} outputs, but the targets have shape "
            f"{tuple(y.shape)}: take a model with one output for each number"
        )
    if not y.is_floating_point() and int(y.max()) >= output.shape[1]:
        raise MismatchError(
            f"the {type(model).__name__} has {output.shape[1]} outputs, but the data has the label "
            f"{int(y.max())}: take a model with an output for each class, or fewer classes"
        )
    return output


def _checked(model: nn.Module, x: Tensor, call: Callable[[], Tensor]) -> Tensor:
    try:
        return call()
    except (RuntimeError, IndexError) as error:
        known = ("shape", "size", "channels", "out of range")
        if not any(word in str(error).lower() for word in known):
            raise
        raise MismatchError(
            f"the {type(model).__name__} does not take samples of shape {tuple(x.shape[1:])} ({error}): "
            "take a model whose input fits the data, or other data"
        ) from error


def inspect(model: nn.Module, input_shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Layers, density, dead units, parameters, bytes and FLOPs, as plain numbers.

    A unit (output channel) is dead where no connection comes in, or none goes out to the next layer. Layers
    are taken in module order, and two follow each other where their sizes fit (a convolution's channels may
    reach a Linear layer flattened); elsewhere only incoming connections are looked at. A bias does not revive
    a unit without input: it is then constant.

    Parameters count weights (active ones only, for the sparse count) and everything else that trains;
    ``compression`` is the dense count over the sparse one. FLOPs are 2 per connection and output position for
    one sample; those of convolutions need ``input_shape``. Bytes are those in memory now: values, positions,
    biases and buffers.

    Args:
        input_shape: shape of one sample; default: what the model's ``spec`` says.

    >>> from regraft import models, sparsify
    >>> model = sparsify(models.build("mlp:784-1000-1000-1000-10"), epsilon=20)
    >>> figures = inspect(model)
    >>> figures["dense_parameters"], figures["parameters"], round(figures["compression"], 1)
    (2797010, 128690, 21.7)
    """
    shape = _input_shape(model) if input_shape is None else tuple(input_shape)
    outputs = _output_positions(model, shape)
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, _LAYER)]
    layers = [_layer(name, module, outputs.get(name)) for name, module in found]
    for i, (_, module) in enumerate(found):
        _count_dead(layers[i], module, found[i + 1][1] if i + 1 < len(found) else None)
    nnz, size = sum(x["nnz"] for x in layers), sum(x["size"] for x in layers)
    parameters = sum(p.numel() for p in model.parameters())
    gone = sum(x["size"] - x["nnz"] for x in layers)
    known = all(x["flops"] is not None for x in layers)
    return {
        "layers": layers,
        "weights": nnz,
        "dense_weights": size,
        "density": nnz / size if size else 0.0,
        "parameters": parameters,
        "dense_parameters": parameters + gone,
        "compression": (parameters + gone) / parameters if parameters else 1.0,
        "dead_units": sum(x["dead_units"] for x in layers),
        "unused_inputs": _unused_inputs(found[0][1]) if found else 0,
        "bytes": sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())),
        "dense_bytes": _dense_bytes(model),
        "flops": sum(x["flops"] for x in layers) if known else None,
        "dense_flops": sum(x["dense_flops"] for x in layers) if known else None,
        "input_shape": None if shape is None else list(shape),
    }


def _layer(name: str, module: nn.Module, outputs: int | None) -> dict[str, Any]:
    weight = cast(SparseWeight | Tensor, module.weight)
    sparse = isinstance(weight, SparseWeight)
    size = math.prod(weight.shape)
    nnz = weight.nnz if isinstance(weight, SparseWeight) else size
    bias = cast(Tensor | None, module.bias)
    if outputs is None and len(weight.shape) == 2:
        outputs = 1
    return {
        "name": name, "type": type(module).__name__, "sparse": sparse, "shape": list(weight.shape),
        "nnz": nnz, "size": size, "density": nnz / size if size else 0.0,
        "bias": 0 if bias is None else bias.numel(), "units": weight.shape[0],
        "flops": None if outputs is None else 2 * nnz * outputs,
        "dense_flops": None if outputs is None else 2 * size * outputs,
        "bytes": sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())),
    }  # fmt: skip


def _count_dead(layer: dict[str, Any], module: nn.Module, following: nn.Module | None) -> None:
    units, incoming = _connected(module, outgoing=False)
    outgoing: Tensor | None = None
    if following is not None:
        inputs, outgoing = _connected(following, outgoing=True)
        if inputs != units:
            # a convolution's maps, flattened: unit c reaches inputs c * positions ... (c + 1) * positions - 1
            positions, rest = divmod(inputs, max(units, 1))
            fits = rest == 0 and positions > 0 and not _is_linear(module) and _is_linear(following)
            outgoing = torch.div(outgoing, positions, rounding_mode="floor").unique() if fits else None  # type: ignore[no-untyped-call]
    alive = incoming if outgoing is None else outgoing[torch.isin(outgoing, incoming)]
    layer["no_incoming"] = units - incoming.numel()
    layer["no_outgoing"] = None if outgoing is None else units - outgoing.numel()
    layer["dead_units"] = units - alive.numel()


def _is_linear(module: nn.Module | None) -> bool:
    return module is not None and len(cast(Tensor, module.weight).shape) == 2


def _connected(module: nn.Module, *, outgoing: bool) -> tuple[int, Tensor]:
    """How many output units (input units for ``outgoing``) a layer has, and those that have a connection,
    increasing. Takes memory by the connections, as a sparse weight may have any number of units."""
    weight = cast(SparseWeight | Tensor, module.weight)
    n_out, n_in = weight.shape[:2]
    units = n_in * cast(int, getattr(module, "groups", 1)) if outgoing else n_out
    if not isinstance(weight, SparseWeight):
        return units, torch.arange(units if weight.numel() else 0)
    found = input_units(cast(SparseLayer, module)) if outgoing else weight.rows()
    return units, found.cpu().unique()  # type: ignore[no-untyped-call]


def _unused_inputs(first: nn.Module) -> int:
    units, used = _connected(first, outgoing=True)
    return units - used.numel()


def _dense_bytes(model: nn.Module) -> int:
    """Bytes of the same model with dense weights of the same type."""
    total = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    for w in model.modules():
        if isinstance(w, SparseWeight):
            total += (w.size - w.nnz) * w.values.element_size() - w.nnz * w.index.element_size()
    return total


def _input_shape(model: nn.Module) -> tuple[int, ...] | None:
    spec = getattr(model, "spec", None)
    if isinstance(spec, dict) and "input" in spec:
        return tuple(spec["input"])
    if isinstance(spec, dict) and "sizes" in spec:
        return (spec["sizes"][0],)
    return None


@torch.no_grad()
def _output_positions(model: nn.Module, input_shape: Sequence[int] | None) -> dict[str, int]:
    """Output positions per unit of each layer for one sample: 1 for a Linear layer after flattening, height
    times width for a convolution. Empty where the input shape is not known."""
    if input_shape is None:
        return {}
    counts: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, _LAYER):

            def count(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
                units = cast(Tensor, module.weight).shape[0]
                counts[name] = counts.get(name, 0) + output.numel() // units

            hooks.append(module.register_forward_hook(count))
    first = next(model.parameters(), torch.zeros(()))
    try:
        with evaluating(model):
            if isinstance(getattr(model, "spec", None), dict):  # of our own making: shapes alone tell
                state = {n: t.to("meta") for n, t in (*model.named_parameters(), *model.named_buffers())}
                x = torch.zeros((1, *input_shape), device="meta")
                _checked(model, x, lambda: functional_call(model, state, (x,)))
            else:
                forward_checked(model, first.new_zeros((1, *input_shape)))
    finally:
        for hook in hooks:
            hook.remove()
    return counts
