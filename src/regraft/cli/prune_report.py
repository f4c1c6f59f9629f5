"""What ``regraft prune`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from regraft.cli.common import table
from regraft.diagnose import Connectivity
from regraft.prune import Round


def print_rounds(screen: Console, history: Sequence[Round]) -> None:
    """One line per round; nothing where there are none."""
    if not history:
        return
    lines = table("round", "trained at", "test accuracy", "pruned to")
    for done in history:
        accuracy = "-" if done.metric is None else f"{done.metric:.4f}"
        lines.add_row(str(done.number), _percent(done.trained_density), accuracy, _percent(done.density))
    screen.print(lines)


def print_layers(screen: Console, paths: Connectivity, gradient: Mapping[str, float | None]) -> None:
    """Connections of each layer, and how many of them lie on a path."""
    lines = table("weight", "shape", "kept", "density", "effective", "effective density")
    for layer in paths.layers:
        lines.add_row(
            layer.name, "x".join(map(str, layer.shape)), f"{layer.kept:,}", _percent(layer.density),
            f"{layer.effective:,}", _percent(layer.effective_density),
        )  # fmt: skip
    lines.add_section()
    lines.add_row(
        "whole", "", f"{paths.kept:,}", _percent(paths.density), f"{paths.topology.nnz:,}",
        _percent(paths.effective_density),
    )  # fmt: skip
    screen.print(lines)
    reached = paths.outputs - len(paths.unreachable)
    screen.print(f"outputs that an input reaches: {reached} of {paths.outputs}")
    before, after = (_number(gradient.get(key)) for key in ("before", "ticket"))
    screen.print(f"norm of the loss's gradient: {after} of the ticket, {before} of the network it is from")


def _percent(share: float) -> str:
    """
    >>> _percent(0.005), _percent(1.0), _percent(0.0)
    ('0.50 %', '100 %', '0 %')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2f} %" if share >= 1e-3 else f"{100 * share:.2g} %"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
