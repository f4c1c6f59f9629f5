"""``SparseMLPRegressor``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import column_or_1d
from torch import Tensor, nn

from regraft.estimators import networks
from regraft.estimators.base import SparseMLP

Array = np.ndarray[Any, np.dtype[Any]]


class SparseMLPRegressor(RegressorMixin, SparseMLP):  # type: ignore[misc]
    """A sparse multilayer perceptron that evolves while it trains, as a regressor of scikit-learn.

    It minimises the mean squared error, of one target or several, plus weight decay. While it trains, each
    target is brought to mean 0 and standard deviation 1, so that the learning rate does not depend on its
    unit; afterwards the last layer takes that back, and ``module_`` gives out targets as they were passed.
    Samples are not scaled: standardise them. It takes no weights of samples.

    Parameters and attributes are those of ``SparseMLPClassifier``, with ``n_outputs_``, the number of
    targets, instead of ``classes_``. ``loss_curve_`` is in units of the targets' variance.

    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = SparseMLPRegressor(density=0.2, max_iter=30, learning_rate="cosine", random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), model).fit(X, y)
    >>> pipeline.score(X, y) > 0.4
    True
    """

    _loss = "mse"

    def fit(self, X: Any, y: Any) -> Self:
        """Train anew; with ``warm_start``, go on from the network there is.

        Args:
            X: samples [n, features], numbers without NaN; a data frame, an array or a SciPy sparse matrix.
            y: numbers [n] or [n, outputs].

        Raises:
            ValueError: parameters or samples that cannot be used, or training diverged.
        """
        return super().fit(X, y)

    def partial_fit(self, X: Any, y: Any) -> Self:
        """One pass over some samples; the network goes on from where it is.

        The learning rate stays as it is and the evolution rate where its schedule begins, since the end of a
        stream is not known; the topology changes every 100 steps. ``n_networks`` does not matter: what was
        fitted before, merged or not, is the one network that goes on. The scale of ``y`` in which it trains
        is that of the first samples.

        Args:
            X: samples [n, features].
            y: their targets, as for ``fit``.

        Raises:
            ValueError: as ``fit``.
        """
        return self._partial_fit(X, y, not hasattr(self, "module_"))

    def predict(self, X: Any) -> Array:
        """Numbers [n], or [n, outputs] where there are several."""
        output = self._output(X)
        return output[:, 0] if self.n_outputs_ == 1 else output

    @property
    def _outputs(self) -> int:
        return self.n_outputs_

    def _targets(self, y: Any, new: bool) -> Tensor:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        numbers = torch.from_numpy(np.array(y, dtype=np.float64).reshape(len(y), -1))
        if new:
            self.n_outputs_ = numbers.shape[1]
            self._mean = numbers.mean(0)
            spread = numbers.std(0, correction=0)
            self._spread = torch.where(spread > 0, spread, 1.0)
        return ((numbers - self._mean) / self._spread).float()

    def _opened(self, module: nn.Module) -> nn.Module:
        made = super()._opened(module)
        networks.rescale_outputs(made, 1 / self._spread, -self._mean / self._spread)
        return made

    def _close(self, module: nn.Module) -> None:
        networks.rescale_outputs(module, self._spread, self._mean)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
