"""Merging two sparse networks that were trained on the same data, fine-tuned, against all that as many epochs
can buy.

    REGRAFT_DATA=... OMP_NUM_THREADS=1 python benchmarks/merging_same_data.py --seeds 10
    python benchmarks/merging_same_data.py --seeds 10 --table     # of the cells that are there

Fashion-MNIST, 5 classes x 1000 training images, 784-392-196-5, sparsity .90, .95 and .99. Two parents train
for 30 epochs each and what becomes of them for 30 more, SET after each: 90 in all, which one network has too.
A cell is one part of the study at one sparsity for one seed; it is a line of --out, so that an interrupted
study goes on. Gates are in gates_sparse.py. See docs/results/merging-same-data.md.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from _sparse_networks import load, percent, recipe_for, run_study, study_options, table, trained
from regraft import merge, models, sparsify, uniform
from regraft.data import Data
from regraft.merging import Ensemble, repair, select_neurons
from regraft.merging.align import ActivationMatching
from regraft.merging.neurons import readout_sums, refit_readout
from regraft.merging.neurons.budget import for_readout
from regraft.probe import Probe
from regraft.train import seeds, train_recipe

EACH = 30  # epochs of each parent, and of what comes afterwards
READOUT = 200  # connections of a wider last layer, which the other layers give up
PARTS = ("parents", "longer", "afterwards")
BEST, ONE, AGAIN = "best parent", "one network, 90 epochs", "best parent, 30 + 30"
SELECTED, WIDER = "selection", f"selection, {READOUT} in the readout"


def network(sparsity: float, seed: int, number: int, data: Data, args: argparse.Namespace) -> nn.Module:
    """Parents 0 and 1; 2 has all the epochs."""
    epochs = 3 * EACH if number == 2 else EACH
    path = args.networks / f"all-{sparsity:g}-{epochs}-{seed}-{number}.safetensors"
    return trained(recipe_for(sparsity, seed, number, epochs), data, path)


def wider_network(sparsity: float, seed: int, data: Data, args: argparse.Namespace) -> nn.Module:
    """As number 2, with as many connections of which more are in the last layer."""
    recipe = recipe_for(sparsity, seed, 2, 3 * EACH)

    def allocate(shapes: Sequence[Sequence[int]], density: float) -> list[int]:
        counts = {str(i): k for i, k in enumerate(uniform(shapes, density))}
        own, others = for_readout(counts, str(len(shapes) - 1), READOUT)
        return [(own | others)[name] for name in counts]

    model = models.build(
        recipe.model, input_shape=data.input_shape, classes=data.classes,
        generator=seeds.stream(recipe.seed, "init"),
    )  # fmt: skip
    sparsify(
        model, recipe.density, allocate=allocate, init="rescale",
        generator=seeds.stream(recipe.seed, "topology"),
    )  # fmt: skip
    path = args.networks / f"all-{sparsity:g}-{3 * EACH}-{seed}-wider.safetensors"
    return trained(recipe, data, path, model)


def longer(model: nn.Module, data: Data, sparsity: float, seed: int) -> float:
    """Accuracy of a copy after 30 epochs more, from the first learning and evolution rates on."""
    recipe = recipe_for(sparsity, seed, 60, EACH)
    return percent(train_recipe(recipe, data, model=copy.deepcopy(model)).model, data)


def merges(networks: list[nn.Module], data: Data) -> dict[str, nn.Module]:
    """What needs no training, by the name of its row."""
    batches = [(data.train.x, data.train.y)]
    probe = Probe(batches=batches)
    average = merge(networks, "average")
    turned = ActivationMatching()(networks, probe=probe)
    aligned = merge(turned, "average")
    selected = select_neurons(networks, probe)
    wider = select_neurons(networks, probe, readout=READOUT)
    ensemble = Ensemble(networks)

    def refitted(model: nn.Module, *, choose: bool = False) -> nn.Module:
        return refit_readout(model, [readout_sums(model, batches, ensemble)], choose=choose)

    return {
        "ensemble of both": ensemble,
        "average": average,
        "average, repaired": repair(average, networks, batches),
        "average, aligned": aligned,
        "average, aligned, repaired": repair(aligned, turned, batches),
        "concatenate and prune by norm": select_neurons(networks, score="magnitude", share="overall"),
        "selection, counts by layer": select_neurons(networks, probe, scope="layer"),
        SELECTED: selected,
        "selection, readout refitted": refitted(selected),
        WIDER: refitted(wider, choose=True),
    }


def cell(part: str, sparsity: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of one part of the study for one seed."""
    data = load(seed, args.data_dir)
    parents = [network(sparsity, seed, number, data, args) for number in (0, 1)]
    best = max(parents, key=lambda parent: percent(parent, data))
    if part == "longer":
        rows = {
            ONE: percent(network(sparsity, seed, 2, data, args), data),
            f"same, {READOUT} in the readout": percent(wider_network(sparsity, seed, data, args), data),
            AGAIN: longer(best, data, sparsity, seed),
        }
    elif part == "parents":
        rows = {BEST: percent(best, data)}
        rows |= {name: percent(model, data) for name, model in merges(parents, data).items()}
    else:
        merged = merges(parents, data)
        then = ("average, aligned, repaired", "concatenate and prune by norm", SELECTED, WIDER)
        rows = {f"{name}, + {EACH}": longer(merged[name], data, sparsity, seed) for name in then}
    return {"part": part, "sparsity": sparsity, "seed": seed, "accuracy": rows}


def show(cells: list[dict[str, Any]], wanted: Sequence[str]) -> None:
    """A table for each sparsity, over the seeds of which all wanted parts are there."""
    found: dict[float, dict[int, dict[str, dict[str, float]]]] = {}
    for c in cells:
        found.setdefault(c["sparsity"], {}).setdefault(c["seed"], {})[c["part"]] = c["accuracy"]
    for sparsity, by_seed in sorted(found.items()):
        whole = [parts for _, parts in sorted(by_seed.items()) if set(wanted) <= set(parts)]
        rows = [{row: v for part in wanted for row, v in parts[part].items()} for parts in whole]
        if rows:
            print(f"\nsparsity {sparsity:g}, {len(rows)} seeds")
            against = [name for name in (BEST, ONE, AGAIN) if name in rows[0]]
            table({row: [r[row] for r in rows] for row in rows[0]}, against)


def main() -> None:
    args = study_options(__doc__, "part", PARTS, "0.9,0.95,0.99", "same-data.jsonl")
    show(run_study(args, "part", cell), args.kinds)


if __name__ == "__main__":
    main()
