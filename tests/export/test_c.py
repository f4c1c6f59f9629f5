"""C files compile without a warning and compute what torch computes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import FileError, InputError
from regraft.export import to_c

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

Net = tuple[nn.Module, torch.Tensor]
Case = Callable[[str], tuple[nn.Module, torch.Tensor]]
Sparse = Callable[..., nn.Module]

COMPILER = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compiled(source: Path, *flags: str) -> ctypes.CDLL:
    """The file as a shared library, compiled as strictly as possible."""
    library = source.with_suffix(".so")
    assert COMPILER is not None
    strict = ["-O3", "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(
        [COMPILER, *strict, *flags, "-shared", "-fPIC", str(source), "-o", str(library), "-lm"], check=True
    )
    return ctypes.CDLL(str(library))


def predict(library: ctypes.CDLL, name: str, x: torch.Tensor, outputs: tuple[int, ...]) -> torch.Tensor:
    rows = []
    for sample in x.numpy():
        taken = np.ascontiguousarray(sample)
        y = np.full(outputs, np.nan, np.float32)
        getattr(library, f"{name}_predict")(
            taken.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p)
        )
        rows.append(torch.from_numpy(y))
    return torch.stack(rows)


@needs_compiler
def test_computes_what_torch_computes(tmp_path: Path, net: Net) -> None:
    model, x = net
    program = to_c(model, tmp_path / "net.c", input_shape=x.shape[1:])
    y = predict(compiled(tmp_path / "net.c"), "net", x, program.output_shape)
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize(("values", "tolerance"), [("float16", 2e-3), ("int8", 3e-2)])
@pytest.mark.parametrize("name", ["mlp", "lenet", "odd conv"])
def test_small_values_are_close(tmp_path: Path, name: str, values: str, tolerance: float, case: Case) -> None:
    model, x = case(name)
    program = to_c(model, tmp_path / "net.c", input_shape=x.shape[1:], values=values)
    y = predict(compiled(tmp_path / "net.c"), "net", x, program.output_shape)
    want = model(x)
    assert (y - want).norm() < tolerance * want.norm()


@needs_compiler
def test_float16_is_exact_for_halves(tmp_path: Path) -> None:
    """Subnormal, signed and largest halves come back to the last bit."""
    layer = nn.Linear(1, 6, bias=False)
    halves = torch.tensor([6e-8, -3.1e-5, 65504.0, -0.333, 1.0, -2.0]).half()
    layer.weight.data = halves.float()[:, None]
    to_c(layer, tmp_path / "net.c", values="float16")
    y = predict(compiled(tmp_path / "net.c"), "net", torch.ones(1, 1), (6,))
    assert torch.equal(y[0], halves.float())


@needs_compiler
@pytest.mark.parametrize("density", [0.002, 0.02, 0.9])
@pytest.mark.parametrize("width", [300, 70_000])
def test_codings(tmp_path: Path, density: float, width: int, sparse: Sparse) -> None:
    """Steps, bridges over long gaps, wide places, dense rows; lines without connections."""
    if width > 65_536:
        density = min(density, 0.02)
    model = nn.Sequential(nn.Linear(width, 9), nn.ReLU(), nn.Linear(9, 300), nn.ReLU(), nn.Linear(300, 4))
    model = sparse(model, density=density)
    x = torch.randn(2, width)
    to_c(model, tmp_path / "net.c")
    y = predict(compiled(tmp_path / "net.c", "-O1"), "net", x, (4,))
    torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-5)


@needs_compiler
def test_layer_without_connections(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    to_c(model, tmp_path / "net.c")
    y = predict(compiled(tmp_path / "net.c"), "net", torch.randn(3, 3), (2,))
    torch.testing.assert_close(y, model[2].bias.expand(3, 2))


@needs_compiler
@pytest.mark.parametrize("values", ["float32", "float16", "int8"])
@pytest.mark.parametrize("width", [3, 16, 1000, 1003])
def test_dense_layers(tmp_path: Path, width: int, values: str) -> None:
    """A layer that is full is stored as dense rows; gcc finds nothing to warn about at any width."""
    model = nn.Sequential(nn.Linear(width, 10), nn.ReLU(), nn.Linear(10, 4)).eval()
    x = torch.randn(2, width)
    to_c(model, tmp_path / "net.c", values=values)
    y = predict(compiled(tmp_path / "net.c"), "net", x, (4,))
    tolerance = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}[values]
    torch.testing.assert_close(y, model(x), rtol=tolerance, atol=tolerance)


@needs_compiler
def test_static_buffers(tmp_path: Path, case: Case) -> None:
    model, x = case("lenet")
    to_c(model, tmp_path / "net.c", input_shape=x.shape[1:])
    y = predict(compiled(tmp_path / "net.c", "-Dnet_BUFFER=static"), "net", x, (10,))
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


@needs_compiler
def test_two_networks_in_one_program(tmp_path: Path, case: Case) -> None:
    """Every name carries the prefix, so that two files can be compiled as one."""
    model, x = case("mlp")
    to_c(model, tmp_path / "a.c")
    to_c(model, tmp_path / "b.c", values="int8")
    both = tmp_path / "both.c"
    both.write_text('#include "a.c"\n#include "b.c"\n')
    library = compiled(both)
    torch.testing.assert_close(predict(library, "a", x, (5,)), model(x), rtol=1e-5, atol=1e-5)


def test_no_allocation_and_one_library_function(tmp_path: Path, case: Case) -> None:
    for name in ("mlp", "lenet", "residual", "odd conv", "conv1d", "tokens"):
        model, x = case(name)
        to_c(model, tmp_path / "net.c", input_shape=x.shape[1:])
        text = (tmp_path / "net.c").read_text()
        assert "malloc" not in text
        includes = {line for line in text.splitlines() if line.startswith("#include")}
        assert includes <= {"#include <stdint.h>", "#include <math.h>"}
        assert ("#include <math.h>" in includes) == ("expf(" in text)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(1)), "layer '1' is a log_softmax"),
        (nn.Sequential(nn.Linear(3, 3), nn.PReLU()), "layer '1' is PReLU"),
        (nn.Sequential(nn.Conv3d(1, 1, 2)), "layer '0' has three spatial dimensions"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), "padding_mode 'reflect'"),
    ],
)
def test_unsupported_layers_are_named(tmp_path: Path, model: nn.Module, message: str) -> None:
    shape = (1, 4, 4, 4) if "three" in message else (1, 4, 4) if "reflect" in message else None
    with pytest.raises(InputError, match=message):
        to_c(model, tmp_path / "net.c", input_shape=shape)
    assert list(tmp_path.iterdir()) == []


def test_bad_input(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(InputError, match="'2x' cannot prefix C names"):
        to_c(layer, tmp_path / "net.c", name="2x")
    with pytest.raises(InputError, match="did you mean 'float16'"):
        to_c(layer, tmp_path / "net.c", values="flaot16")
    with pytest.raises(FileError, match="does not exist"):
        to_c(layer, tmp_path / "nowhere" / "net.c")
    layer.weight.data[0, 0] = 1e6
    with pytest.raises(InputError, match=r"layer '0' has a weight of 1e\+06"):
        to_c(layer, tmp_path / "net.c", values="float16")
    layer.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="layer '0' holds NaN"):
        to_c(layer, tmp_path / "net.c")
