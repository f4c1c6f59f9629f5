"""Results as a real run would give them, and a headless browser."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser import Browser, opened

from regraft import report

TABLE: dict[str, Any] = {
    "title": "Claims",
    "heading": "Published against measured",
    "sortable": True,
    "columns": ["Name", "Number", "Text", "Verdict"],
    "rows": [
        ["b", 10.0, "9 ± 1 (3)", {"text": "reproduced", "mark": "yes"}],
        ["a", 9.0, "100 ± 2 (3)", {"text": "not reproduced", "mark": "no"}],
        ["c", None, "<0.001", {"text": "out of scale", "mark": "none"}],
        ["d", -3.5, "1,200", {"text": "reproduced", "mark": "yes"}],
        ["e", 1e-5, None, {"text": "reproduced", "mark": "yes"}],
        ["f", 12000, "20", {"text": "reproduced", "mark": "yes"}],
    ],
}

RULES = ["magnitude", "average", "addition", "random", "nothing"]


@pytest.fixture
def results() -> dict[str, Any]:
    """Results of its own for each test, so that it may break them."""
    return make_results()


@pytest.fixture(scope="session")
def html() -> str:
    """The page of these results."""
    return report.render(make_results())


def make_results() -> dict[str, Any]:
    """Four sparse networks on 8x8 images and their merges."""
    rng = random.Random(0)
    names = [f"seed {i}" for i in range(4)]
    curves = [
        {
            "name": n,
            "epochs": list(range(1, 21)),
            "accuracy": [0.97 - 0.8 * math.exp(-e / (3 + i)) + rng.gauss(0, 0.004) for e in range(1, 21)],
        }
        for i, n in enumerate(names)
    ]
    base = {"magnitude": 0.72, "average": 0.31, "addition": 0.70, "random": 0.61, "nothing": 0.1}

    def grid(name: str, loss: float) -> dict[str, Any]:
        accuracy = [[min(0.99, base[w] + rng.uniform(-0.08, 0.08)) for _ in RULES] for w in RULES]
        return {
            "name": name,
            "weights": RULES,
            "biases": RULES,
            "accuracy": accuracy,
            "loss": [[loss * (1.05 - a) * 4 for a in row] for row in accuracy],
        }

    points = [
        {
            "name": f"{w} {i}",
            "group": w,
            "nnstd": rng.gauss(0.66, 0.02),
            "accuracy": base[w] + rng.gauss(0, 0.05),
        }
        for w in RULES[:4]
        for i in range(12)
    ]
    shape = [8, 8]
    blob = [
        math.exp(-((y - 3.5) ** 2 + (x - 3.5) ** 2) / 8) for y, x in itertools.product(range(8), repeat=2)
    ]
    return {
        "title": "Four sparse networks, one merged network",
        "summary": "Four sparse networks with 10 % of the connections reach 96.8 % on average; "
        "merged without any training they reach 72.1 %.",
        "facts": [
            {"label": "Parents, mean", "value": "96.8 %", "note": "test accuracy"},
            {"label": "Best parent", "value": "97.2 %", "note": "seed 2"},
            {"label": "Best merged", "value": "72.1 %", "note": "magnitude x average"},
            {"label": "Density", "value": "10 %", "note": "8,448 of 84,480 connections"},
        ],
        "curves": curves,
        "grids": [grid("before resparsifying", 1.0), grid("after resparsifying", 1.4)],
        "points": points,
        "reference": {"name": "parents, mean", "accuracy": 0.968},
        "distances": {
            "names": names,
            "nnstd": [[0.0 if i == j else 0.9 + 0.01 * (i + j) for j in range(4)] for i in range(4)],
            "expected": 0.947,
        },
        "pattern": {
            "shape": shape,
            "networks": [
                {"name": n, "counts": [round(40 * b + rng.uniform(0, 4)) for b in blob]} for n in names
            ],
            "mean_image": blob,
        },
        "densities": {
            "layers": ["0.weight", "2.weight", "4.weight"],
            "networks": [
                {"name": "each parent", "densities": [0.163, 0.083, 0.426]},
                {"name": "merged, before resparsifying", "densities": [0.48, 0.28, 0.88]},
                {"name": "merged, after", "densities": [0.163, 0.083, 0.426]},
            ],
        },
        "histogram": {
            "title": "Weights",
            "caption": "Before and after training.",
            "unit": "Weight",
            "panels": [
                {
                    "name": layer,
                    "sets": [
                        {"name": n, "edges": [-1.0, 0.0, 1.0], "counts": [3, 5], "mean": 0.1, "std": 0.4}
                        for n in ("initial", "final")
                    ],
                }
                for layer in ("0.weight", "2.weight", "4.weight")
            ],
        },
        "tables": [
            {
                "title": "Networks",
                "columns": ["Network", "Test accuracy (%)", "Connections", "Density (%)"],
                "rows": [
                    ["seed 0", 96.94, 8448, 10.0],
                    ["seed 1", 96.39, 8448, 10.0],
                    ["merged", None, 8448, 10.0],
                ],
                "note": "Test images: 360.",
            }
        ],
        "configuration": {
            "data": "digits",
            "model": "mlp:64-256-256-10",
            "density": 0.1,
            "epochs": 20,
            "seeds": [0, 1],
        },
        "versions": {"regraft": "0.1.0", "torch": "2.13.0"},
    }


@pytest.fixture
def figures() -> list[dict[str, Any]]:
    """One figure of each kind, with all that it may have."""
    return make_figures()


@pytest.fixture(scope="session")
def figures_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all of them and a sortable table."""
    path = tmp_path_factory.mktemp("figures") / "figures.html"
    return report.write(path, {"figures": make_figures(), "tables": [TABLE]})


def make_figures() -> list[dict[str, Any]]:
    """Figures as studies give them, with names and numbers that need room."""
    rng = random.Random(1)
    sparsities = [".5", ".8", ".9", ".95"]
    densities = [0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0]
    strands = [
        {
            "values": [w, b, s, float(n)],
            "figure": {"magnitude": 70, "addition": 60}.get(w, 30) - n + rng.random(),
        }
        for w in RULES
        for b in RULES
        for s in sparsities
        for n in (2, 5)
    ]
    clouds = [[(rng.gauss(0.5, 0.05), rng.gauss(80 - 9 * i, 4)) for _ in range(40)] for i in range(4)]
    return [
        {
            "kind": "lines", "title": "Accuracy against density", "caption": "Mean of five seeds.",
            "x": "Density (%)", "y": "Test accuracy (%)", "log_x": True,
            "series": [
                {"name": name, "x": densities, "y": [97 - (i + 1) * 4 / d for d in densities],
                 "spread": [0.5 + 0.3 / d for d in densities]}
                for i, name in enumerate(["SNIP", "SynFlow", "SNIP and SynFlow, stacked, with a long name"])
            ],
            "levels": [{"name": "dense", "value": 98.1}],
        },
        {
            "kind": "lines", "title": "Loss over epochs", "caption": "One run each.", "x": "Epoch",
            "y": "Loss", "log_y": True,
            "series": [
                {"name": name, "x": list(range(1, 61)),
                 "y": [None if e == 7 else 2.3 * math.exp(-e / (9 + 5 * i)) for e in range(1, 61)]}
                for i, name in enumerate(["dense", "SET", "EXD"])
            ],
        },
        {
            "kind": "boxes", "title": "Distances", "caption": "By rule.", "y": "NNSTD to a parent",
            "boxes": [
                report.box(r, [rng.gauss(0.5, 0.05) for _ in range(30)])
                for r in [*RULES, "magnitude with normalised rows"]
            ],
            "levels": [{"name": "expected", "value": 0.6}],
        },
        {
            "kind": "bars", "title": "Time", "caption": "Median of five.", "y": "Seconds", "log_y": True,
            "groups": ["LUNG", "Prostate_GE", "Fashion-MNIST"],
            "sets": [
                {"name": n, "values": [0.3 * (i + 1), None, 700.0], "spread": [0.1, None, 30.0]}
                for i, n in enumerate(["dense", "SET", "LDV", "OSV"])
            ],
        },
        {
            "kind": "bars", "title": "Differences", "caption": "Signed.", "y": "Points", "groups": ["a", "b"],
            "sets": [{"name": "", "values": [-3.2, 4.5]}],
        },
        {
            "kind": "parallel", "title": "All merges", "caption": "Every setting.", "figure": "Accuracy (%)",
            "axes": [
                {"name": "Weight rule", "places": RULES}, {"name": "Bias rule", "places": RULES},
                {"name": "Sparsity before merging", "places": sparsities},
                {"name": "Parents", "places": None},
            ],
            "strands": strands,
        },
        {
            "kind": "ellipses", "title": "NNSTD against accuracy", "caption": "Two standard deviations.",
            "x": "NNSTD", "y": "Accuracy (%)",
            "clouds": [
                *(report.ellipse(r, *zip(*c, strict=True)) for r, c in zip(RULES, clouds, strict=False)),
                report.ellipse("a single one", [0.4], [60.0]),
            ],
            "levels": [{"name": "parents", "value": 95.0}],
        },
        {
            "kind": "heatmap", "title": "Accuracy", "caption": "Means.", "rows": RULES, "columns": RULES,
            "values": [[10.0 * i + j if i != j else None for i in range(5)] for j in range(5)],
            "row": "Weight rule", "column": "Bias rule", "unit": "Test accuracy (%)",
        },
        {
            "kind": "pictures", "title": "Connectivity", "caption": "Connections of each.",
            "shape": [8, 8],
            "pictures": [
                {"name": f"after epoch {e}", "values": [float((i * e) % 17) for i in range(64)]}
                for e in (1, 10, 100, 1000)
            ],
        },
    ]  # fmt: skip


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("profile"))
