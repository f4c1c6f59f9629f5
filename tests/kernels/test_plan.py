"""Both traversals, from compiled code and from torch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.kernels import native, plan


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(0, 40),
    cols=st.integers(0, 40),
    density=st.floats(0, 1),
    panel=st.sampled_from([3, 1400]),
)
def test_traversals_list_every_entry_once(rows: int, cols: int, density: float, panel: int) -> None:
    index = torch.randperm(rows * cols)[: round(density * rows * cols)].sort().values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PANEL_ROWS", panel)
        patch.setattr(plan, "MIN_PER_COLUMN", 1)
        p = plan.build(index, rows, cols)
        patch.setattr(native, "available", lambda: False)
        q = plan.build(index, rows, cols)
    for a, b in zip(p.parts, q.parts, strict=True):
        assert torch.equal(a, b)
    r = torch.repeat_interleave(torch.arange(rows), p.rowptr.diff())
    assert torch.equal(r * cols + p.col, index)
    c = torch.repeat_interleave(torch.arange(cols).repeat(p.panels), p.colptr.diff())
    assert torch.equal(p.row.long() * cols + c, index[p.perm.long()])
    assert torch.equal(p.perm.long().sort().values, torch.arange(index.numel()))


@pytest.mark.parametrize("bad", [[-1], [0, 0], [5, 4], [12]])
def test_positions_are_checked(bad: list[int]) -> None:
    with pytest.raises(InputError):
        plan.build(torch.tensor(bad), 3, 4)


def test_a_matrix_beyond_int32_is_refused() -> None:
    with pytest.raises(InputError, match="int32"):
        plan.build(torch.empty(0, dtype=torch.int64), 2**31, 1)
