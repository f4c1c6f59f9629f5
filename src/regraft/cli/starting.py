"""``regraft train --start``: training goes on from a network file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from torch import nn

from regraft import checkpoint
from regraft.cli.dataset import Dataset, choose_data
from regraft.errors import InputError
from regraft.weight import SparseWeight

OF_A_NEW_NETWORK = (
    "model", "dropout", "activation", "init", "epsilon", "density", "dense", "allocate", "include", "exclude",
    "sparse_init",
)  # fmt: skip
"""Options that make a network, which one from a file has behind it."""


def read(start: Path, ctx: click.Context, choices: dict[str, Any]) -> nn.Module:
    """The network to train on; ``choices`` learns whether it is dense.

    Raises:
        FileError: the file is no network that regraft can build.
        InputError: an option that makes a new network was given too.
    """
    for name in OF_A_NEW_NETWORK:
        if was_given(ctx, name):
            raise InputError(
                f"--{name.replace('_', '-')} is of a new network, but --start names one that exists: give "
                "one of them"
            )
    model = checkpoint.load(start)
    choices["dense"] = not any(isinstance(m, SparseWeight) for m in model.modules())
    return model.train()


def dataset(start: Path, ctx: click.Context, chosen: Dataset) -> Dataset:
    """The samples that the options say, else those that the network was made for.

    Raises:
        InputError: neither says which set.
    """
    names = {"classes": "classes", "per_class": "per_class", "test_per_class": "test_per_class"}
    names["data_seed"] = "seed"
    given = {field: getattr(chosen, field) for option, field in names.items() if was_given(ctx, option)}
    name = chosen.name if was_given(ctx, "name") else None
    return choose_data(name, given, checkpoint.read_header(start), start)


def was_given(ctx: click.Context, option: str) -> bool:
    """Whether an option was written on the command line."""
    return ctx.get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE


def provenance(start: Path, options: dict[str, Any]) -> dict[str, Any]:
    """What a network trained on says of where it comes from: the options that were used, and its parent."""
    header = checkpoint.read_header(start)
    return {
        "options": {k: v for k, v in options.items() if k not in OF_A_NEW_NETWORK},
        "parents": [{"file": str(start), "provenance": dict(header.provenance)}],
    }
