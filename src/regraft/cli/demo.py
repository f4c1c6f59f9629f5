"""``regraft demo``: train sparse networks that evolve, merge them, write a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from regraft.cli.common import console, json_option, progress_bar, table, write_json
from regraft.cli.dataset import Dataset, data_options, parse_classes
from regraft.cli.output import check_output
from regraft.container import only_one
from regraft.errors import FileError
from regraft.report import check_available
from regraft.report import write as write_report
from regraft.studies import demo
from regraft.studies.networks import steps_of, train_network
from regraft.train import Recipe

DEFAULT = demo.RECIPE


@click.command()
@data_options("digits")
@click.option("--networks", type=click.IntRange(2, 20), default=4, help="Networks to train, one seed each.")
@click.option("--epochs", type=click.IntRange(min=1), default=DEFAULT.epochs, help="Passes over the data.")
@click.option(
    "--density",
    type=float,
    default=DEFAULT.density,
    help="Share of the possible connections that exist, in (0, 1].",
)
@click.option("--model", default=DEFAULT.model, help="Layer sizes; 'in' and 'classes' are the data's.")
@click.option("--activation", default=DEFAULT.activation, help="Between the layers.")
@click.option("--lr", type=float, default=DEFAULT.lr, help="Learning rate of SGD with momentum 0.9.")
@click.option("--batch-size", type=click.IntRange(min=1), default=DEFAULT.batch_size, help="Samples a step.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    help="Seed of the first network; the others have the next ones.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/demo"),
    help="Folder for report.html, results.json and the networks; what is there is replaced.",
)
@json_option
def command(
    name: str, data_dir: Path | None, download: bool, classes: str | None, per_class: int | None,
    test_per_class: int | None, data_seed: int, networks: int, out: Path, json_path: str | None,
    **choices: Any,
) -> None:  # fmt: skip
    """Train several sparse networks, merge them into one, and show what came out.

    The networks differ in their seeds only: other initial values, another topology, which evolves by SET.
    They are merged by each of 5 rules for weights with each of 5 rules for biases, all at once and in pairs,
    before and after making the result as sparse as its parents. Takes about half a minute.
    """
    check_available()
    _make_folder(out)
    check_output(json_path)
    recipe = replace(DEFAULT, **choices)
    dataset = Dataset(name, parse_classes(classes), per_class, test_per_class, data_seed)
    data = dataset.load(data_dir, download)
    screen = console(json_path)
    with only_one(out):
        seeds = range(recipe.seed, recipe.seed + networks)
        with progress_bar("training", networks * steps_of(recipe, data)) as advance:
            trained = [train_network(recipe, data, seed, advance) for seed in seeds]
        with progress_bar("merging", demo.merges(networks)) as advance:
            made = demo.merge_networks(recipe, data, trained, advance)
        figures = demo.figures(made)
        paths = demo.write(made, out)
        write_json(str(out / "results.json"), figures)
        report = write_report(out / "report.html", demo.results(made))
    print_figures(screen, recipe, figures)
    screen.print(demo.summary(made), soft_wrap=True)
    screen.print(f"wrote {report}, {out / 'results.json'} and {len(paths)} networks", soft_wrap=True)
    write_json(json_path, figures)


def print_figures(screen: Console, recipe: Recipe, figures: dict[str, Any]) -> None:
    """Parents, distances, and accuracies of the merged networks."""
    parents = figures["parents"]
    made = table("network", "test accuracy", "test loss", "connections", "density", title="Parents")
    for p in parents:
        made.add_row(
            p["name"], f"{p['accuracy']:.4f}", f"{p['loss']:.4f}", f"{p['connections']:,}",
            f"{100 * p['density']:.2f} %",
        )  # fmt: skip
    made.add_row("mean", f"{figures['parents_mean_accuracy']:.4f}", style="bold")
    made.add_row("best", f"{figures['parents_best_accuracy']:.4f}", style="bold")
    _spaced(screen, made)
    if len(parents) <= 10:
        made = table("", *(p["name"] for p in parents), title="NNSTD (0 the same topology, 1 disjoint)")
        for p, row in zip(parents, figures["nnstd"], strict=True):
            made.add_row(p["name"], *(f"{v:.3f}" for v in row))
        _spaced(screen, made)
        screen.print(f"independent random topologies: {figures['expected_nnstd']:.3f}\n")
    for kind, grid in figures["accuracy"].items():
        made = table("weights \\ biases", *figures["bias_rules"], title=f"Test accuracy: {kind}")
        for rule, row in zip(figures["weight_rules"], grid, strict=True):
            made.add_row(rule, *(f"{v:.4f}" for v in row))
        _spaced(screen, made)


def _spaced(screen: Console, made: Table) -> None:
    screen.print(made)
    screen.print()


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder '{out}': {error.strerror or error}") from error
    check_output(out / "report.html")
