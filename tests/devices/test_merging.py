"""Merging, aligning, repairing and choosing neurons of networks on a device."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.devices.features import (
    CPU,
    batches,
    convolutional,
    images,
    mlp,
    on,
    probe,
    same,
    seeded,
    trained,
)  # fmt: skip
from torch import Tensor, nn

from regraft import Merger, Topology, graph, load, merge, merging, resparsify, save
from regraft.data import Split
from regraft.merging import RULES, ActivationMatching, WeightMatching
from regraft.merging.grid import merge_grid
from regraft.merging.neurons import UNIT_SCORES, readout_sums, refit_readout


def pair(device: torch.device, density: float | None = 0.4) -> list[nn.Module]:
    return [mlp(device, seed, density) for seed in range(2)]


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("rule", RULES)
def test_rules(device: torch.device, rule: str, density: float | None) -> None:
    def run(where: torch.device) -> Any:
        return [
            merge(pair(where, density), rule, rule, keep, generator=seeded(), bias_density=0.5)
            for keep in ("keep", 0.3, None)
        ]

    assert on(same(run, device), device)


def largest(values: Tensor, present: Tensor) -> Tensor:
    return values.amax(0)


def test_networks_of_two_devices_merge_on_that_of_the_first(device: torch.device, tmp_path: Path) -> None:
    def run(where: torch.device) -> Any:
        a, b = mlp(where, 0), mlp(CPU, 1)
        save(b, tmp_path / "b.safetensors")
        made = [merge([a, b], largest), merge([a, tmp_path / "b.safetensors"], over="present")]
        aligned = merge([a, b, mlp(where, 2)], "average", align="weights", normalise=True, generator=seeded())
        there = merge([b, a], into=mlp(where, 5), out=tmp_path / "m.safetensors")
        assert on([*made, aligned, there], where)
        assert on(merge([b, a]), CPU)
        return [*made, aligned, there, load(tmp_path / "m.safetensors", into=mlp(where, 6))]

    same(run, device)


@pytest.mark.parametrize(("score", "scope"), [("snip", "global"), ("random", "layer"), ("synflow", "layer")])
def test_scores_cut_what_is_merged(device: torch.device, score: str, scope: Any) -> None:
    def run(where: torch.device) -> Any:
        look = probe(where)
        return merge(pair(where), density=0.2, score=score, scope=scope, probe=look, generator=seeded())

    same(run, device)


def test_a_merger_takes_networks_one_by_one_and_is_saved(device: torch.device, tmp_path: Path) -> None:
    def run(where: torch.device) -> Any:
        merger = Merger("average", "average", generator=seeded())
        merger.add(mlp(where, 0), weight=2)
        merger.save(tmp_path / "half.safetensors")
        merger = Merger.load(tmp_path / "half.safetensors")
        merger.add(mlp(CPU, 1)).add(mlp(where, 2))
        return merger.result(into=mlp(where, 4))

    same(run, device)


@pytest.mark.parametrize(("kind", "sparse"), [("mlp", None), ("conv", 0.5)])
@pytest.mark.parametrize("align", [WeightMatching(), ActivationMatching()])
def test_alignment(device: torch.device, align: Any, kind: str, sparse: float | None) -> None:
    def run(where: torch.device) -> Any:
        made = [mlp(where, s, sparse) if kind == "mlp" else convolutional(where, s, sparse) for s in range(2)]
        look = probe(where, None if kind == "mlp" else images(where))
        return merge(made, "average", align=align, probe=look, generator=seeded())

    assert on(same(run, device), device)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
def test_repair_and_norms(device: torch.device, kind: str) -> None:
    def run(where: torch.device) -> Any:
        made = [mlp(where, s) if kind == "mlp" else convolutional(where, s) for s in range(2)]
        data = [x for x, _ in (batches(where) if kind == "mlp" else images(where))]
        merged = merge(made, "average", density=None)
        found = [merging.repair(copy.deepcopy(merged), made, data)]
        found.append(merging.repair(copy.deepcopy(merged), made, [x.cpu() for x in data]))
        if kind == "conv":
            found.append(merging.reestimate_norms(copy.deepcopy(merged), data))
        return found

    assert on(same(run, device), device)


def test_scale_and_resparsify(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        model = merging.normalise_scale(mlp(where))
        return model, resparsify(copy.deepcopy(model), density=0.2, generator=seeded())

    assert on(same(run, device), device)


@pytest.mark.parametrize(
    ("score", "options"),
    [
        *((score, {}) for score in UNIT_SCORES), ("activity", {"share": "overall"}),
        ("activity", {"density": None}), ("activity", {"readout": 10}),
    ],
)  # fmt: skip
def test_neurons_are_selected(device: torch.device, score: str, options: dict[str, Any]) -> None:
    def run(where: torch.device) -> Any:
        networks = [trained(where, seed) for seed in range(2)]
        return merging.select_neurons(networks, probe(where), score=score, generator=seeded(), **options)

    assert on(same(run, device), device)


def test_probes_and_units_of_the_cpu(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        networks = [trained(where, seed) for seed in range(2)]
        return merging.select_neurons(networks, [probe(CPU)] * 2, generator=seeded())

    same(run, device)


@pytest.mark.parametrize("choose", [False, True])
def test_the_last_layer_is_fitted_anew(device: torch.device, choose: bool) -> None:
    def run(where: torch.device) -> Any:
        parents = [trained(where, seed) for seed in range(2)]
        merged = merge(parents, "average")
        sums = [readout_sums(merged, batches(where), merging.Ensemble(parents)) for _ in range(2)]
        sums.append(readout_sums(merged, batches(where)))
        return refit_readout(merged, sums, choose=choose, generator=seeded())

    assert on(same(run, device), device)


def test_all_rules_at_once_are_evaluated_on_the_cpu(device: torch.device) -> None:
    def run(where: torch.device) -> Any:
        x, y = (torch.cat(t) for t in zip(*batches(where), strict=True))
        found = merge_grid(pair(where), Split(x, y), generator=seeded())
        return [(m.accuracy, m.loss, m.density) for m in found]

    same(run, device)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("sparse", [None, 0.5])
def test_groups_of_units(device: torch.device, kind: str, sparse: float | None) -> None:
    """Traced, checked, put side by side, and taken; units come from the CPU or from there."""

    def run(where: torch.device) -> Any:
        made = [mlp(where, s, sparse) if kind == "mlp" else convolutional(where, s, sparse) for s in range(2)]
        shape = (8,) if kind == "mlp" else (1, 6, 6)
        found = graph.trace(made[0], shape)
        graph.check(made[0], found)
        big, wide = graph.concatenate(made, found)
        units = {g.name: torch.arange(g.units - 1, -1, -2) for g in found.free}
        taken = graph.take(made[0], found, units)
        again = graph.take(made[0], found, {n: u.to(where) for n, u in units.items()})
        x = torch.randn(3, *shape, generator=seeded()).to(where)
        seen = graph.activations(made[1], found, x)
        assert on([big, taken, again, seen], where)
        return [
            big,
            taken,
            again,
            seen,
            big(x),
            [g.units for g in wide],
            Topology.of(big).nnz if sparse else 0,
        ]

    same(run, device)
