"""Networks that arrive one by one: the same result as all at once, resumable, never half-added."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

from regraft import Merger, Topology, load, merge, save, sparsify
from regraft.errors import FileError, InputError, MismatchError
from regraft.files import Header, read_network, write_network
from regraft.merging import Combine
from regraft.models import build

NAMES = ["magnitude", "average", "addition", "random", "nothing"]
MakeNet = Callable[..., nn.Module]
Saved = Callable[[list[nn.Module]], list[Path]]
Equal = Callable[[nn.Module, nn.Module], bool]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("weights", "biases"), list(product(NAMES, NAMES)))
def test_one_by_one_equals_all_at_once_bit_for_bit(
    net: MakeNet, equal: Equal, weights: str, biases: str
) -> None:
    models = [net(0, 0.2, norm=True), net(1, 0.6, norm=True), net(2, 0.3, norm=True)]
    for over in ("networks", "present"):
        merger = Merger(weights, biases, over=over, generator=seeded(4))
        for k, model in enumerate(models, 1):
            merger.add(model)
            expected = merge(models[:k], weights, biases, over=over, generator=seeded(4))
            assert equal(merger.result(), expected)  # any time, and more may follow


@pytest.mark.parametrize("order", [(None, 0.2, 0.3), (0.2, None, 0.3), (0.2, 0.3, None), (None, None, None)])
@pytest.mark.parametrize("weights", ["average", "random", "magnitude"])
def test_dense_networks_may_arrive_at_any_point(
    net: MakeNet, equal: Equal, order: tuple[float | None, ...], weights: str
) -> None:
    models = [net(i, density) for i, density in enumerate(order)]
    merger = Merger(weights, generator=seeded())
    for model in models:
        merger.add(model)
    for options in ({}, {"density": None}, {"density": 0.2}, {"density": 0.2, "scope": "global"}):
        assert equal(merger.result(**options), merge(models, weights, generator=seeded(), **options))


def test_files_and_models_mix(net: MakeNet, saved: Saved, equal: Equal) -> None:
    models = [net(s) for s in range(3)]
    paths = saved(models)
    merger = Merger("average").add(models[0]).add(paths[1]).add(str(paths[2]))
    assert len(merger) == 3
    assert equal(merger.result(), merge(models, "average"))


@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("weights", ["average", "random"])
def test_saved_and_resumed(net: MakeNet, equal: Equal, tmp_path: Path, stop: int, weights: str) -> None:
    models = [net(s, norm=True) for s in range(3)]
    merger = Merger(weights, "random", over="present", generator=seeded(9))
    for model in models[:stop]:
        merger.add(model)
    merger.save(tmp_path / "state")
    resumed = Merger.load(tmp_path / "state")
    assert repr(resumed) == repr(merger)
    for model in models[stop:]:
        resumed.add(model)
    expected = merge(models, weights, "random", over="present", generator=seeded(9))
    assert equal(resumed.result(into=net(5, norm=True)), expected)
    with pytest.raises(InputError, match="does not know the model to fill"):
        resumed.result()


def test_a_resumed_merger_builds_the_model_from_its_spec(tmp_path: Path, equal: Equal) -> None:
    models = [
        sparsify(build("mlp:6-5-3", generator=seeded(s)), density=0.5, generator=seeded(s)) for s in range(2)
    ]
    merger = Merger().add(models[0])
    merger.save(tmp_path / "state")
    resumed = Merger.load(tmp_path / "state").add(models[1])
    assert equal(resumed.result(), merge(models))
    resumed.write(tmp_path / "m")
    assert equal(load(tmp_path / "m"), merge(models))
    provenance = read_network(tmp_path / "m")[1].provenance
    kind = type(models[0]).__name__
    assert [p["model"] for p in provenance["parents"]] == [f"network 1 ({kind})", f"network 2 ({kind})"]
    assert provenance["merge"]["networks"] == 2


def test_files_without_a_model_can_be_written(
    tmp_path: Path, net: MakeNet, saved: Saved, equal: Equal
) -> None:
    models = [net(0), net(1)]
    merger = Merger()
    for path in saved(models):
        merger.add(path)
    merger.write(tmp_path / "m", density=None)
    assert equal(load(tmp_path / "m", into=net(3)), merge(models, density=None))


def test_a_network_that_is_refused_leaves_no_trace(net: MakeNet, equal: Equal, tmp_path: Path) -> None:
    merger = Merger("average").add(net(0))
    broken = net(1)
    with torch.no_grad():
        broken[2].bias[0] = float("nan")  # type: ignore[index]
    with pytest.raises(InputError, match=r"'2\.bias' of network 2 \(Sequential\) holds NaN"):
        merger.add(broken)
    with pytest.raises(MismatchError, match=r"'0\.weight' has shape \(5, 7\) in network 2"):
        merger.add(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)))
    with pytest.raises(FileError, match="No such file"):
        merger.add(tmp_path / "gone")
    assert len(merger) == 1
    assert equal(merger.add(net(2)).result(), merge([net(0), net(2)], "average"))


def test_the_merger_does_not_follow_the_models(net: MakeNet, equal: Equal) -> None:
    model = net(0)
    merger = Merger().add(model)
    with torch.no_grad():
        model[0].weight.values.zero_()  # type: ignore[index]
        model[0].weight.index.copy_(torch.arange(model[0].weight.nnz))  # type: ignore[index]
        model[2].bias.zero_()  # type: ignore[index]
    first = merger.result()
    assert equal(first, net(0))
    with torch.no_grad():
        first[2].bias.zero_()  # type: ignore[index]
    assert equal(merger.result(), net(0))


def test_equal_representation_in_the_end(net: MakeNet) -> None:
    """Pruning only at the end: pruning at each arrival gives another network."""
    models = [net(s, 0.3) for s in range(6)]
    merger, pruned = Merger("average"), models[0]
    merger.add(models[0])
    for model in models[1:]:
        merger.add(model)
        pruned = merge([pruned, model], "average")
    assert Topology.of(merger.result()) == Topology.of(merge(models, "average"))
    assert Topology.of(merger.result()) != Topology.of(pruned)


def test_a_fold_of_ones_own_is_resumed_by_passing_it_again(
    net: MakeNet, equal: Equal, tmp_path: Path
) -> None:
    def later(kept: torch.Tensor, new: torch.Tensor, *_: object) -> torch.Tensor:
        return new

    last = Combine("last", later)
    Merger(last, "nothing").add(net(0)).save(tmp_path / "s")
    with pytest.raises(InputError, match="weights rule 'last', which has no name here"):
        Merger.load(tmp_path / "s")
    resumed = Merger.load(tmp_path / "s", weights=last).add(net(1))
    assert equal(resumed.result(into=net(3)), merge([net(0), net(1)], last, "nothing"))


def test_rules_that_need_all_networks_are_refused() -> None:
    def median(values: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return values.median(0).values

    with pytest.raises(InputError, match="the rule median needs all networks at once"):
        Merger(median)


def test_an_empty_merger(tmp_path: Path) -> None:
    for use in (lambda m: m.result(), lambda m: m.save(tmp_path / "s"), lambda m: m.write(tmp_path / "m")):
        with pytest.raises(InputError, match="no network yet"):
            use(Merger())
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_state(net: MakeNet, tmp_path: Path) -> None:
    save(net(0), tmp_path / "n")
    with pytest.raises(FileError, match="is not the state of a merger"):
        Merger.load(tmp_path / "n")
    Merger().add(net(0)).save(tmp_path / "s")
    with pytest.raises((MismatchError, FileError)):
        load(tmp_path / "s", into=net(0))
    tensors, header = read_network(tmp_path / "s")
    for name in list(tensors):
        fewer = {n: t for n, t in tensors.items() if n != name}
        shorter = tensors | {name: tensors[name][:-1]}
        for damaged in (fewer, shorter):
            write_network(tmp_path / "d", damaged, header)
            with pytest.raises(FileError, match="the merger's state is malformed"):
                Merger.load(tmp_path / "d")
    unsorted = tensors | {"0.weight/index": tensors["0.weight/index"].flip(0)}
    write_network(tmp_path / "d", unsorted, header)
    with pytest.raises(FileError, match="strictly increasing"):
        Merger.load(tmp_path / "d")
    for change in ({"layers": 3}, {"seed": "x"}, {"parents": []}, {"over": "all"}):
        state = {**header.provenance["merger"], **change}
        write_network(tmp_path / "d", tensors, Header(provenance={"merger": state}))
        with pytest.raises((FileError, InputError)):
            Merger.load(tmp_path / "d")


@pytest.mark.parametrize("over", ["networks", "present"])
def test_a_weight_counts_for_so_many_networks(net: MakeNet, tmp_path: Path, over: str) -> None:
    weighted, repeated = (Merger("average", "average", over=over) for _ in range(2))
    for seed, weight in enumerate((3, 1, 2)):
        weighted.add(net(seed, 0.3), weight=weight)
        for _ in range(weight):
            repeated.add(net(seed, 0.3))
    weighted.save(tmp_path / "state")
    expected = repeated.result(None).state_dict()
    for merger in (weighted, Merger.load(tmp_path / "state")):
        for name, tensor in merger.result(None, into=net(0, 0.3)).state_dict().items():
            torch.testing.assert_close(tensor, expected[name])


@pytest.mark.parametrize("weight", [0, -1, 1.5, True, 2**31])
def test_a_weight_must_be_a_positive_whole_number(net: MakeNet, weight: int) -> None:
    with pytest.raises(InputError, match="must be a whole number of 1 or more"):
        Merger("average").add(net(0, 0.3), weight=weight)


def test_only_averages_are_weighted(net: MakeNet) -> None:
    with pytest.raises(InputError, match="only averages are weighted"):
        Merger("magnitude").add(net(0, 0.3), weight=2)
