"""Importing regraft costs nothing; what is asked for is there."""

import subprocess
import sys

import click
import pytest

import regraft
from regraft.cli.app import COMMANDS, cli
from regraft.cli.lazy import documented
from regraft.cli.study.group import COMMANDS as STUDY


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_neither_the_package_nor_its_command_imports_torch_before_it_is_used() -> None:
    code = "import sys, regraft, regraft.cli.app; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert python(code) == "False False"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["study", "--help"]])
def test_help_and_version_import_no_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from regraft.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0
print('torch' in sys.modules)
"""
    assert python(code).split()[-1] == "False"


def test_no_command_imports_the_compiler_of_torch() -> None:
    """It takes a second, and torch imports it with the first optimizer that is made."""
    code = f"""
import importlib, sys
for module in {[*COMMANDS.values(), *STUDY.values()]!r}:
    importlib.import_module(module)
print('torch._dynamo' in sys.modules)
"""
    assert python(code) == "False"


def test_names_and_modules_are_there_when_they_are_asked_for() -> None:
    code = """
import regraft
assert "SparseWeight" not in vars(regraft)
assert regraft.SparseWeight is regraft.SparseWeight and "SparseWeight" in vars(regraft)
assert regraft.kernels.get_threads is regraft.get_threads
from regraft import topology
assert topology.Topology is regraft.Topology
"""
    assert python(code) == ""


def test_dir_lists_every_public_name() -> None:
    assert set(regraft.__all__) <= set(dir(regraft))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'regraft' has no attribute 'sparsfy'"):
        regraft.sparsfy  # noqa: B018
    with pytest.raises(ImportError):
        from regraft import sparsfy  # noqa: F401


def test_a_module_that_fails_to_import_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own missing dependency is not taken for a missing module of regraft."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr("importlib.import_module", fail)
    with pytest.raises(ModuleNotFoundError, match="numpy"):
        regraft.not_imported_yet  # noqa: B018


@pytest.mark.parametrize("name", [*COMMANDS, *(f"study {name}" for name in STUDY)])
def test_the_line_in_a_groups_help_is_the_commands_own(name: str) -> None:
    command: click.Command | None = cli
    place = ""
    for part in name.split():
        place = (STUDY if place else COMMANDS)[part]
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), part)
    assert command is not None
    told = click.Command(name, help=documented(place)).get_short_help_str(70)
    assert told
    assert told == command.get_short_help_str(70)
