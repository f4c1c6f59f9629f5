"""Fitted regressors as plain arrays: linear ones, trees, forests and perceptrons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regraft import models
from regraft.errors import InputError, MismatchError, unknown

KINDS = ("linear", "trees", "mlp")


@dataclass(frozen=True, eq=False)
class Regressor:
    """A fitted regressor: [n, inputs] -> [n].

    Attributes:
        kind: ``"linear"``, ``"trees"`` (their mean) or ``"mlp"`` (ReLU between layers, sigmoid at the end).
        tensors: ``coef`` [inputs] and ``intercept`` [1]; or ``roots`` [trees], ``left``, ``right``,
            ``feature`` (int64) and ``threshold``, ``value`` (float64) per node, left and right being -1 in a
            leaf; or ``weight0``, ``bias0``, ``weight1``, ...
        inputs: number of features.

    >>> line = Regressor("linear", {"coef": torch.tensor([1.0, 2.0]), "intercept": torch.tensor([0.5])}, 2)
    >>> line.predict(torch.tensor([[1.0, 1.0]])).tolist()
    [3.5]

    Raises:
        InputError: an unknown kind, or tensors that are not a regressor of this kind.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    inputs: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of regressor", self.kind, KINDS)
        fault = _CHECKS[self.kind](self.tensors, self.inputs)
        if fault:
            raise InputError(f"these are no tensors of a regressor of kind '{self.kind}': {fault}")

    def predict(self, rows: Tensor) -> Tensor:
        """What is predicted for each row [n, inputs], float64 [n].

        Raises:
            MismatchError: rows with another number of features.
        """
        if rows.ndim != 2 or rows.shape[1] != self.inputs:
            raise MismatchError(
                f"the regressor was trained on {self.inputs} features, but got {tuple(rows.shape)[1:]}: "
                "score with the features that it was trained on"
            )
        tensors = {n: t.to(rows.device) for n, t in self.tensors.items()}
        with torch.no_grad():
            return _PREDICT[self.kind](tensors, rows.double())


def _linear(tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    return rows @ tensors["coef"].double() + tensors["intercept"].double()


def _trees(tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    left, right, feature = tensors["left"], tensors["right"], tensors["feature"]
    threshold, value = tensors["threshold"], tensors["value"]
    narrow = rows.float().double()  # scikit-learn's trees see float32
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for root in tensors["roots"].tolist():
        node = torch.full((len(rows),), root, device=rows.device)
        walking = torch.arange(len(rows), device=rows.device)
        while walking.numel():
            at = node[walking]
            walking = walking[left[at] >= 0]
            at = node[walking]
            goes_left = narrow[walking, feature[at]] <= threshold[at]
            node[walking] = torch.where(goes_left, left[at], right[at])
        total += value[node]
    return total / len(tensors["roots"])


def _mlp(tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    layers = len(tensors) // 2
    for i in range(layers):
        rows = rows @ tensors[f"weight{i}"].double().t() + tensors[f"bias{i}"].double()
        rows = rows.relu() if i < layers - 1 else rows.sigmoid()
    return rows.squeeze(1)


def _check_linear(tensors: Mapping[str, Tensor], inputs: int) -> str:
    if set(tensors) != {"coef", "intercept"}:
        return f"they are called {sorted(tensors)}"
    shapes = tuple(tensors["coef"].shape), tuple(tensors["intercept"].shape)
    return "" if shapes == ((inputs,), (1,)) else f"they have the shapes {shapes}"


def _check_trees(tensors: Mapping[str, Tensor], inputs: int) -> str:
    nodes = ("left", "right", "feature", "threshold", "value")
    if set(tensors) != {"roots", *nodes}:
        return f"they are called {sorted(tensors)}"
    count = tensors["left"].numel()
    if any(tensors[n].shape != (count,) for n in nodes) or tensors["roots"].numel() == 0:
        return "they differ in length"
    if any(tensors[n].dtype != torch.int64 for n in ("roots", "left", "right", "feature")):
        return "their nodes are not whole numbers"
    inner = tensors["left"] >= 0
    here = torch.arange(count)
    for side in ("left", "right"):  # a child after its parent: no walk goes on for ever
        child = tensors[side][inner]
        if not bool(((child > here[inner]) & (child < count)).all()):
            return "a node's child does not come after it"
    feature, roots = tensors["feature"][inner], tensors["roots"]
    inside = ((feature >= 0) & (feature < inputs)).all() and ((roots >= 0) & (roots < count)).all()
    return "" if bool(inside) else "a node asks for a feature that is not there"


def _check_mlp(tensors: Mapping[str, Tensor], inputs: int) -> str:
    layers = len(tensors) // 2
    if not layers or set(tensors) != {f"{part}{i}" for i in range(layers) for part in ("weight", "bias")}:
        return f"they are called {sorted(tensors)}"
    width = inputs
    for i in range(layers):
        weight, bias = tensors[f"weight{i}"], tensors[f"bias{i}"]
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            return f"layer {i} has a weight of shape {tuple(weight.shape)} and takes {width} inputs"
        width = weight.shape[0]
    return "" if width == 1 else f"it has {width} outputs, not one"


_PREDICT = {"linear": _linear, "trees": _trees, "mlp": _mlp}
_CHECKS = {"linear": _check_linear, "trees": _check_trees, "mlp": _check_mlp}


def from_sklearn(estimator: Any) -> Regressor:
    """The arrays of a fitted scikit-learn regressor: a linear one, a decision tree, or a forest.

    Raises:
        InputError: of another type, or not fitted.
    """
    if hasattr(estimator, "coef_"):
        coef = torch.as_tensor(estimator.coef_, dtype=torch.float64).reshape(-1)
        intercept = torch.as_tensor(estimator.intercept_, dtype=torch.float64).reshape(-1)
        return Regressor("linear", {"coef": coef, "intercept": intercept}, coef.numel())
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
    from sklearn.tree import DecisionTreeRegressor

    if isinstance(estimator, DecisionTreeRegressor) and hasattr(estimator, "tree_"):
        trees = [estimator.tree_]
    elif isinstance(estimator, RandomForestRegressor | ExtraTreesRegressor) and hasattr(
        estimator, "estimators_"
    ):
        trees = [e.tree_ for e in estimator.estimators_]
    else:
        raise InputError(
            f"a {type(estimator).__name__} cannot become a score: fit a linear regressor, a "
            "DecisionTreeRegressor or a RandomForestRegressor first"
        )
    starts = [0]
    for tree in trees:
        starts.append(starts[-1] + tree.node_count)

    def moved(children: Any, start: int) -> Tensor:
        found = torch.as_tensor(children, dtype=torch.int64)
        return torch.where(found >= 0, found + start, -1)

    tensors = {
        "roots": torch.tensor(starts[:-1]),
        "left": torch.cat([moved(t.children_left, s) for t, s in zip(trees, starts, strict=False)]),
        "right": torch.cat([moved(t.children_right, s) for t, s in zip(trees, starts, strict=False)]),
        "feature": torch.cat([torch.as_tensor(t.feature, dtype=torch.int64) for t in trees]),
        "threshold": torch.cat([torch.as_tensor(t.threshold, dtype=torch.float64) for t in trees]),
        "value": torch.cat([torch.as_tensor(t.value[:, 0, 0], dtype=torch.float64) for t in trees]),
    }
    return Regressor("trees", tensors, int(trees[0].n_features))


@dataclass(frozen=True)
class Perceptron:
    """How the perceptron of thesis 5 (section 5.2.2) is trained: inputs-64-32-1, ReLU, sigmoid, mean squared
    error, plain SGD with rate 0.001. Batch size and number of epochs are not in the thesis.

    Raises:
        InputError: a size, rate or number that is not positive.
    """

    hidden: tuple[int, ...] = (64, 32)
    lr: float = 0.001
    epochs: int = 10
    batch_size: int = 256

    def __post_init__(self) -> None:
        if min((*self.hidden, self.lr, self.epochs, self.batch_size)) <= 0:
            raise InputError(f"{self!r}: sizes, rate and numbers must be positive")

    def fit(self, rows: Tensor, targets: Tensor, generator: torch.Generator) -> Regressor:
        """Train on rows [n, inputs] and targets [n] in [0, 1]; values and order come from ``generator``."""
        sizes = [rows.shape[1], *self.hidden, 1]
        spec = {"name": "mlp", "sizes": sizes, "activation": "relu", "dropout": 0.0}
        model = models.build(spec, init="torch", generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        rows, targets = rows.float(), targets.float()
        for _ in range(self.epochs):
            for part in torch.split(torch.randperm(len(rows), generator=generator), self.batch_size):
                optimizer.zero_grad()
                guess = model(rows[part]).squeeze(1).sigmoid()
                nn.functional.mse_loss(guess, targets[part]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        tensors = {f"weight{i}": m.weight.detach() for i, m in enumerate(linear)}
        tensors |= {f"bias{i}": m.bias.detach() for i, m in enumerate(linear)}
        return Regressor("mlp", tensors, sizes[0])


def fit(how: Any, rows: Tensor, targets: Tensor, generator: torch.Generator) -> Regressor:
    """A regressor by name (``REGRESSORS``), or as a scikit-learn estimator or a ``Perceptron``; fitted."""
    if isinstance(how, str):
        if how not in REGRESSORS:
            raise unknown("regressor", how, REGRESSORS)
        how = REGRESSORS[how](int(torch.randint(2**31, (), generator=generator)))
    if isinstance(how, Perceptron):
        return how.fit(rows, targets, generator)
    return from_sklearn(how.fit(rows.numpy(), targets.numpy()))


def _sklearn(module: str, name: str, seeded: bool = True) -> Any:
    def make(seed: int) -> Any:
        import importlib

        estimator = getattr(importlib.import_module(f"sklearn.{module}"), name)
        return estimator(random_state=seed) if seeded else estimator()

    return make


REGRESSORS: dict[str, Any] = {
    "linear": _sklearn("linear_model", "LinearRegression", seeded=False),
    "sgd": _sklearn("linear_model", "SGDRegressor"),
    "tree": _sklearn("tree", "DecisionTreeRegressor"),
    "forest": _sklearn("ensemble", "RandomForestRegressor"),
    "mlp": lambda seed: Perceptron(),
}
"""The five of thesis 5, with the defaults it used."""
