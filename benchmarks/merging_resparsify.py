"""What stays of a merged network: thesis 1's score by connectivity and its sparse biases, in its own setting.

    REGRAFT_DATA=... OMP_NUM_THREADS=1 python benchmarks/merging_resparsify.py --seeds 5
    python benchmarks/merging_resparsify.py --seeds 5 --table     # of the cells that are there

Fashion-MNIST, 5 classes x 1000 training images, 784-392-196-5, sparsity .90, .95 and .99; two parents,
trained for 30 epochs with SET on the same data, merged position by position, as they are and aligned by
activations, and resparsified to the parents' density. A cell is one sparsity and one seed, a line of --out.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from _common import add_cell, numbers, options, read_cells
from _sparse_networks import load, parents, percent, table
from regraft import merge
from regraft.data import Data
from regraft.merging.align import ActivationMatching
from regraft.probe import Probe

EPOCHS = 30
SCORES = {
    "magnitude": "magnitude", "connectivity": "connectivity",
    "its root": "connectivity:power=0.5", "strength": "connectivity:importance=strength",
}  # fmt: skip
BIASES = {"biases .5": 0.5, "biases .1": 0.1}


def cell(networks: list[nn.Module], data: Data) -> dict[str, float]:
    """Test accuracy in percent of each merge, by name."""
    probe = Probe(batches=[(data.train.x[:1000], data.train.y[:1000])])
    ways = {"naive": networks, "aligned": ActivationMatching()(networks, probe=probe)}
    found = {"best parent": max(percent(network, data) for network in networks)}
    for way, models in ways.items():
        for rule in ("magnitude", "average"):
            for name, score in SCORES.items():
                merged = merge(models, rule, score=score, generator=torch.Generator().manual_seed(0))
                found[f"{way}, {rule}, by {name}"] = percent(merged, data)
            for name, share in BIASES.items():
                merged = merge(models, rule, bias_density=share)
                found[f"{way}, {rule}, {name}"] = percent(merged, data)
            found[f"{way}, {rule}, biases 0"] = percent(merge(models, rule, "nothing"), data)
    return found


def main() -> None:
    parser = options(__doc__, threads=False)
    parser.add_argument("--seeds", type=int, default=5, help="pairs of parents (default 5)")
    parser.add_argument("--sparsities", default="0.9,0.95,0.99")
    parser.add_argument("--networks", type=Path, default=Path("runs/networks"), help="where parents are kept")
    parser.add_argument("--out", type=Path, default=Path("runs/merging-resparsify.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    chosen = parser.parse_args()
    sparsities = numbers(chosen.sparsities, float)
    done = {(c["sparsity"], c["seed"]) for c in read_cells(chosen.out)}
    for seed in range(0 if chosen.table else chosen.seeds):
        data = load(seed)
        for sparsity in (s for s in sparsities if (s, seed) not in done):
            networks = [
                parents(data, "all", sparsity, seed, EPOCHS, chosen.networks, first=number)[0]
                for number in range(2)
            ]
            add_cell(chosen.out, {"sparsity": sparsity, "seed": seed, "figures": cell(networks, data)})
    cells = read_cells(chosen.out)
    for sparsity in sparsities:
        rows = [c["figures"] for c in cells if c["sparsity"] == sparsity]
        print(f"\nsparsity {sparsity:g}, {len(rows)} seeds")
        for way in ("naive, magnitude", "naive, average", "aligned, magnitude", "aligned, average"):
            names = [name for name in rows[0] if name.startswith(way)] if rows else []
            if names:
                table({name: [row[name] for row in rows] for name in names}, [f"{way}, by magnitude"])


if __name__ == "__main__":
    main()
