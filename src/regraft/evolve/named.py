"""Which weights of a model evolution and its kin look at."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from torch import nn

from regraft.errors import InputError
from regraft.weight import SparseWeight

Patterns = Iterable[str] | str


def as_patterns(patterns: Patterns) -> tuple[str, ...]:
    """One pattern or several, as a tuple."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile``, DistributedDataParallel and DataParallel, so that weights have the
    same names with and without them."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        else:
            return model


def sparse_weights(
    model: nn.Module, include: Patterns = ("*",), exclude: Patterns = ()
) -> dict[str, SparseWeight]:
    """The model's sparse weights by name, each once, in order.

    ``include`` and ``exclude`` are shell patterns on the names of weights (``"0.weight"``) or layers
    (``"0"``).

    Raises:
        InputError: no sparse weight, or a pattern that matches none.
    """
    model = unwrapped(model)
    found = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    if not found:
        raise InputError(
            f"the {type(model).__name__} has no sparse weight: call regraft.sparsify(model, ...) first"
        )
    include, exclude = as_patterns(include), as_patterns(exclude)
    for pattern in (*include, *exclude):
        if not any(_matches(n, (pattern,)) for n in found):
            raise InputError(
                f"the pattern {pattern!r} matches no sparse weight; the weights are: "
                + ", ".join(repr(n) for n in found)
            )
    return {n: w for n, w in found.items() if _matches(n, include) and not _matches(n, exclude)}


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    layer = name.removesuffix("weight").removesuffix(".")
    return any(fnmatch.fnmatchcase(n, p) for p in patterns for n in (name, layer))
