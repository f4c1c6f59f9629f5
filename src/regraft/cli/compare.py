"""``regraft compare``: what tickets share, what they kept, and how much of it carries something."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from regraft import diagnose, files, report
from regraft.cli.common import console, json_option, write_json
from regraft.cli.compare_report import picture, print_comparison
from regraft.cli.output import check_output
from regraft.cli.ticket import Compared
from regraft.errors import InputError, MismatchError


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="Also draw overlaps, densities and weights on one page.",
)
@click.option(
    "--bins", type=click.IntRange(min=1), default=40, metavar="N", help="Of the histograms of the weights."
)
@json_option
def command(networks: tuple[Path, ...], html: Path | None, bins: int, json_path: str | None) -> None:
    """Compare two or more NETWORKS of one architecture: tickets of regraft prune, trained or not.

    The Jaccard index is 1 for equal and 0 for disjoint layers; beside it stands what random tickets of the
    same densities would have. Effective connections lie on a path from an input to an output. Weights are
    those in the files, and the initial values of the same connections where the files say how they were
    drawn.
    """
    if len(networks) < 2:
        raise InputError("compare needs two networks or more: regraft compare a.safetensors b.safetensors")
    for path in (html, json_path):
        check_output(path)
    if html is not None:
        report.check_available()
    tickets = [Compared.read(path) for path in networks]
    for other in tickets[1:]:
        try:
            tickets[0].topology.check_same_weights(other.topology)
        except MismatchError as error:
            raise MismatchError(f"'{networks[0]}' and '{other.path}' differ: {error}") from None
    pairs = [
        (i, j, diagnose.overlap(tickets[i].topology, tickets[j].topology))
        for i, j in itertools.combinations(range(len(tickets)), 2)
    ]
    screen = console(json_path)
    print_comparison(screen, tickets, pairs)
    for ticket in tickets:
        for fault in ticket.faults():
            click.echo(f"warning: {ticket.path}: {fault}", err=True)
    if html is not None:
        report.write(html, picture(tickets, pairs, bins))
        screen.print(f"wrote {html}", soft_wrap=True)
    figures: dict[str, Any] = {
        "command": "compare",
        "networks": [ticket.plain(bins) for ticket in tickets],
        "pairs": [{"a": str(networks[i]), "b": str(networks[j]), **found.plain()} for i, j, found in pairs],
        "versions": files.versions(),
    }
    write_json(json_path, figures)
