"""The database holds what the cells say: once, whole, whatever they are called, and whatever is killed."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import FileError
from regraft.studies.run import run as run_study
from regraft.studies.store import FILE, Store, query, rebuild, synchronise
from regraft.studies.store.schema import FORMAT, view_name
from regraft.studies.study import Result
from regraft.studies.tables import joined, table


def result(i, rows=({"accuracy": 0.5},), epochs=(), step="train", config=None, seconds=1.0):
    key = f"{i:032x}"
    return Result(
        key, step, config or {"seed": i}, list(rows), list(epochs), Path(), seconds, "2026-01-01T00:00:00"
    )


def dump(path):
    with closing(sqlite3.connect(path)) as connection:
        return sorted(line for line in connection.iterdump())


def test_rows_can_be_asked_for_without_regraft(folder, study):
    synchronise(folder, study, "smoke")
    # nothing but the standard library from here on
    with closing(sqlite3.connect(folder.path / FILE)) as connection:
        found = connection.execute(
            'SELECT preset, step, rule, "recipe.lr", accuracy FROM merged_pairs '
            "ORDER BY round(accuracy, 3), rule"
        ).fetchall()
        metrics = connection.execute(
            "SELECT run, epoch, value FROM epochs WHERE metric = 'test_accuracy' ORDER BY value"
        ).fetchall()
        cells = connection.execute(
            "SELECT status, count(*), min(seconds) >= 0 FROM cells GROUP BY 1"
        ).fetchall()
        config = connection.execute("SELECT config FROM cells WHERE step LIKE '%merge'").fetchone()
    assert [row[2:] for row in found] == [
        ("average", None, pytest.approx(0.7)),
        (None, 0.1, pytest.approx(0.8)),
        ("magnitude", None, pytest.approx(0.8)),
        (None, 0.1, pytest.approx(0.81)),
    ]
    assert {row[0] for row in found} == {"smoke"}
    assert len(metrics) == 6
    assert metrics[0] == ("a", 1, 0.6)
    assert cells == [("done", 3, 1)]
    assert json.loads(config[0]) == {"density": 0.5}


def test_a_cell_twice_is_there_once(tmp_path):
    results = [result(i, epochs=[{"epoch": 1, "loss": 2.0}]) for i in range(3)]
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", results)
        once = dump(store.path)
        store.add("mine", "smoke", [*results, results[0]])
        store.add("mine", "smoke", [])
        assert dump(store.path) == once
    assert query(tmp_path, "SELECT count(*) FROM mine").rows == [(3,)]


def test_a_cell_done_again_replaces_what_was_there(tmp_path):
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", [result(1, [{"a": 1}, {"a": 2}], [{"epoch": 1, "loss": 2.0}])])
        store.add("mine", "smoke", [result(1, [{"a": 3}], [{"epoch": 1, "loss": 1.0}], seconds=2.0)])
    assert query(tmp_path, "SELECT a FROM mine").rows == [(3,)]
    assert query(tmp_path, "SELECT value FROM epochs").rows == [(1.0,)]
    assert query(tmp_path, "SELECT seconds FROM cells").rows == [(2.0,)]


def test_columns_are_added_as_they_appear(tmp_path):
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", [result(1, [{"a": 1}])])
        store.add(
            "mine", "smoke", [result(2, [{"b": "x", "a": 0.5}], config={"seed": 2, "deep": {"er": [1, 2]}})]
        )
        store.add("mine", "smoke", [result(3, [{"c": None}], step="other.step")])
    found = query(tmp_path, 'SELECT step, seed, a, b, c, "deep.er" FROM mine ORDER BY cell')
    assert found.rows == [
        ("train", 1, 1, None, None, None),
        ("train", 2, 0.5, "x", None, "1 2"),
        ("other.step", 3, None, None, None, None),
    ]
    tables = query(tmp_path, "SELECT name FROM sqlite_master WHERE name LIKE 'rows%' AND type = 'table'").rows
    assert tables == [("rows_train",), ("rows_other_step",)]


def test_names_that_sql_cannot_tell_apart_or_that_are_taken(tmp_path):
    awkward = {
        "N": 1,
        "n": 2,
        "cell": 3,
        "preset": 4,
        "row_number": 5,
        'say "so"': 6,
        "step": 7,
        "select": 8,
        "": 9,
    }
    with Store(tmp_path / FILE) as store:
        store.add("select-study", "smoke", [result(1, [awkward])])
        store.add("cells", "smoke", [result(1, [awkward])])
    found = query(
        tmp_path, 'SELECT "N", "n_2", "cell_2", "preset_2", "say ""so""", "step", "select" FROM select_study'
    )
    assert found.rows == [(1, 2, 3, 4, 6, 7, 8)]
    assert query(tmp_path, "SELECT preset, n_2 FROM cells_study").rows == [("smoke", 2)]


def test_values_that_sqlite_has_no_type_for(tmp_path):
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", [result(1, [{"big": 2**70, "yes": True, "half": "\ud800", "mixed": "a"}])])
        store.add(
            "mine", "smoke", [result(2, [{"mixed": 1, "more": 2}], [{"big": 2**70}, {"epoch": 7, "x": None}])]
        )
    assert query(tmp_path, "SELECT big, yes, half, mixed FROM mine ORDER BY cell").rows == [
        (str(2**70), 1, "?", "a"), (None, None, None, 1),
    ]  # fmt: skip
    assert query(tmp_path, "SELECT epoch, value FROM epochs").rows == [(1, str(2**70))]


def test_more_columns_than_sqlite_allows_go_into_one(tmp_path, monkeypatch):
    from regraft.studies.store import steps

    monkeypatch.setattr(steps, "MOST_COLUMNS", 3)
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", [result(1, [{f"x{i}": i for i in range(6)}]), result(2, [{"x9": 9}])])
        store.add("mine", "smoke", [result(3, [{"x1": 1, "x10": None}])])
    assert query(tmp_path, "SELECT seed, x1, more FROM mine ORDER BY cell").rows == [
        (1, 1, '{"x2": 2, "x3": 3, "x4": 4, "x5": 5}'), (2, None, '{"x9": 9}'), (3, 1, None),
    ]  # fmt: skip


NAMES = st.text(max_size=6) | st.sampled_from(["a", "A", "cell", "step", "preset", "seed"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=3)


@given(st.lists(st.tuples(ROWS, ROWS, st.sampled_from(["train", "merge"])), max_size=5))
def test_whatever_rows_are_called_they_are_all_there(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("any")
    results = [result(i, rows, epochs, step) for i, (rows, epochs, step) in enumerate(made)]
    with Store(path / FILE) as store:
        store.add("mine", "smoke", results[:2])
        store.add("mine", "smoke", results)
    if any(r.rows for r in results):
        counts = dict(query(path, "SELECT cell, count(*) FROM mine GROUP BY 1").rows)
        assert counts == {r.key: len(r.rows) for r in results if r.rows}
    values = sum(
        v is not None and n not in ("run", "epoch")
        for r in results
        for row in r.epochs
        for n, v in row.items()
    )
    assert query(path, "SELECT count(*) FROM epochs").rows == [(values,)]


def test_failures_are_there_until_the_cell_is_done(tmp_path):
    record = {
        "key": f"{1:032x}",
        "step": "train",
        "config": {"seed": 1},
        "error": "it diverged",
        "when": "now",
    }
    with Store(tmp_path / FILE) as store:
        store.add_failure("mine", "smoke", record)
        store.add_failure("mine", "smoke", {**record, "error": "again"})
        asked = "SELECT c.status, c.error FROM cells c JOIN studies s ON s.cell = c.id WHERE s.study = 'mine'"
        assert query(tmp_path, asked).rows == [("failed", "again")]
        store.add("mine", "smoke", [result(1)])
        assert query(tmp_path, asked).rows == [("done", None)]
        store.add_failure("mine", "smoke", record)
        assert query(tmp_path, asked).rows == [("done", None)]


def test_synchronising_makes_the_same_database_as_adding(folder, study, tmp_path):
    synchronise(folder, study, "smoke")
    synchronise(folder, study, "smoke")
    with Store(tmp_path / FILE) as store:
        results = table(study, "smoke", folder).results
        for r in results:
            store.add(study.name, "smoke", [r])
    assert dump(folder.path / FILE) == dump(tmp_path / FILE)
    (folder.path / FILE).unlink()
    synchronise(folder, study, "smoke")
    assert dump(folder.path / FILE) == dump(tmp_path / FILE)


def test_studies_share_cells_and_lose_those_that_are_theirs_no_more(folder, study):
    synchronise(folder, study, "smoke")
    run_study(study, "small", folder, executor="inline")
    synchronise(folder, study, "small")
    asked = "SELECT preset, count(*) FROM studies GROUP BY 1 ORDER BY 1"
    assert query(folder.path, asked).rows == [("small", 4), ("smoke", 3)]
    assert query(folder.path, "SELECT count(*) FROM cells").rows == [(5,)]
    smaller = replace(study, cells=lambda settings: list(study.cells(settings))[:1])
    synchronise(folder, smaller, "small")
    assert query(folder.path, asked).rows == [("small", 1), ("smoke", 3)]


def test_failures_in_the_folder_are_taken_over(folder, study):
    key = next(iter(study.cells({"seeds": 3}))).key
    for failed in (key, f"{7:032x}"):
        folder.record_failure(failed, {"step": "train", "config": {}, "error": "no memory"})
    synchronise(folder, study, "smoke")
    assert query(folder.path, "SELECT count(*) FROM cells WHERE status = 'failed'").rows == [(0,)]
    shutil.rmtree(folder.cell(key))
    (folder.path / FILE).unlink()
    synchronise(folder, study, "smoke")
    assert query(folder.path, "SELECT key, error FROM cells WHERE status = 'failed'").rows == [
        (key, "no memory")
    ]
    with Store(folder.path / FILE) as store:
        store.synchronise(folder, study.name, "smoke", [])
    assert query(folder.path, "SELECT c.key FROM studies JOIN cells c ON c.id = cell").rows == [(key,)]


def test_rebuilding_finds_the_studies_that_regraft_brings(folder, study, monkeypatch):
    from regraft.studies import catalogue

    monkeypatch.setattr(catalogue, "names", lambda: ["merged-pairs"])
    monkeypatch.setattr(catalogue, "named", lambda name: study)
    rebuild(folder)
    # the cells of smoke are cells of small too
    assert query(folder.path, "SELECT DISTINCT preset FROM merged_pairs ORDER BY 1").rows == [
        ("small",),
        ("smoke",),
    ]


WRITER = """
import sys
from pathlib import Path
from regraft.studies.store import Store
from regraft.studies.study import Result

store = Store(sys.argv[1])
print("ready", flush=True)
i = 0
while True:
    batch = [
        Result(f"{i + j:032x}", "train", {"seed": i + j}, [{"a": i, f"x{i % 7}": 1}] * 3,
               [{"epoch": 1, "loss": 0.5}], Path(), 1.0)
        for j in range(10)
    ]
    store.add("mine", "smoke", batch)
    i += 10
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_writer_killed_at_any_moment_leaves_a_whole_database(tmp_path):
    before = 0
    for wait in (0.0, 0.05, 0.2):
        child = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / FILE], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait)
        child.kill()
        child.wait()
        child.stdout.close()
        # read as it was left, then written on
        counts = query(tmp_path, "SELECT (SELECT count(*) FROM cells), (SELECT count(*) FROM epochs)").rows[0]
        assert counts[0] == counts[1] >= before
        assert counts[0] % 10 == 0
        before = counts[0]
        with Store(tmp_path / FILE) as store:
            assert store.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            store.add(
                "mine", "smoke", [result(i, epochs=[{"loss": 0.5}]) for i in range(before, before + 10)]
            )
            before += 10
        rows = query(tmp_path, "SELECT count(DISTINCT cell) FROM mine").rows
        assert rows == [(before,)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [FILE]


def test_two_writers_in_turn(tmp_path):
    with Store(tmp_path / FILE) as one, Store(tmp_path / FILE) as other:
        one.add("mine", "smoke", [result(1, [{"a": 1}], [{"epoch": 1, "loss": 1.0}])])
        other.add("mine", "smoke", [result(2, [{"a": 2, "b": 2}], [{"epoch": 1, "loss": 1.0, "lr": 0.1}])])
        one.add("mine", "smoke", [result(3, [{"b": 3, "c": 3}], [{"epoch": 1, "lr": 0.2}])])
    assert query(tmp_path, "SELECT a, b, c FROM mine ORDER BY cell").rows == [
        (1, None, None),
        (2, 2, None),
        (None, 3, 3),
    ]
    assert query(tmp_path, "SELECT metric, count(*) FROM epochs GROUP BY 1").rows == [("loss", 2), ("lr", 2)]


def test_other_versions_and_other_files_are_told(tmp_path):
    path = tmp_path / FILE
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(
        FileError, match=f"has format {FORMAT + 1}, but this regraft writes {FORMAT}: delete it"
    ):
        Store(path)
    path.write_bytes(b"no database at all, but long enough to look at" * 20)
    for use in (Store, lambda p: query(p, "SELECT 1")):
        with pytest.raises(FileError, match=r"damaged or no database .*: delete it; it is made anew"):
            use(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(FileError, match="a database of another program"):
        Store(path)
    with pytest.raises(FileError, match="unable to open database file"):
        Store(tmp_path / "none" / FILE)


def test_an_error_in_between_adds_nothing_and_the_store_goes_on(tmp_path):
    with Store(tmp_path / FILE) as store:
        store.add("mine", "smoke", [result(1)])
        before = dump(store.path)
        with pytest.raises(FileError, match="cannot write"):
            store.add(
                "mine", "smoke", [result(2, [{"fresh": 1}], [{"fresh": 1}]), result(3, [{"bad": object()}])]
            )
        assert dump(store.path) == before
        store.add("mine", "smoke", [result(2, [{"fresh": 1}], [{"fresh": 1}])])
    assert query(tmp_path, "SELECT fresh FROM mine WHERE fresh").rows == [(1,)]


def test_views_are_named_so_that_sql_needs_no_quotes():
    assert view_name("gates-sine") == "gates_sine"
    assert view_name("epochs") == "epochs_study"


def test_the_databases_rows_are_the_tables_rows(folder, study):
    synchronise(folder, study, "smoke")
    for r in table(study, "smoke", folder).results:
        for row in joined(r):
            kept = {n: v for n, v in row.items() if v is not None}
            asked = " AND ".join(f'"{n}" = ?' for n in kept)
            found = query(
                folder.path, f"SELECT count(*) FROM merged_pairs WHERE {asked}", list(kept.values())
            )
            assert found.rows == [(1,)]
