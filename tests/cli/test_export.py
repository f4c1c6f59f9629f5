"""``regraft export`` from a network file to each runtime."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft import checkpoint, models, sparsify
from regraft.cli import main
from regraft.export.numpy_runtime import Network


def call(*args: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in args])
    return int(stopped.value.code or 0)


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, nn.Module]:
    model = sparsify(models.build("mlp:20-30-5"), density=0.2, generator=torch.Generator().manual_seed(0))
    checkpoint.save(model, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors", model.eval()


def test_npz(network: tuple[Path, nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    path, model = network
    assert call("export", path, "--to", "npz", "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["connections"] == 150
    assert figures["input_shape"] == [20]
    assert Path(figures["runtime"]).name == "numpy_runtime.py"
    assert figures["bytes"] == path.with_suffix(".npz").stat().st_size
    x = torch.randn(3, 20)
    y = torch.from_numpy(Network(path.with_suffix(".npz"))(x.numpy()))
    torch.testing.assert_close(y, model(x), rtol=1e-5, atol=1e-5)


def test_c_by_suffix(network: tuple[Path, nn.Module], capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = network
    out = path.with_name("small-net.c")
    assert call("export", path, "--out", out, "--values", "int8") == 0
    assert "void small_net_predict(const float *x, float *y)" in out.read_text()
    assert "150" in capsys.readouterr().out


@pytest.mark.parametrize(("flag", "count"), [(None, 0), ("--sparse", 1)])
def test_onnx(network: tuple[Path, nn.Module], flag: str | None, count: int) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    path, _ = network
    assert call("export", path, "--to", "onnx", *([flag] if flag else [])) == 0
    graph = onnx.load(path.with_suffix(".onnx")).graph
    assert len(graph.sparse_initializer) >= count
    assert bool(graph.sparse_initializer) == bool(flag)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --to onnx, c or npz"),
        (["--out", "m.bin"], "does not say what to write"),
        (["--to", "c", "--sparse"], "are for ONNX files"),
        (["--to", "onnx", "--sparse", "--packed"], "choose one"),
        (["--to", "onnx", "--values", "int8"], "ONNX files hold float32"),
        (["--to", "npz", "--name", "a"], "--name is for --to c"),
        (["--to", "npz", "--input-shape", "a,b"], "must be positive integers"),
        (["--to", "npz", "--input-shape", "21"], "does not take samples of shape"),
        (["--to", "c", "--name", "1a"], "cannot prefix C names"),
    ],
)
def test_bad_options_are_one_sentence(
    network: tuple[Path, nn.Module], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = network
    before = sorted(path.parent.iterdir())
    assert call("export", path, *options) == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert sorted(path.parent.iterdir()) == before


def test_missing_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", tmp_path / "none.safetensors", "--to", "npz") == 2
    assert "none.safetensors" in capsys.readouterr().err
