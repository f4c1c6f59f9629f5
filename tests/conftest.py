"""What the tests share: seeds, the folder of real data, settings of the property tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# derandomised: a test that passes here passes everywhere; deadlines would make a busy machine fail
settings.register_profile("regraft", deadline=None, derandomize=True, max_examples=60, database=None)
settings.load_profile("regraft")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """torch.nn initialises from the global generator; each test starts from the same state of it."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(1234)


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets; skips where there is none."""
    folder = os.environ.get("REGRAFT_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("REGRAFT_DATA does not name a folder with data sets")
    return Path(folder)
