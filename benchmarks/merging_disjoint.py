"""Merging sparse networks that were trained on disjoint data: does the merge beat its parents, and does it
come near one network trained on all the data?

    REGRAFT_DATA=... OMP_NUM_THREADS=1 python benchmarks/merging_disjoint.py --seeds 10
    python benchmarks/merging_disjoint.py --seeds 10 --table     # of the cells that are there

Fashion-MNIST, 5 classes x 1000 training images, 784-392-196-5, sparsity .95 and .99; parents and the one
network train for 60 epochs, SET after each. A cell is one sparsity, one way to split the data and one seed;
it is a line of --out, so that an interrupted study goes on. No selection sees data: units are scored, and the
last layer's sums are computed, on each parent's own shard. See docs/results/merging-disjoint.md.
"""

from __future__ import annotations

import argparse
import copy
from statistics import fmean
from typing import Any

import torch
from torch import nn

from _sparse_networks import load, parents, percent, recipe_for, run_study, shards, study_options, table
from regraft import merge
from regraft.data import Data
from regraft.merging import Ensemble, select_neurons
from regraft.merging.neurons import readout_sums, refit_readout
from regraft.probe import Probe
from regraft.train import train_recipe

SPLITS = ("iid-2", "iid-4", "class-2")
EPOCHS, AFTERWARDS, READOUT = 60, 15, 200
BEST, ONE = "best parent", "one network, all data"
LABELS = f"selection, {READOUT} for labels"


def refitted(
    merged: nn.Module, parts: list[Data], teacher: nn.Module | None, *, choose: bool = False
) -> nn.Module:
    """The last layer in closed form, from each shard's sums."""
    sums = [readout_sums(merged, [(part.train.x, part.train.y)], teacher) for part in parts]
    return refit_readout(merged, sums, choose=choose)


def in_pairs(networks: list[nn.Module], probes: list[Probe]) -> nn.Module:
    """4 -> 2 -> 1; a pair's data is scored together."""
    while len(networks) > 1:
        pairs = range(0, len(networks), 2)
        networks = [select_neurons(networks[i : i + 2], probes[i : i + 2]) for i in pairs]
        probes = [Probe(batches=[*probes[i].batches, *probes[i + 1].batches]) for i in pairs]
    return networks[0]


def merges(networks: list[nn.Module], parts: list[Data], by_class: bool) -> dict[str, nn.Module]:
    """Every way to merge, by the name of its row."""
    probes = [Probe(batches=[(part.train.x, part.train.y)]) for part in parts]
    everything = Probe(batches=[batch for probe in probes for batch in probe.batches])
    generator = torch.Generator().manual_seed(0)
    ensemble = Ensemble(networks)
    selected = select_neurons(networks, probes)
    by_layer = select_neurons(networks, probes, scope="layer")
    found: dict[str, nn.Module] = {
        "ensemble": ensemble,
        "average": merge(networks, "average"),
        "average, aligned by weights": merge(networks, "average", align="weights"),
        "average, aligned by activations": merge(networks, "average", align="activations", probe=everything),
        "random units": select_neurons(networks, score="random", generator=generator),
        "concatenate and prune by norm": select_neurons(networks, score="magnitude", share="overall"),
        "selection, counts by layer": by_layer,
        "same, readout chosen": refitted(by_layer, parts, ensemble, choose=True),
        "selection": selected,
        "selection, readout refitted": refitted(selected, parts, ensemble),
        "selection, readout chosen": refitted(selected, parts, ensemble, choose=True),
    }
    if len(networks) > 2:
        found["selection in pairs"] = in_pairs(networks, probes)
    if by_class:
        wider = select_neurons(networks, probes, readout=READOUT)
        found["selection, readout for labels"] = refitted(selected, parts, None, choose=True)
        found[LABELS] = refitted(wider, parts, None, choose=True)
    return found


def cell(split: str, sparsity: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of one seed."""
    data = load(seed, args.data_dir)
    parts = shards(data, split, seed)
    networks = parents(data, split, sparsity, seed, EPOCHS, args.networks)
    one = parents(data, "all", sparsity, seed, EPOCHS, args.networks)[0]
    own = [percent(network, data) for network in networks]
    merged = merges(networks, parts, split.startswith("class"))
    rows = {
        "parents, mean": fmean(own), BEST: max(own), ONE: percent(one, data),
        **{name: percent(model, data) for name, model in merged.items()},
    }  # fmt: skip
    if split.startswith("class"):
        recipe = recipe_for(sparsity, seed, 50, AFTERWARDS)
        starts: dict[str, nn.Module | None] = {
            "new network": None, "selection": merged["selection"], LABELS: merged[LABELS],
        }  # fmt: skip
        for name, model in starts.items():
            trained = train_recipe(recipe, data, model=copy.deepcopy(model)).model
            rows[f"{name}, + {AFTERWARDS}"] = percent(trained, data)
    return {"split": split, "sparsity": sparsity, "seed": seed, "accuracy": rows}


def show(cells: list[dict[str, Any]]) -> None:
    """A table for each sparsity and split."""
    for sparsity in sorted({c["sparsity"] for c in cells}):
        for split in SPLITS:
            own = sorted((c for c in cells if (c["sparsity"], c["split"]) == (sparsity, split)), key=_seed)
            if own:
                print(f"\nsparsity {sparsity:g}, {split}, {len(own)} seeds")
                table({row: [c["accuracy"][row] for c in own] for row in own[0]["accuracy"]}, (BEST, ONE))


def _seed(cell: dict[str, Any]) -> int:
    return int(cell["seed"])


def main() -> None:
    args = study_options(__doc__, "split", SPLITS, "0.95,0.99", "disjoint.jsonl")
    show(run_study(args, "split", cell))


if __name__ == "__main__":
    main()
