"""Texts that people type: names of models, scores, schedules, partitions, options; queries."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regraft import allocate, losses, models, schedules, scores
from regraft.cli.dataset import parse_classes
from regraft.cli.distance import parse_image
from regraft.cli.export import _shape
from regraft.cli.merge_options import parse_density
from regraft.errors import RegraftError
from regraft.federated import partition
from regraft.federated.gossip import links
from regraft.merging import combine
from regraft.models.build import MODELS
from regraft.prune import paths
from regraft.schedules import Progress
from regraft.search import named as searches
from regraft.studies.store.database import FILE, Store
from regraft.studies.store.query import query
from regraft.studies.study import Result
from regraft.train import optimizers

from . import mutate, trees
from .target import Target, require

SCORE = (
    "snip", "grasp:temperature=1:magnitude=yes", "stacked(magnitude, synflow):signed=yes:scale=none",
    "connectivity",
    "inverted(snip:normalise=yes)", "connectivity:importance=paths:power=2",
    "stacked(snip, stacked(snip, fisher))",
)  # fmt: skip
SCORE_WORDS = (
    "snip", "grasp", "magnitude", "synflow", "stacked(", "inverted(", "connectivity", "learned:",
    ":temperature=", ":power=",
    ":scale=", ":signed=", "yes", "no", "nan", "inf", "-1", "weights", ")", ",", "learned:/etc/passwd",
    "learned:.",
)  # fmt: skip


def _score(rng: random.Random) -> str:
    if rng.random() < 0.05:
        return rng.choice(SCORE)
    return mutate.changed_text(rng, rng.choice(SCORE), SCORE_WORDS)


def _parse_score(text: str, folder: Path) -> None:
    score = scores.parse(text)
    require(
        scores.parse(scores.text_of(score)) == score, f"{scores.text_of(score)!r} is read as another score"
    )


MODEL = (
    "mlp:6-8-3", "mlp:in-32-classes", "mlp", "lenet-300-100", "lenet-5", "resnet-8", "resnet:8", "wrn-10-1",
    "wrn:10-2", "gpt:1-8-2", "vit-1-8-2-4",
)  # fmt: skip
MODEL_WORDS = (
    "mlp:",
    "resnet-",
    "wrn-",
    "lenet-",
    "in",
    "classes",
    "-",
    ":",
    "8",
    "20",
    "10",
    "6002",
    "99999999999",
)


def _model(rng: random.Random) -> tuple[str, Any]:
    text = rng.choice(MODEL)
    if rng.random() < 0.9:
        text = mutate.changed_text(rng, text, MODEL_WORDS)
    return text, rng.choice((None, (6,), (1, 28, 28), (3, 32, 32), (28, 28), (), (0,)))


def _parse_model(case: tuple[str, Any], folder: Path) -> None:
    text, shape = case
    spec = models.resolve(text, input_shape=shape, classes=None if shape is None else 3)
    model = models.build(spec, device="meta")
    require(all(p.is_meta for p in model.parameters()), "values were made")


def _spec(rng: random.Random) -> str:
    return trees.changed(rng, rng.choice(_specs()))


@functools.cache
def _specs() -> tuple[str, ...]:
    return tuple(
        json.dumps(models.resolve(name))
        for name in (
            "mlp:6-8-3",
            "lenet-300-100",
            "lenet-5",
            "resnet-8",
            "wrn-10-1",
            "gpt:1-8-2",
            "vit:1-8-2-4",
        )
    )


def _build_spec(text: str, folder: Path) -> None:
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RegraftError("no JSON") from error
    if not isinstance(spec, dict):
        raise RegraftError("no object")
    model = models.build(spec, device="meta")
    require(spec["name"] in MODELS and any(True for _ in model.parameters()), "an unknown model was built")


OPTIONS = (
    "exd:interest=0.05", "osv:high=0.3,low=0.01,k=1", "constant:value=0.1", "cosine", "ldv:high=0.5",
    "StepLR:step_size=2,gamma=0.5", "MultiStepLR:milestones=[3,6],gamma=0.5", "cosine:end=0.01",
    "exponential:steepness=2",
    "CosineAnnealingLR:T_max=5", "OneCycleLR:max_lr=0.1,total_steps=10", "CyclicLR:base_lr=0.1,max_lr=1",
    "linear",
)  # fmt: skip
OPTION_WORDS = (
    "exd", "osv", "constant", "StepLR", ":", ",", "=", "k=", "gamma=", "step_size=", "interest=", "[1,2]",
    "{", "}", "0.5",
    "true", "null", '"x"', "1e999", "NaN", "Infinity", "-1", "0", "1e-320", "1e308", "optimizer=1",
    "last_epoch=5", "T_0=0",
    "milestones=", "end=", "steepness=", "total_iters=0", "eta_min=", "start_factor=0",
)  # fmt: skip


def _options(rng: random.Random) -> tuple[str, int]:
    text = rng.choice(OPTIONS)
    return mutate.changed_text(rng, text, OPTION_WORDS) if rng.random() < 0.95 else text, rng.randrange(2)


def _parse_options(case: tuple[str, int], folder: Path) -> None:
    text, which = case
    if which:
        rule = optimizers.rate_by_name(text)
        for done in (0, 1, 5, 10):
            require(isinstance(rule(Progress(done, 10)), float | int), "a rate that is no number")
        return
    layer = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    schedule = optimizers.schedule_by_name(text, optimizer, 5)
    require(hasattr(schedule, "step"), "no schedule")


def _named(rng: random.Random) -> tuple[int, str]:
    which = rng.randrange(len(PARSERS))
    known = PARSERS[which][0]
    text = rng.choice(known)
    return which, mutate.changed_text(rng, text, known, 2) if rng.random() < 0.95 else text


PARSERS: tuple[tuple[tuple[str, ...], Callable[[str], Any]], ...] = (
    (("iid", "dirichlet:0.3", "dirichlet:1e-3", "classes:2"), partition.parse),
    (("keep", "none", "0.05", "1"), parse_density),
    (("28x28", "8X16"), parse_image),
    (("0,1,Dress", "a"), parse_classes),
    (("1x28x28", "784"), _shape),
    (("ring", "random", "full"), links.by_name),
    (tuple(schedules.RATES), schedules.by_name),
    (tuple(allocate.ALLOCATIONS), allocate.by_name),
    (("cross-entropy", "mse"), losses.by_name),
    (tuple(searches.SEARCHES), searches.by_name),
    (tuple(combine.RULES), combine.by_name),
    (("exponential", "linear", "cubic"), paths.by_name),
    (("sgd", "adam", "adagrad"), lambda text: optimizers.check_optimizer(text, lr=0.1)),
)


def _parse_named(case: tuple[int, str], folder: Path) -> None:
    which, text = case
    PARSERS[which][1](text)


QUERIES = (
    "SELECT * FROM cells", "SELECT count(*) FROM rows WHERE accuracy > 0.5",
    "SELECT * FROM mine ORDER BY 1 LIMIT 2",
    "SELECT e.value FROM epochs e", "WITH t AS (SELECT 1 AS x) SELECT x FROM t",
)  # fmt: skip
QUERY_WORDS = (
    "SELECT ", "FROM ", "cells", "rows", "mine", "WHERE ", "1", "'", '"', "--", "/*", ";",
    "DROP TABLE cells", "PRAGMA ",
    "ATTACH 'x' AS y", "load_extension('x')", "writefile('x', 1)", "(", ")", "?", ":a", "@b", "$c",
    "randomblob(1000)",
    "zeroblob(1000)", "x'ff'", "UNION ALL ", "LIMIT ", "\0", "1e999", "CREATE TEMP VIEW v AS SELECT 1",
    "VACUUM INTO 'x'",
    "PRAGMA table_info(cells)", "PRAGMA journal_mode=DELETE", "EXPLAIN ", "fts3_tokenizer", "json('[')",
    "DELETE FROM cells",
)  # fmt: skip


@functools.cache
def _database() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-queries-"))
    with Store(folder / FILE) as store:
        rows = [{"accuracy": 0.5}, {"accuracy": 0.6}]
        store.add(
            "mine", "smoke", [Result("0" * 32, "train", {"seed": 1}, rows, [{"loss": 1.0}], Path(), 1.0)]
        )
    return folder


def _ask(text: str, folder: Path) -> None:
    database = _database()
    before = (database / FILE).stat().st_mtime_ns
    answer = query(database, text, study="mine")
    require(all(len(row) == len(answer.columns) for row in answer.rows), "rows and columns differ")
    require((database / FILE).stat().st_mtime_ns == before, "the query wrote")
    require(sorted(p.name for p in database.iterdir()) == [FILE], "the query made a file")


GROUP = "texts"
TARGETS = (
    Target("score-text", GROUP, 25_000, _score, _parse_score),
    Target("model-text", GROUP, 15_000, _model, _parse_model),
    Target("model-spec", GROUP, 10_000, _spec, _build_spec),
    Target("option-text", GROUP, 15_000, _options, _parse_options),
    Target("names", GROUP, 15_000, _named, _parse_named),
    Target(
        "query", GROUP, 10_000, lambda rng: mutate.changed_text(rng, rng.choice(QUERIES), QUERY_WORDS), _ask
    ),
)
