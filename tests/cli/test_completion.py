"""``regraft completion``: shells complete commands, options, names and files, without waiting for torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from regraft.cli import words
from regraft.cli.app import COMMANDS, cli
from regraft.cli.completion import SHELLS, command
from regraft.merging import RULES


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own for what is kept, filled once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        words.tree()
        yield folder


def completions(tree: click.Command, line: str) -> set[tuple[str, str]]:
    """(type, value) of what fits at the end of a line."""
    *given, last = line.split(" ")
    found = ShellComplete(tree, {}, "regraft", "_").get_completions(given, last)
    return {(item.type, item.value) for item in found}


def plain(*values: str) -> set[tuple[str, str]]:
    return {("plain", value) for value in values}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tr", plain("train")),
        ("study ", plain("list", "run", "report", "query", "export")),
        ("merge --weights ", plain(*RULES)),
        ("merge --align ", plain("none", "weights", "activations")),
        ("merge a.safetensors b", {("file", "b")}),
        ("train --out ", {("file", "")}),
        ("train --checkpoint ", {("dir", "")}),
        ("train --json ", {("file", "")}),
        ("train --data digits --evolve set-", plain("set-magnitude")),
        ("federate --engine fl", plain("flower")),
        (
            "study run merging-phase",
            {("file", "merging-phase"), *plain("merging-phase-1", "merging-phase-2")},
        ),
        ("study run x --preset s", plain("smoke", "small")),
        ("train --no-down", plain("--no-download")),
        ("completion ", plain(*SHELLS)),
        ("train --epochs ", set()),
    ],
)
def test_what_fits_at_the_end_of_a_line(line: str, expected: set[tuple[str, str]]) -> None:
    assert completions(words.tree(), line) == expected


def test_all_commands_and_only_they_fit_at_the_start() -> None:
    assert completions(words.tree(), "") == plain(*COMMANDS)


def leaves(group: click.Command, path: str = "") -> dict[str, click.Command]:
    if not isinstance(group, click.Group):
        return {path: group}
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {
        k: v for name, c in found.items() if c is not None for k, v in leaves(c, f"{path}{name} ").items()
    }


@pytest.mark.parametrize("path", list(leaves(cli)))
def test_the_stand_in_completes_as_the_command_itself(path: str) -> None:
    """Each option, and the values of each, as click finds them from the real command."""
    real, tree = leaves(cli)[path], words.tree()
    assert completions(tree, f"{path}--") == completions(cli, f"{path}--")
    for parameter in real.params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            line = f"{path}{parameter.opts[-1]} "
            assert completions(tree, line) == completions(cli, line), line


def test_what_is_kept_is_read_again_only_when_the_package_changes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = cache / "regraft" / "completion.json"
    told = json.loads(kept.read_text())
    told["commands"]["commands"]["marked"] = {"help": "", "parameters": []}
    kept.write_text(json.dumps(told))
    assert ("plain", "marked") in completions(words.tree(), "")
    monkeypatch.setattr(words, "__version__", "999.0.0")
    assert ("plain", "marked") not in completions(words.tree(), "")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stamp": 1', '{"stamp": null, "commands": 3}', "\0"])
def test_a_broken_file_is_made_anew(text: str, cache: Path) -> None:
    kept = cache / "regraft" / "completion.json"
    kept.write_text(text)
    assert completions(words.tree(), "doc") == plain("doctor")
    assert json.loads(kept.read_text())["stamp"]


def test_without_a_place_to_keep_it_completion_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert completions(words.tree(), "doc") == plain("doctor")


def test_a_tab_imports_no_torch() -> None:
    """Once the words are kept; the command line of the shell's script in a process of its own."""
    code = """
import sys
from regraft.cli import main
sys.argv = ["regraft"]
try:
    main()
except SystemExit as end:
    assert end.code == 0
print("torch" in sys.modules)
"""
    asked = {"_REGRAFT_COMPLETE": "bash_complete", "COMP_WORDS": "regraft merge --bias-d", "COMP_CWORD": "2"}
    program, environment = [sys.executable, "-c", code], {**os.environ, **asked}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["plain,--bias-density", "False"], done.stderr


# ---- real shells: the printed script, and what the shell then offers ---------------------------------------

BASH = """
source {script}
COMP_WORDS=(regraft merge --weights a) COMP_CWORD=3
_regraft_completion regraft
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; autoload -U compinit; compinit -u -D; source {script}; echo re''ady"
zpty -r shell line '*ready*'
zpty -w -n shell $'regraft merge --weights av\\t'
zpty -r shell line '*average*'
print -r -- "$line"
"""
FISH = """
source {script}
complete --do-complete 'regraft merge --weights a'
"""
EXPECTED = {"bash": ["addition", "average"], "zsh": ["average"], "fish": ["addition", "average"]}


@pytest.mark.parametrize(("shell", "lines"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_real_shell_offers_what_fits(shell: str, lines: str, tmp_path: Path, cache: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "regraft").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regraft "$@"\n')
    (bin / "regraft").chmod(0o755)
    script = tmp_path / "script"
    home = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb"}
    with script.open("w") as file:
        subprocess.run([bin / "regraft", "completion", shell], env=home, stdout=file, timeout=120, check=True)
    (tmp_path / "lines").write_text(lines.format(script=script))
    done = subprocess.run(
        [program, tmp_path / "lines"], env=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    offered = [word for word in done.stdout.split() if word in RULES]
    assert sorted(set(offered)) == EXPECTED[shell], done.stdout + done.stderr


def test_another_shell_is_refused_in_one_sentence() -> None:
    from click.testing import CliRunner

    shown = CliRunner().invoke(command, ["csh"])
    assert shown.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in shown.output
