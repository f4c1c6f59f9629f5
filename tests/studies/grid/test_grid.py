"""Grids in YAML: what they train, what they show, and how mistakes in them are told."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from regraft import data
from regraft.cli.app import cli
from regraft.cli.training_options import model_options, sparsity_options, training_options
from regraft.errors import FileError, InputError, RegraftError
from regraft.report.schema import check
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.grid.options import TYPES, convert, known
from regraft.studies.own import load
from regraft.studies.run import run as run_study
from regraft.studies.study import in_order
from regraft.studies.tables import table
from regraft.train import Recipe, train_recipe

GRID = """
name: densities
title: Accuracy by density
data: {name: digits, per_class: 20, test_per_class: 10}
base:
  model: mlp:in-16-classes
  epochs: 2
  batch-size: 20
  lr: 1e-1
grid:
  density: [0.05, 0.5]
  evolve: [set, none]
seeds: 2
"""


@pytest.fixture
def write(tmp_path):
    def write(text=GRID, name="grid.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("grid")
    (place / "grid.yaml").write_text(GRID)
    study, folder = named(str(place / "grid.yaml")), Folder(place / "results", create=True)
    run_study(study, "small", folder, executor="inline")
    return study, folder


def test_a_cell_is_a_training_as_regraft_train_does_it(done):
    study, folder = done
    rows = table(study, "small", folder)
    assert len(rows) == 8
    digits = data.load("digits", per_class=20, test_per_class=10)
    recipe = Recipe("mlp:in-16-classes", density=0.5, evolve="none", epochs=2, batch_size=20, lr=0.1, seed=1)
    history = train_recipe(recipe, digits).history
    row = rows.where(density=0.5, evolve="none", seed=1)
    assert row.column("test_accuracy") == [history.final["test_accuracy"]]
    assert row.column("trained_epochs") == [2]
    assert row.column("final_density")[0] == pytest.approx(0.5, abs=0.01)
    result = next(r for r in rows.results if r.key == row.rows[0]["cell"])
    assert [e["test_accuracy"] for e in result.epochs] == history.column("test_accuracy")
    assert not any("seconds" in name for e in result.epochs for name in e)


def test_it_agrees_with_the_command_train(done, tmp_path):
    study, folder = done
    args = (
        "train --data digits --per-class 20 --test-per-class 10 --model mlp:in-16-classes --epochs 2 "
        f"--batch-size 20 --lr 0.1 --density 0.05 --evolve set --seed 1 --out {tmp_path / 'n.st'} --json -"
    )
    said = CliRunner().invoke(cli, args.split(), catch_exceptions=False)
    assert said.exit_code == 0
    figures = json.loads(said.stdout)
    rows = table(study, "small", folder).where(density=0.05, evolve="set", seed=1)
    assert rows.column("test_accuracy") == [figures["final"]["test_accuracy"]]
    cell = next(c for c in study.cells(study.presets["small"].settings) if c.key == rows.rows[0]["cell"])
    assert {k: cell.config[k] for k in figures["options"]} == figures["options"]


def test_every_option_of_the_command_train_has_its_place():
    def command():
        pass

    for group in (model_options, sparsity_options, training_options):
        group(command)
    names = {name for p in command.__click_params__ for name in p.opts}
    assert len(names) > 30
    missing = [n for n in names if known(n.removeprefix("--")) is None]
    assert missing == ["--seed"]
    assert {p.name for p in command.__click_params__} - {"seed"} <= set(TYPES)


def test_the_report_shows_each_setting_with_marks(done):
    study, folder = done
    found = check(study.report(table(study, "small", folder)))
    made = found["tables"][0]
    assert made["columns"][:3] == ["density", "evolve", "Test accuracy (%)"]
    assert [row[:2] for row in made["rows"]] == [
        ["0.05", "set"],
        ["0.05", "none"],
        ["0.5", "set"],
        ["0.5", "none"],
    ]
    assert "±" in made["rows"][0][2]
    assert "* differs from evolve set, all else equal" in made["note"]
    titles = [f["title"] for f in found["figures"]]
    assert titles == ["Test accuracy by epoch", "Test accuracy against density"]
    by_epoch, against = found["figures"]
    assert by_epoch["series"][0]["name"] == "density 0.05, evolve set"
    assert by_epoch["series"][0]["x"] == [1.0, 2.0]
    assert [s["name"] for s in against["series"]] == ["evolve set", "evolve none"]
    assert against["log_x"]
    rows = table(study, "small", folder)
    mean = rows.where(density=0.5, evolve="none").mean("test_accuracy")
    assert against["series"][1]["y"][1] == pytest.approx(100 * mean)
    assert "8 networks were trained on digits, with 4 settings" in found["summary"]


def test_the_report_of_what_is_not_done_yet(write, tmp_path):
    study = named(str(write()))
    folder = Folder(tmp_path / "results", create=True)
    found = check(study.report(table(study, "small", folder)))
    assert found["summary"] == "No training is done yet."
    assert found["figures"] == []
    assert found["tables"][0]["rows"][0][2] == "-"


def test_a_reference_may_be_named(write, done):
    chosen = named(str(write(GRID + "reference: {density: 0.5, evolve: none}\n")))
    _, folder = done
    note = chosen.report(table(chosen, "small", folder))["tables"][0]["note"]
    assert "differs from density 0.5, evolve none, all else equal" in note


def test_presets_change_what_they_say(write):
    text = GRID + (
        "presets:\n  paper: {seeds: [3, 5, 7], base: {epochs: 9}, grid: {evolve: [rigl]}, cost: an hour}\n"
        "  many: {grid: {epochs: [1, 2]}}\n"
    )
    study = named(str(write(text)))
    assert list(study.presets) == ["smoke", "small", "paper", "many"]
    cells = list(study.cells(study.presets["paper"].settings))
    assert {(c.config["density"], c.config["evolve"], c.config["epochs"]) for c in cells} == {
        (0.05, "rigl", 9), (0.5, "rigl", 9),
    }  # fmt: skip
    assert {c.config["seed"] for c in cells} == {3, 5, 7}
    assert study.presets["paper"].cost == "an hour"
    assert len(list(study.cells(study.presets["many"].settings))) == 16
    smoke = list(study.cells(study.presets["smoke"].settings))
    assert {c.config["epochs"] for c in smoke} == {1}
    assert len(smoke) == 8


def test_no_grid_is_one_setting(write):
    study = named(str(write("base: {model: 'mlp:in-8-classes', epochs: 1}\nseeds: [4]\n", name="My_one.yml")))
    assert study.name == "my-one"
    assert [c.config["seed"] for c in study.cells(study.presets["small"].settings)] == [4]
    assert study.presets["small"].data == ()
    assert load(write())[0].name == "densities"


def test_keys_stay_when_the_file_says_the_same_otherwise(write):
    one = named(str(write()))
    text = (
        GRID.replace("batch-size", "batch_size").replace("1e-1", "0.10").replace("[set, none]", "[none, set]")
    )
    other = named(str(write("# a comment\n" + text, name="other.yaml")))
    keys = [{c.key for c in in_order(s.cells(s.presets["small"].settings))} for s in (one, other)]
    assert keys[0] == keys[1]


def test_sets_that_need_files_are_named(write):
    study = named(str(write("data: MNIST\ngrid: {density: [0.1]}\n")))
    assert study.presets["small"].data == ("mnist",)
    study = named(str(write("grid: {data: [digits, mnist, iris]}\n")))
    assert study.presets["small"].data == ("mnist",)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("density: [", "desnity: [", r"line 11, grid.desnity: unknown .* did you mean 'density'"),
        ("seeds: 2", "sedes: 2", r"unknown part 'sedes': did you mean 'seeds'"),
        ("seeds: 2", "epochs: 2", r"unknown part 'epochs': it belongs under 'base' or 'grid'"),
        ("  epochs: 2", "  seed: 2", r"line 7, base.seed: a grid has no option 'seed': say `seeds"),
        ("  epochs: 2", "  out: x", r"a grid has no option 'out': networks are not kept"),
        ("[0.05, 0.5]", "[0.05, 5]", r"line 11, grid.density\[2\]: density is 5.0, but must be"),
        ("[0.05, 0.5]", "[0.05, many]", r"density\[2\]: density is 'many', but must be a number"),
        ("[0.05, 0.5]", "[0.05, .nan]", r"density is nan, but must be a number"),
        ("[0.05, 0.5]", "[0.05, true]", r"density is True, but must be a number"),
        ("[0.05, 0.5]", "0.05", r"0.05 is no list of values: write \[0.05\], or put it under 'base'"),
        ("[0.05, 0.5]", "[0.5, 0.50]", r"the value 0.5 stands there twice"),
        ("[set, none]", "[set, no]", r"evolve is False, but must be text; put it in quotes"),
        ("[set, none]", "[set, rgil]", r"line 12, grid.evolve\[2\]: unknown .* 'rigl'.*\(at dens"),
        ("  epochs: 2", "  epochs: 0", r"line 7, base.epochs: .*epochs"),
        ("  epochs: 2", "  epochs: 2.5", r"epochs is 2.5, but must be a whole number"),
        ("  epochs: 2", "  dense: 1", r"dense is 1, but must be true or false"),
        ("  epochs: 2", "  dense: true", r"density and dense exclude each other.*\(at density=0.05"),
        ("  epochs: 2", "  epsilon: -1", r"density and epsilon exclude each other"),
        ("mlp:in-16-classes", "mpl:in-16-classes", r"line 6, base.model: .* did you mean .mlp."),
        ("mlp:in-16-classes", "mlp:in-9-classes\n  dropout: 2", r"dropout is 2.0, but must be in"),
        ("  epochs: 2", "  allocate: erk", r"line 7, base.allocate: unknown allocate"),
        ("density: [0.05, 0.5]", "epsilon: [20, 0]", r"grid.epsilon\[2\]: epsilon is 0.0"),
        ("  epochs: 2", "  density: 0.1", r"line 11, grid.density: 'density' is under 'base' too"),
        ("  epochs: 2", "  zeta: 0.2\n  fraction: 0.3", r"two names of the same option"),
        ("  epochs: 2", "  epochs: 2\n  epochs: 3", r"line 8: 'epochs' stands there twice"),
        ("name: digits", "name: digts", r"line 4, data.name: .* did you mean 'digits'"),
        ("per_class: 20", "perclass: 20", r"unknown option of data 'perclass': did you mean 'per_class'"),
        ("name: densities", "name: Densities!", r"the name is 'Densities!', but must be lower case"),
        ("name: densities", "name: 7", r"line 2, name: name is 7, but must be text"),
        ("seeds: 2", "seeds: 0", r"seeds is 0, but must be 1 to"),
        ("seeds: 2", "seeds: [1, 1]", r"a seed stands there twice"),
        ("seeds: 2", "seeds: [1, -1]", r"must be a number of seeds or a list of whole numbers"),
        ("seeds: 2", "seeds: 90000", r"this makes 360,000 trainings, more than 100,000"),
        ("seeds: 2", "reference: {lr: 0.1}", r"'lr' does not vary in the grid"),
        ("seeds: 2", "reference: {evolve: rigl}", r"'rigl' is no value of 'evolve' in the grid"),
        ("seeds: 2", "presets: {paper: {seed: 1}}", r"unknown part 'seed': did you mean 'seeds'"),
        ("seeds: 2", "presets: {paper: {base: {lr: x}}}", r"line 13, presets.paper.base.lr: lr is 'x'"),
        ("seeds: 2", "presets: [paper]", r"'presets' holds \['paper'\], but must be names with values"),
        ("grid:\n  density", "grid:\n  3: [1]\n  density", r"3 is no name: put it in quotes"),
        ("grid:", "grid: [", r"line 1[12]: this is no YAML"),
        ("seeds: 2", "seeds: !!python/name:os.system", r"line 13: this is no YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(write, old, new, told):
    assert old in GRID
    path = write(GRID.replace(old, new))
    with pytest.raises(InputError, match=told) as caught:
        named(str(path))
    assert str(path) in str(caught.value)


def test_files_that_are_no_grid(write, tmp_path):
    with pytest.raises(FileError, match="No such file"):
        named(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RegraftError, match=r"bytes.yaml"):
        named(str(tmp_path / "bytes.yaml"))
    for text in ("", "[1, 2]", "5"):
        with pytest.raises(InputError, match="but must be names with values"):
            named(str(write(text)))
    with pytest.raises(InputError, match="larger than"):
        named(str(write("a" * 1_000_001)))


def test_aliases_that_grow_without_end_are_refused(write):
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
    with pytest.raises(InputError, match="grows without end by its aliases"):
        named(str(write(bomb)))
    with pytest.raises(InputError, match=r"grows without end|no YAML"):
        named(str(write("base: &b {model: *b}")))
    # honest use is fine
    text = GRID.replace("base:\n", "base: &b\n") + "presets: {paper: {base: *b}}\n"
    assert "paper" in named(str(write(text))).presets


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(TYPES)), PLAIN)
def test_any_value_is_converted_or_refused(name, value):
    try:
        made = convert(name, value)
    except InputError:
        return
    assert made is None or isinstance(made, str | int | float | bool | tuple)


def test_defaults_are_those_of_the_recipe(write):
    study = named(str(write("base: {}\nseeds: 1\n".replace("base: {}", "base: {model: 'mlp:in-8-classes'}"))))
    config = next(iter(study.cells(study.presets["small"].settings))).config
    expected = replace(Recipe(), model="mlp:in-8-classes").resolved()
    assert {k: config[k] for k in expected} == expected
    assert (config["data"], config["data_seed"]) == ("digits", 0)


def test_the_grid_on_the_page_works(write):
    page = (Path(__file__).parents[3] / "docs" / "studies" / "own.md").read_text()
    text = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]
    study = named(str(write(text)))
    assert {name: len(list(study.cells(p.settings))) for name, p in study.presets.items()} == {
        "smoke": 24, "small": 60, "paper": 120,
    }  # fmt: skip
