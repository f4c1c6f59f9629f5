"""The study of thesis 3 on several data sets, and what its studies share."""

import pytest

from regraft.report.schema import check
from regraft.studies.claims import Number
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers import rewiring_datasets as datasets
from regraft.studies.study import Rows, Work

(STUDY,) = datasets.STUDIES


def test_every_method_trains_with_every_seed(rows: Rows) -> None:
    assert rows.missing == 0
    for method in common.METHODS:
        assert list(common.by_seed(rows, "accuracy", method)) == [0, 1]


def test_sparse_methods_have_equally_many_connections(rows: Rows) -> None:
    counts = {m: common.of("parameters", m)(rows) for m in common.METHODS}
    assert len({n for m in common.SPARSE for n in counts[m]}) == 1
    assert counts["dense"][0] == rows.where(method="SET").column("dense_parameters")[0] > counts["SET"][0]


def test_rates_fall_as_the_thesis_says(rows: Rows) -> None:
    rates = {
        r.config["method"]: [e["rate"] for e in r.epochs if "rate" in e]
        for r in rows.results
        if r.config["method"] in common.SPARSE
    }
    assert rates["SET"] == [0.3, 0.3]  # no change ends the last epoch
    assert rates["EXD"][1] < rates["EXD"][0]
    assert rates["LDV"][1] < rates["LDV"][0] <= 0.3


def test_a_share_is_of_the_seeds_that_both_have() -> None:
    lines = [
        {"kind": "training", "method": "dense", "seed": 0, "epoch_ms": None},
        {"kind": "training", "method": "dense", "seed": 1, "epoch_ms": 8.0},
        {"kind": "training", "method": "SET", "seed": 0, "epoch_ms": 1.0},
        {"kind": "training", "method": "SET", "seed": 1, "epoch_ms": 2.0},
    ]
    share = common.share("epoch_ms", "SET", "dense")
    assert share(Rows(lines, [], "smoke")) == [25.0]
    assert common.whole(share)(Rows(lines, [], "smoke")) == [100.0]


def test_networks_of_the_thesis_s_sets_have_its_parameters() -> None:
    for name, (features, classes) in datasets.SIZES.items():
        config = {"set": name, "sizes": [features, 1000, 1000, 1000, classes], "epsilon": 20}
        made = common.counting.run(Work(config))
        found = Rows([{**config, **r} for r in made.rows], [], "small")
        claims = [
            c
            for c in STUDY.claims
            if isinstance(c, Number) and c.text.startswith(f"{datasets.TITLES[name]}:") and c.comparable
        ]
        assert len(claims) == 3
        for claim in claims:
            (value,) = claim.measure(found)
            assert abs(value - claim.published) <= claim.tolerance, claim.text


def test_a_network_that_diverges_is_a_result() -> None:
    settings = {
        **datasets.SMOKE, "data": {"name": "digits", "per_class": 20, "test_per_class": 20}, "lr": 1e4,
        "batch_size": 10,
    }  # fmt: skip
    cell = common.trainings(settings, ["dense"])[0]
    (row, *_) = common.training.run(Work(cell.config)).rows
    assert row["diverged"]
    assert row["accuracy"] <= 100


def test_the_gentle_dense_network_has_a_tenth_of_the_rate() -> None:
    config = {**common.trainings({**datasets.SMOKE, "data": {}, "batch_size": 2}, [common.GENTLE])[0].config}
    assert common.recipe_of(config).lr == pytest.approx(0.001)
    assert common.recipe_of(config).dense


def test_the_report_has_curves_boxes_patterns_and_bars(rows: Rows) -> None:
    made = check(STUDY.report(rows))
    kinds = [f["kind"] for f in made["figures"]]
    assert kinds == ["lines", "boxes", "pictures", "bars", "bars", "bars"]
    pictures = made["figures"][2]
    assert pictures["kind"] == "pictures"
    assert [p["name"] for p in pictures["pictures"]] == list(common.SPARSE)
    assert len(pictures["pictures"][0]["values"]) == 64


def test_connections_of_the_pattern_are_those_of_the_first_layer(rows: Rows) -> None:
    (row,) = rows.where(kind="pattern", method="SET").rows
    counts = [int(n) for n in row["counts"].split()]
    assert sum(counts) == min(64 * 60, 20 * (64 + 60))


def test_interest_makes_exd_fall_as_far_as_in_500_epochs() -> None:
    for epochs in (16, 40):
        assert (1 - datasets._interest(epochs)) ** epochs == pytest.approx(0.99**500, rel=0.05)


def test_every_rate_of_every_preset_is_one() -> None:
    for preset in STUDY.presets.values():
        for cell in STUDY.cells(preset.settings):
            if cell.step is common.training:
                assert common.recipe_of(cell.config).epochs == cell.config["epochs"]


def test_sets_with_and_without_dropout_are_kept_apart(rows: Rows) -> None:
    lines = [{**r, "data.name": "orl", "dropout": 0.0} for r in rows.rows]
    lines += [{**r, "data.name": "orl", "dropout": 0.3} for r in rows.rows]
    table = STUDY.report(Rows(lines, rows.results, "small"))["tables"][0]
    assert {row[0] for row in table["rows"]} == {"ORL", "ORL, dropout 0.3"}
    claim = next(c for c in STUDY.claims if c.text == "ORL: EXD is slightly better than SET")
    assert len(claim.better(Rows(lines, [], "small"))) == 2  # type: ignore[union-attr]
