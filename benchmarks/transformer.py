"""A small GPT on the text of regraft's grammar: sparse, evolved, pruned, merged.

    python benchmarks/transformer.py [--seeds 3] [--only train prune merge] [--out runs/transformer.jsonl]
        [--table]

gpt:2-32-4, rows of 32 characters, 60,000 characters, Adam 0.005 with a cosine, batches of 16, 6 epochs. Bits
per character on the last tenth of the text, which no network has seen. Cells that are in the file already are
not run again; `--table` prints what is there and runs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import regraft
from _common import add_cell, read_cells, set_threads
from regraft import Topology, data, losses, measure, prune
from regraft.data import Data, grammar
from regraft.probe import Probe
from regraft.train import Recipe, build_model, train_recipe

CHARACTERS, CONTEXT = 60_000, 32
RECIPE = Recipe(
    "gpt:2-32-4", dense=True, activation="gelu", optimizer="adam", lr=0.005, lr_schedule="cosine", epochs=6,
    batch_size=16,
)  # fmt: skip
SCORES = (
    "magnitude", "connectivity", "snip", "grasp", "grasp-magnitude", "synflow", "variance-flow",
)  # fmt: skip
DENSITY = 0.2


@cache
def text(part: str = "1/1") -> Data:
    """The text, or a part of what is to train on."""
    return data.load(f"text:characters={CHARACTERS},context={CONTEXT},part={part}")


def sparse(density: float, evolve: str, seed: int, **options: Any) -> Recipe:
    """The recipe of a sparse network; growth by gradient or inner product is due every 100 steps."""
    every = {"set": "epoch", "none": None}.get(evolve, "100")
    return replace(
        RECIPE, dense=False, density=density, evolve=evolve, evolve_every=every, seed=seed, **options
    )


def figures(model: nn.Module) -> dict[str, float]:
    """On the text that no network has seen."""
    found = measure.evaluate(model, text().test)
    return {"bits": found["bits"], "accuracy": found["accuracy"]}


def trained(seed: int) -> dict[str, Any]:
    """Dense, static and evolving networks; one value a call is enough to go on after an interruption."""
    makers: dict[str, Recipe] = {"dense": replace(RECIPE, seed=seed)}
    for density in (0.2, 0.1):
        for evolve in ("none", "set", "rigl", "search"):
            makers[f"{evolve}, {density}"] = sparse(density, evolve, seed)
    return {name: lambda r=recipe: train_recipe(r, text()).model for name, recipe in makers.items()}


def pruned(seed: int) -> dict[str, Any]:
    """Networks pruned before training by each score."""

    def make(score: str) -> nn.Module:
        recipe = replace(RECIPE, seed=seed)
        model, g = build_model(recipe, text()), torch.Generator().manual_seed(seed)
        samples = text().train.select(torch.randperm(len(text().train), generator=g)[:64])
        probe = Probe(losses.by_name("cross-entropy"), [(samples.x, samples.y)], g)
        shots = 20 if score == "synflow" else 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", prune.LayerCollapseWarning)
            topology = prune.upfront(model, probe, score=score, density=DENSITY, shots=shots, generator=g)
        model = prune.apply(model, topology)
        return train_recipe(sparse(DENSITY, "none", seed), text(), model=model).model

    return {f"pruned by {score}": lambda s=score: make(s) for score in SCORES}


def merged(seed: int, path: Path) -> None:
    """Two networks of disjoint halves, from different initial values, merged and trained on for an epoch."""
    done = {(c["name"], c["seed"]) for c in read_cells(path)}
    if ("average, activations, tuned", seed) in done:
        return
    parents = []
    for k in (1, 2):
        recipe = sparse(DENSITY, "set", 100 * seed + k, epochs=2 * RECIPE.epochs)
        parents.append(train_recipe(recipe, text(f"{k}/2")).model.eval())
    samples = text().train.select(torch.arange(0, len(text().train), 8))
    probe = Probe(batches=[(samples.x, samples.y)])
    made = {"parent of one half": parents[0]}
    for weights in ("average", "magnitude"):
        for align in (None, "weights", "activations"):
            generator = torch.Generator().manual_seed(seed)
            made[f"{weights}, {align or 'as they are'}"] = regraft.merge(
                parents, weights=weights, align=align, probe=probe, generator=generator
            )
    overlap = overlaps(parents, probe)
    tuning = sparse(DENSITY, "none", seed, epochs=1, lr_schedule="constant")
    tuning = replace(tuning, lr=0.001)
    for name, model in made.items():
        add_cell(path, {"name": name, "seed": seed, **figures(model), **overlap.get(name, {})})
        model = train_recipe(tuning, text(), model=model.train()).model
        add_cell(path, {"name": f"{name}, tuned", "seed": seed, **figures(model)})


def overlaps(parents: list[nn.Module], probe: Probe) -> dict[str, dict[str, float]]:
    """The share of connections that the second parent has in common with the first."""
    found = {"as they are": parents}
    found["weights"] = regraft.WeightMatching()(parents)
    found["activations"] = regraft.ActivationMatching()(parents, probe=probe)
    shares = {}
    for align, (a, b) in found.items():
        one, two = Topology.of(a), Topology.of(b)
        shares[f"average, {align}"] = {"shared": (one & two).nnz / one.nnz}
    return shares


def run(seeds: int, only: list[str], path: Path) -> None:
    for seed in range(seeds):
        for part, makers in (("train", trained), ("prune", pruned)):
            for name, make in makers(seed).items() if part in only else ():
                if (name, seed) in {(c["name"], c["seed"]) for c in read_cells(path)}:
                    continue
                start = time.process_time()
                model = make()
                seconds = time.process_time() - start
                add_cell(path, {"name": name, "seed": seed, **figures(model), "seconds": seconds})
                print(name, seed, read_cells(path)[-1], flush=True)
        if "merge" in only:
            merged(seed, path)


def table(path: Path) -> None:
    """Means and standard deviations over seeds."""
    _, floor = grammar.write(CHARACTERS, 0)
    print(f"the grammar's own bits per character: {floor:.3f}\n")
    print("| network | bits per character | accuracy in % | seeds | seconds | shared |")
    print("|---|---|---|---|---|---|")
    rows: dict[str, list[dict[str, Any]]] = {}
    for cell in read_cells(path):
        rows.setdefault(cell["name"], []).append(cell)
    for name, cells in rows.items():
        words = [spread([c["bits"] for c in cells], 3), spread([100 * c["accuracy"] for c in cells], 1)]
        words += [str(len(cells)), spread([c["seconds"] for c in cells if "seconds" in c], 0)]
        words += [spread([c["shared"] for c in cells if "shared" in c], 3)]
        print(f"| {name} | {' | '.join(words)} |")


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 or not digits else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["train", "prune", "merge"])
    parser.add_argument("--out", type=Path, default=Path("runs/transformer.jsonl"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    set_threads(1)
    if not options.table:
        run(options.seeds, options.only, options.out)
    table(options.out)


if __name__ == "__main__":
    main()
