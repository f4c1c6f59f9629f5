"""Sparse estimators against scikit-learn's MLPClassifier of equal hidden sizes: accuracy and time of fitting.

    python benchmarks/estimators.py [--seeds 5] [--sets digits,fashion-mnist] [--density 0.1]

Digits: all 1797, standardised, a quarter for testing, stratified, 100 hidden units, the defaults of both
estimators. Fashion-MNIST (needs REGRAFT_DATA): 5000 training images and all 10,000 test images, standardised,
256-256 hidden units, 30 epochs of both. The seed draws the samples and everything in training. Seconds are of
the processor, of one thread, fits of a seed one after the other.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import ttest_rel
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from _common import numbers, options, set_threads, write_figures
from regraft import data
from regraft.estimators import SparseMLPClassifier

NETWORKS = 3
EPOCHS = 30  # on Fashion-MNIST
Made = Callable[[int], Any]


def digits(seed: int) -> tuple[Any, Any, Any, Any]:
    X, y = load_digits(return_X_y=True)
    found: tuple[Any, Any, Any, Any] = tuple(train_test_split(X, y, random_state=seed, stratify=y))
    return found


def fashion(seed: int) -> tuple[Any, Any, Any, Any]:
    loaded = data.load("fashion-mnist", per_class=500, seed=seed, flatten=True)
    train, test = loaded.train, loaded.test
    return train.x.numpy(), test.x.numpy(), train.y.numpy(), test.y.numpy()


def estimators(density: float, settings: dict[str, Any]) -> dict[str, Made]:
    """By name; several networks are merged into one of the same size."""
    epochs = settings.get("max_iter", 200)

    def ours(**more: Any) -> Made:
        return lambda seed: SparseMLPClassifier(random_state=seed, **{"density": density, **settings, **more})

    return {
        "MLPClassifier": lambda seed: MLPClassifier(random_state=seed, **settings),
        "sparse": ours(),
        "sparse, static": ours(evolve=None),
        "sparse, rigl": ours(evolve="rigl"),
        f"sparse, {NETWORKS} merged": ours(n_networks=NETWORKS),
        f"sparse, {NETWORKS} times as long": ours(
            max_iter=NETWORKS * epochs, n_iter_no_change=NETWORKS * epochs
        ),
    }


SETS: dict[str, tuple[Callable[[int], tuple[Any, Any, Any, Any]], dict[str, Any]]] = {
    "digits": (digits, {"hidden_layer_sizes": (100,)}),
    "fashion-mnist": (fashion, {"hidden_layer_sizes": (256, 256), "max_iter": EPOCHS}),
}


def measure(name: str, seeds: range, density: float) -> dict[str, list[dict[str, float]]]:
    """Of each estimator and seed: test accuracy in percent, seconds, epochs, connections."""
    load, settings = SETS[name]
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        X, X_test, y, y_test = load(seed)
        scaler = StandardScaler().fit(X)
        X, X_test = scaler.transform(X), scaler.transform(X_test)
        for label, make in estimators(density, settings).items():
            model = make(seed)
            started = time.process_time()
            model.fit(X, y)
            row = {
                "seconds": time.process_time() - started,
                "accuracy": 100 * float(model.score(X_test, y_test)),
                "epochs": float(model.n_iter_),
                "connections": float(connections(model)),
            }
            found.setdefault(label, []).append(row)
    return found


def connections(model: Any) -> int:
    if isinstance(model, SparseMLPClassifier):
        return model.topology_.nnz
    return int(sum(np.size(weight) for weight in model.coefs_))


def table(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """Markdown: means over the seeds, differences to "sparse" seed by seed."""
    lines = ["| | accuracy | - sparse | connections | epochs | seconds |", "|---|---|---|---|---|---|"]
    base = [row["accuracy"] for row in found["sparse"]]
    for label, rows in found.items():
        values = [row["accuracy"] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        means = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
        lines.append(
            f"| {label} | {means['accuracy']:.2f} ± {spread:.2f} | {compared(values, base)} | "
            f"{means['connections']:.0f} | {means['epochs']:.0f} | {means['seconds']:.2f} |"
        )
    return lines


def compared(values: list[float], base: list[float]) -> str:
    """Mean difference, in how many seeds it is positive, p of a paired t-test."""
    if values == base or len(values) < 2:
        return ""
    differences = [a - b for a, b in zip(values, base, strict=True)]
    p = float(ttest_rel(values, base).pvalue)
    return f"{statistics.mean(differences):+.2f}, {sum(d > 0 for d in differences)}, p {p:.1g}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="digits,fashion-mnist")
    parser.add_argument("--density", type=float, default=0.1)
    chosen = parser.parse_args()
    set_threads(chosen.threads)
    warnings.simplefilter("ignore", ConvergenceWarning)
    figures = {}
    for name in numbers(chosen.sets, str):
        figures[name] = measure(name, range(chosen.seeds), chosen.density)
        print(f"\n{name}\n\n" + "\n".join(table(figures[name])), flush=True)
    write_figures(chosen.json, figures)


if __name__ == "__main__":
    main()
