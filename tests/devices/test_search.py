"""Searches for the largest inner products on a device."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from tests.devices.features import on, same, seeded

from regraft.search import METRICS, SEARCHES, exact, recall

NEEDS = {"faiss": "faiss", "hnswlib": "hnswlib", "nmslib": "nmslib"}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", SEARCHES)
def test_searches(device: torch.device, name: str, metric: Any) -> None:
    """Libraries and compiled code search on the CPU: what they need is copied there, and the result back."""
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"no {NEEDS[name]} here")

    def run(where: torch.device) -> Any:
        rows, columns = torch.randn(30, 16, generator=seeded()), torch.randn(40, 16, generator=seeded(1))
        exclude = torch.arange(0, 1200, 7)
        rows, columns = rows.to(where), columns.to(where)
        found = SEARCHES[name](rows, columns, 50, exclude, metric=metric)
        again = SEARCHES[name](rows, columns.cpu(), 50, exclude.to(where), metric=metric)
        best = exact(rows.cpu(), columns.cpu(), 50, exclude, metric=metric)
        return found, again, recall(found, best, metric=metric), recall(best, found, metric=metric)

    found, again, *_ = same(run, device)
    assert on([found, again], device)
