"""``regraft study query``: ask the database of a folder of results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.output import check_output
from regraft.cli.study.options import study_names
from regraft.errors import FileError, InputError, visible
from regraft.studies import catalogue
from regraft.studies.folder import Folder
from regraft.studies.store import FILE, Answer, Shown, contents, query, rebuild, synchronise
from regraft.studies.store.export import write_csv
from regraft.studies.store.schema import view_name
from regraft.studies.study import Study, in_order

SQL = re.compile(
    r"\s*(select|with|values|explain|pragma|insert|update|delete|drop|create|alter)\b", re.IGNORECASE
)


@click.command("query")
@click.argument("words", nargs=-1, metavar="[NAME] [SQL]", shell_complete=study_names)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/studies"), metavar="FOLDER",
              help="Of results, as `regraft study run` made it.")  # fmt: skip
@click.option("--csv", "csv_path", metavar="FILE", type=click.Path(allow_dash=True), default=None,
              help="Write the answer as CSV instead.")  # fmt: skip
@click.option("--rows", "most", type=click.IntRange(min=0), default=100, metavar="N",
              help="Rows of the answer to show.")  # fmt: skip
@json_option
def command(
    words: tuple[str, ...], folder: Path, csv_path: str | None, most: int, json_path: str | None
) -> None:
    """Ask the database of results in SQL, of the study NAME or of all.

    Without SQL: the tables that there are, their columns, and examples. With NAME, the study's results are
    brought up to date first, and SQL may call its table `rows`.

    \b
    regraft study query
    regraft study query gates-sine "SELECT preset, method, avg(error) FROM rows GROUP BY 1, 2"
    regraft study query "SELECT step, sum(seconds) FROM cells GROUP BY step"
    """
    name, sql = _meant(words)
    for path in (csv_path, json_path):
        check_output(path)
    kept = Folder(folder)
    study = None if name is None else catalogue.named(name)
    _bring_up_to_date(kept, study)
    screen = console("-" if csv_path == "-" else json_path)
    if sql is None:
        _show_contents(screen, contents(kept.path), study, folder, json_path)
        return
    answer = query(kept.path, sql, study=None if study is None else study.name)
    if csv_path is not None:
        _write_csv(csv_path, answer)
    if csv_path is None:
        _show(screen, answer, most)
    write_json(json_path, {"columns": answer.columns, "rows": [list(row) for row in answer.rows]})


def _meant(words: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Name of a study and SQL, each if it is there."""
    if len(words) > 2:
        raise InputError(
            f"{len(words)} words were given, but at most a study's name and one query in quotes are meant"
        )
    if len(words) == 2:
        return words[0], words[1]
    if not words:
        return None, None
    return (None, words[0]) if SQL.match(words[0]) else (words[0], None)


def _bring_up_to_date(folder: Folder, study: Study | None) -> None:
    """Add what the database lacks, so that it can be deleted at any time."""
    there = (folder.path / FILE).exists()
    try:
        if study is not None:
            done = folder.done() | folder.failed()
            for name, preset in study.presets.items():
                if any(c.key in done for c in in_order(study.cells(preset.settings))):
                    synchronise(folder, study, name)
        if not (folder.path / FILE).exists():
            rebuild(folder)
    except FileError as error:
        if not there:
            raise
        click.echo(f"regraft: the newest results may be missing: {error}", err=True)


def _show(screen: Console, answer: Answer, most: int) -> None:
    lines = table(*answer.columns)
    if answer.rows:
        for column, value in zip(lines.columns, answer.rows[0], strict=True):
            column.justify = "left" if isinstance(value, str) else "right"
    for row in answer.rows[:most]:
        lines.add_row(*(Text(_text(value)) for value in row))
    screen.print(lines)
    left = len(answer.rows) - most
    if left > 0:
        screen.print(f"and {left:,} more rows; `--rows N` shows N, `--csv FILE` writes all", markup=False)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value.hex() if isinstance(value, bytes) else visible(str(value))


def _write_csv(path: str, answer: Answer) -> None:
    if path == "-":
        import csv
        import sys

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
        return
    write_csv(path, answer.columns, answer.rows)


def _show_contents(
    screen: Console, found: list[Shown], study: Study | None, folder: Path, json_path: str | None
) -> None:
    if study is not None:
        found = [s for s in found if s.name == view_name(study.name)]
        if not found:
            raise FileError(
                f"no results of '{study.name}' in '{folder}': run `regraft study run {study.name} --folder "
                f"{folder}` first"
            )
    kinds = {"study": "study", "all": "all studies", "rows": "one step"}
    lines = table("Table", "Of", "Rows", "Columns")
    lines.columns[1].justify = lines.columns[3].justify = "left"
    for s in found:
        lines.add_row(s.name, kinds[s.kind], f"{s.rows:,}", Text(", ".join(s.columns)))
    screen.print(lines)
    screen.print("\nFor example:", markup=False)
    for sql in _examples(found, study):
        screen.print(f"  regraft study query '{sql}' --folder {folder}", soft_wrap=True, markup=False)
    plain = [{"name": s.name, "kind": s.kind, "rows": s.rows, "columns": s.columns} for s in found]
    write_json(json_path, {"database": str(folder / FILE), "tables": plain})


def _examples(found: list[Shown], study: Study | None) -> list[str]:
    made = []
    for s in [s for s in found if s.kind == "study"][:2]:
        by = [c for c in s.columns if c not in ("preset", "cell", "step", *s.numbers)]
        figures = sorted(s.numbers, key=lambda c: any(w in c for w in ("accuracy", "loss", "error")))
        if figures:
            columns = ["preset", *(f'"{c}"' for c in by[:1])]
            asked = f'avg("{figures[-1]}") AS mean, count(*) AS n'
            group = ", ".join(str(i + 1) for i in range(len(columns)))
            made.append(f"SELECT {', '.join(columns)}, {asked} FROM {s.name} GROUP BY {group}")
    if study is None:
        made.append(
            "SELECT step, status, count(*), round(sum(seconds), 1) AS seconds FROM cells GROUP BY 1, 2"
        )
        made.append("SELECT step, metric, epoch, avg(value) FROM epochs GROUP BY 1, 2, 3")
    return made
