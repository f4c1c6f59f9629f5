"""The small problem and the training with everything that has state, as fixtures."""

from collections.abc import Callable

import pytest
from tests.train.toys import Everything, toy_data

from regraft.data import Data


@pytest.fixture
def data() -> Data:
    """The small problem."""
    return toy_data()


@pytest.fixture
def everything() -> Callable[..., Everything]:
    """Makes a training with everything."""
    return Everything
