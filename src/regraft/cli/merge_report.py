"""What ``regraft merge`` prints and writes of its outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from regraft.cli.common import table
from regraft.merging import MergedLayer


def layer_figures(layer: MergedLayer) -> dict[str, Any]:
    """What became of a layer, as plain values."""
    size = math.prod(layer.shape)
    return {
        "name": layer.name, "shape": list(layer.shape), "parents": list(layer.parents), "union": layer.union,
        "kept": layer.kept, "union_density": layer.union / size if size else 0.0,
        "kept_density": layer.kept / size if size else 0.0,
    }  # fmt: skip


def layer_table(layers: Sequence[MergedLayer]) -> Table:
    """Connections of the parents, of all of them together, and of the merged network."""
    lines = table("weight", "shape", "parents' mean", "union", "kept", "density")
    for layer in layers:
        mean = sum(layer.parents) / len(layer.parents)
        lines.add_row(
            layer.name, "x".join(map(str, layer.shape)), f"{mean:,.6g}", f"{layer.union:,}",
            f"{layer.kept:,}", f"{100 * layer_figures(layer)['kept_density']:.2f} %",
        )  # fmt: skip
    return lines


def evaluation_table(rows: Sequence[dict[str, Any]], data: str) -> Table:
    """Accuracy and loss of the parents and of the merged network, as it came about."""
    lines = table("network", "accuracy", "loss", title=f"on the test samples of {data}")
    for row in rows:
        lines.add_row(row["network"], f"{row['accuracy']:.4f}", f"{row['loss']:.4f}")
    return lines
