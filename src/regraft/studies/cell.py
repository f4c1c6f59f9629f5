"""One cell of thesis 1's phase 2 (sections 7.2 to 7.7): merge pairs of networks that differ in their seed.

Five classes of Fashion-MNIST (1000 training and 100 test images each), 784-392-196-5 with sigmoid between the
layers, uniform sparsity per layer, full batches; the learning rate decays from 1 to 0 and the evolution rate
from 0.5 to 0, both exponentially over 1500 epochs; the topology changes every 50 epochs; training stops 200
epochs after the test accuracy first exceeds 85 %. All pairs, with itself too, are merged by 25 rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from statistics import fmean
from typing import Any

from regraft import data as datasets
from regraft.data import Data
from regraft.report import Results
from regraft.studies import show
from regraft.studies.merging import Merged, mean_grid, merge_by_all_rules, pairs, ranking
from regraft.studies.networks import Network, train_network
from regraft.topology import expected_nnstd
from regraft.train import Recipe

# the thesis draws both decays (figure 8) without their formula; at steepness 2 networks of sparsity .99 can
# pass 85 % within 600 to 1500 epochs, as its own do, while at 5 none does
PHASE_2 = Recipe(
    model="mlp:in-392-196-classes",
    density=1.0,
    allocate="uniform",
    activation="sigmoid",
    evolve="set-magnitude",
    rate="exponential:steepness=2",
    evolve_every="50epochs",
    lr=1.0,
    momentum=0.0,
    lr_schedule="exponential:steepness=2",
    epochs=1500,
    batch_size=None,
    stop_accuracy=0.85,
    stop_extra=200,
)


@dataclass(frozen=True, eq=False)
class Cell:
    """All networks and merges of one sparsity."""

    sparsity: float
    networks: list[Network]
    merged: list[Merged]

    def of(self, *, resparsified: bool, with_itself: bool | None = None) -> list[Merged]:
        """The merges, resparsified or not; ``with_itself`` chooses pairs of one network or of two."""
        return [
            m for m in self.merged if m.resparsified == resparsified and with_itself in (None, m.with_itself)
        ]

    def figures(self) -> dict[str, Any]:
        """For JSON: parents, and for each kind of merge the 5x5 means and the ranking of weight rules."""
        kinds = {
            "resparsified": self.of(resparsified=True),
            "resparsified, two different parents": self.of(resparsified=True, with_itself=False),
            "union": self.of(resparsified=False),
            "union, two different parents": self.of(resparsified=False, with_itself=False),
        }
        return {
            "sparsity": self.sparsity,
            "parents": [n.figures() for n in self.networks],
            "expected_nnstd": expected_nnstd(self.sparsity),
            "nnstd_between_parents": fmean(a.topology.nnstd(b.topology) for a, b in pairs(self.networks)),
            "nnstd_between_parents_by_layer": {
                name: fmean(a.topology.nnstd_by_weight(b.topology)[name] for a, b in pairs(self.networks))
                for name in self.networks[0].topology
            },
            "merged": {
                kind: {
                    "networks": len(found),
                    "accuracy": mean_grid(found, "accuracy"),
                    "loss": mean_grid(found, "loss"),
                    "nnstd": {
                        rule: fmean(d for m in found if m.weights == rule for d in m.nnstd)
                        for rule in dict.fromkeys(m.weights for m in found)
                    },
                    "ranking": ranking(found),
                }
                for kind, found in kinds.items()
            },
        }


def load(data_dir: str | PathLike[str] | None = None, name: str = "fashion-mnist", seed: int = 0) -> Data:
    """The study's data: T-shirt/top, Trouser, Pullover, Dress and Coat, 1000 + 100 images of each.

    Raises:
        FileError: the files are missing or corrupt.
    """
    return datasets.load(
        name,
        data_dir=data_dir,
        classes=range(5),
        per_class=1000,
        test_per_class=100,
        seed=seed,
        flatten=True,
    )


def run(
    data: Data,
    sparsity: float,
    *,
    networks: int = 5,
    recipe: Recipe = PHASE_2,
    seed: int = 0,
    say: Callable[[str], object] = lambda text: None,
) -> Cell:
    """Train ``networks`` networks of one sparsity and merge all pairs.

    Args:
        recipe: how they are trained; its density is replaced.
        seed: the first network's; the others have the next ones.
        say: called with a line after each step.
    """
    recipe = replace(recipe, density=1.0 - sparsity)
    trained = []
    for i in range(networks):
        trained.append(train_network(recipe, data, seed + i))
        say(
            f"sparsity {sparsity:g}, network {i + 1} of {networks}: {100 * trained[-1].accuracy:.1f} % "
            f"after {len(trained[-1].history.epochs)} epochs"
        )
    merged = []
    for a, b in pairs(trained, with_itself=True):
        merged += merge_by_all_rules([a, b], data.test, seed=seed)
        say(f"sparsity {sparsity:g}, merged {a.name} with {b.name}")
    return Cell(sparsity, trained, merged)


def results(cells: Sequence[Cell], recipe: Recipe, data: Data) -> Results:
    """The report of several sparsities."""
    rules = [m.weights for m in cells[0].merged]
    rows = []
    for rule in dict.fromkeys(rules):
        means = [100 * dict(ranking(c.of(resparsified=True)))[rule] for c in cells]
        rows.append([rule, *means])
    everything = [m for c in cells for m in c.of(resparsified=True)]
    order = ranking(everything)
    parents = fmean(n.accuracy for c in cells for n in c.networks)
    return {
        "title": "Merging pairs of sparse networks: thesis 1, phase 2",
        "summary": f"Pairs of networks that reach {100 * parents:.1f} % on average were merged by 25 rules "
        f"and resparsified. The best weight rule is {order[0][0]}: {100 * order[0][1]:.1f} % on average over "
        f"{', '.join(f'{c.sparsity:g}' for c in cells)} sparsity and all bias rules.",
        "tables": [
            {
                "title": "Mean accuracy (%) of merged networks by weight rule",
                "columns": ["Weight rule", *(f"sparsity {c.sparsity:g}" for c in cells)],
                "rows": rows,
                "note": "Resparsified; mean over all bias rules and all pairs, with itself too.",
            },
            {
                "title": "Parents",
                "columns": ["Sparsity", "Mean accuracy (%)", "Mean epochs"],
                "rows": [
                    [
                        f"{c.sparsity:g}",
                        100 * fmean(n.accuracy for n in c.networks),
                        fmean(len(n.history.epochs) for n in c.networks),
                    ]
                    for c in cells
                ],
            },
        ],
        "curves": [
            {**curve, "name": f"sparsity {c.sparsity:g}, {curve['name']}"}
            for c in cells
            for curve in show.curves(c.networks[:1])
        ],
        "grids": [
            show.grid(f"sparsity {c.sparsity:g}, resparsified", c.of(resparsified=True)) for c in cells
        ],
        "points": [
            {**p, "group": f"{p['group']}, {c.sparsity:g}"}
            for c in cells[-2:]
            for p in show.points(c.of(resparsified=True, with_itself=False))
        ],
        "reference": {"name": "parents, mean", "accuracy": parents},
        "configuration": {**asdict(recipe), "density": "1 - sparsity", "data": data.name},
    }
