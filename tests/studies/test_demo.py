"""The demonstration's figures, words and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regraft import checkpoint, measure
from regraft.report import render
from regraft.studies import demo
from regraft.topology import Topology


@pytest.fixture(scope="module")
def made(recipe, digits, networks):
    done = []
    found = demo.merge_networks(recipe, digits, networks, lambda: done.append(1))
    assert len(done) == demo.merges(3)
    return found


def test_the_best_is_the_best_of_the_resparsified_ones(made) -> None:
    after = [m for m in made.together if m.resparsified]
    assert made.best in after
    assert made.best.accuracy == max(m.accuracy for m in after)


def test_the_figures_are_plain_and_complete(made) -> None:
    figures = json.loads(json.dumps(demo.figures(made), allow_nan=False))
    assert len(figures["merged"]) == demo.merges(3) == 4 * 50
    kinds = ["before resparsifying", "resparsified"]
    assert list(figures["accuracy"]) == [f"{who}, {kind}" for who in ("all", "pairs") for kind in kinds]
    assert max(max(row) for row in figures["accuracy"]["all, resparsified"]) == figures["best"]["accuracy"]
    accuracies = [p["accuracy"] for p in figures["parents"]]
    assert figures["parents_best_accuracy"] == max(accuracies)
    assert figures["parents_mean_accuracy"] == pytest.approx(sum(accuracies) / 3)


def test_two_networks_have_no_further_pairs(recipe, digits, networks) -> None:
    found = demo.merge_networks(recipe, digits, networks[:2])
    assert found.in_pairs == []
    assert set(demo.figures(found)["accuracy"]) == {"all, before resparsifying", "all, resparsified"}
    assert "Best merged pair" not in [fact["label"] for fact in demo.results(found)["facts"]]


def test_the_files_hold_the_networks(made, digits, tmp_path: Path) -> None:
    paths = demo.write(made, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "merged.safetensors", "seed-0.safetensors", "seed-1.safetensors", "seed-2.safetensors",
    ]  # fmt: skip
    for n in made.networks:
        assert measure.evaluate(checkpoint.load(paths[n.name]), digits.test)["accuracy"] == n.accuracy
    merged = checkpoint.load(paths["merged"])
    assert measure.evaluate(merged, digits.test)["accuracy"] == made.best.accuracy
    assert Topology.of(merged) == Topology.of(made.merged_model())


def test_the_report_says_what_came_out(made) -> None:
    page = render(demo.results(made))
    assert "Three sparse networks, merged into one" in page
    assert f"they reach {100 * made.best.accuracy:.1f} % by the best of 25 pairs of rules" in page
    assert "mean training image" in page


def test_data_without_images_has_no_pattern(recipe, networks, made, digits) -> None:
    from regraft.studies import show

    assert show.pattern([("a", networks[0].model)], digits.flatten()) is None
