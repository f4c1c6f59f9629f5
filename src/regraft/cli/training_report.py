"""What ``regraft train`` prints."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from regraft import measure
from regraft.cli.common import table
from regraft.data import Data, Split
from regraft.train import History

MOST_ROWS = 20


def describe_model(screen: Console, name: str, figures: dict[str, Any], data: Data) -> None:
    """Parameters and compression, and what it is trained on."""
    kinds = f"{data.classes} classes"
    if measure.is_text(data.train):
        kinds = f"{data.train.y.shape[1]} characters each, of {data.classes} kinds"
    screen.print(
        f"{name} on {data.name}: {len(data.train):,} training and {len(data.test):,} test samples, {kinds}",
        soft_wrap=True,
    )
    screen.print(
        f"{figures['parameters']:,} parameters instead of {figures['dense_parameters']:,} "
        f"(compression x{figures['compression']:.1f}), density {100 * figures['density']:.2f} %",
        soft_wrap=True,
    )


def bits_of(loss: float, name: str, split: Split) -> str:
    """The bits per character that a loss comes to, behind a comma; nothing where the split is no text."""
    if name != "cross-entropy" or not measure.is_text(split):
        return ""
    return f", {loss / math.log(2):.4f} bits per character"


def history_table(history: History) -> Table:
    """One line per epoch; of long trainings some epochs evenly apart, and always the last."""
    evolves = any("rate" in row for row in history.epochs)
    thins = any("density" in row for row in history.epochs)
    made = table(
        "epoch",
        "train loss",
        "test loss",
        "accuracy",
        "lr",
        *(("rate", "replaced") if evolves else ()),
        *(("density",) if thins else ()),
        "s",
    )
    n = len(history.epochs)
    apart = max(1, -(-n // MOST_ROWS))
    for row in (r for i, r in enumerate(history.epochs, start=1) if i % apart == 0 or i == n):
        evolution = [_or_dash(row.get("rate"), ".4f"), f"{row.get('dropped', 0):,.0f}"] if evolves else []
        if thins:
            evolution = [_or_dash(row.get("density"), ".4f")]
        made.add_row(
            f"{row['epoch']:.0f}", f"{row['train_loss']:.4f}", f"{row['test_loss']:.4f}",
            f"{row['test_accuracy']:.4f}", f"{row['lr']:.4g}", *evolution, f"{row['seconds']:.2f}",
        )  # fmt: skip
    return made


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
