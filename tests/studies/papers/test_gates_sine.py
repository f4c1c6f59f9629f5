"""The sine study of thesis 2: populations, strategies, claims, report."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft.report.schema import check
from regraft.studies.claims import Number
from regraft.studies.papers import gates_common as common
from regraft.studies.papers import gates_sine as sine
from regraft.studies.study import Rows, Work

(STUDY,) = sine.STUDIES
CONFIG = {
    "points": 100, "batch_size": 25, "lr": 0.01, "first": 0, "members": 2, "part": "teacher 1", "epochs": 4,
    "drop": 3,
}  # fmt: skip


def test_each_strategy_has_every_model(rows: Rows) -> None:
    found = sine.samples("test_loss")(rows)
    assert rows.missing == 0
    assert {name: len(values) for name, values in found.items()} == {
        "student": 2, "best of three": 2, "one model": 2, "teachers": 4, "student of students": 1,
    }  # fmt: skip


def test_the_best_of_three_is_chosen_by_test_loss(rows: Rows) -> None:
    best = sine.samples("test_loss")(rows)["best of three"]
    for member, value in enumerate(best):
        three = [r["test_loss"] for p in sine.TEACHERS[:3] for r in rows.where(part=p, member=member).rows]
        assert value == min(three)


def test_a_network_does_not_depend_on_the_size_of_its_population() -> None:
    together = sine.networks.run(Work(CONFIG)).rows
    alone = sine.networks.run(Work(CONFIG | {"first": 1, "members": 1})).rows
    assert together[1]["member"] == alone[0]["member"] == 1
    assert together[1]["test_loss"] == pytest.approx(alone[0]["test_loss"], rel=1e-5)
    assert together[0]["test_loss"] != together[1]["test_loss"]


def test_the_same_cell_gives_the_same_rows() -> None:
    assert sine.networks.run(Work(CONFIG)).rows == sine.networks.run(Work(CONFIG)).rows


class Exact(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sine.target(x) * (x > 0.3)


def test_peaks_are_counted_from_left_to_right() -> None:
    assert sine._peaks(Exact()) == [False] * 3 + [True] * 7


def test_every_number_of_the_table_is_claimed_and_measured(rows: Rows) -> None:
    numbers = [c for c in STUDY.claims if isinstance(c, Number)]
    assert len(numbers) == 16
    assert all(len(c.measure(rows)) == 1 for c in numbers)
    means = {c.text: c for c in numbers}
    assert means["sine problem: mean of student"].published == 0.077


def test_a_tolerance_shrinks_with_the_number_of_models() -> None:
    few, many = (common.Task("a", n, common.SINE.published, digits=9) for n in (10, 40))
    for name in ("mean", "median", "std"):
        ratio = common.tolerance(name, few, "student") / common.tolerance(name, many, "student")
        assert ratio == pytest.approx(2.0, rel=1e-6)


def test_the_report_is_whole(rows: Rows) -> None:
    made = check(STUDY.report(rows))
    assert [f["kind"] for f in made["figures"]] == ["boxes", "lines", "lines", "lines"]
    assert "median test loss" in made["summary"]
    line = made["tables"][0]["rows"][0]
    assert line[0] == "student"
    assert line[-2:] == [0.078, 0.077]


def test_the_report_of_nothing_says_so() -> None:
    assert "No strategy" in STUDY.report(Rows([], [], "smoke", 3))["summary"]


def test_small_takes_the_thesis_s_epochs() -> None:
    made = list(STUDY.cells(STUDY.presets["small"].settings))
    of = {c.config["part"]: c.config for c in made if "part" in c.config}
    assert (of["one model"]["epochs"], of["one model"]["drop"]) == (900, 800)
    assert (of["teacher 1"]["epochs"], of["teacher 1"]["drop"]) == (300, 250)
    merging = of["student"]
    assert (merging["merge_epochs"], merging["epochs"], merging["drop"]) == (150, 150, 100)


def test_a_cell_keeps_its_networks(tmp_path: Path) -> None:
    made = sine.networks.run(Work(CONFIG))
    assert list(made.models) == ["member-0", "member-1"]
    assert all(math.isfinite(e["train_loss"]) for e in made.epochs)
