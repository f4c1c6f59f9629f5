"""Draw the pictures of the documentation, each for light and for dark pages.

    python docs/make_images.py                  # all of them, two minutes
    python docs/make_images.py merge distances  # these alone

A picture is a module of docs/pictures with ``compute()``, a small run of the library, and
``draw(made, theme)``. The pictures on the pages of results are drawn by the benchmarks that measured them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from pictures.canvas import FOLDER, save

# module -> file; those of the first group train nothing and are the same on every machine
QUICK = {
    "sparse_weight": "sparse-weight",
    "distances": "distances",
    "diagnose": "diagnose",
    "search": "search",
    "score": "score",
    "prune": "prune",
    "merge_steps": "merge-steps",
    "groups": "groups",
    "benchmark": "benchmark",
}
TRAINED = {
    "evolve": "evolve",
    "merge": "merge",
    "align": "align",
    "repair": "repair",
    "neurons": "neurons",
    "gates": "gates-merge",
    "federate": "federate",
}
ALL = {**QUICK, **TRAINED}


def make(name: str, folder: Path = FOLDER) -> None:
    """Compute and draw one picture."""
    module = importlib.import_module(f"pictures.{name}")
    made = module.compute()
    save(ALL[name], lambda theme: module.draw(made, theme), folder)


def main(names: list[str]) -> None:
    """Draw those that are named, or all."""
    unknown = set(names) - set(ALL)
    if unknown:
        raise SystemExit(f"no picture {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    for name in names or ALL:
        print(name, flush=True)
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
