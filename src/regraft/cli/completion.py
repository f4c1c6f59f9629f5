"""``regraft completion``: what makes a shell complete commands, options, names and files on TAB."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from regraft.cli import words
from regraft.cli.app import COMPLETE

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, names and files on TAB.

    Put it where the shell looks for such scripts:

    \b
    regraft completion bash > ~/.local/share/bash-completion/completions/regraft
    regraft completion zsh > ~/.zfunc/_regraft      # with fpath+=~/.zfunc before compinit in ~/.zshrc
    regraft completion fish > ~/.config/fish/completions/regraft.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(click.Command("regraft"), {}, "regraft", COMPLETE).source()
    words.tree()  # read now what a TAB would otherwise wait for
    click.echo(script, nl=False)


def answer() -> int:
    """Print the words that fit where the cursor is, as the script of a shell asked for; the exit code."""
    shell, _, instruction = os.environ[COMPLETE].partition("_")
    kind = get_completion_class(shell)
    if kind is None or instruction != "complete":
        return 1
    click.echo(kind(words.tree(), {}, "regraft", COMPLETE).complete())
    return 0
