"""``regraft study export``: a study's results in files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from regraft.cli.common import console
from regraft.cli.declare import offering
from regraft.cli.output import check_output
from regraft.cli.study.options import preset_option, study_names
from regraft.errors import InputError, unknown
from regraft.studies.catalogue import named
from regraft.studies.folder import Folder
from regraft.studies.store import to_csv, to_json, to_parquet, to_tensorboard

FORMATS: dict[str, Callable[..., int]] = {"csv": to_csv, "json": to_json, "parquet": to_parquet}
TENSORBOARD = "tensorboard"


@click.command("export")
@click.argument("name", metavar="NAME", shell_complete=study_names)
@preset_option
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/studies"), metavar="FOLDER",
              help="Of results, as `regraft study run` made it.")  # fmt: skip
@click.option("--format", "kind", default="csv", metavar="NAME",
              shell_complete=offering([*FORMATS, TENSORBOARD]),
              help=f"{', '.join(FORMATS)} or {TENSORBOARD}.")  # fmt: skip
@click.option("--epochs", is_flag=True, help="The metrics over epochs instead of the rows.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="PATH",
              help="The file; for TensorBoard, the folder.")  # fmt: skip
def command(name: str, preset: str, folder: Path, kind: str, epochs: bool, out: Path) -> None:
    """Write the results of the study NAME to a file.

    \b
    regraft study export gates-sine --out rows.csv
    regraft study export gates-sine --epochs --format parquet --out epochs.parquet
    regraft study export gates-sine --format tensorboard --out runs/tensorboard
    """
    if kind not in (*FORMATS, TENSORBOARD):
        raise unknown("format", kind, [*FORMATS, TENSORBOARD])
    if kind == TENSORBOARD and out.is_file():
        raise InputError(f"--out is '{out}', a file, but TensorBoard reads folders: name a folder")
    study, kept = named(name), Folder(folder)
    if kind == TENSORBOARD:
        count, what = to_tensorboard(kept, study, preset, out), "trainings"
        then = f"; see `tensorboard --logdir {out}`"
    else:
        check_output(out)
        count = FORMATS[kind](kept, study, preset, out, "epochs" if epochs else "rows")
        what, then = ("epochs" if epochs else "rows"), ""
    console().print(
        f"wrote {count:,} {what} of {study.name} at preset {preset} to {out}{then}", soft_wrap=True
    )
