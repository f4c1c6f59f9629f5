"""``regraft doctor``: what works on this machine."""

from __future__ import annotations

import sys

import click

from regraft import doctor
from regraft.cli.common import console, json_option, table, write_json


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """Tell which kernels run, on which instructions and threads, and what to install.

    Exit code 1 where a kernel computes wrong figures.
    """
    report = doctor.examine()
    write_json(json_path, report)
    screen = console(json_path)
    facts = table("what", "figure")
    facts.columns[1].justify = "left"
    for name, value in {**report["versions"], **report["machine"]}.items():
        facts.add_row(name.replace("_", " "), str(value))
    for name in ("linear", "conv"):
        kernel = report["kernels"][name]
        facts.add_row(
            f"{name} kernels",
            f"compiled, {kernel['isa']}" if kernel["compiled"] else "not compiled: dense computation",
        )
    facts.add_row("figures agree", "yes" if report["kernels"]["linear"]["agrees"] else "NO")
    for name, there in report["extras"].items():
        facts.add_row(f"extra {name}", "installed" if there else "not installed")
    screen.print(facts)
    for sentence in report["advice"]:
        screen.print(f"- {sentence}", markup=False)
    if not report["kernels"]["linear"]["agrees"]:
        click.echo("regraft: the sparse kernels disagree with the dense product; please report it", err=True)
        sys.exit(1)
