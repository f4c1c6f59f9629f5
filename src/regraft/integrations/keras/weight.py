"""A ``SparseWeight`` whose positions and values are the variables of a Keras layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.errors import MismatchError
from regraft.weight import SparseWeight


class VariableWeight(SparseWeight):
    """A sparse weight that shares its tensors with two Keras variables, and so changes in place.

    What Keras writes into its variables (``set_weights``, a checkpoint) the weight sees, and a change of the
    topology is seen by Keras. A variable has one shape for life, so the number of connections stays.
    """

    def __init__(self, shape: Sequence[int], index: Tensor, values: nn.Parameter) -> None:
        super().__init__(shape, index, values)
        self._buffers["index"], self.values = index, values  # the very tensors, which Module would wrap
        self._written = index._version

    def adopt(self, index: Tensor, values: Tensor) -> None:
        """As in ``SparseWeight``, into the same tensors.

        Raises:
            MismatchError: another number of connections.
        """
        if index.shape != self.index.shape:
            raise MismatchError(
                f"a Keras layer has {self.nnz} connections for life, because its variables and the "
                f"optimizer's have one shape, but the new topology has {index.numel()}: grow as many "
                "connections as are dropped"
            )
        with torch.no_grad():
            self.index.copy_(index)
        self.values.grad = None
        self.values.data = values
        self.refresh()

    def refresh(self) -> None:
        """Forget what kernels derived from positions that were written over since."""
        if self.index._version != self._written:
            self.cache.clear()
            self._written = self.index._version
