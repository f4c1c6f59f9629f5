"""Parts of a report from trained and merged networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from regraft.data import Data
from regraft.report import Curve, Densities, Distances, Grid, Pattern, Point
from regraft.report.schema import PatternOf
from regraft.studies.merging import BIAS_RULES, WEIGHT_RULES, Merged, mean_grid, nnstd_matrix
from regraft.studies.networks import Network
from regraft.topology import Topology


def curves(networks: Sequence[Network]) -> list[Curve]:
    """Test accuracy of each network against epochs."""
    return [
        {
            "name": n.name,
            "epochs": [row["epoch"] for row in n.history.epochs],
            "accuracy": [row["test_accuracy"] for row in n.history.epochs],
        }
        for n in networks
    ]


def grid(name: str, merged: Sequence[Merged]) -> Grid:
    """Mean accuracy and loss of each weight rule with each bias rule."""
    return {
        "name": name,
        "weights": list(WEIGHT_RULES),
        "biases": list(BIAS_RULES),
        "accuracy": [[_finite(v) for v in row] for row in mean_grid(merged, "accuracy")],
        "loss": [[_finite(v) for v in row] for row in mean_grid(merged, "loss")],
    }


def points(merged: Sequence[Merged]) -> list[Point]:
    """NNSTD to each parent against accuracy, grouped by weight rule; without the rule "nothing", whose
    networks have no weights to compare (thesis 1, section 7.8)."""
    return [
        {
            "name": f"{' + '.join(m.parents)}, {m.weights} x {m.biases}, to {parent}",
            "group": m.weights,
            "nnstd": nnstd,
            "accuracy": m.accuracy,
        }
        for m in merged
        if m.weights != "nothing"
        for parent, nnstd in zip(m.parents, m.nnstd, strict=True)
    ]


def distances(networks: Sequence[Network]) -> Distances:
    """NNSTD between all pairs, and its expectation for independent uniform topologies of these densities."""
    return {
        "names": [n.name for n in networks],
        "nnstd": [[*row] for row in nnstd_matrix(networks)],
        "expected": networks[0].topology.expected_nnstd(networks[-1].topology),
    }


def pattern(networks: Sequence[tuple[str, nn.Module]], data: Data) -> Pattern | None:
    """First-layer connections per pixel beside the training images' mean; None where inputs are no images of
    one channel."""
    shape = [n for n in data.input_shape if n != 1]
    if len(shape) != 2:
        return None
    images: list[PatternOf] = [
        {"name": name, "counts": [float(c) for c in Topology.of(model).connectivity_pattern()]}
        for name, model in networks
    ]
    mean = data.train.x.mean(0).flatten()
    return {"shape": shape, "networks": images, "mean_image": [float(v) for v in mean]}


def densities(networks: Sequence[tuple[str, nn.Module]]) -> Densities:
    """Density of each layer of each network."""
    found = [(name, Topology.of(model)) for name, model in networks]
    return {
        "layers": list(found[0][1]),
        "networks": [{"name": name, "densities": [c.density for c in t.values()]} for name, t in found],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
