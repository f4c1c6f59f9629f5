"""Alignment measured: are copies recovered, what do dense merges gain, what do large networks cost.

    python benchmarks/alignment.py recover|digits|large [--seeds 10] [--out runs/alignment.jsonl]
    python benchmarks/alignment.py table --out runs/alignment.jsonl

- recover: ResNet-20, dense and at density .1, with each channel's scale and statistics drawn at random or as
  they are at the start of training, against a permuted copy, exact or with noise on every weight.
- digits: dense 64-256-256-10 networks on scikit-learn's digits, two and five at a time: each alignment with
  each of three rules; and what a threefold scale of one layer does to sparse ones.
- large: two sparse 784-4000-1000-4000-10 networks, trained for two epochs on Fashion-MNIST and aligned in a
  process of its own on one thread: time, and the peak of memory.

Cells that are in the file already are not run again.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from _common import add_cell, in_own_process, megabytes, options, read_cells
from regraft import Topology, checkpoint, data, graph, measure, merge, models, sparsify
from regraft.data import Data
from regraft.merging.align import ActivationMatching, WeightMatching
from regraft.merging.align.descent import Pair, descend, unmoved
from regraft.merging.align.entries import entries_of
from regraft.probe import Probe
from regraft.train import Recipe, train_recipe

DIGITS = Recipe(
    "mlp:in-256-256-classes", dense=True, optimizer="adam", lr=1e-3, batch_size=32, epochs=30, evolve="none"
)
LARGE = Recipe(
    "mlp:784-4000-1000-4000-10", density=0.02, allocate="uniform", lr=0.05, momentum=0.9, batch_size=100,
    epochs=2, evolve="set",
)  # fmt: skip
RULES = ("average", "magnitude", "random")
NOISES = (0.0, 0.1)
DENSITIES = (0.01, 0.02, 0.05)


def resnet(seed: int, density: float | None, drawn: bool) -> nn.Module:
    """A ResNet-20, new, or with normalisations as different from each other as those of a trained one."""
    generator = torch.Generator().manual_seed(seed)
    model = models.build("resnet-20", generator=generator)
    if density is not None:
        sparsify(model, density=density, generator=generator)
    for module in model.modules():
        if drawn and isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    return model.eval()


@torch.no_grad()
def noisy(model: nn.Module, share: float, generator: torch.Generator) -> nn.Module:
    """A copy with noise of so many standard deviations of each tensor on its values."""
    made = copy.deepcopy(model)
    for parameter in made.parameters():
        if share and parameter.numel() > 1:
            parameter.add_(
                torch.randn(parameter.shape, generator=generator), alpha=share * float(parameter.std())
            )
    return made


def recover(seed: int, density: float | None, drawn: bool, noise: float) -> dict[str, Any]:
    """Units that are matched as they were permuted, as a share of all; by a descent from where they are,
    as published, too."""
    model = resnet(seed, density, drawn)
    groups = graph.trace(model)
    generator = torch.Generator().manual_seed(1000 + seed)
    turn = {g.name: torch.randperm(g.units, generator=generator) for g in groups.free}
    turned = noisy(graph.take(model, groups, turn), noise, generator)
    start = time.perf_counter()
    found = WeightMatching().orders([model, turned], groups, generator=generator)[1]
    seconds = time.perf_counter() - start
    pair = Pair(groups, entries_of(model, groups, 1), entries_of(turned, groups, 2))
    plain, _ = descend(pair, unmoved(groups), generator, max_passes=50, tolerance=1e-3)
    return {
        "recovered": share_of(turn, found),
        "published start": share_of(turn, plain),
        "seconds": seconds,
    }


def share_of(turn: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Share of the units that came back to their place."""
    right = sum(int((turn[name][found[name]] == torch.arange(len(turn[name]))).sum()) for name in turn)
    return right / sum(len(t) for t in turn.values())


def digits_group(seed: int, digits: Data) -> dict[str, Any]:
    """Five dense networks, merged two and five at a time; two sparse ones, one of them rescaled."""
    nets = [train_recipe(replace(DIGITS, seed=5 * seed + i), digits).model for i in range(5)]
    figures: dict[str, Any] = {"parents": fmean(accuracy(n, digits) for n in nets)}
    x, y = digits.train[torch.arange(500)]
    probe = Probe(batches=[(x, y)])
    for count in (2, 5):
        for name, aligned in alignments(nets[:count], probe).items():
            for rule in RULES:
                figures[f"{count}, {name}, {rule}"] = accuracy(merge(aligned, rule), digits)
    return figures | rescaled(seed, digits)


def alignments(nets: Sequence[nn.Module], probe: Probe) -> dict[str, Sequence[nn.Module]]:
    """The networks numbered alike in each way."""
    found: dict[str, Sequence[nn.Module]] = {
        "naive": nets,
        "weights, unscaled": WeightMatching(normalise=False)(nets),
        "weights": WeightMatching()(nets),
        "activations, unscaled": ActivationMatching(normalise=False)(nets, probe=probe),
        "activations": ActivationMatching()(nets, probe=probe),
    }
    if len(nets) > 2:
        found["weights, to the mean"] = WeightMatching(to="mean")(nets)
        found["activations, to the mean"] = ActivationMatching(to="mean")(nets, probe=probe)
    return found


def rescaled(seed: int, digits: Data) -> dict[str, float]:
    """Two sparse networks, the second with a first hidden layer three times as large, which computes the
    same: its share of the first layer's kept connections by the magnitude rule, and the merged accuracy."""
    recipe = replace(DIGITS, dense=False, density=0.1, allocate="uniform")
    a, b = (train_recipe(replace(recipe, seed=5 * seed + i), digits).model for i in range(2))
    loud: Any = copy.deepcopy(b)
    with torch.no_grad():
        for tensor, factor in (
            (loud.fc1.weight.values, 3),
            (loud.fc1.bias, 3),
            (loud.fc2.weight.values, 1 / 3),
        ):
            tensor *= factor
    own, other = (set(Topology.of(net)["fc1.weight"].index.tolist()) for net in (b, a))
    figures = {}
    for name, second in (("as it is", b), ("x3", loud)):
        for how, normalise in (("unscaled", False), ("normalised", True)):
            kept = merge([a, second], normalise=normalise)
            places = set(Topology.of(kept)["fc1.weight"].index.tolist())
            share = len(places & own - other) / len(places & (own ^ other))
            figures[f"share of second, {name}, {how}"] = 100 * share
            found = merge([a, second], align=WeightMatching(normalise=normalise))
            figures[f"magnitude, aligned, {name}, {how}"] = accuracy(found, digits)
    return figures


def large(density: float, folder: Path, data_dir: str | None) -> dict[str, Any]:
    """Two networks, trained here, aligned in a process of its own."""
    clothes = data.load("fashion-mnist", data_dir=data_dir, flatten=True)
    paths = []
    for seed in range(2):
        path = folder / f"large-{density}-{seed}.safetensors"
        if not path.exists():
            checkpoint.save(train_recipe(replace(LARGE, density=density, seed=seed), clothes).model, path)
        paths.append(str(path))
    figures: dict[str, Any] = in_own_process(__file__, "pair", *paths)
    a, b = (checkpoint.load(path) for path in paths)
    aligned = WeightMatching(restarts=1)([a, b])
    for rule in ("average", "magnitude"):
        figures[f"naive, {rule}"] = accuracy(merge([a, b], rule), clothes)
        figures[f"aligned, {rule}"] = accuracy(merge(aligned, rule), clothes)
    return {"parents": [accuracy(n, clothes) for n in (a, b)], **figures}


def pair(paths: Sequence[str]) -> dict[str, float]:
    """Time and peak memory of one alignment of two files, and the overlap of the topologies around it."""
    torch.set_num_threads(1)
    nets = [checkpoint.load(path) for path in paths]
    found: dict[str, float] = {"megabytes before": megabytes("VmHWM")}
    for restarts in (1, 3):
        start, of_cpu = time.perf_counter(), time.process_time()
        aligned = WeightMatching(restarts=restarts)(nets)
        found[f"seconds, {restarts} descents"] = time.perf_counter() - start
        found[f"CPU seconds, {restarts} descents"] = time.process_time() - of_cpu
        found[f"overlap, {restarts} descents"] = overlap(aligned)
        found[f"megabytes, {restarts} descents"] = megabytes("VmHWM")
    return found | {"overlap before": overlap(nets), "connections": Topology.of(nets[0]).nnz}


def overlap(nets: Sequence[nn.Module]) -> float:
    """Intersection over union of two topologies."""
    return Topology.of(nets[0]).jaccard(Topology.of(nets[1]))


def accuracy(model: nn.Module, split: Data) -> float:
    return 100 * float(measure.evaluate(model, split.test)["accuracy"])


def cells(what: str, seeds: int) -> list[dict[str, Any]]:
    """What is to be measured, by name."""
    if what == "recover":
        return [
            {"what": what, "density": d, "drawn": drawn, "noise": noise, "seed": seed}
            for seed in range(seeds) for d in (None, 0.1) for drawn in (False, True) for noise in NOISES
        ]  # fmt: skip
    if what == "digits":
        return [{"what": what, "seed": seed} for seed in range(seeds)]
    return [{"what": what, "density": d} for d in DENSITIES]


def run(cell: Mapping[str, Any], folder: Path, data_dir: str | None) -> dict[str, Any]:
    options = {name: value for name, value in cell.items() if name != "what"}
    if cell["what"] == "recover":
        return recover(**options)
    if cell["what"] == "digits":
        return digits_group(options["seed"], data.load("digits"))
    return large(options["density"], folder, data_dir)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Mean and standard deviation over seeds of every figure."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(str({n: v for n, v in row["cell"].items() if n != "seed"}), []).append(
            row["figures"]
        )
    for kind, found in sorted(kinds.items()):
        print(f"\n{kind}: {len(found)} runs")
        for name, value in found[0].items():
            if isinstance(value, list):
                print(f"  {name}: {value}")
                continue
            values = [float(f[name]) for f in found]
            whole = f", {sum(v == 1.0 for v in values)} of {len(values)} whole" if name in WHOLE else ""
            spread = stdev(values) if len(values) > 1 else 0.0
            print(f"  {name}: {fmean(values):.4g} ({spread:.2g}){whole}")


WHOLE = ("recovered", "published start")


def main() -> None:
    parser = options(__doc__, threads=False)
    parser.add_argument("what", choices=["recover", "digits", "large", "table", "pair"])
    parser.add_argument("paths", nargs="*", help="of pair, which large starts: two network files")
    parser.add_argument("--seeds", type=int, default=10, help="runs of each kind (default 10)")
    parser.add_argument("--data-dir", default=None, help="where data sets are")
    parser.add_argument("--out", type=Path, default=Path("runs/alignment.jsonl"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.what == "pair":
        print(json.dumps(pair(chosen.paths)))
        return
    done = [row["cell"] for row in read_cells(chosen.out)]
    for cell in cells(chosen.what, chosen.seeds) if chosen.what != "table" else []:
        if cell not in done:
            figures = run(cell, chosen.out.parent, chosen.data_dir)
            add_cell(chosen.out, {"cell": cell, "figures": figures})
            print(cell, figures, flush=True)
    show(read_cells(chosen.out))


if __name__ == "__main__":
    main()
