"""Combine rules: the values of several networks at one position -> one value.

The five rules of thesis 1, section 4.1, fold the networks in one by one, in the order given. Networks that
arrive one at a time therefore give the same result as all at once, with equal representation: the share of
the k-th network is 1/k, and that of the ones before it 1 - 1/k (section 4.3).

A rule of one's own is a plain function of all values at once, ``(values, present) -> merged``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regraft.errors import InputError, unknown

Uniform = Callable[[], Tensor]
Stacked = Callable[[Tensor, Tensor], Tensor]


def _as_it_is(folded: Tensor, count: Tensor) -> Tensor:
    return folded


@dataclass(frozen=True)
class Combine:
    """A rule that folds networks in one by one.

    Attributes:
        name: what files and tables call it.
        update: ``(folded, new, count, uniform) -> folded``, all float64 ``[m]``: one entry for each position
            that the incoming network has. ``folded`` is 0 before the first arrival; ``count`` is the number
            of networks so far that have the position, the incoming one included; ``uniform()`` draws numbers
            in [0, 1).
        finish: ``(folded, count) -> merged``, where ``count`` is the number of networks, or, with
            ``over="present"``, of those that have the position.
        counted: whether ``update`` looks at ``count``; where it does not, blocks need not keep it for each
            step, and ``count`` is then of no meaning to it.

    >>> largest = Combine("largest", lambda folded, new, count, uniform: torch.maximum(folded, new))
    >>> largest.update(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([2]), None).item()
    3.0
    """

    name: str
    update: Callable[[Tensor, Tensor, Tensor, Uniform], Tensor]
    finish: Callable[[Tensor, Tensor], Tensor] = _as_it_is
    counted: bool = True


def _strongest(kept: Tensor, new: Tensor, count: Tensor, uniform: Uniform) -> Tensor:
    return torch.where(new.abs() > kept.abs(), new, kept)


def _sum(total: Tensor, new: Tensor, count: Tensor, uniform: Uniform) -> Tensor:
    return total + new


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count


def _one_of(kept: Tensor, new: Tensor, count: Tensor, uniform: Uniform) -> Tensor:
    return torch.where(uniform() * count < 1, new, kept)


def _zero(folded: Tensor, new: Tensor, count: Tensor, uniform: Uniform) -> Tensor:
    return folded


magnitude = Combine("magnitude", _strongest, counted=False)
"""The value of the largest magnitude; among equals that of the first network."""

average = Combine("average", _sum, _mean, counted=False)
"""The sum divided by the number of networks; absent weights count as 0 unless ``over="present"``."""

addition = Combine("addition", _sum, counted=False)
"""The sum."""

random = Combine("random", _one_of)
"""The value of one of the networks that have the position, each equally likely: the k-th arrival takes the
place with probability 1/k."""

nothing = Combine("nothing", _zero, counted=False)
"""0 everywhere: the control of thesis 1. The connections stay, with the value 0."""

RULES: dict[str, Combine] = {r.name: r for r in (magnitude, average, addition, random, nothing)}
"""The rules by name."""

Rule = Combine | Stacked
"""A rule that folds, or a function ``(values, present) -> merged`` of all networks at once: ``values``
float64 [N, m] with 0 where a network lacks the position, ``present`` bool [N, m], ``merged`` [m]."""


def by_name(rule: str | Rule, kind: str = "rule") -> Rule:
    """The rule called ``rule``, or the rule itself where it is one already.

    >>> by_name("average") is average
    True
    >>> by_name("averge", "weight rule")
    Traceback (most recent call last):
    ...
    regraft.errors.InputError: unknown weight rule 'averge': did you mean 'average'?

    Raises:
        InputError: no such rule.
    """
    if isinstance(rule, Combine) or (callable(rule) and not isinstance(rule, str)):
        return rule
    if rule not in RULES:
        raise unknown(kind, rule, RULES)
    return RULES[rule]


def name_of(rule: Rule) -> str:
    """What files and tables call the rule."""
    return rule.name if isinstance(rule, Combine) else getattr(rule, "__name__", type(rule).__name__)


def check_over(over: str) -> str:
    """``over`` as it is, if it is one of the two, else an InputError."""
    if over not in ("networks", "present"):
        raise InputError(
            f"over is {over!r}, but must be 'networks' (the average divides by their number) or 'present' "
            "(by the number of those that have the weight)"
        )
    return over
