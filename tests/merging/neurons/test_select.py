"""Neuron selection: what it computes, what it counts, what it leaves alone and what it refuses."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from regraft import Topology, densify, load, models, save, sparsify
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, trace
from regraft.merging import Ensemble, select_neurons
from regraft.merging.neurons import activity
from regraft.merging.neurons.budget import for_readout
from regraft.probe import Probe

SIZES = (6, 12, 8, 3)
NAN = torch.full((12,), torch.nan)


def network(seed: int, density: float | None = None) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = models.build("mlp:" + "-".join(map(str, SIZES)), generator=generator).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    assert isinstance(model, nn.Sequential)
    return model if density is None else sparsify(model, density, allocate="uniform", generator=generator)


def data(seed: int = 0, n: int = 40) -> Probe:
    x = torch.randn(n, SIZES[0], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Probe(batches=[(x, torch.zeros(n))])


def silence(model: nn.Module, live: Sequence[int]) -> nn.Module:
    """Only the first ``live[l]`` units of each hidden layer, in a random order, are read."""
    layers: list[Any] = [m for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer, k in zip(layers[1:], live, strict=True):
            off = torch.randperm(layer.in_features)[k:]
            layer.weight[:, off] = 0
    return model


def x_of(probe: Probe) -> Tensor:
    return probe.batches[0][0]


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("score", ["activity", "outgoing"])
def test_networks_that_use_few_units_become_their_mean_exactly(n: int, score: str) -> None:
    networks = [silence(network(i), (12 // n, 8 // n)) for i in range(n)]
    merged = select_neurons(networks, data(), score=score)
    torch.testing.assert_close(merged(x_of(data())), Ensemble(networks)(x_of(data())))
    assert [m.out_features for m in merged.modules() if isinstance(m, nn.Linear)] == list(SIZES[1:])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_identical_networks_are_themselves(n: int) -> None:
    one = silence(network(0), (3, 2))
    merged = select_neurons([one] * n, data())
    torch.testing.assert_close(merged(x_of(data())), one(x_of(data())))


def test_beside_dead_units_all_of_the_other_network_stays() -> None:
    alive, dead = network(0), silence(network(1), (0, 0))
    merged = select_neurons([alive, dead], data(), share="overall")
    half = (alive(x_of(data())) + dead(x_of(data()))) / 2
    torch.testing.assert_close(merged(x_of(data())), half)
    assert torch.equal(merged.fc1.weight, alive.fc1.weight)


@given(st.integers(2, 5), st.sampled_from([0.2, 0.4, 0.7]), st.sampled_from(["layer", "global"]))
def test_counts_are_the_parents(n: int, density: float, scope: Any) -> None:
    networks = [network(i, density) for i in range(n)]
    before = [Topology.of(m) for m in networks]
    merged = select_neurons(networks, data(), scope=scope)
    assert Topology.of(merged).nnz == before[0].nnz
    if scope == "layer":
        for name, connections in Topology.of(merged).items():
            assert connections.nnz == before[0][name].nnz
    assert {n: tuple(p.shape) for n, p in Topology.of(merged).items()} == {
        n: tuple(p.shape) for n, p in before[0].items()
    }


def test_without_a_budget_sparse_networks_compute_as_their_selected_units_do() -> None:
    networks = [network(i, 0.5) for i in range(2)]
    wide = [densify(copy.deepcopy(n)) for n in networks]
    sparse, full = (select_neurons(ns, data(), density=None) for ns in (networks, wide))
    torch.testing.assert_close(sparse(x_of(data())), full(x_of(data())))


def test_added_connections_change_nothing_and_the_rest_is_the_union() -> None:
    networks = [silence_sparse(network(i, 0.5)) for i in range(2)]
    free, kept = select_neurons(networks, data(), density=None), select_neurons(networks, data())
    assert Topology.of(free).nnz < Topology.of(kept).nnz
    torch.testing.assert_close(kept(x_of(data())), free(x_of(data())))


def silence_sparse(model: nn.Module) -> nn.Module:
    """Only every fourth input of each layer is read."""
    with torch.no_grad():
        for layer in (model.fc1, model.fc2, model.fc3):
            weight: Any = layer.weight
            keep = weight.columns() % 4 == 0
            index, values = weight.index[keep], weight.values[keep].detach()
            spare = torch.tensor([p for p in range(weight.size) if p not in set(index.tolist())])
            more = spare[: weight.nnz - index.numel()]
            both, order = torch.cat([index, more]).sort()
            weight.replace(both, torch.cat([values, values.new_zeros(more.numel())])[order])
    return model


@pytest.mark.parametrize("density", [None, 0.3])
def test_each_network_keeps_its_best_units_and_the_best_others_fill_up(density: float | None) -> None:
    networks = [network(i, density) for i in range(5)]  # 12 = 5 * 2 + 2, 8 = 5 * 1 + 3
    values = [{"fc1": torch.rand(12), "fc2": torch.rand(8)} for _ in networks]
    merged = select_neurons(networks, score=values, density=None)
    for name, units, row in (("fc1", 12, merged.fc1.bias), ("fc2", 8, merged.fc2.bias)):
        all_scores = torch.cat([v[name] for v in values])
        own = [v[name].argsort(descending=True)[: units // 5] + i * units for i, v in enumerate(values)]
        left = all_scores.clone()
        left[torch.cat(own)] = -1
        more = left.argsort(descending=True)[: units % 5]
        expected = torch.cat([*own, more]).sort().values
        biases = torch.cat([getattr(n, name).bias for n in networks])
        assert torch.equal(row, biases[expected])


def test_scores_computed_by_the_owners_are_as_good_as_their_data() -> None:
    networks, probes = [network(i, 0.4) for i in range(3)], [data(i) for i in range(3)]
    with_data = select_neurons(networks, probes)
    graph = trace(networks[0])
    sent = [activity(n, graph, p) for n, p in zip(networks, probes, strict=True)]
    assert_same(select_neurons(networks, score=sent), with_data)
    other = select_neurons(networks, probes[0])
    assert not torch.equal(other.fc1.bias, with_data.fc1.bias)


def assert_same(a: nn.Module, b: nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[n], right[n]) for n in left)


def test_parents_and_random_state_are_left_alone() -> None:
    networks = [network(i, 0.4).train(i == 0) for i in range(3)]
    before, state = [copy.deepcopy(n.state_dict()) for n in networks], torch.get_rng_state()
    merged = select_neurons(networks, data(), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for p in merged.parameters():
            p.add_(1)
    for n, old in zip(networks, before, strict=True):
        assert all(torch.equal(n.state_dict()[k], old[k]) for k in old)
    assert [n.training for n in networks] == [True, False, False]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_network() -> None:
    networks = [network(i, 0.3) for i in range(2)]

    def merged(seed: int) -> nn.Module:
        return select_neurons(networks, score="random", generator=torch.Generator().manual_seed(seed))

    assert_same(merged(1), merged(1))
    assert not torch.equal(merged(1).fc1.bias, merged(2).fc1.bias)


def test_files_are_merged_and_the_merge_can_be_saved(tmp_path: Path) -> None:
    networks = [network(i, 0.4) for i in range(2)]
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for n, path in zip(networks, paths, strict=True):
        save(n, path)
    merged = select_neurons(paths, data())
    assert_same(merged, select_neurons(networks, data()))
    save(merged, tmp_path / "m.safetensors")
    assert_same(load(tmp_path / "m.safetensors"), merged)


def test_a_residual_network_with_batch_normalisation() -> None:
    networks = [models.build("resnet-8", input_shape=(3, 8, 8), classes=4).eval() for _ in range(2)]
    x = torch.randn(6, 3, 8, 8)
    merged = select_neurons(networks, Probe(batches=[(x, torch.zeros(6))]))
    assert merged(x).shape == (6, 4)
    assert merged.spec == networks[0].spec
    for name, p in merged.named_parameters():
        assert p.shape == networks[0].get_parameter(name).shape


def test_dense_networks_can_become_sparse() -> None:
    merged = select_neurons([network(0), network(1)], data(), density=0.25)
    assert Topology.of(merged).nnz == sum(round(0.25 * a * b) for a, b in itertools.pairwise(SIZES))


def diverged(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.fc1.weight[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "activty"}, "unknown unit score 'activty': did you mean 'activity'"),
        ({"share": "half"}, "share is 'half', but must be 'each'"),
        ({"scope": "all"}, "scope is 'all', but must be 'layer'"),
        ({"density": 2.0}, "density is 2.0, but must be in"),
        ({"probes": None}, "'activity' needs at least one batch"),
        ({"score": [{"fc1": NAN, "fc2": torch.ones(8)}] * 2}, "scores of network 1 for 'fc1' are NaN"),
    ],
)  # fmt: skip
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_neurons([network(0), network(1)], **{"probes": data(), **options})


@pytest.mark.parametrize(
    ("networks", "error", "message"),
    [
        ([], InputError, "merge got no network"),
        ([network(0)], InputError, "needs at least two networks, but got 1"),
        (network(0), InputError, "a list of networks"),
        ([network(0), diverged(network(1))], InputError, r"'fc1\.weight' of network 2 .* NaN"),
        ([network(0), models.build("mlp:6-10-8-3").double()], MismatchError, "must share one architecture"),
        ([network(0), network(1, 0.5)], MismatchError, "all sparse or all dense"),
        ([nn.Linear(3, 2), nn.Linear(3, 2)], InputError, "has no hidden units"),
    ],
)
def test_bad_networks(networks: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        select_neurons(networks, data())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": [data()] * 3}, "got 3 probes for 2 networks"),
        ({"score": [{}]}, "got 1 scores for 2 networks"),
        ({"score": [{}, {}]}, "scores of network 1 have nothing for 'fc1', which has 12 units"),
        ({"score": [{"fc1": torch.ones(3)}] * 2}, r"network 1 have shape \(3,\) for 'fc1', which has 12"),
    ],
)  # fmt: skip
def test_probes_and_scores_must_belong_to_the_networks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        select_neurons([network(0), network(1)], **options)


def test_a_score_of_ones_own() -> None:
    def last(model: nn.Module, graph: Graph, probe: Probe | None = None) -> dict[str, Tensor]:
        return {group.name: torch.arange(group.units) for group in graph.free}

    networks = [network(0), network(1)]
    merged = select_neurons(networks, score=last)
    assert torch.equal(merged.fc2.bias, torch.cat([n.fc2.bias[4:] for n in networks]))


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.data())
def test_a_readout_of_any_size_leaves_the_total(counts: list[int], draw: st.DataObject) -> None:
    k = draw.draw(st.integers(1, sum(counts) - 1))
    own, others = for_readout({str(i): c for i, c in enumerate(counts)}, "0", k)
    assert own == {"0": k}
    assert sum(others.values()) == sum(counts) - k
    left = sum(counts[1:])
    assert all(abs(n - (sum(counts) - k) * counts[int(i)] / left) < 1 for i, n in others.items())
