"""Gradual pruning: the cubic by hand, exact counts, survivors bit for bit, resuming."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import nn

from regraft import SparseWeight, sparsify
from regraft.errors import InputError, MismatchError
from regraft.evolve import Shrink
from regraft.schedules import Exponential


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(density: float = 1.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 10))
    return sparsify(model, density=density, generator=seeded())


def weights(model: nn.Module) -> dict[str, SparseWeight]:
    return {n: m for n, m in model.named_modules() if isinstance(m, SparseWeight)}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, shrink: Shrink, steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 20, generator=seeded(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        shrink.step()


def rows(w: SparseWeight, optimizer: torch.optim.Optimizer) -> list[tuple[int, float, float]]:
    """(position, value, momentum) of each connection."""
    momentum = optimizer.state[w.values]["momentum_buffer"]
    return list(zip(w.index.tolist(), w.values.tolist(), momentum.tolist(), strict=True))


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_density_follows_the_papers_cubic(scope: Any) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    shrink = Shrink(0.05, every=4, total=26, start=2, scope=scope, generator=seeded()).attach(
        model, optimizer
    )
    train(model, optimizer, shrink, range(30))
    assert [done.step for done in shrink.history] == [6, 10, 14, 18, 22, 26]
    for done in shrink.history:
        # sparsity s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, Zhu and Gupta 2017, eq. 1
        sparsity = 0.95 - 0.95 * (1 - (done.step - 2) / 24) ** 3
        assert done.density == pytest.approx(1 - sparsity, abs=1 / 900)
    sizes = {n: w.nnz / w.size for n, w in weights(model).items()}
    assert sum(w.nnz for w in weights(model).values()) == 45
    assert (set(sizes.values()) == {0.05}) == (scope == "layer")
    for w in weights(model).values():
        assert optimizer.state[w.values]["exp_avg"].shape == (w.nnz,)


def test_the_smallest_go_and_the_others_stay_bit_for_bit() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    shrink = Shrink(0.3, total=3, generator=seeded()).attach(model, optimizer)
    train(model, optimizer, shrink, range(2))
    model(torch.ones(1, 20)).square().mean().backward()
    optimizer.step()
    before = {n: rows(w, optimizer) for n, w in weights(model).items()}
    assert shrink.step() is not None
    everything = sorted((abs(v), n, p) for n, there in before.items() for p, v, _ in there)
    stay = {(n, p) for _, n, p in everything[-270:]}
    for n, w in weights(model).items():
        after = rows(w, optimizer)
        assert after == [row for row in before[n] if (n, row[0]) in stay]


def test_the_floor_keeps_layers_alive() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight.values.mul_(1e-6)
    shrink = Shrink(0.1, total=1, floor=7, generator=seeded()).attach(model)
    shrink.step()
    assert model[2].weight.nnz == 7
    assert model[0].weight.nnz == 90 - 7


def test_another_shape_and_no_optimizer() -> None:
    model = network()
    shrink = Shrink(0.2, total=4, shape=Exponential(1.0, 0.0), generator=seeded()).attach(model)
    densities = [done.density for _ in range(6) if (done := shrink.step()) is not None]
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] == pytest.approx(0.2)
    assert len(densities) == 4


def test_resumes_bit_for_bit() -> None:
    def parts() -> tuple[nn.Module, torch.optim.Optimizer, Shrink]:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, Shrink(0.1, every=3, total=20, generator=seeded()).attach(model, optimizer)

    whole, killed, fresh = parts(), parts(), parts()
    train(*whole, range(24))
    train(*killed, range(11))
    for part, other in zip(killed, fresh, strict=True):
        other.load_state_dict(pickle.loads(pickle.dumps(part.state_dict())))  # noqa: S301
    train(*fresh, range(11, 24))
    assert all(v.equal(fresh[0].state_dict()[k]) for k, v in whole[0].state_dict().items())
    assert whole[2].history == fresh[2].history


def test_it_wants_to_see_nothing() -> None:
    shrink = Shrink(0.1, total=2)
    assert not shrink.watching
    with shrink.watch():
        pass
    assert repr(shrink) == "Shrink(density=0.1, every=1, total=2, start=0, scope='global')"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"density": 0.0}, "density"),
        ({"density": 1.5}, "density"),
        ({"every": 0}, "every is 0"),
        ({"total": 0}, "total is 0"),
        ({"start": 5}, "start is 5, but must be 0 or more steps, before total"),
        ({"scope": "locally"}, "unknown scope 'locally'"),
    ],
)
def test_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        Shrink(**{"density": 0.1, "total": 5, **options})


def test_errors() -> None:
    with pytest.raises(InputError, match="not attached"):
        Shrink(0.1, total=1).step()
    with pytest.raises(InputError, match=r"has density 0\.1, but should shrink to 0\.5"):
        Shrink(0.5, total=1).attach(network(0.1))
    with pytest.raises(InputError, match="holds none of the sparse weights"):
        Shrink(0.1, total=1).attach(network(), torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    with pytest.raises(MismatchError, match="not the state of a Shrink"):
        Shrink(0.1, total=1).load_state_dict({"steps": 1})
    model = network()
    with torch.no_grad():
        model[0].weight.values[3] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        Shrink(0.1, total=1).attach(model).step()
