"""The study of one cell of thesis 1's phase 2."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from regraft.errors import FileError
from regraft.report.schema import check
from regraft.studies import cell


@pytest.fixture(scope="module")
def two(digits):
    recipe = replace(cell.PHASE_2, model="mlp:in-16-classes", epochs=6, evolve_every="2epochs")
    said: list[str] = []
    cells = [cell.run(digits, s, networks=2, recipe=recipe, say=said.append) for s in (0.5, 0.8)]
    return recipe, cells, said


def test_all_pairs_with_itself_are_merged_by_all_rules(two) -> None:
    _, cells, said = two
    for c in cells:
        assert len(c.merged) == 3 * 25 * 2
        assert len(c.of(resparsified=True)) == 75
        assert len(c.of(resparsified=True, with_itself=False)) == 25
        assert {m.parents for m in c.of(resparsified=False, with_itself=True)} == {
            ("seed 0", "seed 0"),
            ("seed 1", "seed 1"),
        }
    assert len(said) == 2 * (2 + 3)


def test_sparsity_is_the_same_in_each_layer(two) -> None:
    _, cells, _ = two
    for c in cells:
        for n in c.networks:
            assert [w.density for w in n.topology.values()] == pytest.approx([1 - c.sparsity] * 2, abs=1e-3)


def test_the_recipe_is_the_thesis(two) -> None:
    recipe = cell.PHASE_2
    assert (recipe.epochs, recipe.lr, recipe.batch_size, recipe.evolve_every) == (1500, 1.0, None, "50epochs")
    assert (recipe.stop_accuracy, recipe.stop_extra, recipe.momentum) == (0.85, 200, 0.0)


def test_figures_are_json_and_the_report_has_all_sparsities(two, digits) -> None:
    recipe, cells, _ = two
    figures = json.loads(json.dumps([c.figures() for c in cells], allow_nan=False))
    kinds = figures[0]["merged"]
    assert kinds["resparsified"]["networks"] == 75
    assert kinds["union, two different parents"]["networks"] == 25
    assert figures[0]["nnstd_between_parents"] == pytest.approx(
        cells[0].networks[0].topology.nnstd(cells[0].networks[1].topology)
    )
    results = check(cell.results(cells, recipe, digits))
    assert [g["name"] for g in results["grids"]] == [
        "sparsity 0.5, resparsified",
        "sparsity 0.8, resparsified",
    ]
    assert {p["group"] for p in results["points"]} >= {"magnitude, 0.8", "addition, 0.5"}


def test_merging_a_network_with_itself_gives_it_back(two) -> None:
    """Except where values are added: then all weights are twice as large."""
    _, cells, _ = two
    parent = cells[0].networks[0]
    for m in cells[0].of(resparsified=True, with_itself=True):
        alone = m.parents == (parent.name,) * 2
        if alone and m.biases == "average" and m.weights in ("magnitude", "average", "random"):
            assert m.accuracy == parent.accuracy


def test_missing_files_are_named(tmp_path) -> None:
    with pytest.raises(FileError, match=str(tmp_path)):
        cell.load(tmp_path)


def test_the_data_are_five_classes(data_dir) -> None:
    data = cell.load(data_dir)
    assert data.train.counts() == [1000] * 5
    assert data.test.counts() == [100] * 5
    assert data.class_names[3] == "Dress"
