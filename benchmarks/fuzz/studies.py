"""Grids as YAML, folders of results, their database, options beside pruning rounds, exported networks."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
import sqlite3
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from regraft import models, sparsify
from regraft.cli.prune_job import keep_options
from regraft.errors import RegraftError
from regraft.export.npz_writer import to_npz
from regraft.export.numpy_runtime import Network
from regraft.report.schema import check as check_report
from regraft.studies import folder as folders
from regraft.studies.grid.read import read_grid
from regraft.studies.store.database import FILE, Store
from regraft.studies.store.query import contents, query
from regraft.studies.study import Result

from . import mutate, trees
from .target import Target, require

GRID = {
    "name": "mine", "title": "A grid", "about": "What it is about.",
    "data": {"name": "digits", "classes": [0, 1], "per_class": 20, "seed": 1},
    "base": {"model": "mlp:in-32-classes", "epochs": 2, "lr": 0.1, "batch-size": 20, "density": 0.1},
    "grid": {"evolve": ["none", "set"], "zeta": [0.1, 0.3], "dropout": [0, 0.2]}, "seeds": [0, 1],
    "reference": {"evolve": "none"}, "presets": {"large": {"base": {"epochs": 5}, "seeds": 3,
    "cost": "a minute"}},
}  # fmt: skip
PLAIN = """# a comment
name: mine
data: digits
base: &base
  model: mlp:64-32-10
  epochs: 1e1
grid:
  density: [0.05, 0.1]
  evolve: [set, rigl]
seeds: 2
presets:
  twice: {base: *base, seeds: [3, 4]}
"""
WORDS = (
    "&a ", "*a", "*base", "<<: *base", "- ", "? ", ": ", "| ", "> ",
    "!!python/object/apply:os.system ['true']", "!!int ",
    "!!binary ", "!!timestamp 2001-01-01", "2001-13-45", "---\n", "...\n", "%YAML 9.9\n", "{", "}", "[", "]",
    "\n", "\n  ",
    "\t", "yes", "~", ".nan", ".inf", "0x1F", "0o9", "1:30:00", "1_0", "@", "`", "density", "seeds: 100001",
    "model: resnet-20",
    "&x [*x, *x]",
    "[&b [x,x,x,x,x,x,x,x], &c [*b,*b,*b,*b], &d [*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d]]",
    "1.5", "[1, 2]", "{a: 1}", "data: fashion-mnist", "optimizer: adam", "lr_schedule: 'StepLR:step_size=2'",
)  # fmt: skip


def _grid(rng: random.Random) -> str:
    way = rng.random()
    if way < 0.03:
        return PLAIN
    if way < 0.5:
        return trees.changed(rng, json.dumps(GRID))
    return mutate.changed_text(rng, rng.choice((PLAIN, json.dumps(GRID, indent=1))), WORDS)


def _read_grid(text: str, folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    study = read_grid(path)
    require({"smoke", "small"} <= set(study.presets), "presets are missing")
    first = next(iter(study.cells(study.presets["smoke"].settings)))
    require(len(first.key) == 32, "a cell without a key")


KEY = "ab" + "0" * 30
RESULT = {
    "key": KEY, "step": "train", "config": {"seed": 1, "recipe": {"lr": 0.1, "model": "mlp"}},
    "rows": [{"accuracy": 0.5, "ok": True, "name": "x", "none": None}, {"accuracy": 0.6}],
    "epochs": [{"epoch": 1, "loss": 0.3}, {"epoch": 2, "loss": 0.2, "run": "a"}], "seconds": 1.5,
    "started": "2026",
    "versions": {"regraft": "1", "torch": "2"},
}  # fmt: skip
FAILURE = {
    "key": KEY,
    "step": "train",
    "config": {"seed": 1},
    "error": "an error",
    "traceback": "",
    "when": "2026",
}
MARK = {"format": 1}


def _json(rng: random.Random, tree: Any) -> bytes:
    text = json.dumps(tree)
    if rng.random() < 0.75:
        return trees.changed(rng, text).encode("utf-8", "surrogatepass")
    return mutate.changed(rng, text.encode())


def _results(rng: random.Random) -> tuple[bytes, bytes, bytes]:
    """The folder's mark, a result, a failure; one of them hostile."""
    parts = [json.dumps(part).encode() for part in (MARK, RESULT, FAILURE)]
    which = rng.choice((0, 1, 1, 1, 1, 2, 2))
    parts[which] = _json(rng, (MARK, RESULT, FAILURE)[which])
    return parts[0], parts[1], parts[2]


def _read_results(case: tuple[bytes, bytes, bytes], folder: Path) -> None:
    root = folder / "results"
    for name in ("failed", "parts", f"cells/ab/{KEY}"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / folders.MARK).write_bytes(case[0])
    (root / "cells" / "ab" / KEY / "result.json").write_bytes(case[1])
    (root / "failed" / f"{KEY}.json").write_bytes(case[2])
    held = folders.Folder(root)
    record, result = held.failure(KEY), held.read(KEY)
    for left in (root / "parts").iterdir():
        (left / "result.json").unlink()
        left.rmdir()
    with Store(":memory:") as store:
        store.add_failure("mine", "smoke", {**record, "key": KEY})
        if result is None:
            raise RegraftError("no result")
        require(isinstance(result.config, dict) and isinstance(result.rows, list), "a result of another form")
        store.add("mine", "smoke", [result])
        if not result.rows:
            return  # a study has its view from the first row on
        shown = store.connection.execute("SELECT * FROM mine").fetchall()
        require(len(shown) == len(result.rows), f"{len(shown)} rows of {len(result.rows)}")


@functools.cache
def _databases() -> tuple[bytes, ...]:
    found = []
    for count in (0, 6):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILE
            with Store(path) as store:
                held: Any = RESULT
                parts = held["config"], held["rows"], held["epochs"]
                results = [Result(f"{i:032d}", "train", *parts, Path(), 1.0) for i in range(count)]
                store.add("mine", "smoke", results)
            found.append(path.read_bytes())
    return tuple(found)


STATEMENTS = (
    "CREATE VIEW evil AS WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT * FROM t",
    "CREATE TRIGGER evil INSERT ON cells BEGIN DELETE FROM cells; END", "DROP TABLE columns",
    "DROP TABLE cells",
    "CREATE VIEW \"a\"\"b\x1b[2J\" AS SELECT 1", "UPDATE steps SET table_name = 'cells; DROP TABLE cells'",
    "UPDATE columns SET kind = 7", "UPDATE columns SET column_name = x'ff00'", "PRAGMA user_version = 99",
    "UPDATE cells SET config = x'ff'", "UPDATE cells SET config = '['",
    "INSERT INTO metrics VALUES ('x', NULL)",
    "UPDATE steps SET step = NULL", "PRAGMA application_id = 7", "PRAGMA page_size = 512; VACUUM",
    "DROP VIEW mine",
    "CREATE VIEW loop AS SELECT * FROM loop", "UPDATE cells SET id = 'x' || id",
    "ALTER TABLE cells RENAME TO others",
    "DELETE FROM steps", "UPDATE columns SET step = 'no step'", "UPDATE metrics SET name = x'ff'",
)  # fmt: skip


def _database(rng: random.Random) -> tuple[bytes, str]:
    seed = rng.choice(_databases())
    way = rng.random()
    if way < 0.05:
        return seed, ""
    if way < 0.35:
        return seed, rng.choice(STATEMENTS)
    made = bytearray(seed)
    for _ in range(rng.choice((1, 1, 3, 10))):  # pages of mostly zeros: change what is there
        at = rng.randrange(len(made))
        at = next((i for i in range(at, len(made)) if made[i]), at)
        made[at] = rng.choice((0, 255, 127, 128, made[at] ^ (1 << rng.randrange(8))))
    return (bytes(made) if rng.random() < 0.7 else mutate.changed(rng, bytes(made), _databases())), ""


def _read_database(case: tuple[bytes, str], folder: Path) -> None:
    data, statement = case
    path = folder / FILE
    for old in folder.glob(f"{FILE}*"):
        old.unlink()
    path.write_bytes(data)
    if statement:
        with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
            connection.executescript(statement)
            connection.commit()
    shown = contents(folder)
    require(all(isinstance(s.rows, int) for s in shown), "a table without a number of rows")
    query(folder, "SELECT * FROM cells LIMIT 10")
    query(folder, "SELECT * FROM rows LIMIT 10", study="mine")
    with Store(path) as store:
        result = Result("f" * 32, "train", {"seed": 1}, [{"accuracy": 0.5}], [{"loss": 1.0}], Path(), 1.0)
        store.add("mine", "smoke", [result])


def _options(rng: random.Random) -> bytes:
    options = {"score": "magnitude", "density": 0.1, "rounds": 3, "include": ["*"]}
    return json.dumps(options).encode() if rng.random() < 0.1 else _json(rng, options)


def _read_options(data: bytes, folder: Path) -> None:
    (folder / "options.json").write_bytes(data)
    options = {"score": "magnitude", "density": 0.1, "rounds": 3, "include": ["*"]}
    keep_options(folder, options)
    require(
        json.loads((folder / "options.json").read_bytes()) == options, "other options were taken for the same"
    )


@functools.cache
def _exports() -> tuple[bytes, ...]:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
        nn.Softmax(-1),
    )
    perceptron = sparsify(models.build("mlp:6-8-3", generator=generator), density=0.3, generator=generator)
    dense = models.build("mlp:6-8-3", generator=generator)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.npz")
        for model, shape, values in (
            (perceptron, (6,), "float32"), (perceptron, (6,), "int8"), (dense, (6,), "float16"),
            (sparsify(conv, density=0.5, generator=generator), (1, 4, 4), "float32"),
        ):  # fmt: skip
            to_npz(model.eval(), path, input_shape=shape, values=values)
            found.append(path.read_bytes())
    return tuple(found)


def _export(rng: random.Random) -> bytes:
    seed = rng.choice(_exports())
    way = rng.random()
    if way < 0.03:
        return seed
    if way < 0.25:
        return mutate.changed(rng, seed, _exports())
    with zipfile.ZipFile(io.BytesIO(seed)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(["program.npy", *members])
        if name == "program.npy" and name in members:
            text = bytes(np.load(io.BytesIO(members[name]))).decode()
            held = io.BytesIO()
            np.save(held, np.frombuffer(trees.changed(rng, text).encode(), np.uint8))
            members[name] = held.getvalue()
        elif rng.random() < 0.1:
            del members[name]
        elif name in members:
            members[name] = mutate.changed(rng, members[name], most=2)
        if not members:
            break
    if rng.random() < 0.002:
        members["program.npy"] = members.get("program.npy", b"") + bytes(10**8)
    made = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(made, "w", kind, compresslevel=1) as new:
        for name, data in members.items():
            new.writestr(zipfile.ZipInfo(name), data, kind)
    return made.getvalue()


def _run_export(data: bytes, folder: Path) -> None:
    path = folder / "m.npz"
    path.write_bytes(data)
    network = Network(path)
    size = int(np.prod(network.input_shape, dtype=np.float64))
    if size > 10_000:
        return
    with np.errstate(all="ignore"):
        y = network(np.ones((2, *network.input_shape), np.float32))
    require(
        y.shape == (2, *network.output_shape), f"an output of shape {y.shape}, not {network.output_shape}"
    )


REPORT = {
    "title": "A report", "facts": [{"label": "Best", "value": "97 %", "note": "x"}],
    "curves": [{"name": "a", "epochs": [1, 2], "accuracy": [0.5, None]}],
    "grids": [{"name": "g", "weights": ["a"], "biases": ["b", "c"], "accuracy": [[0.1, 0.2]]}],
    "points": [{"name": "p", "group": "q", "nnstd": 0.5, "accuracy": 0.9}], "reference": {"name": "r",
    "accuracy": 0.5},
    "distances": {"names": ["a", "b"], "nnstd": [[0, 1], [1, 0]]}, "up": {"text": "up", "href": "index.html"},
    "pattern": {"shape": [2, 2], "networks": [{"name": "n", "counts": [1, 2, 3, 4]}]},
    "densities": {"layers": ["a"], "networks": [{"name": "n", "densities": [0.5]}]},
    "tables": [{"title": "t", "columns": ["a", "b"], "rows": [["x", 1.5], [{"text": "y", "href": "z"},
    None]]}],
    "remarks": [{"title": "r", "points": ["one"]}], "configuration": {"a": 1}, "versions": {"b": "2"},
    "figures": [{"kind": "lines", "title": "t", "caption": "c", "x": "x", "y": "y",
                 "series": [{"name": "s", "x": [1.0, 2.0], "y": [1.0, 2.0]}]}],
}  # fmt: skip


def _report(rng: random.Random) -> str:
    return trees.changed(rng, json.dumps(REPORT), most=2)


def _check_report(text: str, folder: Path) -> None:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RegraftError("no JSON") from error
    if not isinstance(tree, dict):
        raise RegraftError("no object")
    check_report(tree)


GROUP = "studies and exports"
TARGETS = (
    Target("grid", GROUP, 10_000, _grid, _read_grid),
    Target("results", GROUP, 25_000, _results, _read_results),
    Target("database", GROUP, 15_000, _database, _read_database),
    Target("pruning-options", GROUP, 5_000, _options, _read_options),
    Target("exported", GROUP, 30_000, _export, _run_export, (ValueError, RegraftError)),
    Target("report", GROUP, 15_000, _report, _check_report),
)
