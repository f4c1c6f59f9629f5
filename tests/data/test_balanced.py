"""A batch with as many samples of each class."""

from __future__ import annotations

import pytest
import torch

from regraft.data import Split, balanced_batch
from regraft.errors import InputError


def split() -> Split:
    y = torch.tensor([0] * 5 + [2] * 7 + [1] * 3)  # in disorder, and label 3 has no samples
    return Split(torch.arange(15.0).reshape(15, 1), y[torch.randperm(15, generator=torch.Generator())])


def test_counts_and_no_sample_twice(generator: torch.Generator) -> None:
    data = split()
    x, y = balanced_batch(data, 3, generator)
    assert y.bincount().tolist() == [3, 3, 3]
    assert len(x.unique()) == 9
    assert torch.equal(data.y[x.squeeze(1).long()], y)


def test_every_sample_can_be_drawn_and_the_seed_decides() -> None:
    drawn = [balanced_batch(split(), 2, torch.Generator().manual_seed(s))[0] for s in range(40)]
    assert len(torch.cat(drawn).unique()) == 15
    assert torch.equal(drawn[0], balanced_batch(split(), 2, torch.Generator().manual_seed(0))[0])


@pytest.mark.parametrize(("per_class", "fault"), [(0, "must be a whole number"), (4, "has 3 samples")])
def test_errors(per_class: int, fault: str, generator: torch.Generator) -> None:
    with pytest.raises(InputError, match=fault):
        balanced_batch(split(), per_class, generator)
