"""``regraft merge``: several networks into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click
import torch
from rich.table import Table

from regraft import checkpoint, files, measure
from regraft.cli.common import console, json_option, progress_bar, table, write_json
from regraft.cli.dataset import Dataset, data_options, parse_classes
from regraft.cli.output import check_output
from regraft.data import Data
from regraft.errors import InputError, check_density
from regraft.merging import RULES, MergedLayer, merge_files
from regraft.merging.keep import Density, Scope


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The merged network; it may take the place of one of NETWORKS.",
)
@click.option(
    "--weights", default="magnitude", metavar="RULE", help="Rule for weights: " + ", ".join(RULES) + "."
)
@click.option(
    "--biases",
    default="average",
    metavar="RULE",
    help="Rule for biases, and for scales of normalisation layers: the same five.",
)
@click.option(
    "--density",
    default="keep",
    metavar="keep|none|NUMBER",
    help="Connections that stay: 'keep' the parents' mean count of each layer, a share of positions in "
    "(0, 1], or 'none' to keep all of the union.",
)
@click.option(
    "--scope",
    default="layer",
    metavar="layer|global",
    help="Keep the best of each layer, or of all layers together.",
)
@click.option(
    "--score", default="magnitude", metavar="magnitude|random", help="What makes a connection stay."
)
@click.option(
    "--over",
    default="networks",
    metavar="networks|present",
    help="The average divides by the number of networks, or of those that have the weight.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Seed of the random rule and of equal scores.")
@data_options(None, seed=None, without="no evaluation")
@json_option
def command(
    networks: tuple[Path, ...], out: Path, weights: str, biases: str, density: str, scope: str, score: str,
    over: str, seed: int, name: str | None, data_dir: Path | None, download: bool, classes: str | None,
    per_class: int | None, test_per_class: int | None, data_seed: int | None, json_path: str | None,
) -> None:  # fmt: skip
    """Merge NETWORKS, files of one architecture, into one of the same sparsity.

    At each position the rule combines the values of the networks that have it; then the best connections are
    kept. Files are read in blocks, so memory does not grow with their number. With --data NAME the parents
    and the merged network are evaluated on the test samples.
    """
    check_output(out)
    check_output(json_path)
    wanted = parse_density(density)
    dataset = None
    if name is not None:
        seed_of_data = 0 if data_seed is None else data_seed
        dataset = Dataset(name, parse_classes(classes), per_class, test_per_class, seed_of_data)
    data = None if dataset is None else dataset.load(data_dir, download)
    # before merging, since the merged file may take the place of a parent
    before = [] if data is None else [evaluated(path, data) for path in networks]
    with progress_bar("merging", None) as advance:
        layers = merge_files(
            networks, out, weights, biases, wanted, scope=cast(Scope, scope), score=score, over=over,
            generator=torch.Generator().manual_seed(seed), provenance={"seed": seed},
            on_layer=lambda layer: advance(note=layer),
        )  # fmt: skip
    header = checkpoint.read_header(out)
    figures: dict[str, Any] = {
        "command": "merge", "out": str(out), "bytes_on_disk": out.stat().st_size,
        "parents": header.provenance["parents"], "weights": weights, "biases": biases, "density": wanted,
        "scope": scope, "score": score, "over": over, "seed": seed,
        "layers": [layer_figures(layer) for layer in layers],
    }  # fmt: skip
    screen = console(json_path)
    screen.print(layer_table(layers))
    if data is not None and dataset is not None:
        figures |= {"data": dataset.plain(), "evaluation": [*before, evaluated(out, data, "merged")]}
        screen.print(evaluation_table(figures["evaluation"], data.name))
    screen.print(f"merged {len(networks)} networks by {weights} x {biases}; wrote {out}", soft_wrap=True)
    write_json(json_path, {**figures, "versions": files.versions()})


def parse_density(text: str) -> Density:
    """``keep``, ``none`` or a number.

    >>> parse_density("keep"), parse_density("none"), parse_density("0.05")
    ('keep', None, 0.05)

    Raises:
        InputError: anything else, or a number outside (0, 1].
    """
    if text in ("keep", "none"):
        return "keep" if text == "keep" else None
    try:
        return check_density(float(text))
    except ValueError:  # InputError is one too
        raise InputError(f"density is '{text}', but must be 'keep', 'none' or a number in (0, 1]") from None


def evaluated(path: Path, data: Data, label: str | None = None) -> dict[str, Any]:
    """Accuracy and loss of a network file on the test samples."""
    return {"network": label or str(path), **measure.evaluate(checkpoint.load(path), data.test)}


def layer_figures(layer: MergedLayer) -> dict[str, Any]:
    """What became of a layer, as plain values."""
    size = math.prod(layer.shape)
    return {
        "name": layer.name, "shape": list(layer.shape), "parents": list(layer.parents), "union": layer.union,
        "kept": layer.kept, "union_density": layer.union / size if size else 0.0,
        "kept_density": layer.kept / size if size else 0.0,
    }  # fmt: skip


def layer_table(layers: Sequence[MergedLayer]) -> Table:
    """Connections of the parents, of their union, and of the merged network."""
    lines = table("weight", "shape", "parents' mean", "union", "kept", "density")
    for layer in layers:
        mean = sum(layer.parents) / len(layer.parents)
        lines.add_row(
            layer.name, "x".join(map(str, layer.shape)), f"{mean:,.6g}", f"{layer.union:,}",
            f"{layer.kept:,}", f"{100 * layer_figures(layer)['kept_density']:.2f} %",
        )  # fmt: skip
    return lines


def evaluation_table(rows: Sequence[dict[str, Any]], data: str) -> Table:
    """Accuracy and loss of the parents and of the merged network."""
    lines = table("network", "accuracy", "loss", title=f"on the test samples of {data}")
    for row in rows:
        lines.add_row(row["network"], f"{row['accuracy']:.4f}", f"{row['loss']:.4f}")
    return lines
