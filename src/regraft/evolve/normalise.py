"""Each unit's incoming weights on the unit sphere (thesis 1, section 9)."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from regraft.errors import InputError
from regraft.evolve.named import Patterns, as_patterns, sparse_weights
from regraft.weight import SparseWeight


def row_norms(weight: SparseWeight) -> Tensor:
    """L2 norm of each unit's incoming weights, [out]; 0 for a unit without connections.

    >>> w = SparseWeight((2, 2), torch.tensor([0, 1]), torch.tensor([3.0, -4.0]))
    >>> row_norms(w).tolist()
    [5.0, 0.0]
    """
    return _scale_and_norms(weight)[1]


def _scale_and_norms(weight: SparseWeight) -> tuple[Tensor, Tensor]:
    """Largest |w| (1 where there is none) and norm of each row; squares of w / largest cannot overflow."""
    rows, values = weight.rows(), weight.values.detach()
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    largest = values.new_zeros(weight.shape[0]).scatter_reduce_(0, rows, values.abs(), "amax")
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    squares = torch.zeros_like(largest).index_add_(0, rows, (values / scale[rows]).square())
    return scale, squares.sqrt() * scale


@torch.no_grad()
def normalise_rows(model: nn.Module, include: Patterns = ("*",), exclude: Patterns = ()) -> None:
    """Scale the incoming weights of each unit (output channel) to Euclidean norm 1, in place.

    w_i <- w_i / ||w_i||_2 for each row i of each sparse weight (thesis 1, section 9). Biases are left alone;
    so are rows without connections and rows of zeros. O(nnz); no dense array.

    Args:
        include, exclude: shell patterns on the names of weights or layers.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(8, 4)), density=0.5)
    >>> normalise_rows(model)
    >>> bool(torch.isclose(model[0].weight.dense().norm(dim=1), torch.ones(4)).all())
    True

    Raises:
        InputError: the model has no sparse weight; a pattern that matches none.
    """
    for weight in sparse_weights(model, include, exclude).values():
        rows = weight.rows()
        scale, norms = _scale_and_norms(weight)
        relative = torch.where(norms > 0, norms / scale, torch.ones_like(norms))
        values = weight.values.to(norms.dtype) / scale[rows] / relative[rows]
        weight.values.copy_(torch.where(norms[rows] > 0, values, weight.values.to(norms.dtype)))


class RowNormalise:
    """``normalise_rows`` after each optimizer step, attached like ``Evolve`` (thesis 1, section 9).

    Together with ``Evolve`` call it last, so that grown connections are normalised too.

    >>> from regraft import sparsify
    >>> model = sparsify(nn.Sequential(nn.Linear(8, 4)), density=0.5)
    >>> RowNormalise().attach(model).step()
    >>> bool(torch.isclose(row_norms(model[0].weight), torch.ones(4)).all())
    True
    """

    def __init__(self, include: Patterns = ("*",), exclude: Patterns = ()) -> None:
        self.include, self.exclude = as_patterns(include), as_patterns(exclude)
        self._model: nn.Module | None = None

    def __repr__(self) -> str:
        return f"RowNormalise(include={self.include}, exclude={self.exclude})"

    def attach(self, model: nn.Module, optimizer: Any = None) -> Self:
        """Say which model; the optimizer is not needed. Returns self.

        Raises:
            InputError: the model has no sparse weight; a pattern that matches none.
        """
        sparse_weights(model, self.include, self.exclude)
        self._model = model
        return self

    def step(self) -> None:
        """Normalise now: call it after every ``optimizer.step()``.

        Raises:
            InputError: not attached.
        """
        if self._model is None:
            raise InputError("this RowNormalise is not attached yet: call .attach(model) first")
        normalise_rows(self._model, self.include, self.exclude)

    def state_dict(self) -> dict[str, Any]:
        """Empty: there is nothing to resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take over."""
