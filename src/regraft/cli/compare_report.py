"""What ``regraft compare`` prints and draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console

from regraft import diagnose, files
from regraft.cli.common import table
from regraft.cli.ticket import WHOLE, Compared
from regraft.diagnose import Overlap

Pair = tuple[int, int, Overlap]

MOST_PANELS = 6
"""Layers with a histogram of their own; of deeper networks only the whole has one."""


def print_comparison(screen: Console, tickets: Sequence[Compared], pairs: Sequence[Pair]) -> None:
    """Overlaps, densities and weights, a table each."""
    for i, ticket in enumerate(tickets, start=1):
        screen.print(f"{i}  {ticket.path}", soft_wrap=True, markup=False)
    screen.print()
    _print_overlaps(screen, pairs)
    screen.print()
    _print_densities(screen, tickets)
    screen.print()
    _print_weights(screen, tickets)


def _print_overlaps(screen: Console, pairs: Sequence[Pair]) -> None:
    """Layer by layer for two networks; the whole of each pair for more."""
    if len(pairs) == 1:
        lines = table("weight", "shared", "union", "Jaccard", "by chance")
        found = pairs[0][2]
        rows = [*found.layers, found.whole]
        for row in rows:
            if row is found.whole:
                lines.add_section()
            lines.add_row(
                row.name, f"{row.shared:,}", f"{row.union:,}", f"{row.jaccard:.4f}", f"{row.expected:.4f}"
            )
    else:
        lines = table("pair", "shared", "union", "Jaccard", "by chance")
        for i, j, found in pairs:
            whole = found.whole
            lines.add_row(
                f"{i + 1} and {j + 1}", f"{whole.shared:,}", f"{whole.union:,}", f"{whole.jaccard:.4f}",
                f"{whole.expected:.4f}",
            )  # fmt: skip
    screen.print(lines)


def _print_densities(screen: Console, tickets: Sequence[Compared]) -> None:
    heads = [f"{i} {what}" for i in range(1, len(tickets) + 1) for what in ("kept", "effective")]
    lines = table("density", *heads)
    names = list(tickets[0].topology)
    for name in names:
        cells = []
        for ticket in tickets:
            effective = None if ticket.paths is None else ticket.paths.topology[name].density
            cells += [_percent(ticket.topology[name].density), _percent(effective)]
        lines.add_row(name, *cells)
    lines.add_section()
    wholes = []
    for ticket in tickets:
        effective = None if ticket.paths is None else ticket.paths.effective_density
        wholes += [_percent(ticket.topology.density), _percent(effective)]
    lines.add_row(WHOLE, *wholes)
    screen.print(lines)
    for i, ticket in enumerate(tickets, start=1):
        if ticket.paths is not None:
            reached = ticket.paths.outputs - len(ticket.paths.unreachable)
            screen.print(f"{i}: an input reaches {reached} of {ticket.paths.outputs} outputs")


def _print_weights(screen: Console, tickets: Sequence[Compared]) -> None:
    lines = table("weights", "n", "mean", "std", "5 %", "median", "95 %", "positive")
    for i, ticket in enumerate(tickets, start=1):
        for kind, values in ticket.sets().items():
            found = diagnose.distribution(torch.cat([v.flatten() for v in values.values()]))
            low, _, median, _, high = found.quantiles or (float("nan"),) * 5
            lines.add_row(
                f"{i} {kind}", f"{found.n:,}", f"{found.mean:.4f}", f"{found.std:.4f}", f"{low:.4f}",
                f"{median:.4f}", f"{high:.4f}", f"{100 * found.positive:.1f} %",
            )  # fmt: skip
    screen.print(lines)


def picture(tickets: Sequence[Compared], pairs: Sequence[Pair], bins: int) -> dict[str, Any]:
    """The parts of the page."""
    names = [f"{i} {t.path.name}" for i, t in enumerate(tickets, start=1)]
    layers = list(tickets[0].topology)
    found: dict[str, Any] = {
        "title": "Tickets side by side",
        "summary": _summary(tickets, pairs),
        "facts": [
            {"label": name, "value": f"{_percent(t.topology.density)}", "note": _effective(t)}
            for name, t in zip(names, tickets, strict=True)
        ],
        "densities": {"layers": layers, "networks": _bars(names, tickets)},
        "tables": [_overlap_table(names, pairs)],
        "versions": files.versions(),
    }
    panels = [WHOLE, *(layers if len(layers) < MOST_PANELS else [])]
    found["histogram"] = {
        "title": "Weights that were kept",
        "caption": "Share of the kept connections by their weight; the outermost bins have what lies beyond.",
        "unit": "Weight",
        "panels": [{"name": p, "sets": _sets(p, names, tickets, bins)} for p in panels],
    }
    if len(tickets) > 2:
        distance = {(i, j): 1 - o.whole.jaccard for i, j, o in pairs}
        n = range(len(tickets))
        found["distances"] = {
            "names": names,
            "nnstd": [[0.0 if i == j else distance[min(i, j), max(i, j)] for j in n] for i in n],
        }
    return found


def _bars(names: Sequence[str], tickets: Sequence[Compared]) -> list[dict[str, Any]]:
    bars = []
    for name, ticket in zip(names, tickets, strict=True):
        bars.append({"name": f"{name}, kept", "densities": [c.density for c in ticket.topology.values()]})
        if ticket.paths is not None:
            effective = [c.density for c in ticket.paths.topology.values()]
            bars.append({"name": f"{name}, effective", "densities": effective})
    return bars


def _sets(panel: str, names: Sequence[str], tickets: Sequence[Compared], bins: int) -> list[dict[str, Any]]:
    """The sets of one panel, all over the same bins; sets without values are left out."""
    chosen = {}
    for name, ticket in zip(names, tickets, strict=True):
        for kind, values in ticket.sets().items():
            parts = list(values.values()) if panel == WHOLE else [values[panel]]
            chosen[f"{name}, {kind}"] = torch.cat([v.flatten() for v in parts])
    chosen = {name: v for name, v in chosen.items() if v.numel()}
    if not chosen:
        return []
    # a few large weights would leave all others in a bin or two
    edge = max(float(v.abs().sort().values[int(0.99 * (v.numel() - 1))]) for v in chosen.values()) or 1.0
    sets = []
    for name, flat in chosen.items():
        d = diagnose.distribution(flat.clamp(-edge, edge), bins=bins, span=(-edge, edge))
        sets.append(
            {"name": name, "edges": list(d.edges), "counts": list(d.counts), "mean": d.mean, "std": d.std}
        )
    return sets


def _overlap_table(names: Sequence[str], pairs: Sequence[Pair]) -> dict[str, Any]:
    rows = [
        [f"{names[i]} and {names[j]}", row.name, row.shared, row.union, row.jaccard, row.expected]
        for i, j, found in pairs
        for row in (*found.layers, found.whole)
    ]
    return {
        "title": "Overlap",
        "columns": ["Pair", "Weight", "Shared", "Union", "Jaccard", "By chance"],
        "rows": rows,
        "note": "By chance: what random tickets of the same densities would have.",
    }


def _summary(tickets: Sequence[Compared], pairs: Sequence[Pair]) -> str:
    said = [
        f"{i + 1} and {j + 1} share {found.whole.shared:,} of {found.whole.union:,} connections (Jaccard "
        f"{found.whole.jaccard:.3f}, by chance {found.whole.expected:.3f})."
        for i, j, found in pairs[:3]
    ]
    dead = [str(i) for i, t in enumerate(tickets, start=1) if t.faults()]
    if dead:
        said.append(f"In {' and '.join(dead)} some layers or outputs are cut off.")
    return " ".join(said)


def _effective(ticket: Compared) -> str:
    return "kept" if ticket.paths is None else f"kept; {_percent(ticket.paths.effective_density)} effective"


def _percent(share: float | None) -> str:
    """
    >>> _percent(0.005), _percent(None)
    ('0.50 %', '-')
    """
    if share is None:
        return "-"
    return f"{100 * share:.2f} %" if share >= 1e-3 or share == 0 else f"{100 * share:.2g} %"
