"""Merging files block by block gives what merging models gives, and leaves nothing half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import Topology, load, merge, merge_files, sparsify
from regraft.errors import FileError, InputError, MismatchError
from regraft.files import Header, read_network, sha256, write_network
from regraft.merging import blocks, networks
from regraft.models import build

NAMES = ["magnitude", "average", "addition", "random", "nothing"]
MakeNet = Callable[..., nn.Module]
Saved = Callable[[list[nn.Module]], list[Path]]
Equal = Callable[[nn.Module, nn.Module], bool]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("block", [1, 5, 2**18])
@pytest.mark.parametrize(("weights", "biases"), list(product(NAMES, ["average", "random"])))
def test_blocks_of_any_size_equal_the_merge_in_memory(
    net: MakeNet,
    saved: Saved,
    equal: Equal,
    tmp_path: Path,
    weights: str,
    biases: str,
    block: int,
) -> None:
    models = [net(0, 0.2), net(1, 0.5), net(2, None), net(3, 0.2)]
    merge_files(saved(models), tmp_path / "m", weights, biases, generator=seeded(), block=block)
    expected = merge(models, weights, biases, generator=seeded(), into=net(9))
    assert equal(load(tmp_path / "m", into=net(8)), expected)


@pytest.mark.parametrize("density", ["keep", None, 0.3])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("score", ["magnitude", "random"])
def test_every_way_of_keeping(
    net: MakeNet,
    saved: Saved,
    equal: Equal,
    tmp_path: Path,
    density: float,
    scope: str,
    score: str,
) -> None:
    models = [net(s, 0.4, norm=True) for s in range(3)]
    options = {"density": density, "scope": scope, "score": score}
    counts = merge_files(saved(models), tmp_path / "m", **options, generator=seeded(), block=4)
    expected = merge(models, **options, generator=seeded())
    found = load(tmp_path / "m", into=net(7, norm=True))
    assert equal(found, expected)
    for layer in counts:
        assert layer.kept == Topology.of(expected)[layer.name].nnz
        assert layer.union == Topology.of(merge(models, density=None))[layer.name].nnz
        assert layer.parents == tuple(Topology.of(m)[layer.name].nnz for m in models)


ENTRIES = st.dictionaries(
    st.integers(0, 2**40 - 1) | st.integers(0, 300), st.floats(-9, 9, width=32), max_size=30
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(ENTRIES, min_size=1, max_size=4), st.sampled_from(NAMES), st.integers(1, 40))
def test_positions_far_apart_or_in_clusters(
    tmp_path: Path, nets: list[dict[int, float]], rule: str, block: int
) -> None:
    """A weight of 2^40 positions: nothing of that size is ever made."""
    header = Header(shapes={"w": (2**20, 2**20)})
    paths = []
    for i, net in enumerate(nets):
        index = torch.tensor(sorted(net), dtype=torch.int64)
        values = torch.tensor([net[p] for p in sorted(net)], dtype=torch.float32)
        paths.append(tmp_path / f"{i}")
        write_network(paths[-1], {"w.index": index, "w.values": values}, header)
    merge_files(paths, tmp_path / "m", rule, density=None, block=block)
    merge_files(paths, tmp_path / "all", rule, density=None)
    tensors, _ = read_network(tmp_path / "m")
    union = sorted(set().union(*nets))
    assert tensors["w.index"].tolist() == union
    assert sha256(tmp_path / "m") == sha256(tmp_path / "all")
    if rule == "addition":
        sums = [sum(net.get(p, 0.0) for net in nets) for p in union]
        assert tensors["w.values"].tolist() == pytest.approx(sums, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("block", [1, 6, 2**18])
def test_functions_of_all_networks_work_in_blocks(
    net: MakeNet, saved: Saved, equal: Equal, tmp_path: Path, block: int
) -> None:
    def spread(values: Tensor, present: Tensor) -> Tensor:
        return values.amax(0) - values.amin(0)

    models = [net(s) for s in range(3)]
    merge_files(saved(models), tmp_path / "m", spread, spread, block=block)
    assert equal(load(tmp_path / "m", into=net(5)), merge(models, spread, spread))


def test_more_files_than_may_be_open(
    net: MakeNet, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    for module in (blocks, networks):
        monkeypatch.setattr(module, "MANY", 10)
    paths = saved([net(s % 7) for s in range(70)])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 40
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 30, limits[1]))
    try:
        merge_files(paths, tmp_path / "m", "average")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    merge_files(paths[:7], tmp_path / "few", "average")
    many, few = (read_network(tmp_path / name)[0] for name in ("m", "few"))
    assert torch.equal(many["0.weight.index"], few["0.weight.index"])
    assert torch.allclose(many["0.weight.values"], few["0.weight.values"])


def test_files_are_closed_afterwards(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    before = len(os.listdir("/proc/self/fd"))
    merge_files(saved([net(0), net(1)]), tmp_path / "m")
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("first", [0, 45_000, 90_000])
@pytest.mark.parametrize("block", [700, 30_000])
def test_readers_find_all_entries_when_their_guess_is_wrong(tmp_path: Path, first: int, block: int) -> None:
    """All entries lie in a tenth of the positions: the share that a reader expects of a range is far off."""
    index = torch.arange(first, first + 10_000)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, step in zip(paths, (1, 2), strict=True):
        mine = index[::step]
        tensors = {"w.index": mine, "w.values": torch.ones(mine.numel())}
        write_network(path, tensors, Header(shapes={"w": (100, 1000)}))
    merge_files(paths, tmp_path / "m", "addition", density=None, block=block)
    tensors, _ = read_network(tmp_path / "m")
    assert torch.equal(tensors["w.index"], index)
    assert torch.equal(tensors["w.values"], torch.tensor([2.0, 1.0]).repeat(5000))


def test_the_output_may_be_one_of_the_inputs(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    paths = saved([net(0), net(1)])
    merge_files(paths, tmp_path / "m")
    merge_files(paths, paths[0])
    assert torch.equal(
        read_network(paths[0])[0]["0.weight.values"], read_network(tmp_path / "m")[0]["0.weight.values"]
    )


def test_provenance_names_parents_and_rules(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}" for i in range(2)]
    for seed, path in enumerate(paths):
        model = sparsify(build("mlp:6-5-3", generator=seeded(seed)), density=0.5, generator=seeded(seed))
        merge([model], out=path)
    merge_files(paths, tmp_path / "m", "average", over="present", provenance={"note": "x"})
    merged = load(tmp_path / "m")
    header = read_network(tmp_path / "m")[1]
    assert merged.spec == {**header.model}  # type: ignore[dict-item]
    assert header.provenance["note"] == "x"
    assert header.provenance["parents"] == [{"file": str(p), "sha256": sha256(p)} for p in paths]
    rules = header.provenance["merge"]
    assert (rules["weights"], rules["biases"], rules["over"]) == ("average", "average", "present")
    assert (rules["density"], rules["networks"]) == ("keep", 2)


def test_a_damaged_file_is_named_and_nothing_is_written(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    paths = saved([net(0), net(1)])
    tensors, header = read_network(paths[1])
    tensors["2.weight.values"][-1] = float("nan")
    write_network(paths[1], tensors, header, finite=False)
    with pytest.raises(FileError, match=r"net1\.safetensors' holds NaN"):
        merge_files(paths, tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == ["net0.safetensors", "net1.safetensors"]


def test_architectures_that_differ(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    other = sparsify(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)), density=0.5)
    paths = saved([net(0), other])
    with pytest.raises(MismatchError, match=r"'0\.weight' has shape \(5, 7\) in '.*net1.*', but \(6, 7\) in"):
        merge_files(paths, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_merged_from_files(net: MakeNet, saved: Saved, tmp_path: Path) -> None:
    paths = saved([net(0)])
    with pytest.raises(InputError, match="merge_files takes paths, not a Sequential"):
        merge_files([net(0)], tmp_path / "m")  # type: ignore[list-item]
    with pytest.raises(InputError, match="takes a list of networks"):
        merge_files(str(paths[0]), tmp_path / "m")
    with pytest.raises(InputError, match="got no network"):
        merge_files([], tmp_path / "m")
    with pytest.raises(InputError, match="block is 0"):
        merge_files(paths, tmp_path / "m", block=0)


def test_one_network_is_its_own_merge(net: MakeNet, saved: Saved, equal: Equal, tmp_path: Path) -> None:
    model = net(0, norm=True)
    merge_files(saved([model]), tmp_path / "m", "random", "magnitude")
    assert equal(load(tmp_path / "m", into=net(5, norm=True)), model)


def test_reading_stays_within_a_block(
    net: MakeNet, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slice that is read is longer than a block and the margin of the guess."""
    from regraft.files import NetworkFile

    index = torch.arange(0, 40_000, 4)
    paths = [tmp_path / f"{i}" for i in range(3)]
    for path in paths:
        write_network(
            path, {"w.index": index, "w.values": torch.ones(10_000)}, Header(shapes={"w": (200, 200)})
        )
    longest = 0
    original = NetworkFile.read_slice

    def watched(self: NetworkFile, name: str, start: int, stop: int) -> Tensor:
        nonlocal longest
        longest = max(longest, stop - start)
        return original(self, name, start, stop)

    monkeypatch.setattr(NetworkFile, "read_slice", watched)
    merge_files(paths, tmp_path / "m", block=1000)
    assert longest <= 250 + 3 * 250**0.5 + 17
    assert blocks.BLOCK == 2**18
