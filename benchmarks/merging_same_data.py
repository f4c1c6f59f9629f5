"""Merging two sparse networks that were trained on the same data, fine-tuned, against all that as many epochs
can buy.

    REGRAFT_DATA=... OMP_NUM_THREADS=1 python benchmarks/merging_same_data.py --seeds 10
    python benchmarks/merging_same_data.py --seeds 10 --table     # of the cells that are there

Fashion-MNIST, 5 classes x 1000 training images, 784-392-196-5, sparsity .90, .95 and .99. Two parents train
for 30 epochs each and what becomes of them for 30 more, SET after each: 90 in all, which one network has too.
A cell is one sparsity and one seed; it is a line of --out, so that an interrupted study goes on. See
docs/results/merging-same-data.md.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _common import add_cell, read_cells
from _sparse_networks import load, percent, recipe_for, table, trained
from regraft import gates, merge
from regraft.data import Data
from regraft.merging import Ensemble, repair, select_neurons
from regraft.merging.align import ActivationMatching
from regraft.merging.neurons import readout_sums, refit_readout
from regraft.probe import Probe
from regraft.train import train_recipe

EACH = 30  # epochs of each parent, and of what comes afterwards
BEST, ONE, AGAIN = "best parent", "one network, 90 epochs", "best parent, 30 + 30"


def trained_on(model: nn.Module, data: Data, sparsity: float, seed: int) -> nn.Module:
    """A copy, after as many epochs more, from the first learning and evolution rates on."""
    recipe = recipe_for(sparsity, seed, 60, EACH)
    return train_recipe(recipe, data, model=copy.deepcopy(model)).model


def merges(networks: list[nn.Module], data: Data) -> dict[str, nn.Module]:
    """What needs no training, by the name of its row."""
    batches = [(data.train.x, data.train.y)]
    probe = Probe(batches=batches)
    average = merge(networks, "average")
    turned = ActivationMatching()(networks, probe=probe)
    aligned = merge(turned, "average")
    selected = select_neurons(networks, probe)
    sums = [readout_sums(selected, batches, Ensemble(networks))]
    return {
        "ensemble of both": Ensemble(networks),
        "average": average,
        "average, repaired": repair(average, networks, batches),
        "average, aligned": aligned,
        "average, aligned, repaired": repair(aligned, turned, batches),
        "concatenate and prune by norm": select_neurons(networks, score="magnitude", share="overall"),
        "selection, counts by layer": select_neurons(networks, probe, scope="layer"),
        "selection": selected,
        "selection, readout refitted": refit_readout(selected, sums),
    }


def gated(networks: list[nn.Module], data: Data, sparsity: float, seed: int) -> nn.Module:
    """Half of the epochs with gates, half without."""
    recipe = recipe_for(sparsity, seed, 60, EACH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gates.GatesWarning)
        return gates.merge(
            networks, data, merge_epochs=EACH // 2, finetune_epochs=EACH // 2, lr=0.1, momentum=0.9,
            weight_decay=recipe.weight_decay, finetune_schedule="cosine", seed=seed,
        ).model  # fmt: skip


def cell(sparsity: float, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Test accuracies of one seed."""
    data = load(seed, args.data_dir)

    def network(number: int, epochs: int) -> nn.Module:
        path = args.networks / f"all-{sparsity:g}-{epochs}-{seed}-{number}.safetensors"
        return trained(recipe_for(sparsity, seed, number, epochs), data, path)

    networks = [network(0, EACH), network(1, EACH)]
    own = [percent(n, data) for n in networks]
    best = networks[own.index(max(own))]
    merged = merges(networks, data)
    rows = {
        BEST: max(own), ONE: percent(network(2, 3 * EACH), data),
        AGAIN: percent(trained_on(best, data, sparsity, seed), data),
        **{name: percent(model, data) for name, model in merged.items()},
    }  # fmt: skip
    for name in ("average, aligned, repaired", "selection", "selection, readout refitted"):
        rows[f"{name}, + {EACH}"] = percent(trained_on(merged[name], data, sparsity, seed), data)
    rows[f"gates {EACH // 2} + {EACH // 2}"] = percent(gated(networks, data, sparsity, seed), data)
    return {"sparsity": sparsity, "seed": seed, "accuracy": rows}


def show(cells: list[dict[str, Any]]) -> None:
    """A table for each sparsity."""
    for sparsity in sorted({c["sparsity"] for c in cells}):
        own = sorted((c for c in cells if c["sparsity"] == sparsity), key=lambda c: int(c["seed"]))
        print(f"\nsparsity {sparsity:g}, {len(own)} seeds")
        table({row: [c["accuracy"][row] for c in own] for row in own[0]["accuracy"]}, (BEST, ONE, AGAIN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder of data sets; default: REGRAFT_DATA")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sparsity", default="0.9,0.95,0.99", help="joined by ',' (default 0.9,0.95,0.99)")
    parser.add_argument("--networks", type=Path, default=Path("runs/merging/networks"))
    parser.add_argument("--out", type=Path, default=Path("runs/merging/same-data.jsonl"))
    parser.add_argument("--most", type=int, default=10**9, help="cells in this call")
    parser.add_argument("--table", action="store_true", help="only show what is there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = read_cells(args.out)
    done = {(c["sparsity"], c["seed"]) for c in cells}
    wanted = [(float(text), seed) for seed in range(args.seeds) for text in args.sparsity.split(",")]
    missing = [] if args.table else [key for key in wanted if key not in done][: args.most]
    for key in missing:
        cells.append(made := cell(*key, args))
        add_cell(args.out, made)
        print(key, {name: round(value, 2) for name, value in made["accuracy"].items()}, flush=True)
    show(cells)


if __name__ == "__main__":
    main()
