"""``regraft study report``: what was published against what was measured, as pages and in the terminal."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from regraft import report
from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.output import check_output
from regraft.cli.study.options import preset_option, study_names
from regraft.errors import FileError, InputError
from regraft.studies.catalogue import named, names
from regraft.studies.claims import NOT_REPRODUCED, REPRODUCED
from regraft.studies.folder import Folder
from regraft.studies.publish import Published, index, markdown, page, published
from regraft.studies.publish.words import measured, p_value, partial
from regraft.studies.study import Study

STYLES = {REPRODUCED: "green", NOT_REPRODUCED: "red"}


@click.command("report")
@click.argument("studies", nargs=-1, metavar="[NAME]...", shell_complete=study_names)
@click.option("--all", "every", is_flag=True, help="Every study that regraft brings.")
@preset_option
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/studies"), metavar="FOLDER",
              help="Of results, as `regraft study run` made it.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("report"), metavar="FOLDER",
              help="For the pages: one for each study, and index.html.")  # fmt: skip
@click.option("--markdown", "as_markdown", is_flag=True,
              help="Print the verdicts as Markdown instead; no pages.")  # fmt: skip
@json_option
def command(
    studies: tuple[str, ...], every: bool, preset: str, folder: Path, out: Path, as_markdown: bool,
    json_path: str | None,
) -> None:  # fmt: skip
    """Show what the studies NAME found: published against measured, with verdicts, tables and figures.

    \b
    regraft study report merging-phase-2 --preset small
    regraft study report --all --out report
    regraft study report gates-sine --markdown > verdicts.md
    """
    asked = _asked(studies, every)
    check_output(json_path)
    if as_markdown and json_path == "-":
        raise InputError("--markdown and --json - both go to standard output: name a file for --json")
    if not as_markdown:
        report.check_available()
    kept = Folder(folder)
    without = [s.name for _, s in asked if every and preset not in s.presets]
    found = [published(s, preset, kept, called=name) for name, s in asked if s.name not in without]
    _check_done(found, every, preset, folder)
    screen = console(json_path)
    pages: dict[str, str] = {}
    if as_markdown:
        click.echo("\n".join(markdown(p) for p in found if p.done), nl=False)
    else:
        for one in found:
            _show(screen, one)
        pages = _write(found, preset, without, out)
        count = f"{len(pages)} page" if len(pages) == 1 else f"{len(pages)} pages"
        screen.print(f"wrote {count} and {out / 'index.html'}", soft_wrap=True, markup=False)
    plain = [{**p.plain(), "page": pages.get(p.study.name)} for p in found]
    write_json(json_path, {"command": "study report", "preset": preset, "studies": plain})


def _asked(studies: tuple[str, ...], every: bool) -> list[tuple[str, Study]]:
    if not studies and not every:
        raise InputError("which study? Give names (`regraft study list` shows them), or --all")
    chosen = dict.fromkeys([*studies, *(names() if every else ())])
    asked = [(name, named(name)) for name in chosen]
    seen: dict[str, str] = {}
    for name, study in asked:
        if study.name in seen:
            raise InputError(
                f"{seen[study.name]!r} and {name!r} are both called '{study.name}': rename one, or report "
                "them into folders of their own"
            )
        seen[study.name] = name
    return asked


def _check_done(found: list[Published], every: bool, preset: str, folder: Path) -> None:
    """One study asked for alone, or several, none of which has results."""
    if every or any(p.done for p in found):
        return
    first = found[0]
    failed = f" ({first.failed} failed; `--retry-failed` tries them again)" if first.failed else ""
    raise FileError(
        f"no cell of '{first.study.name}' at preset '{preset}' is done in '{folder}'{failed}: run "
        f"`{first.command('run')}` first"
    )


def _write(found: list[Published], preset: str, without: list[str], out: Path) -> dict[str, str]:
    """The pages, whole or not at all each, the index last; paths by the study's name.

    Raises:
        InputError: a study's own report failed; the other pages and the index are written.
    """
    pages, failed = {}, []
    for one in found:
        try:
            if one.done:
                pages[one.study.name] = str(report.write(out / one.file, page(one)))
        except InputError as error:
            failed.append(str(error))
    report.write(out / "index.html", index(found, preset, without))
    if failed:
        raise InputError(f"{'; '.join(failed)}. The other pages are in '{out}'")
    return pages


def _show(screen: Console, one: Published) -> None:
    """A study's verdicts as a table, and why those that are not reproduced are not."""
    screen.print(Text.assemble((one.study.name, "bold"), f"  {one.study.title}"))
    if not one.done:
        screen.print(f"No results yet: run `{one.command('run')}`.\n", soft_wrap=True, markup=False)
        return
    if one.verdicts:
        lines = table("Claim", "Published", "Measured (n)", "p", "Verdict")
        for column in lines.columns[1:]:
            column.no_wrap = True
        lines.columns[4].justify = "left"
        for v in one.verdicts:
            lines.add_row(
                Text(v.claim.text), Text(v.published), Text(measured(v) or "-"), p_value(v) or "-",
                Text(v.verdict, style=STYLES.get(v.verdict, "dim")),
            )  # fmt: skip
        screen.print(lines)
    for v in one.verdicts:
        if v.verdict == NOT_REPRODUCED:
            screen.print(f"not reproduced: {v.claim.text}: {v.why}", markup=False)
    state = partial(one.done, one.cells, one.failed, one.command("run"))
    if state:
        screen.print(state, markup=False)
    screen.print()
