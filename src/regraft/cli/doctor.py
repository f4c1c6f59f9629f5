"""``regraft doctor``: what works on this machine."""

from __future__ import annotations

import sys
from typing import Any

import click

from regraft import doctor
from regraft.cli.common import console, json_option, table, write_json

DENSE = "not compiled: dense computation"
BACKENDS = {"native": "compiled", "numba": "numba's loops", "csr": "torch's CSR products"}


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
    linear, conv = report["kernels"]["linear"], report["kernels"]["conv"]
    agrees = linear["agrees"] and report["kernels"]["gpu"]["agrees"] is not False
    facts.add_row("linear kernels", _describe(linear))
    facts.add_row("conv kernels", f"compiled, {conv['isa']}" if conv["compiled"] else DENSE)
    facts.add_row("on a GPU", _describe_gpu(report["kernels"]["gpu"]))
    facts.add_row("figures agree", "yes" if agrees else "NO")
    for name, there in report["extras"].items():
        facts.add_row(f"extra {name}", "installed" if there else "not installed")
    screen.print(facts)
    for sentence in report["advice"]:
        screen.print(f"- {sentence}", markup=False)
    if not agrees:
        click.echo("regraft: the sparse kernels disagree with the dense product; please report it", err=True)
        sys.exit(1)


def _describe(linear: dict[str, Any]) -> str:
    if linear["backend"] is None:
        return DENSE
    parts = (BACKENDS[linear["backend"]], linear["isa"], f"threads: {linear['threads']}")
    return ", ".join(part for part in parts if part)


def _describe_gpu(gpu: dict[str, Any]) -> str:
    where = "none here" if gpu["name"] is None else gpu["name"]
    choices = " or ".join(f"kernels.use('compressed', backend={name!r})" for name in gpu["choices"])
    return f"{where}; layers would be {gpu['auto']}; to choose: {choices}"
