"""The image studies of thesis 2: data, strategies, claims, report."""

import pytest
import torch

from regraft import data
from regraft.errors import InputError
from regraft.report.schema import check
from regraft.studies.claims import Number, Order
from regraft.studies.folder import Folder
from regraft.studies.papers import gates_images as images
from regraft.studies.run import run as run_study
from regraft.studies.study import Rows, Study, Work
from regraft.studies.tables import table

LENET, RESNET = images.STUDIES


def done(study: Study, factory: pytest.TempPathFactory) -> Rows:
    folder = Folder(factory.mktemp(study.name) / "results", create=True)
    run_study(study, "smoke", folder, executor="inline")
    return table(study, "smoke", folder)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    return done(LENET, tmp_path_factory)


def test_strategies_of_lenet(lenet: Rows) -> None:
    found = images.by_strategy(lenet)
    assert lenet.missing == 0
    assert len(found["student"]) == 2
    assert len(found["student of students"]) == 1
    for seed in range(2):
        three = [lenet.where(seed=seed, part=p).rows[0]["accuracy"] for p in images.TEACHERS[:3]]
        assert found["best of three"][seed] == max(three)
        assert found["teachers"][seed] == pytest.approx(sum(three[:2]) / 2)


def test_the_report_shows_strategies_gates_and_losses(lenet: Rows) -> None:
    made = check(LENET.report(lenet))
    assert [f["kind"] for f in made["figures"]] == ["boxes", "lines"]
    assert len(made["tables"][1]["rows"]) == 4  # two students, and two more of the hierarchy
    names = {s["name"] for s in made["figures"][1]["series"]}  # type: ignore[typeddict-item]
    assert names == {"one model", "one of three", "student, with gates", "student, fine-tuning"}


def test_resnet_runs_and_says_what_it_cannot_measure(tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = done(RESNET, tmp_path_factory)
    check(RESNET.report(rows))
    empty = {
        c.text.split(":")[0]
        for c in RESNET.claims
        if not (c.measure(rows) if isinstance(c, Number) else c.better(rows))
    }
    assert empty == {"ResNet-18 on Imagewoof", "ResNet-18 on ImageNet"}


def test_orderings_are_claimed_for_both_other_strategies() -> None:
    orders = [c.text for c in LENET.claims if isinstance(c, Order)]
    assert len(orders) == 2
    assert any("best of three" in o for o in orders)


def test_an_image_made_larger_and_smaller_again_is_the_same() -> None:
    digits = data.load("digits", per_class=2, test_per_class=2)
    larger = images._scaled(digits, 4.0)
    assert larger.input_shape == (1, 32, 32)
    torch.testing.assert_close(images._scaled(larger, 0.25).train.x, digits.train.x)


def test_a_scale_that_is_no_whole_number_is_refused() -> None:
    config = {"data": {"name": "digits", "per_class": 1, "scale": 1.5}}
    with pytest.raises(InputError, match=r"scale is 1\.5"):
        images.images(Work(config))


def test_paper_has_the_thesis_s_budget() -> None:
    settings = LENET.presets["paper"].settings
    epochs = {c.config["part"]: c.config["epochs"] for c in LENET.cells(settings)}
    assert epochs["one model"] == 6000
    assert epochs["teacher 1"] == 2000
    assert epochs["student"] == 1000
