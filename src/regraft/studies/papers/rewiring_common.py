"""What the studies of thesis 3 share: its five methods, one training of each, and parameter counts.

Sparse networks start, and grow connections, with values as wide as in SET's published code, whose standard
deviation is 0.1 at any size: +-1 / sqrt(connections of a unit), which is 0.09 at 40 connections. The dense
network draws from the same rule.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regraft import layers, measure, models
from regraft.errors import InputError
from regraft.report.figures import Bars, Boxes, Figure, Lines, Pictures, Series, box
from regraft.studies.study import Cell, Outcome, Row, Rows, Work, step
from regraft.train import Callback, Recipe, build_model, seeds, train_recipe
from regraft.train.run import Run
from regraft.weight import SparseWeight

SPARSE = ("SET", "LDV", "OSV", "EXD")
PROPOSED = SPARSE[1:]
METHODS = ("dense", *SPARSE)
GENTLE = "dense, a tenth of the rate"
FAST, FIXED = "EXD, twelve times faster", "no change"
SHOWN = ("dense", GENTLE, *SPARSE, FAST, FIXED)
CALLS = 15  # of which the inference time is the median


class ProcessorTime(Callback):
    """Seconds of processor time of each epoch's steps and changes of topology, without its evaluation.

    Other processes on the machine lengthen the time on the wall, but hardly this one.
    """

    name = "processor-time"

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = self._last = 0.0

    def on_epoch_start(self, run: Run) -> None:
        self._start = time.process_time()

    def on_step(self, run: Run) -> None:
        self._last = time.process_time() - self._start

    def on_epoch_end(self, run: Run) -> None:
        self.seconds.append(self._last)


def rate_of(method: str, interest: float) -> str:
    """The evolution rate of a sparse method, as ``Recipe.rate`` names it (thesis 3, sections 4.3 to 4.5).

    >>> rate_of("EXD", 0.01), rate_of(FAST, 0.01), rate_of("SET", 0.01)
    ('exd:start=0.3,interest=0.01', 'exd:start=0.3,interest=0.12', 'constant')
    """
    if method.startswith("SET"):  # at any density
        return "constant"
    rates = {
        "EXD": f"exd:start=0.3,interest={interest}", FIXED: "constant:value=0",
        FAST: f"exd:start=0.3,interest={12 * interest:g}",
    }  # fmt: skip
    return rates.get(method, method.lower())


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """The recipe of a training: ReLU, dropout, SGD with momentum 0.9."""
    dense, gentle = config["method"] in ("dense", GENTLE), config["method"] == GENTLE
    sparse: dict[str, Any] = {
        "epsilon": config["epsilon"], "evolve": "set", "grow_init": "fan_in",
        "rate": rate_of(config["method"], config["interest"]),
    }  # fmt: skip
    return Recipe(
        f"mlp:in-{'-'.join(str(n) for n in config['hidden'])}-classes", dense=dense, init="torch",
        dropout=config["dropout"], lr=config["lr"] * (0.1 if gentle else 1.0), momentum=0.9,
        batch_size=config["batch_size"], epochs=config["epochs"], seed=config["seed"],
        **({} if dense else sparse),
    )  # fmt: skip


@step
def training(work: Work) -> Outcome:
    """One network by one method: accuracy over epochs, time of an epoch and of inference, parameters."""
    config = work.config
    options = dict(config["data"])
    data, recipe, clock = work.data(options.pop("name"), **options), recipe_of(config), ProcessorTime()
    model = build_model(recipe, data)
    lines = _Lines(config.get("stop"))
    try:
        train_recipe(recipe, data, model=model, callbacks=[clock, lines])
    except InputError as error:
        if "diverged" not in str(error):
            raise
    # a network that diverged has the accuracy of its last whole epoch, or of guessing
    accuracies = [e["test_accuracy"] for e in lines.epochs] or [100 / data.classes]
    size = size_of(model)
    row: Row = {
        "kind": "training", "accuracy": accuracies[-1], "best": max(accuracies),
        "swing": statistics.stdev(accuracies[len(accuracies) // 2 :]) if len(accuracies) > 3 else None,
        "diverged": len(lines.epochs) < (config.get("stop") or config["epochs"]),
        "chance": 100 / data.classes,
        "epoch_ms": 1000 * statistics.median(clock.seconds) if clock.seconds else None,
        "one_ms": inference_ms(model, data.test.x[:1]),
        "hundred_ms": inference_ms(model, data.test.x[:100]), **size,
    }  # fmt: skip
    rows = [row]
    if config["pattern"]:
        rows.append({"kind": "pattern", **_pattern(model, data.input_shape)})
    return Outcome(rows, lines.epochs)


class _Lines(Callback):
    """Test accuracy in percent, training loss and evolution rate of each epoch; ends training after
    ``stop`` epochs, while the rates go on as if it were to last to the end."""

    name = "lines"

    def __init__(self, stop: int | None) -> None:
        self.epochs: list[Row] = []
        self._stop = stop

    def on_epoch_end(self, run: Run) -> None:
        last = run.history.epochs[-1]
        row: Row = {"epoch": last["epoch"], "test_accuracy": 100 * last["test_accuracy"]}
        self.epochs.append(row | {k: last[k] for k in ("train_loss", "rate") if k in last})
        if len(self.epochs) == self._stop:
            run.stop(f"only the first {self._stop} epochs are asked for")


@step
def counting(work: Work) -> Outcome:
    """Parameters of a network, dense and sparse, without training it."""
    name = f"mlp:{'-'.join(str(n) for n in work.config['sizes'])}"
    model = layers.sparsify(
        models.build(name, device="meta"), epsilon=work.config["epsilon"],
        generator=seeds.stream(0, "topology"),
    )  # fmt: skip
    return Outcome([{"kind": "size", **size_of(model)}])


def size_of(model: nn.Module) -> Row:
    """Parameters of a network and of the dense network of its sizes."""
    own = sum(p.numel() for p in model.parameters())
    gone = sum(m.size - m.nnz for m in model.modules() if isinstance(m, SparseWeight))
    return {"parameters": own, "dense_parameters": own + gone, "compression": (own + gone) / own}


@torch.no_grad()
def inference_ms(model: nn.Module, x: Tensor) -> float:
    """Median milliseconds of processor time of one prediction of ``x``."""
    taken = []
    with measure.evaluating(model):
        for _ in range(CALLS + 2):  # the first calls fill caches
            start = time.process_time()
            model(x)
            taken.append(time.process_time() - start)
    return 1000 * statistics.median(taken[2:])


def _pattern(model: nn.Module, shape: Sequence[int]) -> Row:
    """How many connections leave each input unit, as text of numbers, row by row."""
    first = next((m for m in model.modules() if isinstance(m, SparseWeight)), None)
    if first is None or len(shape) != 3:
        return {"shape": "", "counts": ""}
    counts = torch.bincount(first.index % first.shape[1], minlength=first.shape[1])
    return {
        "shape": f"{shape[1]} {shape[2]}",
        "counts": " ".join(str(int(n)) for n in counts[: shape[1] * shape[2]]),
    }


def trainings(settings: Mapping[str, Any], methods: Sequence[str] = METHODS) -> list[Cell]:
    """One cell a method and seed; ``settings`` hold everything else that a training needs.

    A seed chooses the samples or the split of the data too, the same for all methods.
    """
    names = ("data", "hidden", "epsilon", "interest", "dropout", "lr", "batch_size", "epochs")
    common = {name: settings[name] for name in names}
    if "stop" in settings:
        common["stop"] = settings["stop"]
    return [
        Cell(training, {
            **common, "data": {**common["data"], "seed": seed}, "method": method, "seed": seed,
            "pattern": seed == 0,
        })
        for seed in range(settings["seeds"])
        for method in methods
    ]  # fmt: skip


def by_seed(rows: Rows, name: str, method: str, **where: Any) -> dict[int, float]:
    """A column of a method's trainings, for the seeds that have it, in their order."""
    found = {int(r["seed"]): r[name] for r in rows.where(kind="training", method=method, **where).rows}
    return {seed: float(found[seed]) for seed in sorted(found) if found[seed] is not None}


def of(name: str, method: str, **where: Any) -> Callable[[Rows], list[float]]:
    """A column of a method's trainings as the samples of a claim."""
    return lambda rows: list(by_seed(rows, name, method, **where).values())


def share(name: str, method: str, other: str, **where: Any) -> Callable[[Rows], list[float]]:
    """A column of a method in percent of another method's, for the seeds that have both."""

    def values(rows: Rows) -> list[float]:
        ours, others = (by_seed(rows, name, m, **where) for m in (method, other))
        return [100 * value / others[seed] for seed, value in ours.items() if seed in others]

    return values


def whole(samples: Callable[[Rows], Sequence[float]]) -> Callable[[Rows], list[float]]:
    """100 % for each sample of a share: what it is compared with."""
    return lambda rows: [100.0] * len(samples(rows))


def accuracy_lines(rows: Rows, title: str, caption: str, first: int | None = None, **where: Any) -> Lines:
    """Mean test accuracy over epochs with its spread over seeds; up to an epoch where ``first`` says so."""
    chosen = {r["cell"] for r in rows.where(kind="training", **where).rows}
    found: dict[str, dict[float, list[float]]] = {}
    for result in rows.results:
        for e in result.epochs if result.key in chosen else ():
            if first is None or e["epoch"] <= first:
                line = found.setdefault(str(result.config["method"]), {})
                line.setdefault(e["epoch"], []).append(e["test_accuracy"])
    series: list[Series] = []
    for method in SHOWN:
        if method in found:
            y = found[method].values()
            series.append({
                "name": method, "x": list(found[method]), "y": [statistics.fmean(v) for v in y],
                "spread": [statistics.stdev(v) if len(v) > 1 else 0.0 for v in y],
            })  # fmt: skip
    return {"kind": "lines", "title": title, "caption": caption, "x": "epoch", "y": "test accuracy, %",
            "series": series}  # fmt: skip


def accuracy_boxes(rows: Rows, title: str, caption: str, **where: Any) -> Boxes:
    """Final test accuracy of each method over seeds."""
    boxes = [box(m, values) for m in SHOWN if (values := of("accuracy", m, **where)(rows))]
    return {"kind": "boxes", "title": title, "caption": caption, "y": "test accuracy, %", "boxes": boxes}


def time_bars(
    title: str, caption: str, groups: Mapping[str, Rows], name: str, y: str, methods: Sequence[str] = SHOWN
) -> Bars:
    """The median of a column for each method; one group of bars for each set of rows."""

    def median(rows: Rows, method: str) -> float | None:
        values = of(name, method)(rows)
        return statistics.median(values) if values else None

    return {
        "kind": "bars", "title": title, "caption": caption, "y": y, "groups": list(groups), "log_y": True,
        "sets": [{"name": m, "values": [median(rows, m) for rows in groups.values()]} for m in methods],
    }  # fmt: skip


def pattern_pictures(rows: Rows, title: str, **where: Any) -> list[Figure]:
    """Connections that leave each pixel after training, one picture a method; none without images."""
    found = [r for r in rows.where(kind="pattern", **where).rows if r["shape"]]
    if not found:
        return []
    made: Pictures = {
        "kind": "pictures", "title": title,
        "caption": "How many connections leave each input unit after training; bright is many.",
        "shape": [int(n) for n in found[0]["shape"].split()],
        "pictures": [
            {"name": str(r["method"]), "values": [float(n) for n in r["counts"].split()]} for r in found
        ],
    }  # fmt: skip
    return [made]
