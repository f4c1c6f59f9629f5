"""What counts as one architecture, and what merging does with each part of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft import SparseConv2d, Topology, load, merge, merge_files, save, sparsify
from regraft.errors import FileError, InputError, MismatchError
from regraft.models import build

MakeNet = Callable[..., nn.Module]
Saved = Callable[[list[nn.Module]], list[Path]]
Equal = Callable[[nn.Module, nn.Module], bool]


class WithBuffers(nn.Module):
    """A parameter of every kind, and buffers that only a model can tell from parameters."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(4, 3)
        self.table = nn.Embedding(5, 4)
        self.scale = nn.Parameter(torch.randn(()))
        self.register_buffer("grid", torch.randn(2, 4))
        self.register_buffer("steps", torch.tensor([seed, 7]))
        self.register_buffer("seen", torch.tensor([bool(seed), True]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x)
        return out


@pytest.mark.parametrize("from_files", [False, True])
def test_what_each_part_follows(saved: Saved, from_files: bool) -> None:
    a, b = WithBuffers(0), WithBuffers(1)
    networks: list[object] = list(saved([a, b])) if from_files else [a, b]
    merged = merge(networks, "addition", "magnitude", into=WithBuffers(5))  # type: ignore[arg-type]
    assert torch.allclose(merged.head.weight, a.head.weight + b.head.weight)
    assert torch.allclose(merged.table.weight, a.table.weight + b.table.weight)
    assert merged.scale == max(a.scale, b.scale, key=abs)
    assert torch.allclose(merged.grid, (a.grid + b.grid) / 2)
    assert torch.equal(merged.steps, a.steps)
    assert torch.equal(merged.seen, a.seen)


def test_running_statistics_are_averaged(net: MakeNet) -> None:
    a, b = net(0, norm=True), net(1, norm=True)
    merged = merge([a, b], biases="nothing")
    assert torch.allclose(merged[1].running_var, (a[1].running_var + b[1].running_var) / 2)  # type: ignore[index]
    assert int(merged[1].num_batches_tracked) == 1  # type: ignore[index]


def test_parents_are_not_changed(net: MakeNet, equal: Equal) -> None:
    parents = [net(s, norm=True) for s in range(2)]
    before = copy.deepcopy(parents)
    merge(parents, "addition", "addition", scope="global")
    assert all(equal(a, b) for a, b in zip(parents, before, strict=True))


def test_convolutions() -> None:
    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        return sparsify(made, density=0.2, generator=torch.Generator().manual_seed(seed))

    a, b = model(0), model(1)
    merged = merge([a, b], "addition", "addition", density=None)
    x = torch.randn(2, 3, 4, 4)
    assert isinstance(merged[0], SparseConv2d)  # type: ignore[index]
    summed = a[0](x) + b[0](x)  # type: ignore[index]
    assert torch.allclose(merged[0](x), summed, atol=1e-5)  # type: ignore[index]
    assert Topology.of(merged)["0.weight"] == (Topology.of(a) | Topology.of(b))["0.weight"]


def test_copies_merge_into_the_same_function(net: MakeNet, equal: Equal) -> None:
    model = net(3, norm=True)
    for rule in ("average", "magnitude", "random"):
        assert equal(merge([model] * 4, rule, rule), model)


def test_types_follow_the_first_network(net: MakeNet) -> None:
    single, double = net(0), net(1).double()
    assert merge([single, double])[0].weight.values.dtype == torch.float32  # type: ignore[index]
    assert merge([double, single])[0].weight.values.dtype == torch.float64  # type: ignore[index]
    half = net(2).bfloat16()
    assert merge([half, single])[0].weight.values.dtype == torch.bfloat16  # type: ignore[index]


def test_an_empty_layer(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    models = [net(0), net(1)]
    for model in models:
        model[0].weight.replace(torch.empty(0, dtype=torch.int64), torch.empty(0))  # type: ignore[index]
    merged = merge(models)
    assert Topology.of(merged)["0.weight"].nnz == 0
    merge_files(saved(models), tmp_path / "m", scope="global")
    assert Topology.of(load(tmp_path / "m", into=net(4)))["0.weight"].nnz == 0


def test_models_from_files(tmp_path: Path, equal: Equal) -> None:
    models = [
        sparsify(build("lenet-5"), density=0.1, generator=torch.Generator().manual_seed(s)) for s in range(2)
    ]
    paths = [tmp_path / "a", tmp_path / "b"]
    for model, path in zip(models, paths, strict=True):
        save(model, path)
    expected = merge(models, "average")
    assert equal(merge(paths, "average"), expected)
    assert equal(merge([paths[0], models[1]], "average"), expected)
    merge(models, "average", out=tmp_path / "m")
    assert equal(load(tmp_path / "m"), expected)


def test_into_a_dense_model(net: MakeNet, equal: Equal) -> None:
    parents = [net(0), net(1)]
    into = net(5, None)
    merged = merge(parents, into=into)
    assert merged is into
    assert equal(merged, merge(parents))
    with pytest.raises(MismatchError, match="to fill lacks it: pass a model of their architecture"):
        merge(parents, into=nn.Sequential(nn.Linear(7, 6)))
    with pytest.raises(MismatchError, match=r"to fill has it in shape \(6, 9\)"):
        merge(parents, into=nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 4)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 5)),
            r"'2\.weight' has shape \(5, 6\)",
        ),
        (
            lambda: nn.Sequential(nn.Linear(7, 6), nn.ReLU()),
            r"network 1 \(Sequential\) has '2\.weight', but netw",
        ),
        (
            lambda: nn.Sequential(nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 4), nn.Linear(4, 4)),
            r"network 2 \(Sequential\) has '3\.weight', but network 1 \(Sequential\) has not",
        ),
        (lambda: nn.Sequential(nn.Linear(7, 6, bias=False), nn.ReLU(), nn.Linear(6, 4)), r"has '0\.bias'"),
    ],
)
def test_architectures_that_differ(net: MakeNet, other: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        merge([net(0), other()])


def test_models_of_equal_shapes_that_compute_differently() -> None:
    relu, tanh = build("mlp:6-5-3"), build("mlp:6-5-3", activation="tanh")
    with pytest.raises(
        MismatchError, match=r"was built with activation 'tanh', but network 1 .* with 'relu'"
    ):
        merge([relu, tanh])
    merge([relu, build("mlp:6-5-3", dropout=0.5)])  # dropout holds in training only


def test_diverged_networks_are_refused(net: MakeNet) -> None:
    broken = net(1)
    with torch.no_grad():
        broken[0].weight.values[0] = float("inf")  # type: ignore[index]
    with pytest.raises(InputError, match=r"'0\.weight' of network 2 \(Sequential\) holds NaN or infinite"):
        merge([net(0), broken])


def test_what_is_no_network(net: MakeNet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes a list of networks"):
        merge("a.safetensors")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="takes a list of networks"):
        merge(net(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got no network"):
        merge([])
    with pytest.raises(InputError, match="network 2 is of type OrderedDict, but must be a"):
        merge([net(0), net(0).state_dict()])  # type: ignore[list-item]
    with pytest.raises(FileError, match="No such file"):
        merge([tmp_path / "gone"])
    complex_weight = nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64))
    with pytest.raises(InputError, match=r"'0\.weight' of network 1 .* is complex"):
        merge([complex_weight])


def test_a_layer_on_its_own() -> None:
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    merged = merge([a, b], "addition", "addition")
    x = torch.randn(4, 3)
    assert torch.allclose(merged(x), a(x) + b(x), atol=1e-6)
