"""What can be completed on the command line, kept in a file: a TAB must not wait for torch to be imported.

The real commands are imported once for each state of the installed package. What they declare is written to
``~/.cache/regraft/completion.json``, and a stand-in of the same commands, options and values is made of it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import regraft
from regraft.cli.declare import offering
from regraft.version import __version__


def tree() -> click.Command:
    """The stand-in of ``regraft``: from the file where it is of this very package, else from the commands."""
    path, stamp = cache_file(), _stamp()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(path.read_bytes())
        if kept["stamp"] == stamp:
            return stand_in("regraft", kept["commands"])
    from regraft.cli.app import cli
    from regraft.container import atomic_write

    declared = described(cli, click.Context(cli, info_name="regraft"))
    with contextlib.suppress(OSError):  # a folder that cannot be written makes the next TAB slow, not wrong
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps({"stamp": stamp, "commands": declared}).encode())
    return stand_in("regraft", declared)


def cache_file() -> Path:
    """``$XDG_CACHE_HOME/regraft/completion.json``, by default in ``~/.cache``."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(folder) / "regraft" / "completion.json"


def _stamp() -> list[Any]:
    """Another one for each version, place and change of the package's code."""
    package = str(Path(regraft.__file__).parent)
    times = [entry.stat().st_mtime_ns for entry in _code(package)]
    return [__version__, package, len(times), max(times)]


def _code(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                yield entry
            elif entry.is_dir() and not entry.name.startswith("__"):
                yield from _code(entry.path)


def described(command: click.Command, context: click.Context) -> dict[str, Any]:
    """Commands, options and what each takes, as JSON can hold it."""
    plain: dict[str, Any] = {
        "help": command.get_short_help_str(70),
        "parameters": [_described(parameter, context) for parameter in command.get_params(context)],
    }
    if isinstance(command, click.Group):
        found = {name: command.get_command(context, name) for name in command.list_commands(context)}
        plain["commands"] = {name: described(c, context) for name, c in found.items() if c is not None}
    return plain


def _described(parameter: click.Parameter, context: click.Context) -> dict[str, Any]:
    items = parameter.shell_complete(context, "")
    plain: dict[str, Any] = {
        "nargs": parameter.nargs,
        "kind": next((item.type for item in items if item.type != "plain"), None),
        "words": [item.value for item in items if item.type == "plain"],
    }
    if isinstance(parameter, click.Option):
        text = (parameter.help or "").split(". ")[0].split(":")[0].removesuffix(".")
        plain |= {
            "flags": [*parameter.opts],
            "off": [*parameter.secondary_opts],
            "is_flag": parameter.is_flag,
            "multiple": parameter.multiple,
            "help": text if len(text) <= 70 else text[:67] + "...",
        }
    return plain


def stand_in(name: str, plain: dict[str, Any]) -> click.Command:
    """A command that completes as the one that was described, and does nothing."""
    parameters = [_parameter(i, parameter) for i, parameter in enumerate(plain["parameters"])]
    if "commands" not in plain:
        return click.Command(name, params=parameters, help=plain["help"], add_help_option=False)
    inside = {inner: stand_in(inner, commands) for inner, commands in plain["commands"].items()}
    return click.Group(name, commands=inside, params=parameters, help=plain["help"], add_help_option=False)


def _parameter(i: int, plain: dict[str, Any]) -> click.Parameter:
    name, offers = f"p{i}", _offering(plain["kind"], plain["words"])
    if "flags" not in plain:
        return click.Argument([name], nargs=plain["nargs"], required=False, shell_complete=offers)
    if plain["is_flag"]:
        both = "/".join([plain["flags"][0], *plain["off"][:1]])
        return click.Option([name, both, *plain["flags"][1:]], is_flag=True, help=plain["help"])
    return click.Option(
        [name, *plain["flags"]], nargs=plain["nargs"], multiple=plain["multiple"], help=plain["help"],
        shell_complete=offers,
    )  # fmt: skip


def _offering(
    kind: str | None, words: list[str]
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    offer = offering(words)

    def complete(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem[str]]:
        files = [CompletionItem(start, type=kind)] if kind is not None else []
        return files + offer(context, parameter, start)

    return complete
