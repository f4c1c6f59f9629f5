"""What the benchmarks share: options, figures on a screen or in a file, memory of a process, pictures."""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

IMAGES = Path(__file__).parent.parent / "docs" / "images"
THEMES = {
    "light": {"ink": "#1b2026", "muted": "#59636e", "grid": "#d5dae0",
              "lines": ("#1f63c4", "#bd4f00", "#1a7a48", "#7a3cb8")},
    "dark": {"ink": "#e8ebee", "muted": "#a3adb8", "grid": "#3a424c",
             "lines": ("#74b1ff", "#ffa05a", "#62d699", "#c8a2ff")},
}  # fmt: skip


def options(doc: str | None, *, rounds: int | None = None, threads: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument(
            "--rounds", type=int, default=rounds, help=f"interleaved rounds (default {rounds})"
        )
    if threads:
        parser.add_argument("--threads", type=int, default=1, help="of torch and of the kernels (default 1)")
    parser.add_argument("--json", default=None, help="file for the figures; - for standard output")
    return parser


def set_threads(threads: int) -> None:
    """As many for torch as for the kernels."""
    from regraft import kernels

    torch.set_num_threads(threads)
    kernels.set_threads(threads)


def numbers(text: str, kind: Callable[[str], Any]) -> list[Any]:
    """``"1,2"`` as a list."""
    return [kind(word) for word in text.split(",")]


def write_figures(path: str | None, figures: object) -> None:
    """To a file, to standard output for ``-``, or nowhere."""
    if path == "-":
        json.dump(figures, sys.stdout, indent=2)
        print()
    elif path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def ratio(timing: Mapping[str, float]) -> str:
    """``12.3 (11.9-12.8)``: times faster than the baseline, with quartiles."""
    return f"{timing['speedup']:.2f} ({timing['speedup_low']:.2f}-{timing['speedup_high']:.2f})"


def megabytes(field: str = "VmRSS") -> float:
    """Memory of this process (Linux): ``VmRSS`` now, ``VmHWM`` the peak."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def reset_peak() -> None:
    """The peak counts from here."""
    gc.collect()
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")


def in_own_process(script: str, *arguments: str) -> Any:
    """What ``script`` prints as JSON, run in a fresh process."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def save_pictures(name: str, draw: Callable[[Mapping[str, Any]], Any], folder: Path = IMAGES) -> None:
    """``draw(theme)`` as NAME-light.svg and NAME-dark.svg."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    from regraft.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    for kind, theme in THEMES.items():
        fonts: Any = {"svg.fonttype": "path", "svg.hashsalt": kind, "font.family": "DejaVu Sans"}
        with matplotlib.rc_context(fonts):
            figure = draw(theme)
            FigureCanvasSVG(figure)
            with atomic_write(folder / f"{name}-{kind}.svg") as file:
                figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    print(f"wrote {folder / name}-light.svg and {name}-dark.svg", file=sys.stderr)


def style(ax: Any, theme: Mapping[str, Any], title: str, x: str, y: str) -> None:
    """Title, labels and quiet lines for one panel."""
    ax.set_title(title, color=theme["ink"], fontsize=11, loc="left")
    ax.set_xlabel(x, color=theme["muted"], fontsize=10)
    ax.set_ylabel(y, color=theme["muted"], fontsize=10)
    ax.tick_params(which="both", colors=theme["muted"], labelsize=9)
    ax.grid(True, color=theme["grid"], linewidth=0.6)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme["grid"])


def label_line(ax: Any, x: Sequence[float], y: Sequence[float], words: str, **look: Any) -> None:
    """A line with its name at its last point."""
    ax.plot(x, y, marker="o", markersize=3.5, linewidth=1.8, color=look["color"])
    ax.annotate(
        words, (x[-1], y[-1]), xytext=look.get("offset", (6, 0)), textcoords="offset points",
        color=look["color"], fontsize=9.5, va="center", ha=look.get("ha", "left"), annotation_clip=False,
    )  # fmt: skip


def read_figures(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Rows of figures from files that ``--json`` wrote."""
    return [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The finished cells of a study, one JSON object a line; a line that a kill cut short is left out."""
    cells = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            print(f"{path}: a line that was cut short is left out", file=sys.stderr)
    return cells


def add_cell(path: Path, cell: Mapping[str, Any]) -> None:
    """One more line, after a line that a kill cut short too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("" if whole else "\n") + json.dumps(cell) + "\n")
