"""``regraft tournament``: many networks into one, round by round."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from regraft import checkpoint, files, measure
from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.dataset import Dataset, data_options, sample_options
from regraft.cli.merge import choose_dataset, merged_in_blocks, merged_in_memory
from regraft.cli.merge_options import Plan, make_plan, merge_options
from regraft.cli.output import check_output
from regraft.cli.train import choose_device
from regraft.container import only_one
from regraft.data import Data
from regraft.errors import FileError
from regraft.gates import Match, tournament


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@merge_options
@click.option("--size", type=click.IntRange(min=2), default=2, metavar="N", help="Networks of a match.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FOLDER",
    help="Where the networks of each round are kept.  [default: OUT without its ending]",
)
@data_options(None, seed=None, without="no evaluation; the set of the networks' training where one is needed")
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, networks: tuple[Path, ...], out: Path, size: int, folder: Path | None,
    name: str | None, data_dir: Path | None, download: bool, classes: str | None, per_class: int | None,
    test_per_class: int | None, data_seed: int | None, json_path: str | None, device: str,
    threads: int | None, **choices: Any,
) -> None:  # fmt: skip
    """Merge NETWORKS by twos, what comes of it by twos, and so on, until one is left: 8, 4, 2, 1.

    Each match is a `regraft merge` with the same options: gates, selected neurons, or rules. Its network is a
    file in FOLDER; run the command again after an interruption, and matches with training whose files are
    there are not played again.

    \b
    regraft tournament n0.safetensors n1.safetensors n2.safetensors n3.safetensors --gates \\
        --merge-epochs 20 --finetune 20 --data fashion-mnist --out student.safetensors
    """
    check_output(out)
    check_output(json_path)
    plan = make_plan(ctx, choices)
    where = choose_device(device, threads)
    options = sample_options(classes, per_class, test_per_class, data_seed)
    dataset = choose_dataset(plan, networks, name, options)
    data = None if dataset is None else dataset.load(data_dir, download)
    kept = _made(folder or out.with_suffix(""))
    rounds = _Rounds(plan, kept, data, dataset, where)
    with only_one(kept):
        done = tournament(networks, rounds.play, size=size)
        with files.atomic_write(out) as target, open(done.winner, "rb") as winner:
            shutil.copyfileobj(winner, target)
    screen = console(json_path)
    rows = [*rounds.seeded(networks), *rounds.rows]
    screen.print(standings(rows))
    for note in rounds.notes:
        click.echo(f"warning: {note}", err=True)
    screen.print(
        f"merged {len(networks)} networks in {len(done.matches)} matches; wrote {out}", soft_wrap=True
    )
    figures = {
        "command": "tournament", "out": str(out), "size": size, **plan.plain(), "networks": rows,
        "warnings": rounds.notes, "versions": files.versions(),
    }  # fmt: skip
    write_json(json_path, figures | ({} if dataset is None else {"data": dataset.plain()}))


class _Rounds:
    """The matches of a tournament: each a merge of files into a file.

    Attributes:
        rows: figures of each match.
        notes: what is said of their outcomes.
    """

    def __init__(
        self, plan: Plan, folder: Path, data: Data | None, dataset: Dataset | None, device: torch.device
    ) -> None:
        self._plan, self._folder, self._data, self._dataset = plan, folder, data, dataset
        self._device = device
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def play(self, entrants: Sequence[Path], match: Match) -> Path:
        """Merge, unless the file of this very match is there."""
        out = self._folder / f"{match.name}.safetensors"
        played = not self._is_done(entrants, out)
        if played:
            if self._plan.in_blocks:
                outcome = merged_in_blocks(self._plan, entrants, out, self._data)
            else:
                outcome = merged_in_memory(self._plan, entrants, out, self._data, self._dataset, self._device)
            self.notes += [f"{match.name}: {note}" for note in outcome.notes]
        row = {"network": match.name, "round": match.round, "from": list(match.entrants), "played": played}
        self.rows.append({**row, **self._figures(out)})
        return out

    def seeded(self, networks: Sequence[Path]) -> list[dict[str, Any]]:
        """Figures of the networks that the tournament starts from."""
        return [
            {"network": str(i), "round": 0, "from": [str(path)], "played": False, **self._figures(path)}
            for i, path in enumerate(networks)
        ]

    def _is_done(self, entrants: Sequence[Path], out: Path) -> bool:
        """Whether ``out`` is what this match gives; a merge without training is quicker than to be sure."""
        if not (self._plan.gates or self._plan.finetune) or self._dataset is None or not out.exists():
            return False
        provenance = checkpoint.read_header(out).provenance
        parents = [parent.get("sha256") for parent in provenance.get("parents", ())]
        return (
            provenance.get("merge") == self._plan.plain()
            and self._dataset.plain().items() <= provenance.get("data", {}).items()
            and parents == [files.sha256(path) for path in entrants]
        )

    def _figures(self, path: Path) -> dict[str, Any]:
        """Accuracy and loss on the test samples, where there are any."""
        if self._data is None:
            return {}
        return dict(measure.evaluate(checkpoint.load(path), self._data.test, loss=self._plan.loss))


def _made(folder: Path) -> Path:
    """The folder, which is made if it is not there.

    Raises:
        FileError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the folder '{folder}' for the networks of each round: {error}"
        ) from None
    return folder


def standings(rows: Sequence[dict[str, Any]]) -> Table:
    """The networks round by round."""
    figures = [column for column in ("accuracy", "loss") if column in rows[0]]
    lines = table("network", "round", "of", *figures)
    for row in rows:
        of = Path(row["from"][0]).name if row["round"] == 0 else ", ".join(row["from"])
        lines.add_row(row["network"], str(row["round"]), of, *(f"{row[column]:.4f}" for column in figures))
    return lines
