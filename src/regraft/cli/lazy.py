"""A group of commands whose modules are imported only when they are asked for."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from regraft.errors import suggest


def documented(module: str) -> str:
    """The docstring of a module's function ``command``, without importing it; empty where it has none."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return ast.get_docstring(node) or ""
    return ""


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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        limit = formatter.width - 6 - max(map(len, self._places))
        shown = {name: click.Command(name, help=documented(place)) for name, place in self._places.items()}
        rows = [(name, command.get_short_help_str(limit)) for name, command in shown.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self._places:
            raise click.UsageError(f"unknown command {args[0]!r}: {suggest(args[0], self._places)}", ctx)
        return super().resolve_command(ctx, args)
