"""``regraft export``: a network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from regraft.cli.common import console, json_option, table, write_json
from regraft.errors import InputError
from regraft.models.spec import number_of

SUFFIXES = {"onnx": ".onnx", "c": ".c", "npz": ".npz"}


@click.command()
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--to", "kind", type=click.Choice(sorted(SUFFIXES)), default=None,
              help="What to write.  [default: by the suffix of --out]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=None,
              help="File to write.  [default: the network's name with the new suffix]")  # fmt: skip
@click.option("--input-shape", default=None, metavar="N,N,...",
              help="Shape of one sample, as in 1,28,28.  [default: what NETWORK says]")  # fmt: skip
@click.option("--values", type=click.Choice(["float32", "float16", "int8"]), default="float32",
              help="How c and npz store values; int8 has one scale for each output unit.")  # fmt: skip
@click.option("--name", default=None,
              help="Prefix of all names in the C file.  [default: from the name of the file]")  # fmt: skip
@click.option("--sparse", is_flag=True, default=False,
              help="Store ONNX weights as ONNX's sparse tensors (12 bytes per connection).")  # fmt: skip
@click.option("--packed", is_flag=True, default=False,
              help="Store ONNX weights as steps and values (6 bytes per connection).")  # fmt: skip
@json_option
def command(
    network: Path,
    kind: str | None,
    out: Path | None,
    input_shape: str | None,
    values: str,
    name: str | None,
    sparse: bool,
    packed: bool,
    json_path: str | None,
) -> None:
    """Write NETWORK for a runtime that needs neither torch nor regraft.

    \b
    onnx  for onnxruntime and others. They compute densely, but --sparse and
          --packed make the file small.
    c     one C99 file with the weights as constants and NAME_predict(x, y);
          no library, no memory allocation.
    npz   for numpy_runtime.py, which needs NumPy only: copy it to the device
          beside the file.
    """
    kind = _kind(kind, out)
    _check_options(kind, values, name, sparse, packed)
    out = network.with_suffix(SUFFIXES[kind]) if out is None else out
    shape = None if input_shape is None else _shape(input_shape)

    from regraft import checkpoint, export  # torch is slow to import, and --help need not wait
    from regraft.export import numpy_runtime

    model = checkpoint.load(network)
    if kind == "onnx":
        form = "packed" if packed else "tensor" if sparse else "no"
        program = export.to_onnx(model, out, input_shape=shape, sparse=form)
    elif kind == "c":
        program = export.to_c(model, out, input_shape=shape, values=values, name=name)
    else:
        program = export.to_npz(model, out, input_shape=shape, values=values)
    figures: dict[str, Any] = {
        "network": str(network), "to": kind, "out": str(out), "bytes": out.stat().st_size,
        "network_bytes": network.stat().st_size,
    }  # fmt: skip
    if program is not None:
        figures |= {
            "input_shape": program.input_shape, "output_shape": program.output_shape,
            "connections": program.nnz,
            "dense_bytes": 4 * sum(s.weight.size for s in program.steps if s.weight is not None),
        }  # fmt: skip
    if kind == "npz":
        figures["runtime"] = numpy_runtime.__file__
    write_json(json_path, figures)
    shown = table("export", "", title=f"{network} -> {out}")
    for key, value in figures.items():
        if key not in ("network", "out"):
            shown.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    console(json_path).print(shown)


def _kind(kind: str | None, out: Path | None) -> str:
    if kind is not None:
        return kind
    found = [k for k, suffix in SUFFIXES.items() if out is not None and out.suffix == suffix]
    if not found:
        raise InputError(
            f"the suffix of --out '{out}' does not say what to write: name a .onnx, .c or .npz file, "
            "or add --to"
            if out is not None
            else "export needs --to onnx, c or npz (or --out with such a suffix)"
        )
    return found[0]


def _check_options(kind: str, values: str, name: str | None, sparse: bool, packed: bool) -> None:
    if sparse and packed:
        raise InputError("--sparse and --packed are two ways to store the same weights: choose one")
    if (sparse or packed) and kind != "onnx":
        raise InputError(
            f"--sparse and --packed are for ONNX files; --to {kind} is always sparse: leave them out"
        )
    if values != "float32" and kind == "onnx":
        raise InputError(f"--values {values} is for --to c and npz; ONNX files hold float32: leave it out")
    if name is not None and kind != "c":
        raise InputError(f"--name is for --to c, not for --to {kind}: leave it out")


def _shape(text: str) -> tuple[int, ...]:
    sizes = [number_of(word.strip()) for word in text.replace("x", ",").split(",")]
    if any(size is None for size in sizes):
        raise InputError(f"--input-shape is '{text}', but must be positive integers, as in 1,28,28")
    return tuple(size for size in sizes if size is not None)
