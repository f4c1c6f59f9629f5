"""A group of commands whose modules are imported only when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from regraft.errors import suggest


class LazyGroup(click.Group):
    """Imports a subcommand's module only when it is asked for, so that ``--help`` is quick.

    Args:
        commands_at: name of each command to the module that holds it as ``command``.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._places:
            return None
        command = getattr(importlib.import_module(self._places[cmd_name]), "command")  # noqa: B009
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self._places:
            raise click.UsageError(f"unknown command {args[0]!r}: {suggest(args[0], self._places)}", ctx)
        return super().resolve_command(ctx, args)
