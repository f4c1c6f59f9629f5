"""Nothing at all, one of each, and very much: right results or a clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regraft
from regraft import (
    Evolve,
    Merger,
    SparseConv2d,
    SparseLinear,
    SparseWeight,
    Topology,
    allocate,
    kernels,
    measure,
    merge,
    merge_files,
    prune,
    resparsify,
    sparsify,
)
from regraft.data import Data, Loader, Split
from regraft.errors import InputError, RegraftError
from regraft.federated import IID, Federation, Local, SparseMerge, federate, partitioned
from regraft.files import read_network
from regraft.kernels import backends
from regraft.merging import repair, select_neurons
from regraft.merging.align import ActivationMatching
from regraft.probe import Probe
from regraft.train import fit


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def empty_index() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


def small(seed: int = 0) -> nn.Module:
    return sparsify(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), density=0.5, generator=seeded(seed)
    )


def no_samples() -> list[tuple[Tensor, Tensor]]:
    return [(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))]


def data(train: int, test: int, classes: int = 4) -> Data:
    def split(n: int) -> Split:
        return Split(torch.randn(n, 6, generator=seeded()), torch.arange(n) % classes)

    return Data("few", split(train), split(test), tuple(map(str, range(classes))))


# name -> what is asked of nothing, and a word of the sentence that says so
NOTHING: dict[str, tuple[Callable[[], object], str]] = {
    "sparsify an empty model": (lambda: sparsify(nn.Sequential(), density=0.5), "no layer"),
    "sparsify no Linear": (lambda: sparsify(nn.Sequential(nn.LayerNorm(3)), density=0.5), "no layer"),
    "topology of no layer": (lambda: Topology.of(nn.Sequential()), "no sparse weight"),
    "density 0": (lambda: sparsify(nn.Sequential(nn.Linear(4, 3)), density=0), "density is 0"),
    "merge nothing": (lambda: merge([]), "no network"),
    "merge no files": (lambda: merge_files([], "out.safetensors"), "no network"),
    "result of no network": (lambda: Merger().result(), "no network"),
    "data without training samples": (lambda: data(0, 4), "empty"),
    "data without test samples": (lambda: data(4, 0), "empty"),
    "federate nobody": (
        lambda: federate(small(), [], Federation(SparseMerge(), Local(), rounds=1)), "at least one client",
    ),
    "more clients than samples": (
        lambda: partitioned(data(3, 1).train, IID(), 5, seeded()), "more than the 3 samples",
    ),
    "snip without batches": (
        lambda: prune.upfront(small(), Probe(nn.functional.cross_entropy), score="snip", density=0.2),
        "at least one batch",
    ),
    "snip without samples": (
        lambda: prune.upfront(
            small(), Probe(nn.functional.cross_entropy, no_samples()), score="snip", density=0.2
        ),
        "without samples",
    ),
    "gradient growth without samples": (
        lambda: Evolve("magnitude", "gradient").attach(small()).evolve(
            Probe(nn.functional.cross_entropy, no_samples())
        ),
        "without samples",
    ),
    "activation matching without samples": (
        lambda: ActivationMatching()([small(), small(1)], probe=Probe(batches=no_samples())), "is empty",
    ),
    "neurons without samples": (
        lambda: select_neurons([small(), small(1)], Probe(batches=no_samples()), score="activity"),
        "is empty",
    ),
    "repair without batches": (lambda: repair(small(), [small(), small(1)], []), "at least one batch"),
    "repair without samples": (lambda: repair(small(), [small(), small(1)], no_samples()), "empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING)
def test_nothing_is_told_in_a_sentence(name: str) -> None:
    ask, said = NOTHING[name]
    with pytest.raises(RegraftError, match=said):
        ask()


def test_models_without_parameters_and_without_sparse_weights(tmp_path: Path) -> None:
    path = tmp_path / "n.safetensors"
    for model in (nn.Sequential(), nn.Sequential(nn.LayerNorm(3), nn.ReLU())):
        regraft.save(model, path)
        back = regraft.load(path, into=model)
        assert len(back.state_dict()) == len(merge([model, back]).state_dict()) == len(model.state_dict())


@pytest.mark.parametrize(("train", "test", "classes"), [(1, 1, 4), (1, 1, 1), (4, 3, 1), (3, 2, 4)])
def test_one_sample_and_one_class(train: int, test: int, classes: int) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolver = Evolve(generator=seeded()).attach(model, optimizer)
    found = data(train, test, classes)
    history = fit(model, found, epochs=2, optimizer=optimizer, batch_size=64, evolver=evolver)
    assert math.isfinite(history.final["test_loss"])
    assert len(Loader(found.train, 64, generator=seeded())) == 1
    parts = partitioned(found.train, IID(), train, seeded())
    state = federate(model, parts, Federation(SparseMerge(), Local(), rounds=1), test=found.test)
    assert state.history[0]["accepted"] == train


def test_a_layer_without_connections(tmp_path: Path) -> None:
    """It computes its bias, has gradients of 0, is saved, merged, compared and left alone by evolution."""
    model = nn.Sequential(SparseLinear(SparseWeight((3, 4), empty_index(), torch.empty(0)), torch.ones(3)))
    optimizer = torch.optim.Adam(model.parameters())
    evolver = Evolve(generator=seeded()).attach(model, optimizer)
    x = torch.randn(2, 4, requires_grad=True)
    y = model(x)
    y.sum().backward()
    optimizer.step()
    evolver.step()
    assert x.grad is not None
    assert (y.tolist(), float(x.grad.abs().sum())) == ([[1.0] * 3] * 2, 0.0)
    path = tmp_path / "n.safetensors"
    regraft.save(model, path)
    back = regraft.load(path, into=nn.Sequential(nn.Linear(4, 3)))
    assert Topology.of(merge([model, back])).nnz == Topology.of(resparsify(back, 0.5)).nnz == 0
    assert Topology.of(model).nnstd(Topology.of(back)) == 0.0
    assert measure.inspect(model, (4,))["density"] == 0.0


WAYS = [*backends.installed(), "materialised"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (0, 4), (4, 0)])
@pytest.mark.parametrize("nnz", [0, 1, None])
def test_batches_and_layers_of_nothing_or_one(
    way: str, batch: int, shape: tuple[int, int], nnz: int | None
) -> None:
    size = math.prod(shape)
    count = size if nnz is None else min(nnz, size)
    weight = SparseWeight(shape, torch.arange(count), torch.full((count,), 2.0))
    layer, dense = SparseLinear(weight, None), torch.zeros(size)
    dense[:count] = 2.0
    x = torch.randn(batch, shape[1], requires_grad=True)
    with kernels.use("materialised") if way == "materialised" else kernels.use("compressed", backend=way):
        y = layer(x)
        y.sum().backward()
    assert torch.allclose(y, x.detach() @ dense.view(shape).T)
    assert x.grad is not None
    assert weight.values.grad is not None
    assert torch.allclose(x.grad, dense.view(shape).sum(0).expand(batch, -1))
    assert torch.allclose(weight.values.grad, x.detach().sum(0).repeat(shape[0])[:count])


def test_a_convolution_of_no_samples() -> None:
    layer = sparsify(nn.Sequential(nn.Conv2d(2, 3, 3)), density=0.5, generator=seeded())
    assert isinstance(layer[0], SparseConv2d)
    y = layer(torch.randn(0, 2, 5, 5))
    y.sum().backward()
    assert y.shape == (0, 3, 3, 3)


def test_ten_million_inputs(tmp_path: Path) -> None:
    model = nn.Sequential(SparseLinear(SparseWeight((1, 10**7), *spread(10**7, 100)), None))
    tall = nn.Sequential(SparseLinear(SparseWeight((10**7, 1), *spread(10**7, 100)), None))
    with kernels.use("compressed"):
        assert model(torch.ones(1, 10**7)).item() == pytest.approx(
            float(model[0].weight.values.detach().sum())
        )
        assert int((tall(torch.ones(1, 1)) != 0).sum()) == 100
    for one in (model, tall):
        Evolve(generator=seeded()).attach(one).step()
        assert one[0].weight.nnz == 100


N = 70_000  # N * N positions do not fit into 32 bits


def spread(size: int, nnz: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions over the whole range, the last one and those around the limits of 32 bits among them."""
    edges = [p for b in (31, 32) for p in (2**b - 1, 2**b, 2**b + 1) if p < size]
    drawn = torch.randint(0, size - 1, (2 * nnz,), generator=seeded(seed))
    index = torch.cat([torch.tensor([*edges, size - 1]), drawn]).unique()
    while index.numel() > nnz:  # never the edges
        drop = torch.randint(0, index.numel(), (index.numel() - nnz,), generator=seeded(seed)).unique()
        keep = torch.ones(index.numel(), dtype=torch.bool)
        keep[drop] = False
        keep |= torch.isin(index, torch.tensor([*edges, size - 1]))
        index = index[keep]
    return index, torch.randn(nnz, generator=seeded(seed)) + 3.0


def huge(seed: int = 0) -> nn.Sequential:
    return nn.Sequential(SparseLinear(SparseWeight((N, N), *spread(N * N, 3000, seed)), None))


@pytest.mark.parametrize("way", backends.installed())
def test_positions_beyond_32_bits_compute(way: str) -> None:
    layer = huge()[0]
    index, values = layer.weight.index, layer.weight.values
    assert index[-1] == N * N - 1
    rows, columns = index // N, index % N
    x = torch.randn(2, N, generator=seeded(1), requires_grad=True)
    with kernels.use("compressed", backend=way):
        y = layer(x)
        y.sum().backward()
    assert x.grad is not None
    v = values.detach()
    assert torch.allclose(y, torch.zeros(2, N).index_add_(1, rows, x.detach()[:, columns] * v), atol=1e-5)
    assert torch.allclose(x.grad, torch.zeros(2, N).index_add_(1, columns, v.expand(2, -1)), atol=1e-5)
    assert torch.allclose(values.grad, x.detach()[:, columns].sum(0), atol=1e-5)


@pytest.mark.parametrize("grow", ["random", "inner-product"])
def test_positions_beyond_32_bits_evolve(grow: str) -> None:
    model = huge()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolver = Evolve("magnitude", grow, 0.3, generator=seeded()).attach(model, optimizer)
    before = model[0].weight.index
    with evolver.watch():
        model(torch.randn(2, N, generator=seeded(2))).sum().backward()
    optimizer.step()
    evolver.step()
    index = model[0].weight.index
    new = index[~torch.isin(index, before)]
    assert index.numel() == before.numel()
    assert bool((index[1:] > index[:-1]).all())
    assert 0 <= int(index[0]) <= int(index[-1]) < N * N
    assert 800 < new.numel() <= 900
    if grow == "random":
        assert 0.45 < float((new >= 2**31).double().mean()) < 0.68, "56 % of the positions are beyond 2^31"


def test_positions_beyond_32_bits_are_kept(tmp_path: Path) -> None:
    a, b = huge(0), huge(1)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for model, path in zip((a, b), paths, strict=True):
        regraft.save(model, path)
    assert read_network(paths[0])[0]["0.weight.index"].dtype == torch.int64
    back = regraft.load(paths[0], into=huge(1))
    assert Topology.of(back) == Topology.of(a)
    merge_files(paths, tmp_path / "m.safetensors", density=None)
    merged, tensors = merge([a, b], density=None), read_network(tmp_path / "m.safetensors")[0]
    assert torch.equal(merged[0].weight.index, tensors["0.weight.index"])
    assert torch.equal(merged[0].weight.values, tensors["0.weight.values"])
    union = set(a[0].weight.index.tolist()) | set(b[0].weight.index.tolist())
    assert set(merged[0].weight.index.tolist()) == union
    assert Topology.of(merged).connectivity_pattern().sum() == len(union)
    kept = resparsify(merged, counts={"0.weight": 1000})[0].weight.index
    assert set(kept.tolist()) <= union


def test_a_layer_of_10_to_the_9_positions_never_exists_densely() -> None:
    model = sparsify(nn.Sequential(nn.Linear(10**5, 10**4, device="meta")), density=1e-6, generator=seeded())
    topology = Topology.of(model)["0.weight"]
    assert (topology.nnz, topology.shape) == (1000, (10**4, 10**5))


def test_allocation_takes_many_layers() -> None:
    """It took a time quadratic in their number, in a loop that summed what it had at each of them."""
    shapes = [(1 + i % 5, 2 + i % 7) for i in range(20_000)]
    counts = allocate.uniform(shapes, 0.37)
    assert sum(counts) == round(0.37 * sum(map(math.prod, shapes)))
    assert all(0 <= c <= math.prod(s) for c, s in zip(counts, shapes, strict=True))


def test_many_networks_and_many_layers(tmp_path: Path) -> None:
    nets = [small(seed) for seed in range(60)]
    merger: Any = Merger("average", "average")
    paths = [tmp_path / f"{i}.safetensors" for i in range(len(nets))]
    for net, path in zip(nets, paths, strict=True):
        merger.add(net)
        regraft.save(net, path)
    merge_files(paths, tmp_path / "all.safetensors", "average", "average")
    at_once, streamed = merge(nets, "average", "average"), merger.result()
    from_files = regraft.load(tmp_path / "all.safetensors", into=small())
    for name, value in at_once.state_dict().items():
        assert torch.equal(value, streamed.state_dict()[name])
        assert torch.equal(value, from_files.state_dict()[name])
    alone = merge(nets[:1])
    assert all(torch.equal(v, nets[0].state_dict()[n]) for n, v in alone.state_dict().items())
    deep = sparsify(nn.Sequential(*(nn.Linear(2, 2) for _ in range(50))), density=0.5, generator=seeded())
    regraft.save(deep, tmp_path / "deep.safetensors")
    assert Topology.of(merge([deep, deep])) == Topology.of(deep)


@pytest.mark.parametrize("density", [1e-300, 1e-9, 1.0])
def test_densities_at_the_ends(density: float) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    if density < 1:
        with pytest.raises(InputError, match="would get no connection"):
            sparsify(model, density=density)
    else:
        before = model[0].weight.detach().clone()
        sparsify(model, density=density)
        assert torch.equal(model[0].weight.dense(), before)
        Evolve(generator=seeded()).attach(model).step()
        assert Topology.of(model).density == 1.0
