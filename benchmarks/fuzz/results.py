"""What has been found so far: a file that a run goes on from, and its table."""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from regraft.files import atomic_write
from regraft.version import __version__

from .target import GROUPS, Target
from .workers import BATCH, KEPT, Batch, Report

ROOT = Path(__file__).parents[2]


def code() -> str:
    """A hash of the package and of the fuzzer: inputs are the same as long as it is."""
    digest = hashlib.sha256()
    for folder in (ROOT / "src" / "regraft", Path(__file__).parent):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".c", ".h")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class Results:
    """Counts and findings by target, in a JSON file; ``codes`` are the states of the code they are of."""

    def __init__(
        self, path: Path | None, seed: int, targets: Sequence[Target], redo: Sequence[str] = ()
    ) -> None:
        self.path, self.seed, self.now = path, seed, code()
        held: dict[str, Any] = {}
        if path is not None and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if before["seed"] == seed:
                held = before["targets"]
        self.targets: dict[str, dict[str, Any]] = dict(held)
        for target in targets:
            old = self.targets.get(target.name)
            if old is None or target.name in redo:
                self.targets[target.name] = self._empty(target)
            elif self.now not in old["codes"]:
                old["codes"].append(self.now)

    def _empty(self, target: Target) -> dict[str, Any]:
        return {
            "group": target.group, "codes": [self.now], "batches": [], "inputs": 0, "counts": {},
            "places": {},
            "findings": [], "seconds": 0.0, "slowest": [0.0, -1], "largest": [0, -1], "kept": 0,
        }  # fmt: skip

    def left(self, wanted: Mapping[str, int]) -> list[Batch]:
        """Batches that are not done, the targets in turn, so that all are nearly equally far at any time."""
        queues = []
        for name, count in wanted.items():
            done = set(self.targets[name]["batches"])
            numbers = [n for n in range(-(-count // BATCH)) if n not in done]
            total = max(len(numbers), 1)
            queues += [((i + 0.5) / total, name, number) for i, number in enumerate(numbers)]
        return [Batch(name, number, wanted[name]) for _, name, number in sorted(queues)]

    def add(self, report: Report) -> None:
        """Take in what came of a batch."""
        held = self.targets[report.batch.target]
        died = "death" in report.counts or (report.counts == {"hang": 1} and report.seconds == 0.0)
        if not died:
            held["batches"] = sorted({*held["batches"], report.batch.number})
        for status, count in report.counts.items():
            held["counts"][status] = held["counts"].get(status, 0) + count
            held["inputs"] += count
        for found in report.findings:
            place = f"{found['kind']}: {found['where']}"
            held["places"][place] = held["places"].get(place, 0) + 1
            if held["places"][place] <= KEPT:
                held["findings"].append(found)
        held["seconds"] += report.seconds
        held["kept"] += report.kept
        held["slowest"] = max(held["slowest"], list(report.slowest))
        held["largest"] = max(held["largest"], list(report.largest))

    def write(self) -> None:
        """Keep it, whole or not at all."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {
            "seed": self.seed, "regraft": __version__, "torch": str(torch.__version__),
            "python": platform.python_version(), "machine": platform.machine(), "targets": self.targets,
        }  # fmt: skip
        with atomic_write(self.path) as file:
            file.write(json.dumps(whole, indent=1).encode())

    @property
    def findings(self) -> int:
        """Inputs that were neither read nor refused as they should be."""
        return sum(n for held in self.targets.values() for n in held["places"].values())


HEADS = (
    "Target", "Inputs", "Accepted", "Refused", "Findings", "Inputs / s", "Slowest (ms)", "Most memory (MiB)",
)  # fmt: skip


def table(results: Results) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(HEADS) + " |", "| --- |" + " ---: |" * (len(HEADS) - 1)]
    for group in GROUPS:
        rows = [(n, t) for n, t in results.targets.items() if t["group"] == group and t["inputs"]]
        lines += [_row(name, [held]) for name, held in rows]
        if rows:
            lines.append(_row(f"**{group}**", [held for _, held in rows]))
    lines.append(_row("**all**", [t for t in results.targets.values() if t["inputs"]]))
    return "\n".join(lines)


def _row(name: str, parts: Sequence[dict[str, Any]]) -> str:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part["counts"])
    inputs, seconds = sum(p["inputs"] for p in parts), sum(p["seconds"] for p in parts)
    cells = (
        name, f"{inputs:,}", f"{counts['accepted']:,}", f"{counts['refused']:,}",
        f"{inputs - counts['accepted'] - counts['refused']:,}", f"{inputs / max(seconds, 1e-9):,.0f}",
        f"{1000 * max((p['slowest'][0] for p in parts), default=0):,.0f}",
        f"{max((p['largest'][0] for p in parts), default=0) / 2**20:,.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def places(results: Results) -> str:
    """Where findings are, the most frequent first."""
    lines = []
    for name, held in results.targets.items():
        for place, count in sorted(held["places"].items(), key=lambda item: -item[1]):
            first = next((f["input"] for f in held["findings"] if place == f"{f['kind']}: {f['where']}"), "?")
            lines.append(f"{name}: {count} x {place} (first: input {first})")
    return "\n".join(lines)
