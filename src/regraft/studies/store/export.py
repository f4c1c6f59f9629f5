"""Results of a study in files for other programs: CSV, JSON, Parquet, TensorBoard."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.container import telling
from regraft.errors import InputError, MissingDependency
from regraft.files import atomic_write
from regraft.studies.folder import Folder
from regraft.studies.store.frames import What, frame, records
from regraft.studies.study import Row, Study

Place = str | os.PathLike[str]


def to_csv(folder: Folder | Place, study: Study, preset: str, path: Place, what: What = "rows") -> int:
    """Write rows or epochs as CSV with a line of names; what is missing is empty.

    Returns:
        The number of lines after the first.

    Raises:
        FileError: no folder of results, its database cannot be used, or ``path`` cannot be written.
        InputError: the study has no such preset.
    """
    found = records(folder, study, preset, what)
    columns = columns_of(found)
    write_csv(path, columns, ([row.get(c) for c in columns] for row in found))
    return len(found)


def write_csv(path: Place, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(rows)
        text.flush()
        text.detach()


def to_json(folder: Folder | Place, study: Study, preset: str, path: Place, what: What = "rows") -> int:
    """Write rows or epochs as JSON: study, preset, and a list of objects.

    Returns:
        The number of objects.

    Raises:
        FileError: no folder of results, its database cannot be used, or ``path`` cannot be written.
        InputError: the study has no such preset.
    """
    found = records(folder, study, preset, what)
    whole = {"study": study.name, "preset": preset, what: found}
    with atomic_write(path) as file:
        file.write(json.dumps(whole, indent=1).encode())
    return len(found)


def to_parquet(folder: Folder | Place, study: Study, preset: str, path: Place, what: What = "rows") -> int:
    """Write rows or epochs as Parquet.

    A column in which numbers and text are mixed becomes text.

    Returns:
        The number of rows.

    Raises:
        FileError: no folder of results, its database cannot be used, or ``path`` cannot be written.
        InputError: the study has no such preset.
        MissingDependency: pandas or pyarrow is not installed.
    """
    try:
        importlib.import_module("pyarrow")
    except ImportError:
        raise MissingDependency("pyarrow", "parquet", "writing Parquet (CSV needs nothing)") from None
    made = frame(folder, study, preset, what)
    for name in made.columns:
        column = made[name]
        if column.dtype == object and not all(v is None or isinstance(v, str) for v in column):
            made[name] = [None if v is None or v != v else str(v) for v in column]
    with atomic_write(path) as file:
        buffer = io.BytesIO()
        made.to_parquet(buffer, index=False)
        file.write(buffer.getvalue())
    return len(made)


def to_tensorboard(folder: Folder | Place, study: Study, preset: str, logdir: Place) -> int:
    """Write the metrics over epochs for ``tensorboard --logdir``: a folder for each training.

    Each has the metrics as scalars, and its configuration with the last epoch's metrics as hyperparameters.
    A training that was written before is written anew.

    Returns:
        The number of trainings.

    Raises:
        FileError: no folder of results, its database cannot be used, or the files cannot be written.
        InputError: the study has no such preset, or its cells kept no epochs.
        MissingDependency: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams
    except ImportError:
        raise MissingDependency("tensorboard", "tensorboard", "writing TensorBoard files") from None
    make_hparams: Any = hparams
    trainings = _trainings(records(folder, study, preset, "epochs"))
    if not trainings:
        raise InputError(
            f"the study '{study.name}' has no metrics over epochs at preset '{preset}': nothing to write for "
            "TensorBoard"
        )
    names = _folders(trainings)
    for name, (config, epochs) in zip(names, trainings, strict=True):
        into = Path(logdir) / name
        last = {f"hparam/{k}": v for k, v in _numbers(epochs[-1]).items()}
        settings = {k: v for k, v in config.items() if v is not None}
        with telling(into):
            for old in into.glob("events.out.tfevents.*"):
                old.unlink()
            _write_training(SummaryWriter(str(into)), epochs, last, make_hparams(settings, last))
    return len(trainings)


def _write_training(writer: Any, epochs: Sequence[Row], last: Mapping[str, float], settings: Any) -> None:
    for row in epochs:
        for metric, value in _numbers(row).items():
            writer.add_scalar(metric.replace("_", "/", 1), value, int(row["epoch"]))
    for part in settings:
        writer.file_writer.add_summary(part)
    for metric, value in last.items():
        writer.add_scalar(metric, value)
    writer.close()


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All names, in the order of their appearance.

    >>> columns_of([{"a": 1}, {"b": 2, "a": 3}])
    ['a', 'b']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def _trainings(epochs: Sequence[Row]) -> list[tuple[Row, list[Row]]]:
    """The configuration and the metrics of each training."""
    found: dict[tuple[str, Any], tuple[Row, list[Row]]] = {}
    for row in epochs:
        names = list(row)
        at = names.index("epoch")
        config = {n: row[n] for n in names[:at]}
        metrics = {n: row[n] for n in names[at:]}
        found.setdefault((row["cell"], row["run"]), (config, []))[1].append(metrics)
    return list(found.values())


def _folders(trainings: Sequence[tuple[Row, list[Row]]]) -> list[str]:
    """Names that say in which settings a training differs from the others, and its cell."""
    configs = [config for config, _ in trainings]
    told = [
        name for name in columns_of(configs)
        if name not in ("cell", "step") and len({str(c.get(name)) for c in configs}) > 1
    ]  # fmt: skip
    names = []
    for config in configs:
        settings = ",".join(f"{n}={config[n]}" for n in told if config.get(n) is not None)
        settings = re.sub(r"[^\w=.,+-]+", "_", settings)[:120]
        names.append(f"{config['step']}/{settings + '-' if settings else ''}{config['cell'][:8]}")
    return names


def _numbers(row: Row) -> dict[str, float]:
    return {
        name: float(value) for name, value in row.items()
        if name != "epoch" and isinstance(value, int | float)
    }  # fmt: skip
