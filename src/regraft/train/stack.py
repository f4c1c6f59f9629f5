"""``Stack``: many networks of one architecture as one, their parameters stacked along a first axis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from regraft.errors import InputError, MismatchError
from regraft.probe import Loss
from regraft.train.layerwise import layerwise

M = TypeVar("M", bound=nn.Module)

Penalty = Callable[[nn.Module, int], Tensor]
"""(a member with its parameters in place, epoch from 0) -> scalar, added to the member's loss."""

Draw = Callable[[nn.Module], Mapping[str, Tensor]]
"""(a member) -> further arguments of its forward pass, drawn anew for each step."""


Together = Callable[[Mapping[str, Tensor], Tensor, Mapping[str, Tensor]], Tensor]
"""(parameters by name, x ``[members, n, ...]``, what was drawn) -> outputs, all with the members first."""


class Stack(Generic[M]):
    """Copies of networks of one architecture, computed together. The networks themselves are left alone.

    Multilayer perceptrons compute by batched products, all others by ``torch.func.vmap``, under which sparse
    layers are materialised and random numbers (dropout) differ between the members; or as ``forward`` says.

    Attributes:
        parameters: by name, ``[members, ...]``: leaves that train where they train in the networks.
        buffers: by name, ``[members, ...]``.

    >>> stack = Stack([nn.Linear(3, 2) for _ in range(5)])
    >>> stack.parameters["weight"].shape, stack.outputs(torch.zeros(5, 7, 3)).shape
    (torch.Size([5, 2, 3]), torch.Size([5, 7, 2]))

    Raises:
        InputError: no network, or something that is none.
        MismatchError: architectures, types or devices that differ.
    """

    def __init__(self, models: Iterable[M], forward: Together | None = None) -> None:
        self._models = [copy.deepcopy(model) for model in _checked(models)]
        first = self._models[0]
        self.parameters = {
            name: _stacked(self._models, name).requires_grad_(p.requires_grad)
            for name, p in first.named_parameters()
        }
        self.buffers = {name: _stacked(self._models, name) for name, _ in first.named_buffers()}
        # not on the meta device: moving there would part shared parameters
        self._shell = copy.deepcopy(first).train()
        self._layerwise = layerwise(self._shell)
        self._together = forward

    def __len__(self) -> int:
        return len(self._models)

    def outputs(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """Outputs ``[members, n, ...]`` for each member's own samples ``[members, n, ...]``."""
        if self._layerwise is not None and self._together is None and draw is None:
            return self._layerwise(self.parameters, x)
        drawn = [] if draw is None else [draw(model) for model in self._models]
        more = {name: torch.stack([own[name] for own in drawn]) for name in (drawn[0] if drawn else ())}
        if self._together is not None:
            return self._together(self.parameters, x, more)
        return self._mapped(self._shell, (x,), more)

    def losses(self, x: Tensor, y: Tensor, loss: Loss, draw: Draw | None = None) -> Tensor:
        """Each member's mean loss ``[members]`` over its own samples and targets."""
        return vmap(loss)(self.outputs(x, draw), y)

    def penalties(self, penalty: Penalty, epoch: int) -> Tensor:
        """``penalty(member, epoch)`` of each member, ``[members]``."""
        return self._mapped(_Called(self._shell, penalty, epoch), (), {}, prefix="model.")

    def _mapped(
        self, module: nn.Module, x: tuple[Tensor, ...], more: dict[str, Tensor], prefix: str = ""
    ) -> Tensor:
        def one(state: dict[str, Tensor], x: tuple[Tensor, ...], more: dict[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(module, state, x, more)
            return output

        state = {prefix + name: t for name, t in (self.parameters | self.buffers).items()}
        try:
            return vmap(one, randomness="different")(state, x, more)
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise InputError(
                f"the {type(self._shell).__name__} cannot be computed for many members at once: train them "
                f"one by one with train.fit (torch says: {error})"
            ) from error

    def train(self, mode: bool = True) -> None:
        """Training or evaluation mode for all members."""
        self._shell.train(mode)

    @torch.no_grad()
    def member(self, number: int) -> M:
        """One member as a network of its own: a copy, in the mode in which it came."""
        for name, stacked in (self.parameters | self.buffers).items():
            _tensor(self._models[number], name).copy_(stacked[number])
        return copy.deepcopy(self._models[number])

    def models(self) -> list[M]:
        """All members, as ``member`` gives them."""
        return [self.member(number) for number in range(len(self))]


class _Called(nn.Module):
    """The penalty as the forward pass of a module, in which ``functional_call`` puts parameters in place."""

    def __init__(self, model: nn.Module, penalty: Penalty, epoch: int) -> None:
        super().__init__()
        self.model, self.penalty, self.epoch = model, penalty, epoch

    def forward(self) -> Tensor:
        return self.penalty(self.model, self.epoch)


def _tensor(model: nn.Module, name: str) -> Tensor:
    owner, _, own = name.rpartition(".")
    return cast(Tensor, getattr(model.get_submodule(owner), own))


def _stacked(models: Sequence[nn.Module], name: str) -> Tensor:
    return torch.stack([_tensor(model, name).detach() for model in models])


def _checked(models: Iterable[M]) -> list[M]:
    """The networks, checked to share one architecture."""
    if isinstance(models, nn.Module):
        raise InputError("a population is trained from a list of networks: pass [a, b, ...]")
    chosen = list(models)
    if not chosen:
        raise InputError("a population needs at least one network: pass a list of them")
    for number, model in enumerate(chosen, start=1):
        if not isinstance(model, nn.Module):
            raise InputError(
                f"member {number} is of type {type(model).__name__}, but must be a torch.nn.Module"
            )
        _check_same(chosen[0], model, number)
    return chosen


def _check_same(first: nn.Module, other: nn.Module, number: int) -> None:
    """Raise MismatchError unless both have the same tensors, and modules with the same options."""
    named = [dict(model.named_parameters()) | dict(model.named_buffers()) for model in (first, other)]
    for name in {**named[0], **named[1]}:
        a, b = (_kind(tensors.get(name)) for tensors in named)
        if a != b:
            raise MismatchError(
                f"'{name}' is {b} in member {number}, but {a} in member 1: a population has one architecture"
                " (and sparse members as many connections in each layer)"
            )
    if repr(first) != repr(other):
        raise MismatchError(
            f"member {number} has the tensors of member 1, but other modules or options: a population has "
            f"one architecture\nmember 1: {first}\nmember {number}: {other}"
        )


def _kind(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    trained = "" if tensor.requires_grad else ", not trained"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device}{trained}"
