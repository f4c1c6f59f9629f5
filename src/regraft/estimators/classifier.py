"""``SparseMLPClassifier``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from scipy import sparse, special
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from torch import Tensor

from regraft.errors import InputError
from regraft.estimators.base import SparseMLP

Array = np.ndarray[Any, np.dtype[Any]]


class SparseMLPClassifier(ClassifierMixin, SparseMLP):  # type: ignore[misc]
    """A sparse multilayer perceptron that evolves while it trains, as a classifier of scikit-learn.

    It minimises cross-entropy (of several labels a sample: binary cross-entropy of each) plus weight decay.
    Use it where ``MLPClassifier`` would stand, samples standardised likewise; it takes no weights of samples.

    Args:
        hidden_layer_sizes: units of each hidden layer: a number, or one number for each layer, also none.
        activation: between the layers, a name of ``models.parts.ACTIVATIONS``: ``"relu"``, ``"tanh"``, ...
        density: connections over positions of all layers together, in (0, 1].
        allocate: how the density is spread over layers: ``"erdos-renyi"``, ``"uniform"``.
        evolve: how the topology changes while it trains: ``"set"``, ``"rigl"`` or another name of
            ``evolve.METHODS``; None: it stays as it was drawn.
        rate: share of the connections that an update replaces: a number in [0, 1], a schedule as ``"cosine"``
            or ``"exd:interest=0.05"``, None for the method's own.
        optimizer: ``"sgd"`` (on the CPU the whole step is compiled), ``"adam"`` or another of
            ``train.OPTIMIZERS``.
        learning_rate: its schedule over ``max_iter`` epochs: ``"constant"``, ``"cosine"``, ``"linear"``,
            ``"exponential"`` or ``"step"``, with options as in ``train.schedule_by_name``.
        learning_rate_init: where it begins. ``"auto"``: 0.001 for other optimizers than sgd; for sgd
            0.05 / max(1, m) (of numbers 0.02), where m is the mean of x^2 over samples and features, and a
            training that diverges all the same begins anew with a quarter of it, with a warning.
        momentum: of sgd and rmsprop, in [0, 1); the others do not look at it.
        alpha: weight decay, 0 or more, as torch's optimizers have it.
        batch_size: samples a step; ``"auto"``: 50, or all where there are fewer.
        max_iter: epochs at most.
        tol: the training loss (or what ``early_stopping`` watches) has to become better by more than this
        n_iter_no_change: within so many epochs, or training ends.
        early_stopping: keep some samples out of training and watch accuracy on them (of several labels a
            sample and of numbers: the loss); the network of the best epoch is what stays.
        validation_fraction: how many, a share in (0, 1).
        n_networks: train so many networks, from other initial values and topologies, and merge them into one
            of the same size and density: the units that say most of each, and a last layer chosen and fitted
            to say what the networks say together. Training takes so many times longer, prediction does not.
            For wide networks; small ones, which need all their units, lose by it.
        warm_start: let ``fit`` go on from the network there is, as one network.
        random_state: a seed, a ``RandomState``, or None for numpy's global one. The same seed gives the same
            network.
        verbose: print a line for each epoch.
        device: where it trains, as ``"cpu"`` or ``"cuda"``; the trained network comes back to the CPU, so
            that it predicts and is pickled like any other.

    Attributes:
        classes_: the labels, sorted.
        module_: the network, a ``torch.nn.Sequential`` from samples float32 [n, features] to logits.
        topology_: its connections, a ``Topology``; ``density_``: their share of the positions.
        feature_importances_: see there.
        loss_curve_: training loss of each epoch, the mean of all networks; ``loss_``: the last.
        n_iter_: epochs of the longest training.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.

    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> model = SparseMLPClassifier(density=0.3, max_iter=30, learning_rate="cosine", random_state=0)
    >>> pipeline = make_pipeline(StandardScaler(), model).fit(X, y)
    >>> pipeline.score(X, y) > 0.9, round(model.density_, 2)
    (True, 0.3)
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train anew; with ``warm_start``, go on from the network there is.

        Args:
            X: samples [n, features], numbers without NaN; a data frame, an array or a SciPy sparse matrix.
            y: labels [n], or for several labels a sample 0 and 1 [n, classes].

        Raises:
            ValueError: parameters or samples that cannot be used, or training diverged.
        """
        return super().fit(X, y)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """One pass over some samples; the network goes on from where it is.

        The learning rate stays as it is and the evolution rate where its schedule begins, since the end of a
        stream is not known; the topology changes every 100 steps. ``n_networks`` does not matter: what was
        fitted before, merged or not, is the one network that goes on.

        Args:
            X: samples [n, features].
            y: their labels, as for ``fit``.
            classes: all labels there will be, [classes]; needed at the first call only.

        Raises:
            ValueError: as ``fit``; no ``classes`` at the first call, other ones later, or labels that are not
                among them.
        """
        new = not hasattr(self, "module_")
        if new and classes is None:
            raise InputError("the first call of partial_fit needs all classes there will be: pass classes=")
        if classes is not None:
            told = unique_labels(classes)
            if new:
                self._first_classes = told
            elif not np.array_equal(told, self.classes_):
                raise InputError(
                    f"classes={classes!r} is not the same as at the last call of partial_fit, which was "
                    f"{self.classes_!r}: leave it out, or make a new estimator"
                )
        try:
            return self._partial_fit(X, y, new)
        finally:
            self.__dict__.pop("_first_classes", None)

    def predict(self, X: Any) -> Array:
        """The label of the largest probability, [n]; of several labels a sample those above 1/2, 0 and 1
        [n, classes]."""
        output = self._output(X)
        found: Array = (output > 0).astype(np.int64) if self._many else self.classes_[output.argmax(1)]
        return found

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class [n, classes], in the order of ``classes_``: rows of sum 1 (softmax), or
        for several labels a sample each by itself (sigmoid)."""
        output = self._output(X)
        found: Array = special.expit(output) if self._many else special.softmax(output, axis=1)
        return found

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of ``predict_proba``, also of probabilities that are too small for a number."""
        output = self._output(X)
        found: Array = special.log_expit(output) if self._many else special.log_softmax(output, axis=1)
        return found

    @property
    def _loss(self) -> str:  # type: ignore[override]
        return "bce" if self._many else "cross-entropy"

    @property
    def _outputs(self) -> int:
        return len(self.classes_)

    def _targets(self, y: Any, new: bool) -> Tensor:
        check_classification_targets(y)
        many = type_of_target(y, input_name="y").startswith("multilabel")
        if new:
            self._many = many
        elif many != self._many:
            raise InputError(
                f"y is {'an array of several labels' if many else 'one label'} a sample, which it was not "
                "before: make a new estimator"
            )
        return self._indicators(y, new) if many else self._labels(y, new)

    def _indicators(self, y: Any, new: bool) -> Tensor:
        dense = y.toarray() if sparse.issparse(y) else np.asarray(y)
        if new:
            self.classes_ = np.arange(dense.shape[1])
        if dense.shape[1] != len(self.classes_):
            raise InputError(f"y has {dense.shape[1]} columns, but there are {len(self.classes_)} classes")
        return torch.from_numpy(dense.astype(np.float32))

    def _labels(self, y: Any, new: bool) -> Tensor:
        y = column_or_1d(y, warn=True)
        present = unique_labels(y)
        if new:
            self.classes_ = self.__dict__.get("_first_classes", present)
        unknown = np.setdiff1d(present, self.classes_)
        if len(unknown):
            raise InputError(
                f"y has the labels {unknown.tolist()}, which are not among the classes "
                f"{self.classes_.tolist()}: make a new estimator, or name all at the first partial_fit"
            )
        return torch.from_numpy(np.searchsorted(self.classes_, y).astype(np.int64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
