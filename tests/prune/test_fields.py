"""Receptive fields: exact counts, even fan-ins, inputs that belong together, chains only."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from regraft import Topology, prune, sparsify
from regraft.errors import InputError, MismatchError
from regraft.probe import Probe
from regraft.prune.fields import plan


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(generator=seeded(seed))
    return model


def groups(samples: int, groups: int, each: int) -> torch.Tensor:
    """Inputs in groups: those of one group nearly equal, those of different groups independent."""
    common = torch.randn(samples, groups, generator=seeded(1)).repeat_interleave(each, dim=1)
    return common + 0.05 * torch.randn(samples, groups * each, generator=seeded(2))


class TestPlan:
    @given(
        st.lists(st.integers(1, 12), min_size=2, max_size=5),
        st.floats(0.01, 1.0),
    )
    def test_exact_and_within_the_layers(self, sizes: list[int], density: float) -> None:
        shapes = [(b, a) for a, b in pairwise(sizes)]
        total = sum(a * b for a, b in shapes)
        least = len(shapes) - 1 + sizes[-1]
        connections = max(round(density * total), least)
        if connections > total:
            return
        fans = plan(shapes, connections)
        assert sum(map(sum, fans)) == connections
        inputs = [sizes[0], *map(len, fans)]
        for layer, (width, _) in enumerate(shapes):
            assert 1 <= len(fans[layer]) <= width
            assert all(1 <= fan <= inputs[layer] for fan in fans[layer])
        assert len(fans[-1]) == sizes[-1]

    def test_full_density_is_the_dense_network(self) -> None:
        assert plan([(3, 4), (2, 3)], 18) == [[4, 4, 4], [3, 3]]

    def test_fan_ins_differ_by_one_at_most(self) -> None:
        fans = plan([(300, 784), (100, 300), (10, 100)], 2662)
        assert max(map(max, fans)) - min(map(min, fans)) <= 1

    def test_too_few(self) -> None:
        with pytest.raises(InputError, match=r"cannot reach all 10 outputs.*raise the density"):
            plan([(300, 784), (100, 300), (10, 100)], 11)


def test_each_unit_reads_one_group() -> None:
    model, x = chain(60, 30, 20, 4), groups(500, groups=6, each=10)
    topology = prune.receptive_fields(model, Probe(batches=[(x, torch.zeros(500))]), density=0.08)
    dense = torch.zeros(30 * 60)
    dense[topology["0.weight"].index] = 1
    by_group = dense.view(30, 6, 10).sum(2)
    assert bool(((by_group > 0).sum(1) <= 1).all())
    assert int((by_group > 0).sum()) == int((dense.view(30, 60).sum(1) > 0).sum()) > 1


def test_without_locality_the_largest_variances() -> None:
    """One kept unit, by hand: w^2 var(x), the inputs independent."""
    model = nn.Sequential(nn.Linear(4, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 1.0]]))
    x = torch.randn(2000, 4, generator=seeded(0)) * torch.tensor([5.0, 1.0, 1.0, 1.0])
    probe = Probe(batches=[(x[:1000], torch.zeros(1000)), (x[1000:], torch.zeros(1000))])
    topology = prune.receptive_fields(model, probe, density=0.5, locality=0)
    assert topology["0.weight"].index.tolist() == [0, 2]


def test_every_kept_unit_is_read_and_reads() -> None:
    model = chain(20, 15, 12, 10, 3)
    x = torch.randn(50, 20, generator=seeded(3))
    topology = prune.receptive_fields(model, Probe(batches=[(x, torch.zeros(50))]), density=0.1)
    alive = None
    for connections in topology.values():
        mask = torch.zeros(connections.size, dtype=torch.bool)
        mask[connections.index] = True
        mask = mask.view(connections.shape)
        if alive is not None:
            assert not bool(mask[:, ~alive].any())
        alive = mask.any(1)
    assert alive is not None
    assert bool(alive.all())


def test_the_model_is_untouched_and_the_result_repeats() -> None:
    model = chain(16, 12, 4)
    before = {n: p.clone() for n, p in model.named_parameters()}
    probe = Probe(batches=[(torch.randn(30, 16, generator=seeded(4)), torch.zeros(30))])
    first = prune.receptive_fields(model, probe, density=0.2)
    assert first == prune.receptive_fields(model, probe, density=0.2)
    assert all(torch.equal(before[n], p) for n, p in model.named_parameters())
    assert Topology.of(prune.apply(model, first)) == first


def test_constant_inputs_and_equal_weights() -> None:
    """Nothing varies: ties everywhere, decided by the generator, and the count is exact all the same."""
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
    probe = Probe(batches=[(torch.ones(5, 8), torch.zeros(5))])
    drawn = {
        tuple(
            prune.receptive_fields(model, probe, density=0.3, generator=seeded(s))["0.weight"].index.tolist()
        )
        for s in range(8)
    }
    assert len(drawn) > 1
    assert prune.receptive_fields(model, probe, density=0.3).nnz == round(0.3 * 60)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"density": 0.0}, InputError, "density"),
        ({"locality": -1.0}, InputError, "locality is -1.0, but must be a finite exponent"),
        ({"probe": Probe()}, InputError, "at least one batch"),
        ({"probe": Probe(batches=[(torch.ones(1, 8), torch.ones(1))])}, InputError, "two samples at least"),
        (
            {"probe": Probe(batches=[(torch.ones(4, 7), torch.ones(4))])},
            MismatchError,
            "cannot take samples of shape",
        ),
        (
            {"probe": Probe(batches=[(torch.full((4, 8), torch.nan), torch.ones(4))])},
            InputError,
            "not all finite",
        ),
        ({"model": nn.Sequential(nn.Conv2d(1, 2, 3))}, InputError, "does not continue a chain"),
        ({"model": nn.Sequential(nn.Linear(8, 6), nn.Linear(5, 2))}, InputError, "does not continue a chain"),
        ({"model": sparsify(nn.Sequential(nn.Linear(8, 6)), 0.5)}, InputError, "sparse already"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    arguments: dict[str, object] = {
        "model": chain(8, 6, 2), "density": 0.5,
        "probe": Probe(batches=[(torch.randn(9, 8, generator=seeded(0)), torch.zeros(9))]),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        prune.receptive_fields(**(arguments | change))  # type: ignore[arg-type]
