"""State trees survive JSON and tensors."""

import json
import math
from collections import Counter, OrderedDict, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.train import tree

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(allow_nan=False)
    | st.lists(st.integers(-9, 9), max_size=3).map(torch.tensor)
)  # fmt: skip
KEYS = st.text(max_size=3) | st.integers(-3, 3) | st.just("$")
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@given(TREES)
def test_round_trip_through_json(value: object) -> None:
    plain, tensors = tree.encode(value, "root")
    back = tree.decode(json.loads(json.dumps(plain, allow_nan=False)), tensors)
    assert same(value, back)


def test_numbers_that_json_has_not() -> None:
    back = tree.decode(*tree.encode([math.inf, -math.inf, math.nan]))
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])


def test_kinds_of_dict() -> None:
    back = tree.decode(*tree.encode({"c": Counter({3: 2}), "o": OrderedDict(a=1)}))
    assert back == {"c": Counter({3: 2}), "o": {"a": 1}}
    assert type(back["c"]) is Counter


def test_tensors_whose_names_would_coincide() -> None:
    value = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}
    assert same(value, tree.decode(*tree.encode(value)))


@pytest.mark.parametrize("thing", [object(), len, {1, 2}, 1j, torch.nn.Linear(1, 1)])
def test_other_things_are_refused_by_name(thing: object) -> None:
    with pytest.raises(InputError, match=r"'run\.x\.0' holds a"):
        tree.encode({"x": [thing]}, "run")
