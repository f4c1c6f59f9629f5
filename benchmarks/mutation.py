"""Mutation testing of the core: how many wrong versions of it the tests notice.

    pip install cosmic-ray==8.7.0            # beside what the tests need
    python benchmarks/mutation.py [weight topology select merging/combine] [--jobs 1] [--json FILE]

Cosmic Ray makes the mutants: operators, comparisons, numbers, conditions, loops and decorators, one change at
a time; besides, each simple statement is deleted once. Left out are changes inside annotations, which nothing
evaluates, and `is` in the place of `==`, the same for the small numbers here. Each mutant is written into a
copy of the source, and the tests of that module run on it until one fails, in a process forked after torch
was imported (a mutant costs its tests, not the import). A mutant that takes ten times the processor time of
the module itself hangs, and counts as noticed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import unified_diff
from pathlib import Path

import hypothesis as hypothesis
import pytest
import torch
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
# the tests that answer for a module, the quickest first
TESTS = {
    "weight": ("tests/test_weight.py", "tests/test_weight_state.py"),
    "topology": ("tests/test_topology.py",),
    "select": ("tests/test_select.py",),
    "merging/combine": ("tests/merging/test_rules.py", "tests/merging/test_grid.py"),
}
UNUSED = ("_Is", "_IsNot")
# torch and hypothesis are imported once, before the forks; pytest would warn of the latter
PRELOADED = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutant:
    """One change of one module, and the module's text with it."""

    module: str
    operator: str
    line: int
    code: str
    diff: str


def spans_of_annotations(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the annotations of a text lie: ((line, column), (line, column)) for each."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        for node in found
        if node is not None
    ]


def mutants(module: str) -> Iterator[Mutant]:
    """All changes of a module that mean something."""
    code = (ROOT / "src/regraft" / f"{module}.py").read_text()
    skipped, seen = spans_of_annotations(code), {code}
    for name in sorted(operator_names()):
        if name.endswith(UNUSED) or "Variable" in name:
            continue
        operator = get_operator(name)()
        occurrence = 0
        for node in ast_nodes(get_ast(code)):
            for start, end in operator.mutation_positions(node):
                inside = any(a <= start and end <= b for a, b in skipped)
                changed = None if inside else mutate_code(code, operator, occurrence)
                if changed and changed not in seen:
                    seen.add(changed)
                    yield Mutant(module, name.removeprefix("core/"), start[0], changed, shown(code, changed))
                occurrence += 1
    for line, changed in deletions(code):
        yield Mutant(module, "DeleteStatement", line, changed, shown(code, changed))


def shown(code: str, changed: str) -> str:
    """The lines that differ."""
    lines = unified_diff(code.splitlines(), changed.splitlines(), lineterm="", n=0)
    return "\n".join(line for line in lines if line[:3] not in ("---", "+++"))


def deletions(code: str) -> Iterator[tuple[int, str]]:
    """(line, the text without it) for each simple statement but docstrings, imports and bare names."""
    lines = code.splitlines(keepends=True)
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Assign | ast.AugAssign | ast.Return | ast.Raise | ast.Delete | ast.Expr):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        indent = lines[first][: node.col_offset]
        if not indent.strip():  # not one of several statements in a line
            yield node.lineno, "".join([*lines[:first], f"{indent}pass\n", *lines[last:]])


def tested(copy: Path, module: str, limit: int) -> bool:
    """Whether the module's tests pass in ``copy``, in ``limit`` seconds of processor time."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        code = 1
        with contextlib.suppress(BaseException):
            sys.path.insert(0, str(copy / "src"))
            os.environ["PYTHONPATH"] = str(copy / "src")
            os.chdir(copy)
            # doctests of the module are tests as well
            files = [*TESTS[module], f"src/regraft/{module}.py"]
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *PRELOADED, *files]))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def copied(place: Path) -> Path:
    """The package and its tests, to be spoiled."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, place / name)
    return place


def survivors(found: list[Mutant], jobs: int, console: Console) -> list[Mutant]:
    """The mutants that no test notices."""
    with tempfile.TemporaryDirectory() as folder:
        copies = [copied(Path(folder) / str(i)) for i in range(jobs)]
        limits = {}
        for module in dict.fromkeys(m.module for m in found):
            began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            if not tested(copies[0], module, 600):
                raise SystemExit(f"the tests of {module} fail as they are: {' '.join(TESTS[module])}")
            limits[module] = int(10 * (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began)) + 5

        def alive(mutant: Mutant) -> bool:
            copy = copies.pop()
            path = copy / "src/regraft" / f"{mutant.module}.py"
            original = path.read_text()
            try:
                path.write_text(mutant.code)
                return tested(copy, mutant.module, limits[mutant.module])
            finally:
                path.write_text(original)
                copies.append(copy)

        with ThreadPoolExecutor(jobs) as pool:
            lived = list(track(pool.map(alive, found), "mutants", len(found), console=console))
    return [mutant for mutant, survived in zip(found, lived, strict=True) if survived]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", default=list(TESTS), help=f"of {', '.join(TESTS)}")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if unknown := sorted(set(options.modules) - set(TESTS)):
        parser.error(f"no module {', '.join(unknown)}: known are {', '.join(TESTS)}")
    sys.dont_write_bytecode = True  # a stale .pyc would hide a mutant
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    torch.set_num_threads(1)

    console = Console(stderr=True)
    found = [mutant for module in options.modules for mutant in mutants(module)]
    lived = survivors(found, options.jobs, console)
    for mutant in lived:
        print(f"{mutant.module}.py:{mutant.line} {mutant.operator}\n{mutant.diff}\n")
    table = Table("module", "mutants", "noticed", "%", title="mutation testing")
    for module in options.modules:
        count = sum(m.module == module for m in found)
        alive = sum(m.module == module for m in lived)
        table.add_row(module, str(count), str(count - alive), f"{100 * (1 - alive / max(count, 1)):.1f}")
    Console().print(table)
    if options.json:
        kept = [{k: v for k, v in asdict(m).items() if k != "code"} for m in lived]
        options.json.write_text(json.dumps({"mutants": len(found), "survivors": kept}, indent=1))


if __name__ == "__main__":
    main()
