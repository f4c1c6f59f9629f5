"""What thesis 4 prints: tables 3.1 to 3.5, one run each of WRN-28-5 on CIFAR-100, 70 epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

STEP, EPOCH = "step", "epoch"


@dataclass(frozen=True)
class Line:
    """A line of one of the tables.

    Attributes:
        table: its number.
        level: sparsity in percent: 0, 80 or 90.
        search: None for a topology that does not change, ``"exact"`` for what the thesis calls brute force,
            ``"faiss"``, or ``"lsh"`` (its faiss index of random hyperplanes).
        metric: ``"abs"`` for abs(IP), or ``"l2"``.
        fraction: K, share of the connections that an update replaces.
        every: ``"step"`` for each minibatch, or ``"epoch"``.
        k_similar: neighbours for each vector, as a fraction.
        bits: hyperplanes as a multiple of the number of samples.
        hours: of training.
        accuracy: percent.
    """

    table: str
    level: int
    search: str | None
    metric: Literal["abs", "l2"]
    fraction: float
    every: str
    k_similar: float | None
    bits: float | None
    hours: float
    accuracy: float

    @property
    def growth(self) -> dict[str, Any]:
        """How the topology changes, for a cell's configuration; the same for lines that repeat a run."""
        if self.search is None:
            return {"search": None}
        return {
            "search": self.search, "metric": self.metric, "fraction": self.fraction, "every": self.every,
            "k_similar": self.k_similar, "bits": self.bits,
        }  # fmt: skip

    @property
    def name(self) -> str:
        """In words.

        >>> BASIC.name, next(line.name for line in LINES if line.search == "faiss")
        ('dense', 'abs(IP), faiss .15, K 0.01, each step')
        """
        if self.search is None:
            return "dense" if not self.level else "static"
        if self.search == "random":
            return f"random, K {self.fraction:g}, each {self.every}"
        metric = {"abs": "abs(IP)", "l2": "L2"}[self.metric]
        how = {"exact": "brute force", "faiss": "faiss", "lsh": "LSH"}[self.search]
        if self.search == "faiss":
            how += f" {self.k_similar:g}".replace(" 0.", " .")
        elif self.search == "lsh":
            how += f" {self.bits:g} bits"
        return f"{metric}, {how}, K {self.fraction:g}, each {self.every}"


BASIC = Line("3.1", 0, None, "abs", 0.0, STEP, None, None, 0.61, 74.83)
STATIC = Line("3.1", 80, None, "abs", 0.0, STEP, None, None, 0.65, 69.94)
STATIC_90 = Line("3.5", 90, None, "abs", 0.0, STEP, None, None, 0.61, 65.92)


def _read(table: str, level: int, metric: Literal["abs", "l2"], every: str, text: str) -> list[Line]:
    """Lines ``search k_similar bits | K hours accuracy | K hours accuracy | ...``."""
    lines = []
    for each in text.strip().splitlines():
        head, *runs = each.split("|")
        search, similar, bits = head.split()
        for run in runs:
            fraction, hours, accuracy = map(float, run.split())
            lines.append(
                Line(
                    table, level, search, metric, fraction, every,
                    None if similar == "-" else float(similar), None if bits == "-" else float(bits),
                    hours, accuracy,
                )
            )  # fmt: skip
    return lines


# the captions of tables 3.1 and 3.3 differ, abs(IP) and IP; the text says that all but L2 is abs(IP)
LINES = (
    BASIC,
    STATIC,
    *_read("3.1", 80, "abs", STEP, """
exact - -    | .01 3.59 72.68 | .05 3.65 72.01 | .1 3.81 71.17
faiss .15 -  | .01 3.72 73.65 | .05 3.74 72.13 | .1 4.02 70.59
faiss .125 - | .01 2.32 72.53 | .05 2.43 73.28 | .1 2.55 68.21
"""),
    *_read("3.2", 80, "l2", STEP, """
exact - -   | .01 1.94 67.53 | .05 2.21 66.70 | .1 2.34 55.63
faiss .15 - | .01 2.36 68.73 | .05 2.53 69.68 | .1 2.63 65.35
faiss .2 -  | .01 3.84 68.95 | .05 3.99 67.59 | .1 4.07 64.17
"""),
    *_read("3.3", 80, "abs", EPOCH, """
exact - -    | .01 0.84 71.92
faiss .15 -  | .01 0.78 71.99 | .05 0.83 73.04 | .1 0.84 71.08
faiss .125 - | .01 0.77 71.91 | .05 0.81 72.01 | .1 0.76 69.90
"""),
    *_read("3.4", 80, "abs", STEP, """
lsh .15 .5  | .05 2.41 72.46
lsh .15 1   | .05 2.49 72.8
lsh .15 1.5 | .05 2.68 72
lsh .15 2   | .05 3.01 72.21
lsh .15 4   | .05 6.08 72.1
lsh .15 8   | .05 17.17 71.48
"""),
    STATIC_90,
    *_read("3.5", 90, "abs", STEP, """
lsh .15 .5  | .01 2.23 67.65 | .025 2.29 68.39
lsh .15 1   | .01 2.31 69.5  | .025 2.36 68.12
lsh .15 1.5 | .01 2.48 70.02 | .025 2.53 68.85
lsh .15 2   | .01 2.79 69.73 | .025 2.85 68.44
"""),
)  # fmt: skip


def line(table: str, search: str, fraction: float, setting: float | None = None) -> Line:
    """A line by its table, search, K, and ``k_similar`` (of LSH: bits).

    >>> line("3.1", "exact", 0.01).accuracy
    72.68
    """
    return next(
        each
        for each in LINES
        if (each.table, each.search, each.fraction) == (table, search, fraction)
        and setting in (None, each.bits if search == "lsh" else each.k_similar)
    )
