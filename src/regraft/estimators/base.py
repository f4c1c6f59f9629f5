"""What the classifier and the regressor have in common: parameters, training, prediction."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from regraft.data import Data, Split
from regraft.errors import InputError
from regraft.estimators import networks, options, stream
from regraft.topology import Topology
from regraft.train import Callback, EarlyStopping, Hooks, Run, Trained, seeds

MOST_VALUES = 2**24  # of the widest layer, in one pass of a prediction


class SparseMLP(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Everything but the targets. Subclasses say what these are, and what the outputs mean."""

    _loss: str

    def __init__(
        self,
        *,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: str = "relu",
        density: float = 0.1,
        allocate: str = "erdos-renyi",
        evolve: str | None = "set",
        rate: float | str | None = "cosine",
        optimizer: str = "sgd",
        learning_rate: str = "constant",
        learning_rate_init: float | str = "auto",
        momentum: float = 0.9,
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        max_iter: int = 200,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_networks: int = 1,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool | int = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.density = density
        self.allocate = allocate
        self.evolve = evolve
        self.rate = rate
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.alpha = alpha
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_networks = n_networks
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Train anew; with ``warm_start``, go on from the network there is.

        Args:
            X: samples [n, features], numbers without NaN; a data frame, an array or a SciPy sparse matrix.
            y: targets, one for each sample.

        Raises:
            ValueError: parameters or samples that cannot be used, or training diverged.
        """
        options.check(self.get_params(deep=False))
        known = bool(self.warm_start) and hasattr(self, "module_")
        x, target = self._received(X, y, new=not known)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        data = self._data(x, target, seed)
        if known:
            trained = [self._train(data, seed, self._opened(self.module_))]
        else:
            each = [seeds.derived(seed, f"network {i}") for i in range(self.n_networks)]
            trained = [self._train(data, one) for one in each]
        module = trained[0].model
        if len(trained) > 1:
            module = networks.merge([one.model for one in trained], data.train)
        self._note([one.history.column("train_loss") for one in trained], go_on=known)
        self.n_iter_ = max(len(one.history.epochs) for one in trained)
        self._stream: stream.Stream | None = None
        self._take(module)
        self._warn_if_unfinished(trained)
        return self

    def _partial_fit(self, X: Any, y: Any, new: bool) -> Self:
        """One pass over the samples, with the network and the optimizer of the passes before."""
        params = self.get_params(deep=False)
        options.check(params)
        if self.early_stopping:
            raise InputError("partial_fit sees no validation samples: set early_stopping to False")
        x, target = self._received(X, y, new=new)
        data = self._data(x, target, None)
        if new or self._stream is None:
            seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
            lr = options.learning_rate(self.learning_rate_init, self.optimizer, self._loss, x)
            self._stream = stream.Stream(seed, lr)
        recipe = options.recipe(
            params, loss=self._loss, samples=len(x), lr=self._stream.lr, seed=self._stream.seed
        )
        module = None if new else self._opened(self.module_)
        where = options.device(self.device)
        module, history, self._stream = stream.go_on(self._stream, recipe, data, module, where)
        self._note([history.column("train_loss")], go_on=not new)
        self.n_iter_ = len(self.loss_curve_)
        self._take(module)
        return self

    def _received(self, X: Any, y: Any, *, new: bool) -> tuple[Tensor, Tensor]:
        """Samples float32 [n, features], and targets as the loss takes them."""
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=(np.float64, np.float32),
            y_numeric=is_regressor(self), reset=new,
        )  # fmt: skip
        return _tensor(X), self._targets(y, new)

    def _data(self, x: Tensor, target: Tensor, seed: int | None) -> Data:
        """The samples to train on, and those for early stopping. No seed: none are kept for that."""
        train, validation = Split(x, target), None
        if self.early_stopping and seed is not None:
            generator = seeds.stream(seed, "validation")
            if train.labelled:
                train, validation = train.split_off(self.validation_fraction, generator)
            else:
                order = torch.randperm(len(x), generator=generator)
                kept = len(x) - int(np.ceil(self.validation_fraction * len(x)))
                if kept < 1:
                    raise InputError(
                        f"validation_fraction {self.validation_fraction} leaves none of {len(x)} samples to "
                        "train on: lower it, or set early_stopping to False"
                    )
                train, validation = train.select(order[:kept]), train.select(order[kept:])
        # the loop evaluates test samples after each epoch, which nobody looks at here: one is quick
        test = train.select(torch.zeros(1, dtype=torch.int64))
        names = tuple(str(i) for i in range(self._outputs))
        return Data("samples", train, test, names, validation)

    def _train(self, data: Data, seed: int, start: nn.Module | None = None) -> Trained:
        lr = options.learning_rate(self.learning_rate_init, self.optimizer, self._loss, data.train.x)
        recipe = options.recipe(
            self.get_params(deep=False), loss=self._loss, samples=len(data.train), lr=lr, seed=seed
        )
        return networks.train(
            recipe, data, self._callbacks,
            start=None if start is None else lambda: copy.deepcopy(start),
            retry=isinstance(self.learning_rate_init, str), device=options.device(self.device),
        )  # fmt: skip

    def _callbacks(self) -> list[Callback]:
        validation = "validation_loss" if self._loss != "cross-entropy" else "validation_accuracy"
        monitor = validation if self.early_stopping else "train_loss"
        stop = EarlyStopping(
            self.n_iter_no_change, monitor, min_delta=self.tol, restore_best=bool(self.early_stopping)
        )
        return [stop, Hooks(epoch_end=lambda run: _tell(run, monitor))] if self.verbose else [stop]

    def _note(self, curves: Sequence[Sequence[float]], *, go_on: bool) -> None:
        """The mean training loss of the networks that still train in each epoch."""
        longest = max(len(curve) for curve in curves)
        means = [float(np.mean([c[i] for c in curves if i < len(c)])) for i in range(longest)]
        self.loss_curve_: list[float] = [*(self.loss_curve_ if go_on else []), *means]
        self.loss_ = self.loss_curve_[-1]

    def _warn_if_unfinished(self, trained: Sequence[Trained]) -> None:
        if self.learning_rate == "constant" and any(one.history.stopped is None for one in trained):
            warnings.warn(
                f"training reached max_iter ({self.max_iter} epochs) before it converged: raise max_iter, or "
                "let the learning rate fall by then, with learning_rate='cosine'",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _take(self, module: nn.Module) -> None:
        self._close(module)
        self.module_ = module.eval()

    def _output(self, X: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What the network says [n, outputs]."""
        check_is_fitted(self, "module_")
        X = validate_data(self, X, accept_sparse=["csr", "csc"], dtype=(np.float64, np.float32), reset=False)
        X = X.tocsr() if sparse.issparse(X) else X
        widest = max(max(layer.weight.shape) for layer in networks.linear_layers(self.module_))
        rows = max(1, MOST_VALUES // widest)
        with torch.no_grad():
            found = [
                self.module_(_tensor(X[i : i + rows])).double().numpy() for i in range(0, X.shape[0], rows)
            ]
        return np.concatenate(found)

    @property
    def topology_(self) -> Topology:
        """Which connections the network has."""
        check_is_fitted(self, "module_")
        return Topology.of(self.module_)

    @property
    def density_(self) -> float:
        """Connections over positions, of the whole network."""
        return self.topology_.density

    @property
    def feature_importances_(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Share of each feature in what flows through the network, [features], not negative and of sum 1:

            I_j = sum_k (|W_L| ... |W_1|)_kj / sum_kj (|W_L| ... |W_1|)_kj

        the products of weights' magnitudes over all paths from the feature to any output (the flow of Tanaka
        et al. 2020, arXiv:2006.05467, by input). It says how strongly the network is wired to a feature, so
        features are comparable only if their values are: standardise them. A feature without a path has 0.
        """
        check_is_fitted(self, "module_")
        flow = networks.input_flow(self.module_)
        total = float(flow.sum())
        shares: np.ndarray[Any, np.dtype[np.float64]] = (flow / total if total else flow).numpy()
        return shares

    def _opened(self, module: nn.Module) -> nn.Module:
        """A copy as training takes it."""
        return copy.deepcopy(module)

    def _close(self, module: nn.Module) -> None:
        """Make outputs of training those of the estimator, in place."""

    @property
    def _outputs(self) -> int:
        raise NotImplementedError

    def _targets(self, y: Any, new: bool) -> Tensor:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _tensor(X: Any) -> Tensor:
    """Checked samples as float32; of sparse ones all values."""
    dense = X.toarray() if sparse.issparse(X) else np.asarray(X)
    with np.errstate(over="ignore"):
        made = torch.from_numpy(np.array(dense, dtype=np.float32, order="C"))
    if not bool(torch.isfinite(made).all()):
        raise InputError("X has values that float32 cannot hold: scale them, as with StandardScaler")
    return made


def _tell(run: Run, monitor: str) -> None:
    row = run.history.final
    more = "" if monitor == "train_loss" else f", {monitor.replace('_', ' ')} {row[monitor]:.4f}"
    print(f"epoch {run.epoch}: loss {row['train_loss']:.6f}{more}")
