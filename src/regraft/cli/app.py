"""The ``regraft`` command: one group, one module per subcommand, errors as one sentence."""

from __future__ import annotations

import importlib
import sys

import click

from regraft.errors import RegraftError, suggest
from regraft.version import __version__

COMMANDS = {
    "train": "regraft.cli.train",
    "prune": "regraft.cli.prune",
    "merge": "regraft.cli.merge",
    "tournament": "regraft.cli.tournament",
    "federate": "regraft.cli.federate",
    "evaluate": "regraft.cli.evaluate",
    "compare": "regraft.cli.compare",
    "distance": "regraft.cli.distance",
    "inspect": "regraft.cli.inspect",
    "export": "regraft.cli.export",
    "demo": "regraft.cli.demo",
    "doctor": "regraft.cli.doctor",
}


class _Lazy(click.Group):
    """Imports a subcommand's module only when it is asked for, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), "command")  # noqa: B009
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"unknown command {args[0]!r}: {suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, message="regraft %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error instead of one sentence.")
def cli(debug: bool) -> None:
    """Train sparse neural networks that evolve, and merge them into one.

    Exit codes: 0 done, 1 a bug of regraft (please report it), 2 input that cannot be used, 130 interrupted.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line. ``--debug`` may stand anywhere."""
    argv = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    try:
        code = cli.main(args=argv, prog_name="regraft", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except RegraftError as error:
        if debug:
            raise
        click.echo(f"regraft: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
