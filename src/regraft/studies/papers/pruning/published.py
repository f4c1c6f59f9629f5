"""What thesis 5 prints: accuracy in percent of every method at every density, and its marks."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.studies.papers.pruning.methods import Method, stack

DENSITIES = (0.005, 0.007, 0.01, 0.015, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Line:
    """A line of one of the thesis's tables.

    Attributes:
        method: what was measured.
        accuracy: percent, at each of ``DENSITIES``; means of three runs.
        marked: where the thesis marks a significant difference.
    """

    method: Method
    accuracy: tuple[float, ...]
    marked: tuple[bool, ...]

    def at(self, density: float) -> float:
        """The accuracy at one of ``DENSITIES``."""
        return self.accuracy[DENSITIES.index(density)]


def read(text: str) -> tuple[Line, ...]:
    """Lines ``score | schedule | initial values | accuracies``, where ``a/b`` is a stack and ``*`` a mark.

    >>> read("snip/snip | UMS | standard | 90.20 92.56* 94.03 95.03 96.01 97.81 97.99")[0].marked[:2]
    (False, True)
    """
    lines = []
    for each in text.strip().splitlines():
        score, schedule, init, numbers = (part.strip() for part in each.split("|"))
        first, slash, second = score.partition("/")
        found = numbers.split()
        lines.append(
            Line(
                Method(stack(first, second) if slash else score, schedule, init),
                tuple(float(n.rstrip("*")) for n in found),
                tuple(n.endswith("*") for n in found),
            )
        )
    return tuple(lines)


# where a line names no schedule it is the one that the score was published with: figures 5.1 and 5.4
STACKS = read("""
grasp/magnitude | UMS | standard | 90.51 92.16 93.73 95.12 97.27 97.75 98.14
snip/snip | UMS | standard | 90.20 92.56 94.03 95.03 96.01 97.81 97.99
snip | UMS | standard | 89.83 92.39 93.84 94.67 97.56 97.78 98.05
snip/synflow | UMS | standard | 89.49 91.50 93.97 94.48 97.12 97.75 97.97
magnitude/snip | UMS | standard | 89.42 91.03 92.53 94.05 96.58 97.49 98.12
synflow/magnitude | UMS | standard | 89.14 91.64 93.88 95.15 97.08 97.62 98.01
snip/magnitude | UMS | standard | 88.89 93.06 94.07 95.11 97.23 97.78 97.92
synflow | UMS | standard | 88.89 91.55 93.99 95.28 97.33 97.69 97.99
magnitude/synflow | UMS | standard | 88.75 91.91 93.91 95.04 97.15 97.49 97.90
grasp/synflow | UMS | standard | 88.64 91.16 92.86 94.66 97.34 97.78 97.99
synflow/snip | UMS | standard | 87.54 90.80 93.25 93.70 97.32 97.78 97.97
synflow/synflow | UMS | standard | 82.43 88.34 91.75 94.03 97.07 97.78 98.00
grasp/snip | UMS | standard | 79.33 90.43 92.71 94.02 96.68 97.73 97.94
grasp | USS | standard | 76.07 79.39 77.30 86.99 88.89 75.48 96.40
grasp/grasp | UMS | standard | 70.49 85.45 79.00 80.03 93.42 96.87 96.80
magnitude | USS | standard | 64.17 82.68 90.86 94.47 97.32 97.60 97.92
magnitude/magnitude | UMS | standard | 64.05 83.62 91.15 94.47 97.13 97.71 97.81
snip/grasp | UMS | standard | 45.73 38.56 46.53 46.39 59.58 54.83 98.19
synflow/grasp | UMS | standard | 20.66 20.52 20.58 20.91 21.39 21.05 98.26
magnitude/grasp | UMS | standard | 20.53 20.51 20.60 20.96 21.31 21.27 98.12
""")
"""Figure 5.11: scores stacked on each other, and the four alone; no marks are in the figure."""

INITIAL = read("""
synflow | UMS | scores:snip | 90.75* 92.64* 94.12 95.04 97.14 97.26* 97.82*
snip | UMS | standard | 89.83 92.39 93.84 94.67 97.56 97.78 98.05
snip | UMS | scores:synflow | 89.60 90.55* 92.97* 93.83* 96.21* 96.12* 96.44*
synflow | UMS | standard | 88.89 91.55 93.99 95.28 97.33 97.69 97.99
synflow | UMS | scores:synflow | 88.71 91.42 93.52* 94.64* 95.94* 95.95* 96.13*
synflow | UMS | bimodal | 87.05* 90.37* 93.06* 94.89* 97.08 97.44* 97.69*
grasp | USS | scores:synflow | 87.05* 82.85 78.85 44.44* 55.51 34.00* 25.02*
snip | UMS | bimodal | 83.35* 89.40* 93.28 94.47 96.91 97.38* 97.81*
synflow | UMS | scores:grasp | 78.89* 86.31* 88.92* 91.34* 92.31 89.41* 68.34*
snip | UMS | scores:snip | 76.68* 85.04* 90.50* 93.69* 95.83 97.09* 97.59*
grasp | USS | standard | 76.07 79.39 77.30 86.99 88.89 75.48 96.40
snip | UMS | scores:grasp | 73.53* 76.50* 85.97* 90.31* 94.83 94.88* 90.75
magnitude | USS | scores:snip | 70.56 73.98 89.32 92.37 96.96 97.33* 97.83
grasp | USS | scores:snip | 66.21* 72.03 83.87* 87.21 96.26 83.45 97.35*
magnitude | USS | standard | 64.17 82.68 90.86 94.47 97.32 97.60 97.92
magnitude | USS | scores:synflow | 63.37 70.56 83.34 90.06* 95.82 95.77* 96.23*
grasp | USS | bimodal | 51.37* 57.08* 58.30* 82.13 93.58 18.78* 90.75*
magnitude | USS | scores:grasp | 35.78* 38.19* 51.18* 45.94* 66.30 26.43* 15.14*
grasp | USS | scores:grasp | 27.42* 18.85* 14.56* 12.30* 11.35 11.35* 11.41*
magnitude | USS | bimodal | 19.30* 27.68* 42.10* 60.77* 96.63 97.08* 97.53*
""")
"""Figure 5.13: scores as initial values; marked against the same score on standard ones."""

COMBINED = read("""
magnitude/synflow | UMS | scores:snip | 91.86* 92.94 94.02 95.11 96.86* 97.56* 97.75
synflow/magnitude | UMS | scores:snip | 91.15* 93.43* 94.34 94.70 97.04 97.43 97.92*
magnitude | ISS | standard | 90.91* 94.31* 95.79* 96.53* 97.99* 98.18* 98.15
synflow | UMS | scores:snip | 90.75 92.64 94.12 95.04 97.14* 97.26* 97.82*
grasp/magnitude | UMS | standard | 90.51 92.16 93.73 95.12* 97.27* 97.75 98.14
snip/snip | UMS | standard | 90.20 92.56 94.03 95.03* 96.01 97.81 97.99
snip/magnitude | UMS | scores:synflow | 89.87 91.70* 92.08* 94.63 96.17* 96.44* 96.58*
snip | UMS | standard | 89.83 92.39 93.84 94.67 97.56 97.78 98.05
snip | UMS | scores:synflow | 89.60 90.55* 92.97* 93.83* 96.21* 96.12* 96.44*
snip/snip | UMS | bimodal | 89.58 91.74* 93.15 94.81 97.16* 97.54 97.66*
magnitude/synflow | UMS | scores:synflow | 89.55 91.66* 93.47 95.08* 95.76* 96.04* 96.50*
snip/synflow | UMS | standard | 89.49 91.50 93.97 94.48 97.12* 97.75 97.97
magnitude/snip | UMS | standard | 89.42 91.03* 92.53* 94.05* 96.58* 97.49 98.12
synflow/magnitude | UMS | standard | 89.14* 91.64* 93.88 95.15 97.08* 97.62 98.01
grasp/magnitude | UMS | scores:synflow | 89.13* 91.74 92.01* 93.62* 96.13* 96.27* 96.43*
magnitude/snip | UMS | scores:snip | 89.03 91.01* 93.43 94.59* 96.10 97.42* 97.72
snip/magnitude | UMS | standard | 88.89 93.06 94.07 95.11* 97.23* 97.78 97.92
synflow | UMS | standard | 88.89* 91.55* 93.99 95.28* 97.33 97.69* 97.99
snip/snip | UMS | scores:synflow | 88.87 91.32* 93.33* 94.35* 96.00* 96.52* 96.69*
magnitude/synflow | UMS | standard | 88.75* 91.91* 93.91 95.04 97.15* 97.49 97.90*
""")
"""Figure 5.14: the best of all; marked against multi-shot SNIP on standard initial values."""

UNPRUNED = {  # table 5.4: accuracy in percent and training iterations of the whole network
    "standard": (98.235, 12819.33),
    "scores:snip": (97.863333, 12037.67),
    "bimodal": (97.81, 12506.67),
    "scores:synflow": (96.596667, 10787.0),
    "scores:grasp": (80.833333, 22512.0),
}
REGRESSORS = {  # tables 5.1 to 5.3: R^2 on training and test connections, mean squared errors
    "linear": (0.033137, 0.032998, 0.000053, 0.000057),
    "sgd": (0.022484, 0.021587, 0.000054, 0.000057),
    "tree": (1.0, -0.865044, 1.074603e-19, 0.000109),
    "forest": (0.859253, 0.010510, 7.765114e-06, 0.000058),
    "mlp": (-42.310778, -45.687378, 0.002472, 0.002467),
}
