"""ONNX files compute what torch computes, in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import regraft
from regraft.errors import InputError
from regraft.export import to_onnx

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

Net = tuple[nn.Module, torch.Tensor]
Case = Callable[[str], tuple[nn.Module, torch.Tensor]]
Sparse = Callable[..., nn.Module]

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("form", ["no", "tensor", "packed"])
def test_computes_what_torch_computes(tmp_path: Path, net: Net, form: str) -> None:
    model, x = net
    to_onnx(model, tmp_path / "m.onnx", input_shape=x.shape[1:], sparse=form)
    torch.testing.assert_close(run(tmp_path / "m.onnx", x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(tmp_path / "m.onnx", x[:1]), model(x[:1]), rtol=1e-4, atol=1e-5)


def test_sparse_forms_are_small(tmp_path: Path, sparse: Sparse) -> None:
    model = sparse(nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 300)), density=0.05)
    sizes = {}
    for form in ("no", "tensor", "packed"):
        to_onnx(model, tmp_path / "m.onnx", sparse=form)
        sizes[form] = (tmp_path / "m.onnx").stat().st_size
    nnz, size = 0.05 * 240_000, 240_000
    assert sizes["no"] >= 4 * size
    assert 12 * nnz < sizes["tensor"] < 12 * nnz + 8000
    assert 6 * nnz < sizes["packed"] < 6 * nnz + 8000


def test_packed_bridges_long_gaps(tmp_path: Path) -> None:
    layer = nn.Linear(200_000, 2)
    index = torch.tensor([0, 65_535, 131_071, 199_999, 399_999])
    model = nn.Sequential(regraft.layers.SparseLinear.from_dense(layer, index))
    to_onnx(model, tmp_path / "m.onnx", sparse="packed")
    x = torch.randn(2, 200_000)
    torch.testing.assert_close(run(tmp_path / "m.onnx", x), model(x), rtol=1e-4, atol=1e-5)


def test_same_model_same_bytes(tmp_path: Path, case: Case) -> None:
    model, x = case("lenet")
    for name in ("a", "b"):
        to_onnx(model, tmp_path / name, input_shape=x.shape[1:], sparse="tensor")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


class _Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.sin(x)], dim=1)


def test_other_models_go_through_torchs_exporter(tmp_path: Path, sparse: Sparse) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model = sparse(nn.Sequential(nn.Linear(40, 30), _Unknown(), nn.Linear(60, 50)), density=0.1)
    x = torch.randn(5, 40)
    assert to_onnx(model, tmp_path / "m.onnx", example=x, sparse="tensor") is None
    torch.testing.assert_close(run(tmp_path / "m.onnx", x[:3]), model(x[:3]), rtol=1e-4, atol=1e-5)
    assert len(onnx.load(tmp_path / "m.onnx").graph.sparse_initializer) == 2
    assert isinstance(model[0], regraft.layers.SparseLinear)  # the caller's model is left alone


def test_unknown_layer_without_example_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the call of (cat|sin)"):
        to_onnx(nn.Sequential(nn.Linear(4, 3), _Unknown()), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'packed'"):
        to_onnx(nn.Linear(2, 2), tmp_path / "m.onnx", sparse="packd")


def test_sparse_initialisers_hold_the_connections(tmp_path: Path, sparse: Sparse) -> None:
    model = sparse(nn.Sequential(nn.Linear(50, 40)), density=0.1)
    to_onnx(model, tmp_path / "m.onnx", sparse="tensor")
    (stored,) = onnx.load(tmp_path / "m.onnx").graph.sparse_initializer
    weight = model[0].weight
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored.indices), weight.index.numpy())
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored.values), weight.values.detach().numpy())
