"""What several study commands take."""

from __future__ import annotations

import click

from regraft.cli.declare import Option, offering
from regraft.studies.catalogue import names

PRESETS = ("smoke", "small", "paper")

study_names = offering(names(), or_file=True)

preset_option: Option = click.option(
    "--preset", default="small", metavar="NAME", shell_complete=offering(PRESETS),
    help="smoke, small or paper.",
)  # fmt: skip
