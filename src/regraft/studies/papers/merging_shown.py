"""Figures that the merging studies share, in the thesis's own kinds; numbers in percent where they are
accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, Unpack

from regraft.report import Table
from regraft.report.figures import (
    Axis,
    Boxes,
    Ellipses,
    Figure,
    Heatmap,
    Lines,
    Parallel,
    Pictures,
    Series,
    Strand,
    box,
    ellipse,
)
from regraft.studies.papers.merging_measures import (
    ALL,
    KEEPING,
    How,
    grid,
    means,
    pairs,
    parents,
    samples,
    scaled,
    sparsities,
)
from regraft.studies.study import Rows

WINDOW = 10  # epochs of the thesis's moving averages
POINTS = 150  # of a curve, at most


def text(sparsity: float) -> str:
    """``.95`` as tables have it.

    >>> text(0.95), text(0.0)
    ('.95', '.00')
    """
    return f"{sparsity:.2f}".removeprefix("0")


def heatmap(rows: Rows, figure: str, title: str, caption: str, **how: Unpack[How]) -> Heatmap:
    """Figure 13: a square for each pair of rules, the mean over sparsities."""
    scale = 100.0 if figure == "accuracy" else 1.0
    found = grid(rows, figure, scale=scale, **how)
    return {
        "kind": "heatmap", "title": title, "caption": caption, "rows": list(ALL), "columns": list(ALL),
        "values": [[found.get((w, b)) for b in ALL] for w in ALL], "row": "weights", "column": "biases",
        "unit": "%" if figure == "accuracy" else "nats",
    }  # fmt: skip


def parallel(
    rows: Rows,
    figure: str,
    title: str,
    caption: str,
    *,
    weights: Sequence[str] = ALL,
    at: Sequence[float] | None = None,
    **how: Unpack[How],
) -> Parallel:
    """Figures 14 to 16, 26 and 27: a line for each weight rule, bias rule and sparsity to what it reaches."""
    chosen = [s for s in sparsities(rows) if at is None or s in at]
    strands: list[Strand] = []
    for (w, b, sparsity), value in by_sparsity(rows, figure, weights, chosen, **how).items():
        strands.append({"values": [w, b, text(sparsity)], "figure": value})
    what = "accuracy (%)" if figure == "accuracy" else "loss (nats)"
    axes: list[Axis] = [
        {"name": "weights", "places": list(weights)},
        {"name": "biases", "places": list(ALL)},
        {"name": "sparsity", "places": [text(s) for s in chosen]},
    ]
    return {
        "kind": "parallel", "title": title, "caption": caption, "figure": what, "axes": axes,
        "strands": strands,
    }  # fmt: skip


def sparsity_map(
    rows: Rows, figure: str, title: str, caption: str, weights: Sequence[str] = ALL, **how: Unpack[How]
) -> Heatmap:
    """The same as numbers: a line for each pair of rules, a column for each sparsity."""
    chosen = sparsities(rows)
    found = by_sparsity(rows, figure, weights, chosen, **how)
    names = list(dict.fromkeys((w, b) for w, b, _ in found))
    return {
        "kind": "heatmap", "title": title, "caption": caption, "rows": [f"{w}, {b}" for w, b in names],
        "columns": [text(s) for s in chosen],
        "values": [[found.get((w, b, s)) for s in chosen] for w, b in names], "row": "weights, biases",
        "column": "sparsity", "unit": "%" if figure == "accuracy" else "nats",
    }  # fmt: skip


def by_sparsity(
    rows: Rows, figure: str, weights: Sequence[str], at: Sequence[float], **how: Unpack[How]
) -> dict[tuple[str, str, float], float]:
    """The mean over networks of each weight rule, bias rule and sparsity; those that were measured."""
    scale = 100.0 if figure == "accuracy" else 1.0
    found = {}
    for w in weights:
        for b in ALL:
            for sparsity in at:
                values = samples(rows, w, b, (sparsity,), figure=figure, scale=scale, **how)
                if values:
                    found[w, b, sparsity] = fmean(values.values())
    return found


def clouds(
    rows: Rows, title: str, caption: str, *, at: Sequence[float] | None = None, by_biases: bool = False,
    **how: Unpack[How],
) -> Ellipses:  # fmt: skip
    """Figures 19, 20 and 25: NNSTD to both parents against accuracy, pairs of different networks, one ellipse
    a sparsity and weight rule (or pair of rules)."""
    found = []
    for sparsity in sparsities(rows):
        for w in KEEPING if sparsity > 0 and (at is None or sparsity in at) else ():
            groups = [(b,) for b in KEEPING] if by_biases else [KEEPING]
            for biases in groups:
                chosen = [r for b in biases for r in pairs(rows, w, b, sparsity, **how) if r["a"] != r["b"]]
                if not chosen:
                    continue
                x = [r[name] for r in chosen for name in ("nnstd_a", "nnstd_b")]
                y = [100 * r["accuracy"] for r in chosen for _ in range(2)]
                name = f"{w} {biases[0]}" if by_biases else w
                found.append(ellipse(f"{text(sparsity)} {name}", x, y))
    return {
        "kind": "ellipses", "title": title, "caption": caption, "x": "NNSTD to the parents",
        "y": "accuracy (%)", "clouds": found,
    }  # fmt: skip


def against_density(rows: Rows, title: str, caption: str, **how: Unpack[How]) -> Lines:
    """Accuracy of each weight rule, mean over bias rules, and of the parents, against density."""
    series: list[Series] = []
    own = scaled(parents(rows))
    by_rule = {"parents": own, **{w: samples(rows, w, **how) for w in KEEPING}}
    for name, values in by_rule.items():
        at = sorted({s for s, _ in values}, reverse=True)
        groups = [[v for (s, _), v in values.items() if s == one] for one in at]
        series.append({
            "name": name, "x": [100 * (1 - s) for s in at], "y": [fmean(g) for g in groups],
            "spread": [pstdev(g) for g in groups],
        })  # fmt: skip
    return {
        "kind": "lines", "title": title, "caption": caption, "x": "density (%)", "y": "accuracy (%)",
        "series": series, "log_x": True,
    }  # fmt: skip


def curves(rows: Rows, column: str, title: str, caption: str, y: str, scale: float = 1.0) -> Lines:
    """Figures 10, 11 and 23: the mean over the networks of a sparsity, up to the epoch that all of them
    reach, smoothed over ten epochs as the thesis does; the band is one standard deviation."""
    by_sparsity: dict[float, list[list[float]]] = {}
    for r in rows.results:
        if r.epochs and "sparsity" in r.config:
            line = [scale * e[column] for e in r.epochs if e.get(column) is not None]
            by_sparsity.setdefault(r.config["sparsity"], []).append(line)
    series: list[Series] = []
    for sparsity, lines in sorted(by_sparsity.items()):
        length = min(map(len, lines))
        step = max(1, length // POINTS)
        at = range(0, length, step)
        windows = [[fmean(line[max(0, i - WINDOW + 1) : i + 1]) for line in lines] for i in at]
        series.append({
            "name": text(sparsity), "x": [float(i + 1) for i in at], "y": [fmean(w) for w in windows],
            "spread": [pstdev(w) for w in windows],
        })  # fmt: skip
    return {"kind": "lines", "title": title, "caption": caption, "x": "epoch", "y": y, "series": series}


def parent_boxes(rows: Rows, title: str, caption: str, figures: dict[str, str]) -> Boxes:
    """Figures 12 and 22: a box for each sparsity and each of these columns of the parents."""
    boxes = []
    for sparsity in sorted({s for s, _ in parents(rows)}):
        for column, name in figures.items():
            values = list(scaled(parents(rows, column, (sparsity,))).values())
            if values:
                boxes.append(box(f"{text(sparsity)} {name}".strip(), values))
    return {"kind": "boxes", "title": title, "caption": caption, "y": "accuracy (%)", "boxes": boxes}


def patterns(rows: Rows, title: str, caption: str) -> Pictures | None:
    """Figure 18: connections that leave each pixel of a square image, at several epochs; None where none were
    kept."""
    found: list[Any] = [
        {
            "name": f"{text(r['sparsity'])}, epoch {r['epoch']}",
            "values": [float(c) for c in r["counts"].split()],
        }
        for r in rows.where(kind="pattern").rows
    ]
    if not found:
        return None
    side = math.isqrt(len(found[0]["values"]))
    return {"kind": "pictures", "title": title, "caption": caption, "shape": [side, side], "pictures": found}


def rule_table(rows: Rows, title: str, note: str, **how: Unpack[How]) -> Table:
    """Mean accuracy of each weight rule, over bias rules, at each sparsity."""
    chosen = sparsities(rows)
    lines: list[list[Any]] = []
    for w in ALL:
        values = [means(samples(rows, w, at=(s,), **how)) for s in chosen]
        lines.append([w, *(v[0] if v else None for v in values)])
    own = [means(scaled(parents(rows, at=(s,)))) for s in chosen]
    lines.append(["parents", *(v[0] if v else None for v in own)])
    columns = ["Weight rule", *(f"sparsity {text(s)}" for s in chosen)]
    return {"title": title, "columns": columns, "rows": lines, "note": note}


def ranking(rows: Rows, part: str, figure: str = "accuracy", **how: Unpack[How]) -> list[tuple[str, float]]:
    """Table 4: the rules of one kind, best first, with their means over sparsities and the other kind's rules
    (bias rules without those networks that have no weights)."""
    found = grid(rows, figure, scale=100.0 if figure == "accuracy" else 1.0, **how)
    by_rule: dict[str, list[float]] = {}
    for (w, b), value in found.items():
        if part == "weights" or w != "nothing":
            by_rule.setdefault(w if part == "weights" else b, []).append(value)
    ranked = [(name, fmean(values)) for name, values in by_rule.items()]
    return sorted(ranked, key=lambda pair: -pair[1] if figure == "accuracy" else pair[1])


def only(figures: Sequence[Figure | None]) -> list[Figure]:
    """Those that there are."""
    return [f for f in figures if f is not None]
