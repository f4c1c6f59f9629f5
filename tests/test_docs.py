"""The documentation: its code runs and prints what it says, its options exist."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import click
import pytest
import torch

import regraft
from regraft.cli.app import COMMANDS, cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(p for p in [*DOCS.rglob("*.md"), ROOT / "README.md"] if p.exists() and "_build" not in p.parts)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blocks(path):
    """(language, text, text of the block that follows at once if it is the output) of each fenced block."""
    text = path.read_text()
    found = list(BLOCK.finditer(text))
    for i, block in enumerate(found):
        after = found[i + 1] if i + 1 < len(found) else None
        shown = None
        if after is not None and after[1] == "text" and not text[block.end() : after.start()].strip():
            shown = after[2]
        yield block[1], block[2], shown


WITH_CODE = [p for p in PAGES if any(language == "python" for language, _, _ in blocks(p))]


FRAMEWORK = re.compile(r"^(?:import|from) (lightning|transformers|keras)\b", re.MULTILINE)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning, of each loader
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")  # its use of torch
@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_code_runs_and_prints_what_the_page_shows(path, tmp_path, monkeypatch):
    """The blocks of a page run in order in one namespace; a text block right after one is its output."""
    for framework in FRAMEWORK.findall(path.read_text()):
        pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace = {"__name__": "__main__"}
    for language, code, shown in blocks(path):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, name_of(path), "exec"), namespace)  # noqa: S102
        if shown is not None:
            assert same_output(shown, printed.getvalue()), f"page:\n{shown}\nnow:\n{printed.getvalue()}"


NUMBER = re.compile(r"\d+(?:\.\d+)?%?")


def same_output(shown, got):
    """Equal but for what rounding may change on another machine: percentages within 8 points, decimals within
    0.03; words, whole numbers and line breaks exactly."""
    if [NUMBER.split(line.rstrip()) for line in shown.strip().splitlines()] != [
        NUMBER.split(line.rstrip()) for line in got.strip().splitlines()
    ]:
        return False
    for a, b in zip(NUMBER.findall(shown), NUMBER.findall(got), strict=True):
        slack = 8 if a.endswith("%") else 0.03 if "." in a else 0
        if a.endswith("%") != b.endswith("%") or abs(float(a.rstrip("%")) - float(b.rstrip("%"))) > slack:
            return False
    return True


def test_the_comparison_of_outputs_is_not_blind():
    assert same_output("a 40%, NNSTD 0.92 of 12\n", "a 44%, NNSTD 0.93 of 12\n")
    assert not same_output("a 40%\n", "a 60%\n")
    assert not same_output("NNSTD 0.92\n", "NNSTD 0.85\n")
    assert not same_output("12 connections\n", "13 connections\n")
    assert not same_output("True\n", "False\n")


def test_there_is_code_to_run():
    assert {"docs/start.md", "docs/ideas/evolve.md", "docs/ideas/merge.md"} <= {name_of(p) for p in WITH_CODE}


def existing_commands():
    return {name for name, module in COMMANDS.items() if importlib.util.find_spec(module) is not None}


def sections(path):
    parts = re.split(r"^## `regraft (\w+)`$", path.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section():
    assert set(sections(DOCS / "cli.md")) == set(COMMANDS)


def subcommands(name):
    """``["train"]`` for a command, ``["study list", ...]`` for a group."""
    command = cli.get_command(None, name)
    if isinstance(command, click.Group):
        return [f"{name} {part}" for part in command.list_commands(None)]
    return [name]


def options_of(whole):
    command = cli
    for part in whole.split():
        command = command.get_command(None, part)
    return {o for p in command.params for o in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("name", sorted(existing_commands()))
def test_a_command_section_shows_the_commands_own_options(name):
    section = sections(DOCS / "cli.md")[name]
    for whole in subcommands(name):
        assert f"```{{command}} {whole}\n```" in section
    known = set().union(*(options_of(whole) for whole in subcommands(name)))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", section)) <= known | {"--help", "--debug"}


def test_commands_in_the_pages_have_options_that_exist():
    for path in PAGES:
        for language, code, _ in blocks(path):
            if language not in ("bash", "sh", "console"):
                continue
            for line in code.replace("\\\n", " ").splitlines():
                call = re.match(r"\s*(?:\$ )?regraft ((?:study )?\w+)(.*)", line)
                if call and call[1].split()[0] in existing_commands():
                    known = options_of(call[1]) | {"--help", "--debug"}
                    used = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", call[2].split("#")[0]))
                    assert used <= known, f"{name_of(path)}: {line.strip()}"
                elif call:
                    assert call[1] in COMMANDS, f"{name_of(path)}: {line.strip()}"


def test_every_public_name_is_on_the_page_of_names():
    page = (DOCS / "api.md").read_text()
    linked = {target.rpartition(".")[2] for target in re.findall(r"\{py:obj\}`\w+ <([\w.]+)>`", page)}
    assert linked == set(regraft.__all__) - {"__version__"}


def test_links_between_pages_and_to_files_lead_somewhere():
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if not re.match(r"[a-z]+:", target):
                there = path.parent / target
                assert there.exists() or "_build" in there.parts, f"{name_of(path)} links to {target}"
