"""Milliseconds of one training step, as the page of results beside other projects has them."""

from __future__ import annotations

import re
from pathlib import Path

from pictures.canvas import Canvas, Theme

PAGE = Path(__file__).parent.parent / "results" / "peers.md"
NETWORKS = ("784-1000-1000-10, density 0.04", "784-4000-4000-10, density 0.01")
ROW = re.compile(r"^\| ([\w -]+?) \| ([\d.]+) \| ([\d.]+) \|")


def compute() -> list[tuple[str, float, float]]:
    """Name, milliseconds of the small network, of the large one; slowest first."""
    text = PAGE.read_text(encoding="utf-8").split("| peak MB")[0]
    rows = [(m[1], float(m[2]), float(m[3])) for m in map(ROW.match, text.splitlines()) if m]
    if {"dense", "regraft ordinary", "regraft fused"} - {name for name, _, _ in rows}:
        raise ValueError(f"{PAGE} has another table than this picture reads")
    return sorted(rows, key=lambda row: -row[2])


def draw(rows: list[tuple[str, float, float]], theme: Theme) -> Canvas:
    """Bars, linear, one panel for each network."""
    page = Canvas(4.6, theme)
    page.text(0.1, 4.35, "one training step on a CPU core, milliseconds", weight="bold")
    for panel, title in enumerate(NETWORKS):
        y = 2.35 - 2.15 * panel
        times = [row[1 + panel] for row in rows]
        page.text(0.1, y + 1.7, title, size=9.5, color="muted")
        for k, ((name, *_), time) in enumerate(zip(rows, times, strict=True)):
            at = y + 1.45 - 0.2 * k
            ours = name.startswith("regraft")
            page.text(1.45, at + 0.03, name.replace("ordinary", "modules"), size=9.5, ha="right",
                      weight="bold" if ours else "normal")  # fmt: skip
            length = 2.85 * time / max(times)
            page.box(1.53, at, length, 0.15, 0 if ours else "muted")
            page.text(1.58 + length, at + 0.03, f"{time:.3g}", size=9)
    return page
