"""The study of masked, sparse and dense networks."""

import pytest
import torch

from regraft.report.schema import check
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers import rewiring_speed as speed
from regraft.studies.papers import rewiring_timing as timing
from regraft.studies.study import Rows, Work

(STUDY,) = speed.STUDIES
TINY = {
    "sizes": [12, 20, 3], "epsilon": 3, "dropout": 0.0, "batch_size": 5, "rounds": 1, "changes": 1,
    "epochs": 500, "interest": 0.01, "repeat": 0,
}  # fmt: skip


def test_masked_and_sparse_networks_compute_the_same() -> None:
    found = timing.networks(TINY)
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found["masked"](x), found["sparse"](x))
    assert not torch.allclose(found["dense"](x), found["sparse"](x))


def test_masks_keep_their_zeros_through_training() -> None:
    model = timing.networks(TINY)["masked"]
    layer = next(m for m in model.modules() if isinstance(m, timing.Masked))
    model(torch.ones(2, 12)).sum().backward()
    assert layer.weight.grad is not None
    assert bool((layer.weight.grad[layer.mask == 0] == 0).all())


def test_sparse_memory_is_a_fraction_and_masks_add_to_the_dense_one() -> None:
    config = {**TINY, "sizes": [200, 300, 10], "epsilon": 1}
    made = timing.timing.run(Work(config)).rows
    memory = {r["way"]: r for r in made if r["kind"] == "memory"}
    dense = memory["dense"]
    assert dense["bytes"] == 4 * dense["parameters"]
    assert dense["training_bytes"] == 3 * dense["bytes"]  # gradients and momentum
    assert memory["sparse"]["training_bytes"] < 0.5 * dense["training_bytes"]
    assert memory["masked"]["bytes"] > dense["bytes"]


def test_changes_are_timed_at_the_rates_of_each_method(rows: Rows) -> None:
    rates = {m: rows.where(kind="change", method=m).mean("mean_rate") for m in common.SPARSE}
    assert rates["SET"] == pytest.approx(0.3)
    assert rates["LDV"] == pytest.approx(0.155)
    assert rates["EXD"] is not None
    assert rates["EXD"] < 0.07


def test_ratios_are_taken_round_by_round() -> None:
    lines = [
        {"kind": "time", "cell": "a", "way": way, "train_ms": ms}
        for way, ms in (("dense", 10.0), ("sparse", 1.0), ("dense", 40.0), ("sparse", 2.0))
    ]
    assert speed.way_share("train_ms", "sparse", "dense")(Rows(lines, [], "smoke")) == [7.5]


def test_an_epoch_is_its_steps_and_a_change() -> None:
    lines = [
        {"kind": "time", "cell": "a", "way": "sparse", "train_ms": 2.0},
        {"kind": "change", "cell": "a", "method": "SET", "change_ms": 30.0},
    ]
    assert speed.epoch_ms(Rows(lines, [], "smoke"), "SET", steps=10) == [50.0]


def test_the_report_is_whole(rows: Rows) -> None:
    assert rows.missing == 0
    made = check(STUDY.report(rows))
    kinds = ["bars", "bars", "bars", "lines", "boxes", "lines", "pictures"]
    assert [f["kind"] for f in made["figures"]] == kinds
    assert [row[0] for row in made["tables"][1]["rows"]] == list(common.METHODS)
    assert "times less memory" in made["summary"]


def test_accuracy_is_shown_against_density_up_to_the_dense_network(rows: Rows) -> None:
    (series,) = STUDY.report(rows)["figures"][5]["series"]  # type: ignore[typeddict-item]
    assert series["x"] == sorted(series["x"])
    assert len(series["x"]) == 3
    assert series["x"][-1] == 1.0
    # other densities of SET are no samples of SET
    assert len(common.of("accuracy", "SET")(rows)) == 2


def test_sizes_of_the_thesis_s_network() -> None:
    settings = STUDY.presets["paper"].settings
    timing = next(iter(STUDY.cells(settings)))
    small = next(iter(STUDY.cells(STUDY.presets["small"].settings)))
    assert timing.config == small.config  # the rates of 500 epochs, whatever is trained
    assert timing.config["sizes"] == [784, 4000, 1000, 4000, 10]
    assert timing.config["batch_size"] == 100
