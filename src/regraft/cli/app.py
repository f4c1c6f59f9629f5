"""The ``regraft`` command: one group, one module per subcommand, errors as one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import sys

import click

from regraft.cli.lazy import LazyGroup
from regraft.errors import RegraftError
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
    "study": "regraft.cli.study.group",
    "demo": "regraft.cli.demo",
    "doctor": "regraft.cli.doctor",
    "completion": "regraft.cli.completion",
}


COMPLETE = "_REGRAFT_COMPLETE"
"""Set where a shell asks what a TAB completes, see `regraft.cli.completion`."""

PLACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
"""What the system says of a place that cannot take more; no bug of regraft."""


@click.group(
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, message="regraft %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error instead of one sentence.")
def cli(debug: bool) -> None:
    """Train sparse neural networks that evolve, and merge them into one.

    Exit codes: 0 done, 1 a bug of regraft (please report it), 2 input that cannot be used, 130 interrupted.
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line. ``--debug`` may stand anywhere."""
    argv = list(sys.argv[1:] if args is None else args)
    if args is None and COMPLETE in os.environ:
        from regraft.cli.completion import answer

        sys.exit(answer())
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    try:
        code = cli.main(args=argv, prog_name="regraft", standalone_mode=False)
        sys.stdout.flush()  # a full disk behind it is told here, not when Python ends
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
    except OSError as error:
        if debug or error.errno not in PLACE_ERRORS:
            raise
        click.echo(f"regraft: cannot use {_place(error)}: make room or give access there", err=True)
        _forget_output()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _place(error: OSError) -> str:
    """Where and why, as in ``'/x/y' (No space left on device)``."""
    return f"{repr(error.filename) if error.filename else 'the output'} ({error.strerror})"


def _forget_output() -> None:
    """Drop what standard output still holds, or Python would try once more when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
