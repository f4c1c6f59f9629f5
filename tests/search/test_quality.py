"""Recall: the share of the k best, ties counted fairly, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search import cases

from regraft.errors import InputError, MismatchError
from regraft.search import METRICS, Found, Lsh, Metric, exact, recall


def found(index: list[int], products: list[float]) -> Found:
    return Found(torch.tensor(index, dtype=torch.int64), torch.tensor(products))


BEST = found([2, 5, 7, 9], [4.0, -3.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("index", "products", "wanted"),
    [
        ([2, 5, 7, 9], [4.0, -3.0, 2.0, 2.0], 1.0),
        ([2, 5, 7, 8], [4.0, -3.0, 2.0, -2.0], 1.0),  # as good as the fourth
        ([2, 5, 7, 8], [4.0, -3.0, 2.0, 2.0 - 1e-6], 1.0),  # but for rounding
        ([2, 5, 7, 8], [4.0, -3.0, 2.0, 1.99], 0.75),
        ([0, 1, 2, 3], [0.1, 0.2, 4.0, -0.3], 0.25),
        ([5], [-3.0], 0.25),  # few found
        ([], [], 0.0),
    ],
)
def test_by_hand(index: list[int], products: list[float], wanted: float) -> None:
    assert recall(found(index, products), BEST) == wanted


def test_the_metric_decides() -> None:
    best = found([1, 2], [3.0, -1.0])
    assert recall(found([1, 3], [3.0, -2.0]), best, metric="abs") == 1.0
    assert recall(found([1, 3], [3.0, -2.0]), best, metric="ip") == 0.5
    assert recall(found([1, 3], [3.0, -1.0]), best, metric="ip") == 1.0
    assert recall(found([1, 3], [3.0, 9.0]), best, metric="l2") == 0.5  # a product tells no distance


def test_nothing_wanted_is_nothing_missed() -> None:
    assert recall(found([], []), found([], [])) == 1.0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "relu", "duplicates", "all zero"])
def test_against_all_products(kind: str, metric: Metric) -> None:
    rows, columns = cases.inputs(kind, 40, 50, 16)
    exclude, k = cases.some_excluded(40, 50), 60
    best = exact(rows, columns, k, exclude, metric=metric)
    assert recall(best, best, metric=metric) == 1.0
    rough = Lsh(bits=2, k_similar=0.2)(rows, columns, k, exclude, metric=metric)
    if kind in ("normal", "relu"):  # no ties: the same as the share of the positions of the best
        wanted = cases.recall(rough, rows, columns, k, exclude, metric)
        assert recall(rough, best, metric=metric) == pytest.approx(wanted, abs=1e-12)
    elif metric != "l2":  # equal products in other places: never below
        assert recall(rough, best, metric=metric) >= float(
            torch.isin(rough.index, best.index).double().mean()
        )


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30), st.data())
def test_any_choice_among_ties_is_perfect_and_worse_ones_count_less(
    products: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(products)))
    order = data.draw(st.permutations(range(len(products))))
    ranked = sorted(order, key=lambda p: -abs(products[p]))  # stable: ties in a random order

    def at(chosen: list[int]) -> Found:
        return found(sorted(chosen), [float(products[p]) for p in sorted(chosen)])

    best = at(sorted(range(len(products)), key=lambda p: (-abs(products[p]), p))[:k])
    assert recall(at(ranked[:k]), best) == 1.0
    worst = abs(products[ranked[k - 1]])
    chosen = list(order[:k])
    assert recall(at(chosen), best) == sum(abs(products[p]) >= worst for p in chosen) / k


def test_refuses() -> None:
    with pytest.raises(MismatchError, match="5 positions were found, but best holds 4"):
        recall(found([1, 2, 3, 4, 5], [1.0] * 5), BEST)
    with pytest.raises(MismatchError, match=r"best has 2 positions and products of shape \(1,\)"):
        recall(found([1], [1.0]), found([1, 2], [1.0]))
    with pytest.raises(InputError, match=r"found\.index is not strictly increasing"):
        recall(found([2, 2], [1.0, 1.0]), BEST)
    with pytest.raises(InputError, match="NaN or infinite"):
        recall(found([2], [float("nan")]), BEST)
    with pytest.raises(InputError, match="unknown metric 'cosine'"):
        recall(BEST, BEST, metric="cosine")  # type: ignore[arg-type]
