"""Density paths: they begin and end where they should, never rise, and keep what names them constant."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import InputError
from regraft.prune import PATHS, paths
from regraft.schedules import Progress

densities = st.floats(1e-4, 1.0)

# a member that is missing here fails
CONSTANT = {
    "exponential": lambda d, i, end: d[i + 1] / d[i],  # the share that a shot keeps
    "linear": lambda d, i, end: d[i] - d[i + 1],  # what a shot removes
    "cubic": lambda d, i, end: (d[i] - end) ** (1 / 3) - (d[i + 1] - end) ** (1 / 3),
}


def test_each_path_has_its_law():
    assert set(CONSTANT) == set(PATHS)


@pytest.mark.parametrize("name", sorted(PATHS))
@given(start=densities, share=densities, shots=st.integers(1, 40))
def test_paths(name, start, share, shots):
    end = start * share
    d = [PATHS[name](start, end, Progress(i, shots)) for i in range(shots + 1)]
    assert d[0] == pytest.approx(start, rel=1e-12)
    assert d[-1] == end
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(d))
    assert all(end <= v * (1 + 1e-12) for v in d)
    law = [CONSTANT[name](d, i, end) for i in range(shots - 1)]
    assert law == pytest.approx([law[0]] * len(law) if law else [], rel=1e-6, abs=1e-4)


def test_an_unknown_path_is_named():
    with pytest.raises(InputError, match="unknown density path 'exponentil': did you mean 'exponential'"):
        paths.by_name("exponentil")
