"""Networks on disk: bit-exact round trips, and clear refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import regraft
from regraft import Topology, checkpoint, models, sparsify
from regraft.errors import FileError, InputError, MismatchError
from regraft.layers import sparse_layers


class Mixed(nn.Module):
    """A user's own model: a convolution, batch norm, a dense head, several types."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Linear(64, 16, dtype=torch.float64)
        self.head = nn.Linear(16, 3)
        self.register_buffer("seen", torch.tensor(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(self.features(x).flatten(1).double())
        return self.head(hidden.float())


def mixed(seed: int, **options: object) -> Mixed:
    torch.manual_seed(seed)
    return sparsify(Mixed(), generator=torch.Generator().manual_seed(seed), **options)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(x[k].dtype == y[k].dtype and torch.equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize("name", ["mlp:12-10-8-3", "lenet-5", "lenet-300-100"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_round_trip_of_named_models(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = sparsify(models.build(name, dropout=0.1), density=0.3, exclude=["fc1"]).to(dtype)
    regraft.save(model, tmp_path / "n.safetensors")
    back = regraft.load(tmp_path / "n.safetensors")
    assert same_state(model, back)
    assert repr(back) == repr(model)
    assert back.spec == model.spec
    assert not back.training
    assert all(p.requires_grad for p in back.parameters())


def test_round_trip_of_a_dense_network(tmp_path: Path) -> None:
    model = models.build("mlp:5-4-3")
    regraft.save(model, tmp_path / "n.safetensors")
    assert same_state(model, regraft.load(tmp_path / "n.safetensors"))


def test_round_trip_of_a_model_of_ones_own(tmp_path: Path) -> None:
    model = mixed(0, density=0.2, exclude=["head"])
    model(torch.randn(6, 1, 4, 4))  # moves the batch norm's statistics
    regraft.save(model, tmp_path / "n.safetensors")
    for into in (Mixed(), mixed(1, density=0.4, exclude=["head"])):
        into.train()
        assert regraft.load(tmp_path / "n.safetensors", into=into) is into
        assert same_state(model, into)
        assert into.training
        assert Topology.of(into) == Topology.of(model)
    header = checkpoint.read_header(tmp_path / "n.safetensors")
    assert header.model is None
    assert set(header.buffers) >= {"features.1.running_mean", "seen"}


def test_a_resumed_optimizer_keeps_hold_of_a_sparse_module(tmp_path: Path) -> None:
    model, into = mixed(0, density=0.2), mixed(1, density=0.3)
    regraft.save(model, tmp_path / "n.safetensors")
    parameters = {id(p) for p in into.parameters()}
    regraft.load(tmp_path / "n.safetensors", into=into)
    assert {id(p) for p in into.parameters()} == parameters


def test_loading_never_makes_a_dense_weight(tmp_path: Path) -> None:
    # dense, these layers would take 80 GB
    model = models.build("mlp:100000-100000-100000", device="meta")
    for n in (1, 2):
        weight = regraft.SparseWeight((100_000, 100_000), torch.tensor([7, 9_999_999_999]), torch.ones(2))
        setattr(model, f"fc{n}", regraft.SparseLinear(weight, torch.zeros(100_000)))
    regraft.save(model, tmp_path / "n.safetensors")
    back = regraft.load(tmp_path / "n.safetensors")
    assert back.fc2.weight.index.tolist() == [7, 9_999_999_999]


def test_provenance(tmp_path: Path) -> None:
    model = sparsify(models.build("mlp:4-3"), density=0.5)
    origin = {"seed": 3, "options": {"lr": 0.1}, "parents": ["a"]}
    regraft.save(model, tmp_path / "n.safetensors", provenance=origin)
    header = checkpoint.read_header(tmp_path / "n.safetensors")
    assert header.provenance == origin
    assert header.versions["regraft"] == regraft.__version__
    with pytest.raises(InputError, match="JSON"):
        regraft.save(model, tmp_path / "m.safetensors", provenance={"x": object()})
    assert not (tmp_path / "m.safetensors").exists()


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        regraft.save(mixed(0, density=0.2), tmp_path / name, provenance={"seed": 0})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
def test_compiled_models_are_saved_without_their_wrapper(tmp_path: Path) -> None:
    model = sparsify(models.build("mlp:4-3"), density=0.5)
    regraft.save(torch.compile(model), tmp_path / "n.safetensors")
    assert same_state(model, regraft.load(tmp_path / "n.safetensors"))


def test_nan_is_not_written(tmp_path: Path) -> None:
    model = sparsify(models.build("mlp:4-3"), density=0.5)
    model.fc1.weight.values.data[0] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        regraft.save(model, tmp_path / "n.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_no_spec_and_no_module(tmp_path: Path) -> None:
    regraft.save(mixed(0, density=0.2), tmp_path / "n.safetensors")
    with pytest.raises(FileError, match="into=model"):
        regraft.load(tmp_path / "n.safetensors")


def test_missing_foreign_and_truncated_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere"):
        regraft.load(tmp_path / "nowhere.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FileError, match="not a network of regraft"):
        regraft.load(tmp_path / "foreign.safetensors")
    regraft.save(mixed(0, density=0.2), tmp_path / "n.safetensors")
    whole = (tmp_path / "n.safetensors").read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(FileError, match="cut"):
            regraft.load(tmp_path / "cut.safetensors")


def rewritten(path: Path, **changes: object) -> None:
    """The same file with another header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["regraft"])
    save_file(load_file(path), path, {"regraft": json.dumps(header | changes)})


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "mlp", "sizes": [4, 3], "activation": "relu", "dropout": 0.0},
        {"name": "mlp", "sizes": [8, 6, 3], "activation": "relu", "dropout": 0.0},
        {"name": "mlp", "sizes": [8, 6, 3, 3], "activation": "relu", "dropout": 0.0},
        {"name": "resnet-9000"},
        {"name": "mlp", "sizes": "8-6-2"},
        {},
    ],
)
def test_a_spec_that_does_not_fit_its_tensors(spec: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    regraft.save(sparsify(models.build("mlp:8-6-2"), density=0.5), path)
    rewritten(path, model=spec)
    with pytest.raises(FileError, match=r"n\.safetensors.*corrupt"):
        regraft.load(path)


def test_a_file_of_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    regraft.save(sparsify(models.build("mlp:8-6-2"), density=0.5), path)
    rewritten(path, format=99)
    with pytest.raises(FileError, match=r"format 99.*upgrade"):
        regraft.load(path)


def test_modules_that_do_not_fit_stay_as_they_were(tmp_path: Path) -> None:
    regraft.save(mixed(0, density=0.2, exclude=["head"]), tmp_path / "n.safetensors")
    path = tmp_path / "n.safetensors"
    wider = Mixed()
    wider.body = nn.Linear(64, 17, dtype=torch.float64)
    more = Mixed()
    more.extra = nn.Linear(2, 2)
    fewer = Mixed()
    del fewer.head
    all_sparse = mixed(0, density=0.2)
    for module, says in ((wider, "body"), (more, "extra"), (fewer, "head"), (all_sparse, "head.weight")):
        before = {k: v.clone() for k, v in module.state_dict().items()}
        with pytest.raises(MismatchError, match=says):
            regraft.load(path, into=module)
        after = module.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)


def test_a_layer_that_cannot_be_sparse(tmp_path: Path) -> None:
    regraft.save(sparsify(nn.Sequential(nn.Linear(4, 3, bias=False)), density=0.5), tmp_path / "n")
    with pytest.raises(MismatchError, match="cannot be made sparse"):
        regraft.load(tmp_path / "n", into=nn.Sequential(nn.Embedding(3, 4)))


def test_sparse_and_dense_agree_after_loading(tmp_path: Path) -> None:
    model = models.build("mlp:6-5-3")
    dense = regraft.densify(sparsify(models.build(model.spec), density=0.4))
    sparse = sparsify(models.build(model.spec), topology=Topology.of(sparsify(model, density=0.4)))
    regraft.save(sparse, tmp_path / "n")
    x = torch.randn(4, 6)
    back = regraft.load(tmp_path / "n", into=dense)
    assert torch.equal(back(x), sparse(x))
    assert len(sparse_layers(back)) == 2
