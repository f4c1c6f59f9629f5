"""``regraft train --teacher``: networks from files that a training learns from besides the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from regraft import checkpoint, files
from regraft.cli.declare import group, number
from regraft.cli.starting import was_given
from regraft.errors import InputError
from regraft.train import Teachers

teacher_options = group(
    click.option("--teacher", "teachers", type=click.Path(path_type=Path), multiple=True, metavar="FILE",
                 help="Learn from this network's logits besides the labels; several are averaged."),
    number("--teacher-weight", Teachers.weight,
           "Of the teachers in the loss, in [0, 1]; the labels have the rest."),
    number("--temperature", Teachers.temperature,
           "Of the teachers' and the student's softmax, above 0."),
)  # fmt: skip
"""``--teacher`` and how much the teachers count."""


def read_teachers(
    paths: Sequence[Path], weight: float, temperature: float, ctx: click.Context
) -> Teachers | None:
    """The teachers that the options name; None where they name none.

    Raises:
        FileError: a file is no network that regraft can build.
        InputError: a number out of range, or one that goes with teachers without any.
    """
    if paths:
        return Teachers([checkpoint.load(path) for path in paths], weight, temperature)
    for name in ("teacher_weight", "temperature"):
        if was_given(ctx, name):
            raise InputError(
                f"--{name.replace('_', '-')} says how much teachers count, but there is none: give --teacher "
                "FILE too"
            )
    return None


def teachers_provenance(paths: Sequence[Path], teachers: Teachers | None) -> dict[str, Any]:
    """What a network says of its teachers: nothing where it had none."""
    if teachers is None:
        return {}
    names = [{"file": str(path), "sha256": files.sha256(path)} for path in paths]
    return {"teachers": {"networks": names, "weight": teachers.weight, "temperature": teachers.temperature}}
