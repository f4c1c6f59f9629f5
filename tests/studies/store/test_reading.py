"""Queries, frames and files for other programs."""

import csv
import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from regraft.errors import FileError, InputError, MissingDependency
from regraft.studies.store import (
    FILE,
    contents,
    frame,
    query,
    records,
    synchronise,
    to_csv,
    to_json,
    to_parquet,
    to_tensorboard,
)
from regraft.studies.tables import table


@pytest.fixture
def ready(folder, study):
    synchronise(folder, study, "smoke")
    return folder.path


def test_a_query_answers(ready):
    found = query(
        ready, "SELECT rule, avg(accuracy) AS mean FROM merged_pairs WHERE rule = ? GROUP BY 1", ["average"]
    )
    assert found.columns == ["rule", "mean"]
    assert found.rows == [("average", pytest.approx(0.7))]
    assert query(ready / FILE, "SELECT count(*) FROM rows", study="merged-pairs").rows == [(4,)]
    with pytest.raises(InputError, match="asks for the table 'rows'"):
        query(ready, "SELECT count(*) FROM rows")


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM cells",
        "INSERT INTO metrics VALUES (9, 'x')",
        "CREATE TABLE mine (x)",
        "CREATE TEMP TABLE mine (x)",
        "DROP VIEW epochs",
        "ATTACH DATABASE '{}' AS other",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = OFF",
        "VACUUM INTO '{}'",
    ],
)
def test_a_query_cannot_write(ready, tmp_path, sql):
    other = tmp_path / "other.sqlite"
    before = (ready / FILE).read_bytes()
    with pytest.raises(InputError, match="would change the database, which is only read"):
        query(ready, sql.format(other))
    assert (ready / FILE).read_bytes() == before
    assert not other.exists()


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        (
            "SELECT acuracy FROM merged_pairs",
            "the column 'acuracy', which is not there: did you mean 'accuracy'",
        ),
        (
            "SELECT m.acuracy FROM merged_pairs m",
            "the column 'acuracy', which is not there: did you mean 'accuracy'",
        ),
        (
            "SELECT 1 FROM merged_pair",
            "the table 'merged_pair', which is not there: did you mean 'merged_pairs'",
        ),
        ("SELECT", "has a mistake .*incomplete input"),
        ("SELECT 1; SELECT 2", "several statements: give one"),
        ("SELECT ?", "has a mistake .*binding"),
        ("SELECT '\0'", "null character"),
        ("SELECT load_extension('x')", "would change the database|has a mistake"),
    ],
)
def test_mistakes_in_a_query_are_told(ready, sql, told):
    with pytest.raises(InputError, match=told):
        query(ready, sql)


def test_looking_is_allowed(ready):
    assert query(ready, "PRAGMA table_info(cells)").rows[0][1] == "id"
    assert query(ready, "PRAGMA user_version").rows == [(1,)]
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT i FROM n"
    assert query(ready, counting).rows == [(1,), (2,), (3,)]


def test_no_database_is_told(tmp_path):
    with pytest.raises(FileError, match="there is no database"):
        query(tmp_path, "SELECT 1")


def test_contents_name_studies_first_and_hide_the_inside(ready):
    found = {s.name: s for s in contents(ready)}
    assert list(found)[:4] == ["merged_pairs", "cells", "epochs", "studies"]
    assert {s.kind for s in found.values()} == {"study", "all", "rows"}
    study = found["merged_pairs"]
    assert study.rows == 4
    assert {"preset", "cell", "seed", "accuracy"} <= set(study.columns)
    assert "accuracy" in study.numbers
    assert not {"rule", "sparse"} & set(study.numbers)
    assert found["epochs"].rows == 12


def test_records_are_the_rows_of_the_table(folder, study):
    expected = table(study, "smoke", folder).rows
    found = records(folder, study, "smoke")
    assert [{n: v for n, v in row.items() if v is not None} for row in found] == expected
    assert [type(row["sparse"]) for row in found if "sparse" in row] == [bool, bool]


def test_epochs_come_with_their_configuration(folder, study):
    found = records(folder, study, "smoke", "epochs")
    assert len(found) == 6
    first = next(r for r in found if r["seed"] == 0 and r["epoch"] == 1)
    assert first["recipe.lr"] == 0.1
    assert (first["run"], first["test_accuracy"], first["lr"]) == ("a", 0.6, 0.1)


def test_a_frame_in_one_call(folder, study):
    pandas = pytest.importorskip("pandas")
    made = frame(folder, study, "smoke")
    assert len(made) == 4
    assert made.groupby("rule")["accuracy"].mean()["average"] == pytest.approx(0.7)
    assert made["sparse"].dtype == "boolean"
    assert list(made["seed"][:2]) == [0, 1]
    assert pandas.isna(made["seed"][2])
    assert set(frame(folder, study, "smoke", "epochs")["epoch"]) == {1, 2, 3}
    # of another preset only the cells that it shares are done
    assert list(frame(folder, study, "small")["seed"]) == [0, 1]


def test_csv_and_json_hold_the_rows(folder, study, tmp_path):
    assert to_csv(folder, study, "smoke", tmp_path / "rows.csv") == 4
    with (tmp_path / "rows.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [r["accuracy"] for r in read if r["rule"]] == ["0.7", "0.7999999999999999"]
    assert to_json(folder, study, "smoke", tmp_path / "epochs.json", "epochs") == 6
    whole = json.loads((tmp_path / "epochs.json").read_text())
    assert (whole["study"], whole["preset"], len(whole["epochs"])) == ("merged-pairs", "smoke", 6)
    with pytest.raises(FileError, match="cannot write"):
        to_csv(folder, study, "smoke", tmp_path / "none" / "rows.csv")


def test_parquet_or_a_sentence(folder, study, tmp_path):
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        with pytest.raises(MissingDependency, match="'pyarrow', which is not installed"):
            to_parquet(folder, study, "smoke", tmp_path / "rows.parquet")
    else:
        assert to_parquet(folder, study, "smoke", tmp_path / "rows.parquet") == 4
        assert parquet.read_table(tmp_path / "rows.parquet").num_rows == 4


def test_what_is_not_installed_is_told(folder, study, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependency, match="'pandas'"):
        frame(folder, study, "smoke")
    with pytest.raises(MissingDependency, match="'pyarrow'"):
        to_parquet(folder, study, "smoke", tmp_path / "x")
    with pytest.raises(MissingDependency, match="'tensorboard'"):
        to_tensorboard(folder, study, "smoke", tmp_path)


def test_tensorboard_shows_metrics_and_hyperparameters(folder, study, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # the second time replaces the first
        assert to_tensorboard(folder, study, "smoke", tmp_path) == 2
    folders = sorted(p.parent for p in tmp_path.rglob("events.*"))
    assert len(folders) == 2
    assert folders[0].name.startswith("seed=0-")
    read = EventAccumulator(str(folders[0])).Reload()
    scalars = read.Scalars("test/accuracy")
    assert [(s.step, round(s.value, 4)) for s in scalars] == [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert "_hparams_/experiment" in read.Tags()["scalars"] or read.summary_metadata
    empty = replace(study, cells=lambda settings: [])
    with pytest.raises(InputError, match="no metrics over epochs at preset 'smoke'"):
        to_tensorboard(folder, empty, "smoke", tmp_path)


def test_a_query_sees_what_a_writer_has_committed(ready):
    with closing(sqlite3.connect(ready / FILE, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM cells")
        assert query(ready, "SELECT count(*) FROM cells").rows == [(3,)]
        writer.execute("ROLLBACK")
