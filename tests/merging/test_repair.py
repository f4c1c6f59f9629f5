"""REPAIR: units of the merged network are spread as the parents' are on average."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.merging.nets import at, mlp, residual
from torch import Tensor, nn

from regraft import Topology, merge
from regraft.errors import InputError, MismatchError
from regraft.graph import Graph, Group, Slot
from regraft.merging import repair

Equal = Callable[[nn.Module, nn.Module], bool]
HIDDEN = ("0", "2")


def batches(*shape: int) -> list[Tensor]:
    return [torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) for n in (30, 20)]


@pytest.mark.parametrize("density", [None, 0.4])
@pytest.mark.parametrize("count", [2, 5])
def test_means_and_spreads_are_the_parents_averages(density: float | None, count: int) -> None:
    parents, data = [mlp(s, density=density) for s in range(count)], batches(6)
    merged = merge(parents, "average", density=None)
    repaired = repair(merged, parents, data)
    for name in HIDDEN:
        theirs = [at(p, name, data) for p in parents]
        mean = torch.stack([z.mean(1) for z in theirs]).mean(0)
        spread = torch.stack([z.std(1, correction=0) for z in theirs]).mean(0)
        mine = at(repaired, name, data)
        varies = at(merged, name, data).std(1) > 1e-6
        torch.testing.assert_close(mine.mean(1), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mine.std(1, correction=0)[varies], spread[varies], rtol=1e-5, atol=1e-5)
        assert varies.sum() > 4


def test_a_network_repaired_against_itself_does_not_change(equal: Equal) -> None:
    model = mlp(0)
    assert equal(repair(model, [model], batches(6)), model)
    assert equal(repair(model, [mlp(0), mlp(0)], batches(6)), model)


def test_repaired_again_hardly_changes() -> None:
    parents, data = [mlp(s) for s in range(3)], batches(6)
    once = repair(merge(parents, "average"), parents, data)
    again = repair(once, parents, data)
    for a, b in zip(once.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_neither_the_merged_network_nor_the_parents_change(equal: Equal) -> None:
    parents = [mlp(s).train() for s in range(2)]
    merged = merge(parents, "average").train()
    before = merge([mlp(s) for s in range(2)], "average")
    repaired = repair(merged, parents, [(x, torch.zeros(len(x))) for x in batches(6)])
    assert equal(merged, before)
    assert all(equal(p, mlp(s)) for s, p in enumerate(parents))
    assert all(m.training for p in (merged, repaired, *parents) for m in p.modules())
    assert Topology.of(repaired) == Topology.of(merged)
    assert not equal(repaired, merged)


def test_the_output_layer_stays_as_it_was() -> None:
    parents = [mlp(s) for s in range(2)]
    merged = merge(parents, "average")
    repaired = repair(merged, parents, batches(6))
    for name, tensor in merged.state_dict().items():
        assert torch.equal(repaired.state_dict()[name], tensor) == (name.startswith("4.") or "index" in name)


def test_a_scale_that_was_lost_comes_back() -> None:
    """Half the weights, then repair: the network is what it was."""
    parent, data = mlp(0), batches(6)
    shrunk = mlp(0)
    with torch.no_grad():
        for parameter in shrunk[0].parameters():  # type: ignore[index]
            parameter.mul_(0.5)
        shrunk[2].bias.add_(3.0)  # type: ignore[index]
    repaired = repair(shrunk, [parent], data)
    torch.testing.assert_close(repaired(data[0]), parent(data[0]), rtol=1e-4, atol=1e-4)


def test_a_unit_without_connections_is_shifted_only() -> None:
    parents, data = [mlp(s) for s in range(2)], batches(6)
    merged = merge(parents, "average")
    weight = merged[0].weight  # type: ignore[index]
    kept = weight.rows() != 3
    weight.replace(weight.index[kept], weight.values.detach()[kept])
    repaired = repair(merged, parents, data)
    wanted = torch.stack([at(p, "0", data)[3].mean() for p in parents]).mean()
    assert at(repaired, "0", data)[3].unique().tolist() == pytest.approx([float(wanted)], rel=1e-5)
    assert all(bool(p.isfinite().all()) for p in repaired.parameters())


def test_batch_normalisation_is_measured_anew_and_its_layers_are_left_alone() -> None:
    parents, data = [residual(s) for s in range(2)], batches(1, 5, 5)
    merged = merge(parents, "average")
    repaired = repair(merged, parents, data)
    for name in ("stem", "conv1"):
        mine, theirs = repaired.get_submodule(name).weight, merged.get_submodule(name).weight
        assert torch.equal(mine.values, theirs.values)
    for name in ("norm0", "norm1"):
        arrived = at(repaired, name, data, arriving=True)
        norm = repaired.get_submodule(name)
        torch.testing.assert_close(norm.running_mean.double(), arrived.mean(1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), arrived.var(1), rtol=1e-5, atol=1e-5)
    theirs = [at(p, "plain", data) for p in parents]
    spread = torch.stack([z.std(1, correction=0) for z in theirs]).mean(0)
    torch.testing.assert_close(at(repaired, "plain", data).std(1, correction=0), spread, rtol=1e-4, atol=1e-5)


class Untraceable(nn.Module):
    """What it computes depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(x if x.sum() > 0 else -x)))
        return y


def test_groups_may_be_stated_by_hand() -> None:
    parents = [Untraceable(), Untraceable()]
    merged, data = merge(parents, "average"), batches(6)
    with pytest.raises(InputError, match="cannot be followed"):
        repair(merged, parents, data)
    slots = (Slot("first.weight", 0, "make"), Slot("first.bias", 0, "bias"), Slot("last.weight", 1, "read"))
    repaired = repair(merged, parents, data, graph=Graph((Group("first", 5, slots),), (6,)))
    wanted = torch.stack([at(p, "first", data).std(1, correction=0) for p in parents]).mean(0)
    torch.testing.assert_close(at(repaired, "first", data).std(1, correction=0), wanted, rtol=1e-5, atol=1e-5)


def test_refuses() -> None:
    data = batches(6)
    bare = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(InputError, match="'0' has no bias, but repair must shift its units"):
        repair(bare, [bare], data)
    with pytest.raises(InputError, match="has no hidden layer, so there is nothing to repair"):
        repair(nn.Sequential(nn.Linear(6, 5)), [nn.Sequential(nn.Linear(6, 5))], data)
    with pytest.raises(InputError, match=r"repair\(merged, \[a, b\], \.\.\.\)"):
        repair(mlp(0), mlp(1), data)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs a list of the networks"):
        repair(mlp(0), [], data)
    with pytest.raises(InputError, match="repairing a network needs at least one batch"):
        repair(mlp(0), [mlp(1)], [])
    with pytest.raises(MismatchError, match=r"in parent 2 \(Sequential\)"):
        repair(mlp(0), [mlp(1), mlp(2, (6, 9, 7, 4))], data)
    with pytest.raises(MismatchError, match=r"does not take samples of shape \(5,\)"):
        repair(mlp(0), [mlp(1)], [torch.zeros(3, 5)])
