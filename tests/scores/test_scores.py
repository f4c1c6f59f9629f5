"""Scores: vectors that line up with the positions; the better connection has the higher number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regraft import SparseWeight, sparsify
from regraft import scores as family
from regraft.errors import InputError
from regraft.probe import Probe
from regraft.select import Globally


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
    return sparsify(model, density=0.4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", sorted(family.SCORES))
def test_every_score_lines_up_with_the_weights(name: str) -> None:
    model = network()
    weights = {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    g = torch.Generator().manual_seed(0)
    batch = torch.randn(6, 12, generator=g), torch.arange(6) % 5
    vectors = family.by_name(name)(model, Probe(nn.functional.cross_entropy, [batch], g))
    assert list(vectors) == list(weights)
    for n, vector in vectors.items():
        assert vector.shape == weights[n].values.shape
        assert not vector.requires_grad
        assert bool(vector.isfinite().all())


def test_magnitude_is_the_dense_weight() -> None:
    model = network()
    weight = model[0].weight
    dense = weight.dense().detach().abs().flatten()
    assert family.magnitude(model)["0.weight"].equal(dense[weight.index])


def test_magnitude_keeps_the_large_ones() -> None:
    model = network()
    sizes = {n: m.size for n, m in model.named_modules() if isinstance(m, SparseWeight)}
    kept = Globally(0.1)(family.magnitude(model), sizes)
    values = torch.cat([model[i].weight.values.detach().abs() for i in (0, 2)])
    stay = torch.cat([model[i].weight.values.detach().abs()[kept[f"{i}.weight"]] for i in (0, 2)])
    assert stay.sort().values.equal(values.sort().values[-round(0.1 * 136) :])


def test_random_follows_the_generator_only() -> None:
    model = network()
    state = torch.get_rng_state()
    a, b, c = (family.random(model, Probe(generator=torch.Generator().manual_seed(s))) for s in (1, 1, 2))
    assert all(a[n].equal(b[n]) for n in a)
    assert not a["0.weight"].equal(c["0.weight"])
    assert torch.get_rng_state().equal(state)


def test_errors() -> None:
    with pytest.raises(InputError, match="no sparse weight to score"):
        family.magnitude(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="random score draws random numbers"):
        family.random(network())
    with pytest.raises(InputError, match="did you mean 'magnitude'"):
        family.by_name("magnitud")
