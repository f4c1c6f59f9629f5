"""The page of a study with 63,000 rows behind it: how long to judge and build, how large, how quickly shown?

    python benchmarks/report_load.py [--rounds 7] [--pairs 2520] [--out page.html]

Rows as merging-phase-2 has them: pairs of networks x 25 pairs of rules. The page is opened in headless
Chromium from a file; the times are the browser's own (``performance``), from the start of the navigation.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import options, write_figures
from regraft import report
from regraft.report import Results, box, ellipse
from regraft.studies import Cell, Number, Order, Outcome, Preset, Rows, Study, Work, step
from regraft.studies.publish import Published, page
from regraft.studies.verdicts import verdicts

RULES = ("magnitude", "average", "addition", "random", "nothing")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.98, 0.99)
BASE = {"magnitude": 70.0, "average": 40.0, "addition": 65.0, "random": 55.0, "nothing": 10.0}


@step
def nothing(work: Work) -> Outcome:
    """No work: the rows are made up."""
    return Outcome()


def made_up(pairs: int) -> list[dict[str, Any]]:
    """25 rows for each pair of networks."""
    rng = random.Random(0)
    return [
        {
            "pair": i, "seed": i % 20, "sparsity": SPARSITIES[i % len(SPARSITIES)], "weights": w, "biases": b,
            "accuracy": BASE[w] + rng.gauss(0, 6), "nnstd": 0.5 + 0.03 * RULES.index(w) + rng.gauss(0, 0.02),
        }
        for i in range(pairs)
        for w in RULES
        for b in RULES
    ]  # fmt: skip


def shown(rows: Rows) -> Results:
    """The kinds of figure that such a study has."""
    grid = rows.by("weights", "biases")
    by_rule = rows.by("weights")
    cells = rows.by("weights", "biases", "sparsity")
    curves = rows.by("weights", "sparsity")
    return {
        "figures": [
            {
                "kind": "heatmap", "title": "Accuracy", "caption": "Mean.",
                "rows": [*RULES], "columns": [*RULES],
                "values": [[grid[w, b].mean("accuracy") for b in RULES] for w in RULES],
                "row": "Weight rule", "column": "Bias rule", "unit": "Test accuracy (%)",
            },
            {
                "kind": "lines", "title": "Accuracy against sparsity", "caption": "Mean.", "x": "Sparsity",
                "y": "Test accuracy (%)",
                "series": [
                    {"name": w, "x": [*SPARSITIES], "y": [curves[w, s].mean("accuracy") for s in SPARSITIES]}
                    for w in RULES
                ],
            },
            {
                "kind": "boxes", "title": "Accuracy by rule", "caption": "All.", "y": "Test accuracy (%)",
                "boxes": [box(str(w), found.column("accuracy")) for (w,), found in by_rule.items()],
            },
            {
                "kind": "ellipses", "title": "NNSTD against accuracy", "caption": "All.", "x": "NNSTD",
                "y": "Test accuracy (%)",
                "clouds": [
                    ellipse(str(w), found.column("nnstd"), found.column("accuracy"))
                    for (w,), found in by_rule.items()
                ],
            },
            {
                "kind": "parallel", "title": "All settings", "caption": "Mean.",
                "figure": "Test accuracy (%)",
                "axes": [
                    {"name": "Weight rule", "places": [*RULES]}, {"name": "Bias rule", "places": [*RULES]},
                    {"name": "Sparsity", "places": [str(s) for s in SPARSITIES]},
                ],
                "strands": [
                    {"values": [str(v) for v in key], "figure": found.mean("accuracy") or 0.0}
                    for key, found in cells.items()
                ],
            },
        ],
        "tables": [{
            "title": "Every setting",
            "columns": ["Weights", "Biases", "Sparsity", "Networks", "Accuracy (%)"],
            "rows": [[*key, len(found), found.mean("accuracy")] for key, found in cells.items()],
        }],
    }  # fmt: skip


def of(**wanted: Any) -> Any:
    """Samples of a claim: a mean for each seed."""
    return lambda rows: {s: r.mean("accuracy") for (s,), r in rows.where(**wanted).by("seed").items()}


def study() -> Study:
    """Forty claims, as the larger studies have."""
    orders = [
        Order(f"{w} beats {v} at sparsity {s}", "table", of(weights=w, sparsity=s), of(weights=v, sparsity=s))
        for w, v in (("magnitude", "average"), ("magnitude", "random"), ("addition", "average"))
        for s in SPARSITIES
    ]
    numbers = [Number(f"{w} on average", "table", BASE[w], 1.0, of(weights=w)) for w in RULES[:4]]
    return Study(
        "synthetic", "Synthetic", "nothing", "Rows that are made up.", lambda _: [Cell(nothing, {})],
        {"paper": Preset({}, "none", comparable=True)}, [*orders, *numbers], shown,
    )  # fmt: skip


def browser() -> Any:
    """The tests' own driver of Chromium."""
    place = Path(__file__).parent.parent / "tests" / "report" / "conftest.py"
    spec = importlib.util.spec_from_file_location("report_browser", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        raise SystemExit("Chromium is not installed: only the building was measured")
    return module.Browser(program, Path(tempfile.mkdtemp()))


LOADED = """(() => { const n = performance.getEntriesByType("navigation")[0];
  return [n.domContentLoadedEventEnd, n.loadEventEnd]; })()"""
SORTED = """(() => { const all = [...document.querySelectorAll("table.sortable")];
  const t = all.reduce((a, b) => a.rows.length > b.rows.length ? a : b);
  const start = performance.now(); t.querySelector("thead button").click(); t.offsetHeight;
  return [t.rows.length - 1, performance.now() - start]; })()"""


def main() -> None:
    """Build, write, open; print and keep the figures."""
    parser = options(__doc__, rounds=7, threads=False)
    parser.add_argument("--pairs", type=int, default=2520, help="of networks, 25 rows each (default 2520)")
    parser.add_argument("--out", type=Path, default=None, help="keep the page here")
    chosen = parser.parse_args()
    rows, one = Rows(made_up(chosen.pairs), [], "paper"), study()
    clock = time.perf_counter()
    found = Published(one, rows, verdicts(one, rows))
    judged = time.perf_counter() - clock
    parts = page(found)
    built = time.perf_counter() - clock - judged
    html = report.render(parts)
    drawn = time.perf_counter() - clock - judged - built
    path = chosen.out or Path(tempfile.mkdtemp()) / "page.html"
    path.write_text(html, encoding="utf-8")
    print(f"{len(rows):,} rows: {judged:.2f} s to judge {len(found.verdicts)} claims, {built:.2f} s to "
          f"aggregate, {drawn:.2f} s to draw; {len(html.encode()):,} bytes")  # fmt: skip
    driver = browser()
    times: dict[int, list[list[float]]] = {390: [], 1280: []}
    for _ in range(chosen.rounds):
        for width, found_times in times.items():
            driver.open(path, width)
            found_times.append([*driver.evaluate(LOADED), *driver.evaluate(SORTED)])
    driver.close()
    figures: dict[str, Any] = {
        "rows": len(rows), "claims": len(found.verdicts), "judge_s": judged, "aggregate_s": built,
        "draw_s": drawn,
        "bytes": len(html.encode()), "rounds": chosen.rounds,
    }  # fmt: skip
    for width, values in times.items():
        ready, load, count, took = (statistics.median(v) for v in zip(*values, strict=True))
        worst = max(v[1] for v in values)
        print(f"{width} px: content after {ready:.0f} ms, all loaded after {load:.0f} ms (at worst "
              f"{worst:.0f}); {count:.0f} rows sorted in {took:.0f} ms")  # fmt: skip
        figures[f"{width}px"] = {"content_ms": ready, "load_ms": load, "worst_ms": worst, "sort_ms": took}
    write_figures(chosen.json, figures)


if __name__ == "__main__":
    main()
