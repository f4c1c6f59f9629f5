"""``set_topology``: any topology of the same shapes, or nothing at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import regraft
from regraft import SparseWeight, Topology, positions, sparsify
from regraft.errors import InputError, MismatchError
from regraft.evolve import Context, follow, set_topology
from regraft.scores import magnitude
from regraft.select import Globally


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(density: float = 0.5) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    model = sparsify(model, density=density, generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(6, 10, generator=seeded(5))).square().sum().backward()
    optimizer.step()


def entries(weight: SparseWeight, optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, ...]]:
    state = optimizer.state[weight.values]
    vectors = [weight.values.detach(), state["exp_avg"], state["exp_avg_sq"]]
    return {p: tuple(float(v[i]) for v in vectors) for i, p in enumerate(weight.index.tolist())}


def drawn(densities: dict[str, float], seed: int = 3) -> Topology:
    shapes = {"0.weight": (8, 10), "2.weight": (4, 8)}
    g = seeded(seed)
    return Topology(
        {
            n: (
                shapes[n],
                positions.sample(shapes[n][0] * shapes[n][1], round(d * shapes[n][0] * shapes[n][1]), g),
            )
            for n, d in densities.items()
        }
    )


@pytest.mark.parametrize("densities", [(0.2, 0.1), (0.9, 1.0), (0.5, 0.5), (0.0, 0.3)])
def test_survivors_keep_everything_and_new_ones_start_fresh(densities: tuple[float, float]) -> None:
    model, optimizer = trained()
    layers = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    before = {n: entries(w, optimizer) for n, w in layers.items()}
    target = drawn({"0.weight": densities[0], "2.weight": densities[1]})
    set_topology(model, optimizer, target)
    assert Topology.of(model) == target
    for n, w in layers.items():
        for p, entry in entries(w, optimizer).items():
            assert entry == before[n].get(p, (0.0, 0.0, 0.0))
    for _ in range(2):
        step(model, optimizer)
    assert Topology.of(model) == target


def test_weights_that_are_not_named_stay() -> None:
    model, optimizer = trained()
    before = entries(model[2].weight, optimizer)
    set_topology(model, optimizer, drawn({"0.weight": 0.1}))
    assert model[0].weight.nnz == 8
    assert entries(model[2].weight, optimizer) == before


def test_gradual_pruning_is_a_selection_and_a_topology() -> None:
    """Scores, a selection and set_topology make gradual magnitude pruning: the largest stay."""
    model, optimizer = trained(density=1.0)
    sizes = {"0.weight": 80, "2.weight": 32}
    for density in (0.6, 0.3, 0.1):
        kept = Globally(density)(magnitude(model), sizes)
        before = Topology.of(model)
        layers = {n: model.get_submodule(n) for n in sizes}
        fewer = Topology({n: (before[n].shape, before[n].index[kept[n]]) for n in sizes})
        values = torch.cat([w.values.detach().abs() for w in layers.values()]).sort().values
        set_topology(model, optimizer, fewer)
        assert Topology.of(model).nnz == round(density * 112)
        assert (Topology.of(model) - before).nnz == 0
        left = torch.cat([w.values.detach().abs() for w in layers.values()]).sort().values
        assert left.equal(values[-left.numel() :])
        step(model, optimizer)


@pytest.mark.parametrize("given", ["mapping", "name", "function"])
def test_new_values(given: str) -> None:
    model, optimizer = trained()
    target = drawn({"0.weight": 0.9})
    fresh = positions.difference(target["0.weight"].index, model[0].weight.index)

    def twos(weight: SparseWeight, index: Tensor, context: Context) -> Tensor:
        assert context.name == "0.weight"
        return torch.full(index.shape, 2.0)

    init: Any = {
        "mapping": {"0.weight": torch.full(fresh.shape, 2.0)},
        "name": "dense_fan_in",
        "function": twos,
    }[given]
    set_topology(model, optimizer, target, init=init, generator=seeded(1))
    values = model[0].weight.values.detach()[positions.contains(fresh, model[0].weight.index)]
    if given == "name":
        assert 0 < float(values.abs().max()) <= 10**-0.5
    else:
        assert values.equal(torch.full(fresh.shape, 2.0))


@pytest.mark.parametrize(
    ("topology", "options", "error"),
    [
        ({"0.weight": ((8, 10), [0]), "9.weight": ((4, 8), [0])}, {}, "'9.weight', but the model's sparse"),
        ({"0.weight": ((8, 10), [0]), "2.weight": ((8, 4), [0])}, {}, r"'2.weight' has shape \(8, 4\)"),
        ({"0.weight": ((8, 10), [0])}, {"init": "zeross"}, "did you mean 'zeros'"),
        (
            {"0.weight": ((8, 10), list(range(80)))},
            {"init": {"0.weight": torch.zeros(3)}},
            "3 values for '0.weight', but 22",
        ),
    ],
)
def test_all_or_nothing(topology: dict[str, Any], options: dict[str, Any], error: str) -> None:
    model, optimizer = trained(density=0.725 if "22" in error else 0.5)
    before = Topology.of(model)
    if "22" in error:
        set_topology(model, optimizer, drawn({"0.weight": 0.725}))
        before = Topology.of(model)
    target = Topology({n: (s, torch.tensor(i)) for n, (s, i) in topology.items()})
    with pytest.raises((InputError, MismatchError), match=error):
        set_topology(model, optimizer, target, **options)
    assert Topology.of(model) == before


def test_no_optimizer_and_several() -> None:
    model, _ = trained()
    set_topology(model, None, drawn({"0.weight": 0.1}))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 10)).sum().backward()
    first.step()
    second.step()
    set_topology(model, [first, second], drawn({"0.weight": 0.2, "2.weight": 0.4}))
    assert first.state[model[0].weight.values]["momentum_buffer"].shape == (16,)
    assert second.state[model[2].weight.values]["momentum_buffer"].shape == (13,)


def test_dense_model() -> None:
    with pytest.raises(InputError, match="no sparse weight"):
        set_topology(nn.Linear(2, 2), None, drawn({"0.weight": 0.1}))


class TestFollow:
    """A running average of a model whose topology changes."""

    def trained(self, follows: bool) -> tuple[nn.Module, nn.Module, list[dict[int, float]]]:
        torch.manual_seed(0)
        model = regraft.sparsify(nn.Sequential(nn.Linear(8, 6)), 0.4)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        evolver = regraft.Evolve(rate=0.3, every=2, generator=torch.Generator().manual_seed(0))
        evolver.attach(model, optimizer)
        seen = []
        for _ in range(6):
            optimizer.zero_grad()
            model(torch.randn(5, 8)).square().mean().backward()
            optimizer.step()
            evolver.step()
            if follows:
                follow(average, torch.compile(model, backend="eager"))
            average.update_parameters(model)
            weight = model[0].weight
            seen.append(dict(zip(weight.index.tolist(), weight.values.tolist(), strict=True)))
        return model, average, seen

    def test_each_connection_has_the_average_of_its_own_values_since_it_was_grown(self) -> None:
        model, average, seen = self.trained(follows=True)
        expected = dict(seen[0])
        for now in seen[1:]:
            expected = {p: 0.5 * expected[p] + 0.5 * v if p in expected else v for p, v in now.items()}
        weight = average.module[0].weight
        assert weight.index.tolist() == sorted(expected) == model[0].weight.index.tolist()
        torch.testing.assert_close(weight.values.tolist(), [expected[p] for p in sorted(expected)])

    def test_without_it_entries_are_mixed_up(self) -> None:
        kept, mixed = (self.trained(follows)[1].module[0].weight for follows in (True, False))
        assert not torch.equal(kept.dense(), mixed.dense())

    def test_averages_of_other_models_are_refused(self) -> None:
        model = regraft.sparsify(nn.Sequential(nn.Linear(8, 6)), 0.4)
        other = regraft.sparsify(nn.Sequential(nn.Linear(8, 5)), 0.4)
        with pytest.raises(MismatchError, match="make the average from a copy of the model"):
            follow(AveragedModel(other), model)
