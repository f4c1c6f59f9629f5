"""The studies of thesis 1: what their steps and figures promise, and that they run from end to end."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from regraft import checkpoint, measure
from regraft.merging import merge
from regraft.report.schema import check
from regraft.studies.folder import Folder
from regraft.studies.papers import merging_aligned, merging_measures, merging_normalised, merging_phase2
from regraft.studies.papers import merging_phase1 as phase1
from regraft.studies.papers import merging_steps as steps
from regraft.studies.run import run as run_study
from regraft.studies.study import Cell, Rows, Study, Work, in_order
from regraft.studies.tables import table
from regraft.studies.verdicts import verdicts
from regraft.topology import Topology
from regraft.train import seeds

NAMES = ("phase1", "phase2", "normalised", "aligned")


def study(name: str) -> Study:
    return importlib.import_module(f"regraft.studies.papers.merging_{name}").STUDIES[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Folder:
    return Folder(tmp_path_factory.mktemp("studies"), create=True)


@pytest.fixture(scope="module")
def tables(folder) -> dict[str, Rows]:
    """All four studies at preset smoke, in one folder."""
    for name in NAMES:
        run_study(study(name), "smoke", folder, executor="inline")
    return {name: table(study(name), "smoke", folder) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_smoke_ends_in_a_report_and_verdicts(name, tables) -> None:
    rows = tables[name]
    assert rows.missing == 0
    results = check(study(name).report(rows))
    json.dumps(results, allow_nan=False)
    assert results["summary"]
    assert results["figures"]
    assert len(verdicts(study(name), rows)) == len(study(name).claims)
    empty = Rows([], [], "smoke", 5)
    assert "summary" in check(study(name).report(empty))
    assert {v.verdict for v in verdicts(study(name), empty)} == {"out of scale"}


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_the_thesis_and_smaller(name) -> None:
    found = {p: len(in_order(study(name).cells(study(name).presets[p].settings))) for p in ("smoke", "small")}
    assert found["smoke"] < found["small"]
    assert all(c.config["data"]["name"] == "digits" for c in _parents(name, "smoke"))


def _parents(name: str, preset: str) -> list[Cell]:
    cells = in_order(study(name).cells(study(name).presets[preset].settings))
    return [c for c in cells if c.step is steps.parent]


def test_phase_2_is_of_the_thesis_scale() -> None:
    cells = in_order(study("phase2").cells(merging_phase2.PAPER))
    pairs = [c for c in cells if c.step is steps.merged]
    assert len(_parents("phase2", "paper")) == 240
    assert len(pairs) == 12 * 210
    assert len(pairs) * 25 == 63_000
    recipe = steps.recipe_of(_parents("phase2", "paper")[-1].config)
    assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.evolve_every) == (1500, 1.0, None, "50epochs")
    assert (recipe.stop_accuracy, recipe.stop_extra, recipe.momentum) == (0.85, 200, 0.0)
    assert round(1 - recipe.density, 6) == 0.99


def test_phase_1_is_of_the_thesis_scale() -> None:
    found = {
        (c.config["epsilon"], c.config["trained_on"], c.config["topology"]): steps.recipe_of(c.config).epochs
        for c in _parents("phase1", "paper")
    }
    assert found == {
        (e, s, t): n for e, n in ((0.1, 1500), (0.5, 150)) for s in "123" for t in ("SET", "static")
    }


def test_decays_of_phase_1_keep_a_constant_factor() -> None:
    from regraft.schedules import Progress
    from regraft.train.evolving import rate_of
    from regraft.train.optimizers import schedule_by_name

    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=30.0)
    schedule, rates = schedule_by_name(phase1.RECIPE.lr_schedule, sgd, 100), []
    for _ in range(100):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    assert rates[0] == 30.0
    assert sgd.param_groups[0]["lr"] == pytest.approx(1.0)
    assert rates[50] ** 2 == pytest.approx(rates[0] * 1.0, rel=1e-4)
    evolution = rate_of(phase1.RECIPE)
    assert evolution is not None
    assert [evolution(Progress(i, 2)) for i in range(3)] == pytest.approx([0.5, 0.05**0.5, 0.1], rel=1e-4)


def test_studies_share_the_networks_of_phase_2() -> None:
    own = {c.key for c in _parents("phase2", "small")}
    for name in ("normalised", "aligned"):
        shared = {c.key for c in _parents(name, "small")} & own
        assert len(shared) >= 12


def test_a_parent_is_trained_as_its_row_says(tables, folder) -> None:
    row = tables["phase2"].where(kind="parent", sparsity=0.5, seed=1).rows[0]
    result = folder.read(row["cell"])
    assert result is not None
    model = checkpoint.load(result.folder / "model.safetensors")
    data = steps.data_of(Work(result.config), result.config)
    assert measure.evaluate(model, data.test)["accuracy"] == row["accuracy"]
    assert result.epochs[-1]["test_accuracy"] == row["accuracy"]
    assert [w.density for w in Topology.of(model).values()] == pytest.approx([0.5] * 3, abs=0.01)
    assert row["epochs"] == len(result.epochs) == 12


def test_pairs_are_merged_as_merge_does(tables, folder) -> None:
    wanted = {"kind": "merged", "sparsity": 0.9, "a": 0, "b": 1, "weights": "random", "biases": "addition"}
    rows = tables["phase2"].where(**wanted).by("then")
    parents = [
        folder.read(tables["phase2"].where(kind="parent", sparsity=0.9, seed=s).rows[0]["cell"])
        for s in (0, 1)
    ]
    models = [steps.network_of(p) for p in parents if p is not None]
    data = steps.data_of(Work({}), {"data": merging_phase2.SMALL_DATA})
    for then, density in (("prune", "keep"), ("union", None)):
        made = merge(models, "random", "addition", density, generator=seeds.stream(0, "merge"))  # type: ignore[arg-type]
        row = rows[(then,)].rows[0]
        assert measure.evaluate(made, data.test)["accuracy"] == row["accuracy"]
        distances = [Topology.of(made).nnstd(Topology.of(m)) for m in models]
        assert (row["nnstd_a"], row["nnstd_b"]) == pytest.approx(tuple(distances))
    between = tables["phase2"].where(kind="parents", sparsity=0.9, a=0, b=1).rows[0]
    a, b = (Topology.of(m) for m in models)
    assert (between["nnstd"], between["expected_nnstd"]) == pytest.approx((a.nnstd(b), a.expected_nnstd(b)))


def test_full_networks_do_not_evolve_and_sparse_ones_do(tables) -> None:
    found = {r.config["sparsity"]: r for r in tables["phase2"].results if r.step.endswith("parent")}
    assert sum(e.get("dropped", 0) for e in found[0.0].epochs) == 0
    changed = [e for e in found[0.9].epochs if e.get("dropped")]
    assert [e["epoch"] for e in changed] == [4, 8]
    assert changed[0]["rate"] == 0.5


def test_a_connection_drawn_again_at_once_keeps_its_value() -> None:
    """With almost no free position, the dropped connections come back, and with them their values."""
    from regraft import evolve, models, sparsify

    model = sparsify(models.build("mlp:10-10"), density=0.9, generator=torch.Generator().manual_seed(0))
    weight = next(m for m in model.modules() if hasattr(m, "nnz"))
    before = weight.dense().detach().clone()  # type: ignore[operator]
    g = torch.Generator().manual_seed(1)
    done = (
        evolve.method("set-magnitude", rate=0.5, grow=steps.KeptRandom(), generator=g).attach(model).evolve()
    )
    after = weight.dense().detach()  # type: ignore[operator]
    regrown = sum(done.regrown.values())
    assert done.total == 45
    assert regrown > 20
    changed = int((after != before).sum())
    assert changed == done.total - regrown  # only those that went for good are another value now


def test_random_topologies_and_deactivation_are_as_the_formulas_say(tables) -> None:
    rows = tables["phase2"]
    for r in rows.where(kind="random pair").rows:
        assert r["nnstd"] == pytest.approx(r["expected_nnstd"], abs=0.05)
    for r in rows.where(kind="deactivated").rows:
        assert r["share"] == pytest.approx(steps.deactivation(r["sparsity"], r["rate"]), abs=0.05)


def test_pairs_of_one_network_weigh_as_in_the_thesis() -> None:
    """With 20 networks the mean over networks is that over all 210 pairs."""
    g = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    for a in range(20):
        for b in range(a, 20):
            value = float(torch.rand((), generator=g)) + (a == b)
            rows.append({"kind": "merged", "then": "prune", "sparsity": 0.5, "weights": "average",
                         "biases": "random", "a": a, "b": b, "accuracy": value})  # fmt: skip
    found = merging_measures.samples(Rows(rows, [], "paper"), "average", "random")
    assert len(rows) == 210
    assert len(found) == 20
    assert fmean(found.values()) == pytest.approx(100 * fmean(r["accuracy"] for r in rows))


def test_groups_of_five_are_merged_in_both_orders(tables) -> None:
    rows = tables["normalised"].where(networks=5)
    found = rows.where(kind="merged", weights="average", biases="average").by("then")
    assert {then for (then,) in found} == set(merging_normalised.AFTERWARDS)
    density = {then: part.rows[0]["density"] for (then,), part in found.items()}
    assert density["prune"] == density["normalise prune"] == density["prune normalise"] < density["union"]
    assert density["union"] == density["normalise"]


def test_normalised_parents_are_kept_apart_from_those_of_phase_2(tables) -> None:
    rows = tables["normalised"]
    own, other = merging_normalised.normalised(rows), merging_normalised.as_in_phase2(rows)
    a, b = (merging_measures.parents(r, "normalised_accuracy") for r in (own, other))
    assert len(a) == 7
    assert len(b) == 4
    assert sum(bool(r.epochs) for r in own.results) == 7
    for r in own.where(kind="parent").rows:
        assert r["normalised_accuracy"] == pytest.approx(r["accuracy"], abs=0.011)
    assert any(r["normalised_accuracy"] != r["accuracy"] for r in other.rows)


def test_alignment_brings_topologies_together(tables) -> None:
    for family in merging_aligned.FAMILIES:
        rows = merging_aligned.of_family(tables["aligned"], family)
        naive = {r["sparsity"]: r["nnstd"] for r in rows.where(kind="parents").rows}
        turned = rows.where(kind="aligned", align="weights").rows
        assert turned
        assert all(r["nnstd"] < naive[r["sparsity"]] for r in turned)


def test_disjoint_classes_are_tested_apart(tables) -> None:
    rows = tables["phase1"]
    for r in rows.where(kind="tested", on="3").rows:
        key = {k: r[k] for k in ("epsilon", "trained_on", "topology", "seed")}
        parts = [rows.where(kind="tested", on=s, **key).rows[0]["accuracy"] for s in "12"]
        assert r["accuracy"] == pytest.approx(fmean(parts))
    data = steps.data_of(Work({}), {"data": phase1.SMOKE["data"], "labels": [5, 6]})
    assert set(data.train.y.tolist()) == {5, 6}
    assert data.classes == 10


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    from regraft.errors import FileError

    cell = _parents("phase2", "small")[0]
    with pytest.raises(FileError, match=str(tmp_path)):
        steps.parent.run(Work(cell.config, data_dir=tmp_path))
