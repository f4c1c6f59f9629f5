"""Nested state as JSON and tensors, and back: how optimizers, schedulers and callbacks go into a checkpoint.

A tree of dicts, lists, tuples, numbers, strings, None and tensors becomes a JSON value in which each tensor
is replaced by its name, and a dict of the tensors. Nothing else is accepted, so no code runs when it is read.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from regraft.errors import InputError

_KEY = "$"  # a JSON object with this key is not a plain dict

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def encode(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """(JSON value, tensors by name) of a tree. Tensors are not copied.

    >>> encode({"lr": 0.1, "buffer": {0: torch.zeros(2)}}, "optimizer")
    ({'lr': 0.1, 'buffer': {'$': 'dict', 'items': [[0, {'$': 'tensor', 'name': 'optimizer.buffer.0'}]]}},
     {'optimizer.buffer.0': tensor([0., 0.])})

    Raises:
        InputError: something that is neither plain data nor a tensor; the message names where.
    """
    tensors: dict[str, Tensor] = {}
    return _encode(tree, name, tensors), tensors


def _encode(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if tree is None or isinstance(tree, bool | str) or type(tree) is int:
        return tree
    if isinstance(tree, float):
        return float(tree) if math.isfinite(tree) else {_KEY: "float", "value": str(float(tree))}
    if isinstance(tree, Tensor):
        unique = name
        while unique in tensors:
            unique += "'"
        tensors[unique] = tree.detach()
        return {_KEY: "tensor", "name": unique}
    if type(tree) in (dict, OrderedDict, Counter, defaultdict):
        if all(isinstance(k, str) and k != _KEY for k in tree) and type(tree) is not Counter:
            return {k: _encode(v, f"{name}.{k}" if name else k, tensors) for k, v in tree.items()}
        items = [[_encode(k, name, tensors), _encode(v, f"{name}.{k}", tensors)] for k, v in tree.items()]
        return {_KEY: "counter" if type(tree) is Counter else "dict", "items": items}
    if type(tree) in (list, tuple, deque):
        items = [_encode(v, f"{name}.{i}", tensors) for i, v in enumerate(tree)]
        return items if type(tree) is list else {_KEY: type(tree).__name__, "items": items}
    raise InputError(
        f"the training state '{name}' holds a {type(tree).__name__}, which a checkpoint cannot hold: its "
        "state_dict should be of tensors, numbers, text, lists and dicts"
    )


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that ``encode`` was given.

    >>> decode(*encode({"a": (1, [torch.ones(1)]), 3: float("inf")}))
    {'a': (1, [tensor([1.])]), 3: inf}

    Raises:
        KeyError, TypeError, ValueError: not made by ``encode``.
    """
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value.get(_KEY)
    if kind is None:
        return {k: decode(v, tensors) for k, v in value.items()}
    if kind == "tensor":
        return tensors[value["name"]]
    if kind == "float":
        return _FLOATS[value["value"]]
    if kind in ("dict", "counter"):
        made = {decode(k, tensors): decode(v, tensors) for k, v in value["items"]}
        return Counter(made) if kind == "counter" else made
    sequence: Callable[[list[Any]], Any] = {"tuple": tuple, "deque": deque}[kind]
    return sequence([decode(v, tensors) for v in value["items"]])


def same(a: Any, b: Any) -> bool:
    """Whether two trees are equal, bit for bit where they are tensors."""
    first, tensors = encode(a)
    second, others = encode(b)
    return bool(
        first == second
        and tensors.keys() == others.keys()
        and all(t.dtype == others[n].dtype and torch.equal(t, others[n]) for n, t in tensors.items())
    )
