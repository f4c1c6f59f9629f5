"""``regraft study list`` and ``run``: what they print, exit codes, and one sentence for each mistake."""

import json
from pathlib import Path

import pytest

from regraft.cli import main
from regraft.studies.catalogue import names

DICE = Path(__file__).parent.parent / "studies" / "run" / "dice_study.py"


@pytest.fixture
def call(capsys):
    def run(*args):
        with pytest.raises(SystemExit) as ended:
            main(["study", *map(str, args)])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


def test_list_names_every_study_with_its_presets(call, tmp_path):
    code, _, _ = call("list", "--folder", tmp_path, "--json", tmp_path / "list.json")
    listed = json.loads((tmp_path / "list.json").read_text())["studies"]
    assert code == 0
    assert list(dict.fromkeys(s["name"] for s in listed)) == names()
    assert all(s["cells"] > 0 and s["cost"] and s["reproduces"] and s["done"] == 0 for s in listed)
    assert all(
        {"smoke", "small", "paper"} <= {s["preset"] for s in listed if s["name"] == n} for n in names()
    )


def test_run_does_what_is_missing_and_says_so(call, tmp_path):
    folder = tmp_path / "results"
    options = (DICE, "--preset", "smoke", "--folder", folder, "--executor", "inline")
    code, out, err = call("run", *options)
    assert code == 0
    assert "dice: 24 cells done" in out
    assert "24 of 24 cells" in err  # not a terminal: lines instead of a bar
    code, out, _ = call("run", *options, "--json", "-")
    figures = json.loads(out)
    assert code == 0
    assert (figures["before"], figures["done"], figures["failed"]) == (24, 0, [])


def test_failed_cells_end_with_exit_code_1_and_their_error(call, tmp_path):
    options = (DICE, "--preset", "fails", "--folder", tmp_path / "r", "--executor", "inline")
    code, out, _ = call("run", *options)
    assert code == 1
    assert "1 failed, 1 wait for those" in " ".join(out.split())
    assert "ValueError" in out
    assert "--retry-failed" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("gates-sin",), "there is no study 'gates-sin': did you mean 'gates-sine'"),
        ((DICE, "--preset", "papr"), "has no preset 'papr'"),
        ((DICE, "--executor", "dask"), "unknown executor 'dask': known names: 'inline', 'pool', 'ray'"),
        ((DICE, "--workers", "0", "--preset", "smoke"), "workers is 0, but must be 1 or more"),
        ((DICE, "--preset", "data", "--data-dir", "nowhere"), "no Fashion-MNIST here"),
        (("nowhere.py",), "nowhere.py"),
    ],
)
def test_mistakes_end_in_a_sentence(call, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("run", *options, "--folder", tmp_path / "results")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_folder_with_other_things_is_not_written_into(call, tmp_path):
    (tmp_path / "photo.png").touch()
    code, _, err = call("run", DICE, "--preset", "smoke", "--folder", tmp_path)
    assert (code, [p.name for p in tmp_path.iterdir()]) == (2, ["photo.png"])
    assert "it holds other files; name an empty or new folder" in err


def test_a_folder_of_another_version_is_refused_and_left_alone(call, tmp_path):
    folder = tmp_path / "results"
    call("run", DICE, "--preset", "smoke", "--folder", folder, "--executor", "inline")
    (folder / "regraft-studies.json").write_text('{"format": 9}')
    code, _, err = call("run", DICE, "--preset", "smoke", "--folder", folder, "--executor", "inline")
    assert code == 2
    assert "have format 9, but this regraft reads 1" in err
    assert len(list((folder / "cells").glob("*/*/result.json"))) == 24


def test_an_unknown_subcommand_is_suggested(call):
    code, _, err = call("rum")
    assert code == 2
    assert "unknown command 'rum': did you mean 'run'" in err
