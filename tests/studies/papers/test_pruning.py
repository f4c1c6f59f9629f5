"""The pruning studies at preset smoke: equalities that must hold, claims, reports."""

import importlib
import math
from collections.abc import Callable

import pytest

from regraft.report.schema import check
from regraft.studies.claims import Number
from regraft.studies.folder import Folder
from regraft.studies.papers.pruning import published, told
from regraft.studies.papers.pruning.methods import Method
from regraft.studies.run import run as run_study
from regraft.studies.study import Rows, Study, in_order
from regraft.studies.tables import table
from regraft.studies.verdicts import verdicts

NAMES = ("baselines", "schedules", "learned", "stacked", "initial", "combined")
Done = Callable[[str], tuple[Study, Rows]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A study and its rows at preset smoke; all studies share one folder, and so their equal cells."""
    folder = Folder(tmp_path_factory.mktemp("pruning") / "results", create=True)

    def run(name: str) -> tuple[Study, Rows]:
        study: Study = importlib.import_module(f"regraft.studies.papers.pruning.{name}").STUDY
        run_study(study, "smoke", folder, executor="inline")
        return study, table(study, "smoke", folder)

    return run


@pytest.mark.parametrize("name", NAMES)
def test_smoke_reaches_the_report(done: Done, name: str) -> None:
    study, rows = done(name)
    results = check(study.report(rows))
    assert rows.missing == 0
    assert len(results["summary"]) > 40
    assert len(results["figures"]) >= 5
    assert all(t["rows"] for t in results["tables"])
    assert {v.verdict for v in verdicts(study, rows)} <= {"reproduced", "not reproduced", "out of scale"}


@pytest.mark.parametrize("name", NAMES)
def test_some_claims_are_measured_by_smoke_and_all_by_paper(done: Done, name: str) -> None:
    study, rows = done(name)
    measured = [c.measure(rows) if isinstance(c, Number) else c.better(rows) for c in study.claims]
    # the schedules are compared at half a percent alone, of which no network of this size has anything left
    assert any(len(samples) for samples in measured) == (name != "schedules")
    grid = {density for density, _ in study.presets["paper"].settings["grid"]}
    assert grid >= set(published.DENSITIES)


@pytest.mark.parametrize("name", NAMES)
def test_no_cells_no_claims_and_a_report_that_says_so(name: str) -> None:
    study: Study = importlib.import_module(f"regraft.studies.papers.pruning.{name}").STUDY
    empty = Rows([], [], "smoke", 1)
    assert check(study.report(empty))["summary"] == "No network has been pruned yet."
    assert {v.verdict for v in verdicts(study, empty)} == {"out of scale"}


def of_seeds(rows: Rows, method: Method) -> dict[object, float]:
    found = told.accuracy(method, 0.1)(rows)
    assert len(found) == 2
    return found


def test_magnitude_behind_a_score_that_is_never_negative_changes_nothing(done: Done) -> None:
    _, rows = done("stacked")
    for first in ("snip", "synflow"):
        alone = of_seeds(rows, Method(first))
        assert of_seeds(rows, Method(f"stacked({first}, magnitude)")) == alone


def test_the_best_composite_of_the_thesis_is_synflow(done: Done) -> None:
    _, rows = done("combined")
    alone = of_seeds(rows, Method("synflow", init="scores:snip"))
    for stack in ("stacked(magnitude, synflow)", "stacked(synflow, magnitude)"):
        assert of_seeds(rows, Method(stack, init="scores:snip")) == alone
        name = f"{stack} UMS"
        same = [r for r in rows.where(kind="pair").rows if {r["a"], r["b"]} == {name, "synflow UMS"}]
        assert [r["jaccard"] for r in same] == [1.0]


def test_many_shots_change_nothing_for_magnitudes(done: Done) -> None:
    _, rows = done("schedules")
    for before, after in (("USS", "UMS"), ("ISS", "IMS")):
        same = rows.where(kind="pair", a=f"magnitude {before}", b=f"magnitude {after}")
        assert same.column("jaccard") == [1.0]


def test_tickets_have_the_density_and_start_from_the_same_weights(done: Done) -> None:
    _, rows = done("baselines")
    tickets = rows.where(kind="ticket", density=0.1)
    assert len(set(tickets.column("connections"))) == 1
    assert all(r["effective"] <= r["connections"] for r in tickets.rows)
    (smallest,) = {r["relative_magnitude"] > 1 for r in rows.where(kind="weights").rows}
    assert smallest


def test_overlap_of_random_size_is_beside_chance(done: Done) -> None:
    _, rows = done("baselines")
    pairs = rows.where(kind="pair")
    assert len(pairs) == 2 * math.comb(4, 2)
    assert all(0 <= r["jaccard"] <= 1 and 0 < r["expected"] < 0.3 for r in pairs.rows)


def test_regressors_fit_as_their_kind_does(done: Done) -> None:
    _, rows = done("learned")
    fits = {r["regressor"]: r for r in rows.where(kind="fit").rows}
    assert set(fits) == set(published.REGRESSORS)
    assert fits["tree"]["r2_train"] > fits["forest"]["r2_train"] > fits["linear"]["r2_train"]
    assert fits["tree"]["r2_test"] < fits["tree"]["r2_train"]
    assert fits["mlp"]["mse_train"] > fits["linear"]["mse_train"]
    errors = rows.where(kind="curve").column("mse_train")
    assert errors == sorted(errors, reverse=True)
    matrix = {(r["a"], r["b"]): r["value"] for r in rows.where(kind="correlation").rows}
    assert matrix["snip", "snip"] == pytest.approx(1)
    assert matrix["snip", "target"] == pytest.approx(matrix["target", "snip"])


def test_whole_networks_start_from_each_kind_of_values(done: Done) -> None:
    _, rows = done("initial")
    whole = rows.where(kind="dense")
    assert set(whole.column("init")) == set(published.UNPRUNED)
    by_init = {init: found.column("loss") for (init,), found in whole.by("init").items()}
    assert len({tuple(losses) for losses in by_init.values()}) == 5


def test_studies_share_equal_cells() -> None:
    keys = {}
    for name in NAMES:
        study: Study = importlib.import_module(f"regraft.studies.papers.pruning.{name}").STUDY
        keys[name] = {c.key for c in in_order(study.cells(study.presets["small"].settings))}
    assert keys["baselines"] & keys["schedules"]
    assert keys["baselines"] & keys["stacked"] & keys["initial"]
    assert keys["combined"] & keys["initial"]


def test_published_figures_agree_where_they_repeat_a_method() -> None:
    stacks = {line.method: line.accuracy for line in published.STACKS}
    others = {line.method: line.accuracy for line in (*published.INITIAL, *published.COMBINED)}
    shared = set(stacks) & set(others)
    assert len(shared) == 11
    assert all(stacks[method] == others[method] for method in shared)


@pytest.mark.parametrize(("density", "points"), [(0.004, 3.0), (0.007, 2.5), (0.01, 2.0), (0.5, 1.0)])
def test_tolerances_shrink_with_the_spread(density: float, points: float) -> None:
    assert told.tolerance(density) == points
