"""``growth-search``: new connections where activations and gradients have large inner products (thesis 4).

A wide residual network on CIFAR-100, all convolutions sparse with the same density, the classifier dense. An
update drops the fraction K of each layer's connections, those of smallest magnitude, and grows as many where
a search finds the largest products. All networks of a seed and density begin with the same connections.
"""

from __future__ import annotations

import statistics as st
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import torch.nn.functional as F

from regraft import evolve
from regraft.data import Data, Split
from regraft.report import Results, Table
from regraft.report.figures import Bars, BarSet, Box, Figure, Lines, Series, box
from regraft.search import Lsh
from regraft.studies.claims import Claim, Number, Order
from regraft.studies.papers import growth_published as published
from regraft.studies.papers.growth_published import BASIC, EPOCH, LINES, STATIC, STATIC_90, STEP, Line
from regraft.studies.statistics import by_seed
from regraft.studies.study import Cell, Outcome, Preset, Row, Rows, Study, Work, step
from regraft.train import EvolveTopology, History, Recipe, fit, optimizers, seeds
from regraft.train.recipe import build_model

SETTING = (
    "data", "coarse", "per_class", "test_per_class", "side", "model", "epochs", "batch_size", "lr",
    "exclude", "samples",
)  # fmt: skip
RANDOM = Line("-", 80, "random", "abs", 0.01, STEP, None, None, 0.0, 0.0)
"""Not in the thesis: random growth on the same schedule, which tells the search from the schedule."""


@step(version=1)
def train(work: Work) -> Outcome:
    """Train one network.

    Configuration: ``SETTING``, seed, density (1 for a dense network), level (the sparsity that it stands for,
    in percent), growth: ``search`` (None, "random", or a name of ``regraft.search``), ``metric``,
    ``fraction``, ``every`` (in steps), ``k_similar``, ``bits``.
    """
    config = work.config
    data = shrunk(
        work.data(
            config["data"],
            per_class=config["per_class"],
            test_per_class=config["test_per_class"],
            **({"coarse": True} if config["coarse"] else {}),
        ),
        config["side"],
    )
    history = trained(config, data)
    parts = ("seconds", "search_seconds", "rewire_seconds", "dropped", "regrown")
    sums = {part: float(sum(row.get(part, 0.0) for row in history.epochs)) for part in parts}
    ever = [row["explored"] for row in history.epochs if "explored" in row]
    row: Row = {
        "accuracy": history.final["test_accuracy"],
        "train_loss": history.final["train_loss"],
        "ever_active": ever[-1] if ever else config["density"],
        **sums,
    }
    names = ("epoch", "train_loss", "test_loss", "test_accuracy")
    return Outcome([row], [{name: line[name] for name in names} for line in history.epochs])


def trained(config: Mapping[str, Any], data: Data) -> History:
    """Train the network that a configuration describes."""
    growth, dense = config["growth"], config["density"] == 1.0
    kind: dict[str, Any] = {"dense": True} if dense else {
        "density": config["density"], "allocate": "uniform", "exclude": tuple(config["exclude"]),
        "evolve": "none",
    }  # fmt: skip
    recipe = Recipe(
        config["model"], epochs=config["epochs"], batch_size=config["batch_size"], lr=config["lr"],
        momentum=0.9, weight_decay=5e-4, lr_schedule="cosine", seed=config["seed"], **kind,
    )  # fmt: skip
    model = build_model(recipe, data)
    optimizer = optimizers.optimizer_by_name(
        "sgd", model.parameters(), lr=config["lr"], momentum=0.9, weight_decay=recipe.weight_decay
    )
    callbacks = []
    if growth["search"] is not None:
        steps = -(-len(data.train) // config["batch_size"])
        chosen = evolve.method(
            "set-magnitude" if growth["search"] == "random" else "search",
            rate=growth["fraction"],
            grow=_grow(growth, config),
            every=growth["every"],
            total=(config["epochs"] - 1) * steps + 1,  # new connections of the last epoch would learn nothing
            generator=seeds.stream(config["seed"], "evolve"),
            explore=True,
        )
        callbacks.append(EvolveTopology(chosen.attach(model, optimizer)))
    return fit(
        model, data, epochs=config["epochs"], optimizer=optimizer, batch_size=config["batch_size"],
        scheduler=optimizers.schedule_by_name("cosine", optimizer, config["epochs"]), seed=config["seed"],
        callbacks=callbacks,
    )  # fmt: skip


def _grow(growth: Mapping[str, Any], config: Mapping[str, Any]) -> evolve.Grow | None:
    if growth["search"] == "random":
        return None
    common: dict[str, Any] = {"metric": growth["metric"], "samples": config["samples"]}
    if growth["search"] == "lsh":
        return evolve.InnerProduct(Lsh(growth["bits"], growth["k_similar"]), **common)
    return evolve.InnerProduct(growth["search"], growth["k_similar"], **common)


def shrunk(data: Data, side: int | None) -> Data:
    """Images of side x side pixels, each the mean of a square; None leaves them as they are."""
    if side is None:
        return data

    def smaller(split: Split) -> Split:
        return Split(F.avg_pool2d(split.x, split.x.shape[-1] // side), split.y)

    return replace(data, train=smaller(data.train), test=smaller(data.test))


def cell(settings: Mapping[str, Any], line: Line, seed: int) -> Cell:
    """The cell of one run of a line."""
    growth = dict(line.growth)
    if growth["search"] is not None:
        growth["every"] = settings["every"][line.every]
    density = {0: 1.0, 80: settings["densities"][0], 90: settings["densities"][1]}[line.level]
    config = {name: settings[name] for name in SETTING}
    return Cell(train, {**config, "density": density, "level": line.level, "growth": growth, "seed": seed})


def cells(settings: Mapping[str, Any]) -> list[Cell]:
    """The lines that a preset asks for, by name and level, with all seeds."""
    asked = settings["lines"]
    chosen = [each for each in (*LINES, RANDOM) if asked is None or f"{each.level} {each.name}" in asked]
    return [cell(settings, line, seed) for seed in settings["seeds"] for line in chosen]


def rows_of(rows: Rows, line: Line) -> Rows:
    """The rows of a line; "each step" stands for the shortest time between updates, as presets differ."""
    wanted: dict[str, Any] = {f"growth.{k}": v for k, v in line.growth.items() if k != "every"}
    found = rows.where(level=line.level, **wanted)
    times = sorted(set(rows.column("growth.every")))
    if line.search is None or not times:
        return found
    return found.where(**{"growth.every": times[0] if line.every == STEP else times[-1]})


def samples(rows: Rows, line: Line, column: str = "accuracy", scale: float = 100.0) -> dict[Hashable, float]:
    """One number for each seed of a line."""
    return by_seed(rows_of(rows, line).rows, column, scale=scale)


def number(line: Line) -> Number:
    """A published accuracy. Its runs are single ones; between runs that differ in the search alone the
    thesis's own accuracies differ by up to 5 points, by 1 on average."""
    source = f"thesis 4, table {line.table}"
    text = f"{line.name}, {line.level} % sparse"
    return Number(text, source, line.accuracy, 2.0, lambda rows: samples(rows, line))


def above(better: Line, worse: Line, source: str) -> Order:
    """That one line's networks are more accurate than another's, seed by seed."""
    return Order(
        f"{better.name} ({better.level} % sparse) above {worse.name} ({worse.level} %)",
        f"thesis 4, {source}",
        lambda rows: samples(rows, better),
        lambda rows: samples(rows, worse),
        published=round(better.accuracy - worse.accuracy, 2),
    )


def faster(quick: Line, slow: Line, source: str) -> Order:
    """That growth takes less of one line's time than of another's."""
    return Order(
        f"growth costs less: {quick.name} than {slow.name}",
        f"thesis 4, {source}",
        lambda rows: _cost(rows, slow),
        lambda rows: _cost(rows, quick),
        unit="s",
    )


def _cost(rows: Rows, line: Line) -> dict[Hashable, float]:
    search, rewire = (samples(rows, line, part, 1.0) for part in ("search_seconds", "rewire_seconds"))
    return {seed: search[seed] + rewire[seed] for seed in search}


def _claims() -> list[Claim]:
    brute = {k: published.line("3.1", "exact", k) for k in (0.01, 0.05, 0.1)}
    distance = {k: published.line("3.2", "exact", k) for k in (0.01, 0.05, 0.1)}
    each_epoch = published.line("3.3", "exact", 0.01)
    hashed, hashed_90 = published.line("3.4", "lsh", 0.05, 1.0), published.line("3.5", "lsh", 0.01, 1.0)
    return [
        *(number(line) for line in LINES),
        above(BASIC, STATIC, "table 3.1"),
        above(STATIC, STATIC_90, "tables 3.1, 3.5"),
        above(brute[0.01], STATIC, "table 3.1"),
        *(above(brute[k], distance[k], "tables 3.1, 3.2") for k in brute),
        above(STATIC, distance[0.01], "table 3.2"),
        above(brute[0.01], brute[0.1], "chapter 3: the more often, the fewer"),
        above(each_epoch, STATIC, "table 3.3"),
        above(hashed, STATIC, "table 3.4"),
        above(hashed_90, STATIC_90, "table 3.5"),
        faster(each_epoch, brute[0.01], "table 3.3"),
        faster(published.line("3.1", "faiss", 0.01, 0.125), brute[0.01], "table 3.1, chapter 3"),
        faster(
            published.line("3.4", "lsh", 0.05, 1.0), published.line("3.4", "lsh", 0.05, 8.0), "table 3.4"
        ),
    ]  # fmt: skip


def report(rows: Rows) -> Results:
    """Tables 3.1 to 3.5, what growth costs, and how much of the topology was ever active."""
    done = [line for line in (*LINES, RANDOM) if samples(rows, line)]
    if not done:
        return {"summary": "No network has been trained yet."}
    figures: list[Figure] = [_boxes(rows, done), _gains(rows, done), _curves(rows, done), _times(rows, done)]
    best = max((e for e in done if e.level), key=lambda e: st.fmean(samples(rows, e).values()))
    still = samples(rows, STATIC if best.level == STATIC.level else STATIC_90)
    gain = st.fmean(samples(rows, best).values()) - st.fmean(still.values()) if still else 0.0
    return {
        "title": STUDY.title,
        "summary": f"The best sparse network is that of {best.name}, with "
        f"{st.fmean(samples(rows, best).values()):.1f} %, {gain:+.1f} points beside one whose topology does "
        "not change.",
        "figures": figures,
        "tables": [_table(rows, done)],
    }


def _named(line: Line) -> str:
    return line.name if not line.level else f"{line.name} ({line.level} %)"


def _boxes(rows: Rows, done: list[Line]) -> Figure:
    drawn: list[Box] = [box(_named(line), [*samples(rows, line).values()]) for line in done]
    return {
        "kind": "boxes", "title": "Accuracy", "y": "accuracy, %", "boxes": drawn,
        "caption": "One value for each seed; in brackets the sparsity that the thesis has there.",
    }  # fmt: skip


def _gains(rows: Rows, done: list[Line]) -> Bars:
    """What growth gains over a topology that does not change, beside the thesis."""
    groups, here, spread, there = [], [], [], []
    for line in done:
        still = STATIC if line.level == STATIC.level else STATIC_90
        base = samples(rows, still)
        gains = [v - base[seed] for seed, v in samples(rows, line).items() if seed in base]
        if line.search is not None and gains:
            groups.append(_named(line))
            here.append(st.fmean(gains))
            spread.append(st.stdev(gains) if len(gains) > 1 else None)
            there.append(round(line.accuracy - still.accuracy, 2) if line.accuracy else None)
    sets: list[BarSet] = [
        {"name": "here", "values": [*here], "spread": spread},
        {"name": "thesis", "values": [*there]},
    ]
    return {
        "kind": "bars", "title": "Gain over a topology that does not change",
        "caption": "Differences seed by seed; the thesis's of single runs.", "y": "points of accuracy",
        "groups": groups, "sets": sets,
    }  # fmt: skip


def _curves(rows: Rows, done: list[Line]) -> Lines:
    drawn: list[Series] = []
    for line in done:
        keys = set(rows_of(rows, line).column("cell"))
        points: dict[float, list[float]] = {}
        for result in rows.results:
            for row in result.epochs if result.key in keys else ():
                points.setdefault(row["epoch"], []).append(100 * row["test_accuracy"])
        means: list[float | None] = [st.fmean(values) for values in points.values()]
        drawn.append({"name": _named(line), "x": [*points], "y": means})
    return {
        "kind": "lines", "title": "Learning curves", "caption": "Means over the seeds.", "x": "epoch",
        "y": "accuracy, %", "series": drawn,
    }  # fmt: skip


def _times(rows: Rows, done: list[Line]) -> Bars:
    parts = {"search": "search_seconds", "rewiring": "rewire_seconds"}
    grown = [line for line in done if line.search is not None]
    sets: list[BarSet] = [
        {
            "name": name,
            "values": [
                100 * st.fmean(samples(rows, line, column, 1.0).values())
                / st.fmean(samples(rows, line, "seconds", 1.0).values())
                for line in grown
            ],
        }
        for name, column in parts.items()
    ]  # fmt: skip
    return {
        "kind": "bars", "title": "What growth costs", "caption": "Shares of the training time.",
        "y": "% of training time", "groups": [_named(line) for line in grown], "sets": sets,
    }  # fmt: skip


def _table(rows: Rows, done: list[Line]) -> Table:
    cells = []
    for line in done:
        values = [*samples(rows, line).values()]
        found = rows_of(rows, line)
        spread = st.stdev(values) if len(values) > 1 else None
        cells.append(
            [
                line.table, line.name, line.level, len(values), st.fmean(values), spread,
                line.accuracy or None, found.mean("train_loss"), found.mean("dropped"),
                100 * (found.mean("ever_active") or 0.0), found.mean("seconds"), line.hours or None,
            ]
        )  # fmt: skip
    return {
        "title": "Tables 3.1 to 3.5",
        "columns": [
            "table", "growth", "sparsity there, %", "seeds", "accuracy, %", "spread", "thesis, %",
            "training loss", "replaced", "ever active, %", "training, s", "thesis, h",
        ],
        "rows": cells,
    }  # fmt: skip


FEW = [
    "0 dense", "80 static", "80 random, K 0.01, each step", "80 abs(IP), brute force, K 0.01, each step",
    "80 L2, brute force, K 0.01, each step", "80 abs(IP), brute force, K 0.01, each epoch",
]  # fmt: skip
"""What preset small runs of the tables."""

SMALL: dict[str, Any] = {
    "data": "cifar100-subset", "coarse": True, "per_class": 100, "test_per_class": 250, "side": 16,
    "model": "wrn-10-1", "epochs": 8, "batch_size": 64, "lr": 0.1, "exclude": ["fc"], "samples": 4096,
    "densities": [0.05, 0.025], "every": {STEP: 5, EPOCH: 32}, "lines": FEW, "seeds": [0, 1],
}  # fmt: skip
SMOKE: dict[str, Any] = {
    **SMALL, "data": "digits", "coarse": False, "per_class": 4, "test_per_class": 5, "side": None,
    "epochs": 2, "batch_size": 10, "every": {STEP: 1, EPOCH: 4}, "seeds": [0],
    "lines": [*FEW, "90 static", "90 abs(IP), LSH 1 bits, K 0.01, each step"],
}  # fmt: skip
PAPER: dict[str, Any] = {
    **SMALL, "data": "cifar-100", "coarse": False, "per_class": None, "test_per_class": None, "side": None,
    "model": "wrn-28-5", "epochs": 70, "batch_size": 256, "densities": [0.2, 0.1],
    "every": {STEP: 1, EPOCH: 196}, "lines": None, "seeds": [0],
}  # fmt: skip

STUDY = Study(
    name="growth-search",
    title="Growing connections where inner products are largest",
    reproduces="thesis 4, tables 3.1-3.5",
    about="A sparse residual network drops its smallest weights while it trains and grows new ones where a "
    "search for inner products expects the largest gradients. Does it learn better than with a topology that "
    "does not change, by which metric and search, how often, and at what cost?",
    cells=cells,
    presets={
        "smoke": Preset(SMOKE, "5 s"),
        "small": Preset(SMALL, "6 min", data=("cifar100-subset",)),
        "paper": Preset(PAPER, "two months", data=("cifar-100",), comparable=True),
    },
    claims=_claims(),
    report=report,
    differs=(
        "The thesis does not give its learning rate, its schedule, or whether images were augmented; "
        "here SGD from 0.1 along a cosine with momentum 0.9 and weight decay 0.0005, and no augmentation.",
        "Brute force here is a search that finds the same connections without computing all products, so "
        "that it takes less time than the thesis's, and less than an index of neighbours.",
        "A search looks at 4096 positions of the minibatch's feature maps, drawn at random.",
        "Preset small has WRN-10-1, 2000 images of 16 x 16 pixels in 20 classes and 8 epochs; 80 and 90 % "
        "sparse become 95 and 97.5 %, since so small a network lacks nothing at 80 %. Each fifth step stands "
        "for each step.",
        "Random growth on the same schedule is not in the thesis: it tells the search from the schedule.",
    ),
)
STUDIES = [STUDY]
