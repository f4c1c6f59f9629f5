"""``regraft distance``: how different the topologies of networks are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from regraft import files
from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.output import check_output
from regraft.errors import InputError, MismatchError, MissingDependency
from regraft.files import NetworkFile, atomic_write
from regraft.models.spec import number_of
from regraft.topology import Topology


@click.command()
@click.argument("networks", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--pattern",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="Also draw which inputs the first layer of each network looks at: .png, .svg or .pdf.",
)
@click.option(
    "--image",
    default=None,
    metavar="HxW",
    help="Arrange the inputs of --pattern as an image, as in 28x28.  [default: a square, where it is one]",
)
@json_option
def command(
    networks: tuple[Path, ...], pattern: Path | None, image: str | None, json_path: str | None
) -> None:
    """Compare the topologies of two or more NETWORKS of one architecture.

    NNSTD is 0 for equal and 1 for disjoint topologies; it is 1 - Jaccard, connection by connection. The
    expected NNSTD is that of independent uniform topologies of the same densities: 2S / (1 + S) for two of
    sparsity S.
    """
    if len(networks) < 2:
        raise InputError("distance needs two networks or more: regraft distance a.safetensors b.safetensors")
    check_output(pattern)
    check_output(json_path)
    topologies = [read_topology(path) for path in networks]
    size = parse_image(image)
    for path, topology in zip(networks[1:], topologies[1:], strict=True):
        try:
            topologies[0].check_same_weights(topology)
        except MismatchError as error:
            raise MismatchError(f"'{networks[0]}' and '{path}' differ: {error}") from None
    pairs = [compare(networks, topologies, i, j) for i, j in combinations(range(len(networks)), 2)]
    figures: dict[str, Any] = {
        "command": "distance", "networks": [str(p) for p in networks],
        "densities": [t.density for t in topologies], "pairs": pairs,
    }  # fmt: skip
    if pattern is not None:
        draw_patterns(pattern, networks, topologies, size)
        figures["pattern"] = str(pattern)
    screen = console(json_path)
    print_pair(screen, pairs[0]) if len(pairs) == 1 else print_matrix(screen, networks, pairs)
    if pattern is not None:
        screen.print(f"wrote {pattern}", soft_wrap=True)
    write_json(json_path, {**figures, "versions": files.versions()})


def read_topology(path: Path) -> Topology:
    """The positions of a network file; its values are not read.

    Raises:
        FileError: the file cannot be read.
        InputError: the network is dense.
    """
    with NetworkFile(path) as file:
        found = {name: (shape, file.read(f"{name}.index")) for name, shape in file.shapes.items()}
    if not found:
        raise InputError(f"'{path}' has no sparse weight: the topology of a dense network is all of it")
    return Topology(found)


def compare(networks: Sequence[Path], topologies: Sequence[Topology], i: int, j: int) -> dict[str, Any]:
    """All distances of a pair, as plain values."""
    a, b = topologies[i], topologies[j]
    shared = a.overlap(b)
    layers = [
        {
            "name": name, "shape": list(a[name].shape), "connections": [a[name].nnz, b[name].nnz],
            "shared": shared[name][0], "union": shared[name][1], "nnstd": a.nnstd_by_weight(b)[name],
            "jaccard": a.jaccard_by_weight(b)[name],
            "expected_nnstd": Topology({name: a[name]}).expected_nnstd(Topology({name: b[name]})),
        }
        for name in a
    ]  # fmt: skip
    return {
        "a": str(networks[i]), "b": str(networks[j]), "nnstd": a.nnstd(b), "jaccard": a.jaccard(b),
        "expected_nnstd": a.expected_nnstd(b), "layers": layers,
    }  # fmt: skip


def print_pair(screen: Console, pair: dict[str, Any]) -> None:
    """A line for each layer, and one for the whole."""
    lines = table("weight", "connections", "shared", "NNSTD", "expected", "Jaccard")
    for layer in pair["layers"]:
        a, b = layer["connections"]
        lines.add_row(
            layer["name"], f"{a:,}" if a == b else f"{a:,} / {b:,}", f"{layer['shared']:,}",
            f"{layer['nnstd']:.4f}", f"{layer['expected_nnstd']:.4f}", f"{layer['jaccard']:.4f}",
        )  # fmt: skip
    totals = [sum(layer["connections"][k] for layer in pair["layers"]) for k in (0, 1)]
    lines.add_section()
    lines.add_row(
        "whole", f"{totals[0]:,}" if totals[0] == totals[1] else f"{totals[0]:,} / {totals[1]:,}",
        f"{sum(layer['shared'] for layer in pair['layers']):,}",
        f"{pair['nnstd']:.4f}", f"{pair['expected_nnstd']:.4f}", f"{pair['jaccard']:.4f}",
    )  # fmt: skip
    screen.print(lines)


def print_matrix(screen: Console, networks: Sequence[Path], pairs: Sequence[dict[str, Any]]) -> None:
    """NNSTD of the whole for each pair."""
    numbers = [str(i + 1) for i in range(len(networks))]
    lines = table("NNSTD", *numbers)
    values = iter(pairs)
    cells = {(i, j): next(values)["nnstd"] for i, j in combinations(range(len(networks)), 2)}
    for i, path in enumerate(networks):
        row = ["-" if i == j else f"{cells[min(i, j), max(i, j)]:.4f}" for j in range(len(networks))]
        lines.add_row(f"{i + 1}  {path.name}", *row)
    screen.print(lines)
    expected = [pair["expected_nnstd"] for pair in pairs]
    low, high = min(expected), max(expected)
    shown = f"{low:.4f}" if math.isclose(low, high, abs_tol=5e-5) else f"{low:.4f} to {high:.4f}"
    screen.print(f"expected of independent uniform topologies: {shown}")


def parse_image(text: str | None) -> tuple[int, int] | None:
    """``28x28`` as (height, width).

    >>> parse_image("8x16")
    (8, 16)

    Raises:
        InputError: not two positive integers.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    sizes = [number_of(p) for p in parts]
    if len(sizes) != 2 or sizes[0] is None or sizes[1] is None:
        raise InputError(f"image is '{text}', but must be height x width, as in 28x28")
    return sizes[0], sizes[1]


def draw_patterns(
    out: Path, networks: Sequence[Path], topologies: Sequence[Topology], image: tuple[int, int] | None
) -> None:
    """The sparse connectivity pattern of each network's first layer (thesis 1, figure 18), side by side.

    Raises:
        InputError: the inputs do not fill the image, or the file's type is unknown.
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "report", "drawing a connectivity pattern") from None
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InputError(f"pattern is '{out}', but must end in .png, .svg or .pdf")
    patterns = [topology.connectivity_pattern() for topology in topologies]
    inputs = patterns[0].numel()
    side = math.isqrt(inputs)
    height, width = image or ((side, side) if side * side == inputs else (1, inputs))
    if height * width != inputs:
        raise InputError(
            f"the first layer has {inputs} inputs, which do not fill an image of {height}x{width}"
        )
    highest = max(max(int(p.max()) for p in patterns), 1)
    columns = min(len(patterns), 4)
    rows = math.ceil(len(patterns) / columns)
    figure = Figure(figsize=(3.2 * columns + 0.8, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for axis, path, pattern in zip(axes, networks, patterns, strict=False):
        shown = axis.imshow(
            pattern.view(height, width).numpy(), vmin=0, vmax=highest, aspect="auto" if height == 1 else None
        )
        axis.set_title(path.stem)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in axes[len(patterns) :]:
        axis.set_axis_off()
    figure.colorbar(shown, ax=list(axes), label="connections of the input")
    with atomic_write(out) as file:
        figure.savefig(file, format=out.suffix[1:].lower())
