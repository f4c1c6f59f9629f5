"""The NumPy runtime computes what torch computes, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from regraft.errors import InputError
from regraft.export import numpy_runtime, to_npz
from regraft.export.numpy_runtime import Network

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

Net = tuple[nn.Module, torch.Tensor]
Case = Callable[[str], tuple[nn.Module, torch.Tensor]]
Sparse = Callable[..., nn.Module]


def test_computes_what_torch_computes(tmp_path: Path, net: Net) -> None:
    model, x = net
    to_npz(model, tmp_path / "m.npz", input_shape=x.shape[1:])
    network = Network(tmp_path / "m.npz")
    want = model(x)
    assert network.output_shape == want.shape[1:]
    torch.testing.assert_close(torch.from_numpy(network(x.numpy())), want, rtol=1e-5, atol=1e-5)
    one = torch.from_numpy(network(x[0].numpy()))
    torch.testing.assert_close(one, want[0], rtol=1e-5, atol=1e-5)


def test_more_samples_than_a_block(tmp_path: Path, case: Case) -> None:
    model, _ = case("mlp")
    to_npz(model, tmp_path / "m.npz")
    x = torch.randn(2 * numpy_runtime.BLOCK + 3, 64)
    y = Network(tmp_path / "m.npz")(x.numpy())
    torch.testing.assert_close(torch.from_numpy(y), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("values", "tolerance"), [("float16", 2e-3), ("int8", 3e-2)])
@pytest.mark.parametrize("density", [0.002, 0.05, 0.95])
def test_values_and_codings(
    tmp_path: Path, values: str, tolerance: float, density: float, sparse: Sparse
) -> None:
    layers = [nn.Linear(700, 300), nn.ReLU(), nn.Linear(300, 600), nn.ReLU(), nn.Linear(600, 200)]
    model = sparse(nn.Sequential(*layers), density=density)
    to_npz(model, tmp_path / "m.npz", values=values)
    x = torch.randn(4, 700)
    want = model(x)
    error = torch.from_numpy(Network(tmp_path / "m.npz")(x.numpy())) - want
    assert error.norm() < tolerance * want.norm()


def test_runs_from_a_copy_without_torch_or_regraft(tmp_path: Path, case: Case) -> None:
    model, x = case("lenet")
    to_npz(model, tmp_path / "m.npz", input_shape=x.shape[1:])
    np.save(tmp_path / "x.npy", x.numpy())
    shutil.copy(numpy_runtime.__file__, tmp_path / "runtime.py")
    (tmp_path / "check.py").write_text(
        "import sys; import runtime; import numpy as np\n"
        "print(runtime.Network('m.npz')(np.load('x.npy')).argmax(-1).tolist())\n"
        "assert not {'torch', 'regraft', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "check.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == model(x).argmax(1).tolist()
    done = subprocess.run(
        [sys.executable, "runtime.py", "m.npz", "x.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(line) for line in done.stdout.split()] == model(x).argmax(1).tolist()


def test_bytes_are_those_of_the_connections(tmp_path: Path, sparse: Sparse) -> None:
    model = sparse(nn.Sequential(nn.Linear(1000, 1000)), density=0.04)
    program = to_npz(model, tmp_path / "m.npz")
    assert program.nnz == 40_000
    assert 5 * 40_000 < (tmp_path / "m.npz").stat().st_size < 5.1 * 40_000 + 8000


def test_bad_files_and_samples(tmp_path: Path, case: Case) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not a network"):
        Network(tmp_path / "other.npz")
    text = json.dumps({"format": 99}).encode()
    np.savez(tmp_path / "newer.npz", program=np.frombuffer(text, np.uint8))
    with pytest.raises(ValueError, match="format 99"):
        Network(tmp_path / "newer.npz")
    model, _ = case("mlp")
    to_npz(model, tmp_path / "m.npz")
    with pytest.raises(ValueError, match="one sample has shape"):
        Network(tmp_path / "m.npz")(np.zeros((2, 63)))
    arrays = dict(np.load(tmp_path / "m.npz"))
    arrays["1.at"] = np.full_like(arrays["1.at"], 255)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ValueError, match="corrupt"):
        Network(tmp_path / "m.npz")


def test_three_dimensions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layer '0' has three spatial dimensions"):
        to_npz(nn.Sequential(nn.Conv3d(1, 1, 2)), tmp_path / "m.npz", input_shape=(1, 4, 4, 4))
