"""``regraft inspect``: what is in a network file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from torch import nn

from regraft import checkpoint, measure
from regraft.cli.common import console, json_option, table, write_json
from regraft.cli.output import check_output
from regraft.files import Header, read_network
from regraft.layers import SparseLayer
from regraft.weight import SparseWeight


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@json_option
def command(network: Path, json_path: str | None) -> None:
    """Layers, densities, dead units, parameters, bytes and FLOPs of NETWORK, and where it came from.

    FLOPs are multiplications and additions for one sample. A unit is dead where no connection comes in or
    none goes out to the next layer.
    """
    check_output(json_path)
    header = checkpoint.read_header(network)
    figures = inspect_file(network, header)
    screen = console(json_path)
    _print_layers(screen, figures)
    _print_summary(screen, figures)
    _print_origin(screen, header)
    write_json(json_path, {
        "command": "inspect", "file": str(network), "format": header.format,
        "model": None if header.model is None else dict(header.model), **figures,
        "provenance": dict(header.provenance), "versions": dict(header.versions),
    })  # fmt: skip


def inspect_file(path: Path, header: Header) -> dict[str, Any]:
    """``measure.inspect`` of a file, and ``bytes_on_disk``. Of a model that regraft cannot build only the
    sparse layers are listed, in the file's order; its other tensors count as parameters."""
    model = _stand_in(path) if header.model is None else checkpoint.load(path)
    return measure.inspect(model) | {"bytes_on_disk": path.stat().st_size}


def _stand_in(path: Path) -> nn.Module:
    tensors, header = read_network(path)
    model = nn.Module()
    for name, shape in header.shapes.items():
        weight = SparseWeight(shape, tensors.pop(f"{name}.index"), tensors.pop(f"{name}.values"))
        bias = tensors.get(f"{name.removesuffix('.weight')}.bias")
        fits = bias is not None and bias.shape == (shape[0],)
        if fits:
            tensors.pop(f"{name.removesuffix('.weight')}.bias")
        layer = SparseLayer(weight, bias if fits else None)
        # a module's name has no dots
        model.add_module(name.removesuffix(".weight").replace(".", "/"), layer)
    for name, tensor in tensors.items():
        plain = name.replace(".", "/")
        if name in header.buffers or not tensor.is_floating_point():
            model.register_buffer(plain, tensor)
        else:
            model.register_parameter(plain, nn.Parameter(tensor))
    return model


def _print_layers(screen: Console, figures: dict[str, Any]) -> None:
    lines = table("layer", "type", "shape", "connections", "density", "dead", "FLOPs")
    for layer in figures["layers"]:
        lines.add_row(
            layer["name"].replace("/", "."), layer["type"], "x".join(map(str, layer["shape"])),
            f"{layer['nnz']:,}", f"{100 * layer['density']:.2f} %",
            f"{layer['dead_units']:,}", _flops(layer["flops"]),
        )  # fmt: skip
    screen.print(lines)


def _print_summary(screen: Console, figures: dict[str, Any]) -> None:
    screen.print(
        f"\nparameters  {figures['parameters']:,} instead of {figures['dense_parameters']:,} "
        f"(compression x{figures['compression']:.1f}), density {100 * figures['density']:.2f} %",
        soft_wrap=True,
    )
    screen.print(
        f"bytes       {figures['bytes']:,} in memory instead of {figures['dense_bytes']:,}; "
        f"{figures['bytes_on_disk']:,} on disk",
        soft_wrap=True,
    )
    screen.print(
        f"FLOPs       {_flops(figures['flops'])} per sample instead of {_flops(figures['dense_flops'])}",
        soft_wrap=True,
    )
    screen.print(f"dead units  {figures['dead_units']:,}; unused inputs {figures['unused_inputs']:,}")


def _print_origin(screen: Console, header: Header) -> None:
    origin = header.provenance
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    screen.print(f"written by  {versions or 'unknown'}")
    for key, value in origin.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {_short(v)}" for k, v in value.items() if not _says_nothing(v))
        elif isinstance(value, list):
            value = ", ".join(_short(v) for v in value)
        if value not in (None, ""):
            screen.print(f"{key:<11} {value}", soft_wrap=True, markup=False)


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value == []


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        value = value.get("path") or value.get("file") or value.get("name") or value
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _flops(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"
