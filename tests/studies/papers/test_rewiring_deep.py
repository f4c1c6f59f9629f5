"""The study of the deep network and its first epochs."""

import pytest

from regraft.report.schema import check
from regraft.studies.papers import rewiring_common as common
from regraft.studies.papers import rewiring_deep as deep
from regraft.studies.study import Result, Rows, Work

(STUDY,) = deep.STUDIES


def test_first_epochs_and_whole_trainings_are_kept_apart(rows: Rows) -> None:
    assert rows.missing == 0
    first, whole = (deep.part(rows, which).where(kind="training") for which in (deep.FIRST, deep.WHOLE))
    assert {r["method"] for r in first.rows} == set(deep.ALL)
    assert {r["method"] for r in whole.rows} == set(common.SPARSE)
    assert len(first) + len(whole) == len(rows.where(kind="training"))


def test_first_epochs_have_the_rates_of_500(rows: Rows) -> None:
    for result in rows.results:
        method = result.config.get("method")
        if result.config.get("stop") and method in common.SPARSE:
            rates = [e["rate"] for e in result.epochs]
            expected = [deep.rate_at(method, epoch) for epoch in range(1, 5)]
            assert rates == pytest.approx(expected, abs=0.004), method


def test_a_topology_without_change_stays(rows: Rows) -> None:
    fixed = next(r for r in rows.results if r.config.get("method") == common.FIXED)
    assert {e["rate"] for e in fixed.epochs} == {0.0}


def trained(accuracies: list[float], seed: int) -> tuple[dict[str, object], Result]:
    epochs = [{"epoch": i + 1, "test_accuracy": a} for i, a in enumerate(accuracies)]
    row = {"kind": "training", "method": "SET", "seed": seed, "chance": 10.0, "cell": str(seed)}
    return row, Result(str(seed), "s", {}, [row], epochs, None)  # type: ignore[arg-type]


def test_stuck_epochs_are_counted_up_to_twice_chance() -> None:
    made = [trained([10, 19, 20, 50], 0), trained([10, 11, 10, 10], 1), trained([30, 10, 10, 10], 2)]
    rows = Rows([row for row, _ in made], [result for _, result in made], "smoke")
    assert deep.stuck("SET")(rows) == [2.0, 4.0, 0.0]


def test_parameters_of_the_thesis_s_network() -> None:
    config = {"sizes": deep.BASE["sizes"], "epsilon": 20}
    (row,) = common.counting.run(Work(config)).rows
    assert row["dense_parameters"] == 51_192_010
    assert row["compression"] == pytest.approx(78.7, rel=0.05)


def test_the_report_has_the_first_epochs_and_the_whole(rows: Rows) -> None:
    made = check(STUDY.report(rows))
    kinds = [f["kind"] for f in made["figures"]]
    assert kinds == ["lines", "boxes", "lines", "lines", "boxes", "bars", "pictures"]
    assert [row[0] for row in made["tables"][0]["rows"]] == list(deep.ALL)
    assert made["summary"].startswith("Mean epochs stuck at chance")


def test_paper_has_no_first_epochs_of_its_own() -> None:
    made = list(STUDY.cells(STUDY.presets["paper"].settings))
    assert len(made) == 1 + 4 * 3
    assert {c.config.get("epochs") for c in made[1:]} == {500}
