"""Mean and variance of each unit at some places of a network, over batches taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from regraft import measure
from regraft.errors import InputError, MismatchError

Batches = Iterable[Tensor | Sequence[Tensor]]
"""Inputs ``[n, ...]``, or pairs of inputs and labels, of which the labels are not looked at."""

Take = Callable[[str, Tensor], None]


@dataclass
class Moments:
    """How the values of each unit are spread, float64; batches are pooled without loss (Chan et al. 1983).

    Attributes:
        count: numbers seen of each unit: samples, times positions where the units are maps.
        mean: [units].
        squares: [units], sum of the squared deviations from the mean.

    >>> moments = Moments.none(1, torch.device("cpu"))
    >>> for batch in ([[1.0], [2.0]], [[6.0]]):
    ...     moments.add(torch.tensor(batch))
    >>> moments.mean.item(), moments.variance().item(), moments.variance(unbiased=True).item()
    (3.0, 4.666666666666667, 7.0)
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def none(cls, units: int, device: torch.device) -> Moments:
        """Before the first batch."""
        return cls(0, *torch.zeros(2, units, dtype=torch.float64, device=device))

    def add(self, x_PU: Tensor) -> None:
        """Pool one more batch: values of each unit, [numbers, units]."""
        x = x_PU.double()
        mean, total = x.mean(0), self.count + len(x)
        apart = mean - self.mean
        self.squares = self.squares + (x - mean).square().sum(0) + apart**2 * (self.count * len(x) / total)
        self.mean = self.mean + apart * (len(x) / total)
        self.count = total

    def variance(self, unbiased: bool = False) -> Tensor:
        """[units]: divided by the count, or by one less."""
        return self.squares / (self.count - 1 if unbiased else self.count)


def inputs_of(batches: Batches, user: str) -> list[Tensor]:
    """The inputs of all batches.

    Raises:
        InputError: no batch, or an input that is empty, NaN or infinite.
    """
    if isinstance(batches, Tensor):
        raise InputError(f"{user} takes a list of batches, not one tensor: pass [x]")
    inputs = [b if isinstance(b, Tensor) else b[0] for b in batches]
    if not inputs:
        raise InputError(f"{user} needs at least one batch: pass some training samples")
    for x in inputs:
        if not x.numel():
            raise InputError(f"a batch of shape {tuple(x.shape)} is empty: {user} needs samples")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise InputError("a batch holds NaN or infinite samples: clean or leave out such samples")
    return inputs


def pooled(model: nn.Module, names: Collection[str], inputs: Sequence[Tensor]) -> dict[str, Moments]:
    """What arrives at these batch normalisations, and what these linear and convolutional layers put out,
    over all inputs, in the order in which the model first calls them. Those that it does not call are absent.

    The model computes as in evaluation, and each batch stops once the last of them has been called.

    Raises:
        MismatchError: the model does not take the inputs.
        InputError: values that are NaN or infinite.
    """
    found: dict[str, Moments] = {}
    calls: Counter[str] = Counter()
    expected: int | None = None

    def take(name: str, values: Tensor) -> None:
        x = _by_unit(model.get_submodule(name), values)
        if name not in found:
            found[name] = Moments.none(x.shape[1], x.device)
        found[name].add(x)
        calls[name] += 1
        if expected is not None and calls.total() == expected:
            raise _Enough

    handles = [_watch(model.get_submodule(name), name, take) for name in names]
    with measure.evaluating(model), torch.no_grad(), _removed(handles):
        for x in inputs:
            calls.clear()
            _pass(model, x)
            expected = calls.total() if expected is None else expected
    for name, moments in found.items():
        if not bool((moments.mean.isfinite() & moments.squares.isfinite()).all()):
            raise InputError(
                f"the values at '{name}' become NaN or infinite: the network has diverged; train it with a "
                "smaller learning rate, or leave it out"
            )
    return found


def feeding(model: nn.Module, layers: Mapping[str, nn.Module], x: Tensor) -> set[str]:
    """Those of the layers whose output is just what a batch normalisation takes.

    Raises:
        MismatchError: the model does not take the input.
    """
    made: dict[str, Tensor] = {}
    found: set[str] = set()

    def leaving(name: str, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        made[name] = output

    def arriving(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.update(name for name, output in made.items() if output is inputs[0])

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    handles = [layer.register_forward_hook(partial(leaving, name)) for name, layer in layers.items()]
    handles += [norm.register_forward_pre_hook(arriving) for norm in norms]
    with measure.evaluating(model), torch.no_grad(), _removed(handles):
        _pass(model, x)
    return found


class _Enough(Exception):
    """All that was wanted of a batch has been seen."""


def _pass(model: nn.Module, x: Tensor) -> None:
    """The model's pass over a batch, on the model's device, until it has had enough."""
    first = next(model.parameters(), x)
    try:
        model(x.to(first.device))
    except _Enough:
        pass
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MismatchError(
            f"the {type(model).__name__} cannot take a batch of shape {tuple(x.shape)} ({reason}): pass "
            "batches as it is trained with"
        ) from error


@contextmanager
def _removed(handles: list[RemovableHandle]) -> Iterator[None]:
    """Hooks that are gone after the block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(module: nn.Module, name: str, take: Take) -> RemovableHandle:
    """A hook that hands over what arrives at a batch normalisation, and what any other layer puts out."""

    def arriving(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        take(name, inputs[0])

    def leaving(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        take(name, output)

    if isinstance(module, _BatchNorm):
        return module.register_forward_pre_hook(arriving)
    return module.register_forward_hook(leaving)


def _by_unit(module: nn.Module, values: Tensor) -> Tensor:
    """Values as [numbers, units]."""
    weight = cast(Tensor, module.weight)
    axis = 1 if isinstance(module, _BatchNorm) else values.ndim - (len(weight.shape) - 1)
    return values.detach().movedim(axis, -1).reshape(-1, values.shape[axis])
